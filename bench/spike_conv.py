"""Would a convolution driven by spikes pay? A prototype, timed against torch's own on the CPU.

    python bench/spike_conv.py --threads 2 --out bench/results

A patch of a convolution is a row of spikes: with the channels of a pixel as bits in words, a row of the
product is the words of the pixels that the kernel covers, and the rest is lif_cuda.functional.spike_linear.
The prototype gathers the words with torch's operators. It takes spikes [T*B, C, H, W] of float32 whose
channels are innermost (channels_last), and gives its output in that layout; packing and gathering are in the
time. torch runs in either layout, and its faster one counts.

Before anything is timed the results are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _commit
import _machine
import torch
from _files import write_json
from _turns import Yardstick, interleaved
from torch import Tensor
from torch.nn import functional as nnf

from lif_cuda import PackedSpikes
from lif_cuda.functional import spike_linear

RATES = (0.02, 0.05, 0.1, 0.2)
KERNELS = (3, 5)
# Images, channels in and out, and the side of the image: T * B is 100.
SHAPES = ((100, 32, 32, 28), (100, 64, 64, 16), (100, 128, 128, 8))
WAYS = ("forward", "forward and gradient")


def patches(spikes: Tensor, kernel: int) -> PackedSpikes:
    """The rows of the product: for each pixel the words of those around it."""
    words = PackedSpikes.pack(spikes.permute(0, 2, 3, 1)).words
    images, height, width, of_pixel = words.shape
    pad = kernel // 2
    padded = words.new_zeros(images, height + 2 * pad, width + 2 * pad, of_pixel)
    padded[:, pad : pad + height, pad : pad + width] = words
    rows = padded.unfold(1, kernel, 1).unfold(2, kernel, 1).permute(0, 1, 2, 4, 5, 3).flatten(3).contiguous()
    return PackedSpikes(rows, spikes.new_zeros(()).expand(*rows.shape[:-1], rows.shape[-1] * 64))


def taps(weight: Tensor) -> Tensor:
    """A weight [out, in, k, k] as that of the product: whole words of channels for each tap."""
    channels = weight.shape[1]
    return nnf.pad(weight.permute(0, 2, 3, 1), (0, -channels % 64)).flatten(1)


def spike_conv(spikes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The prototype."""
    return spike_linear(patches(spikes, weight.shape[-1]), taps(weight), bias).permute(0, 3, 1, 2)


def contenders(shape: Sequence[int], kernel: int, rate: float, train: bool) -> dict[str, Callable[[], Any]]:
    """What is timed, after it was compared."""
    images, channels, outputs, side = shape
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(images, channels, side, side, generator=generator) < rate).float()
    nhwc = spikes.to(memory_format=torch.channels_last)
    weight = torch.randn(outputs, channels, kernel, kernel, generator=generator).requires_grad_(train)
    bias = torch.randn(outputs, generator=generator)
    grad = torch.randn(images, outputs, side, side, generator=generator)
    grad_nhwc = grad.to(memory_format=torch.channels_last)

    def run(conv: Any, given: Tensor, incoming: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        def call() -> tuple[Tensor, ...]:
            y = conv(given, weight, bias)
            return (y, *torch.autograd.grad(y, weight, incoming)) if train else (y,)

        return call

    def dense(given: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return nnf.conv2d(given, weight, bias, padding=kernel // 2)

    calls: dict[str, Callable[[], Any]] = {
        "torch": run(dense, spikes, grad),
        "torch, channels_last": run(dense, nhwc, grad_nhwc),
        "events": run(spike_conv, nhwc, grad_nhwc),
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
                "command": _machine.command(),
                "versions": _machine.versions(),
                "machine": _machine.machine(torch.device("cpu")),
                "commit": _commit.commit(),
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
        description="Time a convolution driven by spikes, a prototype, against torch's own.",
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
