"""Building csrc/cuda for the host, and putting it in the place of the CPU kernels."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from _compile import CSRC, CXX_FLAGS, compile_source, target_version
from compare import autograd_in_python
from lif_build import LINK_FLAGS

from lif_cuda import _ops, _plan

SHIM = Path(__file__).resolve().parent
SHARED_BYTES = 227 * 1024  # kSharedOptin of machine.h
MACHINE = [SHIM / name for name in ("machine.cpp", "shared_memory.cpp", "fiber.cpp")]
# Lets the machine see the accesses of kernels (shared_memory.h). What is linked is not the thread sanitizer.
SEEN = "-fsanitize=thread"
# Without optimising: a third of the time to compile.
SANITIZER_FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O0"]
# The stable ABI that the build compiles for.
TARGET_FLAG = f"-DTORCH_TARGET_VERSION={target_version(torch.__version__)}"


def short_name(symbol: str) -> str:
    """``void lif::cuda::some_kernel<float>(lif::Forward<float>)`` is ``some_kernel``."""
    found = re.match(r"(?:void )?(?:\w+::)*(\w+)", symbol)
    assert found is not None, symbol
    return found[1]


def _put_in_use(operators: tuple[Any, Any, Any]) -> None:
    """Let the package call these operators, with checkpoints at this interval."""
    _ops.lif_forward, _ops.lif_backward, _ops.checkpoint_interval = operators
    _plan.forget()


class HostKernels:
    """csrc/cuda, launchers and kernels, compiled for the host."""

    def __init__(self, library: Path) -> None:
        torch.ops.load_library(library)
        self._library = ctypes.CDLL(str(library))
        self._library.host_last_kernel.restype = ctypes.c_char_p
        self._library.host_longest_chunk.restype = ctypes.c_int64

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let lif_cuda.functional run these kernels, with the checkpoints that it makes on CUDA."""
        saved = _ops.lif_forward, _ops.lif_backward, _ops.checkpoint_interval
        operators = torch.ops.lif_cuda_on_host
        mine = (
            operators.lif_forward.default,
            operators.lif_backward.default,
            lambda device_type: saved[2]("cuda"),
        )
        self._saved, self._mine = saved, mine
        _put_in_use(mine)
        try:
            with autograd_in_python():  # which looks for the operators in _ops
                yield
        finally:
            _put_in_use(saved)

    @contextmanager
    def out_of_use(self) -> Iterator[None]:
        """Inside of :meth:`in_use`: the CPU's own kernels again."""
        _put_in_use(self._saved)
        try:
            yield
        finally:
            _put_in_use(self._mine)

    @property
    def last_kernel_symbol(self) -> str:
        """The kernel of the last launch, with its arguments."""
        return str(self._library.host_last_kernel().decode())

    @property
    def last_kernel(self) -> str:
        """The name alone of the kernel of the last launch."""
        return short_name(self.last_kernel_symbol)

    @property
    def launches(self) -> int:
        """How many launches there have been."""
        return int(self._library.host_launches())

    @property
    def chunk(self) -> int:
        """Steps between the checkpoints for which kernels are compiled."""
        return int(self._library.host_chunk())

    @property
    def longest_chunk(self) -> int:
        """What the launcher says of a device with 227 KiB of shared memory a block, for plain fp32."""
        return int(self._library.host_longest_chunk())

    @contextmanager
    def device(self, *, multiprocessors: int = 0, shared_bytes: int = SHARED_BYTES) -> Iterator[None]:
        """Let the device have so many multiprocessors, and a block so many bytes of shared memory."""
        self._library.host_set_device(multiprocessors, shared_bytes)
        try:
            yield
        finally:
            self._library.host_set_device(0, SHARED_BYTES)


def compile_library(
    compiler: str,
    folder: Path,
    name: str,
    *,
    kernels: Sequence[Path],
    others: Sequence[Path] = (),
    options: Sequence[str] = (),
    libraries: Sequence[str] = (),
    sanitized: bool,
) -> Path:
    """Compile kernels and other sources in ``folder``, and link them with the machine (machine.h)."""
    sanitizers = SANITIZER_FLAGS if sanitized else []
    # The tests name a kernel by its symbol. The two sanitizers exclude each other.
    of_kernels = ["-fvisibility=default", *(sanitizers or [SEEN])]
    if "clang" not in Path(compiler).name:
        # What is known of devices is a static of an inline function, which GCC lets all libraries of a
        # process share; each of ours has devices of its own.
        of_kernels.append("-fno-gnu-unique")

    def compile_object(job: tuple[Path, Sequence[str]]) -> Path:
        source, flags = job
        compiled = folder / f"{source.name}.o"
        compile_source(
            [
                compiler,
                *CXX_FLAGS,
                "-O1",  # some 300 kernels: a minute of compiling less than with -O3, and the same bits
                *("-std=c++17", "-Werror", "-Wno-unknown-pragmas", "-fPIC"),
                *(f"-I{path}" for path in (CSRC, SHIM)),
                *options,
                *flags,
                *("-x", "c++", "-c"),
                source,
                "-o",
                compiled,
            ]
        )
        return compiled

    jobs = [(source, sanitizers) for source in (*others, *MACHINE)]
    jobs += [(source, of_kernels) for source in kernels]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_object, jobs))
    library = folder / f"{name}.so"
    compile_source(
        [compiler, "-shared", *sanitizers, *LINK_FLAGS, *objects, "-o", library, *libraries, "-ldl"]
    )
    return library


def build(compiler: str, folder: Path, *, sanitized: bool) -> HostKernels:
    """Compile csrc/cuda in ``folder`` with the flags of the build, and load."""
    torch_folder = Path(torch.__path__[0])
    library = compile_library(
        compiler,
        folder,
        "lif_cuda_on_host",
        kernels=[
            path
            for path in sorted((CSRC / "cuda").glob("*.cu"))
            if "recurrent" not in path.name and path.name != "words.cu"
        ],
        others=[SHIM / "entry.cpp"],
        options=[TARGET_FLAG, "-isystem", str(torch_folder / "include")],
        libraries=[f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch", "-ltorch_cpu"],
        sanitized=sanitized,
    )
    return HostKernels(library)
