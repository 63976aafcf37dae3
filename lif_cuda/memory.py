"""Memory of large tensors on the CPU: kept by the process, or handed back and fetched anew."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

import torch

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_KEPT = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1}
# What glibc comes to by itself once a tensor of 32 MiB or more has been freed; a process that has set any of
# these stays at what it has set.
_DEFAULTS = {_M_MMAP_MAX: 1 << 16, _M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 64 << 20}
# Of the tensor that shows whose memory it is: far more than other threads take or free meanwhile.
_PROBE = 256 << 20
# Tensors begin at multiples of this many bytes.
_ALIGNMENT = 64
# How many pieces of one size a thread keeps for itself, in any version of glibc.
_OF_ONE_SIZE = 16


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def keep_memory(keep: bool = True) -> None:
    """Keep the memory of freed CPU tensors for the next ones, instead of handing it back to the system.

    By itself glibc, the C library of most Linux systems, hands the memory of a large tensor back when the
    tensor is freed, and fetches other memory for the next one. The system clears each page of it at its first
    use, which often takes longer than the operation that fills the tensor. After this call what is freed
    stays with the process, and a training step finds the memory of the steps before it: the first few still
    fetch some. How much that is worth stands in docs/networks.md.

    Call it once, before training, in the thread that trains. It holds for the whole process and all of its
    libraries, not for lif_cuda alone; processes that are forked later inherit it, others do not. It helps on
    the CPU only: tensors on a GPU have an allocator of their own. A thread other than the process's first
    keeps what is no larger than 64 MiB; with MALLOC_ARENA_MAX=1 in the environment the rest, too.

    The price: the process keeps the most memory that it ever needed, and more where tensors of many sizes
    leave gaps that no later one fits into. Other processes cannot have it meanwhile.

    Args:
        keep: False gives back what is free, and lets glibc hand memory back as it does by itself: of new
            tensors those of more than 32 MiB when they are freed, smaller ones when more than 64 MiB are free
            at the end of its heap. Tensors that fit into gaps of the heap, which stay, use them as before.

    Raises:
        RuntimeError: tensors do not get their memory from glibc: on another system or with another C library
            (macOS, Windows, Alpine), with an allocator that is preloaded (jemalloc, tcmalloc), or with a
            torch that brings its own. Nothing has been changed then.
    """
    libc = _glibc()
    if not _tensors_come_from(libc):
        preloaded = os.environ.get("LD_PRELOAD")
        raise RuntimeError(
            "keep_memory needs tensors to get their memory from glibc's malloc, but they get it from another "
            f"allocator, {f'LD_PRELOAD={preloaded}' if preloaded else 'which this torch or Python brings'}; "
            "set that one to keep its memory by its own options, or start without it"
        )
    for option, value in (_KEPT if keep else _DEFAULTS).items():
        if not libc.mallopt(option, value):
            raise RuntimeError(
                f"glibc refused mallopt({option}, {value}): {_version(libc)} may have other limits; please "
                "report it, and set MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1 in the environment instead"
            )
    if keep:
        _fill_small_pieces(libc)
    else:
        gc.collect()
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL:
    """The C library of this process, if it is glibc."""
    try:
        libc = ctypes.CDLL("libc.so.6") if sys.platform == "linux" else None
    except OSError:
        libc = None
    if libc is None or not all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallopt")):
        raise RuntimeError(
            "keep_memory needs Linux with glibc, whose malloc can be told to keep memory; this is "
            f"{sys.platform} with another C library; leave the call out here"
        )
    libc.mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    libc.malloc_trim.argtypes = [ctypes.c_size_t]
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.mallinfo.restype = _Mallinfo
    libc.gnu_get_libc_version.restype = ctypes.c_char_p
    return libc


def _tensors_come_from(libc: ctypes.CDLL) -> bool:
    """Whether glibc's own books show a new tensor. Its memory is not touched, and so costs nothing."""
    before = libc.mallinfo()
    probe = torch.empty(_PROBE, dtype=torch.uint8, device="cpu")
    after = libc.mallinfo()
    del probe
    # The numbers have 32 bits: beyond 4 GiB they begin again at 0, and so do differences.
    grown: int = (after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) % (1 << 32)
    return _PROBE // 2 < grown < 2 * _PROBE


def _fill_small_pieces(libc: ctypes.CDLL) -> None:
    """Fill what this thread keeps of small pieces of memory.

    In front of a tensor lies a piece of up to 112 bytes, by which its beginning was aligned. It is freed
    first, and goes to those of its size that the thread keeps for itself. What then is free is too short, by
    these bytes, for another tensor of the same size: up to ten times its memory was taken, until the thread
    had enough of such pieces. Where it has, the piece becomes one with the memory behind it.
    """
    sizes = range(24, 2 * _ALIGNMENT, 16)
    for piece in [libc.malloc(size) for size in sizes for _ in range(_OF_ONE_SIZE)]:
        libc.free(piece)


def _version(libc: ctypes.CDLL) -> str:
    return f"glibc {libc.gnu_get_libc_version().decode()}"
