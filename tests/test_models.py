"""lif_cuda.models: the published sizes, and the two identities against the loop that they replace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lif_cuda import LIF, ReferenceLIF, SpikeLinear
from lif_cuda.models import ANNClassifier, SNNClassifier

LAYERS: list[Any] = [LIF, ReferenceLIF]


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def build(layer: Any, *sizes: int, dtype: torch.dtype = torch.float32) -> SNNClassifier:
    torch.manual_seed(3)
    return SNNClassifier(*(sizes or (20, 16, 10)), layer=layer).to(dtype)


def loop(model: SNNClassifier, x: Tensor, steps: int) -> Tensor:
    """The seed's own forward: everything at each time step."""
    v1 = v2 = None
    logits = x.new_zeros(len(x), model.fc3.out_features)
    for _ in range(steps):
        s1, v1 = model.lif1.step(model.fc1(x), v1)
        s2, v2 = model.lif2.step(model.fc2(s1), v2)
        logits = logits + model.fc3(s2)
    return logits


@pytest.mark.parametrize("layer", LAYERS)
def test_snn_has_the_published_parameters(layer: Any) -> None:
    model = SNNClassifier(layer=layer)
    assert parameters(model) == 269_834
    decays = [p for name, p in model.named_parameters() if name.endswith("beta_logit")]
    assert sum(p.numel() for p in decays) == 512
    for decay in decays:
        torch.testing.assert_close(torch.sigmoid(decay), torch.full((256,), 0.9))


def test_ann_has_the_published_parameters() -> None:
    assert parameters(ANNClassifier()) == 269_322


def test_fused_and_reference_are_one_network() -> None:
    """Same seed, same keys, same bits."""
    fused, reference = build(LIF), build(ReferenceLIF)
    assert list(fused.state_dict()) == list(reference.state_dict())
    for key, value in fused.state_dict().items():
        assert torch.equal(value, reference.state_dict()[key]), key
    x = 2 * torch.randn(7, 20)
    assert torch.equal(fused(x), reference(x))
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.mul_(1.01)
    reference.load_state_dict(fused.state_dict())
    assert torch.equal(fused(x), reference(x))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_forward_and_gradients_are_those_of_the_loop(layer: Any, steps: int) -> None:
    """In fp64 no membrane is so near the threshold that the order of a sum decides on a spike."""
    model = build(layer, dtype=torch.float64)
    x = (2 * torch.randn(9, 20, dtype=torch.float64)).requires_grad_()
    labels = torch.arange(9)
    inputs = [x, *model.parameters()]

    def differentiate(logits: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return logits, torch.autograd.grad(loss, inputs)

    logits, gradients = differentiate(model(x, num_steps=steps))
    wanted, wanted_gradients = differentiate(loop(model, x, steps))
    torch.testing.assert_close(logits, wanted, rtol=1e-12, atol=1e-12)
    for found, want in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-12)
    assert sum(float(g.abs().sum()) for g in gradients) > 0


@pytest.mark.parametrize("layer", LAYERS)
def test_default_is_25_steps(layer: Any) -> None:
    model = build(layer)
    x = torch.randn(3, 20)
    assert torch.equal(model(x), model(x, num_steps=25))
    assert not torch.equal(model(x), model(x, num_steps=24))


@pytest.mark.parametrize("model", [SNNClassifier(12, 8, 3), ANNClassifier(12, 8, 3)])
def test_images_keep_their_own_shape(model: torch.nn.Module) -> None:
    x = torch.randn(5, 1, 3, 4)
    assert model(x).shape == (5, 3)
    assert torch.equal(model(x), model(x.flatten(1)))


@pytest.mark.parametrize("layer", LAYERS)
def test_empty_batch_and_no_steps(layer: Any) -> None:
    model = build(layer)
    assert model(torch.randn(0, 20)).shape == (0, 10)
    assert torch.equal(model(torch.randn(4, 20), num_steps=0), torch.zeros(4, 10))


def test_bad_steps_are_named() -> None:
    model = build(LIF)
    with pytest.raises(ValueError, match="num_steps must be at least 0, got -1"):
        model(torch.randn(2, 20), num_steps=-1)
    with pytest.raises(TypeError, match="num_steps must be an int"):
        model(torch.randn(2, 20), num_steps=2.5)


@pytest.mark.parametrize("layer", LAYERS)
def test_options_reach_the_layers(layer: Any) -> None:
    model = SNNClassifier(4, 3, 2, beta=0.5, threshold=0.7, detach_reset=True, layer=layer)
    for lif in (model.lif1, model.lif2):
        assert lif.detach_reset and lif.threshold == 0.7
        torch.testing.assert_close(lif.beta, torch.full((3,), 0.5))


def test_events_and_dense_are_one_network() -> None:
    """The same weights, and the same numbers but for the order of the second Linear's sums."""
    torch.manual_seed(3)
    events = SNNClassifier(20, 80, 10)
    torch.manual_seed(3)
    dense = SNNClassifier(20, 80, 10, linear="dense")
    assert list(events.state_dict()) == list(dense.state_dict())
    for key, value in events.state_dict().items():
        assert torch.equal(value, dense.state_dict()[key]), key
    assert isinstance(events.fc2, SpikeLinear) and not isinstance(dense.fc2, SpikeLinear)
    assert events.lif1.output == "packed" and dense.lif1.output == "spikes"
    x, labels = 2 * torch.randn(9, 20, dtype=torch.float64), torch.arange(9)
    found = []
    for model in (events.double(), dense.double()):
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        found.append([model(x), *torch.autograd.grad(loss, [*model.parameters()])])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_events_are_dense_elsewhere() -> None:
    """On another device than the CPU the first layer writes no bits; back on it, it does."""
    model = SNNClassifier(20, 80, 10).to("meta")
    assert model.lif1.output == "spikes"
    assert model.to_empty(device="cpu").lif1.output == "packed"


def test_a_wrong_linear_is_named() -> None:
    with pytest.raises(ValueError, match="linear must be one of 'events', 'dense'; got 'sparse'"):
        SNNClassifier(linear="sparse")  # type: ignore[arg-type]
