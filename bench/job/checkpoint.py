"""The checkpoint of one network: whole after each epoch, and loaded without running code."""

from __future__ import annotations

import pickle
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from common.distributed import in_first
from common.files import write_atomically
from job.training import History, Network

_FORMAT = 1
_KEYS = ("format", "settings", "model", "optimizer", "history")


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message names it, what is wrong and the remedy."""


def path_of(out: Path, name: str) -> Path:
    """Where the checkpoint of the network ``name`` lies."""
    return out / f"checkpoint_{name}.pt"


def save(path: Path, network: Network, settings: dict[str, Any]) -> None:
    """Write the state after a whole epoch.

    No state of a random generator is in it: weights are drawn once, and the order of the images is
    drawn anew for each epoch from (seed, epoch).

    Args:
        path: replaced in one step.
        network: what is saved.
        settings: what the result depends on; :func:`restore` compares them. Plain values only.
    """
    content = {
        "format": _FORMAT,
        "settings": settings,
        "model": network.model.state_dict(),
        "optimizer": network.optimizer.state_dict(),
        "history": asdict(network.history),
    }
    write_atomically(path, lambda file: torch.save(content, file))


def restore(path: Path, network: Network, settings: dict[str, Any], epochs: int) -> None:
    """Put ``network`` into the state of the checkpoint, which the first process reads for all.

    Args:
        path: a file written by :func:`save`.
        network: freshly built; its weights, optimiser and history are replaced.
        settings: of this run; they must be those of the checkpoint.
        epochs: of this run; the checkpoint may hold fewer, but not more.

    Raises:
        CheckpointError: the file is damaged, or the settings differ; see :func:`common.distributed.in_first`.
    """
    content = in_first(_fitting, path, settings, epochs)
    network.model.load_state_dict(content["model"])
    network.optimizer.load_state_dict(content["optimizer"])
    network.history = History(**content["history"])


def _fitting(path: Path, settings: dict[str, Any], epochs: int) -> dict[str, Any]:
    """What is in the checkpoint, if a run with ``settings`` over ``epochs`` can go on from it."""
    content = _load(path)
    saved = content["settings"]
    differing = [
        f"{key} is {_show(settings, key)} and was {_show(saved, key)}"
        for key in sorted(saved.keys() | settings.keys())
        if saved.get(key) != settings.get(key)
    ]
    if differing:
        raise CheckpointError(
            f"--resume: the run in {path.parent} had other settings: {'; '.join(differing)}; give "
            "the same ones, or another --out, or leave out --resume to start anew"
        )
    done = History(**content["history"]).epochs
    if done > epochs:
        raise CheckpointError(
            f"--resume: {path} holds {done} epochs already and --epochs is {epochs}; "
            f"give --epochs {done} or more"
        )
    return content


def _load(path: Path) -> dict[str, Any]:
    remedy = "delete it, or leave out --resume to start anew"
    try:
        # Onto the CPU: each process puts it on its own device.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        # Only the name of the error: torch's text advises loading the file in an unsafe way.
        raise CheckpointError(
            f"--resume: {path} is damaged and cannot be loaded ({type(error).__name__}); {remedy}"
        ) from error
    if not isinstance(content, dict) or any(key not in content for key in _KEYS):
        raise CheckpointError(f"--resume: {path} is not a checkpoint of this job; {remedy}")
    if content["format"] != _FORMAT:
        raise CheckpointError(
            f"--resume: {path} has format {content['format']}, expected {_FORMAT}; {remedy}"
        )
    if set(content["history"]) != {field.name for field in fields(History)}:
        raise CheckpointError(f"--resume: {path} was written by another version; {remedy}")
    return content


def _show(settings: dict[str, Any], key: str) -> str:
    return repr(settings[key]) if key in settings else "not given"
