"""The CPU kernels work on whole vectors, at the full width of each SIMD level.

Passes over rows (csrc/cpu/level/rows.inl) are loops for the compiler's vectoriser, and each is looked up in
GCC's own report. All other arithmetic is written in vectors, and is looked up in the assembly: GCC takes a
vector operation that the level lacks to pieces in silence, and an index into a vector is a number alone.
Without this a branch, an alias or such a piece that creeps in costs a factor of 4 to 16, and no result shows
it.
"""

from __future__ import annotations

import platform
import re
import subprocess

import pytest
from _compile import CSRC, CXX_FLAGS, compile_source, cxx

ROWS = CSRC / "cpu" / "level" / "rows.inl"
WAYS = ("forward", "backward")
WIDTHS = {"baseline": 16, "avx2": 32, "avx512": 64}  # bytes
REGISTERS = {"baseline": "xmm", "avx2": "ymm", "avx512": "zmm"}

# Functions whose arithmetic is written in vectors, and how many of each there are at the least: surrogates
# for fp32 and fp64; kernels for what forward writes and backward learns, of the neurons with kernels of their
# own and of any, for fp32, bf16 and fp64 (own_kernels.inl).
IN_VECTORS = {
    "slopes_strip": 8 * 2,
    "wide_forward_groups": (12 + 12 + 4) * 3,
    "wide_backward_groups": (14 + 14 + 6) * 2,
    "slopes_groups": 8 * 3,
}
# Without the kernels of the plain neuron alone, whose passes slopes_groups are.
IN_VECTORS_LEAN = IN_VECTORS | {
    "wide_forward_groups": 3 * 4 * 3,
    "wide_backward_groups": 3 * 6 * 2,
    "slopes_groups": 0,
}
# A number alone, multiplied or divided. Not added: so a number is spread over a vector. What does not change
# from neuron to neuron may be computed alone; where a vector is taken to pieces, there is one for each lane.
ALONE = re.compile(r"\tv?(?:mul|div|sub|max|min)s[sd]\t")


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
        elif function.endswith("_row") and re.match(r"\s+for \(", line):
            found[number] = function
    return found


def reported(report: str, message: str) -> list[re.Match[str]]:
    """The lines of GCC's report about rows.inl with a message, as matches; group 1 is the line number."""
    # Behind a slash: plain_rows.inl is not rows.inl.
    return list(re.finditer(rf"/{re.escape(ROWS.name)}:(\d+):\d+: {message}", report))


def functions(assembly: str) -> dict[str, str]:
    """The bodies of the functions of an assembly, by their mangled names."""
    return dict(re.findall(r"^(_Z[\w.]+):\n(.*?)^\t\.size\t\1,", assembly, re.MULTILINE | re.DOTALL))


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


@pytest.fixture(scope="module", params=WIDTHS)
def compiled(
    request: pytest.FixtureRequest, compiler: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str, str]:
    """A level, what GCC reports of its loops, and its assembly."""
    level = request.param
    folder = tmp_path_factory.mktemp(level)
    for way in WAYS:
        compile_source(
            [compiler, *CXX_FLAGS, "-std=c++17", f"-I{CSRC}", f"-fopt-info-vec-all={folder / way}.txt"]
            + ["-S", CSRC / "cpu" / f"{way}_{level}.cpp", "-o", folder / f"{way}.s"]
        )
    report, assembly = (
        "".join((folder / f"{way}.{kind}").read_text() for way in WAYS) for kind in ("txt", "s")
    )
    return level, report, assembly


@pytest.mark.slow
def test_rows_are_vectorised(compiled: tuple[str, str, str]) -> None:
    level, report, _ = compiled
    widest: dict[int, int] = {}
    for match in reported(report, r"optimized: loop vectorized using (\d+) byte vectors"):
        line, width = int(match[1]), int(match[2])
        widest[line] = max(width, widest.get(line, 0))
    # A template is compiled for float and double and several options: none of them may fail.
    failed = {int(match[1]) for match in reported(report, "missed: couldn't vectorize loop")}
    # A loop with two versions chooses at run time, and the slow one is slow in silence.
    versioned = {int(match[1]) for match in reported(report, r"optimized:\s+loop versioned")}

    loops = row_loops(ROWS.read_text())
    for line, function in loops.items():
        if level == "baseline" and function == "next_above_row":
            continue  # SSE2 does not compare integers of 64 bits
        where = f"{function}, {ROWS.name}:{line}"
        assert line not in failed, f"{where}: not vectorised for {level}"
        assert line not in versioned, f"{where}: __restrict__ is missing"
        assert widest.get(line) == WIDTHS[level], f"{where}: {widest.get(line, 0)} bytes at a time at {level}"
    assert len(loops) >= 5, f"only {len(loops)} passes over rows were found in {ROWS.name}"


@pytest.mark.slow
@pytest.mark.parametrize("function", IN_VECTORS)
def test_arithmetic_is_in_vectors(compiled: tuple[str, str, str], function: str) -> None:
    level, _, assembly = compiled
    mangled = f"{len(function)}{function}I"  # a template of this very name
    bodies = {name: body for name, body in functions(assembly).items() if mangled in name}
    least = IN_VECTORS_LEAN if level == "baseline" else IN_VECTORS
    assert len(bodies) >= least[function], f"only {len(bodies)} functions {function} at {level}"
    for name, body in bodies.items():
        if level == "baseline" and "4Half" in name:
            continue  # SSE2 converts one by one
        product = re.search(rf"\tv?mulp[sd]\t.*{REGISTERS[level]}", body)
        assert product is not None, f"{name} multiplies no {REGISTERS[level]} at {level}"
        alone = ALONE.findall(body)
        assert len(alone) < WIDTHS[level] // 8, f"{name} takes vectors to pieces at {level}: {alone}"


@pytest.mark.slow
def test_tables_are_gathered(compiled: tuple[str, str, str]) -> None:
    level, _, assembly = compiled
    # The last of the shapes, as it is mangled.
    tables = {n: body for n, body in functions(assembly).items() if "slopes_stripILNS_5ShapeE7E" in n}
    assert len(tables) == 2, f"{len(tables)} functions read tables at {level}"
    if level != "baseline":  # which cannot
        for name, body in tables.items():
            assert re.search(r"\tvp?gather", body), f"{name} gathers nothing at {level}"
