"""Time one training step of the seed's network: what the neurons cost, fused and not.

    python bench/train_step.py --threads 2

A step is zero_grad, forward, cross entropy, backward and Adam, on one batch. The contenders take
turns, one step each and in a new order every round, so that whatever else the machine does falls on
all of them alike. Before anything is timed their logits are compared, and nothing is timed over a
wrong answer.

Contenders:

    fused        SNNClassifier with lif_cuda.LIF, whose second Linear adds rows for spikes
    fused dense  the same network with an nn.Linear in its place, as all others below have it
    reference    with lif_cuda.ReferenceLIF: eager neurons, fc1 and fc3 once
    step loop    the seed's own loop over time with ReferenceLIF.step: every Linear at each step
    plain loop   that loop with the neuron written out by hand in plain PyTorch, without checks
    no neurons   fc1 once, its output copied T times, fc2 on that, the sum over time, fc3 once:
                 the dense Linears alone, which bounds what a faster neuron can gain beside them
    compiled     with --compile: torch.compile of the fused network
"""

from __future__ import annotations

import argparse
import gc
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as nnf

from common import commit, machine
from common.files import write_json
from lif_cuda import LIF, PackedSpikes, ReferenceLIF
from lif_cuda.models import SNNClassifier
from lif_cuda.surrogate import FastSigmoid

_CLASSES = 10
_SURROGATE = FastSigmoid(k=10.0)
_WARM_UP = 3

Classify = Callable[[Tensor], Tensor]


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return grads[0] * _SURROGATE.derivative(z)


def _step_loop(model: SNNClassifier, x: Tensor, steps: int) -> Tensor:
    v1: Tensor | None = None
    v2: Tensor | None = None
    logits = x.new_zeros(len(x), _CLASSES)
    for _ in range(steps):
        s1, v1 = model.lif1.step(model.fc1(x), v1)
        s2, v2 = model.lif2.step(model.fc2(s1), v2)
        logits = logits + model.fc3(s2)
    return logits


def _plain_loop(model: SNNClassifier, x: Tensor, steps: int) -> Tensor:
    v1 = x.new_zeros(len(x), model.fc1.out_features)
    v2 = torch.zeros_like(v1)
    logits = x.new_zeros(len(x), _CLASSES)
    for _ in range(steps):
        u1 = model.lif1.beta * v1 + model.fc1(x)
        s1 = _Spike.apply(u1 - 1.0)
        v1 = u1 - s1
        u2 = model.lif2.beta * v2 + model.fc2(s1)
        s2 = _Spike.apply(u2 - 1.0)
        v2 = u2 - s2
        logits = logits + model.fc3(s2)
    return logits


def _no_neurons(model: SNNClassifier, x: Tensor, steps: int) -> Tensor:
    current = model.fc1(x)
    over_time = current.expand(steps, *current.shape).contiguous()
    total = model.fc2(over_time).sum(0)
    return nnf.linear(total, model.fc3.weight, steps * model.fc3.bias)


class Contender:
    """A network with its optimiser, from the same seed as all others.

    Args:
        name: as in the head of this module.
        layer: the LIF layer class of its network.
        forward: (model, images [B, pixels], steps) to logits [B, 10].
        options: sizes, seed and learning rate of the command line.
        device: where it runs.
        linear: the second Linear, as SNNClassifier takes it.
    """

    def __init__(
        self,
        name: str,
        layer: type[LIF] | type[ReferenceLIF],
        forward: Callable[[SNNClassifier, Tensor, int], Tensor],
        options: argparse.Namespace,
        device: torch.device,
        linear: Literal["events", "dense"] = "dense",
    ) -> None:
        torch.manual_seed(options.seed)
        self.name = name
        self.model = SNNClassifier(options.input_size, options.hidden, layer=layer, linear=linear).to(device)
        self.steps = options.steps
        self._forward = forward
        parameters = [
            parameter
            for key, parameter in self.model.named_parameters()
            if name != "no neurons" or not key.startswith("lif")
        ]
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)

    def logits(self, x: Tensor) -> Tensor:
        """Classify images [B, pixels]."""
        return self._forward(self.model, x, self.steps)

    def train(self, x: Tensor, labels: Tensor) -> None:
        """One training step."""
        self.optimizer.zero_grad(set_to_none=True)
        nnf.cross_entropy(self.logits(x), labels).backward()
        self.optimizer.step()


def main(arguments: Sequence[str] | None = None) -> None:
    """Verify, time and report."""
    options = _options(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(options.seed)
    x = torch.randn(options.batch_size, options.input_size, generator=generator).to(device)
    labels = torch.randint(_CLASSES, (options.batch_size,), generator=generator).to(device)

    def whole(model: SNNClassifier, images: Tensor, steps: int) -> Tensor:
        return model.forward(images, num_steps=steps)

    contenders = [
        Contender("fused", LIF, whole, options, device, "events"),
        Contender("fused dense", LIF, whole, options, device),
        Contender("reference", ReferenceLIF, whole, options, device),
        Contender("step loop", ReferenceLIF, _step_loop, options, device),
        Contender("plain loop", ReferenceLIF, _plain_loop, options, device),
        Contender("no neurons", LIF, _no_neurons, options, device),
    ]
    if options.compile:
        contenders.append(
            Contender("compiled", LIF, torch.compile(whole, fullgraph=True), options, device, "events")
        )
    rate = verify(contenders, x)
    seconds = measure(contenders, x, labels, options.repeats)
    parts = breakdown(contenders[0], x, labels, options.repeats)
    results = {
        "format": 1,
        "command": machine.command(),
        "settings": {key: value for key, value in vars(options).items() if key != "json"},
        "versions": machine.versions(),
        "machine": machine.machine(device),
        "commit": commit.commit(),
        "firing_rate_of_lif1": rate,
        "milliseconds": {name: _quartiles(times, 1e3) for name, times in seconds.items()},
        # Of the two steps of one round, which ran within the same fraction of a second.
        "times_of_fused": {
            name: _quartiles([a / b for a, b in zip(times, seconds["fused"], strict=True)], 1.0)
            for name, times in seconds.items()
        },
        "parts_of_fused": parts,
        "fused_times_of_no_neurons": _quartiles(
            [a / b for a, b in zip(seconds["fused"], seconds["no neurons"], strict=True)], 1.0
        ),
    }
    print(_table(results))
    if options.json:
        write_json(options.json, results)


@torch.no_grad()
def verify(contenders: Sequence[Contender], x: Tensor) -> float:
    """Exit unless the spiking contenders compute the same logits; return the firing rate of lif1.

    With the same Linears fused and reference must agree to the last bit. Sums of events have another order,
    the loops run fc2 and fc3 in other pieces, and a compiler may; they round differently, so that a membrane
    within a rounding of the threshold may fire in one and not in the other: their logits must be near for
    nearly all images.
    """
    logits = {c.name: c.logits(x) for c in contenders}
    if not torch.equal(logits["fused dense"], logits["reference"]):
        apart = (logits["fused dense"] - logits["reference"]).abs().max()
        sys.exit(f"error: fused and reference logits differ by up to {apart:.3g}; nothing is timed")
    for name in ("fused", "step loop", "plain loop", *(["compiled"] if "compiled" in logits else [])):
        near = torch.isclose(logits[name], logits["reference"], rtol=1e-4, atol=1e-4).all(1)
        share = float(near.double().mean())
        if share < 0.95:
            sys.exit(
                f"error: {name} and reference agree on {share:.1%} of the images, expected 95 % "
                "or more; nothing is timed"
            )
    model = contenders[0].model
    spikes = model.lif1(model.fc1(x), steps=contenders[0].steps)
    fired = spikes.count() if isinstance(spikes, PackedSpikes) else (spikes != 0).sum()
    return float(fired) / float(spikes.numel())


def measure(
    contenders: Sequence[Contender], x: Tensor, labels: Tensor, repeats: int
) -> dict[str, list[float]]:
    """Seconds of each training step, ``repeats`` for each contender, in rounds of one step each."""
    shuffled = random.Random(0)
    seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
    for contender in contenders:
        for _ in range(_WARM_UP):
            contender.train(x, labels)
    order = list(contenders)
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            shuffled.shuffle(order)
            for contender in order:
                start = _now(x.device)
                contender.train(x, labels)
                seconds[contender.name].append(_now(x.device) - start)
    finally:
        gc.enable()
    return seconds


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# The operators of a step, by what they are there for: the first pattern found in a name decides.
_PARTS = {
    "LIF forward": r"^lif_cuda::lif_forward$",
    "LIF backward": r"^lif_cuda::lif_backward$",
    "Linear backward": r"((Addmm|Mm|T)Backward0|ProductBackward)$",
    "Linear forward": r"^(aten::linear|lif_cuda::spike_linear)$",
    "optimiser": r"^Optimizer\.step",
    "optimiser, zero_grad": r"^Optimizer\.zero_grad",
    "loss": r"cross_entropy|(NllLoss|LogSoftmax)Backward0$",
}


def breakdown(contender: Contender, x: Tensor, labels: Tensor, repeats: int) -> dict[str, float]:
    """The share of each part in the time of a training step, by torch's profiler; what is left is "other".

    A share of the time that operators take on the CPU, without the profiler's own; on CUDA the time that the
    host needs to launch them.
    """
    contender.train(x, labels)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        torch.profiler.profile(activities=activities) as profile,
        torch.profiler.record_function("whole"),
    ):
        for _ in range(repeats):
            contender.train(x, labels)
    events = profile.key_averages()
    whole = sum(event.cpu_time_total for event in events if event.key == "whole")
    shares = dict.fromkeys(_PARTS, 0.0)
    for event in events:
        for part, pattern in _PARTS.items():
            if re.search(pattern, event.key) and not event.key.startswith("autograd::engine"):
                shares[part] += event.cpu_time_total / whole
                break
    return shares | {"other": 1 - sum(shares.values())}


def _quartiles(values: Sequence[float], unit: float) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": low * unit, "median": middle * unit, "q3": high * unit}


def _table(results: dict[str, Any]) -> str:
    settings, where = results["settings"], results["machine"]
    lines = [
        f"training step, batch {settings['batch_size']}, T = {settings['steps']}, hidden "
        f"{settings['hidden']}, {settings['repeats']} rounds; {where['cpu']}, "
        f"{where['threads']} threads, {where['device']}",
        "",
        f"{'':<12}{'ms, median':>12}{'quartiles':>20}{'times of fused':>18}{'quartiles':>16}",
    ]
    for name, times in results["milliseconds"].items():
        ratio = results["times_of_fused"][name]
        lines.append(
            f"{name:<12}{times['median']:>12.2f}"
            f"{times['q1']:>12.2f} -{times['q3']:>6.2f}"
            f"{ratio['median']:>18.2f}{ratio['q1']:>10.2f} -{ratio['q3']:>4.2f}"
        )
    bound = results["fused_times_of_no_neurons"]
    lines += [
        "",
        f"fused takes {bound['median']:.2f} times ({bound['q1']:.2f} - {bound['q3']:.2f}) the step "
        "of the dense Linears alone; where its time goes:",
        "",
    ]
    lines += [f"{part:<24}{share:>7.1%}" for part, share in results["parts_of_fused"].items()]
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    def count(text: str) -> int:
        value = int(text) if text.isdecimal() else 0
        if value < 1:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
        return value

    def rounds(text: str) -> int:
        value = count(text)
        if value < 2:
            raise argparse.ArgumentTypeError("must be at least 2, for a median and its quartiles")
        return value

    parser = argparse.ArgumentParser(
        description="Time one training step of the seed's network, fused and not.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--threads", type=count, help="CPU threads; None: as many as torch takes")
    parser.add_argument("--repeats", type=rounds, default=50, help="rounds, one step of each")
    parser.add_argument("--batch-size", type=count, default=256)
    parser.add_argument("--input-size", type=count, default=784)
    parser.add_argument("--hidden", type=count, default=256)
    parser.add_argument("--steps", type=count, default=25, help="time steps T")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="torch.compile of the fused network too")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
