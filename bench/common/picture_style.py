"""The look of all pictures: the width of a README, and colours that the colour-blind can tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from common.files import write_atomically
from lif_cuda.plot import BLUE as BLUE
from lif_cuda.plot import GREY as GREY
from lif_cuda.plot import VERMILION as VERMILION

# Inches, of which a README shows one in some hundred pixels: nine points are then twelve pixels high.
WIDTH = 8.3
# Okabe and Ito's colours, beside those of lif_cuda.plot.
ORANGE, SKY = "#E69F00", "#56B4E9"
PALE = "#BBBBBB"

matplotlib.rcParams.update(
    {
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E6E6E6",
        "legend.frameon": False,
        "savefig.dpi": 180,
        "savefig.facecolor": "white",
    }
)


def new_figure(height: float, title: str, keys: dict[str, str] | None = None) -> Figure:
    """An empty figure of the README's width with its head, for which the layout leaves room.

    Args:
        height: in inches.
        title: its first line is bold.
        keys: texts for a legend below the title, with the colour of each.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    top = 0.05
    for place, line in enumerate(title.splitlines()):
        look: Any = {"fontsize": 9.5} if place else {"fontsize": 10.5, "fontweight": "bold"}
        figure.text(0.01, 1 - top / height, line, va="top", **look)
        top += 0.2
    if keys:
        figure.legend(
            handles=[Line2D([], [], ls="", marker="o", ms=7, color=c, label=key) for key, c in keys.items()],
            loc="upper left",
            bbox_to_anchor=(0, 1 - top / height),
            borderaxespad=0,
            ncols=len(keys),
            handletextpad=0.1,
        )
        top += 0.27
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, 0, 1, 1 - (top + 0.05) / height))
    return figure


def add_note(figure: Figure, text: str, colour: str = GREY) -> None:
    """A line below the figure."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8.5, color=colour)


def save(figures: dict[str, Figure], folder: Path) -> list[Path]:
    """Write the figures into ``folder`` under their names, as PNG files."""
    paths = [folder / name for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        write_atomically(path, partial(figure.savefig, format="png"))
    return paths


def plain_log(axes: Axes, which: str) -> None:
    """Give the x or y axis, whose data is drawn, a log scale with plain numbers.

    It spans a factor of ten at least, so that there are always numbers on it.
    """
    axis: Axis = getattr(axes, f"{which}axis")
    getattr(axes, f"set_{which}scale")("log")
    low, high = axis.get_view_interval()
    spare = max(1.0, math.sqrt(10 * low / high))
    low, high = low / spare, high * spare
    getattr(axes, f"set_{which}lim")(low, high)
    narrow = high / low < 150
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """A number for an axis: 0.05, 200, 10k, 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def label_ends(axes: Axes, labels: Sequence[tuple[float, str, str]], gap: float = 0.075) -> None:
    """Name lines at the right of the axes: (y where it ends, text, colour), moved apart where they are close.

    Args:
        axes: with its scales and limits as they shall be.
        labels: of each line.
        gap: the least distance of two, as a share of the height of the axes.
    """
    scale: Any = axes.yaxis.get_transform()
    low, high = scale.transform(axes.get_ylim())
    labels = sorted(labels)
    places = [float((scale.transform(y) - low) / (high - low)) for y, _, _ in labels]
    for _ in range(30):  # each moves two that are close apart by what they lack, and may bring others close
        for i in range(len(places) - 1):
            lacking = max(0.0, gap - (places[i + 1] - places[i]))
            places[i] -= lacking / 2
            places[i + 1] += lacking / 2
    for place, (_, text, colour) in zip(places, labels, strict=True):
        axes.text(1.02, place, text, color=colour, fontweight="bold", va="center", transform=axes.transAxes)
