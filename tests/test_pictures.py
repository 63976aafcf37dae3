"""The pictures of bench/results: what they say, and that no text of one runs into another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("matplotlib", reason="matplotlib, which draws the pictures, is not installed")

import redraw
from _compile import ROOT
from _texts import faults, texts
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from common import picture_style
from job import pictures, spike_picture
from job.trace import Trace
from micro import alone, cases, family, kernel_pictures, libraries, points
from rivals import equals
from rivals.contenders import NEAREST

MNIST = ROOT / "bench" / "results" / "mnist" / "cosine_seed0.json"
MACHINE = {"threads": 1, "cpu": "Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz", "simd": "AVX512"}


def timing(median: float, spread: float = 0.1) -> dict[str, float]:
    return {"median": median, "low": median * (1 - spread), "high": median * (1 + spread)}


def case(shape: tuple[int, int, int], dtype: str, training: bool) -> dict[str, Any]:
    beside = {"copy": "lif_cuda", "lif_cuda": "lif_cuda", "eager reference": "lif_cuda"}
    beside |= {"eager loop": "lif_cuda"} | ({"torch.compile": "lif_cuda"} if shape[0] < 100 else {})
    beside |= {name: f"lif_cuda as {name}" for name in NEAREST} | {
        f"lif_cuda as {name}": "lif_cuda" for name in NEAREST
    }
    times = {name: 1.5 * place if place else 0.5 for place, name in enumerate(beside)}
    steps = shape[0] * shape[1] * shape[2]
    return {
        "shape": shape,
        "dtype": dtype,
        "training": training,
        "neuron_steps": steps,
        "seconds": {name: timing(value * 1e-9 * steps) for name, value in times.items()},
        "beside": beside,
        "times_of_lif_cuda": {name: timing(value / times[beside[name]]) for name, value in times.items()},
        "undisturbed_turns": dict.fromkeys(times, 9),
    }


def kernel_results() -> dict[str, Any]:
    """As kernels.py writes them, as far as the pictures read them."""
    names = [member.name for member in family.members(torch.zeros(1, 1, 2))]
    beside = []
    for shape in libraries.SHAPES:
        steps = shape[0] * shape[1] * shape[2]
        for place, theirs in enumerate(libraries.NEURONS):
            for training in (False, True):
                library = equals.by_name(theirs).library
                row: dict[str, Any] = {"library": library, "version": "10.11.12", "theirs": theirs}
                row |= {"shape": shape, "training": training, "neuron_steps": steps}
                if place:
                    row["seconds"] = {
                        side: timing(1e-9 * steps * t)
                        for side, t in (("theirs", 9.0 * place), ("lif_cuda", 1.0))
                    }
                    row["times_of_lif_cuda"] = timing(9.0 * place)
                    row["undisturbed_turns"] = {"theirs": 4, "lif_cuda": 9}
                else:
                    row["missing"] = "ModuleNotFoundError"
                beside.append(row)
    return {
        "format": points.FORMAT,
        "command": "python bench/kernels.py",
        "machine": MACHINE,
        "cases": [
            case(shape, dtype, training)
            for dtype in ("torch.float32", "torch.bfloat16")
            for shape in cases.SHAPES
            for training in (False, True)
        ],
        "family": [
            {
                "shape": shape,
                "training": training,
                "neuron_steps": 1,
                "seconds": {name: timing(1.0) for name in names},
                "times_of_plain": {name: timing(1 + place / 4) for place, name in enumerate(names)},
                "undisturbed_turns": dict.fromkeys(names, 9),
            }
            for shape in family.SHAPES
            for training in (False, True)
        ],
        "libraries": beside,
        "scaling": [
            {
                "steps": steps,
                "neurons": neurons,
                "seconds": {
                    "forward": timing(1e-9 * steps * neurons + 1e-5),
                    "training": timing(2e-9 * steps * neurons + 9e-5),
                },
                "undisturbed_turns": {"forward": 9, "training": 9},
            }
            for steps, neurons in alone.GROWTH
        ],
    }


def mnist_results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MNIST.read_text())
    return found


def spikes() -> Figure:
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(25, 256, generator=generator) * torch.linspace(0.3, 1.6, 256)
    fired = (before >= 1).float()
    logits = torch.randn(25, 10, generator=generator).cumsum(0)
    trace = Trace(fired, before, before - fired, fired.roll(7, 1), logits, 1.0)
    return spike_picture.figure_of(trace, torch.rand(28, 28), 7)


def all_figures() -> dict[str, Figure]:
    drawn = kernel_pictures.figures(kernel_results()) | pictures.figures(mnist_results())
    return drawn | {"spikes.png": spikes()}


def words(figure: Figure) -> str:
    return "\n".join(text for text, _ in texts(figure))


def test_no_text_overlaps_another_or_is_cut_off() -> None:
    drawn = all_figures()
    assert len(drawn) == 10
    for name, figure in drawn.items():
        assert faults(figure) == [], name
        assert figure.get_figwidth() == picture_style.WIDTH


def test_overlapping_texts_are_seen() -> None:
    figure = Figure()
    for x, text in ((0.1, "one text"), (0.12, "another"), (0.98, "a text that leaves the figure")):
        figure.text(x, 0.5, text)
    assert faults(figure) == [
        "'one text' overlaps 'another'",
        "'a text that leaves the figure' is cut off",
    ]


def test_pictures_of_kernels_say_where_and_what_is_better() -> None:
    drawn = kernel_pictures.figures(kernel_results())
    assert set(drawn) == {
        f"kernels_{n}.png" for n in ("rivals", "roofline", "family", "libraries", "scaling")
    }
    for name, figure in drawn.items():
        found = words(figure)
        assert "1 thread, Intel" in found and "lower is better" in found and "float32" in found, name
        assert "10^" not in found and ("Hollow" in found) == (name == "kernels_libraries.png"), name
    rivals = words(drawn["kernels_rivals.png"])
    assert all(name in rivals for name in (*NEAREST, "eager loop", "torch.compile", "no time"))
    assert "[T, B, N] = [25, 128, 1000]" in rivals and "ns a neuron-step (log scale)" in rivals
    # The ratio is that to the layer which equals the neuron, not to the plain one.
    ratio = kernel_results()["cases"][1]["times_of_lif_cuda"]["Norse"]["median"]
    assert f"{ratio:.2f}×" in rivals
    assert "ParametricLIFNode\nSpikingJelly 10.11.12" in words(drawn["kernels_libraries.png"])
    assert "delayed, ATan" in words(drawn["kernels_family.png"])
    assert "bfloat16" in words(drawn["kernels_roofline.png"])
    assert "T, with 4,096 neurons" in words(drawn["kernels_scaling.png"])


def test_only_measured_tables_are_drawn() -> None:
    results = kernel_results() | {"cases": [], "scaling": []}
    del results["libraries"]
    assert set(kernel_pictures.figures(results)) == {"kernels_family.png"}


def test_a_gpu_is_named() -> None:
    figure = kernel_pictures.figures(kernel_results() | {"machine": {"gpu": "NVIDIA H100", "threads": 8}})
    assert "float32, NVIDIA H100" in words(figure["kernels_scaling.png"])


def test_a_point_that_is_noise_is_left_out() -> None:
    """A peak in the growth is the machine's where a quarter of the turns took half as long."""

    def peaks(undisturbed: int, spread: float) -> tuple[bool, str]:
        results = kernel_results()
        (row,) = [r for r in results["scaling"] if (r["steps"], r["neurons"]) == (1000, 4096)]
        row["seconds"]["training"] = timing(0.5, spread)
        row["undisturbed_turns"]["training"] = undisturbed
        figure = kernel_pictures.figures(results)["kernels_scaling.png"]
        highest = max(max(line.get_ydata()) for line in figure.axes[0].lines)
        return highest > 110, words(figure)

    shown, found = peaks(9, 0.1)
    assert shown and "Left out" not in found and "Hollow" not in found
    shown, found = peaks(3, 0.1)
    assert shown and "Hollow" in found and "Left out" not in found
    for undisturbed in (3, 9):
        shown, found = peaks(undisturbed, 0.5)
        assert not shown and "Left out as noise: 1 of 40" in found

    results = kernel_results()
    results["family"][0]["times_of_plain"]["adaptive"] = timing(2.0, 0.5)
    results["family"][0]["undisturbed_turns"]["adaptive"] = 4
    assert "\nnoise\n" in words(kernel_pictures.figures(results)["kernels_family.png"])


def test_points() -> None:
    quiet = points.point_of({"median": 2.0, "low": 1.5, "high": 4.0}, 5, 10.0)
    assert quiet == points.Point(20.0, 15.0, 40.0, True) and quiet.is_wide and not quiet.is_noise
    assert quiet.inverse() == points.Point(1 / 20, 1 / 40, 1 / 15, True)
    disturbed = points.point_of({"median": 2.0, "low": 1.3, "high": 2.1}, 4)
    assert disturbed.is_noise and not disturbed.quiet
    assert not points.point_of(timing(2.0, 0.01), 4).is_wide


@pytest.mark.parametrize(
    ("data", "numbers"),
    [
        ((1.1, 1.2), ["0.5", "1", "2"]),
        ((0.3, 20.0), ["0.5", "1", "2", "5", "10", "20"]),
        ((128.0, 1.3e8), ["100", "1k", "10k", "100k", "1M", "10M", "100M"]),
    ],
)
def test_a_log_axis_has_plain_numbers(data: tuple[float, float], numbers: list[str]) -> None:
    figure = picture_style.new_figure(3, "")
    axes = figure.subplots()
    axes.plot([0, 1], data)
    picture_style.plain_log(axes, "y")
    axes.tick_params(labelbottom=False)
    assert [text for text, _ in texts(figure)] == numbers


def test_lif_cuda_stands_out() -> None:
    """In its own colour, larger, and above what else lies there."""
    axes = kernel_pictures.figures(kernel_results())["kernels_rivals.png"].axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    ours = [dot for dot in dots if to_hex(dot.get_color()).upper() == picture_style.VERMILION]
    others = [dot for dot in dots if dot not in ours]
    assert len(ours) == len(others) == 7
    assert min(dot.get_zorder() for dot in ours) > max(dot.get_zorder() for dot in others)
    assert min(dot.get_markersize() for dot in ours) > max(dot.get_markersize() for dot in others)


@pytest.mark.parametrize("name", ["training_curves.png", "accuracy.png"])
def test_an_axis_that_does_not_start_at_zero_says_so(name: str) -> None:
    results = mnist_results()
    figure = pictures.figures(results)[name]
    assert "the axis starts at 95 %" in words(figure)
    axes = figure.axes[-1]
    assert 95 in (axes.get_ylim()[0], axes.get_xlim()[0])
    results["ann"]["test_accuracy_by_epoch"][0] = 3.0
    assert "the axis starts at 0" in words(pictures.figures(results)[name])


def test_energy_has_the_four_rows_of_the_table() -> None:
    found = words(pictures.figures(mnist_results())["energy.png"])
    for text in (
        "SNN, as published",
        "191,457\n28.8 % less",
        "SNN, honest",
        "266,301\n0.9 % less",
        "SNN, honest, with\nthe neurons' own leak",
        "279,101\n3.8 % more",
        "268,800",
        "in MACs, of which an accumulate is 0.2",
        "lower is better",
    ):
        assert text in found


def test_what_is_not_mnist_says_so() -> None:
    results = mnist_results()
    results["data"] |= {"name": "digits", "warning": "not MNIST"}
    for name, figure in pictures.figures(results).items():
        assert "not MNIST: digits" in words(figure) and faults(figure) == [], name


def test_redraw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a JSON without measuring; from one that cannot be drawn an error."""
    path = tmp_path / "results.json"
    for results, names in (
        (kernel_results(), {"kernels_rivals.png", "kernels_family.png", "kernels_scaling.png"}),
        (mnist_results(), {"training_curves.png", "accuracy.png", "energy.png", "firing_rates.png"}),
    ):
        path.write_text(json.dumps(results))
        redraw.main([str(path), str(tmp_path / "drawn")])
        found = {file.name for file in (tmp_path / "drawn").glob("*.png")}
        assert names <= found and all(name in capsys.readouterr().out for name in sorted(names)[:1])
    for content, why in (
        (json.dumps(kernel_results() | {"format": 2}), "must be of format 3, got 2"),
        (json.dumps({"milliseconds": {}}), "must be of mnist.py, or of kernels.py"),
        ("[1", "cannot be read as JSON"),
    ):
        path.write_text(content)
        with pytest.raises(SystemExit, match=why):
            redraw.main([str(path), str(tmp_path)])
