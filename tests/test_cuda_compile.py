"""What nvcc makes of the CUDA kernels: no spills, accesses of 16 bytes, no fused multiply-adds.

Needs the CUDA compiler and no device. The registers of each kernel stand in csrc/cuda/registers.txt, so
that a change which costs occupancy shows in review. To write that file anew:

    python tests/test_cuda_compile.py --write
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from _compile import CSRC, NVCC_FLAGS, compile_source
from _sass import find_cuobjdump

SOURCE = CSRC / "cuda" / "lif_cuda.cu"
REPORT = CSRC / "cuda" / "registers.txt"
REWRITE = "python tests/test_cuda_compile.py --write"
ARCHITECTURES = ("sm_80", "sm_90")

TYPES = {"float": 4, "double": 2, "Half": 4, "BFloat16": 4}  # and the neurons of a wide thread
# Of csrc/cuda/kernels.cuh: a type, and in the plain tier the neurons of a thread.
KERNELS = frozenset(
    kernel
    for scalar, wide in TYPES.items()
    for direction in ("forward", "backward")
    for kernel in (
        f"plain_{direction}_kernel<{scalar}, 1>",
        f"plain_{direction}_kernel<{scalar}, {wide}>",
        f"general_{direction}_kernel<{scalar}>",
    )
)
WIDE = frozenset(kernel for kernel in KERNELS if re.search(r", [24]>", kernel))
# What a wide thread moves at once of x, of spikes and of gradients: 16 bytes, or 8 in 16 bits.
PACKED = {"float": r"v4\.(?:f|b|u)32", "double": r"v2\.(?:f|b|u)64"}
PACKED |= dict.fromkeys(("Half", "BFloat16"), r"(?:v4\.(?:b|u)16|v2\.(?:b|u)32|(?:b|u)64)")
SASS_BITS = {"float": 128, "double": 128, "Half": 64, "BFloat16": 64}

_MANGLED = re.compile(r"_ZN3lif4cuda\d+(\w+?_kernel)I(f|d|NS_4HalfE|NS_8BFloat16E)(?:Li(\d+)E)?EEv\w+")
_SCALARS = {"f": "float", "d": "double", "NS_4HalfE": "Half", "NS_8BFloat16E": "BFloat16"}


def kernel_name(mangled: str) -> str:
    """The kernel as it is written in C++."""
    match = _MANGLED.fullmatch(mangled)
    assert match, f"{mangled} is no kernel that this test knows; teach it the new template arguments"
    name, scalar, width = match.groups()
    arguments = [_SCALARS[scalar], *([width] if width else [])]
    return f"{name}<{', '.join(arguments)}>"


def type_of(kernel: str) -> str:
    """The type of a kernel's tensors."""
    return re.split(r"[<,>]", kernel)[1]


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


def compile_to(nvcc: str, kind: str, architecture: str, output: Path) -> str:
    """Compile the kernels with the flags of the build; return what the compiler printed."""
    command = [nvcc, *NVCC_FLAGS, f"-I{CSRC}", f"-arch={architecture}", f"-{kind}"]
    return compile_source([*command, "-Xptxas", "-v", SOURCE, "-o", output])


def usage(printed: str) -> dict[str, Usage]:
    """The kernels in the output of ptxas -v."""
    found = re.findall(
        r"Compiling entry function '(\w+)' for.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers",
        printed,
        re.DOTALL,
    )
    return {
        kernel_name(mangled): Usage(int(registers), int(stack), int(stores), int(loads))
        for mangled, stack, stores, loads, registers in found
    }


def register_report(version: str, usages: dict[str, dict[str, Usage]]) -> str:
    """The text of csrc/cuda/registers.txt."""
    lines = [f"# Registers a thread, by ptxas of CUDA {version}. To write this file: {REWRITE}"]
    lines += [
        f"{architecture}  {kernel:36}{of_kernel[kernel].registers:4}"
        for architecture, of_kernel in usages.items()
        for kernel in sorted(of_kernel)
    ]
    return "\n".join(lines) + "\n"


def entry_bodies(ptx: str) -> dict[str, str]:
    """The instructions of each kernel in a PTX file."""
    return {
        kernel_name(mangled): body
        for mangled, body in re.findall(r"\.entry (\w+)\(.*?\{(.*?)^\}", ptx, re.DOTALL | re.MULTILINE)
    }


@dataclass(frozen=True)
class Compiled:
    """The kernels, compiled for each architecture."""

    version: str
    usages: dict[str, dict[str, Usage]]
    ptx: dict[str, str]
    cubins: dict[str, Path]


def compile_all(nvcc: str, folder: Path) -> Compiled:
    """Compile to a cubin for each architecture and to PTX, as the build does."""
    usages, cubins = {}, {}
    for architecture in ARCHITECTURES:
        cubins[architecture] = folder / f"{architecture}.cubin"
        usages[architecture] = usage(compile_to(nvcc, "cubin", architecture, cubins[architecture]))
    ptx = folder / "lif_cuda.ptx"
    compile_to(nvcc, "ptx", "compute_90", ptx)
    return Compiled(nvcc_version(nvcc), usages, entry_bodies(ptx.read_text()), cubins)


pytestmark = [pytest.mark.nvcc, pytest.mark.slow]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no CUDA compiler (nvcc) on PATH")
    return compile_all(nvcc, tmp_path_factory.mktemp("cuda"))


@pytest.mark.parametrize("architecture", ["sm_75", "sm_120"])
def test_oldest_and_newest_compile(architecture: str, tmp_path: Path) -> None:
    """The build adds whatever device it sees, so what the others lack must not be needed."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no CUDA compiler (nvcc) on PATH")
    printed = compile_to(nvcc, "cubin", architecture, tmp_path / "kernels.cubin")
    assert set(usage(printed)) == KERNELS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_spills(compiled: Compiled, architecture: str) -> None:
    """Also no stack frame: an array that is indexed at run time would leave the registers."""
    usages = compiled.usages[architecture]
    assert set(usages) == KERNELS
    for kernel, of_kernel in usages.items():
        used = (of_kernel.stack, of_kernel.spill_stores, of_kernel.spill_loads)
        assert used == (0, 0, 0), f"{kernel}: bytes of stack, spill stores, spill loads: {used}"


def test_registers_are_as_committed(compiled: Compiled) -> None:
    committed = REPORT.read_text()
    if compiled.version not in committed.splitlines()[0]:
        pytest.skip(f"{REPORT.name} is of another nvcc than this one, {compiled.version}")
    found = register_report(compiled.version, compiled.usages)
    assert found == committed, f"the kernels use other registers now; if that is meant: {REWRITE}"


def test_wide_kernels_move_packs(compiled: Compiled) -> None:
    """And the others none: they are for memory that is not aligned so."""
    assert set(compiled.ptx) == KERNELS
    for kernel, body in compiled.ptx.items():
        packed = PACKED[type_of(kernel)]
        loads = re.findall(rf"ld\.global(?:\.nc)?\.{packed}", body)
        stores = re.findall(rf"st\.global\.{packed}", body)
        if kernel in WIDE:
            # Parameters are loaded one by one, once for all time steps; so is a gradient that is one value a
            # step. What has a time axis, and the state, is not.
            assert len(loads) >= 2 and len(stores) >= 2, kernel
        elif type_of(kernel) != "double":
            # The pointers of the arguments are loads of 64 bits, but not from global memory.
            assert not re.findall(r"(?:ld|st)\.global(?:\.nc)?\.v[24]", body), kernel


def test_no_fused_multiply_add(compiled: Compiled) -> None:
    """Multiplications and additions round apart; integer mad of addresses is another thing."""
    for kernel, body in compiled.ptx.items():
        assert not re.findall(r"\bfma\.|\bmad\.(?:r[nzmp]\.)?(?:ftz\.)?f\d\d", body), kernel
        # Nor approximations, nor results flushed to zero.
        assert not re.findall(r"\.approx|\.ftz|\.full", body), kernel
        if "forward" in kernel:
            assert re.findall(r"\bmul\.rn\.f\d\d", body) and re.findall(r"\badd\.rn\.f\d\d", body), kernel


def test_machine_code(compiled: Compiled) -> None:
    """What the PTX promises holds in the instructions of sm_90: packs at once, nothing in local memory.

    That goes for shared memory too, where the PTX still has stores apart that ptxas joins. FFMA does occur,
    inside the correctly rounded division.
    """
    cuobjdump = find_cuobjdump()
    if cuobjdump is None:
        pytest.skip("no cuobjdump to read machine code with")
    listing = compile_source([cuobjdump, "-sass", compiled.cubins["sm_90"]])
    functions = dict(re.findall(r"Function : (\w+)\n(.*?)(?=\n\s*Function : |\Z)", listing, re.DOTALL))
    bodies = {kernel_name(mangled): body for mangled, body in functions.items()}
    assert set(bodies) == KERNELS
    for kernel, body in bodies.items():
        assert not re.findall(r"\b(?:LDL|STL)\b", body), kernel
        bits = SASS_BITS[type_of(kernel)]
        if kernel in WIDE:
            assert re.findall(rf"\bLDG\.E\.{bits}\b", body), kernel
            assert re.findall(rf"\bSTG\.E\.{bits}\b", body), kernel
        else:
            assert not re.findall(r"\b(?:LDG|STG)\.E\.128\b", body), kernel
        shared = set(re.findall(r"\b(?:LDS|STS)(?:\.\w+)*", body))
        if kernel in WIDE and "backward" in kernel:
            assert shared == {"LDS.128", "STS.128"}, kernel


def test_report_can_be_read() -> None:
    """The committed file names each kernel for each architecture, once."""
    lines = [line.split(maxsplit=1) for line in REPORT.read_text().splitlines()[1:]]
    named = sorted((architecture, rest.rsplit(maxsplit=1)[0]) for architecture, rest in lines)
    assert named == sorted((architecture, kernel) for architecture in ARCHITECTURES for kernel in KERNELS)


def main() -> None:
    """Write csrc/cuda/registers.txt."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        sys.exit("no CUDA compiler (nvcc) on PATH")
    with tempfile.TemporaryDirectory() as folder:
        compiled = compile_all(nvcc, Path(folder))
    REPORT.write_text(register_report(compiled.version, compiled.usages))


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {REWRITE}")
    main()
