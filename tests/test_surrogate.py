"""Surrogates: their formulas, their relatives in other libraries, and the same in the kernels."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lif_cuda import functional, reference
from lif_cuda.surrogate import (
    ATan,
    Custom,
    FastSigmoid,
    Gaussian,
    PiecewiseExp,
    Rectangle,
    Sigmoid,
    SoftSign,
    StraightThrough,
    SuperSpike,
    Surrogate,
    Triangle,
)

A = 1.7


def held_cosine(z: Tensor) -> Tensor:
    """A derivative that is constant beyond the default reach, as its table is."""
    return torch.cos(z.clamp(-2.0, 2.0))


# Each with its derivative written anew, and whether that integrates to 1: the derivative of a step.
FORMULAS: list[tuple[Surrogate, Callable[[Any], Any], bool]] = [
    (FastSigmoid(A), lambda z: 1 / (1 + A * abs(z)) ** 2, False),
    (SuperSpike(A), lambda z: 1 / (1 + A * abs(z)) ** 2, False),
    (SoftSign(A), lambda z: A / 2 / (1 + A * abs(z)) ** 2, True),
    (ATan(A), lambda z: A / 2 / (1 + (math.pi / 2 * A * z) ** 2), True),
    (Sigmoid(A), lambda z: A / (2 + np.exp(A * z) + np.exp(-A * z)), True),
    (Triangle(A), lambda z: A * np.maximum(0, 1 - A * abs(z)), True),
    (PiecewiseExp(A), lambda z: A / 2 * np.exp(-A * abs(z)), True),
    (Gaussian(A), lambda z: A / math.sqrt(math.pi) * np.exp(-((A * z) ** 2)), True),
    (Rectangle(A), lambda z: A * (abs(z) < 0.5 / A), True),
    (StraightThrough(), lambda z: np.ones_like(z), False),
]
EXPONENTIAL = (Sigmoid(A), PiecewiseExp(A), Gaussian(A))


@pytest.mark.parametrize(("surrogate", "formula", "step"), FORMULAS, ids=lambda v: repr(v)[:20])
def test_formulas(surrogate: Surrogate, formula: Callable[[Any], Any], step: bool) -> None:
    z = torch.linspace(-4, 4, 10_001, dtype=torch.float64)
    h = surrogate.derivative(z)
    np.testing.assert_allclose(h.numpy(), formula(z.numpy()), rtol=1e-12)
    assert surrogate.derivative(torch.zeros(1, dtype=torch.float64)).item() == pytest.approx(
        formula(np.zeros(1))[0]
    )
    assert surrogate.derivative(z.float()).dtype == torch.float32
    if step:
        wide = torch.sinh(torch.linspace(-20, 20, 400_001, dtype=torch.float64))
        area = torch.trapezoid(surrogate.derivative(wide), wide).item()
        assert area == pytest.approx(1, abs=1e-3)


def test_names_of_other_libraries() -> None:
    """Formulas of snnTorch, SpikingJelly and Norse, as their documentation gives them."""
    z = torch.linspace(-3, 3, 1001, dtype=torch.float64)
    for surrogate, expected in (
        (FastSigmoid(25.0), 1 / (25 * z.abs() + 1) ** 2),
        (SuperSpike(1.0, scale=3.0), 3 / (1 + z.abs()) ** 2),
        (Sigmoid(2 * 1.5, scale=4.0), 1 - torch.tanh(1.5 * z) ** 2),
        (Triangle(1.0, scale=0.8), 0.8 * torch.relu(1 - z.abs())),
        (Gaussian(1.2, scale=2 / math.sqrt(math.pi)), 2 / math.sqrt(math.pi) * torch.exp(-((1.2 * z) ** 2))),
    ):
        torch.testing.assert_close(surrogate.derivative(z), expected)


def _single_step(function: Any, z: Tensor, surrogate: Surrogate) -> Tensor:
    """``h(z)`` as a layer sees it: the gradient of the spikes of one step, whose membrane is z + 1."""
    x = (z + 1).requires_grad_()
    function(x, 0.0, 1.0, steps=1, surrogate=surrogate, return_state=False).sum().backward()
    return x.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("surrogate", [f[0] for f in FORMULAS], ids=repr)
def test_the_kernels_have_the_same(surrogate: Surrogate, dtype: torch.dtype) -> None:
    z = torch.cat(
        [torch.linspace(-6, 6, 100_001, dtype=dtype), torch.tensor([math.inf, -math.inf], dtype=dtype)]
    )
    fused, expected = (_single_step(f, z, surrogate) for f in (functional.lif, reference.lif))
    if surrogate in EXPONENTIAL:
        ulp = np.abs(fused.numpy() - expected.numpy()) / np.spacing(np.abs(expected.numpy()) + 1e-30)
        # Measured: at most 3 ulp, of an exponential within 1 on either side.
        assert np.nanmax(ulp[:-2]) <= 4
    else:
        assert torch.equal(fused, expected)
    nan = _single_step(functional.lif, torch.full((3,), math.nan, dtype=dtype), surrogate)
    assert torch.equal(
        nan.isnan(), _single_step(reference.lif, torch.full((3,), math.nan, dtype=dtype), surrogate).isnan()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("surrogate", EXPONENTIAL, ids=repr)
def test_exponential_shapes_through_time(surrogate: Surrogate, dtype: torch.dtype) -> None:
    """A few ulp a step stay a few ulp: the gradient through 100 steps, relative to its largest."""
    x = torch.randn(100, 257, generator=torch.Generator().manual_seed(0), dtype=dtype) * 0.5 + 0.2
    grads = []
    for function in (functional.lif, reference.lif):
        leaf = x.clone().requires_grad_()
        out = function(leaf, 0.9, surrogate=surrogate, detach_reset=True, return_state=False)
        (out * torch.linspace(-1, 1, 257, dtype=dtype)).sum().backward()
        grads.append(leaf.grad)
    error = (grads[0] - grads[1]).abs().max() / grads[1].abs().max()
    assert error < 64 * torch.finfo(dtype).eps


def test_a_table_is_as_exact_as_it_says() -> None:
    def bump(z: Tensor) -> Tensor:
        return torch.exp(-z * z) * torch.cos(z)

    coarse, fine = Custom(bump, reach=6.0, points=65), Custom(bump, reach=6.0, points=4097)
    z = torch.rand(100_000, dtype=torch.float64) * 48 - 24
    for surrogate in (coarse, fine):
        error = (surrogate.derivative(z) - bump(z)).abs().max().item()
        assert error <= 1.01 * surrogate.error_bound
    # Four times the points, a sixteenth of the error; 64 times, a 4096th.
    assert coarse.error_bound / fine.error_bound == pytest.approx(4096, rel=0.05)
    nodes = torch.linspace(-6, 6, 65, dtype=torch.float64)
    torch.testing.assert_close(coarse.derivative(nodes), bump(nodes), rtol=0, atol=1e-14)
    ends = coarse.derivative(torch.tensor([-9.0, 9.0], dtype=torch.float64))
    torch.testing.assert_close(ends, bump(nodes[[0, -1]]))


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_the_error_bound_covers_what_is_held_beyond_reach(side: float) -> None:
    """On either side: here h is 1 but for a bump at three times the reach, which the end value misses."""

    def bump(z: Tensor) -> Tensor:
        return 1 + 0.5 * torch.exp(-((z - 6 * side) ** 2))

    with pytest.warns(UserWarning) as caught:
        surrogate = Custom(bump, reach=2.0, scale=-3.0)
    assert surrogate.error_bound == pytest.approx(1.5, rel=1e-3)
    assert caught[0].filename == __file__
    message = str(caught[0].message)
    for part in (
        "Custom: bump has not faded at reach=2",
        "off by up to 0.5",
        "larger reach",
        "z.clamp(-2, 2)",
    ):
        assert part in message


def test_a_spike_in_place_of_its_derivative_is_warned_of() -> None:
    """As when another library's surrogate, which makes spikes, is given as it is."""
    with pytest.warns(UserWarning, match="Custom: spike is 0 below the threshold and 1 above it") as caught:
        Custom(lambda z: (z > 0).to(z.dtype), name="spike")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Custom(lambda z: z.clamp(0, 1), reach=1.0, points=2)


def test_a_table_of_what_has_not_faded_is_as_exact_as_it_says() -> None:
    with pytest.warns(UserWarning, match="has not faded at reach=1"):
        surrogate = Custom(lambda z: 1 / (1 + z * z), reach=1.0)
    z = torch.linspace(-4, 4, 10_001, dtype=torch.float64)
    error = (surrogate.derivative(z) - 1 / (1 + z * z)).abs().max().item()
    assert error == pytest.approx(0.5 - 1 / 17)
    assert error <= surrogate.error_bound * (1 + 1e-12)


SILENT: dict[str, Callable[[], Custom]] = {
    "faded": lambda: Custom(lambda z: torch.exp(-z * z), reach=4.0),
    "under 1 %": lambda: Custom(lambda z: 1 / (1 + z * z), reach=11.0),
    "constant": lambda: Custom(torch.ones_like),
    "constant beyond": lambda: Custom(lambda z: torch.cos(z.clamp(-2.0, 2.0))),
    "zero": lambda: Custom(torch.zeros_like),
    "not a number beyond": lambda: Custom(lambda z: torch.sqrt(4 - z * z), reach=2.0),
}


@pytest.mark.parametrize("make", SILENT.values(), ids=SILENT)
def test_nothing_is_said_of_what_is_held_rightly(make: Callable[[], Custom]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surrogate = make()
        pickle.loads(pickle.dumps(surrogate))
    assert surrogate.error_bound < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_table_in_the_kernels(dtype: torch.dtype) -> None:
    surrogate = Custom(lambda z: 1 / (1 + z.abs().clamp(max=2.5)) ** 3, reach=2.5, points=100, scale=0.6)
    z = torch.linspace(-4, 4, 9999, dtype=dtype)
    assert torch.equal(_single_step(functional.lif, z, surrogate), _single_step(reference.lif, z, surrogate))


def test_the_error_bound_is_that_of_the_scaled_derivative() -> None:
    plain, scaled = Custom(held_cosine, points=9), Custom(held_cosine, points=9, scale=-50.0)
    assert plain.error_bound > 1e-3
    assert scaled.error_bound == pytest.approx(50 * plain.error_bound)


def test_a_table_may_be_made_by_autograd() -> None:
    def derivative(z: Tensor) -> Tensor:
        z = z.clone().requires_grad_()
        return torch.autograd.grad(torch.sigmoid(4 * z).sum(), z)[0]

    with torch.no_grad():
        surrogate = Custom(derivative, reach=3.0)
    z = torch.linspace(-4.5, 4.5, 501, dtype=torch.float64)
    torch.testing.assert_close(
        surrogate.derivative(z), Sigmoid(4.0).derivative(z), rtol=0, atol=1.01 * surrogate.error_bound
    )


def test_a_table_first_read_in_a_trace_or_in_inference_is_an_ordinary_tensor() -> None:
    cpu = torch.device("cpu")
    traced, inferred = Custom(held_cosine, points=17), Custom(held_cosine, points=19)
    with FakeTensorMode():
        traced.values(torch.float32, cpu)
    assert type(traced.values(torch.float32, cpu)) is Tensor
    with torch.inference_mode():
        inferred.values(torch.float32, cpu)
    assert not inferred.values(torch.float32, cpu).is_inference()
    assert inferred.values(torch.float32, cpu) is inferred.values(torch.float32, cpu)


def test_a_table_does_not_depend_on_the_default_device() -> None:
    with torch.device("meta"):
        surrogate = Custom(held_cosine)
    assert surrogate == Custom(held_cosine)


def test_outside_a_rectangle_is_zero_without_a_sign() -> None:
    z = torch.tensor([-3.0, 0.0, 3.0, math.nan])
    h = Rectangle(scale=-2.0).derivative(z)
    assert h.tolist() == [0.0, -2.0, 0.0, 0.0]
    assert h.signbit().tolist() == [False, True, False, False]


@pytest.mark.parametrize("surrogate", [*(f[0] for f in FORMULAS), Custom(held_cosine)], ids=repr)
def test_they_are_values(surrogate: Surrogate) -> None:
    again = pickle.loads(pickle.dumps(surrogate))
    assert again == surrogate and hash(again) == hash(surrogate)
    assert type(surrogate).__name__ in repr(surrogate)
    z = torch.linspace(-1, 1, 7)
    assert torch.equal(again.derivative(z), surrogate.derivative(z))


@pytest.mark.parametrize("number", [np.float32(1.5), np.float64(1.5), np.float16(1.5), np.int64(2)], ids=repr)
@pytest.mark.parametrize("make", [type(f[0]) for f in FORMULAS], ids=lambda c: c.__name__)
def test_numpy_scalars_are_numbers(make: type[Surrogate], number: Any) -> None:
    names = [name for name in vars(make()) if name != "scale"]
    for given in ({name: number for name in (*names, "scale")}, {"scale": number}):
        surrogate = make(**given)
        plain = make(**{name: float(number) for name in given})
        assert surrogate == plain and hash(surrogate) == hash(plain)
        assert all(type(value) in (float, type(None)) for value in vars(surrogate).values())
        assert pickle.dumps(surrogate) == pickle.dumps(plain)


def test_numpy_scalars_are_numbers_of_a_table() -> None:
    given = Custom(held_cosine, reach=np.float32(2.0), points=np.int64(33), scale=np.float64(0.5))  # type: ignore[arg-type]
    plain = Custom(held_cosine, reach=2.0, points=33, scale=0.5)
    assert given == plain and pickle.dumps(given) == pickle.dumps(plain)


def test_a_lambda_can_be_pickled() -> None:
    surrogate = Custom(lambda z: 1 - z.abs().clamp(max=1), name="tent")
    assert "tent" in repr(pickle.loads(pickle.dumps(surrogate)))
    assert surrogate != Custom(lambda z: z * 0)


BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: ATan(0.0), ValueError, r"ATan: alpha must be a finite number above 0, got 0"),
    (lambda: Sigmoid("4"), TypeError, r"Sigmoid: alpha must be a number, got str"),  # type: ignore[arg-type]
    (lambda: Sigmoid(np.array(4.0)), TypeError, r"number, got ndarray of shape \(\); .*\.item\(\)"),  # type: ignore[arg-type]
    (lambda: Sigmoid(torch.tensor(4.0)), TypeError, r"got Tensor of shape \(\); .*\.item\(\)"),  # type: ignore[arg-type]
    (lambda: Custom(held_cosine, reach=np.ones(2)), TypeError, r"Custom: reach .* ndarray of shape \(2,\)"),  # type: ignore[arg-type]
    (lambda: Sigmoid(np.bool_(True)), TypeError, r"Sigmoid: alpha must be a number, got bool"),  # type: ignore[arg-type]
    (lambda: Sigmoid(True), TypeError, r"Sigmoid: alpha must be a number, got bool; give an int or a float"),
    (lambda: Sigmoid(10**400), ValueError, r"Sigmoid: alpha must be a finite number above 0, got inf"),
    (lambda: Sigmoid(np.float32("nan")), ValueError, r"alpha must be a finite number above 0, got nan"),  # type: ignore[arg-type]
    (lambda: Triangle(scale=math.inf), ValueError, r"Triangle: scale must be a finite number, got inf"),
    (lambda: StraightThrough(scale=math.nan), ValueError, r"StraightThrough: scale must be"),
    (lambda: ATan(1.5e308), ValueError, r"ATan: slope must be a finite number, got inf"),
    (lambda: Custom(torch.cos, reach=1e-320), ValueError, r"Custom: slope must be a finite number, got inf"),
    (lambda: Custom(torch.cos, scale=math.inf), ValueError, r"Custom: scale must be a finite number"),
    (lambda: Custom(torch.cos, name=3), TypeError, r"Custom: name must be a str or None, got int"),  # type: ignore[arg-type]
    (lambda: Custom(3), TypeError, r"Custom: function must be callable, got int"),  # type: ignore[arg-type]
    (lambda: Custom(torch.cos, points=1), ValueError, r"Custom: points must be in \[2, 65536\], got 1"),
    (lambda: Custom(lambda z: z * 1j), ValueError, r"finite real values .*complex.*\.real"),
    (lambda: Custom(torch.cos, points=2.0), TypeError, r"Custom: points must be an int"),  # type: ignore[arg-type]
    (lambda: Custom(torch.cos, reach=0), ValueError, r"Custom: reach must be a finite number above 0"),
    (lambda: Custom(lambda z: z.sum()), ValueError, r"Custom: function must work elementwise"),
    (lambda: Custom(lambda z: 1.0), TypeError, r"Custom: function must return a tensor, got float"),  # type: ignore[arg-type, return-value]
    (lambda: Custom(torch.log), ValueError, r"Custom: function must return finite real values"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD, ids=[b[2][:30] for b in BAD])
def test_errors(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_plot() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = ATan().plot()
    assert ATan().plot(axes) is axes
    assert len(axes.lines) == 2
    peak = axes.lines[0].get_ydata().max()
    assert peak == pytest.approx(1.0)
