"""The lengths of the samples of a padded batch, as calls take them."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _check
from ._options import CallOptions
from ._torch_private import is_traced, transforms_are_active


def check_lengths(value: object, x: Tensor, features: torch.Size) -> Tensor | None:
    """Return ``value``, or raise unless it is None or has a number of time steps for each sample.

    ``features`` is the shape of one time step of x, and its first axis the batch.
    """
    if value is None:
        return None
    if not isinstance(value, Tensor):
        raise TypeError(
            f"lengths must be a torch.Tensor of int64, got {_check.type_name(value)}; write "
            "torch.tensor(lengths)"
        )
    if value.dtype != torch.int64:
        raise TypeError(f"lengths must have dtype int64, got {value.dtype}; convert it with lengths.long()")
    _check.check_device("lengths", value, x)
    if not features:
        raise ValueError(
            f"lengths needs a batch, the first axis of x beside time; x has none, got shape {tuple(x.shape)}"
        )
    if tuple(value.shape) != (features[0],):
        raise ValueError(
            f"lengths must have a number of time steps for each of the {features[0]} samples of x, whose "
            f"batch is its first axis beside time: shape ({features[0]},), got {tuple(value.shape)}"
        )
    return value


def check_range(lengths: Tensor, x: Tensor, options: CallOptions) -> None:
    """Raise unless each length is in [0, T], where that can be asked at once.

    On CUDA the question would wait for the device, and the kernels clamp. A program that is being made and a
    transform of torch.func have no values yet; then the operator asks when it runs on a CPU.
    """
    if lengths.device.type != "cpu" or type(lengths) is not Tensor or not lengths.numel():
        return
    if torch.compiler.is_compiling() or is_traced() or transforms_are_active():
        return
    steps = x.shape[options.time_dim] if options.steps is None else options.steps
    least, most = (int(extreme) for extreme in lengths.aminmax())
    if least < 0 or most > steps:
        raise ValueError(
            f"lengths must be in [0, {steps}], the time steps that there are, got "
            f"{least if least < 0 else most}; pad x to the longest sample, or use lengths.clamp(0, {steps})"
        )
