"""Fused leaky integrate-and-fire layers for PyTorch, on CPU and CUDA."""

from . import _fake as _fake
from . import functional, models, surrogate
from ._module import reset_states
from ._state import NeuronState, RecurrentState
from .decay import decay_of
from .layers import IF, LIF, AdaptiveLIF, CurrentLIF, RecurrentLIF
from .memory import keep_memory
from .reference import ReferenceLIF, ReferenceRecurrentLIF

__version__ = "0.1.0"

__all__ = [
    "IF",
    "LIF",
    "AdaptiveLIF",
    "CurrentLIF",
    "NeuronState",
    "RecurrentLIF",
    "RecurrentState",
    "ReferenceLIF",
    "ReferenceRecurrentLIF",
    "decay_of",
    "functional",
    "keep_memory",
    "models",
    "reset_states",
    "surrogate",
]
