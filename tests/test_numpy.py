"""Fused kernels and eager reference against the neuron written by hand in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from compare import assert_within
from family import flat
from numpy_lif import Neuron, run, run_padded

from lif_cuda import NeuronState, functional, reference
from lif_cuda.surrogate import ATan, FastSigmoid, Rectangle, Triangle

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


@pytest.mark.parametrize("function", [functional.lif, reference.lif], ids=["fused", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("outputs", [*OUTPUTS, OUTPUTS], ids=lambda o: o if isinstance(o, str) else "all")
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(o) or "plain")
def test_like_numpy(
    options: dict[str, Any], padded: bool, outputs: Any, dtype: torch.dtype, function: Any
) -> None:
    """One neuron a sample, which has a length of its own where the batch is padded."""
    steps, size = 60, 67
    names = ("membrane", *(("current",) if "alpha" in options else ()))
    names += (
        *(("adaptation",) if "kappa" in options else ()),
        *(("silence",) if "refractory" in options else ()),
    )
    generator = torch.Generator().manual_seed(len(options) + 7)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    asked = {name for name, value in options.items() if value is True and name in RANGES}
    parameters = {}
    for name in ("beta", "threshold", *sorted(asked)):
        low, high = RANGES[name]
        values = low + (high - low) * torch.rand(size, generator=generator, dtype=torch.float64)
        parameters[name] = values.to(dtype).requires_grad_(name != "v_min")
    states = {name: normal(size) for name in names}
    if "silence" in states:
        states["silence"] = states["silence"].abs().round()
    for name in names:
        states[name].requires_grad_(name != "silence")
    x = (0.5 * normal(steps, size) + 0.2).requires_grad_()
    surrogate, by_hand = list(SURROGATES.values())[len(options) % len(SURROGATES)]
    plain_call = plain = {name: value for name, value in options.items() if name not in asked}
    membrane: Any = NeuronState(**states) if len(names) > 1 else states["membrane"]
    lengths = torch.randint(0, steps + 1, (size,), generator=generator)
    lengths[:5] = torch.tensor([0, 1, 32, 33, steps])
    if padded:
        plain_call = plain | {"lengths": lengths}
    results = flat(
        function(x, **parameters, membrane=membrane, output=outputs, surrogate=surrogate, **plain_call)
    )
    listed = [outputs] if isinstance(outputs, str) else list(outputs)
    labels = [*listed, *(f"final {name}" for name in names)]
    grads = {label: normal(*r.shape).to(r.dtype) for label, r in zip(labels, results, strict=True)}
    pairs = [(r, grads[label]) for label, r in zip(labels, results, strict=True) if r.requires_grad]
    torch.autograd.backward(*zip(*pairs, strict=True))

    given = (
        Neuron(
            **{name: value.detach().numpy() for name, value in parameters.items()},
            **plain,
            surrogate=by_hand,
        ),
        x.detach().numpy(),
        {name: state.detach().numpy() for name, state in states.items()},
        {label: grad.numpy() for label, grad in grads.items()},
    )
    expected = run_padded(*given, lengths.numpy()) if padded else run(*given)
    rate = expected.outputs["spikes"].mean()
    assert 0.02 < rate < 0.7, f"a test at a firing rate of {rate} shows little"
    for label, result in zip(labels, results, strict=True):
        found = expected.states[label[6:]] if label.startswith("final ") else expected.outputs[label]
        assert np.array_equal(result.detach().numpy(), found), label
    for name, tensor in {"x": x, **states}.items():
        if name == "silence":
            continue
        mine, theirs = tensor.grad.numpy(), expected.gradients[name]
        if "first_spike" in listed:
            # Counted by hand in one product, and by autograd and the kernels in a sum of T terms.
            np.testing.assert_allclose(mine, theirs, rtol=2e-3 if dtype == torch.float32 else 1e-9, atol=1e-4)
        else:
            assert np.array_equal(mine, theirs), f"gradient of {name}"
    for name, parameter in parameters.items():
        if name == "v_min":
            held = (expected.outputs["trace"] == parameter.numpy()).mean()
            assert held > (0.02 if padded else 0.05), "the floor hardly holds"
            continue
        if "first_spike" in listed and dtype == torch.float32:
            continue  # the terms themselves differ by roundings
        if parameter.grad is None:  # by autograd, where nothing depends on it
            assert not expected.terms[name].any()
            continue
        assert_within(
            parameter.grad,
            torch.from_numpy(expected.gradients[name]),
            torch.from_numpy(expected.terms[name]) + 1e-6 * ("first_spike" in listed),
            steps + 8,
            dtype,
            name,
        )
