"""The arguments of one call: what is checked of them before any arithmetic, whatever computes them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import _agreement
from ._check import STATE_DTYPES, type_name
from ._lengths import check_lengths
from ._options import CallOptions
from ._outputs import output_names
from ._parameters import Parameters, check_neurons, check_parameter
from ._settled import Settled
from ._state import check_state, state_names


def check_input(x: object, steps: int | None, time_dim: int) -> tuple[Tensor, int, torch.Size]:
    """Return ``x``, its time axis counted from the front, and the shape of one time step; or raise."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {type_name(x)}")
    if x.dtype not in STATE_DTYPES:
        raise TypeError(
            f"x must have dtype float32, float64, float16 or bfloat16, got {x.dtype}; "
            "convert it with x.float()"
        )
    if x.is_nested:
        raise TypeError(
            "x must be a dense tensor, got a nested tensor; pad it with torch.nested.to_padded_tensor(x, "
            "0.0), and give lengths"
        )
    if x.layout != torch.strided:
        raise TypeError(f"x must be a dense (strided) tensor, got {x.layout}; call x.to_dense()")
    if steps is None and x.dim() == 0:
        raise ValueError(
            "x must have a time axis, [T, batch..., features...], got a 0-dim tensor; "
            "for a constant input without a time axis pass steps=T"
        )
    axes = x.dim() + (steps is not None)
    if not -axes <= time_dim < axes:
        raise ValueError(f"time_dim must be in [{-axes}, {axes - 1}] for the shape of x, got {time_dim}")
    time_dim %= axes
    shape = x.shape
    return x, time_dim, shape if steps is not None else shape[:time_dim] + shape[time_dim + 1 :]


def check_channel_dim(channel_dim: int | None, x: Tensor, steps: int | None, time_dim: int) -> int | None:
    """The axis that ``channel_dim`` names, among those of one time step; or raise."""
    if channel_dim is None:
        return None
    if not -x.dim() <= channel_dim < x.dim():
        raise ValueError(
            f"channel_dim must be in [{-x.dim()}, {x.dim() - 1}] for the shape of x, got {channel_dim}"
        )
    axis = channel_dim % x.dim()
    if steps is not None or axis < time_dim:
        return axis
    if axis == time_dim:
        raise ValueError(f"channel_dim must be another axis than time_dim, got {channel_dim} for both")
    return axis - 1


class Checked(NamedTuple):
    """The arguments of a call that passed all checks."""

    x: Tensor
    options: CallOptions
    time_dim: int  # counted from the front
    features: torch.Size  # the shape of one time step
    channel_dim: int | None  # among the axes of one time step
    parameters: Parameters
    states: dict[str, Tensor | None]
    lengths: Tensor | None  # of the samples, in time steps
    state_dtype: torch.dtype


def check_call(
    x: object,
    parameters: Parameters,
    membrane: object,
    lengths: object,
    options: CallOptions,
    settled: Settled | None,
) -> Checked:
    """Check all arguments of a call; of a layer's, ``settled``, the options were checked before."""
    if settled is None:
        options = _agreement.check_options(options)
    x, time_dim, features = check_input(x, options.steps, options.time_dim)
    if "packed" in options.output and time_dim == len(features):
        raise ValueError(
            "output='packed' packs spikes along their last axis, which must not be time: x must be "
            f"[..., T, ..., features], got time_dim {time_dim} of {len(features) + 1} axes"
        )
    channel_dim = check_channel_dim(options.channel_dim, x, options.steps, time_dim)
    if settled is None:
        _agreement.check_with_parameters(options, parameters)
    else:
        check_neurons(settled.neurons, features, channel_dim)
    checked = Parameters._make(
        None if value is None else check_parameter(name, value, x, features, channel_dim)
        for name, value in zip(Parameters._fields, parameters, strict=True)
    )
    length = x.shape[time_dim] if options.steps is None else options.steps
    if "trace_max" in output_names(options.output) and length == 0:
        raise ValueError(
            "output='trace_max' needs a time step, got T = 0, of which there is no largest membrane; use "
            "'trace_last' or 'trace_mean', or leave such calls out"
        )
    names = state_names(options, parameters)
    states = check_state(membrane, names, x, features, timed=options.steps is None)
    return Checked(
        x,
        options,
        time_dim,
        features,
        channel_dim,
        checked,
        states,
        check_lengths(lengths, x, features),
        STATE_DTYPES[x.dtype],
    )
