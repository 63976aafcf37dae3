"""Firing rates and energy while a network trains.

    python -P examples/monitoring.py --picture monitoring.png

A layer returns the spikes of the whole layer beside its output, in the same launch (output="total"). They are
the rates, and from the rates comes the energy, counted honestly: the first layer once, as multiplications. A
penalty on the rate is one more term of the loss. Needs scikit-learn, and matplotlib for the picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lif_cuda import LIF, energy

STEPS = 25
SIZES = (64, 128, 128, 10)
FOR_TRAINING = 1400


class Network(nn.Module):
    """Linear, LIF, Linear, LIF, Linear; returns logits, the rates, and their mean with a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = (nn.Linear(a, b) for a, b in zip(SIZES, SIZES[1:], strict=False))
        self.lower = LIF(SIZES[1], learn_beta=True, return_state=False, output=("spikes", "rate", "total"))
        self.upper = LIF(SIZES[2], learn_beta=True, return_state=False, output=("count", "rate", "total"))

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[float], Tensor]:
        """Of images [batch, 64]."""
        lower = self.lower(self.first(pixels), steps=STEPS)
        upper = self.upper(self.second(lower.spikes))
        rates = [
            energy.firing_rate(int(out.total), len(pixels), STEPS, neurons)
            for out, neurons in ((lower, SIZES[1]), (upper, SIZES[2]))
        ]
        return self.out(upper.count / STEPS), rates, (lower.rate.mean() + upper.rate.mean()) / 2


def train(penalty: float, updates: int) -> tuple[list[tuple[int, float, float, float]], float]:
    """Train with a penalty on the mean rate.

    Returns:
        (update, rates of both layers, energy saved in percent) every ten updates, and the accuracy.
    """
    torch.manual_seed(0)
    images, digits = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    x, network = images.float() / 16, Network()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    seen = []
    for update in range(updates):
        batch = torch.randint(0, FOR_TRAINING, (128,))
        logits, rates, rate = network(x[batch])
        loss = nn.functional.cross_entropy(logits, digits[batch]) + penalty * rate
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if update % 10 == 0 or update == updates - 1:
            seen.append((update, *rates, energy.honest(SIZES, STEPS, rates).saving_percent))
    with torch.no_grad():
        right = network(x[FOR_TRAINING:])[0].argmax(1) == digits[FOR_TRAINING:]
    return seen, right.float().mean().item()


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train without a penalty and with one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=400, help="steps of the optimiser")
    parser.add_argument("--penalty", type=float, default=0.5, help="of the second network, on its mean rate")
    parser.add_argument("--picture", metavar="FILE")
    asked = parser.parse_args(arguments)

    runs = {penalty: train(penalty, asked.updates) for penalty in (0.0, asked.penalty)}
    for penalty, (seen, accuracy) in runs.items():
        _, lower, upper, saved = seen[-1]
        words = f"{abs(saved):.0f} % {'less' if saved > 0 else 'more'} energy than with ReLU"
        print(f"penalty {penalty:g}: rates {lower:.1%} and {upper:.1%}, {words}; {accuracy:.1%} right")
    if asked.picture:
        draw({penalty: seen for penalty, (seen, _) in runs.items()}, asked.picture)
    without, penalised = runs.values()
    return {
        "accuracy": without[1],
        "accuracy with penalty": penalised[1],
        "rate": without[0][-1][1],
        "rate with penalty": penalised[0][-1][1],
    }


def draw(runs: dict[float, list[tuple[int, float, float, float]]], path: str) -> None:
    """Rates and the energy saved, over the training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.3, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, (penalty, seen) in zip(("#0072B2", "#D55E00"), runs.items(), strict=True):
        updates, lower, upper, saved = zip(*seen, strict=True)
        label = f"penalty {penalty:g}" if penalty else "no penalty"
        left.plot(updates, [100 * rate for rate in lower], color=colour, label=f"{label}, layer 1")
        left.plot(updates, [100 * rate for rate in upper], color=colour, ls="--", label=f"{label}, layer 2")
        right.plot(updates, saved, color=colour, label=label)
    left.set_ylabel("firing rate, %")
    left.set_ylim(0, 70)  # room for the legend
    right.set_ylabel("energy below that of ReLU, %")
    right.axhline(0, lw=0.8, color="#555555")
    for axes in (left, right):
        axes.set_xlabel("update")
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
