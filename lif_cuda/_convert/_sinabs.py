"""sinabs' neurons: ``LIF``, ``IAF`` and ``ExpLeak``, and those of them whose names end in ``Squeeze``.

The layers are ``StatefulLayer`` as well, because ``sinabs.reset_states`` and the like ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from sinabs import activation, layers
from sinabs.layers.stateful_layer import StatefulLayer
from torch import Tensor, nn

from .. import surrogate
from .._kept_state import detached
from ..functional import SILENT
from ..layers import LIF
from ._layer import Converted, NoEqualError, Recipe, Value, entries_of, parameters_in_order, tensor


class _BareLayer(StatefulLayer):
    __init__ = nn.Module.__init__


class Layer(Converted, _BareLayer):
    """Batch first, spikes alone; the state is kept until ``reset_states``."""

    entries = frozenset({"tau_mem", "alpha_mem", "spike_threshold", "v_mem", "min_v_mem"})
    # StatefulLayer has its own, for its own constructors.
    __deepcopy__ = None
    __repr__ = nn.Module.__repr__

    def forward(self, input_data: Tensor) -> Any:
        return LIF.forward(self, input_data)

    @property
    def v_mem(self) -> Tensor:
        """The membrane that is kept; empty before the first call, as there."""
        state = self._kept.state
        return torch.zeros(0) if state is None else state.membrane

    @property
    def does_spike(self) -> bool:
        return self.options.output == "spikes"

    def is_state_initialised(self) -> bool:
        return self._kept.state is not None

    def reset_states(self, randomize: bool = False, value_ranges: Any = None) -> None:
        """Forget the state."""
        if randomize:
            raise NotImplementedError("randomize is not for a layer of lif_cuda; give reset_state() a tensor")
        self._kept.reset()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As of any module; and cut the state off from its history."""
        nn.Module.zero_grad(self, set_to_none)
        if self._kept.state is not None:
            self._kept.reset(detached(self._kept.state))

    @staticmethod
    def read(entries: Mapping[str, Tensor]) -> dict[str, Value]:
        found = {}
        if "tau_mem" in entries:
            tau = entries["tau_mem"].detach()
            # logit(exp(-1 / tau)), without the difference of two numbers near 1
            logit = -1 / tau - torch.log(-torch.expm1(-1 / tau))
            found["beta"] = Value(torch.exp(-1 / tau), logit)
        if "alpha_mem" in entries:
            found["beta"] = Value(entries["alpha_mem"].clamp(0, 1), entries["alpha_mem"])
        if "spike_threshold" in entries:
            found["threshold"] = Value(entries["spike_threshold"], entries["spike_threshold"])
        if "min_v_mem" in entries:
            found["v_min"] = Value(entries["min_v_mem"], entries["min_v_mem"])
        return found


class SqueezedLayer(Layer):
    """The same of [batch * time, ...]."""

    batch_size = -1
    num_timesteps = -1

    def forward(self, input_data: Tensor) -> Any:
        series = input_data.unflatten(0, (self.batch_size, self.num_timesteps))
        return LIF.forward(self, series).flatten(0, 1)


def surrogate_of(function: Any, threshold: float) -> surrogate.Surrogate:
    """The surrogate with the derivative of sinabs' ``function`` at this threshold."""
    if type(function) is activation.SingleExponential:
        width = threshold * function.grad_width
        return surrogate.PiecewiseExp(1 / width, scale=function.grad_scale / width)
    if type(function) is activation.Gaussian and function.mu == 0.0:
        sigma = function.sigma
        scale = function.grad_scale / (sigma * (2 * math.pi) ** 0.5)
        return surrogate.Gaussian(1 / (sigma * 2**0.5), scale=scale)
    raise NoEqualError(
        f"surrogate_grad_fn: no surrogate has the derivative of {function!r}; those of SingleExponential and "
        "of Gaussian with mu=0 are known"
    )


def _reset(module: Any, threshold: float) -> dict[str, Any]:
    """How it resets, in our options."""
    function = module.reset_fn
    if type(function) is activation.MembraneSubtract and function.subtract_value in (None, threshold):
        return {"reset": "subtract"}
    if type(function) is activation.MembraneReset and function.reset_value == 0.0:
        return {"reset": "zero", "detach_reset": True}
    raise NoEqualError(f"reset_fn: {function!r} has no equal; MembraneSubtract() and MembraneReset() have")


def _fires(module: Any) -> dict[str, Any]:
    """How it fires, in our options."""
    if module.spike_fn is activation.MultiSpike:
        raise NoEqualError(
            "spike_fn: MultiSpike, its default, fires as often in a step as the threshold fits into the "
            "membrane; equal below twice the threshold: set spike_fn to sinabs.activation.SingleSpike before"
        )
    if module.spike_fn is not activation.SingleSpike:
        raise NoEqualError(f"spike_fn: {module.spike_fn!r} has no equal; SingleSpike has")
    if module.spike_threshold.numel() != 1:
        raise NoEqualError("spike_threshold differs between neurons, and its surrogate with it")
    threshold = float(module.spike_threshold)
    return {**_reset(module, threshold), "surrogate": surrogate_of(module.surrogate_grad_fn, threshold)}


def _recipe(module: Any) -> Recipe:
    for name, remedy in (
        ("tau_syn", "a layer of lif_cuda has alpha"),
        ("alpha_syn", "a layer of lif_cuda has alpha"),
        ("record_states", "ask a layer of lif_cuda for output=('spikes', 'trace')"),
    ):
        value = getattr(module, name, None)
        if value is not None and value is not False:
            raise NoEqualError(f"{name} has no equal; {remedy}")
    integrates = module.spike_fn is None
    floor = getattr(module, "min_v_mem", None)
    if floor is not None and (floor.numel() != 1 or floor.requires_grad):
        raise NoEqualError("min_v_mem differs between neurons, or learns, and is one number here")
    silent = {"reset": "none", "output": "trace", "surrogate": SILENT}
    options: dict[str, Any] = silent if integrates else _fires(module)
    options |= {
        "decay_input": module.norm_input,
        "bound": "clamp" if module.train_alphas else "sigmoid",
        "time_dim": 1,
        "return_state": False,
        "stateful": True,
        "detach_state": False,
    }
    values = Layer.read(entries_of(module))
    values.setdefault("beta", Value(tensor(1.0), tensor(1.0)))  # IAF does not leak
    calling = {}
    squeezed = hasattr(module, "num_timesteps")
    if squeezed:
        calling = {"batch_size": module.batch_size, "num_timesteps": module.num_timesteps}
    names = {"tau_mem": "beta", "alpha_mem": "beta", "spike_threshold": "threshold"}
    return Recipe(
        layer=SqueezedLayer if squeezed else Layer,
        options=options,
        values=values,
        learned=parameters_in_order(module, names),
        calling=calling,
    )


RECIPES: dict[type, Callable[[Any], Recipe]] = {
    kind: _recipe
    for kind in (
        layers.LIF,
        layers.IAF,
        layers.ExpLeak,
        layers.LIFSqueeze,
        layers.IAFSqueeze,
        layers.ExpLeakSqueeze,
    )
}
