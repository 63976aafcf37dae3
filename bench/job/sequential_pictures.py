"""The pictures of bench/sequential_mnist.py: how training went, and what one digit does in the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.picture_style import BLUE, ORANGE, label_ends, new_figure
from job.pictures import say_data

_NETWORKS = (("snn", BLUE), ("snn_reference", ORANGE))


def figures(results: dict[str, Any], spikes: Any, image: Any, label: int) -> dict[str, Figure]:
    """File names and figures; ``spikes`` [T, neurons] are those of the image [rows, columns]."""
    drawn = {"training_curves.png": _curves(results), "spikes.png": _raster(results, spikes, image, label)}
    for figure in drawn.values():
        say_data(figure, results["data"])
    return drawn


def _head(results: dict[str, Any]) -> str:
    settings = results["settings"]
    return (
        f"{results['data']['name']} by {settings['by']}, {settings['steps']} time steps, "
        f"{settings['hidden']} neurons that feed back; {settings['epochs']} epochs, seed {settings['seed']}"
    )


def _curves(results: dict[str, Any]) -> Figure:
    figure = new_figure(3.5, f"Training a recurrent spiking layer\n{_head(results)}")
    left, right = figure.subplots(1, 2)
    for axes, what, title, ylabel in (
        (left, "loss", "Loss, lower is better", "cross entropy"),
        (right, "test_accuracy", "Test accuracy, higher is better", "%"),
    ):
        ends = []
        for key, color in _NETWORKS:
            if key in results:
                line = results[key][f"{what}_by_epoch"]
                axes.plot(range(1, len(line) + 1), line, "o-", color=color, ms=4)
                ends.append((line[-1], results[key]["backend"], color))
        axes.set(title=title, ylabel=ylabel, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        label_ends(axes, ends)
    return figure


def _raster(results: dict[str, Any], spikes: Any, image: Any, label: int) -> Figure:
    figure = new_figure(3.5, f"One digit in the layer\n{_head(results)}")
    grid = figure.add_gridspec(1, 2, width_ratios=[0.7, 2])
    digit = figure.add_subplot(grid[0])
    digit.imshow(image, cmap="gray_r", interpolation="nearest")
    digit.set(title=f"The digit: {label}", xticks=[], yticks=[])
    digit.grid(visible=False)
    axes = figure.add_subplot(grid[1])
    order = np.argsort(-spikes.sum(0), kind="stable")
    when, which = np.nonzero(spikes[:, order])
    axes.plot(when + 1, which + 1, ".", color=BLUE, ms=2)
    axes.set(
        title=f"Spikes, rate {100 * spikes.mean():.1f} %",
        xlabel="time step",
        ylabel="neuron, busiest first",
        xlim=(0, len(spikes) + 1),
        ylim=(spikes.shape[1] + 1, 0),
    )
    return figure
