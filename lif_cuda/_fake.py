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
        at = 0 if time_first else time_dim
        if name == "spikes" and outputs & _ops.OUTPUTS["packed"]:
            results.append(x.new_empty([]).expand([*features[:at], length, *features[at:]]))
        elif name == "packed":
            words = [*features[:-1], -(-features[-1] // _ops.SPIKES_OF_WORD)]
            results.append(x.new_empty([*words[:at], length, *words[at:]], dtype=torch.int64))
        elif name in SERIES:
            results.append(_series(x, features, length, at))
        elif name == "total":
            results.append(x.new_empty([], dtype=torch.float64))
        elif name == "checkpoints":
            states = 1 + bool(traits & _ops.SYNAPSE) + bool(traits & _ops.ADAPTIVE) + bool(refractory > 0)
            rows = torch.sym_max((length - 1) // checkpoint_every, 0)
            results.append(x.new_empty([rows, states, *features], dtype=dtype))
        elif name == "bits":
            results.append(x.new_empty([-(-length // _ops.STEPS_OF_WORD), *features], dtype=torch.int32))
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


def _spike_pack(spikes: Tensor) -> Tensor:
    *rows, neurons = spikes.shape
    return spikes.new_empty([*rows, -(-neurons // _ops.SPIKES_OF_WORD)], dtype=torch.int64)


def _spike_unpack(words: Tensor, like: Tensor) -> Tensor:
    return like.new_empty(like.shape)


def _spike_linear(words: Tensor, like: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    y = weight.new_empty([*words.shape[:-1], weight.shape[0]])
    return [y, words.new_empty([])]


def _spike_gradient(words: Tensor, like: Tensor, grad_y: Tensor) -> Tensor:
    return grad_y.new_empty([grad_y.shape[-1], like.shape[-1]])


def _whole_row(neurons: int, device: torch.device) -> int:
    """Elements of a row that a recurrent layer keeps: on the CPU whole vectors (``csrc/cpu/recurrent.h``)."""
    return neurons if device.type == "cuda" else -(-neurons // 16) * 16


def _recurrent_forward(
    x: Tensor, weight: Tensor, given: Sequence[Tensor], ints: Sequence[int], floats: Sequence[float]
) -> list[Tensor]:
    steps, samples, neurons = x.shape
    dtype = STATE_DTYPES[x.dtype]
    state = (samples, neurons)
    made = {
        "spikes": lambda: x.new_empty(x.shape),
        "trace": lambda: x.new_empty(x.shape),
        "u": lambda: x.new_empty((steps, samples, _whole_row(neurons, x.device)), dtype=dtype),
        "fired_before": lambda: x.new_empty((steps, samples, -(-neurons // 64)), dtype=torch.int64),
    }
    names = [name for i, name in enumerate(_ops.RECURRENT_OUTPUTS) if ints[1] >> i & 1]
    return [made[name]() if name in made else x.new_empty(state, dtype=dtype) for name in names]


def _recurrent_backward(
    u: Tensor, weight: Tensor, given: Sequence[Tensor], ints: Sequence[int], floats: Sequence[float]
) -> list[Tensor]:
    present, wanted, *_ = ints
    results = [u.new_empty(u.shape)]
    for i, name in enumerate(_ops.RECURRENT_WANTED):
        if not wanted >> i & 1:
            continue
        if name in ("membrane", "fired"):
            results.append(u.new_empty((u.shape[1], weight.shape[0])))
        else:
            slot = _ops.RECURRENT_SLOTS.index(name)
            parameter = given[(present & (1 << slot) - 1).bit_count()]
            results.append(torch.empty_like(parameter, memory_format=torch.contiguous_format))
    return results


def _recurrent_weights(grad_input: Tensor, fired_before: Tensor, neurons: int, asked: int) -> list[Tensor]:
    shapes = ((neurons, neurons), (neurons,))
    return [grad_input.new_empty(shape) for i, shape in enumerate(shapes) if asked >> i & 1]


torch.library.register_fake("lif_cuda::recurrent", _recurrent_forward)
torch.library.register_fake("lif_cuda::recurrent_forward", _recurrent_forward)
torch.library.register_fake("lif_cuda::recurrent_backward", _recurrent_backward)
torch.library.register_fake("lif_cuda::recurrent_weights", _recurrent_weights)
torch.library.register_fake("lif_cuda::lif", _differentiable)
torch.library.register_fake("lif_cuda::lif_forward", _forward)
torch.library.register_fake("lif_cuda::lif_backward", _backward)
torch.library.register_fake("lif_cuda::spike_pack", _spike_pack)
torch.library.register_fake("lif_cuda::spike_unpack", _spike_unpack)
torch.library.register_fake("lif_cuda::spike_linear", _spike_linear)
torch.library.register_fake("lif_cuda::spike_gradient", _spike_gradient)
