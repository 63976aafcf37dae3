"""The neuron written a second time, in NumPy and by hand: no autograd, no torch.

Two implementations of our own can share a mistake; this one takes its backward pass from the closed
forms of the literature instead of from automatic differentiation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass
class Result:
    """Outputs and gradients; ``*_terms`` are the sums of the absolute terms of a parameter's gradient."""

    spikes: Array
    membrane: Array
    grad_x: Array
    grad_membrane: Array
    grad_beta: Array
    grad_beta_terms: Array
    grad_threshold: Array
    grad_threshold_terms: Array


def lif(
    x: Array,
    beta: Array,
    threshold: Array,
    membrane: Array,
    grad_spikes: Array,
    grad_membrane: Array,
    *,
    slope: float,
    scale: float = 1.0,
    detach_reset: bool = False,
) -> Result:
    """Forward and backward of T steps; every array has x's dtype.

    x and grad_spikes are [T, N], the others [N]. The gradients of the parameters are summed in
    float64 from terms in x's dtype, so they are exact but for the rounding of the terms.
    """
    dtype = x.dtype
    steps, size = x.shape
    one, slope_, scale_ = dtype.type(1), dtype.type(slope), dtype.type(scale)
    u = np.empty_like(x)
    s = np.empty_like(x)
    before = np.empty_like(x)
    v = membrane.copy()
    for t in range(steps):
        before[t] = v
        u[t] = beta * v + x[t]
        s[t] = np.where(u[t] >= threshold, one, dtype.type(0))
        v = u[t] - threshold * s[t]

    grad_x = np.empty_like(x)
    sums = np.zeros((4, size), dtype=np.float64)
    a = grad_membrane.copy()
    for t in reversed(range(steps)):
        y = one + slope_ * np.abs(u[t] - threshold)
        h = scale_ * (one / (y * y))
        e = grad_spikes[t] if detach_reset else grad_spikes[t] - threshold * a
        d = a + e * h
        grad_x[t] = d
        by_beta = (d * before[t]).astype(np.float64)
        by_spike = (-(e * h)).astype(np.float64)
        by_reset = (-(a * s[t])).astype(np.float64)
        sums[0] += by_beta
        sums[1] += np.abs(by_beta)
        sums[2] += by_spike + by_reset
        sums[3] += np.abs(by_spike) + np.abs(by_reset)
        a = beta * d
    return Result(s, v, grad_x, a, *sums)
