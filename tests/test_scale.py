"""What is only large: more elements than 32 bits count, a hundred thousand steps, ten thousand calls."""

from __future__ import annotations

import gc

import pytest
import torch

import lif_cuda
from common.memory import proc_bytes
from lif_cuda import functional, reference

STEPS = 100_000


@pytest.mark.slow
def test_more_elements_than_32_bits_count() -> None:
    """The last neurons of an x of 2^31 + 4096 elements fire, and their gradients arrive, in place."""
    steps, neurons = 2, (1 << 30) + 2048
    gigabytes = 2 * steps * neurons * 3 / 2**30  # x, spikes, and dx
    available = proc_bytes("meminfo", "MemAvailable") / 2**30
    if available < gigabytes + 4:
        pytest.skip(f"{gigabytes + 4:.0f} GiB of memory needed, {available:.0f} are free")
    assert steps * neurons > 2**31
    x = torch.zeros(steps, neurons, dtype=torch.bfloat16)  # its pages are not there until they are written
    tail = torch.randn(steps, 5000, generator=torch.Generator().manual_seed(0)) + 1
    x[:, -5000:] = tail.bfloat16()
    leaf = x.requires_grad_()
    out = functional.lif(leaf, 0.9, return_state=False)
    expected_leaf = x[:, -5000:].detach().clone().requires_grad_()
    expected = reference.lif(expected_leaf, 0.9, return_state=False)
    assert torch.equal(out[:, -5000:], expected)
    assert not out[:, :-5000].any()
    (dx,) = torch.autograd.grad(out.sum(), leaf)
    (expected_dx,) = torch.autograd.grad(expected.sum(), expected_leaf)
    assert torch.equal(dx[:, -5000:], expected_dx)
    assert (dx[:, :-5000] == dx[:, :1]).all()  # neurons at rest, all alike


@pytest.mark.slow
def test_a_hundred_thousand_steps() -> None:
    """Forward and backward, checkpoints and all, bit for bit those of the step loop."""
    x = torch.randn(STEPS, 3, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.1
    weights = torch.randn(STEPS, 3, generator=torch.Generator().manual_seed(2))
    found = []
    for call in (functional.lif, reference.lif):
        leaf = x.clone().requires_grad_()
        out, membrane = call(leaf, 0.95)
        (dx,) = torch.autograd.grad((out * weights).sum() + membrane.sum(), leaf)
        found.append((out.detach(), membrane.detach(), dx))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("learn", [False, True], ids=["fixed", "learned"])
def test_ten_thousand_calls_keep_no_memory(learn: bool) -> None:
    """A leak of one x a call would be 51 MB here, of a step of it 10 MB."""
    if not proc_bytes("self/status", "VmRSS"):
        pytest.skip("the resident memory of a process is read from /proc here")
    layer = lif_cuda.LIF(64, beta=0.9, learn_beta=learn, return_state=False)
    x = torch.randn(5, 4, 64, requires_grad=True)

    def calls(count: int) -> None:
        for _ in range(count):
            layer(x).sum().backward()
            layer.zero_grad()
            x.grad = None

    calls(1000)
    gc.collect()
    before = proc_bytes("self/status", "VmRSS")
    calls(10_000)
    gc.collect()
    grown = proc_bytes("self/status", "VmRSS") - before
    assert grown < 8 << 20, f"{grown >> 10} KiB more after 10,000 calls"
