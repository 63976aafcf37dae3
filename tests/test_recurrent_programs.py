"""Recurrent layers in programs: torch.compile, export, torch.func, autocast, checkpointing, pickle."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from test_recurrent import call, draw, leaves
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import lif_cuda
from lif_cuda import RecurrentState, functional


def layer_and_input(**options: Any) -> tuple[lif_cuda.RecurrentLIF, Tensor]:
    torch.manual_seed(3)
    layer = lif_cuda.RecurrentLIF(20, **options)
    return layer, torch.randn(6, 3, 20) + 0.2


def gradients(layer: Any, x: Tensor, *inputs: Any) -> list[Tensor]:
    """What comes out of a layer, and the gradients of x and of its parameters."""
    x = x.clone().requires_grad_()
    out, state = layer(x, *inputs)
    outputs = (*(out if isinstance(out, tuple) else (out,)), *state)
    loss = sum([(o * torch.linspace(-1, 1, o.numel()).view(o.shape)).sum() for o in outputs])
    found = torch.autograd.grad(loss, [x, *layer.parameters()])
    return [*[o.detach() for o in outputs], *found]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"output": ("spikes", "rate"), "learn_beta": True, "learn_threshold": True, "bias": False}],
    ids=str,
)
def test_compiled_training_is_the_eager_one(options: dict[str, Any]) -> None:
    layer, x = layer_and_input(**options)
    compiled = torch.compile(layer, fullgraph=True)
    for mine, theirs in zip(gradients(compiled, x), gradients(layer, x), strict=True):
        torch.testing.assert_close(mine, theirs)
    state = RecurrentState(torch.randn(3, 20), torch.ones(3, 20))
    for mine, theirs in zip(gradients(compiled, x, state), gradients(layer, x, state), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.slow
def test_compiled_for_any_length() -> None:
    layer, _ = layer_and_input()
    compiled = torch.compile(layer, dynamic=True)
    for steps in (3, 7, 12):
        x = torch.randn(steps, 4, 20) + 0.2
        for mine, theirs in zip(gradients(compiled, x), gradients(layer, x), strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.slow
def test_exported_program_has_the_same_bits() -> None:
    layer, x = layer_and_input(output="trace")
    program = torch.export.export(
        layer,
        (x,),
        dynamic_shapes=({0: torch.export.Dim("steps", min=2), 1: torch.export.Dim("batch", min=2)},),
    )
    for steps, batch in ((6, 3), (9, 5)):
        x = torch.randn(steps, batch, 20)
        mine, theirs = program.module()(x), layer(x)
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1][0], theirs[1][0]) and torch.equal(mine[1][1], theirs[1][1])


def test_operators_pass_the_check_of_torch() -> None:
    tensors = draw(3, 2, 20, torch.float32)
    given = [tensors[name] for name in ("bias", "membrane", "fired", "beta", "threshold")]
    arguments = (
        tensors["x"],
        tensors["weight"],
        given,
        [0b11111, 255, 0, 0, 0, 0],
        [0.0, 0.0, 0.0, 1.0, 10.0, 1.0],
    )
    torch.library.opcheck(
        torch.ops.lif_cuda.recurrent_forward, arguments, test_utils=("test_schema", "test_faketensor")
    )
    *_, u, words = torch.ops.lif_cuda.recurrent_forward(*arguments)
    given = [tensors[name] for name in ("membrane", "beta", "threshold")] + [torch.randn(3, 2, 20)]
    backward = (u, tensors["weight"], given, [0b1011010, 15, 0, 0, 0, 0], arguments[-1])
    torch.library.opcheck(
        torch.ops.lif_cuda.recurrent_backward, backward, test_utils=("test_schema", "test_faketensor")
    )
    grad_input = torch.ops.lif_cuda.recurrent_backward(*backward)[0]
    torch.library.opcheck(
        torch.ops.lif_cuda.recurrent_weights,
        (grad_input, words, 20, 3),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize("mapped", ["x", "weight", "x and weight", "x and beta", "x and state"])
def test_vmap_is_a_call_for_each(mapped: str) -> None:
    tensors = draw(4, 2, 12, torch.float32)
    state = RecurrentState(tensors["membrane"], tensors["fired"])
    x, weight, beta = tensors["x"], tensors["weight"], tensors["beta"]
    each: list[Any] = [x, weight, beta, state]
    dims: list[Any] = [None] * 4
    for at, name in enumerate(("x", "weight", "beta", "state")):
        if name in mapped.split(" and "):
            dims[at] = RecurrentState(0, 0) if name == "state" else 1 if name == "x" else 0
            if name == "state":
                each[at] = RecurrentState(*[torch.stack([t, t.roll(1), t.roll(2)]) for t in state])
            else:
                each[at] = torch.stack([each[at], each[at].roll(1), each[at] * 0.9], dims[at])

    def run(x: Tensor, weight: Tensor, beta: Tensor, state: RecurrentState) -> Any:
        out, after = functional.recurrent_lif(x, weight, beta, 1.0, state, output=("trace", "spikes"))
        return (*out, *after)

    found = torch.vmap(run, tuple(dims))(*each)

    def sample(value: Any, dim: Any, i: int) -> Any:
        if isinstance(value, RecurrentState):
            return value if dim is None else RecurrentState(*[t[i] for t in value])
        return value if dim is None else value.select(dim, i)

    for i in range(3):
        alone = run(*[sample(value, dim, i) for value, dim in zip(each, dims, strict=True)])
        for whole, one in zip(found, alone, strict=True):
            assert torch.equal(whole[i], one)


def test_gradients_of_each_sample() -> None:
    layer, x = layer_and_input(learn_beta=True)
    parameters = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        out, _ = torch.func.functional_call(layer, parameters, (sample.unsqueeze(1),))
        return (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 1))(parameters, x)
    for i in range(3):
        expected = torch.autograd.grad(loss(parameters, x[:, i]), [*parameters.values()])
        for (name, mine), theirs in zip(found.items(), expected, strict=True):
            torch.testing.assert_close(mine[i], theirs, msg=name)


def test_forward_mode_and_second_derivatives_are_refused() -> None:
    layer, x = layer_and_input()

    def total(x: Tensor) -> Tensor:
        return layer(x)[0].sum()

    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(total, (x,), (x,))
    with pytest.raises(NotImplementedError, match="second derivative"):
        torch.func.grad(lambda x: torch.func.grad(total)(x).sum())(x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(dtype: torch.dtype) -> None:
    """What comes out of a Linear is of 16 bits, and the weights that feed back are not."""
    layer, x = layer_and_input()
    linear = torch.nn.Linear(20, 20)
    with torch.autocast("cpu", dtype):
        current = linear(x)
        out, state = layer(current)
    assert out.dtype == dtype and state.membrane.dtype == torch.float32
    out.sum().backward()
    assert layer.recurrent.weight.grad is not None and layer.recurrent.weight.grad.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(out, layer(current.detach())[0])


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("stateful", [True, False])
def test_under_activation_checkpointing(stateful: bool, reentrant: bool) -> None:
    found = []
    for recomputes in (False, True):
        layer, x = layer_and_input(stateful=stateful, return_state=False)
        x.requires_grad_()
        outs = []
        for _ in range(2):
            out = checkpoint(layer, x, use_reentrant=reentrant) if recomputes else layer(x)
            out.sin().sum().backward()
            outs.append(out.detach())
        found.append([*outs, x.grad, *[p.grad for p in layer.parameters()]])
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine, theirs)


def test_copies() -> None:
    layer, x = layer_and_input(stateful=True)
    layer(x)
    expected = copy.deepcopy(layer)(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x)[0], expected[0])


def test_in_a_sequential_and_on_another_dtype() -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(10, 20), lif_cuda.RecurrentLIF(20, return_state=False, output="rate")
    )
    assert model(torch.randn(5, 3, 10)).shape == (3, 20)
    model.double()
    assert model(torch.randn(5, 3, 10).double()).dtype == torch.float64
    model.bfloat16()
    out = model(torch.randn(5, 3, 10).bfloat16())
    assert out.dtype == torch.float32
    out.sum().backward()


@pytest.mark.slow
def test_one_compiled_stateful_layer() -> None:
    layer, x = layer_and_input(stateful=True)
    other, _ = layer_and_input(stateful=True)
    compiled = torch.compile(other)
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(compiled(x)[0], layer(x)[0])


def test_traced() -> None:
    layer, x = layer_and_input()
    traced = torch.jit.trace(layer, (x,), check_trace=False)
    other = torch.randn(6, 3, 20)
    (out, state), (expected, last) = traced(other), layer(other)
    for mine, theirs in zip((out, *state), (expected, *last), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(NotImplementedError, match="torch.jit.script"):
        torch.jit.script(layer)


def test_leaves_are_not_changed() -> None:
    tensors = draw(5, 2, 20, torch.float32)
    inputs = leaves(tensors)
    out, state = call(functional.recurrent_lif, inputs)
    out.spikes.add_(1.0)
    state.membrane.mul_(2.0)
    (out.trace.sum() + state.membrane.sum()).backward()
    for name, tensor in inputs.items():
        assert torch.equal(tensor.detach(), tensors[name])
