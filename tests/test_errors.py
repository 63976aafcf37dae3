"""Bad input: each public entry with each wrong thing, and the message that the user gets.

A message names the argument, what was expected and what was given, or what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import raw_arguments
from torch._subclasses.fake_tensor import FakeTensorMode

from lif_cuda import LIF, NeuronState, ReferenceLIF, _ops, functional, reference
from lif_cuda.models import SNNClassifier
from lif_cuda.surrogate import FastSigmoid, StraightThrough

X = torch.zeros(4, 3, 5)

CALLS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("list", {"x": [1.0]}, TypeError, r"x must be a torch\.Tensor, got list"),
    (
        "int64",
        {"x": X.long()},
        TypeError,
        r"x must have dtype .*torch\.int64; convert it with x\.float",
    ),
    ("float8", {"x": X.to(torch.float8_e5m2)}, TypeError, r"x must have dtype float32, .*x\.float"),
    ("complex", {"x": X.to(torch.complex64)}, TypeError, r"x must have dtype"),
    ("sparse", {"x": X.to_sparse()}, TypeError, r"x must be a dense.*to_dense"),
    ("0-dim", {"x": torch.tensor(1.0)}, ValueError, r"x must have a time axis.*steps=T"),
    ("steps<0", {"steps": -1}, ValueError, r"steps must be at least 0, got -1"),
    ("steps float", {"steps": 2.0}, TypeError, r"steps must be an int or None, got float"),
    ("steps bool", {"steps": True}, TypeError, r"steps must be an int or None, got bool"),
    (
        "steps tensor",
        {"steps": X[0]},
        TypeError,
        r"got torch\.Tensor; all states of a neuron go in one argument",
    ),
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
        {"output": "voltage"},
        ValueError,
        r"output must be one of 'spikes', 'count', .*; got 'voltage'",
    ),
    ("no output", {"output": ()}, ValueError, r"output must name at least one output, got \(\)"),
    ("output twice", {"output": ("count", "count")}, ValueError, r"output must name each output once"),
    (
        "output list",
        {"output": ["count"]},
        TypeError,
        r"output must be .* a tuple of names.*write \('count',\)",
    ),
    ("unknown of two", {"output": ("count", "x")}, ValueError, r"output must be one of .*got 'x'"),
    ("time_dim", {"time_dim": 3}, ValueError, r"time_dim must be in \[-3, 2\] for the shape of x, got 3"),
    ("time_dim float", {"time_dim": 0.0}, TypeError, r"time_dim must be an int, got float"),
    ("channel_dim", {"channel_dim": -4}, ValueError, r"channel_dim must be in \[-3, 2\].*got -4"),
    ("channel is time", {"channel_dim": 0}, ValueError, r"channel_dim must be another axis than time_dim"),
    (
        "channels",
        {"channel_dim": 1, "threshold": torch.ones(5)},
        ValueError,
        r"threshold must have one value for each of the 3 channels of x, got 5",
    ),
    ("time_dim bool", {"time_dim": False}, TypeError, r"time_dim must be an int, got bool"),
    (
        "time_dim of a constant",
        {"steps": 4, "time_dim": 4},
        ValueError,
        r"time_dim must be in \[-4, 3\] for the shape of x, got 4",
    ),
    ("channel_dim float", {"channel_dim": 1.0}, TypeError, r"channel_dim must be an int or None, got float"),
    ("v_reset inf", {"reset": "zero", "v_reset": float("inf")}, ValueError, r"v_reset must be a finite num"),
    (
        "v_reset dtype",
        {"reset": "zero", "v_reset": torch.zeros(5).double()},
        TypeError,
        r"v_reset must have the dtype of x.*got torch\.float64; convert it with \.to\(torch\.float32\)",
    ),
    ("gain length", {"gain": torch.ones(4)}, ValueError, r"gain must broadcast.*\(3, 5\), got shape \(4,\)"),
    ("v_min inf", {"v_min": float("-inf")}, ValueError, r"v_min must be a finite number, got -inf"),
    (
        "v_min length",
        {"v_min": torch.ones(4)},
        ValueError,
        r"v_min must broadcast.*\(3, 5\), got shape \(4,\)",
    ),
    (
        "v_min of a gradient",
        {"v_min": torch.zeros(5, requires_grad=True)},
        ValueError,
        r"v_min must not require a gradient, because a floor is not learned; pass v_min\.detach\(\)",
    ),
    (
        "v_min in bits",
        {"v_min": 0.0, "save": "bits", "surrogate": StraightThrough()},
        ValueError,
        r"v_min must be None with save='bits', which does not keep where the floor held; use save='input'",
    ),
    ("alpha str", {"alpha": "0.5"}, TypeError, r"alpha must be a number or a tensor, got str"),
    ("kappa nan", {"kappa": float("nan"), "rho": 0.5}, ValueError, r"kappa must be a finite number, got nan"),
    ("kappa bool", {"kappa": True, "rho": 0.5}, TypeError, r"kappa must be a number or a tensor, got bool"),
    (
        "rho device",
        {"kappa": 0.1, "rho": torch.ones(5, device="meta")},
        ValueError,
        r"rho must be on the device of x, cpu, got meta; move it with \.to\('cpu'\)",
    ),
    (
        "sparse beta",
        {"beta": torch.ones(5).to_sparse()},
        TypeError,
        r"beta must be a dense \(strided\) tensor",
    ),
    ("rest str", {"rest": "0"}, TypeError, r"rest must be a number, got str"),
    ("refractory bool", {"refractory": True}, TypeError, r"refractory must be an int, got bool"),
    (
        "state of a plain neuron",
        {"membrane": NeuronState(torch.zeros(3, 5), torch.zeros(3, 5))},
        TypeError,
        r"membrane must be a torch\.Tensor, got lif_cuda\.NeuronState",
    ),
    (
        "states in a tuple",
        {"refractory": 1, "membrane": (torch.zeros(3, 5), torch.zeros(3, 5))},
        TypeError,
        r"membrane must be a NeuronState with membrane, silence.*got tuple; write "
        r"lif_cuda\.NeuronState\(membrane=\.\.\., silence=\.\.\.\)",
    ),
    (
        "state dtype",
        {"refractory": 1, "membrane": NeuronState(torch.zeros(3, 5), silence=torch.zeros(3, 5).long())},
        TypeError,
        r"membrane\.silence must have the dtype of x, torch\.float32, got torch\.int64",
    ),
    (
        "state without a membrane",
        {"alpha": 0.5, "membrane": NeuronState(None, torch.zeros(3, 5))},  # type: ignore[arg-type]
        TypeError,
        r"membrane must be a torch\.Tensor, got NoneType",
    ),
    ("strict", {"strict": "yes"}, TypeError, r"strict must be True or False, got str"),
    ("decay_input", {"decay_input": 0}, TypeError, r"decay_input must be True or False, got int"),
    ("delay_reset", {"delay_reset": 1}, TypeError, r"delay_reset must be True or False, got int"),
    (
        "delayed, not detached",
        {"delay_reset": True},
        ValueError,
        r"delay_reset passes no gradient .*detach_reset=True",
    ),
    (
        "delayed nothing",
        {"delay_reset": True, "detach_reset": True, "reset": "none"},
        ValueError,
        r"delay_reset needs a reset to delay",
    ),
    (
        "delayed and refractory",
        {"delay_reset": True, "detach_reset": True, "refractory": 2},
        ValueError,
        r"refractory must be 0 with delay_reset, got 2",
    ),
    (
        "delayed and adaptive",
        {"delay_reset": True, "detach_reset": True, "kappa": 0.1, "rho": 0.5},
        ValueError,
        r"kappa must be None with delay_reset",
    ),
    ("v_reset unused", {"v_reset": 0.5}, ValueError, r"v_reset is used by reset='zero' only"),
    ("gain twice", {"gain": 0.5, "decay_input": True}, ValueError, r"gain must stay 1 with decay_input"),
    ("gain inf", {"gain": float("inf")}, ValueError, r"gain must be a finite number, got inf"),
    ("rest", {"rest": torch.zeros(5)}, TypeError, r"rest must be a number, got a tensor"),
    ("rest nan", {"rest": float("nan")}, ValueError, r"rest must be a finite number, got nan"),
    ("refractory", {"refractory": -1}, ValueError, r"refractory must be at least 0, got -1"),
    ("refractory float", {"refractory": 1.0}, TypeError, r"refractory must be an int, got float"),
    ("alpha", {"alpha": 1.5}, ValueError, r"alpha must be a finite number in \[0, 1\], got 1\.5"),
    ("rho", {"kappa": 0.1, "rho": 2.0}, ValueError, r"rho must be a finite number in \[0, 1\]"),
    ("kappa alone", {"kappa": 0.1}, ValueError, r"kappa was given without rho"),
    ("rho alone", {"rho": 0.1}, ValueError, r"rho was given without kappa"),
    (
        "one state of two",
        {"alpha": 0.5, "membrane": torch.zeros(3, 5)},
        TypeError,
        r"membrane must be a NeuronState with membrane, current.*got torch\.Tensor",
    ),
    (
        "a state too many",
        {"alpha": 0.5, "membrane": NeuronState(torch.zeros(3, 5), adaptation=torch.zeros(3, 5))},
        ValueError,
        r"membrane\.adaptation was given, and the neuron has no such state",
    ),
    (
        "state shape",
        {"alpha": 0.5, "membrane": NeuronState(torch.zeros(3, 5), torch.zeros(5))},
        ValueError,
        r"membrane\.current must have the shape of x .*\(3, 5\), got \(5,\)",
    ),
    (
        "membrane of a half",
        {"x": X.half(), "membrane": torch.zeros(3, 5).half()},
        TypeError,
        r"membrane must have the dtype of the state, torch\.float32, got torch\.float16",
    ),
    ("reset", {"reset": "soft"}, ValueError, r"reset must be one of 'subtract', 'zero', 'none'; got 'soft'"),
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
    (
        "lengths list",
        {"lengths": [4, 2, 1]},
        TypeError,
        r"lengths must be a torch\.Tensor of int64, got list",
    ),
    (
        "lengths dtype",
        {"lengths": torch.ones(3, dtype=torch.int32)},
        TypeError,
        r"lengths must have dtype int64, got torch\.int32; convert it with lengths\.long\(\)",
    ),
    (
        "lengths shape",
        {"lengths": torch.ones(4).long()},
        ValueError,
        r"lengths must have .* each of the 3 samples of x, .*: shape \(3,\), got \(4,\)",
    ),
    (
        "lengths, batch first",
        {"lengths": torch.ones(3).long(), "time_dim": 1},
        ValueError,
        r"lengths must have .* each of the 4 samples of x, .*: shape \(4,\), got \(3,\)",
    ),
    ("lengths dims", {"lengths": torch.ones(3, 5).long()}, ValueError, r"lengths must .*got \(3, 5\)"),
    (
        "lengths without a batch",
        {"x": X[:, 0, 0], "lengths": torch.ones(1).long()},
        ValueError,
        r"lengths needs a batch, the first axis of x beside time; x has none, got shape \(4,\)",
    ),
    (
        "lengths device",
        {"lengths": torch.ones(3, dtype=torch.int64, device="meta")},
        ValueError,
        r"lengths must be on the device of x, cpu, got meta; move it with \.to\('cpu'\)",
    ),
    (
        "lengths > T",
        {"lengths": torch.tensor([4, 5, 0])},
        ValueError,
        r"lengths must be in \[0, 4\], .*, got 5; pad x .* lengths\.clamp\(0, 4\)",
    ),
    (
        "lengths < 0",
        {"lengths": torch.tensor([-2, 5, 0])},
        ValueError,
        r"lengths must be in \[0, 4\], the time steps that there are, got -2",
    ),
    (
        "lengths > steps",
        {"lengths": torch.tensor([7, 8, 0, 0]), "steps": 7},
        ValueError,
        r"lengths must be in \[0, 7\], .*, got 8",
    ),
]


@pytest.mark.parametrize("function", [functional.lif, reference.lif], ids=["fused", "reference"])
@pytest.mark.parametrize(("change", "error", "message"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_calls(
    function: Callable[..., Any], change: dict[str, Any], error: type[Exception], message: str
) -> None:
    # After a call that is right: what is remembered of it must not let a wrong one pass, once or twice.
    right: dict[str, Any] = {"x": X, "beta": 0.9}
    for _ in range(2):
        function(**right)
        with pytest.raises(error, match=message):
            function(**(right | change))


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
    ("neurons float", {"num_neurons": 2.5}, TypeError, r"num_neurons must be an int.*got 2\.5$"),
    (
        "neurons beta",
        {"num_neurons": 0.9},
        TypeError,
        r"num_neurons must be an int.*got 0\.9; write beta=0\.9",
    ),
    ("neurons bool", {"num_neurons": True}, TypeError, r"num_neurons must be an int"),
    ("beta 1.2", {"beta": 1.2}, ValueError, r"beta must be a finite number in \[0, 1\], got 1\.2"),
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
    ("tau and beta", {"beta": 0.5, "tau": 2.0}, ValueError, r"beta and tau were given"),
    ("tau alone", {"tau": 2.0}, ValueError, r"tau needs dt, the length of a step, and decay="),
    ("dt alone", {"dt": 1.0}, ValueError, r"dt was given without tau"),
    ("tau 0", {"tau": 0.0, "dt": 1.0, "decay": "exp"}, ValueError, r"tau must be above 0"),
    ("dt 0", {"tau": 2.0, "dt": 0.0, "decay": "exp"}, ValueError, r"dt must be above 0"),
    ("decay", {"tau": 2.0, "dt": 1.0, "decay": "rk4"}, ValueError, r"decay must be one of 'exp', 'euler'"),
    ("euler", {"tau": 0.5, "dt": 1.0, "decay": "euler"}, ValueError, r"tau must be at least dt, 1"),
    ("bound", {"bound": "relu"}, ValueError, r"bound must be one of 'sigmoid', 'clamp'"),
    ("learn alpha", {"learn_alpha": True}, ValueError, r"learn_alpha was given without alpha"),
    ("learn v_reset", {"learn_v_reset": True}, ValueError, r"learn_v_reset needs reset='zero'"),
    ("learn gain", {"learn_gain": True, "decay_input": True}, ValueError, r"learn_gain must be False"),
    ("stateful", {"stateful": 1}, TypeError, r"stateful must be True or False"),
    ("reset", {"reset": 0}, ValueError, r"reset must be one of"),
    ("surrogate", {"surrogate": 10.0}, TypeError, r"surrogate must be an object.*got float$"),
    (
        "surrogate class",
        {"surrogate": FastSigmoid},
        TypeError,
        r"got the class FastSigmoid; write surrogate\.FastSigmoid\(\)$",
    ),
    (
        "surrogate of another library",
        {"surrogate": torch.sigmoid},
        TypeError,
        r"surrogate must be an object.*docs/migrating\.md has the equals.*surrogate\.Custom",
    ),
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
        ({"slope": 25}, TypeError, r"FastSigmoid\(\) got an unexpected.* 'slope'; there are k, scale$"),
    ],
)
def test_surrogates(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FastSigmoid(**options)


def test_models() -> None:
    model = SNNClassifier(6, 5, 4)
    with pytest.raises(ValueError, match=r"num_steps must be at least 0, got -1"):
        model(torch.zeros(2, 6), num_steps=-1)


@pytest.mark.parametrize("cls", [LIF, ReferenceLIF])
def test_lengths_of_a_step(cls: type[LIF]) -> None:
    with pytest.raises(TypeError, match=r"lengths is for calls of several steps, and step runs one: call"):
        cls().step(X[0], lengths=torch.ones(3).long())  # type: ignore[arg-type]


def test_stateful_layers() -> None:
    layer = LIF(stateful=True)
    with pytest.raises(ValueError, match=r"membrane must be None for a stateful layer.*reset_state"):
        layer(X, torch.zeros(3, 5))
    with pytest.raises(RuntimeError, match=r"reset_state is for layers with stateful=True"):
        LIF().reset_state()


BETA, MEMBRANE, LENGTHS = _ops.FIRST_PARAMETER, 0, _ops.LENGTHS
LONGS = torch.arange(1, 7)
OUTPUTS = _ops.OUTPUTS
# Tensors by their slots, numbers by their names.
Change = dict[Any, Any]
RAW_CALLS: list[tuple[str, Change, str]] = [
    ("dtype", {"x": X.long()}, "x must have dtype"),
    ("strided", {"x": X.transpose(1, 2)}, "x must be dense in the axes after time"),
    ("beta length", {BETA: torch.zeros(4)}, "must repeat evenly"),
    ("beta empty", {BETA: torch.zeros(0)}, "must repeat evenly"),
    ("beta dims", {BETA: torch.zeros(2, 3, 5)}, "must repeat evenly"),
    ("unknown tensor", {"present": 1 << _ops.SLOTS}, "unknown tensors, present is"),
    ("negative", {"present": -1}, "unknown tensors, present is -1"),
    ("a tensor too few", {"present": 2}, "given must have a tensor for each bit of present, got 0"),
    ("a tensor too many", {"present": 0, BETA: torch.zeros(5)}, "given must have 0 tensors, got 1"),
    ("membrane size", {MEMBRANE: torch.zeros(14)}, "state must have 15 elements, got 14"),
    ("membrane dtype", {MEMBRANE: torch.zeros(15).double()}, "state must have the dtype"),
    ("steps", {"steps": -2}, "steps must be -1 or more"),
    ("time_dim", {"time_dim": 3}, r"time_dim must be in \[0, 2\], got 3"),
    ("reset", {"reset": 3}, "unknown reset 3"),
    ("refractory", {"refractory": -1}, "refractory must be at least 0"),
    ("delayed", {"traits": 2, "refractory": 1}, "a delayed reset has no refractory"),
    ("state it has not", {"asked": OUTPUTS["current"]}, "a final state that the neuron does not have"),
    ("checkpoints", {"asked": OUTPUTS["checkpoints"]}, "checkpoint_every must be above 0"),
    ("bits", {"asked": OUTPUTS["bits"], "traits": 8}, "bits are for neurons with a membrane only"),
    ("bits, to zero", {"asked": OUTPUTS["bits"], "reset": 1}, "bits do not hold the membrane"),
    ("bits, a floor", {"asked": OUTPUTS["bits"], "traits": _ops.FLOORED}, "where a floor held"),
    ("no largest", {"asked": OUTPUTS["trace_max"], "x": X[:0]}, "the largest of no membranes"),
    ("no step", {"asked": OUTPUTS["peak"]}, "the step of the largest goes with it"),
    ("lengths dtype", {LENGTHS: torch.ones(3, 1)}, "lengths must have dtype int64"),
    ("lengths strided", {LENGTHS: LONGS[::2, None]}, "lengths must be contiguous"),
    ("lengths shape", {LENGTHS: LONGS[:4, None]}, "must repeat evenly"),
    ("lengths in a row", {LENGTHS: LONGS[:3, None]}, "lengths must be the same for all inner neurons"),
    (
        "lengths > T",
        {LENGTHS: LONGS[:3, None] + 2, "time_dim": 1, "x": X.movedim(0, 1)},
        "lengths must be in",
    ),
    ("lengths < 0", {LENGTHS: LONGS[:3, None] - 2, "time_dim": 1, "x": X.movedim(0, 1)}, "got -1"),
]


def raw_call(operator: Any, change: Change, **arguments: Any) -> None:
    arguments |= {name: value for name, value in change.items() if isinstance(name, str)}
    tensors = {slot: value for slot, value in change.items() if isinstance(slot, int)}
    operator(*raw_arguments(arguments.pop("x", X), arguments.pop("given", {}) | tensors, **arguments))


@pytest.mark.parametrize(("change", "message"), [c[1:] for c in RAW_CALLS], ids=[c[0] for c in RAW_CALLS])
def test_raw_operators_keep_their_hands_off_other_memory(change: Change, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        raw_call(torch.ops.lif_cuda.lif_forward, change, asked=1)


@pytest.mark.parametrize("name", ["lif_forward", "lif_backward"])
@pytest.mark.parametrize(
    ("place", "message"), [(2, "ints must have 8 entries, got 7"), (5, "floats must have 11 entries, got 10")]
)
def test_short_lists(name: str, place: int, message: str) -> None:
    arguments: list[Any] = [*raw_arguments(X)]
    arguments[place] = arguments[place][1:]
    with pytest.raises(RuntimeError, match=message):
        getattr(torch.ops.lif_cuda, name)(*arguments)


GRAD = _ops.FIRST_GRADIENT
OF_FIRST_SPIKE = GRAD + _ops.INCOMING.index("first_spike")
RAW_GRADIENTS: list[tuple[str, Change, str]] = [
    ("shape", {GRAD: torch.zeros(4, 15)}, "gradient of the spikes has the wrong shape"),
    ("dtype", {GRAD: torch.zeros(4, 3, 5).double()}, "the spikes has the wrong dtype"),
    ("no first spike", {OF_FIRST_SPIKE: torch.zeros(3, 5)}, "needs that output"),
    ("surrogate", {"surrogate": 99}, "unknown surrogate 99"),
    ("bits", {_ops.BITS: torch.zeros(14, dtype=torch.int32)}, "bits must be what lif_forward returned"),
    ("window", {_ops.BITS: torch.zeros(15, dtype=torch.int32)}, "bits need a Rectangle"),
    (
        "beta of bits",
        {_ops.BITS: torch.zeros(15, dtype=torch.int32), "surrogate": 6, "asked": 16},
        "bits do not hold what this gradient needs",
    ),
    ("table", {"surrogate": 7}, "a tabulated surrogate needs a table"),
    ("beta", {"asked": 16}, "the gradient of a parameter that is a number"),
    ("current", {"asked": 4}, "the gradient of a state that the neuron does not have"),
    (
        "checkpoints",
        {_ops.CHECKPOINTS: torch.zeros(14), "checkpoint_every": 2},
        "checkpoints must have 15 elements, got 14",
    ),
]


@pytest.mark.parametrize(
    ("change", "message"), [c[1:] for c in RAW_GRADIENTS], ids=[c[0] for c in RAW_GRADIENTS]
)
def test_raw_backward_keeps_its_hands_off_too(change: Change, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        raw_call(torch.ops.lif_cuda.lif_backward, change, given={GRAD: torch.zeros(4, 3, 5)}, asked=1)
