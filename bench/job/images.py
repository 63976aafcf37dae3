"""The images of the main job: those it trains and tests with, and what is said of them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

from job.training import Split
from lif_cuda.data import ImageData


def splits(data: ImageData, options: argparse.Namespace, device: torch.device) -> tuple[Split, Split]:
    """Images to train and to test with, as many as ``options`` allow; exits with a message otherwise."""
    train = _split(data, "train", options.train_limit, device)
    return train, _split(data, "test", options.test_limit, device)


def _split(data: ImageData, split: str, limit: int | None, device: torch.device) -> Split:
    try:
        return Split(*data.tensors(split, limit, device))
    except ValueError as error:
        sys.exit(f"error: --{split}-limit: {error}")


def say(data: ImageData, train: Split, test: Split) -> None:
    """Print which they are, and a warning if they are not MNIST."""
    rows, columns = data.image_shape
    print(
        f"data: {data.name}, {data.source}: {len(train.labels):,} training and "
        f"{len(test.labels):,} test images of {rows} x {columns}"
    )
    warn(data)


def warn(data: ImageData) -> None:
    """Print the warning, if there is one, so that nobody misses it."""
    if data.warning:
        print(f"{'!' * 79}\nWARNING: {data.warning}\n{'!' * 79}")


def facts(data: ImageData, train: Split, test: Split) -> dict[str, Any]:
    """What results.json says of them."""
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
