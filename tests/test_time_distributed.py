"""Modules without a state over all time steps at once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lif_cuda import LIF, ReferenceLIF, TimeDistributed
from rivals.equals import evaluated, version


def block() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 3 * 3, 5),
    )


@pytest.mark.parametrize("training", [True, False])
def test_it_is_the_module_on_time_as_batch(training: bool) -> None:
    inner = block().train(training)
    wrapped = TimeDistributed(copy.deepcopy(inner)).train(training)
    x = torch.randn(7, 3, 2, 6, 6)
    theirs, ours = (x.clone().requires_grad_() for _ in range(2))
    expected = inner(theirs.flatten(0, 1)).unflatten(0, (7, 3))
    found = wrapped(ours)
    assert torch.equal(found, expected) and found.shape == (7, 3, 5)
    grad = torch.randn_like(found)
    assert torch.equal(
        torch.autograd.grad(found, ours, grad)[0], torch.autograd.grad(expected, theirs, grad)[0]
    )
    for mine, its in zip(wrapped.module.buffers(), inner.buffers(), strict=True):
        assert torch.equal(mine, its)
    if not training:
        assert torch.equal(found, torch.stack([inner(step) for step in x]))


def test_batch_norm_is_that_of_spikingjelly() -> None:
    if version("SpikingJelly") is None:
        pytest.skip("SpikingJelly is not installed")
    from spikingjelly.activation_based import layer

    torch.manual_seed(0)
    theirs, ours = layer.SeqToANNContainer(nn.BatchNorm2d(4)), TimeDistributed(nn.BatchNorm2d(4))
    x = torch.randn(7, 3, 4, 6, 6)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.module.running_var, theirs[0].running_var)


class Seen(nn.Module):
    """Remembers what it was given."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x


def test_channels_last_stays_and_nothing_is_copied() -> None:
    seen = Seen()
    conv = nn.Conv2d(4, 8, 3, padding=1).to(memory_format=torch.channels_last)
    flat = torch.randn(6, 4, 5, 5).to(memory_format=torch.channels_last)
    x = flat.unflatten(0, (2, 3))
    out = TimeDistributed(nn.Sequential(seen, conv))(x)
    assert seen.seen.data_ptr() == flat.data_ptr()
    assert seen.seen.is_contiguous(memory_format=torch.channels_last)
    assert out.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    spikes = LIF(return_state=False)(out)
    TimeDistributed(seen)(spikes)
    assert seen.seen.data_ptr() == spikes.data_ptr()
    assert seen.seen.is_contiguous(memory_format=torch.channels_last)
    every_other = torch.randn(12, 4, 5, 5).to(memory_format=torch.channels_last).unflatten(0, (4, 3))[:, :2]
    assert torch.equal(TimeDistributed(seen)(every_other), every_other)
    assert seen.seen.is_contiguous(memory_format=torch.channels_last)


def test_batch_first_is_folded_as_well() -> None:
    x = torch.randn(3, 7, 6)
    linear = nn.Linear(6, 2)
    torch.testing.assert_close(TimeDistributed(linear)(x), linear(x))
    assert TimeDistributed(linear)(x[:0]).shape == (0, 7, 2)


@pytest.mark.parametrize("module", [LIF(), ReferenceLIF(), nn.LSTM(3, 3), nn.GRUCell(3, 3)], ids=repr)
def test_a_module_with_a_state_raises(module: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"no state, and {type(module).__name__} .module itself. has one"):
        TimeDistributed(module)
    with pytest.raises(ValueError, match=f"{type(module).__name__} .1.0. has one: it needs the time axis"):
        TimeDistributed(nn.Sequential(nn.Identity(), nn.Sequential(module)))


@pytest.mark.parametrize(
    ("library", "theirs"),
    [
        ("snnTorch", "snn.Leaky(beta=0.9)"),
        ("SpikingJelly", "neuron.LIFNode()"),
        ("Norse", "norse.LIFCell()"),
        ("Norse", "norse.LILinearCell(2, 3)"),
        ("sinabs", "layers.IAF()"),
    ],
)
def test_neurons_of_libraries_raise(library: str, theirs: str) -> None:
    if version(library) is None:
        pytest.skip(f"{library} is not installed")
    with pytest.raises(ValueError, match="module must have no state"):
        TimeDistributed(nn.Sequential(evaluated(library, theirs)))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: TimeDistributed(3), TypeError, "module must be an nn.Module, got int"),
        (lambda: TimeDistributed(nn.Identity())([1]), TypeError, "x must be a torch.Tensor, got list"),
        (lambda: TimeDistributed(nn.Identity())(torch.ones(3)), ValueError, r"x must be \[T, B, ...\]"),
        (lambda: TimeDistributed(nn.Flatten(0))(torch.ones(2, 3, 4)), ValueError, r"T \* B = 6, got \(24,\)"),
        (
            lambda: TimeDistributed(nn.AdaptiveMaxPool1d(2, True))(torch.ones(2, 3, 4, 5)),
            ValueError,
            "got tuple",
        ),
    ],
)
def test_what_is_wrong_is_named(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()
