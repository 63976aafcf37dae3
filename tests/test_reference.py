"""The eager reference, by itself: how it computes what the kernels are held against."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lif_cuda import reference, surrogate


class Divisors(TorchDispatchMode):
    """Records what tensors are divided by."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.div, torch.ops.aten.true_divide):
            self.seen.append(args[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("output", ["rate", ("spikes", "rate")], ids=str)
@pytest.mark.parametrize("shape", [surrogate.FastSigmoid(), surrogate.ATan(), surrogate.Sigmoid()], ids=repr)
def test_a_number_divides_as_a_tensor_on_the_device(output: Any, shape: surrogate.Surrogate) -> None:
    """Eager CUDA multiplies with the reciprocal of a number, and of a tensor on the CPU, which rounds twice.

    The meta device stands for CUDA here: what is on it is not on the CPU.
    """
    x = torch.zeros(7, 3, device="meta", requires_grad=True)
    with Divisors() as divisors:
        out = reference.lif(x, 0.9, output=output, surrogate=shape, return_state=False)
        rate = out if isinstance(out, Tensor) else out.rate
        rate.sum().backward()
    assert divisors.seen, "nothing was divided: the rate should have been"
    for divisor in divisors.seen:
        assert isinstance(divisor, Tensor) and divisor.device.type == "meta", divisor
