"""A long recording in pieces: a stateful layer goes on where the last piece ended, to the last bit.

    python -P examples/streaming.py --picture streaming.png

Neurons with an adaptive threshold look for bursts in a noisy signal of some minutes, a second at a time. The
picture needs matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lif_cuda import AdaptiveLIF

RATE = 1000  # samples a second
CHANNELS = 16


def recording(seconds: int, seed: int = 0) -> Iterator[Tensor]:
    """A second at a time, [time, channels]: noise, and a burst of 200 ms in every third second."""
    generator = torch.Generator().manual_seed(seed)
    for second in range(seconds):
        piece = 0.08 * torch.randn(RATE, CHANNELS, generator=generator)
        if second % 3 == 1:
            piece[400:600] += 0.12
        yield piece


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Read the recording second by second, and once more as a whole."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--picture", metavar="FILE", help="draw the first nine seconds")
    asked = parser.parse_args(arguments)

    # The membrane forgets in 20 ms. A spike raises the threshold by 0.1, for 200 ms.
    stream = AdaptiveLIF(
        tau=20.0, dt=1.0, decay="exp", kappa=0.1, rho=0.995, stateful=True, return_state=False
    )
    counts, drawn = [], []
    for second, piece in enumerate(recording(asked.seconds)):
        spikes = stream(piece)
        counts.append(int(spikes.sum()))
        if second < 9:
            drawn.append((piece, spikes))
    stream.reset_state()  # the next recording begins anew
    whole = stream(torch.cat(list(recording(asked.seconds))))

    spikes_seen, in_bursts = sum(counts), sum(counts[1::3])
    share = in_bursts / max(spikes_seen, 1)
    print(f"{spikes_seen} spikes in {asked.seconds} s, {share:.0%} of them in seconds with a burst")
    print(f"in one piece: {int(whole.sum())} spikes")
    if asked.picture:
        draw(drawn, asked.picture)
    return {"spikes": spikes_seen, "whole": int(whole.sum()), "in bursts": in_bursts}


def draw(drawn: list[tuple[Tensor, Tensor]], path: str) -> None:
    """The signal of one channel, and the spikes of all."""
    from matplotlib.figure import Figure

    signal = torch.cat([piece for piece, _ in drawn])
    spikes = torch.cat([spikes for _, spikes in drawn])
    seconds = torch.arange(len(signal)) / RATE
    figure = Figure(figsize=(8.3, 3.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(seconds, signal[:, 0], lw=0.4, color="#555555")
    above.set_ylabel("one channel")
    at, channel = spikes.nonzero(as_tuple=True)
    below.scatter(at / RATE, channel, s=3, color="#0072B2", linewidths=0)
    below.set_ylabel("spikes of 16 channels")
    below.set_xlabel("seconds; a call takes one of them")
    for second in range(len(drawn)):
        below.axvline(second, lw=0.5, color="#BBBBBB")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
