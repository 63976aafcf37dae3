"""The neuron as a function: T fused time steps in one launch forward and one backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from . import _agreement, _events, _layout, _lengths, _recurrent_run, _transforms
from ._autograd import NO_FORWARD_MODE, FusedLIF, recorded_in_a_graph, run
from ._ops import TABLE
from ._options import (
    INTEGRATOR,
    CallOptions,
    IntegratorOptions,
    RecurrentCallOptions,
    check_integrator,
    of_call,
)
from ._outputs import SERIES, OutputName, Readout, check_readout, output_names, outputs_type
from ._packed import PackedSpikes
from ._parameters import Parameters
from ._plan import Plan, plan_of
from ._settled import Settled
from ._signature import integrator_function, neuron_function
from ._state import NeuronState, RecurrentState, State
from ._torch_private import has_tangent, is_distributed, is_traced, makes_a_program, transforms_are_active
from .surrogate import StraightThrough


@neuron_function
def lif(
    x: Tensor,
    beta: float | Tensor,
    threshold: float | Tensor = 1.0,
    membrane: State | None = None,
    *,
    lengths: Tensor | None = None,
    **options: Any,
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
        lengths: the number of time steps of each sample of a padded batch, int64 [batch], on the device of x;
            None: all take T. The batch is the first axis of x beside time: the second where time is first,
            else the first. After its length a sample's neurons neither integrate nor fire: its spikes and
            traces are 0 there, its state is the one at its length, counts are of its own steps, its rate is
            over its length (0 where that is 0), its first spike is its length where there is none, and
            gradients are 0, whatever x holds there. A length is in [0, T]: on a CPU anything else raises; on
            CUDA, where asking would wait for the device, it is clamped.
        steps: the number of time steps T of a constant input; None: x has a time axis.
        time_dim: the time axis of x and of outputs with one.
        channel_dim: the axis of x along which one-dimensional parameters lie; None: the last.
        output: ``"spikes"``: [T, ...] zeros and ones in x's dtype; ``"count"``: their sum over time;
            ``"rate"``: their mean (0 if T is); ``"first_spike"``: the step of the first spike, T where there
            is none; ``"trace"`` and ``"trace_before_reset"``: v[t] and u[t], [T, ...] in x's dtype;
            ``"total"``: the spikes of all neurons together, float64, which counts exactly up to 2^53; its
            gradient is that of the sum of all spikes, for a penalty on the firing rate; ``"trace_max"``,
            ``"trace_mean"`` and ``"trace_last"``: of the membranes v[t], without storing them, the largest (a
            NaN is above all, the gradient goes to the step that reached it first, and T must not be 0), the
            sum in the order of time by T (0 if T is), and the one after the last step;
            ``"packed"``: the spikes as bits, a :class:`lif_cuda.PackedSpikes`. Or a tuple of names. Those
            without a time axis are of the state's dtype but for the total.
        reset: ``"subtract"``, ``"zero"`` or ``"none"``.
        v_reset: the membrane after a reset to "zero": a number or a tensor.
        v_min: a floor under the membrane, applied after the reset, also of a silent step: ``v[t] = max(v[t],
            v_min)``, with ``delay_reset`` ``max(u[t], v_min)``. A number or a tensor, which is not learned;
            None: no floor. Its gradient is that of ``torch.clamp``: none where the floor holds, all of it at
            the floor itself. A ``membrane`` below it is taken as it is.
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
            state, no floor, and neither ``beta`` nor ``gain`` learned.

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
    parameters, chosen = of_call(beta, threshold, options)
    return run_neuron(x, parameters, membrane, chosen, lengths=lengths)


# What a leaky integrator returns, and the output of the neuron that it is.
READOUTS: dict[str, OutputName] = {
    "trace": "trace",
    "last": "trace_last",
    "max": "trace_max",
    "mean": "trace_mean",
}
# Of what never fires nothing comes back through a spike, with this surrogate not even NaN of an infinite
# membrane.
SILENT = StraightThrough()


@integrator_function
def li(
    x: Tensor,
    beta: float | Tensor,
    membrane: State | None = None,
    *,
    lengths: Tensor | None = None,
    output: Readout = "trace",
    return_state: bool = True,
    **options: Unpack[IntegratorOptions],
) -> Any:
    """T time steps of leaky integrators, which never fire: the readout that most networks end in.

    ``v[t] = beta * v[t-1] + gain * x[t]``, in one launch forward and one backward: :func:`lif` with
    ``reset="none"`` and without its spikes.

    Args:
        x, beta, membrane, lengths: as for :func:`lif`; a sample of length 0 has the largest membrane
            -infinity, and the mean 0.
        output: ``"trace"``: v[t], [T, ...] in x's dtype; or, of v over time, without storing it and in the
            state's dtype: ``"last"``, ``"max"`` (see ``"trace_max"`` of :func:`lif`; T must not be 0) and
            ``"mean"`` (0 if T is).
        return_state: False: return ``out`` alone.
        options: ``steps``, ``time_dim``, ``channel_dim``, ``gain``, ``decay_input``, ``rest``, ``alpha`` and
            ``v_min`` of :func:`lif`, by keyword.

    Returns:
        ``(out, membrane)``, as :func:`lif` does.

    Raises:
        TypeError, ValueError: as for :func:`lif`.
    """
    check_readout("output", output)
    check_integrator("li", options, INTEGRATOR)
    asked: Any = {
        "output": READOUTS[output],
        "reset": "none",
        "surrogate": SILENT,
        "return_state": return_state,
    }
    return lif(x, beta, 1.0, membrane, lengths=lengths, **options, **asked)


def run_neuron(
    x: Tensor,
    parameters: Parameters,
    membrane: State | None,
    options: CallOptions,
    settled: Settled | None = None,
    lengths: Tensor | None = None,
) -> Any:
    """:func:`lif` with its arguments in groups; ``settled``: what a layer knows of its calls."""
    if type(x) is not Tensor and is_distributed(x):
        return _run_distributed(x, parameters, membrane, lengths, options, settled)
    if "packed" in options.output and isinstance(x, Tensor) and x.device.type == "cuda":
        return _run_and_pack(x, parameters, membrane, lengths, options, settled)
    plan = plan_of(x, parameters, membrane, lengths, options, settled)
    call, layout, options = plan.call, plan.layout, plan.options
    if lengths is not None:
        _lengths.check_range(lengths, x, options)
    given = plan.given(x, parameters, membrane, lengths) if call.slots else []
    if not plan.as_it_lies:
        x = _layout.arrange(x, layout.order if options.steps is None else layout.features)
        if layout.copy:
            x = x.contiguous()
    if plan.guarded and torch.is_grad_enabled():
        _agreement.check_unlearned(options, parameters)
    transformed = transforms_are_active()
    results: Sequence[Tensor]
    if plan.node is not None and type(x) in _PLAIN and not (transformed or is_traced()):
        if plan.tabled:
            given.append(plan.table(x))
        results = plan.node(x, given)
    else:
        results = _in_python(plan, x, given, transformed)
    if plan.alone:
        return tuple(results) if options.return_state else results[0]
    return _as_asked(plan, results)


# A subclass may want to know of each operator that is called on it.
_PLAIN = (Tensor, torch.nn.Parameter)


def _as_asked(plan: Plan, results: Sequence[Tensor]) -> Any:
    """The results of the operators as the user asked for them."""
    layout, options = plan.layout, plan.options
    found: dict[str, Any] = dict(zip(plan.call.results, results, strict=True))
    if not plan.as_it_lies:
        found = {
            name: tensor
            if name == "total"
            else _layout.arrange(tensor, layout.output if name in SERIES else layout.state)
            for name, tensor in found.items()
        }
    if "packed" in found:
        found["packed"] = PackedSpikes(found["packed"], found["spikes"])
    output = options.output
    if "trace_last" in output_names(output):  # the state itself, which the caller is not to find changed
        found["trace_last"] = found["membrane"].clone() if options.return_state else found["membrane"]
    if isinstance(output, str):
        out = found[output]
    else:
        out = outputs_type(output)(*[found[name] for name in output])
    if not options.return_state:
        return out
    if len(plan.state_names) == 1:
        return out, found["membrane"]
    return out, NeuronState(**{name: found[name] for name in plan.state_names})


def _in_python(plan: Plan, x: Tensor, given: list[Tensor], transformed: bool) -> Sequence[Tensor]:
    """The results of a call where Python keeps what backward needs, or nothing is to be kept."""
    call, steps = plan.call, plan.steps
    if has_tangent((x, *given)):  # the node in C++ asks the same
        raise NotImplementedError(NO_FORWARD_MODE)
    differentiate = torch.is_grad_enabled() and (
        x.requires_grad or any([tensor.requires_grad for tensor in given])
    )
    becomes_a_program = makes_a_program()
    if not (differentiate or transformed or becomes_a_program):
        return run(x, given, call.keeping_nothing(), steps, 0)
    if plan.tabled:
        call = call._replace(slots=(*call.slots, TABLE))
        given.append(plan.table(x))
    if transformed:
        _transforms.check_not_traced()
        results: Sequence[Tensor] = _transforms.Forward.apply(call, steps, plan.every, x, *given)
        return results[: len(call.results)]
    if becomes_a_program or torch.compiler.is_compiling():
        return recorded_in_a_graph(x, given, call, steps)
    recorded: Sequence[Tensor] = FusedLIF.apply(call, steps, plan.every, x, *given)
    return recorded


def _run_and_pack(
    x: Tensor,
    parameters: Parameters,
    membrane: State | None,
    lengths: Tensor | None,
    options: CallOptions,
    settled: Settled | None,
) -> Any:
    """:func:`run_neuron` on CUDA, whose kernels write no words: they write spikes, which are packed then."""
    names = output_names(_agreement.check_options(options).output)
    instead: Any = tuple("spikes" if name == "packed" else name for name in names)
    options = options._replace(output=instead)
    settled = None if settled is None else settled.but(output=instead)
    results = run_neuron(x, parameters, membrane, options, settled, lengths)
    outputs = results[0] if options.return_state else results
    found = dict(zip(names, outputs, strict=True))
    found["packed"] = PackedSpikes.pack(found["packed"])
    out = found[names[0]] if len(names) == 1 else outputs_type(names)(*found.values())
    return (out, results[1]) if options.return_state else out


def _run_distributed(
    x: Tensor,
    parameters: Parameters,
    membrane: State | None,
    lengths: Tensor | None,
    options: CallOptions,
    settled: Settled | None,
) -> Any:
    """:func:`run_neuron` on DTensors: each process runs its own part of the neurons."""
    from . import _dtensor  # it imports torch.distributed, which most programs do not need

    options = _agreement.check_options(options)
    parts = _dtensor.Parts(x, options)
    if settled is not None:
        parts.check_neurons(settled.neurons)
    results = run_neuron(
        parts.x(),
        parts.parameters(parameters),
        parts.state(membrane),
        options,
        lengths=parts.lengths(lengths),
    )
    return parts.whole(results)


def spike_linear(spikes: Tensor | PackedSpikes, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear`` for spikes: on the CPU, rows of the weight are added where one is set.

    Nothing is multiplied by a zero, or at all: for each spike ``spikes[..., k] = 1`` the column
    ``weight[:, k]`` is added. The order of a sum is ``0 + bias`` (or 0), then k ascending, each addition
    rounded once in float32 (float64 for float64; 16-bit results are rounded once, at their end). So the
    numbers are the same for packed and dense spikes, any number of threads and any processor. The weight's
    gradient is summed in the same way, over the rows of spikes in their order; the spikes' gradient is an
    ordinary product.

    On CUDA it is ``torch.nn.functional.linear``, of packed spikes after they are unpacked: there the tensor
    cores are faster than any sum of rows but for spikes of 2 to 4 %.

    Args:
        spikes: zeros and ones, [..., inputs], a tensor or :class:`lif_cuda.PackedSpikes`.
        weight: [outputs, inputs], of the dtype of the spikes (any under autocast, whose dtype it then takes).
        bias: [outputs]; None: zeros.

    Returns:
        [..., outputs].

    Raises:
        ValueError: a spike is neither 0 nor 1 (on CUDA, where asking would wait for the device, that is the
            caller's word); or a shape or a device does not fit.
        TypeError: an argument has the wrong type or dtype.
        NotImplementedError: forward-mode derivatives.
    """
    return _events.spike_linear(spikes, weight, bias)[0]


def recurrent_lif(
    x: Tensor,
    weight: Tensor,
    beta: float | Tensor,
    threshold: float | Tensor = 1.0,
    state: RecurrentState | None = None,
    *,
    bias: Tensor | None = None,
    **options: Unpack[RecurrentCallOptions],
) -> Any:
    """T time steps of neurons whose spikes feed back into all of them, fused.

    For a layer of neurons, from ``(v[-1], s[-1]) = state``::

        r[t] = bias (or 0), then + weight[:, i] for each neuron i that fired at t-1, i ascending
        u[t] = beta * v[t-1] + gain * (x[t] + r[t])

    and the spike, the reset and the surrogate as in :func:`lif`. The order of the sum is part of the promise:
    with it spikes and membranes are the same bits on any device, at any number of threads. Gradients are
    those of backpropagation through time; the CPU's are the same for any number of threads, too.

    Args:
        x: input current, [T, batch..., neurons] with its time axis at ``time_dim``; float32, float64, float16
            or bfloat16. ``x.expand(T, batch, neurons)`` is a constant input, read as it lies.
        weight: [neurons, neurons], as ``nn.Linear`` has it: ``weight[j, i]`` is what a spike of neuron i adds
            to neuron j. Of the dtype of x or of the state; as the bias is.
        beta: membrane decay a step: a number in [0, 1], or a tensor of one value or one for each neuron.
        threshold: membrane at which a neuron fires: a number or a tensor like ``beta``.
        state: before the first step, as a call returns it; None: zeros.
        bias: [neurons]; None: none.
        time_dim: the time axis of x and of outputs with one.
        output: ``"spikes"``, ``"count"``, ``"rate"``, ``"trace"``, or a tuple of them: see :func:`lif`.
        reset: ``"subtract"`` or ``"zero"``.
        v_reset, gain: numbers.
        detach_reset, strict, surrogate, return_state: as for :func:`lif`.

    Returns:
        ``(out, state)``: the output, or a NamedTuple of those asked for; and the
        :class:`lif_cuda.RecurrentState` after the last step, ready for the next call. ``out`` alone without
        ``return_state``.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device, shape or value, or is an option
            that recurrent neurons do not have.
        RuntimeError: x is on a CUDA device and this build has no CUDA kernels.
        NotImplementedError: x is on another kind of device; or the gradient is differentiated again.
    """
    parameters, chosen = of_call(beta, threshold, {**options}, "recurrent_lif")
    return _recurrent_run.run_recurrent(x, weight, bias, parameters, state, chosen)
