"""The operators under torch.func: vmap, grad, jacrev, functional_call, and each inside another.

Transforms need functions with a ``setup_context`` and a rule for vmap, which cost more a call than what
``_autograd.py`` does; so they are used only where a transform is at work.

The rule for vmap is one launch, not one a sample: the mapped axis becomes one more axis of neurons, after
time where x is mapped and has time first, else before all; an x that is not mapped is read once for each
sample, as it lies. Parameters that are not mapped stay as they are; their gradients
are taken for each sample, as vmap wants them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _layout, _ops
from ._autograd import (
    NO_FORWARD_MODE,
    NO_SECOND_DERIVATIVE,
    NOT_DIFFERENTIABLE,
    Call,
    gradients_of,
    run,
)
from ._ops import CHECKPOINTS, FIRST_GRADIENT, FIRST_PARAMETER, FIRST_SPIKE, INCOMING, LENGTHS, PEAK, TABLE
from ._outputs import SERIES


def check_not_traced() -> None:
    """Raise in a trace of torch.compile, which would drop the derivative of the operators without a word.

    Outside of fullgraph=True it then leaves this function to Python, where all is well.
    """
    if torch.compiler.is_compiling():
        raise NotImplementedError(
            "torch.func inside a function compiled with fullgraph=True does not reach the fused LIF; compile "
            "without it, compile the function that is transformed instead, or use lif_cuda.ReferenceLIF"
        )


class _Mapped:
    """A call with one more axis of ``size`` samples among its neurons."""

    def __init__(self, size: int, x: Tensor, x_dim: int | None, time_dim: int, steps: int) -> None:
        self.size = size
        constant = steps >= 0
        # The place of the samples in a tensor with a time axis; in one without, they come first.
        self.place = 1 if time_dim == 0 and x_dim is not None else 0
        self.time_dim = time_dim + 1 - self.place
        if x_dim is None and time_dim == 0:
            self.x = x.contiguous().expand(size, *x.shape)  # an outer axis of stride 0: no copies
        else:
            self.x = self.tensor(x, x_dim, 0 if constant else self.place)
        sizes = list(self.x.shape)
        if not constant:
            del sizes[self.time_dim]
        self.features = torch.Size(sizes)

    def tensor(self, tensor: Tensor, dim: int | None, at: int) -> Tensor:
        """``tensor`` with its samples at ``at``; the same for each where it is not mapped."""
        if dim is None:
            shape = (*tensor.shape[:at], self.size, *tensor.shape[at:])
            return tensor.unsqueeze(at).expand(shape).contiguous()
        return tensor.movedim(dim, at).contiguous()

    def parameter(self, value: Tensor, dim: int | None, *, own: bool) -> Tensor:
        """A parameter, or lengths, as it is; with samples first if mapped, or if each needs its ``own``."""
        if dim is None and not own:
            return value
        value = self.tensor(value, dim, 0)
        value = value.reshape(self.size, *(1,) * (len(self.features) - value.dim()), *value.shape[1:])
        return _layout.arrange_parameter(value, self.features, None)


class _Numbers(NamedTuple):
    """The arguments of ``lif_backward`` that are no tensors."""

    ints: tuple[int, ...]
    steps: int
    every: int
    floats: list[float]


class Forward(torch.autograd.Function):
    """``FusedLIF`` for transforms: the checkpoints are an output, as what is saved has to be."""

    @staticmethod
    def forward(call: Call, steps: int, every: int, x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        if call.bits:
            raise NotImplementedError(
                "save='bits' is not for torch.func, whose transforms differentiate each sample; use "
                "save='input'"
            )
        return tuple(run(x, given, call, steps, every))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        call, steps, every, x, *given = inputs
        names = call.results
        checkpoints = output[-1] if every else None
        peak = output[len(names)] if call.peak else None
        first = output[names.index("first_spike")] if "first_spike" in names else None
        ctx.save_for_backward(x, checkpoints, first, peak, *given)
        ctx.call, ctx.steps, ctx.every = call, steps, every
        ctx.set_materialize_grads(False)
        fixed = [out for name, out in zip(names, output, strict=False) if name in NOT_DIFFERENTIABLE]
        fixed += output[len(names) :]
        if fixed:
            ctx.mark_non_differentiable(*fixed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return gradients_of(ctx, grads, _apply_backward)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotImplementedError(NO_FORWARD_MODE)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[Any, ...],
        call: Call,
        steps: int,
        every: int,
        x: Tensor,
        *given: Tensor,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        names = call.results
        if "total" in names:  # of each sample: the sum of its counts
            call = _counting(call)
        mapped = _Mapped(info.batch_size, x, in_dims[3], call.layout.time_dim, steps)
        tensors = [
            mapped.tensor(tensor, dim, 0)
            if slot < FIRST_PARAMETER
            else tensor
            if slot == TABLE
            else mapped.parameter(tensor, dim, own=False)
            for slot, tensor, dim in zip(call.slots, given, in_dims[4:], strict=True)
        ]
        layout = call.layout._replace(time_dim=mapped.time_dim, time_first=False)
        results = Forward.apply(call._replace(layout=layout), steps, every, mapped.x, *tensors)
        kept = ("peak",) * call.peak + ("checkpoints",)
        found = dict(zip((*call.results, *kept), results, strict=False))
        if "total" in names:
            found["total"] = found["count"].double().reshape(info.batch_size, -1).sum(1)
        outputs, dims = [], []
        for name in (*names, *kept):
            if name not in found:
                continue
            result = found[name]
            if name in SERIES and call.layout.time_first:
                result = result.movedim(mapped.time_dim, 1)
            outputs.append(result)
            dims.append(mapped.place if name in SERIES else 2 if name == "checkpoints" else 0)
        return tuple(outputs), tuple(dims)


def _counting(call: Call) -> Call:
    """The call with the count of each neuron in place of their total."""
    names = tuple([n for n in _ops.OUTPUTS if n == "count" or (n in call.results and n != "total")])
    outputs = sum([_ops.OUTPUTS[name] for name in names])
    return call._replace(results=names, outputs=outputs)


def _apply_backward(
    x: Tensor, given: Sequence[Tensor], ints: Sequence[int], steps: int, every: int, floats: list[float]
) -> Sequence[Tensor]:
    """``lif_backward`` through ``Backward``, whose tensors have to be arguments of their own."""
    gradients: Sequence[Tensor] = Backward.apply(_Numbers(tuple(ints), steps, every, floats), x, *given)
    return gradients


class Backward(torch.autograd.Function):
    """``lif_backward`` for transforms."""

    @staticmethod
    def forward(numbers: _Numbers, x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        return tuple(_ops.lif_backward(x, given, *numbers))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(NO_SECOND_DERIVATIVE)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], numbers: _Numbers, x: Tensor, *given: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        present, wanted, time_dim, time_first, *options = numbers.ints
        steps = numbers.steps
        mapped = _Mapped(info.batch_size, x, in_dims[1], time_dim, steps)
        names = _ops.WANTED
        slots = [slot for slot in range(_ops.SLOTS) if present >> slot & 1]
        parameters: dict[int, tuple[Tensor, int | None]] = {}
        arranged = []
        for slot, tensor, dim in zip(slots, given, in_dims[2:], strict=True):
            if FIRST_PARAMETER <= slot < LENGTHS:
                parameters[slot] = tensor, dim
                own = bool(wanted >> names.index("beta") + slot - FIRST_PARAMETER & 1)
                arranged.append(mapped.parameter(tensor, dim, own=own))
            elif slot == LENGTHS:
                arranged.append(mapped.parameter(tensor, dim, own=False))
            elif slot == TABLE:
                arranged.append(tensor)
            elif slot == CHECKPOINTS:
                arranged.append(mapped.tensor(tensor, dim, 2))
            elif slot < FIRST_PARAMETER or slot in (FIRST_SPIKE, PEAK):
                arranged.append(mapped.tensor(tensor, dim, 0))
            else:
                timed = INCOMING[slot - FIRST_GRADIENT] in SERIES
                arranged.append(mapped.tensor(tensor, dim, mapped.place if timed else 0))
        ints = (present, wanted, mapped.time_dim, 0, *options)
        results = Backward.apply(numbers._replace(ints=ints), mapped.x, *arranged)
        gradients, places = [], []
        for i, gradient in zip((i for i in range(len(names)) if wanted >> i & 1), results, strict=True):
            place = 0
            if names[i] == "x" and steps < 0:
                place = mapped.place
                if time_first:
                    gradient = gradient.movedim(mapped.time_dim, 1)
            elif i >= names.index("beta"):
                value, dim = parameters[FIRST_PARAMETER + i - names.index("beta")]
                sizes = list(value.shape)
                if dim is not None:
                    del sizes[dim]
                padded = (info.batch_size, *(1,) * (gradient.dim() - 1 - len(sizes)), *sizes)
                gradient = gradient.sum_to_size(padded).reshape(info.batch_size, *sizes)
            gradients.append(gradient)
            places.append(place)
        return tuple(gradients), tuple(places)
