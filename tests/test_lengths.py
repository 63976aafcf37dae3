"""Padded batches: `lengths`, against the reference, against samples alone and against a loop by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from compare import assert_identical, autograd_in_python
from family import OUTPUTS, Case, SeededPick, assert_same, draw_case, flat, kept_in_bits, poison, run, series
from members import MEMBERS, Member, call_of
from test_layout import LAYOUTS
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from lif_cuda import LIF, CurrentLIF, NeuronState, ReferenceLIF, _layout, functional, reference
from lif_cuda.surrogate import ATan, Rectangle, Sigmoid

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
FUNCTIONS = [functional.lif, reference.lif]
T = 70
# None, one, all, and on both sides of the steps before which the state is kept (every 32 on the CPU).
LENGTHS = torch.tensor([0, 1, 16, 31, 32, 33, 65, T])
BATCH = len(LENGTHS)


def padded(case: Case) -> Case:
    """The same call of samples with these lengths or T, with NaN for what they are padded with."""
    if "steps" in case.options:
        lengths = LENGTHS.clamp(max=case.options["steps"])
    else:
        lengths = LENGTHS.clamp(max=case.x.shape[case.options["time_dim"]])
        case.x.nan_to_num_()  # a drawn case may have been padded for other lengths
        poison(case.x, lengths, case.options["time_dim"])
    return replace(case, lengths=lengths)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_each_neuron(member: Member, dtype: torch.dtype) -> None:
    """Whole vectors and a ragged end; parameters that learn, and numbers; constant input; each output."""
    for learn, constant, size, output in (
        (True, False, 67, "spikes"),
        (False, False, 64, OUTPUTS),
        (False, True, 33, "count"),
        (True, True, 8, ("rate", "total")),
    ):
        case = call_of(member, T, (BATCH, size), dtype, learn=learn, constant=constant, output=output)
        case = padded(case)
        assert_same(run(functional.lif, case), run(reference.lif, case), dtype)


@pytest.mark.parametrize("seed", range(7000, 7020))
def test_bits_hold_as_many_steps(seed: int) -> None:
    case = kept_in_bits(
        draw_case(SeededPick(seed), seed, shapes=((BATCH, 70), (BATCH, 3, 5))), SeededPick(seed)
    )
    case = padded(case)
    found = run(functional.lif, case)
    assert_same(found, run(reference.lif, case), case.x.dtype)
    assert_same(
        found, run(functional.lif, replace(case, options=case.options | {"save": "input"})), case.x.dtype
    )


@pytest.mark.parametrize("seed", range(7100, 7120))
def test_recorded_in_python(seed: int) -> None:
    case = draw_case(SeededPick(seed), seed, shapes=((BATCH, 70), (BATCH, 3, 5)))
    case = padded(case)
    with autograd_in_python():
        found = run(functional.lif, case)
    assert_same(found, run(reference.lif, case), case.x.dtype)


@pytest.mark.parametrize("function", FUNCTIONS, ids=["fused", "reference"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reset": "zero", "v_reset": 0.1, "surrogate": ATan()},
        {"alpha": 0.7, "kappa": 0.2, "rho": 0.9, "refractory": 2, "rest": 0.1, "gain": 0.8},
        {"delay_reset": True, "detach_reset": True, "strict": True},
        {"surrogate": Sigmoid()},
    ],
    ids=lambda options: ",".join(options) or "plain",
)
def test_a_sample_is_what_it_would_be_alone(function: Callable[..., Any], options: dict[str, Any]) -> None:
    """Outputs, states and gradients of each, cut to its length; parameters learn from all of those steps."""
    outputs = ("spikes", "count", "rate", "first_spike", "trace", "trace_before_reset")
    names = ["membrane", *(["current", "adaptation", "silence"] if "alpha" in options else [])]
    x = series(T, BATCH, 37)
    poison(x, LENGTHS, 0)
    states = {name: series(BATCH, 37, seed=i).abs().round() for i, name in enumerate(names)}
    beta = torch.linspace(0.5, 0.95, 37)

    def call(x: Tensor, states: dict[str, Tensor], lengths: Tensor | None) -> tuple[Any, ...]:
        leaves = [x.clone(), beta.clone(), *(state.clone() for state in states.values())]
        for name, leaf in zip(("x", "beta", *names), leaves, strict=True):
            leaf.requires_grad_(name != "silence")
        state: Any = NeuronState(**dict(zip(names, leaves[2:], strict=True))) if len(names) > 1 else leaves[2]
        results = flat(function(leaves[0], leaves[1], 0.8, state, lengths=lengths, output=outputs, **options))
        # The same weight for the same neuron and step, whatever else there is.
        weighted = [
            (result[:, :] * torch.linspace(-1, 1, 37)).sum() * (i + 1)
            for i, result in enumerate(results)
            if result.requires_grad
        ]
        smooth = [leaf for leaf in leaves if leaf.requires_grad]
        return results, torch.autograd.grad(sum(weighted), smooth, materialize_grads=True, allow_unused=True)

    results, (dx, dbeta, *dstates) = call(x, states, LENGTHS)
    assert not any(result.isnan().any() for result in results)
    by_sample = torch.zeros(37, dtype=torch.float64)
    for at, length in enumerate(LENGTHS.tolist()):
        own = slice(at, at + 1)
        alone, (own_dx, own_dbeta, *own_dstates) = call(
            x[:length, own], {name: state[own] for name, state in states.items()}, None
        )
        for name, whole, part in zip((*outputs, *names), results, alone, strict=True):
            if whole.dim() == 3:
                assert_identical(whole[:length, own], part, name)
                assert not whole[length:, own].any(), name
            else:
                assert_identical(whole[own], part, name)
        assert_identical(dx[:length, own], own_dx, "dx")
        assert not dx[length:, own].any()
        for mine, expected in zip(dstates, own_dstates, strict=True):
            assert_identical(mine[own], expected, "the gradient of a state")
        by_sample += own_dbeta.double()
    torch.testing.assert_close(dbeta.double(), by_sample, rtol=1e-4, atol=1e-4)


class Copies(TorchDispatchMode):
    """Counts the copies that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += func.overloadpacket in (torch.ops.aten.clone, torch.ops.aten.contiguous)
        return func(*args, **(kwargs or {}))


# Beside those that are copied without lengths, too: outer axes that are expanded before the batch.
@pytest.mark.parametrize(("name", "make", "time_dim", "as_it_lies"), LAYOUTS, ids=[r[0] for r in LAYOUTS])
def test_layouts(name: str, make: Callable[[], Tensor], time_dim: int, as_it_lies: bool) -> None:
    x = make()
    time = time_dim % x.dim()
    batch, steps = x.shape[time == 0], x.shape[time]
    lengths = torch.arange(batch) % (steps + 1) + 2 * (steps > 3)
    layout = _layout.layout_of(x, time, False, True)
    assert layout.copy is not (as_it_lies or name == "short rows"), "a sample of a batch lies together"
    results = []
    for function in FUNCTIONS:
        leaf = x.detach().requires_grad_()
        out, membrane = function(leaf, 0.9, time_dim=time_dim, lengths=lengths, output=("spikes", "rate"))
        loss = sum((r * torch.linspace(-1, 1, r.numel()).view(r.shape)).sum() for r in (*out, membrane))
        (dx,) = torch.autograd.grad(loss, leaf)
        results.append((*out, membrane, dx))
    for fused, expected in zip(*results, strict=True):
        assert torch.equal(fused, expected)


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 70), (6, 3, 40), (1, 3, 40)], ids=str)
@pytest.mark.parametrize("order", ["as it is", "reversed", "expanded"])
def test_layouts_of_constant_input(shape: tuple[int, ...], order: str) -> None:
    x = series(*shape)
    if order == "reversed":
        axes = range(x.dim())[::-1]
        x = x.permute(*axes).contiguous().permute(*axes)
    elif order == "expanded":
        x = x[:1].expand(shape)
    for time_dim in range(len(shape) + 1):
        results = []
        for function in FUNCTIONS:
            leaf = x.detach().requires_grad_()
            lengths = torch.arange(shape[0]) * 2
            out, final = function(leaf, 0.9, 0.4, steps=11, time_dim=time_dim, lengths=lengths)
            loss = (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum() + final.square().sum()
            results.append((out, final, *torch.autograd.grad(loss, leaf)))
        for fused, expected in zip(*results, strict=True):
            assert torch.equal(fused, expected)


@pytest.mark.parametrize("cls", [LIF, ReferenceLIF])
def test_streaming(cls: type[LIF]) -> None:
    """Chunks of a long sequence, through the call and in a layer that keeps its state."""
    x, lengths = series(60, 3, 9), torch.tensor([17, 60, 40])
    whole, final = cls(output="trace")(x, lengths=lengths)
    layer, stateful = cls(output="trace"), cls(output="trace", stateful=True)
    state, pieces, kept = None, [], []
    for start in range(0, 60, 20):
        own = (lengths - start).clamp(0, 20)
        out, state = layer(x[start : start + 20], state, lengths=own)
        pieces.append(out)
        kept.append(stateful(x[start : start + 20], lengths=own)[0])
    for some in (pieces, kept):
        assert torch.equal(torch.cat(some), whole)
    assert state is not None
    assert torch.equal(state, final) and torch.equal(stateful.state, final)


def test_threads_change_no_bit() -> None:
    case = call_of(MEMBERS[1], T, (BATCH, 1031), torch.float32)
    case = padded(case)
    before = torch.get_num_threads()
    outcomes = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        outcomes.append(run(functional.lif, case))
    torch.set_num_threads(before)
    for other in outcomes[1:]:
        for group in ("results", "gradients", "parameter_gradients"):
            for name, tensor in getattr(outcomes[0], group).items():
                assert_identical(getattr(other, group)[name], tensor, name)


def test_lengths_are_looked_at_in_each_call() -> None:
    """Of two calls that are alike but for the lengths, or for whether there are any."""
    x = series(9, 2, 5)
    for lengths in (None, torch.tensor([9, 4]), torch.tensor([0, 9]), None, torch.tensor([9, 4, 7])[::2]):
        given = {} if lengths is None else {"lengths": lengths}
        found, expected = functional.lif(x, 0.9, **given), reference.lif(x, 0.9, **given)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


# Programs and transforms.

MADE: list[tuple[str, Callable[[], nn.Module], Callable[[int], Tensor]]] = [
    ("learned", lambda: LIF(33, learn_beta=True), lambda b: series(60, b, 33)),
    ("batch first", lambda: LIF(7, learn_beta=True, time_dim=1, output="rate"), lambda b: series(b, 60, 7)),
    ("constant", lambda: LIF(9, steps=60, output=("count", "first_spike", "total")), lambda b: series(b, 9)),
    (
        "states",
        lambda: CurrentLIF(9, learn_alpha=True, refractory=2, kappa=0.1, rho=0.5),
        lambda b: series(60, b, 9),
    ),
    (
        "bits",
        lambda: LIF(8, learn_threshold=True, save="bits", surrogate=Rectangle()),
        lambda b: series(60, b, 8),
    ),
]


def outcome(call: Callable[..., Any], module: nn.Module, x: Tensor, lengths: Tensor) -> list[Tensor]:
    """The results, and the gradients of x and of the parameters."""
    leaf = x.clone().requires_grad_()
    results = flat(call(leaf, lengths=lengths))
    loss = sum((r.square() * (i + 1)).sum() for i, r in enumerate(results) if r.requires_grad)
    found = torch.autograd.grad(loss, [leaf, *module.parameters()], allow_unused=True)
    return [*results, *(g for g in found if g is not None)]


@pytest.mark.parametrize(("make", "draw"), [r[1:] for r in MADE], ids=[r[0] for r in MADE])
def test_compiled(make: Callable[[], nn.Module], draw: Callable[[int], Tensor]) -> None:
    torch.compiler.reset()
    module = make()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for batch in (4, 4, 7, 12):
        x, lengths = draw(batch), torch.arange(batch) * 5
        for mine, expected in zip(
            outcome(compiled, module, x, lengths), outcome(module, module, x, lengths), strict=True
        ):
            torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"lengths must be in \[0, 60\], .* got 61"):
        compiled(draw(4), lengths=torch.tensor([0, 1, 61, 2]))


@pytest.mark.parametrize(("make", "draw"), [r[1:] for r in MADE], ids=[r[0] for r in MADE])
def test_exported(make: Callable[[], nn.Module], draw: Callable[[int], Tensor]) -> None:
    module, batch = make(), torch.export.Dim("batch", min=2)
    axis = int(draw(2).dim() == 3 and module.time_dim == 0)
    program = torch.export.export(
        module,
        (draw(4),),
        {"lengths": torch.arange(4)},
        dynamic_shapes={"x": {axis: batch}, "lengths": {0: batch}},
    ).module()
    for size in (4, 7):
        x, lengths = draw(size), torch.arange(size) * 8
        for mine, expected in zip(
            outcome(program, module, x, lengths), outcome(module, module, x, lengths), strict=True
        ):
            torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-6)
        with torch.no_grad():
            for mine, expected in zip(
                flat(program(x, lengths=lengths)), flat(module(x, lengths=lengths)), strict=True
            ):
                assert torch.equal(mine, expected)


@pytest.mark.parametrize(
    "options", [{}, {"time_dim": 1}, {"steps": 9}, {"output": ("count", "rate", "trace")}], ids=str
)
@pytest.mark.parametrize("mapped", [False, True], ids=["shared", "mapped"])
def test_under_vmap(options: dict[str, Any], mapped: bool) -> None:
    """Each of several padded batches, with lengths of its own or the same for all."""
    shape = (4, 6) if "steps" in options else (4, 9, 6) if "time_dim" in options else (9, 4, 6)
    x = series(3, *shape).double()
    lengths = torch.tensor([[0, 9, 3, 1], [9, 9, 2, 4], [5, 0, 0, 8]])[slice(None) if mapped else 0]

    def loss(x: Tensor, lengths: Tensor, call: Callable[..., Any] = functional.lif) -> Tensor:
        return sum(
            (r * torch.linspace(-1, 1, r.numel()).view(r.shape)).sum()
            for r in flat(call(x, 0.9, 0.5, lengths=lengths, **options))
        )  # type: ignore[return-value]

    dims = (0, 0 if mapped else None)
    values, gradients = vmap(loss, dims)(x, lengths), vmap(grad(loss), dims)(x, lengths)
    for at in range(3):
        leaf = x[at].clone().requires_grad_()
        expected = loss(leaf, lengths[at] if mapped else lengths, reference.lif)
        torch.testing.assert_close(values[at], expected.detach())
        assert torch.equal(gradients[at], torch.autograd.grad(expected, leaf)[0])
    of_each = vmap(loss, (None, 0 if mapped else None), randomness="error") if mapped else None
    if of_each is not None:
        torch.testing.assert_close(of_each(x[0], lengths)[0], values[0])


# Training.


class Classifier(nn.Module):
    """Two layers of neurons, and the rates of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 24), nn.Linear(24, 3)
        self.lif1 = LIF(24, learn_beta=True, return_state=False)
        self.lif2 = LIF(3, learn_beta=True, output="rate", return_state=False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        spikes = self.lif1(self.fc1(x), lengths=lengths)
        rates: Tensor = self.lif2(self.fc2(spikes), lengths=lengths)
        return rates

    def by_hand(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The same as a loop over time, with a mask."""
        first = torch.zeros(x.shape[1], 24, dtype=x.dtype)
        second = count = torch.zeros(x.shape[1], 3, dtype=x.dtype)
        for t, current in enumerate(x):
            going = (t < lengths)[:, None]
            spikes, after = self.lif1.step(self.fc1(current), first)
            first = torch.where(going, after, first)
            spikes, after = self.lif2.step(self.fc2(torch.where(going, spikes, 0)), second)
            second = torch.where(going, after, second)
            count = count + torch.where(going, spikes, 0)
        return count / lengths[:, None]


def test_a_classifier_learns_as_one_that_is_masked_by_hand() -> None:
    """Which of three channels rises, in sequences of 5 to 30 steps."""
    losses = []
    for way in (Classifier.forward, Classifier.by_hand):
        torch.manual_seed(0)
        model = Classifier().double()
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        losses.append([])
        for _ in range(40):
            lengths, labels = torch.randint(5, 31, (48,)), torch.randint(3, (48,))
            x = torch.randn(30, 48, 6, dtype=torch.float64) * 0.5
            x[:, torch.arange(48), labels] += 1
            loss = nn.functional.cross_entropy(4 * way(model, x, lengths), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-8, atol=0.0)
    assert sum(losses[0][-5:]) < 0.6 * sum(losses[0][:5]), "it learned nothing"
