"""The rows of the CPU kernels are vectorised, at the full width of each SIMD level.

Each loop of csrc/cpu/rows.inl and general.inl that is one pass over a row is looked up in GCC's own report.
Without it a branch or a possible alias that creeps in costs a factor of 4 to 16, and no result shows it. The
loops over time of plain*.inl need no vectoriser: they are written in vectors.
"""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest
from _compile import CSRC, CXX_FLAGS, compile_source, cxx

SOURCES = [CSRC / "cpu" / name for name in ("rows.inl", "general.inl")]
WIDTHS = {"baseline": 16, "avx2": 32, "avx512": 64}  # bytes

# A pass that computes nothing: it moves cache lines by instructions of its own.
NOT_ARITHMETIC = frozenset({"stream_row"})


def row_loops(source: str) -> dict[int, str]:
    """The line numbers of the loops in functions named ..._row, and the functions' names."""
    found = {}
    function = ""
    for number, line in enumerate(source.splitlines(), start=1):
        # A definition starts at the margin; its closing brace ends it.
        if match := re.match(r"(?:[\w:<>*&]+ )+\*?(\w+)\(", line):
            function = match.group(1)
        elif line.startswith("}"):
            function = ""
        elif function.endswith("_row") and function not in NOT_ARITHMETIC and re.match(r"\s+for \(", line):
            found[number] = function
    return found


def reported(report: str, source: Path, message: str) -> list[re.Match[str]]:
    """The lines of GCC's report about a source with a message, as matches; group 1 is the line number."""
    # Behind a slash: plain_rows.inl is not rows.inl.
    return list(re.finditer(rf"/{re.escape(source.name)}:(\d+):\d+: {message}", report))


@pytest.fixture(scope="module")
def compiler() -> str:
    found = cxx()
    if found is None:
        pytest.skip("no C++ compiler")
    macros = subprocess.run(
        [found, "-dM", "-E", "-x", "c++", "/dev/null"], capture_output=True, text=True, check=False
    ).stdout
    if "__GNUC__" not in macros or "__clang__" in macros:
        pytest.skip(f"{found} is not GCC, whose report of vectorised loops is read here")
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"the widths are those of x86-64, not of {platform.machine()}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("level", WIDTHS)
def test_rows_are_vectorised(level: str, compiler: str, tmp_path: Path) -> None:
    report = tmp_path / "report.txt"
    compile_source(
        [compiler, *CXX_FLAGS, "-std=c++17", f"-I{CSRC}", f"-fopt-info-vec-all={report}"]
        + ["-c", CSRC / "cpu" / f"lif_{level}.cpp", "-o", tmp_path / "kernels.o"]
    )
    text = report.read_text()
    found = 0
    for source in SOURCES:
        widest: dict[int, int] = {}
        for match in reported(text, source, r"optimized: loop vectorized using (\d+) byte vectors"):
            line, width = int(match[1]), int(match[2])
            widest[line] = max(width, widest.get(line, 0))
        # A template is compiled for float and double and several options: none of them may fail.
        failed = {int(match[1]) for match in reported(text, source, "missed: couldn't vectorize loop")}

        # A loop with two versions chooses at run time, and the slow one is slow in silence.
        versioned = {int(match[1]) for match in reported(text, source, r"optimized:\s+loop versioned")}

        for line, function in row_loops(source.read_text()).items():
            found += 1
            if level == "baseline" and function == "narrow_row":
                continue  # SSE2 lacks what rounding to 16 bits needs
            where = f"{function}, {source.name}:{line}"
            assert line not in failed, f"{where}: not vectorised for {level}"
            assert line not in versioned, f"{where}: __restrict__ is missing"
            assert widest.get(line) == WIDTHS[level], (
                f"{where}: {widest.get(line, 0)} bytes at a time at {level}"
            )
    assert found >= 25, f"only {found} passes over rows were found in {[s.name for s in SOURCES]}"
