"""Surrogate derivatives: what stands in for the derivative of the spike in the backward pass.

The spike ``s = 1 if u >= threshold else 0`` has a derivative that is zero almost everywhere. Training
replaces it by ``h = scale * f(slope * (u - threshold))`` with a bump-shaped ``f`` (Neftci, Mostafa and
Zenke, "Surrogate gradient learning in spiking neural networks", IEEE Signal Processing Magazine 36,
2019). An object of this module is a shape ``f``, a slope and a scale. Each class has the scale that its
source gives it; ``scale`` puts another in its place, which is how the names of one library become those of
another.

The eager formulas of this file are what :class:`lif_cuda.ReferenceLIF` runs. The kernels have their own
in ``csrc/neuron/surrogate.h``, and the tests hold the two against each other: bit for bit, but for the
three shapes with an exponential, where the kernels' own exponential differs by a few ulp.
"""

from __future__ import annotations

import inspect
import math
import numbers
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor


def _finite(owner: str, name: str, value: Any, *, positive: bool = False) -> float:
    """``value``, a number of Python or a scalar of NumPy, as a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        array = hasattr(value, "item")
        remedy = "take the number out of it with .item()" if array else "give an int or a float"
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        raise TypeError(f"{owner}: {name} must be a number, got {type(value).__name__}{shape}; {remedy}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (positive and number <= 0):
        kind = "a finite number above 0" if positive else "a finite number"
        raise ValueError(f"{owner}: {name} must be {kind}, got {number:g}; give one, such as 1.0")
    return number


class Surrogate(ABC):
    """A surrogate derivative ``h(z) = scale * f(slope * z)`` of ``z = u - threshold``.

    ``code`` is the number by which the kernels know the shape ``f`` (``csrc/neuron/surrogate.h``). A
    subclass is one of the shapes below with a slope and a scale, or a :class:`Custom` table.
    """

    code: ClassVar[int]

    def __new__(cls, *_: Any, **options: Any) -> Self:
        """The object; a keyword that there is not is answered with those that there are."""
        if options:
            known = inspect.signature(cls.__init__).parameters.values()
            names = [parameter.name for parameter in known][1:]
            unknown = [name for name in options if name not in names]
            if unknown and all(parameter.kind is not parameter.VAR_KEYWORD for parameter in known):
                raise TypeError(
                    f"{cls.__name__}() got an unexpected keyword argument {unknown[0]!r}; there are "
                    f"{', '.join(names)}"
                )
        return super().__new__(cls)

    @property
    @abstractmethod
    def slope(self) -> float:
        """What ``z`` is multiplied by before it enters the shape."""

    scale: float | None

    @property
    def height(self) -> float:
        """What the shape is multiplied by: the height of the bump."""
        return self._height() if self.scale is None else self.scale

    @abstractmethod
    def _height(self) -> float:
        """The height where no ``scale`` is given."""

    def derivative(self, z: Tensor) -> Tensor:
        """``h(z)`` elementwise in plain PyTorch, with the roundings that the kernels reproduce."""
        slope, scale = self.slope, self.height
        match self.code:
            case 0:
                y = 1 + slope * z.abs()
                return scale * (1 / (y * y))
            case 1:
                y = slope * z
                return scale * (1 / (1 + y * y))
            case 2:
                e = torch.exp(-(slope * z.abs()))
                y = 1 + e
                return scale * (e / (y * y))
            case 3:
                return scale * (1 - slope * z.abs()).clamp(min=0)
            case 4:
                return scale * torch.exp(-(slope * z.abs()))
            case 5:
                y = slope * z
                return scale * torch.exp(-(y * y))
            case 6:
                # Not scale * 0: with a scale below 0 that is -0, where the kernels have 0.
                return torch.where(slope * z.abs() < 0.5, torch.full_like(z, scale), 0.0)
        raise NotImplementedError(f"{type(self).__name__} has no shape of code {self.code}")

    def values(self, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """The table of a tabulated shape, which the kernels read; None for the others."""
        return None

    def plot(self, ax: Any = None, low: float = -3.0, high: float = 3.0) -> Any:
        """Draw ``h(z)`` for z in [low, high] with matplotlib, into ``ax`` or a new figure; returns the axes.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError("plot needs matplotlib: pip install matplotlib") from error
        if ax is None:
            ax = pyplot.subplots()[1]
        z = torch.linspace(low, high, 1001, dtype=torch.float64, device="cpu")
        ax.plot(z.numpy(), self.derivative(z).numpy(), label=repr(self))
        ax.set_xlabel("membrane - threshold")
        ax.set_ylabel("surrogate derivative")
        ax.legend()
        return ax

    def _check(self, *names: str) -> None:
        """Check the numbers of a subclass, those named being above 0."""
        owner = type(self).__name__
        for name in names:
            object.__setattr__(self, name, _finite(owner, name, getattr(self, name), positive=True))
        if self.scale is not None:
            object.__setattr__(self, "scale", _finite(owner, "scale", self.scale))
        if not math.isfinite(self.slope):  # a product or a quotient, which can overflow
            raise ValueError(
                f"{owner}: slope must be a finite number, got {self.slope}; give numbers nearer to 1"
            )

    def __repr__(self) -> str:
        shown = [f"{name}={value:g}" for name, value in vars(self).items() if value is not None]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class FastSigmoid(Surrogate):
    """``h(z) = scale / (1 + k * |z|)**2``, the derivative of a fast sigmoid; scale 1.

    Source: Zenke and Ganguli, "SuperSpike", Neural Computation 30, 2018. ``k`` is the sharpness: 10 in
    the seed network, 25 in snnTorch's ``fast_sigmoid``.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is not finite, or k is not above 0.
    """

    k: float = 10.0
    scale: float | None = None
    code: ClassVar[int] = 0

    def __post_init__(self) -> None:
        self._check("k")

    @property
    def slope(self) -> float:
        return self.k

    def _height(self) -> float:
        return 1.0


@dataclass(frozen=True, repr=False)
class SuperSpike(Surrogate):
    """``h(z) = scale / (1 + alpha * |z|)**2``; scale 1: :class:`FastSigmoid` under the name of its paper.

    Source: Zenke and Ganguli, "SuperSpike", Neural Computation 30, 2018. SpikingJelly's ``SuperSpike(alpha)``
    is ``SuperSpike(1, scale=alpha)``; Norse's ``super`` is this one, but for its release 1.1.0, which ignores
    ``alpha`` and has 1 in its place.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is not finite, or alpha is not above 0.
    """

    alpha: float = 1.0
    scale: float | None = None
    code: ClassVar[int] = 0

    def __post_init__(self) -> None:
        self._check("alpha")

    @property
    def slope(self) -> float:
        return self.alpha

    def _height(self) -> float:
        return 1.0


@dataclass(frozen=True, repr=False)
class SoftSign(Surrogate):
    """``h(z) = scale / (1 + alpha * |z|)**2``; scale alpha / 2, so that its integral is 1.

    The derivative of ``(alpha * z / (1 + |alpha * z|) + 1) / 2``: SpikingJelly's ``SoftSign(alpha)``.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is not finite, or alpha is not above 0.
    """

    alpha: float = 2.0
    scale: float | None = None
    code: ClassVar[int] = 0

    def __post_init__(self) -> None:
        self._check("alpha")

    @property
    def slope(self) -> float:
        return self.alpha

    def _height(self) -> float:
        return self.alpha / 2


@dataclass(frozen=True, repr=False)
class ATan(Surrogate):
    """``h(z) = scale / (1 + (pi / 2 * alpha * z)**2)``; scale alpha / 2, so that its integral is 1.

    The derivative of ``atan(pi / 2 * alpha * z) / pi + 1 / 2``. Source: Fang et al., "Incorporating learnable
    membrane time constant to enhance learning of spiking neural networks", ICCV 2021; the ``ATan(alpha)`` of
    SpikingJelly and the ``atan(alpha)`` of snnTorch.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is not finite, or alpha is not above 0.
    """

    alpha: float = 2.0
    scale: float | None = None
    code: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._check("alpha")

    @property
    def slope(self) -> float:
        return math.pi * self.alpha / 2

    def _height(self) -> float:
        return self.alpha / 2


@dataclass(frozen=True, repr=False)
class Sigmoid(Surrogate):
    """``h(z) = scale * sig(alpha * z) * (1 - sig(alpha * z))``; scale alpha, so that its integral is 1.

    The derivative of the logistic function: SpikingJelly's ``Sigmoid(alpha)``; snnTorch's ``sigmoid(slope)``
    is ``Sigmoid(slope)``; Norse's ``tanh(k)`` is ``Sigmoid(2 * k, scale=4)``.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is not finite, or alpha is not above 0.
    """

    alpha: float = 4.0
    scale: float | None = None
    code: ClassVar[int] = 2

    def __post_init__(self) -> None:
        self._check("alpha")

    @property
    def slope(self) -> float:
        return self.alpha

    def _height(self) -> float:
        return self.alpha


@dataclass(frozen=True, repr=False)
class Triangle(Surrogate):
    """``h(z) = scale * max(0, 1 - alpha * |z|)``; scale alpha, so that its integral is 1.

    Source: Esser et al., "Convolutional networks for fast, energy-efficient neuromorphic computing", PNAS
    113, 2016; Bellec et al., NeurIPS 2018. SpikingJelly's ``PiecewiseQuadratic(alpha)``; Norse's
    ``triangle(alpha)`` is ``Triangle(1, scale=alpha)``. snnTorch's ``triangular`` is another function, a
    constant of either sign.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is not finite, or alpha is not above 0.
    """

    alpha: float = 1.0
    scale: float | None = None
    code: ClassVar[int] = 3

    def __post_init__(self) -> None:
        self._check("alpha")

    @property
    def slope(self) -> float:
        return self.alpha

    def _height(self) -> float:
        return self.alpha


@dataclass(frozen=True, repr=False)
class PiecewiseExp(Surrogate):
    """``h(z) = scale * exp(-alpha * |z|)``; scale alpha / 2, so that its integral is 1.

    Source: Shrestha and Orchard, "SLAYER", NeurIPS 2018. SpikingJelly's ``PiecewiseExp(alpha)``.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is not finite, or alpha is not above 0.
    """

    alpha: float = 1.0
    scale: float | None = None
    code: ClassVar[int] = 4

    def __post_init__(self) -> None:
        self._check("alpha")

    @property
    def slope(self) -> float:
        return self.alpha

    def _height(self) -> float:
        return self.alpha / 2


@dataclass(frozen=True, repr=False)
class Gaussian(Surrogate):
    """``h(z) = scale * exp(-(alpha * z)**2)``; scale alpha / sqrt(pi), so that its integral is 1.

    The derivative of ``erfc(-alpha * z) / 2``: SpikingJelly's ``Erf(alpha)``; Norse's ``heavi_erfc(k)`` is
    ``Gaussian(k, scale=2 / sqrt(pi))``.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is not finite, or alpha is not above 0.
    """

    alpha: float = 2.0
    scale: float | None = None
    code: ClassVar[int] = 5

    def __post_init__(self) -> None:
        self._check("alpha")

    @property
    def slope(self) -> float:
        return self.alpha

    def _height(self) -> float:
        return self.alpha / math.sqrt(math.pi)


@dataclass(frozen=True, repr=False)
class Rectangle(Surrogate):
    """``h(z) = scale`` where ``alpha * |z| < 1/2``, else 0; scale alpha, so that its integral is 1.

    Source: Wu et al., "Spatio-temporal backpropagation for training high-performance spiking neural
    networks", Frontiers in Neuroscience 12, 2018.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is not finite, or alpha is not above 0.
    """

    alpha: float = 1.0
    scale: float | None = None
    code: ClassVar[int] = 6

    def __post_init__(self) -> None:
        self._check("alpha")

    @property
    def slope(self) -> float:
        return self.alpha

    def _height(self) -> float:
        return self.alpha


@dataclass(frozen=True, repr=False)
class StraightThrough(Surrogate):
    """``h(z) = scale``; scale 1: the gradient passes as if the spike were its input.

    Source: Bengio, Leonard and Courville, "Estimating or propagating gradients through stochastic neurons",
    2013; snnTorch's ``straight_through_estimator``.

    Raises:
        TypeError, ValueError: ``scale`` is not a finite number.
    """

    scale: float | None = None
    code: ClassVar[int] = 6

    def __post_init__(self) -> None:
        self._check()

    @property
    def slope(self) -> float:
        return 0.0

    def _height(self) -> float:
        return 1.0


@lru_cache(maxsize=64)
def _table(samples: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Not an inference tensor, though the first call may be an inference: a backward pass could not save it.
    with torch.inference_mode(False):
        return torch.tensor(samples, dtype=dtype, device=device)


@dataclass(frozen=True, repr=False)
class Custom(Surrogate):
    """Any derivative ``h``: a Python function, sampled into a table that the kernels interpolate.

    The function is called once, on points in float64, and not kept: the object pickles and compares by its
    samples. Between two samples ``spacing = 2 * reach / (points - 1)`` apart a line stands in, off by at most
    ``max |h''| * spacing**2 / 8``. Beyond ``reach`` the values at the ends are held, so ``reach`` should be
    where ``h`` has faded.

    ``error_bound`` is the largest difference between ``h`` and what stands in for it, times ``|scale|``,
    found in float64 at seven places between each two samples, and at as many in all on each side from
    ``reach`` to ``4 * reach``. It is measured: what is narrower than the places are apart, or lies farther
    out, can escape it. Where ``h`` is not finite beyond ``reach``, the held value counts as right.

    A UserWarning says where ``h`` has not faded: where, up to ``4 * reach``, the held value is off by more
    than 1 % of the largest ``|h|`` within ``reach``. An ``h`` that is constant there, such as that of
    :class:`StraightThrough`, is held exactly and is not warned of; ``h(z.clamp(-reach, reach))`` makes one.
    Another says that ``h`` is a step from 0 to 1: a spike, and not its derivative.

    Args:
        function: ``h(z)``, elementwise on a float64 tensor of ``z = u - threshold``; called up to
            ``4 * reach``, and finite within ``reach``.
        reach: the table covers z in [-reach, reach].
        points: its samples, 2 to 65536.
        scale: what ``h`` is multiplied by; None: 1.
        name: what ``print`` shows; None: the function's name.

    Raises:
        TypeError: ``function`` is not callable or returns no tensor, a number is none, or ``name`` is no str.
        ValueError: ``function`` returns another shape or values that are not finite, or a number is out of
            its range.
    """

    samples: tuple[float, ...]
    reach: float
    error_bound: float = field(compare=False)
    name: str = field(compare=False)
    scale: float | None = None
    code: ClassVar[int] = 7

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        reach: float = 2.0,
        points: int = 1025,
        scale: float | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(function):
            raise TypeError(
                f"Custom: function must be callable, got {type(function).__name__}; give h as a function of "
                "a tensor, such as lambda z: 1 / (1 + z.abs()) ** 2"
            )
        if isinstance(points, bool) or not isinstance(points, numbers.Integral):
            given = type(points).__name__
            raise TypeError(f"Custom: points must be an int, got {given}; give one, such as 1025")
        points = int(points)
        if not 2 <= points <= 65536:
            raise ValueError(f"Custom: points must be in [2, 65536], got {points}; 1025 are enough for most")
        if name is not None and not isinstance(name, str):
            raise TypeError(
                f"Custom: name must be a str or None, got {type(name).__name__}; None takes the function's"
            )
        reach = _finite("Custom", "reach", reach, positive=True)
        scale = None if scale is None else _finite("Custom", "scale", scale)
        name = name or getattr(function, "__name__", "function")
        places = 8 * (points - 1) + 1
        fine = _sample(function, torch.linspace(-reach, reach, places, dtype=torch.float64, device="cpu"))
        if not bool(torch.isfinite(fine).all()):
            raise ValueError(
                "Custom: function must return finite real values between -reach and reach; give a smaller "
                "reach, or mend the function where it is not finite"
            )
        samples = fine[::8]
        weight = torch.arange(8, dtype=torch.float64, device="cpu") / 8
        lines = samples[:-1, None] + weight * (samples[1:] - samples[:-1])[:, None]
        within = float((fine[:-1].view(-1, 8) - lines).abs().max())
        beyond = _off_beyond(function, reach, places, samples)
        if bool((fine[: places // 2] == 0).all()) and bool((fine[places // 2 + 1 :] == 1).all()):
            warnings.warn(
                f"Custom: {name} is 0 below the threshold and 1 above it, as a spike is. What is asked for "
                "is the derivative; docs/migrating.md has the equals of other libraries' surrogates",
                UserWarning,
                stacklevel=2,
            )
        largest = float(fine.abs().max())
        if beyond > 0.01 * largest:
            warnings.warn(
                f"Custom: {name} has not faded at reach={reach:g}. Beyond it the value at the end is held, "
                f"which is off by up to {beyond:.3g}; the largest within reach is {largest:.3g}. Give a "
                f"larger reach; or, if the held value is meant, function(z.clamp(-{reach:g}, {reach:g}))",
                UserWarning,
                stacklevel=2,
            )
        for key, value in (
            ("samples", tuple(samples.tolist())),
            ("reach", reach),
            ("error_bound", max(within, beyond) * abs(1.0 if scale is None else scale)),
            ("name", name),
            ("scale", scale),
        ):
            object.__setattr__(self, key, value)
        self._check()

    @property
    def slope(self) -> float:
        return 1 / self.reach

    def _height(self) -> float:
        return 1.0

    def values(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        # torch.compile cannot look into a cache, and a fake tensor must not outlive its trace in one.
        if torch.compiler.is_compiling() or type(torch.empty(0, device="cpu")) is not Tensor:
            return torch.tensor(self.samples, dtype=dtype, device=device)
        return _table(self.samples, dtype, device)

    def derivative(self, z: Tensor) -> Tensor:
        table = self.values(z.dtype, z.device)
        last = len(table) - 1
        place = (self.slope * z + 1) * (last * 0.5)
        place = torch.where(place > 0, place, torch.zeros_like(place))
        place = torch.where(place < last, place, torch.full_like(place, last))
        at = place.long().clamp(max=last - 1)
        low, high = table[at], table[at + 1]
        return self.height * (low + (place - at) * (high - low))

    def __repr__(self) -> str:
        scale = "" if self.scale is None else f", scale={self.scale:g}"
        return f"Custom({self.name}, reach={self.reach:g}, points={len(self.samples)}{scale})"


def _sample(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """``function(z)``, or raise unless it can be tabulated."""
    with torch.enable_grad():  # the function may differentiate one of its own
        h = function(z)
    if not isinstance(h, Tensor):
        raise TypeError(
            f"Custom: function must return a tensor, got {type(h).__name__}; a constant is "
            "torch.full_like(z, constant)"
        )
    if h.shape != z.shape:
        raise ValueError(
            f"Custom: function must work elementwise; it made {tuple(h.shape)} of {tuple(z.shape)}. Return a "
            "value for each z"
        )
    if h.is_complex():
        raise ValueError(
            "Custom: function must return finite real values between -reach and reach, got complex ones; "
            "return their .real"
        )
    return h.detach().to(device="cpu", dtype=torch.float64)


def _off_beyond(function: Callable[[Tensor], Tensor], reach: float, places: int, samples: Tensor) -> float:
    """The largest difference between ``h`` and the held end values, from ``reach`` to four times it."""
    far = torch.linspace(1, 4, places, dtype=torch.float64, device="cpu") * reach
    off = 0.0
    for side, held in ((-far, samples[0]), (far, samples[-1])):
        h = _sample(function, side)
        off = max(off, float(torch.where(torch.isfinite(h), (h - held).abs(), 0.0).max()))
    return off
