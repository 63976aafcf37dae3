"""Fused kernels and eager reference against the neuron written by hand in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from compare import assert_within
from family import flat
from numpy_lif import Neuron, Result, run, run_padded

from lif_cuda import NeuronState, functional, reference
from lif_cuda.surrogate import ATan, FastSigmoid, Rectangle, Surrogate, Triangle

OPTIONS: list[dict[str, Any]] = [
    {},
    {"reset": "zero"},
    {"reset": "zero", "v_reset": True, "strict": True},
    {"reset": "none"},
    {"detach_reset": True},
    {"reset": "zero", "detach_reset": True},
    {"delay_reset": True, "detach_reset": True, "strict": True},
    {"delay_reset": True, "detach_reset": True, "reset": "zero", "v_reset": True},
    {"gain": True},
    {"rest": 0.25},
    {"rest": -0.5, "reset": "zero", "v_reset": True},
    {"alpha": True},
    {"alpha": True, "gain": True},
    {"kappa": True, "rho": True},
    {"kappa": True, "rho": True, "reset": "zero", "alpha": True},
    {"refractory": 1},
    {"refractory": 4, "alpha": True, "rest": 0.25},
    {"refractory": 2, "kappa": True, "rho": True, "reset": "none"},
    {"v_min": True},
    {"v_min": True, "reset": "zero", "v_reset": True, "refractory": 2},
    {"v_min": True, "reset": "none", "alpha": True},
    {"v_min": True, "delay_reset": True, "detach_reset": True, "reset": "zero", "v_reset": True},
]
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
OUTPUTS = (
    "spikes",
    "count",
    "rate",
    "first_spike",
    "trace",
    "trace_before_reset",
    "total",
    "trace_max",
    "trace_mean",
    "trace_last",
)
SURROGATES = {
    "fast": (FastSigmoid(8.0), lambda z: (w := 1 + z.dtype.type(8) * np.abs(z), 1 / (w * w))[1]),
    "atan": (ATan(), lambda z: (w := z.dtype.type(np.pi) * z, 1 / (1 + w * w))[1]),
    "triangle": (Triangle(0.5), lambda z: z.dtype.type(0.5) * np.maximum(1 - z.dtype.type(0.5) * abs(z), 0)),
    "rectangle": (Rectangle(1.0), lambda z: (np.abs(z) < 0.5).astype(z.dtype)),
}


# Few, as NumPy runs the neurons of each by themselves: around whole words of steps, none, and all.
LENGTHS = torch.tensor([0, 1, 2, 31, 32, 33, 59, 60])
STEPS, SIZE = 60, 67


@dataclass
class Call:
    """A call with random numbers; one neuron a sample, which has a length of its own in a padded batch."""

    x: torch.Tensor
    parameters: dict[str, torch.Tensor]
    states: dict[str, torch.Tensor]
    options: dict[str, Any]  # without tensors
    lengths: torch.Tensor | None
    surrogate: Surrogate
    surrogate_by_hand: Callable[[Any], Any]

    def results(
        self, function: Callable[..., Any], outputs: str | tuple[str, ...]
    ) -> dict[str, torch.Tensor]:
        """What a backend gives, by name, from tensors that have no gradient yet."""
        for tensor in (self.x, *self.parameters.values(), *self.states.values()):
            tensor.grad = None
        of_lengths = {} if self.lengths is None else {"lengths": self.lengths}
        membrane = NeuronState(**self.states) if len(self.states) > 1 else self.states["membrane"]
        found = flat(
            function(
                self.x,
                **self.parameters,
                membrane=membrane,
                output=outputs,
                surrogate=self.surrogate,
                **self.options,
                **of_lengths,
            )
        )
        listed = [outputs] if isinstance(outputs, str) else list(outputs)
        return dict(zip([*listed, *(f"final {name}" for name in self.states)], found, strict=True))

    def by_hand(self, grads: dict[str, torch.Tensor]) -> Result:
        """What NumPy gives."""
        neuron = Neuron(
            **{name: value.detach().numpy() for name, value in self.parameters.items()},
            **self.options,
            surrogate=self.surrogate_by_hand,
        )
        given = (
            neuron,
            self.x.detach().numpy(),
            {name: state.detach().numpy() for name, state in self.states.items()},
            {label: grad.numpy() for label, grad in grads.items()},
        )
        return run(*given) if self.lengths is None else run_padded(*given, self.lengths.numpy())


def draw(options: dict[str, Any], padded: bool, dtype: torch.dtype, generator: torch.Generator) -> Call:
    """A call of a neuron with ``options``; True stands for values of its own for each neuron."""

    def uniform(name: str) -> torch.Tensor:
        low, high = RANGES[name]
        values = low + (high - low) * torch.rand(SIZE, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_(name != "v_min")

    asked = {name for name, value in options.items() if value is True and name in RANGES}
    parameters = {name: uniform(name) for name in ("beta", "threshold", *sorted(asked))}
    of = {"membrane": None, "current": "alpha", "adaptation": "kappa", "silence": "refractory"}
    states = {
        name: normal(generator, dtype, SIZE)
        for name, option in of.items()
        if option is None or option in options
    }
    if "silence" in states:
        states["silence"] = states["silence"].abs().round()
    for name, state in states.items():
        state.requires_grad_(name != "silence")
    x = (0.5 * normal(generator, dtype, STEPS, SIZE) + 0.2).requires_grad_()
    lengths = LENGTHS[torch.randint(0, len(LENGTHS), (SIZE,), generator=generator)]
    lengths[: len(LENGTHS)] = LENGTHS
    return Call(
        x,
        parameters,
        states,
        {name: value for name, value in options.items() if name not in asked},
        lengths if padded else None,
        *list(SURROGATES.values())[len(options) % len(SURROGATES)],
    )


def normal(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("outputs", [*OUTPUTS, OUTPUTS], ids=lambda o: o if isinstance(o, str) else "all")
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(o) or "plain")
def test_like_numpy(
    options: dict[str, Any], padded: bool, outputs: str | tuple[str, ...], dtype: torch.dtype
) -> None:
    """The kernels, and the reference, each against the same numbers."""
    generator = torch.Generator().manual_seed(len(options) + 7)
    call = draw(options, padded, dtype, generator)
    grads: dict[str, torch.Tensor] = {}
    expected: Result | None = None
    for function in (functional.lif, reference.lif):
        results = call.results(function, outputs)
        if expected is None:
            grads = {label: normal(generator, r.dtype, *r.shape) for label, r in results.items()}
            expected = call.by_hand(grads)
            rate = expected.outputs["spikes"].mean()
            assert 0.02 < rate < 0.7, f"a test at a firing rate of {rate} shows little"
        pairs = [(r, grads[label]) for label, r in results.items() if r.requires_grad]
        torch.autograd.backward(*zip(*pairs, strict=True))
        check(call, results, expected)


def check(call: Call, results: dict[str, torch.Tensor], expected: Result) -> None:
    """Outputs, states and gradients are the same as by hand, and sums within their bounds."""
    dtype = call.x.dtype
    # Counted by hand in one product, and by autograd and the kernels in a sum of T terms.
    in_a_sum = "first_spike" in results
    for label, result in results.items():
        found = expected.states[label[6:]] if label.startswith("final ") else expected.outputs[label]
        assert np.array_equal(result.detach().numpy(), found), label
    for name, tensor in {"x": call.x, **call.states}.items():
        if name == "silence":
            continue
        mine, theirs = tensor.grad.numpy(), expected.gradients[name]
        if in_a_sum:
            np.testing.assert_allclose(mine, theirs, rtol=2e-3 if dtype == torch.float32 else 1e-9, atol=1e-4)
        else:
            assert np.array_equal(mine, theirs), f"gradient of {name}"
    for name, parameter in call.parameters.items():
        if name == "v_min":
            held = (expected.outputs["trace"] == parameter.numpy()).mean()
            assert held > (0.02 if call.lengths is not None else 0.05), "the floor hardly holds"
            continue
        if in_a_sum and dtype == torch.float32:
            continue  # the terms themselves differ by roundings
        if parameter.grad is None:  # by autograd, where nothing depends on it
            assert not expected.terms[name].any()
            continue
        assert_within(
            parameter.grad,
            torch.from_numpy(expected.gradients[name]),
            torch.from_numpy(expected.terms[name]) + 1e-6 * in_a_sum,
            STEPS + 8,
            dtype,
            name,
        )
