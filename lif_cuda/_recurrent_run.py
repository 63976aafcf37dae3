"""Recurrent neurons by the fused operators, with their arguments in groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _ops
from ._autograd import NO_FORWARD_MODE
from ._call import Checked
from ._options import CallOptions
from ._outputs import SERIES, output_names, outputs_type
from ._parameters import Parameters
from ._recurrent import check_recurrent_call
from ._recurrent_autograd import Forward, FusedRecurrent, RecurrentCall, recorded_in_a_graph, run
from ._settled import Settled
from ._state import RecurrentState
from ._torch_private import has_tangent, is_distributed, makes_a_program, transforms_are_active


def run_recurrent(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    parameters: Parameters,
    state: RecurrentState | None,
    options: CallOptions,
    settled: Settled | None = None,
) -> Any:
    """:func:`lif_cuda.functional.recurrent_lif`; ``settled``: what a layer knows of its calls."""
    if is_distributed(x):
        raise NotImplementedError(
            "x must not be a DTensor for recurrent neurons, whose spikes reach all of them; shard the batch "
            "with DistributedDataParallel, or pass x.to_local()"
        )
    checked = check_recurrent_call(x, weight, bias, parameters, state, options, settled)
    _ops.check_device(x)
    of_neurons, options = checked.of_neurons, checked.of_neurons.options
    features = of_neurons.features
    samples = 1
    for size in features[:-1]:
        samples *= size
    rows = x.movedim(of_neurons.time_dim, 0)
    steps = rows.shape[0]
    rows = rows.reshape(steps, samples, checked.neurons)
    given: dict[str, Tensor] = {}
    if bias is not None:
        given["bias"] = bias
    if state is not None:
        given["membrane"] = state.membrane.reshape(samples, checked.neurons)
        given["fired"] = state.spikes.reshape(samples, checked.neurons)
    for name in ("beta", "threshold"):
        value = getattr(of_neurons.parameters, name)
        if isinstance(value, Tensor):
            given[name] = value
    table = options.surrogate.values(of_neurons.state_dtype, x.device)
    if table is not None:
        given["table"] = table
    call = _call(of_neurons, options, given)
    tensors = (rows, weight, *given.values())
    if has_tangent(tensors):
        raise NotImplementedError(NO_FORWARD_MODE)
    if transforms_are_active():
        results = Forward.apply(call, *tensors)[: len(call.results)]
    elif makes_a_program():
        results = recorded_in_a_graph(call, *tensors)
    elif torch.is_grad_enabled() and any([tensor.requires_grad for tensor in tensors]):
        results = FusedRecurrent.apply(call, *tensors)
    else:
        results = run(call, False, *tensors)
    return _as_asked(dict(zip(call.results, results, strict=True)), options, of_neurons, steps)


def _call(checked: Checked, options: CallOptions, given: dict[str, Tensor]) -> RecurrentCall:
    """The call as the operators are told of it."""
    surrogate = options.surrogate
    asked = output_names(options.output)
    results = tuple([name for name in _ops.RECURRENT_OUTPUTS if name in asked])
    if options.return_state:
        results += ("membrane", "fired")
    numbers: list[Any] = [
        getattr(checked.parameters, name) for name in ("beta", "threshold", "v_reset", "gain")
    ]
    floats = [0.0 if isinstance(value, Tensor) else float(value) for value in numbers]
    return RecurrentCall(
        (_ops.RESETS[options.reset], int(options.strict), int(options.detach_reset), surrogate.code),
        [*floats, float(surrogate.slope), float(surrogate.height)],
        results,
        tuple(given),
    )


def _as_asked(found: dict[str, Tensor], options: CallOptions, checked: Checked, steps: int) -> Any:
    """The results of the operators as the user asked for them."""
    features, time_dim, output = checked.features, checked.time_dim, options.output

    def shaped(name: str) -> Tensor:
        if name not in SERIES:
            return found[name].reshape(features)
        return found[name].reshape(steps, *features).movedim(0, time_dim)

    if isinstance(output, str):
        out: Any = shaped(output)
    else:
        out = outputs_type(output)(*[shaped(name) for name in output])
    if not options.return_state:
        return out
    return out, RecurrentState(shaped("membrane"), shaped("fired"))
