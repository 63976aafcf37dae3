"""Options of the command line that both main jobs have, and their checks."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any

import torch


def number(kind: Callable[[str], Any], low: float, high: float, what: str) -> Callable[[str], Any]:
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


count = number(int, 1, math.inf, "a whole number of at least 1")


def add_learning(parser: argparse.ArgumentParser, *, lr: float) -> None:
    """``--lr``, which is ``lr`` by itself, ``--schedule`` and ``--seed``."""
    parser.add_argument(
        "--lr",
        type=number(float, sys.float_info.min, math.inf, "a finite number above 0"),
        default=lr,
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
        type=number(int, 0, 2**32 - 1, "a whole number from 0 to 4294967295"),
        default=0,
        help="of the weights and of the order of the images",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """``--train-limit`` and ``--test-limit``."""
    parser.add_argument("--train-limit", type=count, default=None, help="use only so many training images")
    parser.add_argument("--test-limit", type=count, default=None, help="use only so many test images")


def device_of(name: str | None) -> torch.device:
    """The device that ``--device`` names; exits with a message where there is no such one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        sys.exit(f"error: --device must be a device of torch such as cpu or cuda, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit(f"error: --device {name}: this torch sees no CUDA device; use --device cpu")
    return device


def named_backends(backend: str) -> list[tuple[str, str]]:
    """The networks that ``--backend`` asks for: the name of each in the results, and its neurons."""
    backends = ["fused", "reference"] if backend == "both" else [backend]
    return [("snn" if i == 0 else f"snn_{backend}", backend) for i, backend in enumerate(backends)]
