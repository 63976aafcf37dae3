"""Whether a network of a library's neurons and the same of lif_cuda's layers compute the same.

Three checks, from what a neuron does to what a network does:

- the neurons alone in float32: spikes and gradients, within the bounds of rivals/equality.py;
- the networks in float64, in which two roundings of one membrane hardly ever lie on two sides of a threshold:
  logits and the gradients of all parameters within ``BOUNDS`` of their length;
- the networks in float32, as they are timed. There a spike differs now and then for a rounding, and through
  batch norm it moves all images of the batch a little: the bounds are wider.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from nets.networks import Case, Series, double
from rivals.equality import difference, drawn
from rivals.equals import by_name


@dataclass(frozen=True)
class Apart:
    """Distances relative to the length of what is right, of logits and of the gradients of all parameters."""

    logits: float
    gradients: float


# In float64 1e-9 or less is what is seen, and a spike that differs moves logits by 1e-4 and more.
BOUNDS = {"float64": Apart(1e-6, 1e-6), "float32": Apart(0.02, 0.1)}


def apart(network: nn.Module, right: nn.Module, x: Tensor, labels: Tensor) -> Apart:
    """How far one network is from another."""
    logits, gradients = _results(network, x, labels)
    right_logits, right_gradients = _results(right, x, labels)
    if len(gradients) != len(right_gradients):
        return Apart(float("nan"), float("nan"))
    difference_of_all = torch.cat(
        [(a - b).flatten() for a, b in zip(gradients, right_gradients, strict=True)]
    )
    length = torch.cat([gradient.flatten() for gradient in right_gradients]).norm()
    return Apart(
        float((logits - right_logits).norm() / right_logits.norm()), float(difference_of_all.norm() / length)
    )


def faults(found: dict[str, Apart]) -> list[str]:
    """Why two networks are not equal, from how far they are apart in each of ``BOUNDS``."""
    return [
        f"{what} in {dtype} are {getattr(found[dtype], what):.2g} of their length apart, more than {bound:g}"
        for dtype, bounds in BOUNDS.items()
        for what, bound in asdict(bounds).items()
        if not getattr(found[dtype], what) <= bound  # nor may it be NaN
    ]


def neuron_fault(case: Case) -> str | None:
    """Of the neuron of a case alone."""
    equal = by_name(case.neuron)
    x, grad = drawn((case.steps, 8, 65), equal.scale)
    return difference(equal, equal.their_neuron(), x, grad).fault(equal.exact)


def verify(case: Case, networks: dict[str, nn.Module]) -> tuple[dict[str, str], dict[str, Any]]:
    """The faults of networks, by name, and how far each is from that of the library."""
    x, labels = case.input()
    right = networks[case.library]
    wide_right = double(right)
    neuron = neuron_fault(case)
    wrong: dict[str, str] = {}
    distances: dict[str, Any] = {}
    for name, network in networks.items():
        if name in (case.library, "ReLU"):
            continue
        found = {
            "float64": apart(double(network), wide_right, x.double(), labels),
            "float32": apart(network, right, x, labels),
        }
        distances[name] = {dtype: asdict(distance) for dtype, distance in found.items()}
        of_this = faults(found) + ([f"its neuron: {neuron}"] if name == "lif_cuda" and neuron else [])
        if of_this:
            wrong[name] = "; ".join(of_this)
    return wrong, distances


@torch.no_grad()
def firing_rates(network: nn.Module, x: Tensor) -> list[float]:
    """The mean output of each neuron of a network, in the order in which they run."""
    rates: list[float] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, out: rates.append(float(out.mean())))
        for module in network.modules()
        if isinstance(module, Series)
    ]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return rates


def _results(network: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
    logits = network(x)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(nnf.cross_entropy(logits, labels), parameters)
    return logits.detach(), list(gradients)
