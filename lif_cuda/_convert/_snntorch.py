"""snnTorch's neurons: ``Leaky``, ``Synaptic`` and ``Lapicque``.

The layers are of snnTorch's classes as well, because ``snntorch.utils.reset`` and the like ask for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import snntorch as snn
import torch
from snntorch._neurons.neurons import SpikingNeuron
from torch import Tensor, nn

from .. import surrogate
from .._state import NeuronState
from ._layer import Converted, NoEqualError, Recipe, Value, captured, entries_of, parameters_in_order


class _Neuron(Converted):
    """One step a call; the state goes in and out, and is kept as well."""

    init_hidden = False
    returns_states = True
    entries = frozenset({"beta", "threshold", "reset_mechanism_val", "graded_spikes_factor"})

    @property
    def reset_mechanism(self) -> str:
        return self.options.reset

    def _kept_or_empty(self, name: str) -> Tensor:
        state = self._kept.state
        return torch.zeros(0) if state is None else getattr(state, name)

    @property
    def mem(self) -> Tensor:
        """The membrane that is kept; empty before the first step, as there."""
        return self._kept_or_empty("membrane")

    @mem.setter
    def mem(self, value: Tensor) -> None:
        # utils.reset writes zeros of the batch that was, and the next one may be of another size.
        self._start(value if value.numel() and bool(value.any()) else None)

    def reset_mem(self) -> Any:
        """Forget the state; an empty one is returned, which stands for zeros."""
        self._kept.reset()
        return self.mem

    def run(self, x: Tensor, membrane: Any = None, steps: int | None = None) -> Any:
        """As of any layer: a series begins anew where no state is passed, but with ``init_hidden``."""
        if membrane is None and not self.init_hidden:
            self._kept.reset()
        return super().run(x, membrane, steps)

    def _is_passed(self, *states: Tensor | None) -> bool:
        """Whether a state is passed to this call."""
        given = any(state is not None for state in states)
        if given and self.init_hidden:
            raise TypeError("a state must not be passed with init_hidden=True, which keeps it")
        return given

    def translated(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if "reset_mechanism_val" in entries:
            reset = list(SpikingNeuron.reset_dict)[int(entries["reset_mechanism_val"])]
            if reset != self.options.reset:
                raise NoEqualError(
                    f"it resets to {self.options.reset!r}, and that which was saved to {reset!r}"
                )
        return super().translated(entries)

    @staticmethod
    def read(entries: Mapping[str, Tensor]) -> dict[str, Value]:
        factor = entries.get("graded_spikes_factor")
        if factor is not None and (factor.requires_grad or not bool((factor == 1).all())):
            raise NoEqualError("graded_spikes_factor: spikes here are 0 or 1")
        found = {}
        for name in ("beta", "threshold", "alpha"):
            if name in entries:
                stored = entries[name]
                found[name] = Value(stored if name == "threshold" else stored.clamp(0, 1), stored)
        return found


class _BareLeaky(snn.Leaky):
    __init__ = nn.Module.__init__


class _BareLapicque(snn.Lapicque):
    __init__ = nn.Module.__init__


class _BareSynaptic(snn.Synaptic):
    __init__ = nn.Module.__init__


class _OfMembrane(_Neuron):
    """Those whose state is their membrane: ``spk, mem = lif(x, mem)``."""

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        spike, after = self._step_from(mem, input_) if self._is_passed(mem) else self.step(input_)
        return (spike, after) if self.returns_states else spike


class Leaky(_OfMembrane, _BareLeaky):
    def init_leaky(self) -> Any:
        return self.reset_mem()


class Lapicque(_OfMembrane, _BareLapicque):
    entries = _Neuron.entries | {"R", "C", "time_step"}

    def init_lapicque(self) -> Any:
        return self.reset_mem()

    @staticmethod
    def read(entries: Mapping[str, Tensor]) -> dict[str, Value]:
        found = _Neuron.read({name: value for name, value in entries.items() if name != "beta"})
        decay = 1 - entries["time_step"] / (entries["R"] * entries["C"])
        gain = entries["time_step"] / entries["C"]
        if not bool(((decay >= 0) & (decay <= 1)).all()):
            raise NoEqualError("time_step is longer than R * C, so that the membrane changes its sign")
        return {**found, "beta": Value(decay, decay), "gain": Value(gain, gain)}


class Synaptic(_Neuron, _BareSynaptic):
    entries = _Neuron.entries | {"alpha"}

    @property
    def syn(self) -> Tensor:
        """The current that is kept; empty before the first step, as there."""
        return self._kept_or_empty("current")

    @syn.setter
    def syn(self, value: Tensor) -> None:
        kept = self._kept.state
        if kept is not None:
            self._start(NeuronState(kept.membrane, value))
        elif value.numel() and bool(value.any()):
            self._start(NeuronState(torch.zeros_like(value), value))

    def reset_mem(self) -> Any:
        self._kept.reset()
        return self.syn, self.mem

    def init_synaptic(self) -> Any:
        return self.reset_mem()

    def forward(self, input_: Tensor, syn: Tensor | None = None, mem: Tensor | None = None) -> Any:
        if self._is_passed(syn, mem):
            membrane = self.mem if mem is None else mem
            current = self.syn if syn is None else syn
            if membrane.shape == (0,) != current.shape:
                membrane = torch.zeros_like(current)
            start = NeuronState(membrane, None if current.shape == (0,) else current)
            spike, after = self._step_from(start, input_)
        else:
            spike, after = self.step(input_)
        return (spike, after.current, after.membrane) if self.returns_states else spike


# From the functions of snntorch.surrogate that make a surrogate, with what theirs captures.
_SURROGATES: dict[str, Callable[..., surrogate.Surrogate]] = {
    "fast_sigmoid": lambda slope: surrogate.FastSigmoid(float(slope)),
    "atan": lambda alpha: surrogate.ATan(float(alpha)),
    "sigmoid": lambda slope: surrogate.Sigmoid(float(slope)),
    "straight_through_estimator": surrogate.StraightThrough,
}


def surrogate_of(function: Any) -> surrogate.Surrogate:
    """The surrogate with the derivative of snnTorch's ``function``."""
    if getattr(function, "__module__", None) == "snntorch.surrogate":
        for maker, ours in _SURROGATES.items():
            found = captured(function, maker)
            if found is not None:
                return ours(**found)
    name = getattr(function, "__qualname__", repr(function)).partition(".<locals>")[0]
    raise NoEqualError(
        f"spike_grad: no surrogate has the derivative of {name}; those of {', '.join(_SURROGATES)} are known"
    )


def _options(module: Any) -> dict[str, Any]:
    """What all of them have in common; or raise where one has no equal."""
    for name in ("inhibition", "state_quant", "surrogate_disable"):
        if getattr(module, name):
            raise NoEqualError(f"{name} has no equal")
    reset = module.reset_mechanism
    options: dict[str, Any] = {"reset": reset, "strict": True, "surrogate": surrogate_of(module.spike_grad)}
    if reset != "none":
        options |= {"delay_reset": True, "detach_reset": True}
    if not getattr(module, "reset_delay", True):
        if reset == "subtract":
            raise NoEqualError(
                "reset_delay=False: a membrane above twice its threshold is reset once more at the next "
                "step; equal below that: set its reset_delay to True before"
            )
        options |= {"delay_reset": False, "detach_reset": False}
    return {**options, "bound": "clamp", "stateful": True, "detach_state": False}


def _recipe(layer: type[Converted], module: Any, options: dict[str, Any], *learnable: str) -> Recipe:
    return Recipe(
        layer=layer,
        options=options,
        values=layer.read(entries_of(module)),
        learned=parameters_in_order(module, dict(zip(learnable, learnable, strict=True))),
        calling={
            "init_hidden": module.init_hidden,
            "returns_states": bool(module.output) or not module.init_hidden,
        },
    )


def _leaky(module: Any) -> Recipe:
    return _recipe(Leaky, module, _options(module), "threshold", "beta")


_LOST = "reset_mechanism='zero': the step after a spike loses its input, because the membrane is 0 after it"


def _synaptic(module: Any) -> Recipe:
    if module.reset_mechanism == "zero":
        raise NoEqualError(_LOST)
    return _recipe(Synaptic, module, _options(module), "threshold", "beta", "alpha")


def _lapicque(module: Any) -> Recipe:
    if module.reset_mechanism == "zero":
        raise NoEqualError(_LOST)
    if isinstance(module.beta, nn.Parameter):
        raise NoEqualError("learn_beta: its beta is learned and not used, R and C are")
    recipe = _recipe(Lapicque, module, _options(module), "threshold")
    beta, gain = (recipe.values[name].used for name in ("beta", "gain"))
    if not bool(torch.isclose(gain, 1 - beta).all()):
        return recipe
    del recipe.values["gain"]
    recipe.options["decay_input"] = True
    return recipe


def _recurrent(module: Any) -> Recipe:
    raise NoEqualError(
        "its recurrent weights are not converted: lif_cuda.RecurrentLIF resets at once, not a step later"
    )


RECIPES: dict[type, Callable[[Any], Recipe]] = {
    snn.Leaky: _leaky,
    snn.Synaptic: _synaptic,
    snn.Lapicque: _lapicque,
    snn.RLeaky: _recurrent,
    snn.RSynaptic: _recurrent,
}


def replaced(old: Any, new: Converted) -> None:
    """Let snnTorch's list of its neurons name the one that is used."""
    instances = SpikingNeuron.instances
    instances[:] = [neuron for neuron in instances if neuron is not old]
    instances.append(new)
