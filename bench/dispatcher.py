"""What passing torch's dispatcher by saves the call of a layer, end to end.

    python bench/dispatcher.py --json bench/results/dispatcher.json

One process, one thread, the same layer with the bypass of csrc/autograd/operation.h and without it, in turns.
The sizes go from eight neurons, where the call is all, to a layer of 0.8 million neuron-steps. Results are
equal to the last bit before anything is timed. What is timed is the thread's own CPU time: a call waits for
nothing, and other processes may share the machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from common import machine
from common.commit import commit
from common.files import write_json
from common.turns import Timing, summarise
from lif_cuda import LIF, _autograd, keep_memory

# Each with the calls of a turn.
SHAPES = {(1, 1, 8): 200, (25, 16, 128): 40, (25, 128, 256): 4}
KINDS = ("inference", "recorded", "forward and backward")


def call_of(layer: LIF, x: torch.Tensor, kind: str) -> Callable[[], object]:
    """A call of the layer: without gradients, with a graph, or with a backward pass."""
    if kind == "inference":

        def infer() -> object:
            with torch.no_grad():
                return layer(x)

        return infer
    leaf, grad = x.clone().requires_grad_(), torch.ones_like(x)
    if kind == "recorded":
        return lambda: layer(leaf)
    return lambda: torch.autograd.grad(layer(leaf), [leaf, *layer.parameters()], grad)


def turn(passing: bool, call: Callable[[], object], calls: int) -> float:
    """Seconds of CPU time a call, with the bypass or without."""
    _autograd.pass_the_dispatcher_by(passing)
    for _ in range(5):
        call()
    began = time.thread_time()
    for _ in range(calls):
        call()
    return (time.thread_time() - began) / calls


def measure(call: Callable[[], object], calls: int, seconds: float) -> tuple[float, float, Timing, int]:
    """Medians with the bypass and without, the ratio of turns side by side, and how many there were."""
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(times) < 10 or time.perf_counter() < end:
        times.append((turn(True, call, calls), turn(False, call, calls)))
    passed, dispatched = (statistics.median(way) for way in zip(*times, strict=True))
    return passed, dispatched, summarise([a / b for a, b in times]), len(times)


def check_equal(call: Callable[[], object]) -> None:
    """Raise unless both ways of the call give the same bits."""
    found = []
    for passing in (True, False):
        _autograd.pass_the_dispatcher_by(passing)
        out = call()
        found.append(out if isinstance(out, tuple) else (out,))
    if not all(torch.equal(a, b) for a, b in zip(*found, strict=True)):
        raise RuntimeError("the two ways of a call gave other bits: nothing is timed")


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each row")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    # Two results of [25, 128, 256] are as much as glibc gives back at a time: whether a call fetches its
    # pages again would hang on the order in which one way or the other frees them, and took a quarter of the
    # call.
    keep_memory()
    rows = []
    print("| [T, B, N] | call | passed by, us | dispatched, us | saved (quartiles) | turns |")
    print("|---|---|---|---|---|---|")
    for shape, calls in SHAPES.items():
        layer = LIF(shape[-1], learn_beta=True, return_state=False)
        x = torch.randn(shape)
        for kind in KINDS:
            call = call_of(layer, x, kind)
            check_equal(call)
            passed, dispatched, ratio, turns = measure(call, calls, asked.seconds)
            saved = f"{1 - ratio.median:.1%} ({1 - ratio.high:.1%} to {1 - ratio.low:.1%})"
            times = f"{passed * 1e6:.1f} | {dispatched * 1e6:.1f}"
            print(f"| {list(shape)} | {kind} | {times} | {saved} | {turns} |", flush=True)
            seconds = {"passed by": passed, "dispatched": dispatched}
            rows.append({"shape": shape, "kind": kind, **seconds, "ratio": vars(ratio), "turns": turns})
    if asked.json:
        facts = {"command": machine.command(), "commit": commit(), **machine.machine(torch.device("cpu"))}
        write_json(asked.json, {**facts, "rows": rows})


if __name__ == "__main__":
    main()
