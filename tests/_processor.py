"""The SIMD levels of the CPU kernels, and which of them this processor runs."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import pytest

_FLAGS = {
    "baseline": frozenset[str](),
    "avx2": frozenset({"avx2", "f16c"}),
    "avx512": frozenset({"avx512f", "avx512vl", "avx512dq", "avx512bw", "f16c"}),
}
# Those that are built for this architecture, in rising order.
LEVELS = tuple(_FLAGS) if platform.machine() in ("x86_64", "AMD64") else ("baseline",)


@functools.cache
def _flags() -> frozenset[str]:
    """What Linux says that the processor can."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.split())
    return frozenset()


def runs(level: str) -> bool:
    """Whether the processor has what csrc/cpu/simd.h asks of it for this level."""
    return _FLAGS[level] <= _flags()


def skip_unless_runs(level: str) -> None:
    """Skip what executes instructions that this processor lacks: it would end in SIGILL, and is no fault."""
    if not runs(level):
        pytest.skip(f"the processor has no {level}: run this on one that has, or on an emulator")
