"""The checks of single arguments: one set of rules, one set of messages.

Each names the argument, what was expected, what was given and what to do about it. Those of a whole call are
put together in ``_call.py``. NumPy's scalars count as numbers; what is returned is Python's own.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

# What a neuron of each dtype of x keeps its state in, and computes in.
STATE_DTYPES = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}


def type_name(value: object) -> str:
    """The type of an argument as messages name it."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_flag(name: str, value: object) -> bool:
    """Return ``value``, or raise TypeError unless it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {type_name(value)}")
    return value


def check_number(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    kind: str = "a number or a tensor",
) -> float:
    """Return ``value`` as a float, or raise unless it is a finite number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {kind}, got {type_name(value)}")
    value = float(value)
    if not (-math.inf < value < math.inf and low <= value <= high):
        where = f" in [{low:g}, {high:g}]" if math.isfinite(high) else ""
        raise ValueError(f"{name} must be a finite number{where}, got {value}")
    return value


def check_int(name: str, value: object, low: int | None = None, kind: str = "an int") -> int:
    """Return ``value`` as an int, or raise unless it is one of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral | torch.SymInt):
        raise TypeError(f"{name} must be {kind}, got {type_name(value)}")
    if low is not None and value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    return cast(int, value) if isinstance(value, int | torch.SymInt) else int(value)


def check_steps(name: str, value: object) -> int:
    """Return ``value``, or raise unless it is an int of at least 0."""
    return check_int(name, value, 0, "an int or None")


def check_device(name: str, value: Tensor, x: Tensor) -> None:
    """Raise unless ``value`` is on x's device."""
    if value.device != x.device:
        raise ValueError(
            f"{name} must be on the device of x, {x.device}, got {value.device}; "
            f"move it with .to('{x.device}')"
        )


def check_companion(name: str, value: object, x: Tensor, dtypes: Sequence[torch.dtype]) -> Tensor:
    """Return ``value``, or raise unless it is a tensor of one of the dtypes on x's device."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type_name(value)}")
    if value.dtype not in dtypes:
        what = "of x" if dtypes[0] == x.dtype else "of the state"
        raise TypeError(
            f"{name} must have the dtype {what}, {dtypes[0]}, got {value.dtype}; "
            f"convert it with .to({dtypes[0]})"
        )
    check_device(name, value, x)
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got {value.layout}")
    return value
