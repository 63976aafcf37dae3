"""Time the convolution that is driven by spikes against torch's own on the CPU.

    python bench/spike_conv.py --threads 2 --out bench/results

lif_cuda.SpikeConv2d takes spikes [T*B, C, H, W] of float32 whose channels are innermost (channels_last), and
gives its output in that layout; packing and gathering are in the time. torch runs in either layout, and its
faster one counts. Forward, and forward with the weight's gradient: that of the spikes is the same convolution
for all.

Before anything is timed the results are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import commit, machine
from common.files import write_json
from common.turns import Yardstick, interleaved
from lif_cuda import SpikeConv2d

RATES = (0.02, 0.05, 0.1, 0.2)
KERNELS = (3, 5)
# Images, channels in and out, and the side of the image: T * B is 100.
SHAPES = ((100, 32, 32, 28), (100, 64, 64, 16), (100, 128, 128, 8))
WAYS = ("forward", "forward and gradient")


def contenders(shape: Sequence[int], kernel: int, rate: float, train: bool) -> dict[str, Callable[[], Any]]:
    """What is timed, after it was compared."""
    images, channels, outputs, side = shape
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(images, channels, side, side, generator=generator) < rate).float()
    nhwc = spikes.to(memory_format=torch.channels_last)
    events = SpikeConv2d(channels, outputs, kernel, padding=kernel // 2)
    dense = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2)
    dense.load_state_dict(events.state_dict())
    grad = torch.randn(images, outputs, side, side, generator=generator)
    grad_nhwc = grad.to(memory_format=torch.channels_last)

    def run(layer: nn.Module, given: Tensor, incoming: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        layer.requires_grad_(train)

        def call() -> tuple[Tensor, ...]:
            y = layer(given)
            return (y, *torch.autograd.grad(y, [*layer.parameters()], incoming)) if train else (y,)

        return call

    calls: dict[str, Callable[[], Any]] = {
        "torch": run(dense, spikes, grad),
        "torch, channels_last": run(dense, nhwc, grad_nhwc),
        "events": run(events, nhwc, grad_nhwc),
    }
    wanted = calls["torch"]()
    for mine, theirs in zip(calls["events"](), wanted, strict=True):
        apart = float((mine - theirs).detach().abs().max())
        if not apart <= 1e-5 * max(1.0, float(theirs.detach().abs().max())):
            sys.exit(f"error: events and torch differ by {apart:.3g} at {tuple(shape)}, {kernel}, {rate:.0%}")
    return calls


def main(arguments: Sequence[str] | None = None) -> None:
    """Verify, time and report."""
    options = _options(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    yardstick = Yardstick()
    measured: list[dict[str, Any]] = []
    print("times faster than torch's faster layout: forward, and with the weight's gradient")
    for kernel in KERNELS:
        for shape in options.shapes:
            for rate in options.rates:
                found: dict[str, Any] = {"shape": list(shape), "kernel": kernel, "rate": rate}
                for way in WAYS:
                    calls = contenders(shape, kernel, rate, way != WAYS[0])
                    turns = interleaved(calls, options.seconds, torch.device("cpu"), yardstick)
                    ratios = [turns.ratio(name, "events").median for name in calls if name != "events"]
                    found[way] = {
                        "milliseconds": {name: turns.timing(name).median * 1e3 for name in calls},
                        "times_faster": min(ratios),
                    }
                measured.append(found)
                faster = " / ".join(f"{found[way]['times_faster']:.2f}" for way in WAYS)
                print(f"{kernel} x {kernel}, {list(shape)}, {rate:.0%}: {faster}", flush=True)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(
            options.out / "spike_conv.json",
            {
                "format": 1,
                "command": machine.command(),
                "versions": machine.versions(),
                "machine": machine.machine(torch.device("cpu")),
                "commit": commit.commit(),
                "results": measured,
            },
        )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    def shape(text: str) -> tuple[int, ...]:
        sizes = tuple(int(size) for size in text.split(","))
        if len(sizes) != 4 or min(sizes) < 1:
            raise argparse.ArgumentTypeError(f"must be images,channels,outputs,side; got {text!r}")
        return sizes

    parser = argparse.ArgumentParser(
        description="Time the convolution that is driven by spikes against torch's own.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--threads", type=int, help="CPU threads; None: as many as torch takes")
    parser.add_argument(
        "--shapes", type=shape, nargs="+", default=SHAPES, help="images,channels,outputs,side"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="shares of spikes")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each measurement")
    parser.add_argument("--out", type=Path, help="folder for spike_conv.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
