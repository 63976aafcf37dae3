"""Bad input: each public entry with each wrong thing, and the message that the user gets.

A message names the argument, what was expected and what was given, or what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lif_cuda import LIF, ReferenceLIF, _ops, functional, reference
from lif_cuda.models import SNNClassifier
from lif_cuda.surrogate import FastSigmoid

X = torch.zeros(4, 3, 5)

CALLS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("list", {"x": [1.0]}, TypeError, r"x must be a torch\.Tensor, got list"),
    (
        "int64",
        {"x": X.long()},
        TypeError,
        r"x must have dtype .*torch\.int64; convert it with x\.float",
    ),
    ("half", {"x": X.half()}, TypeError, r"x must have dtype float32 or float64.*x\.float"),
    ("complex", {"x": X.to(torch.complex64)}, TypeError, r"x must have dtype"),
    ("sparse", {"x": X.to_sparse()}, TypeError, r"x must be a dense.*to_dense"),
    ("0-dim", {"x": torch.tensor(1.0)}, ValueError, r"x must have a time axis.*steps=T"),
    ("steps<0", {"steps": -1}, ValueError, r"steps must be at least 0, got -1"),
    ("steps float", {"steps": 2.0}, TypeError, r"steps must be an int or None, got float"),
    ("steps bool", {"steps": True}, TypeError, r"steps must be an int or None, got bool"),
    ("beta>1", {"beta": 1.5}, ValueError, r"beta must be a finite number in \[0, 1\], got 1\.5"),
    ("beta<0", {"beta": -0.1}, ValueError, r"beta must be .*-0\.1"),
    ("beta nan", {"beta": float("nan")}, ValueError, r"beta must be a finite number.*nan"),
    ("beta str", {"beta": "0.9"}, TypeError, r"beta must be a number or a tensor, got str"),
    (
        "beta length",
        {"beta": torch.zeros(4)},
        ValueError,
        r"beta must broadcast.*\(3, 5\), got shape \(4,\)",
    ),
    ("beta dims", {"beta": torch.zeros(1, 4, 3, 5)}, ValueError, r"beta must broadcast"),
    (
        "beta dtype",
        {"beta": torch.zeros(5).double()},
        TypeError,
        r"beta must have the dtype of x.*\.to\(torch\.float32\)",
    ),
    (
        "beta device",
        {"beta": torch.zeros(5, device="meta")},
        ValueError,
        r"beta must be on the device of x, cpu, got meta",
    ),
    (
        "threshold inf",
        {"threshold": float("inf")},
        ValueError,
        r"threshold must be a finite number, got inf",
    ),
    ("threshold length", {"threshold": torch.zeros(3)}, ValueError, r"threshold must broadcast"),
    (
        "threshold dtype",
        {"threshold": torch.ones(5).long()},
        TypeError,
        r"threshold must have the dtype",
    ),
    (
        "membrane shape",
        {"membrane": torch.zeros(5)},
        ValueError,
        r"membrane must have the shape.*\(3, 5\), got \(5,\)",
    ),
    (
        "membrane dtype",
        {"membrane": torch.zeros(3, 5).double()},
        TypeError,
        r"membrane must have the dtype",
    ),
    ("membrane type", {"membrane": 0.0}, TypeError, r"membrane must be a torch\.Tensor, got float"),
    (
        "membrane device",
        {"membrane": torch.zeros(3, 5, device="meta")},
        ValueError,
        r"membrane must be on the device",
    ),
    (
        "output",
        {"output": "rate"},
        ValueError,
        r"output must be one of 'spikes', 'count'; got 'rate'",
    ),
    ("reset", {"reset": "soft"}, ValueError, r"reset must be one of 'subtract'; got 'soft'"),
    (
        "detach_reset",
        {"detach_reset": 1},
        TypeError,
        r"detach_reset must be True or False, got int",
    ),
    ("return_state", {"return_state": None}, TypeError, r"return_state must be True or False"),
    (
        "surrogate",
        {"surrogate": "atan"},
        TypeError,
        r"surrogate must be an object of lif_cuda\.surrogate",
    ),
    ("surrogate class", {"surrogate": FastSigmoid}, TypeError, r"surrogate must be an object"),
]


@pytest.mark.parametrize("function", [functional.lif, reference.lif], ids=["fused", "reference"])
@pytest.mark.parametrize(("change", "error", "message"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_calls(
    function: Callable[..., Any], change: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {"x": X, "beta": 0.9, **change}
    with pytest.raises(error, match=message):
        function(**arguments)


def test_a_device_without_kernels() -> None:
    with pytest.raises(NotImplementedError, match=r"x must be on a CPU or a CUDA device, got meta"):
        functional.lif(X.to("meta"), 0.9)


def test_a_cuda_tensor_before_a_cpu_only_build(monkeypatch: pytest.MonkeyPatch) -> None:
    # No GPU is needed to hold a fake CUDA tensor, and none to be told what is missing.
    remedy = "built for the CPU only ... LIF_CUDA_BUILD=cuda pip install"
    monkeypatch.setattr(_ops, "HAS_CUDA_KERNELS", False)
    monkeypatch.setattr(_ops, "cuda_missing_reason", lambda: remedy)
    with FakeTensorMode():
        x = torch.empty(4, 3, 5, device="cuda")
    with pytest.raises(RuntimeError, match=rf"x is on cuda:0: {remedy}"):
        functional.lif(x, 0.9)
    with pytest.raises(RuntimeError, match=remedy):
        LIF()(x)


LAYERS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("neurons 0", {"num_neurons": 0}, ValueError, r"num_neurons must be at least 1, got 0"),
    ("neurons float", {"num_neurons": 2.5}, TypeError, r"num_neurons must be an int"),
    ("neurons bool", {"num_neurons": True}, TypeError, r"num_neurons must be an int"),
    ("beta 1.2", {"beta": 1.2}, ValueError, r"beta must lie in \[0, 1\]"),
    (
        "beta nan",
        {"beta": torch.tensor([0.5, float("nan")])},
        ValueError,
        r"beta must lie in \[0, 1\]",
    ),
    (
        "learn 1",
        {"beta": 1.0, "learn_beta": True},
        ValueError,
        r"beta must lie inside \(0, 1\) to be learned",
    ),
    ("learn 0", {"beta": 0.0, "learn_beta": True}, ValueError, r"beta must lie inside"),
    (
        "beta int",
        {"beta": torch.tensor([0, 1])},
        TypeError,
        r"beta must be a floating point tensor",
    ),
    (
        "beta shape",
        {"num_neurons": 3, "beta": torch.full((4,), 0.5)},
        ValueError,
        r"beta must have the shape of num_neurons, \(3,\)",
    ),
    ("beta str", {"beta": "x"}, TypeError, r"beta must be a number or a tensor, got str"),
    ("threshold str", {"threshold": None}, TypeError, r"threshold must be a number or a tensor"),
    ("learn flag", {"learn_beta": "yes"}, TypeError, r"learn_beta must be True or False"),
    ("steps", {"steps": -3}, ValueError, r"steps must be at least 0"),
    ("output", {"output": "membrane"}, ValueError, r"output must be one of"),
    ("reset", {"reset": 0}, ValueError, r"reset must be one of"),
    ("surrogate", {"surrogate": 10.0}, TypeError, r"surrogate must be an object"),
]


@pytest.mark.parametrize("cls", [LIF, ReferenceLIF])
@pytest.mark.parametrize(("options", "error", "message"), [c[1:] for c in LAYERS], ids=[c[0] for c in LAYERS])
def test_constructors(cls: type[LIF], options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cls(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0.0}, ValueError, r"FastSigmoid: k must be a finite number above 0, got 0"),
        ({"k": "10"}, TypeError, r"FastSigmoid: k must be a number, got str"),
        ({"scale": float("nan")}, ValueError, r"FastSigmoid: scale must be a finite number"),
    ],
)
def test_surrogates(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FastSigmoid(**options)


def test_models() -> None:
    model = SNNClassifier(6, 5, 4)
    with pytest.raises(ValueError, match=r"num_steps must be at least 0, got -1"):
        model(torch.zeros(2, 6), num_steps=-1)


RAW_CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("dtype", {"x": X.half()}, "x must have dtype"),
    ("strided", {"x": X.transpose(0, 1)}, "x must be contiguous"),
    ("beta length", {"beta": torch.zeros(4)}, "must repeat evenly"),
    ("beta empty", {"beta": torch.zeros(0)}, "must repeat evenly"),
    ("membrane size", {"membrane": torch.zeros(14)}, "membrane must have 15 elements, got 14"),
    ("membrane dtype", {"membrane": torch.zeros(15).double()}, "membrane must have the dtype"),
    ("steps", {"steps": -2}, "steps must be -1 or more"),
    ("checkpoints", {"outputs": 8}, "checkpoint_every must be above 0"),
]


@pytest.mark.parametrize(("change", "message"), [c[1:] for c in RAW_CALLS], ids=[c[0] for c in RAW_CALLS])
def test_raw_operators_keep_their_hands_off_other_memory(change: dict[str, Any], message: str) -> None:
    arguments = {
        "x": X,
        "membrane": None,
        "beta": None,
        "beta_value": 0.9,
        "threshold": None,
        "threshold_value": 1.0,
        "steps": -1,
        "outputs": 1,
        "checkpoint_every": 0,
        **change,
    }
    with pytest.raises(RuntimeError, match=message):
        torch.ops.lif_cuda.lif_forward(**arguments)
