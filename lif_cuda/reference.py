"""The neuron in plain eager PyTorch: what the kernels are held against, bit for bit.

This file imports none of the kernels. It uses separate multiplications, additions and subtractions
only: ``addcmul``, ``lerp`` and ``add(alpha=)`` round once where the equations round twice.

    u[t] = beta * v[t-1] + x[t]              integrate and leak
    s[t] = 1 if u[t] >= threshold else 0     fire
    v[t] = u[t] - threshold * s[t]           reset "subtract"
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _check
from ._check import Output, Reset
from ._module import DEFAULT_SURROGATE, LIFModule
from .surrogate import Surrogate


class _Spike(torch.autograd.Function):
    """A step forward; the surrogate derivative backward."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(u, threshold)
        ctx.surrogate = surrogate
        return (u >= threshold).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        u, threshold = ctx.saved_tensors
        through = grads[0] * ctx.surrogate.derivative(u - threshold)
        return through, (-through).sum_to_size(threshold.shape), None


def lif(
    x: Tensor,
    beta: float | Tensor,
    threshold: float | Tensor = 1.0,
    membrane: Tensor | None = None,
    *,
    steps: int | None = None,
    output: Output = "spikes",
    reset: Reset = "subtract",
    detach_reset: bool = False,
    surrogate: Surrogate = DEFAULT_SURROGATE,
    return_state: bool = True,
) -> Any:
    """:func:`lif_cuda.functional.lif` as a Python loop over time: same arguments, returns and errors."""
    options = _check.CallOptions(steps, output, reset, detach_reset, surrogate, return_state)
    x, features = _check.check_call(x, beta, threshold, membrane, options)

    beta = torch.as_tensor(beta, dtype=x.dtype, device=x.device)
    threshold = torch.as_tensor(threshold, dtype=x.dtype, device=x.device)
    currents = x.unbind(0) if steps is None else (x,) * steps
    v = x.new_zeros(features) if membrane is None else membrane.clone()
    count = x.new_zeros(features)
    spikes = []
    for current in currents:
        u = beta * v + current
        s = _Spike.apply(u, threshold, surrogate)
        v = u - threshold * (s.detach() if detach_reset else s)
        if output == "count":
            count = count + s
        else:
            spikes.append(s)

    series = torch.stack(spikes) if spikes else x.new_zeros((0, *features))
    out = count if output == "count" else series
    return (out, v) if return_state else out


class ReferenceLIF(LIFModule):
    """The layer of :class:`lif_cuda.LIF` in plain eager PyTorch: dozens of launches a time step.

    Same constructor, forward, ``step`` and state_dict keys; see :class:`lif_cuda.LIF` for them. It
    exists to be read, to be compared with, and to be timed against.
    """

    _lif = staticmethod(lif)
