"""The examples, small."""

from __future__ import annotations

import importlib.util
from types import ModuleType, SimpleNamespace

import pytest
import torch
from _compile import ROOT


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("loss", ["targets", "cross-entropy", "snntorch"])
@pytest.mark.parametrize("latency", [False, True])
def test_temporal_coding_learns(latency: bool, loss: str) -> None:
    """Ten prototypes with noise, from a network in which hardly a neuron of the output fires at the start."""
    if loss == "snntorch":
        pytest.importorskip("snntorch", reason="pip install --no-deps -r tests/libraries.txt")
    temporal = example("temporal_coding")
    torch.manual_seed(0)
    prototypes = torch.rand(10, 64).round()
    labels = torch.arange(1280) % 10
    images = (0.7 * prototypes[labels] + 0.3 * torch.rand(1280, 64)).clamp(0, 1)
    network = temporal.TemporalClassifier(64, 64, steps=12, latency=latency)
    before, _ = temporal.evaluate(network, images, labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(4):
        temporal.train_epoch(network, optimizer, images, labels, loss)
    after, when = temporal.evaluate(network, images, labels)
    assert before < 40 and after > (60 if loss == "snntorch" else 80) and 0 <= when < 12, (
        before,
        after,
        when,
    )


def test_no_spike_is_no_answer() -> None:
    temporal = example("temporal_coding")
    network = temporal.TemporalClassifier(4, 5, steps=6)
    with torch.no_grad():
        network.fc2.weight.zero_()
        network.fc2.bias.zero_()
    assert temporal.evaluate(network, torch.rand(10, 4), torch.zeros(10, dtype=torch.long)) == (0.0, 6.0)


def test_targets_cost_nothing_when_they_are_met() -> None:
    temporal = example("temporal_coding")
    out = SimpleNamespace(first_spike=torch.tensor([[12.0, 4.0, 12.0]]))
    assert temporal.target_loss(out, torch.tensor([1]), 12) == 0
    assert temporal.target_loss(out, torch.tensor([0]), 12) > 0
