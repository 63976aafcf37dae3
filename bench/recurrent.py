"""Time a recurrent layer, forward and backward: fused, in a hand-written loop, and that loop compiled.

    python bench/recurrent.py --threads 2

Before anything is timed the layer's spikes are verified: each step is computed once more in float64 from the
layer's own spikes and membranes of the step before, and where a spike differs, its membrane has to lie at the
threshold to within the rounding of the sum. A loop multiplies a matrix, whose sums have another order, so its
spikes go their own way after the first such crossing, and its gradients with them.

Contenders, in turns:

    lif_cuda   functional.recurrent_lif
    loop       x.unbind(0), and a step in plain PyTorch for each: a linear, four operators, a spike
    compiled   torch.compile of that loop, where T is at most --most-compiled
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import commit, machine
from common.files import write_json
from common.turns import Turns, Yardstick, interleaved
from lif_cuda import functional
from rivals.contenders import BETA
from rivals.recurrent import draw, fused, loop

# T, samples, neurons; how much faster than the loop, and than the compiled one, the layer is to be.
CASES = [
    (100, 64, 128, 4.0, 2.0),
    (100, 16, 64, 4.0, 2.0),
    (100, 128, 512, 1.7, None),
    (1000, 16, 128, 6.0, None),
]


def verify(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[float, int]:
    """The firing rate, and the spikes that differ; raises SystemExit unless each of them is a crossing."""
    with torch.no_grad():
        out, _ = functional.recurrent_lif(x, weight, BETA, bias=bias, output=("spikes", "trace"))
        start = torch.zeros_like(x[:1])
        before, v = torch.cat([start, out.spikes[:-1]]).double(), torch.cat([start, out.trace[:-1]]).double()
        fed_back = before @ weight.double().t() + bias.double()
        u = torch.tensor(BETA, dtype=x.dtype).double() * v + (x.double() + fed_back)
        terms = before @ weight.double().abs().t() + x.double().abs() + u.abs()
        differs = (u >= 1.0) != (out.spikes != 0)
        at_threshold = (u - 1.0).abs() <= 100 * torch.finfo(x.dtype).eps * terms
        if bool((differs & ~at_threshold).any()):
            raise SystemExit(
                "error: a spike differs that is no crossing; nothing is timed over a wrong answer"
            )
        return float(out.spikes.mean()), int(differs.sum())


def both_ways(
    run: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: Sequence[Tensor], grad: Tensor
) -> Callable[[], object]:
    """Forward and backward of one contender."""
    return lambda: torch.autograd.grad(run(*inputs), inputs, grad)


def time_case(case: tuple[Any, ...], options: argparse.Namespace, yardstick: Yardstick) -> dict[str, Any]:
    """Verify and time the contenders of one shape, and print a line for each."""
    steps, samples, neurons, than_loop, than_compiled = case
    inputs = draw(steps, samples, neurons)
    rate, differing = verify(*inputs)
    grad = torch.randn_like(inputs[0])
    runs = {"lif_cuda": fused, "loop": loop}
    if steps <= options.most_compiled:
        torch._dynamo.reset()
        runs["compiled"] = torch.compile(loop)
    calls = {name: both_ways(run, inputs, grad) for name, run in runs.items()}
    turns = interleaved(calls, options.seconds, torch.device("cpu"), yardstick)
    print(
        f"[{steps}, {samples}, {neurons}]  rate {100 * rate:.1f} %, {differing} crossings, "
        f"{len(turns.seconds['loop'])} rounds"
    )
    aims = {"loop": than_loop, "compiled": than_compiled}
    return {
        "shape": [steps, samples, neurons],
        "rate": rate,
        "crossings": differing,
        "contenders": {name: _entry(turns, name, aims.get(name)) for name in calls},
    }


def _entry(turns: Turns, name: str, aim: float | None) -> dict[str, Any]:
    timing = turns.timing(name)
    entry: dict[str, Any] = {
        "milliseconds": 1e3 * timing.median,
        "quartiles": [1e3 * timing.low, 1e3 * timing.high],
        "rounds": len(turns.seconds[name]),
        "undisturbed": len(turns.quiet(name)),
    }
    line = f"  {name:9} {1e3 * timing.median:9.2f} ms"
    if name != "lif_cuda":
        ratio = turns.ratio(name, "lif_cuda")
        entry |= {"times_slower": ratio.median, "ratio_quartiles": [ratio.low, ratio.high], "aim": aim}
        line += f"  {ratio.median:5.2f} times ({ratio.low:.2f} to {ratio.high:.2f})"
        line += "" if aim is None else f", to be {aim:g}"
    print(line, flush=True)
    return entry


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark with the command line ``arguments``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--seconds", type=float, default=20.0, help="for the turns of one shape")
    parser.add_argument("--most-compiled", type=int, default=100, help="the longest T that is compiled")
    parser.add_argument("--only", type=int, nargs="*", help="places of the shapes to time; all of them")
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    yardstick = Yardstick()
    chosen = range(len(CASES)) if options.only is None else options.only
    cases = [time_case(CASES[at], options, yardstick) for at in chosen]
    if options.json is not None:
        result = {
            "command": machine.command(),
            "commit": commit.commit(),
            "versions": machine.versions(),
            "machine": machine.machine(torch.device("cpu")),
            "cases": cases,
        }
        write_json(options.json, result)


if __name__ == "__main__":
    main()
