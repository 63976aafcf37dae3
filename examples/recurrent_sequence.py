"""A sequence that has to be remembered: a recurrent layer beside a layer without recurrence.

    python -P examples/recurrent_sequence.py

A digit of 8x8 pixels comes row by row, two time steps for each row, and the answer is asked for at the end.
Each neuron of the recurrent layer hears of the spikes of all of them, one step later. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lif_cuda import LIF, RecurrentLIF, surrogate

NEURONS = 128
STEPS_OF_ROW = 2
FOR_TRAINING = 1400


class Network(nn.Module):
    """Linear, a layer with recurrence or without, Linear."""

    def __init__(self, recurrent: bool) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(8, NEURONS), nn.Linear(NEURONS, 10)
        layer = RecurrentLIF if recurrent else LIF
        self.neurons = layer(
            NEURONS, beta=0.9, learn_beta=True, surrogate=surrogate.ATan(), output="trace", return_state=False
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Logits [batch, 10] of sequences [T, batch, 8], from the membranes of the last two steps."""
        return torch.as_tensor(self.out(self.neurons(self.into(rows))[-STEPS_OF_ROW:].mean(0)))


def train(recurrent: bool, updates: int) -> float:
    """The accuracy on digits that were not trained on."""
    torch.manual_seed(0)
    images, digits = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    rows = (images.float() / 8).view(-1, 8, 8).transpose(0, 1).repeat_interleave(STEPS_OF_ROW, 0)
    network = Network(recurrent)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for update in range(updates):
        batch = torch.randint(0, FOR_TRAINING, (128,))
        loss = nn.functional.cross_entropy(network(rows[:, batch]), digits[batch])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)  # sixteen steps back through the weights
        optimiser.step()
        if update % 100 == 0:
            print(f"update {update:4}: loss {loss.item():.3f}")
    with torch.no_grad():
        right = network(rows[:, FOR_TRAINING:]).argmax(1) == digits[FOR_TRAINING:]
    return float(right.float().mean())


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train both, and say how many digits are right."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=400, help="steps of the optimiser")
    asked = parser.parse_args(arguments)
    found = {"recurrent": train(True, asked.updates), "alone": train(False, asked.updates)}
    print(f"with recurrence {found['recurrent']:.1%} of the test images are right, ", end="")
    print(f"without {found['alone']:.1%}")
    return found


if __name__ == "__main__":
    main()
