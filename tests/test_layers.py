"""The layer classes: one constructor, one forward, one state_dict for the fused and the reference."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lif_cuda import LIF, ReferenceLIF
from lif_cuda._module import LIFModule
from lif_cuda.surrogate import FastSigmoid

CLASSES = [LIF, ReferenceLIF]
OPTIONS: list[dict[str, object]] = [
    {},
    {"num_neurons": 7, "beta": 0.8, "learn_beta": True},
    {"num_neurons": (3, 7), "learn_beta": True, "learn_threshold": True},
    {"beta": torch.linspace(0.1, 0.9, 7), "threshold": torch.linspace(0.5, 1.5, 7)},
    {"beta": torch.linspace(0.1, 0.9, 7), "learn_beta": True},
    {"learn_beta": True, "learn_threshold": True, "threshold": 0.7},
    {"output": "count", "detach_reset": True, "surrogate": FastSigmoid(25.0)},
    {"steps": 6},
    {"return_state": False},
]


def pair(**options: object) -> tuple[LIF, ReferenceLIF]:
    fused, reference = LIF(**options), ReferenceLIF(**options)
    reference.load_state_dict(fused.state_dict())
    return fused, reference


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(o) or "default")
def test_one_replaces_the_other(options: dict[str, object]) -> None:
    layers = pair(**options)
    x = torch.randn(3, 7) + 0.3 if "steps" in options else torch.randn(6, 3, 7) + 0.3
    results = []
    for layer in layers:
        out = layer(x)
        out = out if isinstance(out, tuple) else (out,)
        loss = sum((tensor * torch.linspace(-1, 1, 7)).sum() for tensor in out)
        if any(p.requires_grad for p in layer.parameters()):
            loss.backward()
        results.append(out)
    for fused, expected in zip(*results, strict=True):
        assert torch.equal(fused, expected)
    for (name, mine), (other, theirs) in zip(
        layers[0].named_parameters(), layers[1].named_parameters(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_state_dict_keys() -> None:
    assert list(LIF(7, learn_beta=True, learn_threshold=True).state_dict()) == [
        "beta_logit",
        "threshold_values",
    ]
    assert list(LIF(beta=torch.tensor(0.5)).state_dict()) == ["beta_values"]
    assert not LIF(7).state_dict()


@pytest.mark.parametrize("cls", CLASSES)
def test_learned_beta_starts_where_it_was_put(cls: type[LIFModule]) -> None:
    layer = cls(4, 0.85, learn_beta=True)
    torch.testing.assert_close(layer.beta, torch.full((4,), 0.85))
    assert layer.beta_logit.shape == (4,)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_step_loop_gives_what_forward_gives(cls: type[LIFModule]) -> None:
    layer = cls(7, learn_beta=True)
    x = torch.randn(6, 3, 7, requires_grad=True)
    out, final = layer(x)
    membrane = None
    spikes = []
    for current in x:
        spike, membrane = layer.step(current, membrane)
        spikes.append(spike)
    assert torch.equal(torch.stack(spikes), out)
    assert torch.equal(membrane, final)
    (whole,) = torch.autograd.grad(out.square().sum() + final.sum(), x, retain_graph=True)
    (by_step,) = torch.autograd.grad(torch.stack(spikes).square().sum() + membrane.sum(), x)
    assert torch.equal(whole, by_step)


@pytest.mark.parametrize("cls", CLASSES)
def test_step_ignores_the_options_of_a_whole_call(cls: type[LIFModule]) -> None:
    layer = cls(output="count", return_state=False, steps=9)
    spike, membrane = layer.step(torch.full((2,), 1.5))
    assert spike.tolist() == [1.0, 1.0]
    assert membrane.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("cls", CLASSES)
def test_steps_of_the_call_win_over_those_of_the_constructor(cls: type[LIFModule]) -> None:
    layer = cls(steps=3)
    assert layer(torch.ones(2))[0].shape == (3, 2)
    assert layer(torch.ones(2), steps=5)[0].shape == (5, 2)


@pytest.mark.parametrize("cls", CLASSES)
def test_in_sequential_under_double_and_deepcopy(cls: type[LIFModule]) -> None:
    model = nn.Sequential(nn.Linear(5, 7), cls(7, learn_beta=True, return_state=False)).double()
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    expected = model(x)
    assert expected.dtype == torch.float64
    assert torch.equal(copy.deepcopy(model)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)


def test_repr_names_the_options() -> None:
    text = repr(LIF(7, 0.5, learn_threshold=True, detach_reset=True, steps=4))
    for part in (
        "7",
        "beta=0.5",
        "threshold=learned",
        "detach_reset=True",
        "steps=4",
        "FastSigmoid",
    ):
        assert part in text
