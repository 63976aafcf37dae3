"""Temporal coding on MNIST: the class is the neuron that fires first.

    python examples/temporal_coding.py --data DATA
    python examples/temporal_coding.py --data DATA --input latency --loss cross-entropy

784-256-10, 25 steps. The output of the last layer is the time of each neuron's first spike (T where it never
fires), and the loss is one of those times; nothing is counted. What makes it train:

- The gradient of the first-spike time is here that of ``sum over t of prod over k <= t of (1 - s[k])``, by
  the product rule: it does not vanish where a neuron is silent, so none has to fire at the start.
- Target times, an early one for the right class and the end for the others, and the squared distance to them,
  over T: a wrong neuron that never fires costs nothing, and the right one is not driven to the first steps,
  where little is known yet. Of those that were tried 4 and 25 are best; with 1 and 12 it hardly learns.
- Or the cross entropy of ``-times / 4``, a softmax over times; 1 is too sharp there, and 12 too flat.
- With latency-coded input each pixel fires once and not at each step: the first layer starts with four times
  the weights of ``nn.Linear``, or hardly any of its neurons fires.
- A surrogate that is wide enough: ``ATan()``; ``FastSigmoid`` of 10 or 25 does as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from lif_cuda import LIF, data, encoding, surrogate

CLASSES = 10
BATCH = 128


class TemporalClassifier(nn.Module):
    """Linear, LIF, Linear, LIF, and the time of each class's first spike.

    Args:
        pixels, hidden: sizes.
        steps: T.
        latency: each pixel fires once, the earlier the brighter; else it is a current at each step.
    """

    def __init__(self, pixels: int = 784, hidden: int = 256, steps: int = 25, latency: bool = False) -> None:
        super().__init__()
        options: dict[str, Any] = {"beta": 0.9, "surrogate": surrogate.ATan(), "return_state": False}
        self.steps, self.latency = steps, latency
        self.fc1 = nn.Linear(pixels, hidden)
        self.lif1 = LIF(**options)
        self.fc2 = nn.Linear(hidden, CLASSES)
        self.lif2 = LIF(**options, output=("first_spike", "spikes"))
        if latency:
            with torch.no_grad():
                self.fc1.weight *= 4

    def forward(self, images: Tensor) -> Any:
        """``first_spike``, [batch, classes], and ``spikes`` of images [batch, pixels] in [0, 1]."""
        if self.latency:
            pixels = encoding.latency(images, self.steps, threshold=0.01, silent=True)
            spikes = self.lif1(self.fc1(pixels))
        else:
            spikes = self.lif1(self.fc1(images), steps=self.steps)
        return self.lif2(self.fc2(spikes))


def target_loss(out: Any, labels: Tensor, steps: int, early: float = 4.0) -> Tensor:
    """Squared distance to the target times: ``early`` for the right class, the end for the others."""
    times: Tensor = out.first_spike
    targets = torch.full_like(times, steps).scatter(1, labels.unsqueeze(1), early)
    return nnf.mse_loss(times, targets) / steps


def softmax_loss(out: Any, labels: Tensor, steps: int, width: float = 4.0) -> Tensor:
    """Cross entropy of a softmax over the times; ``width`` in steps."""
    return nnf.cross_entropy(-out.first_spike / width, labels)


def snntorch_loss(out: Any, labels: Tensor, steps: int) -> Tensor:
    """snnTorch's temporal loss, with its own gradient of the first spike's time; to compare with."""
    from snntorch import functional

    loss: Tensor = functional.ce_temporal_loss()(out.spikes, labels)
    return loss


LOSSES = {"targets": target_loss, "cross-entropy": softmax_loss, "snntorch": snntorch_loss}


def train_epoch(
    network: TemporalClassifier,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    loss_name: str,
) -> None:
    """One epoch of whole batches, in an order drawn anew."""
    for batch in torch.randperm(len(images)).split(BATCH):
        if len(batch) < BATCH:
            continue
        loss = LOSSES[loss_name](network(images[batch]), labels[batch], network.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def evaluate(network: TemporalClassifier, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Percent of images answered right, and the mean step of the answer. No spike at all is no answer."""
    times = torch.cat([network(batch).first_spike for batch in images.split(1000)])
    first, answers = times.min(1)
    right = (answers == labels) & (first < network.steps)
    return 100 * float(right.double().mean()), float(first.double().mean())


def main(arguments: Sequence[str] | None = None) -> float:
    """Train and report; returns the accuracy on the test images after the last epoch."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", help="folder with MNIST; None: as lif_cuda.data.load finds it")
    parser.add_argument("--input", choices=("constant", "latency"), default="constant")
    parser.add_argument("--loss", choices=list(LOSSES), default="targets")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--images", type=int, help="training images; None: all")
    parser.add_argument("--threads", type=int, help="CPU threads; None: as many as torch takes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    read = data.load(options.data)
    splits = {}
    for name, limit in (("train", options.images), ("test", None)):
        images = torch.as_tensor(getattr(read, f"{name}_images"))[:limit].float().flatten(1) / read.white
        splits[name] = images, torch.as_tensor(getattr(read, f"{name}_labels"))[:limit].long()
    network = TemporalClassifier(
        splits["train"][0].shape[1], steps=options.steps, latency=options.input == "latency"
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    accuracy = 0.0
    for epoch in range(options.epochs):
        train_epoch(network, optimizer, *splits["train"], options.loss)
        accuracy, when = evaluate(network, *splits["test"])
        print(
            f"epoch {epoch + 1}: {accuracy:.2f} % of the test images, decided at step {when:.1f}", flush=True
        )
    return accuracy


if __name__ == "__main__":
    main()
    sys.exit(0)
