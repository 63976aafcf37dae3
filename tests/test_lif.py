"""The fused neuron against the eager reference and against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from compare import (
    Inputs,
    Outcome,
    assert_identical,
    assert_same_numbers,
    assert_within,
    draw,
    raw_arguments,
    run,
)
from numpy_lif import Neuron, Result
from numpy_lif import run as numpy_lif
from torch import Tensor

from lif_cuda import _ops, functional, reference
from lif_cuda.surrogate import ATan, FastSigmoid, Surrogate, Triangle

DTYPES = [torch.float32, torch.float64]


def both(inputs: Inputs, **options: object) -> tuple[Outcome, Outcome]:
    return run(functional.lif, inputs, **options), run(reference.lif, inputs, **options)


@pytest.fixture(params=[1, 2], ids=["1thread", "2threads"])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 7, 8, 4099])
@pytest.mark.parametrize("steps", [0, 1, 2, 25, 48, 49, 1000])
def test_identical_to_the_reference(steps: int, size: int, dtype: torch.dtype, threads: int) -> None:
    # T = 48 is the longest series without checkpoints on the CPU, 49 the shortest with one.
    fused, expected = both(draw(steps, (size,), dtype, seed=steps + size))
    assert_same_numbers(fused, expected)
    if steps >= 25 and size >= 7:
        rate = fused.out.mean().item()
        assert 0.02 < rate < 0.5, f"a test at a firing rate of {rate} shows little"


@pytest.mark.parametrize("steps", [1, 2, 25])
def test_identical_over_a_million_neurons(steps: int, threads: int) -> None:
    fused, expected = both(draw(steps, (1_000_003,), torch.float32, seed=steps))
    assert_same_numbers(fused, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("detach", [False, True], ids=["", "detached"])
@pytest.mark.parametrize("output", ["spikes", "count"])
@pytest.mark.parametrize("constant", [False, True], ids=["series", "constant"])
@pytest.mark.parametrize("features", [(5,), (3, 5), (2, 3, 129)])
@pytest.mark.parametrize("steps", [0, 1, 25, 100])
def test_options_identical_to_the_reference(
    steps: int,
    features: tuple[int, ...],
    constant: bool,
    output: str,
    detach: bool,
    dtype: torch.dtype,
) -> None:
    inputs = draw(steps, features, dtype, constant=constant, count=output == "count")
    fused, expected = both(
        inputs,
        steps=steps if constant else None,
        output=output,
        detach_reset=detach,
        surrogate=FastSigmoid(25.0, scale=0.7),
    )
    assert_same_numbers(fused, expected)


@pytest.mark.parametrize("threshold", [1.0, ()], ids=["", "threshold-learns"])
@pytest.mark.parametrize("beta", [0.9, (70,)], ids=["", "beta-learns"])
@pytest.mark.parametrize("gain", [1.0, 0.75])
@pytest.mark.parametrize("output", ["spikes", "count"])
@pytest.mark.parametrize("constant", [False, True], ids=["series", "constant"])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize(
    "surrogate",
    [FastSigmoid(10.0), FastSigmoid(25.0, scale=0.7), ATan(2.0), ATan(3.0), Triangle(1.0)],
    ids=str,
)
def test_each_way_back(
    surrogate: Surrogate,
    reset: str,
    constant: bool,
    output: str,
    gain: float,
    beta: float | tuple[int, ...],
    threshold: float | tuple[int, ...],
) -> None:
    """The CPU kernels have a loop for each of these; also for the rest of a tile, a block and a chunk."""
    for steps in (9, 53):
        inputs = draw(steps, (70,), torch.float32, constant=constant, count=output == "count", beta=beta)
        if threshold == ():
            inputs = inputs._replace(threshold=torch.tensor(0.9))
        fused, expected = both(
            inputs,
            steps=steps if constant else None,
            output=output,
            reset=reset,
            gain=gain,
            surrogate=surrogate,
        )
        assert_same_numbers(fused, expected)
        # Sums of some hundred terms in two orders; that they are there at all is what is asked here.
        for sums in ("grad_beta", "grad_threshold"):
            torch.testing.assert_close(getattr(fused, sums), getattr(expected, sums), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("counted", [False, True], ids=["", "counted"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (-1, 1), (-1, 70)], ids=["sum", "mean", "times", "rows"])
@pytest.mark.parametrize("steps", [1, 2, 9, 53])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16, torch.bfloat16], ids=str)
def test_gradients_that_repeat(dtype: torch.dtype, steps: int, shape: tuple[int, int], counted: bool) -> None:
    """Over time, over the neurons or both, beside one of the counts: read as they lie, like written out."""
    inputs = draw(steps, (70,), torch.float64)
    sizes = [steps if size < 0 else size for size in shape]
    x, grad = inputs.x.to(dtype), inputs.grad_out[: sizes[0], : sizes[1]].to(dtype)
    state_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    found = []
    for lif, repeated in [(functional.lif, True), (functional.lif, False), (reference.lif, False)]:
        leaf = x.clone().requires_grad_()
        outputs, _ = lif(leaf, 0.9, output=("spikes", "count"))
        of_spikes = grad.expand(steps, 70)
        gradients = [of_spikes if repeated else of_spikes.contiguous()]
        if counted:
            gradients.append(inputs.grad_membrane.to(state_dtype))
        torch.autograd.backward(outputs[: len(gradients)], gradients)
        found.append(leaf.grad)
    assert_identical(found[0], found[1], "repeated against written out")
    assert_identical(found[0], found[2], "against the reference")


PARAMETER_SHAPES = [(), (1,), (7,), (3, 7), (3, 1), (1, 7), (1, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", PARAMETER_SHAPES, ids=str)
@pytest.mark.parametrize("beta", PARAMETER_SHAPES, ids=str)
@pytest.mark.parametrize("steps", [3, 60])
def test_parameters_of_every_shape(
    steps: int, beta: tuple[int, ...], threshold: tuple[int, ...], dtype: torch.dtype
) -> None:
    inputs = draw(steps, (3, 7), dtype, beta=beta, threshold=threshold)
    fused, expected = both(inputs)
    assert_same_numbers(fused, expected)
    exact = numpy_outcome(inputs, steps)
    for name in ("beta", "threshold"):
        grad = getattr(fused, f"grad_{name}")
        shape = getattr(inputs, name).shape
        sums = [
            torch.from_numpy(part[name]).view(3, 7).sum_to_size(shape)
            for part in (exact.gradients, exact.terms)
        ]
        # T terms a neuron, then 21 neurons: each addition rounds once; four roundings make a term.
        assert_within(grad, sums[0], sums[1], steps + 21 + 4, dtype, f"grad_{name}")
        assert_within(getattr(expected, f"grad_{name}"), sums[0], sums[1], steps + 21 + 4, dtype, "reference")


def numpy_outcome(inputs: Inputs, steps: int, *, detach_reset: bool = False) -> Result:
    dtype = inputs.x.numpy().dtype
    features = inputs.membrane.shape

    def per_neuron(value: float | torch.Tensor) -> np.ndarray:
        return torch.as_tensor(value, dtype=inputs.x.dtype).expand(features).numpy().reshape(-1)

    def fast_sigmoid(z: np.ndarray) -> np.ndarray:
        y = 1 + dtype.type(10.0) * np.abs(z)
        return 1 / (y * y)

    return numpy_lif(
        Neuron(
            per_neuron(inputs.beta),
            per_neuron(inputs.threshold),
            detach_reset=detach_reset,
            surrogate=fast_sigmoid,
        ),
        inputs.x.numpy().reshape(steps, -1),
        {"membrane": inputs.membrane.numpy().reshape(-1)},
        {
            "spikes": inputs.grad_out.numpy().reshape(steps, -1),
            "final membrane": inputs.grad_membrane.numpy().reshape(-1),
        },
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("detach", [False, True], ids=["", "detached"])
@pytest.mark.parametrize("steps", [1, 25, 100])
def test_identical_to_numpy(steps: int, detach: bool, dtype: torch.dtype) -> None:
    inputs = draw(steps, (1031,), dtype, beta=(1031,), threshold=(1031,))
    fused = run(functional.lif, inputs, detach_reset=detach)
    exact = numpy_outcome(inputs, steps, detach_reset=detach)
    for name, array in (
        ("out", exact.outputs["spikes"]),
        ("membrane", exact.states["membrane"]),
        ("grad_x", exact.gradients["x"]),
        ("grad_initial", exact.gradients["membrane"]),
    ):
        assert np.array_equal(getattr(fused, name).numpy(), array), name
    for name in ("beta", "threshold"):
        assert_within(
            getattr(fused, f"grad_{name}"),
            torch.from_numpy(exact.gradients[name]),
            torch.from_numpy(exact.terms[name]),
            steps + 4,
            dtype,
            name,
        )


@pytest.mark.parametrize("missing", ["grad_out", "grad_membrane", "membrane"])
def test_absent_gradients_and_state_are_zero(missing: str) -> None:
    inputs = draw(60, (33,), torch.float32)._replace(**{missing: None})
    assert_same_numbers(*both(inputs))


def test_chunks_of_time_equal_one_long_call() -> None:
    inputs = draw(100, (37,), torch.float32)
    out, membrane = functional.lif(inputs.x, 0.9, 1.0, inputs.membrane)
    state = inputs.membrane
    pieces = []
    for piece in inputs.x.split(33):
        spikes, state = functional.lif(piece, 0.9, 1.0, state)
        pieces.append(spikes)
    assert torch.equal(torch.cat(pieces), out)
    assert torch.equal(state, membrane)


def test_gradients_of_sums_and_means_are_read_as_they_lie() -> None:
    # The gradient of a sum has every stride 0, that of a mean over time a time stride of 0.
    inputs = draw(60, (4, 9), torch.float32)
    for reduce in (
        lambda out: out.sum(),
        lambda out: (out.mean(0) * inputs.grad_membrane).sum(),
        lambda out: (out * inputs.x.mean((1, 2), keepdim=True)).sum(),
        lambda out: (out.transpose(1, 2) * inputs.grad_out.transpose(1, 2).contiguous()).sum(),
        lambda out: out[::2, :, ::2].sum(),
    ):
        grads = []
        for function in (functional.lif, reference.lif):
            x = inputs.x.clone().requires_grad_()
            out, _ = function(x, 0.9)
            reduce(out).backward()
            grads.append(x.grad)
        assert torch.equal(*grads)


def test_inputs_that_are_not_contiguous() -> None:
    base = draw(20, (12, 10), torch.float32).x
    for x in (
        base[:, ::2],
        base.transpose(1, 2),
        base[::2, 3:9, 1:],
        base[:, :, :1].expand(20, 12, 10),
        base[:1].expand(20, 12, 10),
        base.view(-1)[1:-119].view(19, 12, 10),  # misaligned
    ):
        features = tuple(x.shape[1:])
        inputs = draw(x.shape[0], features, torch.float32)._replace(x=x)
        inputs = inputs._replace(membrane=inputs.membrane.t().contiguous().t())
        assert_same_numbers(*both(inputs))


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_a_membrane_exactly_at_the_threshold(strict: bool, reset: str) -> None:
    # Quarters decaying by half meet the threshold exactly, which random numbers never do.
    x = torch.randint(-2, 6, (20, 257), generator=torch.Generator().manual_seed(0)) / 4
    inputs = draw(20, (257,), torch.float32)._replace(x=x, beta=0.5, membrane=torch.zeros(257))
    fused, expected = both(inputs, strict=strict, reset=reset)
    assert_same_numbers(fused, expected)
    (spikes, _) = functional.lif(torch.tensor([[1.0], [1.0]]), 0.5, 1.0, strict=strict)
    assert spikes.tolist() == ([[0.0], [1.0]] if strict else [[1.0], [1.0]])
    at_threshold = 0.5 * torch.zeros(257) + x[0] == 1.0
    assert at_threshold.any() and fused.out[0][at_threshold].eq(0 if strict else 1).all()


def test_special_values_behave_as_in_the_reference() -> None:
    inf, nan = float("inf"), float("nan")
    values = torch.tensor([inf, -inf, nan, 0.0, -0.0, 1e-45, -1e-40, 3e38, -3e38, 1.0, 0.1])
    x = values.repeat(5, 1)
    x[1:] = x[1:].roll(1, dims=1)
    inputs = draw(5, (11,), torch.float32)._replace(x=x)
    assert_same_numbers(*both(inputs))


def test_nothing_is_saved_for_backward_but_the_input() -> None:
    saved: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    x = torch.randn(25, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        functional.lif(x, 0.9)
    assert [tensor.data_ptr() for tensor in saved] == [x.data_ptr()]


class Annealed(Surrogate):
    """A user's own surrogate, whose slope moves in training. The same object all the time."""

    code = FastSigmoid.code
    scale = None
    slope = 1.0

    def _height(self) -> float:
        return self.slope / 2


def test_nothing_remembered_of_a_call_goes_stale() -> None:
    inputs = draw(20, (33,), torch.float32)
    surrogate = Annealed()
    outcomes = []
    for slope in (1.0, 30.0):
        surrogate.slope = slope
        outcomes.append(run(functional.lif, inputs, surrogate=surrogate))
        assert_same_numbers(outcomes[-1], run(reference.lif, inputs, surrogate=surrogate))
    assert not torch.equal(outcomes[0].grad_x, outcomes[1].grad_x)
    # Equal numbers of other types are other arguments.
    functional.lif(inputs.x[0], 0.9, steps=1)
    with pytest.raises(TypeError, match="steps must be an int"):
        functional.lif(inputs.x[0], 0.9, steps=True)
    # The same shape and strides, in another dtype, or with a parameter that lies otherwise.
    beta = torch.linspace(0.1, 0.9, 66).view(33, 2)
    for value in (beta[:, 0].contiguous(), beta[:, 0], beta[:, :1].t().reshape(33)):
        assert_same_numbers(*both(inputs._replace(beta=value)))


def test_steps_zero_returns_a_copy_of_the_state() -> None:
    membrane = torch.randn(5)
    out, state = functional.lif(torch.empty(0, 5), 0.9, 1.0, membrane)
    assert out.shape == (0, 5)
    assert torch.equal(state, membrane)
    assert state.data_ptr() != membrane.data_ptr()


def test_the_same_bits_for_any_number_of_threads() -> None:
    inputs = draw(25, (64, 1000), torch.float32, beta=(), threshold=(1000,))
    outcomes = []
    before = torch.get_num_threads()
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        outcomes.append(run(functional.lif, inputs))
    torch.set_num_threads(before)
    for other in outcomes[1:]:
        for first, second in zip(outcomes[0], other, strict=True):
            assert torch.equal(first, second)


@pytest.mark.parametrize("penalty", [False, True], ids=["direct", "penalty"])
def test_double_backward_raises(penalty: bool) -> None:
    x = torch.randn(6, 5, requires_grad=True)
    out, _ = functional.lif(x, 0.9)
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    loss = grad.square().sum() + (x.sum() if penalty else 0)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        loss.backward()


def test_a_tensor_that_needs_a_gradient_cannot_bypass_autograd() -> None:
    x = torch.randn(6, 5, requires_grad=True)
    arguments = raw_arguments(x, asked=1)
    with pytest.raises(RuntimeError, match=r"lif_cuda\.functional\.lif"):
        torch.ops.lif_cuda.lif_forward(*arguments)
    with torch.no_grad():
        (spikes,) = torch.ops.lif_cuda.lif_forward(*arguments)
    assert torch.equal(spikes, functional.lif(x, 0.9)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("beyond", [0, 5])
def test_outputs_written_past_the_caches(beyond: int, dtype: torch.dtype, threads: int) -> None:
    """Outputs of 64 MiB and more are streamed, where their rows are aligned for it.

    Columns repeat, by a prime, so that the reference computes each once.
    """
    size, period = 2**26 // (5 * dtype.itemsize) // 64 * 64 + 64 + beyond, 10007
    x = (torch.randn(5, period, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2).to(dtype)
    grad = torch.randn(5, period, generator=torch.Generator().manual_seed(1)).to(dtype)

    def repeated(t: Tensor) -> Tensor:
        return t.repeat(*[1] * (t.dim() - 1), size // period + 1)[..., :size].contiguous()

    def called(function: Any, x: Tensor, grad: Tensor) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        out, membrane = function(leaf, 0.9, output=("spikes", "trace_before_reset"))
        (gradient,) = torch.autograd.grad(out.spikes, leaf, grad)
        return [out.spikes, out.trace_before_reset, membrane, gradient]

    results = called(functional.lif, repeated(x), repeated(grad)), called(reference.lif, x, grad)
    for fused, expected in zip(*results, strict=True):
        assert torch.equal(fused, repeated(expected))


@pytest.mark.parametrize("gain", [1.0, 0.7], ids=["plain", "wide"])
@pytest.mark.parametrize("every", [1, 3, 7, 8, 9, 31, 40, 200])
def test_checkpoints_of_other_distances(every: int, gain: float) -> None:
    """The raw operators take any: a tile of time steps ends where there is a checkpoint."""
    generator = torch.Generator().manual_seed(every)
    x, grad = torch.randn(2, 100, 67, generator=generator) * 0.5 + 0.2
    asked = _ops.OUTPUTS["spikes"] | _ops.OUTPUTS["checkpoints"]
    forward = raw_arguments(x, checkpoint_every=every, asked=asked, gain=gain)
    spikes, checkpoints = torch.ops.lif_cuda.lif_forward(*forward)
    given = {_ops.CHECKPOINTS: checkpoints, _ops.FIRST_GRADIENT: grad}
    backward = raw_arguments(x, given, checkpoint_every=every, asked=1, gain=gain)
    (found,) = torch.ops.lif_cuda.lif_backward(*backward)
    leaf = x.clone().requires_grad_()
    expected, _ = reference.lif(leaf, 0.9, gain=gain)
    assert torch.equal(spikes, expected)
    assert torch.equal(found, *torch.autograd.grad(expected, leaf, grad))


def test_a_first_spike_between_the_gradients_of_all_steps() -> None:
    """One of the spikes that is the same at each step is added to that of counts beforehand, but not where
    one of a first spike comes between: the sum would round otherwise."""
    generator = torch.Generator().manual_seed(0)
    x, random = torch.randn(2, 33, 67, generator=generator) * 0.5 + 0.2
    gradients = []
    for function in (functional.lif, reference.lif):
        leaf = x.clone().requires_grad_()
        names = ("spikes", "first_spike", "count")
        spikes, first, count = function(leaf, 0.9, output=names, return_state=False)
        grads = torch.tensor(0.3).expand(33, 67), random[0], random[1]
        gradients += torch.autograd.grad((spikes, first, count), leaf, grads)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("ahead", [0, 32, 512])
def test_spikes_written_past_the_caches(ahead: int, threads: int) -> None:
    """The most common neuron has its own way of writing them, where x lies at another place of its page."""
    size = 2**26 // (5 * 4) // 64 * 64 + 64
    values = torch.randn(5 * size + ahead, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    x = values[ahead:].view(5, size)
    spikes, membrane = functional.lif(x, 0.9)
    expected, final = reference.lif(x, 0.9)
    assert torch.equal(spikes, expected)
    assert torch.equal(membrane, final)
    # In rows that begin anywhere in a cache line.
    assert torch.equal(functional.lif(x[:, 3:], 0.9)[0], expected[:, 3:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("output", ["total", ("total",), ("spikes", "total"), ("count", "rate", "total")])
def test_the_total_is_differentiated_as_the_sum_of_all_spikes(output: object, dtype: torch.dtype) -> None:
    x = (torch.randn(40, 3, 67) * 0.6 + 0.2).to(dtype)
    gradients = []
    for asked in (output, "count"):  # whose gradient is not of x's 16 bits
        leaf = x.clone().requires_grad_()
        out, _ = functional.lif(leaf, 0.9, output=asked)
        total = out if asked == "total" else out.double().sum() if asked == "count" else out.total
        assert total.dtype == torch.float64 and total.shape == () and total > 100
        (0.25 * total / leaf.numel()).backward()
        assert leaf.grad.abs().sum() > 0
        gradients.append(leaf.grad)
    assert_identical(*gradients, "gradient of x")


def test_a_penalty_on_the_total_lowers_the_firing_rate() -> None:
    torch.manual_seed(0)
    x = torch.rand(20, 16, 12)
    target = torch.randint(0, 4, (16,))
    rates = {}
    for strength in (0.0, 5.0):
        torch.manual_seed(1)
        hidden = torch.nn.Linear(12, 64)
        out = torch.nn.Linear(64, 4)
        optimizer = torch.optim.Adam([*hidden.parameters(), *out.parameters()], lr=0.01)
        for _ in range(60):
            (counts, total), _ = functional.lif(hidden(x), 0.9, 0.5, output=("count", "total"))
            rate = total / (len(x) * counts.numel())
            loss = torch.nn.functional.cross_entropy(out(counts), target) + strength * rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rates[strength] = float(rate.detach())
    assert rates[0.0] > 0.1 and rates[5.0] < 0.5 * rates[0.0], rates
