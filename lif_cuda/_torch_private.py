"""The private parts of torch that are used, each with the reason why nothing public would do."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Whether a transform of torch.func is at work. torch.autograd.Function.apply asks the same, and there is no
# public way to.
transforms_are_active = torch._C._are_functorch_transforms_active


# Whether torch.jit.trace records what is called. torch.jit.is_tracing asks the same, and takes longer at each
# call of a layer.
is_traced = torch._C._is_tracing


def makes_a_program() -> bool:
    """Whether the call is exported or traced: what it does is to be done again, on other tensors."""
    if torch.compiler.is_compiling():  # which cannot ask the tracer
        # torch.compiler.is_exporting() returns this; torch.compile of torch 2.11 takes it for True always.
        return torch.compiler._is_exporting_flag
    return bool(is_traced())


@contextmanager
def untraced() -> Iterator[None]:
    """Code that torch.jit.trace does not see, for which sizes are numbers again, and not tensors."""
    private: Any = torch._C  # whose stubs lack what sets it
    state = private._get_tracing_state()
    private._set_tracing_state(None)
    try:
        yield
    finally:
        private._set_tracing_state(state)


# A context in which operators go to the kernels below autograd, as an Autograd kernel needs that has nothing
# to record; torch has a public one in C++ only.
below_autograd = torch._C._AutoDispatchBelowAutograd


def backward_is_running() -> bool:
    """Whether this call is part of a backward pass: a recomputation under activation checkpointing.

    There is no public way to tell a recomputation from a first pass, and a stateful layer advances in one of
    them only. torch.compile cannot ask and breaks its graph here; it need not where there are no gradients,
    and so no recomputations.
    """
    if torch.compiler.is_compiling() and not torch.is_grad_enabled():
        return False
    return bool(torch._C._current_graph_task_id() != -1)


def has_tangent(tensors: Iterable[Tensor]) -> bool:
    """Whether one of the tensors carries a forward-mode derivative.

    Only inside of a dual level, which few calls are, has a tensor one; to look at each costs a microsecond,
    and the level itself is not public.
    """
    if forward_ad._current_level < 0:
        return False
    return any([forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors])


def is_distributed(x: object) -> bool:
    """Whether ``x`` is a DTensor: there is none before its module is imported, and here it is not."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def has_kernel(operator: str, dispatch_key: str) -> bool:
    """Whether an operator has a kernel under this key: what ``python -m lif_cuda info`` reports."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(operator, dispatch_key))
