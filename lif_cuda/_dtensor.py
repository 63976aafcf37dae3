"""LIF layers on distributed tensors: each process runs the kernels on its own part of the neurons.

Neurons do not depend on each other, so an x that is sharded over its batch or over its features passes
through with no communication: spikes and states come out sharded as x is, parameters with a value for each
neuron are taken in the same parts. Where x is sharded over the batch, the gradient of a parameter is a sum
over the processes, and DTensor adds it up. Time steps do depend on each other: time is never sharded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from . import _check
from ._check import CallOptions, NeuronState, Parameters

_TIMED = ("spikes", "trace", "trace_before_reset")


def lif(
    call: Callable[..., Any], x: Tensor, parameters: Parameters, membrane: Any, options: CallOptions
) -> Any:
    """``call``, which is ``functional.lif``, on the part of each process.

    Raises:
        ValueError: x is sharded over time, or is a sum that has not been added up; or a parameter is.
        TypeError: a state is not a DTensor.
    """
    assert isinstance(x, DTensor)
    mesh = x.device_mesh
    _, time_dim, features = _check.check_input(x, options.steps, options.time_dim)
    channel_dim = _check.check_channel_dim(options.channel_dim, x, options.steps, time_dim)
    timed = options.steps is None
    for placement in x.placements:
        if isinstance(placement, Partial):
            raise ValueError(
                "x must be sharded or replicated, got a DTensor with partial sums; add them up with "
                "x.redistribute(placements=...)"
            )
        if type(placement) is not Replicate and type(placement) is not Shard:
            raise ValueError(
                f"x must be placed by Shard or Replicate, got {placement}; use x.redistribute(placements=...)"
            )
        if timed and isinstance(placement, Shard) and placement.dim % x.dim() == time_dim:
            raise ValueError(
                f"x must not be sharded over its time axis {time_dim}, got {x.placements}: a time step needs "
                "the one before it; shard the batch or the features with x.redistribute(placements=...)"
            )
    # Of the tensors without a time axis, and of those with one.
    of_state = [
        Shard(p.dim % x.dim() - (timed and p.dim % x.dim() > time_dim)) if isinstance(p, Shard) else p
        for p in x.placements
    ]
    of_series = [Shard(p.dim + (p.dim >= time_dim)) if isinstance(p, Shard) else p for p in of_state]

    def local_parameter(name: str, value: float | Tensor | None) -> float | Tensor | None:
        if not isinstance(value, Tensor):
            return value
        whole = value
        if not isinstance(whole, DTensor):
            whole = DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)
        first = len(features) - whole.dim()  # the axis of one time step at which the parameter begins
        if channel_dim is not None and whole.dim() == 1:
            first = channel_dim
        placements: list[Placement] = []
        grads: list[Placement] = []
        for old, p in zip(whole.placements, of_state, strict=True):
            if isinstance(old, Partial):
                raise ValueError(
                    f"{name} must be sharded or replicated, got a DTensor with partial sums; "
                    f"add them up with {name}.redistribute(placements=...)"
                )
            at = p.dim - first if isinstance(p, Shard) else -1
            own = 0 <= at < whole.dim() and whole.shape[at] != 1
            placements.append(Shard(at) if own else Replicate())
            grads.append(Shard(at) if own else Partial() if isinstance(p, Shard) else Replicate())
        return whole.redistribute(placements=placements).to_local(grad_placements=grads)

    def local_state(state: Tensor | None) -> Tensor | None:
        if state is None:
            return None
        if not isinstance(state, DTensor):
            raise TypeError(
                f"membrane must be a DTensor like x, got {type(state).__name__}; use the state that an "
                "earlier call returned, or torch.distributed.tensor.distribute_tensor"
            )
        return state.redistribute(placements=of_state).to_local(grad_placements=of_state)

    def whole_output(name: str, tensor: Tensor) -> DTensor:
        if name == "total":
            sums: Sequence[Placement] = [Partial() if isinstance(p, Shard) else p for p in of_state]
            return DTensor.from_local(tensor, mesh, sums, run_check=False)
        sizes = list(features)
        if name in _TIMED:
            sizes.insert(time_dim, x.shape[time_dim] if options.steps is None else options.steps)
        stride = torch.empty(sizes, device="meta").stride()
        return DTensor.from_local(
            tensor,
            mesh,
            of_series if name in _TIMED else of_state,
            run_check=False,
            shape=torch.Size(sizes),
            stride=stride,
        )

    local = {n: local_parameter(n, v) for n, v in zip(Parameters._fields, parameters, strict=True)}
    own_state: Any = (
        NeuronState._make(map(local_state, membrane))
        if isinstance(membrane, NeuronState)
        else local_state(membrane)
    )
    results = call(
        x.to_local(grad_placements=x.placements),
        membrane=own_state,
        **local,
        **options._asdict(),
    )
    out = results[0] if options.return_state else results
    if isinstance(options.output, str):
        out = whole_output(options.output, out)
    else:
        out = type(out)(*map(whole_output, out._fields, out))
    if not options.return_state:
        return out
    state = results[1]
    if not isinstance(state, NeuronState):
        return out, whole_output("membrane", state)
    parts = [None if part is None else whole_output("membrane", part) for part in state]
    return out, NeuronState._make(parts)
