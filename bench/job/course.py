"""The course of a main job: what its result depends on, its folder, its checkpoints and its epochs."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from common import distributed, machine
from common.commit import commit
from common.distributed import in_first
from job import checkpoint
from job.training import Network, Split, run_epoch
from lif_cuda.data import ImageData


def now() -> str:
    """When a job has started, as results.json says it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def settings_of(
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
        "processes": distributed.size(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "data": f"{data.name}, sha256 {data.digest()}",
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "torch": str(torch.__version__),
    }


def make_folder(out: Path) -> None:
    """Make the folder of results; exits with a message where that cannot be done."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"error: --out {out} cannot be made a folder: {error.strerror}")


def resume_or_clear(
    options: argparse.Namespace, networks: list[Network], settings: dict[str, dict[str, Any]]
) -> None:
    """Put the networks where the run in --out has left them, or remove its checkpoints.

    Args:
        options: of the command line.
        networks: freshly built.
        settings: what the result of each network depends on, by its name.
    """
    paths = {net.name: checkpoint.path_of(options.out, net.name) for net in networks}
    if not options.resume:
        in_first(_clear, options.out)
        return
    for net in networks:
        if in_first(paths[net.name].exists):
            checkpoint.restore(paths[net.name], net, settings[net.name], options.epochs)
            print(f"{net.name}: going on after epoch {net.history.epochs}")
        else:
            print(f"{net.name}: no checkpoint in {options.out}, starting from the first epoch")


def _clear(out: Path) -> None:
    old = sorted(out.glob(checkpoint.path_of(Path(), "*").name))
    for path in old:
        path.unlink()
    if old:
        print(f"starting anew: removed the checkpoints of the run before in {out}")


def train_all(
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
            path = checkpoint.path_of(options.out, net.name)
            in_first(checkpoint.save, path, net, settings[net.name])
            history = net.history
            print(
                f"epoch {epoch + 1:>2}/{options.epochs}  {net.name:<13}  "
                f"loss {history.loss[-1]:.4f}  train {history.train_accuracy[-1]:6.2f} %  "
                f"test {history.test_accuracy[-1]:6.2f} %  "
                f"{history.training_seconds[-1]:.1f} s training, "
                f"{history.evaluation_seconds[-1]:.1f} s evaluating",
                flush=True,
            )


def origin(
    options: argparse.Namespace, started: str, settings: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """How results.json begins: what was run, with what, and where."""
    return {
        "format": 1,
        "command": machine.command(),
        "started": started,
        "resumed": options.resume,
        "settings": settings | {"backend": options.backend, "epochs": options.epochs},
        "versions": machine.versions(),
        "machine": machine.machine(device),
        "commit": commit(),
    }


def say_pictures(paths: list[Path], out: Path) -> None:
    """Print what a job has left in its folder."""
    names = ", ".join(path.name for path in paths)
    print(f"results.json, checkpoints and pictures ({names}) are in {out}")
