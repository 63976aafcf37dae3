"""The neuron family written a second time, in NumPy and by hand: no autograd, no torch.

Two implementations of our own can share a mistake; this one takes its backward pass from the closed
forms of the literature instead of from automatic differentiation. One neuron per column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass
class Neuron:
    """What a neuron is: arrays [N] for each parameter that it has, and its options."""

    beta: Array
    threshold: Array
    v_reset: Array | None = None
    gain: Array | None = None
    alpha: Array | None = None
    kappa: Array | None = None
    rho: Array | None = None
    v_min: Array | None = None
    reset: str = "subtract"
    delay_reset: bool = False
    detach_reset: bool = False
    strict: bool = False
    rest: float = 0.0
    refractory: int = 0
    surrogate: Callable[[Array], Array] = field(default=lambda z: 1 / (1 + 10 * np.abs(z)) ** 2)


@dataclass
class Result:
    """Outputs, final states, and gradients; ``terms`` are the sums of the absolute terms of each gradient."""

    outputs: dict[str, Array]
    states: dict[str, Array]
    gradients: dict[str, Array]
    terms: dict[str, Array]


def run_padded(
    neuron: Neuron,
    x: Array,
    states: dict[str, Array],
    grads: dict[str, Array],
    lengths: NDArray[np.int64],
) -> Result:
    """The same of neurons with ``lengths`` of their own, [N]: those of one length at a time, cut to it."""
    series = ("spikes", "trace", "trace_before_reset")
    whole = Result({}, {}, {}, {})

    def cut(name: str, grad: Array, length: int, those: NDArray[np.bool_]) -> Array:
        return grad if grad.ndim == 0 else grad[:length, those] if name in series else grad[those]

    for length in np.unique(lengths):
        those = lengths == length
        own = {
            part.name: value[those]
            for part in fields(neuron)
            if isinstance(value := getattr(neuron, part.name), np.ndarray)
        }
        found = run(
            replace(neuron, **own),
            x[:length, those],
            {name: state[those] for name, state in states.items()},
            {name: cut(name, grad, length, those) for name, grad in grads.items()},
        )
        for group in fields(whole):
            into = getattr(whole, group.name)
            for name, part in getattr(found, group.name).items():
                if part.ndim == 0:
                    into[name] = into.get(name, 0) + part
                elif part.ndim == 1:
                    into.setdefault(name, np.zeros(x.shape[1:], part.dtype))[those] = part
                else:
                    into.setdefault(name, np.zeros(x.shape, part.dtype))[:length, those] = part
    return whole


def run(
    neuron: Neuron,
    x: Array,
    states: dict[str, Array],
    grads: dict[str, Array],
) -> Result:
    """Forward and backward of T steps; x is [T, N], states and their gradients are [N].

    ``grads`` holds a gradient for each output by its name, and for final states as "final membrane" ... The
    gradients of the parameters are summed in float64 from terms in x's dtype.
    """
    n = neuron
    steps, size = x.shape
    dtype = x.dtype
    one, zero = dtype.type(1), dtype.type(0)
    rest = dtype.type(n.rest)
    zeros = np.zeros(size, dtype)
    v_reset = zeros if n.v_reset is None else n.v_reset
    gain = np.ones(size, dtype) if n.gain is None else n.gain
    v, i, b, q = (states.get(name, zeros).copy() for name in ("membrane", "current", "adaptation", "silence"))

    def fire(u: Array, level: Array) -> Array:
        return np.where(u > level if n.strict else u >= level, one, zero)

    # Forward, keeping all that backward needs.
    kept: list[dict[str, Array]] = []
    sum_v = zeros.copy()
    count, alive, first = zeros.copy(), np.ones(size, dtype), zeros.copy()
    spikes, trace, trace_before = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    for t in range(steps):
        step = {"v": v, "i": i, "b": b, "silent": q > 0}
        if n.alpha is not None:
            i = n.alpha * i + x[t]
        step["drive"] = i if n.alpha is not None else x[t]
        step["r"] = fire(v, n.threshold) if n.delay_reset else zeros
        step["from"] = np.where(step["r"] == 1, v_reset, v) if n.reset == "zero" else v
        if n.rest == 0:
            u = n.beta * step["from"] + gain * step["drive"]
        else:
            u = (n.beta * (step["from"] - rest) + rest) + gain * step["drive"]
        if n.delay_reset and n.reset == "subtract":
            u = u - n.threshold * step["r"]
        u = np.where(step["silent"], v, u)
        level = n.threshold if n.kappa is None else n.threshold + n.kappa * b
        s = np.where(step["silent"], zero, fire(u, level))
        if n.delay_reset or n.reset == "none":
            v = u
        elif n.reset == "subtract":
            v = u - level * s
        else:
            v = np.where(s == 1, v_reset, u)
        step["held"] = zeros > one if n.v_min is None else ~(v >= n.v_min)
        if n.v_min is not None:
            v = np.maximum(v, n.v_min)
        if n.rho is not None:
            b = n.rho * b + s
        if n.refractory:
            q = np.where(s == 1, dtype.type(n.refractory), np.maximum(q - one, zero))
        kept.append(step | {"u": u, "s": s, "level": level})
        spikes[t], trace[t], trace_before[t] = s, v, u
        sum_v = sum_v + v
        count = count + s
        alive = alive * (one - s)
        first = first + alive

    # Backward, by the closed forms.
    sums = {
        name: np.zeros((2, size))
        for name in ("beta", "threshold", "v_reset", "gain", "alpha", "kappa", "rho")
    }

    def collect(name: str, *terms: Array) -> None:
        for term in terms:
            sums[name][0] += term.astype(np.float64)
            sums[name][1] += np.abs(term.astype(np.float64))

    def incoming(name: str, t: int) -> Array:
        return grads[name][t] if name in grads else zeros

    grad_x = np.empty_like(x)
    a = grads.get("final membrane", zeros) + grads.get("trace_last", zeros)
    peak = trace.argmax(0) if steps else zeros  # the first of the largest, and NaN above all
    to_mean = grads.get("trace_mean", zeros) / dtype.type(max(steps, 1))
    ai = grads.get("final current", zeros).copy()
    ab = grads.get("final adaptation", zeros).copy()
    same_for_all = grads.get("count", zeros)
    if "total" in grads:
        same_for_all = same_for_all + dtype.type(grads["total"])
    if "rate" in grads:
        same_for_all = same_for_all + grads["rate"] / dtype.type(max(steps, 1))
    detached = n.detach_reset or n.delay_reset
    next_spike = np.full(size, steps)  # the first after t
    for t in reversed(range(steps)):
        k = kept[t]
        u, s, level, silent = k["u"], k["s"], k["level"], k["silent"]
        g = incoming("spikes", t)
        if "first_spike" in grads:
            # d first / d s[t] = -(sum over t' >= t of the product without s[t]): the steps from t to the
            # next spike, if there was none before.
            weight = np.where(first >= t, next_spike - t, 0).astype(dtype)
            g = g - weight * grads["first_spike"]
            next_spike = np.where(s == 1, t, next_spike)
        g = g + same_for_all
        if n.kappa is not None:
            g = g + ab
        a = a + incoming("trace", t)
        a = a + np.where(peak == t, grads.get("trace_max", zeros), zero)
        a = np.where(k["held"], zero, a + to_mean)
        h = np.where(silent, zero, n.surrogate(u - level))
        e = g
        if n.reset == "subtract" and not detached:
            e = g - level * a
        elif n.reset == "zero" and not detached:
            e = g + (v_reset - u) * a
        through = e * h
        to_level = -through
        collect("threshold", -through)
        if n.reset == "subtract" and not n.delay_reset:
            to_level = to_level - a * s
            collect("threshold", -(a * s))
        if n.reset == "zero" and not n.delay_reset:
            collect("v_reset", a * s)
            a = np.where(s == 1, zero, a)
        a = a + incoming("trace_before_reset", t)
        if n.kappa is not None:
            collect("kappa", to_level * k["b"])
            collect("rho", ab * k["b"])
            ab = n.rho * ab + n.kappa * to_level
        whole = a + through
        d = np.where(silent, zero, whole)
        a = np.where(silent, whole, n.beta * d)
        collect("beta", d * (k["from"] - rest))
        if n.delay_reset and n.reset == "subtract":
            collect("threshold", -(k["r"] * d))
        elif n.delay_reset and n.reset == "zero":
            collect("v_reset", a * k["r"])
            a = np.where(k["r"] == 1, zero, a)
        collect("gain", d * k["drive"])
        dx = gain * d
        if n.alpha is not None:
            dx = dx + ai
            collect("alpha", dx * k["i"])
            ai = n.alpha * dx
        grad_x[t] = dx
    return Result(
        {
            "spikes": spikes,
            "count": count,
            "rate": count / dtype.type(max(steps, 1)),
            "first_spike": first,
            "trace_max": trace.max(0) if steps else zeros - np.inf,
            "trace_mean": sum_v / dtype.type(max(steps, 1)),
            "trace_last": v,
            "total": np.asarray(spikes.sum(dtype=np.float64)),
            "trace": trace,
            "trace_before_reset": trace_before,
        },
        {"membrane": v, "current": i, "adaptation": b, "silence": q},
        {"x": grad_x, "membrane": a, "current": ai, "adaptation": ab}
        | {name: total[0] for name, total in sums.items()},
        {name: total[1] for name, total in sums.items()},
    )
