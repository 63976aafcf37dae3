"""The neuron as a function: T fused time steps in one launch forward and one backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _check, _ops
from ._check import Output, Reset
from ._module import DEFAULT_SURROGATE
from .surrogate import Surrogate


class _Call(NamedTuple):
    """What a call is besides its tensors."""

    beta_value: float
    threshold_value: float
    steps: int  # -1: x has a time axis
    counted: bool
    return_state: bool
    detach_reset: bool
    surrogate: Surrogate
    checkpoint_every: int


class _FusedLIF(torch.autograd.Function):
    """The fused operators under autograd.

    Backward recomputes the membrane from x, so nothing is saved but the inputs and, for long T, the
    membrane every few dozen steps. The ctx-style signature costs a third of the ``setup_context`` one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        membrane: Tensor | None,
        beta: Tensor | None,
        threshold: Tensor | None,
        call: _Call,
    ) -> Any:
        results = _run(x, membrane, beta, threshold, call)
        checkpoints = results.pop() if call.checkpoint_every else None
        ctx.save_for_backward(x, membrane, beta, threshold, checkpoints)
        ctx.call = call
        ctx.set_materialize_grads(False)
        return tuple(results) if call.return_state else results[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        x, membrane, beta, threshold, checkpoints = ctx.saved_tensors
        grad_out = grads[0]
        grad_membrane = grads[1] if call.return_state else None
        wanted = [bool(needed) for needed in ctx.needs_input_grad[:4]]
        if grad_out is None and grad_membrane is None:
            return (None,) * 5
        with torch.no_grad():
            if grad_out is not None:
                grad_out = _as_rows(grad_out, 0 if call.counted else 1)
            if grad_membrane is not None:
                grad_membrane = grad_membrane.contiguous()
            computed = _ops.lif_backward(
                x,
                membrane,
                beta,
                call.beta_value,
                threshold,
                call.threshold_value,
                call.steps,
                checkpoints,
                call.checkpoint_every,
                None if call.counted else grad_out,
                grad_out if call.counted else None,
                grad_membrane,
                call.surrogate.code,
                call.surrogate.slope,
                call.surrogate.scale,
                call.detach_reset,
                sum(1 << i for i, needed in enumerate(wanted) if needed),
            )
        if torch.is_grad_enabled():
            anchors = [t for t in (x, membrane, beta, threshold) if t is not None]
            computed = _NoDoubleBackward.apply(len(computed), *computed, *anchors)
        gradients = iter(computed)
        return (*(next(gradients) if needed else None for needed in wanted), None)


class _NoDoubleBackward(torch.autograd.Function):
    """The identity on gradients, whose own gradient is refused.

    ``once_differentiable`` stays silent where the incoming gradient needs none itself, and the second
    derivative would be silently zero.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(
            "the fused LIF has no second derivative: its surrogate gradient is defined for one "
            "backward pass. Use lif_cuda.ReferenceLIF where create_graph=True is needed, or detach "
            "the gradient"
        )


def _run(
    x: Tensor, membrane: Tensor | None, beta: Tensor | None, threshold: Tensor | None, call: _Call
) -> list[Tensor]:
    outputs = _ops.Output.COUNT if call.counted else _ops.Output.SPIKES
    if call.return_state:
        outputs |= _ops.Output.MEMBRANE
    if call.checkpoint_every:
        outputs |= _ops.Output.CHECKPOINTS
    return _ops.lif_forward(
        x,
        membrane,
        beta,
        call.beta_value,
        threshold,
        call.threshold_value,
        call.steps,
        int(outputs),
        call.checkpoint_every,
    )


def _as_rows(grad: Tensor, features_from: int) -> Tensor:
    """``grad`` as it lies if the kernels can read it so, else a contiguous copy of it.

    They read any stride in time, 0 included, over features that are dense or all at one address: the
    gradient of ``out.sum()`` and that of ``out.mean(0)`` cost no copy.
    """
    if grad.is_contiguous():
        return grad
    strides = grad.stride()[features_from:]
    sizes = grad.shape[features_from:]
    if all(stride == 0 or size == 1 for stride, size in zip(strides, sizes, strict=True)):
        return grad
    if features_from and grad.select(0, 0).is_contiguous():
        return grad
    return grad.contiguous()


def _split_parameter(value: float | Tensor, features: torch.Size) -> tuple[Tensor | None, float]:
    """A parameter as the kernels take it: a number, or values that repeat over the neurons."""
    if not isinstance(value, Tensor):
        return None, float(value)
    sizes = list(value.shape)
    while sizes and sizes[0] == 1:
        del sizes[0]
    period = features[len(features) - len(sizes) :]
    return value.expand(value.shape[: value.dim() - len(sizes)] + period).contiguous(), 0.0


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
    """T time steps of leaky integrate-and-fire neurons, fused.

    For each neuron, from ``v[-1] = membrane``::

        u[t] = beta * v[t-1] + x[t]              integrate and leak
        s[t] = 1 if u[t] >= threshold else 0     fire
        v[t] = u[t] - threshold * s[t]           reset "subtract"

    The derivative of the spike is ``surrogate`` in the backward pass. Spikes, membranes and the
    gradients of ``x`` and ``membrane`` are bit for bit those of :func:`lif_cuda.reference.lif`; the
    equations of the kernels stand in ``csrc/neuron/step.h``.

    Args:
        x: input current, [T, batch..., features...], float32 or float64, on a CPU or a CUDA device. With
            ``steps``: a constant input without a time axis, [batch..., features...], read once for
            all T steps; its gradient has no time axis either. Copied once if it is not contiguous.
        beta: membrane decay a step, ``exp(-dt / tau)``: a number in [0, 1], or a tensor of x's dtype
            that broadcasts from the right over x without its time axis; [features] is one per neuron.
        threshold: membrane at which a neuron fires: a number or a tensor, like ``beta``.
        membrane: state before the first step, [batch..., features...], of x's dtype; None: zeros.
        steps: the number of time steps T of a constant input; None: x has a time axis.
        output: ``"spikes"`` or ``"count"``.
        reset: ``"subtract"``.
        detach_reset: keep the gradient from flowing through the reset.
        surrogate: the derivative that stands in for the spike's.
        return_state: False: return ``out`` alone and write no final membrane.

    Returns:
        ``(out, membrane)``: spikes [T, batch..., features...] of x's dtype, zeros and ones, or their
        count over time [batch..., features...]; and the state after the last step, ready for the
        next call. With T = 0 the state is a copy of ``membrane``. ``out`` alone without
        ``return_state``.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device, shape or value; the
            message names it and the remedy.
        RuntimeError: x is on a CUDA device and this build has no CUDA kernels.
        NotImplementedError: x is on another kind of device; or the gradient is differentiated again.
    """
    options = _check.CallOptions(steps, output, reset, detach_reset, surrogate, return_state)
    x, features = _check.check_call(x, beta, threshold, membrane, options)
    _ops.check_device(x)
    betas, beta_value = _split_parameter(beta, features)
    thresholds, threshold_value = _split_parameter(threshold, features)
    x = x.contiguous()
    if membrane is not None:
        membrane = membrane.contiguous()
    differentiate = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (x, membrane, betas, thresholds)
    )
    every = 0
    if differentiate:
        every = _ops.checkpoint_interval(x.shape[0] if steps is None else steps, x.device.type)
    call = _Call(
        beta_value,
        threshold_value,
        -1 if steps is None else steps,
        output == "count",
        return_state,
        detach_reset,
        surrogate,
        every,
    )
    if differentiate:
        return _FusedLIF.apply(x, membrane, betas, thresholds, call)
    results = _run(x, membrane, betas, thresholds, call)
    return tuple(results) if return_state else results[0]
