"""The arguments of a call of recurrent neurons: what is checked of them, whatever computes them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _check
from ._call import Checked, check_call
from ._options import CallOptions
from ._outputs import output_names
from ._parameters import OPTIONAL, Parameters
from ._settled import Settled
from ._state import RecurrentState
from ._torch_private import is_traced, transforms_are_active

OUTPUTS = ("spikes", "count", "rate", "trace")
_RESETS = ("subtract", "zero")
# Options of other neurons; parameters of which a recurrent layer takes a number only.
_OTHERS = ("steps", "channel_dim", "delay_reset", "decay_input", "rest", "refractory", "save")
NUMBERS = ("v_reset", "gain")


class CheckedRecurrent(NamedTuple):
    """The arguments of a call that passed all checks."""

    of_neurons: Checked
    weight: Tensor
    bias: Tensor | None
    state: RecurrentState | None

    @property
    def neurons(self) -> int:
        """Neurons of the layer: the last axis of x without its time axis."""
        return self.of_neurons.features[-1]


def check_recurrent(options: CallOptions, parameters: Parameters) -> None:
    """Raise unless options and parameters, each checked by itself, are ones that recurrent neurons have."""
    for name in _OTHERS:
        usual, given = CallOptions._field_defaults[name], getattr(options, name)
        if given != usual:
            raise ValueError(
                f"{name} is no option of recurrent neurons, got {given!r}; leave it out"
                + ("; x.expand(T, *x.shape) is a constant input, read as it lies" if name == "steps" else "")
            )
    if options.reset not in _RESETS:
        raise ValueError(
            f"reset must be 'subtract' or 'zero' for recurrent neurons, got {options.reset!r}; for a neuron "
            "without a reset use lif_cuda.ReferenceLIF in a loop"
        )
    for name in output_names(options.output):
        if name not in OUTPUTS:
            raise ValueError(
                f"output of recurrent neurons must be one of {', '.join(map(repr, OUTPUTS))}, or a tuple of "
                f"them; got {name!r}"
            )
    for name in OPTIONAL:
        if getattr(parameters, name) is not None:
            raise ValueError(f"{name} is no parameter of recurrent neurons, got one; leave it out")
    for name in NUMBERS:
        if isinstance(getattr(parameters, name), Tensor):
            raise TypeError(f"{name} must be a number for recurrent neurons, got a tensor")


def check_recurrent_call(
    x: object,
    weight: object,
    bias: object,
    parameters: Parameters,
    state: object,
    options: CallOptions,
    settled: Settled | None,
) -> CheckedRecurrent:
    """Check all arguments of a call; of a layer's, ``settled``, the options were checked before."""
    checked = check_call(x, parameters, None, None, options, settled)
    if settled is None:
        check_recurrent(checked.options, parameters)
    x, features = checked.x, checked.features
    if not features:
        raise ValueError(
            "x must have an axis of neurons beside that of time, [T, batch..., neurons], got shape "
            f"{tuple(x.shape)}"
        )
    neurons = features[-1]
    for name in ("beta", "threshold"):
        value = getattr(checked.parameters, name)
        if isinstance(value, Tensor) and any([size != 1 for size in value.shape[:-1]]):
            raise ValueError(
                f"{name} must be one value, or one for each of the {neurons} neurons, got shape "
                f"{tuple(value.shape)}"
            )
    dtypes = (checked.state_dtype, x.dtype)
    weight = _check.check_companion("weight", weight, x, dtypes)
    if weight.shape != (neurons, neurons):
        raise ValueError(
            f"weight must be [neurons, neurons] for the last axis of x, ({neurons}, {neurons}), got "
            f"{tuple(weight.shape)}"
        )
    if bias is not None:
        bias = _check.check_companion("bias", bias, x, dtypes)
        if bias.shape != (neurons,):
            raise ValueError(
                f"bias must have one value for each of the {neurons} neurons, got shape {tuple(bias.shape)}"
            )
    return CheckedRecurrent(checked, weight, bias, _checked_state(state, x, features, checked.state_dtype))


def _checked_state(
    state: object, x: Tensor, features: torch.Size, dtype: torch.dtype
) -> RecurrentState | None:
    if state is None:
        return None
    if not isinstance(state, RecurrentState):
        raise TypeError(
            "state must be a lif_cuda.RecurrentState (membrane, spikes), as a call returns it, or None for "
            f"zeros; got {_check.type_name(state)}"
        )
    for name, value in state._asdict().items():
        tensor = _check.check_companion(f"state.{name}", value, x, (dtype,))
        if tensor.shape != features:
            raise ValueError(
                f"state.{name} must have the shape of x without its time axis, {tuple(features)}, got "
                f"{tuple(tensor.shape)}"
            )
    # Asking a GPU would wait for it, and a program cannot ask.
    asks = x.device.type == "cpu" and not (
        torch.compiler.is_compiling() or transforms_are_active() or is_traced()
    )
    spikes: Any = state.spikes.detach()
    if asks and not bool(((spikes == 0) | (spikes == 1)).all()):
        raise ValueError("state.spikes must be 0 or 1, got other values; pass the state that a call returned")
    return state
