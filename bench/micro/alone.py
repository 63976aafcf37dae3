"""What a layer costs by itself: a call, constant input, growth with T and with neurons, and after idling."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from common.calls import call_of
from common.memory import available_bytes
from common.turns import Yardstick, interleaved, synchronise
from lif_cuda import LIF, _ops, functional
from micro.cases import SHAPES
from micro.empty_operator import empty_operator
from rivals.contenders import BETA, lif_cuda_fused

# T and neurons of the growth: along T first, then along neurons.
GROWTH = [(t, 4096) for t in (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)]
GROWTH += [(4, 2**k) for k in range(7, 28, 2)]


def constant_counts(
    options: argparse.Namespace, device: torch.device, yardstick: Yardstick
) -> list[dict[str, Any]]:
    """Constant input, counts out: bound by arithmetic, 4 + 4 / T bytes a neuron-step and less."""
    rows = []
    for steps, neurons in ((25, 128_000), (100, 65_536)):
        x = torch.randn(neurons, device=device) * 0.3 + 0.2
        leaf = x.clone().requires_grad_()
        grad = torch.randn(neurons, device=device)

        def forward(x: Tensor = x, steps: int = steps) -> object:
            with torch.no_grad():
                return functional.lif(x, BETA, steps=steps, output="count", return_state=False)

        def training(leaf: Tensor = leaf, grad: Tensor = grad, steps: int = steps) -> object:
            out = functional.lif(leaf, BETA, steps=steps, output="count", return_state=False)
            return torch.autograd.grad(out, leaf, grad)

        calls: dict[str, Callable[[], object]] = {"forward": forward, "training": training}
        turns = interleaved(calls, options.seconds, device, yardstick)
        rows.append(
            {"shape": (steps, neurons)}
            | {name: turns.timing(name).median / steps / neurons for name in calls}
        )
    return rows


class _Trivial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return torch.empty_like(grads[0])


def overhead(
    options: argparse.Namespace, device: torch.device, yardstick: Yardstick
) -> dict[str, dict[str, float]]:
    """Microseconds a call on eight neurons and one step, what is paid before any arithmetic; and on few."""
    x = torch.randn(1, 1, 8, device=device)
    leaf = x.clone().requires_grad_()
    grad = torch.ones_like(x)

    def spikes(t: Tensor) -> Tensor:
        out: Tensor = functional.lif(t, BETA, return_state=False)
        return out

    numbers = {"asked": _ops.OUTPUTS["spikes"], "beta": BETA, "threshold": 1.0, "gain": 1.0}
    ints = [int(numbers.get(name, 0)) for name in _ops.INTS]
    floats = [float(numbers.get(name, 0.0)) for name in _ops.FLOATS]

    def alone(operator: Any) -> Callable[[], object]:
        def call() -> object:
            with torch.no_grad():
                return operator(x, [], ints, -1, 0, floats)

        return call

    runs: dict[str, Callable[[Tensor], Tensor]] = {
        "lif_cuda's layer": LIF(return_state=False),
        "lif_cuda's function": spikes,
        "relu": torch.relu,
        "trivial autograd.Function": _Trivial.apply,
    }
    table: dict[str, dict[str, float]] = {}
    for kind in ("inference", "forward with grad", "forward and backward"):
        calls: dict[str, Callable[[], object]] = {}
        for name, run in runs.items():
            if kind == "inference":
                calls[name] = call_of(run, x, grad, False)
            elif kind == "forward with grad":
                calls[name] = partial(run, leaf)
            else:
                calls[name] = call_of(run, x, grad, True)
        if kind == "inference":
            calls["lif_cuda's operator alone"] = alone(_ops.lif_forward)
            empty = empty_operator() if device.type == "cpu" else None
            if empty is not None:
                calls["an empty operator with its arguments"] = alone(empty)
        turns = interleaved(calls, options.seconds, device, yardstick)
        table[kind] = {name: turns.timing(name).median * 1e6 for name in calls}
    x = torch.randn(SHAPES[0], device=device)
    calls = {name: call_of(runs[name], x, torch.ones_like(x), True) for name in ("lif_cuda's layer", "relu")}
    turns = interleaved(calls, options.seconds, device, yardstick)
    table[f"forward and backward, {list(SHAPES[0])}"] = {
        name: turns.timing(name).median * 1e6 for name in calls
    }
    return table


def after_idling(device: torch.device, seconds: float = 6.0) -> dict[str, dict[str, float]]:
    """ns a neuron-step of a large forward call right after another like it, and after seconds of nothing.

    A virtual machine may give free memory back to its host meanwhile; large pages are dearer to fetch again.
    """
    x = torch.randn(4, 32, 262_144, device=device)
    table: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        for name, call in (("lif_cuda", lambda: lif_cuda_fused(x)), ("x.clone()", lambda: x.clone())):
            table[name] = {}
            for when, pause in (("at once", 0.0), ("after idling", seconds)):
                times = []
                for _ in range(3):
                    call()
                    time.sleep(pause)
                    synchronise(device)
                    start = time.perf_counter()
                    call()
                    synchronise(device)
                    times.append(time.perf_counter() - start)
                table[name][when] = statistics.median(times) / x.numel() * 1e9
    return table


def scaling(options: argparse.Namespace, device: torch.device, yardstick: Yardstick) -> list[dict[str, Any]]:
    """Forward and backward of lif_cuda as T and as the number of neurons grows."""
    largest = options.largest
    rows = []
    for steps, neurons in GROWTH:
        # x, its gradient, what comes in, spikes, dx, and one to spare.
        if steps * neurons > 4 * largest or steps * neurons * 4 * 6 > available_bytes(device):
            print(f"T = {steps}, {neurons} neurons: left out", file=sys.stderr)
            continue
        x = torch.randn(steps, neurons, device=device) * 0.5 + 0.15
        grad = torch.randn_like(x)
        calls = {
            kind: call_of(lif_cuda_fused, x, grad, kind == "training") for kind in ("forward", "training")
        }
        turns = interleaved(calls, options.seconds, device, yardstick)
        rows.append(
            {
                "steps": steps,
                "neurons": neurons,
                "seconds": {kind: asdict(turns.timing(kind)) for kind in calls},
                "undisturbed_turns": {kind: len(turns.quiet(kind)) for kind in calls},
            }
        )
    return rows


def text(results: dict[str, Any]) -> list[str]:
    """Those of these tables that were measured, for a terminal."""
    lines = []
    for row in results.get("constant_input_counts", []):
        steps, neurons = row["shape"]
        lines.append(
            f"\nconstant input, counts, T = {steps}, {neurons} neurons: "
            f"{row['forward'] * 1e9:.3f} ns forward, {row['training'] * 1e9:.3f} ns with backward"
        )
    calls = results.get("overhead_microseconds", {})
    if calls:
        lines.append("\nmicroseconds a call, one step of eight neurons unless said otherwise:")
    for kind, row in calls.items():
        lines.append(f"  {kind:22}" + "".join(f"{name} {value:.1f}   " for name, value in row.items()))
    for name, row in results.get("after_idling", {}).items():
        lines.append(f"{name}, [4, 32, 262144]: " + ", ".join(f"{w} {v:.2f} ns" for w, v in row.items()))
    return lines
