"""What the layers in the place of other libraries' neurons share, and how one is made."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .. import _saved
from .._bounds import BOUNDS
from .._check import STATE_DTYPES
from .._kept_state import checked_start
from .._parameters import Parameters
from .._settled import Settled
from .._state import NeuronState
from .._torch_private import backward_is_running, makes_a_program, transforms_are_active
from ..layers import LIF

# What nn.Module keeps of hooks. The dicts themselves go over, so that the handles of hooks still work.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


class NoEqualError(Exception):
    """No layer equals this neuron; the text says why, and what can be done."""


class Value(NamedTuple):
    """A parameter of a neuron, from what its library keeps.

    used: as the equations have it. stored: as a layer here stores it where it is learned.
    """

    used: Tensor
    stored: Tensor


class Converted(LIF):
    """A layer in the place of another library's neuron, called as that one was."""

    @staticmethod
    def read(entries: Mapping[str, Tensor]) -> dict[str, Value]:
        """The parameters, from the library's own entries of a state_dict.

        Raises:
            NoEqualError: an entry makes it a neuron that no layer equals.
        """
        raise NotImplementedError

    # The names of those entries, states and what is an option here among them.
    entries: ClassVar[frozenset[str]] = frozenset()
    # The membrane where a series begins.
    start = 0.0

    def translated(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Entries of the library's state_dict, as this layer's own.

        Raises:
            NoEqualError: they are not those of the neuron in whose place the layer stands.
        """
        unknown = sorted(entries.keys() - self.entries)
        if unknown:
            raise NoEqualError(f"it has no {', '.join(unknown)}; what was saved after convert loads as it is")
        values = self.read(entries)
        numbers = self._numbers
        found: dict[str, Tensor] = {}
        for at, name in enumerate(Parameters._fields):
            key = f"{name}_{BOUNDS[self._bounds.get(name)].suffix}"
            if at in self._tensors:
                if name not in values:
                    raise NoEqualError(f"has no {name}, which is a tensor of the converted layer")
                value = values[name]
                found[key] = (value.stored if name in self.learned else value.used).detach().clone()
            elif name in values:
                if values[name].used.numel() != 1:
                    shape = tuple(values[name].used.shape)
                    raise NoEqualError(f"has a {name} of shape {shape}, a number of the converted layer")
                numbers = numbers._replace(**{name: float(values[name].used)})
        found["_extra_state"] = _saved.to_tensor(_saved.Numbers(numbers, self.options))
        return found

    def run(self, x: Tensor, membrane: Any = None, steps: int | None = None) -> Any:
        """All T time steps in one launch: what a layer of lif_cuda does when it is called.

        Args:
            x: [T, batch, ...]; or with ``steps`` a constant input, [batch, ...].
            membrane: the state before the first step; a layer that keeps its state starts from it.
            steps: the number of time steps of a constant input.

        Returns:
            As :meth:`lif_cuda.LIF.forward` does.
        """
        settled = self._settled if steps is None else self._settled.but(steps=steps)
        if membrane is None and self.start and self._kept.state is None:
            membrane = self._at_start(x if settled.options.steps is not None else x[0])
        if not self.stateful or membrane is None:
            return LIF.forward(self, x, membrane, steps)
        out, after = self._run_from(membrane, x, settled.but(return_state=True))
        return (out, after) if settled.options.return_state else out

    def _step_from(self, state: Any, current: Tensor) -> tuple[Tensor, Any]:
        """One step from this state; that after it is kept."""
        one = self._settled.but(steps=1, time_dim=0, channel_dim=None, output="spikes", return_state=True)
        spikes, after = self._run_from(state, current, one)
        return spikes.squeeze(0), after

    def _run_from(self, state: Any, x: Tensor, settled: Settled) -> tuple[Any, Any]:
        """Run from this state, with its history; an empty tensor stands for zeros.

        Not by way of the state that is kept: a recomputation under activation checkpointing passes its own.
        """
        start = checked_start(state, NeuronState)
        start = None if start is None or start.membrane.shape == (0,) else start
        out, after = self._lif(x, self._in_use(), start, settled.options, settled)
        if not (backward_is_running() or makes_a_program() or transforms_are_active()):
            self._start(after)
        return out, after

    def _at_start(self, one: Tensor) -> NeuronState:
        """The state where a series begins, for the input of one step."""
        return NeuronState(torch.full_like(one, self.start, dtype=STATE_DTYPES.get(one.dtype)))

    def _start(self, state: Tensor | NeuronState | None) -> None:
        """Start from this state, with its history; an empty tensor stands for zeros."""
        start = checked_start(state, NeuronState)
        self._kept.reset(None if start is None or start.membrane.shape == (0,) else start)


@dataclass(frozen=True)
class Recipe:
    """How the equal of a neuron is made.

    Attributes:
        layer: its class.
        options: keywords of its constructor, but for the parameters.
        values: its parameters.
        learned: of those, the library's ``nn.Parameter``, in the order in which the library has them.
        calling: attributes that say how it is called.
    """

    layer: type[Converted]
    options: dict[str, Any]
    values: dict[str, Value]
    learned: dict[str, nn.Parameter] = field(default_factory=dict)
    calling: dict[str, Any] = field(default_factory=dict)


def layer_of(recipe: Recipe, module: nn.Module) -> Converted:
    """The layer of a recipe, in the place of this module."""
    words: dict[str, Any] = {name: _start_of(name, value, recipe) for name, value in recipe.values.items()}
    words |= {f"learn_{name}": True for name in recipe.learned}
    layer = recipe.layer(**words, **recipe.options)
    for name, parameter in recipe.learned.items():
        key = f"{name}_{BOUNDS[layer._bounds[name]].suffix}"
        stored = recipe.values[name].stored
        del layer._parameters[key]  # and back in at the end: the library's order
        if stored is parameter:
            layer._parameters[key] = parameter
        else:
            layer._parameters[key] = nn.Parameter(stored.detach().clone(), parameter.requires_grad)
    for name, value in recipe.calling.items():
        setattr(layer, name, value)
    for name in _HOOKS:
        object.__setattr__(layer, name, getattr(module, name))
    layer.train(module.training)
    return layer


def _start_of(name: str, value: Value, recipe: Recipe) -> float | Tensor:
    """What the constructor is given of a parameter; what is learned gets its values after that."""
    used = value.used.detach()
    if name in recipe.learned:
        return torch.full_like(used, 0.5)
    return float(used) if used.numel() == 1 else used


def parameters_in_order(module: nn.Module, names: Mapping[str, str]) -> dict[str, nn.Parameter]:
    """The parameters of a neuron in its own order, by their names here; ``names``: from theirs to ours."""
    found = module.named_parameters(recurse=False)
    return {names[name]: parameter for name, parameter in found if name in names}


def entries_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a neuron, under the names of its state_dict."""
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def tensor(value: Any) -> Tensor:
    """A number of Python as a tensor that holds it unrounded; a tensor as float64."""
    return torch.as_tensor(value, dtype=torch.float64)


def captured(function: Any, maker: str) -> dict[str, Any] | None:
    """What a function that ``maker`` made has captured; None: it is none of those."""
    if getattr(function, "__qualname__", None) != f"{maker}.<locals>.inner":
        return None
    return dict(inspect.getclosurevars(function).nonlocals)
