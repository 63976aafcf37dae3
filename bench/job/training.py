"""Training and evaluating one network, the same way bit for bit each time."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from tqdm import tqdm

from common.distributed import in_first, parallel, rank, share, size, summed
from lif_cuda import PackedSpikes, energy
from lif_cuda._module import LIFModule
from lif_cuda.models import ANNClassifier, SNNClassifier

# Of evaluation only, where the batch size changes no result that is reported: small enough for the
# spikes of one layer to stay in a cache of some tens of MB.
_EVALUATION_BATCH = 512


class TrainingError(Exception):
    """Training cannot go on; the message says why and what to do."""


class Split(NamedTuple):
    """Images, float32 [N, pixels], and labels, int64 [N], on the device of the network."""

    images: Tensor
    labels: Tensor


@dataclass
class History:
    """One entry for each whole epoch. Accuracies in percent, rates from 0 to 1, times in seconds.

    ``loss`` is the mean over the images of the epoch while the weights were moving; ``step_losses``
    holds each batch's. Accuracies, firing rates and additions (for each test image, of Linears that add
    for spikes) are those of the weights at the end of the epoch.
    """

    loss: list[float] = field(default_factory=list)
    step_losses: list[list[float]] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    firing_rates: dict[str, list[float]] = field(default_factory=dict)
    additions: list[float | None] = field(default_factory=list)
    training_seconds: list[float] = field(default_factory=list)
    evaluation_seconds: list[float] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Whole epochs so far."""
        return len(self.loss)


@dataclass
class Network:
    """A model in training.

    Attributes:
        name: its key in the results: ``"snn"``, ``"snn_reference"`` or ``"ann"``.
        backend: ``"fused"`` or ``"reference"``; None for the ANN.
        model: what is trained.
        classify: images [B, pixels] to logits [B, classes]; several processes average their gradients.
        steps: time steps T; None for the ANN.
        optimizer: over all parameters of ``model``.
        lr: the learning rate at the start.
        schedule: ``"constant"``, or ``"cosine"``: half a cosine from ``lr`` down to 0 at the last batch.
        history: what happened so far.
    """

    name: str
    backend: str | None
    model: nn.Module
    classify: Callable[[Tensor], Tensor]
    steps: int | None
    optimizer: torch.optim.Optimizer
    lr: float
    schedule: str
    history: History = field(default_factory=History)


def make_deterministic(threads: int | None) -> None:
    """Make the same seed on the same number of threads give the same bits, on CPU and CUDA."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # It fills each new tensor with NaN, to find reads of uninitialised memory: a pass for nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def build(
    name: str,
    layer: type[LIFModule] | None,
    *,
    backend: str | None,
    input_size: int,
    hidden: int,
    steps: int,
    seed: int,
    lr: float,
    schedule: str,
    device: torch.device,
    linear: Literal["events", "dense"] = "events",
) -> Network:
    """Build a network with its optimiser: an SNN of ``layer``, or the ANN if that is None.

    ``linear`` is the second Linear of the SNN, as SNNClassifier takes it.

    The weights are drawn on the CPU right after seeding, so that they are the same for both layers
    and on every device.
    """
    torch.manual_seed(seed)
    model: nn.Module = (
        ANNClassifier(input_size, hidden)
        if layer is None
        else SNNClassifier(input_size, hidden, layer=layer, linear=linear)
    ).to(device)
    forward = parallel(model, torch.zeros(1, input_size, device=device))
    classify: Callable[[Tensor], Tensor] = forward if layer is None else partial(forward, num_steps=steps)
    # One pass over parameter, gradient and moments instead of a dozen; the same for every network.
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    return Network(name, backend, model, classify, steps if layer else None, optimizer, lr, schedule)


def learning_rate(lr: float, schedule: str, progress: float) -> float:
    """The rate after the share ``progress`` (0 to 1) of all batches; it needs no state to resume."""
    return lr if schedule == "constant" else 0.5 * lr * (1.0 + math.cos(math.pi * progress))


def batch_order(seed: int, epoch: int, images: int) -> Tensor:
    """The order of the images in one epoch, int64 [images], from (seed, epoch) and nothing else."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(images))


def run_epoch(
    network: Network, train: Split, test: Split, *, seed: int, batch_size: int, epochs: int
) -> None:
    """Train for the next epoch, evaluate, and append to ``network.history``.

    Raises:
        TrainingError: the loss is no longer finite; see :func:`common.distributed.in_first`.
    """
    history = network.history
    epoch = history.epochs
    title = f"{network.name} {epoch + 1}/{epochs}"

    started = _now(train.images.device)
    order = batch_order(seed, epoch, len(train.labels))
    losses, sizes = _train(network, train, order, batch_size, epochs, title)
    trained = _now(train.images.device)
    loss = float((losses.double() * sizes).sum() / sizes.sum())
    in_first(_require_finite, loss, network.name, epoch + 1)
    train_accuracy, *_ = evaluate(network, train, f"{title} train accuracy")
    test_accuracy, rates, additions = evaluate(network, test, f"{title} test accuracy")
    evaluated = _now(train.images.device)

    history.loss.append(loss)
    history.step_losses.append(losses.tolist())
    history.train_accuracy.append(train_accuracy)
    history.test_accuracy.append(test_accuracy)
    for layer, rate in rates.items():
        history.firing_rates.setdefault(layer, []).append(rate)
    history.additions.append(additions)
    history.training_seconds.append(trained - started)
    history.evaluation_seconds.append(evaluated - trained)


def _require_finite(loss: float, name: str, epoch: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(f"the loss of {name} is {loss} in epoch {epoch}: training diverged; lower --lr")


def _train(
    network: Network, train: Split, order: Tensor, batch_size: int, epochs: int, title: str
) -> tuple[Tensor, Tensor]:
    """One pass over the images; the loss and the size of each whole batch, on the CPU."""
    network.model.train()
    batches = order.to(train.images.device).split(batch_size)
    losses = torch.zeros(len(batches), device=train.images.device)
    sizes = torch.tensor([len(batch) for batch in batches], dtype=torch.float64)
    # The mean over the processes, which the gradients are, of (the sum over a share) / (images of the
    # batch / processes) is the mean over the batch, however many images a share has, also none.
    divisors = (sizes / size()).to(losses)
    before = network.history.epochs * len(batches)
    with _progress(title, len(batches), "batch") as bar:
        for i, batch in enumerate(batches):
            chosen = batch[share(len(batch))]
            network.optimizer.zero_grad(set_to_none=True)
            logits = network.classify(train.images.index_select(0, chosen))
            labels = train.labels.index_select(0, chosen)
            loss = nnf.cross_entropy(logits, labels, reduction="sum") / divisors[i]
            loss.backward()
            progress = (before + i) / (epochs * len(batches))
            for group in network.optimizer.param_groups:
                group["lr"] = learning_rate(network.lr, network.schedule, progress)
            network.optimizer.step()
            # Kept on the device: reading it each step would make the CPU wait for a GPU.
            losses[i] = loss.detach()
            bar.update()
    return (summed(losses) / size()).cpu(), sizes


def evaluate(network: Network, split: Split, title: str) -> tuple[float, dict[str, float], float | None]:
    """Accuracy in percent, the firing rate (0 to 1) of each LIF layer by its name, of all images, and the
    additions for each that the Linears did which add for spikes; None where there are no such Linears.
    """
    network.model.eval()
    right = torch.zeros((), dtype=torch.int64, device=split.images.device)
    images = len(split.labels)
    own = Split(*(tensor[share(images)] for tensor in split))
    batches = zip(*(tensor.split(_EVALUATION_BATCH) for tensor in own), strict=True)
    with (
        torch.no_grad(),
        count_spikes(network.model) as spikes,
        energy.count_additions(network.model) as additions,
        _progress(title, len(own.labels), "image") as bar,
    ):
        for batch, labels in batches:
            right += (network.classify(batch).argmax(1) == labels).sum()
            bar.update(len(labels))
    rates = {
        layer: energy.firing_rate(float(summed(total)), images, network.steps or 1, neurons)
        for layer, (total, neurons) in spikes.items()
    }
    accuracy = 100.0 * int(summed(right)) / images
    if not additions.by_layer():
        return accuracy, rates, None
    added = summed(torch.tensor(float(additions.total()), dtype=torch.float64, device=right.device))
    return accuracy, rates, float(added) / images


@contextmanager
def count_spikes(model: nn.Module) -> Iterator[dict[str, tuple[Tensor, int]]]:
    """While open, count the spikes of each LIF layer of ``model``.

    A layer's output is its spikes, [T, B, N], as numbers or bits, or their count, [B, N]; the sum of any is
    the number of spikes.

    Yields:
        For each layer that ran, by name: its spikes so far (float64, 0-dim, which counts exactly up
        to 2**53) and its neurons N.
    """
    totals: dict[str, tuple[Tensor, int]] = {}

    def add(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        packed = isinstance(output, PackedSpikes)
        spikes = output.count().double() if packed else output.sum(dtype=torch.float64)
        before = totals[name][0] if name in totals else 0.0
        totals[name] = (before + spikes, output.shape[-1])

    hooks = [
        module.register_forward_hook(partial(add, name))
        for name, module in model.named_modules()
        if isinstance(module, LIFModule)
    ]
    try:
        yield totals
    finally:
        for hook in hooks:
            hook.remove()


def _progress(title: str, total: int, unit: str) -> tqdm:
    # A log file has no cursor to move back: there, a line now and then and not ten a second.
    pause = 0.0 if sys.stderr.isatty() else 10.0
    interval = max(pause, 0.1)
    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        leave=False,
        delay=pause,
        mininterval=interval,
        disable=rank() != 0,
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
