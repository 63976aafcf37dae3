"""Spikes as bits: what holds them, and the layers that write them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from family import SeededPick, draw_case
from torch import Tensor
from torch.utils import _pytree as pytree

from lif_cuda import (
    LIF,
    AdaptiveLIF,
    CurrentLIF,
    NeuronState,
    PackedSpikes,
    ReferenceLIF,
    functional,
    reference,
)
from lif_cuda.surrogate import ATan

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SIZES = [1, 10, 63, 64, 65, 100, 128, 784, 5000]


def drive(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (0.8 * torch.randn(*shape, generator=generator, dtype=torch.float64) + 0.3).to(dtype)


def bits_of(spikes: Tensor) -> Tensor:
    """The words of spikes, one shift at a time."""
    neurons = spikes.shape[-1]
    words = torch.zeros(*spikes.shape[:-1], -(-neurons // 64), dtype=torch.int64)
    for i in range(neurons):
        words[..., i // 64] |= (spikes[..., i] != 0).long() << i % 64
    return words


# The class.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 63, 64, 65, 200])
def test_pack_and_dense(size: int, dtype: torch.dtype) -> None:
    spikes = (torch.rand(5, 3, size) < 0.4).to(dtype)
    packed = PackedSpikes.pack(spikes)
    assert torch.equal(packed.words, bits_of(spikes))
    assert packed.shape == spikes.shape and packed.dtype == dtype and packed.dim() == 3
    assert torch.equal(packed.dense(), spikes) and packed.dense().dtype == dtype
    assert int(packed.count()) == int(spikes.double().sum())
    assert packed.like.untyped_storage().nbytes() <= 8
    assert packed.nbytes == 8 * 15 * -(-size // 64)


def test_gradients_go_through() -> None:
    spikes = (torch.rand(5, 70) < 0.4).float().requires_grad_()
    packed = PackedSpikes.pack(spikes)
    weights = torch.randn(5, 70)
    (packed.dense() * weights).sum().backward()
    assert spikes.grad is not None and torch.equal(spikes.grad, weights)
    assert packed.requires_grad and not packed.detach().requires_grad
    spikes.grad = None
    (packed[1:4].to(torch.float64).dense() * weights[1:4].double()).sum().backward()
    wanted = torch.zeros(5, 70)
    wanted[1:4] = weights[1:4]
    assert torch.equal(spikes.grad, wanted)


def test_indexing_over_time() -> None:
    spikes = (torch.rand(6, 4, 70) < 0.4).float()
    packed = PackedSpikes.pack(spikes)
    for index in (2, -1, slice(1, 5), slice(None, None, 2), (3, slice(1, 3)), (slice(2), 1)):
        assert torch.equal(packed[index].dense(), spikes[index]), index
    assert len(packed) == 6
    assert torch.equal(torch.stack([step.dense() for step in packed]), spikes)
    with pytest.raises(IndexError, match="the last of 3 axes lies in words"):
        packed[0, 0, 0]
    for index in ([0, 1], torch.tensor([1]), True, None):
        with pytest.raises(TypeError, match="must be of ints and slices"):
            packed[index]


def test_to() -> None:
    packed = PackedSpikes.pack((torch.rand(6, 70) < 0.4).float())
    assert packed.to("cpu") is packed and packed.to(torch.float32) is packed
    for half in (
        packed.to(torch.bfloat16),
        packed.to(dtype=torch.bfloat16),
        packed.to("cpu", torch.bfloat16),
    ):
        assert half.dtype == torch.bfloat16 and torch.equal(half.dense(), packed.dense().bfloat16())
        assert half.words is packed.words
    assert packed.to("meta").device.type == "meta"


def test_pickle_and_copy() -> None:
    spikes = (torch.rand(6, 70) < 0.4).float()
    for packed in (PackedSpikes.pack(spikes), PackedSpikes.pack(spikes).to(torch.float16)):
        for other in (pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed)):
            assert torch.equal(other.words, packed.words) and other.dtype == packed.dtype
            assert torch.equal(other.dense(), packed.dense())
            assert other.like.untyped_storage().nbytes() <= 8


def test_it_is_a_tree() -> None:
    packed = PackedSpikes.pack((torch.rand(6, 70) < 0.4).float())
    leaves, spec = pytree.tree_flatten({"a": packed})
    assert len(leaves) == 2
    other = pytree.tree_unflatten(leaves, spec)["a"]
    assert other.words is packed.words and other.like is packed.like
    moved = pytree.tree_map(lambda leaf: leaf[2:], packed)
    assert torch.equal(moved.dense(), packed[2:].dense())


def test_wrong_parts_are_refused() -> None:
    with pytest.raises(TypeError, match=r"words and like must be tensors.*PackedSpikes\.pack"):
        PackedSpikes([1], torch.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="words must be int64"):
        PackedSpikes(torch.zeros(1), torch.zeros(3))
    with pytest.raises(ValueError, match=r"words must be \[\.\.\., ceil\(features / 64\)\]"):
        PackedSpikes(torch.zeros(2, dtype=torch.int64), torch.zeros(64))
    with pytest.raises(TypeError, match=r"spikes must be a torch\.Tensor"):
        PackedSpikes.pack([1.0])  # type: ignore[arg-type]


# What layers write.


def outcome(function: Any, output: Any, x: Tensor, state: Any = None, **options: Any) -> list[Tensor]:
    """Spikes, final states and the gradient of x, whether spikes come packed or not."""
    leaf = x.clone().requires_grad_()
    results = function(leaf, 0.9, membrane=state, output=output, **options)
    out, final = results
    several = out if isinstance(output, tuple) else (out,)
    tensors = [one.dense() if isinstance(one, PackedSpikes) else one for one in several]
    finals = [one for one in final if one is not None] if isinstance(final, NeuronState) else [final]
    loss = sum(
        (t * torch.linspace(-1, 1, t.shape[-1] if t.dim() else 1, dtype=t.dtype)).sum()
        for t in (*tensors, *finals)
        if t.requires_grad
    )
    return [t.detach() for t in (*tensors, *finals)] + list(torch.autograd.grad(loss, leaf))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_packed_spikes_are_the_spikes(size: int, dtype: torch.dtype) -> None:
    x = drive(6, 3, size, dtype=dtype)
    packed, _ = functional.lif(x, 0.9, output="packed")
    spikes, _ = functional.lif(x, 0.9)
    assert isinstance(packed, PackedSpikes) and packed.dtype == dtype and packed.shape == x.shape
    assert torch.equal(packed.words, bits_of(spikes))
    for wanted, found in zip(
        outcome(functional.lif, "spikes", x), outcome(functional.lif, "packed", x), strict=True
    ):
        assert torch.equal(wanted, found)


@pytest.mark.parametrize("size", [10, 64, 100, 320])
@pytest.mark.parametrize(
    "options",
    [
        {"reset": "zero", "surrogate": ATan()},
        {"reset": "none"},
        {"alpha": 0.7, "kappa": 0.2, "rho": 0.9, "refractory": 2},
        {"delay_reset": True, "detach_reset": True, "rest": 0.1, "strict": True},
        {"steps": 70},
        {"time_dim": 1},
        {"time_dim": 1, "reset": "none"},
    ],
    ids=["zero", "none", "all states", "delayed", "constant", "batch first", "batch first, none"],
)
def test_packed_of_the_family(options: dict[str, Any], size: int) -> None:
    x = drive(4, 30, size)
    wanted = outcome(functional.lif, "spikes", x, **options)
    for function in (functional.lif, reference.lif):
        for output in ("packed", ("packed", "count"), ("trace", "packed", "total")):
            found = outcome(function, output, x, **options)
            at = 1 if output == ("trace", "packed", "total") else 0
            assert torch.equal(found[at], wanted[0])
            if output == "packed":
                for mine, expected in zip(found, wanted, strict=True):
                    assert torch.equal(mine, expected)


def packs(seed: int) -> bool:
    case = draw_case(SeededPick(seed), seed)
    axes = case.x.dim() + ("steps" in case.options)
    return case.options.get("time_dim", 0) % axes < axes - 1


@pytest.mark.parametrize("seed", [*filter(packs, range(7000, 7120))])
def test_drawn_calls_pack_their_spikes(seed: int) -> None:
    """Of the whole family; outputs are poisoned first: torch fills what it allocates."""
    case = draw_case(SeededPick(seed), seed)
    state: Any = None
    if case.states:
        state = NeuronState(**case.states) if len(case.state_names) > 1 else case.states["membrane"]
    options = case.parameters | case.options | {"membrane": state, "return_state": False}
    spikes = functional.lif(case.x, **(options | {"output": "spikes"}))
    torch.use_deterministic_algorithms(True)
    try:
        packed, total = functional.lif(case.x, **(options | {"output": ("packed", "total")}))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(packed.words, bits_of(spikes)) and int(total) == int(packed.count())


@pytest.mark.parametrize("shape", [(0, 3, 70), (5, 0, 70), (5, 3, 0), (1, 70), (5, 2, 3, 70)], ids=str)
def test_shapes(shape: tuple[int, ...]) -> None:
    x = drive(*shape)
    packed, final = functional.lif(x, 0.9, output="packed")
    spikes, wanted = functional.lif(x, 0.9)
    assert packed.shape == spikes.shape and torch.equal(packed.dense(), spikes)
    assert torch.equal(final, wanted)


@pytest.mark.parametrize("size", [64, 100, 6400, 6500])
def test_threads_change_no_bit(size: int) -> None:
    x = drive(30, 7, size)
    before = torch.get_num_threads()
    words = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        words.append(functional.lif(x, 0.9, output="packed")[0].words)
    torch.set_num_threads(before)
    assert torch.equal(words[0], words[1]) and torch.equal(words[0], words[2])
    assert torch.equal(words[0], bits_of(functional.lif(x, 0.9)[0]))


@pytest.mark.parametrize("cls", [LIF, ReferenceLIF, CurrentLIF, AdaptiveLIF])
def test_layers(cls: Any) -> None:
    x = drive(8, 3, 70)
    layer, plain = (cls(70, output=output, return_state=False) for output in ("packed", "spikes"))
    assert torch.equal(layer(x).dense(), plain(x))
    assert "output='packed'" in repr(layer)


def test_what_cannot_be_packed_is_refused() -> None:
    x = drive(6, 3, 70)
    with pytest.raises(ValueError, match="must name 'spikes' or 'packed'"):
        functional.lif(x, 0.9, output=("spikes", "packed"))
    for function in (functional.lif, reference.lif):
        with pytest.raises(ValueError, match="last axis, which must not be time"):
            function(x, 0.9, output="packed", time_dim=-1)
        with pytest.raises(ValueError, match="last axis, which must not be time"):
            function(x[:, 0, 0], 0.9, output="packed")
    with pytest.raises(ValueError, match=r"x must have its last axis innermost.*x\.contiguous\(\)"):
        functional.lif(drive(6, 3, 5, 70).transpose(-1, -2), 0.9, output="packed")


def test_vmap_and_gradients() -> None:
    x = drive(4, 6, 3, 70)

    def dense(x: Tensor) -> Tensor:
        return functional.lif(x, 0.9, output="packed", return_state=False).dense()

    def spikes(x: Tensor) -> Tensor:
        return functional.lif(x, 0.9, return_state=False)

    assert torch.equal(torch.vmap(dense)(x), torch.vmap(spikes)(x))

    def of(function: Any) -> Any:
        return torch.func.grad(lambda x: (function(x) * torch.linspace(0, 1, 70)).sum())(x[0])

    assert torch.equal(of(dense), of(spikes))


def test_a_backend_that_captures_graphs_gets_one() -> None:
    x = drive(6, 3, 70)

    def dense(x: Tensor) -> Tensor:
        return functional.lif(x, 0.9, output="packed", return_state=False).dense()

    def packed(x: Tensor) -> PackedSpikes:
        return functional.lif(x, 0.9, output="packed", return_state=False)

    outcomes = []
    for function in (dense, torch.compile(dense, fullgraph=True, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        outcomes.append((y.detach(), *torch.autograd.grad((y * torch.linspace(0, 1, 70)).sum(), leaf)))
    for mine, expected in zip(*outcomes, strict=True):
        assert torch.equal(mine, expected)
    found = torch.compile(packed, backend="aot_eager")(x)
    assert torch.equal(found.words, packed(x).words)


def test_export() -> None:
    layer = LIF(70, output="packed", return_state=False)

    class Dense(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).dense()

    x = drive(6, 3, 70)
    program = torch.export.export(Dense(), (x,))
    other = drive(6, 3, 70) + 0.1
    assert torch.equal(program.module()(other), layer(other).dense())
