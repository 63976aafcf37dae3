"""What can differ between neurons and be learned: names, ranges, and the checks of a call."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import _check
from ._check import STATE_DTYPES


class Parameters(NamedTuple):
    """The parameters of a neuron: numbers or tensors; None: the neuron has no such part."""

    beta: float | Tensor
    threshold: float | Tensor
    v_reset: float | Tensor = 0.0
    gain: float | Tensor = 1.0
    alpha: float | Tensor | None = None
    kappa: float | Tensor | None = None
    rho: float | Tensor | None = None
    v_min: float | Tensor | None = None


# Those that have to stay in [0, 1]; those of parts that a neuron need not have; and those that can be
# learned, which come first.
DECAYS = ("beta", "alpha", "rho")
OPTIONAL = ("alpha", "kappa", "rho", "v_min")
LEARNABLE = Parameters._fields[: Parameters._fields.index("v_min")]


def check_scalar(name: str, value: object) -> float:
    """Return a parameter that is given as a number, or raise unless it is one in its range."""
    return _check.check_number(name, value, *((0.0, 1.0) if name in DECAYS else (-math.inf, math.inf)))


def check_together(parameters: Parameters) -> None:
    """Raise unless the parameters of an adaptive threshold come together."""
    if (parameters.kappa is None) != (parameters.rho is None):
        given, missing = ("kappa", "rho") if parameters.rho is None else ("rho", "kappa")
        raise ValueError(
            f"{given} was given without {missing}: an adaptive threshold needs both, "
            "threshold + kappa * b with b = rho * b + spike"
        )


def check_parameter(
    name: str, value: object, x: Tensor, features: torch.Size, channel_dim: int | None
) -> float | Tensor:
    """``value`` if it is a number; else, in the state's dtype, shaped to broadcast over one time step.

    ``channel_dim`` counts the axes of one time step here, ``features``.
    """
    if not isinstance(value, Tensor):
        return check_scalar(name, value)
    state_dtype = STATE_DTYPES[x.dtype]
    value = _check.check_companion(name, value, x, (state_dtype, x.dtype))
    sizes = tuple(value.shape)
    if channel_dim is not None and len(sizes) == 1:
        if sizes[0] != 1 and sizes[0] != features[channel_dim]:
            raise ValueError(
                f"{name} must have one value for each of the {features[channel_dim]} channels of x, "
                f"got {sizes[0]}"
            )
        value = value.view(-1, *(1,) * (len(features) - channel_dim - 1))
        sizes = tuple(value.shape)
    offset = len(features) - len(sizes)
    # Spelled out: torch.compile does not look for a size that it does not know in a tuple.
    if offset < 0 or any(size != 1 and size != features[offset + i] for i, size in enumerate(sizes)):
        raise ValueError(
            f"{name} must broadcast from the right over x without its time axis, "
            f"{tuple(features)}, got shape {sizes}; for one value per neuron give the size of the "
            "last axis, for one per channel name its axis with channel_dim"
        )
    return value if value.dtype == state_dtype else value.to(state_dtype)


def check_neurons(neurons: tuple[int, ...], features: torch.Size, channel_dim: int | None) -> None:
    """Raise unless x has as many neurons as a layer was made for: () or 1 in an axis is any number."""
    if not neurons:
        return
    if channel_dim is not None and len(neurons) == 1:
        if neurons[0] != 1 and neurons[0] != features[channel_dim]:
            raise ValueError(
                f"x must have num_neurons = {neurons[0]} channels in the axis that channel_dim names, "
                f"got {features[channel_dim]}"
            )
        return
    at = len(features) - len(neurons)
    if at < 0 or any(size != 1 and size != features[at + i] for i, size in enumerate(neurons)):
        wanted = str(neurons[0]) if len(neurons) == 1 else str(neurons)
        raise ValueError(
            f"x must end in the num_neurons of the layer, {wanted}, got {tuple(features)} in one time step; "
            "for one neuron per channel name the axis with channel_dim, for any number leave num_neurons "
            "out; a recurrent layer has as many as the last axis of x"
        )
