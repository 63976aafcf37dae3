"""A linear layer that is driven by spikes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from . import _events
from ._packed import PackedSpikes


class Tally:
    """The additions of layers, counted while they run."""

    def __init__(self) -> None:
        self._spikes: list[Any] = []

    def add(self, spikes: Any) -> None:
        """So many spikes went through a layer: a number, or a tensor of one."""
        self._spikes.append(spikes)
        if len(self._spikes) >= 1024:
            self._spikes = [self.spikes()]

    def spikes(self) -> int:
        """The spikes so far."""
        return sum(int(spikes) for spikes in self._spikes)


class SpikeLinear(nn.Linear):
    """:class:`torch.nn.Linear` for spikes: the same parameters, keys and initial values, in place of it.

    On the CPU it adds the rows of its weight that a spike is set for, and multiplies nothing
    (:func:`lif_cuda.functional.spike_linear`). ``spikes`` are zeros and ones, [..., in_features], a tensor or
    the :class:`lif_cuda.PackedSpikes` of a layer with ``output="packed"``; other numbers raise a ValueError.

    :func:`lif_cuda.energy.count_additions` counts what it adds.
    """

    _tally: Tally | None = None

    def forward(self, input: Tensor | PackedSpikes) -> Tensor:
        y, spikes = _events.spike_linear(input, self.weight, self.bias)
        if self._tally is not None:
            if spikes is None:
                dense = input.dense() if isinstance(input, PackedSpikes) else input
                spikes = (dense != 0).sum()
            self._tally.add(spikes)
        return y

    @property
    def fan_out(self) -> int:
        """Additions for a spike."""
        return self.out_features
