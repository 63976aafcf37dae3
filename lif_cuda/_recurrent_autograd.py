"""Recurrent neurons under autograd: what is saved for the backward pass, and what comes back from it.

Tensors are as the operators take them, [T, samples, neurons]; what these mean stands in
``csrc/ops/recurrent_interface.h``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _ops
from ._autograd import NO_FORWARD_MODE, NO_ONNX, NO_SECOND_DERIVATIVE, _NoDoubleBackward, present
from ._check import STATE_DTYPES
from ._ops import RECURRENT_OUTPUTS, RECURRENT_SLOTS, RECURRENT_WANTED
from ._torch_private import below_autograd, has_tangent

WEIGHT, BIAS = 1, 2


class RecurrentCall(NamedTuple):
    """What a call is besides its tensors."""

    options: tuple[int, ...]  # the last of the operators' ints
    floats: list[float]
    results: tuple[str, ...]  # what is returned, in the order of the operator
    given: tuple[str, ...]  # which tensors are given beside x and the weight, in the order of the slots

    def forward_ints(self, kept: tuple[str, ...]) -> list[int]:
        """The ints of ``recurrent_forward``, which is to return what is kept as well."""
        asked = self.results + kept
        return [_flags(RECURRENT_SLOTS, self.given), _flags(RECURRENT_OUTPUTS, asked), *self.options]


def _flags(names: Sequence[str], found: Sequence[str]) -> int:
    return present([names.index(name) for name in found])


def run(call: RecurrentCall, keep: bool, x: Tensor, weight: Tensor, *given: Tensor) -> list[Tensor]:
    """The results of a call, and after them, if asked for, what is kept for backward."""
    dtype = STATE_DTYPES[x.dtype]
    if x.stride(-1) != 1 and x.shape[-1] > 1:
        x = x.contiguous()
    tensors = [tensor.to(dtype).contiguous() for tensor in given]
    # On CUDA the weight's gradient is a product, and the spikes of the steps before are compared for again.
    words = ("fired_before",) if _ops.recurrent_kernels(x.device.type) == "cpu" else ()
    kept = ("u", *words) if keep else ()
    results: list[Tensor] = _ops.recurrent_forward(
        x, _for_kernels(weight, x), tensors, call.forward_ints(kept), call.floats
    )
    return results


def _for_kernels(weight: Tensor, x: Tensor) -> Tensor:
    """The weight in the dtype of the state; on CUDA, where it may fit into shared memory so, in x's."""
    of_x = weight.dtype == x.dtype and _ops.recurrent_kernels(x.device.type) == "cuda"
    return weight.to(weight.dtype if of_x else STATE_DTYPES[x.dtype]).contiguous()


class Needs(NamedTuple):
    """Which gradients are asked for, and of what kind of x."""

    x: bool
    weight: bool
    given: tuple[bool, ...]
    dtype: torch.dtype


def gradients(
    call: RecurrentCall,
    needs: Needs,
    kept: Sequence[Tensor],
    weight: Tensor,
    given: Sequence[Tensor],
    incoming: dict[str, Tensor],
) -> list[Tensor]:
    """The gradients that are asked for: of x, of the weight, and of the tensors that are given."""
    u = kept[0]
    steps = u.shape[0]
    neurons = weight.shape[0]
    dtype = u.dtype
    tensors = dict(zip(call.given, given, strict=True))
    slots = {name: tensors[name] for name in call.given if name not in ("bias", "fired")}
    for name in ("spikes", "trace"):
        if name in incoming:
            slots[f"grad_{name}"] = _dense_rows(incoming[name])
    steady = _steady(incoming, steps)
    if steady is not None:
        slots["grad_steady"] = steady
    slots |= {f"grad_{name}": incoming[name] for name in ("membrane", "fired") if name in incoming}
    by_name = dict(zip(call.given, needs.given, strict=True))
    wanted = tuple([name for name in RECURRENT_WANTED if by_name.get(name, False)])
    names = [name for name in RECURRENT_SLOTS if name in slots]
    typed = ("grad_spikes", "grad_trace")
    passed = [slots[name] if name in typed else slots[name].to(dtype).contiguous() for name in names]
    ints = [_flags(RECURRENT_SLOTS, names), _flags(RECURRENT_WANTED, wanted), *call.options]
    like_x = torch.empty((), dtype=needs.dtype, device=u.device)
    of_weight = _for_kernels(weight, like_x)
    grad_input, *found = _ops.recurrent_backward(u, of_weight, passed, ints, call.floats)
    by_slot = dict(zip(wanted, found, strict=True))
    asked = WEIGHT * needs.weight + BIAS * by_name.get("bias", False)
    of_weights: list[Tensor] = []
    if asked:
        if _ops.recurrent_kernels(u.device.type) == "cpu":
            of_weights = _ops.recurrent_weights(grad_input, kept[1], neurons, asked)
        else:
            of_weights = _by_product(call, asked, u, grad_input, tensors)
    if by_name.get("bias", False):
        by_slot["bias"] = of_weights[-1]
    results: list[Tensor] = []
    if needs.x:
        results.append(grad_input[..., :neurons].to(needs.dtype))
    if needs.weight:
        results.append(of_weights[0].to(weight.dtype))
    for name, need in by_name.items():
        if need:
            results.append(by_slot[name].to(tensors[name].dtype))
    return results


def _by_product(
    call: RecurrentCall, asked: int, u: Tensor, grad_input: Tensor, tensors: dict[str, Tensor]
) -> list[Tensor]:
    """What ``recurrent_weights`` returns, where the spikes of the steps before are not kept as words."""
    found = []
    if asked & WEIGHT:
        threshold = tensors.get("threshold")
        if threshold is None:
            threshold = torch.full((), call.floats[1], dtype=u.dtype, device=u.device)
        before = torch.zeros_like(u)
        if "fired" in tensors:
            before[:1] = tensors["fired"]
        strict = bool(call.options[1])
        level = threshold.to(u.dtype)
        before[1:] = u[:-1] > level if strict else u[:-1] >= level
        found.append(grad_input.flatten(0, 1).t().mm(before.flatten(0, 1)))
    if asked & BIAS:
        found.append(grad_input.sum((0, 1)))
    return found


def _dense_rows(grad: Tensor) -> Tensor:
    return grad if grad.stride(-1) == 1 or grad.shape[-1] <= 1 else grad.contiguous()


def _steady(incoming: dict[str, Tensor], steps: int) -> Tensor | None:
    """The gradient that the spikes of all steps share: of their count and of their rate."""
    count, rate = incoming.get("count"), incoming.get("rate")
    if rate is not None:
        # By a tensor, as in the reference: eager CUDA would multiply with a reciprocal.
        rate = rate / torch.full((), max(steps, 1), dtype=rate.dtype, device=rate.device)
    if count is None or rate is None:
        return count if rate is None else rate
    return count + rate


NO_SECOND_PASS = (
    "recurrent neurons have no second derivative, got a backward pass with create_graph=True; use "
    "lif_cuda.ReferenceRecurrentLIF where one is needed"
)


class FusedRecurrent(torch.autograd.Function):
    """The operators under autograd."""

    @staticmethod
    def forward(ctx: Any, call: RecurrentCall, x: Tensor, weight: Tensor, *given: Tensor) -> Any:
        results = run(call, True, x, weight, *given)
        number = len(call.results)
        ctx.save_for_backward(weight, *given, *results[number:])
        ctx.call = call
        ctx.dtype = x.dtype
        ctx.set_materialize_grads(False)
        return tuple(results[:number])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return _gradients_of(ctx, grads, gradients)

        if ctx.needs_input_grad[1]:
            # What would refuse a second derivative hangs on x, and x was not kept.
            raise NotImplementedError(NO_SECOND_PASS)

        def refusing(*arguments: Any) -> Sequence[Tensor]:
            with torch.no_grad():
                found = gradients(*arguments)
            guarded: Sequence[Tensor] = _NoDoubleBackward.apply(
                found,
                *ctx.saved_tensors[: 1 + len(ctx.call.given)],
                *[grad for grad in grads if grad is not None],
            )
            return guarded

        return _gradients_of(ctx, grads, refusing)


def _gradients_of(
    ctx: Any, grads: Sequence[Tensor | None], compute: Callable[..., Sequence[Tensor]]
) -> tuple[Tensor | None, ...]:
    """The gradients of the inputs of ``forward``; ``compute`` is called as :func:`gradients` is."""
    call: RecurrentCall = ctx.call
    weight, *rest = ctx.saved_tensors
    given, kept = rest[: len(call.given)], rest[len(call.given) :]
    _, need_x, need_weight, *needed = ctx.needs_input_grad
    incoming = {name: grad for name, grad in zip(call.results, grads, strict=False) if grad is not None}
    if not incoming:
        return (None,) * len(ctx.needs_input_grad)
    needs = Needs(need_x, need_weight, tuple(needed), ctx.dtype)
    found = iter(compute(call, needs, kept, weight, given, incoming))
    return (None, *[next(found) if need else None for need in (need_x, need_weight, *needed)])


def recorded_in_a_graph(call: RecurrentCall, x: Tensor, weight: Tensor, *given: Tensor) -> list[Tensor]:
    """The results of a call as one node of a graph, of an operator that has a derivative of its own."""
    dtype = STATE_DTYPES[x.dtype]
    weight, *given_there = [tensor.to(dtype).contiguous() for tensor in (weight, *given)]
    results: list[Tensor] = _ops.recurrent(x, weight, given_there, call.forward_ints(()), call.floats)
    return results


def _recurrent(
    x: Tensor, weight: Tensor, given: Sequence[Tensor], ints: Sequence[int], floats: list[float]
) -> Sequence[Tensor]:
    """The operator ``recurrent`` under autograd."""
    if torch.onnx.is_in_onnx_export():
        raise NotImplementedError(NO_ONNX)
    tensors = (x, weight, *given)
    if has_tangent(tensors):
        raise NotImplementedError(NO_FORWARD_MODE)
    if not (torch.is_grad_enabled() and any([tensor.requires_grad for tensor in tensors])):
        with below_autograd():
            results: Sequence[Tensor] = _ops.recurrent(x, weight, given, ints, floats)
        return results
    there, asked, *options = ints
    call = RecurrentCall(
        tuple(options), floats, _named(RECURRENT_OUTPUTS, asked), _named(RECURRENT_SLOTS, there)
    )
    found: Sequence[Tensor] = FusedRecurrent.apply(call, *tensors)
    return list(found)


def _named(names: Sequence[str], flags: int) -> tuple[str, ...]:
    return tuple([name for i, name in enumerate(names) if flags >> i & 1])


torch.library.impl("lif_cuda::recurrent", "Autograd", _recurrent)


# Under the transforms of torch.func: functions with a setup_context, and a rule for vmap that takes the
# samples one after the other.


def _each_sample(
    size: int, dims: Sequence[int | None], tensors: Sequence[Tensor], compute: Callable[..., Sequence[Tensor]]
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """``compute`` of each sample's tensors, its results stacked."""
    each = [
        compute(*[t if dim is None else t.select(dim, i) for t, dim in zip(tensors, dims, strict=True)])
        for i in range(size)
    ]
    stacked = tuple([torch.stack(results) for results in zip(*each, strict=True)])
    return stacked, (0,) * len(stacked)


class Forward(torch.autograd.Function):
    """:class:`FusedRecurrent` for transforms: what is kept is an output, as what is saved has to be."""

    @staticmethod
    def forward(call: RecurrentCall, x: Tensor, weight: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        return tuple(run(call, True, x, weight, *given))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        call, x, weight, *given = inputs
        kept = output[len(call.results) :]
        # x for nothing but the refusal of a second derivative, which hangs on what backward was given.
        ctx.save_for_backward(weight, *given, *kept, x)
        ctx.call, ctx.dtype = call, x.dtype
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*kept)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        def apply(
            call: RecurrentCall,
            needs: Needs,
            kept: Sequence[Tensor],
            weight: Tensor,
            given: Sequence[Tensor],
            incoming: dict[str, Tensor],
        ) -> Sequence[Tensor]:
            names = tuple(incoming)
            found: Sequence[Tensor] = Backward.apply(
                call, needs, names, weight, *given, *incoming.values(), *kept
            )
            return found

        return _gradients_of(ctx, grads[: len(ctx.call.results)], apply)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotImplementedError(NO_FORWARD_MODE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], call: RecurrentCall, *tensors: Tensor) -> Any:
        return _each_sample(
            info.batch_size, in_dims[1:], tensors, lambda *sample: Forward.apply(call, *sample)
        )


class Backward(torch.autograd.Function):
    """:func:`gradients` for transforms."""

    @staticmethod
    def forward(
        call: RecurrentCall,
        needs: Needs,
        names: tuple[str, ...],
        weight: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        first, last = len(call.given), len(call.given) + len(names)
        incoming = dict(zip(names, tensors[first:last], strict=True))
        return tuple(gradients(call, needs, tensors[last:], weight, tensors[:first], incoming))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(NO_SECOND_DERIVATIVE)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[Any, ...],
        call: RecurrentCall,
        needs: Needs,
        names: tuple[str, ...],
        *tensors: Tensor,
    ) -> Any:
        return _each_sample(
            info.batch_size, in_dims[3:], tensors, lambda *sample: Backward.apply(call, needs, names, *sample)
        )
