"""The main job: train the spiking network and the matching ANN on MNIST, and compare them.

    python bench/mnist.py --data FOLDER --out runs/mnist

Prints one table, and writes to --out: results.json, a checkpoint of each network after each epoch,
and pictures. Killed at any moment, the same command with --resume goes on from the last whole epoch
to the same result, bit for bit, that an undisturbed run gives.

    torchrun --nproc-per-node 2 bench/mnist.py --data FOLDER --out runs/mnist

shares each batch among processes, on one GPU each or on the CPU, and evaluates likewise; the result
is that of one process, but for the order of sums.

Everything that is random comes from --seed: each network's weights are drawn right after seeding,
and the order of the images from (seed, epoch). The networks of one run thus start from the same
weights and see the same batches, whichever neurons they are made of.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

# cuBLAS is deterministic only with a workspace of fixed size, which it reads before its first use.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

from common import distributed
from common.distributed import in_first
from common.files import write_json
from job import course, images, report
from job.checkpoint import CheckpointError
from job.options import add_learning, add_limits, count, device_of, named_backends
from job.trace import record
from job.training import Network, Split, TrainingError, build, make_deterministic
from lif_cuda import LIF, ReferenceLIF
from lif_cuda._module import LIFModule
from lif_cuda.data import DataError, ImageData, load
from lif_cuda.models import SNNClassifier

_CLASSES = 10
_ERRORS = (DataError, TrainingError, CheckpointError, distributed.DeviceError)
_LAYERS: dict[str, type[LIFModule]] = {"fused": LIF, "reference": ReferenceLIF}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the job with the command line ``arguments``; exits with a message if it cannot."""
    with distributed.job():
        options = in_first(_options, arguments)
        try:
            _run(options)
        except _ERRORS as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            message = f"interrupted; the same command with --resume goes on (--out {options.out})"
            sys.exit(message if distributed.rank() == 0 else 1)


def _run(options: argparse.Namespace) -> None:
    started = course.now()
    device = in_first(device_of, options.device)
    distributed.choose_device(device)
    make_deterministic(options.threads)
    data = in_first(load, options.data)
    train, test = images.splits(data, options, device)
    images.say(data, train, test)
    print(
        f"seed {options.seed}, device {device}, {torch.get_num_threads()} threads, results in {options.out}"
    )

    sizes = (data.input_size, options.hidden, options.hidden, _CLASSES)
    networks = _networks(options, data.input_size, device)
    shared = course.settings_of(options, data, train, test, device)
    settings = {net.name: _own_settings(net, shared) for net in networks}
    in_first(course.make_folder, options.out)
    course.resume_or_clear(options, networks, settings)
    course.train_all(options, networks, settings, train, test)
    if distributed.rank() != 0:
        return

    results = course.origin(options, started, shared, device) | {
        "data": images.facts(data, train, test),
        "notes": report.NOTES,
    }
    by_name = {net.name: net for net in networks}
    results |= {name: report.network_report(net, sizes) for name, net in by_name.items()}
    if "snn_reference" in by_name:
        results["comparison"] = report.comparison(by_name["snn"], by_name["snn_reference"])
    write_json(options.out / "results.json", results)
    print(f"\n{report.table(results)}\n")
    images.warn(data)
    _draw(options.out, results, by_name["snn"], data, test)


def _networks(options: argparse.Namespace, input_size: int, device: torch.device) -> list[Network]:
    """The networks of this run: the SNN on each backend asked for, and the ANN."""
    kinds: list[tuple[str, str | None]] = [*named_backends(options.backend), ("ann", None)]
    return [
        build(
            name,
            None if backend is None else _LAYERS[backend],
            backend=backend,
            input_size=input_size,
            hidden=options.hidden,
            steps=options.steps,
            seed=options.seed,
            lr=options.lr,
            schedule=options.schedule,
            device=device,
            linear=options.linear,
        )
        for name, backend in kinds
    ]


def _own_settings(network: Network, shared: dict[str, Any]) -> dict[str, Any]:
    """Those of one network: the ANN has no steps, no Linear for spikes and no backend."""
    own = {key: value for key, value in shared.items() if key not in ("steps", "linear")}
    linear = None if network.steps is None else shared["linear"]
    return own | {"steps": network.steps, "linear": linear, "backend": network.backend}


def _draw(out: Path, results: dict[str, Any], network: Network, data: ImageData, test: Split) -> None:
    try:
        from common.picture_style import save
        from job import pictures, spike_picture
    except ImportError as error:
        print(f"no pictures: {error}; pip install matplotlib, and run again with --resume")
        return
    model = cast(SNNClassifier, network.model)
    trace = record(model, test.images[0], cast(int, network.steps))
    spikes = spike_picture.figure_of(trace, data.test_images[0], int(data.test_labels[0]))
    pictures.say_data(spikes, results["data"])
    figures = pictures.figures(results) | {"spikes.png": spikes}
    course.say_pictures(save(figures, out), out)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train the spiking network and the matching ANN on MNIST, and compare them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--backend",
        choices=["fused", "reference", "both"],
        default="fused",
        help="neurons of the SNN: lif_cuda.LIF, lif_cuda.ReferenceLIF, or a training of each",
    )
    parser.add_argument(
        "--linear",
        choices=["events", "dense"],
        default="events",
        help="the second Linear of the SNN: SpikeLinear (on CUDA an ordinary product), or nn.Linear",
    )
    parser.add_argument("--epochs", type=count, default=10, help="passes over the training images")
    parser.add_argument("--steps", type=count, default=25, help="time steps T of the SNN")
    parser.add_argument("--hidden", type=count, default=256, help="neurons of each hidden layer")
    parser.add_argument(
        "--batch-size", type=count, default=256, help="images a training step, of all processes together"
    )
    add_learning(parser, lr=1e-3)
    parser.add_argument(
        "--threads",
        type=count,
        default=None,
        help="CPU threads of each process; None: as many as torch takes (under torchrun with several "
        "processes one, if OMP_NUM_THREADS does not say otherwise)",
    )
    parser.add_argument(
        "--device",
        default=None,
        help="such as cpu or cuda; None: cuda where there is one; each process of torchrun has its own GPU",
    )
    parser.add_argument(
        "--data",
        default=None,
        help="folder with the MNIST files, or 'digits' for the 8x8 digits of scikit-learn; None: "
        "the folder named by LIF_CUDA_DATA, else a download by torchvision, else the 8x8 digits",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/mnist"), help="folder for results")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last whole epoch of the run in --out; without it a run starts anew",
    )
    add_limits(parser)
    options = parser.parse_args(arguments)
    processes = distributed.size()
    if options.batch_size < processes:
        parser.error(
            f"argument --batch-size: must be at least {processes}, an image for each process, got "
            f"{options.batch_size}; give more, or fewer processes to torchrun by --nproc-per-node"
        )
    return options


if __name__ == "__main__":
    main()
