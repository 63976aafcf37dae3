"""A spiking network learns handwritten digits, and a loop that owns the time axis gives the same spikes.

    python -P examples/quickstart.py

Needs scikit-learn, which has 1,797 digits of 8x8 pixels in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lif_cuda import LIF

STEPS = 25
FOR_TRAINING = 1400


class Network(nn.Module):
    """Linear, LIF, Linear, LIF, Linear. The pixels are the same in each time step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(64, 128), nn.Linear(128, 128), nn.Linear(128, 10)
        self.neurons = LIF(128, learn_beta=True, return_state=False)
        self.counted = LIF(128, learn_beta=True, return_state=False, output="count")

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [batch, 10] of images [batch, 64]."""
        spikes = self.neurons(self.first(pixels), steps=STEPS)  # [T, batch, 128], in one launch
        counts = self.counted(self.second(spikes))  # [batch, 128]
        return torch.as_tensor(self.out(counts / STEPS))

    def by_hand(self, pixels: Tensor) -> Tensor:
        """The same with a loop over time around the whole network, as tutorials write it."""
        current = self.first(pixels)
        counts = torch.zeros(len(pixels), 128)
        first_state = second_state = None
        for _ in range(STEPS):
            spikes, first_state = self.neurons.step(current, first_state)
            spikes, second_state = self.counted.step(self.second(spikes), second_state)
            counts = counts + spikes
        return torch.as_tensor(self.out(counts / STEPS))


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, and say how many digits are right."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=500, help="steps of the optimiser")
    asked = parser.parse_args(arguments)

    torch.manual_seed(0)
    images, digits = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    x = images.float() / 16
    network = Network()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for update in range(asked.updates):
        batch = torch.randint(0, FOR_TRAINING, (128,))
        loss = nn.functional.cross_entropy(network(x[batch]), digits[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if update % 100 == 0:
            print(f"update {update:4}: loss {loss.item():.3f}")

    with torch.no_grad():
        logits, by_hand = network(x[FOR_TRAINING:]), network.by_hand(x[FOR_TRAINING:])
    accuracy = (logits.argmax(1) == digits[FOR_TRAINING:]).float().mean().item()
    difference = (logits - by_hand).abs().max().item()
    print(f"{accuracy:.1%} of the digits that it never saw are right")
    print(f"the loop's logits differ by {difference:g} at most")
    return {"accuracy": accuracy, "difference": difference}


if __name__ == "__main__":
    main()
