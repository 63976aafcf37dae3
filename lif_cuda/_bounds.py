"""How learned parameters stay where they belong: what is stored of one, and what is used of what is stored.

A parameter of 16 bits is widened before its bound is applied, to the float32 that the neuron computes in: the
sigmoid of the logit of 0.999 would be rounded to 1 in bfloat16, and a neuron with a beta of 1 never leaks.
Stored as it is, 0.999 has no bfloat16 at all, whatever its bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ._check import STATE_DTYPES


class Bound(NamedTuple):
    """``stored`` of the values, under ``NAME_suffix``; ``used`` of what is stored."""

    suffix: str
    stored: Callable[[Tensor], Tensor]
    used: Callable[[Tensor], Tensor]


def _widened(stored: Tensor) -> Tensor:
    return stored.float() if STATE_DTYPES.get(stored.dtype) is not stored.dtype else stored


def _as_it_is(values: Tensor) -> Tensor:
    return values


def _sigmoid(logit: Tensor) -> Tensor:
    return torch.sigmoid(_widened(logit))


def _clamp(values: Tensor) -> Tensor:
    return torch.clamp(_widened(values), 0, 1)


def _exp(log: Tensor) -> Tensor:
    return torch.exp(_widened(log))


# By the word of the option; None: a parameter that may be any number.
BOUNDS: dict[str | None, Bound] = {
    "sigmoid": Bound("logit", torch.logit, _sigmoid),
    "clamp": Bound("values", _as_it_is, _clamp),
    "exp": Bound("log", torch.log, _exp),
    None: Bound("values", _as_it_is, _as_it_is),
}


def check_start(name: str, bound: str | None, low: float, high: float) -> None:
    """Raise unless values from ``low`` to ``high`` can be stored under this bound."""
    if bound == "sigmoid" and (low <= 0.0 or high >= 1.0):
        raise ValueError(
            f"{name} must lie inside (0, 1) to be learned, because it is stored as its logit, "
            f"got values from {low:g} to {high:g}; start from 0.999 or so, set bound='clamp', "
            f"or learn_{name}=False"
        )
    if bound == "exp" and low <= 0.0:
        raise ValueError(
            f"{name} must be above 0 with {name}_bound='exp', because it is stored as its logarithm, "
            f"got values from {low:g}; start above 0, or leave {name}_bound out"
        )
