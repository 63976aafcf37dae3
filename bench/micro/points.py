"""What pictures show of a time in the JSON of kernels.py: median, quartiles, and whether it was disturbed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from common.turns import ENOUGH

# Of that JSON; a file of another format is not drawn.
FORMAT = 3
# A median so many times the lower quartile tells about the machine: what disturbs a turn makes it longer, and
# it does so within turns, too, around which the processor was ours.
NOISE = 1.5
# Quartiles closer than that are hidden by their point.
NARROW = 1.06


@dataclass(frozen=True)
class Point:
    """A time or a ratio of times.

    Attributes:
        median: of the undisturbed turns, of all where those are fewer than ENOUGH.
        low: the lower quartile of the same turns.
        high: the upper quartile.
        quiet: whether they are the undisturbed ones.
    """

    median: float
    low: float
    high: float
    quiet: bool

    @property
    def is_noise(self) -> bool:
        """Whether it is left out."""
        return self.median > NOISE * self.low

    @property
    def is_wide(self) -> bool:
        """Whether its quartiles are drawn."""
        return self.high > NARROW * self.low

    def inverse(self) -> Point:
        """The point of the ratio the other way round."""
        return Point(1 / self.median, 1 / self.high, 1 / self.low, self.quiet)


def point_of(timing: dict[str, float], undisturbed: int, scale: float = 1.0) -> Point:
    """The point of a timing as it stands in the JSON, in other units by ``scale``."""
    low, median, high = (timing[key] * scale for key in ("low", "median", "high"))
    return Point(median, low, high, undisturbed >= ENOUGH)


def note(points: Iterable[Point]) -> str:
    """What a reader has to know about these points."""
    points = list(points)
    lines = ["Medians; thin lines: quartiles."]
    if any(not point.quiet and not point.is_noise for point in points):
        lines.append(f"Hollow: others used the processor, under {ENOUGH} undisturbed turns.")
    left_out = sum(point.is_noise for point in points)
    if left_out:
        lines.append(f"Left out as noise: {left_out} of {len(points)}.")
    return " ".join(lines)


def where(machine: dict[str, Any]) -> str:
    """Threads and processor, or the GPU."""
    if "gpu" in machine:
        return str(machine["gpu"])
    threads = machine["threads"]
    return f"{threads} thread{'s' if threads > 1 else ''}, {machine['cpu']} ({machine['simd']})"
