"""Networks as the libraries' own tutorials write them, neurons, loops, losses and all.

Each is built with the library's neurons and trained by the code of its tutorial; the same code runs it after
``lif_cuda.convert``. The first one has a second forward, with all steps at once: what is left to do by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from rivals.stubs import stand_in

CLASSES = 10


class SnnMLP(nn.Module):
    """snnTorch's tutorial 5: 784-1000-10, ``Leaky(beta=0.95)``, the same image at each of the steps."""

    def __init__(self, hidden: int = 1000, steps: int = 25) -> None:
        super().__init__()
        import snntorch as snn

        self.steps = steps
        self.fc1 = nn.Linear(28 * 28, hidden)
        self.lif1 = snn.Leaky(beta=0.95)
        self.fc2 = nn.Linear(hidden, CLASSES)
        self.lif2 = snn.Leaky(beta=0.95)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and membranes of the last neurons, [T, B, 10], of images [B, 784]."""
        mem1: Any = self.lif1.init_leaky()
        mem2: Any = self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for _ in range(self.steps):
            cur1 = self.fc1(x)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


class WithoutLoop(nn.Module):
    """A converted ``SnnMLP`` whose loop over time is gone: each layer is called once, for all steps."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        network.lif2.output = ("spikes", "trace")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        network = self.network
        spk1, _ = network.lif1.run(network.fc1(x), network.lif1.init_leaky(), steps=network.steps)
        (spk2_rec, mem2_rec), _ = network.lif2.run(network.fc2(spk1), network.lif2.init_leaky())
        return spk2_rec, mem2_rec


class SnnCSNN(nn.Module):
    """snnTorch's tutorial 6: two convolutions, hidden states, ``utils.reset`` before each batch."""

    def __init__(self, steps: int = 50) -> None:
        super().__init__()
        import snntorch as snn
        from snntorch import surrogate

        hidden: dict[str, Any] = {
            "beta": 0.5,
            "spike_grad": surrogate.fast_sigmoid(slope=25),
            "init_hidden": True,
        }
        self.steps = steps
        self.net = nn.Sequential(
            nn.Conv2d(1, 12, 5),
            nn.MaxPool2d(2),
            snn.Leaky(**hidden),
            nn.Conv2d(12, 64, 5),
            nn.MaxPool2d(2),
            snn.Leaky(**hidden),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, CLASSES),
            snn.Leaky(**hidden, output=True),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`SnnMLP.forward`, of images [B, 1, 28, 28]."""
        from snntorch import utils

        utils.reset(self.net)
        spk_rec, mem_rec = [], []
        for _ in range(self.steps):
            spk_out, mem_out = self.net(x)
            spk_rec.append(spk_out)
            mem_rec.append(mem_out)
        return torch.stack(spk_rec), torch.stack(mem_rec)


class JellySEW(nn.Module):
    """SpikingJelly's SEW-ResNet-18, with the neurons that its classification tutorial has, four steps."""

    def __init__(self, steps: int = 4) -> None:
        super().__init__()
        with stand_in(["torchvision"]):
            from spikingjelly.activation_based import functional, neuron, surrogate
            from spikingjelly.activation_based.model import sew_resnet

        self.steps = steps
        self.net = sew_resnet.sew_resnet18(
            cnf="ADD",
            num_classes=CLASSES,
            spiking_neuron=neuron.IFNode,
            surrogate_function=surrogate.ATan(),
            detach_reset=True,
        )
        functional.set_step_mode(self.net, "m")

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 10] of images [B, 3, rows, columns]."""
        from spikingjelly.activation_based import functional

        functional.reset_net(self.net)
        logits: Tensor = self.net(x.repeat(self.steps, 1, 1, 1, 1)).mean(0)
        return logits


class NorseConvNet(nn.Module):
    """Norse's MNIST example: two convolutions and a Linear between LIF cells, read out by an integrator."""

    def __init__(self, steps: int = 32) -> None:
        super().__init__()
        import norse.torch as norse

        self.steps = steps
        self.conv1 = nn.Conv2d(1, 20, 5, 1)
        self.conv2 = nn.Conv2d(20, 50, 5, 1)
        self.fc1 = nn.Linear(4 * 4 * 50, 500)
        self.lif0 = norse.LIFCell()
        self.lif1 = norse.LIFCell()
        self.lif2 = norse.LIFCell()
        self.out = norse.LILinearCell(500, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities [B, 10] of images [B, 1, 28, 28]."""
        s0 = s1 = s2 = so = None
        voltages = []
        for _ in range(self.steps):
            z, s0 = self.lif0(10 * self.conv1(x), s0)
            z = nnf.max_pool2d(z, 2, 2)
            z, s1 = self.lif1(10 * self.conv2(z), s1)
            z = nnf.max_pool2d(z, 2, 2).flatten(1)
            z, s2 = self.lif2(self.fc1(z), s2)
            v, so = self.out(nnf.relu(z), so)
            voltages.append(v)
        return nnf.log_softmax(torch.stack(voltages).amax(0), dim=1)


def _sum_of_membranes(out: Any, labels: Tensor) -> Tensor:
    """Tutorial 5's: cross entropy of the membranes, summed over the steps."""
    return torch.stack([nnf.cross_entropy(membranes, labels) for membranes in out[1]]).sum()


def _rate(out: Any, labels: Tensor) -> Tensor:
    """Tutorial 6's: ``snntorch.functional.ce_rate_loss``."""
    from snntorch import functional

    loss: Tensor = functional.ce_rate_loss()(out[0], labels)
    return loss


def _cross_entropy(out: Any, labels: Tensor) -> Tensor:
    return nnf.cross_entropy(out, labels)


@dataclass(frozen=True)
class Tutorial:
    """A network and how it is trained.

    Attributes:
        name, library: of the command line; a key of ``PACKAGES``.
        build: makes it, with the library's neurons, for a number of steps.
        shape: of an image.
        loss: of what it returns and the labels.
        learning_rate: of Adam.
    """

    name: str
    library: str
    build: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    loss: Callable[[Any, Tensor], Tensor]
    learning_rate: float
    steps: int

    def answers(self, out: Any) -> Tensor:
        """The class of each image: the one with most spikes, or the largest logit."""
        logits = out[0].sum(0) if isinstance(out, tuple) else out
        found: Tensor = logits.argmax(1)
        return found


TUTORIALS = (
    Tutorial("mlp", "snnTorch", lambda steps: SnnMLP(steps=steps), (784,), _sum_of_membranes, 5e-4, 25),
    Tutorial("csnn", "snnTorch", SnnCSNN, (1, 28, 28), _rate, 1e-2, 50),
    Tutorial("sew", "SpikingJelly", JellySEW, (3, 32, 32), _cross_entropy, 1e-3, 4),
    Tutorial("convnet", "Norse", NorseConvNet, (1, 28, 28), _cross_entropy, 1e-3, 32),
)


def tutorial_of(name: str) -> Tutorial:
    """The tutorial of this name."""
    return next(tutorial for tutorial in TUTORIALS if tutorial.name == name)
