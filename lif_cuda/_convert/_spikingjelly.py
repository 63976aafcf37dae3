"""SpikingJelly's neurons: ``IFNode``, ``LIFNode`` and ``ParametricLIFNode``, of one step or of many.

The layers are ``MemoryModule`` as well, because ``functional.reset_net`` and the like ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from spikingjelly.activation_based import base, functional, neuron
from spikingjelly.activation_based import surrogate as theirs
from torch import Tensor, nn

from .. import surrogate
from .._kept_state import detached
from ..layers import LIF
from ._layer import Converted, NoEqualError, Recipe, Value, entries_of, parameters_in_order, tensor


class Node(Converted, base.MemoryModule):
    """Spikes come back alone; the state is kept until ``reset``."""

    entries = frozenset({"w"})

    def forward(self, x: Tensor) -> Any:
        if self.start and self._kept.state is None:
            self._start(self._at_start(x[0] if self.step_mode == "m" else x))
        if self.step_mode == "m":
            return LIF.forward(self, x)
        return self.step(x)[0]

    @property
    def v(self) -> float | Tensor:
        """The membrane that is kept; a number before the first step, as there."""
        state = self._kept.state
        return self.start if state is None else state.membrane

    @v.setter
    def v(self, value: Tensor) -> None:
        self._start(value)

    def reset(self) -> None:
        """Forget the state."""
        self._kept.reset()

    def detach(self) -> None:
        """Cut the state off from its history."""
        if self._kept.state is not None:
            self._kept.reset(detached(self._kept.state))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        nn.Module._apply(self, fn, recurse)
        self._kept.move(fn)
        return self

    def extra_repr(self) -> str:
        return f"{LIF.extra_repr(self)}, step_mode={self.step_mode!r}"

    @staticmethod
    def read(entries: Mapping[str, Tensor]) -> dict[str, Value]:
        """``w`` of a ParametricLIFNode, with 1 / tau = sigmoid(w); the others keep numbers of Python."""
        return {"beta": Value(torch.sigmoid(-entries["w"]), -entries["w"])} if "w" in entries else {}


# By the class there: the surrogate here of its alpha.
_SURROGATES: dict[type, Callable[[float], surrogate.Surrogate]] = {
    theirs.Sigmoid: surrogate.Sigmoid,
    theirs.ATan: surrogate.ATan,
    theirs.SoftSign: surrogate.SoftSign,
    theirs.SuperSpike: lambda alpha: surrogate.SuperSpike(1.0, scale=alpha),
    theirs.PiecewiseQuadratic: surrogate.Triangle,
    theirs.PiecewiseExp: surrogate.PiecewiseExp,
    theirs.Erf: surrogate.Gaussian,
}


def surrogate_of(function: Any) -> surrogate.Surrogate:
    """The surrogate with the derivative of SpikingJelly's ``function``."""
    if type(function) not in _SURROGATES:
        known = ", ".join(known.__name__ for known in _SURROGATES)
        name = type(function).__name__
        raise NoEqualError(
            f"surrogate_function: no surrogate has the derivative of {name}; {known} are known"
        )
    if not function.spiking:
        raise NoEqualError("surrogate_function: with spiking=False it gives no spikes")
    return _SURROGATES[type(function)](float(function.alpha))


def _recipe(module: Any, decay: dict[str, Value]) -> Recipe:
    """The part that all nodes have in common."""
    if module.store_v_seq:
        raise NoEqualError("store_v_seq: ask a layer of lif_cuda for output=('spikes', 'trace') instead")
    if module._neuron_precision is not None:
        raise NoEqualError("a neuron precision of its own has no equal")
    options: dict[str, Any] = {
        "reset": "subtract" if module.v_reset is None else "zero",
        "detach_reset": module.detach_reset,
        "surrogate": surrogate_of(module.surrogate_function),
        "return_state": False,
        "stateful": True,
        "detach_state": False,
    }
    values = {**decay, "threshold": Value(tensor(module.v_threshold), tensor(module.v_threshold))}
    start = module.v_reset or 0.0
    if start:
        options["rest"] = start
        values["v_reset"] = Value(tensor(start), tensor(start))
    return Recipe(
        layer=Node,
        options=options,
        values=values,
        learned=parameters_in_order(module, {"w": "beta"}),
        calling={"start": start, "step_mode": module.step_mode},
    )


def _if(module: Any) -> Recipe:
    recipe = _recipe(module, {"beta": Value(tensor(1.0), tensor(1.0))})
    recipe.options.pop("rest", None)  # nothing leaks toward it
    return recipe


def _lif(module: Any) -> Recipe:
    beta = tensor(1 - 1 / module.tau)
    recipe = _recipe(module, {"beta": Value(beta, beta)})
    recipe.options["decay_input"] = module.decay_input
    return recipe


def _parametric(module: Any) -> Recipe:
    recipe = _recipe(module, Node.read(entries_of(module)))
    recipe.options["decay_input"] = module.decay_input
    return recipe


RECIPES: dict[type, Callable[[Any], Recipe]] = {
    neuron.IFNode: _if,
    neuron.LIFNode: _lif,
    neuron.ParametricLIFNode: _parametric,
}


def finished(model: nn.Module) -> None:
    """Let ``functional.reset_net`` look for what is to be reset once more."""
    for module in model.modules():
        functional.invalidate_reset_cache(module)
