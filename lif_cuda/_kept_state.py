"""The state that a stateful layer keeps from one call to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._check import STATE_DTYPES, type_name
from ._options import CallOptions
from ._state import NeuronState, RecurrentState
from ._torch_private import backward_is_running, makes_a_program, transforms_are_active

# A NeuronState, or a RecurrentState.
Kept = Any


class KeptState:
    """What a layer keeps, and what a recomputation under activation checkpointing goes back to.

    It is no buffer of the layer. What belongs to one process and one batch must not be sent to other
    processes, as DistributedDataParallel does with buffers, nor be averaged with that of other steps.
    """

    def __init__(self) -> None:
        self.state: Kept | None = None
        # The state before the last call, and the calls since the last recomputation; 2 stands for more, since
        # torch.compile makes code for each number.
        self._before: Kept | None = None
        self._calls = 0
        # Whether the call that runs is a recomputation, and whether the one before it was.
        self._recomputes = False
        self._after_backward = False

    def reset(self, state: Kept | None = None) -> None:
        """Start from ``state``, and forget the calls so far."""
        self.state = state
        self._before = None
        self._calls = 0

    def move(self, function: Callable[[Tensor], Tensor]) -> None:
        """Go where ``function``, which ``nn.Module.to`` and its like apply to each tensor, puts the state.

        Its dtype is that of the neuron's arithmetic, which follows from x, and not the layer's: it stays.
        """

        def moved(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            there = function(tensor)
            return there if there.dtype == tensor.dtype else tensor.to(there.device)

        for name in ("state", "_before"):
            state: Kept | None = getattr(self, name)
            if state is not None:
                setattr(self, name, type(state)._make(map(moved, state)))

    def begin(self, x: object, options: CallOptions) -> Kept | None:
        """The state before a call on ``x`` with these options.

        Raises:
            RuntimeError: a transform of torch.func is at work, or the call is exported or traced; or a
                recomputation has no state to go back to.
            ValueError: the state is that of another batch size.
        """
        if transforms_are_active():
            raise RuntimeError(
                "a stateful layer cannot keep its state under a transform of torch.func (vmap, grad, ...), "
                "whose tensors do not outlive it; pass the state through the call: stateful=False"
            )
        if makes_a_program():
            raise RuntimeError(
                "a stateful layer cannot be exported or traced: the program would start each call from the "
                "same state; pass the state through the call: stateful=False"
            )
        recomputes = backward_is_running()
        if recomputes and self._calls > 1:
            raise RuntimeError(
                "a stateful layer is recomputed under activation checkpointing after several calls, and only "
                "the state before the last one is known; call backward after each, call reset_state() after "
                "calls without a backward pass, or pass the state through the call: stateful=False"
            )
        start = self._before if recomputes else self.state
        if isinstance(x, Tensor) and start is not None:
            start = _ready(start, x, options)
        # Said before the call: a recomputation is left in its midst, as soon as all that was saved is there.
        self._after_backward, self._recomputes = self._recomputes, recomputes
        return start

    def end(self, start: Kept | None, final: Kept, training: bool) -> None:
        """Keep the state after a call that began at ``start``; a recomputation does not advance it."""
        if self._recomputes:
            return
        self._before = start
        counts = training or torch.is_grad_enabled()
        self._calls = min((0 if self._after_backward else self._calls) + counts, 2)
        self.state = final


def detached(state: Kept) -> Kept:
    """The state without its history.

    From a list, here and below: torch.compile of torch 2.11 cannot make a tuple of a generator that it keeps.
    """
    return type(state)._make([None if tensor is None else tensor.detach() for tensor in state])


def checked_start(state: object, kind: type[NeuronState] | type[RecurrentState]) -> Kept | None:
    """A state of this kind to start from, or raise TypeError unless it is one."""
    if state is None or isinstance(state, kind):
        return state
    if kind is RecurrentState:
        raise TypeError(
            "state must be a lif_cuda.RecurrentState (membrane, spikes), or None for zeros; got "
            f"{type_name(state)}"
        )
    if isinstance(state, Tensor):
        return NeuronState(state)
    raise TypeError(
        "state must be a tensor (the membrane), a lif_cuda.NeuronState, or None for zeros; got "
        f"{type_name(state)}"
    )


def _ready(state: Kept, x: Tensor, options: CallOptions) -> Kept:
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
    dtype = STATE_DTYPES.get(x.dtype, x.dtype)
    ready = type(state)._make([None if tensor is None else tensor.to(dtype) for tensor in state])
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return ready
    if state.membrane.is_inference():
        # Made in inference mode, from which autograd takes nothing but copies.
        return type(state)._make([None if tensor is None else tensor.clone() for tensor in ready])
    return ready
