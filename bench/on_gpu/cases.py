"""What is timed on a GPU: shapes, types, and who stands beside whom.

The cases that targets are read from come first: where time runs out, the others are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lif_cuda.surrogate import Rectangle
from on_gpu.timing import at_most
from rivals.contenders import (
    PIECE,
    Contender,
    compiled,
    lif_cuda_fused,
    plain_loop,
    reason,
    spikingjelly,
    variant,
)

# What a rival may take at most to be compiled or to choose its kernels, forward and backward together.
SETUP_SECONDS = 45.0
# Tensors of the size of x that a contender holds: spikes, what is saved and dx, of calls and in its graph's
# pool.
TENSORS_EACH = 7
# Bytes a neuron-step that the reference keeps for backward, at most.
REFERENCE_BYTES = 300


@dataclass(frozen=True)
class Entry:
    """A contender with the tensors it is given: x, and the gradient of its spikes."""

    contender: Contender
    x: Tensor
    grad: Tensor


@dataclass(frozen=True)
class Case:
    """One table of the report.

    Attributes:
        name: by which targets find it.
        shape: of x, [T, B, features...].
        dtype: of x.
        tiny: the shape in a rehearsal.
        family: which neurons are timed beside each other: "plain", "relatives", "learned" or "layouts".
        rivals: other implementations of the plain neuron that are timed too.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    tiny: tuple[int, ...]
    family: str = "plain"
    rivals: tuple[str, ...] = ()

    @property
    def neuron_steps(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def contenders(self) -> int:
        """How many there are, the copy included."""
        return {"plain": 2, "relatives": 10, "learned": 4, "layouts": 5}[self.family] + len(self.rivals)

    @property
    def bytes_held(self) -> int:
        """Memory that the case takes, generously."""
        held = self.neuron_steps * self.dtype.itemsize * (2 + TENSORS_EACH * self.contenders)
        return held + min(self.neuron_steps, PIECE) * REFERENCE_BYTES

    def rehearsed(self) -> Case:
        """The same with a tiny shape."""
        return replace(self, shape=self.tiny)

    def __str__(self) -> str:
        return f"{self.name}: {list(self.shape)} {str(self.dtype)[6:]}"


F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
JELLY = ("SpikingJelly",)

CASES = (
    Case("large", (32, 64, 65536), F32, (32, 2, 64), rivals=JELLY),
    Case("large bf16", (32, 64, 65536), BF16, (32, 2, 64), rivals=JELLY),
    Case("large, long", (100, 256, 4096), F32, (40, 2, 64), rivals=JELLY),
    Case("middle", (16, 64, 16384), F32, (16, 2, 64), rivals=("eager loop", "torch.compile", *JELLY)),
    Case("middle bf16", (16, 64, 16384), BF16, (16, 2, 64), rivals=JELLY),
    Case("relatives", (16, 64, 16384), F32, (16, 2, 64), "relatives"),
    Case("learned", (100, 256, 4096), F32, (40, 2, 64), "learned"),
    Case("convolution", (4, 32, 64, 56, 56), F32, (4, 2, 8, 6, 6), "layouts"),
    Case("few neurons", (1000, 16, 256), F32, (70, 2, 16), rivals=JELLY),
    Case("some neurons", (100, 128, 512), F32, (40, 2, 32)),
    Case("large fp16", (32, 64, 65536), F16, (32, 2, 64), rivals=JELLY),
    Case("small", (25, 128, 1000), F32, (25, 2, 32), rivals=("torch.compile", *JELLY)),
)


def by_name(name: str) -> Case:
    """The case of that name."""
    return next(case for case in CASES if case.name == name)


def drawn(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """x, on which some 10 % of the neurons fire, and a gradient of the spikes."""
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(shape, generator=generator, device=device) * 0.5 + 0.15
    grad = torch.randn(shape, generator=generator, device=device)
    return x.to(dtype), grad.to(dtype)


def entries(case: Case, device: torch.device, patience: float) -> tuple[list[Entry], dict[str, str]]:
    """Who takes part, and of those who cannot why not; a rival has ``patience`` seconds to get ready."""
    x, grad = drawn(case.shape, case.dtype, device)
    if case.family == "layouts":
        return _layouts(x, grad), {}
    if case.family == "relatives":
        return [Entry(contender, x, grad) for contender in _relatives(x)], {}
    if case.family == "learned":
        return [Entry(contender, x, grad) for contender in _learned(x)], {}
    found, missing = [Contender("lif_cuda", lif_cuda_fused)], {}
    for name in case.rivals:
        try:
            with at_most(patience, "setting it up"):
                found.append(_rival(name, x, grad))
        except Exception as error:
            missing[name] = reason(error)
    return [Entry(contender, x, grad) for contender in found], missing


def _rival(name: str, x: Tensor, grad: Tensor) -> Contender:
    """A rival that has run once forward and once backward: it has compiled, and chosen its kernels."""
    if name == "eager loop":
        return Contender(name, plain_loop)
    if name == "torch.compile":
        return compiled(x)
    rival = spikingjelly(x)
    began = time.perf_counter()
    with torch.no_grad():
        rival.run(x)
    leaf = x.detach().requires_grad_()
    torch.autograd.grad(rival.run(leaf), leaf, grad)
    return replace(rival, setup_seconds=time.perf_counter() - began)


def _spread(low: float, high: float, count: int, x: Tensor) -> Tensor:
    """A parameter that differs from neuron to neuron and learns."""
    return torch.linspace(low, high, count, device=x.device).requires_grad_()


def _learned(x: Tensor) -> list[Contender]:
    beta, threshold = _spread(0.85, 0.95, x.shape[-1], x), _spread(0.9, 1.1, x.shape[-1], x)
    return [
        variant("plain"),
        variant("learned beta", [beta], beta=beta),
        variant("learned beta and threshold", [beta, threshold], beta=beta, threshold=threshold),
    ]


def _relatives(x: Tensor) -> list[Contender]:
    window = Rectangle()
    return [
        *_learned(x),
        variant("current-based", alpha=0.8),
        variant("adaptive", kappa=0.2, rho=0.9),
        variant("refractory", refractory=2),
        variant("delayed", delay_reset=True, detach_reset=True),
        variant("window surrogate", surrogate=window),
        variant("window surrogate, two bits a step", surrogate=window, save="bits"),
    ]


def _layouts(x: Tensor, grad: Tensor) -> list[Entry]:
    """Images [T, B, C, H, W] as they lie by default, and with channels last."""
    beta = _spread(0.85, 0.95, x.shape[2], x)
    layouts: dict[str, Callable[[Tensor], Tensor]] = {
        "contiguous": lambda images: images,
        "channels_last": lambda images: (
            images.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, images.shape[:2])
        ),
    }
    found = []
    for layout, lay in layouts.items():
        for contender in (
            variant(layout),
            variant(f"{layout}, learned by channel", [beta], beta=beta, channel_dim=2),
        ):
            found.append(Entry(contender, lay(x), lay(grad)))
    return found
