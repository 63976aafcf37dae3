"""Calls of the whole family drawn by hypothesis, fused against the reference.

A few hundred in the normal run. LIF_CUDA_FUZZ=20000 draws as many:

    LIF_CUDA_FUZZ=20000 python -P -m pytest tests/test_fuzz.py
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import pytest
import torch
from family import SeededPick, assert_same, draw_case, flat, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
)
@given(st.data(), st.integers(0, 2**31))
def test_drawn_calls_equal_the_reference(data: st.DataObject, seed: int) -> None:
    case = draw_case(DrawnPick(data), seed)
    assert_same(run(functional.lif, case), run(reference.lif, case), case.x.dtype)


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
    for name in ("v_reset", "gain", "alpha", "kappa"):
        learned = [case for case in cases if isinstance(case.parameters.get(name), torch.Tensor)]
        assert len(learned) > 10, name
    assert len({(case.x.dtype, case.options["reset"], case.options["surrogate"]) for case in cases}) > 60


@pytest.mark.parametrize("seed", range(5000, 5120))
def test_chunks_of_time_equal_one_long_call(seed: int) -> None:
    """Of every neuron with every state: streaming gives the bits of one call, whatever the pieces."""
    case = draw_case(SeededPick(seed), seed)
    time_dim = case.options["time_dim"]
    steps = case.options.get("steps", 0) or case.x.shape[time_dim] if case.x.dim() else 0
    if "steps" in case.options or steps < 2:
        pytest.skip("no time axis to cut")
    options = {name: value for name, value in case.options.items() if name != "output"}
    state = None
    if case.states:
        state = NeuronState(**case.states) if len(case.state_names) > 1 else case.states["membrane"]
    whole, final = functional.lif(case.x, **case.parameters, membrane=state, output="trace", **options)
    pieces = []
    for piece in case.x.tensor_split([1, steps // 3 + 1, steps - 1], time_dim):
        out, state = functional.lif(piece, **case.parameters, membrane=state, output="trace", **options)
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
