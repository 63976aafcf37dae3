"""The layer classes: one constructor, one forward, one state_dict for the fused and the reference."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lif_cuda import IF, LIF, AdaptiveLIF, CurrentLIF, NeuronState, ReferenceLIF, _settled, decay_of
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
    {"tau": 5.0, "dt": 1.0, "decay": "exp"},
    {"num_neurons": 7, "beta": 1.0, "learn_beta": True, "bound": "clamp"},
    {"num_neurons": 7, "reset": "zero", "v_reset": -0.1, "learn_v_reset": True, "strict": True},
    {"num_neurons": 7, "gain": 0.8, "learn_gain": True, "rest": 0.1},
    {"num_neurons": 7, "learn_beta": True, "decay_input": True, "output": ("spikes", "rate")},
    {"num_neurons": 7, "alpha": 0.7, "learn_alpha": True, "refractory": 2},
    {"num_neurons": 7, "kappa": 0.3, "rho": 0.9, "learn_kappa": True, "learn_rho": True},
    {"delay_reset": True, "detach_reset": True, "strict": True, "learn_threshold": True},
    {"num_neurons": 3, "channel_dim": -2, "learn_beta": True, "learn_threshold": True},
]


def flat(value: object) -> tuple[torch.Tensor, ...]:
    """The tensors of a result, however deep they lie."""
    if isinstance(value, torch.Tensor):
        return (value,)
    return tuple(tensor for part in value or () for tensor in flat(part))


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
        out = flat(layer(x))
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
        "_extra_state",
    ]
    assert list(LIF(beta=torch.tensor(0.5)).state_dict()) == ["beta_values", "_extra_state"]
    assert list(LIF(7, learn_threshold=True, threshold_bound="exp").state_dict())[0] == "threshold_log"
    assert list(LIF(7).state_dict()) == ["_extra_state"]


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


def test_named_neurons_are_lif_with_options() -> None:
    x = torch.randn(20, 3, 7) + 0.3
    for layer, options in (
        (IF(), {"beta": 1.0}),
        (CurrentLIF(alpha=0.6, beta=0.8), {"alpha": 0.6, "beta": 0.8}),
        (AdaptiveLIF(kappa=0.4, rho=0.7), {"kappa": 0.4, "rho": 0.7}),
    ):
        for mine, theirs in zip(flat(layer(x)), flat(ReferenceLIF(**options)(x)), strict=True):
            assert torch.equal(mine, theirs)


def test_time_constants() -> None:
    assert decay_of(2.0, 1.0, "exp") == pytest.approx(0.6065306597)
    assert decay_of(2.0, 1.0, "euler") == 0.5
    torch.testing.assert_close(
        decay_of(torch.tensor([2.0, 4.0]), 0.5, "exp"), torch.tensor([2.0, 4.0]).reciprocal().mul(-0.5).exp()
    )
    assert LIF(tau=2.0, dt=1.0, decay="euler").beta == 0.5
    assert LIF(4, tau=2.0, dt=1.0, decay="exp", learn_beta=True).beta.shape == (4,)


def test_a_clamped_decay_has_no_gradient_outside() -> None:
    layer = LIF(3, 0.9, learn_beta=True, bound="clamp")
    with torch.no_grad():
        layer.beta_values.copy_(torch.tensor([1.3, 0.5, -0.2]))
    assert layer.beta.tolist() == [1.0, 0.5, 0.0]
    layer(torch.full((5, 2, 3), 0.6))[1].sum().backward()
    grad = layer.beta_values.grad
    assert grad[0] == 0 and grad[1] != 0 and grad[2] == 0


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("time_dim", [0, 1])
def test_step_places_channels_where_forward_does(cls: type[LIFModule], time_dim: int) -> None:
    x = torch.randn(5, 5, 3, 4)
    layer = cls(3, torch.linspace(0.2, 0.8, 3), time_dim=time_dim, channel_dim=2)
    out, final = layer(x)
    state = None
    for t in range(5):
        spike, state = layer.step(x.select(time_dim, t), state)
        assert torch.equal(spike, out.select(time_dim, t))
    assert torch.equal(state, final)


STATEFUL: list[dict[str, object]] = [
    {},
    {"alpha": 0.7, "kappa": 0.2, "rho": 0.9, "refractory": 2},
]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("options", STATEFUL, ids=["plain", "all states"])
def test_a_stateful_layer_goes_on_where_it_stopped(cls: type[LIFModule], options: dict[str, object]) -> None:
    x = torch.randn(30, 2, 7) + 0.2
    whole = cls(**options, return_state=False)(x)
    layer = cls(**options, return_state=False, stateful=True)
    assert layer.state is None
    for _ in range(2):
        pieces = [layer(piece) for piece in x.split(7)]
        assert torch.equal(torch.cat(pieces), whole)
        layer.reset_state()
    for current, expected in zip(x, whole, strict=True):
        assert torch.equal(layer.step(current)[0], expected)


def test_reset_state_starts_from_a_state() -> None:
    x = torch.randn(6, 2, 7)
    out, final = LIF()(x, torch.full((2, 7), 0.7))
    layer = LIF(stateful=True)
    layer.reset_state(torch.full((2, 7), 0.7))
    assert torch.equal(layer(x)[0], out)
    assert torch.equal(layer.state, final)
    current = CurrentLIF(stateful=True)
    current(x)
    assert isinstance(current.state, NeuronState) and current.state.adaptation is None


@pytest.mark.parametrize("detach", [True, False])
def test_the_state_carries_gradients_only_if_told(detach: bool) -> None:
    x = torch.randn(6, 2, 7, requires_grad=True)
    layer = LIF(stateful=True, detach_state=detach, return_state=False)
    layer(x)
    layer(torch.randn(6, 2, 7)).sum().add(layer.state.sum() * 0 if detach else 0)
    second = layer(x.detach()).sum()
    assert second.requires_grad is not detach
    if not detach:
        second.backward()
        assert x.grad.abs().sum() > 0


def test_the_state_follows_the_layer() -> None:
    layer = nn.Sequential(LIF(7, learn_beta=True, stateful=True))
    layer(torch.randn(6, 2, 7))
    kept = layer[0].state
    # In the type of the neuron's arithmetic, which follows from x: nothing is rounded on the way to 16 bits.
    assert torch.equal(layer.half().double()[0].state, kept)
    assert layer(torch.randn(6, 2, 7, dtype=torch.float64))[0].dtype == torch.float64
    assert layer.to("meta")[0].state.device.type == "meta"


def test_the_state_is_saved_on_request() -> None:
    x = torch.randn(6, 2, 7)
    silent = LIF(stateful=True)
    silent(x)
    assert list(silent.state_dict()) == ["_extra_state"]
    layer = CurrentLIF(stateful=True, save_state=True)
    layer(x)
    saved = layer.state_dict()
    assert set(saved) == {"_extra_state", "state_membrane", "state_current"}
    other = CurrentLIF(stateful=True, save_state=True)
    other.load_state_dict(saved)
    for mine, theirs in zip(flat(other(x)), flat(layer(x)), strict=True):
        assert torch.equal(mine, theirs)
    # A state saved before the first call takes the present one away.
    other.load_state_dict(CurrentLIF(stateful=True, save_state=True).state_dict())
    assert other.state is None
    assert torch.equal(copy.deepcopy(layer).state.current, layer.state.current)


@pytest.mark.parametrize("cls", CLASSES)
def test_options_of_calls_before_are_not_those_of_this_one(cls: type[LIFModule]) -> None:
    """What is remembered of a call, for the next like it, is told apart by types too, and has a limit."""
    layer, x = cls(beta=0.8), torch.ones(2, 3)
    for steps in (1, *range(2, 300), 1):
        assert layer(x, steps=steps)[0].shape == (steps, 2, 3)
        assert layer(x)[0].shape == (2, 3)
        assert layer.step(x[0])[0].shape == (3,)
    no_ints: list[Any] = [True, 1.0, [1], "1"]
    for wrong in no_ints:
        with pytest.raises(TypeError, match="steps must be an int"):
            layer(x, steps=wrong)
    assert len(layer._settled._others) <= _settled.MOST_CHANGES
    layer.output = "count"
    assert layer(x)[0].shape == (3,) and layer(x, steps=1)[0].shape == (2, 3)
    again = copy.deepcopy(layer)
    again.return_state = False
    assert torch.equal(again(x), layer(x)[0])


@pytest.mark.parametrize("how", ["as it is", "steps of the call", "one step", "stateful"])
def test_layers_that_differ_by_a_number_are_not_taken_for_each_other(how: str) -> None:
    """What is remembered of a call knows its layer's numbers, also where the call has options of its own."""
    x = torch.randn(5, 3, 4)
    for options in (
        {"beta": 0.9},
        {"beta": 0.5},
        {"beta": 0.5, "threshold": 0.3},
        {"beta": 0.5, "alpha": 0.7},
    ):
        results = []
        for cls in (LIF, ReferenceLIF):
            layer = cls(**options, stateful=how == "stateful")
            if how == "steps of the call":
                out = layer(x[0], steps=6)
            elif how == "one step":
                out = layer.step(x[0])
            else:
                out = layer(x)
            results.append(flat(out))
        assert len(results[0]) == len(results[1]), options
        for fused, expected in zip(*results, strict=True):
            assert torch.equal(fused, expected), options


def test_another_batch_size_is_refused() -> None:
    layer = LIF(stateful=True)
    layer(torch.zeros(6, 2, 7))
    with pytest.raises(ValueError, match=r"x has \(3, 7\) neurons.*\(2, 7\); call reset_state\(\)"):
        layer(torch.zeros(6, 3, 7))
    layer.reset_state()
    layer(torch.zeros(6, 3, 7))


@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
@pytest.mark.parametrize("cls", CLASSES)
def test_checkpointing_does_not_advance_the_state_twice(cls: type[LIFModule], reentrant: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6, 2, 7, requires_grad=True)
    results = []
    for recompute in (False, True):
        layer = cls(7, learn_beta=True, stateful=True, return_state=False)
        grads = []
        for batch in x:
            out = checkpoint(layer, batch, use_reentrant=reentrant) if recompute else layer(batch)
            out.square().sum().backward(retain_graph=True)
            grads.append(layer.state.clone())
        results.append([*grads, layer.beta_logit.grad, x.grad])
        x.grad = None
    for plain, again in zip(*results, strict=True):
        assert (plain is None and again is None) or torch.equal(plain, again)


def test_checkpointing_several_calls_at_once_is_refused() -> None:
    x = torch.randn(6, 2, 7, requires_grad=True)
    layer = LIF(stateful=True, return_state=False)
    outs = [checkpoint(layer, x, use_reentrant=False) for _ in range(2)]
    with pytest.raises(RuntimeError, match=r"only the state before the last one is known"):
        sum(out.sum() for out in outs).backward()
