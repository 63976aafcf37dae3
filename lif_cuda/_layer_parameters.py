"""The parameters of a layer: each a number, a buffer, or something to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import _check, decay
from ._bounds import BOUNDS, check_start
from ._check import STATE_DTYPES
from ._options import LayerChoices
from ._parameters import DECAYS, LEARNABLE, OPTIONAL, Parameters, check_scalar


class LayerParameters(nn.Module):
    """A module that keeps the parameters of its neurons.

    Attributes:
        num_neurons: the shape of a parameter that differs between neurons; (): one for all of them.
        learned: the names of those that are learned.
    """

    num_neurons: tuple[int, ...]
    learned: tuple[str, ...]
    # In use: numbers, or tensors through their bounds; None: the neuron has no such part.
    beta: float | Tensor
    threshold: float | Tensor
    v_reset: float | Tensor
    gain: float | Tensor
    alpha: float | Tensor | None
    kappa: float | Tensor | None
    rho: float | Tensor | None
    v_min: float | Tensor | None

    def __init__(
        self, num_neurons: int | Sequence[int] | None, given: Parameters, choices: LayerChoices
    ) -> None:
        super().__init__()
        self.num_neurons = _shape(num_neurons)
        self.learned = choices.learned()
        self._bounds = {
            name: choices.bound
            if name in DECAYS
            else choices.threshold_bound
            if name == "threshold"
            else None
            for name in self.learned
        }
        # Those that are numbers; a tensor's place holds None, until a call fills it.
        self._numbers = Parameters._make([None] * len(Parameters._fields))
        tensors = []
        for at, (name, value) in enumerate(given._asdict().items()):
            if value is None:
                self._check_absent(name)
            elif self._keeps_number(name, value):
                self._numbers = self._numbers._replace(**{name: check_scalar(name, value)})
            else:
                self._keep_tensor(name, value, choices)
                tensors.append(at)
        self._tensors = tuple(tensors)

    def _check_absent(self, name: str) -> None:
        if name not in OPTIONAL:
            raise TypeError(f"{name} must be a number or a tensor, got None")
        if name in self.learned:
            raise ValueError(f"learn_{name} was given without {name}; give it a value to start from")

    def _keeps_number(self, name: str, value: Any) -> bool:
        return name not in self.learned and not isinstance(value, Tensor)

    def _keep_tensor(self, name: str, value: float | Tensor, choices: LayerChoices) -> None:
        """Keep a parameter as a buffer, or as something to learn."""
        if isinstance(value, Tensor) and value.requires_grad:
            raise ValueError(
                f"{name} must be values, got a tensor that requires a gradient: a layer keeps values of its "
                f"own, and yours would not learn. Pass {name}.detach(){_to_learn(name)}"
            )
        low, high = _range(name, value)
        if name in DECAYS and not (low >= 0.0 and high <= 1.0):
            raise ValueError(f"{name} must lie in [0, 1], got values from {low:g} to {high:g}")
        values = self._initial(name, value, choices)
        dtype = choices.dtype or (values.dtype if isinstance(value, Tensor) else torch.get_default_dtype())
        if name not in self.learned:
            self.register_buffer(f"{name}_values", values.to(dtype))
            return
        bound = self._bounds[name]
        check_start(name, bound, low, high)
        stored = BOUNDS[bound].stored(values).to(dtype)
        self.register_parameter(f"{name}_{BOUNDS[bound].suffix}", nn.Parameter(stored))

    def _initial(self, name: str, value: float | Tensor, choices: LayerChoices) -> Tensor:
        """The start of a parameter: a number filled in for each neuron, or the tensor given.

        Not in 16 bits yet, in which 0.999 is 1 and has no logit.
        """
        dtype = choices.dtype
        if not isinstance(value, Tensor):
            dtype = dtype or torch.get_default_dtype()
            wide = STATE_DTYPES.get(dtype, dtype)
            return torch.full(self.num_neurons, float(value), device=choices.device, dtype=wide)
        if self.num_neurons and tuple(value.shape) not in ((), self.num_neurons):
            raise ValueError(
                f"{name} must have the shape of num_neurons, {self.num_neurons}, or none at all, "
                f"got {tuple(value.shape)}"
            )
        value = value.to(device=choices.device, dtype=STATE_DTYPES.get(dtype, dtype) if dtype else None)
        return value.expand(self.num_neurons or value.shape).clone()

    def _parameter(self, name: str) -> Any:
        """A parameter in use: a number, or a tensor through its bound; None: the neuron has no such part."""
        at = Parameters._fields.index(name)
        return self._used(at) if at in self._tensors else self._numbers[at]

    def _used(self, at: int) -> Tensor:
        name = Parameters._fields[at]
        bound = BOUNDS[self._bounds.get(name)]
        return bound.used(self._stored(f"{name}_{bound.suffix}"))

    def _stored(self, key: str) -> Tensor:
        """The parameter or buffer of this name, without a search of the class: 5 us of a small layer's 29."""
        found: Tensor | None = self._parameters.get(key)
        if found is None:
            found = self._buffers.get(key)
        if found is None:
            found = getattr(self, key)  # torch.nn.utils.parametrize and its like put it elsewhere
        return found

    def _in_use(self) -> Parameters:
        """All parameters, as a call takes them."""
        if not self._tensors:
            return self._numbers
        values: list[Any] = [*self._numbers]
        for at in self._tensors:
            values[at] = self._used(at)
        return Parameters(*values)

    def _with_number(self, name: str, value: Any) -> Parameters:
        """The numbers with one of them changed, or raise where it is none.

        Raises:
            AttributeError: the parameter is a tensor, or the neuron has no such part.
            TypeError, ValueError: the value is no number in the parameter's range.
        """
        if getattr(self._numbers, name) is None:
            if Parameters._fields.index(name) not in self._tensors:
                raise AttributeError(f"{name} cannot be set: the neuron has none; make a layer with {name}=")
            key = f"{name}_{BOUNDS[self._bounds.get(name)].suffix}"
            raise AttributeError(
                f"{name} cannot be set where it is a tensor; change its values in place, under "
                f"torch.no_grad(), in {key}"
            )
        if isinstance(value, Tensor):
            raise TypeError(
                f"{name} is a number of this layer, got a tensor; make a layer with {name}=tensor"
            )
        return self._numbers._replace(**{name: check_scalar(name, value)})


def _shape(num_neurons: Any) -> tuple[int, ...]:
    """``num_neurons`` as a shape."""
    if num_neurons is None:
        return ()
    sizes = tuple(num_neurons) if isinstance(num_neurons, Sequence) else (num_neurons,)
    try:
        sizes = tuple(_check.check_int("num_neurons", size) for size in sizes)
    except TypeError:
        raise TypeError(
            f"num_neurons must be an int, a shape of ints or None, got {num_neurons!r}"
            + (f"; write beta={num_neurons} for a decay" if _is_a_decay(num_neurons) else "")
        ) from None
    if any(size < 1 for size in sizes):
        raise ValueError(f"num_neurons must be at least 1, got {num_neurons!r}")
    return sizes


def _is_a_decay(value: object) -> bool:
    return isinstance(value, float) and 0 <= value <= 1


def _to_learn(name: str) -> str:
    """How a parameter is learned; nothing of one that is not."""
    if name not in LEARNABLE:
        return ": it is not learned"
    return f", with learn_{name}=True to have the layer learn it, or call lif_cuda.functional.lif with it"


def _range(name: str, value: float | Tensor) -> tuple[float, float]:
    """The least and the greatest value of a parameter; or raise unless it is one."""
    if not isinstance(value, Tensor):
        number = _check.check_number(name, value)
        return number, number
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating point tensor, got {value.dtype}")
    return (float(value.min()), float(value.max())) if value.numel() else (0.5, 0.5)


def beta_of(beta: float | Tensor | None, choices: LayerChoices) -> float | Tensor:
    """The membrane decay of a layer: as it is given, as a time constant, or 0.9."""
    if choices.tau is None:
        for name, value in (("dt", choices.dt), ("decay", choices.decay)):
            if value is not None:
                raise ValueError(f"{name} was given without tau, to which it belongs")
        return 0.9 if beta is None else beta
    if beta is not None:
        raise ValueError("beta and tau were given, and one follows from the other; give one of them")
    if choices.dt is None or choices.decay is None:
        raise ValueError(
            "tau needs dt, the length of a step, and decay='exp' or 'euler' beside it: tau = 2 is a beta of "
            "0.607 or of 0.5"
        )
    return decay.decay_of(choices.tau, choices.dt, choices.decay)
