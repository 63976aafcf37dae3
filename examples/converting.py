"""A network of snnTorch, half trained, is converted, says the same, and goes on to learn without its loop.

    python -P examples/converting.py

Needs snntorch and scikit-learn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import snntorch as snn
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import lif_cuda

STEPS = 25
FOR_TRAINING = 1400


class Network(nn.Module):
    """As snnTorch's tutorials write it: a loop over time around two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 128), snn.Leaky(beta=0.9, learn_beta=True)
        self.fc2, self.lif2 = nn.Linear(128, 10), snn.Leaky(beta=0.9, learn_beta=True)

    def forward(self, pixels: Tensor) -> Tensor:
        """The mean membrane of each class, [batch, 10]."""
        # The neurons are snnTorch's, or layers of lif_cuda that are called as those were.
        lif1, lif2 = self.lif1, self.lif2
        first, second = lif1.init_leaky(), lif2.init_leaky()
        membranes = []
        for _ in range(STEPS):
            spikes, first = lif1(self.fc1(pixels), first)
            _, second = lif2(self.fc2(spikes), second)
            membranes.append(second)
        return torch.stack(membranes).mean(0)


def without_loop(network: Any, pixels: Tensor) -> Tensor:
    """What the converted network says, its layers running all steps in one launch."""
    network.lif2.output = "trace"
    spikes, _ = network.lif1.run(network.fc1(pixels), steps=STEPS)
    membranes, _ = network.lif2.run(network.fc2(spikes))
    return torch.as_tensor(membranes.mean(0))


def train(
    forward: Callable[[Tensor], Tensor], network: nn.Module, x: Tensor, y: Tensor, updates: int
) -> float:
    """Some updates by Adam; the accuracy on what was kept for the test, in percent."""
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(updates):
        batch = torch.randint(0, FOR_TRAINING, (128,))
        loss = nn.functional.cross_entropy(forward(x[batch]), y[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        right = forward(x[FOR_TRAINING:]).argmax(1) == y[FOR_TRAINING:]
    return 100 * right.float().mean().item()


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train with snnTorch, convert, compare, and go on."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=100, help="steps of the optimiser, before and after")
    asked = parser.parse_args(arguments)

    torch.manual_seed(0)
    images, digits = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    x = images.float() / 16
    network = Network()
    before = train(network, network, x, digits, asked.updates)
    print(f"with snnTorch, after {asked.updates} updates: {before:.1f} % of the test images are right")

    with torch.no_grad():
        theirs = network(x[FOR_TRAINING:])
        lif_cuda.convert(network, report=print)
        ours, at_once = network(x[FOR_TRAINING:]), without_loop(network, x[FOR_TRAINING:])
    difference = max((ours - theirs).abs().max().item(), (at_once - theirs).abs().max().item())
    print(f"converted, it says the same: membranes differ by {difference:.1g} at most")

    after = train(lambda pixels: without_loop(network, pixels), network, x, digits, asked.updates)
    print(f"and after {asked.updates} more, without the loop: {after:.1f} %")
    return {"before": before, "after": after, "difference": difference}


if __name__ == "__main__":
    main()
