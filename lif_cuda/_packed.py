"""Spikes as bits: one a neuron and step, 64 in a word along the last axis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from . import _check, _ops
from ._torch_private import below_autograd, makes_a_program, transforms_are_active

NOT_SPIKES = "spikes must be zeros and ones, got other numbers; use nn.Linear (or nn.Conv2d) for those"


def words_of(neurons: int) -> int:
    """Words of a row of so many spikes."""
    return -(-neurons // _ops.SPIKES_OF_WORD)


class PackedSpikes:
    """Zeros and ones, [T, batch..., features...], in 1/32 of the bytes of float32.

    ``output="packed"`` of a layer returns one, :func:`lif_cuda.functional.spike_linear` takes one, and
    :meth:`pack` makes one of a tensor. In autograd it stands for the tensor that it was made of: what reads
    it sends its gradient to ``like``.

    Args:
        words: int64, [..., ceil(features / 64)]: the bits, the lowest first. Those behind the last neuron of
            a row are 0.
        like: the shape, the dtype and the place in autograd of the spikes: a tensor [..., features] that is
            expanded from one number, so that it has no memory of its own.
    """

    __slots__ = ("like", "words")

    def __init__(self, words: Tensor, like: Tensor) -> None:
        if not isinstance(words, Tensor) or not isinstance(like, Tensor):
            raise TypeError(
                f"words and like must be tensors, got {_check.type_name(words)} and "
                f"{_check.type_name(like)}; "
                "pack spikes with PackedSpikes.pack(spikes)"
            )
        if words.dtype != torch.int64 or like.dtype not in _check.STATE_DTYPES:
            raise TypeError(
                f"words must be int64 and like of a floating dtype, got {words.dtype} and {like.dtype}; "
                "pack spikes with PackedSpikes.pack(spikes)"
            )
        if like.dim() == 0 or words.shape != (*like.shape[:-1], words_of(like.shape[-1])):
            raise ValueError(
                f"words must be [..., ceil(features / {_ops.SPIKES_OF_WORD})] for spikes [..., features], "
                f"got {tuple(words.shape)} for {tuple(like.shape)}; pack spikes with "
                "PackedSpikes.pack(spikes)"
            )
        self.words = words
        self.like = like

    @staticmethod
    def pack(spikes: Tensor) -> PackedSpikes:
        """Spikes as bits; gradients go on to ``spikes``.

        Raises:
            TypeError: ``spikes`` is no floating tensor, or has no axes.
            ValueError: a spike is neither 0 nor 1. On CUDA, where asking would wait for the device, that is
                the caller's word, and all but 0 counts as 1.
        """
        check_spikes(spikes)
        if makes_a_program() or torch.compiler.is_compiling():
            return PackedSpikes(_ops.spike_pack(spikes.detach()), spikes)
        if not transforms_are_active():
            return PackedSpikes(*_Pack.apply(spikes))
        return PackedSpikes(*_PackTransformed.apply(spikes))

    def dense(self) -> Tensor:
        """The spikes as a tensor of zeros and ones."""
        if makes_a_program() or torch.compiler.is_compiling():
            dense: Tensor = _ops.spike_unpack(self.words, self.like)
        elif transforms_are_active():
            dense = _UnpackTransformed.apply(self.words, self.like)
        else:
            dense = _Unpack.apply(self.words, self.like)
        return dense

    @property
    def shape(self) -> torch.Size:
        return self.like.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.like.dtype

    @property
    def device(self) -> torch.device:
        return self.words.device

    @property
    def requires_grad(self) -> bool:
        return self.like.requires_grad

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.words.numel() * self.words.element_size()

    def dim(self) -> int:
        return self.like.dim()

    def numel(self) -> int:
        return self.like.numel()

    def __len__(self) -> int:
        return len(self.like)

    def __iter__(self) -> Iterator[PackedSpikes]:
        for i in range(len(self)):
            yield self[i]

    def __getitem__(self, index: Any) -> PackedSpikes:
        """A step, or some of them, ``packed[3]``, ``packed[2:10, 0]``: of all axes but the last, as views."""
        whole = index if isinstance(index, tuple) else (index,)
        if any(isinstance(one, bool) or not isinstance(one, int | slice | torch.SymInt) for one in whole):
            raise TypeError(
                f"an index of PackedSpikes must be of ints and slices, got {index!r}; index "
                "packed.dense() in another way"
            )
        if len(whole) >= self.dim():
            raise IndexError(
                f"the last of {self.dim()} axes lies in words and cannot be indexed, got {index!r}; index "
                "packed.dense()"
            )
        return PackedSpikes(self.words[whole], self.like[whole])

    def to(
        self, device: torch.device | str | int | None = None, dtype: torch.dtype | None = None
    ) -> PackedSpikes:
        """The same spikes on another device, or standing for another dtype; ``to(dtype)`` works as well."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        words = self.words if device is None else self.words.to(device)
        dtype = self.dtype if dtype is None else dtype
        if words.device == self.device and dtype == self.dtype:
            return self
        return PackedSpikes(words, _Moved.apply(self.like, words.device, dtype))

    def count(self) -> Tensor:
        """How many spikes there are, int64."""
        of_byte = torch.tensor([byte.bit_count() for byte in range(256)], device=self.device)
        return of_byte[self.words.contiguous().view(torch.uint8).flatten().int()].sum()

    def detach(self) -> PackedSpikes:
        """The same spikes without their place in autograd."""
        return PackedSpikes(self.words, self.like.detach())

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.words, tuple(self.shape), self.dtype, self.requires_grad)

    def __repr__(self) -> str:
        return f"PackedSpikes({tuple(self.shape)}, dtype={self.dtype}, device='{self.device}')"


def without_memory(shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of one number, expanded."""
    return torch.zeros((), dtype=dtype, device=device).expand(shape)


def _restored(words: Tensor, shape: Any, dtype: torch.dtype, requires_grad: bool) -> PackedSpikes:
    """What pickle and copy make anew: a leaf of autograd."""
    return PackedSpikes(words, without_memory(shape, dtype, words.device).requires_grad_(requires_grad))


def check_spikes(spikes: object) -> None:
    """Raise unless ``spikes`` can be packed."""
    if not isinstance(spikes, Tensor):
        raise TypeError(f"spikes must be a torch.Tensor or PackedSpikes, got {_check.type_name(spikes)}")
    if spikes.dtype not in _check.STATE_DTYPES:
        raise TypeError(
            f"spikes must have dtype float32, float64, float16 or bfloat16, got {spikes.dtype}; convert them "
            "with .float()"
        )
    if spikes.dim() == 0:
        raise ValueError(
            "spikes must have an axis of neurons, their last, got a tensor without axes; use "
            "spikes.unsqueeze(0)"
        )
    if spikes.layout != torch.strided:
        raise TypeError(f"spikes must be a dense (strided) tensor, got {spikes.layout}; use .to_dense()")


def _pack_with_torch(spikes: Tensor) -> Tensor:
    """``spike_pack`` where there are no kernels for it, in operators of torch: bytes first, which words are
    made of as the processor reads them."""
    neurons = spikes.shape[-1]
    room = spikes.new_zeros((*spikes.shape[:-1], words_of(neurons) * 8, 8), dtype=torch.uint8)
    room.flatten(-2)[..., :neurons] = spikes != 0
    places = 2 ** torch.arange(8, dtype=torch.uint8, device=spikes.device)
    return (room * places).sum(-1, dtype=torch.uint8).view(torch.int64)


def _unpack_with_torch(words: Tensor, like: Tensor) -> Tensor:
    places = torch.arange(8, dtype=torch.uint8, device=words.device)
    bits = words.contiguous().view(torch.uint8).unsqueeze(-1) >> places & 1
    return bits.flatten(-2)[..., : like.shape[-1]].to(like.dtype)


if not _ops.HAS_CUDA_KERNELS:  # the reference runs on CUDA without them
    torch.library.impl("lif_cuda::spike_pack", "CUDA", _pack_with_torch)
    torch.library.impl("lif_cuda::spike_unpack", "CUDA", _unpack_with_torch)


def pack_words(spikes: Tensor) -> Tensor:
    try:
        words: Tensor = _ops.spike_pack(spikes)
    except RuntimeError as error:
        if "spikes must be zeros and ones" not in str(error):
            raise
        raise ValueError(NOT_SPIKES) from None
    return words


class _Pack(torch.autograd.Function):
    """Words, and what carries their gradient to the spikes."""

    @staticmethod
    def forward(ctx: Any, spikes: Tensor) -> tuple[Tensor, Tensor]:
        words = pack_words(spikes)
        ctx.mark_non_differentiable(words)
        ctx.set_materialize_grads(False)
        return words, without_memory(spikes.shape, spikes.dtype, spikes.device)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Tensor | None:
        return grads[1]


class _PackTransformed(torch.autograd.Function):
    """The same under torch.func."""

    @staticmethod
    def forward(spikes: Tensor) -> tuple[Tensor, Tensor]:
        return pack_words(spikes), without_memory(spikes.shape, spikes.dtype, spikes.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[0])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Tensor | None:
        return grads[1]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], spikes: Tensor) -> tuple[Any, tuple[int, int]]:
        return _PackTransformed.apply(spikes.movedim(in_dims[0], 0)), (0, 0)


def _unpacked(words: Tensor, like: Tensor) -> Tensor:
    with below_autograd():
        dense: Tensor = _ops.spike_unpack(words, like)
    return dense


class _Unpack(torch.autograd.Function):
    """Words as zeros and ones, whose gradient is that of ``like``."""

    @staticmethod
    def forward(ctx: Any, words: Tensor, like: Tensor) -> Tensor:
        return _unpacked(words, like)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, grads[0]


class _UnpackTransformed(torch.autograd.Function):
    """The same under torch.func."""

    @staticmethod
    def forward(words: Tensor, like: Tensor) -> Tensor:
        return _unpacked(words, like)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, grads[0]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], words: Tensor, like: Tensor) -> tuple[Tensor, int]:
        return _UnpackTransformed.apply(*both_mapped(info.batch_size, in_dims, words, like)), 0


def both_mapped(size: int, in_dims: tuple[Any, ...], words: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Words and what carries their gradient with the mapped axis first."""
    words, like = (
        tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip((words, like), in_dims, strict=False)
    )
    return words, like


def _unpack_in_a_graph(words: Tensor, like: Tensor) -> Tensor:
    """The operator ``spike_unpack`` under autograd."""
    if not (torch.is_grad_enabled() and like.requires_grad):
        return _unpacked(words, like)
    dense: Tensor = _Unpack.apply(words, like)
    return dense


torch.library.impl("lif_cuda::spike_unpack", "Autograd", _unpack_in_a_graph)


class _Moved(torch.autograd.Function):
    """What carries the gradient of spikes that stand elsewhere, or for another dtype."""

    @staticmethod
    def forward(ctx: Any, like: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        ctx.device, ctx.dtype = like.device, like.dtype
        return without_memory(like.shape, dtype, device)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].to(ctx.device, ctx.dtype), None, None


def _flattened(packed: PackedSpikes) -> tuple[list[Any], None]:
    return [packed.words, packed.like], None


def _unflattened(leaves: Any, context: None) -> PackedSpikes:
    """Of any leaves: a tree is also made of what is no tensor."""
    packed = object.__new__(PackedSpikes)
    packed.words, packed.like = leaves
    return packed


pytree.register_pytree_node(
    PackedSpikes,
    _flattened,
    _unflattened,
    serialized_type_name="lif_cuda.PackedSpikes",
)
