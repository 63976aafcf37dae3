"""The plain neuron by several libraries: one call over T steps each, from x [T, B, N] to spikes [T, B, N].

All are LIF neurons with beta 0.9 or so, threshold 1 and a reset by subtraction. Where a library means
something else by that, or has no such surrogate, a layer of lif_cuda that means the same stands beside it
(``rivals/equals.py``): against that one it is verified, and by its time that of the library is divided.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

import lif_cuda
from lif_cuda import functional, reference
from lif_cuda.surrogate import FastSigmoid, SoftSign
from rivals.equality import Run, difference, layer_runner, runner
from rivals.equals import Equal, by_name

BETA = 0.9
SURROGATE = FastSigmoid(k=10.0)
# Neuron-steps that are compared with the reference at once.
PIECE = 1 << 25

# What each library has that is nearest to the plain neuron.
NEAREST = {
    "snnTorch": "snn.Leaky(beta=0.9, spike_grad=surrogate.fast_sigmoid(10))",
    "SpikingJelly": "neuron.LIFNode(tau=10.0, decay_input=False, v_reset=None, "
    'surrogate_function=surrogate.SoftSign(20.0), step_mode="m")',
    "Norse": "norse.LIFBoxCell(norse.LIFBoxParameters(reset_method=reset.reset_subtract))",
    "sinabs": "layers.LIF(tau_mem=10.0, norm_input=False, spike_fn=activation.SingleSpike)",
}


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
        learned: tensors that a gradient is asked for beside that of x; of ``options``, if any are given.
        scale: what x is multiplied by before it is given to it.
        beside: the contender of this project that its times are divided by.
        reference: the same neuron in plain PyTorch; None: the reference with ``options``.
        equal: for a neuron of another library, the row that says which layer it is verified against.
        module: that neuron.
    """

    name: str
    run: Run
    options: dict[str, Any] = field(default_factory=dict)
    difference: str = ""
    exact: bool = True
    setup_seconds: float = 0.0
    learned: tuple[Tensor, ...] = ()
    scale: float = 1.0
    beside: str = "lif_cuda"
    reference: Run | None = None
    equal: Equal | None = None
    module: nn.Module | None = None


def lif_cuda_fused(x: Tensor) -> Tensor:
    """The layer of this project; like nn.LSTM it also returns the state."""
    spikes: Tensor = functional.lif(x, BETA, surrogate=SURROGATE)[0]
    return spikes


def eager_reference(x: Tensor) -> Tensor:
    """The reference of this project: a Python loop of plain operators."""
    spikes: Tensor = reference.lif(x, BETA, surrogate=SURROGATE)[0]
    return spikes


class Spike(torch.autograd.Function):
    """The spike of a threshold at 0, with the gradient of SURROGATE, as people write it."""

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
        s = Spike.apply(u - 1.0)
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


def pair(
    equal: Equal, name: str, device: torch.device, *, learn: bool = False
) -> tuple[Contender, Contender]:
    """The neuron of a library, and beside it the layer of this project that equals it.

    With ``learn`` the gradients of what the neuron learns are asked of both.

    Raises:
        ImportError: the library is not installed.
    """
    theirs, ours = equal.their_neuron().to(device), equal.our_layer().to(device)
    if not learn:
        theirs.requires_grad_(False)
        ours.requires_grad_(False)
        equal = replace(equal, learned={})
    names = equal.learned.items()
    beside = f"lif_cuda as {name}"
    return (
        Contender(
            name,
            runner(equal.library, theirs),
            difference="" if equal.exact else "other roundings",
            exact=equal.exact,
            learned=tuple(getattr(theirs, place) for place, _ in names),
            scale=equal.scale,
            beside=beside,
            equal=equal,
            module=theirs,
        ),
        Contender(
            beside,
            layer_runner(ours),
            difference=equal.ours,
            learned=tuple(getattr(ours, place) for _, (place, _) in names),
            scale=equal.scale,
            reference=_reference_of(ours),
        ),
    )


def _reference_of(layer: lif_cuda.LIF) -> Run:
    """The neuron of a layer by the reference; learned parameters are the layer's own."""
    names = inspect.signature(reference.lif).parameters.keys() - {"x", "membrane", "lengths", "return_state"}

    def run(x: Tensor) -> Tensor:
        options: dict[str, Any] = {name: getattr(layer, name) for name in names}
        spikes: Tensor = reference.lif(x, return_state=False, **options)
        return spikes

    return run


def spikingjelly(x: Tensor) -> Contender:
    """At its best setting for tensors like ``x``, compared with the reference.

    Since its version 2 it chooses its kernels itself, on CUDA Triton's. With 16 bits it would keep its
    state in them and run a loop of plain operators, ten times as long; told what its neurons store, it
    computes in fp32 and runs its kernels there too.
    """
    node = by_name(NEAREST["SpikingJelly"]).their_neuron()
    difference = "v - v / tau for beta * v: other roundings"
    storage = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(x.dtype)
    if x.is_cuda and storage is not None:
        from spikingjelly.activation_based.precision import prepare_model_for_precision

        prepare_model_for_precision(node, x.device, {"neuron_storage": storage})
        difference += f"; neuron_storage={storage!r}"
    options = {"surrogate": SoftSign(alpha=20.0)}
    return Contender("SpikingJelly", runner("SpikingJelly", node), options, difference, exact=False)


def variant(name: str, learned: Sequence[Tensor] = (), **options: Any) -> Contender:
    """A neuron of this project with other options than the plain one."""
    arguments: dict[str, Any] = {"beta": BETA, "surrogate": SURROGATE} | options

    def run(x: Tensor) -> Tensor:
        spikes: Tensor = functional.lif(x, **arguments)[0]
        return spikes

    return Contender(name, run, options, learned=tuple(learned))


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
    for library, theirs in NEAREST.items():
        if not rivals:
            missing[library] = "not asked for"
            continue
        try:
            found += pair(by_name(theirs), library, case_x.device)
        except Exception as error:
            missing[library] = reason(error)
    return found, missing


def fault(contender: Contender, x: Tensor, grad: Tensor, training: bool) -> str | None:
    """Why a contender may not be timed, ``grad`` being the gradient of its spikes; None: it may.

    A neuron of another library is verified against the layer that its times are divided by, any other against
    the reference: with its gradients if these are timed.
    """
    if contender.equal is None or contender.module is None:
        return wrong(contender, x) or (wrong_gradients(contender, x, grad) if training else None)
    try:
        return difference(contender.equal, contender.module, x, grad).fault(contender.exact)
    except Exception as error:
        return reason(error)


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
    if contender.reference is not None:
        return contender.reference(x)
    neuron: dict[str, Any] = {"beta": BETA, "surrogate": SURROGATE} | contender.options
    spikes: Tensor = reference.lif(x, return_state=False, **neuron)
    return spikes


def _rows(x: Tensor) -> int:
    """Samples that the reference takes at once: it keeps over a hundred bytes a neuron-step for backward."""
    return max(1, PIECE * x.shape[1] // max(1, x.numel()))


def _gradients(contender: Contender, run: Run, x: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(run(leaf), [leaf, *contender.learned], grad)
