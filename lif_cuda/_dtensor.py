"""LIF layers on distributed tensors: each process runs the kernels on its own part of the neurons.

Neurons do not depend on each other, so an x that is sharded over its batch or over its features passes
through with no communication: spikes and states come out sharded as x is, parameters with a value for each
neuron are taken in the same parts. Where x is sharded over the batch, the gradient of a parameter is a sum
over the processes, and DTensor adds it up. Time steps do depend on each other: time is never sharded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from ._call import check_channel_dim, check_input
from ._options import CallOptions
from ._outputs import SERIES, output_names
from ._parameters import Parameters, check_neurons
from ._state import NeuronState


class Parts:
    """A call on distributed tensors: the arguments of this process's own call, and what its results make.

    Raises:
        ValueError: x is sharded over time, or is a sum that has not been added up; or a parameter is.
        TypeError: a state is not a DTensor.
    """

    def __init__(self, x: Tensor, options: CallOptions) -> None:
        assert isinstance(x, DTensor)
        if "packed" in output_names(options.output):
            raise ValueError(
                "output='packed' is not for DTensors, whose parts would share words; use output='spikes'"
            )
        _, time_dim, features = check_input(x, options.steps, options.time_dim)
        timed = options.steps is None
        _check_placements(x, time_dim if timed else None)
        self._whole = x
        self._options = options
        self._time_dim = time_dim
        self._features = features
        self._channel_dim = check_channel_dim(options.channel_dim, x, options.steps, time_dim)
        # Where tensors without a time axis are sharded, and those with one.
        self._of_state = [
            Shard(p.dim % x.dim() - (timed and p.dim % x.dim() > time_dim)) if isinstance(p, Shard) else p
            for p in x.placements
        ]
        self._of_series = [
            Shard(p.dim + (p.dim >= time_dim)) if isinstance(p, Shard) else p for p in self._of_state
        ]

    def check_neurons(self, neurons: tuple[int, ...]) -> None:
        """Raise unless all processes together have the neurons of the layer."""
        check_neurons(neurons, self._features, self._channel_dim)

    def x(self) -> Tensor:
        """This process's part of x."""
        return self._whole.to_local(grad_placements=self._whole.placements)

    def parameters(self, parameters: Parameters) -> Parameters:
        """This process's part of the parameters: of the neurons that it has."""
        return Parameters._make(
            self._parameter(name, value) for name, value in zip(Parameters._fields, parameters, strict=True)
        )

    def _parameter(self, name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        mesh = self._whole.device_mesh
        whole = value
        if not isinstance(whole, DTensor):
            whole = DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)
        # The axis of one time step at which the parameter begins.
        first = len(self._features) - whole.dim()
        if self._channel_dim is not None and whole.dim() == 1:
            first = self._channel_dim
        placements: list[Placement] = []
        grads: list[Placement] = []
        for old, p in zip(whole.placements, self._of_state, strict=True):
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

    def state(self, membrane: Any) -> Any:
        """This process's part of the state before the first step."""
        if isinstance(membrane, NeuronState):
            return NeuronState._make(map(self._state, membrane))
        return self._state(membrane)

    def _state(self, state: Any) -> Any:
        if state is None:
            return None
        if not isinstance(state, DTensor):
            raise TypeError(
                f"membrane must be a DTensor like x, got {type(state).__name__}; use the state that an "
                "earlier call returned, or torch.distributed.tensor.distribute_tensor"
            )
        return state.redistribute(placements=self._of_state).to_local(grad_placements=self._of_state)

    def lengths(self, lengths: Any) -> Any:
        """This process's part of the lengths: of the samples that it has."""
        if not isinstance(lengths, Tensor):
            return lengths
        mesh = self._whole.device_mesh
        whole = lengths
        if not isinstance(whole, DTensor):
            whole = DTensor.from_local(lengths, mesh, [Replicate()] * mesh.ndim, run_check=False)
        placements = [p if isinstance(p, Shard) and p.dim == 0 else Replicate() for p in self._of_state]
        return whole.redistribute(placements=placements).to_local()

    def whole(self, results: Any) -> Any:
        """The results of all processes as DTensors, of which these are this process's part."""
        options = self._options
        out = results[0] if options.return_state else results
        if isinstance(options.output, str):
            out = self._output(options.output, out)
        else:
            out = type(out)(*map(self._output, out._fields, out))
        if not options.return_state:
            return out
        state = results[1]
        if not isinstance(state, NeuronState):
            return out, self._output("membrane", state)
        parts = [None if part is None else self._output("membrane", part) for part in state]
        return out, NeuronState._make(parts)

    def _output(self, name: str, tensor: Tensor) -> DTensor:
        mesh = self._whole.device_mesh
        if name == "total":
            sums: Sequence[Placement] = [Partial() if isinstance(p, Shard) else p for p in self._of_state]
            return DTensor.from_local(tensor, mesh, sums, run_check=False)
        sizes = list(self._features)
        if name in SERIES:
            steps = self._options.steps
            sizes.insert(self._time_dim, self._whole.shape[self._time_dim] if steps is None else steps)
        return DTensor.from_local(
            tensor,
            mesh,
            self._of_series if name in SERIES else self._of_state,
            run_check=False,
            shape=torch.Size(sizes),
            stride=torch.empty(sizes, device="meta").stride(),
        )


def _check_placements(x: DTensor, time_dim: int | None) -> None:
    """Raise unless each process has all time steps of its neurons; ``time_dim`` None: x has no time axis."""
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
        if isinstance(placement, Shard) and placement.dim % x.dim() == time_dim:
            raise ValueError(
                f"x must not be sharded over its time axis {time_dim}, got {x.placements}: a time step needs "
                "the one before it; shard the batch or the features with x.redistribute(placements=...)"
            )
