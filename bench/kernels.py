"""Microbenchmarks: one LIF layer, forward and with its backward pass, against what else there is.

    python bench/kernels.py --threads 1 --json bench/results/kernels_1thread.json
    python bench/kernels.py --quick
    python bench/kernels.py --only family libraries --threads 1

Every contender is first verified, a neuron of this project against the reference and one of another library
against the layer that equals it (rivals/equals.py); over a wrong answer no time is printed. Contenders take
turns, round by round, so that whatever else the machine does falls on all of them alike; medians with
quartiles of the turns in which the processor was not disturbed (common/turns.py), and beside them of all.

The copy is the bound: it moves the bytes that the case must move and allocates what it must allocate.
Forward: ``x.clone()`` and a fresh membrane. With backward: beside it ``x + g``.

Tables, in micro/: the cases (cases.py); the family beside the plain neuron (family.py); libraries at their
defaults, each beside the layer that equals it (libraries.py); constant input; the overhead of a call in
microseconds; cost as T and as the number of neurons grows; a large call at once and after idling (alone.py).
--pictures draws the cases, the family, the libraries and the growth (kernel_pictures.py); redraw.py does so
from the JSON of an earlier run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from common import commit, machine
from common.files import write_json
from common.memory import recycle
from common.turns import Yardstick
from micro import alone, cases, family, libraries
from micro.points import FORMAT

TABLES = (
    "cases",
    "family",
    "libraries",
    "constant_input_counts",
    "overhead_microseconds",
    "scaling",
    "after_idling",
)


def table_of(results: dict[str, Any]) -> str:
    """The results for a terminal."""
    others = ", ".join(f"{name} {version}" for name, version in results["rivals"].items() if version)
    lines = [f"torch {results['versions']['torch']}; {others or 'no other library'}"]
    lines += cases.text(results.get("cases", []))
    lines += family.text(results.get("family", []))
    lines += libraries.text(results.get("libraries", []))
    lines += alone.text(results)
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Verify, time and report."""
    parser = argparse.ArgumentParser(description="Microbenchmarks of one LIF layer.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each case")
    parser.add_argument("--largest", type=int, default=2**27, help="neuron-steps of a case, at most")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="these tables alone")
    parser.add_argument("--quick", action="store_true", help="small shapes, about two minutes")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--no-rivals", action="store_true", help="leave the other libraries out")
    parser.add_argument(
        "--recycled", action="store_true", help="results in memory that was used before, never in fresh pages"
    )
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--pictures", type=Path, help="draw into this folder")
    options = parser.parse_args(arguments)
    if options.pictures:
        from common.picture_style import save
        from micro import kernel_pictures  # matplotlib, which a machine that only measures may lack

        if not set(kernel_pictures.DRAWN) & set(options.only):
            parser.error(f"--pictures draws {', '.join(kernel_pictures.DRAWN)}; name one of them in --only")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.quick:
        options.seconds, options.largest = min(options.seconds, 1.0), min(options.largest, 2**22)
    if options.recycled:
        recycle()
    device = torch.device(options.device)
    yardstick = Yardstick()
    results: dict[str, Any] = {
        "format": FORMAT,
        "command": machine.command(),
        "versions": machine.versions(),
        "rivals": libraries.versions(),
        "machine": machine.machine(device),
        "commit": commit.commit(),
    }
    brief = options.quick or options.recycled or options.largest < 2**25
    makers: dict[str, Callable[[], object]] = {
        "cases": lambda: cases.measure(options, device, yardstick),
        "family": lambda: family.measure(options, device, yardstick),
        "libraries": lambda: [] if options.no_rivals else libraries.measure(options, device, yardstick),
        "constant_input_counts": lambda: alone.constant_counts(options, device, yardstick),
        "overhead_microseconds": lambda: alone.overhead(options, device, yardstick),
        # Sizes of every kind would leave recycled memory in pieces that no later one fits into.
        "scaling": lambda: [] if options.recycled else alone.scaling(options, device, yardstick),
        "after_idling": lambda: {} if brief else alone.after_idling(device),
    }
    for table in TABLES:
        if table in options.only:
            results[table] = makers[table]()
    print(table_of(results))
    if options.json:
        write_json(options.json, results)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        save(kernel_pictures.figures(results), options.pictures)


if __name__ == "__main__":
    main()
