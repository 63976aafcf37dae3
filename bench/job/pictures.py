"""The pictures of the main job that its results.json is enough for."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from common.picture_style import (
    BLUE,
    ORANGE,
    SKY,
    VERMILION,
    add_note,
    label_ends,
    new_figure,
    plain_log,
)
from lif_cuda import plot

_NETWORKS = (("snn", "SNN", BLUE), ("ann", "ANN", ORANGE))


def figures(results: dict[str, Any]) -> dict[str, Figure]:
    """File names and figures of the results of mnist.py, as they stand in results.json."""
    drawn = {
        "training_curves.png": _curves(results),
        "accuracy.png": _accuracies(results),
        "energy.png": _energy(results),
        "firing_rates.png": _firing_rates(results),
    }
    for figure in drawn.values():
        say_data(figure, results["data"])
    return drawn


def say_data(figure: Figure, data: dict[str, Any]) -> None:
    """Say so if it does not show MNIST: a picture travels without its results.json."""
    if data["warning"]:
        add_note(figure, f"not MNIST: {data['name']}", VERMILION)


def _run(results: dict[str, Any]) -> str:
    """What was trained, in one line."""
    settings, snn = results["settings"], results["snn"]
    sizes = "-".join(str(size) for size in snn["layer_sizes"])
    return (
        f"{results['data']['name']}, {sizes}, T = {settings['steps']}; {settings['epochs']} epochs, "
        f"{settings['schedule']} rate, seed {settings['seed']}"
    )


def _curves(results: dict[str, Any]) -> Figure:
    figure = new_figure(3.9, f"Training the spiking network and the ANN\n{_run(results)}")
    left, right = figure.subplots(1, 2)
    ends: dict[Axes, list[tuple[float, str, str]]] = {left: [], right: []}
    for key, name, color in _NETWORKS:
        report = results[key]
        epochs = range(1, report["epochs"] + 1)
        for axes, what, text in (
            (left, "loss", name),
            (right, "test_accuracy", f"{name}, test"),
            (right, "train_accuracy", f"{name}, training"),
        ):
            line = report[f"{what}_by_epoch"]
            dashed = what == "train_accuracy"
            axes.plot(
                epochs, line, "o--" if dashed else "o-", color=color, ms=4, mfc="white" if dashed else color
            )
            ends[axes].append((line[-1], text, color))
    left.set(title="Loss, lower is better", ylabel="cross entropy (log scale)")
    plain_log(left, "y")
    base = _base(results)
    right.set(title="Accuracy, higher is better", ylabel=f"% ({_from(base)})", ylim=(base, _top(base)))
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        label_ends(axes, ends[axes])
    return figure


def _accuracies(results: dict[str, Any]) -> Figure:
    figure = new_figure(2.3, f"Accuracy after training, higher is better\n{_run(results)}")
    axes = figure.subplots()
    for y, (key, _, color) in enumerate(_NETWORKS):
        for split, face, lift in (("test", color, -0.16), ("training", "white", 0.16)):
            accuracy = results[key][f"{split.removesuffix('ing')}_accuracy"]
            axes.plot([accuracy], [y + lift], "o", color=color, mfc=face, ms=7)
            axes.annotate(
                f"{split} {accuracy:.2f} %",
                (accuracy, y + lift),
                (-9, 0),
                textcoords="offset points",
                ha="right",
                va="center",
            )
    base = _base(results)
    axes.set(xlabel=f"% ({_from(base)})", xlim=(base, _top(base)), ylim=(1.5, -0.5))
    axes.set_yticks(range(len(_NETWORKS)), [name for _, name, _ in _NETWORKS])
    axes.grid(axis="y", visible=False)
    return figure


def _energy(results: dict[str, Any]) -> Figure:
    snn, ann = results["snn"], results["ann"]
    counted, spent = snn["operations"], snn["energy"]
    honest = counted["honest"]["first_layer_macs"] + counted["honest"]["sops"]
    bars = [
        ("SNN, as published", SKY, counted["published"]["sops"], spent["published"]["energy"]),
        ("SNN, honest", BLUE, honest, spent["honest"]["energy"]),
        (
            "SNN, honest, with\nthe neurons' own leak",
            BLUE,
            honest + counted["honest"]["neuron_macs"],
            spent["honest"]["energy_with_neurons"],
        ),
        ("ANN", ORANGE, ann["operations"]["macs"], ann["energy"]["energy"]),
    ]
    figure = new_figure(3.1, f"Operations and energy of one image, lower is better\n{_run(results)}")
    left, right = figure.subplots(1, 2, sharey=True)
    unit = spent["macs_per_ac"]
    for axes, title, name, heights in (
        (left, "Operations", "multiply-accumulates (MACs) and accumulates", [bar[2] for bar in bars]),
        (right, "Energy", f"in MACs, of which an accumulate is {unit:g}", [bar[3] for bar in bars]),
    ):
        drawn = axes.barh(range(len(bars)), heights, 0.62, color=[bar[1] for bar in bars])
        texts = [f"{height:,.0f}" for height in heights]
        if axes is right:
            texts[:-1] = [
                f"{text}\n{_saved(height, heights[-1])}"
                for text, height in zip(texts[:-1], heights, strict=False)
            ]
        axes.bar_label(drawn, texts, padding=3)
        axes.set(title=title, xlabel=name, xlim=(0, 1.38 * max(heights)), ylim=(len(bars) - 0.5, -0.5))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    left.set_yticks(range(len(bars)), [bar[0] for bar in bars])
    return figure


def _firing_rates(results: dict[str, Any]) -> Figure:
    figure = new_figure(2.3, f"Firing rates on the test images\n{_run(results)}")
    plot.firing_rates(results["snn"]["firing_rates"], figure.subplots())
    return figure


def _saved(energy: float, ann: float) -> str:
    """How much less than the ANN, in words."""
    percent = 100 * (1 - energy / ann)
    return f"{abs(percent):.1f} % {'less' if percent > 0 else 'more'}"


def _base(results: dict[str, Any]) -> float:
    """A round number below all accuracies, where their axis starts: from 0 no difference could be seen."""
    lowest = min(
        min(results[key][f"{split}_accuracy_by_epoch"])
        for key, _, _ in _NETWORKS
        for split in ("test", "train")
    )
    return float(max(0.0, 5.0 * np.floor((lowest - 0.2) / 5.0)))


def _top(base: float) -> float:
    """The end of the axis, so that a point at 100 % is whole."""
    return 100.0 + 0.04 * (100.0 - base)


def _from(base: float) -> str:
    return f"the axis starts at {base:g} %" if base else "the axis starts at 0"
