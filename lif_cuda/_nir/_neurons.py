"""A layer as a node of NIR, and back.

NIR's neuron is ``tau dv/dt = (v_leak - v) + r I``; an Euler step of it is a layer with
``beta = 1 - dt / tau`` and ``gain = r * dt / tau``, and for a synaptic current ``w_in = tau_syn / dt``.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from ..decay import decay_of
from ..layers import LI, LIF
from ..surrogate import Surrogate

_Array = Any  # numpy's arrays; the package does not need numpy itself

# What NIR's neurons do where an option of ours may differ, and the prefix of a note in a node's metadata.
_SAID: dict[str, Any] = {"reset": "zero", "delay_reset": False, "strict": True, "refractory": 0}
_NOTE = "lif_cuda."


def node_of(layer: LIF, features: tuple[int, ...], channel: int | None, dt: float, note: bool) -> Any:
    """The node of a layer.

    Args:
        features: the shape of one step of one sample.
        channel: the axis of ``features`` along which one-dimensional parameters lie; None: the last.
        dt: the length of a step.
        note: put what NIR cannot say into the metadata; False: raise.

    Raises:
        ValueError: NIR cannot say what the layer does.
    """
    options = layer.options
    integrates = options.reset == "none" and options.output in ("trace", "trace_before_reset")
    unsaid = _unsaid(layer, integrates)
    if unsaid and not note:
        text = ", ".join(f"{name}={value!r}" for name, value in unsaid.items())
        raise ValueError(
            f"NIR cannot say {text}: its neurons reset to v_reset at once and fire above their threshold; "
            "with unsaid='note' it is noted in the node's metadata"
        )
    say = _Say(layer, features, channel)
    beta, gain = say("beta"), say("gain")
    if options.decay_input:
        gain = 1 - beta
    metadata: dict[str, Any] = {_NOTE + name: value for name, value in unsaid.items()}
    kind: dict[str, Any] = {"metadata": metadata}
    if not integrates:
        kind |= {"v_threshold": say("threshold"), "v_reset": say("v_reset")}
    if bool((beta == 1).all()):
        if layer.alpha is not None:
            raise ValueError("NIR has no neuron with a synaptic current (alpha) and without a leak (beta=1)")
        return (nir.I if integrates else nir.IF)(r=gain / dt, **kind)
    if bool((beta == 1).any()):
        raise ValueError("beta is 1 in some neurons and not in others, and NIR has them in different nodes")
    tau, rest = dt / (1 - beta), np.full(features, options.rest)
    kind |= {"r": gain / (1 - beta), "v_leak": rest}
    if layer.alpha is None:
        return (nir.LI if integrates else nir.LIF)(tau=tau, **kind)
    alpha = say("alpha")
    if bool((alpha == 1).any()):
        raise ValueError("alpha must be below 1: NIR has no current that does not decay")
    kind |= {"tau_mem": tau, "tau_syn": dt / (1 - alpha), "w_in": 1 / (1 - alpha)}
    return (nir.CubaLI if integrates else nir.CubaLIF)(**kind)


def _unsaid(layer: LIF, integrates: bool) -> dict[str, Any]:
    """What NIR's neuron does not do, in words of ours; or raise where nothing could read a note of it."""
    options = layer.options
    if layer.kappa is not None:
        raise ValueError("NIR cannot say kappa and rho: it has no adaptive threshold")
    if not integrates and options.output != "spikes":
        raise ValueError(
            f"NIR cannot say output={options.output!r}: its neurons give spikes; or, without a reset, their "
            "membrane (reset='none', output='trace')"
        )
    if isinstance(layer.v_min, Tensor):
        raise ValueError("NIR cannot say v_min, nor is there room for one of each neuron in a note")
    floor = {} if layer.v_min is None else {"v_min": layer.v_min}
    if integrates:
        return floor
    others = {name: getattr(options, name) for name, said in _SAID.items() if getattr(options, name) != said}
    return others | floor


class _Say:
    """A parameter of a layer as NIR has it: float64, of the shape of one step."""

    def __init__(self, layer: LIF, features: tuple[int, ...], channel: int | None) -> None:
        self.layer, self.features, self.channel = layer, features, channel

    def __call__(self, name: str) -> _Array:
        value = getattr(self.layer, name)
        if not isinstance(value, Tensor):
            return np.full(self.features, float(value))
        value = value.detach().double().cpu()
        if self.channel is not None and value.dim() == 1:
            value = value.view(-1, *(1,) * (len(self.features) - self.channel - 1))
        while value.dim() > len(self.features) and value.shape[0] == 1:
            value = value.squeeze(0)
        return value.expand(self.features).contiguous().numpy()


def layer_of(node: Any, dt: float, decay: str, surrogate: Surrogate) -> LIF:
    """The layer of a node.

    Raises:
        ValueError: no layer does what the node says.
    """
    integrates = isinstance(node, nir.I | nir.LI | nir.CubaLI)
    kind: type[LIF] = LI if integrates else LIF
    options: dict[str, Any] = {"surrogate": surrogate, "return_state": False, **_SAID}
    values: dict[str, Any] = {}
    noted = _noted(node)
    if integrates:
        options = {"return_state": False, **noted}
    else:
        options |= noted
        values["threshold"] = _value(node.v_threshold)
        if options["reset"] == "zero":
            values["v_reset"] = _value(node.v_reset)
        if options["delay_reset"]:
            options["detach_reset"] = True
    if isinstance(node, nir.I | nir.IF):
        values |= {"beta": 1.0, "gain": _value(dt * np.asarray(node.r))}
        return kind(**_single(values), **options)
    tau = _value(node.tau_mem if hasattr(node, "tau_mem") else node.tau)
    values["beta"] = decay_of(tau, dt, decay)
    r = _value(node.r)
    leak = 1 - values["beta"]
    if hasattr(node, "tau_syn"):
        tau_syn = _value(node.tau_syn)
        values["alpha"] = decay_of(tau_syn, dt, decay)
        r = r * (_value(node.w_in) * (1 - values["alpha"]))
    if not isinstance(r, Tensor) and abs(r - 1) < 1e-6:
        options["decay_input"] = True
    else:
        values["gain"] = r * leak
        if not isinstance(values["gain"], Tensor) and abs(values["gain"] - 1) < 1e-6:
            values["gain"] = 1.0
    rest = _value(node.v_leak)
    if isinstance(rest, Tensor):
        raise ValueError(
            "v_leak differs between neurons, and rest is one number here; shift the input instead"
        )
    return kind(**_single(values), **options, rest=rest)


def _single(values: dict[str, Any]) -> dict[str, Any]:
    """What was computed in float64 in the dtype of a layer's parameters."""
    dtype = torch.get_default_dtype()
    return {name: value.to(dtype) if isinstance(value, Tensor) else value for name, value in values.items()}


def _value(array: _Array) -> float | Tensor:
    """A parameter: a number where it is the same for all neurons."""
    values = np.asarray(array, dtype=np.float64)
    if values.size == 0:
        raise ValueError("a parameter of the node is empty")
    if bool((values == values.flat[0]).all()):
        return float(values.flat[0])
    return torch.from_numpy(values.copy())


def _noted(node: Any) -> dict[str, Any]:
    """What :func:`node_of` noted in a node's metadata."""
    found: dict[str, Any] = {}
    for key, value in (node.metadata or {}).items():
        name = str(key).removeprefix(_NOTE)
        if str(key) == name:
            continue  # someone else's
        text = value.decode() if isinstance(value, bytes) else value
        if name == "v_min":
            found[name] = float(text)
        elif name in _SAID:
            found[name] = type(_SAID[name])(text)
        else:
            raise ValueError(f"metadata has {key}, which nothing here is made of")
    return found
