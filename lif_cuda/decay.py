"""From a time constant to a decay a step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import _check

DECAYS = ("exp", "euler")


def decay_of(tau: float | Tensor, dt: float, decay: str) -> float | Tensor:
    """The decay a step of a time constant ``tau``, for steps of ``dt`` (both in the same unit of time).

    ``decay="exp"`` is the exact solution of ``dv/dt = -v / tau`` over a step, ``exp(-dt / tau)``;
    ``decay="euler"`` the forward Euler step, ``1 - dt / tau``, which is what SpikingJelly's ``tau`` means
    with ``dt = 1``: its tau = 2 is 0.5, where exp gives 0.607.

    Raises:
        TypeError, ValueError: an argument is not a number (``tau``: or a tensor) above 0, ``decay`` is
            another word, or ``tau < dt`` with ``"euler"``, where the membrane would change its sign at each
            step.
    """
    _check.check_choice("decay", decay, DECAYS)
    if isinstance(dt, Tensor):
        raise TypeError("dt must be a number, got a tensor")
    _check.check_number("dt", dt)
    smallest = float(tau.min()) if isinstance(tau, Tensor) else _check.check_number("tau", tau)
    if not dt > 0:
        raise ValueError(f"dt must be above 0, got {dt}")
    if not smallest > 0:
        raise ValueError(f"tau must be above 0, got {smallest:g}")
    if decay == "exp":
        return torch.exp(-dt / tau) if isinstance(tau, Tensor) else math.exp(-dt / tau)
    if smallest < dt:
        raise ValueError(f"tau must be at least dt, {dt:g}, with decay='euler'; got {smallest:g}")
    return 1 - dt / tau
