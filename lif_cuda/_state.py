"""What a neuron carries from one time step to the next, as calls take and return it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from . import _check
from ._check import STATE_DTYPES, type_name
from ._options import CallOptions
from ._parameters import Parameters


class NeuronState(NamedTuple):
    """The state of neurons that have more than a membrane, each [batch..., features...] or None.

    membrane: v.
    current: the synaptic current i of a current-based neuron (``alpha``).
    adaptation: b of an adaptive threshold (``kappa`` and ``rho``), in spikes.
    silence: steps for which a refractory neuron stays silent yet (``refractory``).
    """

    membrane: Tensor
    current: Tensor | None = None
    adaptation: Tensor | None = None
    silence: Tensor | None = None


NeuronState.__module__ = "lif_cuda"  # its public place, for messages and pickles


class RecurrentState(NamedTuple):
    """The state of a recurrent layer, each [batch..., neurons].

    membrane: v. spikes: 0 or 1, of the step before, which feed back into the next.
    """

    membrane: Tensor
    spikes: Tensor


RecurrentState.__module__ = "lif_cuda"

# As the neuron takes and returns it: a tensor, or a NeuronState where it has more than a membrane.
State = Tensor | NeuronState


def state_names(options: CallOptions, parameters: Parameters) -> tuple[str, ...]:
    """The states that the neuron has, in the order of NeuronState."""
    return (
        "membrane",
        *(("current",) if parameters.alpha is not None else ()),
        *(("adaptation",) if parameters.kappa is not None else ()),
        *(("silence",) if options.refractory else ()),
    )


def check_state(
    value: object, names: tuple[str, ...], x: Tensor, features: torch.Size, timed: bool
) -> dict[str, Tensor | None]:
    """The states by name, or raise unless ``value`` is what the neuron with these states takes.

    ``features`` is the shape of one time step of x; ``timed``, whether x has a time axis.
    """
    if value is None:
        return dict.fromkeys(names)
    if len(names) == 1:
        if isinstance(value, NeuronState) and not any(tensor is not None for tensor in value[1:]):
            value = value.membrane
        given: Mapping[str, object] = {"membrane": value}
    else:
        if not isinstance(value, NeuronState):
            raise TypeError(
                f"membrane must be a NeuronState with {', '.join(names)}, because the neuron has more "
                f"state than its membrane; got {type_name(value)}; write "
                f"lif_cuda.NeuronState({', '.join(f'{name}=...' for name in names)})"
            )
        given = value._asdict()
        for name, tensor in given.items():
            if tensor is not None and name not in names:
                raise ValueError(f"membrane.{name} was given, and the neuron has no such state")
    states: dict[str, Tensor | None] = {}
    for name in names:
        tensor = given[name]
        label = "membrane" if name == "membrane" else f"membrane.{name}"
        if tensor is None and name != "membrane":
            states[name] = None
            continue
        checked = _check.check_companion(label, tensor, x, (STATE_DTYPES[x.dtype],))
        if checked.shape != features:
            hint = ""
            if timed and checked.shape == x.shape:
                hint = (
                    "; x and the state have the same shape, so x is one time step: "
                    "call layer.step(x, membrane), or pass x.unsqueeze(0)"
                )
            raise ValueError(
                f"{label} must have the shape of x without its time axis, "
                f"{tuple(features)}, got {tuple(checked.shape)}{hint}"
            )
        states[name] = checked
    return states
