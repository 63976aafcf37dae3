"""The cases: one layer on one shape, forward or with its backward pass, against what else there is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from common.calls import call_of, copy_of
from common.memory import available_bytes, peak_bytes, saved_bytes
from common.turns import Yardstick, interleaved, summarise
from rivals.contenders import Contender, contenders, fault

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
    if name.startswith(("lif_cuda", "eager reference")) or (name == "copy" and size < 1_000_000):
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


def measure(options: argparse.Namespace, device: torch.device, yardstick: Yardstick) -> list[dict[str, Any]]:
    """All cases that there is memory for."""
    rows = []
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
                rows.append(run_case(case, options, device, yardstick))
    return rows


def run_case(
    case: Case, options: argparse.Namespace, device: torch.device, yardstick: Yardstick
) -> dict[str, Any]:
    """Verify and time one case."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.steps, case.batch, case.neurons)
    plain = torch.randn(shape, generator=generator) * 0.5 + 0.15
    grad = torch.randn(shape, generator=generator).to(device, case.dtype)
    x = plain.to(device, case.dtype)
    compile_loop = case.steps <= LONGEST_COMPILED and not options.no_compile
    found, missing = contenders(x, compile_loop=compile_loop, rivals=not options.no_rivals)
    given = {scale: (plain * scale).to(device, case.dtype) for scale in {c.scale for c in found}}
    sound: list[Contender] = []
    for contender in found:
        why = fault(contender, given[contender.scale], grad, case.training)
        if why is None:
            sound.append(contender)
        else:
            missing[contender.name] = why
    # A rival whose layer of this project is wrong has nothing to be compared with, and no layer without it.
    names, wanted = {c.name for c in sound}, {c.beside for c in sound}
    sound = [c for c in sound if c.beside in names and (c.reference is None or c.name in wanted)]
    beside = {"copy": "lif_cuda"} | {c.name: c.beside for c in sound}
    calls: dict[str, Callable[[], object]] = {"copy": copy_of(x, grad, case.training)}
    calls |= {c.name: call_of(c.run, given[c.scale], grad, case.training) for c in sound}
    turns = interleaved(calls, options.seconds, device, yardstick)
    return {
        "case": str(case),
        "shape": shape,
        "dtype": str(case.dtype),
        "training": case.training,
        "seconds": {name: asdict(turns.timing(name)) for name in calls},
        "beside": {name: beside[name] for name in calls},
        "times_of_lif_cuda": {name: asdict(turns.ratio(name, beside[name])) for name in calls},
        "undisturbed_turns": {name: len(turns.quiet(name)) for name in calls},
        "all_turns": {
            name: {
                "turns": len(taken),
                "seconds": asdict(summarise(taken)),
                "times_of_lif_cuda": asdict(turns.ratio(name, beside[name], quiet=False)),
            }
            for name, taken in turns.seconds.items()
        },
        "saved_bytes_per_neuron_step": {
            c.name: saved_bytes(c.run, given[c.scale]) / case.neuron_steps for c in sound if case.training
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


def text(rows: list[dict[str, Any]]) -> list[str]:
    """The cases for a terminal: ns a neuron-step, and times of the lif_cuda beside it with the targets."""
    lines = []
    for row in rows:
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
                f"  {name:24}{timing['median'] / row['neuron_steps'] * 1e9:9.3f} ns"
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
    return lines
