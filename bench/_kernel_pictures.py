"""Pictures of what kernels.py measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

AS = "lif_cuda as "


def _rival_of(name: str) -> str:
    return name.removeprefix(AS)


def draw(results: dict[str, Any], folder: Path) -> None:
    """Bars against rivals, and cost against T and neurons."""
    rows = [row for row in results["cases"] if row["dtype"] == "torch.float32" and row["training"]]
    found = {name for row in rows for name in row["seconds"]} - {"eager reference"}
    # A layer that equals the neuron of a library stands before it, in its colour.
    names = sorted(found, key=lambda name: (_rival_of(name), not name.startswith(AS)))
    colour_of = {rival: f"C{i % 10}" for i, rival in enumerate(dict.fromkeys(map(_rival_of, names)))}
    figure, axes = plt.subplots(figsize=(11, 4.5))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        heights = [
            row["seconds"].get(name, {"median": float("nan")})["median"] / row["neuron_steps"] * 1e9
            for row in rows
        ]
        axes.bar(
            [k + i * width for k in range(len(rows))],
            heights,
            width,
            label=name,
            color=colour_of[_rival_of(name)],
            hatch="///" if name.startswith(AS) else None,
        )
    axes.set_xticks([k + 0.4 for k in range(len(rows))], [str(list(row["shape"])) for row in rows])
    axes.set_yscale("log")
    axes.set_ylabel("ns a neuron-step, forward + backward")
    axes.legend(ncols=4, fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "kernels_rivals.png", dpi=120)

    figure, axes = plt.subplots(figsize=(11, 4))
    rows = results["cases"]
    shares = [100 * row["times_of_lif_cuda"]["copy"]["median"] for row in rows]
    colours = ["tab:blue" if row["training"] else "tab:orange" for row in rows]
    axes.bar(range(len(rows)), shares, color=colours)
    axes.axhline(100, color="black", linewidth=0.8)
    labels = [f"{list(row['shape'])}\n{row['dtype'].removeprefix('torch.')}" for row in rows]
    axes.set_xticks(range(len(rows)), labels, rotation=90, fontsize=7)
    axes.set_ylabel("% of the bandwidth of the copy")
    axes.set_title("orange: forward, blue: forward + backward", fontsize=9)
    figure.tight_layout()
    figure.savefig(folder / "kernels_roofline.png", dpi=120)

    figure, both = plt.subplots(1, 2, figsize=(11, 4))
    for axes, name, fixed in ((both[0], "steps", "neurons"), (both[1], "neurons", "steps")):
        first = results["scaling"][0 if name == "steps" else -1][fixed]
        rows = [row for row in results["scaling"] if row[fixed] == first]
        for kind in ("forward", "training"):
            axes.loglog(
                [row[name] for row in rows],
                [row[kind] / row["steps"] / row["neurons"] * 1e9 for row in rows],
                "o-",
                label="forward" if kind == "forward" else "forward + backward",
            )
        axes.set_xlabel(f"{'T' if name == 'steps' else 'neurons'} ({fixed} = {first})")
        axes.set_ylabel("ns a neuron-step")
        axes.legend()
    figure.tight_layout()
    figure.savefig(folder / "kernels_scaling.png", dpi=120)
