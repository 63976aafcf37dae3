"""What is timed: calls without arguments, which do the same each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def call_of(
    run: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor, training: bool, learned: Sequence[Tensor] = ()
) -> Callable[[], object]:
    """One forward call without gradients, or a forward and backward pass to x and what is ``learned``."""
    if not training:

        def forward() -> object:
            with torch.no_grad():
                return run(x)

        return forward
    leaf = x.detach().requires_grad_()
    return lambda: torch.autograd.grad(run(leaf), [leaf, *learned], grad)


def copy_of(x: Tensor, grad: Tensor, training: bool) -> Callable[[], object]:
    """The bytes of the case and nothing else."""
    state = torch.zeros(x.shape[1:], device=x.device)
    if training:
        return lambda: (x.clone(), state.clone(), x + grad)
    return lambda: (x.clone(), state.clone())
