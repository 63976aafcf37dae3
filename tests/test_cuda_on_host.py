"""The CUDA kernels, run on the host: the very bodies of csrc/cuda, bit for bit against the reference.

A C++ compiler builds csrc/cuda, behind a small stand-in for CUDA (host_cuda/machine.h), into an operator
library on CPU tensors, which takes the place of the CPU kernels. So launchers, kernels and bindings are
tested on machines without a GPU: barriers, copies in flight and several warps included, and each access to
shared memory is checked against those of other threads. What the compiler and the hardware add to them
cannot show here; test_cuda_compile.py and the GPU tests look at that.

Outputs are poisoned first, so that an element left out shows; a write beside a tensor, or a load whose value
is not used, shows to the address sanitizer, under which most of this file runs once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from _compile import cxx
from compare import raw_arguments
from family import EXACT_SURROGATES, Case, SeededPick, assert_same, draw_case, kept_in_bits, poison, run
from host_cuda.harness import HostKernels, build
from host_cuda.sanitized import SANITIZED, run_sanitized
from members import MEMBERS, PLAIN, Member, call_of
from torch import Tensor

from lif_cuda import _lengths, _ops, functional, reference
from lif_cuda.surrogate import (
    ATan,
    FastSigmoid,
    Gaussian,
    PiecewiseExp,
    Rectangle,
    Sigmoid,
    Surrogate,
    Triangle,
)

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TRAINED_IN = (torch.float32, torch.float16, torch.bfloat16)
WIDTH = {torch.float32: 4, torch.float64: 2, torch.float16: 4, torch.bfloat16: 4}
LONGEST_CHUNK = 908  # steps of 32 threads * 2 values * 4 bytes in 227 KiB
MANY = 132  # multiprocessors, for which the calls here have few neurons


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    """csrc/cuda, compiled for the host."""
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


def check(kernels: HostKernels, case: Case, *expected: str) -> None:
    """One launch each way, by kernels whose symbols hold the words expected, and the reference's numbers."""
    before = kernels.launches
    found = run(functional.lif, case)
    assert kernels.launches - before <= 2, "more than one launch each way"
    for word in expected:
        assert word in kernels.last_kernel_symbol, f"{word} of {kernels.last_kernel_symbol}: {case}"
    assert_same(found, run(reference.lif, case), case.x.dtype)


@pytest.mark.parametrize("seed", range(1000, 1200))
def test_drawn_calls_equal_the_reference(kernels: HostKernels, seed: int) -> None:
    case = draw_case(SeededPick(seed), seed)
    check(kernels, case)


@pytest.mark.parametrize("seed", range(2000, 2060))
def test_two_bits_a_step_drawn(kernels: HostKernels, seed: int) -> None:
    check(kernels, kept_in_bits(draw_case(SeededPick(seed), seed), SeededPick(seed)))


STEPS = (1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 48, 61)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("learn", [False, True], ids=["numbers", "learned"])
@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_wide_members(kernels: HostKernels, member: Member, learn: bool, dtype: torch.dtype) -> None:
    """Every member in its own kernels, over whole blocks and a ragged end, one chunk and several."""
    for at, steps in enumerate(STEPS):
        features = (2, 4 * 67) if at % 4 == 0 else (3, 8)
        strict, surrogate = at % 2 == 0, (FastSigmoid(7.0, scale=0.7), ATan())[at // 2 % 2]
        case = call_of(
            member, steps, features, dtype, learn=learn, strict=strict, surrogate=surrogate, seed=at
        )
        check(kernels, case, "wide_backward_kernel")


@pytest.mark.parametrize("threshold", [1.0, 0.5, 0.0, -0.25, float("inf")])
@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_membranes_at_the_threshold(kernels: HostKernels, member: Member, threshold: float) -> None:
    """On numbers of few digits a membrane often meets its threshold exactly: strict neurons stay silent."""
    for multiprocessors in (0, MANY):
        with kernels.device(multiprocessors=multiprocessors):
            spikes = []
            for strict in (False, True):
                case = call_of(member, 40, (2, 24), torch.float32, learn=False, strict=strict, gain=1.0)
                case.x = (case.x * 4).round() / 4
                case.states = {name: (state * 4).round() / 4 for name, state in case.states.items()}
                case.parameters |= dict.fromkeys(("beta", *member.parameters), 0.5)
                case.parameters["threshold"] = torch.tensor(threshold)
                if "v_reset" in case.parameters:
                    case.parameters["v_reset"] = 0.0
                check(kernels, case)
                spikes.append(run(reference.lif, case).results["spikes"])
            assert threshold == float("inf") or not torch.equal(*spikes), "no membrane met the threshold"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("constant", [False, True], ids=["series", "constant"])
@pytest.mark.parametrize("output", ["spikes", "count", ("spikes", "rate"), ("rate", "total")], ids=str)
@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_what_flows(
    kernels: HostKernels, member: Member, output: str, constant: bool, dtype: torch.dtype
) -> None:
    """Constant input, counts and rates: alone and beside spikes."""
    for steps in (1, 16, 21):
        for learn in (False, True):
            case = call_of(member, steps, (2, 12), dtype, learn=learn, constant=constant, output=output)
            check(kernels, case)
            case.uniform_gradients = True
            check(kernels, case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("learn", [False, True], ids=["numbers", "learned"])
@pytest.mark.parametrize("member", PLAIN, ids=str)
def test_few_neurons_for_long(kernels: HostKernels, member: Member, learn: bool, dtype: torch.dtype) -> None:
    """The long kernels: rings, producers and the way back, around whole stages and rounds of producers."""
    with kernels.device(multiprocessors=MANY):
        for steps, features in (
            (33, (32,)),
            (47, (1, 40)),
            (48, (3, 16)),
            (96, (64,)),
            (97, (8,)),
            (112, (2, 24)),
            (208, (8,)),
        ):
            case = call_of(member, steps, features, dtype, learn=learn, strict=steps % 2 == 1)
            check(kernels, case, "long_backward_kernel")
            # Rows of a batch that comes first: no warp may cross their ends.
            case.options["time_dim"] = 1
            case.x = case.x.movedim(0, -1) if len(features) == 1 else case.x.movedim(0, 1).contiguous()
            if len(features) > 1:
                check(kernels, case, "long_backward_kernel")


@pytest.mark.parametrize("output", ["count", ("spikes", "rate")], ids=str)
@pytest.mark.parametrize("constant", [False, True], ids=["series", "constant"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_flows_for_long(kernels: HostKernels, dtype: torch.dtype, constant: bool, output: str) -> None:
    with kernels.device(multiprocessors=MANY):
        for member in PLAIN:
            for learn in (False, True):
                case = call_of(member, 50, (5, 8), dtype, learn=learn, constant=constant, output=output)
                check(kernels, case, "long_backward_kernel")
                case.uniform_gradients = True
                check(kernels, case, "long_backward_kernel")


def test_forward_for_long(kernels: HostKernels) -> None:
    """Without a backward pass there are no checkpoints; x that cannot be copied in pieces goes wide."""
    with kernels.device(multiprocessors=MANY):
        for size, expected in ((40, "long_forward_kernel"), (39, "wide_forward_kernel")):
            x = torch.randn(100, 2, size) * 0.5 + 0.2
            with torch.no_grad():
                assert torch.equal(functional.lif(x, 0.9)[0], reference.lif(x, 0.9)[0])
            assert kernels.last_kernel == expected, size
        for steps in (1000, 1024):
            case = call_of(PLAIN[0], steps, (16,), torch.float32)
            check(kernels, case, "long_backward_kernel")


SHAPES = (
    FastSigmoid(7.0, scale=0.7),
    ATan(),
    Sigmoid(),
    Triangle(0.8),
    PiecewiseExp(),
    Gaussian(),
    Rectangle(0.7),
    EXACT_SURROGATES[-1],
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("surrogate", SHAPES, ids=lambda surrogate: type(surrogate).__name__)
def test_surrogates(kernels: HostKernels, surrogate: Surrogate, dtype: torch.dtype) -> None:
    """Each shape in the pass of its own, in the fused way back where it has one, and in the producers.

    The shapes with an exponential are the kernels' own, and agree with the CPU's kernels to the last bit.
    """
    for multiprocessors in (0, MANY):
        with kernels.device(multiprocessors=multiprocessors):
            for member in (PLAIN[1], PLAIN[3], MEMBERS[3]):
                for learn in (False, True):
                    case = call_of(member, 37, (24,), dtype, learn=learn, surrogate=surrogate)
                    found = run(functional.lif, case)
                    with kernels.out_of_use():
                        expected = run(functional.lif, case)
                    assert_same(found, expected, dtype)
                    if surrogate in EXACT_SURROGATES[:-1]:
                        assert_same(found, run(reference.lif, case), dtype)


@pytest.mark.parametrize("loud", [1e9, 3e18, 1e19, 2e19, 1e30, 3e38])
@pytest.mark.parametrize("surrogate", [FastSigmoid(7.0, scale=0.7), ATan()], ids=["fast_sigmoid", "atan"])
def test_reciprocals_that_are_no_normal_numbers(
    kernels: HostKernels, surrogate: FastSigmoid | ATan, loud: float
) -> None:
    """Membranes so far from the threshold that 1 / q is subnormal or 0, beside others that are near."""
    for multiprocessors in (0, MANY):
        with kernels.device(multiprocessors=multiprocessors):
            for learn in (False, True):
                case = call_of(PLAIN[0], 40, (24,), torch.float32, learn=learn, surrogate=surrogate)
                case.x[5::7, 3::5] *= loud
                case.x[20, 7] = float("nan")
                case.x[21, 8] = float("inf")
                check(kernels, case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("member", [m for m in PLAIN if str(m) != "zero"], ids=str)
def test_two_bits_a_step(kernels: HostKernels, member: Member, dtype: torch.dtype) -> None:
    """Words whole, begun and ended; in fp64, and where nothing is aligned, by the general kernels."""
    for steps in (0, 1, 15, 16, 17, 32, 47, 48, 100):
        for size in (24, 23):
            case = call_of(member, steps, (2, size), dtype, learn=False, surrogate=Rectangle(0.7))
            case.options["save"] = "bits"
            wide = dtype in TRAINED_IN and size == 24
            expected = "bits_backward_kernel" if wide else "general_backward_kernel"
            check(kernels, case, expected if steps > 0 else "backward_kernel")  # no steps have no words


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_padded_batches(kernels: HostKernels, member: Member, dtype: torch.dtype) -> None:
    """In the general kernels, whatever the neuron, with a length for each thread."""
    lengths = torch.tensor([0, 1, 15, 16, 17, 32, 33, 40])
    every = ("spikes", "count", "rate", "first_spike", "trace", "trace_before_reset", "total")
    for output, constant, size in (("spikes", False, 12), (every, False, 5), ("count", True, 9)):
        case = call_of(member, 40, (8, size), dtype, output=output, constant=constant)
        case.lengths = lengths
        if not constant:
            poison(case.x, lengths, 0)
        check(kernels, case, "general_backward_kernel")


def test_lengths_out_of_range_are_clamped(kernels: HostKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks a device for them before."""
    monkeypatch.setattr(_lengths, "check_range", lambda *_: None)
    case = call_of(PLAIN[0], 20, (4, 6), torch.float32, output=("spikes", "rate", "first_spike"))
    found = []
    for lengths in ([-7, 3, 21, 1 << 40], [0, 3, 20, 20]):
        case.lengths = torch.tensor(lengths)
        found.append(run(functional.lif, case))
    assert_same(*found, torch.float32)
    assert_same(found[1], run(reference.lif, case), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_block_edges(kernels: HostKernels, dtype: torch.dtype) -> None:
    """Sizes around whole blocks: 256 threads forward, 128 backward, of one neuron and of several."""
    width = WIDTH[dtype]
    for threads in (1, 127, 128, 129, 255, 256, 257, 513):
        for size in (threads, threads * width):
            check(kernels, call_of(PLAIN[0], 3, (size,), dtype, learn=False))


def test_a_launch_is_wide_only_where_all_is_aligned(kernels: HostKernels) -> None:
    """16 bytes at once where each buffer allows it: a device would fault."""
    base = torch.randn(5 * 2 * 64 + 1)
    aligned = base[:-1].view(5, 2, 64)

    def neurons_of_a_thread() -> int:
        return int(kernels.last_kernel_symbol.split(">, ")[1].split(",")[0])

    for x, expected in (
        (aligned, 4),
        (base[1:].view(5, 2, 64), 1),
        (aligned[:, :, :62].contiguous(), 4),  # 124 neurons a step: whole packs
        (aligned[:, :1, :62].contiguous(), 1),  # 62 are not
        (aligned.view(5, 128)[:, 1:], 1),
        (aligned[:, :1].expand(5, 2, 64), 4),
    ):
        functional.lif(x, 0.9)
        assert neurons_of_a_thread() == expected, x.shape
    leaf = aligned.clone().requires_grad_()
    for grad, expected in (
        (torch.randn(5, 2, 64), 4),
        (torch.randn(5 * 2 * 64 + 1)[1:].view(5, 2, 64), 1),
        (torch.randn(()).expand(5, 2, 64), 4),  # one value is read by itself, wherever it lies
    ):
        out = functional.lif(leaf, 0.9, return_state=False)
        out.backward(grad)
        assert neurons_of_a_thread() == expected


@pytest.mark.parametrize("shape", [(5, 6, 8), (5, 4, 3, 8)], ids=str)
@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_parameters_by_channel(kernels: HostKernels, member: Member, shape: tuple[int, ...]) -> None:
    """Values that repeat over neurons, where a thread's neurons share a channel, and where they do not."""
    steps, *features = shape
    for size in ((features[-1],), (*features[:-1], 1), (features[0], *[1] * (len(features) - 1))):
        case = call_of(member, steps, tuple(features), torch.float32)
        for name, value in case.parameters.items():
            if isinstance(value, torch.Tensor):
                case.parameters[name] = value.new_empty(size).uniform_(0.5, 0.9)
        check(kernels, case, "wide_backward_kernel")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("features", "beta", "threshold"),
    [
        ((130, 300), (300,), (1,)),  # long columns beside each other, and one column of all
        ((5, 7, 211), (7, 1), (211,)),  # runs, and columns that are no multiple of a block
        ((2, 3, 1037), (3, 1), (3, 1)),  # a run longer than a block
        ((9001,), (1,), (9001,)),  # in pieces beside what needs no sum
        ((3, 1), (1,), (1,)),
        ((0, 5), (5,), (1,)),
    ],
)
def test_sums_of_partial_gradients(
    kernels: HostKernels,
    features: tuple[int, ...],
    beta: tuple[int, ...],
    threshold: tuple[int, ...],
    dtype: torch.dtype,
) -> None:
    """Parameters of two shapes in one call, against sums in float64; the same bits again."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((3, *features), generator=generator, dtype=dtype)
    grad = torch.randn(x.shape, generator=generator, dtype=dtype)

    def gradients(beta: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        beta, threshold = beta.requires_grad_(), threshold.requires_grad_()
        out = functional.lif(x, beta, threshold, surrogate=ATan())[0]
        return torch.autograd.grad(out, [beta, threshold], grad)

    small = torch.full(beta, 0.9, dtype=dtype), torch.full(threshold, 0.5, dtype=dtype)
    found = gradients(*small)
    whole = gradients(*(value.detach().expand(features).clone() for value in small))
    for summed, partial, again in zip(found, whole, gradients(*(v.detach() for v in small)), strict=True):
        exact = partial.double().sum_to_size(summed.shape)
        # Summed in float64: one rounding in float32, and in float64 as many as a thread has values, and more.
        rounds = 1 if dtype == torch.float32 else 100
        bound = rounds * torch.finfo(dtype).eps * (1 + partial.double().abs().sum_to_size(summed.shape))
        assert bool(((summed.double() - exact).abs() <= bound).all())
        assert torch.equal(summed, again)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_misaligned_members(kernels: HostKernels, member: Member, dtype: torch.dtype) -> None:
    """The plain members have one neuron a thread; in fp64 a thread that keeps more than u has one anyhow."""
    alone = member.plain or dtype == torch.float64
    for steps in (1, 16, 17, 40):
        for output in ("spikes", ("spikes", "count")):
            case = call_of(member, steps, (3, 7), dtype, output=output)
            check(kernels, case, "wide_backward_kernel" if alone else "general_backward_kernel")


@pytest.mark.parametrize(
    "option",
    [
        {"alpha": 0.5, "refractory": 1},
        {"kappa": 0.1, "rho": 0.5, "reset": "none"},
        {"rest": 0.1},
        {"v_min": -0.5},
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
    assert kernels.last_kernel == "general_forward_kernel"


def test_checkpoints_come_where_the_kernels_expect_them(kernels: HostKernels) -> None:
    assert _ops.checkpoint_interval("cuda") == kernels.chunk


def test_chunks_of_other_lengths(kernels: HostKernels) -> None:
    """The raw operator takes any; the longest is what a block's shared memory holds."""
    assert kernels.longest_chunk == LONGEST_CHUNK
    for steps, fails in ((17, False), (LONGEST_CHUNK, False), (LONGEST_CHUNK + 1, True)):
        call = raw_arguments(torch.randn(steps, 64), {_ops.FIRST_GRADIENT: torch.ones(steps, 64)}, asked=1)
        if fails:
            with pytest.raises(RuntimeError, match="CUDA error"):
                torch.ops.lif_cuda_on_host.lif_backward(*call)
        else:
            torch.ops.lif_cuda_on_host.lif_backward(*call)
            assert kernels.last_kernel == "general_backward_kernel"


@pytest.mark.parametrize("every", [1, 3, 4, 8, 16, 24, 40])
@pytest.mark.parametrize("multiprocessors", [0, MANY])
def test_checkpoints_of_other_distances(kernels: HostKernels, every: int, multiprocessors: int) -> None:
    x = torch.randn(100, 64) * 0.5 + 0.2
    operators = torch.ops.lif_cuda_on_host
    flags = {"asked": _ops.OUTPUTS["spikes"] | _ops.OUTPUTS["checkpoints"]}
    with kernels.device(multiprocessors=multiprocessors):
        _, checkpoints = operators.lif_forward(*raw_arguments(x, checkpoint_every=every, **flags))
        grad = torch.randn(100, 64)
        given = {_ops.CHECKPOINTS: checkpoints, _ops.FIRST_GRADIENT: grad}
        (dx,) = operators.lif_backward(*raw_arguments(x, given, checkpoint_every=every, asked=1))
    leaf = x.clone().requires_grad_()
    out, _ = reference.lif(leaf, 0.9)
    (expected,) = torch.autograd.grad(out, leaf, grad)
    assert torch.equal(dx, expected)


@pytest.mark.parametrize("size", [64 * 1024, 99 * 1024], ids=["7.5", "8.6 and 12.0"])
def test_devices_of_little_shared_memory(kernels: HostKernels, size: int) -> None:
    """The neuron that keeps most, and the producers that hand on most, in blocks that fit such a device."""
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
        assert kernels.last_kernel == "general_backward_kernel"
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    with kernels.device(multiprocessors=MANY, shared_bytes=size):
        for dtype in (torch.float32, torch.float64):
            case = call_of(PLAIN[1], 130, (40,), dtype)
            check(kernels, case, "long_backward_kernel")


def test_the_poison_is_there(kernels: HostKernels) -> None:
    """Without it, an output that is left unwritten could hold last call's right answer."""
    assert torch.empty(1000).isnan().all()
    assert len(EXACT_SURROGATES) > 5


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="this is the run that test_sanitized started")
def test_sanitized(tmp_path: Path) -> None:
    """Part of the above once more, under the address and undefined-behaviour sanitizers of GCC."""
    run_sanitized(__file__, tmp_path, "-k", "not other_lengths and not float16 and not float64")
