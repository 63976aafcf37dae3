"""lif_cuda.energy: the published figures come out, and the honest count is what it says it is."""

from __future__ import annotations

import pytest
import torch

from lif_cuda import energy
from lif_cuda.models import SNNClassifier

SIZES = (784, 256, 256, 10)


def test_dense_macs_of_the_seed_network() -> None:
    assert energy.dense_macs(SIZES) == 268_800


def test_published_figure() -> None:
    """649,765 SOPs and 51.7 % less energy, at the published mean firing rate of 9.67 %."""
    rate = 649_765 / (268_800 * 25)
    assert round(100 * rate, 2) == 9.67
    found = energy.published(SIZES, 25, [rate, rate])
    assert round(found.sops) == 649_765
    assert found.macs == 268_800
    assert round(found.energy) == 129_953
    assert round(found.saving_percent, 1) == 51.7


def test_published_figure_knows_only_the_mean_rate() -> None:
    one, other = energy.published(SIZES, 25, [0.1, 0.2]), energy.published(SIZES, 25, [0.2, 0.1])
    assert one == other
    assert one.rate == pytest.approx(0.15)


def test_honest_count_by_hand() -> None:
    found = energy.honest((6, 4, 3, 2), steps=10, rates=[0.5, 0.1])
    assert found.first_layer_macs == 24
    # 10 steps * 4 neurons * 0.5 = 20 spikes on 3 synapses; 10 * 3 * 0.1 = 3 spikes on 2.
    assert found.sops_by_layer == pytest.approx((60.0, 6.0))
    assert found.sops == pytest.approx(66.0)
    assert found.energy == pytest.approx(24 + 66 / 5)
    assert found.macs == 24 + 12 + 6
    assert found.saving_percent == pytest.approx(100 * (1 - 37.2 / 42))
    assert found.neuron_macs == 10 * 7
    assert found.energy_with_neurons == pytest.approx(37.2 + 70)
    assert found.saving_percent_with_neurons < 0


def test_honest_count_counts_each_spike_on_each_synapse() -> None:
    """Against spikes that are counted one by one in a network."""
    torch.manual_seed(0)
    model, steps, images = SNNClassifier(12, 8, 3), 6, 5
    x = 2 * torch.randn(images, 12)
    v1 = v2 = None
    sops = [0.0, 0.0]
    spikes = [0.0, 0.0]
    with torch.no_grad():
        for _ in range(steps):
            s1, v1 = model.lif1.step(model.fc1(x), v1)
            s2, v2 = model.lif2.step(model.fc2(s1), v2)
            for k, (s, layer) in enumerate(((s1, model.fc2), (s2, model.fc3))):
                reached = (layer.weight != 0).double().sum(0)
                sops[k] += float((s.double() * reached).sum())
                spikes[k] += float(s.sum())
    rates = [energy.firing_rate(n, images, steps, 8) for n in spikes]
    assert spikes[0] > 0
    found = energy.honest((12, 8, 8, 3), steps, rates)
    assert found.sops_by_layer == pytest.approx([n / images for n in sops])


def test_silent_network_pays_for_its_pixels() -> None:
    assert energy.published(SIZES, 25, [0.0, 0.0]).energy == 0
    assert energy.honest(SIZES, 25, [0.0, 0.0]).energy == 784 * 256


def test_mean_rate_is_over_neurons() -> None:
    assert energy.mean_rate([0.1, 0.4], [100, 50]) == pytest.approx(0.2)


def test_firing_rate() -> None:
    assert energy.firing_rate(50, images=2, steps=5, neurons=10) == 0.5


@pytest.mark.parametrize("sizes", [(), (5,), (5, 0, 2), (5, -1)])
def test_bad_sizes(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sizes must be"):
        energy.dense_macs(sizes)


@pytest.mark.parametrize("count", [energy.published, energy.honest])
def test_bad_arguments(count: object) -> None:
    assert callable(count)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        count(SIZES, 0, [0.1, 0.1])
    with pytest.raises(ValueError, match=r"one firing rate for each hidden layer.*got 1"):
        count(SIZES, 25, [0.1])
    with pytest.raises(ValueError, match="got 0"):
        count((784, 10), 25, [])
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], got 9.67"):
        count(SIZES, 25, [9.67, 0.1])
    with pytest.raises(ValueError, match="got nan"):
        count(SIZES, 25, [float("nan"), 0.1])


def test_bad_firing_rates() -> None:
    with pytest.raises(ValueError, match="neurons must be at least 1"):
        energy.firing_rate(1, 1, 1, 0)
    with pytest.raises(ValueError, match="spikes must be from 0 to"):
        energy.firing_rate(101, 2, 5, 10)
    with pytest.raises(ValueError, match="one entry per layer"):
        energy.mean_rate([0.1], [1, 2])


def test_executed_additions_are_the_honest_ones() -> None:
    """What the layer counted is what its spikes make."""
    torch.manual_seed(0)
    model, steps, images = SNNClassifier(12, 8, 3), 6, 5
    x = 2 * torch.randn(images, 12)
    with torch.no_grad(), energy.count_additions(model) as additions:
        model(x, num_steps=steps)
        spikes = int(model.lif1(model.fc1(x), steps=steps).count())
    assert additions.by_layer() == {"fc2": 8 * spikes} and spikes > 0
    found = energy.executed((12, 8, 8, 3), images, additions.total())
    rate = energy.firing_rate(spikes, images, steps, 8)
    assert found.additions == pytest.approx(energy.honest((12, 8, 8, 3), steps, [rate, 0.0]).sops)
    assert found.macs == 12 * 8 + 8 * 3
    assert found.energy == pytest.approx(found.macs + found.additions / 5)
    assert found.saving_percent == pytest.approx(100 * (1 - found.energy / (12 * 8 + 64 + 24)))


def test_executed_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="sizes must be those of four layers"):
        energy.executed((12, 8, 3), 1, 0)
    with pytest.raises(ValueError, match="images must be at least 1, got 0"):
        energy.executed(SIZES, 0, 0)
    with pytest.raises(ValueError, match="additions must be at least 0, got -1"):
        energy.executed(SIZES, 1, -1)
