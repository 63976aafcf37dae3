"""How tensors lie in memory, and in which order of axes the kernels can read them as they lie.

The kernels see a tensor as (outer, T, inner): the inner axes dense, the outer ones with one stride, the
time axis with any. This file finds the order of axes in which a tensor is that; it moves no data. Only where
there is none, or where rows would be too short to be worth a launch over them, is ``x`` copied, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

# Rows of fewer neurons than this are copied to a layout with time first: a row is the unit of vectorised
# work on the CPU and of coalesced access on CUDA.
SHORTEST_ROW = 64


class Layout(NamedTuple):
    """The order in which the operators see the axes of a call; None: as the user does.

    order: of tensors with a time axis, from the user's axes; features: of those without.
    output: the user's order of an output with a time axis, from the operator's axes; state: of one without.
    time_dim: the time axis in the operator's order. time_first: outputs have it first all the same.
    copy: x has to be made contiguous in this order.
    """

    time_dim: int
    order: tuple[int, ...] | None = None
    features: tuple[int, ...] | None = None
    output: tuple[int, ...] | None = None
    state: tuple[int, ...] | None = None
    time_first: bool = False
    copy: bool = False


def joint_stride(sizes: Sequence[int], strides: Sequence[int]) -> int | None:
    """The stride with which these axes can be walked as one; None if there is none."""
    joint = expected = -1
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size == 1:
            continue
        if joint < 0:
            joint = stride
        elif stride != expected:
            return None
        expected = stride * size
    return 1 if joint < 0 else joint


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(order.index(axis) for axis in range(len(order)))


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


def _without(order: Sequence[int], axis: int) -> tuple[int, ...]:
    """An order of all axes as one of those that remain without ``axis``."""
    return tuple(other - (other > axis) for other in order if other != axis)


def _from_slowest(axes: Sequence[int], sizes: Sequence[int], strides: Sequence[int]) -> list[int]:
    """The axes from the slowest to the fastest; one that is expanded, of stride 0, or has size 1 comes first.

    An insertion into a list of a few: torch.compile compares sizes that it does not know, but sorts none.
    """
    ordered: list[int] = []
    for axis in axes:
        place = len(ordered)
        if sizes[axis] == 1 or strides[axis] == 0:
            place = 0
        else:
            while place > 0:
                before = ordered[place - 1]
                if sizes[before] == 1 or strides[before] == 0 or strides[before] >= strides[axis]:
                    break
                place -= 1
        ordered.insert(place, axis)
    return ordered


def _layout(
    order: Sequence[int], time_dim: int, user_time: int, time_first: bool = False, copy: bool = False
) -> Layout:
    """The layout with the axes in ``order``, the time axis of the user at ``user_time``."""
    order = tuple(order)
    features = _without(order, user_time)
    outputs = (user_time, *(axis for axis in order if axis != user_time)) if time_first else order
    identity = tuple(range(len(order)))
    return Layout(
        time_dim,
        None if order == identity else order,
        None if features == identity[:-1] else features,
        None if outputs == identity else _inverse(outputs),
        None if features == identity[:-1] else _inverse(features),
        time_first and time_dim > 0,
        copy,
    )


@lru_cache(maxsize=1024)
def find_layout(
    sizes: tuple[int, ...], strides: tuple[int, ...], time_dim: int, constant: bool, by_sample: bool
) -> Layout:
    """The layout of an x of these sizes and strides; a constant input has no time axis in them."""
    if by_sample:
        return _find_by_sample(sizes, strides, time_dim, constant)
    if constant:
        return _find_constant(sizes, strides, time_dim)
    features = [axis for axis in range(len(sizes)) if axis != time_dim]
    features = _from_slowest(features, sizes, strides)
    for split in range(len(features) + 1):
        outer, inner = features[:split], features[split:]
        dense = joint_stride([sizes[a] for a in inner], [strides[a] for a in inner]) == 1
        row = _product([sizes[a] for a in inner])
        if not dense or (row < SHORTEST_ROW and _product([sizes[a] for a in outer]) > 1):
            continue
        if joint_stride([sizes[a] for a in outer], [strides[a] for a in outer]) is None:
            continue
        slowest = max([0, *(strides[axis] for axis in outer if sizes[axis] > 1)])
        time_first = strides[time_dim] >= slowest or _product([sizes[a] for a in outer]) == 1
        return _layout([*outer, time_dim, *inner], split, time_dim, time_first)
    rest = [axis for axis in range(len(sizes)) if axis != time_dim]
    return _layout([time_dim, *rest], 0, time_dim, copy=True)


def _find_constant(sizes: tuple[int, ...], strides: tuple[int, ...], time_dim: int) -> Layout:
    axes = list(range(len(sizes)))
    contiguous = joint_stride(sizes, strides) == 1
    inner = _product(sizes[time_dim:])
    if contiguous and (inner >= SHORTEST_ROW or _product(sizes[:time_dim]) == 1):
        return Layout(time_dim)
    axes = _from_slowest(axes, sizes, strides)
    dense = joint_stride([sizes[a] for a in axes], [strides[a] for a in axes]) == 1
    if not dense:
        axes.sort()
    order = [time_dim, *(axis + (axis >= time_dim) for axis in axes)]
    return _layout(order, 0, time_dim, copy=not dense)


def _find_by_sample(
    sizes: tuple[int, ...], strides: tuple[int, ...], time_dim: int, constant: bool
) -> Layout:
    """The layout with the batch among the outer axes: a row of the kernels is a part of one sample.

    Of a whole sample, where that is shorter than rows otherwise are.
    """
    axes = [axis for axis in range(len(sizes)) if constant or axis != time_dim]
    batch = axes[0]
    ordered = _from_slowest(axes, sizes, strides)
    shortest = min(SHORTEST_ROW, _product([sizes[a] for a in axes[1:]]))
    copy = True
    outer, inner = [batch], axes[1:]
    for split in range(ordered.index(batch) + 1, len(ordered) + 1):
        within, across = (
            joint_stride([sizes[a] for a in some], [strides[a] for a in some])
            for some in (ordered[split:], ordered[:split])
        )
        row = _product([sizes[a] for a in ordered[split:]])
        if within == 1 and across is not None and row >= shortest:
            copy = False
            outer, inner = ordered[:split], ordered[split:]
            break
    time_first = time_dim == 0
    if not (constant or copy):
        slowest = max([0, *(strides[axis] for axis in outer if sizes[axis] > 1)])
        time_first = strides[time_dim] >= slowest
    before, after = ([axis + (constant and axis >= time_dim) for axis in some] for some in (outer, inner))
    return _layout([*before, time_dim, *after], len(outer), time_dim, time_first, copy)


def layout_of(x: Tensor, time_dim: int, constant: bool, by_sample: bool = False) -> Layout:
    """The layout in which the kernels read ``x``; ``by_sample``: the batch is to be an outer axis."""
    if by_sample:
        in_rows = time_dim == 1
    else:
        in_rows = time_dim == 0 or _product(x.shape[time_dim + (not constant) :]) >= SHORTEST_ROW
    if in_rows and x.is_contiguous():
        return Layout(time_dim)
    find = find_layout.__wrapped__ if torch.compiler.is_compiling() else find_layout
    return find(tuple(x.shape), tuple(x.stride()), time_dim, constant, by_sample)


def arrange(tensor: Tensor, order: tuple[int, ...] | None) -> Tensor:
    """``tensor`` with its axes in this order."""
    return tensor if order is None else tensor.permute(order)


def is_block(sizes: Sequence[int]) -> bool:
    """Whether sizes other than 1 stand next to each other: values that repeat over the neurons."""
    own = [i for i, size in enumerate(sizes) if size != 1]
    return not own or len(own) == own[-1] - own[0] + 1


def arrange_parameter(value: Tensor, features: torch.Size, order: tuple[int, ...] | None) -> Tensor:
    """A parameter over ``features``, in the operator's order and of size 1 only at its ends."""
    if value.dim() == 0:
        return value
    if order is not None:
        value = value.view(*(1,) * (len(features) - value.dim()), *value.shape).permute(order)
        features = torch.Size([features[axis] for axis in order])
    sizes = list(value.shape)
    features = features[len(features) - len(sizes) :]
    own = [i for i, size in enumerate(sizes) if size != 1]
    if own:
        first, last = own[0], own[-1]
        middle = [features[i] if first <= i <= last else size for i, size in enumerate(sizes)]
        value = value.expand(middle)
    return value.contiguous()


def as_rows(grad: Tensor, outer: int, timed: bool) -> Tensor:
    """``grad``, in the operator's order, as it lies if the kernels can read it so; else a contiguous copy.

    They read any stride in time, 0 included, over inner axes that are dense or all at one address: the
    gradient of ``out.sum()`` and that of ``out.mean(0)`` cost no copy. The first ``outer`` axes come before
    the time axis, if it has one.
    """
    if grad.is_contiguous():
        return grad
    sizes, strides = grad.shape, grad.stride()
    across = joint_stride(sizes[:outer], strides[:outer])
    within = joint_stride(sizes[outer + timed :], strides[outer + timed :])
    return grad if within in (0, 1) and across is not None else grad.contiguous()
