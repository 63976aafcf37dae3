"""The CUDA kernels, run on the host: the very bodies of csrc/cuda, bit for bit against the reference.

A C++ compiler builds csrc/cuda/lif_cuda.cu, behind a small stand-in for CUDA (host_cuda/cuda_runtime.h),
into an operator library on CPU tensors, which takes the place of the CPU kernels. So launchers, kernels
and bindings are tested on machines without a GPU. What the compiler and the hardware add to them cannot
show here; test_cuda_compile.py and the GPU tests look at that.

Outputs are poisoned first, so that an element left out shows; a write beside a tensor, or a load whose value
is not used, shows to the address sanitizer, under which most of this file runs once more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from _compile import cxx
from compare import assert_same_numbers, draw, raw_arguments
from compare import run as run_inputs
from family import EXACT_SURROGATES, SeededPick, assert_same, draw_case, kept_in_bits, run
from host_cuda.harness import HostKernels, build

from lif_cuda import _ops, functional, reference

# Set by test_sanitized for the second run of this file.
SANITIZED = os.environ.get("LIF_HOST_CUDA_SANITIZE") == "1"

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
WIDTH = {torch.float32: 4, torch.float64: 2, torch.float16: 4, torch.bfloat16: 4}
LONGEST_CHUNK = 454  # of 32 threads * 16 bytes in 227 KiB


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    """csrc/cuda/lif_cuda.cu, compiled for the host."""
    compiler = cxx()
    if compiler is None:
        pytest.skip("no C++ compiler")
    return build(compiler, tmp_path_factory.mktemp("host_cuda"), sanitized=SANITIZED)


@pytest.fixture
def kernels(built: HostKernels) -> Iterator[HostKernels]:
    """The kernels in the place of the CPU's, and what torch allocates filled with NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        with built.in_use():
            yield built
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("seed", range(1000, 1200))
def test_drawn_calls_equal_the_reference(kernels: HostKernels, seed: int) -> None:
    case = draw_case(SeededPick(seed), seed)
    assert_same(run(functional.lif, case), run(reference.lif, case), case.x.dtype)


@pytest.mark.parametrize("seed", range(2000, 2060))
def test_two_bits_a_step(kernels: HostKernels, seed: int) -> None:
    case = kept_in_bits(draw_case(SeededPick(seed), seed), SeededPick(seed))
    assert_same(run(functional.lif, case), run(reference.lif, case), case.x.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("detach", [False, True], ids=["", "detached"])
@pytest.mark.parametrize("constant", [False, True], ids=["series", "constant"])
@pytest.mark.parametrize("wide", [True, False], ids=["wide", "narrow"])
def test_plain_neurons(
    kernels: HostKernels, reset: str, detach: bool, constant: bool, wide: bool, dtype: torch.dtype
) -> None:
    """Both widths of the plain tier, over whole blocks and their ragged end, one chunk and several."""
    strict = detach
    size = 4 * 67 if wide else 269
    for steps in (1, 5, 28, 29, 61):
        state = torch.float64 if dtype == torch.float64 else torch.float32
        inputs = draw(
            steps, (2 if wide else 3, size), state, constant=constant, beta=(size,), threshold=(size,)
        )
        if state != dtype:
            inputs = inputs._replace(x=inputs.x.to(dtype), grad_out=inputs.grad_out.to(dtype))
        options = {
            "steps": steps if constant else None,
            "reset": reset,
            "detach_reset": detach,
            "strict": strict,
            "v_reset": -0.2 if reset == "zero" else 0.0,
            "gain": 0.75,
        }
        fused = run_inputs(functional.lif, inputs, **options)
        assert kernels.last_kernel == ("wide" if wide else "narrow")
        assert_same_numbers(fused, run_inputs(reference.lif, inputs, **options))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_block_edges(kernels: HostKernels, dtype: torch.dtype) -> None:
    """Sizes around whole blocks: 256 threads forward, 128 backward, of one neuron and of several."""
    width = WIDTH[dtype]
    for threads in (1, 127, 128, 129, 255, 256, 257, 513):
        for size in (threads, threads * width):
            x = torch.randn(3, size).to(dtype)
            results = []
            for function in (functional.lif, reference.lif):
                leaf = x.clone().requires_grad_()
                out, membrane = function(leaf, 0.9)
                (grad,) = torch.autograd.grad(out.float().square().sum() + membrane.sum(), leaf)
                results.append((out, membrane, grad))
            for fused, expected in zip(*results, strict=True):
                assert torch.equal(fused, expected), (size, dtype)


def test_a_launch_is_wide_only_where_all_is_aligned(kernels: HostKernels) -> None:
    """16 bytes at once where each buffer allows it: a device would fault."""
    base = torch.randn(5 * 2 * 64 + 1)
    aligned = base[:-1].view(5, 2, 64)
    for x, expected in (
        (aligned, "wide"),
        (base[1:].view(5, 2, 64), "narrow"),
        (aligned[:, :, :62].contiguous(), "wide"),  # 124 neurons a step: whole packs
        (aligned[:, :1, :62].contiguous(), "narrow"),  # 62 are not
        (aligned.view(5, 128)[:, 1:], "narrow"),
        (aligned[:, :1].expand(5, 2, 64), "wide"),
    ):
        functional.lif(x, 0.9)
        assert kernels.last_kernel == expected, x.shape
    leaf = aligned.clone().requires_grad_()
    for grad, expected in (
        (torch.randn(5, 2, 64), "wide"),
        (torch.randn(5 * 2 * 64 + 1)[1:].view(5, 2, 64), "narrow"),
        (torch.randn(2)[1:].expand(5, 2, 64), "wide"),  # one value is read by itself, wherever it lies
    ):
        out = functional.lif(leaf, 0.9, return_state=False)
        out.backward(grad)
        assert kernels.last_kernel == expected


def test_few_neurons_go_narrow(kernels: HostKernels) -> None:
    """Where wide blocks would leave multiprocessors idle, four times as many narrow ones run."""
    with kernels.device(multiprocessors=132):
        for neurons, expected in ((65536, "narrow"), (132 * 1024, "wide")):
            functional.lif(torch.zeros(1, neurons), 0.9)
            assert kernels.last_kernel == expected


@pytest.mark.parametrize(
    "option",
    [
        {"alpha": 0.5},
        {"kappa": 0.1, "rho": 0.5},
        {"refractory": 1},
        {"rest": 0.1},
        {"delay_reset": True, "detach_reset": True},
        {"gain": torch.ones(64)},
        {"reset": "zero", "v_reset": torch.zeros(64)},
        {"output": "trace"},
        {"output": "trace_before_reset"},
        {"output": "first_spike"},
    ],
    ids=lambda option: ",".join(option),
)
def test_what_the_general_kernels_are_for(kernels: HostKernels, option: dict[str, object]) -> None:
    functional.lif(torch.zeros(3, 64), 0.9, **option)
    assert kernels.last_kernel == "general"


def test_longest_chunk(kernels: HostKernels) -> None:
    """The longest chunk that a block's shared memory holds; one step more is an error of CUDA."""
    assert kernels.longest_chunk == LONGEST_CHUNK
    for steps, fails in ((LONGEST_CHUNK, False), (LONGEST_CHUNK + 1, True)):
        call = raw_arguments(torch.randn(steps, 64), {_ops.FIRST_GRADIENT: torch.ones(steps, 64)}, asked=1)
        if fails:
            with pytest.raises(RuntimeError, match="CUDA error"):
                torch.ops.lif_cuda_on_host.lif_backward(*call)
        else:
            torch.ops.lif_cuda_on_host.lif_backward(*call)


@pytest.mark.parametrize("size", [64 * 1024, 99 * 1024], ids=["7.5", "8.6 and 12.0"])
def test_devices_of_little_shared_memory(kernels: HostKernels, size: int) -> None:
    """The neuron that keeps most, in fp64 and in the longest chunk, in the blocks that fit such a device."""
    x = torch.randn(28, 300, dtype=torch.float64)

    def call(backend: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = x.clone().requires_grad_()
        spikes = backend(
            leaf, 0.9, alpha=0.8, kappa=0.3, rho=0.9, refractory=2, threshold=0.5, return_state=False
        )
        (spikes * torch.linspace(-1, 1, 300, dtype=torch.float64)).sum().backward()
        assert leaf.grad is not None
        return spikes, leaf.grad

    expected = call(reference.lif)
    with kernels.device(shared_bytes=size):
        found = call(functional.lif)
        assert kernels.last_kernel == "general"
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_the_poison_is_there(kernels: HostKernels) -> None:
    """Without it, an output that is left unwritten could hold last call's right answer."""
    assert torch.empty(1000).isnan().all()
    assert len(EXACT_SURROGATES) > 5


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="this is the run that test_sanitized started")
def test_sanitized(tmp_path: Path) -> None:
    """Part of the above once more, under the address and undefined-behaviour sanitizers of GCC."""
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
    done = subprocess.run(
        [*command, "-k", "not longest_chunk and not wide-float64", __file__],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
