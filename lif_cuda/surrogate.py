"""Surrogate derivatives: what stands in for the derivative of the spike in the backward pass.

The spike ``s = 1 if u >= threshold else 0`` has a derivative that is zero almost everywhere. Training
replaces it by ``h = scale * f(slope * (u - threshold))`` with a bump-shaped ``f`` (Neftci, Mostafa and
Zenke, "Surrogate gradient learning in spiking neural networks", IEEE Signal Processing Magazine 36,
2019). An object of this module is a shape ``f``, a slope and a scale; it holds no tensors.

The eager formulas of this file are what :class:`lif_cuda.ReferenceLIF` runs. The kernels have their own
in ``csrc/neuron/surrogate.h``, and the tests hold the two bit for bit against each other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


def _finite(owner: str, name: str, value: float, *, positive: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{owner}: {name} must be a number, got {type(value).__name__}")
    if not math.isfinite(value) or (positive and value <= 0):
        kind = "a finite number above 0" if positive else "a finite number"
        raise ValueError(f"{owner}: {name} must be {kind}, got {value}")
    return float(value)


class Surrogate(ABC):
    """A surrogate derivative ``h(z) = scale * f(slope * z)`` of ``z = u - threshold``.

    ``code`` is the number by which the kernels know the shape ``f`` (``csrc/neuron/surrogate.h``).
    """

    code: ClassVar[int]

    @property
    @abstractmethod
    def slope(self) -> float:
        """What ``z`` is multiplied by before it enters the shape."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """What the shape is multiplied by: the height of the bump where ``f(0) = 1``."""

    @abstractmethod
    def derivative(self, z: Tensor) -> Tensor:
        """``h(z)`` elementwise in plain PyTorch, with the roundings that the kernels reproduce."""


@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """``h(z) = scale / (1 + k * |z|)**2``, the derivative of a fast sigmoid.

    Source: Zenke and Ganguli, "SuperSpike", Neural Computation 30, 2018. ``k`` is the sharpness: 10 in
    the seed network, 25 in snnTorch's ``fast_sigmoid``.

    Raises:
        TypeError: ``k`` or ``scale`` is not a number.
        ValueError: ``k`` is not finite and above 0, or ``scale`` is not finite.
    """

    k: float = 10.0
    scale: float = 1.0
    code: ClassVar[int] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", _finite("FastSigmoid", "k", self.k, positive=True))
        object.__setattr__(self, "scale", _finite("FastSigmoid", "scale", self.scale))

    @property
    def slope(self) -> float:
        return self.k

    def derivative(self, z: Tensor) -> Tensor:
        y = 1 + self.slope * z.abs()
        return self.scale * (1 / (y * y))
