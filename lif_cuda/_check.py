"""Argument checks shared by the fused and the reference layer: one set of rules, one set of messages.

Each check names the argument, what was expected, what was given and what to do about it. All of them
run before any arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .surrogate import Surrogate

Output = Literal["spikes", "count"]
Reset = Literal["subtract"]


class CallOptions(NamedTuple):
    """The options of one call, as the public functions take them."""

    steps: int | None
    output: Output
    reset: Reset
    detach_reset: bool
    surrogate: Surrogate
    return_state: bool


OUTPUTS: tuple[str, ...] = get_args(Output)
RESETS: tuple[str, ...] = get_args(Reset)
DTYPES = (torch.float32, torch.float64)


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_flag(name: str, value: object) -> None:
    """Raise TypeError unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {_kind(value)}")


def check_surrogate(value: object) -> None:
    """Raise TypeError unless ``value`` is a surrogate object."""
    if not isinstance(value, Surrogate):
        raise TypeError(
            "surrogate must be an object of lif_cuda.surrogate such as "
            f"surrogate.FastSigmoid(k=10.0), got {_kind(value)}"
        )


def check_number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return ``value`` as a float, or raise unless it is a finite number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or a tensor, got {_kind(value)}")
    if not math.isfinite(value) or not low <= value <= high:
        where = f" in [{low:g}, {high:g}]" if math.isfinite(high) else ""
        raise ValueError(f"{name} must be a finite number{where}, got {value}")
    return float(value)


def check_steps(name: str, value: object) -> int:
    """Return ``value``, or raise unless it is an int of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, got {_kind(value)}")
    if value < 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return value


def check_input(x: object, steps: int | None) -> Tensor:
    """Return ``x``, or raise unless it is a tensor on which the neuron is defined."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {_kind(x)}")
    if x.dtype not in DTYPES:
        raise TypeError(f"x must have dtype float32 or float64, got {x.dtype}; convert it with x.float()")
    if x.layout != torch.strided:
        raise TypeError(f"x must be a dense (strided) tensor, got {x.layout}; call x.to_dense()")
    if steps is None:
        if x.dim() == 0:
            raise ValueError(
                "x must have a time axis first, [T, batch..., features...], got a 0-dim tensor; "
                "for a constant input without a time axis pass steps=T"
            )
    else:
        check_steps("steps", steps)
    return x


def check_companion(name: str, value: object, x: Tensor) -> Tensor:
    """Return ``value``, or raise unless it is a tensor of x's dtype on x's device."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {_kind(value)}")
    if value.dtype != x.dtype:
        raise TypeError(
            f"{name} must have the dtype of x, {x.dtype}, got {value.dtype}; convert it with .to({x.dtype})"
        )
    if value.device != x.device:
        raise ValueError(
            f"{name} must be on the device of x, {x.device}, got {value.device}; "
            f"move it with .to('{x.device}')"
        )
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got {value.layout}")
    return value


def check_membrane(value: object, x: Tensor, features: torch.Size) -> Tensor:
    """Return ``value``, or raise unless it is a membrane for ``x``: the shape of one time step."""
    membrane = check_companion("membrane", value, x)
    if membrane.shape != features:
        raise ValueError(
            "membrane must have the shape of x without its time axis, "
            f"{tuple(features)}, got {tuple(membrane.shape)}"
        )
    return membrane


def check_parameter(name: str, value: object, x: Tensor, features: torch.Size) -> float | Tensor:
    """Return ``value`` if it is a number, or a tensor that broadcasts over one time step of ``x``."""
    if not isinstance(value, Tensor):
        return check_number(name, value, 0.0, 1.0) if name == "beta" else check_number(name, value)
    check_companion(name, value, x)
    sizes = tuple(value.shape)
    offset = len(features) - len(sizes)
    if offset < 0 or any(size not in (1, features[offset + i]) for i, size in enumerate(sizes)):
        raise ValueError(
            f"{name} must broadcast from the right over x without its time axis, "
            f"{tuple(features)}, got shape {sizes}; for one value per neuron give the size of the "
            "last axis"
        )
    return value


def check_call(
    x: Tensor,
    beta: float | Tensor,
    threshold: float | Tensor,
    membrane: Tensor | None,
    options: CallOptions,
) -> tuple[Tensor, torch.Size]:
    """Check all arguments of a public call; return x and the shape of one time step."""
    check_input(x, options.steps)
    features = x.shape[1:] if options.steps is None else x.shape
    check_parameter("beta", beta, x, features)
    check_parameter("threshold", threshold, x, features)
    if membrane is not None:
        check_membrane(membrane, x, features)
    check_choice("output", options.output, OUTPUTS)
    check_choice("reset", options.reset, RESETS)
    check_flag("detach_reset", options.detach_reset)
    check_flag("return_state", options.return_state)
    check_surrogate(options.surrogate)
    return x, features
