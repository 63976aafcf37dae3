"""The classifiers of the benchmark: the seed's spiking network and the ANN that matches it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from ._check import check_choice, check_steps
from ._module import LIFModule
from ._options import DEFAULT_SURROGATE
from ._spike_linear import SpikeLinear
from .layers import LIF
from .surrogate import Surrogate


class SNNClassifier(nn.Module):
    """Linear -> LIF -> Linear -> LIF -> Linear, driven by the same pixels at each time step.

    Two identities make it cheap, and both are exact:

    - constant input: ``Linear(x)`` is the same at each step, so it is computed once and the first
      LIF layer reads it once for all T steps;
    - count readout: ``sum_t (W s[t] + b) = W (sum_t s[t]) + T b``, so the second LIF layer writes
      only spike counts and the last Linear runs once.

    A third one holds on the CPU (``linear="events"``): a product with spikes is a sum of the rows that they
    are set for, so the first LIF layer writes bits and the second Linear is a
    :class:`lif_cuda.SpikeLinear`, which adds and multiplies nothing. Its sums have another order than those
    of ``nn.Linear``, and so other roundings; the parameters are the same.

    With the default sizes it has 269,834 parameters, 512 of them decays.

    Args:
        input_size: features of the input (784 pixels of an MNIST digit).
        hidden_size: neurons of each of the two LIF layers.
        output_size: classes.
        beta: initial membrane decay, learned per neuron through a sigmoid.
        threshold: firing threshold.
        detach_reset: keep the gradient from flowing through the reset.
        surrogate: surrogate derivative of the spike.
        layer: the LIF layer class: :class:`lif_cuda.LIF` or :class:`lif_cuda.ReferenceLIF`. The same
            seed gives the same network with either, and their state_dicts are interchangeable.
        linear: the second Linear: ``"events"`` (:class:`lif_cuda.SpikeLinear`, which on CUDA runs an ordinary
            product) or ``"dense"`` (``nn.Linear``).
    """

    def __init__(
        self,
        input_size: int = 784,
        hidden_size: int = 256,
        output_size: int = 10,
        *,
        beta: float = 0.9,
        threshold: float = 1.0,
        detach_reset: bool = False,
        surrogate: Surrogate = DEFAULT_SURROGATE,
        layer: type[LIFModule] = LIF,
        linear: Literal["events", "dense"] = "events",
    ) -> None:
        super().__init__()
        check_choice("linear", linear, ("events", "dense"))
        self.linear = linear
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.lif1 = layer(
            hidden_size,
            beta,
            threshold,
            learn_beta=True,
            detach_reset=detach_reset,
            surrogate=surrogate,
            return_state=False,
        )
        self.fc2 = (SpikeLinear if linear == "events" else nn.Linear)(hidden_size, hidden_size)
        self.lif2 = layer(
            hidden_size,
            beta,
            threshold,
            learn_beta=True,
            detach_reset=detach_reset,
            surrogate=surrogate,
            return_state=False,
            output="count",
        )
        self.fc3 = nn.Linear(hidden_size, output_size)
        self._choose_output()

    def _apply(self, fn: Any, recurse: bool = True) -> SNNClassifier:
        super()._apply(fn, recurse)
        self._choose_output()  # it may lie on another device now
        return self

    def _choose_output(self) -> None:
        """Bits where the second Linear reads them."""
        packed = self.linear == "events" and self.fc2.weight.device.type == "cpu"
        self.lif1.output = "packed" if packed else "spikes"

    def forward(self, x: Tensor, num_steps: int = 25) -> Tensor:
        """Classify.

        Args:
            x: images, [batch, input_size] or [batch, ...] with input_size elements each.
            num_steps: time steps T.

        Returns:
            Logits summed over time, [batch, output_size].
        """
        check_steps("num_steps", num_steps)
        spikes = self.lif1(self.fc1(x.flatten(1)), steps=num_steps)
        counts = self.lif2(self.fc2(spikes))
        bias = num_steps * self.fc3.bias
        return nnf.linear(counts, self.fc3.weight, bias)


class ANNClassifier(nn.Module):
    """The same MLP with ReLU in place of the LIF layers: 269,322 parameters with the default sizes.

    Args:
        input_size, hidden_size, output_size: as for :class:`SNNClassifier`.
    """

    def __init__(self, input_size: int = 784, hidden_size: int = 256, output_size: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)
        self.fc3 = nn.Linear(hidden_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images [batch, ...]; returns logits [batch, output_size]."""
        hidden = torch.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(torch.relu(self.fc2(hidden)))
        return logits
