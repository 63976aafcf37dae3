"""Instructions a neuron-step: of the main loops of a kernel, as a report, and against budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from _sass import Function
from _sass_loops import Loop, main_loops

# In the order of the work; between recompute and back, the passes of the surrogates by flavour.
PARTS = ("forward", "recompute", "reciprocal", "plain", "division", "table", "back", "fused", "whole")

# Of a kernel: for each part the instructions a neuron-step of its loops, the leanest first.
Counts = dict[str, tuple[float, ...]]
Report = dict[str, Counts]


@dataclass(frozen=True)
class Step:
    """What a thread of a kernel stores for one time step."""

    neurons: int  # of a thread
    bytes: int  # of x, spikes and gradients, each
    rows: int = 1  # that recomputing keeps of a neuron, each of state_bytes
    state_bytes: int = 4
    # The most steps of an iteration, if that is known: a checkpoint that is stored in between is no step.
    group: int | None = None

    def of(self, loop: Loop) -> int:
        """Time steps of one iteration."""
        one = self.neurons * self.bytes
        if loop.kind in ("recompute", "surrogate"):
            one = self.neurons * self.state_bytes * (self.rows if loop.kind == "recompute" else 1)
        steps = loop.marker // one
        return steps if self.group is None else min(steps, self.group)


def part(loop: Loop) -> str:
    """The name of a loop in the report: a surrogate's pass by flavour; "fused" for a way back that has it."""
    if loop.kind == "surrogate":
        return loop.flavour
    return "fused" if loop.kind == "back" and loop.counts["MUFU.RCP"] else loop.kind


def instructions(function: Function, step: Step) -> Counts:
    """Instructions a neuron-step of the main loops. Parts without a loop are left out."""
    found: dict[str, list[float]] = {}
    for loop in main_loops(function, step.of):
        of_step = loop.total / (step.of(loop) * step.neurons)
        found.setdefault(part(loop), []).append(round(of_step, 1))
    return {name: tuple(sorted(found[name])) for name in PARTS if name in found}


def write_report(report: Report, heading: str) -> str:
    """The report as text: a line a kernel, below a heading that says of which compiler."""
    width = max(map(len, report), default=0) + 2
    lines = [
        f"{kernel:{width}}" + "  ".join(" ".join([name, *map(str, counts[name])]) for name in counts)
        for kernel, counts in sorted(report.items())
    ]
    return "\n".join([f"# {heading}", *(line.rstrip() for line in lines)]) + "\n"


def read_report(text: str) -> Report:
    """The report that such text was written from."""
    report: Report = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        kernel, *parts = (column.strip() for column in line.split("  ") if column.strip())
        named = [column.split() for column in parts]
        report[kernel] = {name: tuple(map(float, counts)) for name, *counts in named}
    return report


def check_budgets(report: Report, budget_of: Callable[[str], Mapping[str, float]]) -> list[str]:
    """What in a report costs more than its kernel's budget, or is missing there.

    A budget says of parts of the report how many instructions a neuron-step they may take at the most; each
    loop of the part must keep to it. "way back" is the surrogate's pass and the way back behind it, together.
    """
    violations = []
    for kernel, counts in sorted(report.items()):
        for name, most in budget_of(kernel).items():
            spent = _way_back(counts) if name == "way back" else max(counts.get(name, ()), default=None)
            if spent is None:
                violations.append(f"{kernel}: {name}: no such loop found")
            elif spent > most:
                violations.append(f"{kernel}: {name}: {spent:.1f} instructions a neuron-step, not {most:g}")
    return violations


def _way_back(counts: Counts) -> float | None:
    """Of the surrogate by a reciprocal and the way back, in one loop or two.

    Of the passes by a reciprocal two are algebraic, those of the fast sigmoid and of ATan, and the dearer of
    them counts. What else took a reciprocal would have an exponential before it, and be dearer than both.
    """
    if "fused" in counts:
        return max(counts["fused"])
    if "reciprocal" not in counts or "back" not in counts:
        return None
    return round(counts["reciprocal"][:2][-1] + max(counts["back"]), 1)
