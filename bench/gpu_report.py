"""The verdict of a run of bench/gpu.sh: report.md and report.json, from what its stages wrote.

python bench/gpu_report.py FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.files import write_atomically, write_json
from on_gpu.targets import (
    BOTH,
    FORWARD,
    MISSED,
    NOT_MEASURED,
    REACHED,
    Results,
    Verdict,
    seconds_of,
    verdicts,
)

REHEARSAL = (
    "**This is a rehearsal on a CPU with tiny sizes: it shows that the script runs. "
    "No figure in it means anything.**"
)
# Files that stages leave.
RESULTS = ("kernels", "recurrent", "resnet", "mnist", "profile")


def gathered(folder: Path) -> Results:
    """What the stages wrote, with reasons for what does not belong to this run."""
    results: Results = dict.fromkeys(RESULTS) | {"not_taken": {}}
    results |= _read(folder / "stages.json") or {"facts": {}, "stages": [], "rehearsal": False}
    for name in RESULTS:
        found = _read(folder / f"{name}.json")
        if found is None:
            continue
        why = _foreign(found, results)
        if why:
            results["not_taken"][f"{name}.json"] = why
        else:
            results[name] = found
    return results


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found


def _foreign(found: dict[str, Any], run: Results) -> str:
    """Why a result is not of the run; empty where it is."""
    facts = run["facts"]
    # mnist.py states its commit in its own way, and no device that could be compared.
    commit = found["facts"]["commit"] if "facts" in found else found.get("commit", {}).get("hash")
    if commit != facts.get("commit"):
        return f"of commit {commit}"
    if "facts" in found and found["facts"]["device"] != facts.get("device"):
        return f"of another device, {found['facts']['device']}"
    if found.get("shapes") == "tiny" and not run["rehearsal"]:
        return "of tiny shapes"
    return ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def report(results: Results, judged: Sequence[Verdict]) -> str:
    """report.md."""
    lines = ["# A run of bench/gpu.sh", ""]
    if results["rehearsal"]:
        lines += [REHEARSAL, ""]
    lines += _facts(results)
    lines += _summary(judged)
    lines += ["## Stages", ""]
    lines += table(("stage", "seconds", "limit", "end"), map(_stage, results["stages"]))
    lines += ["## Targets", ""]
    lines += ["Times of an H200 in themselves are not judged on another card; ratios are.", ""]
    lines += table(("target", "limit", "figure", "verdict"), map(_target, judged))
    lines += _kernels(results["kernels"])
    lines += _recurrent(results.get("recurrent"))
    lines += _resnet(results["resnet"])
    lines += _mnist(results["mnist"])
    lines += counters(results.get("profile"))
    if results["not_taken"]:
        lines += ["## Not of this run", ""]
        lines += [f"- {name} is {why}, and was left out" for name, why in results["not_taken"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _facts(results: Results) -> list[str]:
    facts = results["facts"]
    rivals = facts.get("rivals", {})
    commit = f"{facts.get('commit') or 'unknown: not a git checkout'}"
    rows = [
        (
            "device",
            f"{facts.get('device')}, capability {facts.get('capability')}, {facts.get('memory_gib')} GiB",
        ),
        ("driver", str(facts.get("driver"))),
        ("torch", f"{facts.get('torch')}, Python {facts.get('python')}, nvcc {facts.get('nvcc')}"),
        ("commit", commit + (", changed since" if facts.get("changed") else "")),
        ("cores", str(facts.get("cores"))),
        ("rivals", "installed for this run" if results.get("rivals") else _importable(rivals)),
    ]
    return table(("", ""), rows)


def _importable(rivals: dict[str, str | None]) -> str:
    version = rivals.get("spikingjelly")
    return f"SpikingJelly {version}" if version else "SpikingJelly is not installed: it was left out"


def _summary(judged: Sequence[Verdict]) -> list[str]:
    counts = {kind: sum(v.verdict == kind for v in judged) for kind in (REACHED, MISSED, NOT_MEASURED)}
    return [
        ", ".join(f"{count} {kind}" for kind, count in counts.items()) + f", of {len(judged)} targets.",
        "",
    ]


def _stage(end: dict[str, Any]) -> tuple[str, ...]:
    if "skipped" in end:
        how = f"skipped: {end['skipped']}"
    elif "impossible" in end:
        how = f"FAILED: {end['impossible']}"
    else:
        how = {0: "passed", 124: "FAILED: time limit"}.get(end["exit"], f"FAILED: exit {end['exit']}")
    if end.get("earlier"):
        how += " (in an earlier run)"
    return end["stage"], str(end.get("seconds", "")), str(end.get("limit", "")), how


def _target(verdict: Verdict) -> tuple[str, ...]:
    unit = " us" if verdict.unit == "us" else ""
    figure = "" if verdict.figure is None else f"{verdict.figure:.3g}{unit}"
    said = verdict.verdict.upper() if verdict.verdict == MISSED else verdict.verdict
    return verdict.name, verdict.limit + unit, figure, said


def _kernels(kernels: dict[str, Any] | None) -> list[str]:
    if kernels is None:
        return []
    lines = ["## Kernels", ""]
    lines += [
        "Microseconds of the kernels of one call, median and quartiles; picoseconds a neuron-step; the time "
        "over the copy's; microseconds of a whole call by the wall clock.",
        "",
    ]
    for row in kernels["cases"]:
        lines += _case(row)
    lines += [f"- {name}: left out: {why}" for name, why in kernels["left_out"].items()]
    lines += [
        "",
        "## Calls with next to nothing to compute",
        "",
        "Microseconds a call, by the wall clock.",
        "",
    ]
    rows = [
        (
            str(row["shape"]),
            row["kind"],
            *(f"{row['seconds'][n]['median'] * 1e6:.1f}" for n in ("lif_cuda", "relu")),
        )
        for row in kernels["calls"]
    ]
    return lines + table(("shape", "kind", "lif_cuda", "relu"), rows)


def _case(row: dict[str, Any]) -> list[str]:
    lines = [f"### {row['name']}" + (f", {row['shape']} {row['dtype']}" if "shape" in row else ""), ""]
    body = []
    for mode in (FORWARD, BOTH):
        times = row.get("kernel_seconds", {}).get(mode, {})
        copy = seconds_of(row, mode, "copy")
        for name, timing in times.items():
            whole = row["call_seconds"][mode].get(name)
            body.append(
                (
                    name,
                    mode,
                    f"{timing['median'] * 1e6:.1f} ({timing['low'] * 1e6:.1f} to {timing['high'] * 1e6:.1f})",
                    f"{timing['median'] * 1e12 / row['neuron_steps']:.2f}",
                    f"{timing['median'] / copy:.2f}" if copy else "",
                    f"{whole['median'] * 1e6:.1f}" if whole else "",
                    row["how"][mode][name],
                )
            )
    if body:
        lines += table(("", "", "us", "ps a neuron-step", "over the copy", "whole call, us", "how"), body)
    lines += [f"- {name}: {what}" for name, what in row.get("differences", {}).items()]
    lines += [f"- {name}: {s:.1f} s to set up" for name, s in row.get("setup_seconds", {}).items() if s > 0.5]
    lines += [f"- {name}: no time: {why}" for name, why in row["missing"].items()]
    return [*lines, ""]


def _recurrent(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    lines = [
        "## Recurrent layers",
        "",
        "Microseconds a time step. Forward: the kernels alone; the others are whole calls by the wall clock.",
        "Spikes and the gradient of x were the bits of the CPU's kernels first.",
        "",
    ]
    body = []
    for row in found["rows"]:
        steps, seconds = row["shape"][0], {name: s["median"] for name, s in row["seconds"].items()}
        loop, ours = seconds.get("eager loop"), seconds.get("forward + backward")
        body.append(
            (
                f"{row['shape']}, {row['dtype']}",
                *(
                    f"{1e6 * seconds[name] / steps:.2f}" if name in seconds else ""
                    for name in ("forward, kernels", "forward + backward", "eager loop")
                ),
                f"{loop / ours:.1f}" if loop and ours else "",
            )
        )
    head = ("T, samples, neurons", "forward", "forward + backward", "eager loop", "loop over ours")
    lines += table(head, body)
    return [*lines, *(f"- {shape}: {why}" for shape, why in found["wrong"].items()), ""]


def _resnet(resnet: dict[str, Any] | None) -> list[str]:
    if resnet is None:
        return []
    lines = [
        "## SEW-ResNet-18",
        "",
        f"A training step, {resnet['shape']}, bf16 autocast: images a second.",
        "",
    ]
    rows = [(name, f"{rate:.0f}") for name, rate in resnet["images_per_second"].items()]
    lines += table(("neuron", "images a second"), rows)
    return [*lines, *(f"- {name}: no time: {why}" for name, why in resnet["missing"].items()), ""]


def _mnist(mnist: dict[str, Any] | None) -> list[str]:
    if mnist is None:
        return []
    rows = []
    for name in ("snn", "snn_reference", "ann"):
        net = mnist.get(name)
        if net is not None:
            rows.append((name, f"{net['test_accuracy']:.2f} %", f"{net['seconds_per_epoch']:.2f}"))
    return ["## MNIST", "", *table(("network", "test accuracy", "seconds an epoch"), rows)]


def counters(profile: dict[str, Any] | None) -> list[str]:
    """The section of the hardware counters; empty where they were not read."""
    if profile is None:
        return []
    lines = ["## Hardware counters", ""]
    lines += [
        "One launch each, under the profiler. Shares of the peak in percent; instructions that a warp "
        "executed, times 32, over neuron-steps; what its warps wait for most, in cycles an instruction.",
        "",
    ]
    rows = []
    for launch in profile["launches"]:
        waits = sorted(launch["stalls"].items(), key=lambda item: -item[1])[:3]
        rows.append(
            (
                launch["case"],
                launch["contender"],
                launch["kernel"].partition("(")[0].removeprefix("void "),
                f"{launch['ns'] / 1e3:.1f}",
                f"{launch['memory_percent']:.0f}",
                f"{launch['issue_percent']:.0f}",
                f"{launch['occupancy_percent']:.0f}",
                f"{launch['registers']:.0f}",
                f"{launch['instructions_a_neuron_step']:.1f}",
                ", ".join(f"{name} {cycles:.1f}" for name, cycles in waits),
            )
        )
    head = (
        "case",
        "neuron",
        "kernel",
        "us",
        "memory",
        "issue",
        "occupancy",
        "registers",
        "instructions",
        "waits",
    )
    return [*lines, *table(head, rows)]


def main() -> int:
    """Write the report of the folder that the first argument names, and say how it ended."""
    folder = Path(sys.argv[1])
    results = gathered(folder)
    judged = verdicts(results)
    text = report(results, judged)
    write_atomically(folder / "report.md", lambda file: file.write(text.encode()))
    write_json(
        folder / "report.json",
        {
            "format": 1,
            "facts": results["facts"],
            "rehearsal": results["rehearsal"],
            "targets": [asdict(verdict) for verdict in judged],
        },
    )
    for verdict in judged:
        if verdict.verdict == MISSED:
            print(f"missed: {' '.join(_target(verdict)[:3])}")
    print("".join(_summary(judged)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
