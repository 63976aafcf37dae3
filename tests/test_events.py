"""Products with spikes, against NumPy that adds row by row: each sum in order, each rounding of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _processor import LEVELS, skip_unless_runs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_simd_levels import python
from torch import Tensor
from torch.nn import functional as nnf

from lif_cuda import PackedSpikes, SpikeLinear
from lif_cuda.energy import count_additions
from lif_cuda.functional import spike_linear

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
EXAMPLES = int(os.environ.get("LIF_CUDA_FUZZ", "100"))


def state_of(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def added(spikes: Tensor, rows: Tensor, start: Tensor) -> Tensor:
    """start + the rows where a spike is set, one after the other, in the dtype of ``start``."""
    fired, numbers = spikes.numpy() != 0, rows.numpy()
    total = start.numpy().copy()
    for k in range(len(numbers)):
        total[fired[:, k]] += numbers[k]
    return torch.from_numpy(total)


def twin(spikes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[M, K] spikes."""
    state = state_of(weight.dtype)
    start = torch.zeros(len(spikes), len(weight), dtype=state)
    if bias is not None:
        start = start + bias.to(state)
    return added(spikes.to(state), weight.to(state).t().contiguous(), start).to(weight.dtype)


def twin_gradient(spikes: Tensor, grad: Tensor) -> Tensor:
    state = state_of(grad.dtype)
    start = torch.zeros(spikes.shape[1], grad.shape[1], dtype=state)
    return added(spikes.t().to(state).contiguous(), grad.to(state), start).t().to(grad.dtype)


def drawn(
    rows: int, inputs: int, outputs: int, rate: float, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Spikes, weight, bias and a gradient of the product."""
    generator = torch.Generator().manual_seed(seed)
    spikes = torch.rand(rows, inputs, generator=generator) < rate
    tensors = [
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((outputs, inputs), (outputs,), (rows, outputs))
    ]
    return spikes.to(dtype), tensors[0], tensors[1], tensors[2]


def assert_bits(found: Tensor, wanted: Tensor) -> None:
    """Signs of zeros included."""
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert torch.equal(found, wanted) and torch.equal(found.signbit(), wanted.signbit())


def check(spikes: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor) -> None:
    """Forward and all gradients, of dense and of packed spikes."""
    for packed in (False, True):
        leaves = [t.clone().requires_grad_() for t in (spikes, weight, *([] if bias is None else [bias]))]
        given = PackedSpikes.pack(leaves[0]) if packed else leaves[0]
        y = spike_linear(given, *leaves[1:])
        assert_bits(y.detach(), twin(spikes, weight, bias))
        gradients = torch.autograd.grad(y, leaves, grad)
        assert_bits(gradients[1], twin_gradient(spikes, grad))
        assert_bits(gradients[0], grad @ weight)
        if bias is not None:
            assert_bits(gradients[2], grad.sum(0))


@pytest.fixture(autouse=True)
def as_many_threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.4, 0.6, 1.0])
@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 1), (5, 63, 7), (4, 64, 16), (65, 65, 17), (9, 130, 100), (6, 20, 300), (70, 3, 513)],
    ids=str,
)
def test_the_bits_of_numpy(sizes: tuple[int, int, int], rate: float, dtype: torch.dtype) -> None:
    spikes, weight, bias, grad = drawn(*sizes, rate, dtype)
    check(spikes, weight, bias, grad)


@pytest.mark.parametrize("rate", [0.03, 0.7])
@pytest.mark.parametrize("sizes", [(2200, 65, 40), (10, 4400, 70), (3, 4400, 300)], ids=str)
def test_sums_go_on_from_tile_to_tile(sizes: tuple[int, int, int], rate: float) -> None:
    check(*drawn(*sizes, rate, torch.float32))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    derandomize=EXAMPLES == 100,
)
@given(
    st.integers(0, 140),
    st.integers(0, 200),
    st.integers(0, 150),
    st.floats(0, 1),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_drawn_products(
    rows: int, inputs: int, outputs: int, rate: float, dtype: torch.dtype, biased: bool, seed: int
) -> None:
    spikes, weight, bias, grad = drawn(rows, inputs, outputs, rate, dtype, seed)
    # Rows of other rates beside each other: some are taken together, and some are not.
    if rows > 9:
        spikes[3:9] = 1
    check(spikes, weight, bias if biased else None, grad)


@pytest.mark.parametrize("rate", [0.1, 0.8])
def test_threads_change_no_bit(rate: float) -> None:
    spikes, weight, bias, grad = drawn(999, 333, 200, rate, torch.float32)
    outcomes = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        leaf = weight.clone().requires_grad_()
        y = spike_linear(spikes, leaf, bias)
        outcomes.append((y.detach(), *torch.autograd.grad(y, leaf, grad)))
    for other in outcomes[1:]:
        for mine, expected in zip(other, outcomes[0], strict=True):
            assert_bits(mine, expected)


LEVEL = """
import torch
from test_events import check, drawn
from lif_cuda._build_facts import facts

for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    for sizes in ((9, 130, 100), (65, 65, 300), (1100, 70, 33)):
        for rate in (0.1, 0.7):
            check(*drawn(*sizes, rate, dtype))
print(facts()["simd"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_levels_have_the_same_bits(level: str, tmp_path: Path) -> None:
    skip_unless_runs(level)
    tests = str(Path(__file__).resolve().parent)
    done = python(f"import sys; sys.path.append({tests!r})\n{LEVEL}", tmp_path, level)
    assert (done.returncode, done.stdout) == (0, f"{level}\n"), done.stderr


def test_infinite_and_nan_weights_reach_only_their_spikes() -> None:
    spikes, weight, bias, _ = drawn(8, 70, 20, 0.5, torch.float32)
    spikes[:4] = 1
    spikes[:, 3] = 0
    weight[5, 3] = float("inf")
    weight[6, 3] = float("nan")
    assert spike_linear(spikes, weight, bias).isfinite().all()
    spikes[0, 3] = 1
    y = spike_linear(spikes, weight, bias)
    assert y[0, 5] == float("inf") and y[0, 6].isnan() and y[1:].isfinite().all()


def test_a_sum_that_starts_with_minus_zero_is_zero() -> None:
    bias = torch.full((20,), -0.0)
    for rate in (0.0, 1.0):
        spikes = torch.full((8, 3), rate)
        assert_bits(spike_linear(spikes, torch.full((20, 3), -0.0), bias), torch.zeros(8, 20))


@pytest.mark.parametrize("shape", [(70,), (3, 70), (4, 3, 70), (2, 0, 70), (0, 70)], ids=str)
def test_any_leading_shape(shape: tuple[int, ...]) -> None:
    spikes = (torch.rand(shape) < 0.2).float().requires_grad_()
    weight, bias = torch.randn(20, 70, requires_grad=True), torch.randn(20, requires_grad=True)
    for given_spikes in (spikes, PackedSpikes.pack(spikes)):
        y = spike_linear(given_spikes, weight, bias)
        wanted = nnf.linear(spikes, weight, bias)
        torch.testing.assert_close(y, wanted)
        grad = torch.randn_like(y)
        found = torch.autograd.grad(y, (spikes, weight, bias), grad)
        for mine, theirs in zip(
            found, torch.autograd.grad(wanted, (spikes, weight, bias), grad), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_tensors_that_lie_otherwise() -> None:
    spikes, weight, bias, grad = drawn(30, 70, 20, 0.3, torch.float32)
    wanted = twin(spikes, weight, bias)
    columns = spikes.t().contiguous().t()
    assert_bits(spike_linear(columns, weight.t().contiguous().t(), bias.repeat(2)[::2].copy_(bias)), wanted)
    leaf = weight.clone().requires_grad_()
    y = spike_linear(columns, leaf, bias)
    (found,) = torch.autograd.grad(y, leaf, grad.t().contiguous().t())
    assert_bits(found, twin_gradient(spikes, grad))
    (found,) = torch.autograd.grad(spike_linear(spikes, leaf, bias).sum(), leaf)
    assert_bits(found, twin_gradient(spikes, torch.ones_like(grad)))


def test_gradients_of_gradients() -> None:
    spikes = (torch.rand(5, 6) < 0.4).double().requires_grad_()
    weight, bias = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((3, 6), (3,)))
    packed = PackedSpikes.pack(spikes)

    def of(weight: Tensor, bias: Tensor) -> Tensor:
        return spike_linear(spikes.detach(), weight, bias)

    assert torch.autograd.gradcheck(of, (weight, bias))
    assert torch.autograd.gradgradcheck(of, (weight, bias))
    # Through the spikes: numbers beside 0 and 1 have no product, so nn.Linear's derivatives are asked.
    outcomes = []
    for y in (spike_linear(packed, weight, bias), nnf.linear(spikes, weight, bias)):
        first = torch.autograd.grad((y**3).sum(), (spikes, weight, bias), create_graph=True)
        loss = sum((g**2).sum() for g in first)
        outcomes.append([*first, *torch.autograd.grad(loss, (spikes, weight, bias))])
    for mine, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("strange", [2.0, -1.0, 0.5, float("nan"), float("inf"), 1 + 2**-20], ids=str)
@pytest.mark.parametrize("at", [(0, 0), (3, 64), (7, 69)], ids=str)
def test_other_numbers_are_refused(strange: float, at: tuple[int, int]) -> None:
    spikes, weight, bias, _ = drawn(8, 70, 20, 0.3, torch.float32)
    spikes[at] = strange
    with pytest.raises(ValueError, match=r"spikes must be zeros and ones.*use nn\.Linear"):
        spike_linear(spikes, weight, bias)
    with pytest.raises(ValueError, match="spikes must be zeros and ones"):
        PackedSpikes.pack(spikes)


def test_minus_zero_is_no_spike() -> None:
    assert not PackedSpikes.pack(torch.full((2, 70), -0.0)).words.any()


SPIKES = torch.zeros(4, 6)
WEIGHT = torch.zeros(3, 6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], WEIGHT), TypeError, r"spikes must be a torch\.Tensor or PackedSpikes, got list"),
        ((SPIKES.long(), WEIGHT), TypeError, r"spikes must have dtype .*int64.*\.float\(\)"),
        ((torch.tensor(1.0), WEIGHT), ValueError, "spikes must have an axis of neurons"),
        ((SPIKES.to_sparse(), WEIGHT), TypeError, r"spikes must be a dense .*to_dense"),
        ((SPIKES, [1.0]), TypeError, r"weight must be a torch\.Tensor, got list"),
        ((SPIKES, WEIGHT[0]), ValueError, r"weight must be \[outputs, 6\]"),
        ((SPIKES, torch.zeros(3, 5)), ValueError, r"weight must be \[outputs, 6\] .*got \(3, 5\)"),
        ((SPIKES, WEIGHT.double()), TypeError, r"weight must have the dtype of the spikes.*\.to\("),
        ((SPIKES, WEIGHT.to("meta")), ValueError, "weight must be on the device of the spikes, cpu"),
        ((SPIKES, WEIGHT, 1.0), TypeError, r"bias must be a torch\.Tensor or None, got float"),
        ((SPIKES, WEIGHT, torch.zeros(4)), ValueError, r"bias must be \[3\], got \(4,\)"),
        ((SPIKES, WEIGHT, torch.zeros(3).half()), TypeError, "bias must have the dtype of the spikes"),
    ],
)
def test_wrong_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        spike_linear(*arguments)


def test_forward_mode_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(lambda w: spike_linear(SPIKES, w), (WEIGHT,), (WEIGHT,))


def test_words_that_are_not_clean_are_refused() -> None:
    packed = PackedSpikes(torch.full((4, 1), -1), torch.zeros(4, 6))
    with pytest.raises(RuntimeError, match="no bits behind the last of 6 spikes"):
        spike_linear(packed, WEIGHT)


# The layer.


def test_the_layer_is_nn_linear() -> None:
    layers = []
    for cls in (torch.nn.Linear, SpikeLinear):
        torch.manual_seed(5)
        layers.append(cls(70, 20))
    dense, events = layers
    assert list(dense.state_dict()) == list(events.state_dict())
    for key, value in dense.state_dict().items():
        assert torch.equal(value, events.state_dict()[key])
    spikes = (torch.rand(4, 70) < 0.3).float()
    torch.testing.assert_close(events(spikes), dense(spikes))
    assert SpikeLinear(70, 20, bias=False).bias is None
    assert "in_features=70" in repr(events)


def test_additions_are_counted_where_they_are_done() -> None:
    model = torch.nn.ModuleList([SpikeLinear(70, 20), SpikeLinear(20, 5)])
    one, two = (torch.rand(9, 70) < 0.3).float(), (torch.rand(4, 20) < 0.5).float()
    with count_additions(model) as additions:
        model[0](one)
        model[0](PackedSpikes.pack(one))
        model[1](two)
        with pytest.raises(RuntimeError, match="are being counted already"), count_additions(model):
            pass
    model[1](two)
    counts = {"0": 2 * 20 * int(one.sum()), "1": 5 * int(two.sum())}
    assert additions.by_layer() == counts and additions.total() == sum(counts.values())
    with pytest.raises(TypeError, match=r"module must be an nn\.Module"), count_additions(3):  # type: ignore[arg-type]
        pass


def test_autocast_is_that_of_nn_linear() -> None:
    spikes, weight, bias, _ = drawn(9, 70, 20, 0.3, torch.float32)
    leaves = [t.requires_grad_() for t in (spikes, weight, bias)]
    with torch.autocast("cpu", torch.bfloat16):
        y = spike_linear(*leaves)
    assert_bits(y.detach(), twin(spikes.detach(), *(t.detach().bfloat16() for t in (weight, bias))))
    y.float().sum().backward()
    assert all(leaf.grad is not None and leaf.grad.dtype == torch.float32 for leaf in leaves)


# torch.func, torch.compile, torch.export.


def test_vmap_and_gradients_of_samples() -> None:
    spikes, weight, bias, _ = drawn(6, 70, 20, 0.3, torch.float64)
    weights = torch.stack([weight + i for i in range(6)])
    many = torch.vmap(spike_linear, in_dims=(0, None, None))
    torch.testing.assert_close(many(spikes, weight, bias), nnf.linear(spikes, weight, bias))
    torch.testing.assert_close(
        torch.vmap(spike_linear)(spikes, weights, bias.expand(6, 20)),
        torch.vmap(nnf.linear)(spikes, weights, bias.expand(6, 20)),
    )
    torch.testing.assert_close(
        torch.vmap(spike_linear, in_dims=(None, 0, None))(spikes, weights, bias),
        torch.vmap(nnf.linear, in_dims=(None, 0, None))(spikes, weights, bias),
    )

    def grads(linear: Any) -> Any:
        def loss(weight: Tensor, bias: Tensor, spikes: Tensor) -> Tensor:
            return (linear(spikes, weight, bias) ** 2).sum()

        each = torch.func.grad(loss, argnums=(0, 1, 2))
        return torch.vmap(each, in_dims=(None, None, 0))(weight, bias, spikes)

    for mine, theirs in zip(grads(spike_linear), grads(nnf.linear), strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(
        torch.func.jacrev(lambda w: spike_linear(spikes, w))(weight),
        torch.func.jacrev(lambda w: nnf.linear(spikes, w))(weight),
    )


def test_a_backend_that_captures_graphs_gets_one() -> None:
    spikes, weight, bias, grad = drawn(9, 70, 20, 0.3, torch.float32)
    leaf = weight.clone().requires_grad_()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(spikes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return spike_linear(PackedSpikes.pack(spikes), weight, bias)

    y = compiled(spikes, leaf, bias)
    assert_bits(y.detach(), twin(spikes, weight, bias))
    (found,) = torch.autograd.grad(y, leaf, grad)
    assert_bits(found, twin_gradient(spikes, grad))


def test_export_for_any_batch() -> None:
    layer = SpikeLinear(70, 20)
    spikes = (torch.rand(5, 70) < 0.3).float()
    program = torch.export.export(layer, (spikes,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    other = (torch.rand(11, 70) < 0.3).float()
    assert_bits(program.module()(other).detach(), layer(other).detach())


def test_operators_are_registered_as_they_should_be() -> None:
    packed = PackedSpikes.pack((torch.rand(4, 70) < 0.3).float())
    weight = torch.randn(20, 70, requires_grad=True)
    like = torch.zeros(4, 70)
    ops = torch.ops.lif_cuda
    torch.library.opcheck(ops.spike_pack.default, ((torch.rand(4, 70) < 0.3).float(),))
    torch.library.opcheck(ops.spike_unpack.default, (packed.words, like))
    torch.library.opcheck(ops.spike_linear.default, (packed.words, like, weight, torch.randn(20)))
    torch.library.opcheck(ops.spike_gradient.default, (packed.words, like, torch.randn(4, 20)))


def test_numpy_counts_in_its_own_way() -> None:
    """The twin itself: where a term is added twice, or out of order, some bit changes."""
    spikes, weight, bias, _ = drawn(40, 200, 30, 0.5, torch.float32)
    backwards = added(spikes.flip(1), weight.t().flip(0).contiguous(), bias.expand(40, 30).contiguous())
    assert not torch.equal(backwards, twin(spikes, weight, bias))
    assert np.allclose(backwards, twin(spikes, weight, bias), atol=1e-4)
