"""What the operators return, without computing it: shapes and dtypes for torch.compile and torch.export."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _ops
from ._check import STATE_DTYPES
from ._outputs import SERIES


def _features(x: Tensor, time_dim: int, steps: int) -> tuple[list[int], int]:
    """The shape of one time step, and T."""
    shape = list(x.shape)
    return (shape, steps) if steps >= 0 else (shape[:time_dim] + shape[time_dim + 1 :], shape[time_dim])


def _series(x: Tensor, features: list[int], length: int, at: int) -> Tensor:
    return x.new_empty([*features[:at], length, *features[at:]])


def _forward(
    x: Tensor,
    given: Sequence[Tensor],
    ints: Sequence[int],
    steps: int,
    checkpoint_every: int,
    floats: Sequence[float],
) -> list[Tensor]:
    _, outputs, time_dim, time_first, _, traits, refractory, _ = ints
    features, length = _features(x, time_dim, steps)
    dtype = STATE_DTYPES[x.dtype]
    results = []
    for name, flag in _ops.OUTPUTS.items():
        if not outputs & flag:
            continue
        if name in SERIES:
            results.append(_series(x, features, length, 0 if time_first else time_dim))
        elif name == "total":
            results.append(x.new_empty([], dtype=torch.float64))
        elif name == "checkpoints":
            states = 1 + bool(traits & _ops.SYNAPSE) + bool(traits & _ops.ADAPTIVE) + bool(refractory > 0)
            rows = torch.sym_max((length - 1) // checkpoint_every, 0)
            results.append(x.new_empty([rows, states, *features], dtype=dtype))
        elif name == "bits":
            words = -(-length // _ops.STEPS_OF_WORD)
            results.append(x.new_empty([words, *features], dtype=torch.int32))
        else:
            results.append(x.new_empty(features, dtype=dtype))
    return results


def _backward(
    x: Tensor,
    given: Sequence[Tensor],
    ints: Sequence[int],
    steps: int,
    checkpoint_every: int,
    floats: Sequence[float],
) -> list[Tensor]:
    present, wanted, time_dim, time_first, *_ = ints
    features, length = _features(x, time_dim, steps)
    dtype = STATE_DTYPES[x.dtype]
    results = []
    for i, name in enumerate(_ops.WANTED):
        if not wanted & 1 << i:
            continue
        if name == "x":
            at = 0 if time_first else time_dim
            results.append(x.new_empty(features) if steps >= 0 else _series(x, features, length, at))
        elif name in _ops.STATES:
            results.append(x.new_empty(features, dtype=dtype))
        else:
            slot = _ops.FIRST_PARAMETER + _ops.PARAMETERS.index(name)
            parameter = given[(present & (1 << slot) - 1).bit_count()]
            results.append(torch.empty_like(parameter, memory_format=torch.contiguous_format))
    return results


def _differentiable(
    x: Tensor, given: Sequence[Tensor], ints: Sequence[int], steps: int, floats: Sequence[float]
) -> list[Tensor]:
    present, asked, *others = ints
    return _forward(x, given, [present, asked & ~_ops.OUTPUTS["bits"], *others], steps, 0, floats)


torch.library.register_fake("lif_cuda::lif", _differentiable)
torch.library.register_fake("lif_cuda::lif_forward", _forward)
torch.library.register_fake("lif_cuda::lif_backward", _backward)
