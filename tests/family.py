"""Any call of the neuron family: drawn at random, run on two implementations, and compared whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch
from compare import assert_identical
from torch import Tensor

from lif_cuda import NeuronState
from lif_cuda.surrogate import ATan, Custom, FastSigmoid, Rectangle, StraightThrough, SuperSpike, Triangle

T = TypeVar("T")

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
STATE_OF = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}
# Around the 16 steps of a chunk on CUDA and the 32 on the CPU; beyond 32 CUDA has kernels for few neurons.
STEPS = (0, 1, 2, 5, 16, 17, 25, 32, 33, 49, 64, 100)
FEATURES = ((5,), (3, 7), (2, 3, 33), (2, 129), (4, 1), (1,), (0,), (2, 64), (), (8, 16))
# Of samples of a padded batch, or T where that is less.
LENGTHS = (0, 1, 3, 16, 17, 31, 32, 33, 100)
# Those whose kernels have the very roundings of the eager formulas.
EXACT_SURROGATES = (
    FastSigmoid(7.0, scale=0.7),
    SuperSpike(3.0),
    ATan(),
    Triangle(0.8),
    Rectangle(0.7),
    StraightThrough(),
    Custom(lambda z: 1 / (1 + z.clamp(-1.5, 1.5) ** 2), reach=1.5, points=65),
)


def series(*shape: int, seed: int = 0) -> Tensor:
    """An input that makes neurons fire now and then, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.6 + 0.25


class Pick(Protocol):
    """Where choices come from: a seeded generator, or hypothesis, which can shrink them."""

    def choice(self, options: Sequence[T]) -> T: ...

    def chance(self, probability: float) -> bool: ...


class SeededPick:
    """Choices of a seeded generator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def choice(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability


@dataclass
class Case:
    """One call: what goes in, and what of it is differentiable."""

    x: Tensor
    parameters: dict[str, float | Tensor]
    states: dict[str, Tensor]
    state_names: tuple[str, ...]
    options: dict[str, Any]
    outputs: tuple[str, ...]
    view: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    uniform_gradients: bool = False
    seed: int = 0
    constants: tuple[str, ...] = ("v_min",)  # parameters without a gradient
    lengths: Tensor | None = None

    def __str__(self) -> str:
        given = {name: tuple(v.shape) if isinstance(v, Tensor) else v for name, v in self.parameters.items()}
        lengths = None if self.lengths is None else self.lengths.tolist()
        return (
            f"x {tuple(self.x.shape)} {self.x.dtype}, {given}, states {list(self.states)}, {self.options}, "
            f"lengths {lengths}"
        )

    @property
    def lengths_option(self) -> dict[str, Tensor]:
        """The lengths as a keyword, if there are any."""
        return {} if self.lengths is None else {"lengths": self.lengths}


def _view(pick: Pick, x: Tensor) -> Callable[[Tensor], Tensor]:
    """A way to lay the elements of x in memory otherwise, without changing them."""
    kind = pick.choice(["as it is"] * 4 + ["permuted", "sliced", "strided", "misaligned"])
    if kind == "permuted" and x.dim() > 1:
        order = list(range(x.dim()))
        random.Random(x.numel()).shuffle(order)
        back = [order.index(i) for i in range(x.dim())]
        return lambda t: t.permute(order).contiguous().permute(back)
    if kind in ("sliced", "strided") and x.dim() > 0:
        step = 2 if kind == "strided" else 1

        def sliced(t: Tensor) -> Tensor:
            wide = torch.zeros((*t.shape[:-1], step * t.shape[-1] + 3), dtype=t.dtype)
            into = wide[..., 1 : 1 + step * t.shape[-1] : step]
            return into + 0 * t if t.numel() == 0 else _put(wide, into, t)

        return sliced
    if kind == "misaligned":
        return lambda t: torch.cat([t.new_zeros(1), t.reshape(-1)])[1:].view(t.shape)
    return lambda t: t


def _put(wide: Tensor, into: Tensor, t: Tensor) -> Tensor:
    """``t`` at the place of the view ``into`` of ``wide``, differentiably."""
    whole = torch.as_strided(wide, wide.shape, wide.stride())
    spread = whole.clone()
    offset = into.storage_offset()
    spread.as_strided(into.shape, into.stride(), offset).copy_(t)
    return spread.as_strided(into.shape, into.stride(), offset)


def draw_case(
    pick: Pick,
    seed: int = 0,
    dtypes: Sequence[torch.dtype] = tuple(STATE_OF),
    numbers_of_steps: Sequence[int] = STEPS,
    shapes: Sequence[tuple[int, ...]] = FEATURES,
) -> Case:
    """Any combination of options that the neuron takes, at sizes where it is interesting."""
    generator = torch.Generator().manual_seed(seed)
    dtype = pick.choice(dtypes)
    state_dtype = STATE_OF[dtype]
    steps = pick.choice(numbers_of_steps)
    features = pick.choice(shapes)
    constant = pick.chance(0.25)
    time_dim = pick.choice(range(len(features) + 1))
    shape = features if constant else (*features[:time_dim], steps, *features[time_dim:])

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64).to(state_dtype)

    def parameter(low: float, high: float) -> float | Tensor:
        if pick.chance(0.3):
            return pick.choice([low, high, (low + high) / 2])
        ones = tuple(size if pick.chance(0.5) else 1 for size in features)
        sizes = pick.choice([(), features, features[-1:], ones])
        return (low + (high - low) * torch.rand(sizes, generator=generator, dtype=torch.float64)).to(
            state_dtype
        )

    parameters: dict[str, float | Tensor] = {
        "beta": parameter(0.5, 0.99),
        "threshold": parameter(0.6, 1.4),
    }
    options: dict[str, Any] = {
        "reset": pick.choice(["subtract", "zero", "none"]),
        "strict": pick.chance(0.3),
        "detach_reset": pick.chance(0.5),
        "surrogate": pick.choice(EXACT_SURROGATES),
        "time_dim": time_dim,
    }
    if constant:
        options["steps"] = steps
    if options["reset"] == "zero" and pick.chance(0.6):
        parameters["v_reset"] = parameter(-0.3, 0.3)
    if pick.chance(0.4):
        parameters["gain"] = parameter(0.5, 1.5)
    elif pick.chance(0.3):
        options["decay_input"] = True
    if pick.chance(0.2):
        options["rest"] = pick.choice([-0.3, 0.1])
    names = ["membrane"]
    if pick.chance(0.3):
        parameters["alpha"] = parameter(0.2, 0.9)
        names.append("current")
    if options["reset"] != "none" and pick.chance(0.2):
        options |= {"delay_reset": True, "detach_reset": True}
    else:
        if pick.chance(0.3):
            parameters |= {"kappa": parameter(0.1, 0.5), "rho": parameter(0.5, 0.9)}
            names.append("adaptation")
        if pick.chance(0.3):
            options["refractory"] = pick.choice([1, 2, 5])
            names.append("silence")
    if pick.chance(0.2):
        parameters["v_min"] = parameter(-0.5, 0.3)
    possible = [name for name in OUTPUTS if steps or name != "trace_max"]
    outputs = tuple(name for name in possible if pick.chance(0.3)) or (pick.choice(possible),)
    options["output"] = outputs[0] if len(outputs) == 1 else outputs
    states = {}
    if pick.chance(0.7):
        for name in names:
            state = normal(*features)
            if name == "silence":
                state = state.abs().round().clamp(max=2)
            states[name] = state.abs() if name == "adaptation" else state
    x = (0.5 * normal(*shape) + 0.2).to(dtype)
    view, uniform_gradients = _view(pick, x), pick.chance(0.2)
    lengths = None
    if features and pick.chance(0.25):
        lengths = torch.tensor([min(steps, pick.choice(LENGTHS)) for _ in range(features[0])]).long()
        if not constant and pick.chance(0.5):
            poison(x, lengths, time_dim)
    return Case(
        x,
        parameters,
        states,
        tuple(names),
        options,
        outputs,
        view,
        uniform_gradients,
        seed,
        lengths=lengths,
    )


def poison(x: Tensor, lengths: Tensor, time_dim: int) -> None:
    """Put NaN wherever a sample of x has ended."""
    by_sample = x.movedim(time_dim, 1)
    by_sample[torch.arange(by_sample.shape[1]) >= lengths[:, None]] = float("nan")


def kept_in_bits(case: Case, pick: Pick) -> Case:
    """The nearest case for which two bits a step are enough in backward."""
    beyond = ("alpha", "kappa", "rho", "v_min")
    options = case.options | {"save": "bits", "surrogate": pick.choice([Rectangle(0.7), StraightThrough()])}
    for name in ("delay_reset", "refractory"):
        options.pop(name, None)
    if options["reset"] == "zero":
        options["detach_reset"] = True
    return replace(
        case,
        parameters={name: value for name, value in case.parameters.items() if name not in beyond},
        states={name: value for name, value in case.states.items() if name == "membrane"},
        state_names=("membrane",),
        options=options,
        constants=("beta", "gain"),
    )


@dataclass
class Outcome:
    """All that comes out of a call: outputs and states, exact gradients, and those of the parameters."""

    results: dict[str, Tensor]
    gradients: dict[str, Tensor | None]
    parameter_gradients: dict[str, Tensor | None]


def flat(value: Any) -> list[Tensor]:
    """The tensors of a result, however deep they lie."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in value or () if part is not None for tensor in flat(part)]


def run(function: Callable[..., Any], case: Case) -> Outcome:
    """Forward, and backward from random gradients of every output that has one."""

    def leaf(value: Any, smooth: bool = True) -> Any:
        return value.detach().clone().requires_grad_(smooth) if isinstance(value, Tensor) else value

    x = leaf(case.x)
    parameters = {name: leaf(value, name not in case.constants) for name, value in case.parameters.items()}
    states = {name: leaf(value, name != "silence") for name, value in case.states.items()}
    membrane: Any = None
    if states:
        membrane = NeuronState(**states) if len(case.state_names) > 1 else states["membrane"]
    result = function(case.view(x), **parameters, membrane=membrane, **case.options, **case.lengths_option)
    names = [*case.outputs, *case.state_names]
    results = dict(zip(names, flat(result), strict=True))
    generator = torch.Generator().manual_seed(case.seed)
    pairs = []
    for tensor in results.values():
        grad = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
        if case.uniform_gradients:
            grad = torch.full((), 0.7, dtype=torch.float64, device=tensor.device).expand(tensor.shape)
        if tensor.requires_grad:
            pairs.append((tensor, grad.to(tensor.dtype).expand(tensor.shape)))
    if pairs:
        torch.autograd.backward([p[0] for p in pairs], [p[1] for p in pairs])
    return Outcome(
        {name: tensor.detach() for name, tensor in results.items()},
        {"x": x.grad, **{name: state.grad for name, state in states.items()}},
        {name: value.grad for name, value in parameters.items() if isinstance(value, Tensor)},
    )


def assert_same(actual: Outcome, expected: Outcome, dtype: torch.dtype) -> None:
    """Outputs, states and their gradients bit for bit; gradients of parameters as sums of rounded terms."""
    for name, tensor in expected.results.items():
        assert_identical(actual.results[name], tensor, name)
    for name, grad in expected.gradients.items():
        mine = actual.gradients[name]
        if grad is None or mine is None:
            assert all(g is None or not g.any() for g in (grad, mine)), f"one gradient of {name} is missing"
            continue
        if not grad.isfinite().all():
            # It overflowed, through a reset that is not detached: infinity minus infinity, or times 0, is NaN
            # in one order of the terms and not in another.
            finite = grad.isfinite() & mine.isfinite()
            mine, grad = mine[finite], grad[finite]
        assert_identical(mine, grad, f"gradient of {name}")
    for name, grad in expected.parameter_gradients.items():
        mine = actual.parameter_gradients[name]
        if grad is None or mine is None:
            assert all(g is None or not g.any() for g in (grad, mine)), f"one gradient of {name} is missing"
            continue
        # The reference adds in another order; test_numpy.py has the bound of each sum. A gradient that
        # explodes through a reset that is not detached may end as infinity minus infinity.
        assert mine.shape == grad.shape
        tolerance = 2e-3 if STATE_OF[dtype] == torch.float32 else 1e-10
        finite = grad.isfinite()
        size = float(grad[finite].abs().max()) + 1 if finite.any() else 1.0
        error = float((mine - grad)[finite].abs().max()) if finite.any() else 0.0
        assert error <= tolerance * size, f"gradient of {name}: off by {error:.3g} of {size:.3g}"
