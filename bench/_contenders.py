"""The neuron by several libraries: one call over T steps each, from x [T, B, N] to spikes [T, B, N].

All are LIF neurons with beta 0.9, threshold 1 and a reset by subtraction. Where a library means something
else by that, the difference is stated, and what it is compared with has it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lif_cuda import functional, reference
from lif_cuda.surrogate import FastSigmoid, SoftSign

BETA = 0.9
SURROGATE = FastSigmoid(k=10.0)
# Neuron-steps that are compared with the reference at once.
PIECE = 1 << 25

Run = Callable[[Tensor], Tensor]


@dataclass
class Contender:
    """One implementation.

    Attributes:
        name: what it is called in tables.
        run: x [T, B, ...] to spikes of that shape.
        options: of ``lif_cuda.functional.lif``, for the same neuron.
        difference: from the plain neuron, or from the same bits; empty where there is none.
        exact: whether its spikes must equal those of lif_cuda with ``options`` to the last bit.
        setup_seconds: what the first call costs beyond a later one (compiling).
        learned: those of ``options`` that a gradient is asked for beside that of x.
    """

    name: str
    run: Run
    options: dict[str, Any] = field(default_factory=dict)
    difference: str = ""
    exact: bool = True
    setup_seconds: float = 0.0
    learned: tuple[Tensor, ...] = ()


def lif_cuda_fused(x: Tensor) -> Tensor:
    """The layer of this project; like nn.LSTM it also returns the state."""
    spikes: Tensor = functional.lif(x, BETA, surrogate=SURROGATE)[0]
    return spikes


def eager_reference(x: Tensor) -> Tensor:
    """The reference of this project: a Python loop of plain operators."""
    spikes: Tensor = reference.lif(x, BETA, surrogate=SURROGATE)[0]
    return spikes


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        y = 1 + 10.0 * z.abs()
        grad: Tensor = grads[0] * (1 / (y * y))
        return grad


def plain_loop(x: Tensor) -> Tensor:
    """The loop that people write, without checks: what torch.compile is given."""
    v = torch.zeros_like(x[0], dtype=torch.float32 if x.element_size() == 2 else x.dtype)
    spikes = []
    for current in x.unbind(0):
        u = BETA * v + current
        s = _Spike.apply(u - 1.0)
        v = u - s
        spikes.append(s)
    series: Tensor = torch.stack(spikes).to(x.dtype)
    return series


def compiled(x: Tensor) -> Contender:
    """``torch.compile`` of the plain loop, without a graph break, compiled for tensors like ``x``."""
    torch.compiler.reset()
    run: Run = torch.compile(plain_loop, fullgraph=True, dynamic=False)
    began = time.perf_counter()
    run(x.detach().requires_grad_()).sum().backward()
    # Triton makes one rounding of a product and a sum.
    difference = "rounds beta * v + x once" if x.is_cuda else ""
    taken = time.perf_counter() - began
    return Contender("torch.compile", run, {}, difference, exact=not difference, setup_seconds=taken)


def reason(error: BaseException) -> str:
    """Why a contender is missing, in one line."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}"


def _snntorch() -> Contender:
    import snntorch
    from snntorch import surrogate

    neuron = snntorch.Leaky(BETA, spike_grad=surrogate.fast_sigmoid(10), reset_mechanism="subtract")

    def run(x: Tensor) -> Tensor:
        membrane = neuron.init_leaky().to(x.device)
        spikes = []
        for current in x.unbind(0):
            spike, membrane = neuron(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    options = {"strict": True, "delay_reset": True, "detach_reset": True}
    return Contender("snnTorch", run, options, "fires above the threshold, resets at the next step")


def spikingjelly(x: Tensor) -> Contender:
    """At its best setting for tensors like ``x``.

    Since its version 2 it chooses its kernels itself, on CUDA Triton's. With 16 bits it would keep its
    state in them and run a loop of plain operators, ten times as long; told what its neurons store, it
    computes in fp32 and runs its kernels there too.
    """
    from spikingjelly.activation_based import functional as sj
    from spikingjelly.activation_based import neuron, surrogate

    node = neuron.LIFNode(
        tau=1 / (1 - BETA),
        decay_input=False,
        v_reset=None,
        surrogate_function=surrogate.SoftSign(20.0),
        step_mode="m",
    )
    difference = "v - v / tau for beta * v: other roundings"
    storage = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(x.dtype)
    if x.is_cuda and storage is not None:
        from spikingjelly.activation_based.precision import prepare_model_for_precision

        prepare_model_for_precision(node, x.device, {"neuron_storage": storage})
        difference += f"; neuron_storage={storage!r}"

    def run(x: Tensor) -> Tensor:
        sj.reset_net(node)
        spikes: Tensor = node(x)
        return spikes

    options = {"surrogate": SoftSign(alpha=20.0)}
    return Contender("SpikingJelly", run, options, difference, exact=False)


def _norse() -> Contender:
    from norse.torch.functional.lif_box import (
        LIFBoxFeedForwardState,
        LIFBoxParameters,
        lif_box_feed_forward_step,
    )
    from norse.torch.functional.reset import reset_subtract

    rate = torch.tensor(100.0)
    parameters = LIFBoxParameters(tau_mem_inv=rate, v_th=torch.tensor(1.0), reset_method=reset_subtract)

    def run(x: Tensor) -> Tensor:
        state = LIFBoxFeedForwardState(v=torch.zeros_like(x[0]))
        spikes = []
        for current in (x * 10).unbind(0):
            spike, state = lif_box_feed_forward_step(current, state, parameters, dt=0.001)
            spikes.append(spike)
        return torch.stack(spikes)

    return Contender("Norse", run, {"strict": True}, "v + dt / tau * (x - v): other roundings", exact=False)


def _sinabs() -> Contender:
    import math

    from sinabs import activation, layers

    def run(x: Tensor) -> Tensor:
        layer = layers.LIF(
            tau_mem=torch.tensor(-1 / math.log(BETA)),
            norm_input=False,
            spike_fn=activation.SingleSpike,
            reset_fn=activation.MembraneSubtract(),
        )
        spikes: Tensor = layer(x.transpose(0, 1)).transpose(0, 1)
        return spikes

    return Contender("sinabs", run, {}, "batch first; exp(-1 / tau) for beta: other roundings", exact=False)


def contenders(case_x: Tensor, *, compile_loop: bool, rivals: bool) -> tuple[list[Contender], dict[str, str]]:
    """Those that can run, and for each of the others why not."""
    found = [
        Contender("lif_cuda", lif_cuda_fused),
        Contender("eager reference", eager_reference),
        Contender("eager loop", plain_loop),
    ]
    missing: dict[str, str] = {}
    if compile_loop:
        try:
            found.append(compiled(case_x))
        except Exception as error:
            missing["torch.compile"] = reason(error)
    else:
        missing["torch.compile"] = "not asked for at this length: it unrolls the loop"
    for name, make in (
        ("snnTorch", _snntorch),
        ("SpikingJelly", lambda: spikingjelly(case_x)),
        ("Norse", _norse),
        ("sinabs", _sinabs),
    ):
        if not rivals:
            missing[name] = "not asked for"
            continue
        try:
            found.append(make())
        except Exception as error:
            missing[name] = reason(error)
    return found, missing


def wrong(contender: Contender, x: Tensor) -> str | None:
    """What tells a contender's spikes from those of the reference; None: it may be timed."""
    with torch.no_grad():
        expected = torch.cat([_reference(contender, piece) for piece in x.split(_rows(x), 1)], 1)
        try:
            spikes = contender.run(x)
        except Exception as error:
            return reason(error)
    if spikes.shape != expected.shape or spikes.dtype != expected.dtype:
        return f"{tuple(spikes.shape)} {spikes.dtype} instead of {tuple(expected.shape)} {expected.dtype}"
    apart = float((spikes != expected).double().mean())
    # Other roundings move a membrane across the threshold now and then.
    if apart > (0.0 if contender.exact else 1e-3):
        return f"{apart:.3%} of the spikes differ"
    return None


def wrong_gradients(contender: Contender, x: Tensor, grad: Tensor) -> str | None:
    """What tells a contender's gradients, ``grad`` being that of its spikes, from the reference's.

    The distance between them is taken relative to the reference's length. An exact contender may sum in
    another order; others round otherwise, and those that keep u in bfloat16 for backward find the surrogate
    4 % off.
    """
    try:
        found = _gradients(contender, contender.run, x, grad)
    except Exception as error:
        return reason(error)
    rows = _rows(x)
    pieces = [
        _gradients(contender, lambda leaf: _reference(contender, leaf), part, part_grad)
        for part, part_grad in zip(x.split(rows, 1), grad.split(rows, 1), strict=True)
    ]
    by_tensor = list(zip(*pieces, strict=True))
    expected = [torch.cat(by_tensor[0], 1), *(sum(parts, start=parts[0] * 0) for parts in by_tensor[1:])]
    short = x.element_size() == 2
    allowed = (4e-3 if short else 1e-4) if contender.exact else (0.1 if short else 0.02)
    for place, (mine, right) in enumerate(zip(found, expected, strict=True)):
        distance = float((mine.double() - right.double()).norm() / right.double().norm())
        if not distance <= allowed:  # nor may it be NaN
            name = f"learned parameter {place}" if place else "x"
            return f"the gradient of {name} is {distance:.2g} of its length away"
    return None


def _reference(contender: Contender, x: Tensor) -> Tensor:
    """Spikes of the contender's neuron by the reference."""
    neuron: dict[str, Any] = {"beta": BETA, "surrogate": SURROGATE} | contender.options
    spikes: Tensor = reference.lif(x, return_state=False, **neuron)
    return spikes


def _rows(x: Tensor) -> int:
    """Samples that the reference takes at once: it keeps over a hundred bytes a neuron-step for backward."""
    return max(1, PIECE * x.shape[1] // max(1, x.numel()))


def _gradients(contender: Contender, run: Run, x: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(run(leaf), [leaf, *contender.learned], grad)
