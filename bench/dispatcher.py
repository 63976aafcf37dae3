"""What passing torch's dispatcher by saves the call of a layer, end to end.

    python bench/dispatcher.py --json bench/results/dispatcher.json

One process, one thread, the same layer with the bypass of csrc/bindings/operation.h and without it, in turns.
The sizes go from eight neurons, where the call is all, to a layer of three million neuron-steps. Results are
equal to the last bit before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import _machine
import torch
from _commit import commit
from _files import write_json
from _turns import Yardstick, interleaved

from lif_cuda import LIF, _autograd

SHAPES = ((1, 1, 8), (25, 16, 128), (25, 128, 256), (25, 128, 1000))
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


class Switch:
    """Makes calls with the bypass or without it, and turns it only where it stands otherwise: once a turn."""

    def __init__(self) -> None:
        self._passing: bool | None = None

    def by(self, passing: bool, call: Callable[[], object]) -> Callable[[], object]:
        """The call, with the bypass or without."""

        def run() -> object:
            if self._passing is not passing:
                _autograd.pass_the_dispatcher_by(passing)
                self._passing = passing
            return call()

        return run


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    yardstick = Yardstick()
    switch, rows = Switch(), []
    print(f"{'[T, B, N]':>16} {'':>20} {'passed by, us':>14} {'dispatched, us':>15}  saved of the call")
    for shape in SHAPES:
        layer = LIF(shape[-1], learn_beta=True, return_state=False)
        x = torch.randn(shape)
        for kind in KINDS:
            call = call_of(layer, x, kind)
            calls = {"passed by": switch.by(True, call), "dispatched": switch.by(False, call)}
            check_equal(*(call() for call in calls.values()))
            turns = interleaved(calls, asked.seconds, torch.device("cpu"), yardstick)
            ours, theirs = (turns.timing(name) for name in calls)
            ratio = turns.ratio("passed by", "dispatched")
            rows.append(
                {
                    "shape": shape,
                    "kind": kind,
                    "passed by": vars(ours),
                    "dispatched": vars(theirs),
                    "passed by over dispatched": vars(ratio),
                }
            )
            saved = f"{1 - ratio.median:.0%} ({1 - ratio.high:.0%} to {1 - ratio.low:.0%})"
            times = f"{ours.median * 1e6:14.2f} {theirs.median * 1e6:15.2f}"
            print(f"{list(shape)!s:>16} {kind:>20} {times}  {saved}")
    _autograd.pass_the_dispatcher_by(True)
    if asked.json:
        facts = {"command": _machine.command(), "commit": commit(), **_machine.machine(torch.device("cpu"))}
        write_json(asked.json, {**facts, "rows": rows})


def check_equal(one: object, other: object) -> None:
    """Raise unless both calls gave the same bits."""
    first, second = (value if isinstance(value, tuple) else (value,) for value in (one, other))
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise RuntimeError("the two ways of a call gave other bits: nothing is timed")


if __name__ == "__main__":
    main()
