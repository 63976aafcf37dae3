"""The options of neurons and of layers: names, types, defaults and checks. A new option is added here.

Each call takes the options of :class:`NeuronOptions` by keyword, and the constructors of the layers those of
:class:`LayerOptions`; what the words mean stands at :func:`lif_cuda.functional.lif` and
:class:`lif_cuda.LIF`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, TypedDict, get_args

import torch
from torch import Tensor

from . import _check, _outputs, _words
from ._outputs import Output
from ._parameters import LEARNABLE, Parameters
from .surrogate import FastSigmoid, Surrogate

Reset = Literal["subtract", "zero", "none"]
Save = Literal["input", "bits"]
Bound = Literal["sigmoid", "clamp"]
ThresholdBound = Literal["exp"]

DEFAULT_SURROGATE = FastSigmoid(k=10.0)


class CallOptions(NamedTuple):
    """The options of one call that are no parameters, with their defaults."""

    steps: int | None = None
    time_dim: int = 0
    channel_dim: int | None = None
    output: Output = "spikes"
    reset: Reset = "subtract"
    delay_reset: bool = False
    detach_reset: bool = False
    strict: bool = False
    decay_input: bool = False
    rest: float = 0.0
    refractory: int = 0
    surrogate: Surrogate = DEFAULT_SURROGATE
    return_state: bool = True
    save: Save = "input"


class PlainOptions(TypedDict, total=False):
    """Keywords of a neuron whose state is its membrane alone, but for ``output`` and ``return_state``."""

    steps: int | None
    time_dim: int
    channel_dim: int | None
    reset: Reset
    v_reset: float | Tensor
    v_min: float | Tensor | None
    delay_reset: bool
    detach_reset: bool
    strict: bool
    gain: float | Tensor
    decay_input: bool
    rest: float
    surrogate: Surrogate
    save: Save


class SynapseOptions(TypedDict, total=False):
    """Of a current-based neuron."""

    alpha: float | Tensor | None


class AdaptationOptions(TypedDict, total=False):
    """Of a neuron with an adaptive threshold."""

    kappa: float | Tensor | None
    rho: float | Tensor | None


class RefractoryOptions(TypedDict, total=False):
    """Of a neuron that is silent after a spike."""

    refractory: int


class NeuronOptions(PlainOptions, SynapseOptions, AdaptationOptions, RefractoryOptions, total=False):
    """Keywords of a call, but for ``output`` and ``return_state``, which say what it returns."""


class IntegratorOptions(TypedDict, total=False):
    """Keywords of a leaky integrator, which never fires."""

    steps: int | None
    time_dim: int
    channel_dim: int | None
    gain: float | Tensor
    decay_input: bool
    rest: float
    alpha: float | Tensor | None
    v_min: float | Tensor | None


class LayerChoices(NamedTuple):
    """The options of a layer that are not those of its calls, with their defaults."""

    learn_beta: bool = False
    learn_threshold: bool = False
    learn_v_reset: bool = False
    learn_gain: bool = False
    learn_alpha: bool = False
    learn_kappa: bool = False
    learn_rho: bool = False
    tau: float | Tensor | None = None
    dt: float | None = None
    decay: str | None = None
    bound: Bound = "sigmoid"
    threshold_bound: ThresholdBound | None = None
    stateful: bool = False
    detach_state: bool = True
    save_state: bool = False
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    def learned(self) -> tuple[str, ...]:
        """The parameters that are to be learned."""
        return tuple(name for name in LEARNABLE if getattr(self, f"learn_{name}"))


class OwnOptions(TypedDict, total=False):
    """Keywords of a layer's constructor that are not those of its neurons."""

    output: Output
    return_state: bool
    learn_beta: bool
    learn_threshold: bool
    learn_v_reset: bool
    learn_gain: bool
    learn_alpha: bool
    learn_kappa: bool
    learn_rho: bool
    tau: float | Tensor | None
    dt: float | None
    decay: str | None
    bound: Bound
    threshold_bound: ThresholdBound | None
    stateful: bool
    detach_state: bool
    save_state: bool
    device: torch.device | str | None
    dtype: torch.dtype | None


class LayerOptions(NeuronOptions, OwnOptions, total=False):
    """Keywords of a layer's constructor."""


class IntegratorLayerOptions(IntegratorOptions, total=False):
    """Those of a layer of leaky integrators."""

    return_state: bool
    learn_beta: bool
    learn_gain: bool
    learn_alpha: bool
    tau: float | Tensor | None
    dt: float | None
    decay: str | None
    bound: Bound
    stateful: bool
    detach_state: bool
    save_state: bool
    device: torch.device | str | None
    dtype: torch.dtype | None


class CurrentOptions(PlainOptions, AdaptationOptions, RefractoryOptions, OwnOptions, total=False):
    """Those of a layer whose ``alpha`` has a place of its own."""


class RecurrentCallOptions(TypedDict, total=False):
    """Keywords of a call of recurrent neurons."""

    time_dim: int
    output: Output
    reset: Literal["subtract", "zero"]
    v_reset: float
    detach_reset: bool
    strict: bool
    gain: float
    surrogate: Surrogate
    return_state: bool


class RecurrentOptions(RecurrentCallOptions, total=False):
    """Keywords of a recurrent layer's constructor."""

    learn_beta: bool
    learn_threshold: bool
    tau: float | Tensor | None
    dt: float | None
    decay: str | None
    bound: Bound
    threshold_bound: ThresholdBound | None
    stateful: bool
    detach_state: bool
    save_state: bool
    device: torch.device | str | None
    dtype: torch.dtype | None


class AdaptiveOptions(PlainOptions, SynapseOptions, RefractoryOptions, OwnOptions, total=False):
    """Those of a layer whose ``kappa`` and ``rho`` have places of their own."""


# Keywords apart into groups.

_BY_KEYWORD = Parameters._fields[2:]  # beta and threshold have places of their own
_OF_CALLS = frozenset(CallOptions._fields)


def _apart(function: str, given: Mapping[str, Any], *groups: tuple[str, ...]) -> list[dict[str, Any]]:
    """What is given of each group of names; raise for a keyword that there is not, as Python does."""
    found: list[dict[str, Any]] = [{} for _ in groups]
    for name, value in given.items():
        for group, names in zip(found, groups, strict=True):
            if name in names:
                group[name] = value
                break
        else:
            known = sorted(sum(groups, ()))
            ours = _words.ours_for(name)
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            hint = hint if ours is None else f"here it is {ours}"
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}; {hint}")
    return found


def of_call(
    beta: float | Tensor, threshold: float | Tensor, given: dict[str, Any], function: str = "lif"
) -> tuple[Parameters, CallOptions]:
    """The keywords of a call as its parameters and its options; they are checked later."""
    # By its name: torch.compile of torch 2.11 cannot trace an object that is a default.
    given.setdefault("surrogate", DEFAULT_SURROGATE)
    if _OF_CALLS.issuperset(given):  # most calls; to look at each of the names takes 1.4 us of their 9
        return Parameters(beta, threshold), CallOptions(**given)
    options, parameters = _apart(function, given, CallOptions._fields, _BY_KEYWORD)
    return Parameters(beta, threshold, **parameters), CallOptions(**options)


def of_layer(
    function: str, threshold: float | Tensor, given: Mapping[str, Any]
) -> tuple[Parameters, CallOptions, LayerChoices]:
    """The keywords of a layer, in groups; its beta is still to be found, from what is given of it and tau."""
    groups = (_BY_KEYWORD, CallOptions._fields, LayerChoices._fields)
    parameters, options, choices = _apart(function, given, *groups)
    return (
        Parameters(0.0, threshold, **parameters),
        CallOptions(**options),
        check_choices(LayerChoices(**choices)),
    )


# The keywords of a leaky integrator, of its layer, and those of neurons that fire.
INTEGRATOR = (*IntegratorOptions.__annotations__,)
INTEGRATOR_LAYER = (*IntegratorLayerOptions.__annotations__,)
FIRING = frozenset((*CallOptions._fields, *Parameters._fields, *LayerChoices._fields)).difference(
    ("beta", "output", *INTEGRATOR_LAYER)
)


def check_integrator(function: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise for a keyword that a leaky integrator has not, or that there is not at all."""
    for name in given:
        if name in FIRING:
            raise TypeError(
                f"{function} never fires and is never reset, and so has no {name}; for a neuron that does, "
                "use LIF"
            )
    _apart(function, given, known)


# Checks. Each returns the value as it is kept: a NumPy scalar as Python's own.

_Check = Callable[[str, Any], Any]


def _or_none(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


def _one_of(kind: Any) -> _Check:
    choices = get_args(kind)

    def check(name: str, value: Any) -> Any:
        _check.check_choice(name, value, choices)
        return value

    return check


def _steps(name: str, value: Any) -> int:
    if isinstance(value, Tensor) and value.dim():
        raise TypeError(
            f"{name} must be an int or None, got {_check.type_name(value)}; all states of a neuron go in one "
            "argument, lif_cuda.NeuronState(membrane=..., current=...)"
        )
    return _check.check_steps(name, value)


def _rest(name: str, value: Any) -> float:
    if isinstance(value, Tensor):
        raise TypeError("rest must be a number, got a tensor; shift the input instead")
    return _check.check_number(name, value, kind="a number")


def _surrogate(name: str, value: Any) -> Any:
    if not isinstance(value, Surrogate):
        given, hint = _check.type_name(value), ""
        if isinstance(value, type) and issubclass(value, Surrogate):
            given, hint = f"the class {value.__name__}", f"; write surrogate.{value.__name__}()"
        elif callable(value):
            hint = (
                "; docs/migrating.md has the equals of other libraries' surrogates, and surrogate.Custom "
                "makes one of a derivative of your own"
            )
        raise TypeError(
            "surrogate must be an object of lif_cuda.surrogate such as "
            f"surrogate.FastSigmoid(k=10.0), got {given}{hint}"
        )
    return value


_CHECKS: dict[str, _Check] = {
    "steps": _or_none(_steps),
    "time_dim": _check.check_int,
    "channel_dim": _or_none(partial(_check.check_int, kind="an int or None")),
    "output": _outputs.check_output,
    "reset": _one_of(Reset),
    "delay_reset": _check.check_flag,
    "detach_reset": _check.check_flag,
    "strict": _check.check_flag,
    "decay_input": _check.check_flag,
    "rest": _rest,
    "refractory": partial(_check.check_int, low=0),
    "surrogate": _surrogate,
    "return_state": _check.check_flag,
    "save": _one_of(Save),
}


# Those of a layer that are set once more, on the layer itself.
LAYER_FLAGS = ("stateful", "detach_state", "save_state")


def check_each(options: CallOptions) -> CallOptions:
    """The options as they are kept, or raise unless each is of the right kind."""
    return CallOptions._make(
        [_CHECKS[name](name, value) for name, value in zip(CallOptions._fields, options, strict=True)]
    )


def check_choices(choices: LayerChoices) -> LayerChoices:
    """The options of a layer, or raise unless each is of the right kind."""
    for name in (*(f"learn_{parameter}" for parameter in LEARNABLE), *LAYER_FLAGS):
        _check.check_flag(name, getattr(choices, name))
    _one_of(Bound)("bound", choices.bound)
    _or_none(_one_of(ThresholdBound))("threshold_bound", choices.threshold_bound)
    if choices.threshold_bound is not None and not choices.learn_threshold:
        raise ValueError(
            "threshold_bound needs learn_threshold=True: a threshold that is not learned stays where it is"
        )
    return choices
