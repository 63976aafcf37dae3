"""Closing the chain from autograd to the kernels: the reference, made smooth, passes gradcheck.

The kernels equal the reference bit for bit, and the reference is autograd but for two functions of its own:
the spike and the reset to a value. Here the step of the spike is replaced by the primitive of its surrogate,
which has a true derivative, and finite differences then say whether the reference differentiates the neuron
that it computes. No test mode in the shipped kernels is needed for that.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lif_cuda import NeuronState, reference
from lif_cuda.surrogate import Sigmoid

SURROGATE = Sigmoid(3.0)
_reset_backward = reference._ResetToValue.backward

OPTIONS: list[dict[str, Any]] = [
    {},
    {"reset": "zero", "v_reset": 0.2},
    {"reset": "none"},
    {"rest": 0.3, "gain": 0.8},
    {"decay_input": True},
    {"alpha": 0.6},
    {"kappa": 0.4, "rho": 0.7},
    {"alpha": 0.6, "kappa": 0.4, "rho": 0.7, "reset": "zero", "v_reset": 0.2, "rest": 0.1},
    {"refractory": 2},
    {"refractory": 1, "reset": "zero", "v_reset": 0.2, "alpha": 0.6, "kappa": 0.4, "rho": 0.7},
    {"detach_reset": True},
    {"detach_reset": True, "reset": "zero", "v_reset": 0.2},
    {"detach_reset": True, "kappa": 0.4, "rho": 0.7, "gain": 0.8},
    {"detach_reset": True, "delay_reset": True, "rest": 0.1},
    {"detach_reset": True, "delay_reset": True, "reset": "zero", "v_reset": 0.2, "alpha": 0.6},
    {"v_min": -0.3},
    {"v_min": 0.1, "reset": "zero", "v_reset": 0.2, "refractory": 1},
    {"v_min": 0.0, "reset": "none", "alpha": 0.6},
    {"v_min": -0.3, "detach_reset": True, "delay_reset": True},
]


class SmoothSpike(torch.autograd.Function):
    """The reference's spike with a sigmoid for its step, and the reference's own backward pass."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: Tensor, surrogate: Sigmoid, strict: bool) -> Tensor:
        ctx.save_for_backward(u, threshold)
        ctx.surrogate = surrogate
        return torch.sigmoid(surrogate.slope * (u - threshold))

    backward = reference._Spike.backward


class FrozenResets:
    """Smooth spikes that reset, where the reset is detached, by what they were in the first call.

    A detached reset is a constant to autograd. To finite differences it is one only if it stays when the
    inputs move. Takes the place of the reference's ``_Spike``.
    """

    def __init__(self) -> None:
        self.used = False
        self._first: list[Tensor] = []
        self._next = 0

    def start_call(self) -> None:
        self._next = 0

    def apply(self, u: Tensor, threshold: Tensor, surrogate: Sigmoid, strict: bool) -> Tensor:
        s = SmoothSpike.apply(u, threshold, surrogate, strict)
        if self._next == len(self._first):
            self._first.append(s.detach())
        frozen = self._first[self._next]
        self._next += 1

        def detach() -> Tensor:
            self.used = True
            return frozen

        s.detach = detach
        return s


class SmoothReset(torch.autograd.Function):
    """The product of which the reference's reset is the limit; again with the reference's backward pass.

    That says "did not fire" by s == 0, which here has to be 1 - s.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, v_reset: Tensor, s: Tensor) -> Tensor:
        ctx.save_for_backward(u, v_reset, s)
        return u * (1 - s) + v_reset * s

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, v_reset, s = ctx.saved_tensors
        _, by_value, by_spike = _reset_backward(ctx, *grads)
        return grads[0] * (1 - s), by_value, by_spike


@pytest.mark.parametrize(
    "outputs", ["spikes", ("count", "first_spike", "trace", "trace_before_reset")], ids=str
)
@pytest.mark.parametrize("lengths", [None, torch.tensor([2, 5, 4])], ids=["whole", "padded"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(o) or "plain")
def test_the_reference_differentiates_what_it_computes(
    options: dict[str, Any], lengths: Tensor | None, outputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spikes = FrozenResets()
    detached = "detach_reset" in options
    monkeypatch.setattr(reference, "_Spike", spikes if detached else SmoothSpike)
    monkeypatch.setattr(reference, "_ResetToValue", SmoothReset)
    torch.manual_seed(0)
    learned = [name for name in ("v_reset", "gain", "alpha", "kappa", "rho") if name in options]
    plain = {name: value for name, value in options.items() if name not in learned}
    states = ["membrane", *(["current"] if "alpha" in options else [])]
    states += ["adaptation"] if "kappa" in options else []
    size = 3

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        spikes.start_call()
        x, beta, threshold, *rest = tensors
        state = dict(zip(states, rest, strict=False))
        parameters = dict(zip(learned, rest[len(states) :], strict=True))
        if "refractory" in options:
            state["silence"] = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
        membrane: Any = NeuronState(**state) if len(state) > 1 else state["membrane"]
        out, final = reference.lif(
            x,
            beta,
            threshold,
            membrane,
            output=outputs,
            surrogate=SURROGATE,
            lengths=lengths,
            **parameters,
            **plain,
        )
        found = out if isinstance(out, tuple) else (out,)
        ends = [s for s in final if s is not None] if isinstance(final, tuple) else [final]
        # gradcheck passes over what has no graph: everything but the steps of silence must have one.
        assert all(tensor.requires_grad for tensor in (*found, *ends[: len(states)]))
        return (*found, *ends[: len(states)])

    tensors = [
        torch.randn(5, size, dtype=torch.float64),
        torch.rand(size, dtype=torch.float64),
        0.5 + torch.rand(size, dtype=torch.float64),
        *(torch.randn(size, dtype=torch.float64) for _ in states),
        *(torch.full((size,), options[name], dtype=torch.float64) for name in learned),
    ]
    assert torch.autograd.gradcheck(call, [t.requires_grad_() for t in tensors])
    assert spikes.used == detached
