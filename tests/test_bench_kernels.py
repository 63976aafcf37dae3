"""The microbenchmark: nothing wrong is timed, and a small run writes what it should."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import kernels
import pytest
import torch
from _compile import CSRC, ROOT, compile_source, cxx

from common import memory
from common.turns import ENOUGH, Turns, Yardstick, interleaved, summarise
from micro import alone, cases, family, libraries
from rivals import equals
from rivals.contenders import NEAREST, Contender, contenders, fault, lif_cuda_fused, pair, wrong
from rivals.equality import drawn


def test_a_wrong_contender_gets_no_time() -> None:
    x = torch.randn(9, 4, 50) * 0.5 + 0.3
    assert wrong(Contender("right", lif_cuda_fused), x) is None
    for run, why in (
        (lambda t: 1 - lif_cuda_fused(t), "of the spikes differ"),
        (lambda t: lif_cuda_fused(t)[1:], "instead of"),
        (lambda t: lif_cuda_fused(t).double(), "float64 instead of"),
        (lambda t: 1 / 0, "ZeroDivisionError"),
    ):
        assert why in (wrong(Contender("wrong", run), x) or "")


def test_rivals_that_are_missing_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "norse.torch", None)
    found, missing = contenders(torch.randn(3, 2, 5), compile_loop=False, rivals=True)
    names = {contender.name for contender in found} | set(missing)
    assert names >= {"lif_cuda", "eager loop", "torch.compile", *NEAREST}
    assert all(missing.values()) and "Norse" in missing
    _, missing = contenders(torch.randn(3, 2, 5), compile_loop=False, rivals=False)
    assert all(missing[name] == "not asked for" for name in NEAREST)


def test_like_is_timed_beside_like() -> None:
    """A rival stands beside a layer of this project that gives its spikes and gradients."""
    x, grad = drawn((9, 4, 50), 1.0)
    found, _ = contenders(x, compile_loop=False, rivals=True)
    by_name = {contender.name: contender for contender in found}
    for contender in found:
        assert fault(contender, x * contender.scale, grad, True) is None, contender.name
        layer = by_name[contender.beside]
        assert layer.name == "lif_cuda" or (layer.name, layer.scale) == (
            f"lif_cuda as {contender.name}",
            contender.scale,
        )
    assert {c.name for c in found if c.equal} == {name for name in NEAREST if equals.version(name)}


def test_a_rival_is_divided_by_the_layer_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def thrice_as_long(calls: dict[str, Callable[[], object]], *_: object) -> Turns:
        seconds = {name: [6.0 if name in NEAREST else 2.0 if " as " in name else 1.0] for name in calls}
        return Turns(seconds, {name: [True] for name in calls})

    monkeypatch.setattr(cases, "interleaved", thrice_as_long)
    options = argparse.Namespace(no_compile=True, no_rivals=False, seconds=0)
    installed = {name for name in NEAREST if equals.version(name)}
    for dtype, rivals in ((torch.float32, installed), (torch.bfloat16, set())):
        case = cases.Case(25, 16, 300, dtype, True)
        row = cases.run_case(case, options, torch.device("cpu"), Yardstick(0.01))
        assert NEAREST.keys() & row["seconds"].keys() == rivals, row["missing"]
        layers = {f"lif_cuda as {name}" for name in rivals}
        assert row["seconds"].keys() == {
            "copy",
            "lif_cuda",
            "eager reference",
            "eager loop",
            *rivals,
            *layers,
        }
        for name in rivals:
            assert row["beside"][name] == f"lif_cuda as {name}"
            assert row["times_of_lif_cuda"][name]["median"] == 3
            assert row["times_of_lif_cuda"][row["beside"][name]]["median"] == 2
            assert row["all_turns"][name]["times_of_lif_cuda"]["median"] == 3
        assert row["times_of_lif_cuda"]["copy"]["median"] == 1


@pytest.mark.parametrize("part", ["surrogate", "reset", "learned"])
def test_a_rival_that_differs_gets_no_time(part: str) -> None:
    """Other spikes, another gradient of x, or of what is learned."""
    if equals.version("SpikingJelly") is None:
        pytest.skip("SpikingJelly is not installed: pip install --no-deps -r tests/libraries.txt")
    right = equals.by_name('neuron.ParametricLIFNode(step_mode="m")')
    x, grad = drawn((9, 4, 50), right.scale)
    other = {
        "surrogate": replace(right, ours=right.ours.replace("Sigmoid(4.0)", "Sigmoid(3.0)")),
        "reset": replace(right, ours=right.ours.replace('reset="zero"', 'reset="subtract"')),
        "learned": replace(right, learned={"w": ("beta_logit", 1.0)}),
    }[part]
    cpu = torch.device("cpu")
    for equal, sound in ((right, True), (other, False)):
        theirs, ours = pair(equal, "SpikingJelly", cpu, learn=True)
        assert fault(ours, x, grad, True) is None
        assert (fault(theirs, x, grad, True) is None) is sound


def test_targets() -> None:
    def target(name: str, shape: tuple[int, int, int], training: bool) -> float | None:
        return cases.target_of(
            name, {"shape": shape, "training": training, "neuron_steps": shape[0] * shape[1] * shape[2]}
        )

    assert target("copy", (8, 64, 128), False) is None
    assert target("copy", (25, 128, 1000), True) == 1 / 1.15
    assert target("copy", (1000, 16, 256), True) == 1 / 1.3
    assert target("torch.compile", (8, 64, 128), True) == 2.5
    assert target("torch.compile", (16, 64, 16384), True) == 1.5
    assert target("eager loop", (1000, 16, 256), False) == 30
    assert target("Norse", (8, 64, 128), True) == 10
    assert target("lif_cuda as Norse", (8, 64, 128), True) is None
    jelly = {"library": "SpikingJelly", "shape": [25, 128, 1000], "training": True}
    assert libraries.target_of(jelly) == 4.5
    assert libraries.target_of(jelly | {"shape": [1000, 16, 256]}) == 30
    assert libraries.target_of(jelly | {"training": False}) is None
    assert libraries.target_of(jelly | {"library": "Norse"}) is None


def test_statistics() -> None:
    timing = summarise([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (timing.low, timing.median, timing.high) == (2.0, 3.0, 4.0)
    assert summarise([2.0]).median == 2.0


def test_disturbed_turns_do_not_count_where_there_are_enough_others() -> None:
    turns = Turns(
        {"a": [1.0] * 5 + [9.0] * 5, "b": [2.0] * 10},
        {"a": [True] * 5 + [False] * 5, "b": [True] * 10},
    )
    assert turns.quiet("a") == [1.0] * 5
    assert (turns.timing("a").high, turns.ratio("b", "a").low) == (1.0, 2.0)
    assert turns.ratio("b", "a", quiet=False).low < 1.0
    turns.undisturbed["a"][0] = False  # four are not enough
    assert turns.timing("a").high == 9.0 and turns.ratio("b", "a").low < 1.0


def test_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each contender has its turns, and where all are disturbed there are still ENOUGH."""
    yardstick = Yardstick(0.01)
    taken = yardstick.measure()
    assert 0 < yardstick.fastest <= taken
    assert yardstick.undisturbed(yardstick.fastest) and not yardstick.undisturbed(2 * yardstick.fastest)
    monkeypatch.setattr(yardstick, "undisturbed", lambda taken: False)
    calls = {"one": lambda: None, "other": lambda: None}
    turns = interleaved(calls, 0.0, torch.device("cpu"), yardstick)
    for name in calls:
        assert len(turns.seconds[name]) == ENOUGH and turns.quiet(name) == []
        assert turns.timing(name) == summarise(turns.seconds[name])


def test_what_is_saved_is_the_input() -> None:
    # 4 bytes a neuron-step: x. Checkpoints come with long series: 4 / K more.
    x = torch.randn(25, 8, 128)
    assert memory.saved_bytes(lif_cuda_fused, x) == x.numel() * 4
    x = torch.randn(96, 8, 128)
    assert memory.saved_bytes(lif_cuda_fused, x) == x.numel() * 4 + 2 * 8 * 128 * 4


@pytest.mark.slow
def test_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "SHAPES", [(5, 4, 40)])
    monkeypatch.setattr(alone, "SHAPES", [(5, 4, 40)])
    monkeypatch.setattr(family, "SHAPES", [(5, 4, 40)])
    path = tmp_path / "kernels.json"
    kernels.main(
        ["--seconds", "0.02", "--largest", "5000", "--no-compile", "--no-rivals", "--device", "cpu"]
        + ["--json", str(path), "--pictures", str(tmp_path)]
    )
    results = json.loads(path.read_text())
    assert len(results["cases"]) == 4
    for row in results["cases"]:
        assert {"copy", "lif_cuda", "eager loop"} <= set(row["seconds"])
        assert row["times_of_lif_cuda"]["lif_cuda"]["median"] == 1.0
        assert row["missing"].keys() == {"torch.compile", *NEAREST}
        assert all(0 <= n <= row["all_turns"][name]["turns"] for name, n in row["undisturbed_turns"].items())
    assert row["peak_bytes_per_neuron_step"] == {}  # too small to tell
    assert results["machine"] and results["commit"] and results["overhead_microseconds"]
    assert results["libraries"] == [] and len(results["family"]) == 2
    for row in results["family"]:
        assert row["missing"] == {} and {"plain", *family.TARGETS} <= set(row["seconds"])
        assert row["times_of_plain"]["plain"]["median"] == 1.0
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {f"kernels_{name}.png" for name in ("rivals", "roofline", "family", "scaling")}


@pytest.mark.slow
def test_libraries_at_their_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both sides of each row are timed, or the reason stands there; and the versions."""
    monkeypatch.setattr(libraries, "SHAPES", [(6, 2, 30)])
    path = tmp_path / "kernels.json"
    arguments = ["--seconds", "0", "--device", "cpu", "--only", "libraries", "--json", str(path)]
    kernels.main(arguments)
    results = json.loads(path.read_text())
    assert results.keys() >= {"rivals", "libraries"} and "cases" not in results
    assert results["rivals"] == {name: equals.version(name) for name in equals.PACKAGES}
    rows = results["libraries"]
    assert len(rows) == 2 * len(libraries.NEURONS)
    for row in rows:
        assert row["ours"] == equals.by_name(row["theirs"]).ours
        if row["version"] is None:
            assert "ModuleNotFoundError" in row["missing"]
        else:
            assert row["seconds"].keys() == {"theirs", "lif_cuda"} and "missing" not in row
    assert all(row["theirs"] in capsys.readouterr().out for row in rows[:1])

    broken = replace(equals.by_name("snn.Leaky(beta=0.9)"), ours="LIF()")
    monkeypatch.setattr(libraries, "by_name", lambda theirs: broken)
    kernels.main(arguments)
    assert all("missing" in row for row in json.loads(path.read_text())["libraries"])


def test_pictures_need_what_they_show(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        kernels.main(["--only", "overhead_microseconds", "--pictures", str(tmp_path)])


def test_the_gpu_script_is_a_script() -> None:
    subprocess.run(["bash", "-n", ROOT / "bench" / "gpu.sh"], check=True)


def test_peak_memory_of_a_call() -> None:
    """A call that holds 64 MiB for a moment is seen to; one that holds nothing is not."""
    cpu = torch.device("cpu")
    held = memory.peak_bytes(lambda: torch.ones(16 << 20).sum(), cpu)
    if held is None:
        pytest.skip("this system does not tell the peak of a process")
    assert 60 << 20 < held < 80 << 20
    nothing = memory.peak_bytes(lambda: None, cpu)
    assert nothing is not None and nothing < 4 << 20


def test_revisions_can_call_the_present_kernels() -> None:
    """bench/revisions.cpp, which is compiled beside the kernels of any revision."""
    compiler = cxx()
    if compiler is None:
        pytest.skip("no C++ compiler")
    source = ROOT / "bench" / "revisions.cpp"
    compile_source([compiler, "-std=c++20", "-fsyntax-only", f"-I{CSRC}", source])
