"""Networks of the libraries' tutorials before and after ``convert``: outputs, gradients and training."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lif_cuda import LIF, convert
from nets.tutorials import TUTORIALS, SnnMLP, Tutorial, WithoutLoop, tutorial_of
from rivals.equals import version

# Few steps and images: enough that all neurons fire and reset.
STEPS, BATCH = 5, 3


def needs(library: str) -> None:
    if version(library) is None:
        pytest.skip(f"{library} is not installed: pip install --no-deps -r tests/libraries.txt")


def results(tutorial: Tutorial, network: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What the network returns, and the gradients of all parameters, each as one vector."""
    out = network(x)
    loss = tutorial.loss(out, labels)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters)
    outs = out if isinstance(out, tuple) else (out,)
    return (
        torch.cat([tensor.detach().flatten().double() for tensor in outs]),
        torch.cat([gradient.flatten().double() for gradient in gradients]),
    )


def rates(network: nn.Module, x: Tensor) -> list[float]:
    """The firing rate of each converted layer, over all of its calls."""
    found: dict[nn.Module, list[float]] = {}

    def count(module: nn.Module, inputs: Any, out: Any) -> None:
        spikes = out[0] if isinstance(out, tuple) else out
        found.setdefault(module, []).append(float(spikes.mean()))

    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, LIF)]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return [sum(each) / len(each) for each in found.values()]


@pytest.mark.parametrize("name", [tutorial.name for tutorial in TUTORIALS])
def test_outputs_and_gradients_are_the_same(name: str) -> None:
    """In float64, in which two roundings of one membrane hardly ever lie on two sides of a threshold."""
    tutorial = tutorial_of(name)
    needs(tutorial.library)
    torch.manual_seed(0)
    before = tutorial.build(20 if name == "convnet" else STEPS).double()
    for module in before.modules():
        if tutorial.library == "snnTorch" and hasattr(module, "spike_grad"):
            module.register_forward_hook(in_float64)
    if name == "csnn":
        before.net[7].weight.data *= 20  # type: ignore[index, operator]
    x = (20 if name == "csnn" else 2) * torch.rand(BATCH, *tutorial.shape, dtype=torch.float64)
    labels = torch.tensor([1, 7, 3])
    after = convert(copy.deepcopy(before))
    if name == "csnn":
        # A copy of snnTorch's neuron is not on the list by which it resets them.
        from snntorch import Leaky

        Leaky.instances += [module for module in before.modules() if isinstance(module, Leaky)]
    out, gradients = results(tutorial, before, x, labels)
    for network in (after, WithoutLoop(after)) if name == "mlp" else (after,):
        found, found_gradients = results(tutorial, network, x, labels)
        assert float((found - out).norm() / out.norm()) < 1e-6
        assert float((found_gradients - gradients).norm() / gradients.norm()) < 1e-6
    fired = rates(after, x)
    assert min(fired) > 0.005 and len(fired) == {"mlp": 2, "csnn": 3, "sew": 20, "convnet": 3}[name]


def in_float64(module: nn.Module, inputs: Any, out: Any) -> Any:
    """snnTorch's spikes are float32 even in a network of float64."""
    return tuple(tensor.double() for tensor in out) if isinstance(out, tuple) else out.double()


def train(network: Any, images: Tensor, labels: Tensor, tutorial: Tutorial, epochs: int) -> float:
    """Train as the tutorial does; the accuracy after that on the same images, in percent."""
    optimizer = torch.optim.Adam(network.parameters(), lr=tutorial.learning_rate)
    for _ in range(epochs):
        for batch, answers in zip(images.split(32), labels.split(32), strict=True):
            loss = tutorial.loss(network(batch), answers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return 100 * float((tutorial.answers(network(images)) == labels).double().mean())


def test_training_ends_where_it_would_have() -> None:
    """Two epochs with the library's neurons, and after ``convert``: within the spread of seeds."""
    needs("snnTorch")
    tutorial = tutorial_of("mlp")
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.rand(10, 784, generator=generator)
    labels = torch.arange(320) % 10
    images = (prototypes[labels] + 0.6 * torch.randn(320, 784, generator=generator)).clamp(0, 1)
    accuracies: dict[str, list[float]] = {"theirs": [], "converted": [], "without a loop": []}
    for seed in range(3):
        for name, found in accuracies.items():
            torch.manual_seed(seed)
            network: Any = SnnMLP(hidden=64, steps=8)
            if name != "theirs":
                network = convert(network)
            if name == "without a loop":
                network = WithoutLoop(network)
            found.append(train(network, images, labels, tutorial, 2))
    spread = max(accuracies["theirs"]) - min(accuracies["theirs"])
    for name, found in accuracies.items():
        for right, mine in zip(accuracies["theirs"], found, strict=True):
            assert abs(mine - right) <= max(spread, 3.0), (name, accuracies)
    assert min(accuracies["theirs"]) > 30


@pytest.mark.slow
def test_the_benchmark_trains_and_times(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("snnTorch")
    import convert as bench_convert

    monkeypatch.setattr(bench_convert, "_splits", lambda options, shape: splits(shape))
    monkeypatch.setattr(bench_convert, "BATCH", 8)
    path = tmp_path / "convert.json"
    assert bench_convert.main(["--epochs", "1", "--seeds", "1", "--seconds", "0", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert list(found["accuracies"]) == ["theirs", "converted", "without a loop"]
    assert found["times_of_theirs"]["theirs"]["median"] == 1.0
    assert found["steps"] == 25 and all(len(each) == 1 for each in found["accuracies"].values())


def splits(shape: tuple[int, ...]) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (torch.rand(16, *shape), torch.arange(16) % 10) for name in ("train", "test")}
