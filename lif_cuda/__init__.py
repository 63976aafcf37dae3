"""Fused leaky integrate-and-fire layers for PyTorch, on CPU and CUDA."""

from . import _fake as _fake
from . import functional, models, surrogate
from ._module import reset_states
from ._packed import PackedSpikes
from ._spike_conv import SpikeConv2d
from ._spike_linear import SpikeLinear
from ._state import NeuronState
from .decay import decay_of
from .layers import IF, LIF, AdaptiveLIF, CurrentLIF
from .memory import keep_memory
from .reference import ReferenceLIF

__version__ = "0.1.0"

__all__ = [
    "IF",
    "LIF",
    "AdaptiveLIF",
    "CurrentLIF",
    "NeuronState",
    "PackedSpikes",
    "ReferenceLIF",
    "SpikeConv2d",
    "SpikeLinear",
    "decay_of",
    "functional",
    "keep_memory",
    "models",
    "reset_states",
    "surrogate",
]
