"""Recurrent neurons a second time, in NumPy and by hand, with each sum in the order that is promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass
class Layer:
    """What a layer is: its weight [N, N] and bias [N], and its neurons."""

    weight: Array
    bias: Array | None
    beta: Array  # [N], as the threshold
    threshold: Array
    v_reset: float = 0.0
    gain: float = 1.0
    reset: str = "subtract"
    detach_reset: bool = False
    strict: bool = False
    surrogate: Callable[[Array], Array] = field(default=lambda z: 1 / (1 + 10 * np.abs(z)) ** 2)


@dataclass
class Forward:
    """What comes out of T steps, each [T, B, N], and the states after the last."""

    spikes: Array
    u: Array
    trace: Array
    membrane: Array
    fired: Array


@dataclass
class Gradients:
    """Those of x, of the initial state, and of the parameters."""

    x: Array
    membrane: Array
    fired: Array
    weight: Array
    bias: Array
    beta: Array
    threshold: Array


def forward(layer: Layer, x: Array, membrane: Array, fired: Array) -> Forward:
    """T steps from a state; x is [T, B, N]."""
    dtype = x.dtype
    gain, v_reset = dtype.type(layer.gain), dtype.type(layer.v_reset)
    v, s = membrane, fired
    all_u, all_s, all_v = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    for t in range(len(x)):
        r = np.zeros_like(v) if layer.bias is None else np.broadcast_to(layer.bias, v.shape)
        for i in range(x.shape[-1]):
            r = np.where(s[:, i : i + 1] != 0, r + layer.weight[:, i], r)
        u = layer.beta * v + gain * (x[t] + r)
        s = (u > layer.threshold if layer.strict else u >= layer.threshold).astype(dtype)
        v = np.where(s != 0, v_reset, u) if layer.reset == "zero" else u - layer.threshold * s
        all_u[t], all_s[t], all_v[t] = u, s, v
    return Forward(all_s, all_u, all_v, v, s)


def backward(
    layer: Layer,
    found: Forward,
    membrane: Array,
    fired: Array,
    grad_spikes: Array,
    grad_trace: Array,
    grad_membrane: Array,
    grad_fired: Array,
) -> Gradients:
    """Back through the steps of ``found``, which began at ``membrane`` and ``fired``.

    The gradients of the parameters are summed in float64, from terms of the layer's dtype.
    """
    dtype = found.u.dtype
    gain, v_reset = dtype.type(layer.gain), dtype.type(layer.v_reset)
    neurons = found.u.shape[-1]
    a, from_later = grad_membrane, grad_fired
    grad_x = np.empty_like(found.u)
    sums = {name: np.zeros(neurons) for name in ("bias", "beta", "threshold")}
    grad_weight = np.zeros((neurons, neurons))
    for t in reversed(range(len(found.u))):
        u, s = found.u[t], found.spikes[t]
        before = found.trace[t - 1] if t else membrane
        fired_before = found.spikes[t - 1] if t else fired
        h = layer.surrogate(u - layer.threshold)
        g = grad_spikes[t] + from_later
        a = a + grad_trace[t]
        if layer.reset == "subtract":
            e = g if layer.detach_reset else g - layer.threshold * a
            d = a + e * h
            sums["threshold"] += (-(e * h) - a * s).sum(0, dtype=np.float64)
        else:
            e = g if layer.detach_reset else g + (v_reset - u) * a
            d = np.where(s != 0, dtype.type(0), a) + e * h
            sums["threshold"] -= (e * h).sum(0, dtype=np.float64)
        dr = gain * d
        grad_x[t] = dr
        sums["beta"] += (d * before).sum(0, dtype=np.float64)
        sums["bias"] += dr.sum(0, dtype=np.float64)
        grad_weight += dr.T.astype(np.float64) @ fired_before.astype(np.float64)
        a = layer.beta * d
        from_later = np.zeros_like(a)
        for j in range(neurons):
            from_later = from_later + dr[:, j : j + 1] * layer.weight[j]
    return Gradients(grad_x, a, from_later, grad_weight, sums["bias"], sums["beta"], sums["threshold"])
