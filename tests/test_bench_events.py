"""The benchmarks of what is driven by spikes run, verify first, and write what they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import events
import pytest
import spike_conv
import torch
from torch import Tensor

from lif_cuda import SpikeConv2d


@pytest.mark.slow
def test_events_are_timed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    small = ["--sizes", "16", "70", "--rates", "0.05", "0.6", "--rows", "64", "--seconds", "0.01"]
    events.main([*small, "--out", str(tmp_path)])
    found = json.loads((tmp_path / "events.json").read_text())["results"]
    assert [(r["size"], r["rate"]) for r in found] == [(16, 0.05), (16, 0.6), (70, 0.05), (70, 0.6)]
    for result in found:
        for way in events.WAYS:
            assert all(ms > 0 for ms in result[way]["milliseconds"].values())
            assert result[way]["times_faster"]["events"]["median"] > 0
    assert (tmp_path / "events.png").stat().st_size > 10_000
    assert "spikes as float32 / as bits" in capsys.readouterr().out


def test_large_sizes_have_fewer_rows() -> None:
    assert events.rows_of(256, 6400) == 6400 and events.rows_of(4096, 6400) == 400


def test_nothing_is_timed_over_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(spikes: Any, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.nn.functional.linear(spikes.dense() if hasattr(spikes, "dense") else spikes, weight) + 1

    monkeypatch.setattr(events, "spike_linear", wrong)
    with pytest.raises(SystemExit, match="events and dense differ"):
        events.contenders(64, 16, 0.1, train=False)
    monkeypatch.setattr(SpikeConv2d, "forward", lambda layer, x: torch.nn.Conv2d.forward(layer, x) + 1)
    with pytest.raises(SystemExit, match="events and torch differ"):
        spike_conv.contenders((2, 3, 4, 6), 3, 0.1, train=False)


@pytest.mark.slow
def test_convolutions_are_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spike_conv.main(["--shapes", "2,3,4,6", "--rates", "0.1", "--seconds", "0.01", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "spike_conv.json").read_text())["results"]
    assert [(r["kernel"], r["shape"]) for r in found] == [(3, [2, 3, 4, 6]), (5, [2, 3, 4, 6])]
    assert "3 x 3, [2, 3, 4, 6], 10%" in capsys.readouterr().out
