"""Time contenders in turns, and tell the turns in which the processor was disturbed.

A core of a virtual machine can be one half of a physical core whose other half is a stranger's. While the
stranger computes, work that is bound by arithmetic takes up to half as long again, and a copy, which waits
for memory, takes what it took before: ratios to the copy then say more about the neighbour than about the
kernel. A fixed product of small matrices, timed before and after each turn, tells these turns apart.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Turns that a median should have.
ENOUGH = 5
# A turn is undisturbed if the products around it take at most this many times the fastest one of the run.
TOLERANCE = 1.12
# Seconds of a turn from which on a contender gets no more than ENOUGH of them.
LONG = 0.25


@dataclass
class Timing:
    """Seconds a call: the median and the quartiles over the rounds."""

    median: float
    low: float
    high: float


def summarise(times: Sequence[float]) -> Timing:
    """Median and quartiles of at least one time."""
    if len(times) < 2:
        return Timing(times[0], times[0], times[0])
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high)


class Yardstick:
    """Products of 128 by 128 matrices, on as many threads as torch has: arithmetic in the nearest caches."""

    _PRODUCTS = 6  # 0.3 ms on one thread

    def __init__(self, seconds: float = 2.0) -> None:
        self._matrix, self._out = torch.randn(128, 128), torch.empty(128, 128)
        self.fastest = float("inf")
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            self.measure()

    def measure(self) -> float:
        """Seconds of the products just now."""
        with torch.no_grad():
            for _ in range(2):  # whatever ran before has filled the caches
                torch.mm(self._matrix, self._matrix, out=self._out)
            start = time.perf_counter()
            for _ in range(self._PRODUCTS):
                torch.mm(self._matrix, self._matrix, out=self._out)
            taken = time.perf_counter() - start
        self.fastest = min(self.fastest, taken)
        return taken

    def undisturbed(self, taken: float) -> bool:
        """Whether the processor was ours, where the products took so long."""
        return taken <= TOLERANCE * self.fastest


@dataclass
class Turns:
    """The times of contenders, turn by turn; those of one round stand at the same place."""

    seconds: dict[str, list[float]]
    undisturbed: dict[str, list[bool]]

    def quiet(self, name: str) -> list[float]:
        """The undisturbed turns of a contender."""
        return [s for s, ours in zip(self.seconds[name], self.undisturbed[name], strict=True) if ours]

    def timing(self, name: str) -> Timing:
        """Of the undisturbed turns; of all where those are fewer than ENOUGH."""
        quiet = self.quiet(name)
        return summarise(quiet if len(quiet) >= ENOUGH else self.seconds[name])

    def ratio(self, name: str, to: str, *, quiet: bool = True) -> Timing:
        """The times of ``name`` over those of ``to`` in the same rounds, of turns side by side.

        Of rounds in which both were undisturbed if ``quiet`` and where there are ENOUGH of them, else of all.
        """
        pairs = list(zip(self.seconds[name], self.seconds[to], strict=False))
        ours = [a and b for a, b in zip(self.undisturbed[name], self.undisturbed[to], strict=False)]
        if quiet and sum(ours) >= ENOUGH:
            pairs = [pair for pair, both in zip(pairs, ours, strict=True) if both]
        return summarise([a / b for a, b in pairs])


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def between_events(call: Callable[[], object], flush: Tensor) -> float:
    """Seconds of one call on a GPU, behind the writing of ``flush``."""
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    flush.zero_()
    began.record()
    call()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1e3


def interleaved(
    calls: dict[str, Callable[[], object]],
    seconds: float,
    device: torch.device,
    yardstick: Yardstick,
    long: float = LONG,
) -> Turns:
    """Time the calls in turns: ENOUGH rounds at least, and for about ``seconds`` in all.

    Up to four times as long where there are not ENOUGH undisturbed turns by then, without the contenders
    whose turns take ``long`` seconds or more.

    A turn begins with one call that is not timed, and a call shorter than two milliseconds is repeated within
    it: what is timed is a call after others like it. The first one after another contender's, of which some
    run millions of instructions of Python, finds no caches of its own. And where turns are seconds apart, a
    virtual machine may have given the pages of the last one back to its host, and the next call fetches them
    again: 6.7 instead of 1.0 ns a neuron-step for lif_cuda, whose pages are large, on [4, 32, 262144].

    On a GPU a call stands between two events, behind the writing of a buffer larger than the second-level
    cache: that empties the cache, and the host has queued the call before it is done, so that no launch is
    waited for between the events. What a neighbour does to the host does not matter there.
    """
    flush = torch.empty(256 << 20, dtype=torch.uint8, device=device) if device.type == "cuda" else None
    once = {name: _seconds_of_second_call(call, device) for name, call in calls.items()}
    turns = Turns({name: [] for name in calls}, {name: [] for name in calls})

    def turn(name: str) -> None:
        call = calls[name]
        if flush is not None:
            call()
            turns.seconds[name].append(between_events(call, flush))
            turns.undisturbed[name].append(True)
            return
        repeats = max(1, min(1000, round(2e-3 / max(once[name], 1e-7))))
        before = yardstick.measure()
        call()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        turns.seconds[name].append((time.perf_counter() - start) / repeats)
        turns.undisturbed[name].append(yardstick.undisturbed(max(before, yardstick.measure())))

    short = [name for name in calls if once[name] < long]
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        rounds = 0
        while True:
            elapsed = time.perf_counter() - began
            scarce = any(sum(turns.undisturbed[name]) < ENOUGH for name in short)
            if rounds >= ENOUGH and (elapsed > (4 * seconds if scarce else seconds) or rounds >= 400):
                return turns
            for name in calls if rounds < ENOUGH else short:
                turn(name)
            rounds += 1
    finally:
        gc.enable()


def _seconds_of_second_call(call: Callable[[], object], device: torch.device) -> float:
    call()
    synchronise(device)
    began = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - began
