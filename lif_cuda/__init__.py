"""Fused leaky integrate-and-fire layers for PyTorch, on CPU and CUDA."""

from . import functional, models, surrogate
from .layers import LIF
from .reference import ReferenceLIF

__version__ = "0.1.0"

__all__ = ["LIF", "ReferenceLIF", "functional", "models", "surrogate"]
