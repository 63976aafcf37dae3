"""The machine code of the CUDA kernels: out of the objects of a build, or compiled for the tests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from _compile import CSRC, NVCC_FLAGS, ROOT, compile_source
from _sass import Function, disassemble
from cuda_budgets import kernel_names

T = TypeVar("T")

SOURCES = sorted((CSRC / "cuda").glob("*.cu"))
ARCHITECTURES = ("sm_80", "sm_90")  # those of the build
COUNTED = "sm_90"


@dataclass(frozen=True)
class Usage:
    """What a thread of a kernel needs; what spills lies in the stack."""

    registers: int
    stack: int
    local: int


@dataclass(frozen=True)
class MachineCode:
    """All kernels, by their short names, for each architecture; and where the code of COUNTED lies."""

    version: str  # of nvcc
    usages: dict[str, dict[str, Usage]]
    ptx: dict[str, str]
    cubins: list[Path]
    cuobjdump: str

    def functions(self) -> dict[str, Function]:
        """The instructions for COUNTED."""
        found: dict[str, Function] = {}
        for cubin in self.cubins:
            functions = disassemble(self.cuobjdump, cubin)
            names = kernel_names(functions)
            found |= {names[mangled]: function for mangled, function in functions.items()}
        return found


def nvcc_version(nvcc: str) -> str:
    """Release and build, such as "13.0, V13.0.88"."""
    shown = compile_source([nvcc, "--version"])
    match = re.search(r"release (.+)", shown)
    assert match, shown
    return match.group(1)


def built_objects() -> list[Path] | None:
    """The objects of SOURCES, in their order, of a build that read the sources as they are; None: of none.

    They are those of the newest build with CUDA, all younger than the flags and whatever of csrc they may
    include.
    """
    read = [path for room in ("cuda", "neuron") for path in (CSRC / room).iterdir() if path.suffix != ".txt"]
    changed = max(path.stat().st_mtime for path in (ROOT / "build_backend" / "lif_build.py", *read))
    folders = [path.parent for path in ROOT.glob(f"build/cuda-*/temp-*/csrc/cuda/{SOURCES[0].stem}.o")]
    for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True):
        objects = [folder / f"{source.stem}.o" for source in SOURCES]
        if all(path.is_file() and path.stat().st_mtime > changed for path in objects):
            return objects
    return None


def compile_to_cubin(nvcc: str, architecture: str, source: Path, folder: Path) -> Path:
    """Compile with the flags of the build; the PTX lies beside the cubin."""
    keep = folder / f"{architecture}_{source.stem}"
    keep.mkdir()
    cubin = folder / f"{source.stem}.{architecture}.cubin"
    command = [nvcc, *NVCC_FLAGS, f"-I{CSRC}", f"-arch={architecture}", "-cubin", "--keep"]
    compile_source([*command, f"--keep-dir={keep}", source, "-o", cubin])
    (keep / f"{source.stem}.ptx").rename(folder / f"{source.stem}.{architecture}.ptx")
    return cubin


def machine_code(nvcc: str, cuobjdump: str, folder: Path) -> MachineCode:
    """The code that was built from the sources as they are; where there is none, compile it in ``folder``."""
    objects = built_objects()
    if objects is not None:
        for built in objects:
            for what in ("-xelf", "-xptx"):
                compile_source([cuobjdump, what, "all", built], folder)
    else:
        jobs = [(architecture, source) for architecture in ARCHITECTURES for source in SOURCES]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda job: compile_to_cubin(nvcc, *job, folder), jobs))
    usages = {
        architecture: _by_short_names(
            usage_of(cuobjdump, _only(folder, source, f"{architecture}.cubin")) for source in SOURCES
        )
        for architecture in ARCHITECTURES
    }
    ptx = _by_short_names(
        entry_bodies(_only(folder, source, f"{COUNTED}.ptx").read_text()) for source in SOURCES
    )
    cubins = [_only(folder, source, f"{COUNTED}.cubin") for source in SOURCES]
    return MachineCode(nvcc_version(nvcc), usages, ptx, cubins, cuobjdump)


def usage_of(cuobjdump: str, cubin: Path) -> dict[str, Usage]:
    """What the kernels of a cubin need, by their mangled names."""
    found = re.findall(
        r"Function (\w+):\s+REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)",
        compile_source([cuobjdump, "-res-usage", cubin]),
    )
    return {mangled: Usage(*map(int, numbers)) for mangled, *numbers in found}


def entry_bodies(ptx: str) -> dict[str, str]:
    """The instructions of each kernel in a PTX file, by their mangled names."""
    found = re.findall(r"\.entry (\w+)\(.*?\{(.*?)^\}", ptx, re.DOTALL | re.MULTILINE)
    return dict(found)


def _by_short_names(of_sources: Iterable[dict[str, T]]) -> dict[str, T]:
    found: dict[str, T] = {}
    for of_source in of_sources:
        names = kernel_names(of_source)
        found |= {names[mangled]: value for mangled, value in of_source.items()}
    return found


def _only(folder: Path, source: Path, ending: str) -> Path:
    """The file of a source; what comes out of an object has a number before its ending."""
    (path,) = {*folder.glob(f"{source.stem}.{ending}"), *folder.glob(f"{source.stem}.[0-9].{ending}")}
    return path
