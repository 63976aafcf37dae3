"""The picture of one image in the trained network: spikes, membranes and the answer, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from common.picture_style import BLUE, PALE, label_ends, new_figure
from job.trace import Trace
from lif_cuda import plot


def figure_of(trace: Trace, image: Any, label: int) -> Figure:
    """Draw one image.

    Args:
        trace: the image in the trained network.
        image: [rows, columns], larger is brighter.
        label: the digit it shows.
    """
    steps = len(trace.spikes1)
    figure = new_figure(
        5.6,
        f"One digit in the spiking network, {steps} time steps\n"
        "Dots: spikes, where a membrane passes its threshold (dashed)",
    )
    grid = figure.add_gridspec(4, 3, width_ratios=[0.8, 1.2, 1.1])
    _digit(figure.add_subplot(grid[:2, 0]), image, label)
    answer = figure.add_subplot(grid[2:, 0])
    _logits(answer, trace)
    first = figure.add_subplot(grid[:2, 1])
    second = figure.add_subplot(grid[2:, 1], sharex=first)
    _raster(first, trace.spikes1, 1)
    _raster(second, trace.spikes2, 2)
    first.tick_params(labelbottom=False)
    rows: list[Axes] = []
    for place, neuron in enumerate(_some_neurons(trace)):
        rows.append(figure.add_subplot(grid[place, 2], sharex=rows[0] if rows else None))
        _membrane(rows[-1], trace, neuron)
        rows[-1].tick_params(labelbottom=False)
    rows[0].set_title("Membranes of layer 1")
    rows[-1].tick_params(labelbottom=True)
    for axes in (answer, second, rows[-1]):
        axes.set_xlabel("time step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def _digit(axes: Axes, image: Any, label: int) -> None:
    axes.imshow(image, cmap="gray_r", interpolation="nearest")
    axes.set(title=f"The digit: {label}", xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(True)


def _logits(axes: Axes, trace: Trace) -> None:
    answer = int(trace.logits[-1].argmax())
    steps = range(1, len(trace.logits) + 1)
    for digit, line in enumerate(trace.logits.T):
        if digit != answer:
            axes.plot(steps, line, color=PALE, lw=1)
    axes.plot(steps, trace.logits[:, answer], color=BLUE, lw=2, zorder=3)
    axes.set_title("Sum of the logits")
    label_ends(axes, [(float(trace.logits[-1, answer]), str(answer), BLUE)])


def _raster(axes: Axes, spikes: Tensor, layer: int) -> None:
    plot.raster(spikes, axes, busiest_first=True)
    firing = int((spikes.sum(0) > 0).sum())
    rate = 100 * float(spikes.mean())
    axes.set(title=f"Layer {layer}: {firing} of {spikes.shape[1]} fire, rate {rate:.1f} %", xlabel="")


def _some_neurons(trace: Trace) -> list[int]:
    """Four neurons, from one that fires at most steps to a silent one near its threshold."""
    counts = trace.spikes1.sum(0)
    steps = len(trace.spikes1)
    wanted = [int((counts - share * steps).abs().argmin()) for share in (0.75, 0.4, 0.15)]
    peak = trace.before1.max(0).values.masked_fill(counts > 0, -np.inf)
    return list(dict.fromkeys([*wanted, int(peak.argmax())]))


def _membrane(axes: Axes, trace: Trace, neuron: int) -> None:
    plot.membrane(
        trace.before1[:, neuron],
        axes,
        after=trace.after1[:, neuron],
        spikes=trace.spikes1[:, neuron],
        threshold=trace.threshold,
    )
    axes.set_xlabel("")
    axes.set_ylabel(f"neuron {neuron}", fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(3))
