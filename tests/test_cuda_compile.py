"""What nvcc makes of the CUDA kernels: no spills, wide accesses, no contraction, and few instructions.

Needs the CUDA compiler and no device. Where `make cuda-build` has built these very sources, its code is
read; else they are compiled here (_machine_code.py). The registers of each kernel stand in
csrc/cuda/registers.txt and the instructions of the main loops a neuron-step in csrc/cuda/instructions.txt, so
that a change which costs shows in review. To write both anew:

    python tests/test_cuda_compile.py --write
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from _compile import CSRC
from _contractions import contractions, ptx_contractions
from _machine_code import (
    ARCHITECTURES,
    COUNTED,
    SOURCES,
    MachineCode,
    Usage,
    compile_to_cubin,
    machine_code,
    usage_of,
)
from _sass import Function, find_cuobjdump
from _sass_budget import Report, check_budgets, instructions, read_report, write_report
from _sass_loops import main_loops
from cuda_budgets import TYPES, budget_of, is_counted, kernel_names, kernel_of

REGISTERS = CSRC / "cuda" / "registers.txt"
INSTRUCTIONS = CSRC / "cuda" / "instructions.txt"
REWRITE = "python tests/test_cuda_compile.py --write"
# Registers of a thread that leave room for four blocks of 128 threads on a multiprocessor.
FOUR_BLOCKS = 65536 // (4 * 128)


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
def cuobjdump() -> str:
    found = find_cuobjdump()
    if found is None:
        pytest.skip("no cuobjdump to read machine code with: pip install nvidia-cuda-cuobjdump")
    return found


@pytest.fixture(scope="module")
def compiled(nvcc: str, cuobjdump: str, tmp_path_factory: pytest.TempPathFactory) -> MachineCode:
    return machine_code(nvcc, cuobjdump, tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def functions(compiled: MachineCode) -> dict[str, Function]:
    return compiled.functions()


@pytest.mark.parametrize(("architecture", "type_"), [("sm_75", "bfloat16"), ("sm_120", "float")])
def test_oldest_and_newest_compile(
    nvcc: str, cuobjdump: str, architecture: str, type_: str, tmp_path: Path
) -> None:
    """The build adds whatever device it sees, so what the others lack must not be needed."""
    sources = [source for source in SOURCES if source.stem.endswith(f"_{type_}")]
    assert len(sources) == 4
    for source in sources:
        assert usage_of(cuobjdump, compile_to_cubin(nvcc, architecture, source, tmp_path)), source


def test_what_was_built_is_what_compiles(
    nvcc: str, cuobjdump: str, compiled: MachineCode, tmp_path: Path
) -> None:
    """Where the code comes out of a build (_machine_code.py)."""
    (source,) = (source for source in SOURCES if source.stem == "sums")
    for mangled, used in usage_of(cuobjdump, compile_to_cubin(nvcc, COUNTED, source, tmp_path)).items():
        assert compiled.usages[COUNTED][kernel_names([mangled])[mangled]] == used


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_spills(compiled: MachineCode, architecture: str) -> None:
    """What spills has a place in the stack, as has an array that is indexed at run time."""
    for kernel, used in compiled.usages[architecture].items():
        assert (used.stack, used.local) == (0, 0), f"{kernel}: bytes of stack and local memory: {used}"


# Too many values for the registers of so many threads; and an array that is indexed at run time.
SPILLS = """
extern "C" __global__ void __launch_bounds__(1024, 2) spills(float* x) {
  float v[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) { v[i] = x[i]; }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) { x[i + threadIdx.x] = v[i] * v[63 - i]; }
}
extern "C" __global__ void indexed(float* x, int n) {
  float v[8] = {};
  for (int i = 0; i < n; ++i) { v[i % 8] += x[i]; }
  for (int i = 0; i < 8; ++i) { x[i] = v[i]; }
}
"""


def test_a_spill_would_be_seen(nvcc: str, cuobjdump: str, tmp_path: Path) -> None:
    source = tmp_path / "spills.cu"
    source.write_text(SPILLS)
    found = usage_of(cuobjdump, compile_to_cubin(nvcc, COUNTED, source, tmp_path))
    assert found["spills"].stack > 0 and found["indexed"].stack > 0, found


def test_four_blocks_a_multiprocessor(compiled: MachineCode) -> None:
    for name, of_kernel in compiled.usages[COUNTED].items():
        if name.startswith("wide_backward"):
            assert of_kernel.registers <= FOUR_BLOCKS, name


def test_registers_are_as_committed(compiled: MachineCode) -> None:
    committed = REGISTERS.read_text()
    if compiled.version not in committed.splitlines()[0]:
        pytest.skip(f"{REGISTERS.name} is of another nvcc than this one, {compiled.version}")
    found = register_report(compiled.version, compiled.usages)
    assert found == committed, f"the kernels use other registers now; if that is meant: {REWRITE}"


def test_instructions_are_as_committed(compiled: MachineCode, functions: dict[str, Function]) -> None:
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


def test_nothing_is_contracted(compiled: MachineCode, functions: dict[str, Function]) -> None:
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
    cuobjdump = find_cuobjdump()
    if cuobjdump is None:
        sys.exit("no cuobjdump to read machine code with; pip install nvidia-cuda-cuobjdump")
    with tempfile.TemporaryDirectory() as folder:
        compiled = machine_code(nvcc, cuobjdump, Path(folder))
        functions = compiled.functions()
    report = instruction_report(functions)
    REGISTERS.write_text(register_report(compiled.version, compiled.usages))
    INSTRUCTIONS.write_text(instruction_text(compiled.version, report))
    print("\n".join(check_budgets(report, budget_of)))


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {REWRITE}")
    main()
