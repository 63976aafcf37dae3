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
import math
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

# cuBLAS is deterministic only with a workspace of fixed size, which it reads before its first use.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import _checkpoint
import _commit
import _distributed
import _machine
import _report
import torch
from _distributed import in_first
from _files import write_json
from _training import Network, Split, TrainingError, build, make_deterministic, run_epoch

from lif_cuda import LIF, ReferenceLIF
from lif_cuda._module import LIFModule
from lif_cuda.data import DataError, ImageData, load
from lif_cuda.models import SNNClassifier

_CLASSES = 10
_ERRORS = (DataError, TrainingError, _checkpoint.CheckpointError, _distributed.DeviceError)
_LAYERS: dict[str, type[LIFModule]] = {"fused": LIF, "reference": ReferenceLIF}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the job with the command line ``arguments``; exits with a message if it cannot."""
    with _distributed.job():
        options = in_first(_options, arguments)
        try:
            _run(options)
        except _ERRORS as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            message = f"interrupted; the same command with --resume goes on (--out {options.out})"
            sys.exit(message if _distributed.rank() == 0 else 1)


def _run(options: argparse.Namespace) -> None:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    device = in_first(_device, options.device)
    _distributed.choose_device(device)
    make_deterministic(options.threads)
    data = in_first(load, options.data)
    train, test = (
        Split(*_split(data, split, limit, device))
        for split, limit in (("train", options.train_limit), ("test", options.test_limit))
    )
    _say_data(data, train, test)
    print(
        f"seed {options.seed}, device {device}, {torch.get_num_threads()} threads, results in {options.out}"
    )

    sizes = (data.input_size, options.hidden, options.hidden, _CLASSES)
    networks = _networks(options, data.input_size, device)
    common = _settings(options, data, train, test, device)
    settings = {net.name: _own_settings(net, common) for net in networks}
    in_first(_make_folder, options.out)
    _resume_or_clear(options, networks, settings)
    _train_all(options, networks, settings, train, test)
    if _distributed.rank() != 0:
        return

    results = {
        "format": 1,
        "command": _machine.command(),
        "started": started,
        "resumed": options.resume,
        "settings": common | {"backend": options.backend, "epochs": options.epochs},
        "versions": _machine.versions(),
        "machine": _machine.machine(device),
        "commit": _commit.commit(),
        "data": _data_facts(data, train, test),
        "notes": _report.NOTES,
    }
    by_name = {net.name: net for net in networks}
    results |= {name: _report.network_report(net, sizes) for name, net in by_name.items()}
    if "snn_reference" in by_name:
        results["comparison"] = _report.comparison(by_name["snn"], by_name["snn_reference"])
    write_json(options.out / "results.json", results)
    print(f"\n{_report.table(results)}\n")
    if data.warning:
        _shout(data.warning)
    _draw(options.out, results, by_name["snn"], data, test)


def _networks(options: argparse.Namespace, input_size: int, device: torch.device) -> list[Network]:
    """The networks of this run: the SNN on each backend asked for, and the ANN."""
    backends = ["fused", "reference"] if options.backend == "both" else [options.backend]
    kinds: list[tuple[str, str | None]] = [
        ("snn" if i == 0 else f"snn_{backend}", backend) for i, backend in enumerate(backends)
    ]
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
        for name, backend in [*kinds, ("ann", None)]
    ]


def _settings(
    options: argparse.Namespace, data: ImageData, train: Split, test: Split, device: torch.device
) -> dict[str, Any]:
    """What the result depends on: processes, threads and version too, for they order the sums."""
    return {
        "steps": options.steps,
        "hidden": options.hidden,
        "linear": options.linear,
        "batch_size": options.batch_size,
        "lr": options.lr,
        "schedule": options.schedule,
        # A cosine ends with the last epoch, so a longer run differs from its first batch on.
        "schedule_epochs": options.epochs if options.schedule == "cosine" else None,
        "seed": options.seed,
        "processes": _distributed.size(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "data": f"{data.name}, sha256 {data.digest()}",
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "torch": str(torch.__version__),
    }


def _own_settings(network: Network, common: dict[str, Any]) -> dict[str, Any]:
    """Those of one network: the ANN has no steps, no Linear for spikes and no backend."""
    own = {key: value for key, value in common.items() if key not in ("steps", "linear")}
    linear = None if network.steps is None else common["linear"]
    return own | {"steps": network.steps, "linear": linear, "backend": network.backend}


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"error: --out {out} cannot be made a folder: {error.strerror}")


def _resume_or_clear(
    options: argparse.Namespace, networks: list[Network], settings: dict[str, dict[str, Any]]
) -> None:
    paths = {net.name: _checkpoint.path_of(options.out, net.name) for net in networks}
    if not options.resume:
        in_first(_clear, options.out)
        return
    for net in networks:
        if in_first(paths[net.name].exists):
            _checkpoint.restore(paths[net.name], net, settings[net.name], options.epochs)
            print(f"{net.name}: going on after epoch {net.history.epochs}")
        else:
            print(f"{net.name}: no checkpoint in {options.out}, starting from the first epoch")


def _clear(out: Path) -> None:
    old = sorted(out.glob(_checkpoint.path_of(Path(), "*").name))
    for path in old:
        path.unlink()
    if old:
        print(f"starting anew: removed the checkpoints of the run before in {out}")


def _train_all(
    options: argparse.Namespace,
    networks: list[Network],
    settings: dict[str, dict[str, Any]],
    train: Split,
    test: Split,
) -> None:
    """Train the networks in turn, an epoch each, so that a busy machine slows all of them."""
    for epoch in range(options.epochs):
        for net in networks:
            if net.history.epochs > epoch:
                continue
            run_epoch(
                net,
                train,
                test,
                seed=options.seed,
                batch_size=options.batch_size,
                epochs=options.epochs,
            )
            path = _checkpoint.path_of(options.out, net.name)
            in_first(_checkpoint.save, path, net, settings[net.name])
            history = net.history
            print(
                f"epoch {epoch + 1:>2}/{options.epochs}  {net.name:<13}  "
                f"loss {history.loss[-1]:.4f}  train {history.train_accuracy[-1]:6.2f} %  "
                f"test {history.test_accuracy[-1]:6.2f} %  "
                f"{history.training_seconds[-1]:.1f} s training, "
                f"{history.evaluation_seconds[-1]:.1f} s evaluating",
                flush=True,
            )


def _draw(out: Path, results: dict[str, Any], network: Network, data: ImageData, test: Split) -> None:
    try:
        import _pictures
        import _spike_picture
        from _picture_style import save
    except ImportError as error:
        print(f"no pictures: {error}; pip install matplotlib, and run again with --resume")
        return
    from _trace import record

    model = cast(SNNClassifier, network.model)
    trace = record(model, test.images[0], cast(int, network.steps))
    spikes = _spike_picture.figure_of(trace, data.test_images[0], int(data.test_labels[0]))
    _pictures.say_data(spikes, results["data"])
    figures = _pictures.figures(results) | {"spikes.png": spikes}
    names = ", ".join(path.name for path in save(figures, out))
    print(f"results.json, checkpoints and pictures ({names}) are in {out}")


def _split(
    data: ImageData, split: str, limit: int | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        return data.tensors(split, limit, device)
    except ValueError as error:
        sys.exit(f"error: --{split}-limit: {error}")


def _say_data(data: ImageData, train: Split, test: Split) -> None:
    rows, columns = data.image_shape
    print(
        f"data: {data.name}, {data.source}: {len(train.labels):,} training and "
        f"{len(test.labels):,} test images of {rows} x {columns}"
    )
    if data.warning:
        _shout(data.warning)


def _shout(warning: str) -> None:
    print(f"{'!' * 79}\nWARNING: {warning}\n{'!' * 79}")


def _data_facts(data: ImageData, train: Split, test: Split) -> dict[str, Any]:
    return {
        "name": data.name,
        "source": data.source,
        "warning": data.warning,
        "is_mnist": data.warning is None,
        "image_shape": list(data.image_shape),
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "sha256": data.digest(),
        "mean": data.mean,
        "std": data.std,
    }


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        sys.exit(f"error: --device must be a device of torch such as cpu or cuda, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit(f"error: --device {name}: this torch sees no CUDA device; use --device cpu")
    return device


def _number(kind: Callable[[str], Any], low: float, high: float, what: str) -> Callable[[str], Any]:
    """An argparse type: a number from ``low`` to ``high``, described as ``what``."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not math.isfinite(value) or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
        return value

    return parse


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    count = _number(int, 1, math.inf, "a whole number of at least 1")
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
    parser.add_argument(
        "--lr",
        type=_number(float, sys.float_info.min, math.inf, "a finite number above 0"),
        default=1e-3,
        help="learning rate of Adam",
    )
    parser.add_argument(
        "--schedule",
        choices=["cosine", "constant"],
        default="cosine",
        help="of the learning rate: half a cosine down to 0, or constant (then --resume may add epochs)",
    )
    parser.add_argument(
        "--seed",
        # The generator of torch on the CPU takes 32 bits; a larger seed would repeat a smaller one.
        type=_number(int, 0, 2**32 - 1, "a whole number from 0 to 4294967295"),
        default=0,
        help="of the weights and of the order of the images",
    )
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
    parser.add_argument("--train-limit", type=count, default=None, help="use only so many training images")
    parser.add_argument("--test-limit", type=count, default=None, help="use only so many test images")
    options = parser.parse_args(arguments)
    processes = _distributed.size()
    if options.batch_size < processes:
        parser.error(
            f"argument --batch-size: must be at least {processes}, an image for each process, got "
            f"{options.batch_size}; give more, or fewer processes to torchrun by --nproc-per-node"
        )
    return options


if __name__ == "__main__":
    main()
