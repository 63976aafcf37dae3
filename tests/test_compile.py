"""torch.compile and opcheck: the operators under PyTorch's own machinery."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import raw_arguments
from family import flat
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from lif_cuda import LIF, CurrentLIF, _ops, functional
from lif_cuda.models import SNNClassifier
from lif_cuda.surrogate import ATan, Custom

T = 60

LAYERS: list[tuple[str, Callable[[], nn.Module], Callable[[int], Tensor]]] = [
    ("learned", lambda: LIF(33, learn_beta=True), lambda b: torch.randn(T, b, 33)),
    ("batch first", lambda: LIF(128, learn_beta=True, time_dim=1), lambda b: torch.randn(b, T, 128)),
    ("short rows", lambda: LIF(5, learn_beta=True, time_dim=1), lambda b: torch.randn(b, T, 5)),
    (
        "readouts",
        lambda: LIF(
            9,
            steps=7,
            output=("count", "rate", "first_spike", "total", "trace_max", "trace_mean", "trace_last"),
            decay_input=True,
            learn_beta=True,
        ),
        lambda b: torch.randn(b, 9),
    ),
    (
        "all states",
        lambda: CurrentLIF(9, learn_alpha=True, refractory=2, kappa=0.1, rho=0.5),
        lambda b: torch.randn(T, b, 9),
    ),
    (
        "channels, bfloat16",
        lambda: LIF(
            3, channel_dim=2, learn_threshold=True, reset="zero", learn_v_reset=True, surrogate=ATan()
        ),
        lambda b: torch.randn(T, b, 3, 8, 8).to(torch.bfloat16),
    ),
    ("table", lambda: LIF(surrogate=Custom(lambda z: torch.exp(-4 * z * z))), lambda b: torch.randn(T, b, 8)),
    ("network", lambda: SNNClassifier(6, 5, 4), lambda b: torch.randn(b, 6)),
]


def gradients(module: nn.Module, x: Tensor, results: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    loss = sum(result.float().sum() for result in results if result.requires_grad)
    return torch.autograd.grad(loss, [x, *module.parameters()], allow_unused=True)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(("make", "draw"), [r[1:] for r in LAYERS], ids=[r[0] for r in LAYERS])
def test_compiled_without_a_graph_break(
    make: Callable[[], nn.Module], draw: Callable[[int], Tensor], dynamic: bool
) -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    module = make()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend=counter)
    frames = []
    for batch in (4, 4, 7, 12):
        x = draw(batch).requires_grad_()
        eager, traced = tuple(flat(module(x))), tuple(flat(compiled(x)))
        for mine, expected in zip(traced, eager, strict=True):
            assert torch.equal(mine, expected)
        for mine, expected in zip(gradients(module, x, traced), gradients(module, x, eager), strict=True):
            assert (mine is None and expected is None) or torch.equal(mine, expected)
        frames.append(counter.frame_count)
    # Nothing is compiled for what was seen before, and nothing for another batch where sizes are dynamic.
    assert frames[0] == frames[1] and frames[-1] - frames[0] == (0 if dynamic else 2)


def test_another_batch_compiles_once_more() -> None:
    """By default: the first other size makes sizes dynamic."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(LIF(7, learn_beta=True), fullgraph=True, backend=counter)
    frames = []
    for batch in (3, 3, 5, 8, 21):
        compiled(torch.randn(9, batch, 7))[0].sum().backward()
        frames.append(counter.frame_count)
    assert frames == [1, 1, 2, 2, 2]


@pytest.mark.slow
def test_inductor() -> None:
    """The whole way, through generated C++."""
    torch.manual_seed(0)
    torch.compiler.reset()
    model = SNNClassifier(16, 12, 4)
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(8, 16)
    torch.testing.assert_close(compiled(x), model(x))
    losses = []
    for network in (model, compiled):
        network(x).square().sum().backward()
        losses.append([p.grad.clone() for p in model.parameters()])
        model.zero_grad()
    for mine, expected in zip(*losses, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-3)


def penalty(x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
    """A loss of its own, and the gradient of another."""
    (grad,) = torch.autograd.grad(call(x).sum(), x, create_graph=True)
    return x.square().sum() + grad.square().sum()


def plain(x: Tensor) -> Tensor:
    out = functional.lif(x, 0.9, return_state=False)
    assert isinstance(out, Tensor)
    return out


@pytest.mark.parametrize(
    ("backend", "whole", "traced"),
    [("eager", True, True), ("eager", False, False), ("aot_eager", True, True), ("aot_eager", False, False)],
)
def test_a_gradient_penalty_raises_in_compiled_code(backend: str, whole: bool, traced: bool) -> None:
    """By our own error where PyTorch lets it come to that, and never as if the penalty were not there."""
    torch.compiler.reset()
    x = torch.randn(6, 5, requires_grad=True)
    error, message = NotImplementedError, "no second derivative"
    if backend == "aot_eager":
        # Torch 2.11 loses our words where it adds to them what was traced.
        error, message = RuntimeError, "double backward|no second derivative|anomaly metadata"
    with torch._dynamo.config.patch(trace_autograd_ops=traced), pytest.raises(error, match=message):
        if whole:
            torch.compile(lambda x: penalty(x, plain), backend=backend)(x).backward()
        else:
            penalty(x, torch.compile(plain, backend=backend)).backward()


def test_double_backward_raises_in_compiled_code() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: functional.lif(x, 0.9, return_state=False), backend="aot_eager")
    x = torch.randn(6, 5, requires_grad=True)
    with pytest.raises(RuntimeError, match="double backward"):
        (grad,) = torch.autograd.grad(compiled(x).sum(), x, create_graph=True)
        grad.sum().backward()


@pytest.mark.parametrize("mode", ["training", "inference_mode"])
def test_a_stateful_layer_compiles_a_few_times(mode: str) -> None:
    """Without a break in its graph where it streams; and with one, but not again and again, in training."""
    torch.compiler.reset()
    layer, expected = (CurrentLIF(7, learn_beta=True, stateful=True, return_state=False) for _ in range(2))
    counter = CompileCounterWithBackend("aot_eager")
    training = mode == "training"
    compiled = torch.compile(layer, fullgraph=not training, backend=counter)
    frames = []
    with contextlib.nullcontext() if training else getattr(torch, mode)():
        for _ in range(12):
            x = torch.randn(6, 3, 7) + 0.3
            out, eager = compiled(x), expected(x)
            assert torch.equal(out, eager)
            if training:
                out.sum().backward()
                eager.sum().backward()
            frames.append(counter.frame_count)
    assert frames[-1] == frames[4] <= 8
    for mine, theirs in zip(flat(layer.state), flat(expected.state), strict=True):
        assert torch.equal(mine, theirs)
    if training:
        assert torch.equal(layer.beta_logit.grad, expected.beta_logit.grad)
        # A recomputation does not advance the state here either.
        x = torch.randn(6, 3, 7, requires_grad=True)
        for one, call in ((layer, compiled), (expected, expected)):
            one.reset_state()
            checkpoint(call, x, use_reentrant=False).sum().backward()
        for mine, theirs in zip(flat(layer.state), flat(expected.state), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("first", ["eager", "compiled"])
def test_outputs_of_compiled_code_are_those_of_eager_code(first: str) -> None:
    torch.compiler.reset()
    layer = LIF(output=("trace", "count") if first == "eager" else ("count", "rate"), return_state=False)
    x = torch.randn(6, 5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    out, other = (layer(x), compiled(x)) if first == "eager" else (compiled(x), layer(x))
    assert type(out) is type(other)
    assert all(map(torch.equal, pickle.loads(pickle.dumps(out)), other))
    # A tuple that the trace is the first to see leaves nothing behind.
    names = ("first_spike", "total") if first == "eager" else ("total", "first_spike")

    def call(x: Tensor) -> Any:
        return functional.lif(x, 0.9, output=names, return_state=False)

    traced = torch.compile(call, fullgraph=True, backend="aot_eager")(x)
    assert traced._fields == names
    assert pickle.loads(pickle.dumps(call(x)))._fields == names


@pytest.mark.parametrize("how", ["checkpoint", "memory budget"])
def test_recomputation_in_compiled_code(how: str) -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    block = nn.Sequential(
        nn.Linear(7, 7), LIF(7, learn_beta=True, return_state=False), nn.Linear(7, 5), LIF(5)
    )

    def call(x: Tensor) -> Any:
        return checkpoint(block, x, use_reentrant=False) if how == "checkpoint" else block(x)

    x = torch.randn(60, 3, 7, requires_grad=True)
    with torch._functorch.config.patch(activation_memory_budget=0.0 if how == "memory budget" else 1.0):
        compiled = torch.compile(call, fullgraph=True, backend="aot_eager_decomp_partition")
        traced, eager = compiled(x), block(x)
        found = [
            torch.autograd.grad(out.sum() + state.square().sum(), [x, *block.parameters()])
            for out, state in (traced, eager)
        ]
    for mine, expected in zip(traced, eager, strict=True):
        assert torch.equal(mine, expected)
    assert torch.equal(found[0][0], found[1][0])
    # PyTorch's decompositions of other operators (the sigmoid's) round otherwise.
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


NUMBERS = {"v_reset": 0.0, "alpha": 0.5, "kappa": 0.1, "rho": 0.5, "slope": 0.7}


def asked(*names: str) -> int:
    """The outputs of lif_forward of these names."""
    return sum(_ops.OUTPUTS[name] for name in names)


RAW: list[dict[str, Any]] = [
    {"asked": asked("spikes", "membrane")},
    {"asked": asked(*_ops.INCOMING[:-2], "total", "peak"), "reset": 1},
    {
        "asked": asked("spikes", *_ops.STATES, "checkpoints"),
        "traits": 8 | 16,
        "refractory": 2,
        "checkpoint_every": 3,
    },
    {"asked": asked("spikes", "membrane"), "time_dim": 1},
    {"asked": asked("spikes", "membrane"), "time_dim": 1, "time_first": True},
    {"asked": asked("count"), "steps": 9},
    {"asked": asked("spikes", "bits")},
]


@pytest.mark.parametrize("change", RAW, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck_forward(change: dict[str, Any], dtype: torch.dtype) -> None:
    x = torch.randn(7, 4, 5).to(dtype)
    torch.library.opcheck(
        torch.ops.lif_cuda.lif_forward.default,
        raw_arguments(x, {_ops.FIRST_PARAMETER: torch.rand(5)}, **NUMBERS | change),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )


@pytest.mark.parametrize("wanted", [1, 1 | 2 | 16 | 32])
def test_opcheck_backward(wanted: int) -> None:
    beta, threshold = _ops.FIRST_PARAMETER, _ops.FIRST_PARAMETER + 1
    given = {
        beta: torch.rand(5),
        threshold: torch.rand(()),
        _ops.FIRST_GRADIENT: torch.randn(7, 4, 5),
    }
    torch.library.opcheck(
        torch.ops.lif_cuda.lif_backward.default,
        raw_arguments(torch.randn(7, 4, 5), given, asked=wanted),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )


@pytest.mark.parametrize("change", RAW[:2] + RAW[3:6], ids=str)
def test_opcheck_of_the_operator_with_a_derivative(change: dict[str, Any]) -> None:
    x = torch.randn(40, 4, 5, requires_grad=True)
    given = {_ops.FIRST_PARAMETER: torch.rand(5, requires_grad=True)}
    x, tensors, ints, steps, _, floats = raw_arguments(x, given, **NUMBERS | change)
    torch.library.opcheck(torch.ops.lif_cuda.lif.default, (x, tensors, ints, steps, floats))


def test_functional_call_and_parametrize() -> None:
    layer = LIF(7, learn_beta=True, return_state=False)
    x = torch.randn(6, 3, 7) + 0.3
    logits = torch.zeros(7)
    out = torch.func.functional_call(layer, {"beta_logit": logits}, (x,))
    assert torch.equal(out, functional.lif(x, torch.full((7,), 0.5), return_state=False))


def test_autocast_keeps_the_state_in_float32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 7), LIF(7, learn_beta=True))
    x = torch.randn(20, 3, 9)
    with torch.autocast("cpu", torch.bfloat16):
        spikes, membrane = model(x)
        assert spikes.dtype == torch.bfloat16 and membrane.dtype == torch.float32
        spikes.float().sum().add(membrane.sum()).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
