"""What nvcc makes of the CUDA kernels: no spills, wide accesses, no contraction, and few instructions.

Needs the CUDA compiler and no device. The registers of each kernel stand in csrc/cuda/registers.txt and the
instructions of the main loops a neuron-step in csrc/cuda/instructions.txt, so that a change which costs shows
in review. To write both anew:

    python tests/test_cuda_compile.py --write
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from _compile import CSRC, NVCC_FLAGS, compile_source
from _contractions import contractions, ptx_contractions
from _sass import Function, disassemble, find_cuobjdump
from _sass_budget import Report, check_budgets, instructions, read_report, write_report
from _sass_loops import main_loops
from cuda_budgets import TYPES, budget_of, is_counted, kernel_names, kernel_of

SOURCES = sorted((CSRC / "cuda").glob("*.cu"))
REGISTERS = CSRC / "cuda" / "registers.txt"
INSTRUCTIONS = CSRC / "cuda" / "instructions.txt"
REWRITE = "python tests/test_cuda_compile.py --write"
ARCHITECTURES = ("sm_80", "sm_90")
COUNTED = "sm_90"
# Registers of a thread that leave room for four blocks of 128 threads on a multiprocessor.
FOUR_BLOCKS = 65536 // (4 * 128)


@dataclass(frozen=True)
class Usage:
    """What ptxas says of a kernel."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int


def nvcc_version(nvcc: str) -> str:
    """Release and build, such as "13.0, V13.0.88"."""
    shown = compile_source([nvcc, "--version"])
    match = re.search(r"release (.+)", shown)
    assert match, shown
    return match.group(1)


def compile_to_cubin(nvcc: str, architecture: str, source: Path, folder: Path) -> str:
    """Compile with the flags of the build, PTX beside the cubin; return what the compiler printed."""
    keep = folder / f"{architecture}_{source.stem}"
    keep.mkdir()
    command = [nvcc, *NVCC_FLAGS, f"-I{CSRC}", f"-arch={architecture}", "-cubin", "-Xptxas", "-v"]
    output = folder / f"{architecture}_{source.stem}.cubin"
    return compile_source([*command, "--keep", f"--keep-dir={keep}", source, "-o", output])


def usage(printed: str) -> dict[str, Usage]:
    """The kernels in the output of ptxas -v, by their mangled names."""
    found = re.findall(
        r"Compiling entry function '(\w+)' for.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers",
        printed,
        re.DOTALL,
    )
    return {
        mangled: Usage(int(registers), int(stack), int(stores), int(loads))
        for mangled, stack, stores, loads, registers in found
    }


def register_report(version: str, usages: dict[str, dict[str, Usage]]) -> str:
    """The text of csrc/cuda/registers.txt."""
    lines = [
        f"# Registers a thread, by ptxas of CUDA {version}. To write this file: {REWRITE}",
        f"# {', '.join(usages)}",
    ]
    kernels = sorted({kernel for of_kernel in usages.values() for kernel in of_kernel})
    width = max(map(len, kernels)) + 2
    lines += [
        f"{kernel:{width}}" + "".join(f"{of_kernel[kernel].registers:5}" for of_kernel in usages.values())
        for kernel in kernels
    ]
    return "\n".join(lines) + "\n"


def entry_bodies(ptx: str) -> dict[str, str]:
    """The instructions of each kernel in a PTX file, by their mangled names."""
    found = re.findall(r"\.entry (\w+)\(.*?\{(.*?)^\}", ptx, re.DOTALL | re.MULTILINE)
    return dict(found)


@dataclass(frozen=True)
class Compiled:
    """The kernels, compiled for each architecture; by their short names."""

    version: str
    usages: dict[str, dict[str, Usage]]
    ptx: dict[str, str]
    cubins: list[Path]

    def functions(self) -> dict[str, Function] | None:
        """The machine code of sm_90; None where there is nothing to read it with."""
        cuobjdump = find_cuobjdump()
        if cuobjdump is None:
            return None
        found: dict[str, Function] = {}
        for cubin in self.cubins:
            functions = disassemble(cuobjdump, cubin)
            names = kernel_names(functions)
            found |= {names[mangled]: function for mangled, function in functions.items()}
        return found


def compile_all(nvcc: str, folder: Path, architectures: Iterable[str] = ARCHITECTURES) -> Compiled:
    """Compile each source for each architecture, two at a time."""
    jobs = [(architecture, source) for architecture in architectures for source in SOURCES]
    with ThreadPoolExecutor(2) as pool:
        printed = list(pool.map(lambda job: compile_to_cubin(nvcc, job[0], job[1], folder), jobs))
    usages: dict[str, dict[str, Usage]] = {architecture: {} for architecture in architectures}
    for (architecture, _), text in zip(jobs, printed, strict=True):
        of_source = usage(text)
        names = kernel_names(of_source)
        usages[architecture] |= {names[mangled]: of_kernel for mangled, of_kernel in of_source.items()}
    ptx: dict[str, str] = {}
    for source in SOURCES:
        bodies = entry_bodies((folder / f"{COUNTED}_{source.stem}" / f"{source.stem}.ptx").read_text())
        names = kernel_names(bodies)
        ptx |= {names[mangled]: body for mangled, body in bodies.items()}
    cubins = [folder / f"{COUNTED}_{source.stem}.cubin" for source in SOURCES]
    return Compiled(nvcc_version(nvcc), usages, ptx, cubins)


def instruction_report(functions: dict[str, Function]) -> Report:
    """The main loops that are counted."""
    kernels = {name: kernel_of(name) for name in functions}
    return {
        name: instructions(functions[name], kernel.step)
        for name, kernel in kernels.items()
        if is_counted(kernel)
    }


def instruction_text(version: str, report: Report) -> str:
    """The text of csrc/cuda/instructions.txt."""
    heading = (
        f"Instructions a neuron-step in the main loops, {COUNTED}, by CUDA {version}. "
        f"To write this file: {REWRITE}"
    )
    return write_report(report, heading)


pytestmark = [pytest.mark.nvcc, pytest.mark.slow]


@pytest.fixture(scope="module")
def nvcc() -> str:
    found = shutil.which("nvcc")
    if found is None:
        pytest.skip("no CUDA compiler (nvcc) on PATH")
    return found


@pytest.fixture(scope="module")
def compiled(nvcc: str, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_all(nvcc, tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def functions(compiled: Compiled) -> dict[str, Function]:
    found = compiled.functions()
    if found is None:
        pytest.skip("no cuobjdump to read machine code with")
    return found


@pytest.mark.parametrize(("architecture", "type_"), [("sm_75", "bfloat16"), ("sm_120", "float")])
def test_oldest_and_newest_compile(nvcc: str, architecture: str, type_: str, tmp_path: Path) -> None:
    """The build adds whatever device it sees, so what the others lack must not be needed."""
    sources = [source for source in SOURCES if source.stem.endswith(f"_{type_}")]
    assert len(sources) == 4
    for source in sources:
        assert usage(compile_to_cubin(nvcc, architecture, source, tmp_path)), source


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_spills(compiled: Compiled, architecture: str) -> None:
    """Also no stack frame: an array that is indexed at run time would leave the registers."""
    for kernel, of_kernel in compiled.usages[architecture].items():
        used = (of_kernel.stack, of_kernel.spill_stores, of_kernel.spill_loads)
        assert used == (0, 0, 0), f"{kernel}: bytes of stack, spill stores, spill loads: {used}"


def test_four_blocks_a_multiprocessor(compiled: Compiled) -> None:
    for name, of_kernel in compiled.usages[COUNTED].items():
        if name.startswith("wide_backward"):
            assert of_kernel.registers <= FOUR_BLOCKS, name


def test_registers_are_as_committed(compiled: Compiled) -> None:
    committed = REGISTERS.read_text()
    if compiled.version not in committed.splitlines()[0]:
        pytest.skip(f"{REGISTERS.name} is of another nvcc than this one, {compiled.version}")
    found = register_report(compiled.version, compiled.usages)
    assert found == committed, f"the kernels use other registers now; if that is meant: {REWRITE}"


def test_instructions_are_as_committed(compiled: Compiled, functions: dict[str, Function]) -> None:
    committed = INSTRUCTIONS.read_text()
    if compiled.version not in committed.splitlines()[0]:
        pytest.skip(f"{INSTRUCTIONS.name} is of another nvcc than this one, {compiled.version}")
    found = instruction_text(compiled.version, instruction_report(functions))
    assert found == committed, f"the loops have other instructions now; if that is meant: {REWRITE}"


def test_instructions_are_within_their_budgets(functions: dict[str, Function]) -> None:
    assert check_budgets(instruction_report(functions), budget_of) == []


def test_kernels_move_packs(functions: dict[str, Function]) -> None:
    """In their main loops each access is as wide as a thread's neurons: nothing else moves there."""
    for name, function in functions.items():
        kernel = kernel_of(name)
        if kernel.tier not in ("wide", "bits"):
            continue
        of_x, of_state = TYPES[kernel.type]
        widths = {kernel.neurons * of_x, kernel.neurons * of_state}
        seen = {
            _bytes_of(one.opcode)
            for loop in main_loops(function, kernel.step.of)
            for one in loop.instructions
            if one.base in ("LDG", "STG", "LDS", "STS")
            # A table is read a value at a time.
            and (loop.kind, loop.flavour) != ("surrogate", "table")
        }
        assert seen and seen <= widths, f"{name}: accesses of {sorted(seen)} bytes, not {sorted(widths)}"


def _bytes_of(opcode: str) -> int:
    bits = re.search(r"\.[US]?(8|16|64|128)\b", opcode)
    return int(bits[1]) // 8 if bits else 4


def test_copies_in_flight(functions: dict[str, Function]) -> None:
    """The long forward kernels copy 16 bytes at once past the registers, and the others nothing."""
    for name, function in functions.items():
        copies = {one.opcode for one in function.instructions if one.base == "LDGSTS"}
        if name.startswith("long_forward"):
            assert copies and all(copy.endswith(".128") for copy in copies), (name, copies)
        else:
            assert not copies, name


def test_nothing_is_contracted(compiled: Compiled, functions: dict[str, Function]) -> None:
    """Multiplications and additions round apart, but in a division or a reciprocal that is rounded once."""
    assert set(compiled.ptx) == set(functions) == set(compiled.usages[COUNTED])
    for kernel, body in compiled.ptx.items():
        assert ptx_contractions(body) == [], kernel
    for kernel, function in functions.items():
        assert contractions(function) == [], kernel


def test_nothing_in_local_memory(functions: dict[str, Function]) -> None:
    for kernel, function in functions.items():
        assert not [one for one in function.instructions if one.base in ("LDL", "STL")], kernel


def test_reports_can_be_read() -> None:
    """The committed files name each kernel once, and keep to the budgets themselves."""
    lines = REGISTERS.read_text().splitlines()[2:]
    names = [re.split(r"\s{2,}", line)[0] for line in lines]
    assert names == sorted(set(names))
    report = read_report(INSTRUCTIONS.read_text())
    assert set(report) == {name for name in names if is_counted(kernel_of(name))}
    assert check_budgets(report, budget_of) == []


def main() -> None:
    """Write csrc/cuda/registers.txt and instructions.txt."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        sys.exit("no CUDA compiler (nvcc) on PATH")
    with tempfile.TemporaryDirectory() as folder:
        compiled = compile_all(nvcc, Path(folder))
        functions = compiled.functions()
    if functions is None:
        sys.exit("no cuobjdump to read machine code with; pip install nvidia-cuda-cuobjdump")
    report = instruction_report(functions)
    REGISTERS.write_text(register_report(compiled.version, compiled.usages))
    INSTRUCTIONS.write_text(instruction_text(compiled.version, report))
    print("\n".join(check_budgets(report, budget_of)))


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {REWRITE}")
    main()
