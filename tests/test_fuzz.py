"""Calls of the whole family drawn by hypothesis, fused against the reference.

Options, shapes, dtypes, layouts and outputs; and beside them which gradients are wanted, which arrive, and
how those lie in memory. A few hundred in the normal run. LIF_CUDA_FUZZ=20000 draws as many:

    LIF_CUDA_FUZZ=20000 python -P -m pytest tests/test_fuzz.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import torch
from compare import GRADIENT_LAYOUTS, laid_out
from family import Case, Outcome, Pick, SeededPick, assert_same, draw_case, flat, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lif_cuda import NeuronState, functional, reference
from lif_cuda.surrogate import ATan

T = TypeVar("T")
EXAMPLES = int(os.environ.get("LIF_CUDA_FUZZ", "300"))


class DrawnPick:
    """Choices of hypothesis."""

    def __init__(self, draw: st.DataObject) -> None:
        self._draw = draw.draw

    def choice(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(options))

    def chance(self, probability: float) -> bool:
        # Shrinks to the option that is not taken.
        return self._draw(st.integers(0, 99)) >= 100 * (1 - probability)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    # The same draws in every normal run; a long run draws its own.
    derandomize=EXAMPLES == 300,
)
@given(st.data(), st.integers(0, 2**31))
def test_drawn_calls_equal_the_reference(data: st.DataObject, seed: int) -> None:
    case = draw_case(DrawnPick(data), seed)
    assert_same(run(functional.lif, case), run(reference.lif, case), case.x.dtype)


@dataclass
class Use:
    """How a call is differentiated, beyond what it computes."""

    wanted: frozenset[str]  # of the inputs
    strided: frozenset[str]  # states and parameters that are not contiguous
    incoming: dict[str, str]  # results that have a gradient, and how that lies


def draw_use(pick: Pick, case: Case) -> Use:
    """Any subset of gradients wanted and given. May give each channel its own parameters, too."""
    if case.x.dim() > ("steps" not in case.options) and pick.chance(0.3):
        axes = [a for a in range(case.x.dim()) if "steps" in case.options or a != case.options["time_dim"]]
        axis = pick.choice(axes)
        case.options["channel_dim"] = pick.choice([axis, axis - case.x.dim()])
        for name, value in case.parameters.items():
            if isinstance(value, Tensor) and value.dim() == 1:
                case.parameters[name] = torch.linspace(0.2, 0.9, case.x.shape[axis], dtype=value.dtype)
    inputs = ["x", *case.states.keys() - {"silence"}, *case.parameters.keys() - {*case.constants}]
    wanted = frozenset(name for name in sorted(inputs) if pick.chance(0.5)) or frozenset(
        {pick.choice(inputs)}
    )
    strided = frozenset(name for name in sorted(inputs) if name != "x" and pick.chance(0.3))
    results = [*case.outputs, *case.state_names]
    incoming = {name: pick.choice(GRADIENT_LAYOUTS) for name in results if pick.chance(0.6)}
    return Use(wanted, strided, incoming)


def run_used(function: Callable[..., Any], case: Case, use: Use) -> Outcome:
    """family.run, with gradients as ``use`` has them."""

    def leaf(name: str, value: Any) -> Any:
        return (
            value.detach().clone().requires_grad_(name in use.wanted) if isinstance(value, Tensor) else value
        )

    def as_it_lies(name: str, value: Any) -> Any:
        if name in use.strided and isinstance(value, Tensor):
            return torch.stack([value, value.detach() + 1], -1)[..., 0]
        return value

    leaves = {name: leaf(name, value) for name, value in (case.states | case.parameters).items()}
    x = leaf("x", case.x)
    given = {name: as_it_lies(name, value) for name, value in leaves.items()}
    states = {name: given[name] for name in case.states}
    membrane: Any = None
    if states:
        membrane = NeuronState(**states) if len(case.state_names) > 1 else states["membrane"]
    parameters = {name: given[name] for name in case.parameters}
    result = function(case.view(x), **parameters, membrane=membrane, **case.options, **case.lengths_option)
    results = dict(zip([*case.outputs, *case.state_names], flat(result), strict=True))
    generator = torch.Generator().manual_seed(case.seed)
    pairs = []
    for name, tensor in results.items():
        grad = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)
        if tensor.requires_grad and name in use.incoming:
            timed = name in ("spikes", "trace", "trace_before_reset")
            if grad.numel() and grad.dim():
                grad = laid_out(grad, use.incoming[name], case.options["time_dim"] if timed else 0)
            pairs.append((tensor, grad))
    if pairs:
        torch.autograd.backward([p[0] for p in pairs], [p[1] for p in pairs])
    gradients = {name: v.grad if isinstance(v, Tensor) else None for name, v in leaves.items()}
    return Outcome(
        {name: tensor.detach() for name, tensor in results.items()},
        {"x": x.grad, **{name: gradients[name] for name in case.states}},
        {name: gradients[name] for name in case.parameters},
    )


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    derandomize=EXAMPLES == 300,
)
@given(st.data(), st.integers(0, 2**31))
def test_drawn_gradients_equal_the_reference(data: st.DataObject, seed: int) -> None:
    pick = DrawnPick(data)
    case = draw_case(pick, seed)
    use = draw_use(pick, case)
    actual, expected = run_used(functional.lif, case, use), run_used(reference.lif, case, use)
    assert_same(actual, expected, case.x.dtype)


@pytest.mark.parametrize("seed", range(300))
def test_seeded_calls_equal_the_reference(seed: int) -> None:
    # The same calls in every run, with outputs poisoned first: torch fills what it allocates with NaN.
    case = draw_case(SeededPick(seed), seed)
    expected = run(reference.lif, case)
    torch.use_deterministic_algorithms(True)
    try:
        actual = run(functional.lif, case)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same(actual, expected, case.x.dtype)


def test_the_drawn_calls_cover_the_family() -> None:
    """What is never drawn is never tested."""
    cases = [draw_case(SeededPick(seed), seed) for seed in range(300)]
    for option in ("steps", "decay_input", "rest", "delay_reset", "refractory"):
        assert sum(option in case.options for case in cases) > 15, option
    assert sum(case.lengths is not None for case in cases) > 30
    for name in ("v_reset", "gain", "alpha", "kappa", "v_min"):
        learned = [case for case in cases if isinstance(case.parameters.get(name), torch.Tensor)]
        assert len(learned) > 10, name
    assert len({(case.x.dtype, case.options["reset"], case.options["surrogate"]) for case in cases}) > 60


def has_time_to_cut(seed: int) -> bool:
    case = draw_case(SeededPick(seed), seed)
    return "steps" not in case.options and case.x.shape[case.options["time_dim"]] >= 2


@pytest.mark.parametrize("seed", [*filter(has_time_to_cut, range(5000, 5120))])
def test_chunks_of_time_equal_one_long_call(seed: int) -> None:
    """Of every neuron with every state: streaming gives the bits of one call, whatever the pieces."""
    case = draw_case(SeededPick(seed), seed)
    time_dim = case.options["time_dim"]
    steps = case.x.shape[time_dim]
    options = {name: value for name, value in case.options.items() if name != "output"}
    state = None
    if case.states:
        state = NeuronState(**case.states) if len(case.state_names) > 1 else case.states["membrane"]
    whole, final = functional.lif(
        case.x, **case.parameters, membrane=state, output="trace", **options, **case.lengths_option
    )
    pieces = []
    left = case.lengths
    for piece in case.x.tensor_split([1, steps // 3 + 1, steps - 1], time_dim):
        size = piece.shape[time_dim]
        lengths = None if left is None else left.clamp(max=size)
        out, state = functional.lif(
            piece, **case.parameters, membrane=state, output="trace", lengths=lengths, **options
        )
        left = None if left is None else left - lengths
        pieces.append(out)
    assert torch.equal(torch.cat(pieces, time_dim), whole)
    for mine, expected in zip(flat(state), flat(final), strict=True):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"reset": "zero", "surrogate": ATan()},
        {
            "alpha": 0.7,
            "kappa": 0.2,
            "rho": 0.9,
            "refractory": 2,
            "output": ("trace", "first_spike", "total"),
        },
        {"delay_reset": True, "detach_reset": True, "rest": 0.1, "output": ("count", "rate")},
    ],
    ids=["zero", "all states", "delayed"],
)
def test_threads_change_no_bit(options: dict[str, object], dtype: torch.dtype) -> None:
    """Nor do they change the gradients of parameters, which are sums over all neurons."""
    state = torch.float64 if dtype == torch.float64 else torch.float32
    x = (torch.randn(30, 7, 1031, dtype=torch.float64) * 0.5 + 0.2).to(dtype)
    outcomes = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        leaves = [x.clone(), torch.full((), 0.9, dtype=state), torch.ones(1031, dtype=state)]
        for leaf in leaves:
            leaf.requires_grad_()
        results = flat(functional.lif(*leaves, **options))
        loss = sum((r.double() * torch.linspace(-1, 1, 1031)).sum() for r in results if r.requires_grad)
        outcomes.append([*results, *torch.autograd.grad(loss, leaves)])
    torch.set_num_threads(before)
    for other in outcomes[1:]:
        for mine, expected in zip(other, outcomes[0], strict=True):
            assert torch.equal(mine, expected)
