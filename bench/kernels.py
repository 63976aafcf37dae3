"""Microbenchmarks: one LIF layer, forward and with its backward pass, against what else there is.

    python bench/kernels.py --threads 1 --json bench/results/kernels_1thread.json
    python bench/kernels.py --quick

Every contender is first verified against the reference; over a wrong answer no time is printed. Contenders
take turns, round by round, so that whatever else the machine does falls on all of them alike; medians with
quartiles of the turns in which the processor was not disturbed (_turns.py), and beside them of all.

The copy is the bound: it moves the bytes that the case must move and allocates what it must allocate.
Forward: ``x.clone()`` and a fresh membrane. With backward: beside it ``x + g``.

Tables: the cases; the overhead of a call in microseconds; cost as T and as the number of neurons grows; a
large call at once and after idling.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import _machine
import torch
from _calls import call_of, copy_of
from _contenders import BETA, Contender, contenders, lif_cuda_fused, wrong
from _empty_operator import empty_operator
from _files import write_json
from _memory import available_bytes, peak_bytes, recycle, saved_bytes
from _turns import Yardstick, interleaved, summarise, synchronise
from torch import Tensor

from lif_cuda import LIF, _ops, functional

SHAPES = [(8, 64, 128), (25, 128, 1000), (16, 64, 16384), (100, 128, 512), (4, 32, 262144), (1000, 16, 256)]
# A graph of the unrolled loop: compiling it takes a minute and more beyond this.
LONGEST_COMPILED = 25
# Less than this drowns in what an allocator keeps for itself.
FEWEST_FOR_MEMORY = 1 << 20
# Tensors of the size of x that the hungriest contender holds at once: the eager loop saves several a step.
MOST_TENSORS = 12


def target_of(name: str, row: dict[str, Any]) -> float | None:
    """The times of lif_cuda that this contender should take at least; None where nothing is aimed at."""
    steps, size, training = row["shape"][0], row["neuron_steps"], row["training"]
    if name in ("lif_cuda", "eager reference") or (name == "copy" and size < 1_000_000):
        return None
    if name == "copy":
        return 1 / (1.3 if steps >= 1000 else 1.15) if training else 1.0
    if name == "torch.compile":
        return 2.5 if size < 1_000_000 else 1.5
    if name == "eager loop":
        return 30.0 if steps >= 1000 else 12.0 if training else 8.0
    return 10.0


@dataclass(frozen=True)
class Case:
    """A shape [T, B, N], a type, and whether the backward pass is timed too."""

    steps: int
    batch: int
    neurons: int
    dtype: torch.dtype = torch.float32
    training: bool = False

    @property
    def neuron_steps(self) -> int:
        return self.steps * self.batch * self.neurons

    @property
    def bytes(self) -> int:
        """What has to move: x and spikes; with backward x, the gradient and dx once more."""
        return self.neuron_steps * self.dtype.itemsize * (5 if self.training else 2)

    def __str__(self) -> str:
        kind = "forward + backward" if self.training else "forward"
        return f"[{self.steps}, {self.batch}, {self.neurons}] {str(self.dtype)[6:]} {kind}"


def run_case(
    case: Case, options: argparse.Namespace, device: torch.device, yardstick: Yardstick
) -> dict[str, Any]:
    """Verify and time one case."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.steps, case.batch, case.neurons)
    x = (torch.randn(shape, generator=generator) * 0.5 + 0.15).to(device, case.dtype)
    grad = torch.randn(shape, generator=generator).to(device, case.dtype)
    compile_loop = case.steps <= LONGEST_COMPILED and not options.no_compile
    found, missing = contenders(x, compile_loop=compile_loop, rivals=not options.no_rivals)
    sound: list[Contender] = []
    for contender in found:
        fault = wrong(contender, x)
        if fault is None:
            sound.append(contender)
        else:
            missing[contender.name] = fault
    calls: dict[str, Callable[[], object]] = {"copy": copy_of(x, grad, case.training)}
    calls |= {c.name: call_of(c.run, x, grad, case.training) for c in sound}
    turns = interleaved(calls, options.seconds, device, yardstick)
    return {
        "case": str(case),
        "shape": shape,
        "dtype": str(case.dtype),
        "training": case.training,
        "seconds": {name: asdict(turns.timing(name)) for name in calls},
        "times_of_lif_cuda": {name: asdict(turns.ratio(name, "lif_cuda")) for name in calls},
        "undisturbed_turns": {name: len(turns.quiet(name)) for name in calls},
        "all_turns": {
            name: {
                "turns": len(taken),
                "seconds": asdict(summarise(taken)),
                "times_of_lif_cuda": asdict(turns.ratio(name, "lif_cuda", quiet=False)),
            }
            for name, taken in turns.seconds.items()
        },
        "saved_bytes_per_neuron_step": {
            c.name: saved_bytes(c.run, x) / case.neuron_steps for c in sound if case.training
        },
        "peak_bytes_per_neuron_step": {
            name: peak / case.neuron_steps
            for name, call in calls.items()
            if case.neuron_steps >= FEWEST_FOR_MEMORY and (peak := peak_bytes(call, device)) is not None
        },
        "compile_seconds": {c.name: c.setup_seconds for c in sound if c.setup_seconds},
        "differences": {c.name: c.difference for c in sound if c.difference},
        "missing": missing,
        "gigabytes_per_second": case.bytes / turns.timing("lif_cuda").median / 1e9,
        "neuron_steps": case.neuron_steps,
    }


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
                calls[name] = lambda run=run: run(leaf)  # type: ignore[misc]
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
    shapes = [(t, 4096) for t in (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)]
    shapes += [(4, 2**k) for k in range(7, 28, 2)]
    rows = []
    for steps, neurons in shapes:
        # x, its gradient, what comes in, spikes, dx, and one to spare.
        if steps * neurons > 4 * largest or steps * neurons * 4 * 6 > available_bytes(device):
            print(f"T = {steps}, {neurons} neurons: left out", file=sys.stderr)
            continue
        x = torch.randn(steps, neurons, device=device) * 0.5 + 0.15
        grad = torch.randn_like(x)
        calls = {
            kind: call_of(lif_cuda_fused, x, grad, kind == "training") for kind in ("forward", "training")
        }
        turns = interleaved(calls, options.seconds / 4, device, yardstick)
        rows.append(
            {"steps": steps, "neurons": neurons} | {kind: turns.timing(kind).median for kind in calls}
        )
    return rows


def table_of(results: dict[str, Any]) -> str:
    """The results for a terminal: ns a neuron-step, and times of lif_cuda with the targets."""
    lines = []
    for row in results["cases"]:
        share = row["times_of_lif_cuda"]["copy"]["median"]
        lines.append(
            f"\n{row['case']}    {row['gigabytes_per_second']:.1f} GB/s by lif_cuda, "
            f"{share:.0%} of the copy's"
        )
        for name, timing in row["seconds"].items():
            ratio = row["times_of_lif_cuda"][name]
            target = target_of(name, row)
            verdict = ""
            if target is not None:
                verdict = f"  target {target:.2f}" + ("" if ratio["median"] >= target else "  MISSED")
            all_turns = row["all_turns"][name]
            lines.append(
                f"  {name:16}{timing['median'] / row['neuron_steps'] * 1e9:9.3f} ns"
                f"{ratio['median']:9.2f} x ({ratio['low']:.2f} to {ratio['high']:.2f})"
                f"  {row['undisturbed_turns'][name]:3} turns of {all_turns['turns']:3}, of all"
                f"{all_turns['seconds']['median'] / row['neuron_steps'] * 1e9:9.3f} ns"
                f"{all_turns['times_of_lif_cuda']['median']:9.2f} x{verdict}"
            )
        if row["saved_bytes_per_neuron_step"]:
            saved = ", ".join(f"{n} {b:.1f}" for n, b in row["saved_bytes_per_neuron_step"].items())
            lines.append(f"  bytes saved for backward a neuron-step: {saved}")
        if row["peak_bytes_per_neuron_step"]:
            peaks = ", ".join(f"{n} {b:.1f}" for n, b in row["peak_bytes_per_neuron_step"].items())
            lines.append(f"  peak extra memory, bytes a neuron-step: {peaks}")
        for name, seconds in row["compile_seconds"].items():
            lines.append(f"  {name}: {seconds:.1f} s to compile, which lif_cuda does not take")
        for name, reason in row["missing"].items():
            lines.append(f"  {name}: no time: {reason}")
    for row in results["constant_input_counts"]:
        steps, neurons = row["shape"]
        lines.append(
            f"\nconstant input, counts, T = {steps}, {neurons} neurons: "
            f"{row['forward'] * 1e9:.3f} ns forward, {row['training'] * 1e9:.3f} ns with backward"
        )
    lines.append("\nmicroseconds a call, one step of eight neurons unless said otherwise:")
    for kind, row in results["overhead_microseconds"].items():
        lines.append(f"  {kind:22}" + "".join(f"{name} {value:.1f}   " for name, value in row.items()))
    for name, row in results.get("after_idling", {}).items():
        lines.append(f"{name}, [4, 32, 262144]: " + ", ".join(f"{w} {v:.2f} ns" for w, v in row.items()))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Verify, time and report."""
    parser = argparse.ArgumentParser(description="Microbenchmarks of one LIF layer.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each case")
    parser.add_argument("--largest", type=int, default=2**27, help="neuron-steps of a case, at most")
    parser.add_argument("--quick", action="store_true", help="small shapes, about two minutes")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--no-rivals", action="store_true", help="leave the other libraries out")
    parser.add_argument(
        "--recycled", action="store_true", help="results in memory that was used before, never in fresh pages"
    )
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--pictures", type=Path, help="draw into this folder")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.quick:
        options.seconds, options.largest = min(options.seconds, 1.0), min(options.largest, 2**22)
    if options.recycled:
        recycle()
    device = torch.device(options.device)
    yardstick = Yardstick()
    results: dict[str, Any] = {
        "format": 1,
        "command": _machine.command(),
        "versions": _machine.versions(),
        "machine": _machine.machine(device),
        "commit": _machine.commit(),
        "cases": [],
    }
    for dtype in (torch.float32, torch.bfloat16):
        for shape in SHAPES:
            for training in (False, True):
                case = Case(*shape, dtype, training)
                if case.neuron_steps > options.largest:
                    print(f"{case}: left out, more than {options.largest} neuron-steps", file=sys.stderr)
                    continue
                if case.neuron_steps * dtype.itemsize * MOST_TENSORS > available_bytes(device):
                    print(f"{case}: left out, more than the memory there is", file=sys.stderr)
                    continue
                print(case, file=sys.stderr, flush=True)
                results["cases"].append(run_case(case, options, device, yardstick))
    results["constant_input_counts"] = constant_counts(options, device, yardstick)
    results["overhead_microseconds"] = overhead(options, device, yardstick)
    # Sizes of every kind would leave recycled memory in pieces that no later one fits into.
    results["scaling"] = [] if options.recycled else scaling(options, device, yardstick)
    if not (options.quick or options.recycled) and options.largest >= 2**25:
        results["after_idling"] = after_idling(device)
    print(table_of(results))
    if options.json:
        write_json(options.json, results)
    if options.pictures:
        import _kernel_pictures  # matplotlib, which a machine that only measures may lack

        options.pictures.mkdir(parents=True, exist_ok=True)
        _kernel_pictures.draw(results, options.pictures)


if __name__ == "__main__":
    main()
