"""A convolution that is driven by spikes: a product with the bits of the pixels under the kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.nn.grad import conv2d_input

from . import _events, _ops
from ._packed import check_spikes, pack_words, without_memory
from ._spike_linear import Tally
from ._torch_private import has_tangent, is_distributed, makes_a_program, transforms_are_active

NOT_IN_PROGRAMS = (
    "SpikeConv2d runs in eager mode alone; use nn.Conv2d, which has the same parameters, under "
    "torch.compile, torch.export, torch.jit.trace and torch.func"
)

NO_SECOND_DERIVATIVE = "SpikeConv2d has no second derivative (create_graph=True); use nn.Conv2d"


class Geometry(NamedTuple):
    """How the kernel moves over the image; pairs are of rows and columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def patches(words: Tensor, geometry: Geometry) -> Tensor:
    """Of words [images, rows, columns, words of a pixel] those under the kernel at each of its places,
    [images, rows, columns, kernel rows * kernel columns * words of a pixel].
    """
    (high, wide), (down, right), (above, left), (by_row, by_column) = geometry
    padded = nnf.pad(words, (0, 0, left, left, above, above))
    span = by_row * (high - 1) + 1, by_column * (wide - 1) + 1
    under = padded.unfold(1, span[0], down).unfold(2, span[1], right)[..., ::by_row, ::by_column]
    return under.permute(0, 1, 2, 4, 5, 3).flatten(3).contiguous()


def taps(weight: Tensor) -> Tensor:
    """A weight [out, in, rows, columns] as that of the product: the channels of each tap are whole words."""
    return nnf.pad(weight.permute(0, 2, 3, 1), (0, -weight.shape[1] % _ops.SPIKES_OF_WORD)).flatten(1)


class Convolution(torch.autograd.Function):
    """Spikes, weight, bias and a geometry in; y and the number of additions for each channel out."""

    @staticmethod
    def forward(
        ctx: Any, spikes: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
    ) -> tuple[Tensor, Tensor]:
        rows = patches(pack_words(spikes.permute(0, 2, 3, 1)), geometry)
        like = without_memory(
            (*rows.shape[:-1], rows.shape[-1] * _ops.SPIKES_OF_WORD), spikes.dtype, spikes.device
        )
        y, events = _events.product(rows, like, taps(weight), bias)
        ctx.save_for_backward(rows, like, weight)
        ctx.shape, ctx.geometry = spikes.shape, geometry
        ctx.mark_non_differentiable(events)
        ctx.set_materialize_grads(False)
        return y.permute(0, 3, 1, 2), events

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError(NO_SECOND_DERIVATIVE)
        grad = grads[0]
        if grad is None:
            return None, None, None, None
        rows, like, weight = ctx.saved_tensors
        _, stride, padding, dilation = ctx.geometry
        need_spikes, need_weight, need_bias, _ = ctx.needs_input_grad
        grad_spikes = grad_weight = None
        if need_spikes:
            grad_spikes = conv2d_input(ctx.shape, weight, grad, stride, padding, dilation)
        if need_weight:
            outputs, channels, *kernel = weight.shape
            of_taps = _events.gradient(rows, like, grad.permute(0, 2, 3, 1))
            grad_weight = of_taps.view(outputs, *kernel, -1)[..., :channels].permute(0, 3, 1, 2)
        return grad_spikes, grad_weight, grad.sum((0, 2, 3)) if need_bias else None, None


class SpikeConv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d` for spikes: the same parameters, keys and initial values, in place of it.

    On the CPU it adds a row of its weight for each spike under the kernel and multiplies nothing; a sum is
    ``0 + bias`` (or 0), then the taps of the kernel row by row, of each the channels, ascending. Input is
    zeros and ones, [images, channels, rows, columns] (fold time and batch into the images), best with its
    channels innermost (``memory_format=torch.channels_last``), which is how the output lies. Other numbers
    raise a ValueError. The spikes' gradient is an ordinary convolution.

    It pays from some 64 channels on: fewer leave most of a word empty (docs/events.md).

    On CUDA it is ``torch.nn.functional.conv2d``. It runs in eager mode alone.

    Raises:
        ValueError: ``groups`` is not 1, or ``padding_mode`` not "zeros".
    """

    _tally: Tally | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.groups != 1 or self.padding_mode != "zeros":
            raise ValueError(
                "SpikeConv2d has groups=1 and padding_mode='zeros', got "
                f"groups={self.groups} and padding_mode={self.padding_mode!r}; use nn.Conv2d"
            )

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        check_spikes(input)
        if input.dim() != 4 or input.shape[1] != self.in_channels:
            raise ValueError(
                f"spikes must be [images, {self.in_channels}, rows, columns], got {tuple(input.shape)}"
            )
        if input.device.type != "cpu":
            return super().forward(input)
        _refuse(input, self.weight)
        y: Tensor
        y, events = Convolution.apply(input, self.weight, self.bias, self._geometry())
        if self._tally is not None:
            self._tally.add(events)
        return y

    @property
    def fan_out(self) -> int:
        """Additions for a spike under the kernel."""
        return self.out_channels

    def _geometry(self) -> Geometry:
        kernel, stride, dilation = (tuple(v) for v in (self.kernel_size, self.stride, self.dilation))
        padding: Any = self.padding
        if padding == "valid":
            padding = (0, 0)
        elif padding == "same":
            whole = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            if any(size % 2 for size in whole):
                raise ValueError("padding='same' needs a kernel of odd size here; use nn.Conv2d")
            padding = (whole[0] // 2, whole[1] // 2)
        return Geometry(kernel, stride, tuple(padding), dilation)  # type: ignore[arg-type]


def _refuse(spikes: Tensor, weight: Tensor) -> None:
    """Raise where nothing would be right, or nobody would know the gradient."""
    if is_distributed(spikes) or is_distributed(weight):
        raise TypeError("SpikeConv2d takes no DTensor; use nn.Conv2d")
    if makes_a_program() or torch.compiler.is_compiling() or transforms_are_active():
        raise NotImplementedError(NOT_IN_PROGRAMS)
    if has_tangent((spikes, weight)):
        raise NotImplementedError(_events.NO_FORWARD_MODE)
    if spikes.dtype != weight.dtype:
        raise TypeError(
            f"spikes must have the dtype of the weight, {weight.dtype}, got {spikes.dtype}; convert them "
            f"with .to({weight.dtype})"
        )
