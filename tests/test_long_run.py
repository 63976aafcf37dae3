"""The long comparisons, made short: they count what they compare, and end at a difference."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import long_run
import pytest
from _compile import ROOT

SHORT = ["numbers", "--neuron-steps", "1e4", "--quiet"]


@pytest.fixture(autouse=True)
def small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_run, "SIZE", (9.0, 11.0))
    monkeypatch.setattr(long_run, "NEURONS", (6.0, 8.0))


def test_numbers(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    shares = ["--backward-share", "0.5", "--double-share", "0.5"]
    assert long_run.main([*SHORT, *shares, "--json", str(path)]) == 0
    log = json.loads(path.read_text())
    assert log["differences"] == 0
    assert log["neuron_steps"] == sum(tally["neuron_steps"] for tally in log["of"].values()) >= 1e4
    assert 0 < log["spikes"] < log["neuron_steps"]


@pytest.mark.parametrize("backward_share", ["0", "1"])
def test_a_difference_ends_the_run(
    backward_share: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = long_run.functional.lif

    def lying(*arguments: Any, **options: Any) -> Any:
        outputs, state = honest(*arguments, **options)
        spikes = outputs.spikes if len(options["output"]) > 1 else outputs
        first = (0,) * spikes.dim()
        spikes.detach()[first] += 1
        return outputs, state

    monkeypatch.setattr(long_run.functional, "lif", lying)
    path = tmp_path / "log.json"
    options = ["--first-seed", "3", "--backward-share", backward_share]
    assert long_run.main([*SHORT, *options, "--json", str(path)]) == 1
    assert "again: python -P tools/long_run.py numbers --neuron-steps 1 --first-seed 3" in (
        capsys.readouterr().err
    )
    log = json.loads(path.read_text())
    assert log["differences"] == 1
    assert log["first_difference"]["seed"] == 3
    assert "spikes: 1 of" in log["first_difference"]["message"]


@pytest.mark.slow
def test_fuzz(tmp_path: Path) -> None:
    # A process of its own: the number of cases is read where test_fuzz.py defines its tests.
    path = tmp_path / "log.json"
    command = [sys.executable, "-P", str(ROOT / "tools" / "long_run.py"), "fuzz", "--cases", "5", "--quiet"]
    done = subprocess.run([*command, "--json", str(path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    log = json.loads(path.read_text())
    assert log["result"] == "passed"
    assert all(cases >= 5 for cases in log["cases"].values())
