"""A floor under the membrane: at it, below it, and with everything that can go with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import assert_identical
from family import series
from torch import Tensor

from lif_cuda import LIF, ReferenceLIF, functional, reference
from lif_cuda.surrogate import StraightThrough

FUNCTIONS = pytest.mark.parametrize("function", [functional.lif, reference.lif], ids=["fused", "reference"])


def by_hand(x: Tensor, beta: float, v_min: Tensor, v: Tensor) -> Tensor:
    """The trace of an integrator with a floor, in torch's own words."""
    trace = []
    for current in x:
        v = torch.clamp(beta * v + current, min=v_min)
        trace.append(v)
    return torch.stack(trace)


@FUNCTIONS
@pytest.mark.parametrize("size", [3, 67])
def test_the_gradient_is_that_of_a_clamp(function: Callable[..., Any], size: int) -> None:
    """Below the floor, above it, exactly at it (where all of it passes), and of NaN."""
    x = (torch.randn(40, size, generator=torch.Generator().manual_seed(0)) * 4).round() / 4
    x[20, 1] = math.nan
    v_min = torch.full((size,), -0.5)
    integrator: dict[str, Any] = {"reset": "none", "surrogate": StraightThrough()}  # no NaN through a spike
    gradients = []
    for trace_of in (
        lambda x, v: by_hand(x, 0.5, v_min, v),
        lambda x, v: function(x, 0.5, 100.0, v, v_min=v_min, output="trace", **integrator)[0],
    ):
        leaf = x.clone().requires_grad_()
        start = torch.full((size,), 0.25).requires_grad_()
        trace = trace_of(leaf, start)
        (trace.nan_to_num() * torch.linspace(-1, 1, 40)[:, None]).sum().backward()
        gradients.append((trace.detach(), leaf.grad, start.grad))
    trace, of_x, of_start = gradients[0]
    held = (trace == -0.5).double().mean()
    met = (torch.cat([torch.full((1, size), 0.25), trace[:-1]]) * 0.5 + x == -0.5).sum()
    assert 0.05 < held < 0.6 and met > 0, "the floor is not met exactly"
    assert trace[20:, 1].isnan().all() and not trace[:20].isnan().any()
    for mine, expected in zip(gradients[1], gradients[0], strict=True):
        assert_identical(mine, expected, "as of torch.clamp")


@FUNCTIONS
def test_a_floor_that_is_nan_gives_nan(function: Callable[..., Any]) -> None:
    v_min = torch.tensor([math.nan, -math.inf, -0.25])
    trace, _ = function(series(9, 2, 3) - 0.5, 0.9, v_min=v_min, output="trace")
    free, _ = function(series(9, 2, 3) - 0.5, 0.9, output="trace")
    assert trace[..., 0].isnan().all()
    assert torch.equal(trace[..., 1], free[..., 1]), "minus infinity is no floor"
    assert (trace[..., 2] >= -0.25).all() and (trace[..., 2] == -0.25).any()


@FUNCTIONS
@pytest.mark.parametrize("refractory", [0, 2])
def test_a_state_below_the_floor_is_taken_as_it_is(function: Callable[..., Any], refractory: int) -> None:
    """It leaks from where it is, and only what a step leaves is raised; with no step it comes back."""
    start = torch.full((1, 5), -8.0)
    options: dict[str, Any] = {"v_min": -1.0, "output": ("trace", "trace_before_reset")}
    (trace, before), _ = function(torch.zeros(3, 1, 5), 0.5, 1.0, start, **options)
    assert before[:, 0, 0].tolist() == [-4.0, -0.5, -0.25] and trace[:, 0, 0].tolist() == [-1.0, -0.5, -0.25]
    assert torch.equal(function(torch.zeros(0, 1, 5), 0.5, 1.0, start, v_min=-1.0)[1], start)


@FUNCTIONS
def test_a_value_to_reset_to_below_the_floor(function: Callable[..., Any]) -> None:
    x = torch.tensor([2.0, 0.0]).view(2, 1)
    at_once, _ = function(x, 0.5, reset="zero", v_reset=-3.0, v_min=-1.0, output="trace")
    assert at_once.flatten().tolist() == [-1.0, -0.5]
    # On the way into the next step the membrane is set to -3 and leaks to -1.5, below the floor.
    late = {"delay_reset": True, "detach_reset": True}
    delayed, _ = function(x, 0.5, reset="zero", v_reset=-3.0, v_min=-1.0, output="trace", **late)
    assert delayed.flatten().tolist() == [2.0, -1.0]


@FUNCTIONS
def test_a_silent_neuron_stands_on_the_floor(function: Callable[..., Any]) -> None:
    x = torch.tensor([2.0, 0.0, 0.0, 0.0]).view(4, 1)
    trace, _ = function(x, 0.5, threshold=1.5, reset="zero", v_reset=-2.0, v_min=-1.0, refractory=2,
                        output="trace")  # fmt: skip
    assert trace.flatten().tolist() == [-1.0, -1.0, -1.0, -0.5]


def test_a_floor_for_each_channel() -> None:
    x = series(12, 2, 4, 3, 5) - 0.5
    floors = torch.linspace(-0.6, 0.0, 4)
    by_channel, _ = functional.lif(x, 0.9, v_min=floors, channel_dim=2, output="trace")
    spread, _ = functional.lif(x, 0.9, v_min=floors.view(4, 1, 1), output="trace")
    assert torch.equal(by_channel, spread)
    assert torch.equal(by_channel.amin((0, 1, 3, 4)), floors)


@pytest.mark.parametrize("v_min", [-0.3, torch.linspace(-0.5, 0.0, 7)], ids=["number", "tensor"])
def test_layers_with_a_floor(v_min: Any) -> None:
    x = series(40, 2, 7) - 0.2
    layers = [cls(7, v_min=v_min, learn_beta=True, output=("spikes", "trace")) for cls in (LIF, ReferenceLIF)]
    results = []
    for layer in layers:
        leaf = x.clone().requires_grad_()
        (spikes, trace), state = layer(leaf)
        (spikes.sum() + trace.square().sum() + state.sum()).backward()
        results.append((spikes.detach(), trace.detach(), state.detach(), leaf.grad))
        assert [name for name, _ in layer.named_parameters()] == ["beta_logit"]
    for mine, expected in zip(*results, strict=True):
        assert_identical(mine, expected, "layer")
    assert (results[0][1] >= torch.as_tensor(v_min)).all() and results[0][0].sum() > 0
    assert "v_min=" in repr(layers[0])
    layers[1].load_state_dict(layers[0].state_dict())


def test_a_floor_keeps_its_gradient_to_itself() -> None:
    """Where no check of the call sees it: within torch.func, and in a compiled function."""
    x, v_min = series(5, 2, 7), torch.full((7,), -0.1)

    def loss(v_min: Tensor) -> Tensor:
        trace: Tensor = functional.lif(x, 0.9, v_min=v_min, output="trace", return_state=False)
        return trace.sum()

    for transform in (torch.func.grad, lambda f: torch.func.vmap(torch.func.grad(f), in_dims=1)):
        with pytest.raises((ValueError, NotImplementedError), match="v_min"):
            transform(loss)(v_min if transform is torch.func.grad else v_min.expand(3, 7).T)
    with pytest.raises(ValueError, match="v_min must not require a gradient"):
        loss(v_min.requires_grad_())
    with torch.no_grad():
        loss(v_min)


@pytest.mark.parametrize("v_min", [-0.3, torch.linspace(-0.5, 0.0, 7)], ids=["number", "tensor"])
def test_programs_with_a_floor(v_min: Any) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lif = LIF(7, v_min=v_min, learn_beta=True, return_state=False)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.lif(x)
            return out

    net, x = Net(), series(40, 2, 7) - 0.2
    expected = net(x)
    grad = torch.autograd.grad(expected.square().sum(), net.lif.beta_logit)[0]
    program = torch.export.export(net, (x,)).module()
    assert torch.equal(program(x), expected)
    torch.compiler.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)(x)
    assert torch.equal(compiled, expected)
    assert torch.equal(torch.autograd.grad(compiled.square().sum(), net.lif.beta_logit)[0], grad)
