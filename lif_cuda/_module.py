"""What the fused and the reference layer share: constructor, parameters, state_dict and ``step``.

A subclass names only the function that computes T steps (``_lif``), so that one layer replaces the
other by its name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from . import _check
from ._check import Output, Reset
from .surrogate import FastSigmoid, Surrogate

DEFAULT_SURROGATE = FastSigmoid(k=10.0)


def _shape(num_neurons: int | Sequence[int] | None) -> tuple[int, ...]:
    if num_neurons is None:
        return ()
    sizes = tuple(num_neurons) if isinstance(num_neurons, Sequence) else (num_neurons,)
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"num_neurons must be an int, a shape of ints or None, got {num_neurons!r}")
        if size < 1:
            raise ValueError(f"num_neurons must be at least 1, got {num_neurons!r}")
    return sizes


class LIFModule(nn.Module):
    """Base of :class:`lif_cuda.LIF` (fused) and :class:`lif_cuda.ReferenceLIF` (plain PyTorch).

    Args:
        num_neurons: features of one time step that own a parameter each: an int, or a shape for
            several axes. None: parameters are shared by all neurons.
        beta: membrane decay a step, in [0, 1], ``exp(-dt / tau)``: a number, or a tensor that
            broadcasts from the right over x without its time axis.
        threshold: membrane at which a neuron fires, in the unit of the input: a number or a tensor
            like ``beta``.
        learn_beta: make beta a parameter, stored as its logit (``beta_logit``, so that
            ``beta = sigmoid(beta_logit)`` stays inside (0, 1)), one per neuron if ``num_neurons``
            is given.
        learn_threshold: make the threshold a parameter (``threshold_values``), likewise.
        steps: the number of time steps T of a constant input (x then has no time axis). None: x
            has its time axis first, or ``steps`` is given to the call.
        return_state: return ``(out, membrane)``; False: ``out`` alone, as in ``nn.Sequential``.
        output: ``"spikes"``: [T, ...] zeros and ones in x's dtype; ``"count"``: their sum over time.
        reset: ``"subtract"``: a firing neuron's membrane is lowered by its threshold.
        detach_reset: keep the gradient from flowing through the reset.
        surrogate: the derivative that stands in for the spike's.
        device, dtype: of the parameters.

    Attributes of the state_dict: ``beta_logit`` if beta is learned, ``beta_values`` if it was given
    as a tensor; ``threshold_values`` if the threshold is learned or was given as a tensor. Numbers are
    options and are not saved.

    Raises:
        TypeError, ValueError: an option is not what is described above; the message names it.
    """

    _lif: ClassVar[Callable[..., Any]]
    beta_logit: Tensor
    beta_values: Tensor
    threshold_values: Tensor

    def __init__(
        self,
        num_neurons: int | Sequence[int] | None = None,
        beta: float | Tensor = 0.9,
        threshold: float | Tensor = 1.0,
        *,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        steps: int | None = None,
        return_state: bool = True,
        output: Output = "spikes",
        reset: Reset = "subtract",
        detach_reset: bool = False,
        surrogate: Surrogate = DEFAULT_SURROGATE,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, flag in (
            ("learn_beta", learn_beta),
            ("learn_threshold", learn_threshold),
            ("return_state", return_state),
            ("detach_reset", detach_reset),
        ):
            _check.check_flag(name, flag)
        _check.check_choice("output", output, _check.OUTPUTS)
        _check.check_choice("reset", reset, _check.RESETS)
        _check.check_surrogate(surrogate)
        self.num_neurons = _shape(num_neurons)
        self.learn_beta = learn_beta
        self.learn_threshold = learn_threshold
        self.steps = None if steps is None else _check.check_steps("steps", steps)
        self.return_state = return_state
        self.output: Output = output
        self.reset: Reset = reset
        self.detach_reset = detach_reset
        self.surrogate = surrogate

        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self._make_beta(beta, factory)
        self._make_threshold(threshold, factory)

    def _initial(self, name: str, value: float | Tensor, factory: dict[str, Any]) -> Tensor:
        """The start of a parameter: a number filled in for each neuron, or the tensor given."""
        if not isinstance(value, Tensor):
            return torch.full(self.num_neurons, _check.check_number(name, value), **factory)
        if not value.is_floating_point():
            raise TypeError(f"{name} must be a floating point tensor, got {value.dtype}")
        if self.num_neurons and tuple(value.shape) not in ((), self.num_neurons):
            raise ValueError(
                f"{name} must have the shape of num_neurons, {self.num_neurons}, or none at all, "
                f"got {tuple(value.shape)}"
            )
        value = value.detach().to(**{k: v for k, v in factory.items() if v is not None})
        return value.expand(self.num_neurons or value.shape).clone()

    def _make_beta(self, beta: float | Tensor, factory: dict[str, Any]) -> None:
        self._beta: float | None = None
        if isinstance(beta, Tensor):
            low, high = (float(beta.min()), float(beta.max())) if beta.numel() else (0.5, 0.5)
        else:
            low = high = _check.check_number("beta", beta)
        if not (low >= 0.0 and high <= 1.0):
            raise ValueError(f"beta must lie in [0, 1], got values from {low:g} to {high:g}")
        if self.learn_beta:
            if low <= 0.0 or high >= 1.0:
                raise ValueError(
                    "beta must lie inside (0, 1) to be learned, because it is stored as its logit, "
                    f"got values from {low:g} to {high:g}; start from 0.999 or so, or set "
                    "learn_beta=False"
                )
            self.beta_logit = nn.Parameter(torch.logit(self._initial("beta", beta, factory)))
        elif isinstance(beta, Tensor):
            self.register_buffer("beta_values", self._initial("beta", beta, factory))
        else:
            self._beta = float(beta)

    def _make_threshold(self, threshold: float | Tensor, factory: dict[str, Any]) -> None:
        self._threshold: float | None = None
        if self.learn_threshold:
            self.threshold_values = nn.Parameter(self._initial("threshold", threshold, factory))
        elif isinstance(threshold, Tensor):
            self.register_buffer("threshold_values", self._initial("threshold", threshold, factory))
        else:
            self._threshold = _check.check_number("threshold", threshold)

    @property
    def beta(self) -> float | Tensor:
        """The decay in use: a number, or a tensor (through the sigmoid, if learned)."""
        if self._beta is not None:
            return self._beta
        return torch.sigmoid(self.beta_logit) if self.learn_beta else self.beta_values

    @property
    def threshold(self) -> float | Tensor:
        """The threshold in use: a number or a tensor."""
        return self._threshold if self._threshold is not None else self.threshold_values

    def forward(
        self, x: Tensor, membrane: Tensor | None = None, steps: int | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Run T time steps.

        Args:
            x: input current, [T, batch..., features...]; with ``steps`` given (here or to the
                constructor) a constant input, [batch..., features...]. float32 or float64.
            membrane: state before the first step, [batch..., features...]; None: zeros.
            steps: the number of time steps of a constant input.

        Returns:
            ``(out, membrane)``: the spikes [T, batch..., features...] or their count
            [batch..., features...], and the state after the last step, ready for the next call;
            ``out`` alone if ``return_state`` is False.

        Raises:
            TypeError, ValueError: an argument has the wrong type, dtype, device or shape.
        """
        result: Tensor | tuple[Tensor, Tensor] = self._lif(
            x,
            self.beta,
            self.threshold,
            membrane,
            steps=self.steps if steps is None else steps,
            output=self.output,
            reset=self.reset,
            detach_reset=self.detach_reset,
            surrogate=self.surrogate,
            return_state=self.return_state,
        )
        return result

    def step(self, current: Tensor, membrane: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run one time step, for loops that own the time axis.

        Args:
            current: input of this step, [batch..., features...].
            membrane: state before the step; None: zeros.

        Returns:
            ``(spike, membrane)``, each of the shape of ``current``.

        Raises:
            TypeError, ValueError: as for :meth:`forward`.
        """
        spikes, membrane = self._lif(
            current,
            self.beta,
            self.threshold,
            membrane,
            steps=1,
            reset=self.reset,
            detach_reset=self.detach_reset,
            surrogate=self.surrogate,
        )
        return spikes.squeeze(0), membrane

    def extra_repr(self) -> str:
        """The options that differ between layers, for ``print(model)``."""
        parts = [str(self.num_neurons[0] if len(self.num_neurons) == 1 else self.num_neurons)]
        parts = parts if self.num_neurons else []
        parts.append("beta=learned" if self.learn_beta else f"beta={_brief(self.beta)}")
        learned = "learned" if self.learn_threshold else _brief(self.threshold)
        parts.append(f"threshold={learned}")
        if self.steps is not None:
            parts.append(f"steps={self.steps}")
        parts += [f"output={self.output!r}", f"reset={self.reset!r}"]
        if self.detach_reset:
            parts.append("detach_reset=True")
        parts.append(f"surrogate={self.surrogate}")
        return ", ".join(parts)


def _brief(value: float | Tensor) -> str:
    return f"tensor{tuple(value.shape)}" if isinstance(value, Tensor) else f"{value:g}"
