"""Recurrent layers on a GPU: a step of the fused kernels, and a training pass against an eager loop.

    python bench/gpu_recurrent.py --json recurrent.json
    python bench/gpu_recurrent.py --device cpu --shapes tiny      runs all of it; its figures mean nothing

Nothing is timed before the spikes of the device, and the gradient of x, are the bits of the CPU's kernels.
The eager loop is that of bench/recurrent.py. Forward is a call without gradients, its kernels alone; with
backward it is a whole call by the wall clock, as an eager loop is one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.files import write_json
from on_gpu.facts import facts
from on_gpu.timing import Timed, in_turns, kernels_alone, wall
from rivals.contenders import reason
from rivals.recurrent import draw, fused, loop

# T, samples, neurons, and the dtype of x and of the weight.
SHAPES = [
    (100, 128, 256, torch.float32, torch.float32),
    (100, 128, 256, torch.bfloat16, torch.bfloat16),
    (250, 256, 128, torch.float32, torch.float32),
    (250, 256, 128, torch.bfloat16, torch.bfloat16),
    (100, 128, 512, torch.float32, torch.float32),
    (1000, 128, 256, torch.bfloat16, torch.bfloat16),
]
TINY = [(6, 3, 20, torch.float32, torch.float32), (6, 3, 40, torch.bfloat16, torch.bfloat16)]
# Longer loops take seconds a turn.
LONGEST_LOOP = 250


def verify(inputs: Sequence[Tensor], grad: Tensor) -> None:
    """Raise AssertionError unless the device has the bits of the CPU."""
    here = [tensor.detach().cpu().requires_grad_() for tensor in inputs]
    mine, theirs = fused(*inputs), fused(*here)
    assert torch.equal(mine.cpu(), theirs), "spikes differ from the CPU's"
    my_grads, their_grads = (
        torch.autograd.grad(out, of, g) for out, of, g in ((mine, inputs, grad), (theirs, here, grad.cpu()))
    )
    assert torch.equal(my_grads[0].cpu(), their_grads[0]), "the gradient of x differs from the CPU's"
    for name, a, b in zip(("weight", "bias"), my_grads[1:], their_grads[1:], strict=True):
        bound = 1e-2 if a.dtype.itemsize == 2 else 1e-4
        apart = float((a.cpu().double() - b.double()).abs().max() / (b.double().abs().max() + 1e-9))
        assert apart < bound, f"the gradient of the {name} is {apart:.1e} apart from the CPU's"


def time_shape(shape: tuple[Any, ...], device: torch.device, seconds: float) -> dict[str, Any]:
    """Verify and time one shape."""
    steps, samples, neurons, dtype, weight_dtype = shape
    row: dict[str, Any] = {
        "shape": [steps, samples, neurons],
        "dtype": str(dtype).removeprefix("torch."),
        "missing": {},
        "seconds": {},
        "how": {},
    }
    dtypes = (dtype, weight_dtype, weight_dtype)
    inputs = [
        tensor.detach().to(device, to).requires_grad_()
        for tensor, to in zip(draw(steps, samples, neurons), dtypes, strict=True)
    ]
    grad = torch.randn_like(inputs[0])
    verify(inputs, grad)
    row["rate"] = float(fused(*inputs).detach().float().mean())

    def forward() -> object:
        with torch.no_grad():
            return fused(*inputs)

    def both(run: Any) -> Any:
        return lambda: torch.autograd.grad(run(*inputs), inputs, grad)

    timed: dict[str, Timed] = {"forward, kernels": kernels_alone(forward, device)}
    for name, run in (("forward + backward", fused), ("eager loop", loop)):
        if run is loop and steps > LONGEST_LOOP:
            continue
        call = both(run)
        try:
            call()
            timed[name] = wall(call, device, 1)
        except Exception as error:
            row["missing"][name] = reason(error)
    turns = in_turns(timed, seconds)
    for name in timed:
        row["seconds"][name] = asdict(turns.timing(name))
        row["how"][name] = timed[name].how
    each = {name: 1e6 * seconds["median"] / steps for name, seconds in row["seconds"].items()}
    line = ", ".join(f"{name} {us:.2f} us a step" for name, us in each.items())
    print(f"[{steps}, {samples}, {neurons}] {row['dtype']}: {line}", flush=True)
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the shapes; the exit status is 1 if one was wrong or failed."""
    parser = argparse.ArgumentParser(description="Recurrent layers on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", choices=["all", "tiny"], default="all")
    parser.add_argument("--seconds", type=float, default=3.0, help="of turns, of one shape")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    results: dict[str, Any] = {
        "format": 1,
        "facts": facts(device),
        "shapes": options.shapes,
        "rows": [],
        "wrong": {},
    }
    for shape in SHAPES if options.shapes == "all" else TINY:
        try:
            results["rows"].append(time_shape(shape, device, options.seconds))
        except Exception as error:
            results["wrong"][str(shape)] = reason(error)
            print(f"{shape}: {reason(error)}", flush=True)
        if options.json:
            write_json(options.json, results)
    return 1 if results["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
