"""Networks that differ in nothing but what stands in the place of a neuron.

Each is built by a function of ``make``, which makes what stands there: of [T, B, ...] in, [T, B, ...] out.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from rivals.equality import runner
from rivals.equals import Equal, by_name
from rivals.stubs import stand_in

CLASSES = 10
PIXELS = 28


class Series(nn.Module):
    """What stands in the place of a neuron, all T steps at once: [T, B, ...] to [T, B, ...].

    Args:
        inner: the module whose parameters these are.
        run: what it does with an input.
    """

    def __init__(self, inner: nn.Module, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = inner
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.run(x).to(x.dtype)  # in float64 snnTorch's spikes are float32
        return out

    def constant(self, x: Tensor, steps: int) -> Tensor:
        """The same input [B, ...] at each step."""
        spikes: Tensor = self(x.expand(steps, *x.shape))
        return spikes

    def count(self, x: Tensor) -> Tensor:
        """The sum over time."""
        spikes: Tensor = self(x)
        return spikes.sum(0)


class Ours(Series):
    """A layer of lif_cuda, which takes a constant input once and counts while it fires."""

    def __init__(self, equal: Equal) -> None:
        inner = equal.our_layer(return_state=False)
        super().__init__(inner, inner)
        self.counting = equal.our_layer(return_state=False, output="count")

    def constant(self, x: Tensor, steps: int) -> Tensor:
        spikes: Tensor = self.inner(x, steps=steps)
        return spikes

    def count(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.counting(x)
        return spikes


Make = Callable[..., Series]


def ours(equal: Equal) -> Make:
    """lif_cuda's layers."""
    return lambda **_: Ours(equal)


def theirs(equal: Equal) -> Make:
    """The library's neurons."""

    def make(**_: Any) -> Series:
        neuron = equal.their_neuron()
        return Series(neuron, runner(equal.library, neuron))

    return make


def relu(**_: Any) -> Series:
    """What an ANN has in the place of a neuron."""
    return Series(nn.ReLU(), torch.relu)


class MLP(nn.Module):
    """The seed's: Linear, neuron, Linear, neuron, Linear; logits are sums over time.

    What is exact is used for all neurons alike: a constant input needs the first Linear once, and the last
    one is applied to the sum of the spikes.
    """

    def __init__(self, make: Make, case: Case) -> None:
        super().__init__()
        pixels = PIXELS**2
        self.fc1, self.neuron1 = nn.Linear(pixels, case.width), make()
        self.fc2, self.neuron2 = nn.Linear(case.width, case.width), make()
        self.fc3 = nn.Linear(case.width, CLASSES)
        self.steps = case.steps

    def forward(self, x: Tensor) -> Tensor:
        current = self.fc1(x)
        spikes = self.neuron1(current) if x.dim() == 3 else self.neuron1.constant(current, self.steps)
        return nnf.linear(self.neuron2.count(self.fc2(spikes)), self.fc3.weight, self.steps * self.fc3.bias)


class SteppedMLP(MLP):
    """The same as snnTorch's tutorials write it: a loop over time around all layers."""

    def forward(self, x: Tensor) -> Tensor:
        first: Any = self.neuron1.inner
        second: Any = self.neuron2.inner
        membrane1, membrane2 = first.init_leaky(), second.init_leaky()
        logits = x.new_zeros(x.shape[-2], CLASSES)
        for t in range(self.steps):
            current = self.fc1(x[t] if x.dim() == 3 else x)
            spikes1, membrane1 = first(current, membrane1)
            spikes2, membrane2 = second(self.fc2(spikes1.to(x.dtype)), membrane2)
            logits = logits + self.fc3(spikes2.to(x.dtype))
        return logits


def over_time(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer without a state, on all steps at once."""
    out: Tensor = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return out


class ConvNet(nn.Module):
    """Of the tutorials: twice convolution, batch norm, neuron and pooling; then a Linear and a neuron.

    Args:
        kernel: of the convolutions; their output has the size of their input.
        hidden: a Linear and a neuron between, of so many neurons; 0: none.
        gain: of the initial weights of Linears, so that their neurons fire before any training.
    """

    def __init__(self, make: Make, case: Case, kernel: int, hidden: int, gain: float) -> None:
        super().__init__()
        widths = (1, case.width, 2 * case.width)
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(after)
            )
            for before, after in itertools.pairwise(widths)
        )
        self.pool = nn.MaxPool2d(2)
        features = [widths[-1] * (PIXELS // 4) ** 2, *[hidden] * bool(hidden), CLASSES]
        self.linears = nn.ModuleList(nn.Linear(*sizes) for sizes in itertools.pairwise(features))
        for linear, size in zip(self.linears, features, strict=False):
            nn.init.normal_(linear.get_parameter("weight"), std=gain / size**0.5)
        self.neurons = nn.ModuleList(make() for _ in (*self.convolutions, *self.linears))

    def forward(self, x: Tensor) -> Tensor:
        layers = list(zip((*self.convolutions, *self.linears), self.neurons, strict=True))
        for convolution, neuron in layers[: len(self.convolutions)]:
            x = over_time(self.pool, neuron(over_time(convolution, x)))
        x = x.flatten(2)
        for linear, neuron in layers[len(self.convolutions) :]:
            x = neuron(linear(x))
        return x.mean(0)


class SEWResNet(nn.Module):
    """SpikingJelly's SEW-ResNet-18, [T, B, C, H, W] throughout."""

    def __init__(self, make: Make, case: Case) -> None:
        super().__init__()
        with stand_in(["torchvision"]):
            from spikingjelly.activation_based import functional
            from spikingjelly.activation_based.model import sew_resnet

        self.net = sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=make, num_classes=CLASSES)
        functional.set_step_mode(self.net, "m")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x).mean(0)
        return logits


@dataclass(frozen=True)
class Case:
    """A network, its input, and the neuron that it is made of.

    Attributes:
        name: of the command line and the results.
        title: of the table.
        library: whose neuron it is.
        neuron: the row of ``EQUALS``.
        steps, batch: T and B.
        width: of the hidden layers, or channels of the first convolution.
        shape: of one step of one image.
        build: the network of what stands in the place of its neurons.
        constant: the input is one image for all steps; else spikes, or an image of its own at each.
        others: further ways to build it of the library's neurons, by their names.
    """

    name: str
    title: str
    library: str
    neuron: str
    steps: int
    batch: int
    width: int
    shape: tuple[int, ...]
    build: Callable[[Make, Case], nn.Module]
    constant: bool = False
    others: dict[str, Callable[[Make, Case], nn.Module]] = field(default_factory=dict)

    def resized(self, **sizes: int) -> Case:
        """The same with other ``steps``, ``batch`` or ``width``."""
        return replace(self, **sizes)  # type: ignore[arg-type]

    def input(self) -> tuple[Tensor, Tensor]:
        """Images, [T, B, ...] or [B, ...], and labels [B]."""
        generator = torch.Generator().manual_seed(0)
        images = torch.rand((self.batch, *self.shape), generator=generator)
        labels = torch.randint(CLASSES, (self.batch,), generator=generator)
        if self.constant:
            return images, labels
        if len(self.shape) == 1:
            return torch.bernoulli(images.expand(self.steps, *images.shape), generator=generator), labels
        return torch.randn((self.steps, *images.shape), generator=generator), labels

    def networks(self, names: Sequence[str] | None = None) -> dict[str, nn.Module]:
        """A network of each kind, or of those of these ``names``, all with the same weights."""
        equal = by_name(self.neuron)
        builders = {self.library: (self.build, theirs(equal))}
        builders |= {f"{self.library}, {name}": (build, theirs(equal)) for name, build in self.others.items()}
        builders |= {"lif_cuda": (self.build, ours(equal)), "ReLU": (self.build, relu)}
        found = {}
        for name in names or builders:
            build, make = builders[name]
            torch.manual_seed(0)
            found[name] = build(make, self)
        return found


def _tutorial(kernel: int, hidden: int, gain: float) -> Callable[[Make, Case], nn.Module]:
    return lambda make, case: ConvNet(make, case, kernel, hidden, gain)


_IMAGE = (1, PIXELS, PIXELS)
_JELLY: dict[str, Any] = {"library": "SpikingJelly", "neuron": 'neuron.LIFNode(step_mode="m")', "steps": 4}
_SNN: dict[str, Any] = {"library": "snnTorch", "neuron": "snn.Leaky(beta=0.9)", "steps": 25}
_MLP: dict[str, Any] = _SNN | {
    "batch": 256,
    "width": 256,
    "shape": (PIXELS**2,),
    "build": MLP,
    "others": {"step loop": SteppedMLP},
}
CASES: Sequence[Case] = (
    Case("mlp", "MLP, constant input", constant=True, **_MLP),
    Case("mlp-rate", "MLP, rate-coded input", **_MLP),
    Case("conv", "conv net", batch=64, width=32, shape=_IMAGE, build=_tutorial(3, 256, 6.0), **_JELLY),
    Case("conv-long", "conv net", batch=64, width=12, shape=_IMAGE, build=_tutorial(5, 0, 0.6), **_SNN),
    Case("sew", "SEW-ResNet-18", batch=16, width=64, shape=(3, 32, 32), build=SEWResNet, **_JELLY),
)


def case_of(name: str) -> Case:
    """The case of this name."""
    return next(case for case in CASES if case.name == name)


def double(network: nn.Module) -> nn.Module:
    """The network in float64, with decays that have not been rounded to float32 before."""
    wide = copy.deepcopy(network).double()
    for module in wide.modules():
        if isinstance(module, Series) and "beta" in dict(module.inner.named_buffers()):
            module.inner.get_buffer("beta").fill_(0.9)
    return wide
