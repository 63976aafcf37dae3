"""Machine code for the tests of what reads it: made up, or compiled from a few small kernels."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from _compile import compile_source
from _sass import Function, disassemble, find_cuobjdump, parse


def listing(*code: str, table: tuple[int, ...] = ()) -> Function:
    """A function of these instructions, of which each takes 16 bytes; `NAME:` begins a line to branch to."""
    lines: list[str] = []
    labels: dict[str, str] = {}
    for line in code:
        label, _, rest = line.rpartition(": ")
        if label:
            labels[label] = f"{16 * len(lines):#x}"
        lines.append(rest)
    text = "\t\tFunction : kernel\n" + "".join(
        f"        /*{16 * i:04x}*/    {line} ;    /* 0x0000000000007941 */\n" for i, line in enumerate(lines)
    )
    named = re.sub(r"\b[A-Z]+_[A-Z]+\b", lambda match: labels.get(match[0], match[0]), text)
    (function,) = parse(named, {"kernel": table}).values()
    return function


@dataclass(frozen=True)
class Compiled:
    """Kernels by name: their machine code, and their PTX."""

    functions: dict[str, Function]
    ptx: dict[str, str]


def compile_kernels(text: str, folder: Path, *flags: str) -> Compiled:
    """Compile for sm_90; skip the test where that cannot be done."""
    nvcc, cuobjdump = shutil.which("nvcc"), find_cuobjdump()
    if nvcc is None or cuobjdump is None:
        pytest.skip("no CUDA compiler (nvcc) on PATH, or no cuobjdump")
    source = folder / "kernels.cu"
    source.write_text(text)
    for kind in ("cubin", "ptx"):
        output = folder / f"kernels.{kind}"
        compile_source([nvcc, "-std=c++17", "-O3", *flags, "-arch=sm_90", f"-{kind}", source, "-o", output])
    ptx = (folder / "kernels.ptx").read_text()
    bodies = dict(re.findall(r"\.entry (\w+)\(.*?\{(.*?)^\}", ptx, re.DOTALL | re.MULTILINE))
    return Compiled(disassemble(cuobjdump, folder / "kernels.cubin"), bodies)
