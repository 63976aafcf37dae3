"""The neurons in plain eager PyTorch: what the kernels are held against, bit for bit.

This file imports none of the kernels. It uses separate multiplications, additions and subtractions
only: ``addcmul``, ``lerp`` and ``add(alpha=)`` round once where the equations round twice. The order in
which a step uses its spikes is the order in which autograd adds up their gradients, last use first.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor

from ._agreement import check_unlearned
from ._call import Checked, check_call
from ._lengths import check_range
from ._module import LIFModule
from ._options import CallOptions, RecurrentCallOptions, of_call
from ._outputs import SERIES, output_names, outputs_type
from ._packed import PackedSpikes
from ._parameters import Parameters
from ._recurrent import CheckedRecurrent, check_recurrent_call
from ._recurrent_module import RecurrentModule
from ._settled import Settled
from ._signature import neuron_function
from ._state import NeuronState, RecurrentState, State
from .surrogate import Surrogate


def _fire(u: Tensor, threshold: Tensor, strict: bool) -> Tensor:
    return u > threshold if strict else u >= threshold


class _Spike(torch.autograd.Function):
    """A step forward; the surrogate derivative backward."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: Tensor, surrogate: Surrogate, strict: bool) -> Tensor:
        ctx.save_for_backward(u, threshold)
        ctx.surrogate = surrogate
        return _fire(u, threshold, strict).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        u, threshold = ctx.saved_tensors
        through = grads[0] * ctx.surrogate.derivative(u - threshold)
        return through, (-through).sum_to_size(threshold.shape), None, None


class _ResetToValue(torch.autograd.Function):
    """``v_reset`` where the neuron fired, else u: the derivative of ``u * (1 - s) + v_reset * s``.

    That product itself would make NaN of an infinite membrane.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, v_reset: Tensor, s: Tensor) -> Tensor:
        ctx.save_for_backward(u, v_reset, s)
        return torch.where(s != 0, v_reset, u)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, v_reset, s = ctx.saved_tensors
        (a,) = grads
        return (
            torch.where(s != 0, torch.zeros_like(a), a),
            (a * s).sum_to_size(v_reset.shape),
            (v_reset - u) * a,
        )


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
    """:func:`lif_cuda.functional.lif` as a Python loop over time: same arguments, returns and errors.

    ``save`` changes what the kernels keep for backward; here it is checked, and autograd keeps what it needs.
    """
    parameters, chosen = of_call(beta, threshold, options)
    return run_neuron(x, parameters, membrane, chosen, lengths=lengths)


def run_neuron(
    x: Tensor,
    parameters: Parameters,
    membrane: State | None,
    options: CallOptions,
    settled: Settled | None = None,
    lengths: Tensor | None = None,
) -> Any:
    """:func:`lif` with its arguments in groups; ``settled``: what a layer knows of its calls."""
    checked = check_call(x, parameters, membrane, lengths, options, settled)
    options = checked.options
    if lengths is not None:
        check_range(lengths, x, options)
    if torch.is_grad_enabled():
        check_unlearned(options, parameters)

    def tensor(value: float | Tensor | None) -> Any:
        return None if value is None else torch.as_tensor(value, dtype=checked.state_dtype, device=x.device)

    own: Any = Parameters(*map(tensor, checked.parameters))
    gain, output = parameters.gain, options.output
    if options.decay_input:
        own = own._replace(gain=1 - own.beta)
    elif not isinstance(gain, Tensor) and gain == 1:
        own = own._replace(gain=None)  # a product with 1 changes nothing
    found, final = _loop(x, checked, options, *own)
    if isinstance(output, str):
        out = found[output]
    else:
        out = outputs_type(output)(*(found[name] for name in output))
    if not options.return_state:
        return out
    state = NeuronState(**{name: final[name] for name in checked.states})
    return out, state.membrane if len(checked.states) == 1 else state


def _loop(
    x: Tensor,
    checked: Checked,
    options: CallOptions,
    beta: Any,
    threshold: Any,
    v_reset: Any,
    gain: Any,
    alpha: Any,
    kappa: Any,
    rho: Any,
    v_min: Any,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All outputs asked for and the final states, by name; the parameters are tensors or None."""
    reset, strict, rest, refractory = options.reset, options.strict, options.rest, options.refractory
    time_dim, features, dtype = checked.time_dim, checked.features, checked.state_dtype
    names = output_names(options.output)
    counted = not {"count", "rate", "total"}.isdisjoint(names)

    def start(name: str) -> Tensor:
        value = checked.states.get(name)
        return torch.zeros(features, dtype=dtype, device=x.device) if value is None else value.clone()

    v, i, b, q = (start(name) for name in NeuronState._fields)
    count, first, alive = torch.zeros_like(v), torch.zeros_like(v), torch.ones_like(v)
    sum_v, top = torch.zeros_like(v), torch.full_like(v, -torch.inf)
    series: dict[str, list[Tensor]] = {name: [] for name in SERIES if name != "packed"}

    steps = options.steps
    currents = x.to(dtype).unbind(time_dim) if steps is None else (x.to(dtype),) * steps
    lengths = _own_lengths(checked, len(currents))
    for t, current in enumerate(currents):
        ending = _Ending(None if lengths is None else t < lengths)
        before_step = v, i, b, q
        current, v, i, b, q = (ending.or_zero(value) for value in (current, *before_step))

        # Integrate and leak.
        if alpha is not None:
            current = i = alpha * i + current
        drive = current if gain is None else gain * current
        before = v
        if options.delay_reset and reset == "zero":
            before = _ResetToValue.apply(v, v_reset, _fire(v, threshold, strict).to(dtype))
        u = beta * before + drive if rest == 0 else beta * (before - rest) + rest + drive
        if options.delay_reset and reset == "subtract":
            u = u - threshold * _fire(v, threshold, strict).to(dtype)
        if refractory:
            u = torch.where(q > 0, v, u)

        # Fire.
        level = threshold if kappa is None else threshold + kappa * b
        s = _Spike.apply(u, level, options.surrogate, strict)
        if refractory:
            s = torch.where(q > 0, torch.zeros_like(s), s)

        # Reset.
        by = s.detach() if options.detach_reset else s
        if options.delay_reset or reset == "none":
            v = u.view_as(u)  # a node of its own, so that gradients of v meet before they reach u
        elif reset == "subtract":
            v = u - level * by
        else:
            v = _ResetToValue.apply(u, v_reset, by)
        if v_min is not None:
            v = torch.clamp(v, min=v_min)
        if kappa is not None:
            b = rho * b + s
        if refractory:
            q = torch.where(s != 0, torch.full_like(q, refractory), (q - 1).clamp(min=0))

        # Read out: in the order in which the kernels add the gradients of v, the last use first.
        s, u = ending.or_zero(s), ending.or_zero(u)
        if counted:
            count = count + s
        if "first_spike" in names:
            alive = alive * (1 - s)
            first = first + ending.or_zero(alive)
        if "trace_mean" in names:
            sum_v = sum_v + ending.or_zero(v)
        if "trace_max" in names:  # which the first step reaches, and a NaN, as in torch.max
            first_step = not series["trace"]
            higher = (v > top) | (v.isnan() & ~top.isnan()) | first_step
            top = ending.or_else(torch.where(higher, v, top), top)
        for name, value in (("spikes", s), ("trace", ending.or_zero(v)), ("trace_before_reset", u)):
            series[name].append(value)
        # A sample that has ended stays as it was before.
        v, i, b, q = (ending.or_else(*pair) for pair in zip((v, i, b, q), before_step, strict=True))

    def stacked(name: str) -> Tensor:
        if series[name]:
            return torch.stack(series[name], time_dim).to(x.dtype)
        return x.new_zeros((*features[:time_dim], 0, *features[time_dim:]))

    found: dict[str, Any] = {name: stacked(name) for name in reversed(series) if name in names}
    # Divided by a tensor: eager CUDA divides by a number by multiplying with its reciprocal, which rounds
    # twice (7 / 24 is 0x1.2aaaacp-2 then, not 0x1.2aaaaap-2).
    if lengths is None:
        length = torch.full((), max(len(currents), 1), dtype=dtype, device=x.device)
    else:
        length = lengths.clamp(min=1).to(dtype)
    found |= {"count": count, "rate": count / length, "first_spike": first}
    found |= {"trace_max": top, "trace_mean": sum_v / length, "trace_last": v.clone()}
    if "packed" in names:
        found["packed"] = PackedSpikes.pack(stacked("spikes"))
    # After the rate, so that its gradient meets that of the count first, as in the kernels.
    if "total" in names:
        found["total"] = count.double().sum()
    return found, {"membrane": v, "current": i, "adaptation": b, "silence": q}


class _Ending:
    """Which samples of a padded batch take a step; None: all.

    The others compute one from zeros that nothing reads, so that whatever x holds for them, infinity and NaN,
    reaches no gradient.
    """

    def __init__(self, going: Tensor | None) -> None:
        self._going = going

    def or_else(self, value: Tensor, other: Tensor) -> Tensor:
        return value if self._going is None else torch.where(self._going, value, other)

    def or_zero(self, value: Tensor) -> Tensor:
        return value if self._going is None else torch.where(self._going, value, 0)


def _own_lengths(checked: Checked, steps: int) -> Tensor | None:
    """The time steps of each sample over the axes of one time step, if they have their own.

    On CUDA nobody has asked whether they are in range.
    """
    if checked.lengths is None:
        return None
    return checked.lengths.clamp(0, steps).view(-1, *(1,) * (len(checked.features) - 1))


class ReferenceLIF(LIFModule):
    """The layer of :class:`lif_cuda.LIF` in plain eager PyTorch: dozens of launches a time step.

    Same constructor, forward, ``step`` and state_dict keys; see :class:`lif_cuda.LIF` for them. It
    exists to be read, to be compared with, and to be timed against.
    """

    _lif = staticmethod(run_neuron)


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
    """:func:`lif_cuda.functional.recurrent_lif` as a Python loop, with a product of matrices a step.

    The product adds in an order of its own. So a membrane near its threshold can fire here and not there, and
    after that the two go different ways.
    """
    parameters, chosen = of_call(beta, threshold, {**options}, "recurrent_lif")
    return run_recurrent(x, weight, bias, parameters, state, chosen)


def run_recurrent(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    parameters: Parameters,
    state: RecurrentState | None,
    options: CallOptions,
    settled: Settled | None = None,
) -> Any:
    """:func:`recurrent_lif` with its arguments in groups; ``settled``: what a layer knows of its calls."""
    checked = check_recurrent_call(x, weight, bias, parameters, state, options, settled)
    options = checked.of_neurons.options
    found, final = _recurrent_loop(checked, options)
    output = options.output
    if isinstance(output, str):
        out: Any = found[output]
    else:
        out = outputs_type(output)(*(found[name] for name in output))
    return (out, final) if options.return_state else out


def _recurrent_loop(
    checked: CheckedRecurrent, options: CallOptions
) -> tuple[dict[str, Tensor], RecurrentState]:
    """All outputs by name, and the final state."""
    of_neurons = checked.of_neurons
    x, features, dtype, time_dim = (
        of_neurons.x,
        of_neurons.features,
        of_neurons.state_dtype,
        of_neurons.time_dim,
    )

    def tensor(value: float | Tensor | None) -> Any:
        return None if value is None else torch.as_tensor(value, dtype=dtype, device=x.device)

    own: Any = Parameters(*map(tensor, of_neurons.parameters))
    weight = checked.weight.to(dtype)
    bias = None if checked.bias is None else checked.bias.to(dtype)
    if checked.state is None:
        v = s = torch.zeros(features, dtype=dtype, device=x.device)
    else:
        v, s = checked.state.membrane.clone(), checked.state.spikes.clone()
    count = torch.zeros_like(v)
    spikes, trace = [], []
    currents = x.to(dtype).unbind(time_dim)
    for current in currents:
        fed_back = torch.nn.functional.linear(s, weight, bias)
        u = own.beta * v + own.gain * (current + fed_back)
        s = _Spike.apply(u, own.threshold, options.surrogate, options.strict)
        by = s.detach() if options.detach_reset else s
        v = u - own.threshold * by if options.reset == "subtract" else _ResetToValue.apply(u, own.v_reset, by)
        count = count + s
        spikes.append(s)
        trace.append(v)

    def stacked(values: list[Tensor]) -> Tensor:
        return torch.stack(values, time_dim).to(x.dtype) if values else x.clone()

    length = torch.full((), max(len(currents), 1), dtype=dtype, device=x.device)
    found = {"spikes": stacked(spikes), "trace": stacked(trace), "count": count, "rate": count / length}
    return found, RecurrentState(v, s)


class ReferenceRecurrentLIF(RecurrentModule):
    """The layer of :class:`lif_cuda.RecurrentLIF` in plain eager PyTorch, with the same state_dict keys."""

    _run_recurrent = staticmethod(run_recurrent)
