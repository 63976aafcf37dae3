"""The CPU kernels of several revisions against each other, on one thread.

    python bench/revisions.py HEAD~1 . --shapes 25x512 25x131072
    python bench/revisions.py d97b03b . --learn-beta

A revision is what git knows by that name; ``.`` is the working tree. Each is compiled without torch and
loaded into this one process, where all take turns, and must give the bits of the first. Memory is taken
once, and its tensors begin at other places of their pages in each round: a kernel can be twice as slow
where what it reads and what it writes lie at the same place (``collides`` in csrc/cpu/level/access.inl). The
copy moves what forward has to move, and ``x + g`` what the way back has to. Of the rounds in which the
processor was disturbed (common/turns.py) the medians stand apart.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from common.build import CXX_FLAGS
from common.turns import Yardstick

_ROOT = Path(__file__).resolve().parent.parent

_PAGE, _LINE = 4096, 64
_Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


class Call(ctypes.Structure):
    """As in revisions.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "neurons", "repeat", "checkpoint_every")),
        *((name, ctypes.c_int32) for name in ("bfloat16", "constant", "reset_zero")),
        *((name, ctypes.c_void_p) for name in ("x", "grad", "spikes", "grad_x")),
        *((name, ctypes.c_void_p) for name in ("count", "grad_beta", "grad_threshold", "checkpoints")),
    )


def compiled(revision: str, folder: Path) -> ctypes.CDLL:
    """The kernels of a revision as a library."""
    source = _ROOT
    if revision != ".":
        source = folder / "source"
        source.mkdir(parents=True)
        archive = subprocess.run(
            ["git", "-C", str(_ROOT), "archive", revision, "csrc"], check=False, capture_output=True
        )
        if archive.returncode:
            reason = archive.stderr.decode().strip()
            raise SystemExit(
                f"{revision!r} must be a revision that git knows, or . (what lies here): {reason}"
            )
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive.stdout, check=True)
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise SystemExit("no C++ compiler: set CXX to one")
    flags = [*CXX_FLAGS, "-std=c++20", "-fPIC", f"-I{source / 'csrc'}"]
    driver = _ROOT / "bench" / "revisions.cpp"
    sources = [driver, *sorted((source / "csrc" / "cpu").glob("*.cpp"))]
    folder.mkdir(exist_ok=True)

    def compile_one(path: Path) -> str:
        target = str(folder / f"{path.stem}.o")
        subprocess.run([compiler, *flags, "-c", str(path), "-o", target], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    library = folder / "kernels.so"
    subprocess.run([compiler, "-shared", *objects, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


class Tensors:
    """The memory of a case, and a call on it."""

    def __init__(self, steps: int, neurons: int, options: argparse.Namespace) -> None:
        size = 2 if options.bfloat16 else 4
        chunks = max(2, (steps + 16) // 32)
        self.steps, self.neurons = steps, neurons
        self.every = 0 if steps <= 48 else -(-steps // chunks)
        self.options = options
        self.random = np.random.default_rng(0)
        series = steps * neurons * size
        self.of_x = neurons * size if options.constant else series
        self.x, self.grad, self.spikes, self.grad_x = (
            np.zeros(series + 2 * _PAGE, np.uint8) for _ in range(4)
        )
        self.count, self.grad_beta, self.grad_threshold = (np.zeros(neurons, np.float32) for _ in range(3))
        self.checkpoints = np.zeros((-(-steps // self.every) if self.every else 1) * neurons, np.float32)
        for memory in (self.x, self.grad):
            values = self.random.normal(0.3, 0.5, memory.size // size).astype(np.float32)
            words = values.view(np.uint32) >> 16 if options.bfloat16 else values.view(np.uint32)
            memory.view(np.uint16 if options.bfloat16 else np.uint32)[:] = words
        self.move()

    def move(self) -> None:
        """Let each tensor begin at another line of its page."""
        memories = (self.x, self.grad, self.spikes, self.grad_x)
        lengths = (self.of_x, self.spikes.size - 2 * _PAGE, self.spikes.size - 2 * _PAGE, self.of_x)
        places = self.random.integers(0, _PAGE // _LINE, 4) * _LINE
        self.views = [
            memory[(at := int(place - memory.ctypes.data) % _PAGE) : at + length]
            for memory, length, place in zip(memories, lengths, places, strict=True)
        ]

    def call(self, repeat: int) -> Call:
        x, grad, spikes, grad_x = (view.ctypes.data for view in self.views)
        return Call(
            self.steps,
            self.neurons,
            repeat,
            self.every,
            self.options.bfloat16,
            self.options.constant,
            self.options.reset_zero,
            x,
            self.grad.ctypes.data if self.options.constant else grad,
            spikes,
            grad_x,
            self.count.ctypes.data if self.options.constant else None,
            self.grad_beta.ctypes.data if self.options.learn_beta else None,
            self.grad_threshold.ctypes.data if self.options.learn_threshold else None,
            self.checkpoints.ctypes.data if self.every else None,
        )

    def results(self) -> list[_Bytes]:
        """Copies of what a call has written."""
        sums = (self.count, self.grad_beta, self.grad_threshold)
        return [output.copy() for output in (*self.views[2:], *(row.view(np.uint8) for row in sums))]

    def copy(self, repeat: int) -> tuple[float, float]:
        """The seconds of moving what the two passes have to move."""
        x, grad, spikes, grad_x = self.views
        began = time.perf_counter()
        for _ in range(repeat):
            np.copyto(spikes[: x.size], x)
        half = time.perf_counter()
        a, b, out = (view[: self.of_x].view(np.float32) for view in (x, grad, grad_x))
        for _ in range(repeat):
            np.add(a, b, out=out)
        return half - began, time.perf_counter() - half


def timed(library: ctypes.CDLL, call: Call) -> tuple[float, float]:
    """Seconds forward and back."""
    began = time.perf_counter()
    library.run_forward(ctypes.byref(call))
    half = time.perf_counter()
    library.run_backward(ctypes.byref(call))
    return half - began, time.perf_counter() - half


def quantiles(times: list[float]) -> str:
    """The median, and the tenth and the ninetieth of a hundred."""
    if len(times) < 2:
        return "too few"
    low, *_, high = statistics.quantiles(times, n=10)
    return f"{statistics.median(times):6.3f} ({low:.3f} to {high:.3f})"


def compare(
    libraries: dict[str, ctypes.CDLL],
    steps: int,
    neurons: int,
    options: argparse.Namespace,
    yardstick: Yardstick,
) -> None:
    """Verify, time and print one shape."""
    tensors = Tensors(steps, neurons, options)
    first: list[_Bytes] = []
    for name, kernels in libraries.items():
        timed(kernels, tensors.call(1))
        results = tensors.results()
        first = first or results
        if not all(np.array_equal(one, other) for one, other in zip(first, results, strict=True)):
            raise SystemExit(f"{name} gives other bits than {next(iter(libraries))} on [{steps}, {neurons}]")
    repeat = max(1, 2_000_000 // (steps * neurons))
    work = repeat * steps * neurons / 1e9
    names = (*libraries, "copy")
    # Of a contender: forward and backward, each of undisturbed and of disturbed rounds.
    times: dict[str, list[list[float]]] = {name: [[] for _ in range(4)] for name in names}
    began = time.perf_counter()
    rounds = 0
    while time.perf_counter() - began < options.seconds or rounds < 10:
        rounds += 1
        tensors.move()
        for name, lists in times.items():
            library = libraries.get(name)
            before = yardstick.measure()
            once = timed(library, tensors.call(repeat)) if library else tensors.copy(repeat)
            disturbed = not yardstick.undisturbed(max(before, yardstick.measure()))
            for i in range(2):
                lists[2 * i + disturbed].append(once[i] / work)
    print(f"\n[{steps}, {neurons}], ns a neuron-step: median (tenth to ninetieth of a hundred)")
    for kind, of_kind in enumerate(("undisturbed", "disturbed")):
        for name, lists in times.items():
            forward, backward = lists[kind], lists[2 + kind]
            print(
                f"  {of_kind:12}{len(forward):5} x {name:20} forward {quantiles(forward)}"
                f"   backward {quantiles(backward)}"
            )


def shape_of(text: str) -> tuple[int, int]:
    """Time steps and neurons, written TxN."""
    steps, _, neurons = text.partition("x")
    if not (steps.isdecimal() and neurons.isdecimal() and int(steps) and int(neurons)):
        raise argparse.ArgumentTypeError(f"a shape must be TxN, as in 25x512, got {text!r}")
    return int(steps), int(neurons)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revisions", nargs="+")
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=shape_of,
        default=[(25, 512), (25, 131072), (16, 1048576)],
        metavar="TxN",
        help="time steps and neurons, as in 25x512",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="for each shape (%(default)s)")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--learn-beta", action="store_true")
    parser.add_argument("--learn-threshold", action="store_true")
    parser.add_argument("--reset-zero", action="store_true", help="to zero, attached")
    parser.add_argument("--constant", action="store_true", help="a constant input, and counts out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    yardstick = Yardstick()
    with tempfile.TemporaryDirectory() as folder:
        libraries = {
            revision: compiled(revision, Path(folder) / str(i))
            for i, revision in enumerate(options.revisions)
        }
        for steps, neurons in options.shapes:
            compare(libraries, steps, neurons, options, yardstick)


if __name__ == "__main__":
    main()
