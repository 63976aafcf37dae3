"""The encoders, against what they say and against the libraries."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lif_cuda.encoding import delta, latency, rate
from rivals.equals import version


def needs(library: str) -> None:
    if version(library) is None:
        pytest.skip(f"{library} is not installed: pip install --no-deps -r tests/libraries.txt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_rates_are_probabilities(dtype: torch.dtype) -> None:
    x = torch.linspace(0, 1, 5, dtype=dtype, requires_grad=True)
    spikes = rate(x, 4000, generator=torch.Generator().manual_seed(0))
    assert spikes.shape == (4000, 5) and spikes.dtype == dtype and not spikes.requires_grad
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(spikes.double().mean(0), x.detach().double(), atol=0.03, rtol=0)
    again = rate(x, 4000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, spikes)
    assert not torch.equal(rate(x, 4000, generator=torch.Generator().manual_seed(1)), spikes)
    torch.manual_seed(3)
    first = rate(x, 9)
    torch.manual_seed(3)
    assert torch.equal(rate(x, 9), first)


def test_rate_is_snntorchs() -> None:
    """With the same random numbers, even: both ask for those of all steps at once."""
    needs("snnTorch")
    from snntorch import spikegen

    x = torch.rand(3, 7)
    torch.manual_seed(0)
    expected = spikegen.rate(x, num_steps=6)
    torch.manual_seed(0)
    assert torch.equal(rate(x, 6), expected)


def test_latency_is_one_spike_each() -> None:
    x = torch.tensor([[1.0, 0.5, 0.0]])
    spikes = latency(x, 5)
    assert spikes.shape == (5, 1, 3) and spikes.sum(0).tolist() == [[1, 1, 1]]
    assert spikes.argmax(0).tolist() == [[0, 2, 4]]
    quiet = latency(x, 5, threshold=0.25, silent=True)
    assert quiet.sum(0).tolist() == [[1, 1, 0]] and torch.equal(quiet[..., :2], spikes[..., :2])
    assert latency(x, 0).shape == (0, 1, 3) and latency(x[:0], 4).shape == (4, 0, 3)


@pytest.mark.parametrize("silent", [False, True])
def test_latency_is_snntorchs(silent: bool) -> None:
    needs("snnTorch")
    from snntorch import spikegen

    x = torch.linspace(0, 1, 301)
    linear = spikegen.latency(x, num_steps=12, threshold=0.05, normalize=True, linear=True, clip=silent)
    # It takes the time of what lies below the threshold to be that of the threshold.
    above = x >= 0.05
    assert torch.equal(latency(x, 12, threshold=0.05, silent=silent)[:, above], linear[:, above])
    charged = spikegen.latency(x, num_steps=400, threshold=0.05, tau=5, clip=silent, bypass=True)
    found = latency(x, 400, threshold=0.05, tau=5.0, silent=silent)
    above = x > 0.05 + 1e-6
    assert torch.equal(found[:, above], charged[:, above])
    assert found[:-1, x < 0.05].sum() == 0 and found[-1, x < 0.05].sum() == (0 if silent else 15)


def test_latency_is_spikingjellys() -> None:
    needs("SpikingJelly")
    from spikingjelly.activation_based import encoding

    x = torch.linspace(0, 1, 301)
    encoder = encoding.LatencyEncoder(9)
    assert torch.equal(latency(x, 9), torch.stack([encoder(x) for _ in range(9)]))


@pytest.mark.parametrize("off_spikes", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_delta_is_snntorchs(off_spikes: bool, first: bool) -> None:
    needs("snnTorch")
    from snntorch import spikegen

    x = torch.randn(20, 3, 5)
    expected = spikegen.delta(x, threshold=0.5, padding=not first, off_spike=off_spikes)
    found = delta(x, 0.5, off_spikes=off_spikes, first=first)
    assert torch.equal(found, expected)
    assert set(found.unique().tolist()) == ({-1.0, 0.0, 1.0} if off_spikes else {0.0, 1.0})
    assert delta(x[:0], 0.5).shape == (0, 3, 5)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda x: rate(x.tolist(), 3), TypeError, "x must be a torch.Tensor, got list"),
        (lambda x: rate(x.long(), 3), TypeError, "x must be a floating point tensor, got torch.int64"),
        (lambda x: rate(2 * x, 3), ValueError, r"x must lie in \[0, 1\], got values from 0 to 2"),
        (lambda x: rate(x - 1, 3), ValueError, "got values from -1 to 0"),
        (lambda x: rate(x * torch.nan, 3), ValueError, "got values from nan"),
        (lambda x: rate(x, -1), ValueError, "steps must be at least 0"),
        (lambda x: latency(x, 2.5), TypeError, "steps must be an int"),
        (lambda x: latency(x, 3, tau=2.0), ValueError, "tau needs threshold"),
        (lambda x: latency(x, 3, silent=True), ValueError, "silent needs threshold"),
        (lambda x: latency(x, 3, threshold=1.0), ValueError, "threshold must be below 1"),
        (lambda x: latency(x, 3, threshold=0.1, tau=0.0), ValueError, "tau must be above 0"),
        (lambda x: delta(x[0], 0.1), ValueError, "x must have a time axis"),
        (lambda x: delta(x, 0.0), ValueError, "threshold must be above 0"),
        (lambda x: delta(x, "a"), TypeError, "threshold must be a number, got str"),
        (lambda x: delta(x, 0.1, off_spikes=1), TypeError, "off_spikes must be True or False"),
    ],
)
def test_what_is_wrong_is_named(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call(torch.linspace(0, 1, 3))


def test_losses_of_snntorch_take_our_outputs() -> None:
    """Spikes and membranes are [T, B, classes], as its losses want them, and gradients come back."""
    needs("snnTorch")
    from snntorch import functional as sf

    from lif_cuda import LIF

    layer = LIF(beta=0.9, output=("spikes", "trace"))
    targets = torch.tensor([1, 0, 3])
    for loss, output in (
        (sf.ce_rate_loss(), "spikes"),
        (sf.ce_count_loss(), "spikes"),
        (sf.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2), "spikes"),
        (sf.ce_max_membrane_loss(), "trace"),
        (sf.mse_membrane_loss(), "trace"),
        (sf.ce_temporal_loss(), "spikes"),
        (sf.mse_temporal_loss(target_is_time=False), "spikes"),
    ):
        x = (2 * torch.rand(9, 3, 4)).requires_grad_()
        out, _ = layer(x)
        (gradient,) = torch.autograd.grad(loss(getattr(out, output), targets).sum(), x)
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0, loss
    found = sf.accuracy_rate(layer(x)[0].spikes, targets)
    assert 0 <= found <= 1
