"""What the fused and the reference layer share: constructor, parameters, state and ``step``.

A subclass names only the function that computes T steps (``_lif``), so that one layer replaces the
other by its name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, Unpack

from torch import Tensor, nn

from . import _agreement, _check, _saved, _words
from ._kept_state import KeptState, checked_start, detached
from ._layer_parameters import LayerParameters, beta_of
from ._options import LAYER_FLAGS, CallOptions, LayerChoices, LayerOptions, of_layer
from ._outputs import OutputName, outputs_type
from ._parameters import Parameters
from ._settled import Settled
from ._signature import layer_constructor
from ._state import NeuronState, RecurrentState, State, state_names
from .surrogate import Surrogate


class LIFModule(LayerParameters):
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
            and clamped when used, without a gradient outside, as in snnTorch. In a module of 16 bits the
            logit of 0.999 can be stored, and 0.999 itself cannot: bfloat16 has none between 0.996 and 1.
        threshold_bound: how a learned threshold stays above 0, below which a neuron fires for ever.
            ``"exp"``: stored as its logarithm (``threshold_log``); None: stored as it is, without a bound.
        steps: the number of time steps T of a constant input (x then has no time axis). None: x
            has a time axis, or ``steps`` is given to the call.
        time_dim: the time axis of x and of outputs with one.
        channel_dim: the axis of x, as it is passed to the layer, along which one-dimensional parameters lie.
        return_state: return ``(out, membrane)``; False: ``out`` alone, as in ``nn.Sequential``.
        output: ``"spikes"``, ``"count"``, ``"rate"``, ``"first_spike"``, ``"trace"``,
            ``"trace_before_reset"``, ``"total"``, ``"trace_max"``, ``"trace_mean"``, ``"trace_last"``,
            ``"packed"``, or a tuple of them: see :func:`lif_cuda.functional.lif`, as for ``save`` and the
            neuron options ``reset``, ``v_reset``, ``v_min``, ``delay_reset``, ``detach_reset``, ``strict``,
            ``gain``, ``decay_input``, ``rest``, ``alpha``, ``kappa``, ``rho``, ``refractory`` and
            ``surrogate``.
        stateful: keep the state from one call to the next, until :meth:`reset_state`. The state moves with
            ``.to()``. Under activation checkpointing a recomputation does not advance it.
        detach_state: keep gradients from flowing from one call into the one before (truncated BPTT).
        save_state: let the state be part of the state_dict.
        device, dtype: of the parameters.

    Entries of the state_dict: ``NAME_logit`` for a learned decay through a sigmoid, ``threshold_log`` for a
    threshold through an exponential, else ``NAME_values`` for a parameter that is learned or was given as a
    tensor; ``_extra_state``, the numbers by which the neuron fires, which loading takes over (float64, see
    ``lif_cuda/_saved.py``; a file without them loads as well); with ``save_state`` ``state_NAME``.

    An option of the calls can be set on the layer (``layer.surrogate = ...``), and is checked as in the
    constructor; so can ``stateful``, ``detach_state``, ``save_state``, and a parameter that is a number.

    Raises:
        TypeError, ValueError: an option is not what is described above; the message names it.
    """

    _lif: ClassVar[Callable[..., Any]]
    # What ``step`` returns of a step, and options that are what they are in all layers of a kind.
    _of_step: ClassVar[OutputName] = "spikes"
    _given: ClassVar[frozenset[str]] = frozenset()
    _state_type: ClassVar[type[NeuronState] | type[RecurrentState]] = NeuronState

    @layer_constructor
    def __init__(
        self,
        num_neurons: int | Sequence[int] | None = None,
        beta: float | Tensor | None = None,
        threshold: float | Tensor = 1.0,
        **options: Unpack[LayerOptions],
    ) -> None:
        parameters, of_calls, choices = of_layer(type(self).__name__, threshold, options)
        of_calls = _agreement.check_options(of_calls)
        parameters = parameters._replace(beta=beta_of(beta, choices))
        _agreement.check_with_parameters(of_calls, parameters)
        _agreement.check_learned(of_calls, choices.learned())
        super().__init__(num_neurons, parameters, choices)
        self.bound = choices.bound
        self.threshold_bound = choices.threshold_bound
        self.stateful = choices.stateful
        self.detach_state = choices.detach_state
        self.save_state = choices.save_state
        self._kept = KeptState()
        self._settle(of_calls)

    # Options and parameters.

    @property
    def options(self) -> CallOptions:
        """The options of the layer's calls."""
        return self._settled.options

    def _settle(self, options: CallOptions, numbers: Parameters | None = None) -> None:
        """Let these checked options, and numbers, be those of the calls to come."""
        if numbers is not None:
            self._numbers = numbers
        if isinstance(options.output, tuple):
            outputs_type(options.output)  # torch.compile would make one of its own
        # The surrogates of this package do not change; one of a user's own may.
        for_good = type(options.surrogate).__module__ == Surrogate.__module__
        self._settled = Settled(options, self._tensors, self.num_neurons, for_good)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_settled" in self.__dict__ and name in _KNOWN:
            self._set_option(name, value)
        else:
            super().__setattr__(name, value)

    def _set_option(self, name: str, value: Any) -> None:
        """Change an option as if the layer had been made with it, or raise."""
        if name in self._given:
            raise AttributeError(f"{name} cannot be set: {type(self).__name__} has none")
        if name in CallOptions._fields:
            options = _agreement.check_options(self.options._replace(**{name: value}))
            _agreement.check_with_parameters(options, self._numbers_or_stand_ins())
            _agreement.check_learned(options, self.learned)
            self._settle(options)
        elif name in Parameters._fields:
            numbers = self._with_number(name, value)
            stand_ins = self._numbers_or_stand_ins()._replace(**{name: value})
            _agreement.check_with_parameters(self.options, stand_ins)
            self._settle(self.options, numbers)
        elif name in LAYER_FLAGS:
            object.__setattr__(self, name, _check.check_flag(name, value))
            if not self.stateful:
                self._kept.reset()
        else:
            remedy = "call .to()" if name in ("device", "dtype") else f"make a layer with {name}={value!r}"
            raise AttributeError(f"{name} cannot be set on a layer that is made; {remedy}")

    def _numbers_or_stand_ins(self) -> Parameters:
        """The parameters for checks that ask which there are: NaN stands for a tensor."""
        values: list[Any] = [*self._numbers]
        for at in self._tensors:
            values[at] = float("nan")
        return Parameters(*values)

    def __getattr__(self, name: str) -> Any:
        settled = self.__dict__.get("_settled")
        if settled is not None:
            if name in CallOptions._fields:
                return getattr(settled.options, name)
            if name in Parameters._fields:
                return self._parameter(name)
            if name.startswith("learn_") and name in LayerChoices._fields:
                return name.removeprefix("learn_") in self.learned
            ours = _words.ours_for_method(name)
            if ours is not None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}; {ours}")
        return super().__getattr__(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *CallOptions._fields, *Parameters._fields]

    # State.

    def _states(self) -> tuple[str, ...]:
        return state_names(self.options, self._numbers_or_stand_ins())

    @property
    def state(self) -> State | None:
        """The state that a stateful layer keeps, as a call returns it; None before its first call."""
        kept = self._kept.state
        return kept.membrane if kept is not None and len(self._states()) == 1 else kept

    def reset_state(self, state: State | None = None) -> None:
        """Forget the state of a stateful layer, or start from ``state`` (as a call returns it).

        Raises:
            RuntimeError: the layer is not stateful.
            TypeError: ``state`` is no state.
        """
        if not self.stateful:
            raise RuntimeError("reset_state is for layers with stateful=True; this one keeps no state")
        start = checked_start(state, self._state_type)
        self._kept.reset(detached(start) if start is not None and self.detach_state else start)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._kept.move(fn)
        return self

    # The state_dict.

    def get_extra_state(self) -> Tensor:
        """The numbers by which the neuron fires, for the state_dict."""
        return _saved.to_tensor(_saved.Numbers(self._numbers, self.options))

    def set_extra_state(self, state: Any) -> None:
        """Take over the numbers of a state_dict.

        Raises:
            ValueError: they are those of another kind of neuron.
        """
        tensors = tuple(Parameters._fields[at] for at in self._tensors)
        numbers = _saved.from_tensor(state, _saved.Numbers(self._numbers, self.options), tensors)
        self._settle(numbers.options, numbers.parameters)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.save_state and self._kept.state is not None:
            for name, tensor in self._kept.state._asdict().items():
                if tensor is not None:
                    destination[f"{prefix}state_{name}"] = tensor if keep_vars else tensor.detach()

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        try:
            super()._load_from_state_dict(
                state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
            )
        except ValueError as error:
            error_msgs.append(f"{prefix.removesuffix('.') or type(self).__name__}: {error}")
        if f"{prefix}_extra_state" in missing_keys:
            missing_keys.remove(f"{prefix}_extra_state")  # saved before there were numbers in it
        if self.stateful and self.save_state:
            self._load_state(state_dict, prefix, unexpected_keys)

    def _load_state(self, state_dict: Mapping[str, Any], prefix: str, unexpected_keys: list[str]) -> None:
        """Start from the state that is saved, or from none."""
        like = next(iter((*self.parameters(), *self.buffers())), None)
        loaded: dict[str, Tensor] = {}
        for name in self._states():
            key = f"{prefix}state_{name}"
            if key in state_dict:
                saved = state_dict[key]
                loaded[name] = saved.detach().to(saved.device if like is None else like.device, copy=True)
            if key in unexpected_keys:
                unexpected_keys.remove(key)
        self._kept.reset(self._state_type(**loaded) if loaded else None)

    # Calls.

    def forward(
        self,
        x: Tensor,
        membrane: State | None = None,
        steps: int | None = None,
        lengths: Tensor | None = None,
    ) -> Any:
        """Run T time steps.

        Args:
            x: input current, [T, batch..., features...] with its time axis at ``time_dim``; with ``steps``
                given (here or to the constructor) a constant input, [batch..., features...]. float32,
                float64, float16 or bfloat16.
            membrane: state before the first step, [batch..., features...], for neurons with more state a
                :class:`lif_cuda.NeuronState`; None: zeros. A stateful layer takes none.
            steps: the number of time steps of a constant input.
            lengths: the number of time steps of each sample of a padded batch, int64 [batch]: see
                :func:`lif_cuda.functional.lif`.

        Returns:
            ``(out, membrane)``: the output (see :func:`lif_cuda.functional.lif`) and the state after the
            last step, ready for the next call; ``out`` alone if ``return_state`` is False.

        Raises:
            TypeError, ValueError: an argument has the wrong type, dtype, device or shape.
        """
        settled = self._settled
        return self._run(x, membrane, settled if steps is None else settled.but(steps=steps), lengths)

    def step(
        self, current: Tensor, membrane: State | None = None, lengths: None = None
    ) -> tuple[Tensor, Any]:
        """Run one time step, for loops that own the time axis.

        Args:
            current: input of this step, [batch..., features...].
            membrane: state before the step; None: zeros. A stateful layer takes none.
            lengths: for calls of several steps only.

        Returns:
            ``(spike, membrane)``; the spike is of the shape of ``current``.

        Raises:
            TypeError, ValueError: as for :meth:`forward`.
        """
        if lengths is not None:
            raise TypeError(
                "lengths is for calls of several steps, and step runs one: call layer(x, lengths=lengths), "
                "or keep the states of the samples that go on with torch.where"
            )
        options = self._settled.options
        channel_dim = options.channel_dim
        if channel_dim is not None and options.steps is None and isinstance(current, Tensor):
            # It counts the axes of an x with a time axis.
            axes = current.dim() + 1
            channel_dim = channel_dim % axes
            channel_dim -= channel_dim > options.time_dim % axes
        one = self._settled.but(
            steps=1, time_dim=0, channel_dim=channel_dim, output=self._of_step, return_state=True
        )
        spikes, state = self._run(current, membrane, one, None)
        return spikes.squeeze(0), state

    def _run(self, x: Tensor, membrane: State | None, settled: Settled, lengths: Tensor | None) -> Any:
        """Call the neuron, from the state that a stateful layer keeps to the one that it keeps then."""
        if not self.stateful:
            return self._lif(x, self._in_use(), membrane, settled.options, settled, lengths)
        if membrane is not None:
            raise ValueError(
                "membrane must be None for a stateful layer, which keeps its own; start it from a state "
                "with reset_state(membrane)"
            )
        with_state = settled.but(return_state=True)
        start = self._kept.begin(x, settled.options)
        if start is not None:
            # Since it was kept, the neuron may have got a refractory period, or lost it.
            start = self._state_type(**{name: getattr(start, name) for name in self._states()})
        out, final = self._lif(x, self._in_use(), start, with_state.options, with_state, lengths)
        after = NeuronState(final) if isinstance(final, Tensor) else final
        self._kept.end(start, detached(after) if self.detach_state else after, self.training)
        return (out, final) if settled.options.return_state else out

    def extra_repr(self) -> str:
        """The options that differ between layers, for ``print(model)``."""
        parts = [str(self.num_neurons[0] if len(self.num_neurons) == 1 else self.num_neurons)]
        parts = parts if self.num_neurons else []
        usual = Parameters._field_defaults
        for name in Parameters._fields:
            if name in self._given:
                continue
            value = "learned" if name in self.learned else self._brief(name)
            if name in ("beta", "threshold") or value != str(usual[name]):
                parts.append(f"{name}={value}")
        parts.append(f"output={self.output!r}")
        if "reset" not in self._given:
            parts.append(f"reset={self.options.reset!r}")
        for name, option in self.options._asdict().items():
            if name not in ("output", "reset", "surrogate") and option != CallOptions._field_defaults[name]:
                parts.append(f"{name}={option!r}")
        if self.stateful:
            parts.append("stateful=True")
        if "surrogate" not in self._given:
            parts.append(f"surrogate={self.options.surrogate}")
        return ", ".join(parts)

    def _brief(self, name: str) -> str:
        value = self._parameter(name)
        return f"tensor{tuple(value.shape)}" if isinstance(value, Tensor) else str(value)


# What __setattr__ looks after: the words of the constructor.
_KNOWN = frozenset(("num_neurons", *Parameters._fields, *CallOptions._fields, *LayerChoices._fields))


def reset_states(module: nn.Module) -> None:
    """Reset the state of every stateful layer of this package in ``module``; all else is passed over.

    Raises:
        TypeError: ``module`` is no ``nn.Module``.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {_check.type_name(module)}")
    for layer in module.modules():
        if isinstance(layer, LIFModule) and layer.stateful:
            layer.reset_state()
