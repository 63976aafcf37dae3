"""Running one call on two implementations, and comparing all that comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lif_cuda import _autograd, _ops, _plan


@contextmanager
def autograd_in_python() -> Iterator[None]:
    """Let Python record the calls, as it does beside another torch than the one that was built against."""
    node, _autograd._NODE = _autograd._NODE, None
    _plan.forget()
    try:
        yield
    finally:
        _autograd._NODE = node
        _plan.forget()


class Inputs(NamedTuple):
    """What goes into a call and into its backward pass."""

    x: Tensor
    beta: float | Tensor
    threshold: float | Tensor
    membrane: Tensor | None
    grad_out: Tensor | None
    grad_membrane: Tensor | None


class Outcome(NamedTuple):
    """What comes out: outputs, then the gradients of x, membrane, beta and threshold."""

    out: Tensor
    membrane: Tensor
    grad_x: Tensor | None
    grad_initial: Tensor | None
    grad_beta: Tensor | None
    grad_threshold: Tensor | None


EXACT = ("out", "membrane", "grad_x", "grad_initial")


def draw(
    steps: int,
    features: tuple[int, ...],
    dtype: torch.dtype,
    *,
    seed: int = 0,
    constant: bool = False,
    count: bool = False,
    beta: tuple[int, ...] | float = 0.9,
    threshold: tuple[int, ...] | float = 1.0,
    state: bool = True,
) -> Inputs:
    """Random inputs at which about one neuron in ten fires; a shape makes a parameter a tensor."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    def uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=dtype)

    x_shape = features if constant else (steps, *features)
    return Inputs(
        0.5 * normal(*x_shape) + 0.15,
        uniform(beta, 0.5, 0.99) if isinstance(beta, tuple) else beta,
        uniform(threshold, 0.6, 1.4) if isinstance(threshold, tuple) else threshold,
        normal(*features) if state else None,
        normal(*(features if count else (steps, *features))),
        normal(*features),
    )


def run(function: Callable[..., Any], inputs: Inputs, **options: Any) -> Outcome:
    """Forward and backward of one call; every tensor among the inputs gets a gradient."""

    def leaf(value: Any) -> Any:
        return value.detach().requires_grad_() if isinstance(value, Tensor) else value

    x, beta, threshold, membrane = (
        leaf(value) for value in (inputs.x, inputs.beta, inputs.threshold, inputs.membrane)
    )
    out, final = function(x, beta, threshold, membrane, **options)
    pairs = [
        (tensor, grad)
        for tensor, grad in ((out, inputs.grad_out), (final, inputs.grad_membrane))
        if grad is not None and tensor.requires_grad
    ]
    torch.autograd.backward([pair[0] for pair in pairs], [pair[1] for pair in pairs])

    def gradient(value: Any) -> Tensor | None:
        if not isinstance(value, Tensor):
            return None
        return torch.zeros_like(value) if value.grad is None else value.grad

    return Outcome(out.detach(), final.detach(), *map(gradient, (x, membrane, beta, threshold)))


GRADIENT_LAYOUTS = (
    "dense",
    "of a sum",
    "of a mean over time",
    "a value for each step",
    "axes reversed",
    "every second",
    "misaligned",
)


def laid_out(grad: Tensor, kind: str, time_dim: int) -> Tensor:
    """A gradient that lies in memory as autograd hands over those of sums, means, transposes and slices."""
    reverse = range(grad.dim())[::-1]
    match kind:
        case "of a sum":
            return grad[(slice(0, 1),) * grad.dim()].expand_as(grad)
        case "of a mean over time":
            return grad.narrow(time_dim, 0, 1).expand_as(grad)
        case "a value for each step":
            first = tuple(slice(0, None if axis == time_dim else 1) for axis in range(grad.dim()))
            return grad[first].expand_as(grad)
        case "axes reversed":
            return grad.permute(*reverse).contiguous().permute(*reverse)
        case "every second":
            return grad.repeat_interleave(2, -1)[..., ::2]
        case "misaligned":
            return torch.cat([grad.new_zeros(1), grad.reshape(-1)])[1:].view_as(grad)
    return grad


def assert_identical(actual: Tensor | None, expected: Tensor | None, what: str) -> None:
    """Bit for bit, NaN where NaN is; the message says how many elements differ and where."""
    if actual is None or expected is None:
        assert actual is None and expected is None, f"{what}: one is missing"
        return
    assert actual.shape == expected.shape, f"{what}: {actual.shape} against {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype} against {expected.dtype}"
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    if not same.all():
        where = (~same).nonzero()
        first = tuple(where[0].tolist())
        raise AssertionError(
            f"{what}: {len(where)} of {actual.numel()} elements differ, first at {first}: "
            f"{actual[first].item()!r} against {expected[first].item()!r}"
        )


def assert_same_numbers(actual: Outcome, expected: Outcome) -> None:
    """Outputs and the gradients of x and of the initial membrane, bit for bit."""
    for name in EXACT:
        assert_identical(getattr(actual, name), getattr(expected, name), name)


def assert_within(
    actual: Tensor, exact: Tensor, terms: Tensor, count: float, dtype: torch.dtype, what: str
) -> None:
    """``|actual - exact| <= count * eps * terms``: the bound of a sum of ``count`` rounded terms."""
    error = (actual.double() - exact.double()).abs()
    bound = count * torch.finfo(dtype).eps * terms.double() + torch.finfo(dtype).tiny
    assert actual.shape == exact.shape, f"{what}: {actual.shape} against {exact.shape}"
    assert bool((error <= bound).all()), (
        f"{what}: off by {error.max().item():.3g}, "
        f"{(error / bound).nan_to_num().max().item():.3g} times the bound"
    )


NUMBERS = {"beta": 0.9, "threshold": 1.0, "gain": 1.0, "slope": 10.0, "scale": 1.0}


def raw_arguments(
    x: Tensor,
    given: Mapping[int, Tensor] | None = None,
    steps: int = -1,
    checkpoint_every: int = 0,
    **numbers: float,
) -> tuple[Tensor, list[Tensor], list[int], int, int, list[float]]:
    """The arguments of an operator: tensors by their slots (``_ops``), numbers by their names; zeros else."""
    given = given or {}
    present = sum(1 << slot for slot in given)
    values = NUMBERS | {"present": present} | numbers
    assert values.keys() <= {*_ops.INTS, *_ops.FLOATS}
    return (
        x,
        [given[slot] for slot in sorted(given)],
        [int(values.get(name, 0)) for name in _ops.INTS],
        steps,
        checkpoint_every,
        [float(values.get(name, 0.0)) for name in _ops.FLOATS],
    )
