"""Run a neuron of another library and the layer that is to equal it, and say what tells them apart."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import lif_cuda
from rivals.equals import Equal

Run = Callable[[Tensor], Tensor]

# Other roundings move a membrane by some units of its last place: a spike may differ where the membrane is as
# close to its threshold as this, and values that are no spikes may be as far apart.
CLOSE = 4e-6
# The distance of two gradients, relative to the length of the one: of x, where surrogates are of membranes
# that differ in their last places; and of what is learned, which is a sum over all steps and samples of terms
# that cancel, in another order.
GRADIENTS_APART = 2e-5
LEARNED_APART = 5e-4


def drawn(shape: tuple[int, int, int], scale: float) -> tuple[Tensor, Tensor]:
    """x [T, B, N] and a gradient of the spikes."""
    generator = torch.Generator().manual_seed(0)
    x = scale * (torch.randn(shape, generator=generator) * 0.5 + 0.15)
    return x, torch.randn(shape, generator=generator)


def runner(library: str, neuron: Any) -> Run:
    """All T steps of a neuron of a library, from a state of zeros: x [T, B, N] to spikes [T, B, N]."""
    return functools.partial(_RUNNERS[library], neuron)


def layer_runner(layer: nn.Module) -> Run:
    """The same of a layer of lif_cuda, without the state that it returns."""

    def run(x: Tensor) -> Tensor:
        out = layer(x)
        spikes: Tensor = out if isinstance(out, Tensor) else out[0]
        return spikes

    return run


def _snntorch(neuron: Any, x: Tensor) -> Tensor:
    state = neuron.reset_mem()
    state = (state,) if isinstance(state, Tensor) else state
    spikes = []
    for current in x.unbind(0):
        spike, *state = neuron(current, *state)
        spikes.append(spike)
    return torch.stack(spikes)


def _spikingjelly(neuron: Any, x: Tensor) -> Tensor:
    neuron.reset()
    spikes: Tensor = (
        neuron(x) if neuron.step_mode == "m" else torch.stack([neuron(step) for step in x.unbind(0)])
    )
    return spikes


def _norse(neuron: Any, x: Tensor) -> Tensor:
    if "Cell" not in type(neuron).__name__:
        series: Tensor = neuron(x)[0]
        return series
    state = None
    spikes = []
    for current in x.unbind(0):
        spike, state = neuron(current, state)
        spikes.append(spike)
    return torch.stack(spikes)


def _sinabs(neuron: Any, x: Tensor) -> Tensor:
    neuron.reset_states()
    spikes: Tensor = neuron(x.transpose(0, 1)).transpose(0, 1)
    return spikes


_RUNNERS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "snnTorch": _snntorch,
    "SpikingJelly": _spikingjelly,
    "Norse": _norse,
    "sinabs": _sinabs,
}


@dataclass(frozen=True)
class Difference:
    """What tells the two sides of a row apart.

    Attributes:
        firing_rate: mean of their spikes.
        apart: share of the neurons of the batch with a spike apart.
        crossing: how far from its threshold a membrane is where its spikes part, at most.
        gradients: the distance of theirs from ours, relative to its length: of x, and of what is learned.
    """

    firing_rate: float
    apart: float
    crossing: float
    gradients: dict[str, float]

    def fault(self, exact: bool) -> str | None:
        """Why the two are not equal; None: they are."""
        if exact and self.apart:
            return f"the spikes of {self.apart:.3%} of the neurons differ"
        if not self.crossing <= CLOSE:
            return f"a spike differs where the membrane is {self.crossing:.2g} from the threshold"
        for name, distance in self.gradients.items():
            if not distance <= (GRADIENTS_APART if name == "x" else LEARNED_APART):  # nor may it be NaN
                return f"the gradient of {name} is {distance:.2g} of its length away"
        return None


def difference(equal: Equal, theirs: nn.Module, x: Tensor, grad: Tensor) -> Difference:
    """Run both sides of a row on ``x``, and compare them; ``grad`` is the gradient of the spikes.

    Where spikes part for a rounding, those after them differ for good: of each neuron of the batch the first
    one apart must lie at the threshold, and no gradient is sent into it.

    Raises:
        ValueError: what the library gives is of another shape or type.
    """
    ours = equal.our_layer().to(x.device)
    run_theirs, run_ours = runner(equal.library, theirs), layer_runner(ours)
    with torch.no_grad():
        found, expected = run_theirs(x), run_ours(x)
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise ValueError(
                f"{tuple(found.shape)} {found.dtype} instead of {tuple(expected.shape)} {expected.dtype}"
            )
        unequal = (found - expected).abs() > CLOSE
        apart = unequal.any(0)
        first = unequal.byte().argmax(0, keepdim=True)
        level = torch.full_like(x[0], torch.inf)
        if not isinstance(ours, lif_cuda.LI):  # which has no threshold to be near
            probe = equal.our_layer(output="trace_before_reset").to(x.device)
            level = (layer_runner(probe)(x) - ours.threshold).abs().gather(0, first)[0]
        crossing = float(level[apart].max()) if bool(apart.any()) else 0.0
    grad = torch.where(apart, 0.0, grad)
    pairs = {name: (_named(theirs, name), _named(ours, mine)) for name, (mine, _) in equal.learned.items()}
    leaf, other = x.detach().requires_grad_(), x.detach().requires_grad_()
    of_theirs = torch.autograd.grad(run_theirs(leaf), [leaf, *(pair[0] for pair in pairs.values())], grad)
    of_ours = torch.autograd.grad(run_ours(other), [other, *(pair[1] for pair in pairs.values())], grad)
    factors = [1.0, *(factor for _, factor in equal.learned.values())]
    gradients = {
        name: float((a.double() - factor * b.double()).norm() / a.double().norm())
        for name, a, b, factor in zip(("x", *pairs), of_theirs, of_ours, factors, strict=True)
    }
    return Difference(float(found.mean()), float(apart.double().mean()), crossing, gradients)


def _named(module: nn.Module, name: str) -> Tensor:
    found: Tensor = getattr(module, name)
    return found
