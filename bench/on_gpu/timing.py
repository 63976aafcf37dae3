"""How long a call keeps a GPU busy, and how long it takes from the caller's side.

Kernels are timed without the host: several calls are captured in a CUDA graph, which is replayed between
two events. What cannot be captured is queued behind a kernel that sleeps, so that the GPU finds each launch
waiting. Whole calls are timed by the wall clock, many in a row and one wait at the end.

Calls follow one another on the same tensors, and nothing empties the cache between them: a small case finds
part of its input there, the copy as much as the kernel.

On the CPU, where this is only rehearsed, every time is one of the wall clock.
"""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from common.turns import Turns, synchronise

Call = Callable[[], object]

# Seconds of a replay: long against the resolution of an event, about a microsecond.
REPLAY = 1e-3
MOST_CALLS = 100
ROUNDS = 25
FEWEST_ROUNDS = 5
# Calls before any is timed: the first ones compile and choose kernels, and allocate.
WARM_UP = 3
# Cycles that the sleeping kernel waits, about 10 ms: the host queues some hundred launches meanwhile.
ASLEEP = 20_000_000


@dataclass
class Timed:
    """A call made ready: ``turn`` gives seconds of one call, ``how`` says by what means."""

    turn: Callable[[], float]
    how: str


@contextmanager
def at_most(seconds: float, what: str) -> Iterator[None]:
    """TimeoutError if the block takes longer. In the main thread, and between two steps of Python only."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"{what} took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def calls_a_turn(seconds: float) -> int:
    """How many calls of so many seconds make a replay long enough to be timed."""
    return max(1, min(MOST_CALLS, round(REPLAY / max(seconds, 1e-7))))


def wall(call: Call, device: torch.device, calls: int) -> Timed:
    """Whole calls by the wall clock: ``calls`` in a row, and one wait for the device."""

    def turn() -> float:
        synchronise(device)
        began = time.perf_counter()
        for _ in range(calls):
            call()
        synchronise(device)
        return (time.perf_counter() - began) / calls

    return Timed(turn, "wall clock")


def kernels_alone(call: Call, device: torch.device) -> Timed:
    """The kernels of ``call`` without the host; on the CPU the wall clock."""
    seconds = _warm_up(call, device)
    calls = calls_a_turn(seconds)
    if device.type != "cuda":
        return wall(call, device, calls)
    try:
        return _replayed(call, calls)
    except Exception as error:
        torch.cuda.synchronize(device)
        queued = _queued(call, calls)
        queued.how += f" (no graph: {type(error).__name__})"
        return queued


def _warm_up(call: Call, device: torch.device) -> float:
    """Seconds of a call after the first ones, on a stream of its own as capturing asks for."""
    if device.type != "cuda":
        call()
        return wall(call, device, 1).turn()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
        seconds = wall(call, device, 1).turn()
    torch.cuda.current_stream(device).wait_stream(stream)
    return seconds


def _replayed(call: Call, calls: int) -> Timed:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()

    def turn() -> float:
        # Keeps the GPU busy while the host submits the replay that is timed.
        graph.replay()
        return _between_events(graph.replay) / calls

    turn()
    return Timed(turn, "graph")


def _queued(call: Call, calls: int) -> Timed:
    def burst() -> None:
        for _ in range(calls):
            call()

    def turn() -> float:
        torch.cuda._sleep(ASLEEP)
        return _between_events(burst) / calls

    return Timed(turn, "queue")


def _between_events(work: Callable[[], object]) -> float:
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began.record()
    work()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1e3


def in_turns(timed: dict[str, Timed], seconds: float) -> Turns:
    """Rounds of one turn each, for about ``seconds`` in all: FEWEST_ROUNDS at least, ROUNDS at most.

    The order moves on by one each round, so that nobody always follows the same neighbour.
    """
    turns = Turns({name: [] for name in timed}, {name: [] for name in timed})
    names = list(timed)
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        for number in range(ROUNDS):
            if number >= FEWEST_ROUNDS and time.perf_counter() - began > seconds:
                break
            shift = number % max(1, len(names))
            for name in names[shift:] + names[:shift]:
                turns.seconds[name].append(timed[name].turn())
                turns.undisturbed[name].append(True)
    finally:
        gc.enable()
    return turns
