"""The operators under autograd, recorded in C++ and in Python: the same numbers, the same refusals."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from compare import assert_identical, autograd_in_python
from family import Case, Outcome, SeededPick, draw_case, flat, kept_in_bits, run
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from lif_cuda import _autograd, _build_facts, _ops, _plan, functional
from lif_cuda._options import CallOptions
from lif_cuda._parameters import Parameters
from lif_cuda.surrogate import Rectangle

needs_node = pytest.mark.skipif(_autograd._NODE is None, reason="Python records the calls")
both = pytest.mark.parametrize("recorded_by", [nullcontext, autograd_in_python], ids=["cpp", "python"])
RecordedBy = Callable[[], AbstractContextManager[None]]


def series(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.3


def of_both(case: Case) -> tuple[Outcome, Outcome]:
    mine = run(functional.lif, case)
    with autograd_in_python():
        return mine, run(functional.lif, case)


def assert_equal(mine: Outcome, other: Outcome) -> None:
    """Every bit, those of the parameters' gradients too: the operators are the same."""
    for field in fields(Outcome):
        found, expected = getattr(mine, field.name), getattr(other, field.name)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert_identical(found[name], tensor, name)
            if tensor is not None:
                assert found[name].stride() == tensor.stride(), name


@needs_node
@pytest.mark.parametrize("seed", range(5000, 5150))
def test_drawn_calls(seed: int) -> None:
    assert_equal(*of_both(draw_case(SeededPick(seed), seed)))


@needs_node
@pytest.mark.parametrize("seed", range(6000, 6040))
def test_two_bits_a_step(seed: int) -> None:
    assert_equal(*of_both(kept_in_bits(draw_case(SeededPick(seed), seed), SeededPick(seed))))


@needs_node
@pytest.mark.parametrize("options", [{}, {"output": "first_spike"}, {"output": "total"}], ids=str)
def test_what_is_kept(options: dict[str, Any]) -> None:
    """The same tensors, in the same order: x, checkpoints, the first spikes, parameters."""
    x, beta = series(60, 2, 7).requires_grad_(), torch.full((7,), 0.9, requires_grad=True)
    kept: list[list[tuple[torch.Size, torch.dtype]]] = []
    for recorded_by in (nullcontext, autograd_in_python):
        packed: list[Tensor] = []

        def pack(tensor: Tensor, packed: list[Tensor] = packed) -> Tensor:
            packed.append(tensor)
            return tensor

        with recorded_by(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            functional.lif(x, beta, **options)
        kept.append([(tensor.shape, tensor.dtype) for tensor in packed])
    assert kept[0] == kept[1] and len(kept[0]) == (4 if "first" in str(options) else 3)


@needs_node
def test_which_of_them_records() -> None:
    x = series(5, 2, 7).requires_grad_()
    assert "CppNode" in functional.lif(x, 0.9)[0].grad_fn.name()
    assert "FusedLIF" in functional.lif(x, 0.9)[0].grad_fn.name()
    with autograd_in_python():
        assert functional.lif(x, 0.9)[0].grad_fn.name() == "FusedLIFBackward"
    assert functional.lif(x.detach(), 0.9)[0].grad_fn is None
    with torch.no_grad():
        assert functional.lif(x, 0.9)[0].grad_fn is None


@both
def test_subclasses_see_the_operators(recorded_by: RecordedBy) -> None:
    seen = []

    class Watched(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    x = series(5, 2, 7)
    with recorded_by():
        out, state = functional.lif(x.as_subclass(Watched), 0.9)
    assert _ops.lif_forward in seen and type(out) is type(state) is Watched
    assert torch.equal(out.as_subclass(Tensor), functional.lif(x, 0.9)[0])


@both
def test_forward_mode_is_refused(recorded_by: RecordedBy) -> None:
    """Where x needs no gradient, too: its tangent would be dropped without a word."""
    for x in (series(5, 2, 7), series(5, 2, 7).requires_grad_()):
        with forward_ad.dual_level(), recorded_by():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
                functional.lif(dual, 0.9)
            beta = forward_ad.make_dual(torch.full((7,), 0.9), torch.ones(7))
            with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
                functional.lif(x, beta)
            functional.lif(x, 0.9)  # no tangent, no refusal


@both
@pytest.mark.parametrize("save", ["input", "bits"])
def test_second_derivatives_are_refused(save: str, recorded_by: RecordedBy) -> None:
    x = series(5, 2, 7).requires_grad_()
    with recorded_by():
        out, _ = functional.lif(x, 0.9, surrogate=Rectangle(1.0), save=save)
        if save == "bits":
            with pytest.raises(NotImplementedError, match="save='bits' is for one backward pass"):
                torch.autograd.grad(out.sum(), x, create_graph=True)
            return
        (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="no second derivative"):
            grad.sum().backward()


@both
@pytest.mark.parametrize("steps", [5, 100])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output": ("count", "total", "first_spike"), "refractory": 2},
        {"save": "bits", "surrogate": Rectangle(1.0)},
    ],
    ids=["spikes", "counts", "bits"],
)
def test_compiled_autograd(options: dict[str, Any], steps: int, recorded_by: RecordedBy) -> None:
    """Backward of a whole graph as one compiled function, forward having run as it is."""
    grads = []
    with recorded_by():
        for compiled in (False, True):
            x = series(steps, 3, 7).requires_grad_()
            threshold = torch.linspace(0.8, 1.2, 7, requires_grad=True)
            out, state = functional.lif(x, 0.9, threshold, **options)
            parts = [t for t in flat((out, state)) if t is not None and t.requires_grad]
            loss = sum((part * part).sum() for part in parts)
            context: Any = nullcontext()
            if compiled:
                context = torch._dynamo.compiled_autograd._enable(
                    lambda graph: torch.compile(graph, backend="eager")
                )
            with context:
                loss.backward()
            grads.append((x.grad, threshold.grad))
    for plain, traced in zip(*grads, strict=True):
        assert_identical(traced, plain, "gradient")


@needs_node
def test_wrong_arguments_raise() -> None:
    """A backstop: lif_cuda.functional gives what it should."""
    call = _plan.new_plan(
        series(5, 2, 7),
        Parameters(torch.full((7,), 0.9), 1.0),
        None,
        None,
        CallOptions(surrogate=Rectangle(1.0)),
        None,
    ).node
    x, beta = series(5, 2, 7), torch.full((7,), 0.9)
    assert call is not None
    assert torch.equal(call(x, [beta])[0], functional.lif(x, beta)[0])
    assert torch.equal(call(x, (beta,))[1], functional.lif(x, beta)[1])
    for given, error, message in (
        ([], ValueError, "given must have 1 tensors, got 0"),
        ([beta, beta], ValueError, "given must have 1 tensors, got 2"),
        ([0.9], TypeError, "given must be a list of tensors"),
        (None, TypeError, "given must be a list of tensors"),
        ([beta.double()], RuntimeError, "a parameter must have the dtype of the state"),
    ):
        with pytest.raises(error, match=message):
            call(x, given)
    with pytest.raises(TypeError, match="x must be a tensor"):
        call(None, [beta])


class Heard(TorchDispatchMode):
    """A mode, which is to hear of each operator."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@needs_node
@pytest.mark.parametrize(
    ("around", "dispatched"),
    [
        (nullcontext, False),
        (lambda: torch.autocast("cpu", torch.bfloat16), False),
        (torch.inference_mode, False),
        (torch.profiler.profile, True),
        (Heard, True),
        (autograd_in_python, True),
    ],
    ids=["plain", "autocast", "inference", "profiler", "mode", "python"],
)
def test_the_dispatcher_is_passed_by(around: Callable[[], Any], dispatched: bool) -> None:
    """Unless someone listens there. Who listens here takes the place of the kernels."""
    x = series(5, 2, 7).requires_grad_()
    called = []

    def instead(x: Tensor, given: list[Tensor], *rest: Any) -> list[Tensor]:
        called.append(len(given))
        return [x * 2, x[0] * 2]

    expected = functional.lif(x.detach(), 0.9)[0]
    with torch.library._scoped_library("lif_cuda", "IMPL") as library, around():
        for name in ("lif_forward", "lif_backward"):
            library.impl(name, instead, "CPU", allow_override=True)
        out, _ = functional.lif(x, 0.9)
        if out.requires_grad:
            out.sum().backward()
    assert called == ([0, 1] if dispatched else [])
    assert torch.equal(out, x * 2 if dispatched else expected)


@pytest.fixture
def dispatched() -> Iterator[None]:
    """As with LIF_CUDA_DISPATCHER=always."""
    _autograd.pass_the_dispatcher_by(False)
    yield
    _autograd.pass_the_dispatcher_by(True)


@needs_node
def test_the_switch_sends_all_through_the_dispatcher(dispatched: None) -> None:
    test_the_dispatcher_is_passed_by(nullcontext, dispatched=True)


def test_the_switch_has_two_values(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = _build_facts.always_dispatches.__wrapped__
    for value, always in (("", False), ("auto", False), ("always", True)):
        monkeypatch.setenv("LIF_CUDA_DISPATCHER", value)
        assert choose() is always
    monkeypatch.setenv("LIF_CUDA_DISPATCHER", "never")
    with pytest.raises(ImportError, match="LIF_CUDA_DISPATCHER must be one of auto, always, got 'never'"):
        choose()


@needs_node
def test_the_profiler_tells_the_operators() -> None:
    with torch.profiler.profile() as profile:
        functional.lif(series(5, 2, 7).requires_grad_(), 0.9)[0].sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert {"lif_cuda::lif_forward", "lif_cuda::lif_backward"} <= names


@needs_node
def test_a_library_without_the_operators_is_refused() -> None:
    assert _autograd._NODE is not None
    with pytest.raises(ValueError, match="device must be cpu or cuda, got mps"):
        _autograd._NODE.call_directly(device="mps", library="nowhere.so")
    with pytest.raises(RuntimeError, match="nowhere.so is not loaded: load it first"):
        _autograd._NODE.call_directly(device="cpu", library="nowhere.so")
    with pytest.raises(RuntimeError, match="has no lif_cuda_direct"):
        _autograd._NODE.call_directly(device="cpu", library=ctypes.CDLL("libc.so.6")._name)


# Which of the two is used.


@pytest.fixture
def anew() -> Callable[[], Any]:
    """The choice, made again."""
    return _build_facts.node_module.__wrapped__


def test_python_works_beside_another_torch(anew: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators are of the stable interface and go on; what needs this very torch is left alone."""
    facts = _build_facts.facts() | {"torch": "2.11.0"}
    monkeypatch.setattr(_build_facts, "facts", lambda: facts)
    monkeypatch.delenv("LIF_CUDA_AUTOGRAD", raising=False)
    assert anew() is None
    monkeypatch.setenv("LIF_CUDA_AUTOGRAD", "cpp")
    with pytest.raises(ImportError, match="needs the torch that lif_cuda was built against, 2.11.0, got"):
        anew()


def test_the_environment_chooses(anew: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIF_CUDA_AUTOGRAD", "python")
    assert anew() is None
    monkeypatch.setenv("LIF_CUDA_AUTOGRAD", "Python")
    with pytest.raises(ImportError, match="LIF_CUDA_AUTOGRAD must be one of cpp, python, got 'Python'"):
        anew()


@pytest.mark.slow
def test_python_passes_the_tests_of_autograd(tmp_path: Path) -> None:
    """All that a graph can meet: hooks, retained graphs, changes in place, threads, checkpointing, bits."""
    here = Path(__file__).resolve().parent
    files = [
        str(here / f"test_{name}.py") for name in ("module", "bits", "layers", "gradcheck", "layout", "node")
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *files],
        cwd=here.parent,
        env=os.environ | {"LIF_CUDA_AUTOGRAD": "python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
