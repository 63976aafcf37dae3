"""What a state_dict has of a layer beside its tensors: the numbers by which the neuron fires.

They are one float64 tensor, so that a file is loaded with ``weights_only``: the parameters that are numbers,
the rest potential, the refractory steps, and the options that make it another neuron. Infinity stands for
what the neuron does not have, or keeps as a tensor under a name of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import _agreement
from ._options import CallOptions
from ._parameters import OPTIONAL, Parameters, check_scalar

# Options that loading takes over, and those in which a layer must agree with what it loads.
_NUMBERS = ("rest", "refractory")
_KINDS: dict[str, tuple[object, ...]] = {
    "reset": ("subtract", "zero", "none"),
    "delay_reset": (False, True),
    "strict": (False, True),
    "decay_input": (False, True),
}
FIELDS = (*Parameters._fields, *_NUMBERS, *_KINDS)


class Numbers(NamedTuple):
    """What is saved, in a layer's own terms."""

    parameters: Parameters
    options: CallOptions


def to_tensor(numbers: Numbers) -> Tensor:
    """The numbers of a layer, float64 [14], in the order of ``FIELDS``."""
    values = [math.inf if value is None else float(value) for value in numbers.parameters]
    values += [float(getattr(numbers.options, name)) for name in _NUMBERS]
    values += [kinds.index(getattr(numbers.options, name)) for name, kinds in _KINDS.items()]
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def from_tensor(saved: object, own: Numbers, tensors: tuple[str, ...]) -> Numbers:
    """The numbers of a layer after loading ``saved``; ``tensors`` names its parameters that are tensors.

    Raises:
        ValueError: they are of another kind of neuron, or no numbers of a neuron at all.
    """
    if not isinstance(saved, Tensor) or saved.shape != (len(FIELDS),):
        raise ValueError(f"the numbers of a neuron must be a tensor of {len(FIELDS)}, got {saved!r}")
    found = dict(zip(FIELDS, saved.tolist(), strict=True))
    for name, kinds in _KINDS.items():
        mine = getattr(own.options, name)
        if found[name] != kinds.index(mine):
            at = found[name]
            theirs = kinds[int(at)] if at in range(len(kinds)) else at
            raise ValueError(
                f"saved by a neuron with {name}={theirs!r}, and this one has {name}={mine!r}; make the layer "
                f"with {name}={theirs!r}"
            )
    parameters = own.parameters
    for name, mine in zip(Parameters._fields, own.parameters, strict=True):
        theirs = found[name]
        if name in tensors or (math.isinf(theirs) and (mine is None or name not in OPTIONAL)):
            continue  # a tensor here or there, which has a key of its own; or neither neuron has it
        if mine is None:
            raise ValueError(
                f"saved by a neuron with {name}={theirs:g}, and this one has none; make the layer with "
                f"{name}={theirs:g}"
            )
        if math.isinf(theirs):
            raise ValueError(
                f"saved by a neuron without a number for {name}, and this one has {name}={mine:g}; make the "
                "layer with the arguments of the one that was saved"
            )
        parameters = parameters._replace(**{name: check_scalar(name, theirs)})
    options = own.options._replace(rest=found["rest"], refractory=int(found["refractory"]))
    return Numbers(parameters, _agreement.check_options(options))
