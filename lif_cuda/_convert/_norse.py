"""Norse's neurons: ``LIFBoxCell``, ``LIFCell``, ``LIF``, and the integrators ``LICell`` and ``LI``.

``SequentialState`` knows a layer that has a state by the name of a parameter of its ``forward``: ``state``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import norse.torch as norse
import torch
from norse.torch.functional import reset
from norse.torch.functional.leaky_integrator import LIState
from norse.torch.functional.lif import LIFFeedForwardState
from norse.torch.functional.lif_box import LIFBoxFeedForwardState
from torch import Tensor

from .. import surrogate
from .._check import STATE_DTYPES
from .._state import NeuronState
from ..functional import SILENT
from ..layers import LIF
from ._layer import Converted, NoEqualError, Recipe, Value, tensor


class _Neuron(Converted):
    """The state goes in and out, in Norse's own types."""

    def _before(self, one: Tensor, state: Any) -> Any:
        """The state before a call, for the input of one step."""
        if state is None:
            return self._at_start(one) if self.start else None
        membrane = state.v.expand(one.shape).to(STATE_DTYPES.get(one.dtype))
        if self.alpha is None:
            return membrane
        # Norse's current has decayed once more. One that decays to nothing in a step is 0 in either.
        alpha = torch.as_tensor(self.alpha, dtype=membrane.dtype, device=membrane.device)
        return NeuronState(membrane, (state.i / alpha.clamp(min=1e-30)).to(membrane.dtype))

    def _after(self, after: Any) -> Any:
        if self.alpha is None:
            return LIFBoxFeedForwardState(v=after)
        kind = LIFFeedForwardState if self.options.output == "spikes" else LIState
        return kind(v=after.membrane, i=self.alpha * after.current)

    @staticmethod
    def read(entries: Mapping[str, Tensor]) -> dict[str, Value]:
        return {}  # Norse keeps its parameters outside of the module


class Cell(_Neuron):
    """Of one step."""

    def forward(self, input_tensor: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        before = self._before(input_tensor, state)
        out, after = LIF.forward(self, input_tensor.unsqueeze(0), before)
        return out.squeeze(0), self._after(after)


class Layer(_Neuron):
    """Of all steps."""

    def forward(self, input_tensor: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        out, after = LIF.forward(self, input_tensor, self._before(input_tensor[0], state))
        return out, self._after(after)


# By the method there: the surrogate here of its alpha. Release 1.1.0 ignores that of "super".
_SURROGATES: dict[str, Callable[[float], surrogate.Surrogate]] = {
    "super": lambda alpha: surrogate.SuperSpike(1.0),
    "triangle": lambda alpha: surrogate.Triangle(1.0, scale=alpha),
    "tanh": lambda k: surrogate.Sigmoid(2 * k, scale=4.0),
    "heavi_erfc": lambda k: surrogate.Gaussian(k, scale=2 / math.pi**0.5),
}


def surrogate_of(method: str, alpha: float) -> surrogate.Surrogate:
    """The surrogate with the derivative of Norse's ``threshold(z, method, alpha)``."""
    if method not in _SURROGATES:
        known = ", ".join(_SURROGATES)
        raise NoEqualError(f"method: no surrogate has the derivative of {method!r}; {known} are known")
    return _SURROGATES[method](alpha)


def _number(name: str, value: Any) -> float:
    found = torch.as_tensor(value)
    if found.numel() != 1:
        raise NoEqualError(f"{name} differs between neurons, and is one number here")
    return float(found)


def _value(exact: Tensor) -> Value:
    """A number as exact as it is; what differs between neurons in the dtype of a layer's parameters."""
    used = exact if exact.numel() == 1 else exact.to(torch.get_default_dtype())
    return Value(used, used)


def _checked(module: Any) -> Any:
    """Its parameters, or raise where they learn: they are in no module, and an optimizer could not follow."""
    for name in module.p._fields:
        value = getattr(module.p, name)
        if isinstance(value, Tensor) and value.requires_grad:
            raise NoEqualError(f"p.{name} learns outside of the module; make it an option of a lif_cuda.LIF")
    return module.p


def _recipe(module: Any, *, series: bool, synapse: bool, fires: bool) -> Recipe:
    p = _checked(module)
    if series and module.record_states:
        raise NoEqualError("record_states: ask a layer of lif_cuda for output=('spikes', 'trace') instead")
    values = {"beta": _value(1 - module.dt * tensor(p.tau_mem_inv))}
    rest = _number("v_leak", p.v_leak)
    options: dict[str, Any] = {"decay_input": True, "rest": rest}
    if synapse:
        values["alpha"] = _value(1 - module.dt * tensor(p.tau_syn_inv))
    for name, value in values.items():
        if not bool(((value.used >= 0) & (value.used <= 1)).all()):
            raise NoEqualError(f"dt is longer than the time constant, so that {name} is outside of [0, 1]")
    if fires:
        options |= {"strict": True, "surrogate": surrogate_of(p.method, _number("alpha", p.alpha))}
        values["threshold"] = _value(tensor(p.v_th))
        method = getattr(p, "reset_method", reset.reset_value)
        if method is reset.reset_value:
            options["reset"] = "zero"
            values["v_reset"] = _value(tensor(p.v_reset))
        elif method is not reset.reset_subtract:
            raise NoEqualError(f"reset_method {getattr(method, '__name__', method)} has no equal")
    else:
        options |= {"reset": "none", "output": "trace", "surrogate": SILENT}
    return Recipe(Layer if series else Cell, options, values, calling={"start": rest})


def _recurrent(module: Any) -> Recipe:
    raise NoEqualError(
        "its recurrent weights are not converted: lif_cuda.RecurrentLIF has no synaptic current"
    )


RECIPES: dict[type, Callable[[Any], Recipe]] = {
    norse.LIFBoxCell: lambda module: _recipe(module, series=False, synapse=False, fires=True),
    norse.LIFCell: lambda module: _recipe(module, series=False, synapse=True, fires=True),
    norse.LIF: lambda module: _recipe(module, series=True, synapse=True, fires=True),
    norse.LICell: lambda module: _recipe(module, series=False, synapse=True, fires=False),
    norse.LI: lambda module: _recipe(module, series=True, synapse=True, fires=False),
    norse.LIFRecurrentCell: _recurrent,
    norse.LIFRecurrent: _recurrent,
}
