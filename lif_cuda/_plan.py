"""What follows from the options and the shapes of a call: made once for all calls like it.

A plan is found again by all that the checks look at, so that what passed them once is not checked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _layout, _ops
from ._autograd import Call, node_of
from ._call import Checked, check_call
from ._layout import Layout
from ._ops import FIRST_PARAMETER, FLOOR, LENGTHS, STATES, TABLE
from ._options import CallOptions
from ._outputs import OUTPUTS, output_names
from ._parameters import Parameters, check_parameter
from ._settled import Settled
from ._torch_private import is_traced, untraced


class Plan(NamedTuple):
    """A call but for the values of its tensors."""

    call: Call
    layout: Layout
    options: CallOptions
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
    # Whether there is a tensor that must not require a gradient.
    guarded: bool
    # Time steps between the states that are kept for backward; 0: none are.
    every: int
    # Whether the surrogate is a table, and a tensor of the call.
    tabled: bool
    # The call under autograd, in C++; None where Python does its work.
    node: Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, ...]] | None

    @property
    def steps(self) -> int:
        """The number of time steps as the operators take it: -1 where x has a time axis."""
        return -1 if self.options.steps is None else self.options.steps

    def table(self, x: Tensor) -> Tensor:
        """The table of a surrogate that is one, on the device of x."""
        table = self.options.surrogate.values(self.state_dtype, x.device)
        assert table is not None
        return table

    def given(self, x: Tensor, parameters: Parameters, membrane: Any, lengths: Tensor | None) -> list[Tensor]:
        """The tensors of states, parameters and lengths as the operators take them, in the order of slots."""
        order = self.layout.features
        given: list[Tensor] = []
        if membrane is not None:
            states = (membrane,) if isinstance(membrane, Tensor) else membrane
            given += [_layout.arrange(state, order).contiguous() for state in states if state is not None]
        beta = len(given)  # its place, if it is a tensor
        for i, direct in self.tensors:
            value: Any = parameters[i]
            if direct is None:
                given.append(1 - given[beta])
            elif direct:
                given.append(value.contiguous())
            else:
                name = Parameters._fields[i]
                checked = check_parameter(name, value, x, self.features, self.channel_dim)
                assert isinstance(checked, Tensor)
                given.append(_layout.arrange_parameter(checked, self.features, order))
        if lengths is not None:
            by_sample = lengths.view(-1, *(1,) * (len(self.features) - 1))
            given.append(_layout.arrange_parameter(by_sample, self.features, order))
        return given


# The plans of calls that passed their checks, by all that the checks look at.
_PLANS: dict[Any, Plan] = {}
_MOST_PLANS = 4096


def forget() -> None:
    """Forget all plans: the next call of each kind is checked and planned anew."""
    _PLANS.clear()


def plan_of(
    x: Tensor,
    parameters: Parameters,
    membrane: Any,
    lengths: Tensor | None,
    options: CallOptions,
    settled: Settled | None,
) -> Plan:
    """The plan of a call; raises what the checks of a new one raise."""
    if torch.compiler.is_compiling():
        return new_plan(x, parameters, membrane, lengths, options, settled)
    try:
        key = _key(x, parameters, membrane, lengths, options, settled)
        known = _PLANS.get(key)
    except (AttributeError, RuntimeError, TypeError):
        # An argument is not of the kind that it should be, and so without a shape, strides or a hash. The
        # checks say which, and what to do.
        return new_plan(x, parameters, membrane, lengths, options, settled)
    if known is not None:
        return known
    if is_traced():
        with untraced():
            return new_plan(x, parameters, membrane, lengths, options, settled)
    plan = new_plan(x, parameters, membrane, lengths, options, settled)
    if len(_PLANS) >= _MOST_PLANS:
        _PLANS.clear()
    _PLANS[key] = plan
    return plan


def _key(
    x: Tensor,
    parameters: Parameters,
    membrane: Any,
    lengths: Tensor | None,
    options: CallOptions,
    settled: Settled | None,
) -> Any:
    """What a plan depends on. Types stand beside values: True and 1 are equal, and not the same option."""
    of_options: Any = settled
    of_parameters: Any = None
    if settled is None or not settled.for_good:
        surrogate = options.surrogate
        # Its numbers too: a surrogate of a user's own may be equal to itself and have changed.
        numbers = (surrogate.code, surrogate.slope, surrogate.height)
        of_options = (settled, options, (*map(type, options),), numbers)
        of_parameters = (*[_meta(v) if isinstance(v, Tensor) else (v, type(v)) for v in parameters],)
    elif settled.tensors:
        tensors: Any = parameters
        of_parameters = (*[_meta(tensors[i]) for i in settled.tensors],)
    of_state: Any = None
    if membrane is not None:
        states = (membrane,) if isinstance(membrane, Tensor) else membrane
        of_state = (
            type(membrane),
            *[tensor if tensor is None else _meta(tensor) for tensor in states],
        )
    strides = x.is_contiguous() or x.stride()
    of_lengths = lengths if lengths is None else _meta(lengths)
    return (x.shape, strides, x.dtype, x.device, of_options, of_parameters, of_state, of_lengths)


def _meta(tensor: Tensor) -> tuple[Any, ...]:
    """What the checks look at of a tensor."""
    return tensor.shape, tensor.dtype, tensor.device, tensor.layout


def new_plan(
    x: Tensor,
    parameters: Parameters,
    membrane: Any,
    lengths: Tensor | None,
    options: CallOptions,
    settled: Settled | None,
) -> Plan:
    """Check a call, and plan it."""
    checked = check_call(x, parameters, membrane, lengths, options, settled)
    options = checked.options
    _ops.check_device(x)
    by_sample = checked.lengths is not None
    layout = _layout.layout_of(x, checked.time_dim, options.steps is not None, by_sample)
    call = _call(checked, layout)
    compiling = torch.compiler.is_compiling()
    length = x.shape[checked.time_dim] if options.steps is None else options.steps
    every = 0 if call.bits else _ops.checkpoint_interval(x.device.type)
    if not compiling and length <= every:
        every = 0  # no rows; a program that is compiled for any T has them as an empty tensor
    tabled = options.surrogate.values(checked.state_dtype, x.device) is not None
    node = None
    if not compiling:
        with_table = call._replace(slots=(*call.slots, TABLE)) if tabled else call
        node = node_of(with_table, -1 if options.steps is None else options.steps, every)
    names = tuple(checked.states)
    as_it_lies = layout == Layout(layout.time_dim)
    return Plan(
        call,
        layout,
        options,
        checked.features,
        checked.channel_dim,
        names,
        checked.state_dtype,
        _tensors(checked, parameters, layout),
        as_it_lies,
        as_it_lies
        and len(names) == 1
        and isinstance(options.output, str)
        and options.output != "packed"
        and (options.output != "trace_last" or not options.return_state),
        call.bits or FLOOR in call.slots,
        every,
        tabled,
        node,
    )


def _by_tensor(checked: Checked) -> list[bool]:
    """Of each parameter, whether the operators take a tensor of it."""
    by_tensor = [isinstance(value, Tensor) for value in checked.parameters]
    if checked.options.decay_input and by_tensor[0]:
        by_tensor[Parameters._fields.index("gain")] = True
    return by_tensor


def _call(checked: Checked, layout: Layout) -> Call:
    """The call as the operators are told of it."""
    options, parameters = checked.options, checked.parameters
    surrogate = options.surrogate
    traits = (
        _ops.STRICT * options.strict
        + _ops.DELAYED * options.delay_reset
        + _ops.DETACH_RESET * options.detach_reset
        + _ops.SYNAPSE * (parameters.alpha is not None)
        + _ops.ADAPTIVE * (parameters.kappa is not None)
        + _ops.DECAY_INPUT * options.decay_input
        + _ops.FLOORED * (parameters.v_min is not None)
    )
    asked_for = output_names(options.output)
    if "packed" in asked_for:
        check_packed(checked, layout)
        asked_for = ("spikes", *asked_for)  # which autograd knows them by
    asked = [name for name in _ops.OUTPUTS if name in asked_for and name in OUTPUTS]
    names = tuple(checked.states)
    slots = [STATES.index(name) for name in names if checked.states[name] is not None]
    slots += [FIRST_PARAMETER + i for i, tensor in enumerate(_by_tensor(checked)) if tensor]
    slots += [LENGTHS] if checked.lengths is not None else []
    last = ("membrane",) if "trace_last" in asked_for else ()
    results = (*asked, *(names if options.return_state else last))
    numbers = [0.0 if v is None or isinstance(v, Tensor) else float(v) for v in parameters]
    return Call(
        [*numbers, float(options.rest), float(surrogate.slope), float(surrogate.height)],
        layout,
        (_ops.RESETS[options.reset], traits, options.refractory, surrogate.code),
        results,
        sum([_ops.OUTPUTS[name] for name in results]),
        tuple(slots),
        options.save == "bits",
        "trace_max" in asked,
    )


def check_packed(checked: Checked, layout: Layout) -> None:
    """Raise unless the last axis of spikes can be packed."""
    last = len(checked.features)
    if layout.features is not None and layout.features[-1] != last - 1:
        raise ValueError(
            "x must have its last axis innermost in memory with output='packed', which packs along it; use "
            "x.contiguous()"
        )


def _tensors(checked: Checked, parameters: Parameters, layout: Layout) -> tuple[tuple[int, bool | None], ...]:
    """``Plan.tensors``, for the parameters as they were given."""
    tensors: list[tuple[int, bool | None]] = []
    for i, by_tensor in enumerate(_by_tensor(checked)):
        value = parameters[i]
        if isinstance(value, Tensor):
            direct = (
                value.dtype == checked.state_dtype
                and layout.features is None
                and (checked.channel_dim is None or value.dim() != 1)
                and _layout.is_block(value.shape)
            )
            tensors.append((i, direct))
        elif by_tensor:
            tensors.append((i, None))
    return tuple(tensors)
