"""What the hardware counters say of each kernel: time, memory, instructions, and what its warps wait for.

    python bench/gpu_profile.py --json profile.json

Runs the cases of bench/gpu_kernels.py once more under ``ncu``, without rivals: one call forward and
backward each. The clocks are left alone. A time under the profiler is for its shares, and no figure of speed.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common.calls import call_of
from common.files import write_json
from on_gpu.cases import CASES, Case, entries
from on_gpu.facts import facts

# A launch of this kernel stands before the launches of each contender.
MARK = "spin_kernel"
OURS = "forward_kernel|backward_kernel"
# Cases that show nothing beside the others, or whose profile takes long.
LEFT_OUT = ("large", "large bf16", "large fp16")
METRICS = {
    "ns": "gpu__time_duration.sum",
    "memory_percent": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "read_bytes": "dram__bytes_read.sum",
    "written_bytes": "dram__bytes_write.sum",
    "issue_percent": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "occupancy_percent": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "registers": "launch__registers_per_thread",
    "warp_instructions": "smsp__inst_executed.sum",
}
# Cycles that a warp waits for each instruction that it issues, by what it waits for.
STALLS = {
    stall: f"smsp__average_warps_issue_stalled_{stall}_per_issue_active.ratio"
    for stall in (
        "long_scoreboard",
        "short_scoreboard",
        "barrier",
        "wait",
        "math_pipe_throttle",
        "lg_throttle",
        "mio_throttle",
        "not_selected",
    )
}


def cases() -> list[Case]:
    """Those of the microbenchmarks, without rivals."""
    return [replace(case, rivals=()) for case in CASES if case.name not in LEFT_OUT]


def run_calls(device: torch.device) -> None:
    """In the profiled process: each contender's call, behind its mark; names on standard output."""
    for case in cases():
        for entry in entries(case, device, 0.0)[0]:
            contender = entry.contender
            call = call_of(contender.run, entry.x, entry.grad, True, contender.learned)
            call()
            torch.cuda.synchronize(device)
            print(f"MARK {case.name}\t{contender.name}\t{case.neuron_steps}", flush=True)
            torch.cuda.profiler.start()
            torch.cuda._sleep(1)
            call()
            torch.cuda.synchronize(device)
            torch.cuda.profiler.stop()


def profiled(ncu: str) -> str:
    """What the profiler and the profiled process print."""
    metrics = ",".join([*METRICS.values(), *STALLS.values()])
    command = [ncu, "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none"]
    command += ["--profile-from-start", "off", "--kernel-name", f"regex:{MARK}|{OURS}", "--metrics", metrics]
    command += [sys.executable, str(Path(__file__).resolve()), "--calls"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ncu: exit {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def launches(printed: str) -> list[dict[str, Any]]:
    """The kernels of this project, with the contender and the figures of each."""
    named = [line[5:].split("\t") for line in printed.splitlines() if line.startswith("MARK ")]
    table = "\n".join(line for line in printed.splitlines() if line.startswith('"'))
    found: list[dict[str, Any]] = []
    place = -1
    for row in csv.DictReader(io.StringIO(table)):
        kernel = row["Kernel Name"]
        # The line below the head holds the units.
        if not kernel:
            continue
        if MARK in kernel:
            place += 1
            continue
        case, contender, steps = named[place]
        figures = {name: _number(row[metric]) for name, metric in METRICS.items()}
        figures["instructions_a_neuron_step"] = 32 * figures["warp_instructions"] / int(steps)
        stalls = {name: _number(row[metric]) for name, metric in STALLS.items()}
        found.append({"case": case, "contender": contender, "kernel": kernel, **figures, "stalls": stalls})
    return found


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile, and print a line a kernel; the exit status is 1 if the profiler read nothing."""
    parser = argparse.ArgumentParser(description="Hardware counters of the kernels on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--calls", action="store_true", help="what runs under the profiler")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if options.calls:
        run_calls(device)
        return 0
    ncu = shutil.which("ncu")
    if ncu is None:
        print("no ncu on PATH", file=sys.stderr)
        return 1
    found = launches(profiled(ncu))
    if options.json:
        write_json(options.json, {"format": 1, "facts": facts(device), "launches": found})
    for launch in found:
        waits = sorted(launch["stalls"].items(), key=lambda item: -item[1])[:3]
        print(
            f"{launch['case']}, {launch['contender']}: {launch['kernel'][:60]}: {launch['ns'] / 1e3:.1f} us, "
            f"memory {launch['memory_percent']:.0f} %, issue {launch['issue_percent']:.0f} %, "
            f"occupancy {launch['occupancy_percent']:.0f} %, {launch['registers']:.0f} registers, "
            f"{launch['instructions_a_neuron_step']:.1f} instructions; "
            + ", ".join(f"{name} {cycles:.2f}" for name, cycles in waits)
        )
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
