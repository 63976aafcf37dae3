"""Operation counts and energy of a spiking MLP against the same MLP with ReLU, by pure arithmetic.

Units. All counts are per inference (one image, all T steps). A MAC is a multiply-accumulate, what a
real-valued input costs on each synapse. A SOP is a synaptic operation: a spike needs no product, so
it costs one accumulate (AC) on each synapse it reaches. Energy is in units of one MAC; the
published comparison takes AC = MAC/5 (Horowitz, "Computing's energy problem", ISSCC 2014: in 45 nm,
fp32, 0.9 pJ against 4.6 pJ).

Two figures are computed, and they must not be mixed up.

**As published.** One mean firing rate, that of the hidden neurons, is applied to every synapse at
every step, those of the first layer included::

    SOPs = MACs * T * rate          268,800 * 25 * 9.669 % = 649,765
    energy = SOPs * AC / MAC        649,765 / 5            = 129,953, 51.7 % below 268,800

The first layer's inputs are pixels, not spikes: counting them as accumulates at the hidden firing
rate is not what any device would do. The figure is here to compare with what was published.

**The honest count.** Each layer by what drives it::

    layer 1: pixels              inputs * hidden MACs, once: the input is the same at each step, so
                                 its current is computed once and held (a device that cannot hold it
                                 pays this T times, and loses to the ReLU network)
    layer k: spikes of layer k-1 (spikes per image, measured) * fan-out SOPs
    neurons: leak                T * neurons MACs, reported apart: beta * v + x for each, each step

The last layer is counted as a spike-driven device runs it, one SOP for each of its 10 synapses and
each spike of the second LIF layer. This library instead multiplies the spike counts by the weights
once, which is the dense ``hidden * classes`` MACs; that difference is under 1 % of the total.
**What was executed.** The additions that a :class:`lif_cuda.SpikeLinear` did, counted while it did them
(:func:`count_additions`), in place of rates: the honest count of a network of which that layer is the
second, with the last layer as it runs, on spike counts::

    layer 1: inputs * hidden MACs, once
    layer 2: additions of the events, and only those
    layer 3: hidden * classes MACs, once, on the counts

Biases, as in the published count, are left out on both sides, and the ReLU network is not given
credit for its own zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from ._check import type_name
from ._spike_conv import SpikeConv2d
from ._spike_linear import SpikeLinear, Tally

_Counted = SpikeLinear | SpikeConv2d

MACS_PER_AC = 1 / 5


@dataclass(frozen=True)
class Published:
    """The published-style figure. Counts per inference, energies in MACs.

    Attributes:
        rate: mean firing rate of the hidden neurons, spikes per neuron and step, 0 to 1.
        sops: ``macs * steps * rate``.
        macs: those of the ReLU network.
        energy: of the spiking network, ``sops * MACS_PER_AC``.
        saving_percent: by how much that is below ``macs``; negative if it is above.
    """

    rate: float
    sops: float
    macs: int
    energy: float
    saving_percent: float


@dataclass(frozen=True)
class Honest:
    """The count of what each layer really does. Counts per inference, energies in MACs.

    Attributes:
        first_layer_macs: pixels times synapses, once.
        sops_by_layer: for each later layer, the spikes that enter it times its fan-out.
        sops: their sum.
        macs: those of the ReLU network.
        energy: of the synapses, ``first_layer_macs + sops * MACS_PER_AC``.
        saving_percent: by how much that is below ``macs``; negative if it is above.
        neuron_macs: one for each neuron and step, for the leak.
        energy_with_neurons: ``energy + neuron_macs``.
        saving_percent_with_neurons: by how much that is below ``macs``.
    """

    first_layer_macs: int
    sops_by_layer: tuple[float, ...]
    sops: float
    macs: int
    energy: float
    saving_percent: float
    neuron_macs: int
    energy_with_neurons: float
    saving_percent_with_neurons: float


@dataclass(frozen=True)
class Executed:
    """What a network with a :class:`lif_cuda.SpikeLinear` executed. Counts per inference, energies in MACs.

    Attributes:
        additions: of the layers that add rows for spikes.
        macs: of the other layers, which multiply.
        energy: ``macs + additions * MACS_PER_AC``.
        saving_percent: by how much that is below the MACs of the ReLU network; negative if it is above.
    """

    additions: float
    macs: int
    energy: float
    saving_percent: float


class Additions:
    """The additions of the layers of a module that add for spikes, by name, while they run."""

    def __init__(self, layers: dict[str, _Counted]) -> None:
        self._layers = layers
        self._tallies = {name: Tally() for name in layers}

    def by_layer(self) -> dict[str, int]:
        """So far: for each spike that entered a layer, one for each of its outputs; of a convolution, one for
        each channel and each time that a spike lay under the kernel.
        """
        return {name: tally.spikes() * self._layers[name].fan_out for name, tally in self._tallies.items()}

    def total(self) -> int:
        """Of all layers together."""
        return sum(self.by_layer().values())


@contextmanager
def count_additions(module: nn.Module) -> Iterator[Additions]:
    """While open, count the additions that the layers of ``module`` do forward which are
    :class:`lif_cuda.SpikeLinear` or :class:`lif_cuda.SpikeConv2d`.

    On the CPU the kernels count the spikes that they read anyway. On CUDA an ordinary product runs; of a
    ``SpikeLinear`` the additions that it stands for are counted, by one more pass over the spikes, and of a
    convolution none.

    Raises:
        TypeError: ``module`` is no ``nn.Module``.
        RuntimeError: they are being counted already.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type_name(module)}")
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, _Counted)}
    for name, layer in layers.items():
        if layer._tally is not None:
            raise RuntimeError(f"the additions of {name or 'module'} are being counted already")
    additions = Additions(layers)
    try:
        for name, layer in layers.items():
            layer._tally = additions._tallies[name]
        yield additions
    finally:
        for layer in layers.values():
            layer._tally = None


def dense_macs(sizes: Sequence[int]) -> int:
    """Synapses of an MLP, which are its MACs per inference: 268,800 for (784, 256, 256, 10).

    Args:
        sizes: neurons of each layer, the input first.

    Raises:
        ValueError: fewer than two layers, or a size below 1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes must be at least two layer sizes, each at least 1, got {tuple(sizes)}")
    return sum(before * after for before, after in zip(sizes[:-1], sizes[1:], strict=True))


def firing_rate(spikes: float, images: int, steps: int, neurons: int) -> float:
    """Mean spikes per neuron and time step, 0 to 1.

    Args:
        spikes: of the whole layer, over all images and steps.
        images, steps, neurons: what they are shared by, each at least 1.

    Raises:
        ValueError: an argument is out of range, or there are more spikes than neuron-steps.
    """
    for name, value in (("images", images), ("steps", steps), ("neurons", neurons)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    possible = images * steps * neurons
    if not 0 <= spikes <= possible:
        raise ValueError(f"spikes must be from 0 to images * steps * neurons = {possible}, got {spikes}")
    return spikes / possible


def mean_rate(rates: Sequence[float], neurons: Sequence[int]) -> float:
    """The mean firing rate over the neurons of several layers.

    Args:
        rates: of each layer, 0 to 1.
        neurons: of each layer.

    Raises:
        ValueError: the two differ in length, or there are none.
    """
    if len(rates) != len(neurons) or not rates:
        raise ValueError(
            f"rates and neurons must have one entry per layer, got {len(rates)} and {len(neurons)}"
        )
    return math.fsum(r * n for r, n in zip(rates, neurons, strict=True)) / sum(neurons)


def published(sizes: Sequence[int], steps: int, rates: Sequence[float]) -> Published:
    """The energy figure as it was published; see the head of this module for its flaw.

    Args:
        sizes: neurons of each layer, the input first: (784, 256, 256, 10).
        steps: time steps T.
        rates: firing rate of each hidden layer, 0 to 1.

    Raises:
        ValueError: an argument is out of range, or there is not one rate for each hidden layer.
    """
    macs = dense_macs(sizes)
    _check(sizes, steps, rates)
    rate = mean_rate(rates, sizes[1:-1])
    sops = macs * steps * rate
    energy = sops * MACS_PER_AC
    return Published(rate, sops, macs, energy, _saving(energy, macs))


def honest(sizes: Sequence[int], steps: int, rates: Sequence[float]) -> Honest:
    """Each layer counted by what drives it; see the head of this module.

    Args, Raises: as for :func:`published`.
    """
    macs = dense_macs(sizes)
    _check(sizes, steps, rates)
    hidden = sizes[1:-1]
    sops_by_layer = tuple(
        rate * steps * neurons * fan_out
        for rate, neurons, fan_out in zip(rates, hidden, sizes[2:], strict=True)
    )
    first = sizes[0] * sizes[1]
    sops = math.fsum(sops_by_layer)
    energy = first + sops * MACS_PER_AC
    neurons = steps * sum(hidden)
    return Honest(
        first_layer_macs=first,
        sops_by_layer=sops_by_layer,
        sops=sops,
        macs=macs,
        energy=energy,
        saving_percent=_saving(energy, macs),
        neuron_macs=neurons,
        energy_with_neurons=energy + neurons,
        saving_percent_with_neurons=_saving(energy + neurons, macs),
    )


def executed(sizes: Sequence[int], images: int, additions: float) -> Executed:
    """What was executed, from the additions of the second layer; see the head of this module.

    Args:
        sizes: neurons of each layer, the input first: (784, 256, 256, 10).
        images: how many were classified, at least 1.
        additions: for all of them together, as :func:`count_additions` has them.

    Raises:
        ValueError: an argument is out of range.
    """
    macs = dense_macs(sizes)
    if len(sizes) != 4:
        raise ValueError(f"sizes must be those of four layers, got {tuple(sizes)}")
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    if additions < 0:
        raise ValueError(f"additions must be at least 0, got {additions}")
    own = sizes[0] * sizes[1] + sizes[2] * sizes[3]
    each = additions / images
    energy = own + each * MACS_PER_AC
    return Executed(each, own, energy, _saving(energy, macs))


def _saving(energy: float, macs: int) -> float:
    return 100.0 * (1.0 - energy / macs)


def _check(sizes: Sequence[int], steps: int, rates: Sequence[float]) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if len(sizes) < 3 or len(rates) != len(sizes) - 2:
        raise ValueError(
            f"rates must have one firing rate for each hidden layer of sizes {tuple(sizes)}, got {len(rates)}"
        )
    for rate in rates:
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"rates must lie in [0, 1], got {rate}")
