"""``save="bits"``: two bits a step for backward in place of x, with the same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from family import SeededPick, assert_same, draw_case, kept_in_bits, run

from common.memory import saved_bytes
from lif_cuda import LIF, ReferenceLIF, functional, reference
from lif_cuda._ops import checkpoint_interval
from lif_cuda.surrogate import FastSigmoid, Rectangle, StraightThrough, Surrogate


def saved(**options: Any) -> int:
    """Bytes that autograd keeps of a call on [100, 4, 64] float32."""

    def run(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = functional.lif(x, 0.9, surrogate=Rectangle(), **options)[0]
        return out

    return saved_bytes(run, torch.randn(100, 4, 64))


@pytest.mark.parametrize("seed", range(200))
def test_drawn_calls_equal_the_reference(seed: int) -> None:
    case = kept_in_bits(draw_case(SeededPick(seed), seed), SeededPick(seed))
    assert_same(run(functional.lif, case), run(reference.lif, case), case.x.dtype)


@pytest.mark.parametrize("steps", [0, 1, 15, 16, 17, 32, 1000])
@pytest.mark.parametrize("surrogate", [Rectangle(0.8), StraightThrough(0.3)], ids=repr)
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_the_gradients_are_those_of_x_saved(steps: int, surrogate: Surrogate, reset: Any) -> None:
    x = torch.randn(steps, 3, 37)
    results = []
    for save in ("input", "bits"):
        leaf, threshold = x.clone().requires_grad_(), torch.full((37,), 0.9, requires_grad=True)
        out, membrane = functional.lif(
            leaf, 0.9, threshold, reset=reset, detach_reset=reset == "zero", surrogate=surrogate, save=save
        )
        results.append(
            torch.autograd.grad((out * torch.arange(37.0)).sum() + membrane.square().sum(), [leaf, threshold])
        )
    for by_input, by_bits in zip(*results, strict=True):
        assert torch.equal(by_input, by_bits)


def test_two_bits_are_all_that_is_kept() -> None:
    neurons, words = 4 * 64, 7  # of 16 steps each
    assert saved(save="bits") == words * neurons * 4 + 4  # and one element that has the shape of x
    checkpoints = (100 - 1) // checkpoint_interval("cpu")
    assert checkpoints == 3 and saved() == (100 + checkpoints) * neurons * 4


def test_x_may_change_between_forward_and_backward() -> None:
    """It is not kept; where it is, autograd refuses."""
    x = torch.randn(20, 8, requires_grad=True)
    for save in ("input", "bits"):
        current = x * 1
        spikes = functional.lif(current, 0.9, surrogate=Rectangle(), save=save, return_state=False)
        current.zero_()
        if save == "bits":
            spikes.sum().backward()
        else:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                spikes.sum().backward()


def test_layers_under_compile_and_without_gradients() -> None:
    x = torch.randn(40, 2, 16)
    fused = LIF(16, learn_threshold=True, save="bits", surrogate=Rectangle())
    plain = ReferenceLIF(16, learn_threshold=True, save="bits", surrogate=Rectangle())
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    found = []
    for layer, module in ((fused, fused), (compiled, fused), (plain, plain)):
        leaf = x.clone().requires_grad_()
        out, membrane = layer(leaf)
        found.append(torch.autograd.grad(out.sum() + membrane.sum(), [leaf, *module.parameters()]))
        with torch.no_grad():
            assert torch.equal(layer(x)[0], out)
    for grads in found[1:]:
        assert torch.equal(found[0][0], grads[0])
        torch.testing.assert_close(found[0][1], grads[1])


@pytest.mark.parametrize("function", [functional.lif, reference.lif])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"surrogate": FastSigmoid()},
            r"surrogate must be a Rectangle or a StraightThrough, got FastSigmoid",
        ),
        ({"reset": "zero"}, "reset='zero' needs the membrane itself in backward; set detach_reset=True"),
        (
            {"delay_reset": True, "detach_reset": True},
            "delay_reset must be False, got True; use save='input'",
        ),
        ({"refractory": 2}, "refractory must be 0, got 2; use save='input'"),
        ({"alpha": 0.5}, "alpha must be None with save='bits'"),
        ({"kappa": 0.5, "rho": 0.5}, "kappa must be None with save='bits'"),
        ({"gain": torch.ones(3, requires_grad=True)}, "gain must not require a gradient with save='bits'"),
        ({"beta": torch.ones(3, requires_grad=True)}, "beta must not require a gradient with save='bits'"),
        ({"save": "nothing"}, "save must be one of 'input', 'bits'; got 'nothing'"),
    ],
)
def test_what_would_not_be_exact_is_refused(function: Any, options: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"beta": 0.9, "surrogate": Rectangle(), "save": "bits"} | options
    with pytest.raises(ValueError, match=message):
        function(torch.randn(4, 3, requires_grad=True), **call)


@pytest.mark.parametrize("layer", [LIF, ReferenceLIF])
@pytest.mark.parametrize("learn", ["learn_beta", "learn_gain"])
def test_layers_refuse_to_learn_what_is_not_kept(layer: Any, learn: str) -> None:
    with pytest.raises(ValueError, match=f"{learn} must be False with save='bits'"):
        layer(save="bits", surrogate=Rectangle(), **{learn: True})


@pytest.mark.parametrize("penalty", [False, True], ids=["direct", "penalty"])
def test_a_recorded_backward_pass_is_refused(penalty: bool) -> None:
    x = torch.randn(6, 5, requires_grad=True)
    out = functional.lif(x, 0.9, surrogate=Rectangle(), save="bits", return_state=False)
    loss = out.sum() + (x.sum() if penalty else 0)
    with pytest.raises(NotImplementedError, match="got one with create_graph=True; use save='input' there"):
        torch.autograd.grad(loss, x, create_graph=True)


def test_transforms_refuse() -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        spikes: torch.Tensor = functional.lif(x, 0.9, surrogate=Rectangle(), save="bits", return_state=False)
        return spikes.sum()

    with pytest.raises(NotImplementedError, match="save='bits' is not for torch.func"):
        torch.func.grad(loss)(torch.randn(4, 3))
