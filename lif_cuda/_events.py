"""Products with spikes under autograd, where only the rows of spikes that are set are added.

Forward and the weight's gradient read the bits; the spikes' gradient is an ordinary product, as the incoming
gradient is not sparse. Each can be differentiated again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from . import _check, _ops
from ._packed import PackedSpikes, both_mapped, check_spikes
from ._torch_private import (
    below_autograd,
    has_tangent,
    is_distributed,
    makes_a_program,
    transforms_are_active,
)

NO_FORWARD_MODE = (
    "spike_linear has no forward-mode derivative (torch.func.jvp, jacfwd, forward_ad); use "
    "torch.func.jacrev, vjp or grad, or torch.nn.functional.linear on spikes.dense()"
)


def check_weight(spikes: PackedSpikes | Tensor, weight: object, bias: object) -> None:
    """Raise unless the weight and the bias go with the spikes."""
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight must be a torch.Tensor, got {_check.type_name(weight)}")
    if is_distributed(weight) or is_distributed(spikes):
        raise TypeError("spike_linear takes no DTensor; use torch.nn.functional.linear")
    if weight.dim() != 2 or weight.shape[1] != spikes.shape[-1]:
        raise ValueError(
            f"weight must be [outputs, {spikes.shape[-1]}] for spikes {tuple(spikes.shape)}, got "
            f"{tuple(weight.shape)}"
        )
    _check_like("weight", weight, spikes)
    if bias is None:
        return
    if not isinstance(bias, Tensor):
        raise TypeError(f"bias must be a torch.Tensor or None, got {_check.type_name(bias)}")
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [{weight.shape[0]}], got {tuple(bias.shape)}")
    _check_like("bias", bias, spikes)


def _check_like(name: str, tensor: Tensor, spikes: PackedSpikes | Tensor) -> None:
    if tensor.device != spikes.device:
        raise ValueError(
            f"{name} must be on the device of the spikes, {spikes.device}, got {tensor.device}; move it with "
            f".to('{spikes.device}')"
        )
    if tensor.dtype != spikes.dtype and not torch.is_autocast_enabled(spikes.device.type):
        raise TypeError(
            f"{name} must have the dtype of the spikes, {spikes.dtype}, got {tensor.dtype}; convert the "
            f"spikes with .to({tensor.dtype})"
        )


def spike_linear(spikes: PackedSpikes | Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Any]:
    """``functional.spike_linear``, and how many spikes there were, None where no bits were read."""
    packed = isinstance(spikes, PackedSpikes)
    if not packed:
        check_spikes(spikes)
    check_weight(spikes, weight, bias)
    if spikes.device.type != "cpu":
        dense = spikes.dense() if isinstance(spikes, PackedSpikes) else spikes
        return nnf.linear(dense, weight, bias), None
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        weight = weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    if has_tangent([t for t in (weight, bias, *_tensors(spikes)) if t is not None]):
        raise NotImplementedError(NO_FORWARD_MODE)
    bits = spikes if isinstance(spikes, PackedSpikes) else PackedSpikes.pack(spikes)
    y: Tensor
    if makes_a_program() or torch.compiler.is_compiling():
        y, events = _ops.spike_linear(bits.words, bits.like, weight, bias)
    elif transforms_are_active():
        y, events = ProductTransformed.apply(bits.words, bits.like, weight, bias)
    else:
        y, events = Product.apply(bits.words, bits.like, weight, bias)
    return y, events


def _tensors(spikes: PackedSpikes | Tensor) -> tuple[Tensor, ...]:
    return (spikes.like,) if isinstance(spikes, PackedSpikes) else (spikes,)


def _gradients(ctx: Any, grad: Tensor, of_weight: Any) -> tuple[Tensor | None, ...]:
    """Of words, ``like``, weight and bias; ``of_weight`` is the Function of the weight's."""
    words, like, weight = ctx.saved_tensors
    _, need_like, need_weight, need_bias = ctx.needs_input_grad
    grad_like = torch.matmul(grad, weight).to(like.dtype) if need_like else None
    grad_weight = of_weight.apply(words, like, grad) if need_weight else None
    grad_bias = None
    if need_bias:
        rows = tuple(range(grad.dim() - 1))
        grad_bias = grad.sum(rows) if rows else grad  # of no axes torch sums all
    return None, grad_like, grad_weight, grad_bias


def _gradients_of_gradient(ctx: Any, grad: Tensor, function: Any) -> tuple[Tensor | None, ...]:
    """Of words, ``like`` and the incoming gradient, where a weight's gradient is differentiated again."""
    words, like, grad_y = ctx.saved_tensors
    _, need_like, need_grad = ctx.needs_input_grad
    grad_like = torch.matmul(grad_y, grad).to(like.dtype) if need_like else None
    return None, grad_like, function.apply(words, like, grad, None)[0] if need_grad else None


def product(words: Tensor, like: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    with below_autograd():
        y, events = _ops.spike_linear(words, like, weight, bias)
    return y, events


def gradient(words: Tensor, like: Tensor, grad_y: Tensor) -> Tensor:
    with below_autograd():
        of_weight: Tensor = _ops.spike_gradient(words, like, grad_y)
    return of_weight


class Product(torch.autograd.Function):
    """``spike_linear``; words, ``like``, weight and bias in, y and the number of spikes out."""

    @staticmethod
    def forward(
        ctx: Any, words: Tensor, like: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        y, events = product(words, like, weight, bias)
        ctx.save_for_backward(words, like, weight)
        ctx.mark_non_differentiable(events)
        ctx.set_materialize_grads(False)
        return y, events

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return None, None, None, None
        return _gradients(ctx, grads[0], WeightGradient)


class WeightGradient(torch.autograd.Function):
    """``spike_gradient``; words, ``like`` and the gradient of y in, that of the weight out."""

    @staticmethod
    def forward(ctx: Any, words: Tensor, like: Tensor, grad_y: Tensor) -> Tensor:
        ctx.save_for_backward(words, like, grad_y)
        return gradient(words, like, grad_y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients_of_gradient(ctx, grads[0], Product)


class ProductTransformed(torch.autograd.Function):
    """``Product`` for torch.func. Mapped spikes are one product; a mapped weight is one for each sample."""

    @staticmethod
    def forward(words: Tensor, like: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        return product(words, like, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return None, None, None, None
        return _gradients(ctx, grads[0], WeightGradientTransformed)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], words: Tensor, like: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int | None]]:
        size = info.batch_size
        words, like = both_mapped(size, in_dims, words, like)
        if in_dims[2] is None and in_dims[3] is None:
            y, events = ProductTransformed.apply(words, like, weight, bias)
            return (y, events), (0, None)
        each = [
            ProductTransformed.apply(
                words[i], like[i], _sample(weight, in_dims[2], i), _sample(bias, in_dims[3], i)
            )
            for i in range(size)
        ]
        return (torch.stack([y for y, _ in each]), torch.stack([events for _, events in each])), (0, 0)


class WeightGradientTransformed(torch.autograd.Function):
    """``WeightGradient`` for torch.func: one for each sample."""

    @staticmethod
    def forward(words: Tensor, like: Tensor, grad_y: Tensor) -> Tensor:
        return gradient(words, like, grad_y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients_of_gradient(ctx, grads[0], ProductTransformed)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], words: Tensor, like: Tensor, grad_y: Tensor
    ) -> tuple[Tensor, int]:
        words, like = both_mapped(info.batch_size, in_dims, words, like)
        each = [
            WeightGradientTransformed.apply(words[i], like[i], _sample(grad_y, in_dims[2], i))
            for i in range(info.batch_size)
        ]
        return torch.stack(each), 0


def _sample(tensor: Any, dim: int | None, i: int) -> Any:
    return tensor if dim is None else tensor.select(dim, i)


def _in_a_graph(words: Tensor, like: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """The operator ``spike_linear`` under autograd."""
    given = [tensor for tensor in (like, weight, bias) if tensor is not None]
    if not (torch.is_grad_enabled() and any([tensor.requires_grad for tensor in given])):
        return [*product(words, like, weight, bias)]
    return [*Product.apply(words, like, weight, bias)]


def _gradient_in_a_graph(words: Tensor, like: Tensor, grad_y: Tensor) -> Tensor:
    """The operator ``spike_gradient`` under autograd."""
    if not (torch.is_grad_enabled() and (like.requires_grad or grad_y.requires_grad)):
        return gradient(words, like, grad_y)
    of_weight: Tensor = WeightGradient.apply(words, like, grad_y)
    return of_weight


torch.library.impl("lif_cuda::spike_linear", "Autograd", _in_a_graph)
torch.library.impl("lif_cuda::spike_gradient", "Autograd", _gradient_in_a_graph)
