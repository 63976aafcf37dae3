"""The CUDA kernels, run on the host: the very bodies of csrc/cuda, bit for bit against the reference.

A C++ compiler builds csrc/cuda/lif_cuda.cu behind a small stand-in for CUDA (host_cuda/cuda_runtime.h),
so that launchers and kernels are tested on machines without a GPU. What the compiler and the hardware
add to them cannot show here; test_cuda_compile.py and the GPU tests look at that.

Every buffer lies between guards and starts poisoned, so that an element left out, a row too far or a
write into the gap between two rows shows.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from _compile import cxx
from host_cuda.harness import Buffer, Call, HostKernels, HostParameter, HostSeries, build, difference
from torch import Tensor

from lif_cuda import reference
from lif_cuda.surrogate import FastSigmoid

# Set by test_sanitized for the second run of this file.
SANITIZED = os.environ.get("LIF_HOST_CUDA_SANITIZE") == "1"

SURROGATE = FastSigmoid(k=7.3, scale=1.7)
DTYPES = (torch.float32, torch.float64)
LONGEST_CHUNK = 113  # of 128 threads * 16 bytes in 227 KiB

FORWARD_OUTPUTS = frozenset({"spikes", "count", "final_membrane", "checkpoints"})
BACKWARD_OUTPUTS = frozenset({"grad_x", "grad_x_sum", "grad_membrane", "grad_beta", "grad_threshold"})
FORWARD_BUFFERS = FORWARD_OUTPUTS | {"x", "membrane"}
BACKWARD_BUFFERS = BACKWARD_OUTPUTS | {
    "x", "membrane", "checkpoints", "grad_out", "grad_final_membrane"
}  # fmt: skip
EVERYTHING = FORWARD_BUFFERS | BACKWARD_BUFFERS


@dataclass(frozen=True)
class Case:
    """One forward and one backward launch, and what is special about them."""

    steps: int = 5
    inner: int = 8
    outer: int = 1
    dtype: torch.dtype = torch.float32
    chunk: int = 0  # steps between checkpoints; 0: none
    batch_first: bool = False
    slack: int = 0  # elements between two rows
    constant_input: bool = False
    gradient: str = "spikes"  # or constant, uniform, uniform constant, none
    membrane: bool = True
    grad_final: bool = True
    beta_period: int | None = 0  # 0: a value for each neuron; None: a number
    threshold_period: int | None = 0
    detach: bool = False
    on_grid: bool = False  # numbers such that u often equals the threshold
    wanted: frozenset[str] = FORWARD_OUTPUTS | BACKWARD_OUTPUTS
    misaligned: frozenset[str] = frozenset()  # buffers that start off a 16-byte boundary

    def __str__(self) -> str:
        default = Case()
        parts = []
        for name, value in vars(self).items():
            if value != getattr(default, name):
                shown = value
                if isinstance(value, frozenset):
                    shown = "all" if value == EVERYTHING else "+".join(sorted(value)) or "none"
                parts.append(f"{name}={shown}".replace("torch.", ""))
        return ",".join(parts) or "plain"

    def strides(self) -> tuple[int, int, int]:
        """Of [outer, steps, inner]: rows ``slack`` apart, outer or time varying slowest."""
        row = self.inner + self.slack
        return (self.steps * row, row, 1) if self.batch_first else (row, self.outer * row, 1)

    def width(self, buffers: frozenset[str]) -> int:
        """Neurons a thread with which a launch that uses ``buffers`` has only aligned accesses."""
        wide = 16 // self.dtype.itemsize
        rows = self.inner % wide == 0 and (self.inner + self.slack) % wide == 0
        return wide if rows and not self.misaligned & buffers else 1


class Problem:
    """The numbers of a case, and what the reference makes of them.

    Tensors are [outer, steps, inner] or [outer, inner]; a constant input has steps 1.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.generator = torch.Generator().manual_seed(case.steps * 1009 + case.outer * case.inner)
        outer, steps, inner = case.outer, case.steps, case.inner
        self.x = self.random(outer, 1 if case.constant_input else steps, inner) * 0.8 + 0.3
        self.membrane = self.random(outer, inner) if case.membrane else None
        if case.on_grid:
            self.x = (self.x * 4).round() / 4
            self.membrane = (self.random(outer, inner) * 2).round() / 2
        self.beta_number = 0.5 if case.on_grid else 0.9
        self.beta_values = self.parameter(case.beta_period, 0.0)
        self.threshold_values = self.parameter(case.threshold_period, 0.5)
        self.grad_final = self.random(outer, inner) if case.grad_final else None
        constant, uniform = "constant" in case.gradient, "uniform" in case.gradient
        self.grad_out: Tensor | None = None
        if case.gradient != "none":
            self.grad_out = self.random(outer, 1 if constant else steps, 1 if uniform else inner)

    def random(self, *sizes: int) -> Tensor:
        return torch.randn(sizes, dtype=self.case.dtype, generator=self.generator)

    def parameter(self, period: int | None, low: float) -> Tensor | None:
        """``period`` values in [low, low + 1), or None for a number."""
        if period is None:
            return None
        size = period or self.case.outer * self.case.inner
        return low + torch.rand(size, dtype=self.case.dtype, generator=self.generator)

    def per_neuron(self, values: Tensor | None, number: float) -> Tensor:
        """A parameter as a tensor with an element of its own for each neuron."""
        shape = (self.case.outer, self.case.inner)
        if values is None:
            return torch.full(shape, number, dtype=self.case.dtype)
        return values.repeat(shape[0] * shape[1] // len(values)).reshape(shape)

    def solve(self) -> dict[str, Tensor]:
        """All outputs, by the reference; those of BACKWARD_OUTPUTS for a parameter as float64 sums."""
        case = self.case
        beta = self.per_neuron(self.beta_values, self.beta_number)
        threshold = self.per_neuron(self.threshold_values, 1.0)
        start = torch.zeros_like(beta) if self.membrane is None else self.membrane.clone()
        x = self.x.expand(-1, case.steps, -1).transpose(0, 1).clone()
        x.requires_grad_()
        start.requires_grad_()
        options = {"detach_reset": case.detach, "surrogate": SURROGATE}

        spikes, final = reference.lif(x, beta, threshold, start, **options)
        grad_x, grad_start = self.gradients(spikes, final, [x, start])
        solved = {
            "spikes": spikes.transpose(0, 1),
            "count": sum(spikes, torch.zeros_like(start)),
            "final_membrane": final,
            "grad_x": grad_x.transpose(0, 1),
            "grad_x_sum": sum(reversed(grad_x), torch.zeros_like(start)),
            "grad_membrane": grad_start,
        }
        if case.constant_input:
            # Through the reference's own constant input: the same order of sums is part of the promise.
            constant = self.x[:, 0].clone().requires_grad_()
            outputs = reference.lif(constant, beta, threshold, start, steps=case.steps, **options)
            (solved["grad_x_sum"],) = self.gradients(*outputs, [constant])

        before = [start]  # the membrane before each step
        for current in x:
            before.append(reference.lif(current, beta, threshold, before[-1], steps=1)[1])
        every = case.chunk or max(case.steps, 1)
        checkpoints = before[every : case.steps : every]
        solved["checkpoints"] = torch.stack(checkpoints) if checkpoints else start.new_zeros(0)
        solved = {name: tensor.detach() for name, tensor in solved.items()}
        before = [tensor.detach().double() for tensor in before]
        return solved | self.parameter_sums(beta, before, solved["spikes"], solved["grad_x"])

    def gradients(self, spikes: Tensor, final: Tensor, inputs: list[Tensor]) -> list[Tensor]:
        """Of spikes [steps, outer, inner] and final membrane, by autograd; zeros where there are none."""
        pairs = []
        if self.grad_out is not None and self.case.steps > 0:
            pairs.append((spikes, self.grad_out.transpose(0, 1).expand(spikes.shape)))
        if self.grad_final is not None:
            pairs.append((final, self.grad_final))
        pairs = [(output, grad) for output, grad in pairs if output.requires_grad]
        found: tuple[Tensor | None, ...] = (None,) * len(inputs)
        if pairs:
            outputs, grads = zip(*pairs, strict=True)
            found = torch.autograd.grad(outputs, inputs, grads, allow_unused=True)
        return [
            torch.zeros_like(tensor) if grad is None else grad
            for tensor, grad in zip(inputs, found, strict=True)
        ]

    def parameter_sums(
        self, beta: Tensor, before: list[Tensor], spikes: Tensor, grad_x: Tensor
    ) -> dict[str, Tensor]:
        """Gradients of beta and threshold, and the sums of their absolute terms, in float64.

        From d[t] = dL/dx[t] alone, in other steps than the kernels': what reaches the spike is the
        difference of d and a.
        """
        names = ("grad_beta", "grad_beta terms", "grad_threshold", "grad_threshold terms")
        sums = {name: torch.zeros_like(before[0]) for name in names}
        a = torch.zeros_like(beta) if self.grad_final is None else self.grad_final
        for t in reversed(range(self.case.steps)):
            d = grad_x[:, t].double()
            beta_term = d * before[t]
            reset_term = a.double() * spikes[:, t]
            sums["grad_beta"] += beta_term
            sums["grad_beta terms"] += beta_term.abs()
            sums["grad_threshold"] -= d - a.double() + reset_term
            sums["grad_threshold terms"] += d.abs() + a.double().abs() + reset_term.abs()
            a = beta * grad_x[:, t]
        return sums


class Launcher:
    """The buffers of a case, and the call that names them."""

    def __init__(self, case: Case, problem: Problem) -> None:
        self.case = case
        self.written: dict[str, Buffer] = {}
        self.kept: list[Buffer] = []
        self.call = Call(case.outer, case.steps, case.inner)
        call = self.call
        call.x = self.series(self.given("x", problem.x, case.strides()))
        call.membrane = self.address(self.given("membrane", problem.membrane, (case.inner, 1)))
        call.beta = self.parameter("beta", problem.beta_values, problem.beta_number)
        call.threshold = self.parameter("threshold", problem.threshold_values, 1.0)
        call.slope, call.scale = SURROGATE.slope, SURROGATE.scale
        call.detach_reset = case.detach

    def buffer(self, name: str, sizes: tuple[int, ...], strides: tuple[int, ...]) -> Buffer:
        offset = 1 if name in self.case.misaligned else 0
        guard = 0 if SANITIZED else 32
        buffer = Buffer(sizes, strides, self.case.dtype, offset, guard)
        self.kept.append(buffer)
        return buffer

    def given(self, name: str, tensor: Tensor | None, strides: tuple[int, ...]) -> Buffer | None:
        """An input."""
        if tensor is None:
            return None
        buffer = self.buffer(name, tuple(tensor.shape), strides)
        buffer.view.copy_(tensor)
        return buffer

    def output(self, name: str, sizes: tuple[int, ...], strides: tuple[int, ...]) -> Buffer | None:
        """An output, if the case wants it."""
        if name not in self.case.wanted:
            return None
        self.written[name] = self.buffer(name, sizes, strides)
        return self.written[name]

    @staticmethod
    def address(buffer: Buffer | None) -> int | None:
        return None if buffer is None else buffer.address

    def series(self, buffer: Buffer | None) -> HostSeries:
        """A tensor [outer, steps, inner] as the kernels see it; one step is a constant."""
        if buffer is None:
            return HostSeries(None, 0, 0)
        outer, time, _ = buffer.view.stride()
        constant = buffer.view.shape[1] == 1 and self.case.steps != 1
        return HostSeries(buffer.address, outer, 0 if constant else time)

    def parameter(self, name: str, values: Tensor | None, number: float) -> HostParameter:
        if values is None:
            return HostParameter(None, 1, number)
        return HostParameter(self.address(self.given(name, values, (1,))), len(values), number)

    def checkpoint_sizes(self) -> tuple[int, int, int]:
        every = self.case.chunk or max(self.case.steps, 1)
        return max(-(-self.case.steps // every) - 1, 0), self.case.outer, self.case.inner

    def forward(self) -> Call:
        """The call of a forward launch."""
        case, call = self.case, self.call
        features, dense = (case.outer, case.inner), (case.inner, 1)
        shape = (case.outer, case.steps, case.inner)
        call.spikes = self.series(self.output("spikes", shape, case.strides()))
        call.count = self.address(self.output("count", features, dense))
        call.final_membrane = self.address(self.output("final_membrane", features, dense))
        if case.chunk:
            strides = (case.outer * case.inner, case.inner, 1)
            checkpoints = self.output("checkpoints", self.checkpoint_sizes(), strides)
            call.checkpoints = self.address(checkpoints)
        call.chunk = case.chunk
        return call

    def backward(self, problem: Problem, checkpoints: Tensor) -> Call:
        """The call of a backward launch."""
        case, call = self.case, self.call
        features, dense = (case.outer, case.inner), (case.inner, 1)
        shape = (case.outer, case.steps, case.inner)
        call.checkpoints = None
        if case.chunk:
            strides = (case.outer * case.inner, case.inner, 1)
            sizes = self.checkpoint_sizes()
            given = self.given("checkpoints", checkpoints.reshape(sizes), strides)
            call.checkpoints = self.address(given)
        call.chunk = case.chunk or max(case.steps, 1)
        if problem.grad_out is not None:
            uniform = problem.grad_out.shape[2] == 1 and case.inner != 1
            strides = (problem.grad_out.shape[1], 1, 1) if uniform else case.strides()
            call.grad_out = self.series(self.given("grad_out", problem.grad_out, strides))
            call.grad_out_uniform = uniform
        final = self.given("grad_final_membrane", problem.grad_final, dense)
        call.grad_final_membrane = self.address(final)
        if not case.constant_input:
            call.grad_x = self.series(self.output("grad_x", shape, case.strides()))
        call.grad_x_sum = self.address(self.output("grad_x_sum", features, dense))
        call.grad_membrane = self.address(self.output("grad_membrane", features, dense))
        call.grad_beta = self.address(self.output("grad_beta", features, dense))
        call.grad_threshold = self.address(self.output("grad_threshold", features, dense))
        return call


def check(kernels: HostKernels, case: Case) -> None:
    """Run a case forward and backward and compare all of it with the reference."""
    problem = Problem(case)
    solved = problem.solve()
    launcher = Launcher(case, problem)

    assert kernels.launch("forward", launcher.forward(), case.dtype) == 0
    used = (FORWARD_BUFFERS - FORWARD_OUTPUTS) | set(launcher.written)
    assert kernels.launched_width() == case.width(used)
    compare(launcher, solved, case)

    launcher.written.clear()
    call = launcher.backward(problem, solved["checkpoints"])
    assert kernels.launch("backward", call, case.dtype) == 0
    used = (BACKWARD_BUFFERS - BACKWARD_OUTPUTS) | set(launcher.written)
    assert kernels.launched_width() == case.width(used)
    compare(launcher, solved, case)


def compare(launcher: Launcher, solved: dict[str, Tensor], case: Case) -> None:
    """Hold what was written against the reference: bits, or bounds for the gradients of parameters."""
    epsilon = torch.finfo(case.dtype).eps
    for name, buffer in launcher.written.items():
        if name in ("grad_beta", "grad_threshold"):
            # A rounding for each of T additions and a few for each term.
            bound = (case.steps + 8) * epsilon * solved[f"{name} terms"]
            error = (buffer.view.double() - solved[name]).abs()
            assert (error <= bound).all(), f"{name}: off by {(error / bound).max():.3g} bounds"
        else:
            found = difference(buffer.view, solved[name].reshape(buffer.view.shape))
            assert found is None, f"{name}: {found}"
        buffer.check_surroundings()


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    """csrc/cuda/lif_cuda.cu, compiled for the host."""
    compiler = cxx()
    if compiler is None:
        pytest.skip("no C++ compiler")
    return build(compiler, tmp_path_factory.mktemp("host_cuda"), sanitized=SANITIZED)


def cases_of_all_kinds() -> list[Case]:
    """The special features, one at a time and some together; widths and dtypes are the tests' own."""
    lengths = [Case(steps=t) for t in (0, 1, 2, 3, 4, 25, 28, 29, 100)]
    chunks = [
        Case(steps=t, chunk=k)
        for t, k in (
            (29, 15), (100, 20), (100, 19), (100, 33), (25, 24), (25, 25), (25, 1000), (5, 1), (7, 3),
            (9, 4), (0, 20), (1, 1),
        )
    ]  # fmt: skip
    gradients = [
        Case(steps=t, chunk=k, outer=outer, batch_first=outer == 3, gradient=gradient, grad_final=final)
        for gradient in ("constant", "uniform", "uniform constant", "none")
        for final in (True, False)
        for t, k, outer in ((7, 0, 1), (11, 5, 3))
    ]
    inputs = [
        Case(constant_input=True, steps=t, chunk=k, gradient=gradient)
        for t, k in ((0, 0), (1, 0), (3, 0), (25, 0), (29, 15))
        for gradient in ("spikes", "constant")
    ]
    # Rows of 13 elements 16 apart: every row is aligned, and yet no row is a number of whole packs.
    layouts = [
        Case(outer=3, batch_first=batch_first, slack=slack, steps=t, chunk=k, inner=inner)
        for batch_first in (False, True)
        for inner, slack in ((12, 0), (12, 4), (12, 3), (13, 3))
        for t, k in ((5, 0), (11, 4))
    ]
    layouts += [
        Case(outer=3, batch_first=True, constant_input=True, inner=inner, slack=slack)
        for inner, slack in ((12, 4), (13, 3))
    ]
    layouts.append(Case(inner=13, slack=3, constant_input=True, wanted=frozenset({"count", "grad_x_sum"})))
    parameters = [
        Case(beta_period=beta, threshold_period=threshold, outer=3, inner=8, detach=detach)
        for beta, threshold in ((None, None), (8, 8), (3, 6), (1, 24), (24, 1), (None, 2), (4, None))
        for detach in (False, True)
    ]
    others = [
        Case(membrane=False),
        Case(membrane=False, steps=29, chunk=15, detach=True),
        Case(membrane=False, steps=0, grad_final=False),
        Case(on_grid=True, beta_period=None, threshold_period=None, steps=50, chunk=20, inner=64),
    ]
    outputs = [
        Case(steps=7, chunk=chunk, wanted=frozenset(wanted), constant_input=constant)
        for wanted in (
            *({name} for name in sorted(FORWARD_OUTPUTS | BACKWARD_OUTPUTS)),
            {"spikes", "count"}, {"count", "final_membrane"}, {"grad_x", "grad_beta"}, set(),
        )
        for chunk, constant in ((3, False), (0, True))
    ]  # fmt: skip
    return lengths + chunks + gradients + inputs + layouts + parameters + others + outputs


def edges() -> list[Case]:
    """Sizes around whole blocks: 256 threads forward, 128 backward."""
    found = []
    for dtype in DTYPES:
        wide = 16 // dtype.itemsize
        for inner in (1, 2, 3, 127, 128, 129, 255, 256, 257, 513):
            found.append(Case(inner=inner, steps=3, dtype=dtype, misaligned=EVERYTHING))
        for threads in (1, 127, 128, 129, 255, 256, 257, 513):
            found.append(Case(inner=threads * wide, steps=3, dtype=dtype))
        found.append(Case(inner=43 * wide, outer=3, batch_first=True, steps=3, dtype=dtype))
        found.append(Case(inner=129, outer=2, batch_first=True, steps=5, chunk=2, dtype=dtype))
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("misaligned", [frozenset(), EVERYTHING], ids=["wide", "narrow"])
@pytest.mark.parametrize("case", cases_of_all_kinds(), ids=str)
def test_like_reference(
    kernels: HostKernels, case: Case, misaligned: frozenset[str], dtype: torch.dtype
) -> None:
    check(kernels, Case(**{**vars(case), "misaligned": misaligned, "dtype": dtype}))


@pytest.mark.parametrize("case", edges(), ids=str)
def test_block_edges(kernels: HostKernels, case: Case) -> None:
    check(kernels, case)


@pytest.mark.parametrize("name", sorted(EVERYTHING))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_misaligned_buffer(kernels: HostKernels, name: str, dtype: torch.dtype) -> None:
    """The launch takes 16 bytes at once only where each buffer allows it: a device would fault."""
    check(kernels, Case(dtype=dtype, steps=7, chunk=3, misaligned=frozenset({name})))


def test_misaligned_uniform_gradient_stays_wide(kernels: HostKernels) -> None:
    """A gradient with one value a step is read element by element, wherever it lies."""
    case = Case(gradient="uniform")
    problem = Problem(case)
    solved = problem.solve()
    launcher = Launcher(Case(gradient="uniform", misaligned=frozenset({"grad_out"})), problem)
    call = launcher.backward(problem, solved["checkpoints"])
    assert kernels.launch("backward", call, case.dtype) == 0
    assert kernels.launched_width() == 4
    compare(launcher, solved, case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_longest_chunk(kernels: HostKernels, dtype: torch.dtype) -> None:
    """The longest chunk runs; one step more is an error of CUDA, not a wrong answer."""
    assert kernels.longest_chunk(dtype) == LONGEST_CHUNK
    check(kernels, Case(steps=LONGEST_CHUNK, dtype=dtype))
    case = Case(steps=LONGEST_CHUNK + 1, dtype=dtype)
    problem = Problem(case)
    launcher = Launcher(case, problem)
    assert kernels.launch("backward", launcher.backward(problem, torch.empty(0)), dtype) != 0
    for buffer in launcher.written.values():
        assert buffer.view.isnan().all()


def test_guards_see_a_stray_write() -> None:
    """The net itself holds: a write next to the view, or in a gap between its rows, is reported."""
    for offset, position in itertools.product((0, 1), (31, 32 + 3, 32 + 7)):
        buffer = Buffer((2, 3), (4, 1), torch.float32, offset)
        buffer.view.fill_(1.0)
        buffer.check_surroundings()
        buffer.memory[position + offset] = 0.0
        with pytest.raises(AssertionError, match="outside"):
            buffer.check_surroundings()


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="this is the run that test_sanitized started")
def test_sanitized(tmp_path: Path) -> None:
    """Most of the above once more, under the address and undefined-behaviour sanitizers of GCC.

    They see what no result shows: a load past the end whose value is not used.
    """
    compiler = cxx()
    if compiler is None:
        pytest.skip("no C++ compiler")
    asked = [compiler, "-print-file-name=libasan.so"]
    library = Path(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip())
    if not library.is_absolute():
        pytest.skip("the C++ compiler has no libasan.so to load into Python")
    environment = os.environ | {
        "LIF_HOST_CUDA_SANITIZE": "1",
        "LD_PRELOAD": str(library.resolve()),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # Python keeps memory until it ends; and it is Python that is preloaded.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["--basetemp", str(tmp_path / "sanitized")]
    # The kernels are the same templates for both types: one is enough to look for stray accesses.
    done = subprocess.run(
        [*command, "-k", "not (like_reference and float64)", __file__],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
