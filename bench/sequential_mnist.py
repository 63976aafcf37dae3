"""Sequential MNIST: a recurrent spiking layer reads each image row by row, or pixel by pixel.

    python bench/sequential_mnist.py --data FOLDER --out runs/rows
    python bench/sequential_mnist.py --data FOLDER --out runs/pixels --by pixels

Linear -> RecurrentLIF -> Linear of the spike counts. By rows an image of 28 x 28 is 28 time steps of 28
numbers, by pixels 784 steps of one. --backend both trains the same network on the reference neurons as
well, from the same weights and on the same batches.

Prints one table, and writes to --out what bench/mnist.py does: results.json, a checkpoint of each network
after each epoch, and pictures. Killed at any moment, the same command with --resume goes on from the last
whole epoch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# cuBLAS is deterministic only with a workspace of fixed size, which it reads before its first use.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from torch import Tensor, nn

from common.distributed import DeviceError
from common.files import write_json
from job import course, images, report
from job.checkpoint import CheckpointError
from job.options import add_learning, add_limits, count, device_of, named_backends
from job.training import Network, Split, TrainingError, make_deterministic
from lif_cuda import RecurrentLIF, ReferenceRecurrentLIF
from lif_cuda._recurrent_module import RecurrentModule
from lif_cuda.data import DataError, ImageData, load

_CLASSES = 10
_ERRORS = (DataError, TrainingError, CheckpointError, DeviceError)
_LAYERS: dict[str, type[RecurrentModule]] = {"fused": RecurrentLIF, "reference": ReferenceRecurrentLIF}


class SequentialClassifier(nn.Module):
    """Linear -> recurrent LIF -> Linear, over images that come a part a step.

    Args:
        part: pixels of a time step.
        hidden: neurons of the recurrent layer.
        layer: the fused layer or the reference; the same seed gives the same network with either.
    """

    def __init__(self, part: int, hidden: int, layer: type[RecurrentModule]) -> None:
        super().__init__()
        self.part = part
        self.input = nn.Linear(part, hidden)
        self.lif = layer(hidden, learn_beta=True, output="count", return_state=False)
        self.readout = nn.Linear(hidden, _CLASSES)

    def current(self, images: Tensor) -> Tensor:
        """The input current of all steps, [T, images, hidden], of images [N, pixels]."""
        parts = images.unflatten(1, (-1, self.part)).transpose(0, 1)
        current: Tensor = self.input(parts)
        return current

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, 10] of images [N, pixels]: what the counts of all steps say."""
        logits: Tensor = self.readout(self.lif(self.current(images)))
        return logits


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the job with the command line ``arguments``; exits with a message if it cannot."""
    options = _options(arguments)
    try:
        _run(options)
    except _ERRORS as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"interrupted; the same command with --resume goes on (--out {options.out})")


def _run(options: argparse.Namespace) -> None:
    started = course.now()
    device = device_of(options.device)
    make_deterministic(options.threads)
    data = load(options.data)
    train, test = images.splits(data, options, device)
    images.say(data, train, test)
    part = data.image_shape[1] if options.by == "rows" else 1
    options.steps = data.input_size // part
    options.linear = "dense"  # its Linears are given pixels
    print(
        f"{options.steps} steps of {part}, seed {options.seed}, device {device}, "
        f"{torch.get_num_threads()} threads, results in {options.out}"
    )
    networks = _networks(options, part, device)
    shared = course.settings_of(options, data, train, test, device) | {"by": options.by}
    settings = {net.name: shared | {"backend": net.backend} for net in networks}
    course.make_folder(options.out)
    course.resume_or_clear(options, networks, settings)
    course.train_all(options, networks, settings, train, test)
    results = course.origin(options, started, shared, device) | {
        "data": images.facts(data, train, test),
        "notes": {key: report.NOTES[key] for key in ("accuracy", "loss", "firing_rates", "seconds")},
    }
    results |= {net.name: _network_report(net, part, options.hidden) for net in networks}
    by_name = {net.name: net for net in networks}
    if "snn_reference" in by_name:
        results["comparison"] = report.comparison(by_name["snn"], by_name["snn_reference"])
    write_json(options.out / "results.json", results)
    print(f"\n{table(results)}\n")
    images.warn(data)
    _draw(options.out, results, by_name["snn"], data, test)


def _networks(options: argparse.Namespace, part: int, device: torch.device) -> list[Network]:
    """The network on each backend asked for, from the same weights."""
    networks = []
    for name, backend in named_backends(options.backend):
        torch.manual_seed(options.seed)
        model = SequentialClassifier(part, options.hidden, _LAYERS[backend]).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, fused=True)
        networks.append(
            Network(name, backend, model, model, options.steps, optimizer, options.lr, options.schedule)
        )
    return networks


def _network_report(network: Network, part: int, hidden: int) -> dict[str, Any]:
    """The object of one network in results.json."""
    history = network.history
    rates = history.firing_rates["lif"]
    return {
        "backend": network.backend,
        "layer_sizes": [part, hidden, _CLASSES],
        "steps": network.steps,
        "epochs": history.epochs,
        "test_accuracy": history.test_accuracy[-1],
        "train_accuracy": history.train_accuracy[-1],
        "test_accuracy_by_epoch": history.test_accuracy,
        "train_accuracy_by_epoch": history.train_accuracy,
        "loss": history.loss[-1],
        "loss_by_epoch": history.loss,
        "parameters": sum(p.numel() for p in network.model.parameters()),
        "firing_rates": {"lif": rates[-1], "mean": rates[-1]},
        "firing_rates_by_epoch": history.firing_rates,
        "seconds_per_epoch": statistics.median(history.training_seconds),
        "training_seconds_by_epoch": history.training_seconds,
        "evaluation_seconds_by_epoch": history.evaluation_seconds,
    }


def table(results: dict[str, Any]) -> str:
    """One table of the networks in ``results``, and the comparison if there is one."""
    networks = [results[key] for key in ("snn", "snn_reference") if key in results]
    rows = [
        ("", [f"{net['backend']}" for net in networks]),
        ("test accuracy, %", [f"{net['test_accuracy']:.2f}" for net in networks]),
        ("train accuracy, %", [f"{net['train_accuracy']:.2f}" for net in networks]),
        ("parameters", [f"{net['parameters']:,}" for net in networks]),
        ("firing rate", [f"{net['firing_rates']['lif']:.2%}" for net in networks]),
        ("seconds an epoch, training", [f"{net['seconds_per_epoch']:.2f}" for net in networks]),
    ]
    lines = [label.ljust(28) + "".join(value.rjust(12) for value in values) for label, values in rows]
    lines.insert(1, "-" * (28 + 12 * len(networks)))
    if "comparison" in results:
        lines += ["", report.compared(results["comparison"])]
    return "\n".join(lines)


def _draw(out: Path, results: dict[str, Any], network: Network, data: ImageData, test: Split) -> None:
    try:
        from common.picture_style import save
        from job import sequential_pictures
    except ImportError as error:
        print(f"no pictures: {error}; pip install matplotlib, and run again with --resume")
        return
    model = network.model
    assert isinstance(model, SequentialClassifier)
    with torch.no_grad():
        spikes, _ = model.lif._run(
            model.current(test.images[:1]),
            None,
            model.lif._settled.but(output="spikes", return_state=True),
            None,
        )
    figures = sequential_pictures.figures(
        results, spikes[:, 0].cpu().numpy(), data.test_images[0], int(data.test_labels[0])
    )
    course.say_pictures(save(figures, out), out)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a recurrent spiking layer on MNIST, row by row or pixel by pixel.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--by", choices=["rows", "pixels"], default="rows", help="what a time step brings")
    parser.add_argument(
        "--backend", choices=["fused", "reference", "both"], default="fused", help="neurons, or each in turn"
    )
    parser.add_argument("--epochs", type=count, default=10, help="passes over the training images")
    parser.add_argument("--hidden", type=count, default=256, help="neurons of the recurrent layer")
    parser.add_argument("--batch-size", type=count, default=128, help="images a training step")
    add_learning(parser, lr=2e-3)
    parser.add_argument("--threads", type=count, default=None, help="CPU threads; None: as torch takes")
    parser.add_argument("--device", default=None, help="such as cpu or cuda; None: cuda where there is one")
    parser.add_argument("--data", default=None, help="as bench/mnist.py has it")
    parser.add_argument("--out", type=Path, default=Path("runs/sequential"), help="folder for results")
    parser.add_argument("--resume", action="store_true", help="go on from the last whole epoch in --out")
    add_limits(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
