"""Tensors as they lie: any time axis, memory format, slice and expansion, without a needless copy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from compare import GRADIENT_LAYOUTS, assert_identical, autograd_in_python, laid_out
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lif_cuda import LIF, ReferenceLIF, _layout, _ops, functional, reference

T, B, C, H, W = 6, 2, 3, 8, 8


def images() -> Tensor:
    return torch.randn(T, B, C, H, W, generator=torch.Generator().manual_seed(0)) + 0.3


def channels_last(x: Tensor) -> Tensor:
    """[T, B, C, H, W] with the channels fastest."""
    return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


# How x is made, where its time axis is, and whether the kernels read it as it lies.
LAYOUTS: list[tuple[str, Callable[[], Tensor], int, bool]] = [
    ("time first", images, 0, True),
    ("batch first", lambda: images().transpose(0, 1).contiguous(), 1, True),
    ("batch first, time named from the end", lambda: images().transpose(0, 1).contiguous(), -4, True),
    ("time seen second", lambda: images().transpose(0, 1), 1, True),
    ("channels last", lambda: channels_last(images()), 0, True),
    ("channels last, batch first", lambda: channels_last(images()).transpose(0, 1).contiguous(), 1, True),
    ("slice of features", lambda: images().view(T, B, -1)[..., 10:150], 0, True),
    ("slice of time", lambda: images()[::2], 0, True),
    ("slice of the batch", lambda: images()[:, 1:], 0, True),
    ("expanded over time", lambda: images()[:1].expand(T, B, C, H, W), 0, True),
    ("expanded over the batch", lambda: images()[:, :1].expand(T, B, C, H, W), 0, True),
    ("misaligned", lambda: images().view(-1)[1:-383].view(5, B, C, H, W), 0, True),
    ("time last", lambda: images().permute(1, 2, 3, 4, 0).contiguous(), 4, False),
    ("strided features", lambda: images()[..., ::2], 0, False),
    ("short rows", lambda: images()[:, :, 0, 0, :3].transpose(0, 1).contiguous(), 1, False),
    ("expanded over features", lambda: images()[..., :1].expand(T, B, C, H, W), 0, False),
    ("empty", lambda: images()[:, :0], 0, True),
]


@pytest.mark.parametrize(
    ("make", "time_dim", "as_it_lies"), [r[1:] for r in LAYOUTS], ids=[r[0] for r in LAYOUTS]
)
def test_layouts(make: Callable[[], Tensor], time_dim: int, as_it_lies: bool) -> None:
    x = make()
    assert _layout.layout_of(x, time_dim % x.dim(), False).copy is not as_it_lies
    results = []
    for function in (functional.lif, reference.lif):
        leaf = x.detach().requires_grad_()
        out, membrane = function(leaf, 0.9, time_dim=time_dim)
        weight = torch.linspace(-1, 1, out.numel()).view(out.shape)
        (grad,) = torch.autograd.grad((out * weight).sum() + membrane.square().sum(), leaf)
        results.append((out, membrane, grad))
    for fused, expected in zip(*results, strict=True):
        assert torch.equal(fused, expected)


@pytest.mark.parametrize("kind", GRADIENT_LAYOUTS)
@pytest.mark.parametrize(("make", "time_dim"), [r[1:3] for r in LAYOUTS], ids=[r[0] for r in LAYOUTS])
def test_layouts_of_gradients(make: Callable[[], Tensor], time_dim: int, kind: str) -> None:
    """Of a series and of what has no time axis, beside an input that lies in its own way."""
    x = make()
    time = time_dim % x.dim()
    generator = torch.Generator().manual_seed(0)
    grads = []
    for function in (functional.lif, reference.lif):
        leaf = x.detach().requires_grad_()
        out, membrane = function(leaf, 0.9, time_dim=time_dim, output=("spikes", "count"))
        generator.manual_seed(0)
        arriving = [torch.randn(tensor.shape, generator=generator) for tensor in (*out, membrane)]
        if x.numel():
            arriving = [laid_out(g, kind, t) for g, t in zip(arriving, (time, 0, 0), strict=True)]
        grads.append(torch.autograd.grad((*out, membrane), leaf, arriving)[0])
    assert_identical(*grads, "gradient of x")


class GradientsSeen(TorchDispatchMode):
    """Takes down the tensors that backward is given beside x."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ops.lif_backward:
            self.tensors += args[1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("recorded_by", [nullcontext, autograd_in_python], ids=["cpp", "python"])
@pytest.mark.parametrize("time_dim", [0, 1])
@pytest.mark.parametrize("kind", ["dense", "of a sum", "of a mean over time", "a value for each step"])
def test_gradients_are_not_copied(
    kind: str, time_dim: int, recorded_by: Callable[[], AbstractContextManager[None]]
) -> None:
    """What autograd hands over with strides of 0 goes to the kernel so: nothing is written out in full."""
    x = images().transpose(0, time_dim).contiguous().requires_grad_()
    with recorded_by():
        out = functional.lif(x, 0.9, time_dim=time_dim, return_state=False)
    grad = laid_out(torch.randn(out.shape), kind, time_dim)
    with GradientsSeen() as seen:
        out.backward(grad)
    assert [t.untyped_storage().data_ptr() for t in seen.tensors] == [grad.untyped_storage().data_ptr()]


@pytest.mark.parametrize("time_dim", [0, 1])
def test_outputs_keep_the_memory_format(time_dim: int) -> None:
    for x in (images(), channels_last(images())):
        x = (
            channels_last(x.transpose(0, time_dim))
            if x.stride(2) == 1
            else x.transpose(0, time_dim).contiguous()
        )
        leaf = x.detach().requires_grad_()
        out, membrane = functional.lif(leaf, 0.9, time_dim=time_dim)
        assert out.stride() == x.stride()
        assert membrane.stride() == x.select(time_dim, 0).clone(memory_format=torch.preserve_format).stride()
        out.backward(torch.ones_like(out))
        assert leaf.grad.stride() == x.stride()


def test_what_is_saved_is_x_itself() -> None:
    """No copy of a batch-first or channels-last input, in forward or for backward."""
    for x, time_dim in (
        (images().transpose(0, 1).contiguous(), 1),
        (channels_last(images()), 0),
        (images()[:1].expand(T, B, C, H, W), 0),
    ):
        leaf = x.detach().requires_grad_()
        saved: list[Tensor] = []

        def keep(tensor: Tensor, into: list[Tensor] = saved) -> Tensor:
            into.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            functional.lif(leaf, 0.9, time_dim=time_dim)
        large = [t for t in saved if t.numel() >= x.numel()]
        assert [t.untyped_storage().data_ptr() for t in large] == [x.untyped_storage().data_ptr()]


@pytest.mark.parametrize("parameter", ["beta", "threshold", "v_reset", "gain"])
@pytest.mark.parametrize("last", [False, True], ids=["", "channels_last"])
@pytest.mark.parametrize(("time_dim", "channel_dim"), [(0, 2), (1, 2), (0, -3), (1, -3)])
def test_a_value_for_each_channel(parameter: str, last: bool, time_dim: int, channel_dim: int) -> None:
    x = channels_last(images()) if last else images()
    x = x.transpose(0, time_dim)
    values = torch.linspace(0.3, 0.9, C)
    grads = []
    for function in (functional.lif, reference.lif):
        leaf = values.clone().requires_grad_()
        given = {"beta": 0.9, parameter: leaf}
        out, membrane = function(
            x,
            time_dim=time_dim,
            channel_dim=channel_dim,
            reset="zero" if parameter == "v_reset" else "subtract",
            **given,
        )
        (out * torch.linspace(-1, 1, W)).sum().add(membrane.sum()).backward()
        grads.append((out, membrane, leaf.grad))
    for fused, expected in zip(grads[0][:2], grads[1][:2], strict=True):
        assert torch.equal(fused, expected)
    torch.testing.assert_close(grads[0][2], grads[1][2], rtol=1e-4, atol=1e-3)


def test_convolutional_layer_learns_a_value_for_each_channel() -> None:
    x = channels_last(images())
    for cls in (LIF, ReferenceLIF):
        layer = cls(C, learn_beta=True, learn_threshold=True, channel_dim=2)
        layer(x)[0].sum().backward()
        assert layer.beta_logit.grad.shape == (C,) and layer.beta_logit.grad.abs().min() > 0


@pytest.mark.parametrize("time_dim", [0, 1, 2])
@pytest.mark.parametrize("last", [False, True], ids=["", "transposed"])
def test_constant_inputs(time_dim: int, last: bool) -> None:
    x = torch.randn(5, 80) + 0.3
    x = x.t().contiguous().t() if last else x
    grads = []
    for function in (functional.lif, reference.lif):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        out, membrane = function(leaf, 0.9, steps=T, time_dim=time_dim)
        assert out.shape == torch.Size([*x.shape[:time_dim], T, *x.shape[time_dim:]])
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        grads.append((out, membrane, leaf.grad))
    for fused, expected in zip(*grads, strict=True):
        assert torch.equal(fused, expected)
