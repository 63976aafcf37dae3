"""Argument checks shared by the fused and the reference layer: one set of rules, one set of messages.

Each check names the argument, what was expected, what was given and what to do about it. All of them
run before any arithmetic.
"""

from __future__ import annotations

import copyreg
import math
from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .surrogate import Rectangle, Surrogate

OutputName = Literal["spikes", "count", "rate", "first_spike", "trace", "trace_before_reset", "total"]
Output = OutputName | tuple[OutputName, ...]
Reset = Literal["subtract", "zero", "none"]
Save = Literal["input", "bits"]

OUTPUTS: tuple[str, ...] = get_args(OutputName)
RESETS: tuple[str, ...] = get_args(Reset)
SAVES: tuple[str, ...] = get_args(Save)
# What a neuron of each dtype of x keeps its state in, and computes in.
STATE_DTYPES = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}


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


class CallOptions(NamedTuple):
    """The options of one call, as the public functions take them."""

    steps: int | None
    time_dim: int
    channel_dim: int | None
    output: Output
    reset: Reset
    delay_reset: bool
    detach_reset: bool
    strict: bool
    decay_input: bool
    rest: float
    refractory: int
    surrogate: Surrogate
    return_state: bool
    save: Save


class Parameters(NamedTuple):
    """What can differ between neurons and be learned: numbers or tensors; None: the neuron has none."""

    beta: float | Tensor
    threshold: float | Tensor
    v_reset: float | Tensor
    gain: float | Tensor
    alpha: float | Tensor | None
    kappa: float | Tensor | None
    rho: float | Tensor | None


class Settled:
    """The options of a layer's calls, and where its parameters are tensors, compared by identity.

    What was checked once for a layer is known again at each call without a look at a single option.
    """

    __slots__ = ("_others", "for_good", "options", "tensors")

    def __init__(self, options: CallOptions, tensors: tuple[int, ...], for_good: bool) -> None:
        self.options = options
        self.tensors = tensors  # the others are numbers, and stay
        self.for_good = for_good  # whether no option can change by itself
        self._others: dict[Any, Settled] = {}

    def but(self, **changes: Any) -> Settled:
        """The same with some options changed: for the same changes the same object, as long as it is kept."""
        if torch.compiler.is_compiling():
            return self._with(changes)
        # Types stand beside values: True and 1 are equal, and not the same option.
        key = (*changes.items(), *map(type, changes.values()))
        try:
            known = self._others.get(key)
        except TypeError:  # not to be hashed, and no option: the checks say so
            return self._with(changes)
        if known is None:
            if len(self._others) >= _MOST_CHANGES:
                self._others.clear()
            known = self._others[key] = self._with(changes)
        return known

    def _with(self, changes: dict[str, Any]) -> Settled:
        return Settled(self.options._replace(**changes), self.tensors, self.for_good)


# Numbers of time steps, mostly, that a layer is called with.
_MOST_CHANGES = 256


# The range of a parameter that is given as a number.
RANGES = {"beta": (0.0, 1.0), "alpha": (0.0, 1.0), "rho": (0.0, 1.0)}


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_flag(name: str, value: object) -> None:
    """Raise TypeError unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {_kind(value)}")


def check_surrogate(value: object) -> None:
    """Raise TypeError unless ``value`` is a surrogate object."""
    if not isinstance(value, Surrogate):
        raise TypeError(
            "surrogate must be an object of lif_cuda.surrogate such as "
            f"surrogate.FastSigmoid(k=10.0), got {_kind(value)}"
        )


def check_number(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    kind: str = "a number or a tensor",
) -> float:
    """Return ``value`` as a float, or raise unless it is a finite number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be {kind}, got {_kind(value)}")
    if not (-math.inf < value < math.inf and low <= value <= high):
        where = f" in [{low:g}, {high:g}]" if math.isfinite(high) else ""
        raise ValueError(f"{name} must be a finite number{where}, got {value}")
    return float(value)


def check_int(name: str, value: object, low: int | None = None, kind: str = "an int") -> int:
    """Return ``value``, or raise unless it is an int of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be {kind}, got {_kind(value)}")
    if low is not None and value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    return value


def check_steps(name: str, value: object) -> int:
    """Return ``value``, or raise unless it is an int of at least 0."""
    return check_int(name, value, 0, "an int or None")


def output_names(output: Output) -> tuple[str, ...]:
    """The names of the outputs asked for."""
    return (output,) if isinstance(output, str) else output


def check_output(value: object) -> None:
    """Raise ValueError unless ``value`` names an output, or is a tuple of different ones."""
    if not isinstance(value, tuple):
        return check_choice("output", value, OUTPUTS)
    if not value:
        raise ValueError("output must name at least one output, got ()")
    for name in value:
        check_choice("output", name, OUTPUTS)
    if len(set(value)) < len(value):
        raise ValueError(f"output must name each output once, got {value!r}")


# The NamedTuples in which several outputs are returned, by their names.
_OUTPUTS_TYPES: dict[tuple[str, ...], Any] = {}


def outputs_type(names: tuple[str, ...]) -> Any:
    """The NamedTuple in which several outputs are returned."""
    if names not in _OUTPUTS_TYPES:
        if torch.compiler.is_compiling():
            return namedtuple("Outputs", names)  # one of the trace, which is not to be found outside of it
        _OUTPUTS_TYPES[names] = namedtuple("Outputs", names)
        # pickle finds a class by its name, and there is one of this name for each tuple of outputs.
        copyreg.pickle(_OUTPUTS_TYPES[names], lambda out: (outputs, (out._fields, *out)))
    return _OUTPUTS_TYPES[names]


def outputs(names: tuple[str, ...], *tensors: Tensor) -> Any:
    """Several outputs in their NamedTuple."""
    return outputs_type(names)(*tensors)


def check_options(options: CallOptions) -> None:
    """Raise unless the options are of the right kind and go together."""
    if torch.compiler.is_compiling():
        # Traced once, and what is traced cannot look into a cache.
        _check_options.__wrapped__(*options)
        return
    try:
        _check_options(*options)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        # Name the argument; the cache could not.
        _check_options.__wrapped__(*options)
        raise


# Options are few and calls are many: those that passed once are remembered, by value and type.
@lru_cache(maxsize=1024, typed=True)
def _check_options(
    steps: object,
    time_dim: object,
    channel_dim: object,
    output: object,
    reset: object,
    delay_reset: object,
    detach_reset: object,
    strict: object,
    decay_input: object,
    rest: object,
    refractory: object,
    surrogate: object,
    return_state: object,
    save: object,
) -> None:
    if steps is not None:
        check_steps("steps", steps)
    check_int("time_dim", time_dim)
    if channel_dim is not None:
        check_int("channel_dim", channel_dim, kind="an int or None")
    check_output(output)
    check_choice("reset", reset, RESETS)
    for name, flag in (
        ("delay_reset", delay_reset),
        ("detach_reset", detach_reset),
        ("strict", strict),
        ("decay_input", decay_input),
        ("return_state", return_state),
    ):
        check_flag(name, flag)
    if isinstance(rest, Tensor):
        raise TypeError("rest must be a number, got a tensor; shift the input instead")
    check_number("rest", rest, kind="a number")
    silent = check_int("refractory", refractory, 0)
    check_surrogate(surrogate)
    check_choice("save", save, SAVES)
    if save == "bits":
        _check_bits(surrogate, reset, bool(delay_reset), bool(detach_reset), silent)
    if delay_reset:
        if reset == "none":
            raise ValueError("delay_reset needs a reset to delay: reset must be 'subtract' or 'zero'")
        if not detach_reset:
            raise ValueError(
                "delay_reset passes no gradient through the reset, as in snnTorch: say so with "
                "detach_reset=True"
            )
        if silent:
            raise ValueError("refractory must be 0 with delay_reset, got " + str(silent))


def _check_bits(surrogate: Any, reset: object, delay_reset: bool, detach_reset: bool, silent: int) -> None:
    """Raise unless two bits a step hold all that backward has to know."""
    keeps = (
        "save='bits' keeps whether a neuron fired and whether its membrane was inside the surrogate's window"
    )
    if surrogate.code != Rectangle.code:
        raise ValueError(
            f"{keeps}: surrogate must be a Rectangle or a StraightThrough, got {surrogate!r}; use "
            "save='input'"
        )
    if reset == "zero" and not detach_reset:
        raise ValueError(
            f"{keeps}: reset='zero' needs the membrane itself in backward; set detach_reset=True, or use "
            "save='input'"
        )
    if delay_reset:
        raise ValueError(f"{keeps}: delay_reset must be False, got True; use save='input'")
    if silent:
        raise ValueError(f"{keeps}: refractory must be 0, got {silent}; use save='input'")


def check_saved(options: CallOptions, parameters: Parameters) -> None:
    """Raise where a parameter is to learn from what ``save="bits"`` does not keep."""
    for name in ("beta", "gain"):
        value = getattr(parameters, name)
        if options.save == "bits" and isinstance(value, Tensor) and value.requires_grad:
            raise ValueError(
                f"{name} must not require a gradient with save='bits', which keeps neither x nor the "
                "membrane; detach it, or use save='input'"
            )


def check_pairs(options: CallOptions, parameters: Parameters) -> None:
    """Raise unless options and parameters that need each other, or exclude each other, agree."""
    if (parameters.kappa is None) != (parameters.rho is None):
        given, missing = ("kappa", "rho") if parameters.rho is None else ("rho", "kappa")
        raise ValueError(
            f"{given} was given without {missing}: an adaptive threshold needs both, "
            "threshold + kappa * b with b = rho * b + spike"
        )
    if options.delay_reset and parameters.kappa is not None:
        raise ValueError("kappa must be None with delay_reset: an adaptive threshold resets at once")
    if options.save == "bits":
        for name in ("alpha", "kappa"):
            if getattr(parameters, name) is not None:
                raise ValueError(
                    f"{name} must be None with save='bits', which keeps nothing of a neuron's further state; "
                    "use save='input'"
                )
    if options.reset != "zero" and not _is_number(parameters.v_reset, 0.0):
        raise ValueError(f"v_reset is used by reset='zero' only, and reset is {options.reset!r}")
    if options.decay_input and not _is_number(parameters.gain, 1.0):
        raise ValueError("gain must stay 1 with decay_input, which makes it 1 - beta")


def _is_number(value: object, number: float) -> bool:
    return not isinstance(value, Tensor) and value == number


def check_input(x: object, steps: int | None, time_dim: int) -> tuple[Tensor, int, torch.Size]:
    """Return ``x``, its time axis counted from the front, and the shape of one time step; or raise."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {_kind(x)}")
    if x.dtype not in STATE_DTYPES:
        raise TypeError(
            f"x must have dtype float32, float64, float16 or bfloat16, got {x.dtype}; "
            "convert it with x.float()"
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


def check_companion(name: str, value: object, x: Tensor, dtypes: Sequence[torch.dtype]) -> Tensor:
    """Return ``value``, or raise unless it is a tensor of one of the dtypes on x's device."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {_kind(value)}")
    if value.dtype not in dtypes:
        what = "of x" if dtypes[0] == x.dtype else "of the state"
        raise TypeError(
            f"{name} must have the dtype {what}, {dtypes[0]}, got {value.dtype}; "
            f"convert it with .to({dtypes[0]})"
        )
    if value.device != x.device:
        raise ValueError(
            f"{name} must be on the device of x, {x.device}, got {value.device}; "
            f"move it with .to('{x.device}')"
        )
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got {value.layout}")
    return value


def state_names(options: CallOptions, parameters: Parameters) -> tuple[str, ...]:
    """The states that the neuron has, in the order of NeuronState."""
    return (
        "membrane",
        *(("current",) if parameters.alpha is not None else ()),
        *(("adaptation",) if parameters.kappa is not None else ()),
        *(("silence",) if options.refractory else ()),
    )


def check_state(
    value: object, names: tuple[str, ...], x: Tensor, features: torch.Size
) -> dict[str, Tensor | None]:
    """The states by name, or raise unless ``value`` is what the neuron with these states takes."""
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
                f"state than its membrane; got {_kind(value)}"
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
        checked = check_companion(label, tensor, x, (STATE_DTYPES[x.dtype],))
        if checked.shape != features:
            raise ValueError(
                f"{label} must have the shape of x without its time axis, "
                f"{tuple(features)}, got {tuple(checked.shape)}"
            )
        states[name] = checked
    return states


def check_parameter(
    name: str, value: object, x: Tensor, features: torch.Size, channel_dim: int | None
) -> float | Tensor:
    """``value`` if it is a number; else, in the state's dtype, shaped to broadcast over one time step."""
    if not isinstance(value, Tensor):
        return check_number(name, value, *RANGES.get(name, (-math.inf, math.inf)))
    state_dtype = STATE_DTYPES[x.dtype]
    value = check_companion(name, value, x, (state_dtype, x.dtype))
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


class Checked(NamedTuple):
    """The arguments of a call that passed all checks."""

    x: Tensor
    time_dim: int
    features: torch.Size
    parameters: Parameters
    states: dict[str, Tensor | None]
    state_dtype: torch.dtype


def check_call(x: object, parameters: Parameters, membrane: object, options: CallOptions) -> Checked:
    """Check all arguments of a public call."""
    check_options(options)
    x, time_dim, features = check_input(x, options.steps, options.time_dim)
    channel_dim = check_channel_dim(options.channel_dim, x, options.steps, time_dim)
    check_pairs(options, parameters)
    checked = Parameters._make(
        None if value is None else check_parameter(name, value, x, features, channel_dim)
        for name, value in zip(Parameters._fields, parameters, strict=True)
    )
    states = check_state(membrane, state_names(options, parameters), x, features)
    return Checked(x, time_dim, features, checked, states, STATE_DTYPES[x.dtype])
