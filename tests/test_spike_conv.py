"""The convolution that is driven by spikes, against torch's, and its sums against NumPy's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_events import added, assert_bits
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as nnf

from lif_cuda import SpikeConv2d
from lif_cuda.energy import count_additions

OPTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 5, "padding": 2, "bias": False},
    {"kernel_size": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1)},
    {"kernel_size": 3, "dilation": (2, 1), "padding": "same"},
    {"kernel_size": 4, "padding": "valid", "stride": 3},
]


def layers(channels: int, outputs: int, **options: Any) -> tuple[SpikeConv2d, nn.Conv2d]:
    """The same layer twice."""
    made = []
    for cls in (SpikeConv2d, nn.Conv2d):
        torch.manual_seed(4)
        made.append(cls(channels, outputs, **options))
    assert list(made[0].state_dict()) == list(made[1].state_dict())
    return made[0], made[1]


def fired(*shape: int, rate: float = 0.2) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < rate).float()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("channels", [1, 7, 64, 70])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_the_convolution(options: dict[str, Any], channels: int, layout: torch.memory_format) -> None:
    events, dense = layers(channels, 9, **options)
    outcomes = []
    for layer in (events, dense):
        spikes = fired(3, channels, 10, 11).to(memory_format=layout).requires_grad_()
        y = layer(spikes)
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        y.backward(grad)
        outcomes.append([y.detach(), spikes.grad, *(p.grad for p in layer.parameters())])
    for mine, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_order_of_its_sums(dtype: torch.dtype) -> None:
    """Taps row by row, of each the channels, ascending: each addition rounded once."""
    layer = SpikeConv2d(70, 9, 3, padding=1).to(dtype)
    spikes = fired(2, 70, 5, 4).to(dtype)
    rows = nnf.pad(spikes, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
    rows = rows.permute(0, 2, 3, 4, 5, 1).reshape(40, 9 * 70)
    columns = layer.weight.detach().permute(2, 3, 1, 0).reshape(9 * 70, 9)
    assert layer.bias is not None
    state = torch.float64 if dtype == torch.float64 else torch.float32
    start = 0 + layer.bias.detach().to(state).expand(40, 9)
    wanted = added(rows.to(state), columns.to(state), start.contiguous()).to(dtype)
    assert_bits(layer(spikes).detach().permute(0, 2, 3, 1).reshape(40, 9), wanted)


def test_no_images_and_no_spikes() -> None:
    events, dense = layers(5, 4, kernel_size=3)
    assert events(torch.zeros(0, 5, 6, 6)).shape == (0, 4, 4, 4)
    assert torch.equal(events(torch.zeros(2, 5, 6, 6)), dense(torch.zeros(2, 5, 6, 6)))


def test_additions() -> None:
    layer = SpikeConv2d(3, 4, 3)
    spikes = torch.zeros(1, 3, 5, 5)
    spikes[0, 1, 2, 2] = 1  # under the kernel at each of its nine places
    spikes[0, 2, 0, 0] = 1  # and at one
    with count_additions(layer) as additions:
        layer(spikes)
    assert additions.total() == 4 * (9 + 1)


def test_what_is_refused() -> None:
    layer = SpikeConv2d(3, 4, 3)
    spikes = fired(1, 3, 5, 5)
    with pytest.raises(ValueError, match=r"zeros and ones.*nn\.Conv2d"):
        layer(2 * spikes + 1)
    with pytest.raises(ValueError, match=r"spikes must be \[images, 3, rows, columns\]"):
        layer(spikes[0])
    with pytest.raises(TypeError, match="dtype of the weight"):
        layer(spikes.double())
    for options in ({"groups": 3}, {"padding_mode": "circular"}):
        with pytest.raises(ValueError, match=r"groups=1 and padding_mode='zeros'.*nn\.Conv2d"):
            SpikeConv2d(3, 3, 3, **options)
    with pytest.raises(ValueError, match="a kernel of odd size"):
        SpikeConv2d(3, 4, 2, padding="same")(spikes)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(layer(spikes).sum(), layer.weight, create_graph=True)
    with pytest.raises(NotImplementedError, match="eager mode alone"):
        torch.vmap(layer)(spikes.unsqueeze(0))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        layer(forward_ad.make_dual(spikes, spikes))
