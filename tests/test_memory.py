"""keep_memory: freed memory serves again, and goes back when it is told to; where it cannot, it says so."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import lif_cuda
from lif_cuda import memory

# Page faults of writing a new tensor, after some like it; and how many MiB the process holds.
FAULTS = """
import resource, sys, threading
import torch
import lif_cuda

torch.set_num_threads(1)

def faults(mib, before=3):
    for _ in range(before):
        torch.empty(mib << 20, dtype=torch.uint8).fill_(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(mib << 20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20
"""


def run(code: str, **environment: str) -> list[float]:
    """The numbers that code prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", FAULTS + code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return [float(word) for word in done.stdout.split()]


def glibc() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


needs_glibc = pytest.mark.skipif(not glibc(), reason="the C library is not glibc")


@needs_glibc
def test_memory_is_kept_and_handed_back() -> None:
    """By default each page of a large tensor is fetched anew; 16,384 of 4 KiB are 64 MiB."""
    code = """
print(faults(64))
lif_cuda.keep_memory()
print(faults(1), faults(64))
lif_cuda.keep_memory(False)
print(faults(300))
"""
    pages = (1 << 20) // os.sysconf("SC_PAGE_SIZE")
    default, small, large, back = run(code)
    assert default >= 64 * pages and back >= 300 * pages
    assert small <= pages / 50 and large <= 64 * pages / 50


@needs_glibc
def test_memory_fits_the_next_tensor() -> None:
    """Another tensor of the same size takes the memory of the one before it, and not as much once more."""
    code = """
before = resident()
lif_cuda.keep_memory()
print(faults(64, 20))
print(resident() - before)
"""
    fetched, held = run(code)
    assert fetched == 0 and held < 4 * 64


@needs_glibc
def test_what_is_free_goes_back() -> None:
    code = """
lif_cuda.keep_memory()
before = resident()
tensors = [torch.empty(20 << 20, dtype=torch.uint8).fill_(1) for _ in range(10)]
del tensors
print(resident() - before)
lif_cuda.keep_memory(False)
print(resident() - before)
"""
    kept, back = run(code)
    assert kept > 190 and back < 10


@needs_glibc
def test_in_a_thread() -> None:
    """As the docstring says of memory that is taken by another thread than the first."""
    code = """
lif_cuda.keep_memory()
thread = threading.Thread(target=lambda: print(faults(20, 12), faults(200, 12)))
thread.start()
thread.join()
"""
    pages = (1 << 20) // os.sysconf("SC_PAGE_SIZE")
    small, large = run(code)
    assert small <= 20 * pages / 50 and large >= 200 * pages
    small, large = run(code, MALLOC_ARENA_MAX="1")
    assert small <= 20 * pages / 50 and large <= 200 * pages / 50


@needs_glibc
def test_more_than_32_bits_of_memory() -> None:
    """glibc counts in 32 bits: with 4 GiB and more in use it must still find a tensor on its books."""
    code = """
held = [torch.empty(1 << 30, dtype=torch.uint8) for _ in range(4)]
lif_cuda.keep_memory()
print(faults(8))
"""
    assert run(code) == [0.0]


@needs_glibc
@pytest.mark.parametrize("name", ["jemalloc", "tcmalloc_minimal", "mimalloc"])
def test_a_preloaded_allocator(name: str) -> None:
    library = ctypes.util.find_library(name)
    if library is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import lif_cuda; lif_cuda.keep_memory()"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LD_PRELOAD": library},
    )
    assert done.returncode and f"another allocator, LD_PRELOAD={library}; set that one" in done.stderr


class AnotherAllocator:
    """A glibc on whose books no tensor stands."""

    def mallinfo(self) -> SimpleNamespace:
        return SimpleNamespace(uordblks=5, hblkhd=7)

    def mallopt(self, option: int, value: int) -> int:
        raise AssertionError("it must not be told anything")


class Refusing:
    """A glibc that has a tensor on its books and refuses all options."""

    def __init__(self) -> None:
        self.calls = 0

    def mallinfo(self) -> SimpleNamespace:
        self.calls += 1
        return SimpleNamespace(uordblks=(1 << 32) - 5, hblkhd=(self.calls - 1) * memory._PROBE % (1 << 32))

    def mallopt(self, option: int, value: int) -> int:
        return 0

    def gnu_get_libc_version(self) -> bytes:
        return b"9.9"


@pytest.mark.parametrize(
    ("libc", "preloaded", "message"),
    [
        (AnotherAllocator, "", "another allocator, which this torch or Python brings; set that one"),
        (AnotherAllocator, "/usr/lib/x.so", "another allocator, LD_PRELOAD=/usr/lib/x.so; set that one"),
        (Refusing, "", r"refused mallopt\(-4, 0\).*glibc 9.9.*MALLOC_MMAP_MAX_=0"),
    ],
)
def test_errors(libc: type[Any], preloaded: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_glibc", libc)
    monkeypatch.setenv("LD_PRELOAD", preloaded)
    with pytest.raises(RuntimeError, match=message):
        lif_cuda.keep_memory()


def test_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ctypes.CDLL:
        raise OSError(name)

    message = "needs Linux with glibc.*leave the call out here"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match=message):
        patch.setattr(memory.sys, "platform", "darwin")
        lif_cuda.keep_memory()
    for found in (absent, lambda name: SimpleNamespace()):
        monkeypatch.setattr(memory.ctypes, "CDLL", found)
        with pytest.raises(RuntimeError, match=message):
            lif_cuda.keep_memory()


@needs_glibc
def test_the_probe_is_no_memory() -> None:
    """Asking whose memory it is takes none, as the tensor for it is not written to."""
    code = "before = resident(); lif_cuda.keep_memory(); print(resident() - before)"
    assert run(code)[0] < 8
