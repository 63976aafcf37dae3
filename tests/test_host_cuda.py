"""The machine that the CUDA kernels run on without a GPU: right kernels run rightly, wrong ones are reported.

The kernels are those of host_cuda/probes.cpp. What is promised stands in host_cuda/machine.h and
host_cuda/shared_memory.h.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from _compile import cxx
from host_cuda.harness import SHIM, compile_library, short_name

STAGE = 4 * 32  # floats that a round of the ring moves
INVALID_VALUE = 1


class Probes:
    """host_cuda/probes.cpp, compiled."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.probe.argtypes = [ctypes.c_char_p, *2 * [ctypes.c_void_p], *4 * [ctypes.c_int]]
        self._library.probe_fault.restype = ctypes.c_char_p
        self._library.probe_symbol.restype = ctypes.c_char_p

    def launch(
        self,
        name: str,
        x: torch.Tensor,
        size: int,
        *,
        blocks: int = 1,
        threads: int = 64,
        shared: int = 4096,
    ) -> tuple[torch.Tensor, int]:
        """What the kernel puts out, and the error of CUDA."""
        out = torch.full((x.numel(),), -1.0)
        error = self._library.probe(
            name.encode(), x.data_ptr(), out.data_ptr(), size, blocks, threads, shared
        )
        return out, error

    def fault(self, name: str, size: int = 0, x: torch.Tensor | None = None, *, blocks: int = 1) -> str:
        """What the machine says of a kernel."""
        _, error = self.launch(name, torch.arange(4096.0) if x is None else x, size, blocks=blocks)
        assert error == 0
        return self.take_fault()

    def take_fault(self) -> str:
        """What kernels did wrong since the last call."""
        return str(self._library.probe_fault().decode())

    @property
    def symbol(self) -> str:
        """The last kernel."""
        return str(self._library.probe_symbol().decode())

    @property
    def launches(self) -> int:
        """How many launches there have been."""
        return int(self._library.probe_launches())


def compiled(folder: Path, *, sanitized: bool) -> Path:
    compiler = cxx()
    if compiler is None:
        pytest.skip("no C++ compiler")
    return compile_library(compiler, folder, "probes", kernels=[SHIM / "probes.cpp"], sanitized=sanitized)


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Probes:
    """Optimised, and seen by the machine."""
    return Probes(compiled(tmp_path_factory.mktemp("probes"), sanitized=False))


def ring(x: torch.Tensor) -> torch.Tensor:
    """What ring_kernel computes of [blocks, rows, 32]."""
    return 2 * x.cumsum(1)


@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 8, 13])
def test_a_ring_of_copies_in_flight(probes: Probes, rounds: int) -> None:
    """Copies, both barriers and a double buffer between two warps, in each of the orders of five blocks."""
    x = torch.randint(-9, 9, (5, 4 * rounds, 32)).float()
    out, error = probes.launch("ring", x, rounds, blocks=5)
    assert error == 0
    assert probes.take_fault() == ""
    assert torch.equal(out.view(x.shape), ring(x))


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ("no_syncthreads", "no barrier between"),
        ("one_syncthreads_left_out", "no barrier between"),
        ("no_syncwarp", "shared memory, which thread"),
        ("early_wait", "copies to, without having waited for it"),
    ],
)
def test_a_ring_with_a_flaw(probes: Probes, flaw: str, said: str) -> None:
    for blocks in (1, 2, 3):  # each block has an order of its own, and none hides the flaw
        assert said in probes.fault(flaw, 8, blocks=blocks)


def test_a_barrier_waits_for_those_that_have_not_left(probes: Probes) -> None:
    out, _ = probes.launch("leaving", torch.arange(64.0), 50)
    assert probes.take_fault() == ""
    assert torch.equal(out[:50], torch.arange(49.0, -1, -1))
    assert (out[50:] == -1).all()


def test_halves_of_a_word_are_two_threads(probes: Probes) -> None:
    out, _ = probes.launch("halves", torch.arange(64.0), 0)
    assert probes.take_fault() == ""
    assert torch.equal(out, (torch.arange(64) ^ 1).float())


def test_what_nobody_wrote_is_no_number(probes: Probes) -> None:
    """Also in the second block: nothing is left of the first."""
    probes.launch("no_barrier", torch.arange(64.0), 0)
    out, _ = probes.launch("unwritten", torch.arange(64.0), 0, blocks=2)
    assert out.isnan().all()
    assert probes.take_fault() == ""


def test_two_writers_of_a_word(probes: Probes) -> None:
    """Even of the same value."""
    assert "wrote with no barrier between" in probes.fault("two_writers")


def test_a_neighbours_word(probes: Probes) -> None:
    """A warp's barrier orders its own lanes and no others."""
    assert probes.fault("neighbour", 1) == ""
    assert "no barrier between" in probes.fault("neighbour", 32)
    assert "no barrier between" in probes.fault("neighbour_at_once", 1)


def test_overwriting_what_another_reads(probes: Probes) -> None:
    assert "no barrier between" in probes.fault("write_after_read")


def test_behind_the_shared_memory(probes: Probes) -> None:
    for place in (1024, 1025, 2000):
        assert "outside the block's shared memory" in probes.fault("behind", place)
    assert "outside the block's shared memory" in probes.fault("copy_outside", 16)


def test_a_deadlock_ends(probes: Probes) -> None:
    """And what runs next is none the worse for it."""
    fault = probes.fault("deadlock", blocks=3)
    assert "16 threads wait at __syncthreads and 16 at __syncwarp" in fault
    test_a_ring_of_copies_in_flight(probes, 8)


def test_copies_are_of_some_sizes_and_aligned(probes: Probes) -> None:
    x = torch.arange(64.0)
    for size in (4, 8, 16):
        assert probes.fault("copy", size, x) == ""
    assert "may be 4, 8 or 16" in probes.fault("copy", 12, x)
    for size in (8, 16):
        assert "not aligned" in probes.fault("copy", size, x[1:])
    assert probes.fault("copy", 4, x[1:]) == ""


@pytest.mark.parametrize(
    "extent", [{"blocks": 0}, {"threads": 0}, {"threads": 1025}, {"shared": 48 * 1024 + 4}], ids=str
)
def test_launches_that_are_errors(probes: Probes, extent: dict[str, int]) -> None:
    _, error = probes.launch("no_barrier", torch.arange(4096.0), 0, **extent)
    assert error == INVALID_VALUE


def test_the_last_launch(probes: Probes) -> None:
    before = probes.launches
    probes.launch("neighbour", torch.arange(64.0), 1)
    assert probes.symbol == "void lif::cuda::neighbour_kernel<true>(lif::cuda::Args)"
    assert short_name(probes.symbol) == "neighbour_kernel"
    probes.launch("leaving", torch.arange(64.0), 1)
    assert short_name(probes.symbol) == "leaving_kernel"
    assert probes.launches == before + 2


def test_a_barrier_costs_little(probes: Probes) -> None:
    """Half a million stops of a thread take a tenth of a second; five are for a busy machine."""
    start = time.perf_counter()
    probes.launch("barriers", torch.zeros(4096), 0, blocks=128, threads=224, shared=48 * 1024)
    assert time.perf_counter() - start < 5
    assert probes.take_fault() == ""


# Runs a probe on so many floats of memory that the sanitizer knows the end of.
SANITIZED_RUN = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.probe_fault.restype = ctypes.c_char_p
for run in sys.argv[2:]:
    name, floats, first, size, blocks = run.split(",")
    x, out = ((ctypes.c_float * int(floats))() for _ in range(2))
    at = ctypes.byref(x, 4 * int(first))
    error = library.probe(name.encode(), at, ctypes.byref(out), int(size), int(blocks), 64, 4096)
    print(name, error, library.probe_fault().decode(), flush=True)
"""


def test_under_the_address_sanitizer(tmp_path: Path) -> None:
    """It follows the switches of stacks, also those that are given up, and sees what copies read."""
    library = compiled(tmp_path, sanitized=True)
    asked = [cxx() or "", "-print-file-name=libasan.so"]
    sanitizer = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    if not sanitizer.is_absolute():
        pytest.skip("the C++ compiler has no libasan.so to load into Python")
    environment = os.environ | {
        "LD_PRELOAD": str(sanitizer.resolve()),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",
    }

    def run(*probes: str) -> tuple[str, str, bool]:
        done = subprocess.run(
            [sys.executable, "-c", SANITIZED_RUN, library, *probes],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout, done.stderr, done.returncode == 0

    right = f"ring,{5 * 8 * STAGE},0,8,5"
    printed, complaint, passed = run(right, "deadlock,64,0,0,1", right, "leaving,64,0,50,1", "copy,64,0,16,1")
    assert passed, complaint
    found = [line.split(" ", 2) for line in printed.splitlines()]
    assert [(name, error, fault[:20]) for name, error, fault in found] == [
        ("ring", "0", ""),
        ("deadlock", "0", "block 0: a deadlock,"),
        ("ring", "0", ""),
        ("leaving", "0", ""),
        ("copy", "0", ""),
    ]
    for wrong, what in (("copy,6,4,16,1", "heap-buffer-overflow"), ("behind,64,0,1024,1", "poison")):
        _, complaint, passed = run(wrong)
        assert not passed
        assert "AddressSanitizer" in complaint and what in complaint, complaint
