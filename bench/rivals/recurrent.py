"""A recurrent layer by hand and by this project, on inputs with which it fires."""

from __future__ import annotations

import torch
from torch import Tensor

from lif_cuda import functional
from rivals.contenders import BETA, SURROGATE, Spike


def loop(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The layer by hand."""
    v = s = torch.zeros_like(x[0])
    spikes = []
    for current in x.unbind(0):
        u = BETA * v + (current + torch.nn.functional.linear(s, weight, bias))
        s = Spike.apply(u - 1.0)
        v = u - s
        spikes.append(s)
    return torch.stack(spikes)


def fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The layer of this project."""
    spikes: Tensor = functional.recurrent_lif(x, weight, BETA, bias=bias, surrogate=SURROGATE)[0]
    return spikes


def draw(steps: int, samples: int, neurons: int) -> list[Tensor]:
    """x, weight and bias with which some tenth of the neurons fire at a step."""
    torch.manual_seed(0)
    x = torch.randn(steps, samples, neurons) * 0.35 + 0.05
    weight = torch.randn(neurons, neurons) * (0.7 / neurons**0.5)
    bias = torch.zeros(neurons)
    return [tensor.requires_grad_() for tensor in (x, weight, bias)]
