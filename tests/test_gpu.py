"""On a CUDA device: the drawn calls against the reference there, and what only a device can show."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from family import Case, SeededPick, assert_same, draw_case, kept_in_bits, run
from members import MEMBERS, PLAIN, Member, call_of
from torch import Tensor

from lif_cuda import LIF, PackedSpikes, functional, reference
from lif_cuda.surrogate import ATan, FastSigmoid, Rectangle

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def on_device(case: Case) -> Case:
    """The same call with its tensors on the device."""

    def moved(value: object) -> object:
        return value.cuda() if isinstance(value, Tensor) else value

    return dataclasses.replace(
        case,
        x=case.x.cuda(),
        parameters={name: moved(value) for name, value in case.parameters.items()},
        states={name: state.cuda() for name, state in case.states.items()},
        view=lambda x: x,
        lengths=None if case.lengths is None else case.lengths.cuda(),
    )


@pytest.mark.parametrize("seed", range(400))
def test_drawn_calls_equal_the_reference(seed: int) -> None:
    case = on_device(draw_case(SeededPick(seed), seed))
    assert_same(run(functional.lif, case), run(reference.lif, case), case.x.dtype)


@pytest.mark.parametrize("seed", range(3000, 3060))
def test_two_bits_a_step(seed: int) -> None:
    case = on_device(kept_in_bits(draw_case(SeededPick(seed), seed), SeededPick(seed)))
    assert_same(run(functional.lif, case), run(reference.lif, case), case.x.dtype)


def check(case: Case) -> None:
    """A call on the device, against the reference there."""
    case = on_device(case)
    assert_same(run(functional.lif, case), run(reference.lif, case), case.x.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_members_in_their_own_kernels(member: Member, dtype: torch.dtype) -> None:
    """Wide threads, and one neuron a thread where nothing is aligned; one chunk and several."""
    for steps, features in ((4, (129, 512)), (16, (67, 1024)), (25, (3, 1024)), (37, (521, 131))):
        for learn in (False, True):
            check(call_of(member, steps, features, dtype, learn=learn, strict=learn, surrogate=ATan()))
        check(call_of(member, steps, features, dtype, output=("spikes", "rate")))
        check(call_of(member, steps, features, dtype, output="count", constant=True))


@pytest.mark.parametrize("steps", [33, 47, 48, 96, 97, 112, 1000])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_few_neurons_for_long(steps: int, dtype: torch.dtype) -> None:
    """The long kernels, around whole stages and rounds of producers; and sizes whose pieces are not whole."""
    for member in PLAIN:
        for features in ((1000,), (3, 40), (2, 37)):
            for learn in (False, True):
                check(call_of(member, steps, features, dtype, learn=learn))


@pytest.mark.parametrize("surrogate", [FastSigmoid(7.0, scale=0.7), ATan()], ids=["fast_sigmoid", "atan"])
def test_reciprocals_round_once(surrogate: FastSigmoid | ATan) -> None:
    """From 1 to where they are subnormal and 0: every exponent, and NaN, beside near ones."""
    for steps, features in ((9, (4096,)), (40, (512,))):
        for learn in (False, True):
            case = call_of(PLAIN[0], steps, features, torch.float32, learn=learn, surrogate=surrogate)
            case.x.mul_(2.0 ** torch.linspace(-10, 127, features[-1]))
            case.x[2, 7] = float("nan")
            case.x[3, 8] = float("inf")
            check(case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_bits_a_step_in_words(dtype: torch.dtype) -> None:
    for member in PLAIN:
        if member.options["reset"] == "zero" and not member.options["detach_reset"]:
            continue
        for steps in (1, 15, 16, 17, 32, 100):
            case = call_of(member, steps, (33, 64), dtype, learn=False, surrogate=Rectangle(0.7))
            case.options["save"] = "bits"
            check(case)


@pytest.mark.parametrize("seed", range(2000, 2008))
def test_sanitizer_subset(seed: int) -> None:
    """A few calls, for the sanitizers, under which each takes a hundred times as long."""
    run(functional.lif, on_device(draw_case(SeededPick(seed), seed)))
    member = MEMBERS[seed % len(MEMBERS)]
    for steps, features, learn in ((17, (2, 300), True), (20, (3, 7), False)):
        run(functional.lif, on_device(call_of(member, steps, features, torch.bfloat16, learn=learn)))
    few = call_of(PLAIN[seed % len(PLAIN)], 77, (40,), (torch.float32, torch.float16)[seed % 2])
    run(functional.lif, on_device(few))
    bits = call_of(PLAIN[1], 33, (2, 36), torch.float32, learn=False, surrogate=Rectangle(0.7))
    bits.options["save"] = "bits"
    run(functional.lif, on_device(bits))
    torch.cuda.synchronize()


def test_a_million_neurons() -> None:
    x = torch.randn(25, 1_000_004, device="cuda") * 0.5 + 0.15
    results = []
    for function in (functional.lif, reference.lif):
        leaf = x.clone().requires_grad_()
        out, membrane = function(leaf, 0.9)
        (grad,) = torch.autograd.grad(out.sum() + membrane.sum(), leaf)
        results.append((out.detach(), membrane.detach(), grad))
    for fused, expected in zip(*results, strict=True):
        assert torch.equal(fused, expected)


def test_cuda_graph() -> None:
    layer = LIF(64, learn_beta=True).cuda()
    x = torch.randn(20, 8, 64, device="cuda", requires_grad=True)

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(layer(x)[0].sum(), [x, layer.beta_logit])

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    for mine, expected in zip(captured, step(), strict=True):
        assert torch.equal(mine, expected)


def test_autocast_and_another_stream() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(9, 64), LIF(64, learn_beta=True, return_state=False)).cuda()
    x = torch.randn(20, 8, 9, device="cuda")
    expected = None
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.autocast("cuda", torch.bfloat16):
            out = model(x)
        stream.synchronize()
        assert out.dtype == torch.bfloat16
        assert expected is None or torch.equal(out, expected)
        expected = out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("neurons", [1, 12, 63, 64, 100, 1001])
def test_packed_spikes(neurons: int, dtype: torch.dtype) -> None:
    """The words of the CPU, by one launch; and back, with a gradient."""
    spikes = (torch.rand(5, 67, neurons) < 0.3).to(dtype)
    leaf = spikes.cuda().requires_grad_()
    packed = PackedSpikes.pack(leaf)
    assert torch.equal(packed.words.cpu(), PackedSpikes.pack(spikes).words)
    dense = packed.dense()
    assert torch.equal(dense.cpu(), spikes)
    dense.sum().backward()
    assert torch.equal(leaf.grad, torch.ones_like(leaf))


def test_a_layer_packs_its_spikes() -> None:
    x = torch.randn(9, 4, 100, device="cuda")
    layers = [LIF(100, output=output, return_state=False) for output in ("packed", "spikes")]
    packed, spikes = (layer(x) for layer in layers)
    assert torch.equal(packed.dense(), spikes)
