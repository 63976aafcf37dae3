"""Building csrc/cuda for the host, and calling it: guarded buffers and mirrors of the C structs."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import torch
from _compile import CSRC, build_flags, compile_source
from torch import Tensor

SHIM = Path(__file__).resolve().parent
SANITIZER_FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1"]

SENTINEL = {torch.float32: 0x7FE5A5A5, torch.float64: 0x7FFE5A5A5A5A5A5A}  # both are NaNs
BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


class Buffer:
    """A tensor of given sizes and strides, poisoned, between guards.

    Args:
        sizes, strides: of ``view``, in elements.
        dtype: float32 or float64.
        offset: how many elements the view starts behind a 16-byte boundary.
        guard: elements of the guard at either end. 0 leaves the watch to the address sanitizer.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: torch.dtype,
        offset: int = 0,
        guard: int = 32,
    ) -> None:
        last = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        numel = 0 if 0 in sizes else last + 1
        self.memory = torch.empty(guard + offset + numel + guard, dtype=dtype)
        assert self.memory.data_ptr() % 16 == 0
        self.memory.view(BITS[dtype]).fill_(SENTINEL[dtype])
        self.view = self.memory.as_strided(sizes, strides, guard + offset)
        # torch gives an empty view no address, and the kernels take null for "absent".
        self.address = self.memory.data_ptr() + (guard + offset) * dtype.itemsize

    def check_surroundings(self) -> None:
        """Raise if anything but the view's elements was written: the guards, or gaps between rows."""
        mine = torch.zeros_like(self.memory, dtype=torch.bool)
        mine.as_strided(self.view.shape, self.view.stride(), self.view.storage_offset()).fill_(True)
        around = self.memory.view(BITS[self.memory.dtype])[~mine]
        assert (around == SENTINEL[self.memory.dtype]).all(), "written outside the tensor"


class HostSeries(ctypes.Structure):
    """Mirror of the struct in entry.cpp."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("outer_stride", ctypes.c_int64),
        ("time_stride", ctypes.c_int64),
    ]


class HostParameter(ctypes.Structure):
    """Mirror of the struct in entry.cpp."""

    _fields_ = [
        ("values", ctypes.c_void_p),
        ("period", ctypes.c_int64),
        ("value", ctypes.c_double),
    ]


class Call(ctypes.Structure):
    """Mirror of the struct in entry.cpp."""

    _fields_ = [
        ("outer", ctypes.c_int64),
        ("steps", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("x", HostSeries),
        ("spikes", HostSeries),
        ("grad_out", HostSeries),
        ("grad_x", HostSeries),
        ("beta", HostParameter),
        ("threshold", HostParameter),
        ("membrane", ctypes.c_void_p),
        ("grad_final_membrane", ctypes.c_void_p),
        ("count", ctypes.c_void_p),
        ("final_membrane", ctypes.c_void_p),
        ("checkpoints", ctypes.c_void_p),
        ("grad_x_sum", ctypes.c_void_p),
        ("grad_membrane", ctypes.c_void_p),
        ("grad_beta", ctypes.c_void_p),
        ("grad_threshold", ctypes.c_void_p),
        ("chunk", ctypes.c_int64),
        ("grad_out_uniform", ctypes.c_int64),
        ("detach_reset", ctypes.c_int64),
        ("slope", ctypes.c_double),
        ("scale", ctypes.c_double),
    ]


class HostKernels:
    """csrc/cuda/lif_cuda.cu, launchers and kernels, compiled for the host."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.host_call_size.restype = ctypes.c_int64
        self._library.host_longest_chunk.restype = ctypes.c_int64
        self._library.host_fault.restype = ctypes.c_char_p
        assert self._library.host_call_size() == ctypes.sizeof(Call)

    def launch(self, direction: str, call: Call, dtype: torch.dtype) -> int:
        """Launch "forward" or "backward"; return the CUDA error."""
        entry = getattr(self._library, f"host_{direction}")
        error = int(entry(ctypes.byref(call), int(dtype == torch.float64)))
        fault = self._library.host_fault().decode()
        assert not fault, fault
        return error

    def launched_width(self) -> int:
        """Neurons a thread in the last launch."""
        return int(self._library.host_launched_width())

    def longest_chunk(self, dtype: torch.dtype) -> int:
        """What the launcher says of a device with 227 KiB of shared memory a block."""
        return int(self._library.host_longest_chunk(int(dtype == torch.float64)))


def build(compiler: str, folder: Path, *, sanitized: bool) -> HostKernels:
    """Compile in ``folder`` with the flags of the build, and load."""
    # A launch, kernel<<<...>>>(args), is the one thing in the file that is not C++.
    launchers, launches = re.subn(
        r"(\w+(?:<[\w, ]+>)?)<<<(.+?)>>>\((\w+)\)",
        r"host_cuda::launch(\1, \2, \3)",
        (CSRC / "cuda" / "lif_cuda.cu").read_text(),
    )
    assert launches > 0 and "<<<" not in launchers, "a launch is written in a way unknown here"
    (folder / "launchers.inl").write_text(launchers)
    library = folder / "lif_cuda_on_host.so"
    compile_source(
        [
            compiler,
            # The entry points of entry.cpp must be visible.
            *(flag for flag in build_flags("CXX_FLAGS") if flag != "-fvisibility=hidden"),
            *(SANITIZER_FLAGS if sanitized else []),
            "-std=c++17",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-shared",
            "-fPIC",
            *(f"-I{path}" for path in (CSRC, SHIM, folder)),
            SHIM / "entry.cpp",
            "-o",
            library,
        ]
    )
    return HostKernels(library)


def difference(actual: Tensor, expected: Tensor) -> str | None:
    """What tells two tensors apart, bit for bit, or None. A zero may have either sign."""
    actual, expected = actual.contiguous(), expected.contiguous()
    bits = BITS[actual.dtype]
    unlike = (actual.view(bits) != expected.view(bits)) & ~((actual == 0) & (expected == 0))
    if not unlike.any():
        return None
    where = unlike.nonzero()
    first = tuple(where[0].tolist())
    return (
        f"{len(where)} of {unlike.numel()} elements of shape {tuple(actual.shape)} differ, first at "
        f"{first}: {actual[first].item()!r} instead of {expected[first].item()!r}"
    )
