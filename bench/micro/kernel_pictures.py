"""Pictures of what kernels.py measured, one for each table that has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.picture_style import GREY, ORANGE, VERMILION, add_note, label_ends, new_figure, plain_log
from micro.points import Point, note, point_of, where

# The tables that are drawn.
DRAWN = ("cases", "family", "libraries", "scaling")
UNIT = "ns a neuron-step (log scale)"
# Colours of the two kinds of calls. Where others stand beside lif_cuda, they are grey.
_KINDS = {"forward": ORANGE, "forward + backward": VERMILION}


def figures(results: dict[str, Any]) -> dict[str, Figure]:
    """File names and figures of the tables in the JSON of kernels.py."""
    makers: dict[str, tuple[str, Callable[[Any, str], Figure]]] = {
        "kernels_rivals.png": ("cases", _rivals),
        "kernels_roofline.png": ("cases", _copy),
        "kernels_family.png": ("family", _family),
        "kernels_libraries.png": ("libraries", _libraries),
        "kernels_scaling.png": ("scaling", _scaling),
    }
    place = where(results["machine"])
    return {name: make(results[table], place) for name, (table, make) in makers.items() if results.get(table)}


def _rivals(cases: list[dict[str, Any]], place: str) -> Figure:
    rows = [row for row in cases if row["dtype"] == "torch.float32" and row["training"]]
    found = {name: row["times_of_lif_cuda"][name]["median"] for row in rows for name in row["seconds"]}
    names = [name for name in sorted(found, key=found.__getitem__) if not _is_ours(name)]
    figure = new_figure(
        1.5 + (len(rows) + 1) // 2 * (0.5 + 0.2 * len(names)),
        f"Forward + backward: ns a neuron-step, lower is better\nfloat32, {place}\n"
        "Numbers: times as long as the lif_cuda layer with the same spikes and gradients",
        {"lif_cuda": VERMILION, "what is named at the left": GREY},
    )
    panels = _grid(figure, len(rows))
    every: list[Point] = []
    for axes, row in zip(panels, rows, strict=True):
        pairs = {
            name: (_seconds(row, name), _seconds(row, row["beside"][name]), row["times_of_lif_cuda"][name])
            for name in names
            if name in row["seconds"]
        }
        every += _beside(axes, names, pairs)
        axes.set_title(f"[T, B, N] = {_shape(row)}")
    plain_log(panels[0], "x")
    _name_x(panels, UNIT)
    add_note(figure, note(every))
    return figure


def _copy(cases: list[dict[str, Any]], place: str) -> Figure:
    types = list(dict.fromkeys(row["dtype"] for row in cases))
    shapes = list(dict.fromkeys(_shape(row) for row in cases))
    figure = new_figure(
        1.6 + 0.32 * len(shapes),
        f"lif_cuda, times a copy of the bytes that must move: lower is better\n{place}",
        _KINDS,
    )
    panels = _grid(figure, len(types))
    every: list[Point] = []
    for axes, dtype in zip(panels, types, strict=True):
        for row in cases:
            if row["dtype"] != dtype:
                continue
            point = point_of(row["times_of_lif_cuda"]["copy"], _quiet(row, "copy", "lif_cuda")).inverse()
            every.append(point)
            if not point.is_noise:
                y = shapes.index(_shape(row)) + (0.14 if row["training"] else -0.14)
                _dot(axes, point, y, _KINDS[_kind(row)])
        axes.axvline(1, color=GREY, lw=1, zorder=1)
        axes.set_title(dtype.removeprefix("torch."))
        _name_rows(axes, [f"[T, B, N] = {shape}" if not y else shape for y, shape in enumerate(shapes)])
    plain_log(panels[0], "x")
    _name_x(panels, "times the copy (log scale)")
    add_note(figure, note(every))
    return figure


def _family(rows: list[dict[str, Any]], place: str) -> Figure:
    shapes = list(dict.fromkeys(_shape(row) for row in rows))
    names = list(dict.fromkeys(name for row in rows for name in row["seconds"] if name != "plain"))
    figure = new_figure(
        1.6 + 0.36 * len(names),
        f"The family: times the plain neuron, lower is better\nfloat32, {place}",
        _KINDS,
    )
    panels = _grid(figure, len(shapes))
    every: list[Point] = []
    for axes, shape in zip(panels, shapes, strict=True):
        for row in (row for row in rows if _shape(row) == shape):
            for name in (name for name in names if name in row["seconds"]):
                point = point_of(row["times_of_plain"][name], _quiet(row, name, "plain"))
                every.append(point)
                y = names.index(name) + (0.2 if row["training"] else -0.2)
                _bar(axes, point, y, _KINDS[_kind(row)])
        axes.axvline(1, color=GREY, lw=1)
        axes.margins(x=0.16)
        axes.set_title(f"[T, B, N] = {shape}")
        _name_rows(axes, names)
    _name_x(panels, "times the plain neuron")
    add_note(figure, note(every))
    return figure


def _libraries(rows: list[dict[str, Any]], place: str) -> Figure:
    names = list(dict.fromkeys(_name(row) for row in rows))
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(f"{_shape(row)}, {_kind(row)}", []).append(row)
    figure = new_figure(
        1.6 + (len(groups) + 1) // 2 * (0.5 + 0.33 * len(names)),
        f"Libraries at their defaults: ns a neuron-step, lower is better\nfloat32, {place}\n"
        "Numbers: times as long as the lif_cuda layer with the same spikes and gradients",
        {"lif_cuda": VERMILION, "the library": GREY},
    )
    panels = _grid(figure, len(groups))
    every: list[Point] = []
    for axes, (title, group) in zip(panels, groups.items(), strict=True):
        pairs = {
            _name(row): (_seconds(row, "theirs"), _seconds(row, "lif_cuda"), row["times_of_lif_cuda"])
            for row in group
            if "missing" not in row
        }
        every += _beside(axes, names, pairs)
        axes.set_title(title)
    plain_log(panels[0], "x")
    _name_x(panels, UNIT)
    add_note(figure, note(every))
    return figure


def _scaling(rows: list[dict[str, Any]], place: str) -> Figure:
    figure = new_figure(
        3.6, f"The plain neuron as layers grow: ns a neuron-step, lower is better\nfloat32, {place}"
    )
    every: list[Point] = []
    axes_of = dict(zip(("steps", "neurons"), figure.subplots(1, 2), strict=True))
    for name, fixed, first in (("steps", "neurons", rows[0]), ("neurons", "steps", rows[-1])):
        axes = axes_of[name]
        ends = []
        for kind, colour in _KINDS.items():
            of_kind = "forward" if kind == "forward" else "training"
            drawn = {row[name]: _seconds(row, of_kind) for row in rows if row[fixed] == first[fixed]}
            every += drawn.values()
            kept = {size: point for size, point in drawn.items() if not point.is_noise}
            axes.plot(list(kept), [point.median for point in kept.values()], color=colour, zorder=3)
            for size, point in kept.items():
                axes.plot([size, size], [point.low, point.high], color=colour, lw=1.4)
                face = colour if point.quiet else "white"
                axes.plot([size], [point.median], "o", color=colour, mfc=face, ms=5, zorder=4)
            if kept:
                ends.append((list(kept.values())[-1].median, kind.replace(" + ", "\n+ "), colour))
        axes.set_xlabel(
            f"T, with {first[fixed]:,} neurons" if name == "steps" else f"neurons, T = {first[fixed]}"
        )
        plain_log(axes, "x")
        plain_log(axes, "y")
        axes.set_ylabel(UNIT)
        label_ends(axes, ends, gap=0.15)
    add_note(figure, note(every))
    return figure


def _is_ours(name: str) -> bool:
    """Whether a contender is of this project: its layers, and its reference."""
    return name.startswith(("lif_cuda", "eager reference"))


def _shape(row: dict[str, Any]) -> str:
    return "[" + ", ".join(str(size) for size in row["shape"]) + "]"


def _kind(row: dict[str, Any]) -> str:
    return "forward + backward" if row["training"] else "forward"


def _name(row: dict[str, Any]) -> str:
    """A neuron of another library in two lines."""
    neuron = row["theirs"].partition("(")[0].rpartition(".")[2]
    return f"{neuron}\n{row['library']} {row['version'] or ''}".rstrip()


def _quiet(row: dict[str, Any], *names: str) -> int:
    """The undisturbed turns of that contender which has the fewest."""
    return min(int(row["undisturbed_turns"][name]) for name in names)


def _seconds(row: dict[str, Any], name: str) -> Point:
    """The ns a neuron-step of a contender."""
    neuron_steps = row.get("neuron_steps") or row["steps"] * row["neurons"]
    return point_of(row["seconds"][name], _quiet(row, name), 1e9 / neuron_steps)


def _dot(axes: Axes, point: Point, y: float, colour: str, size: float = 6) -> None:
    if point.is_wide:
        axes.plot([point.low, point.high], [y, y], color=colour, lw=1.4, zorder=size)
    face = colour if point.quiet else "white"
    axes.plot([point.median], [y], "o", color=colour, mfc=face, mew=size / 4, ms=size, zorder=size)


def _bar(axes: Axes, point: Point, y: float, colour: str) -> None:
    look: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
    if point.is_noise:
        axes.annotate("noise", (0, y), (3, 0), color=GREY, **look)
        return
    face = colour if point.quiet else "white"
    axes.barh(y, point.median, 0.34, color=face, edgecolor=colour)
    if point.is_wide:
        axes.plot([point.low, point.high], [y, y], color="black", lw=1)
    end = max(point.median, point.high if point.is_wide else 0)
    axes.annotate(f"{point.median:.2f}", (end, y), (3, 0), **look)


def _beside(
    axes: Axes, names: list[str], pairs: dict[str, tuple[Point, Point, dict[str, float]]]
) -> list[Point]:
    """Rows of others' times, each with that of the lif_cuda layer beside it and with their ratio.

    Returns:
        all points, those that are noise and not drawn among them.
    """
    right = axes.get_yaxis_transform()
    for y, name in enumerate(names):
        why = "no time" if name not in pairs else ""
        if name in pairs:
            theirs, ours, ratio = pairs[name]
            why = "noise" if theirs.is_noise or ours.is_noise else ""
        if why:
            axes.text(1.02, y, why, va="center", color=GREY, transform=right)
            continue
        axes.plot([ours.median, theirs.median], [y, y], color="#DDDDDD", lw=3, zorder=1)
        _dot(axes, theirs, y, GREY, 5)
        _dot(axes, ours, y, VERMILION, 7)
        times = ratio["median"]
        axes.text(1.02, y, _times(times), va="center", transform=right)
    _name_rows(axes, ["copy of the bytes" if name == "copy" else name for name in names])
    return [point for theirs, ours, _ in pairs.values() for point in (theirs, ours)]


def _times(value: float) -> str:
    digits = 2 if value < 1 else 1 if value < 10 else 0
    return f"{value:.{digits}f}×"


def _name_rows(axes: Axes, names: list[str]) -> None:
    """Rows of the y axis, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _name_x(panels: list[Axes], name: str) -> None:
    """Name the x axes at the bottom."""
    for axes in panels[-2:]:
        axes.set_xlabel(name)


def _grid(figure: Figure, panels: int) -> list[Axes]:
    """So many panels in two columns."""
    rows = (panels + 1) // 2
    every = list(figure.subplots(rows, min(panels, 2), sharex=True, sharey=True, squeeze=False).flat)
    for empty in every[panels:]:
        empty.remove()
    return every[:panels]
