"""Recurrent layers on a CUDA device: the bits of the CPU's kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_recurrent import DTYPES, OPTIONS, call, draw, gradients_by
from torch import Tensor

import lif_cuda
from lif_cuda import functional, surrogate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

PARAMETERS = ("weight", "bias", "beta", "threshold")


def check(tensors: dict[str, Tensor], **options: Any) -> None:
    """A call on the device has the bits of one on the CPU; gradients of parameters are near."""
    there = {name: tensor.cuda() for name, tensor in tensors.items()}
    outputs = ("spikes", "trace", "count", "rate")
    (mine, state), (theirs, last) = (
        call(functional.recurrent_lif, t, outputs, **options) for t in (there, tensors)
    )
    for a, b in zip((*mine, *state), (*theirs, *last), strict=True):
        assert a.is_cuda and torch.equal(a.cpu(), b)
    found, expected = (gradients_by(functional.recurrent_lif, t, **options) for t in (there, tensors))
    for name in tensors:
        a, b = found[name].cpu(), expected[name]
        if name in PARAMETERS:
            scale = float(b.abs().max()) + 1
            torch.testing.assert_close(a, b, rtol=0, atol=200 * torch.finfo(a.dtype).eps * scale, msg=name)
        else:
            assert torch.equal(a, b), name


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_has_the_bits_of_the_cpu(dtype: torch.dtype, options: dict[str, Any]) -> None:
    for size in ((1, 1, 1), (9, 4, 33), (20, 7, 128), (12, 300, 64), (7, 3, 240), (5, 2, 513)):
        check(draw(*size, dtype), **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_weights_of_16_bits(dtype: torch.dtype) -> None:
    for size in ((9, 5, 100), (8, 140, 256), (4, 3, 320), (4, 3, 321)):
        tensors = draw(*size, dtype)
        check(tensors | {"weight": tensors["weight"].to(dtype)})


@pytest.mark.parametrize("neurons", [1024, 1025, 2000])
def test_more_neurons_than_threads(neurons: int) -> None:
    check(draw(3, 2, neurons, torch.float32))


@pytest.mark.parametrize(
    "shape",
    [
        surrogate.ATan(2.0),
        surrogate.Triangle(1.0),
        surrogate.Rectangle(1.0),
        surrogate.Custom(lambda z: torch.exp(-z * z), reach=4.0),
    ],
    ids=lambda s: type(s).__name__,
)
def test_surrogates(shape: surrogate.Surrogate) -> None:
    check(draw(10, 4, 70, torch.float32), surrogate=shape)


def test_no_steps_and_no_samples() -> None:
    for size in ((0, 2, 20), (3, 0, 20)):
        check(draw(*size, torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sanitizer_subset(dtype: torch.dtype) -> None:
    """A few calls, for the sanitizers, under which each takes a hundred times as long."""
    for size in ((3, 3, 40), (2, 2, 300)):
        check(draw(*size, dtype))


def test_captured_in_a_graph() -> None:
    layer = lif_cuda.RecurrentLIF(64, device="cuda")
    x = torch.randn(6, 3, 64, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        layer(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        out, _ = layer(x)
    x.copy_(torch.randn(6, 3, 64))
    graph.replay()
    with torch.no_grad():
        assert torch.equal(out, layer(x)[0])
