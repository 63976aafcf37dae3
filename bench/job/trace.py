"""What one image does inside the spiking network, step by step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lif_cuda.models import SNNClassifier


class Trace(NamedTuple):
    """One image over T steps, on the CPU. N neurons in each of the two layers, C classes.

    ``spikes1``, ``spikes2``: [T, N] zeros and ones. ``before1``: [T, N], the first layer's membrane
    when it is compared with ``threshold``. ``after1``: [T, N], the same after the reset.
    ``logits``: [T, C], summed over the steps so far: the last row is what the network answers.
    """

    spikes1: Tensor
    before1: Tensor
    after1: Tensor
    spikes2: Tensor
    logits: Tensor
    threshold: float


@torch.no_grad()
def record(model: SNNClassifier, image: Tensor, steps: int) -> Trace:
    """Run one image, float32 [pixels], one step at a time.

    Args:
        model: the trained network; its neurons have one threshold, which is a number.
        image: normalised pixels, on the model's device.
        steps: T, at least 1.
    """
    threshold = float(model.lif1.threshold)
    current = model.fc1(image.unsqueeze(0))
    v1: Tensor | None = None
    v2: Tensor | None = None
    rows: list[tuple[Tensor, ...]] = []
    for _ in range(steps):
        s1, v1 = model.lif1.step(current, v1)
        s2, v2 = model.lif2.step(model.fc2(s1), v2)
        # The soft reset takes the threshold off where there was a spike: put back, this is the
        # membrane before it.
        rows.append((s1, v1 + threshold * s1, v1, s2, model.fc3(s2)))
    spikes1, before1, after1, spikes2, logits = (
        torch.cat(column).cpu() for column in zip(*rows, strict=True)
    )
    return Trace(spikes1, before1, after1, spikes2, logits.cumsum(0), threshold)
