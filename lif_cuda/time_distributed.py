"""Modules without a time axis, applied to all time steps at once."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from . import _check
from ._module import LIFModule

# Names under which the ``forward`` of a module with a state takes it.
_STATES = frozenset(("state", "states", "membrane", "mem", "hx", "hidden"))
# Where such classes come from that keep their state to themselves.
_STATEFUL = (
    "snntorch._neurons",
    "spikingjelly.activation_based.base",
    "norse.torch.module.snn",
    "sinabs.layers.stateful_layer",
)
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class TimeDistributed(nn.Module):
    """Apply a module without a state to each time step of x, [T, B, ...], in one call.

    Time is folded into the batch: convolutions, norms, pooling, ``nn.Flatten`` and ``nn.Sequential`` of them
    see [T * B, ...], and what comes out is unfolded. A batch norm takes its statistics over T * B, as
    SpikingJelly's ``SeqToANNContainer`` has them. Memory in ``channels_last`` stays so. Nothing is copied
    where the first two axes lie one after the other, as in the output of a layer of this package.
    [B, T, ...] is folded as well.

    Args:
        module: of one time step, [B, ...] to [B, ...].

    Raises:
        TypeError: ``module`` is no ``nn.Module``.
        ValueError: it has a state, and so needs the time axis; the message names which.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be an nn.Module, got {_check.type_name(module)}")
        for name, part in module.named_modules():
            if _has_state(part):
                which = f"{type(part).__name__} ({name or 'module itself'})"
                raise ValueError(
                    f"module must have no state, and {which} has one: it needs the time axis that is folded "
                    "away. Let it follow the TimeDistributed, and not be in it"
                )
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Apply the module to x, [T, B, ...].

        Raises:
            TypeError: x is no tensor.
            ValueError: x has fewer than two axes, or what the module returns does not begin with T * B.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a torch.Tensor, got {_check.type_name(x)}")
        if x.dim() < 2:
            raise ValueError(f"x must be [T, B, ...], got {tuple(x.shape)}")
        times, batch = x.shape[:2]
        out: Tensor = self.module(_folded(x))
        if not isinstance(out, Tensor) or out.dim() < 1 or out.shape[0] != times * batch:
            what = tuple(out.shape) if isinstance(out, Tensor) else _check.type_name(out)
            raise ValueError(
                f"module must return a tensor that begins with T * B = {times * batch}, got {what}; it sees "
                "[T * B, ...], so that nn.Flatten has to begin at 1"
            )
        unfolded: Tensor = out.unflatten(0, (times, batch))
        return unfolded


def _folded(x: Tensor) -> Tensor:
    """x with its first two axes as one, in the memory format of its steps."""
    if x.shape[1] == 1 or x.stride(0) == x.shape[1] * x.stride(1):
        return x.flatten(0, 1)
    step_format = _CHANNELS_LAST.get(x.dim() - 1)
    if step_format is not None and x[:1, :1].flatten(0, 1).is_contiguous(memory_format=step_format):
        return x.flatten(0, 1).contiguous(memory_format=step_format)
    return x.flatten(0, 1)


def _has_state(module: nn.Module) -> bool:
    if isinstance(module, LIFModule | nn.RNNBase | nn.RNNCellBase):
        return True
    if any(kind.__module__.startswith(_STATEFUL) for kind in type(module).__mro__):
        return True
    return not _STATES.isdisjoint(inspect.signature(module.forward).parameters)
