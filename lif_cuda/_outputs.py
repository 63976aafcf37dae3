"""What a neuron can return of its T steps, by name."""

from __future__ import annotations

import copyreg
from collections import namedtuple
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from . import _check

TensorName = Literal[
    "spikes",
    "count",
    "rate",
    "first_spike",
    "trace",
    "trace_before_reset",
    "total",
    "trace_max",
    "trace_mean",
    "trace_last",
]
OutputName = TensorName | Literal["packed"]
Output = OutputName | tuple[OutputName, ...]

OUTPUTS: tuple[str, ...] = (*get_args(TensorName), "packed")
# What a leaky integrator returns of its T steps.
Readout = Literal["trace", "last", "max", "mean"]
# Those with a time axis.
SERIES = ("spikes", "packed", "trace", "trace_before_reset")


def output_names(output: Output) -> tuple[str, ...]:
    """The names of the outputs asked for."""
    return (output,) if isinstance(output, str) else output


def check_output(name: str, value: Any) -> Any:
    """Return ``value``, or raise unless it names an output, or is a tuple of different ones."""
    if isinstance(value, list):
        raise TypeError(f"{name} must be a name or a tuple of names, got a list; write {tuple(value)!r}")
    if not isinstance(value, tuple):
        _check.check_choice(name, value, OUTPUTS)
        return value
    if not value:
        raise ValueError(f"{name} must name at least one output, got ()")
    for one in value:
        _check.check_choice(name, one, OUTPUTS)
    if len(set(value)) < len(value):
        raise ValueError(f"{name} must name each output once, got {value!r}")
    if "spikes" in value and "packed" in value:
        raise ValueError(
            f"{name} must name 'spikes' or 'packed', got {value!r}; take the spikes from packed.dense()"
        )
    return value


def check_readout(name: str, value: Any) -> Any:
    """Return ``value``, or raise unless it names what a leaky integrator returns."""
    if isinstance(value, tuple | list):
        raise TypeError(
            f"{name} of a leaky integrator must be one name, got {value!r}; for several call "
            "lif_cuda.functional.lif with reset='none' and a tuple of 'trace', 'trace_last', 'trace_max' and "
            "'trace_mean'"
        )
    _check.check_choice(name, value, get_args(Readout))
    return value


# The NamedTuples in which several outputs are returned, by their names.
_TYPES: dict[tuple[str, ...], Any] = {}


def outputs_type(names: tuple[str, ...]) -> Any:
    """The NamedTuple in which several outputs are returned."""
    if names not in _TYPES:
        if torch.compiler.is_compiling():
            return namedtuple("Outputs", names)  # one of the trace, which is not to be found outside of it
        _TYPES[names] = namedtuple("Outputs", names)
        # pickle finds a class by its name, and there is one of this name for each tuple of outputs.
        copyreg.pickle(_TYPES[names], lambda out: (outputs, (out._fields, *out)))
    return _TYPES[names]


def outputs(names: tuple[str, ...], *tensors: Tensor) -> Any:
    """Several outputs in their NamedTuple."""
    return outputs_type(names)(*tensors)
