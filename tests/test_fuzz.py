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
from family import SeededPick, assert_same, draw_case, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lif_cuda import functional, reference

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
