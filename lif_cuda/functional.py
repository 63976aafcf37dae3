"""The neuron as a function: T fused time steps in one launch forward and one backward."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _check, _layout, _ops, _transforms
from ._autograd import NO_FORWARD_MODE, SERIES, Call, FusedLIF, node_of, recorded_in_a_graph, run
from ._check import CallOptions, NeuronState, Output, Parameters, Reset, Save, Settled
from ._layout import Layout
from ._module import DEFAULT_SURROGATE
from ._ops import FIRST_PARAMETER, STATES, TABLE
from .surrogate import Surrogate


class _Plan(NamedTuple):
    """What follows from the options and the shapes of a call: its checks, made once for all like it."""

    call: Call
    layout: Layout
    features: torch.Size
    channel_dim: int | None
    state_names: tuple[str, ...]
    state_dtype: torch.dtype
    # The places of parameters that are tensors; whether one can go to the operator as it is, if it is
    # contiguous; and None for a gain of 1 - beta.
    tensors: tuple[tuple[int, bool | None], ...]
    # Whether x is taken as it lies, and outputs are returned as they come; and whether these are one output
    # and the membrane at the most.
    as_it_lies: bool
    alone: bool
    # Time steps between the states that are kept for backward; 0: none are.
    every: int
    # Whether the surrogate is a table, and a tensor of the call.
    tabled: bool
    # The call under autograd, in C++; None where Python does its work.
    node: Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, ...]] | None


# The plans of calls that passed their checks, by all that the checks look at.
_PLANS: dict[Any, _Plan] = {}
_MOST_PLANS = 4096


def _key(
    x: Tensor, parameters: Parameters, membrane: Any, options: CallOptions, settled: Settled | None
) -> Any:
    """What a plan depends on. Types stand beside values: True and 1 are equal, and not the same option.

    So do the numbers of the surrogate: one of a user's own may be equal to itself and have changed.
    """
    of_options: Any = settled
    of_parameters: Any = None
    if settled is None:
        surrogate = options.surrogate
        numbers = (surrogate.code, surrogate.slope, surrogate.height)
        of_options = (options, (*map(type, options),), numbers)
        of_parameters = (*[_meta(v) if isinstance(v, Tensor) else (v, type(v)) for v in parameters],)
    elif settled.tensors:
        of_parameters = (*[_meta(parameters[i]) for i in settled.tensors],)
    of_state: Any = None
    if membrane is not None:
        states = (membrane,) if isinstance(membrane, Tensor) else membrane
        of_state = (
            type(membrane),
            *[tensor if tensor is None else _meta(tensor) for tensor in states],
        )
    strides = x.is_contiguous() or x.stride()
    return (x.shape, strides, x.dtype, x.device, of_options, of_parameters, of_state)


def _meta(tensor: Any) -> tuple[Any, ...]:
    """What the checks look at of a tensor; what is none has not got it, and raises."""
    return tensor.shape, tensor.dtype, tensor.device, tensor.layout


def _plan(
    x: Tensor, parameters: Parameters, membrane: Any, options: CallOptions, settled: Settled | None
) -> _Plan:
    """The plan of a call; raises what the checks of a new one raise."""
    if torch.compiler.is_compiling():
        return _new_plan(x, parameters, membrane, options)
    try:
        key = _key(x, parameters, membrane, options, settled)
        known = _PLANS.get(key)
    except Exception:
        # Something is of a kind that has no key; the checks say what.
        return _new_plan(x, parameters, membrane, options)
    if known is not None:
        return known
    if torch._C._is_tracing():
        return _untraced_plan(x, parameters, membrane, options)
    plan = _new_plan(x, parameters, membrane, options)
    if len(_PLANS) >= _MOST_PLANS:
        _PLANS.clear()
    _PLANS[key] = plan
    return plan


def _untraced_plan(x: Tensor, parameters: Parameters, membrane: Any, options: CallOptions) -> _Plan:
    """A plan under torch.jit.trace, for which sizes are tensors: out of its sight, they are numbers."""
    set_state = torch._C._set_tracing_state  # type: ignore[attr-defined]
    tracing = torch._C._get_tracing_state()
    set_state(None)
    try:
        return _new_plan(x, parameters, membrane, options)
    finally:
        set_state(tracing)


def _new_plan(x: Tensor, parameters: Parameters, membrane: Any, options: CallOptions) -> _Plan:
    checked = _check.check_call(x, parameters, membrane, options)
    _ops.check_device(x)
    layout = _layout.layout_of(x, checked.time_dim, options.steps is not None)
    surrogate = options.surrogate
    traits = (
        _ops.STRICT * options.strict
        + _ops.DELAYED * options.delay_reset
        + _ops.DETACH_RESET * options.detach_reset
        + _ops.SYNAPSE * (parameters.alpha is not None)
        + _ops.ADAPTIVE * (parameters.kappa is not None)
        + _ops.DECAY_INPUT * options.decay_input
    )
    outputs = _check.output_names(options.output)
    names = tuple(checked.states)
    asked = [name for name in _check.OUTPUTS if name in outputs]
    slots = [STATES.index(name) for name in names if checked.states[name] is not None]
    by_tensor = [isinstance(value, Tensor) for value in checked.parameters]
    if options.decay_input and by_tensor[0]:
        by_tensor[Parameters._fields.index("gain")] = True
    slots += [FIRST_PARAMETER + i for i, tensor in enumerate(by_tensor) if tensor]
    results = (*asked, *names) if options.return_state else tuple(asked)
    numbers = [0.0 if v is None or isinstance(v, Tensor) else float(v) for v in checked.parameters]
    call = Call(
        [*numbers, float(options.rest), float(surrogate.slope), float(surrogate.height)],
        layout,
        (
            _ops.RESETS[options.reset],
            traits,
            options.refractory,
            surrogate.code,
        ),
        results,
        sum([_ops.OUTPUTS[name] for name in results]),
        tuple(slots),
        options.save == "bits",
    )
    channel_dim = _check.check_channel_dim(options.channel_dim, x, options.steps, checked.time_dim)
    tensors: list[tuple[int, bool | None]] = []
    for i, value in enumerate(parameters):
        if isinstance(value, Tensor):
            direct = (
                value.dtype == checked.state_dtype
                and layout.features is None
                and (channel_dim is None or value.dim() != 1)
                and _layout.is_block(value.shape)
            )
            tensors.append((i, direct))
        elif by_tensor[i]:
            tensors.append((i, None))
    steps = options.steps
    length = x.shape[checked.time_dim] if steps is None else steps
    every = 0 if call.bits else _ops.checkpoint_interval(x.device.type)
    if not torch.compiler.is_compiling() and length <= every:
        every = 0  # no rows; a program that is compiled for any T has them as an empty tensor
    tabled = surrogate.values(checked.state_dtype, x.device) is not None
    node = None
    if not torch.compiler.is_compiling():
        with_table = call._replace(slots=(*call.slots, TABLE)) if tabled else call
        node = node_of(with_table, -1 if steps is None else steps, every)
    as_it_lies = layout == Layout(layout.time_dim)
    return _Plan(
        call,
        layout,
        checked.features,
        channel_dim,
        names,
        checked.state_dtype,
        tuple(tensors),
        as_it_lies,
        as_it_lies and len(names) == 1 and isinstance(options.output, str),
        every,
        tabled,
        node,
    )


def _given(plan: _Plan, x: Tensor, parameters: Parameters, membrane: Any) -> list[Tensor]:
    """The tensors of the states and the parameters as the operators take them, in the order of the slots."""
    order = plan.layout.features
    given: list[Tensor] = []
    if membrane is not None:
        states = (membrane,) if isinstance(membrane, Tensor) else membrane
        given += [_layout.arrange(state, order).contiguous() for state in states if state is not None]
    beta = len(given)  # its place, if it is a tensor
    for i, direct in plan.tensors:
        value: Any = parameters[i]
        if direct is None:
            given.append(1 - given[beta])
        elif direct:
            given.append(value.contiguous())
        else:
            name = Parameters._fields[i]
            checked = _check.check_parameter(name, value, x, plan.features, plan.channel_dim)
            assert isinstance(checked, Tensor)
            given.append(_layout.arrange_parameter(checked, plan.features, order))
    return given


def _is_distributed(x: object) -> bool:
    """Whether ``x`` is a DTensor: there is none before its module is imported, and here it is not."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def lif(
    x: Tensor,
    beta: float | Tensor,
    threshold: float | Tensor = 1.0,
    membrane: Tensor | NeuronState | None = None,
    *,
    steps: int | None = None,
    time_dim: int = 0,
    channel_dim: int | None = None,
    output: Output = "spikes",
    reset: Reset = "subtract",
    v_reset: float | Tensor = 0.0,
    delay_reset: bool = False,
    detach_reset: bool = False,
    strict: bool = False,
    gain: float | Tensor = 1.0,
    decay_input: bool = False,
    rest: float = 0.0,
    alpha: float | Tensor | None = None,
    kappa: float | Tensor | None = None,
    rho: float | Tensor | None = None,
    refractory: int = 0,
    surrogate: Surrogate = DEFAULT_SURROGATE,
    return_state: bool = True,
    save: Save = "input",
) -> Any:
    """T time steps of leaky integrate-and-fire neurons, fused.

    For each neuron, from ``v[-1] = membrane``::

        u[t] = beta * v[t-1] + gain * x[t]       integrate and leak
        s[t] = 1 if u[t] >= threshold else 0     fire
        v[t] = u[t] - threshold * s[t]           reset "subtract"
             = v_reset if s[t] else u[t]         reset "zero"
             = u[t]                              reset "none"

    The derivative of the spike is ``surrogate`` in the backward pass. Spikes, membranes and the
    gradients of ``x`` and ``membrane`` are bit for bit those of :func:`lif_cuda.reference.lif` (with the
    surrogates that hold an exponential, gradients within a few ulp); the equations of the kernels stand in
    ``csrc/neuron/step.h``.

    Args:
        x: input current, [T, batch..., features...] with its time axis at ``time_dim``; float32, float64,
            float16 or bfloat16, on a CPU or a CUDA device. With ``steps``: a constant input without a time
            axis, [batch..., features...], read once for all T steps; its gradient has no time axis either.
            Any dense memory format is read as it lies, and so are slices of features and expanded axes;
            what has its time axis innermost or strided features is copied once.
        beta: membrane decay a step, ``exp(-dt / tau)`` (:func:`lif_cuda.decay_of` gives it): a number in
            [0, 1], or a tensor of the state's dtype or x's that broadcasts from the right over x without
            its time axis; [features] is one per neuron. So are all parameters below that are "a number or
            a tensor".
        threshold: membrane at which a neuron fires: a number or a tensor.
        membrane: state before the first step, [batch..., features...], of the state's dtype (float32 for
            16-bit x, else x's); for neurons with more state a :class:`NeuronState`; None: zeros.
        steps: the number of time steps T of a constant input; None: x has a time axis.
        time_dim: the time axis of x and of outputs with one.
        channel_dim: the axis of x along which one-dimensional parameters lie; None: the last.
        output: ``"spikes"``: [T, ...] zeros and ones in x's dtype; ``"count"``: their sum over time;
            ``"rate"``: their mean (0 if T is); ``"first_spike"``: the step of the first spike, T where there
            is none; ``"trace"`` and ``"trace_before_reset"``: v[t] and u[t], [T, ...] in x's dtype;
            ``"total"``: the spikes of all neurons together, int64. Or a tuple of names. Those without a time
            axis are of the state's dtype.
        reset: ``"subtract"``, ``"zero"`` or ``"none"``.
        v_reset: the membrane after a reset to "zero": a number or a tensor.
        delay_reset: reset on the way into the next step, undecayed, as snnTorch does:
            ``u[t] = beta * u[t-1] + gain * x[t] - threshold * s[t-1]``, or ``u[t-1]`` set to ``v_reset``
            before it leaks. The state is u, and a spike of the initial one resets the first step. Needs
            ``detach_reset=True``.
        detach_reset: keep the gradient from flowing through the reset.
        strict: fire above the threshold, not at it.
        gain: factor of the input: a number or a tensor.
        decay_input: let the gain be ``1 - beta``.
        rest: the membrane toward which the leak goes: ``beta * (v - rest) + rest``.
        alpha: decay of a synaptic current that comes before the membrane, ``i[t] = alpha * i[t-1] + x[t]`` in
            place of x: a number in [0, 1] or a tensor; None: no such current.
        kappa, rho: threshold ``threshold + kappa * b[t-1]`` that adapts, ``b[t] = rho * b[t-1] + s[t]``:
            numbers or tensors; None: a constant threshold.
        refractory: steps after a spike in which the neuron neither integrates nor leaks nor fires.
        surrogate: the derivative that stands in for the spike's.
        return_state: False: return ``out`` alone and write no final state.
        save: what forward keeps for backward. ``"input"``: x itself, and for long T the state every few dozen
            steps. ``"bits"``: two bits for each neuron and step and no x, with the same gradients; for a
            ``Rectangle`` or ``StraightThrough`` surrogate, a reset that is not an attached "zero", no further
            state, and neither ``beta`` nor ``gain`` learned.

    Returns:
        ``(out, membrane)``: the output, or a NamedTuple of those asked for; and the state after the last
        step, ready for the next call: a tensor, or a :class:`NeuronState`. With T = 0 the state is a copy of
        ``membrane``. ``out`` alone without ``return_state``.

        The gradient of the first-spike time, ``sum over t of prod over k <= t of (1 - s[k])``, is that of
        the product rule with the surrogate for ``ds``: it moves the first spike, and it is not zero where
        there is none.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device, shape or value, or does not
            go with another; the message names it and the remedy.
        RuntimeError: x is on a CUDA device and this build has no CUDA kernels.
        NotImplementedError: x is on another kind of device; or the gradient is differentiated again.
    """
    options = CallOptions(
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
    return run_neuron(x, Parameters(beta, threshold, v_reset, gain, alpha, kappa, rho), membrane, options)


def run_neuron(
    x: Tensor,
    parameters: Parameters,
    membrane: Tensor | NeuronState | None,
    options: CallOptions,
    settled: Settled | None = None,
) -> Any:
    """:func:`lif` with its arguments in groups; ``settled``: the same options, as a layer knows them."""
    if type(x) is not Tensor and _is_distributed(x):
        from . import _dtensor  # it imports torch.distributed, which most programs do not need

        return _dtensor.lif(lif, x, parameters, membrane, options)
    plan = _plan(x, parameters, membrane, options, settled)
    call, layout = plan.call, plan.layout
    given = _given(plan, x, parameters, membrane) if call.slots else []
    if not plan.as_it_lies:
        x = _layout.arrange(x, layout.order if options.steps is None else layout.features)
        if layout.copy:
            x = x.contiguous()
    if call.bits and torch.is_grad_enabled():
        _check.check_saved(options, parameters)
    # As torch.autograd.Function.apply itself asks; there is no public way to.
    transformed = torch._C._are_functorch_transforms_active()
    results: Sequence[Tensor]
    if plan.node is not None and type(x) in _PLAIN and not (transformed or torch._C._is_tracing()):
        if plan.tabled:
            given.append(_table(plan, options, x))
        results = plan.node(x, given)
    else:
        results = _in_python(plan, x, given, options, transformed)
    if plan.alone:
        return tuple(results) if options.return_state else results[0]
    output = options.output
    one_state = len(plan.state_names) == 1
    if plan.as_it_lies:
        found = dict(zip(call.results, results, strict=True))
    else:
        found = {
            name: _layout.arrange(
                tensor,
                layout.output if name in SERIES else layout.state if name != "total" else None,
            )
            for name, tensor in zip(call.results, results, strict=True)
        }
    if isinstance(output, str):
        out = found[output]
    else:
        out = _check.outputs_type(output)(*[found[name] for name in output])
    if not options.return_state:
        return out
    if one_state:
        return out, found["membrane"]
    return out, NeuronState(**{name: found[name] for name in plan.state_names})


# A subclass may want to know of each operator that is called on it.
_PLAIN = (Tensor, torch.nn.Parameter)


def _table(plan: _Plan, options: CallOptions, x: Tensor) -> Tensor:
    table = options.surrogate.values(plan.state_dtype, x.device)
    assert table is not None
    return table


def _in_python(
    plan: _Plan, x: Tensor, given: list[Tensor], options: CallOptions, transformed: bool
) -> Sequence[Tensor]:
    """The results of a call where Python keeps what backward needs, or nothing is to be kept."""
    call = plan.call
    steps = -1 if options.steps is None else options.steps
    # The node in C++ asks the same. Only inside of a dual level, which few calls are, has a tensor a tangent.
    if forward_ad._current_level >= 0:
        for tensor in (x, *given):
            if forward_ad.unpack_dual(tensor).tangent is not None:
                raise NotImplementedError(NO_FORWARD_MODE)
    differentiate = torch.is_grad_enabled() and (
        x.requires_grad or any([tensor.requires_grad for tensor in given])
    )
    compiled = torch.compiler.is_compiling()
    traced = torch.compiler.is_exporting() or (not compiled and torch._C._is_tracing())
    if not (differentiate or transformed or traced):
        return run(x, given, call._replace(bits=False) if call.bits else call, steps, 0)
    if plan.tabled:
        call = call._replace(slots=(*call.slots, TABLE))
        given.append(_table(plan, options, x))
    if transformed:
        _transforms.check_not_traced()
        results: Sequence[Tensor] = _transforms.Forward.apply(call, steps, plan.every, x, *given)
        return results[: len(call.results)]
    if traced or compiled:
        return recorded_in_a_graph(x, given, call, steps)
    recorded: Sequence[Tensor] = FusedLIF.apply(call, steps, plan.every, x, *given)
    return recorded
