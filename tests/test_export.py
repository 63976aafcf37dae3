"""torch.export and torch.jit.trace: programs compute, and train, as the layers do that they were made of."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from family import flat
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.export import Dim

from lif_cuda import LIF, CurrentLIF, ReferenceLIF, _ops, functional
from lif_cuda.models import SNNClassifier
from lif_cuda.surrogate import ATan, Custom, Rectangle


class Case(NamedTuple):
    """A module, its input for T time steps of B samples, and the axes of these (None: there is none)."""

    make: Callable[[], nn.Module]
    draw: Callable[[int, int], Tensor]
    time: int | None
    batch: int


CASES = {
    "learned": Case(lambda: LIF(33, learn_beta=True), lambda t, b: torch.randn(t, b, 33), 0, 1),
    "network": Case(
        lambda: nn.Sequential(nn.Linear(6, 7), LIF(7, return_state=False), nn.Linear(7, 3)),
        lambda t, b: torch.randn(t, b, 6),
        0,
        1,
    ),
    "batch first": Case(
        lambda: LIF(128, learn_gain=True, time_dim=1), lambda t, b: torch.randn(b, t, 128), 1, 0
    ),
    "short rows": Case(lambda: LIF(5, learn_beta=True, time_dim=1), lambda t, b: torch.randn(b, t, 5), 1, 0),
    "all states": Case(
        lambda: CurrentLIF(9, learn_alpha=True, refractory=2, kappa=0.1, rho=0.5),
        lambda t, b: torch.randn(t, b, 9),
        0,
        1,
    ),
    "channels": Case(
        lambda: LIF(
            3, channel_dim=2, learn_threshold=True, reset="zero", learn_v_reset=True, surrogate=ATan()
        ),
        lambda t, b: torch.randn(t, b, 3, 2, 8).to(torch.bfloat16),
        0,
        1,
    ),
    "table": Case(
        lambda: LIF(
            surrogate=Custom(lambda z: torch.exp(-4 * z * z)), output=("spikes", "first_spike", "total")
        ),
        lambda t, b: torch.randn(t, b, 8),
        0,
        1,
    ),
    "bits": Case(
        lambda: LIF(8, learn_threshold=True, save="bits", surrogate=Rectangle()),
        lambda t, b: torch.randn(t, b, 8),
        0,
        1,
    ),
    "constant input": Case(
        lambda: LIF(9, steps=37, output=("count", "rate"), decay_input=True, learn_beta=True),
        lambda _, b: torch.randn(b, 9),
        None,
        0,
    ),
    "classifier": Case(lambda: SNNClassifier(6, 5, 4), lambda _, b: torch.randn(b, 6), None, 0),
}
# At the steps before which the state is kept (every 32 on the CPU), on both sides of them, and far from them.
SIZES = [(2, 3), (31, 3), (32, 2), (33, 5), (64, 2), (65, 7), (200, 3)]


def exported(case: Case, module: nn.Module, **options: Any) -> torch.export.ExportedProgram:
    """A program for any T and any batch."""
    axes: dict[int, Any] = {case.batch: Dim("batch", min=2, max=4096)}
    if case.time is not None:
        axes[case.time] = Dim("T", min=2, max=1_000_000)
    return torch.export.export(module, (case.draw(40, 4),), dynamic_shapes=(axes,), **options)


def results_and_gradients(
    call: Callable[..., Any], module: nn.Module, x: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Of a call; of the parameters in the order of their names, which a program keeps, and not their own."""
    x = x.detach().requires_grad_()
    results = flat(call(x))
    torch.manual_seed(0)
    loss = sum((r.float() * torch.randn(r.shape)).sum() for r in results if r.requires_grad)
    assert isinstance(loss, Tensor)
    return results, list(torch.autograd.grad(loss, [x, *[p for _, p in sorted(module.named_parameters())]]))


def check_as_eager(
    program: Callable[..., Any],
    module: nn.Module,
    x: Tensor,
    *,
    close: bool = False,
    of: nn.Module | None = None,
) -> None:
    """Bit for bit; or ``close`` in the gradients of parameters, where the program adds up otherwise.

    of: whose parameters the program has, if not its own.
    """
    if of is None:
        assert isinstance(program, nn.Module)
        of = program
    results, gradients = results_and_gradients(program, of, x)
    expected, wanted = results_and_gradients(module, module, x)
    assert len(results) == len(expected) and all(map(torch.equal, results, expected))
    assert torch.equal(gradients[0], wanted[0])
    if close:
        torch.testing.assert_close(gradients[1:], wanted[1:], rtol=1e-5, atol=1e-6)
    else:
        assert all(map(torch.equal, gradients[1:], wanted[1:]))


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_program_trains_for_any_t_and_any_batch(case: Case, strict: bool) -> None:
    torch.manual_seed(0)
    module = case.make()
    program = exported(case, module, strict=strict).module()
    for steps, batch in SIZES:
        check_as_eager(program, module, case.draw(steps, batch))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            x = case.draw(50, 3)
            assert all(map(torch.equal, flat(program(x)), flat(module(x))))


@pytest.mark.parametrize("case", [CASES["network"], CASES["bits"]], ids=["network", "bits"])
def test_decomposed_saved_and_loaded(case: Case) -> None:
    torch.manual_seed(0)
    module = case.make()
    program = exported(case, module)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for other in (program.run_decompositions(), torch.export.load(file)):
        for steps, batch in SIZES:
            check_as_eager(other.module(), module, case.draw(steps, batch))


def test_an_export_without_gradients_trains_too() -> None:
    case = CASES["table"]
    module = case.make()
    with torch.no_grad():
        program = exported(case, module).module()
    check_as_eager(program, module, case.draw(70, 3))


@pytest.mark.parametrize("every", [16, 5])
def test_nothing_in_a_program_is_of_the_device_that_exported_it(
    monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """How often states are kept, 32 on the CPU and 16 on CUDA, is found out where it runs."""
    case = CASES["learned"]
    module = case.make()
    program = exported(case, module)
    assert [str(node.target) for node in program.graph.nodes if "lif" in str(node.target)] == [
        "lif_cuda.lif.default"
    ]
    monkeypatch.setattr(_ops, "checkpoint_interval", lambda device: every)
    seen = []
    backward = _ops.lif_backward
    monkeypatch.setattr(
        _ops, "lif_backward", lambda *arguments: (seen.append(arguments[4]), backward(*arguments))[1]
    )
    check_as_eager(program.module(), module, case.draw(70, 3))
    assert seen[0] == every


def test_tensors_that_lie_otherwise_than_those_of_the_export() -> None:
    layer = LIF(6, learn_beta=True)
    x, membrane = torch.randn(20, 4, 6), torch.randn(4, 6)
    program = torch.export.export(layer, (x, membrane)).module()

    def across(tensor: Tensor) -> Tensor:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)

    for mode in (torch.enable_grad, torch.inference_mode):
        with mode():
            for mine, eager in zip(program(across(x), across(membrane)), layer(x, membrane), strict=True):
                assert torch.equal(mine, eager)
    leaves = [[t.clone().requires_grad_() for t in (x, membrane)] for _ in range(2)]
    program(*[across(leaf) for leaf in leaves[0]])[1].square().sum().backward()
    layer(*leaves[1])[1].square().sum().backward()
    for mine, eager in zip(*leaves, strict=True):
        assert mine.grad is not None and eager.grad is not None and torch.equal(mine.grad, eager.grad)


def test_a_program_refuses_what_the_layer_refuses() -> None:
    layer = LIF(5, return_state=False)
    x = torch.randn(6, 3, 5, requires_grad=True)
    program = torch.export.export(layer, (x,)).module()
    (grad,) = torch.autograd.grad(program(x).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        grad.sum().backward()
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        program(forward_ad.make_dual(x.detach(), torch.ones_like(x)))
    # By PyTorch's own errors.
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.func.grad(lambda x: program(x).sum())(x.detach())
    with pytest.raises(RuntimeError, match="Batching rule not implemented"):
        torch.vmap(program, in_dims=2)(torch.randn(6, 3, 2, 5))


def test_a_program_is_compiled() -> None:
    case = CASES["network"]
    module = case.make()
    program = exported(case, module).module()
    torch.compiler.reset()
    compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
    check_as_eager(compiled, module, case.draw(40, 3), of=program)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", [name for name in CASES if name != "classifier"])
def test_jit_trace_trains_for_any_t(name: str) -> None:
    """The interpreter's own derivative of a sigmoid rounds otherwise."""
    case = CASES[name]
    torch.manual_seed(0)
    module = case.make()
    traced = torch.jit.trace(module, (case.draw(40, 4),))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    for program in (traced, torch.jit.load(file)):
        for steps, batch in SIZES:
            check_as_eager(program, module, case.draw(steps, batch), close=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_jit_trace_of_the_function() -> None:
    """It does not take a size for a constant, and so does not warn of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(lambda x: functional.lif(x, 0.9)[0], (torch.randn(40, 3, 5),))
    x = torch.randn(70, 2, 5)
    assert torch.equal(traced(x), functional.lif(x, 0.9)[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("module", [LIF(5), nn.Sequential(nn.Linear(3, 5), LIF(5))], ids=["layer", "network"])
def test_jit_script_refuses(module: nn.Module) -> None:
    with pytest.raises(NotImplementedError, match=r"torch\.jit\.script.*LIF.*torch\.export"):
        torch.jit.script(module)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_the_reference_layer_for_the_t_of_its_export() -> None:
    """Another T raises, and does not take a wrong number of steps."""
    layer = ReferenceLIF(5, learn_beta=True, return_state=False)
    x, longer = torch.randn(8, 3, 5), torch.randn(9, 3, 5)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for t in (x, longer):
        check_as_eager(compiled, layer, t, close=True, of=layer)
    program = torch.export.export(layer, (x,)).module()
    assert torch.equal(program(x), layer(x))
    assert not program(x.clone().requires_grad_()).requires_grad  # torch.export drops its derivative
    with pytest.raises((AssertionError, RuntimeError), match="Guard failed|to be equal to 8"):
        program(longer)
    traced = torch.jit.trace(layer, (x,))
    check_as_eager(traced, layer, x, close=True)
    with pytest.raises(RuntimeError, match="Expected 8 elements in a list but found 9"):
        traced(longer)
    with pytest.raises((RuntimeError, ValueError)):  # by whatever PyTorch does not know first
        torch.jit.script(layer)
