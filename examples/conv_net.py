"""A convolutional network with a decay and a threshold for each channel.

    python -P examples/conv_net.py

The image is the same in each time step, so the first convolution runs once. The second one takes all time
steps as one large batch: time is folded into it, and the neurons are the only layers that know of time. Needs
scikit-learn.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lif_cuda import LIF, keep_memory, surrogate

STEPS = 8
FOR_TRAINING = 1400


def neurons(channels: int, **options: str) -> LIF:
    """Neurons of an image, whose parameters are those of its channel."""
    return LIF(
        channels,
        beta=0.8,
        channel_dim=-3,
        learn_beta=True,
        learn_threshold=True,
        surrogate=surrogate.ATan(),
        return_state=False,
        **options,  # type: ignore[arg-type]
    )


class Network(nn.Module):
    """Two convolutions of 3x3, each with batch norm and neurons; counts go into the readout."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.spiking = neurons(16)
        self.onward = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        )
        self.counted = neurons(32, output="rate")
        self.out = nn.Linear(32 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, 10] of images [batch, 1, 8, 8]."""
        spikes = self.spiking(self.into(images), steps=STEPS)  # [T, batch, 16, 8, 8]
        currents = self.onward(spikes.flatten(0, 1)).unflatten(0, (STEPS, -1))  # [T, batch, 32, 4, 4]
        return torch.as_tensor(self.out(self.counted(currents).flatten(1)))


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, and say how many digits are right."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=300, help="steps of the optimiser")
    parser.add_argument("--keep-memory", action="store_true", help="call lif_cuda.keep_memory() before")
    asked = parser.parse_args(arguments)
    if asked.keep_memory:
        keep_memory()

    torch.manual_seed(0)
    images, digits = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    x = (images.float() / 16).view(-1, 1, 8, 8).to(memory_format=torch.channels_last)
    network = Network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for update in range(asked.updates):
        batch = torch.randint(0, FOR_TRAINING, (64,))
        loss = nn.functional.cross_entropy(network(x[batch]), digits[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if update % 50 == 0:
            print(f"update {update:4}: loss {loss.item():.3f}")

    network.eval()
    with torch.no_grad():
        accuracy = (network(x[FOR_TRAINING:]).argmax(1) == digits[FOR_TRAINING:]).float().mean().item()
    print(f"{accuracy:.1%} of the digits that it never saw are right")
    return {"accuracy": accuracy}


if __name__ == "__main__":
    main()
