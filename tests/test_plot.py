"""What the pictures of lif_cuda.plot show."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

matplotlib = pytest.importorskip(
    "matplotlib", reason="matplotlib, which draws the pictures, is not installed"
)
from matplotlib.figure import Figure  # noqa: E402

from lif_cuda import plot  # noqa: E402


def axes() -> Any:
    return Figure().subplots()


def test_a_raster_shows_each_spike() -> None:
    spikes = torch.zeros(6, 2, 2)
    spikes[1, 0, 1] = spikes[4, 0, 1] = spikes[2, 1, 0] = 1
    ax = axes()
    assert plot.raster(spikes, ax) is ax
    (line,) = ax.lines
    assert sorted(zip(*line.get_data(), strict=True)) == [(2, 2), (3, 3), (5, 2)]
    assert ax.get_xlim() == (0, 7) and ax.get_ylim() == (5, 0)


def test_the_busiest_neurons_come_first() -> None:
    spikes = torch.zeros(6, 4)
    spikes[1, 3] = spikes[4, 3] = spikes[2, 1] = 1
    ax = plot.raster(spikes, axes(), busiest_first=True)
    (line,) = ax.lines
    assert sorted(zip(*line.get_data(), strict=True)) == [(2, 1), (3, 2), (5, 1)]
    assert ax.get_ylim() == (3, 0) and "busiest" in ax.get_ylabel()
    silent = plot.raster(torch.zeros(6, 4), axes(), busiest_first=True)
    assert len(silent.lines[0].get_xdata()) == 0


def test_a_membrane_rises_and_falls() -> None:
    before, after = torch.tensor([0.5, 1.25]), torch.tensor([0.5, 0.25])
    ax = plot.membrane(
        before.requires_grad_(), axes(), after=after, spikes=torch.tensor([0.0, 1.0]), threshold=1.0
    )
    trace, dashed, marks = ax.lines
    assert trace.get_xdata().tolist() == [1, 1, 2, 2] and trace.get_ydata().tolist() == [0.5, 0.5, 1.25, 0.25]
    assert list(dashed.get_ydata()) == [1.0, 1.0] and dashed.get_linestyle() == "--"
    assert marks.get_xdata().tolist() == [2] and marks.get_ydata().tolist() == [1.25]


def test_membranes_of_several_neurons() -> None:
    before = torch.randn(5, 3, dtype=torch.bfloat16)
    ax = plot.membrane(before, axes(), spikes=(before > 0))
    assert len(ax.lines) == 6
    for neuron, line in enumerate(ax.lines[:3]):
        assert np.allclose(line.get_ydata(), before[:, neuron].float())
        assert ax.lines[3 + neuron].get_color() == line.get_color()


def test_firing_rates_of_numbers_and_of_spikes() -> None:
    ax = plot.firing_rates({"lif1": 0.125, "lif2": torch.tensor([[0.0, 1.0], [0.0, 0.0]])}, axes())
    assert [bar.get_width() for bar in ax.patches] == [12.5, 25.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["lif1", "lif2"]
    assert [text.get_text() for text in ax.texts] == ["12.5 %", "25.0 %"]


def test_without_axes_a_figure_of_pyplot_is_made() -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    ax = plot.raster(torch.ones(2, 2))
    assert ax.figure in map(pyplot.figure, pyplot.get_fignums())
    pyplot.close(ax.figure)


def test_without_matplotlib_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["matplotlib"] = None
import torch
from lif_cuda import plot
try:
    plot.raster(torch.ones(2, 2))
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'lif_cuda.plot needs matplotlib: pip install "lif_cuda[plot]"\n'


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: plot.raster([1]), TypeError, "spikes must be a torch.Tensor, got list"),
        (lambda: plot.raster(torch.tensor(1.0)), ValueError, "spikes must have a time axis"),
        (
            lambda: plot.membrane(torch.ones(3), after=torch.ones(2)),
            ValueError,
            r"of before, \(3,\), got \(2,\)",
        ),
        (lambda: plot.membrane(torch.ones(3, 2, 2)), ValueError, r"before must be \[T\] or"),
        (lambda: plot.firing_rates([0.1]), TypeError, "rates must map names of layers"),
        (
            lambda: plot.firing_rates({"lif1": "a"}),
            TypeError,
            r"rates\['lif1'\] must be a number or a tensor",
        ),
    ],
)
def test_what_is_wrong_is_named(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()
