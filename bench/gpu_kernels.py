"""Microbenchmarks on a GPU: kernels alone, whole calls, and what a call costs before any arithmetic.

    python bench/gpu_kernels.py --json kernels.json
    python bench/gpu_kernels.py --device cpu --shapes tiny      runs all of it; its figures mean nothing

Everyone is first compared with the eager reference, spikes and gradients; over a wrong answer no time is
printed. Contenders take turns, round by round; medians with quartiles. Forward is a call without gradients;
with backward it is one more pass, of which the kernels of both are counted.

The copy is the bound: it moves the bytes that the case must move and allocates what it must allocate.
Forward: ``x.clone()`` and a fresh membrane. With backward: beside it ``x + g``.

The file is written after each case, so that a run which is cut short leaves those before. The exit status
is 1 if a neuron of this project was wrong or failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from common.calls import call_of, copy_of
from common.files import write_json
from common.memory import available_bytes
from lif_cuda import LIF
from on_gpu.cases import CASES, SETUP_SECONDS, Case, Entry, drawn, entries
from on_gpu.facts import facts
from on_gpu.timing import Timed, at_most, calls_a_turn, in_turns, kernels_alone, wall
from rivals.contenders import reason, wrong, wrong_gradients

MODES = {"forward": False, "forward + backward": True}
# Names of what is not of this project: their faults do not fail the run.
OTHERS = ("SpikingJelly", "torch.compile", "eager loop")
# Of the host's time for a call, over so many of them.
CALLS = 200
# What a case takes without rivals, about; and what a rival gets where time is short.
SECONDS_A_CASE, MOST_IMPATIENT = 6.0, 3.0


def left_out(case: Case, elapsed: float, budget: float, available: int) -> str | None:
    """Why a case is not timed; None: it is."""
    if elapsed > budget:
        return f"out of time: {budget:g} s had passed"
    if case.bytes_held > available:
        return f"{case.bytes_held / 2**30:.0f} GiB needed, {available / 2**30:.0f} GiB free"
    return None


def patience(elapsed: float, budget: float, cases_left: int) -> float:
    """Seconds that a rival may take to get ready, so that the cases after it find time for our kernels."""
    return max(MOST_IMPATIENT, min(SETUP_SECONDS, budget - elapsed - SECONDS_A_CASE * cases_left))


def sound(case: Case, device: torch.device, rivals_wait: float) -> tuple[list[Entry], dict[str, str]]:
    """Those who take part and give the reference's answer, and of the others why not."""
    found, missing = entries(case, device, rivals_wait)
    right = []
    for entry in found:
        contender = entry.contender
        fault: str | None
        try:
            # A compiled loop compiles once more for calls without gradients.
            with at_most(SETUP_SECONDS, "comparing it"):
                fault = wrong(contender, entry.x) or wrong_gradients(contender, entry.x, entry.grad)
        except Exception as error:
            fault = reason(error)
        if fault is None:
            right.append(entry)
        else:
            missing[contender.name] = fault
    return right, missing


def run_case(case: Case, device: torch.device, seconds: float, rivals_wait: float) -> dict[str, Any]:
    """Verify and time one case."""
    right, missing = sound(case, device, rivals_wait)
    row: dict[str, Any] = {
        "name": case.name,
        "shape": list(case.shape),
        "dtype": str(case.dtype)[6:],
        "neuron_steps": case.neuron_steps,
        "kernel_seconds": {},
        "call_seconds": {},
        "how": {},
        "setup_seconds": {e.contender.name: e.contender.setup_seconds for e in right},
        "differences": {e.contender.name: e.contender.difference for e in right if e.contender.difference},
        "missing": missing,
    }
    if not right:
        return row
    for mode, training in MODES.items():
        calls: dict[str, Callable[[], object]] = {"copy": copy_of(right[0].x, right[0].grad, training)}
        for e in right:
            calls[e.contender.name] = call_of(e.contender.run, e.x, e.grad, training, e.contender.learned)
        kernels: dict[str, Timed] = {}
        for name, call in calls.items():
            try:
                kernels[name] = kernels_alone(call, device)
            except Exception as error:
                missing[f"{name}, {mode}"] = reason(error)
        turns = in_turns(kernels, seconds)
        row["kernel_seconds"][mode] = {name: asdict(turns.timing(name)) for name in kernels}
        row["how"][mode] = {name: timed.how for name, timed in kernels.items()}
        whole = {name: wall(calls[name], device, calls_a_turn(turns.timing(name).median)) for name in kernels}
        turns = in_turns(whole, seconds / 4)
        row["call_seconds"][mode] = {name: asdict(turns.timing(name)) for name in whole}
        # Graphs hold the memory of what was captured.
        del kernels, whole, calls
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return row


def call_costs(device: torch.device, seconds: float, calls: int) -> list[dict[str, Any]]:
    """Seconds of a layer's call and of relu's where there is next to nothing to compute: the host's share."""
    layers: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "lif_cuda": LIF(return_state=False),
        "relu": torch.relu,
    }
    rows = []
    for shape in ((1, 1, 8), (8, 64, 128)):
        x, grad = drawn(shape, torch.float32, device)
        for kind, training in (("inference", False), ("training", True)):
            timed: dict[str, Timed] = {}
            for name, layer in layers.items():
                call = call_of(layer, x, grad, training)
                call()
                timed[name] = wall(call, device, calls)
            turns = in_turns(timed, seconds)
            rows.append(
                {
                    "shape": list(shape),
                    "kind": kind,
                    "seconds": {name: asdict(turns.timing(name)) for name in timed},
                }
            )
    return rows


def failures(results: dict[str, Any]) -> list[str]:
    """Where a neuron of this project was wrong or failed."""
    return [
        f"{row['name']}: {name}: {why}"
        for row in results["cases"]
        for name, why in row["missing"].items()
        if not name.startswith(OTHERS)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; the exit status."""
    parser = argparse.ArgumentParser(description="Microbenchmarks of the kernels on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", choices=["full", "tiny"], default="full")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of turns for each case, forward or backward"
    )
    parser.add_argument("--budget", type=float, default=160.0, help="seconds after which no case is begun")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    began = time.perf_counter()
    results: dict[str, Any] = {"format": 1, "facts": facts(device), "shapes": options.shapes}
    results |= {"calls": [], "cases": [], "left_out": {}}

    def keep() -> None:
        if options.json:
            write_json(options.json, results)

    calls = CALLS if options.shapes == "full" else 3
    results["calls"] = call_costs(device, options.seconds / 2, calls)
    keep()
    for place, case in enumerate(CASES):
        if options.shapes == "tiny":
            case = case.rehearsed()
        elapsed = time.perf_counter() - began
        why = left_out(case, elapsed, options.budget, available_bytes(device))
        print(f"{case}{': left out: ' + why if why else ''}", flush=True)
        if why is not None:
            results["left_out"][case.name] = why
            continue
        try:
            wait = patience(elapsed, options.budget, len(CASES) - place)
            results["cases"].append(run_case(case, device, options.seconds, wait))
        except Exception as error:
            results["cases"].append({"name": case.name, "missing": {"all of it": reason(error)}})
        keep()
    results["seconds"] = time.perf_counter() - began
    keep()
    for failure in failures(results):
        print(f"FAILED: {failure}")
    return 1 if failures(results) else 0


if __name__ == "__main__":
    sys.exit(main())
