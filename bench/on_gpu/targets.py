"""What the kernels must reach on an H200, in one table, and whether a run reached it.

Most are ratios of times of the same run, and hold for an H100 too; a time in itself is judged on an H200
only. A figure that the run did not produce is "not measured", never "reached"; nor does a rehearsal on a
CPU reach anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

REACHED, MISSED, NOT_MEASURED = "reached", "missed", "not measured"

FORWARD, BOTH = "forward", "forward + backward"

Results = dict[str, Any]
Reading = Callable[[Results], float | None]


@dataclass(frozen=True)
class Target:
    """One figure that must be reached.

    Attributes:
        name: what is judged.
        limit: the figure must be at most this, or at least if ``at_least``.
        read: the figure from the results of the stages; None where they do not hold it.
        unit: "times", or "us" for microseconds.
        h200_only: it is a time of that card.
    """

    name: str
    limit: float
    read: Reading
    unit: str = "times"
    at_least: bool = False
    h200_only: bool = False


@dataclass(frozen=True)
class Verdict:
    """A target with what a run says about it."""

    name: str
    limit: str
    verdict: str
    figure: float | None
    unit: str


def row_of(results: Results, case: str) -> dict[str, Any]:
    """The results of a microbenchmark; empty where it did not run."""
    rows = (results.get("kernels") or {}).get("cases", [])
    return next((row for row in rows if row["name"] == case), {})


def seconds_of(row: dict[str, Any], mode: str, name: str) -> float | None:
    """The median of a contender's kernels.

    Of the copy the lower of that and of its whole call: in a replayed graph copies of 512 MiB took 1.5
    times as long on an H200 as one by one.
    """
    kinds = ("kernel_seconds", "call_seconds") if name == "copy" else ("kernel_seconds",)
    medians = [
        float(row[kind][mode][name]["median"]) for kind in kinds if name in row.get(kind, {}).get(mode, {})
    ]
    return min(medians, default=None)


def seconds(results: Results, case: str, mode: str, name: str) -> float | None:
    """``seconds_of`` the case of that name."""
    return seconds_of(row_of(results, case), mode, name)


def over(case: str, mode: str, name: str, base: str) -> Reading:
    """The time of one contender over another's in the same case."""

    def read(results: Results) -> float | None:
        mine, other = seconds(results, case, mode, name), seconds(results, case, mode, base)
        return None if mine is None or other is None else mine / other

    return read


def ahead(case: str, mode: str) -> Reading:
    """The time of SpikingJelly over ours."""
    return over(case, mode, "SpikingJelly", "lif_cuda")


def microseconds(case: str, backward: bool) -> Reading:
    """Our kernels forward, or what backward adds to them."""

    def read(results: Results) -> float | None:
        forward, both = (seconds(results, case, mode, "lif_cuda") for mode in (FORWARD, BOTH))
        if forward is None or (backward and both is None):
            return None
        return 1e6 * (both - forward if backward and both is not None else forward)

    return read


def beyond_relu(kind: str) -> Reading:
    """Microseconds that a layer's call on eight neurons takes beyond relu's."""

    def read(results: Results) -> float | None:
        for row in (results.get("kernels") or {}).get("calls", []):
            if row["shape"] == [1, 1, 8] and row["kind"] == kind:
                return 1e6 * float(row["seconds"]["lif_cuda"]["median"] - row["seconds"]["relu"]["median"])
        return None

    return read


def network(results: Results) -> float | None:
    """Images a second with our neuron over those with SpikingJelly's at its best."""
    rates = (results.get("resnet") or {}).get("images_per_second", {})
    theirs = [rate for name, rate in rates.items() if name.startswith("SpikingJelly")]
    return rates["lif_cuda"] / max(theirs) if theirs and "lif_cuda" in rates else None


def _copies(cases: tuple[str, ...], forward: float, both: float) -> list[Target]:
    return [
        Target(f"{case}: {mode}, over the copy", limit, over(case, mode, "lif_cuda", "copy"))
        for case in cases
        for mode, limit in ((FORWARD, forward), (BOTH, both))
    ]


def _beside(case: str, name: str, base: str, limit: float, modes: tuple[str, ...]) -> list[Target]:
    return [
        Target(f"{case}: {name}, {mode}, over {base}", limit, over(case, mode, name, base)) for mode in modes
    ]


_MODES = (FORWARD, BOTH)
_LEARNED = "learned beta and threshold"
_BITS = "window surrogate, two bits a step"

TARGETS: tuple[Target, ...] = (
    *_copies(("large", "large, long"), 1.10, 1.10),
    *_copies(("large bf16", "large fp16"), 1.20, 1.25),
    *_copies(("middle", "middle bf16"), 1.20, 1.30),
    *_beside("relatives", _LEARNED, "plain", 1.10, _MODES),
    *_beside("learned", _LEARNED, "plain", 1.10, _MODES),
    *_beside("relatives", "current-based", "plain", 1.6, _MODES),
    *_beside("relatives", "adaptive", "plain", 1.6, _MODES),
    *_beside("relatives", "refractory", "plain", 1.6, _MODES),
    *_beside("relatives", "delayed", "plain", 1.6, _MODES),
    *_beside("relatives", _BITS, "plain", 1.0, (BOTH,)),
    *_beside("convolution", "channels_last", "contiguous", 1.05, _MODES),
    *_beside(
        "convolution",
        "channels_last, learned by channel",
        "contiguous, learned by channel",
        1.05,
        _MODES,
    ),
    Target("few neurons: forward", 30, microseconds("few neurons", False), "us", h200_only=True),
    Target("few neurons: backward", 32, microseconds("few neurons", True), "us", h200_only=True),
    Target("some neurons: forward", 20, microseconds("some neurons", False), "us", h200_only=True),
    Target("some neurons: backward", 35, microseconds("some neurons", True), "us", h200_only=True),
    *(
        Target(f"{case}: {mode}, SpikingJelly over lif_cuda", limit, ahead(case, mode), at_least=True)
        for case, limit in (("large", 1.6), ("large, long", 1.6), ("large bf16", 2.3), ("large fp16", 2.3))
        for mode in _MODES
    ),
    Target("SEW-ResNet-18: images a second, lif_cuda over SpikingJelly", 1.0, network, at_least=True),
    Target("a layer's inference call beyond relu's", 8, beyond_relu("inference"), "us"),
    Target("a layer's training call beyond relu's", 25, beyond_relu("training"), "us"),
)


def judged(target: Target, results: Results) -> Verdict:
    """The verdict on one target; the figure is given where there is one, even where it is not judged."""
    limit = f"{'at least' if target.at_least else 'at most'} {target.limit:g}"
    figure = target.read(results)
    if figure is None or results.get("rehearsal") or (target.h200_only and not _is_h200(results)):
        return Verdict(target.name, limit, NOT_MEASURED, figure, target.unit)
    reached = figure >= target.limit if target.at_least else figure <= target.limit
    return Verdict(target.name, limit, REACHED if reached else MISSED, figure, target.unit)


def verdicts(results: Results) -> list[Verdict]:
    """Those of all targets.

    ``results`` holds what the stages wrote ("kernels", "resnet"), "facts", and whether it is a "rehearsal".
    """
    return [judged(target, results) for target in TARGETS]


def _is_h200(results: Results) -> bool:
    return "H200" in str((results.get("facts") or {}).get("device"))
