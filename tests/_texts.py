"""The texts of a figure as they are drawn: which of them overlap, and which are cut off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


@contextmanager
def _recording(drawn: list[Text]) -> Iterator[None]:
    """Numbers beside an axis that are not drawn are still among its artists; so look at what is drawn."""
    original = Text.draw

    def draw(text: Any, *arguments: Any) -> None:
        if text.get_visible() and text.get_text().strip() and text not in drawn:
            drawn.append(text)
        original(text, *arguments)

    Text.draw = draw
    try:
        yield
    finally:
        Text.draw = original


def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """What stands in the figure, and where."""
    drawn: list[Text] = []
    canvas = FigureCanvasAgg(figure)
    with _recording(drawn):
        canvas.draw()
    return [(text.get_text(), text.get_window_extent()) for text in drawn]


def faults(figure: Figure) -> list[str]:
    """The texts that overlap another or leave the figure."""
    # Boxes leave room for letters that a text does not have.
    boxes = [(text, box.padded(-1.0)) for text, box in texts(figure)]
    found = [f"{a!r} overlaps {b!r}" for (a, one), (b, two) in combinations(boxes, 2) if one.overlaps(two)]
    whole = figure.bbox
    return found + [
        f"{text!r} is cut off"
        for text, box in boxes
        if box.x0 < 0 or box.y0 < 0 or box.x1 > whole.x1 or box.y1 > whole.y1
    ]
