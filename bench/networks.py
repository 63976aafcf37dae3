"""Time training steps of whole networks: with a library's neurons, with lif_cuda's, and with ReLU there.

    python bench/networks.py --threads 1 --json bench/results/networks_1thread.json
    python bench/networks.py --networks conv --keep-memory on --seconds 10

A step is zero_grad, forward, cross entropy, backward and Adam, on one batch. The networks of a case have the
same weights. Those of the library and of lif_cuda are first verified equal (nets/equal.py); one that is
not gets no time. Each network has a process of its own (nets/worker.py), with and without
lif_cuda.keep_memory(); these take turns (common/turns.py), so that what else the machine does falls on all
alike.

Networks (nets/networks.py):

    mlp, mlp-rate   the seed's, 784-256-256-10, T = 25: constant input, and spikes; snnTorch's Leaky. "step
                    loop" is the same as its tutorials write it: a loop over time around all layers
    conv            twice 3x3 convolution, batch norm, neuron, pooling, then twice Linear and neuron, T = 4;
                    SpikingJelly's LIFNode
    conv-long       the same with 5x5 and one Linear, T = 25; snnTorch's Leaky
    sew             SpikingJelly's SEW-ResNet-18 on images of 32 x 32, T = 4, and its LIFNode
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from common import commit, machine
from common.files import write_json
from common.turns import Turns, Yardstick, interleaved
from nets.networks import CASES, Case, case_of
from nets.worker import Worker
from rivals.equals import PACKAGES, version

# Whether memory is kept, and what is added to the names of networks where it is.
KEPT = {"off": {False: ""}, "on": {True: ", kept"}, "both": {False: "", True: ", kept"}}
# Steps of each network before anything is timed: by then the allocator has what it needs.
WARM_UP = 5


def run_case(case: Case, options: argparse.Namespace, yardstick: Yardstick) -> dict[str, Any]:
    """Verify and time the networks of a case."""
    sizes = {name: getattr(options, name) for name in ("steps", "batch", "width") if getattr(options, name)}
    resized = case.resized(**sizes)
    result: dict[str, Any] = {
        "title": case.title,
        "library": case.library,
        "neuron": case.neuron,
        "sizes": {name: getattr(resized, name) for name in ("steps", "batch", "width", "shape")},
        "missing": {},
    }
    if version(case.library) is None:
        result["missing"][case.name] = f"{case.library} is not installed: see tests/libraries.txt"
        return result
    verifier = Worker(case, None, keep=False, threads=options.threads, sizes=sizes)
    verifier.close()
    result |= verifier.facts
    result["missing"] = result.pop("wrong")
    workers: dict[str, Worker] = {}
    try:
        for name in result.pop("networks"):
            for keep, suffix in KEPT[options.keep_memory].items():
                if name not in result["missing"]:
                    workers[name + suffix] = Worker(
                        case, name, keep=keep, threads=options.threads, sizes=sizes
                    )
        for worker in workers.values():
            for _ in range(WARM_UP):
                worker.train()
            worker.faults.clear()
        calls: dict[str, Callable[[], object]] = {name: worker.train for name, worker in workers.items()}
        turns = interleaved(calls, options.seconds, torch.device("cpu"), yardstick, long=options.seconds)
    finally:
        for worker in workers.values():
            worker.close()
    return (
        result
        | _times(turns)
        | {
            "page_faults_of_a_step": {
                name: statistics.median(worker.faults) for name, worker in workers.items()
            },
            "peak_mib_of_the_process": {name: worker.peak_bytes >> 20 for name, worker in workers.items()},
        }
    )


def _times(turns: Turns) -> dict[str, Any]:
    """Of all networks: seconds, and times the one of lif_cuda and of ReLU with memory kept alike."""
    ratios: dict[str, dict[str, Any]] = {"times_of_lif_cuda": {}, "times_of_relu": {}, "kept_gains": {}}
    for name in turns.seconds:
        suffix = ", kept" if name.endswith(", kept") else ""
        for key, other in (
            ("times_of_lif_cuda", f"lif_cuda{suffix}"),
            ("times_of_relu", f"ReLU{suffix}"),
        ):
            if other in turns.seconds:
                ratios[key][name] = asdict(turns.ratio(name, other))
        if f"{name}, kept" in turns.seconds:
            ratios["kept_gains"][name] = asdict(turns.ratio(name, f"{name}, kept"))
    return {
        "seconds": {name: asdict(turns.timing(name)) for name in turns.seconds},
        **ratios,
        "turns": {name: len(taken) for name, taken in turns.seconds.items()},
        "undisturbed_turns": {name: len(turns.quiet(name)) for name in turns.seconds},
    }


def table_of(results: dict[str, Any]) -> str:
    """The results for a terminal."""

    def cell(timing: dict[str, float] | None) -> str:
        if timing is None:
            return " " * 22
        return f"{timing['median']:8.2f} ({timing['low']:.2f} - {timing['high']:.2f})".ljust(22)

    where = results["machine"]
    lines = [f"training steps; {where['cpu']}, {where['threads']} threads"]
    for row in results["networks"]:
        sizes = row["sizes"]
        lines += [
            "",
            f"{row['title']}: {row['library']} {row['neuron']}, T = {sizes['steps']}, batch {sizes['batch']}",
            f"  {'':26}{'ms':>8} {'times lif_cuda':>22} {'times ReLU':>22} {'kept gains':>22}"
            "  page faults   MiB",
        ]
        for name, timing in row.get("seconds", {}).items():
            lines.append(
                f"  {name:26}{timing['median'] * 1e3:8.1f} "
                + " ".join(
                    cell(row[key].get(name)) for key in ("times_of_lif_cuda", "times_of_relu", "kept_gains")
                )
                + f"{row['page_faults_of_a_step'][name]:13.0f}{row['peak_mib_of_the_process'][name]:6}"
            )
        lines += [f"  {name}: no time: {why}" for name, why in row["missing"].items()]
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    def count(text: str) -> int:
        value = int(text) if text.isdecimal() else 0
        if value < 1:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
        return value

    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(
        description="Time training steps of whole networks.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--threads", type=count, help="CPU threads; None: as many as torch takes")
    parser.add_argument("--keep-memory", choices=list(KEPT), default="both")
    parser.add_argument("--seconds", type=float, default=60.0, help="for the turns of each network")
    parser.add_argument("--steps", type=count, help="time steps T; None: those of the network")
    parser.add_argument("--batch", type=count, help="None: that of the network")
    parser.add_argument("--width", type=count, help="hidden neurons or channels; None: those of the network")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify, time and report; the exit status is 1 if a network was not equal to that of its library."""
    options = _options(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    yardstick = Yardstick()
    results: dict[str, Any] = {
        "format": 1,
        "command": machine.command(),
        "versions": machine.versions() | {name: version(name) for name in PACKAGES},
        "machine": machine.machine(torch.device("cpu")),
        "commit": commit.commit(),
        "networks": [],
    }
    for name in options.networks:
        print(name, file=sys.stderr, flush=True)
        results["networks"].append(run_case(case_of(name), options, yardstick))
    print(table_of(results))
    if options.json:
        write_json(options.json, results)
    return int(any(row["missing"] for row in results["networks"]))


if __name__ == "__main__":
    sys.exit(main())
