"""The state of stateful layers: what moves it, saves it, copies it, and what must leave it alone."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from family import series
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lif_cuda
from lif_cuda import IF, LIF, AdaptiveLIF, CurrentLIF, NeuronState, ReferenceLIF
from lif_cuda._module import LIFModule

CLASSES = [LIF, ReferenceLIF]


def streaming(cls: type[LIFModule], **options: Any) -> LIFModule:
    """A stateful layer that has seen one chunk."""
    layer = cls(7, stateful=True, return_state=False, **options)
    layer(series(5, 2, 7))
    return layer


@pytest.mark.parametrize("cls", CLASSES)
def test_the_state_is_no_buffer(cls: type[LIFModule]) -> None:
    layer = streaming(cls)
    assert not list(layer.buffers()) and not list(layer.parameters())
    assert isinstance(layer.state, Tensor)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_averaged_model_streams(cls: type[LIFModule]) -> None:
    """Its own state, on batches of its own; and the average is of parameters alone."""
    model = nn.Sequential(nn.Linear(7, 7), cls(7, learn_beta=True, stateful=True, return_state=False))
    for use_buffers in (False, True):
        lif_cuda.reset_states(model)
        model(series(5, 2, 7))
        averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=use_buffers)
        averaged(series(4, 2, 7))
        lif_cuda.reset_states(model)
        model(series(5, 3, 7))  # another batch size
        kept = model[1].state.clone()
        averaged.update_parameters(model)
        assert torch.equal(model[1].state, kept)
        assert averaged(series(4, 2, 7)).shape == (4, 2, 7)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "way",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)), "torch"],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_copies_go_on_by_themselves(cls: type[LIFModule], way: Any) -> None:
    layer = streaming(cls)
    if way == "torch":
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        copied = torch.load(file, weights_only=False)
    else:
        copied = way(layer)
    chunk = series(6, 2, 7)
    assert torch.equal(copied(chunk), layer(chunk))
    layer(chunk)
    assert not torch.equal(copied.state, layer.state)


TRANSFORMS: dict[str, Any] = {
    "vmap": lambda layer, x: torch.func.vmap(layer)(x),
    "grad": lambda layer, x: torch.func.grad(lambda x: layer(x).sum())(x),
    "jacrev": lambda layer, x: torch.func.jacrev(layer)(x),
    "jvp": lambda layer, x: torch.func.jvp(layer, (x,), (x,)),
    "functional_call": lambda layer, x: torch.func.grad(
        lambda p: torch.func.functional_call(layer, p, (x,)).sum()
    )(dict(layer.named_parameters())),
}


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_refuse_and_leave_the_layer_usable(cls: type[LIFModule], transform: Any) -> None:
    layer, untouched = (streaming(cls, learn_beta=True) for _ in range(2))
    x = series(5, 2, 7)
    with pytest.raises(RuntimeError, match=r"a stateful layer cannot keep its state under .*stateful=False"):
        transform(layer, x)
    assert torch.equal(layer.state, untouched.state)
    assert torch.equal(layer(x), untouched(x))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("way", ["export", "strict export", "trace"])
def test_a_program_has_no_place_for_the_state(cls: type[LIFModule], way: str) -> None:
    """It would begin each call where the export did; and the layer goes on as if it had not been tried."""
    layer, untouched = (streaming(cls) for _ in range(2))
    x = series(5, 2, 7)
    with pytest.raises(Exception, match=r"a stateful layer cannot be exported or traced"):
        if way == "trace":
            torch.jit.trace(layer, (x,))
        else:
            torch.export.export(layer, (x,), strict=way == "strict export")
    assert torch.equal(layer(x), untouched(x))


def test_reset_states_finds_every_layer() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([CurrentLIF(stateful=True, return_state=False), nn.ReLU()])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    stateless = LIF(return_state=False)
    foreign = nn.GRU(7, 7)
    net = nn.Sequential(streaming(LIF), streaming(ReferenceLIF), Inner(), stateless, nn.Linear(7, 7))
    net.add_module("foreign", nn.Identity())
    x = series(5, 2, 7)
    first = net(x)
    assert not torch.equal(net(x), first)
    lif_cuda.reset_states(net)
    assert net[0].state is net[1].state is net[2].layers[0].state is None
    again = net(x)
    lif_cuda.reset_states(net)
    assert torch.equal(net(x), again)
    lif_cuda.reset_states(foreign)
    lif_cuda.reset_states(stateless)
    lone = streaming(LIF)
    lif_cuda.reset_states(lone)
    assert lone.state is None
    with pytest.raises(TypeError, match=r"module must be an nn\.Module, got list"):
        lif_cuda.reset_states([lone])  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("state", [0.5, (torch.zeros(2, 7),), [torch.zeros(2, 7)], "zeros"], ids=str)
def test_a_state_of_another_kind_is_refused(cls: type[LIFModule], state: Any) -> None:
    layer = streaming(cls)
    kept = layer.state
    kind = type(state).__name__
    with pytest.raises(TypeError, match=rf"state must be a tensor.*NeuronState, or None.*got {kind}"):
        layer.reset_state(state)
    assert layer.state is kept
    layer.reset_state(NeuronState(torch.ones(2, 7)))
    assert torch.equal(layer.state, torch.ones(2, 7))


def test_a_state_to_start_from_is_detached_as_any_other() -> None:
    start = torch.zeros(2, 7, requires_grad=True)
    for detach in (True, False):
        layer = LIF(7, stateful=True, detach_state=detach, return_state=False)
        layer.reset_state(start)
        assert layer(series(5, 2, 7)).requires_grad is not detach


@pytest.mark.parametrize("cls", CLASSES)
def test_a_recomputation_does_not_advance_it(cls: type[LIFModule]) -> None:
    layer, plain = (streaming(cls, learn_beta=True) for _ in range(2))
    layer.reset_state(layer.state)  # no calls before it that backward was not called for
    x = series(5, 2, 7).requires_grad_()
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    plain(x.detach())
    assert torch.equal(layer.state, plain.state)


def test_the_state_is_saved_and_loaded() -> None:
    """Under the names that it had as buffers."""
    layer = AdaptiveLIF(stateful=True, save_state=True, return_state=False)
    layer(series(5, 2, 7))
    net = nn.Sequential(nn.Linear(7, 7), layer)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert {"1.state_membrane", "1.state_adaptation"} <= set(saved)
    for assign in (False, True):
        other = AdaptiveLIF(stateful=True, save_state=True, return_state=False)
        twin = nn.Sequential(nn.Linear(7, 7), other)
        twin.load_state_dict(saved, assign=assign)
        chunk = series(6, 2, 7)
        assert torch.equal(twin[1](chunk), copy.deepcopy(layer)(chunk))
        assert torch.equal(saved["1.state_membrane"], layer.state.membrane)
    plain = nn.Sequential(nn.Linear(7, 7), AdaptiveLIF(stateful=True))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*1\.state_membrane"):
        plain.load_state_dict(saved)


def test_a_state_goes_where_the_layer_goes() -> None:
    layer = streaming(IF)
    assert layer.to("meta").state.device.type == "meta"
    layer = streaming(LIF).to_empty(device="meta")
    assert layer.state.device.type == "meta"
    shared = streaming(LIF).share_memory()
    assert shared.state.is_shared()
