"""What the fused and the reference layer share: constructor, parameters, state and ``step``.

A subclass names only the function that computes T steps (``_lif``), so that one layer replaces the
other by its name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from . import _check, decay
from ._check import CallOptions, NeuronState, Output, Parameters, Reset, Save, Settled
from .surrogate import FastSigmoid, Surrogate

DEFAULT_SURROGATE = FastSigmoid(k=10.0)

Bound = Literal["sigmoid", "clamp"]
# The parameters that have to stay in [0, 1].
_DECAYS = ("beta", "alpha", "rho")


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


def _backward_is_running() -> bool:
    """Whether this call is part of a backward pass: a recomputation under activation checkpointing.

    torch.compile cannot ask and breaks its graph here; it need not where there are no gradients, and so no
    recomputations.
    """
    if torch.compiler.is_compiling() and not torch.is_grad_enabled():
        return False
    return bool(torch._C._current_graph_task_id() != -1)


class LIFModule(nn.Module):
    """Base of :class:`lif_cuda.LIF` (fused) and :class:`lif_cuda.ReferenceLIF` (plain PyTorch).

    Args:
        num_neurons: features of one time step that own a parameter each: an int, or a shape for
            several axes. None: parameters are shared by all neurons. With ``channel_dim`` the number
            of channels.
        beta: membrane decay a step, in [0, 1]: a number, or a tensor that broadcasts from the right over x
            without its time axis; None: 0.9, or what ``tau`` says.
        threshold: membrane at which a neuron fires, in the unit of the input: a number or a tensor
            like ``beta``, as are all parameters below.
        learn_beta, learn_threshold, learn_v_reset, learn_gain, learn_alpha, learn_kappa, learn_rho: make
            that a parameter, one per neuron if ``num_neurons`` is given.
        tau, dt, decay: the time constant in place of ``beta``, the length of a step in its unit, and
            ``"exp"`` or ``"euler"``: see :func:`lif_cuda.decay_of`.
        bound: how the decays beta, alpha and rho stay in [0, 1] when they are learned. ``"sigmoid"``: stored
            as their logit (``beta_logit``), so that they stay inside (0, 1); ``"clamp"``: stored as they are
            and clamped when used, without a gradient outside, as in snnTorch.
        steps: the number of time steps T of a constant input (x then has no time axis). None: x
            has a time axis, or ``steps`` is given to the call.
        time_dim: the time axis of x and of outputs with one.
        channel_dim: the axis of x, as it is passed to the layer, along which one-dimensional parameters lie.
        return_state: return ``(out, membrane)``; False: ``out`` alone, as in ``nn.Sequential``.
        output: ``"spikes"``, ``"count"``, ``"rate"``, ``"first_spike"``, ``"trace"``,
            ``"trace_before_reset"``, ``"total"``, or a tuple of them: see :func:`lif_cuda.functional.lif`,
            as for ``save`` and the neuron options ``reset``, ``v_reset``, ``delay_reset``,
            ``detach_reset``, ``strict``, ``gain``, ``decay_input``, ``rest``, ``alpha``, ``kappa``, ``rho``,
            ``refractory`` and ``surrogate``.
        stateful: keep the state from one call to the next, until :meth:`reset_state`. The state moves with
            ``.to()``. Under activation checkpointing a recomputation does not advance it.
        detach_state: keep gradients from flowing from one call into the one before (truncated BPTT).
        save_state: let the state be part of the state_dict.
        device, dtype: of the parameters.

    Attributes of the state_dict: ``NAME_logit`` for a learned decay through a sigmoid, else ``NAME_values``
    for a parameter that is learned or was given as a tensor; with ``save_state`` the state. Numbers are
    options and are not saved.

    Raises:
        TypeError, ValueError: an option is not what is described above; the message names it.
    """

    _lif: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        num_neurons: int | Sequence[int] | None = None,
        beta: float | Tensor | None = None,
        threshold: float | Tensor = 1.0,
        *,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        tau: float | Tensor | None = None,
        dt: float | None = None,
        decay: str | None = None,
        bound: Bound = "sigmoid",
        steps: int | None = None,
        time_dim: int = 0,
        channel_dim: int | None = None,
        return_state: bool = True,
        save: Save = "input",
        output: Output = "spikes",
        reset: Reset = "subtract",
        v_reset: float | Tensor = 0.0,
        learn_v_reset: bool = False,
        delay_reset: bool = False,
        detach_reset: bool = False,
        strict: bool = False,
        gain: float | Tensor = 1.0,
        learn_gain: bool = False,
        decay_input: bool = False,
        rest: float = 0.0,
        alpha: float | Tensor | None = None,
        learn_alpha: bool = False,
        kappa: float | Tensor | None = None,
        learn_kappa: bool = False,
        rho: float | Tensor | None = None,
        learn_rho: bool = False,
        refractory: int = 0,
        surrogate: Surrogate = DEFAULT_SURROGATE,
        stateful: bool = False,
        detach_state: bool = True,
        save_state: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        learned = {
            "beta": learn_beta,
            "threshold": learn_threshold,
            "v_reset": learn_v_reset,
            "gain": learn_gain,
            "alpha": learn_alpha,
            "kappa": learn_kappa,
            "rho": learn_rho,
        }
        for name, flag in (
            *((f"learn_{name}", flag) for name, flag in learned.items()),
            ("stateful", stateful),
            ("detach_state", detach_state),
            ("save_state", save_state),
        ):
            _check.check_flag(name, flag)
        _check.check_choice("bound", bound, ("sigmoid", "clamp"))
        self.options = CallOptions(
            steps,
            time_dim,
            channel_dim,
            output,
            reset,
            delay_reset,
            detach_reset,
            strict,
            decay_input,
            rest,
            refractory,
            surrogate,
            return_state,
            save,
        )
        _check.check_options(self.options)
        if isinstance(output, tuple):
            _check.outputs_type(output)  # torch.compile would make one of its own
        given = Parameters(_beta(beta, tau, dt, decay), threshold, v_reset, gain, alpha, kappa, rho)
        _check.check_pairs(self.options, given)
        if learn_v_reset and reset != "zero":
            raise ValueError(f"learn_v_reset needs reset='zero', and reset is {reset!r}")
        for name, flag in (("learn_beta", learn_beta), ("learn_gain", learn_gain)):
            if flag and save == "bits":
                raise ValueError(
                    f"{name} must be False with save='bits', which keeps neither x nor the membrane; use "
                    "save='input'"
                )
        if learn_gain and decay_input:
            raise ValueError("learn_gain must be False with decay_input, which makes the gain 1 - beta")
        self.num_neurons = _shape(num_neurons)
        self.bound: Bound = bound
        self.learned = tuple(name for name, flag in learned.items() if flag)
        self.stateful = stateful
        self.detach_state = detach_state
        self.save_state = save_state

        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self._numbers: dict[str, float | None] = {}
        for name, value in given._asdict().items():
            self._make(name, value, factory)
        names = Parameters._fields
        self._tensors = tuple(i for i, name in enumerate(names) if name not in self._numbers)
        # A tensor's place holds None, until a call fills it.
        self._constants = Parameters._make([self._numbers.get(name) for name in names])
        # The surrogates of this package do not change; one of a user's own may.
        for_good = type(surrogate).__module__ == Surrogate.__module__
        self._settled = Settled(self.options, self._tensors, for_good)
        # For recomputations: the state before the last call, and the calls since the last recomputation; 2
        # stands for more, since torch.compile makes code for each number.
        self._before: NeuronState | None = None
        self._calls = 0
        self._recomputed = False
        for name in self._states() if stateful else ():
            self.register_buffer(f"state_{name}", None, persistent=save_state)

    # Parameters.

    def _make(self, name: str, value: float | Tensor | None, factory: dict[str, Any]) -> None:
        """Keep a parameter as a number, a buffer or something to learn."""
        learn = name in self.learned
        if value is None:
            if name not in ("alpha", "kappa", "rho"):
                raise TypeError(f"{name} must be a number or a tensor, got None")
            if learn:
                raise ValueError(f"learn_{name} was given without {name}; give it a value to start from")
            self._numbers[name] = None
            return
        low, high = _range(name, value)
        if name in _DECAYS and not (low >= 0.0 and high <= 1.0):
            raise ValueError(f"{name} must lie in [0, 1], got values from {low:g} to {high:g}")
        if not learn:
            if isinstance(value, Tensor):
                self.register_buffer(f"{name}_values", self._initial(name, value, factory))
            else:
                self._numbers[name] = float(value)
            return
        if name in _DECAYS and self.bound == "sigmoid":
            if low <= 0.0 or high >= 1.0:
                raise ValueError(
                    f"{name} must lie inside (0, 1) to be learned, because it is stored as its logit, "
                    f"got values from {low:g} to {high:g}; start from 0.999 or so, set bound='clamp', "
                    f"or learn_{name}=False"
                )
            logit = torch.logit(self._initial(name, value, factory))
            self.register_parameter(f"{name}_logit", nn.Parameter(logit))
        else:
            values = self._initial(name, value, factory)
            self.register_parameter(f"{name}_values", nn.Parameter(values))

    def _initial(self, name: str, value: float | Tensor, factory: dict[str, Any]) -> Tensor:
        """The start of a parameter: a number filled in for each neuron, or the tensor given."""
        if not isinstance(value, Tensor):
            return torch.full(self.num_neurons, value, **factory)
        if self.num_neurons and tuple(value.shape) not in ((), self.num_neurons):
            raise ValueError(
                f"{name} must have the shape of num_neurons, {self.num_neurons}, or none at all, "
                f"got {tuple(value.shape)}"
            )
        value = value.detach().to(**{k: v for k, v in factory.items() if v is not None})
        return value.expand(self.num_neurons or value.shape).clone()

    def _parameter(self, name: str) -> float | Tensor | None:
        if name in self._numbers:
            return self._numbers[name]
        if name in _DECAYS and name in self.learned:
            if self.bound == "sigmoid":
                return torch.sigmoid(self._stored(f"{name}_logit"))
            return torch.clamp(self._stored(f"{name}_values"), 0, 1)
        return self._stored(f"{name}_values")

    def _stored(self, name: str) -> Tensor:
        """The parameter or buffer of this name, without a search of the class: 5 us of a small layer's 29."""
        found: Tensor | None = self._parameters.get(name)
        if found is None:
            found = self._buffers.get(name)
        if found is None:
            found = getattr(self, name)  # torch.nn.utils.parametrize and its like put it elsewhere
        return found

    @property
    def beta(self) -> float | Tensor:
        """The membrane decay in use: a number, or a tensor (through its bound, if learned)."""
        return self._parameter("beta")  # type: ignore[return-value]

    @property
    def threshold(self) -> float | Tensor:
        """The threshold in use: a number or a tensor."""
        return self._parameter("threshold")  # type: ignore[return-value]

    @property
    def v_reset(self) -> float | Tensor:
        """The membrane after a reset to "zero": a number or a tensor."""
        return self._parameter("v_reset")  # type: ignore[return-value]

    @property
    def gain(self) -> float | Tensor:
        """The factor of the input: a number or a tensor."""
        return self._parameter("gain")  # type: ignore[return-value]

    @property
    def alpha(self) -> float | Tensor | None:
        """The decay of the synaptic current: a number or a tensor; None without such a current."""
        return self._parameter("alpha")

    @property
    def kappa(self) -> float | Tensor | None:
        """The strength of the threshold's adaptation: a number or a tensor; None without one."""
        return self._parameter("kappa")

    @property
    def rho(self) -> float | Tensor | None:
        """The decay of the threshold's adaptation: a number or a tensor; None without one."""
        return self._parameter("rho")

    @property
    def learn_beta(self) -> bool:
        """Whether the membrane decay is learned."""
        return "beta" in self.learned

    # State.

    def _states(self) -> tuple[str, ...]:
        return _check.state_names(self.options, Parameters(*map(self._presence, Parameters._fields)))

    def _presence(self, name: str) -> Any:
        """Something that is None where the neuron has no such parameter, at no cost."""
        return self._numbers.get(name, 0.0)

    @property
    def state(self) -> Tensor | NeuronState | None:
        """The state that a stateful layer keeps, as a call returns it; None before its first call."""
        kept = self._kept()
        return kept.membrane if kept is not None and len(self._states()) == 1 else kept

    def _kept(self) -> NeuronState | None:
        if not self.stateful or self.state_membrane is None:
            return None
        return NeuronState(**{name: getattr(self, f"state_{name}") for name in self._states()})

    def reset_state(self, state: Tensor | NeuronState | None = None) -> None:
        """Forget the state of a stateful layer, or start from ``state`` (as a call returns it).

        Raises:
            RuntimeError: the layer is not stateful.
        """
        if not self.stateful:
            raise RuntimeError("reset_state is for layers with stateful=True; this one keeps no state")
        self._forget()
        self._keep(NeuronState(state) if isinstance(state, Tensor) else state)

    def _forget(self) -> None:
        """Forget the calls so far, which a recomputation would go back to."""
        self._before = None
        self._calls = 0

    def _keep(self, state: NeuronState | None) -> None:
        for name in self._states():
            value = None if state is None else getattr(state, name)
            if self.detach_state and value is not None:
                value = value.detach()
            setattr(self, f"state_{name}", value)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A buffer that holds nothing yet has no shape to load into.
        if self.stateful and self.save_state:
            self._forget()
            for name in self._states():
                saved = state_dict.get(f"{prefix}state_{name}")
                if saved is None:
                    setattr(self, f"state_{name}", None)
                else:
                    like = next(iter((*self.parameters(), *self.buffers())), saved)
                    setattr(self, f"state_{name}", torch.empty_like(saved, device=like.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _advance(self, x: Tensor, membrane: Tensor | NeuronState | None, settled: Settled) -> Any:
        """Call the neuron, from the state that a stateful layer keeps to the one that it keeps then."""
        if not self.stateful:
            return self._call(x, membrane, settled)
        if membrane is not None:
            raise ValueError(
                "membrane must be None for a stateful layer, which keeps its own; start it from a state "
                "with reset_state(membrane)"
            )
        recomputed = _backward_is_running()
        if recomputed and self._calls > 1:
            raise RuntimeError(
                "a stateful layer is recomputed under activation checkpointing after several calls, and only "
                "the state before the last one is known; call backward after each, call reset_state() after "
                "calls without a backward pass, or pass the state through the call: stateful=False"
            )
        start = self._before if recomputed else self._kept()
        if isinstance(x, Tensor) and start is not None:
            start = self._ready(start, x, settled.options)
        given = start.membrane if start is not None and len(self._states()) == 1 else start
        # Before the call: a recomputation is left in its midst, as soon as all that was saved is there again.
        after_backward, self._recomputed = self._recomputed, recomputed
        out, final = self._call(x, given, settled.but(return_state=True))
        if not recomputed:
            self._before = start
            counts = self.training or torch.is_grad_enabled()
            self._calls = min((0 if after_backward else self._calls) + counts, 2)
            self._keep(NeuronState(final) if isinstance(final, Tensor) else final)
        return (out, final) if settled.options.return_state else out

    def _ready(self, state: NeuronState, x: Tensor, options: CallOptions) -> NeuronState:
        """The kept state as the neuron takes it for this x, or raise if it is of another shape."""
        time_dim = options.time_dim % (x.dim() + (options.steps is not None)) if x.dim() else 0
        features = x.shape
        if options.steps is None:
            features = x.shape[:time_dim] + x.shape[time_dim + 1 :]
        if state.membrane.shape != features:
            raise ValueError(
                f"x has {tuple(features)} neurons, and the layer keeps the state of "
                f"{tuple(state.membrane.shape)}; call reset_state() before another batch size"
            )
        dtype = _check.STATE_DTYPES.get(x.dtype, x.dtype)
        ready = NeuronState._make(None if tensor is None else tensor.to(dtype) for tensor in state)
        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
            return ready
        if state.membrane.is_inference():
            # Made in inference mode, from which autograd takes nothing but copies.
            return NeuronState._make(None if tensor is None else tensor.clone() for tensor in ready)
        return ready

    # Calls.

    def _own(self) -> Settled:
        """The layer's own options, which somebody may have changed."""
        if self._settled.options is not self.options:
            self._settled = Settled(self.options, self._tensors, self._settled.for_good)
        return self._settled

    def _call(self, x: Tensor, membrane: Tensor | NeuronState | None, settled: Settled) -> Any:
        parameters = self._constants
        if self._tensors:
            values: list[Any] = [*parameters]
            for i in self._tensors:
                values[i] = self._parameter(Parameters._fields[i])
            parameters = Parameters(*values)
        return self._lif(x, parameters, membrane, settled.options, settled if settled.for_good else None)

    def forward(
        self, x: Tensor, membrane: Tensor | NeuronState | None = None, steps: int | None = None
    ) -> Any:
        """Run T time steps.

        Args:
            x: input current, [T, batch..., features...] with its time axis at ``time_dim``; with ``steps``
                given (here or to the constructor) a constant input, [batch..., features...]. float32,
                float64, float16 or bfloat16.
            membrane: state before the first step, [batch..., features...], for neurons with more state a
                :class:`lif_cuda.NeuronState`; None: zeros. A stateful layer takes none.
            steps: the number of time steps of a constant input.

        Returns:
            ``(out, membrane)``: the output (see :func:`lif_cuda.functional.lif`) and the state after the
            last step, ready for the next call; ``out`` alone if ``return_state`` is False.

        Raises:
            TypeError, ValueError: an argument has the wrong type, dtype, device or shape.
        """
        settled = self._own()
        return self._advance(x, membrane, settled if steps is None else settled.but(steps=steps))

    def step(self, current: Tensor, membrane: Tensor | NeuronState | None = None) -> Any:
        """Run one time step, for loops that own the time axis.

        Args:
            current: input of this step, [batch..., features...].
            membrane: state before the step; None: zeros. A stateful layer takes none.

        Returns:
            ``(spike, membrane)``; the spike is of the shape of ``current``.

        Raises:
            TypeError, ValueError: as for :meth:`forward`.
        """
        settled = self._own()
        options = settled.options
        channel_dim = options.channel_dim
        if channel_dim is not None and options.steps is None and isinstance(current, Tensor):
            # It counts the axes of an x with a time axis.
            axes = current.dim() + 1
            channel_dim = channel_dim % axes
            channel_dim -= channel_dim > options.time_dim % axes
        spikes, state = self._advance(
            current,
            membrane,
            settled.but(steps=1, time_dim=0, channel_dim=channel_dim, output="spikes", return_state=True),
        )
        return spikes.squeeze(0), state

    def extra_repr(self) -> str:
        """The options that differ between layers, for ``print(model)``."""
        parts = [str(self.num_neurons[0] if len(self.num_neurons) == 1 else self.num_neurons)]
        parts = parts if self.num_neurons else []
        for name in Parameters._fields:
            value = "learned" if name in self.learned else self._brief(name)
            if name in ("beta", "threshold") or value not in _UNSAID[name]:
                parts.append(f"{name}={value}")
        parts += [f"output={self.options.output!r}", f"reset={self.options.reset!r}"]
        for name, option in self.options._asdict().items():
            if name not in ("output", "reset", "surrogate") and option != _DEFAULTS[name]:
                parts.append(f"{name}={option!r}")
        if self.stateful:
            parts.append("stateful=True")
        parts.append(f"surrogate={self.options.surrogate}")
        return ", ".join(parts)

    def _brief(self, name: str) -> str:
        value = self._parameter(name)
        return f"tensor{tuple(value.shape)}" if isinstance(value, Tensor) else str(value)

    def __getattr__(self, name: str) -> Any:
        # The options, each by its name.
        options = self.__dict__.get("options")
        if options is not None and name in CallOptions._fields:
            return getattr(options, name)
        return super().__getattr__(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *CallOptions._fields]


# Values that extra_repr leaves out.
_UNSAID = {
    "v_reset": ("0.0",),
    "gain": ("1.0",),
    "alpha": ("None",),
    "kappa": ("None",),
    "rho": ("None",),
}
_DEFAULTS: dict[str, Any] = {
    "steps": None,
    "time_dim": 0,
    "channel_dim": None,
    "delay_reset": False,
    "detach_reset": False,
    "strict": False,
    "decay_input": False,
    "rest": 0.0,
    "refractory": 0,
    "return_state": True,
    "save": "input",
}


def _beta(
    beta: float | Tensor | None, tau: float | Tensor | None, dt: float | None, kind: str | None
) -> float | Tensor:
    """The decay that is given as it is, or as a time constant."""
    if tau is None:
        for name, value in (("dt", dt), ("decay", kind)):
            if value is not None:
                raise ValueError(f"{name} was given without tau, to which it belongs")
        return 0.9 if beta is None else beta
    if beta is not None:
        raise ValueError("beta and tau were given, and one follows from the other; give one of them")
    if dt is None or kind is None:
        raise ValueError(
            "tau needs dt, the length of a step, and decay='exp' or 'euler' beside it: tau = 2 is a beta of "
            "0.607 or of 0.5"
        )
    return decay.decay_of(tau, dt, kind)


def _range(name: str, value: float | Tensor) -> tuple[float, float]:
    """The least and the greatest value of a parameter; or raise unless it is one."""
    if not isinstance(value, Tensor):
        number = _check.check_number(name, value)
        return number, number
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating point tensor, got {value.dtype}")
    return (float(value.min()), float(value.max())) if value.numel() else (0.5, 0.5)
