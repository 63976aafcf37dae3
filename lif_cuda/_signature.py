"""What calls take and return, for type checkers and ``help()``: the keywords of ``_options.py``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar, Unpack, cast, overload

from torch import Tensor

from ._options import (
    INTEGRATOR,
    INTEGRATOR_LAYER,
    CallOptions,
    LayerChoices,
    NeuronOptions,
    PlainOptions,
)
from ._outputs import OutputName
from ._parameters import Parameters
from ._state import NeuronState, State

Several = tuple[OutputName, ...]
_Function = TypeVar("_Function", bound=Callable[..., Any])


class NeuronFunction(Protocol):
    """:func:`lif_cuda.functional.lif` and its reference.

    One output is a tensor, several are a NamedTuple of tensors. With the state, they come in a pair; it is a
    tensor where the neuron has a membrane alone.
    """

    __name__: str

    @overload
    def __call__(
        self,
        x: Tensor,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        membrane: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
        output: OutputName = "spikes",
        return_state: Literal[True] = True,
        **options: Unpack[PlainOptions],
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def __call__(
        self,
        x: Tensor,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        membrane: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
        output: Several,
        return_state: Literal[True] = True,
        **options: Unpack[PlainOptions],
    ) -> tuple[Any, Tensor]: ...
    @overload
    def __call__(
        self,
        x: Tensor,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        membrane: NeuronState | None = None,
        *,
        lengths: Tensor | None = None,
        output: OutputName = "spikes",
        return_state: Literal[True] = True,
        **options: Unpack[NeuronOptions],
    ) -> tuple[Tensor, NeuronState]: ...
    @overload
    def __call__(
        self,
        x: Tensor,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        membrane: State | None = None,
        *,
        lengths: Tensor | None = None,
        output: OutputName = "spikes",
        return_state: Literal[False],
        **options: Unpack[NeuronOptions],
    ) -> Tensor: ...
    @overload
    def __call__(
        self,
        x: Tensor,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        membrane: State | None = None,
        *,
        lengths: Tensor | None = None,
        output: OutputName | Several = "spikes",
        return_state: bool = True,
        **options: Unpack[NeuronOptions],
    ) -> Any: ...
    def __call__(self, *args: Any, **options: Any) -> Any: ...


def neuron_function(function: Callable[..., Any]) -> NeuronFunction:
    """``function``, whose keywords are those of a call."""
    return cast(NeuronFunction, _spelled_out(function, _BY_KEYWORD))


def layer_constructor(function: _Function) -> _Function:
    """``function``, whose keywords are those of a layer."""
    return _spelled_out(function, _BY_KEYWORD | _OF_LAYER)


def integrator_function(function: _Function) -> _Function:
    """``function``, whose keywords are those of leaky integrators."""
    return _spelled_out(function, {name: _BY_KEYWORD[name] for name in INTEGRATOR})


def integrator_constructor(function: _Function) -> _Function:
    """``function``, whose keywords are those of a layer of leaky integrators."""
    return _spelled_out(function, {name: (_BY_KEYWORD | _OF_LAYER)[name] for name in INTEGRATOR_LAYER})


def _spelled_out(function: _Function, keywords: Mapping[str, Any]) -> _Function:
    """``function`` with the keywords in place of the ``**options`` of its signature, for ``help()``."""
    signature = inspect.signature(function)
    named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    taken = {parameter.name for parameter in named}
    spelled = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in keywords.items()
        if name not in taken
    ]
    cast(Any, function).__signature__ = signature.replace(parameters=[*named, *spelled])
    return function


_BY_KEYWORD = CallOptions._field_defaults | Parameters._field_defaults
_OF_LAYER = LayerChoices._field_defaults
