"""How much memory a call saves, takes and could have."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import lif_cuda


def proc_bytes(file: str, field: str) -> int:
    """A field of a file in Linux's /proc, in bytes; 0 where there is none."""
    path = Path("/proc") / file
    text = path.read_text() if path.exists() else ""
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def saved_bytes(run: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Bytes that autograd keeps for backward, each storage once."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run(x.detach().requires_grad_())
    del out
    return sum(storages.values())


def peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """The most memory that one call holds beyond what was there before it; None where that is not known.

    On a CPU it is the growth of the resident set, whose high-water mark Linux lets a process put back; memory
    that the allocator has kept from earlier calls is given back first.
    """
    if device.type == "cuda":
        call()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    clear = Path("/proc/self/clear_refs")
    if not clear.exists() or not _give_back():
        return None
    clear.write_text("5")
    before = proc_bytes("self/status", "VmRSS")
    call()
    return max(0, proc_bytes("self/status", "VmHWM") - before)


def _give_back() -> bool:
    """Let the allocator give back what it has kept; False where it cannot be told to."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    gc.collect()
    trim(0)
    return True


def recycle() -> None:
    """Let the C library keep what is freed, and give large tensors out of it too.

    By itself it fetches a tensor of more than 32 MiB from the system each time, or of less, as it happens.
    The page faults, 2 us for each 4 KiB, then take longer than what is measured: a copy and x + g on
    [16, 64, 16384] took 1.0 ns an element in memory that was there, and 5.7 in fresh pages.

    Raises:
        RuntimeError: as ``lif_cuda.keep_memory`` does.
    """
    lif_cuda.keep_memory()


def available_bytes(device: torch.device) -> int:
    """Memory that new tensors could take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    _give_back()
    return proc_bytes("meminfo", "MemAvailable") or 8 << 30
