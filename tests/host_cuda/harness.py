"""Building csrc/cuda for the host, and putting it in the place of the CPU kernels."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from _compile import CSRC, CXX_FLAGS, compile_source, target_version
from compare import autograd_in_python

from lif_cuda import _ops

SHIM = Path(__file__).resolve().parent
SHARED_BYTES = 227 * 1024  # kSharedOptin of cuda_runtime.h
SANITIZER_FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1"]
# The stable ABI that the build compiles for.
TARGET_FLAG = f"-DTORCH_TARGET_VERSION={target_version(torch.__version__)}"


class HostKernels:
    """csrc/cuda/lif_cuda.cu, launchers and kernels, compiled for the host."""

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
        _ops.lif_forward = operators.lif_forward.default
        _ops.lif_backward = operators.lif_backward.default
        _ops.checkpoint_interval = lambda steps, device_type: saved[2](steps, "cuda")
        try:
            with autograd_in_python():  # which looks for the operators in _ops
                yield
        finally:
            _ops.lif_forward, _ops.lif_backward, _ops.checkpoint_interval = saved

    @property
    def last_kernel(self) -> str:
        """The tier of the last launch: "wide", "narrow" or "general"."""
        return str(self._library.host_last_kernel().decode())

    @property
    def longest_chunk(self) -> int:
        """What the launcher says of a device with 227 KiB of shared memory a block, for plain fp32."""
        return int(self._library.host_longest_chunk())

    @contextmanager
    def device(self, *, multiprocessors: int = 1, shared_bytes: int = SHARED_BYTES) -> Iterator[None]:
        """Let the device have so many multiprocessors, and a block so many bytes of shared memory."""
        self._library.host_set_device(multiprocessors, shared_bytes)
        try:
            yield
        finally:
            self._library.host_set_device(1, SHARED_BYTES)


def write_launchers(folder: Path) -> None:
    """launchers.inl: csrc/cuda/lif_cuda.cu as a C++ compiler understands it."""
    # A launch, kernel<<<...>>>(args), is the one thing in the file that is not C++.
    launchers, launches = re.subn(
        r"(\w+(?:<[\w, ]+>)?)<<<(.+?)>>>\((\w+)\)",
        r"host_cuda::launch(\1, \2, \3)",
        (CSRC / "cuda" / "lif_cuda.cu").read_text(),
    )
    assert launches > 0 and "<<<" not in launchers, "a launch is written in a way unknown here"
    (folder / "launchers.inl").write_text(launchers)


def build(compiler: str, folder: Path, *, sanitized: bool) -> HostKernels:
    """Compile in ``folder`` with the flags of the build, and load."""
    write_launchers(folder)
    library = folder / "lif_cuda_on_host.so"
    torch_folder = Path(torch.__path__[0])
    compile_source(
        [
            compiler,
            *CXX_FLAGS,
            *(SANITIZER_FLAGS if sanitized else []),
            "-std=c++17",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-shared",
            "-fPIC",
            TARGET_FLAG,
            *(f"-I{path}" for path in (CSRC, SHIM, folder)),
            "-isystem",
            torch_folder / "include",
            SHIM / "entry.cpp",
            "-o",
            library,
            f"-L{torch_folder / 'lib'}",
            *("-lc10", "-ltorch", "-ltorch_cpu"),
        ]
    )
    return HostKernels(library)
