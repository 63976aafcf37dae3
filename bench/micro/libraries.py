"""Neurons of other libraries at their defaults, each beside the layer of lif_cuda that equals it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from common.calls import call_of
from common.turns import Yardstick, interleaved
from rivals.contenders import fault, pair, reason
from rivals.equality import drawn
from rivals.equals import PACKAGES, Equal, by_name, version

SHAPES = [(25, 128, 1000), (1000, 16, 256)]
NEURONS = (
    "snn.Leaky(beta=0.9)",
    "snn.Synaptic(alpha=0.8, beta=0.9)",
    'neuron.LIFNode(step_mode="m")',
    'neuron.ParametricLIFNode(step_mode="m")',
    "norse.LIFBoxCell()",
    "norse.LIF()",
    "layers.LIF(tau_mem=10.0)",
)


def target_of(row: dict[str, Any]) -> float | None:
    """The times of lif_cuda that the neuron of a row should take at least; None where nothing is aimed at."""
    if not row["training"] or row["library"] not in ("snnTorch", "SpikingJelly"):
        return None
    return 30.0 if row["shape"][0] >= 1000 else 4.5


def measure(options: argparse.Namespace, device: torch.device, yardstick: Yardstick) -> list[dict[str, Any]]:
    """Verify and time each pair."""
    rows = []
    for shape in SHAPES:
        if torch.Size(shape).numel() > options.largest:
            print(f"libraries on {list(shape)}: left out, too large", file=sys.stderr)
            continue
        for theirs in NEURONS:
            for training in (False, True):
                print(f"{theirs}, {list(shape)}, training: {training}", file=sys.stderr, flush=True)
                rows.append(_row(by_name(theirs), shape, training, options.seconds, device, yardstick))
    return rows


def versions() -> dict[str, str | None]:
    """The version of each library; None for one that is not installed."""
    return {library: version(library) for library in PACKAGES}


def _row(
    equal: Equal,
    shape: tuple[int, int, int],
    training: bool,
    seconds: float,
    device: torch.device,
    yardstick: Yardstick,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "library": equal.library,
        "version": version(equal.library),
        "theirs": equal.theirs,
        "ours": equal.ours,
        "shape": shape,
        "training": training,
        "neuron_steps": torch.Size(shape).numel(),
    }
    x, grad = (tensor.to(device) for tensor in drawn(shape, equal.scale))
    try:
        theirs, ours = pair(equal, equal.library, device, learn=True)
    except Exception as error:
        return row | {"missing": reason(error)}
    why = fault(ours, x, grad, training) or fault(theirs, x, grad, training)
    if why is not None:
        return row | {"missing": why}
    calls: dict[str, Callable[[], object]] = {
        "theirs": call_of(theirs.run, x, grad, training, theirs.learned),
        "lif_cuda": call_of(ours.run, x, grad, training, ours.learned),
    }
    turns = interleaved(calls, seconds, device, yardstick)
    return row | {
        "seconds": {name: asdict(turns.timing(name)) for name in calls},
        "times_of_lif_cuda": asdict(turns.ratio("theirs", "lif_cuda")),
        "undisturbed_turns": {name: len(turns.quiet(name)) for name in calls},
    }


def text(rows: list[dict[str, Any]]) -> list[str]:
    """The table for a terminal: ns a neuron-step of both sides, and their ratio."""
    lines = []
    headings = set()
    for row in rows:
        kind = "forward + backward" if row["training"] else "forward"
        heading = f"\nlibraries at their defaults, {list(row['shape'])} float32"
        if heading not in headings:
            headings.add(heading)
            lines.append(heading)
        name = f"  {row['library']} {row['version']} {row['theirs']}, {kind}"
        if "missing" in row:
            lines.append(f"{name}: no time: {row['missing']}")
            continue
        theirs, ours = (
            row["seconds"][side]["median"] / row["neuron_steps"] * 1e9 for side in ("theirs", "lif_cuda")
        )
        ratio, target = row["times_of_lif_cuda"], target_of(row)
        verdict = ""
        if target is not None:
            verdict = f"  target {target:.2f}" + ("" if ratio["median"] >= target else "  MISSED")
        lines.append(
            f"{name:82}{theirs:9.3f} ns, lif_cuda {ours:.3f} ns"
            f"{ratio['median']:9.2f} x ({ratio['low']:.2f} to {ratio['high']:.2f}){verdict}"
        )
    return lines
