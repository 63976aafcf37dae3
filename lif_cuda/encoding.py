"""Encoders: from values to spikes over time, [T, ...], time first, on the device of the values.

No gradient goes through them. What others call them:

=============  ================================  =====================================  ===================
here           snnTorch ``spikegen``             SpikingJelly ``encoding``              Norse
=============  ================================  =====================================  ===================
``rate``       ``rate(data, num_steps)``         ``PoissonEncoder``, called T times     ``PoissonEncoder``
``latency``    ``latency(data, num_steps, ...)`` ``LatencyEncoder(T)``                  (that of a LIF)
``delta``      ``delta(data, threshold)``
=============  ================================  =====================================  ===================

``docs/encoding.md`` says which options give the same spikes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _check


def rate(x: Tensor, steps: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Rate coding: at each step a spike with probability x.

    Args:
        x: probabilities, in [0, 1].
        steps: T.
        generator: of the random numbers, on the device of x; None: torch's own.

    Returns:
        Zeros and ones in x's dtype, [T, ...].

    Raises:
        TypeError, ValueError: an argument is not what is described above.
    """
    x = _values(x, steps)
    return torch.bernoulli(x.expand(steps, *x.shape), generator=generator)


def latency(
    x: Tensor, steps: int, *, threshold: float | None = None, tau: float | None = None, silent: bool = False
) -> Tensor:
    """Latency coding: one spike each, the earlier the larger x is.

    Without ``tau`` the time is linear, ``(T - 1) * (1 - x)``: 1 fires at the first step, 0 at the last. With
    it, it is the time at which a capacitor that x charges passes ``threshold``,
    ``tau * log(x / (x - threshold))`` steps, and at most T - 1. Both are rounded to a step, half to even.

    Args:
        x: values in [0, 1].
        steps: T.
        threshold: in (0, 1); needed with ``tau`` and with ``silent``.
        tau: time constant in steps, above 0.
        silent: values that do not reach ``threshold`` never fire; False: they fire at their time, which with
            ``tau`` is the last step.

    Returns:
        Zeros and ones in x's dtype, [T, ...].

    Raises:
        TypeError, ValueError: an argument is not what is described above.
    """
    x = _values(x, steps)
    _check.check_flag("silent", silent)
    if threshold is None and (tau is not None or silent):
        raise ValueError(f"{'silent' if tau is None else 'tau'} needs threshold: the least x that fires")
    if threshold is not None:
        threshold = _above_zero("threshold", threshold)
        if threshold >= 1:
            raise ValueError(f"threshold must be below 1, got {threshold}")
    if steps == 0:
        return x.new_zeros((0, *x.shape))
    if tau is None or threshold is None:
        when = (steps - 1) * (1 - x)
    else:
        charging = torch.where(x > threshold, x, 1.0)
        passed = _above_zero("tau", tau) * torch.log(charging / (charging - threshold))
        when = torch.where(x > threshold, passed, steps - 1)
    at = when.round().clamp(max=steps - 1).long()
    fires = torch.ones_like(x) if threshold is None or not silent else (x >= threshold).to(x.dtype)
    spikes = torch.zeros((steps, *x.shape), dtype=x.dtype, device=x.device)
    return spikes.scatter_(0, at.unsqueeze(0), fires.unsqueeze(0))


def delta(x: Tensor, threshold: float, *, off_spikes: bool = False, first: bool = True) -> Tensor:
    """Delta modulation: a spike where x has risen by at least ``threshold`` since the step before.

    Args:
        x: a series, [T, ...].
        threshold: above 0.
        off_spikes: -1 where x has fallen by as much.
        first: the first step is compared with 0; False: it does not fire.

    Returns:
        Zeros and ones, and -1 with ``off_spikes``, in x's dtype, [T, ...].

    Raises:
        TypeError, ValueError: an argument is not what is described above.
    """
    x = _floating(x)
    if x.dim() == 0:
        raise ValueError("x must have a time axis, [T, ...], got a tensor without axes")
    threshold = _above_zero("threshold", threshold)
    _check.check_flag("off_spikes", off_spikes)
    _check.check_flag("first", first)
    if x.shape[0] == 0:
        return torch.zeros_like(x)
    change = torch.diff(x, dim=0, prepend=torch.zeros_like(x[:1]) if first else x[:1])
    spikes = (change >= threshold).to(x.dtype)
    return spikes - (change <= -threshold).to(x.dtype) if off_spikes else spikes


def _above_zero(name: str, value: object) -> float:
    number = _check.check_number(name, value, kind="a number")
    if number <= 0:
        raise ValueError(f"{name} must be above 0, got {number}")
    return number


def _floating(x: object) -> Tensor:
    """x without a gradient, or raise unless it is a tensor of real numbers."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {_check.type_name(x)}")
    if not x.is_floating_point():
        raise TypeError(f"x must be a floating point tensor, got {x.dtype}; convert it with .float()")
    return x.detach()


def _values(x: object, steps: object) -> Tensor:
    """x without a gradient, or raise unless it lies in [0, 1] and ``steps`` is a number of steps."""
    values = _floating(x)
    _check.check_int("steps", steps, 0)
    if values.numel():
        low, high = (float(end) for end in torch.aminmax(values))
        if not (low >= 0 and high <= 1):
            raise ValueError(f"x must lie in [0, 1], got values from {low:g} to {high:g}; rescale it")
    return values
