"""The path from a library to lif_cuda: its own tutorial's network, trained with its neurons and converted.

    python bench/convert.py --data DATA --threads 1 --json bench/results/convert_1thread.json
    python bench/convert.py --tutorial csnn --images 2000 --test-images 1000 --seeds 2

Each network (nets/tutorials.py) is trained for two epochs from the same weights, once for each seed:

    theirs          as the tutorial has it
    converted       after lif_cuda.convert, everything around the neurons as it was
    without a loop  (mlp) the same with the loop over time replaced by one call of each layer for all steps

Then one training step of each is timed, in turns (common/turns.py).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lif_cuda
from common import commit, machine
from common.files import write_json
from common.turns import Yardstick, interleaved
from lif_cuda import data
from nets.tutorials import TUTORIALS, Tutorial, WithoutLoop, tutorial_of
from rivals.equals import PACKAGES, version

BATCH = 128


def networks(tutorial: Tutorial, seed: int) -> dict[str, nn.Module]:
    """The network in each of its forms, all with the same weights."""
    forms: dict[str, nn.Module] = {}
    for name in ("theirs", "converted", *["without a loop"] * (tutorial.name == "mlp")):
        torch.manual_seed(seed)
        network = tutorial.build(tutorial.steps)
        if name != "theirs":
            network = lif_cuda.convert(network)
        forms[name] = WithoutLoop(network) if name == "without a loop" else network
    return forms


class Trainer:
    """A network in training."""

    def __init__(self, tutorial: Tutorial, network: nn.Module) -> None:
        self.tutorial, self.network = tutorial, network
        self.optimizer = torch.optim.Adam(network.parameters(), lr=tutorial.learning_rate)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One training step."""
        loss = self.tutorial.loss(self.network(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def epoch(self, images: Tensor, labels: Tensor, order: Tensor) -> None:
        """All whole batches."""
        for batch in order.split(BATCH):
            if len(batch) == BATCH:
                self.step(images[batch], labels[batch])

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Percent of whole batches that are answered right."""
        right = [
            self.tutorial.answers(self.network(batch)) == answers
            for batch, answers in zip(images.split(BATCH), labels.split(BATCH), strict=True)
        ]
        return 100 * float(torch.cat(right).double().mean())


def train(
    tutorial: Tutorial, splits: dict[str, tuple[Tensor, Tensor]], epochs: int, seeds: int
) -> dict[str, list[float]]:
    """The test accuracy of each form, for each seed."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        for name, network in networks(tutorial, seed).items():
            trainer = Trainer(tutorial, network)
            generator = torch.Generator().manual_seed(seed)
            for _ in range(epochs):
                order = torch.randperm(len(splits["train"][0]), generator=generator)
                trainer.epoch(*splits["train"], order)
            found.setdefault(name, []).append(trainer.accuracy(*splits["test"]))
            print(f"seed {seed}, {name}: {found[name][-1]:.2f} %", file=sys.stderr, flush=True)
    return found


def table_of(results: dict[str, Any]) -> str:
    """The results for a terminal."""
    lines = [
        f"{results['tutorial']} of {results['library']}, T = {results['steps']}, {results['epochs']} epochs "
        f"of {results['images']} images, {results['machine']['threads']} threads",
        f"  {'':16}{'accuracy, %':>24}{'step, ms':>12}{'times theirs is':>18}",
    ]
    for name, accuracies in results["accuracies"].items():
        ratio = results["times_of_theirs"][name]
        spread = f"{min(accuracies):.2f} to {max(accuracies):.2f}"
        mean = statistics.mean(accuracies)
        lines.append(
            f"  {name:16}{mean:8.2f} ({spread})".ljust(42)
            + f"{results['seconds'][name]['median'] * 1e3:12.1f}"
            + f"{ratio['median']:8.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        )
    return "\n".join(lines)


def _splits(options: argparse.Namespace, shape: tuple[int, ...]) -> dict[str, tuple[Tensor, Tensor]]:
    """Images in [0, 1] and labels, of both splits."""
    read = data.load(options.data)
    found = {}
    for name, limit in (("train", options.images), ("test", options.test_images)):
        images = torch.as_tensor(getattr(read, f"{name}_images"))[:limit].float() / read.white
        labels = torch.as_tensor(getattr(read, f"{name}_labels"))[:limit].long()
        found[name] = (images.reshape(-1, *shape), labels)
    return found


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [
        tutorial.name for tutorial in TUTORIALS if tutorial.name != "sew"
    ]  # its images have three colours
    parser = argparse.ArgumentParser(
        description="Train a tutorial's network with its neurons and converted.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tutorial", choices=names, default="mlp")
    parser.add_argument("--data", help="folder with MNIST; None: as lif_cuda.data.load finds it")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, help="training images; None: all")
    parser.add_argument("--test-images", type=int, help="None: all")
    parser.add_argument("--threads", type=int, help="CPU threads; None: as many as torch takes")
    parser.add_argument("--seconds", type=float, default=30.0, help="for the turns of the training steps")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, time and report."""
    options = _options(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    tutorial = tutorial_of(options.tutorial)
    if version(tutorial.library) is None:
        print(f"{tutorial.library} is not installed: see tests/libraries.txt", file=sys.stderr)
        return 1
    splits = _splits(options, tutorial.shape)
    accuracies = train(tutorial, splits, options.epochs, options.seeds)
    trainers = {name: Trainer(tutorial, network) for name, network in networks(tutorial, 0).items()}
    images, labels = (tensor[:BATCH] for tensor in splits["train"])
    calls: dict[str, Callable[[], object]] = {
        name: partial(trainer.step, images, labels) for name, trainer in trainers.items()
    }
    turns = interleaved(calls, options.seconds, torch.device("cpu"), Yardstick(), long=options.seconds)
    results: dict[str, Any] = {
        "format": 1,
        "command": machine.command(),
        "versions": machine.versions() | {name: version(name) for name in PACKAGES},
        "machine": machine.machine(torch.device("cpu")),
        "commit": commit.commit(),
        "tutorial": tutorial.name,
        "library": tutorial.library,
        "steps": tutorial.steps,
        "epochs": options.epochs,
        "images": len(splits["train"][0]),
        "accuracies": accuracies,
        "seconds": {name: asdict(turns.timing(name)) for name in turns.seconds},
        "times_of_theirs": {name: asdict(turns.ratio("theirs", name)) for name in turns.seconds},
    }
    print(table_of(results))
    if options.json:
        write_json(options.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
