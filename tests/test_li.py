"""Leaky integrators: the trace, or one value of it over time, against the reference and against torch."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import assert_identical
from family import series
from torch import Tensor, nn
from torch.func import grad, vmap

import lif_cuda
from lif_cuda import LI, LIF, NeuronState, ReferenceLIF, functional
from lif_cuda.functional import READOUTS

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
OUTPUTS = pytest.mark.parametrize("output", ["trace", "last", "max", "mean"])
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "learned": {"learn_beta": True},
    "current": {"alpha": 0.7, "learn_alpha": True, "learn_beta": True, "decay_input": True},
    "gain": {"gain": torch.linspace(0.5, 1.5, 7), "learn_gain": True, "rest": 0.2},
    "floor": {"v_min": torch.linspace(-0.4, 0.0, 7), "beta": 0.6},
    "time inside": {
        "time_dim": 1,
        "tau": 4.0,
        "dt": 1.0,
        "decay": "exp",
        "bound": "clamp",
        "learn_beta": True,
    },
    "constant": {"steps": 40, "learn_beta": True},
}


def reference_of(layer: LI) -> ReferenceLIF:
    """The same neuron in plain PyTorch."""
    options = layer.options._asdict()
    learned = {f"learn_{name}": True for name in layer.learned}
    parameters = {name: getattr(layer, name) for name in ("beta", "gain", "alpha", "v_min")}
    given = {n: p.detach() if isinstance(p, Tensor) else p for n, p in parameters.items()}
    return ReferenceLIF(7, threshold=1.0, bound=layer.bound, **given, **options, **learned)


def results_of(layer: nn.Module, x: Tensor, state: Any) -> dict[str, Tensor]:
    """Outputs, states, and the gradients of all that has one."""
    leaf = x.clone().requires_grad_()
    start = NeuronState._make(None if s is None else s.clone().requires_grad_() for s in state)
    out, after = layer(leaf, start)
    after = (after,) if isinstance(after, Tensor) else tuple(s for s in after if s is not None)
    generator = torch.Generator().manual_seed(1)
    loss = sum((t.double() * torch.randn(t.shape, generator=generator)).sum() for t in (out, *after))
    torch.autograd.backward(loss)
    found = {"out": out, **{f"state {i}": s for i, s in enumerate(after)}, "x": leaf.grad}
    found |= {f"start {i}": s.grad for i, s in enumerate(start) if s is not None}
    return {name: t.detach() for name, t in found.items()} | {n: p.grad for n, p in layer.named_parameters()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@OUTPUTS
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_as_the_reference(options: dict[str, Any], output: Any, dtype: torch.dtype) -> None:
    state_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    layer = LI(7, output=output, **options).to(state_dtype)
    twin = reference_of(layer)
    twin.load_state_dict(layer.state_dict())
    shape = (5, 7) if "steps" in options else (5, 40, 7) if "time_dim" in options else (40, 5, 7)
    x = (series(*shape) - 0.1).to(dtype)
    membrane = torch.randn(5, 7, generator=torch.Generator().manual_seed(2)).to(state_dtype)
    state = NeuronState(membrane, membrane.flip(0) if "alpha" in options else None)
    mine, expected = results_of(layer, x, state), results_of(twin, x, state)
    assert list(mine) == list(expected)
    for name, tensor in expected.items():
        if name in dict(layer.named_parameters()):
            torch.testing.assert_close(mine[name], tensor, rtol=1e-4, atol=1e-5)
        else:
            assert_identical(mine[name], tensor, name)
    assert mine["out"].dtype == (dtype if output == "trace" else state_dtype)


def of_torch(x: Tensor) -> dict[str, Tensor]:
    trace, v = [], torch.zeros_like(x[0])
    for current in x:
        v = 0.9 * v + current
        trace.append(v)
    stacked = torch.stack(trace)
    return {
        "trace": stacked,
        "last": v,
        "max": stacked.max(0)[0],
        "mean": torch.add(*stacked) / 2 if len(x) == 2 else stacked.mean(0),
    }


@OUTPUTS
@pytest.mark.parametrize("steps", [1, 2, 33, 100])
def test_as_torch_takes_it_of_the_trace(output: Any, steps: int) -> None:
    x = series(steps, 3, 67)
    mine, own = (x.clone().requires_grad_() for _ in range(2))
    out, membrane = functional.li(mine, 0.9, output=output)
    expected = of_torch(own)[output]
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(out, expected, rtol=1e-5 if output == "mean" else 0, atol=1e-6)
    torch.testing.assert_close(mine.grad, own.grad, rtol=1e-5, atol=1e-6)
    assert torch.equal(membrane, of_torch(x)["last"])


def test_the_gradient_of_the_largest_goes_to_the_step_that_reached_it_first() -> None:
    """As of torch.max, where several reach it, and where all of them are minus infinity."""
    x = torch.tensor([[0.0, 1.0, 3.0, -2.0], [0.0, 1.0, 1.0, 0.0], [0.0, -1.0, 2.0, 0.0]]).requires_grad_()
    out, _ = functional.li(x, 0.0, output="max")
    (of_mine,) = torch.autograd.grad(out.sum(), x)
    largest, at = x.max(0)
    assert torch.equal(out, largest)
    assert torch.equal(of_mine, nn.functional.one_hot(at, 3).T.float())
    never = torch.full((3, 2), -math.inf).requires_grad_()
    out, _ = functional.li(never, 0.5, output="max")
    (of_never,) = torch.autograd.grad(out.sum(), never)
    assert out.tolist() == [-math.inf] * 2 and of_never.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


def test_a_nan_is_above_all() -> None:
    x = torch.zeros(5, 3)
    x[1, 0] = x[0, 1] = math.nan
    x[3] = math.inf
    x.requires_grad_()
    out, _ = functional.li(x, 0.5, output="max")
    assert out.isnan().tolist() == [True, True, False] and out[2] == math.inf
    (found,) = torch.autograd.grad(out.sum(), x)
    assert found[:, 0].tolist() == [0.5, 1.0, 0.0, 0.0, 0.0]  # the first NaN is at the second step
    assert found[:, 1].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert found[:, 2].tolist() == [0.125, 0.25, 0.5, 1.0, 0.0]


@pytest.mark.parametrize("cls", [LI, None], ids=["fused", "reference"])
def test_no_time_steps(cls: type[LI] | None) -> None:
    x, start = torch.zeros(0, 3, 7), torch.randn(3, 7)

    def layer(output: Any) -> nn.Module:
        made = LI(7, output=output)
        return made if cls else reference_of(made)

    assert layer("trace")(x, start)[0].shape == (0, 3, 7)
    assert torch.equal(layer("last")(x, start)[0], start)
    assert torch.equal(layer("mean")(x, start)[0], torch.zeros(3, 7))
    with pytest.raises(ValueError, match="needs a time step, got T = 0"):
        layer("max")(x, start)


@OUTPUTS
def test_the_output_is_no_alias_of_the_state(output: Any) -> None:
    layer = LI(7, output=output, stateful=True)
    x = series(6, 2, 7)
    out, membrane = layer(x)
    kept, own = layer.state.clone(), membrane.clone()
    with torch.no_grad():
        out.fill_(5.0)
    assert torch.equal(layer.state, kept) and torch.equal(membrane, own)


@OUTPUTS
def test_nothing_with_a_time_axis_is_kept_but_x(output: Any) -> None:
    x = series(40, 2, 7).requires_grad_()
    shapes = []

    def pack(tensor: Tensor) -> Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        functional.li(x, 0.9, output=output)
    assert [shape for shape in shapes if 40 in shape] == [(40, 2, 7)]


@OUTPUTS
def test_streaming_and_steps(output: Any) -> None:
    x = series(30, 2, 7)
    layer = LI(7, alpha=0.6, output=output)
    state: Any = None
    for piece in x.split([7, 3, 20]):
        _, state = layer(piece, state)
    stepped: Any = None
    trace = []
    for current in x:
        membrane, stepped = layer.step(current, stepped)
        trace.append(membrane)
    whole, final = LI(7, alpha=0.6)(x)
    assert torch.equal(torch.stack(trace), whole)
    for name in ("membrane", "current"):
        assert torch.equal(getattr(state, name), getattr(final, name))
        assert torch.equal(getattr(stepped, name), getattr(final, name))
    stateful = LI(7, alpha=0.6, output=output, stateful=True, return_state=False)
    for piece in x.split([7, 3, 20]):
        stateful(piece)
    assert torch.equal(stateful.state.membrane, final.membrane)


def test_channels_and_constant_input() -> None:
    x = series(2, 4, 3, 5)
    layer = LI(4, beta=torch.linspace(0.2, 0.9, 4), channel_dim=1, steps=6, output="max", return_state=False)
    spread = functional.li(x.expand(6, 2, 4, 3, 5), layer.beta.view(4, 1, 1), output="max")[0]
    assert torch.equal(layer(x), spread)


def test_an_infinite_membrane_has_the_gradient_of_an_integrator() -> None:
    """No spike stands between, whose surrogate could make NaN of it."""
    x = series(4, 3)
    x[1, 0], x[1, 1] = math.inf, math.nan
    x.requires_grad_()
    out, _ = functional.li(x, 0.5)
    (found,) = torch.autograd.grad(out[3].nan_to_num(posinf=0.0).sum(), x)
    (expected,) = torch.autograd.grad(of_half(x)[3].nan_to_num(posinf=0.0).sum(), x)
    assert_identical(found, expected, "gradient")


def of_half(x: Tensor) -> Tensor:
    trace, v = [], torch.zeros_like(x[0])
    for current in x:
        v = 0.5 * v + current
        trace.append(v)
    return torch.stack(trace)


def test_saved_as_the_neuron_that_it_is() -> None:
    layer = LI(7, beta=0.3, learn_beta=True, v_min=-0.5, output="mean", return_state=False)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    for other in (
        LI(7, learn_beta=True, v_min=0.0, output="mean", return_state=False),
        LIF(7, learn_beta=True, v_min=0.0, reset="none", output="trace_mean", return_state=False),
    ):
        other.load_state_dict(saved)
        assert torch.equal(other(series(9, 2, 7)), layer(series(9, 2, 7)))
    with pytest.raises(RuntimeError, match="reset='none'"):
        LIF(7, learn_beta=True, v_min=0.0).load_state_dict(saved)


def test_what_is_set_and_said() -> None:
    layer = LI(7, beta=0.5, return_state=False)
    assert layer.output == "trace" and repr(layer) == "LI(7, beta=0.5, output='trace', return_state=False)"
    x = series(9, 2, 7)
    for output in READOUTS:
        layer.output = output  # type: ignore[misc, assignment]
        assert layer.output == output
        made = LI(7, beta=0.5, output=output, return_state=False)  # type: ignore[arg-type]
        assert torch.equal(layer(x), made(x)) and repr(layer) == repr(made)
    layer.beta = 0.25
    assert torch.equal(layer(x), LI(7, beta=0.25, output="mean", return_state=False)(x))


anything: Any = LI
integrate: Any = functional.li
X = series(4, 7)
ONE_OF = "output must be one of 'trace', 'last', 'max', 'mean'"
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: anything(7, threshold=1.0), TypeError, "LI never fires.*so has no threshold; .*use LIF"),
    (lambda: anything(7, learn_kappa=True), TypeError, "LI never fires.*no learn_kappa"),
    (lambda: anything(7, chanel_dim=1), TypeError, "unexpected keyword argument 'chanel_dim'; did you mean"),
    (lambda: anything(7, output="spikes"), ValueError, ONE_OF),
    (lambda: anything(7, output=("max", "mean")), TypeError, "one name.*functional.lif with reset='none'"),
    (lambda: setattr(LI(7), "reset", "zero"), AttributeError, "reset cannot be set: LI has none"),
    (lambda: setattr(LI(7), "output", "count"), ValueError, ONE_OF),
    (lambda: integrate(X, 0.9, surrogate=None), TypeError, "li never fires.*no surrogate"),
    (lambda: integrate(X, 0.9, output="rate"), ValueError, ONE_OF),
    (lambda: integrate(X, 1.5), ValueError, r"beta must be a finite number in \[0, 1\]"),
    (lambda: LI(7)(series(4, 6)), ValueError, "num_neurons of the layer, 7"),
]


@pytest.mark.parametrize(("make", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@OUTPUTS
def test_programs(output: Any) -> None:
    net, x = LI(7, output=output, learn_beta=True, return_state=False), series(40, 3, 7)
    expected = net(x)
    (of_beta,) = torch.autograd.grad(expected.square().sum(), net.beta_logit)
    program = torch.export.export(net, (x,)).module()
    assert torch.equal(program(x), expected)
    torch.compiler.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)(x)
    assert torch.equal(compiled, expected)
    assert torch.equal(torch.autograd.grad(compiled.square().sum(), net.beta_logit)[0], of_beta)

    def call(x: Tensor) -> Tensor:
        out: Tensor = functional.li(x, 0.9, output=output)[0]
        return out

    torch.compiler.reset()
    assert torch.equal(torch.compile(call, backend="aot_eager", fullgraph=True)(x), call(x))


@OUTPUTS
@pytest.mark.parametrize("steps", [8, 49])
def test_each_sample_of_a_transform(output: Any, steps: int) -> None:
    samples = series(3, steps, 2, 7)

    def loss(x: Tensor) -> Tensor:
        out, membrane = functional.li(x, 0.9, output=output)
        return (out.square() * torch.linspace(0, 1, 7)).sum() + membrane.sum()

    expected = torch.stack([grad(loss)(x) for x in samples])
    assert_identical(vmap(grad(loss))(samples), expected, "grad of each")
    assert_identical(grad(lambda x: vmap(loss)(x).sum())(samples), expected, "grad of all")


def test_a_network_reads_out() -> None:
    """Each of the four trains a classifier of the seed's kind."""
    x, target = torch.rand(20, 32, 12, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 4
    for output in READOUTS:
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Linear(12, 64),
            LIF(64, threshold=0.5, learn_beta=True, return_state=False),
            nn.Linear(64, 4),
            LI(4, learn_beta=True, output=output, return_state=False),  # type: ignore[arg-type]
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        losses = []
        for _ in range(40):
            logits = net(x).mean(0) if output == "trace" else net(x)
            loss = nn.functional.cross_entropy(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.7 * losses[0], (output, losses[0], losses[-1])
    assert lif_cuda.LI is LI
