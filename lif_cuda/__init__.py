"""Fused leaky integrate-and-fire layers for PyTorch, on CPU and CUDA."""

from . import _fake as _fake
from . import encoding, functional, models, plot, surrogate
from ._convert import Conversion, convert, convert_state_dict
from ._module import reset_states
from ._nir import from_nir, to_nir
from ._packed import PackedSpikes
from ._spike_conv import SpikeConv2d
from ._spike_linear import SpikeLinear
from ._state import NeuronState, RecurrentState
from .decay import decay_of
from .layers import IF, LI, LIF, AdaptiveLIF, CurrentLIF, RecurrentLIF
from .memory import keep_memory
from .reference import ReferenceLIF, ReferenceRecurrentLIF
from .time_distributed import TimeDistributed

__version__ = "0.1.0"

__all__ = [
    "IF",
    "LI",
    "LIF",
    "AdaptiveLIF",
    "Conversion",
    "CurrentLIF",
    "NeuronState",
    "PackedSpikes",
    "RecurrentLIF",
    "RecurrentState",
    "ReferenceLIF",
    "ReferenceRecurrentLIF",
    "SpikeConv2d",
    "SpikeLinear",
    "TimeDistributed",
    "convert",
    "convert_state_dict",
    "decay_of",
    "encoding",
    "from_nir",
    "functional",
    "keep_memory",
    "models",
    "plot",
    "reset_states",
    "surrogate",
    "to_nir",
]
