"""Time Linears that are driven by spikes: event-driven against the ordinary product, over rate and size.

    python bench/events.py --threads 2 --out bench/results

The product of spikes [rows, size] with a weight [size, size], forward, and with the weight's gradient.
Spikes come as a tensor of float32, whose packing is in the time, or as bits. Contenders take turns
(common/turns.py); what is told is how many times faster than torch.nn.functional.linear and its backward.
The spikes' gradient is the same product for all and in no time.

Before anything is timed the results are compared with those of torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from common import commit, machine
from common.files import write_json
from common.turns import Yardstick, interleaved
from lif_cuda import PackedSpikes
from lif_cuda.functional import spike_linear

RATES = (0.01, 0.02, 0.05, 0.09, 0.1, 0.2, 0.3, 0.5)
SIZES = (128, 256, 512, 1024, 2048, 4096)
# Multiplications of a dense product at the most: larger ones have fewer rows.
MOST_WORK = 6400 * 1024 * 1024
WAYS = ("forward", "forward and gradient")


def rows_of(size: int, rows: int) -> int:
    """As many rows as were asked for, or fewer of a large size."""
    return max(64, min(rows, MOST_WORK // size**2))


def contenders(rows: int, size: int, rate: float, train: bool) -> dict[str, Callable[[], Any]]:
    """What is timed: ``dense``, ``events`` and ``packed``, after they were compared.

    Raises:
        SystemExit: they do not compute the same.
    """
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(rows, size, generator=generator) < rate).float()
    packed = PackedSpikes.pack(spikes)
    weight = torch.randn(size, size, generator=generator).requires_grad_(train)
    bias = torch.randn(size, generator=generator)
    grad = torch.randn(rows, size, generator=generator)

    def run(linear: Any, given: Any) -> Callable[[], tuple[Tensor, ...]]:
        def call() -> tuple[Tensor, ...]:
            y = linear(given, weight, bias)
            return (y, *torch.autograd.grad(y, weight, grad)) if train else (y,)

        return call

    calls: dict[str, Callable[[], Any]] = {
        "dense": run(nnf.linear, spikes),
        "events": run(spike_linear, spikes),
        "packed": run(spike_linear, packed),
    }
    wanted = calls["dense"]()
    for name in ("events", "packed"):
        for mine, theirs in zip(calls[name](), wanted, strict=True):
            # Sums of as many terms, in another order.
            apart = float((mine - theirs).detach().abs().max())
            bound = 1e-6 * max(rows, size) ** 0.5 * max(1.0, float(theirs.detach().abs().max()))
            if not apart <= bound:
                sys.exit(f"error: {name} and dense differ by {apart:.3g} at {rows}, {size}, {rate:.0%}")
    return calls


def measure(rows: int, size: int, rate: float, seconds: float, yardstick: Yardstick) -> dict[str, Any]:
    """Times and ratios at one rate and one size."""
    found: dict[str, Any] = {"rows": rows, "size": size, "rate": rate}
    for way in WAYS:
        calls = contenders(rows, size, rate, way != WAYS[0])
        turns = interleaved(calls, seconds, torch.device("cpu"), yardstick)
        found[way] = {
            "milliseconds": {name: turns.timing(name).median * 1e3 for name in calls},
            "times_faster": {
                name: {
                    "median": turns.ratio("dense", name).median,
                    "q1": turns.ratio("dense", name).low,
                    "q3": turns.ratio("dense", name).high,
                }
                for name in ("events", "packed")
            },
        }
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """How many times faster than dense, with spikes that are packed in the call, and that are bits."""
    lines = []
    for way in WAYS:
        lines += [f"{way}: times faster than the ordinary product, spikes as float32 / as bits", ""]
        rates = sorted({r["rate"] for r in results})
        lines.append(f"{'size':>6}{'rows':>7}" + "".join(f"{rate:>14.0%}" for rate in rates))
        for size in sorted({r["size"] for r in results}):
            cells = {r["rate"]: r for r in results if r["size"] == size}
            row = f"{size:>6}{next(iter(cells.values()))['rows']:>7}"
            for rate in rates:
                faster = cells[rate][way]["times_faster"]
                both = f"{faster['events']['median']:.1f} / {faster['packed']['median']:.1f}"
                row += f"{both:>14}"
            lines.append(row)
        lines.append("")
    return "\n".join(lines)


def figure_of(results: Sequence[dict[str, Any]]) -> Any:
    """Speed-ups over the rate, a line for each size."""
    from common.picture_style import BLUE, GREY, ORANGE, PALE, SKY, VERMILION, new_figure

    colours = dict(zip(SIZES, (PALE, VERMILION, ORANGE, BLUE, SKY, GREY), strict=True))
    sizes = sorted({r["size"] for r in results})
    figure = new_figure(
        3.6,
        "Linears driven by spikes: times faster than the ordinary product\n"
        "spikes as float32, packed in the call",
        {f"{size} x {size}": colours.get(size, GREY) for size in sizes},
    )
    for axes, way in zip(figure.subplots(1, 2, sharey=True), WAYS, strict=True):
        for size in sizes:
            points = sorted((r for r in results if r["size"] == size), key=lambda r: r["rate"])
            axes.plot(
                [100 * r["rate"] for r in points],
                [r[way]["times_faster"]["events"]["median"] for r in points],
                marker="o",
                ms=3,
                color=colours.get(size, GREY),
            )
        axes.axhline(1, color=GREY, lw=0.8)
        axes.set(title=way, xlabel="spikes, %", xscale="log", yscale="log")
        ticks = (1, 2, 5, 10, 20, 50)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_yticks((1, 2, 5, 10, 20), ["1", "2", "5", "10", "20"])
        axes.minorticks_off()
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Verify, time and report."""
    options = _options(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    yardstick = Yardstick()
    measured = []
    for size in options.sizes:
        for rate in options.rates:
            measured.append(measure(rows_of(size, options.rows), size, rate, options.seconds, yardstick))
            last = measured[-1]["forward and gradient"]
            print(
                f"size {size}, {rate:.0%}: "
                + ", ".join(f"{name} {ms:.2f} ms" for name, ms in last["milliseconds"].items()),
                flush=True,
            )
    results = {
        "format": 1,
        "command": machine.command(),
        "versions": machine.versions(),
        "machine": machine.machine(torch.device("cpu")),
        "commit": commit.commit(),
        "results": measured,
    }
    print(f"\n{table(measured)}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / "events.json", results)
        from common.picture_style import save

        save({"events.png": figure_of(measured)}, options.out)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Time Linears that are driven by spikes against the ordinary product.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--threads", type=int, help="CPU threads; None: as many as torch takes")
    parser.add_argument("--rows", type=int, default=6400, help="rows of spikes; fewer of large sizes")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="inputs and outputs")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="shares of spikes")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement")
    parser.add_argument("--out", type=Path, help="folder for events.json and events.png")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
