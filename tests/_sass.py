"""Machine code of CUDA kernels: finds the disassembler, reads its listing, names the kernels.

What is made of it stands elsewhere: loops and their counts in _sass_loops.py, budgets in _sass_budget.py,
fused multiply-adds in _contractions.py.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from _compile import compile_source

# csrc/neuron/params.h numbers them; a name says more than a number in a report.
RESETS = ("subtract", "zero", "none")

_FUNCTION = re.compile(r"^\s*Function : (\S+)\s*$(.*?)(?=^\s*Function : |\Z)", re.DOTALL | re.MULTILINE)
_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);")


@dataclass(frozen=True)
class Instruction:
    """One line of the listing: `@!P0 LDG.E.128 R24, desc[UR6][R28.64] ;`."""

    address: int
    predicate: str  # "!P0", or "" for none
    opcode: str  # with what is behind the dots
    operands: tuple[str, ...]

    @property
    def base(self) -> str:
        """What the instruction does, without its modifiers."""
        return self.opcode.partition(".")[0]

    def __str__(self) -> str:
        predicate = f"@{self.predicate} " if self.predicate else ""
        return f"{self.address:04x} {predicate}{self.opcode} {', '.join(self.operands)}".rstrip()


@dataclass(frozen=True)
class Function:
    """The instructions of a kernel, and behind them those of the routines that it calls."""

    name: str  # mangled
    instructions: tuple[Instruction, ...]
    # Words of its second constant bank, from which a switch takes the address that it jumps to.
    table: tuple[int, ...] = ()


def _packaged() -> Path | None:
    """cuobjdump of the package nvidia-cuda-cuobjdump, whose folder is of a CUDA version: nvidia/cu13/bin."""
    try:
        files = importlib.metadata.files("nvidia-cuda-cuobjdump") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.stem == "cuobjdump"), None)


def find_cuobjdump() -> str | None:
    """The disassembler: of the toolkit, of its package, or the one that triton brings.

    It calls nvdisasm, which lies beside it in each of the three; the package of that is another one.
    """
    found = shutil.which("cuobjdump")
    if found is None and (packaged := _packaged()) is not None:
        found = str(packaged)
    triton = importlib.util.find_spec("triton")
    if found is None and triton is not None and triton.origin is not None:
        found = shutil.which("cuobjdump", path=Path(triton.origin).parent / "backends" / "nvidia" / "bin")
    return found


def disassemble(cuobjdump: str, cubin: Path) -> dict[str, Function]:
    """The functions of a compiled file, by mangled name."""
    return parse(compile_source([cuobjdump, "-sass", cubin]), jump_tables(cubin.read_bytes()))


def parse(listing: str, tables: dict[str, tuple[int, ...]] | None = None) -> dict[str, Function]:
    """The functions in the output of cuobjdump -sass."""
    tables = tables or {}
    return {
        name: Function(name, tuple(_instructions(body)), tables.get(name, ()))
        for name, body in _FUNCTION.findall(listing)
    }


def _instructions(body: str) -> Iterable[Instruction]:
    for address, predicate, opcode, operands in _INSTRUCTION.findall(body):
        # `.reuse` is a hint about a cache of registers; it would make two names of one register.
        plain = operands.replace(".reuse", "").strip()
        parts = tuple(part.strip() for part in plain.split(",")) if plain else ()
        yield Instruction(int(address, 16), predicate, opcode, parts)


def jump_tables(cubin: bytes) -> dict[str, tuple[int, ...]]:
    """The second constant bank of each function, as words: the listing shows a jump through it, but not it.

    A cubin is a 64-bit ELF file; of its section headers the name, the offset and the size are of use here.
    """
    assert cubin[:5] == b"\x7fELF\x02", "not a 64-bit ELF file"
    (start,) = struct.unpack_from("<Q", cubin, 40)
    entry, count, names = struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, start + i * entry) for i in range(count)]
    prefix = b".nv.constant2."
    tables = {}
    for name, _, _, _, offset, size in headers:
        begin = headers[names][4] + name
        title = cubin[begin : cubin.index(b"\0", begin)]
        if title.startswith(prefix):
            words = struct.unpack_from(f"<{size // 4}I", cubin, offset)
            tables[title[len(prefix) :].decode()] = words
    return tables


def short_names(mangled: Iterable[str]) -> dict[str, str]:
    """Each kernel as a reader would write it: `wide_backward_kernel<BFloat16, Member<subtract, 1>, 4>`."""
    names = list(mangled)
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    assert tool is not None, "no c++filt (binutils) to read the names of kernels with"
    done = subprocess.run([tool], input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True)
    shown = done.stdout.splitlines()
    assert len(shown) == len(names), done.stdout
    return {name: shorten(text) for name, text in zip(names, shown, strict=True)}


def shorten(demangled: str) -> str:
    """A demangled function without namespaces, result and arguments; enumerators by name or number."""
    text = re.sub(r"\(anonymous namespace\)::|\blif::|\bcuda::", "", demangled)
    text = re.sub(r"\((\w+)\)(\d+)", _enumerator, text)
    text = re.sub(r"> (?=>)", ">", text)
    depth, begin = 0, 0
    for at, char in enumerate(text):
        depth += (char == "<") - (char == ">")
        if depth == 0 and char == " ":  # what is before it is the type of the result
            begin = at + 1
        if depth == 0 and char == "(":
            return text[begin:at]
    return text[begin:]


def _enumerator(cast: re.Match[str]) -> str:
    enum, value = cast.group(1), int(cast.group(2))
    return RESETS[value] if enum == "Reset" and value < len(RESETS) else f"{enum} {value}"
