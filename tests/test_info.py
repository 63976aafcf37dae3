"""``python -m lif_cuda info``: the facts, the self-check, the word about a missing CUDA half."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lif_cuda import LIF, __version__, _build_facts, info
from lif_cuda.__main__ import main


@pytest.fixture
def cpu_build(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Pretend that the build has no CUDA half, beside a torch with the CUDA version given."""

    def pretend(torch_cuda: str | None) -> None:
        facts: Any = {
            **_build_facts.facts(),
            "kind": "cpu",
            "cuda": None,
            "cuda_archs": None,
            "no_cuda_because": "no CUDA compiler (nvcc) was found",
        }
        monkeypatch.setattr(_build_facts, "facts", lambda: facts)
        monkeypatch.setattr(torch.version, "cuda", torch_cuda)

    return pretend


def test_facts() -> None:
    facts = _build_facts.facts()
    assert facts["kind"] in ("cpu", "cuda")
    assert facts["compiler"].split()[0] in ("g++", "clang")
    assert facts["cpp_standard"] >= 201703
    assert facts["simd_levels"][0] == "baseline"
    assert facts["simd"] in facts["simd_levels"]
    assert facts["simd_best"] in facts["simd_levels"]
    assert (facts["kind"] == "cuda") == (facts["cuda"] is not None)
    assert (facts["kind"] == "cuda") == (facts["no_cuda_because"] is None)
    assert (facts["kind"] == "cuda") == (facts["cuda_archs"] is not None)


def test_libraries_lie_together() -> None:
    folder = _build_facts.library_folder()
    names = [path.name for path in _build_facts.kernel_libraries()]
    cuda = ["_kernels_cuda.so"] if _build_facts.facts()["kind"] == "cuda" else []
    assert names == ["_kernels.so", *cuda]
    assert all((folder / name).is_file() for name in names)


def test_operator_libraries_hold_no_python() -> None:
    for library in _build_facts.kernel_libraries():
        content = library.read_bytes()
        assert b"PyInit_" not in content
        assert b"libtorch_python" not in content


def test_libraries_are_found_from_the_source_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = _build_facts.library_folder()
    monkeypatch.setattr(_build_facts, "__file__", str(tmp_path / "_build_facts.py"))
    assert _build_facts.library_folder.__wrapped__().resolve() == installed


def test_libraries_of_an_editable_install_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages" / _build_facts.EDITABLE_FOLDER
    folder.mkdir(parents=True)
    (folder / "_kernels.so").touch()
    info = folder.parent / "lif_cuda-0.1.0.dist-info"
    info.mkdir()
    found = [_build_facts.metadata.Distribution.at(info)]
    monkeypatch.setattr(_build_facts, "__file__", str(tmp_path / "source" / "_build_facts.py"))
    monkeypatch.setattr(_build_facts.metadata, "distributions", lambda **kwargs: found)
    assert _build_facts.library_folder.__wrapped__() == folder


def test_no_libraries_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_build_facts, "__file__", str(tmp_path / "_build_facts.py"))
    monkeypatch.setattr(_build_facts.metadata, "distributions", lambda **kwargs: [])
    with pytest.raises(ImportError, match="no compiled libraries.*pip install"):
        _build_facts.library_folder.__wrapped__()


def test_the_wrong_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_build_facts, "library_folder", lambda: tmp_path)
    with pytest.raises(ImportError, match="another version.*pip install --force-reinstall"):
        _build_facts.facts.__wrapped__()


def test_cuda_missing_reason(cpu_build: Callable[[str | None], None]) -> None:
    cpu_build("13.0")
    reason = _build_facts.cuda_missing_reason()
    assert reason is not None
    for part in (
        f"torch {torch.__version__} has CUDA 13.0",
        "no CUDA compiler (nvcc) was found",
        "install a CUDA 13.0 toolkit with nvcc",
        "LIF_CUDA_BUILD=cuda pip install --force-reinstall --no-deps .",
    ):
        assert part in reason


def test_nothing_is_missing_beside_a_torch_without_cuda(
    cpu_build: Callable[[str | None], None],
) -> None:
    cpu_build(None)
    assert _build_facts.cuda_missing_reason() is None


def test_nothing_is_missing_from_a_cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: Any = {**_build_facts.facts(), "kind": "cuda"}
    monkeypatch.setattr(_build_facts, "facts", lambda: facts)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert _build_facts.cuda_missing_reason() is None


def test_info_passes_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    facts = _build_facts.facts()
    for part in (
        __version__,
        facts["compiler"],
        f"built against  torch {facts['torch']}",
        f"{facts['simd']} in use",
        str(torch.__version__),
        f"{torch.get_num_threads()} of",
        "lif_cuda::lif_forward (CPU",
        "cpu torch.float32: equals the reference",
        "cpu torch.float64: equals the reference",
    ):
        assert part in out


def test_info_warns_about_a_missing_half(
    cpu_build: Callable[[str | None], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cpu_build("13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert info.main() == 0
    captured = capsys.readouterr()
    assert f"WARNING: {_build_facts.cuda_missing_reason()}" in captured.err
    assert "none: no CUDA compiler (nvcc) was found" in captured.out


def test_info_fails_where_a_kernel_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(info, "operator_keys", lambda: {"lif_cuda::lif_forward": []})
    assert info.main() == 1
    assert "lif_cuda::lif_forward has kernels for []" in capsys.readouterr().out


def test_the_check_covers_spikes_and_silence() -> None:
    check = info.self_check("cpu", torch.float32)
    assert check.passed
    generator = torch.Generator().manual_seed(0)
    spikes = LIF(67, return_state=False)(torch.randn(25, 4, 67, generator=generator))
    assert 0.02 < float(spikes.mean()) < 0.98


@pytest.mark.parametrize("part", ["spikes", "membrane", "x", "initial membrane", "beta_logit"])
def test_the_check_notices_a_difference(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = info._run

    def lying(layer: Any, x: Tensor, membrane: Tensor) -> dict[str, Tensor]:
        results = honest(layer, x, membrane)
        if isinstance(layer, LIF):
            name = part if part in results else next(n for n in results if n.endswith(f" {part}"))
            results[name] = results[name].clone()
            results[name].view(-1)[3] += 0.25
        return results

    monkeypatch.setattr(info, "_run", lying)
    check = info.self_check("cpu", torch.float32)
    assert not check.passed
    assert len(check.differs) == 1
    assert check.differs[0].endswith(part)


def test_an_error_in_the_check_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(layer: Any, x: Tensor, membrane: Tensor) -> dict[str, Tensor]:
        raise RuntimeError("no kernels here")

    monkeypatch.setattr(info, "_run", broken)
    assert info.main() == 1
    assert "DIFFERS: RuntimeError: no kernels here" in capsys.readouterr().out


def test_the_command_line() -> None:
    command = [sys.executable, "-P", "-W", "ignore", "-m", "lif_cuda"]
    done = subprocess.run([*command, "info"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CUDA kernels" in done.stdout
    # As by `head`: nobody reads any more when there is something to print.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "info"], **pipes) as cut:
        assert cut.stdout is not None and cut.stderr is not None
        cut.stdout.close()
        assert cut.stderr.read() == b""
    assert cut.returncode == 1
    unknown = subprocess.run([*command, "inform"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "invalid choice" in unknown.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LIF_CUDA_SIMD", "baseline", "baseline in use"),
        ("LIF_CUDA_AUTOGRAD", "python", "recorded in Python, as LIF_CUDA_AUTOGRAD=python asks"),
        ("LIF_CUDA_AUTOGRAD", "cpp", "recorded in C++\n"),
        ("LIF_CUDA_DISPATCHER", "auto", "recorded in C++\n"),
        ("LIF_CUDA_DISPATCHER", "always", "each operator through the dispatcher"),
    ],
)
def test_what_the_environment_asks_for(variable: str, value: str, said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-W", "ignore", "-m", "lif_cuda", "info"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", variable: value},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout


def test_another_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = info._build_facts.facts() | {"torch": "2.11.0"}
    monkeypatch.setattr(info._build_facts, "facts", lambda: facts)
    monkeypatch.setattr(info._build_facts, "node_module", lambda: None)
    assert "built against another torch" in dict(info.report())["autograd"]
