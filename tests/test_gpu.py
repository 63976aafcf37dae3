"""On a CUDA device: the drawn calls against the reference there, and what only a device can show."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from family import Case, SeededPick, assert_same, draw_case, kept_in_bits, run
from torch import Tensor

from lif_cuda import LIF, functional, reference

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
    )


@pytest.mark.parametrize("seed", range(400))
def test_drawn_calls_equal_the_reference(seed: int) -> None:
    case = on_device(draw_case(SeededPick(seed), seed))
    assert_same(run(functional.lif, case), run(reference.lif, case), case.x.dtype)


@pytest.mark.parametrize("seed", range(3000, 3060))
def test_two_bits_a_step(seed: int) -> None:
    case = on_device(kept_in_bits(draw_case(SeededPick(seed), seed), SeededPick(seed)))
    assert_same(run(functional.lif, case), run(reference.lif, case), case.x.dtype)


@pytest.mark.parametrize("steps", [1, 28, 29, 47, 48, 49, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_few_neurons_for_long(steps: int, dtype: torch.dtype) -> None:
    """The narrow kernels, which load a batch of steps ahead: around whole batches, and many of them."""
    x = (torch.randn(steps, 3, 37, device="cuda") * 0.5 + 0.15).to(dtype)
    results = []
    for function in (functional.lif, reference.lif):
        leaf = x.clone().requires_grad_()
        out, membrane = function(leaf, 0.9)
        (grad,) = torch.autograd.grad(out.float().sum() + membrane.sum(), leaf)
        results.append((out.detach(), membrane.detach(), grad))
    for fused, expected in zip(*results, strict=True):
        assert torch.equal(fused, expected)


@pytest.mark.parametrize("seed", range(2000, 2012))
def test_sanitizer_subset(seed: int) -> None:
    """A few calls, for the sanitizers, under which each takes a hundred times as long."""
    case = on_device(draw_case(SeededPick(seed), seed))
    run(functional.lif, case)
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
