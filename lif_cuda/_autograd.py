"""The operators under autograd: what is saved for the backward pass, and what comes back from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _build_facts, _layout, _ops
from ._check import STATE_DTYPES
from ._layout import Layout
from ._ops import BITS, CHECKPOINTS, FIRST_GRADIENT, FIRST_SPIKE, FLOOR, INCOMING, PEAK, STATES, TOTAL
from ._outputs import SERIES
from ._parameters import LEARNABLE
from ._torch_private import below_autograd, has_tangent

_PLACES = {name: FIRST_GRADIENT + at for at, name in enumerate(INCOMING)}
# That of the total is a part of that of each neuron's count, and has no slot of its own.
_PLACES["total"] = TOTAL
NOT_DIFFERENTIABLE = ("silence", "packed")
_NOT_DIFFERENTIABLE = sum(_ops.OUTPUTS[name] for name in NOT_DIFFERENTIABLE)


class Call(NamedTuple):
    """What a call is besides its tensors."""

    floats: list[float]  # as the operators take them
    layout: Layout
    options: tuple[int, ...]  # the last of the operators' ints, which forward and backward share
    results: tuple[str, ...]  # what is returned, in the order of the operator
    outputs: int  # the same, as the operator takes it
    slots: tuple[int, ...]  # which tensors are given: states, parameters, lengths, the table
    bits: bool  # whether two bits a step are kept for backward, in place of x
    peak: bool  # whether the step of the largest membrane is

    def keeping_nothing(self) -> Call:
        """The same where there will be no backward pass."""
        return self._replace(bits=False, peak=False) if self.bits or self.peak else self

    def ints(self, present: int, asked: int) -> list[int]:
        """The operators' list of ints."""
        return [present, asked, self.layout.time_dim, int(self.layout.time_first), *self.options]


# The bits of Wanted, by slot. The steps of silence, the floor, lengths and the table have no gradient.
_WANTED_BITS = (2, 4, 8, 0, *(16 << i for i in range(len(LEARNABLE))), 0, 0, 0)


def present(slots: Sequence[int]) -> int:
    """The tensors of these slots, as the operators are told of them."""
    return sum([1 << slot for slot in slots])


class FusedLIF(torch.autograd.Function):
    """The fused operators under autograd, in Python: where :func:`node_of` has no C++ for it, and in programs
    that are compiled or exported, whose graphs hold the operator ``lif``.

    Backward recomputes the states from x, so nothing is saved but the inputs and, for long T, the states
    every few dozen steps; or, on request, two bits a step and no x. The ctx-style signature costs a third of
    the ``setup_context`` one.
    """

    @staticmethod
    def forward(
        ctx: Any, call: Call, steps: int, every: int, x: Tensor, *given: Tensor
    ) -> tuple[Tensor, ...]:
        results = run(x, given, call, steps, every)
        kept = results[-1] if every or call.bits else None
        peak = results[len(call.results)] if call.peak else None
        results = results[: len(call.results)]
        first = results[call.results.index("first_spike")] if "first_spike" in call.results else None
        if call.bits:
            x = x.new_empty(()).expand(x.shape)  # a shape without its memory
        ctx.save_for_backward(x, kept, first, peak, *given)
        ctx.call = call
        ctx.steps = steps
        ctx.every = every
        ctx.set_materialize_grads(False)
        if call.outputs & _NOT_DIFFERENTIABLE:
            pairs = zip(call.results, results, strict=True)
            ctx.mark_non_differentiable(*[tensor for name, tensor in pairs if name in NOT_DIFFERENTIABLE])
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        # Only a backward pass that is itself recorded has grad mode on; turning it off costs 3 us.
        if not torch.is_grad_enabled():
            return gradients_of(ctx, grads, _ops.lif_backward)
        if ctx.call.bits:
            # What would refuse a second derivative hangs on x, and x was not kept.
            raise NotImplementedError(NO_SECOND_PASS_OF_BITS)

        def computed(*arguments: Any) -> Sequence[Tensor]:
            with torch.no_grad():
                gradients: Sequence[Tensor] = _ops.lif_backward(*arguments)
            x, _, _, _, *given = ctx.saved_tensors
            guarded: Sequence[Tensor] = _NoDoubleBackward.apply(gradients, x, *given, *grads)
            return guarded

        return gradients_of(ctx, grads, computed)


def gradients_of(
    ctx: Any, grads: Sequence[Tensor | None], backward: Callable[..., Sequence[Tensor]]
) -> tuple[Tensor | None, ...]:
    """The gradients of the inputs of ``FusedLIF.forward``; ``backward`` is called as the operator is."""
    call: Call = ctx.call
    x, kept, first, peak, *rest = ctx.saved_tensors
    given = list(rest)
    _, _, _, need_x, *needed = ctx.needs_input_grad
    wanted = int(need_x)
    for slot, need in zip(call.slots, needed, strict=True):
        if need and slot == FLOOR:
            raise NotImplementedError(NO_GRADIENT_OF_THE_FLOOR)
        wanted += _WANTED_BITS[slot] * need
    slots = [*call.slots]
    if kept is not None:
        slots.append(BITS if call.bits else CHECKPOINTS)
        given.append(kept)
    if first is not None:
        slots.append(FIRST_SPIKE)
        given.append(first)
    if peak is not None:
        slots.append(PEAK)
        given.append(peak)
    without = len(slots)
    # Behind the results there may be checkpoints, which have no gradient. torch.compile traces one for every
    # result, those that have none included.
    incoming = {
        name: grad
        for name, grad in zip(call.results, grads, strict=False)
        if grad is not None and name in _PLACES
    }
    if "total" in incoming:
        of_each = _of_each_neuron(incoming.pop("total"), x, call.layout.time_dim, ctx.steps)
        incoming["count"] = incoming["count"] + of_each if "count" in incoming else of_each
    for name in INCOMING:
        if name in incoming:
            slots.append(_PLACES[name])
            given.append(incoming_rows(name, incoming[name], call.layout))
    if len(slots) == without or not wanted:
        return (None,) * len(ctx.needs_input_grad)
    computed = backward(x, given, call.ints(present(slots), wanted), ctx.steps, ctx.every, call.floats)
    gradients = iter(computed)
    dx = next(gradients) if need_x else None
    if dx is not None and ctx.steps < 0 and call.layout.time_first:
        dx = dx.movedim(0, call.layout.time_dim)
    return (
        None,
        None,
        None,
        dx,
        *(
            next(gradients) if need and _WANTED_BITS[slot] else None
            for slot, need in zip(call.slots, needed, strict=True)
        ),
    )


def _of_each_neuron(grad: Tensor, x: Tensor, time_dim: int, steps: int) -> Tensor:
    """The gradient of the total as one of each neuron's count: the same number for all, of one element."""
    features = list(x.shape)
    if steps < 0:
        del features[time_dim]
    return grad.to(STATE_DTYPES[x.dtype]).expand(features)


# Said wherever a derivative could otherwise come out as a silent zero.
NO_FORWARD_MODE = (
    "the fused LIF has no forward-mode derivative (torch.func.jvp, jacfwd, hessian, forward_ad); use "
    "torch.func.jacrev, vjp or grad, and for a second derivative lif_cuda.ReferenceLIF and torch.autograd "
    "with create_graph=True"
)
NO_SECOND_DERIVATIVE = (
    "the fused LIF has no second derivative: its surrogate gradient is defined for one backward pass. Use "
    "lif_cuda.ReferenceLIF and torch.autograd with create_graph=True where one is needed, or detach the "
    "gradient"
)
NO_ONNX = (
    "ONNX has no operator for the fused LIF; export lif_cuda.ReferenceLIF, which takes the same arguments "
    "and the same state_dict (or lif_cuda.reference.lif in place of lif_cuda.functional.lif)"
)
NO_SECOND_PASS_OF_BITS = (
    "save='bits' is for one backward pass, got one with create_graph=True; use save='input' there"
)


# Where no check of the call saw that v_min wants one: in a program, and within torch.func.
NO_GRADIENT_OF_THE_FLOOR = "v_min has no gradient: a floor is not learned; detach it"


class _NoDoubleBackward(torch.autograd.Function):
    """The identity on gradients, whose own gradient, in whatever they depend on, is refused.

    ``once_differentiable`` stays silent where the incoming gradient needs none itself, and the second
    derivative would be silently zero. The gradients come in a list, unseen by autograd: what is returned is
    no view then, and may be changed in place.
    """

    @staticmethod
    def forward(ctx: Any, gradients: Sequence[Tensor], *sources: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(gradients)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(NO_SECOND_DERIVATIVE)


def recorded_in_a_graph(x: Tensor, given: Sequence[Tensor], call: Call, steps: int) -> Sequence[Tensor]:
    """The results of a call as one node of a graph, of an operator that has a derivative of its own.

    So nothing in the graph depends on T or on the device: what is kept for backward, and how often, is found
    out when the graph runs, or when torch.compile takes it apart into forward and backward.
    """
    ints = call.ints(present(call.slots), _asked(call._replace(peak=False), 0))
    results: Sequence[Tensor] = _ops.lif(x, given, ints, steps, call.floats)
    return results


def _lif(
    x: Tensor, given: Sequence[Tensor], ints: Sequence[int], steps: int, floats: list[float]
) -> Sequence[Tensor]:
    """The operator ``lif`` under autograd."""
    if torch.onnx.is_in_onnx_export():
        raise NotImplementedError(NO_ONNX)
    if has_tangent((x, *given)):
        raise NotImplementedError(NO_FORWARD_MODE)
    if not (torch.is_grad_enabled() and any([tensor.requires_grad for tensor in (x, *given)])):
        with below_autograd():
            results: Sequence[Tensor] = _ops.lif(x, given, ints, steps, floats)
        return results
    there, asked, time_dim, time_first, *options = ints
    slots = tuple([slot for slot in range(_ops.SLOTS) if there >> slot & 1])
    outputs = asked & ~_ops.OUTPUTS["bits"]
    names = tuple([name for name, flag in _ops.OUTPUTS.items() if outputs & flag])
    # An export runs this for the shapes of the results alone; those of what is kept depend on T, and would
    # tie the program to a range of it.
    keep = not torch.compiler.is_exporting()
    bits = keep and asked != outputs
    every = _ops.checkpoint_interval(x.device.type) if keep and not bits else 0
    layout = Layout(time_dim, time_first=bool(time_first))
    peak = keep and "trace_max" in names
    call = Call(floats, layout, tuple(options), names, outputs, slots, bits, peak)
    # A program is called with tensors that lie otherwise than those it was exported with.
    x = _layout.as_rows(x, time_dim, timed=steps < 0)
    found: Sequence[Tensor] = FusedLIF.apply(call, steps, every, x, *[t.contiguous() for t in given])
    return list(found)


torch.library.impl("lif_cuda::lif", "Autograd", _lif)


def run(x: Tensor, given: Sequence[Tensor], call: Call, steps: int, every: int) -> list[Tensor]:
    """The results of a call, and after them what is kept for backward, if anything.

    That is the step of the largest membrane, then checkpoints or bits.
    """
    ints = call.ints(present(call.slots), _asked(call, every))
    results: list[Tensor] = _ops.lif_forward(x, given, ints, steps, every, call.floats)
    return results


def _asked(call: Call, every: int) -> int:
    """The outputs of the operator where a call is recorded."""
    outputs = call.outputs
    if call.peak:
        outputs |= _ops.OUTPUTS["peak"]
    if every:
        outputs |= _ops.OUTPUTS["checkpoints"]
    if call.bits:
        outputs |= _ops.OUTPUTS["bits"]
    return outputs


_NODE = _build_facts.node_module()


def pass_the_dispatcher_by(whether: bool) -> None:
    """Let the node call the kernels itself where nobody else is to hear of it, or always the dispatcher."""
    assert _NODE is not None
    for device, library in _ops.LIBRARIES.items():
        _NODE.call_directly(device=device, library=str(library) if whether else None)


if _NODE is not None:
    _NODE.refuse_with(
        forward_mode=NO_FORWARD_MODE,
        second_derivative=NO_SECOND_DERIVATIVE,
        second_pass_of_bits=NO_SECOND_PASS_OF_BITS,
    )
    if not _build_facts.always_dispatches():
        pass_the_dispatcher_by(True)


def node_of(
    call: Call, steps: int, every: int
) -> Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, ...]] | None:
    """What takes x and the tensors that are given, and returns the results under autograd: FusedLIF in C++.

    None where it is not to be had (:func:`lif_cuda._build_facts.node_module`), and FusedLIF does the same.
    """
    if _NODE is None:
        return None
    given = present(call.slots)
    node: Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, ...]] = _NODE.Call(
        ints=call.ints(given, call.outputs),
        ints_to_keep=call.ints(given, _asked(call, every)),
        floats=call.floats,
        slots=call.slots,
        incoming=[_PLACES.get(name, -1) for name in call.results],  # -1: it has no gradient
        steps=steps,
        every=every,
        first_spike=call.results.index("first_spike") if "first_spike" in call.results else -1,
        peak=call.peak,
        bits=call.bits,
    )
    return node


def incoming_rows(name: str, grad: Tensor, layout: Layout) -> Tensor:
    """A gradient of an output as the kernels read it."""
    if name in STATES:
        return grad.contiguous()
    timed = name in SERIES
    if timed and layout.time_first:
        grad = grad.movedim(0, layout.time_dim)
    return _layout.as_rows(grad, layout.time_dim, timed)
