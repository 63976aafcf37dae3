"""The neuron family, option by option, at the sizes and lengths where the kernels take another path.

test_fuzz.py draws combinations at random. Here each option, and each pair of options that meets in one line
of csrc/neuron/step.h, stands once with a name: a failure says which equation is wrong. What it is compared
with shares no code with the kernels: the eager reference, and the neuron written by hand in NumPy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _processor import LEVELS, runs
from compare import assert_identical, assert_within
from family import OUTPUTS, Case, assert_same, flat
from family import run as run_case
from numpy_lif import Neuron, Result
from numpy_lif import run as numpy_run
from torch import Tensor

from lif_cuda import NeuronState, functional, reference
from lif_cuda.surrogate import ATan, FastSigmoid, Rectangle, Surrogate, Triangle

DTYPES = [torch.float32, torch.float64]
DELAYED = {"delay_reset": True, "detach_reset": True}
ADAPTIVE = {"kappa": True, "rho": True}
# What a neuron can be. True stands for a learned value of each neuron; numbers and flags are themselves.
NEURONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "detached": {"detach_reset": True},
    "strict": {"strict": True},
    "zero": {"reset": "zero"},
    "zero to a value": {"reset": "zero", "v_reset": True},
    "zero detached": {"reset": "zero", "v_reset": True, "detach_reset": True},
    "none": {"reset": "none"},
    "delayed": DELAYED,
    "delayed strict": {**DELAYED, "strict": True},
    "delayed zero": {**DELAYED, "reset": "zero", "v_reset": True},
    "gain": {"gain": True},
    "input decayed": {"decay_input": True},
    "rest": {"rest": 0.25},
    "rest, zero to a value": {"rest": -0.5, "reset": "zero", "v_reset": True},
    "rest delayed": {**DELAYED, "rest": 0.25},
    "rest delayed zero": {**DELAYED, "rest": 0.25, "reset": "zero", "v_reset": True},
    "current": {"alpha": True},
    "current and gain": {"alpha": True, "gain": True},
    "current delayed": {**DELAYED, "alpha": True},
    "adaptive": ADAPTIVE,
    "adaptive detached": {**ADAPTIVE, "detach_reset": True},
    "adaptive zero": {**ADAPTIVE, "reset": "zero", "v_reset": True},
    "adaptive none strict": {**ADAPTIVE, "reset": "none", "strict": True},
    "refractory 1": {"refractory": 1},
    "refractory 3": {"refractory": 3},
    "refractory zero": {"refractory": 2, "reset": "zero", "v_reset": True},
    "refractory none gain": {"refractory": 2, "reset": "none", "gain": True},
    "refractory rest current": {"refractory": 4, "alpha": True, "rest": 0.25},
    "refractory adaptive": {"refractory": 2, **ADAPTIVE},
    "floor": {"v_min": True},
    "floor zero": {"v_min": True, "reset": "zero", "v_reset": True, "detach_reset": True},
    "floor none rest": {"v_min": True, "reset": "none", "rest": -0.25},
    "floor delayed": {"v_min": True, "delay_reset": True, "detach_reset": True, "strict": True},
    "floor delayed zero": {
        "v_min": True,
        "delay_reset": True,
        "detach_reset": True,
        "reset": "zero",
        "v_reset": True,
    },
    "floor refractory": {"v_min": True, "refractory": 3},
    "everything": {
        "v_min": True,
        "alpha": True,
        "gain": True,
        **ADAPTIVE,
        "refractory": 2,
        "rest": 0.1,
        "reset": "zero",
        "v_reset": True,
        "strict": True,
    },
}
# Time steps and neurons: T = 48 is the longest without checkpoints on the CPU, 49 the shortest with one; 129
# and 257 end a task of neurons with one more, and 4099 are many tasks.
SHAPES = [(0, 7), (1, 1), (2, 129), (25, 4099), (48, 7), (49, 257), (100, 129)]
RANGES = {
    "beta": (0.5, 0.95),
    "threshold": (0.6, 1.4),
    "v_reset": (-0.3, 0.3),
    "gain": (0.5, 1.5),
    "alpha": (0.2, 0.8),
    "kappa": (0.1, 0.5),
    "rho": (0.5, 0.9),
    "v_min": (-0.4, 0.1),
}
SURROGATES: list[tuple[Surrogate, Callable[[Any], Any]]] = [
    (FastSigmoid(8.0), lambda z: (w := 1 + z.dtype.type(8) * np.abs(z), 1 / (w * w))[1]),
    (ATan(), lambda z: (w := z.dtype.type(np.pi) * z, 1 / (1 + w * w))[1]),
    (Triangle(0.5), lambda z: z.dtype.type(0.5) * np.maximum(1 - z.dtype.type(0.5) * abs(z), 0)),
    (Rectangle(1.0), lambda z: (np.abs(z) < 0.5).astype(z.dtype)),
]


def state_names(options: dict[str, Any]) -> tuple[str, ...]:
    owners = {"alpha": "current", "kappa": "adaptation", "refractory": "silence"}
    return ("membrane", *(state for option, state in owners.items() if option in options))


def make_case(
    neuron: str,
    steps: int,
    size: int,
    dtype: torch.dtype,
    *,
    output: tuple[str, ...] = OUTPUTS,
) -> Case:
    """A call of this neuron with a state, all its parameters learned, and all outputs."""
    options = NEURONS[neuron]
    seed = 1000 * list(NEURONS).index(neuron) + steps
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    asked = {name for name, value in options.items() if value is True and name in RANGES}
    parameters: dict[str, float | Tensor] = {}
    for name in ("beta", "threshold", *sorted(asked)):
        low, high = RANGES[name]
        values = low + (high - low) * torch.rand(size, generator=generator, dtype=torch.float64)
        parameters[name] = values.to(dtype)
    states = {name: normal(size) for name in state_names(options)}
    for name in states.keys() & {"adaptation", "silence"}:
        states[name] = states[name].abs().round()
    x = normal(steps, size)
    # One that decays its input by 1 - beta needs more of it.
    x = x + 0.9 if "decay_input" in options else 0.5 * x + 0.3
    plain = {name: value for name, value in options.items() if name not in asked}
    plain |= {
        "output": output if len(output) > 1 else output[0],
        "surrogate": SURROGATES[seed // 1000 % len(SURROGATES)][0],
    }
    return Case(x, parameters, states, state_names(options), plain, output, seed=seed)


def membrane_of(states: dict[str, Tensor]) -> Any:
    """The states as the functions take them."""
    return NeuronState(**states) if len(states) > 1 else states["membrane"]


def call(function: Callable[..., Any], case: Case, **leaves: Tensor) -> dict[str, Tensor]:
    """The results by name: outputs, then final states. ``leaves`` replace the case's own tensors."""
    states = {name: leaves.get(name, tensor) for name, tensor in case.states.items()}
    parameters = {name: leaves.get(name, value) for name, value in case.parameters.items()}
    x, membrane = leaves.get("x", case.x), membrane_of(states)
    result = function(x, **parameters, membrane=membrane, **case.options)
    labels = [*case.outputs, *(f"final {name}" for name in case.state_names)]
    return dict(zip(labels, flat(result), strict=True))


def leaves_of(case: Case) -> dict[str, Tensor]:
    """A leaf for all that has a gradient."""
    tensors = {"x": case.x, **case.states, **case.parameters}
    return {
        name: tensor.clone().requires_grad_()
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor) and name not in ("silence", "v_min")
    }


def incoming(case: Case, results: dict[str, Tensor]) -> dict[str, Tensor]:
    """A gradient for each result that has one.

    That of the first-spike time in eighths: its sums over the steps are then exact in any order.
    """
    generator = torch.Generator().manual_seed(case.seed + 1)
    grads = {}
    for name, tensor in results.items():
        grad = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if name == "first_spike":
            grad = (8 * grad).round() / 8
        if tensor.requires_grad:
            grads[name] = grad.to(tensor.dtype)
    return grads


def back(
    results: dict[str, Tensor], leaves: dict[str, Tensor], grads: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The gradients of the leaves; zeros where nothing depends on one."""
    found = torch.autograd.grad(
        [results[name] for name in grads], list(leaves.values()), list(grads.values()), allow_unused=True
    )
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found, strict=True)
    }


def by_numpy(case: Case, grads: dict[str, Tensor]) -> Result:
    parameters = {name: value.numpy() for name, value in case.parameters.items() if isinstance(value, Tensor)}
    options = {k: v for k, v in case.options.items() if k not in ("output", "surrogate", "decay_input")}
    formula = dict(SURROGATES)[case.options["surrogate"]]
    if "decay_input" in case.options:
        parameters["gain"] = 1 - parameters["beta"]
    return numpy_run(
        Neuron(**parameters, **options, surrogate=formula),
        case.x.numpy(),
        {name: state.numpy() for name, state in case.states.items()},
        {name: grad.numpy() for name, grad in grads.items()},
    )


MATRIX = [(neuron, *shape, dtype) for neuron in NEURONS for shape in SHAPES for dtype in DTYPES]
MATRIX += [(neuron, 1000, 7, torch.float32) for neuron in NEURONS]


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """With so many threads, which torch's own functions use too: for calls of the fused neuron only."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For the eager reference, whose small functions spend their time on starting threads."""
    with threads(1):
        yield


def assert_as_both(case: Case) -> dict[str, Tensor]:
    """Outputs, states and their gradients are those of the reference and those by hand, bit for bit.

    Gradients of parameters are within the bound of their sums. Returns the fused results.
    """
    leaves, own = leaves_of(case), leaves_of(case)
    expected = call(reference.lif, case, **own)
    grads = incoming(case, expected)
    with threads(2):
        results = call(functional.lif, case, **leaves)
        fused = back(results, leaves, grads)
    eager = back(expected, own, grads)
    by_hand = by_numpy(case, grads)
    for name, tensor in expected.items():
        assert_identical(results[name], tensor, name)
        hand = by_hand.states[name[6:]] if name.startswith("final ") else by_hand.outputs[name]
        assert np.array_equal(tensor.detach().numpy(), hand), f"{name} by hand"
    for name in {"x", *case.states} - {"silence"}:
        assert_identical(fused[name], eager[name], f"gradient of {name}")
        assert np.array_equal(fused[name].numpy(), by_hand.gradients[name]), f"gradient of {name} by hand"
    for name in case.parameters.keys() - {"v_min"}:
        sums, terms = by_hand.gradients[name], by_hand.terms[name]
        if name == "beta" and "decay_input" in case.options:
            sums, terms = sums - by_hand.gradients["gain"], terms + by_hand.terms["gain"]
        # T terms of at most five roundings each, one addition for each of them, and two terms a step.
        count = 2 * len(case.x) + 8
        for which, found in (("fused", fused[name]), ("reference", eager[name])):
            numbers = (found, torch.from_numpy(sums), torch.from_numpy(terms))
            assert_within(*numbers, count, case.x.dtype, f"{which} gradient of {name}")
    return results


@pytest.mark.parametrize(("neuron", "steps", "size", "dtype"), MATRIX, ids=str)
def test_every_neuron(neuron: str, steps: int, size: int, dtype: torch.dtype) -> None:
    # Neurons without a trace before the reset have a shorter way through the kernels.
    shorter = {"trace_before_reset"} if steps not in (1, 2, 48, 100) else set()
    shorter |= {"trace_max"} if steps == 0 else set()  # of no membranes
    output = tuple(name for name in OUTPUTS if name not in shorter)
    results = assert_as_both(make_case(neuron, steps, size, dtype, output=output))
    if steps >= 25:
        rate = results["spikes"].mean().item()
        assert 0.03 < rate < 0.7, f"a test at a firing rate of {rate} shows little"


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
@pytest.mark.parametrize("neuron", [name for name in NEURONS if "strict" not in NEURONS[name]])
def test_at_the_very_threshold(neuron: str, strict: bool) -> None:
    """Membranes of few digits meet the threshold exactly, which random ones never do."""
    case = make_case(neuron, 12, 1031, torch.float32)
    values = {
        "beta": 0.5,
        "threshold": 1.0,
        "v_reset": 0.25,
        "gain": 0.5,
        "alpha": 0.5,
        "kappa": 0.5,
        "rho": 0.5,
        "v_min": -0.25,
    }
    case.parameters |= {name: torch.full((1031,), values[name]) for name in case.parameters}
    case.states |= {name: (2 * state).round() / 2 for name, state in case.states.items()}
    case.options["strict"] = strict
    case = dataclasses.replace(case, x=(8 * case.x).round() / 8)
    results = assert_as_both(case)
    b = [case.states.get("adaptation", torch.zeros(1031))]
    for spikes in results["spikes"][:-1]:
        b.append(0.5 * b[-1] + spikes)
    level = 1 + 0.5 * torch.stack(b) if "kappa" in case.parameters else 1
    met = results["trace_before_reset"] == level
    assert met.sum() > 10
    assert not results["spikes"][met].any() if strict else results["spikes"][met].any()


# Those whose kernels differ most in what they keep for backward.
KINDS = [
    "plain",
    "zero to a value",
    "delayed zero",
    "rest, zero to a value",
    "refractory adaptive",
    "floor delayed zero",
    "everything",
]


@pytest.mark.parametrize("steps", [20, 70])
@pytest.mark.parametrize("neuron", KINDS)
def test_each_gradient_alone(neuron: str, steps: int) -> None:
    """From each result alone to each input alone: what is not wanted is left out of no sum that is."""
    case = make_case(neuron, steps, 37, torch.float32)
    own = leaves_of(case)
    expected = call(reference.lif, case, **own)
    grads = incoming(case, expected)
    for label, grad in grads.items():
        alone = make_case(neuron, steps, 37, torch.float32, output=(label,)) if label in OUTPUTS else case
        eager = torch.autograd.grad(
            expected[label], list(own.values()), grad, retain_graph=True, allow_unused=True
        )
        all_leaves = leaves_of(alone)
        all_found = back(call(functional.lif, alone, **all_leaves), all_leaves, {label: grad})
        for (name, leaf), expected_grad in zip(own.items(), eager, strict=True):
            wanted = {name: leaf.detach().clone().requires_grad_()}
            found = back(call(functional.lif, alone, **wanted), wanted, {label: grad})[name]
            what = f"gradient of {name} from {label}"
            assert_identical(found, all_found[name], f"{what}, alone and with others,")
            if expected_grad is None:
                assert not found.any(), what
            elif name in case.parameters:
                torch.testing.assert_close(found, expected_grad, rtol=1e-3, atol=1e-4)
            else:
                assert_identical(found, expected_grad, what)


@pytest.mark.parametrize("neuron", NEURONS)
def test_each_output_alone(neuron: str) -> None:
    """Also without the state, and without a graph: the kernels skip what nobody asked for."""
    case = make_case(neuron, 60, 131, torch.float32)
    leaves = leaves_of(case)
    together = call(functional.lif, case, **leaves)
    for name in OUTPUTS:
        options = {**case.options, "output": name}
        alone = dataclasses.replace(case, options=options, outputs=(name,))
        for label, tensor in call(functional.lif, alone).items():
            assert_identical(tensor, together[label], f"{label} of {name} alone")
        membrane = membrane_of(case.states)
        out = functional.lif(case.x, **case.parameters, membrane=membrane, return_state=False, **options)
        assert_identical(out, together[name], f"{name} without the state")


@pytest.mark.parametrize("detach", [False, True], ids=["", "truncated"])
@pytest.mark.parametrize("neuron", NEURONS)
def test_streaming(neuron: str, detach: bool) -> None:
    """Pieces with the state handed on are one long call, backward too; a detached state cuts the gradient."""
    series = ("spikes", "trace", "trace_before_reset")
    case = make_case(neuron, 120, 33, torch.float32, output=series)
    grads = {
        name: torch.randn(120, 33, generator=torch.Generator().manual_seed(i))
        for i, name in enumerate(series)
    }

    def streamed(
        function: Callable[..., Any], lengths: list[int]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        leaves = leaves_of(case)
        states: dict[str, Tensor] = {}
        found: dict[str, list[Tensor]] = {}
        for piece in leaves["x"].split(lengths):
            results = call(function, case, **(leaves | states | {"x": piece}))
            states = {name: results[f"final {name}"] for name in case.states}
            if detach:
                states = {name: state.detach() for name, state in states.items()}
            for name in series:
                found.setdefault(name, []).append(results[name])
        results = {name: torch.cat(pieces) for name, pieces in found.items()}
        computed = back(results, leaves, grads)
        return {**results, **states}, {
            name: computed[name] for name in ("x", *case.states) if name in computed
        }

    # 50 steps have a checkpoint, 7 and 13 have none.
    results, computed = streamed(functional.lif, [7, 50, 13, 50])
    whole, of_whole = streamed(functional.lif, [120])
    for name, tensor in whole.items():
        assert_identical(results[name], tensor, name)
    if detach:
        _, of_whole = streamed(reference.lif, [7, 50, 13, 50])
    for name, grad in of_whole.items():
        assert_identical(computed[name], grad, f"gradient of {name}")
    if detach:
        _, uncut = streamed(functional.lif, [120])
        assert not torch.equal(computed["x"][:7], uncut["x"][:7]), "nothing was cut"


# Values that repeat over neurons, and tasks of neurons that begin and end within a repetition.
BROADCAST = [
    ((3, 700), [(), (1,), (700,), (3, 1), (3, 700), (1, 700)]),
    ((700, 3), [(3,), (700, 1), (700, 3)]),
    ((2, 5, 300), [(5, 1), (2, 1, 1), (5, 300), (2, 5, 1), (2, 1, 300), (1, 5, 1), (1, 1, 1)]),
]


@pytest.mark.parametrize("count", [1, 2], ids=["1thread", "2threads"])
@pytest.mark.parametrize("time_dim", [0, 1])
@pytest.mark.parametrize(
    ("features", "shape"), [(features, shape) for features, shapes in BROADCAST for shape in shapes], ids=str
)
def test_parameters_over_many_tasks(
    features: tuple[int, ...], shape: tuple[int, ...], time_dim: int, count: int
) -> None:
    """All eight of one shape; their gradients within the rounding of sums over the neurons."""
    steps = 6
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(features[:time_dim] + (steps,) + features[time_dim:], generator=generator) * 0.5 + 0.3
    parameters: dict[str, float | Tensor] = {
        name: low + (high - low) * torch.rand(shape, generator=generator)
        for name, (low, high) in RANGES.items()
    }
    options = {"reset": "zero", "time_dim": time_dim, "output": ("spikes", "trace"), "refractory": 1}
    options |= {"surrogate": FastSigmoid(8.0)}
    states = {
        name: torch.rand(features, generator=generator) for name in ("membrane", "current", "adaptation")
    }
    states["silence"] = torch.zeros(features)
    case = Case(x, parameters, states, tuple(NeuronState._fields), options, ("spikes", "trace"))
    with threads(count):
        actual = run_case(functional.lif, case)
    expected = run_case(reference.lif, case)
    assert_same(actual, expected, torch.float32)
    # Both round some steps * neurons terms that cancel in part: far below one term that is lost or doubled.
    for name, grad in actual.parameter_gradients.items():
        other = expected.parameter_gradients[name]
        if name == "v_min":  # A constant, refused as something to learn.
            assert grad is None and other is None
            continue
        assert grad is not None and other is not None
        scale = (grad.abs().mean() + 1) * (x.numel() / max(1, grad.numel())) ** 0.5
        assert (grad - other).abs().max() <= 1e-5 * scale, name


def test_one_leaf_in_several_places() -> None:
    """Gradients of a tensor that is the decay of the membrane, of the current and of the threshold add up."""
    grads = []
    for function in (functional.lif, reference.lif):
        leaf = torch.tensor([0.5, 0.7, 0.8], dtype=torch.float64, requires_grad=True)
        x = torch.linspace(-1, 3, 90, dtype=torch.float64).view(30, 3).sin() + 0.4
        out, state = function(
            x * leaf, leaf, 2 * leaf, None, alpha=leaf, kappa=leaf, rho=leaf, output="trace"
        )
        (out.square().sum() + state.adaptation.sum()).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-11)


SIMD_LEVELS = """
import hashlib
import torch
from family import SeededPick, draw_case, run
from lif_cuda import functional
from lif_cuda._build_facts import facts
from lif_cuda.surrogate import Gaussian, PiecewiseExp, Sigmoid

digest = hashlib.sha256()
for seed in range(9000, 9150):
    case = draw_case(SeededPick(seed), seed)
    if seed % 3 == 0:
        case.options["surrogate"] = (Gaussian(1.5), PiecewiseExp(2.0), Sigmoid(4.0))[seed // 3 % 3]
    outcome = run(functional.lif, case)
    parts = (outcome.results, outcome.gradients, outcome.parameter_gradients)
    for tensor in (tensor for part in parts for tensor in part.values() if tensor is not None):
        # Zeros of one sign, and one NaN: which of them comes out is no part of the promise.
        tensor = torch.where(tensor.isnan(), torch.full_like(tensor, 7), tensor + 0)
        digest.update(tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
print(facts()["simd"], digest.hexdigest())
"""


@pytest.mark.slow
def test_every_simd_level_has_the_same_bits(tmp_path: Path) -> None:
    """Of drawn calls of the whole family, the exponential surrogates and the 16-bit formats among them."""
    digests = {}
    for level in filter(runs, LEVELS):
        done = subprocess.run(
            [sys.executable, "-P", "-c", SIMD_LEVELS],
            cwd=tmp_path,
            env=os.environ | {"LIF_CUDA_SIMD": level, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        ran, digests[level] = done.stdout.split()
        assert ran == level
    assert len(set(digests.values())) == 1, digests
