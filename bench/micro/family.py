"""The family: each neuron beside the plain one, which it is compared with on the same shape."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from common.calls import call_of
from common.memory import available_bytes
from common.turns import Yardstick, interleaved
from lif_cuda import functional
from lif_cuda.surrogate import ATan, Custom, Sigmoid
from rivals.contenders import BETA, SURROGATE, Contender, fault, variant

SHAPES = [(25, 128, 1000), (16, 64, 16384)]
# The times of the plain neuron, forward and backward, that each should take at most.
TARGETS = {
    "delayed, ATan": 1.3,
    "zero, Sigmoid, decayed input": 1.4,
    "current-based": 1.7,
    "adaptive": 1.9,
    "refractory": 1.7,
    "a table": 1.7,
    "one trace more": 1.4,
}
# Tensors of the size of x that are held at once: x at three scales, the gradient, and what one call makes.
MOST_TENSORS = 8


def _table(z: Tensor) -> Tensor:
    return 1 / (1 + z * z) ** 2


def _traced(x: Tensor) -> Tensor:
    outputs, _ = functional.lif(x, BETA, surrogate=SURROGATE, output=("spikes", "trace"))
    spikes: Tensor = outputs.spikes
    return spikes


def members(x: Tensor) -> list[Contender]:
    """The plain neuron and its relatives."""
    neurons = x.shape[-1]
    beta = torch.linspace(0.85, 0.95, neurons, device=x.device).requires_grad_()
    threshold = torch.linspace(0.9, 1.1, neurons, device=x.device).requires_grad_()
    return [
        variant("plain"),
        variant("reset to zero", reset="zero"),
        variant("learned beta", [beta], beta=beta),
        variant("learned beta and threshold", [beta, threshold], beta=beta, threshold=threshold),
        variant("delayed, ATan", strict=True, delay_reset=True, detach_reset=True, surrogate=ATan()),
        replace(
            variant(
                "zero, Sigmoid, decayed input",
                beta=0.5,
                reset="zero",
                decay_input=True,
                surrogate=Sigmoid(4.0),
            ),
            scale=3.0,
        ),
        replace(variant("current-based", alpha=0.8), scale=0.5),
        variant("adaptive", kappa=0.2, rho=0.95),
        variant("refractory", refractory=2),
        variant("a table", surrogate=Custom(_table, reach=4.0)),
        Contender("one trace more", _traced),
        replace(
            variant("adaptive, current-based, refractory", alpha=0.8, kappa=0.2, rho=0.95, refractory=2),
            scale=0.5,
        ),
    ]


def measure(options: argparse.Namespace, device: torch.device, yardstick: Yardstick) -> list[dict[str, Any]]:
    """Verify all members, and time them in turns."""
    rows = []
    for shape in SHAPES:
        steps = torch.Size(shape).numel()
        if steps > options.largest or steps * 4 * MOST_TENSORS > available_bytes(device):
            print(f"the family on {list(shape)}: left out, too large", file=sys.stderr)
            continue
        for training in (False, True):
            print(f"the family on {list(shape)}, training: {training}", file=sys.stderr, flush=True)
            rows.append(_row(shape, training, options.seconds, device, yardstick))
    return rows


def _row(
    shape: tuple[int, int, int], training: bool, seconds: float, device: torch.device, yardstick: Yardstick
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) * 0.5 + 0.15).to(device)
    grad = torch.randn(shape, generator=generator).to(device)
    found = members(x)
    given = {scale: x * scale for scale in {member.scale for member in found}}
    missing: dict[str, str] = {}
    calls: dict[str, Callable[[], object]] = {}
    for member in found:
        why = fault(member, given[member.scale], grad, training)
        if why is None:
            calls[member.name] = call_of(member.run, given[member.scale], grad, training, member.learned)
        else:
            missing[member.name] = why
    turns = interleaved(calls, seconds, device, yardstick)
    return {
        "shape": shape,
        "training": training,
        "neuron_steps": x.numel(),
        "seconds": {name: asdict(turns.timing(name)) for name in calls},
        "times_of_plain": {name: asdict(turns.ratio(name, "plain")) for name in calls},
        "undisturbed_turns": {name: len(turns.quiet(name)) for name in calls},
        "missing": missing,
    }


def text(rows: list[dict[str, Any]]) -> list[str]:
    """The table for a terminal: ns a neuron-step, and times of the plain neuron."""
    lines = []
    for row in rows:
        kind = "forward + backward" if row["training"] else "forward"
        lines.append(f"\nthe family, {list(row['shape'])} float32 {kind}")
        for name, timing in row["seconds"].items():
            ratio = row["times_of_plain"][name]
            target = TARGETS.get(name) if row["training"] else None
            verdict = ""
            if target is not None:
                verdict = f"  target {target:.2f}" + ("" if ratio["median"] <= target else "  MISSED")
            lines.append(
                f"  {name:38}{timing['median'] / row['neuron_steps'] * 1e9:9.3f} ns"
                f"{ratio['median']:9.2f} x plain ({ratio['low']:.2f} to {ratio['high']:.2f})"
                f"  {row['undisturbed_turns'][name]:3} undisturbed turns{verdict}"
            )
        lines += [f"  {name}: no time: {why}" for name, why in row["missing"].items()]
    return lines
