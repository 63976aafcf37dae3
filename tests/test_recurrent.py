"""Recurrent layers: against the NumPy twin, which adds in the promised order, and the eager reference.

The twin has the same bits. The reference multiplies a matrix, in an order of its own: there each step is
computed from the layer's own spikes of the step before, and a spike that differs has to be a membrane that
lies at its threshold to within the rounding of the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy_recurrent as twin
import pytest
import torch
from torch import Tensor

import lif_cuda
from lif_cuda import RecurrentState, functional, reference, surrogate

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
STATE = {torch.float64: torch.float64}
# Of neurons beyond a vector, a word of spikes, a block of columns; of samples beyond a block of them.
SIZES = [(1, 1, 1), (5, 3, 7), (9, 4, 16), (7, 2, 33), (6, 5, 64), (4, 19, 65), (3, 2, 300), (2, 33, 130)]


def draw(steps: int, batch: int, neurons: int, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """The tensors of a call in which some tenth of the neurons fire at a step."""
    generator = torch.Generator().manual_seed(seed * 1000 + steps * 100 + neurons)
    state = STATE.get(dtype, torch.float32)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return {
        "x": (normal(steps, batch, neurons) * 0.7 + 0.1).to(dtype),
        "weight": (normal(neurons, neurons) * (1.5 / neurons**0.5)).to(state),
        "bias": (normal(neurons) * 0.1).to(state),
        "beta": (0.5 + 0.5 * uniform(neurons)).to(state),
        "threshold": (0.7 + 0.6 * uniform(neurons)).to(state),
        "membrane": (normal(batch, neurons) * 0.5).to(state),
        "fired": (uniform(batch, neurons) < 0.3).to(state),
    }


def call(
    run: Any, tensors: dict[str, Tensor], output: Any = ("spikes", "trace"), **options: Any
) -> tuple[Any, RecurrentState]:
    state = RecurrentState(tensors["membrane"], tensors["fired"]) if "membrane" in tensors else None
    out: tuple[Any, RecurrentState] = run(
        tensors["x"],
        tensors["weight"],
        tensors.get("beta", 0.9),
        tensors.get("threshold", 1.0),
        state,
        bias=tensors.get("bias"),
        output=output,
        **options,
    )
    return out


def numpy_layer(tensors: dict[str, Tensor], **options: Any) -> twin.Layer:
    arrays = {name: tensors[name].numpy() for name in ("weight", "bias", "beta", "threshold")}
    return twin.Layer(**arrays, **options)


def wide(x: Tensor) -> Any:
    return x.to(STATE.get(x.dtype, torch.float32)).numpy()


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"detach_reset": True, "strict": True},
    {"reset": "zero", "v_reset": -0.25},
    {"reset": "zero", "detach_reset": True, "gain": 0.75},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_forward_has_the_bits_of_the_twin(
    size: tuple[int, int, int], dtype: torch.dtype, options: dict[str, Any]
) -> None:
    tensors = draw(*size, dtype)
    out, state = call(functional.recurrent_lif, tensors, ("spikes", "trace", "count", "rate"), **options)
    found = twin.forward(
        numpy_layer(tensors, **options),
        wide(tensors["x"]),
        tensors["membrane"].numpy(),
        tensors["fired"].numpy(),
    )
    assert out.spikes.dtype == out.trace.dtype == dtype
    assert state.membrane.dtype == state.spikes.dtype == STATE.get(dtype, torch.float32)
    for mine, theirs in (
        (out.spikes, torch.from_numpy(found.spikes).to(dtype)),
        (out.trace, torch.from_numpy(found.trace).to(dtype)),
        (out.count, torch.from_numpy(found.spikes.sum(0, dtype=found.spikes.dtype))),
        (state.membrane, torch.from_numpy(found.membrane)),
        (state.spikes, torch.from_numpy(found.fired)),
    ):
        assert torch.equal(mine, theirs)
    assert torch.equal(out.rate, out.count / out.spikes.shape[0])
    assert size[0] * size[2] < 30 or 0.02 < out.spikes.float().mean() < 0.6


def leaves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}


def gradients_by(run: Any, tensors: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """The gradients of all tensors of a call, for drawn gradients of all that comes out of it."""
    inputs = leaves(tensors)
    out, state = call(run, inputs, **options)
    outputs = (*out, *state)
    generator = torch.Generator().manual_seed(7)
    incoming = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t) for t in outputs]
    found = torch.autograd.grad(outputs, [*inputs.values()], incoming, materialize_grads=True)
    return dict(zip(inputs, found, strict=True)) | {
        f"grad_{name}": grad
        for name, grad in zip(("spikes", "trace", "membrane", "fired"), incoming, strict=True)
    }


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gradients_have_the_bits_of_the_twin(
    size: tuple[int, int, int], dtype: torch.dtype, options: dict[str, Any]
) -> None:
    """Those of x and of the state; those of the parameters, summed otherwise, within a rounding or so."""
    tensors = draw(*size, dtype)
    mine = gradients_by(functional.recurrent_lif, tensors, surrogate=surrogate.Triangle(0.5), **options)
    height = np.float64(0.5) if dtype == torch.float64 else np.float32(0.5)
    layer = numpy_layer(tensors, **options)
    layer.surrogate = lambda z: height * np.maximum(0, 1 - height * np.abs(z)).astype(z.dtype)
    start = tensors["membrane"].numpy(), tensors["fired"].numpy()
    found = twin.forward(layer, wide(tensors["x"]), *start)
    theirs = twin.backward(
        layer, found, *start, *(wide(mine[f"grad_{n}"]) for n in ("spikes", "trace", "membrane", "fired"))
    )
    assert torch.equal(mine["x"], torch.from_numpy(theirs.x).to(dtype))
    assert torch.equal(mine["membrane"], torch.from_numpy(theirs.membrane))
    assert torch.equal(mine["fired"], torch.from_numpy(theirs.fired))
    eps = torch.finfo(STATE.get(dtype, torch.float32)).eps
    for name in ("weight", "bias", "beta", "threshold"):
        expected = torch.from_numpy(getattr(theirs, name))
        scale = float(expected.abs().max()) + 1
        torch.testing.assert_close(mine[name].double(), expected, rtol=0, atol=50 * eps * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_each_step_is_the_reference_from_its_own_spikes(reset: str, dtype: torch.dtype) -> None:
    """Every spike that the reference has otherwise is a membrane at its threshold, to within the rounding."""
    tensors = draw(40, 8, 96, dtype)
    out, _ = call(functional.recurrent_lif, tensors, reset=reset)
    state_dtype = STATE.get(dtype, torch.float32)
    eps = torch.finfo(state_dtype).eps
    v, s = tensors["membrane"], tensors["fired"]
    wide_out, _ = call(functional.recurrent_lif, tensors | {"x": tensors["x"].to(state_dtype)}, reset=reset)
    differing = 0
    for t in range(40):
        step = tensors | {"x": tensors["x"][t : t + 1], "membrane": v, "fired": s}
        eager, _ = call(reference.recurrent_lif, step, reset=reset)
        product = s.double() @ tensors["weight"].double().T
        u = tensors["beta"].double() * v.double() + (
            tensors["x"][t].double() + product + tensors["bias"].double()
        )
        terms = (
            s.double().abs() @ tensors["weight"].double().abs().T + u.abs() + tensors["x"][t].double().abs()
        )
        at_threshold = (u - tensors["threshold"].double()).abs() <= 100 * eps * terms
        differs = eager.spikes[0] != out.spikes[t]
        assert bool((at_threshold | ~differs).all())
        differing += int(differs.sum())
        v, s = wide_out.trace[t], wide_out.spikes[t]
    assert differing < 10


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    "shape",
    [
        surrogate.FastSigmoid(10.0),
        surrogate.SuperSpike(2.0),
        surrogate.SoftSign(2.0),
        surrogate.ATan(2.0),
        surrogate.Sigmoid(4.0),
        surrogate.Triangle(1.0),
        surrogate.PiecewiseExp(2.0),
        surrogate.Gaussian(1.0),
        surrogate.Rectangle(1.0),
        surrogate.StraightThrough(),
        surrogate.Custom(lambda z: torch.exp(-z * z), reach=4.0, points=4097),
    ],
    ids=lambda s: type(s).__name__,
)
def test_gradients_of_the_reference(shape: surrogate.Surrogate, options: dict[str, Any]) -> None:
    """In float64, where no membrane of these lies at its threshold to within the rounding."""
    tensors = draw(12, 4, 40, torch.float64)
    fused = gradients_by(functional.recurrent_lif, tensors, surrogate=shape, **options)
    eager = gradients_by(reference.recurrent_lif, tensors, surrogate=shape, **options)
    for name in tensors:
        scale = float(eager[name].abs().max()) + 1e-3
        torch.testing.assert_close(fused[name], eager[name], rtol=0, atol=1e-11 * scale, msg=name)


@pytest.mark.parametrize("output", ["spikes", "count", "rate", "trace", ("count", "rate", "spikes")], ids=str)
def test_outputs_and_their_gradients(output: Any) -> None:
    tensors = draw(6, 3, 24, torch.float64)
    found = []
    for run in (functional.recurrent_lif, reference.recurrent_lif):
        inputs = leaves(tensors)
        out, _ = call(run, inputs, output)
        outputs = out if isinstance(out, tuple) else (out,)
        loss = sum(
            [(o * torch.linspace(-1, 1, o.numel(), dtype=o.dtype).view(o.shape)).sum() for o in outputs]
        )
        found.append((outputs, torch.autograd.grad(loss, [*inputs.values()])))
    (mine, my_grads), (theirs, their_grads) = found
    for a, b in zip((*mine, *my_grads), (*theirs, *their_grads), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_parameters_that_are_numbers_or_one_value() -> None:
    tensors = draw(5, 3, 20, torch.float64)
    for beta in (0.8, torch.tensor(0.8), torch.tensor([0.8]), torch.full((20,), 0.8)):
        value = beta.double() if isinstance(beta, Tensor) else beta
        found = []
        for run in (functional.recurrent_lif, reference.recurrent_lif):
            inputs: dict[str, Any] = leaves(tensors) | {"beta": value, "threshold": 1.1}
            if isinstance(value, Tensor):
                inputs["beta"] = value.clone().requires_grad_()
            out, _ = call(run, inputs, "spikes")
            wanted = [t for t in inputs.values() if isinstance(t, Tensor)]
            found.append((out, *torch.autograd.grad(out.sin().sum(), wanted)))
        for a, b in zip(*found, strict=True):
            assert a.shape == b.shape
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_no_bias_and_no_state() -> None:
    tensors = draw(5, 3, 20, torch.float64)
    few = {name: tensors[name] for name in ("x", "weight")}
    (mine, mine_state), (theirs, their_state) = (
        call(run, few, "spikes") for run in (functional.recurrent_lif, reference.recurrent_lif)
    )
    assert torch.equal(mine, theirs) and mine.any()
    torch.testing.assert_close(tuple(mine_state), tuple(their_state))


def test_any_number_of_threads_has_the_same_bits() -> None:
    tensors = draw(30, 21, 150, torch.float32)
    found = []
    for number in (1, 2, 3):
        with threads(number):
            found.append(
                gradients_by(functional.recurrent_lif, tensors)
                | {"out": call(functional.recurrent_lif, tensors)[0].spikes}
            )
    for other in found[1:]:
        for name, tensor in found[0].items():
            assert torch.equal(tensor, other[name]), name


def test_a_sample_does_not_depend_on_the_others() -> None:
    tensors = draw(20, 18, 70, torch.float32)
    whole, _ = call(functional.recurrent_lif, tensors)
    one = {
        name: tensor[:, 17:] if name == "x" else tensor[17:] if name in ("membrane", "fired") else tensor
        for name, tensor in tensors.items()
    }
    alone, _ = call(functional.recurrent_lif, one)
    assert torch.equal(alone.trace, whole.trace[:, 17:])


def test_streaming_is_one_call() -> None:
    tensors = draw(21, 3, 40, torch.float32)
    inputs = leaves(tensors)
    whole, last = call(functional.recurrent_lif, inputs)
    whole_grads = torch.autograd.grad(whole.trace.sum() + last.spikes.sum(), [*inputs.values()])
    state, pieces = RecurrentState(inputs["membrane"], inputs["fired"]), []
    for piece in inputs["x"].split(8):
        out, state = call(
            functional.recurrent_lif, inputs | {"x": piece, "membrane": state[0], "fired": state[1]}
        )
        pieces.append(out.trace)
    assert torch.equal(torch.cat(pieces), whole.trace)
    assert torch.equal(state.membrane, last.membrane) and torch.equal(state.spikes, last.spikes)
    grads = torch.autograd.grad(torch.cat(pieces).sum() + state.spikes.sum(), [*inputs.values()])
    for a, b in zip(grads, whole_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert torch.equal(grads[0], whole_grads[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "lie", ["time last", "batch first", "slice", "expanded", "every second sample", "strided neurons"]
)
def test_x_as_it_lies(lie: str, dtype: torch.dtype) -> None:
    x = draw(6, 4, 24, dtype)["x"]
    options: dict[str, Any] = {}
    if lie == "time last":
        x, options = x.permute(1, 2, 0), {"time_dim": 2}
    elif lie == "batch first":
        x, options = x.transpose(0, 1), {"time_dim": 1}
    elif lie == "slice":
        x = torch.cat([x, x], 2)[..., 3:27]
    elif lie == "expanded":
        x = x[:1].expand(6, 4, 24)
    elif lie == "every second sample":
        x = x[:, ::2]
    elif lie == "strided neurons":
        x = torch.stack([x, x], 3)[..., 0]
    weight = draw(6, 4, 24, dtype)["weight"]
    found = [
        functional.recurrent_lif(given, weight, 0.9, output=("spikes", "trace"), **options)
        for given in (x, x.contiguous())
    ]
    assert found[0][0].spikes.shape == x.shape
    for a, b in zip((*found[0][0], *found[0][1]), (*found[1][0], *found[1][1]), strict=True):
        assert torch.equal(a, b)
    leaf = x.clone().requires_grad_()
    out, _ = functional.recurrent_lif(leaf, weight, 0.9, **options)
    out.sum().backward()
    assert leaf.grad is not None and leaf.grad.shape == x.shape


@pytest.mark.parametrize(
    "shape", [(0, 3, 5), (4, 0, 5), (0, 0, 5), (4, 5), (3, 2, 2, 5), (4, 0, 2, 5)], ids=str
)
def test_shapes(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64).requires_grad_()
    weight = torch.randn(5, 5, dtype=torch.float64).requires_grad_()
    state = RecurrentState(
        torch.randn(shape[1:], dtype=torch.float64), torch.ones(shape[1:], dtype=torch.float64)
    )
    found = []
    for run in (functional.recurrent_lif, reference.recurrent_lif):
        out, after = run(x, weight, 0.9, 1.0, state, output=("spikes", "rate"))
        assert out.spikes.shape == x.shape and after.membrane.shape == shape[1:]
        grads = torch.autograd.grad(
            out.spikes.sum() + out.rate.sum() + after.membrane.sum(), (x, weight), allow_unused=True
        )
        found.append((*out, *after, *[torch.zeros(()) if g is None else g for g in grads]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b.numel() == 1 and not b.any() else b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits(dtype: torch.dtype) -> None:
    """A weight of x's own type is that weight widened; its gradient is rounded to its type."""
    tensors = draw(8, 3, 40, dtype)
    narrow = tensors | {"weight": tensors["weight"].to(dtype), "bias": tensors["bias"].to(dtype)}
    same = narrow | {name: narrow[name].float() for name in ("weight", "bias")}
    mine, wide_ones = (gradients_by(functional.recurrent_lif, t) for t in (narrow, same))
    for name in tensors:
        assert mine[name].dtype == narrow[name].dtype
        assert torch.equal(mine[name], wide_ones[name].to(mine[name].dtype)), name


def test_gradcheck() -> None:
    """Of all that is smooth: with a StraightThrough the derivative of what is left is exact."""
    tensors = draw(4, 2, 6, torch.float64)
    inputs = [t.requires_grad_() for t in (tensors["x"], tensors["membrane"], tensors["beta"])]

    def trace(x: Tensor, membrane: Tensor, beta: Tensor) -> Tensor:
        state = RecurrentState(membrane, tensors["fired"])
        out, _ = functional.recurrent_lif(
            x,
            tensors["weight"],
            beta,
            tensors["threshold"],
            state,
            bias=tensors["bias"],
            output="trace",
            detach_reset=True,
            surrogate=surrogate.Rectangle(1e9, scale=0.0),
        )
        return out

    assert torch.autograd.gradcheck(trace, inputs)


@pytest.mark.parametrize("strict", [False, True])
def test_membranes_at_the_threshold(strict: bool) -> None:
    """Numbers of few digits, of which many meet the threshold exactly: strict neurons stay silent there."""
    tensors = {name: (4 * t).round() / 4 for name, t in draw(12, 3, 40, torch.float32).items()}
    tensors |= {"beta": torch.ones(40), "threshold": torch.full((40,), 0.5)}
    found = twin.forward(
        numpy_layer(tensors, strict=strict),
        tensors["x"].numpy(),
        tensors["membrane"].numpy(),
        tensors["fired"].numpy(),
    )
    assert (found.u == 0.5).sum() > 10
    out, _ = call(functional.recurrent_lif, tensors, strict=strict)
    assert torch.equal(out.spikes, torch.from_numpy(found.spikes))


def test_infinite_and_nan_inputs_stay_with_their_neuron() -> None:
    tensors = draw(4, 2, 20, torch.float32)
    tensors["x"][1, 0, 3] = float("nan")
    tensors["x"][1, 1, 5] = float("inf")
    found = twin.forward(
        numpy_layer(tensors), tensors["x"].numpy(), tensors["membrane"].numpy(), tensors["fired"].numpy()
    )
    out, _ = call(functional.recurrent_lif, tensors)
    assert torch.equal(out.spikes, torch.from_numpy(found.spikes))
    torch.testing.assert_close(out.trace, torch.from_numpy(found.trace), rtol=0, atol=0, equal_nan=True)


def test_second_derivative_is_refused() -> None:
    """In the pass itself where x has a gradient, which is not kept; else where it is asked for."""
    tensors = leaves(draw(3, 2, 5, torch.float32))
    out, _ = call(functional.recurrent_lif, tensors, "spikes")
    with pytest.raises(NotImplementedError, match="second derivative"):
        torch.autograd.grad(out.sum(), tensors["x"], create_graph=True)
    tensors["x"] = tensors["x"].detach()
    out, _ = call(functional.recurrent_lif, tensors, "spikes")
    (grad,) = torch.autograd.grad(out.sum(), tensors["weight"], create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        grad.sum().backward()


def test_operator_refuses_what_it_cannot_differentiate() -> None:
    x, weight = torch.randn(2, 3, 4, requires_grad=True), torch.randn(4, 4)
    with pytest.raises(RuntimeError, match="requires grad"):
        torch.ops.lif_cuda.recurrent_forward(
            x, weight, [], [0, 1, 0, 0, 0, 0], [0.9, 1.0, 0.0, 1.0, 10.0, 1.0]
        )


def test_nothing_is_kept_without_gradients() -> None:
    tensors = draw(3, 2, 5, torch.float32)
    with torch.inference_mode():
        out, state = call(functional.recurrent_lif, tensors)
    assert out.spikes.is_inference() and state.membrane.is_inference()


# The layer.


def layers(**options: Any) -> tuple[lif_cuda.RecurrentLIF, lif_cuda.ReferenceRecurrentLIF]:
    torch.manual_seed(0)
    fused = lif_cuda.RecurrentLIF(24, dtype=torch.float64, **options)
    eager = lif_cuda.ReferenceRecurrentLIF(24, dtype=torch.float64, **options)
    eager.load_state_dict(fused.state_dict())
    return fused, eager


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("learn", [True, False])
def test_layers_agree(learn: bool, bias: bool) -> None:
    pair = layers(learn_beta=learn, learn_threshold=learn, bias=bias)
    x = draw(10, 5, 24, torch.float64)["x"]
    found = []
    for layer in pair:
        out, state = layer(x)
        (out.cumsum(0).sin().sum() + state.membrane.sum()).backward()
        found.append({name: p.grad for name, p in layer.named_parameters()} | {"out": out})
    assert [*found[0]] == [*found[1]]
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=1e-9, atol=1e-10)
    keys = {"recurrent.weight", "_extra_state"} | ({"recurrent.bias"} if bias else set())
    keys |= {"beta_logit", "threshold_values"} if learn else set()
    assert set(pair[0].state_dict()) == keys


def test_step_in_a_loop_is_the_call() -> None:
    layer, _ = layers()
    x = draw(7, 3, 24, torch.float64)["x"]
    whole, last = layer(x)
    state, spikes = None, []
    for current in x:
        spike, state = layer.step(current, state)
        spikes.append(spike)
    assert torch.equal(torch.stack(spikes), whole)
    assert state is not None and torch.equal(state.membrane, last.membrane)


@pytest.mark.parametrize("detach", [True, False])
def test_stateful(detach: bool) -> None:
    layer, _ = layers()
    keeps, _ = layers(stateful=True, detach_state=detach, save_state=True)
    x = draw(8, 3, 24, torch.float64)["x"].requires_grad_()
    whole, last = layer(x)
    first, _ = keeps(x[:5])
    second, _ = keeps(x[5:])
    assert torch.equal(torch.cat([first, second]), whole)
    assert isinstance(keeps.state, RecurrentState) and torch.equal(keeps.state.spikes, last.spikes)
    (grad,) = torch.autograd.grad(second.sum(), x)
    assert bool(grad[:5].any()) != detach
    other, _ = layers(stateful=True, save_state=True)
    other.load_state_dict(keeps.state_dict())
    assert torch.equal(other(x)[0], keeps(x)[0])
    keeps.reset_state(RecurrentState(last.membrane.detach(), last.spikes.detach()))
    assert torch.equal(keeps(x)[0], layer(x, last)[0])
    lif_cuda.reset_states(keeps)
    assert keeps.state is None
    with pytest.raises(ValueError, match="stateful"):
        keeps(x, last)
    with pytest.raises(TypeError, match="RecurrentState"):
        keeps.reset_state(last.membrane)
    with pytest.raises(TypeError, match="state must be a tensor"):
        lif_cuda.LIF(stateful=True).reset_state(last)


def test_options_can_be_set_on_the_layer() -> None:
    layer, _ = layers()
    layer.output = "count"
    layer.reset = "zero"
    layer.beta = 0.5
    assert layer(draw(3, 2, 24, torch.float64)["x"])[0].shape == (2, 24)
    for name, value in (("reset", "none"), ("refractory", 2), ("output", "total"), ("save", "bits")):
        with pytest.raises(ValueError, match=name):
            setattr(layer, name, value)
    assert "reset='zero'" in repr(layer) and "Linear" in repr(layer)


ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"weight": torch.randn(4, 5)}, ValueError, "weight must be"),
    ({"weight": torch.randn(5, 5, dtype=torch.float64)}, TypeError, "weight must have the dtype"),
    ({"weight": None}, TypeError, "weight must be a torch.Tensor"),
    ({"bias": torch.randn(4)}, ValueError, "bias must have one value"),
    ({"x": torch.randn(3)}, ValueError, "axis of neurons"),
    ({"x": torch.ones(3, 2, 5, dtype=torch.int64)}, TypeError, "x must have dtype"),
    ({"beta": torch.rand(2, 5)}, ValueError, "beta must be one value"),
    ({"beta": 1.5}, ValueError, "beta must be"),
    ({"threshold": torch.rand(2, 1)}, ValueError, "threshold must be one value"),
    ({"state": torch.zeros(2, 5)}, TypeError, "state must be a lif_cuda.RecurrentState"),
    ({"state": RecurrentState(torch.zeros(2, 5), torch.zeros(2, 4))}, ValueError, "state.spikes must have"),
    ({"state": RecurrentState(torch.zeros(2, 5), torch.full((2, 5), 0.5))}, ValueError, "must be 0 or 1"),
    ({"reset": "none"}, ValueError, "reset must be"),
    ({"output": "first_spike"}, ValueError, "output of recurrent"),
    ({"output": ("spikes", "total")}, ValueError, "output of recurrent"),
    ({"steps": 3}, ValueError, "steps is no option"),
    ({"channel_dim": 1}, ValueError, "channel_dim is no option"),
    ({"delay_reset": True, "detach_reset": True}, ValueError, "delay_reset is no option"),
    ({"decay_input": True}, ValueError, "decay_input is no option"),
    ({"rest": 0.1}, ValueError, "rest is no option"),
    ({"refractory": 1}, ValueError, "refractory is no option"),
    ({"save": "bits", "surrogate": surrogate.Rectangle(1.0)}, ValueError, "save is no option"),
    ({"alpha": 0.5}, ValueError, "alpha is no parameter"),
    ({"kappa": 0.5, "rho": 0.5}, ValueError, "kappa is no parameter"),
    ({"v_min": 0.0}, ValueError, "v_min is no parameter"),
    ({"output": "packed"}, ValueError, "output of recurrent"),
    ({"lengths": torch.tensor([3, 2])}, TypeError, "unexpected keyword argument 'lengths'"),
    ({"gain": torch.ones(5)}, TypeError, "gain must be a number"),
    ({"v_reset": torch.ones(5), "reset": "zero"}, TypeError, "v_reset must be a number"),
    ({"bets": 0.5}, TypeError, "recurrent_lif.. got an unexpected keyword argument 'bets'"),
]


@pytest.mark.parametrize(
    "run", [functional.recurrent_lif, reference.recurrent_lif], ids=["fused", "reference"]
)
@pytest.mark.parametrize(
    ("wrong", "error", "message"), ERRORS, ids=[str(e[2]) + str(i) for i, e in enumerate(ERRORS)]
)
def test_errors(wrong: dict[str, Any], error: type[Exception], message: str, run: Any) -> None:
    arguments: dict[str, Any] = {"x": torch.randn(3, 2, 5), "weight": torch.randn(5, 5), "beta": 0.9}
    with pytest.raises(error, match=message):
        run(**arguments | wrong)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_neurons": (3, 4)}, TypeError, "num_neurons must be an int"),
        ({"num_neurons": 0}, ValueError, "num_neurons must be at least 1"),
        ({"bias": 1}, TypeError, "bias must be True or False"),
        ({"reset": "none"}, ValueError, "reset must be"),
        ({"learn_gain": True}, TypeError, "gain must be a number"),
        ({"gain": torch.ones(4)}, TypeError, "gain must be a number"),
        ({"alpha": 0.5}, ValueError, "alpha is no parameter"),
        ({"refractory": 2}, ValueError, "refractory is no option"),
        ({"neurons": 2}, TypeError, "unexpected keyword argument 'neurons'"),
    ],
    ids=str,
)
def test_errors_of_the_constructor(options: dict[str, Any], error: type[Exception], message: str) -> None:
    for layer in (lif_cuda.RecurrentLIF, lif_cuda.ReferenceRecurrentLIF):
        with pytest.raises(error, match=message):
            layer(**{"num_neurons": 4} | options)


def test_as_many_neurons_as_x_has() -> None:
    for layer in (lif_cuda.RecurrentLIF(4), lif_cuda.ReferenceRecurrentLIF(4)):
        with pytest.raises(
            ValueError, match=r"4, got \(3, 5\).*a recurrent layer has as many as the last axis"
        ):
            layer(torch.zeros(2, 3, 5))


def test_no_cuda_kernels_is_said() -> None:
    with pytest.raises(NotImplementedError, match="x must be on a CPU or a CUDA device"):
        functional.recurrent_lif(torch.empty(2, 3, 4, device="meta"), torch.empty(4, 4, device="meta"), 0.9)


@pytest.mark.parametrize("seed", range(40))
def test_drawn_calls(seed: int) -> None:
    """Any size, dtype and option: the bits of the twin, and gradients near those of the reference."""
    generator = np.random.default_rng(seed)
    steps, batch, neurons = (int(generator.integers(1, most)) for most in (12, 20, 200))
    dtype = DTYPES[seed % 4]
    options = dict(OPTIONS[int(generator.integers(len(OPTIONS)))])
    tensors = draw(steps, batch, neurons, dtype, seed)
    out, _ = call(functional.recurrent_lif, tensors, **options)
    found = twin.forward(
        numpy_layer(tensors, **options),
        wide(tensors["x"]),
        tensors["membrane"].numpy(),
        tensors["fired"].numpy(),
    )
    assert torch.equal(out.spikes, torch.from_numpy(found.spikes).to(dtype))
    assert torch.equal(out.trace, torch.from_numpy(found.trace).to(dtype))
