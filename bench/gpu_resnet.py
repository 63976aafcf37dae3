"""A training step of SEW-ResNet-18 with SpikingJelly's neuron, with ours and with ReLU: images a second.

    python bench/gpu_resnet.py --json resnet.json
    python bench/gpu_resnet.py --device cpu --size 32 --batch 2

The network is SpikingJelly's in all three: [T, B, C, H, W], T = 4, under bf16 autocast, with SGD. Only what
stands where a neuron stands differs. Where SpikingJelly cannot be imported nothing is timed, and the result
says so.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.files import write_json
from lif_cuda import LIF
from lif_cuda.surrogate import ATan
from on_gpu.facts import facts
from on_gpu.timing import Timed, at_most, in_turns, wall
from rivals.contenders import reason
from rivals.stubs import stand_in

CLASSES = 1000
WARM_UP = 3
# Of a network to run its first steps: SpikingJelly compiles and tries kernels for each size of a layer.
SETUP_SECONDS = 45.0

Step = Callable[[], Tensor]


def our_neuron(**_: Any) -> nn.Module:
    """The same neuron as ``their_neuron``, by this project."""
    return LIF(
        tau=2.0,
        dt=1.0,
        decay="euler",
        decay_input=True,
        reset="zero",
        detach_reset=True,
        surrogate=ATan(2.0),
        return_state=False,
    )


def relu(**_: Any) -> nn.Module:
    """What an ANN has there."""
    return nn.ReLU()


def their_neuron(**_: Any) -> nn.Module:
    """SpikingJelly's own."""
    from spikingjelly.activation_based import neuron, surrogate

    node: nn.Module = neuron.LIFNode(
        tau=2.0, detach_reset=True, surrogate_function=surrogate.ATan(), step_mode="m"
    )
    return node


def neurons_apart() -> float:
    """The share of spikes in which our neuron and theirs differ, on the same input on the CPU."""
    x = torch.randn(4, 8, 4096, generator=torch.Generator().manual_seed(0)) * 2
    with torch.no_grad():
        return float((our_neuron()(x) != their_neuron()(x)).double().mean())


def step_of(neuron: Callable[..., nn.Module], storage: str | None, options: argparse.Namespace) -> Step:
    """One training step of the network with this neuron, as a call that gives the loss."""
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.model import sew_resnet

    device = torch.device(options.device)
    torch.manual_seed(0)
    model = sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=neuron, num_classes=CLASSES)
    functional.set_step_mode(model, "m")
    model = model.to(device)
    if storage is not None:
        from spikingjelly.activation_based.precision import prepare_model_for_precision

        model = prepare_model_for_precision(model, device, {"neuron_storage": storage}).model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images = torch.randn(options.steps, options.batch, 3, options.size, options.size, device=device)
    labels = torch.randint(CLASSES, (options.batch,), device=device)

    def step() -> Tensor:
        functional.reset_net(model)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(images).mean(0)
            loss: Tensor = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Images a second of each network, and of those that could not run why not."""
    device = torch.device(options.device)
    results: dict[str, Any] = {"images_per_second": {}, "seconds": {}, "first_loss": {}, "missing": {}}
    # Whoever trains a network of images of one size turns it on.
    torch.backends.cudnn.benchmark = True
    try:
        apart = neurons_apart()
    except Exception as error:
        results["missing"]["all of it"] = reason(error)
        return results
    if apart > 1e-3:
        results["missing"]["all of it"] = f"{apart:.3%} of the spikes differ between our neuron and theirs"
        return results
    kinds: dict[str, tuple[Callable[..., nn.Module], str | None]] = {
        "lif_cuda": (our_neuron, None),
        "ReLU": (relu, None),
        # Without it the neuron keeps its state in the 16 bits of autocast, and runs a loop of plain
        # operators.
        "SpikingJelly, neuron_storage='bf16'": (their_neuron, "bf16"),
        "SpikingJelly": (their_neuron, None),
    }
    timed: dict[str, Timed] = {}
    for name, (neuron, storage) in kinds.items():
        began = time.perf_counter()
        try:
            with at_most(options.setup, "its first steps"):
                step = step_of(neuron, storage, options)
                results["first_loss"][name] = float(step())
                for _ in range(WARM_UP):
                    step()
            timed[name] = wall(step, device, 1)
        except Exception as error:
            results["missing"][name] = reason(error)
        print(
            f"{name}: {results['missing'].get(name, 'ready')}, {time.perf_counter() - began:.1f} s",
            flush=True,
        )
    turns = in_turns(timed, options.seconds)
    for name in timed:
        timing = turns.timing(name)
        results["seconds"][name] = asdict(timing)
        results["images_per_second"][name] = options.batch / timing.median
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the networks; the exit status is 1 if ours failed where there was something to compare it with."""
    parser = argparse.ArgumentParser(
        description="A training step of SEW-ResNet-18, with one neuron and another."
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="time steps T")
    parser.add_argument("--size", type=int, default=224, help="of the images")
    parser.add_argument("--seconds", type=float, default=8.0, help="of turns, of all networks together")
    parser.add_argument(
        "--setup", type=float, default=SETUP_SECONDS, help="seconds for the first steps of each"
    )
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {
        "format": 1,
        "facts": facts(torch.device(options.device)),
        "shape": [options.steps, options.batch, 3, options.size, options.size],
    }
    with stand_in() as results["stubs"]:
        results |= measured(options)
    if options.json:
        write_json(options.json, results)
    for name, rate in results["images_per_second"].items():
        print(f"{name}: {rate:.0f} images a second")
    for name, why in results["missing"].items():
        print(f"{name}: not timed: {why}")
    return 1 if "lif_cuda" in results["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
