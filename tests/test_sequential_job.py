"""bench/sequential_mnist.py and bench/recurrent.py: what they write, and that a run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sklearn", reason="scikit-learn, whose digits the job is run on, is missing")
pytest.importorskip("tqdm", reason="tqdm, which the job needs, is not installed")
pytest.importorskip("matplotlib", reason="matplotlib, which draws the pictures, is not installed")

import gpu_recurrent
import recurrent
import sequential_mnist

SMALL = ["--data", "digits", "--hidden", "24", "--batch-size", "64", "--threads", "1", "--seed", "5"]


@pytest.fixture(autouse=True)
def torch_as_before() -> Iterator[None]:
    """The job sets threads and determinism for its whole process."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def run(out: Path, *options: str) -> dict[str, Any]:
    """Run the job in this process and return its results.json."""
    sequential_mnist.main([*SMALL, "--out", str(out), *options])
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_both_backends_by_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path, "--backend", "both", "--epochs", "3", "--lr", "1e-2")
    assert found["settings"]["steps"] == 8 and found["snn"]["layer_sizes"] == [8, 24, 10]
    assert found["snn"]["parameters"] == 8 * 24 + 24 + 24 * 24 + 24 + 24 + 24 * 10 + 10
    for name in ("snn", "snn_reference"):
        assert found[name]["test_accuracy"] > 50 and 0 < found[name]["firing_rates"]["lif"] < 1
    # From the same weights on the same batches: they part by the rounding of sums.
    assert found["comparison"]["max_abs_batch_loss_difference_by_epoch"][0] < 0.1
    for name in ("training_curves.png", "spikes.png", "checkpoint_snn.pt", "checkpoint_snn_reference.pt"):
        assert (tmp_path / name).stat().st_size > 1000
    assert "test accuracy" in capsys.readouterr().out


def test_resumed_run_is_an_undisturbed_one(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", "--epochs", "2", "--schedule", "constant", "--train-limit", "300")
    options = ["--schedule", "constant", "--train-limit", "300"]
    run(tmp_path / "parts", "--epochs", "1", *options)
    parts = run(tmp_path / "parts", "--epochs", "2", "--resume", *options)
    assert parts["snn"]["loss_by_epoch"] == whole["snn"]["loss_by_epoch"]


def test_by_pixels(tmp_path: Path) -> None:
    found = run(tmp_path, "--by", "pixels", "--epochs", "1", "--train-limit", "128", "--test-limit", "64")
    assert found["settings"]["steps"] == 64 and found["snn"]["layer_sizes"] == [1, 24, 10]


@pytest.mark.slow
def test_times_are_of_verified_spikes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recurrent, "CASES", [(5, 3, 20, 4.0, None)])
    path = tmp_path / "recurrent.json"
    options = ["--threads", "1", "--seconds", "0.1", "--most-compiled", "0", "--json", str(path)]
    recurrent.main(options)
    (case,) = json.loads(path.read_text())["cases"]
    assert set(case["contenders"]) == {"lif_cuda", "loop"}
    assert case["contenders"]["loop"]["times_slower"] > 0
    wrong = recurrent.functional.recurrent_lif

    def broken(*arguments: Any, **options: Any) -> Any:
        out, state = wrong(*arguments, **options)
        out.spikes[2, 1, 3] = 1 - out.spikes[2, 1, 3]
        return out, state

    monkeypatch.setattr(recurrent.functional, "recurrent_lif", broken)
    with pytest.raises(SystemExit, match="no crossing"):
        recurrent.main(options)


def test_the_gpu_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recurrent.json"
    options = ["--device", "cpu", "--shapes", "tiny", "--seconds", "0.05", "--json", str(path)]
    assert gpu_recurrent.main(options) == 0
    found = json.loads(path.read_text())
    assert len(found["rows"]) == len(gpu_recurrent.TINY) and not found["wrong"]
    monkeypatch.setattr(gpu_recurrent, "verify", lambda *_: (_ for _ in ()).throw(AssertionError("wrong")))
    assert gpu_recurrent.main(options) == 1
    assert json.loads(path.read_text())["wrong"]
