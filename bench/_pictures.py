"""The pictures of the main job, as PNG files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from _files import write_atomically
from _trace import Trace
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

# Okabe and Ito's colours, which the colour-blind can tell apart.
_SNN, _ANN, _HONEST, _SPIKE, _GREY = "#0072B2", "#E69F00", "#56B4E9", "#D55E00", "#666666"

_STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
    "savefig.dpi": 150,
    "savefig.facecolor": "white",
}


def draw_all(out: Path, results: dict[str, Any], trace: Trace, image: Any, label: int) -> list[Path]:
    """Draw all pictures into ``out`` and return their paths.

    Args:
        out: an existing folder.
        results: as they stand in results.json.
        trace: one image in the trained network.
        image: that image, [rows, columns], larger is brighter.
        label: the digit it shows.
    """
    with plt.rc_context(_STYLE):
        figures = {
            "training_curves.png": _curves(results),
            "accuracy.png": _accuracies(results),
            "energy.png": _energy(results),
            "spikes.png": _spikes(trace, image, label),
        }
    paths = []
    for name, figure in figures.items():
        path = out / name
        with plt.rc_context(_STYLE):
            write_atomically(path, partial(figure.savefig, format="png"))
        plt.close(figure)
        paths.append(path)
    return paths


def _data_line(figure: Figure, results: dict[str, Any]) -> None:
    """Say so if it does not show MNIST: a picture travels without its results.json."""
    if results["data"]["warning"]:
        text = f"not MNIST: {results['data']['name']}"
        figure.text(0.995, 0.005, text, ha="right", va="bottom", color=_SPIKE, fontsize=9)


def _curves(results: dict[str, Any]) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for key, name, color in (("snn", "SNN", _SNN), ("ann", "ANN", _ANN)):
        report = results[key]
        epochs = range(1, report["epochs"] + 1)
        look = {"color": color, "ms": 4}
        test, train = report["test_accuracy_by_epoch"], report["train_accuracy_by_epoch"]
        left.plot(epochs, report["loss_by_epoch"], "o-", label=name, **look)
        right.plot(epochs, test, "o-", label=f"{name}, test", **look)
        right.plot(epochs, train, "o--", label=f"{name}, train", mfc="white", **look)
    left.set(title="Training loss", xlabel="epoch", ylabel="cross entropy", yscale="log")
    right.set(title="Accuracy", xlabel="epoch", ylabel="%")
    # A label at 1, 2 and 5 of each decade: all nine would run into each other.
    left.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.yaxis.set_minor_formatter(NullFormatter())
    left.legend()
    right.legend(ncols=2, loc="lower right")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _data_line(figure, results)
    return figure


def _accuracies(results: dict[str, Any]) -> Figure:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for offset, split, shade in ((-0.2, "test", 1.0), (0.2, "train", 0.45)):
        heights = [results[key][f"{split}_accuracy"] for key in ("snn", "ann")]
        bars = axes.bar([0 + offset, 1 + offset], heights, 0.36, color=[_SNN, _ANN], alpha=shade)
        labels = [f"{split}\n{height:.2f} %" for height in heights]
        axes.bar_label(bars, labels, padding=3, fontsize=10)
    axes.set_xticks([0, 1], ["SNN", "ANN"])
    axes.set(title="Accuracy after training", ylabel="%", ylim=_zoom(results))
    axes.grid(axis="x", visible=False)
    _data_line(figure, results)
    return figure


def _energy(results: dict[str, Any]) -> Figure:
    snn, ann = results["snn"], results["ann"]
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    _bars(
        panels[0],
        "Test accuracy",
        "%",
        [("SNN", snn["test_accuracy"], _SNN), ("ANN", ann["test_accuracy"], _ANN)],
        "{:.2f}",
    )
    panels[0].set_ylim(_zoom(results))
    honest = snn["operations"]["honest"]
    macs = ann["operations"]["macs"]
    _bars(
        panels[1],
        "Operations an image",
        "SOPs or MACs",
        [
            ("SNN,\nas published", snn["operations"]["published"]["sops"], _SNN),
            ("SNN,\nhonest", honest["first_layer_macs"] + honest["sops"], _HONEST),
            ("ANN", macs, _ANN),
        ],
        "{:,.0f}",
    )
    _bars(
        panels[2],
        "Energy an image, AC = MAC/5",
        "in MACs",
        [
            ("SNN,\nas published", snn["energy"]["published"]["energy"], _SNN),
            ("SNN,\nhonest", snn["energy"]["honest"]["energy"], _HONEST),
            ("ANN", ann["energy"]["energy"], _ANN),
        ],
        "{:,.0f}",
    )
    for panel in panels[1:]:
        panel.yaxis.set_major_formatter(FuncFormatter(_thousands))
    _data_line(figure, results)
    return figure


def _thousands(value: float, _: int) -> str:
    return f"{value / 1000:,.0f}k" if value else "0"


def _bars(axes: Axes, title: str, unit: str, bars: list[tuple[str, float, str]], pattern: str) -> None:
    names, heights, colors = zip(*bars, strict=True)
    drawn = axes.bar(names, heights, 0.6, color=colors)
    axes.bar_label(drawn, [pattern.format(height) for height in heights], padding=3)
    axes.set(title=title, ylabel=unit)
    axes.margins(y=0.12)
    axes.grid(axis="x", visible=False)


def _zoom(results: dict[str, Any]) -> tuple[float, float]:
    """From a round number below the lowest bar: from 0 no difference could be seen."""
    lowest = min(results[key][f"{split}_accuracy"] for key in ("snn", "ann") for split in ("test", "train"))
    base = max(0.0, 5.0 * np.floor((lowest - 1.0) / 5.0))
    return base, 100.0 + 0.14 * (100.0 - base)


def _spikes(trace: Trace, image: Any, label: int) -> Figure:
    steps = len(trace.spikes1)
    figure = plt.figure(figsize=(12, 6), layout="constrained")
    columns: Any = figure.subfigures(1, 3, width_ratios=[0.8, 1.25, 1.1])
    left, middle, right = columns

    top, bottom = left.subplots(2, 1)
    top.imshow(image, cmap="gray_r", interpolation="nearest")
    top.set(title=f"The digit: {label}", xticks=[], yticks=[])
    top.grid(visible=False)
    for spine in top.spines.values():
        spine.set_visible(True)
    answer = int(trace.logits[-1].argmax())
    for digit, line in enumerate(trace.logits.T):
        leads = digit == answer
        bottom.plot(
            range(1, steps + 1),
            line,
            color=_SNN if leads else "#BBBBBB",
            lw=2 if leads else 1,
            zorder=3 if leads else 2,
            label=f"class {digit}" if leads else None,
        )
    bottom.set(title="Logits so far", xlabel="time step")
    bottom.legend(loc="upper left")

    for axes, spikes, layer in zip(
        middle.subplots(2, 1, sharex=True), (trace.spikes1, trace.spikes2), (1, 2), strict=True
    ):
        _raster(axes, spikes.numpy(), layer)
    axes.set_xlabel("time step")

    chosen = _some_neurons(trace)
    rows = np.atleast_1d(right.subplots(len(chosen), 1, sharex=True))
    for axes, neuron in zip(rows, chosen, strict=True):
        _membrane(axes, trace, neuron)
    rows[0].set_title("Four membranes of layer 1")
    rows[-1].set_xlabel("time step")
    for axes in (bottom, *rows):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _raster(axes: Axes, spikes: Any, layer: int) -> None:
    firing = int((spikes.sum(0) > 0).sum())
    order = np.argsort(-spikes.sum(0), kind="stable")[: max(firing, 1)]
    when, which = np.nonzero(spikes[:, order])
    # A bar as high as its row; the axes are about 170 points high.
    axes.plot(when + 1, which + 1, "|", color=_SNN, ms=min(max(140 / len(order), 1.2), 10), mew=1.6)
    axes.set(
        title=f"Layer {layer}: {firing} of {spikes.shape[1]} neurons fire, rate {100 * spikes.mean():.1f} %",
        ylabel="firing neuron, busiest first",
        xlim=(0, len(spikes) + 1),
        ylim=(len(order) + 1, 0),
    )
    axes.grid(visible=False)


def _some_neurons(trace: Trace) -> list[int]:
    """Four neurons, from one that fires at most steps to a silent one near its threshold."""
    counts = trace.spikes1.sum(0)
    steps = len(trace.spikes1)
    wanted = [int((counts - share * steps).abs().argmin()) for share in (0.75, 0.4, 0.15)]
    peak = trace.before1.max(0).values.masked_fill(counts > 0, -np.inf)
    return list(dict.fromkeys([*wanted, int(peak.argmax())]))


def _membrane(axes: Axes, trace: Trace, neuron: int) -> None:
    before, after = trace.before1[:, neuron].numpy(), trace.after1[:, neuron].numpy()
    time = np.arange(1, len(before) + 1)
    # Each step rises to the value that is compared, then falls by the threshold if that fired.
    axes.plot(np.repeat(time, 2), np.stack([before, after], 1).ravel(), color=_SNN, lw=1.4)
    axes.axhline(trace.threshold, color=_GREY, ls="--", lw=1)
    fired = trace.spikes1[:, neuron].numpy() > 0
    axes.plot(time[fired], before[fired], "o", color=_SPIKE, ms=4)
    axes.set_ylabel(f"neuron {neuron}", fontsize=9)
