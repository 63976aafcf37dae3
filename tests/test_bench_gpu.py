"""bench/gpu.sh without a GPU: its options, its stages, and how it runs them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpu_run
import pytest
import torch
from _compile import ROOT

from on_gpu import stages

SCRIPT = ROOT / "bench" / "gpu.sh"
H200 = {"device": "NVIDIA H200", "commit": "c0ffee"}


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """bench/gpu.sh by this interpreter."""
    return subprocess.run(
        ["bash", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        check=False,
    )


def plan(tmp_path: Path, **changes: Any) -> stages.Plan:
    """A run on a machine that has all it needs."""
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "scratch").mkdir(exist_ok=True)
    made = stages.Plan(
        out=tmp_path / "out",
        site=tmp_path / "site",
        scratch=tmp_path / "scratch",
        python=sys.executable,
        data=tmp_path,
        sanitizer="/opt/compute-sanitizer",
        profiler="/opt/ncu",
    )
    return dataclasses.replace(made, **changes)


# Options


def test_help_names_every_stage_and_option() -> None:
    done = script("--help")
    assert done.returncode == 0
    for word in (*stages.NAMES, "--only", "--data", "--wheels", "--out", "--rehearse"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--reh"], "unrecognized arguments: --reh"),
        (["--only", "everything"], "invalid choice: 'everything'"),
        (["--data", "/no/such/folder"], "--data: /no/such/folder is not a folder"),
        (["--wheels", "/no/such/folder"], "--wheels: /no/such/folder is not a folder"),
        (["--out", str(SCRIPT)], "is not a folder"),
        (["--rehearse"], "needs --out"),
    ],
)
def test_wrong_options_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        gpu_run.parsed(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_only_may_be_repeated(tmp_path: Path) -> None:
    options = gpu_run.parsed(["--only", "kernels", "--only", "report", "--out", str(tmp_path)])
    assert options.only == ["kernels", "report"] and options.out == tmp_path


def test_the_script_passes_options_and_status_on() -> None:
    done = script("--only", "everything")
    assert done.returncode == 2 and "bench/gpu.sh: error: argument --only" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_nothing_is_run(tmp_path: Path) -> None:
    done = script("--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "sees no CUDA device; --rehearse" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


# Stages


def test_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIF_CUDA_DATA", raising=False)
    made = {stage.name: stage for stage in stages.stages(plan(tmp_path))}
    assert tuple(made) == stages.NAMES
    assert not any(stage.skipped or stage.impossible for stage in made.values())
    assert made["build"].environment == {"LIF_CUDA_BUILD": "cuda"}
    assert {"--no-build-isolation", "--no-deps"} <= set(made["build"].command)
    assert "-n" in made["tests"].command and "6" in made["tests"].command
    for tool in stages.SANITIZERS:
        assert made[tool].limit == 40 and tool in made[tool].command
        assert made[tool].command[-2:] == ("-k", "sanitizer")
    assert made["kernels"].command[made["kernels"].command.index("--device") + 1] == "cuda"


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without data MNIST is skipped; without the sanitizers there is nothing to call a pass."""
    monkeypatch.delenv("LIF_CUDA_DATA", raising=False)
    made = {s.name: s for s in stages.stages(plan(tmp_path, data=None, sanitizer=None, profiler=None))}
    assert "no ncu" in made["profile"].impossible
    assert "--data" in made["mnist"].skipped
    assert "compute-sanitizer" in made["memcheck"].impossible
    monkeypatch.setenv("LIF_CUDA_DATA", str(tmp_path))
    made = {s.name: s for s in stages.stages(plan(tmp_path, data=None))}
    assert not made["mnist"].skipped and str(tmp_path) in made["mnist"].command


def test_a_rehearsal_stays_on_the_cpu(tmp_path: Path) -> None:
    for stage in stages.stages(plan(tmp_path, rehearse=True, sanitizer=None, profiler=None)):
        assert "cuda" not in stage.command and "cuda" not in stage.environment.values()
        assert bool(stage.skipped) == (stage.name in (*stages.SANITIZERS, "profile"))


def test_rivals_come_from_the_folder_of_wheels(tmp_path: Path) -> None:
    assert "no wheel of spikingjelly" in stages.rivals(plan(tmp_path), tmp_path).impossible
    (tmp_path / "spikingjelly-2.0.0-py3-none-any.whl").touch()
    stage = stages.rivals(plan(tmp_path), tmp_path)
    assert {"--no-index", "--no-deps", "--find-links", "--target"} <= set(stage.command)
    assert stage.command[-1] == "spikingjelly"


def test_sources_are_known_again(tmp_path: Path) -> None:
    for folder in ("build_backend", "csrc", "lif_cuda"):
        (tmp_path / folder).mkdir()
    for name in ("setup.py", "pyproject.toml", "csrc/a.cu"):
        (tmp_path / name).write_text("one")
    before = stages.sources_digest(tmp_path)
    (tmp_path / "csrc" / "a.so").write_text("built")
    assert stages.sources_digest(tmp_path) == before
    (tmp_path / "csrc" / "a.cu").write_text("two")
    assert stages.sources_digest(tmp_path) != before


# Running them


def fake(name: str, code: str, **changes: Any) -> stages.Stage:
    """A stage that runs a line of Python."""
    return stages.Stage(name, 30, (sys.executable, "-c", code), **changes)


def run_fakes(
    monkeypatch: pytest.MonkeyPatch, made: stages.Plan, fakes: list[stages.Stage], *names: str
) -> tuple[int, list[dict[str, Any]]]:
    """The exit status of these stages, and what stages.json says of them."""
    monkeypatch.setattr(gpu_run, "stages", lambda plan: fakes)
    monkeypatch.setattr(gpu_run, "_facts", lambda plan: dict(H200))
    status = gpu_run.Run(made, names or [stage.name for stage in fakes]).all()
    return status, json.loads((made.out / "stages.json").read_text())["stages"]


def test_a_failing_stage_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path)
    fakes = [
        fake("info", "import sys; print('first'); sys.exit(3)"),
        fake("tests", "import time; time.sleep(60)", environment={"A": "1"}),
        fake("memcheck", "", impossible="no such tool"),
        fake("kernels", "import os; print('last', os.environ['B'])", environment={"B": "seen"}),
    ]
    fakes[1] = dataclasses.replace(fakes[1], limit=1)
    status, ends = run_fakes(monkeypatch, made, fakes)
    assert status == 1
    assert [end.get("exit") for end in ends] == [3, gpu_run.TIMED_OUT, None, 0]
    assert ends[2]["impossible"] == "no such tool" and ends[1]["seconds"] < 20
    log = (made.out / "log.txt").read_text()
    assert log.index("first") < log.index("== tests: exit 124") < log.index("last seen")


def test_all_passed_or_skipped_is_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path)
    result = made.scratch / "made.json"
    write = f"open({str(result)!r}, 'w').write('{{}}')"
    fakes = [
        fake("mnist", write, result=result, leaves="mnist.json"),
        fake("info", "", skipped="nothing to do"),
    ]
    (made.out / "mnist.json").write_text("of an earlier run")
    status, ends = run_fakes(monkeypatch, made, fakes)
    assert status == 0 and ends[0]["stage"] == "info" and (made.out / "mnist.json").read_text() == "{}"
    # One that fails leaves no older result either.
    run_fakes(monkeypatch, made, [fake("mnist", "1 / 0", result=result, leaves="mnist.json")])
    assert "ZeroDivisionError" in (made.out / "log.txt").read_text()


def test_the_whole_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_run, "TOTAL", gpu_run.FOR_REPORT)
    status, ends = run_fakes(monkeypatch, plan(tmp_path), [fake("info", ""), fake("report", "print('made')")])
    assert status == 1 and "were over" in ends[0]["impossible"] and ends[1]["exit"] == 0


def test_after_a_failed_build_nothing_else_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is installed elsewhere is not what was to be measured; nor is a build of other sources."""
    made = plan(tmp_path)
    fakes = [fake("build", "1 / 0"), fake("info", ""), fake("report", "")]
    status, ends = run_fakes(monkeypatch, made, fakes)
    assert status == 1 and ends[1]["impossible"] == "the build failed" and ends[2]["exit"] == 0
    build = fake("build", f"import os; os.mkdir({str(made.site)!r})")
    assert run_fakes(monkeypatch, made, [build, *fakes[1:]])[0] == 0
    assert run_fakes(monkeypatch, made, fakes[1:], "info")[0] == 0
    monkeypatch.setattr(gpu_run, "sources_digest", lambda: "others")
    _, ends = run_fakes(monkeypatch, made, fakes[1:], "info")
    assert next(end for end in ends if end["stage"] == "info")["impossible"].startswith(
        "the build is of other"
    )


def test_single_stages_add_to_an_earlier_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path)
    fakes = [fake("info", "print('one')"), fake("tests", "print('two')")]
    run_fakes(monkeypatch, made, fakes)
    _, ends = run_fakes(monkeypatch, made, fakes, "tests")
    assert [(end["stage"], end.get("earlier", False)) for end in ends] == [("info", True), ("tests", False)]
    assert (made.out / "log.txt").read_text().count("two") >= 2
    # Not to one of another commit.
    assert gpu_run.earlier(made, H200 | {"commit": "other"}, ["tests"]) == []
    assert gpu_run.earlier(dataclasses.replace(made, rehearse=True), H200, ["tests"]) == []


def test_what_a_command_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    child = f"import time; time.sleep(3); open({str(mark)!r}, 'w')"
    code = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    )
    began = time.monotonic()
    status = gpu_run.run_limited((sys.executable, "-c", code), 1, tmp_path / "log", {})
    assert status == gpu_run.TIMED_OUT and time.monotonic() - began < 10
    time.sleep(3)
    assert not mark.exists()
    assert gpu_run.run_limited(("/no/such/command",), 1, tmp_path / "log", {}) == 127


def test_long_logs_keep_their_ends() -> None:
    stage = fake("tests", "pass")
    text = gpu_run.log_of(stage, {"exit": 0}, "begin" + "x" * 2 * gpu_run.MOST_LOG + "end")
    assert text.startswith("== tests: exit 0\n$ ") and "characters left out" in text
    assert "begin" in text and text.endswith("end\n\n") and len(text) < gpu_run.MOST_LOG + 1000
    assert "left out" not in gpu_run.log_of(stage, {"exit": 0}, "short")


@pytest.mark.slow
def test_a_rehearsal(tmp_path: Path) -> None:
    """The script itself: a stage that computes, and the report of it, in at most eight files."""
    out = tmp_path / "out"
    done = script("--rehearse", "--only", "info", "--only", "mnist", "--only", "report", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in out.iterdir()}
    assert {"report.md", "report.json", "stages.json", "log.txt", "mnist.json"} == names and len(names) <= 8
    assert "This is a rehearsal" in (out / "report.md").read_text()
