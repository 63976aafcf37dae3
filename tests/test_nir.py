"""Networks to and from NIR, also of graphs that other libraries wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rivals.equals import evaluated, version

nir = pytest.importorskip("nir", reason="nir is not installed: pip install --no-deps -r tests/libraries.txt")

from lif_cuda import IF, LI, LIF, AdaptiveLIF, CurrentLIF, TimeDistributed, from_nir, surrogate, to_nir  # noqa: E402

SAID = {"reset": "zero", "strict": True, "return_state": False}
X = torch.rand(12, 3, 6, generator=torch.Generator().manual_seed(0))


def needs(library: str) -> None:
    if version(library) is None:
        pytest.skip(f"{library} is not installed: pip install --no-deps -r tests/libraries.txt")


def run(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = module(x)
    return out


# Round trips.


@pytest.mark.parametrize(
    "layer",
    [
        LIF(beta=0.9, **SAID),
        LIF(beta=0.5, threshold=0.7, gain=2.0, v_reset=-0.25, rest=-0.125, **SAID),
        LIF(beta=0.75, decay_input=True, threshold=0.2, **SAID),
        LIF(beta=torch.linspace(0, 0.9, 6), threshold=torch.linspace(0.3, 1, 6), **SAID),
        LIF(6, beta=0.8, gain=torch.linspace(1, 2, 6), learn_beta=True, **SAID),
        IF(threshold=1.5, gain=0.5, v_reset=0.25, **SAID),
        CurrentLIF(alpha=0.8, beta=0.9, threshold=2.0, **SAID),
        CurrentLIF(alpha=torch.linspace(0, 0.9, 6), beta=0.9, gain=0.5, **SAID),
        LIF(beta=0.9, reset="none", output="trace", return_state=False),
        LI(beta=0.9, rest=0.25, return_state=False),
        LI(beta=1.0, gain=0.5, return_state=False),
        LI(alpha=0.8, beta=0.9, return_state=False),
    ],
    ids=str,
)
def test_layers_come_back(layer: LIF, tmp_path: Path) -> None:
    graph = to_nir(nn.Sequential(layer), X)
    assert {type(node).__name__ for node in graph.nodes.values()} >= {"Input", "Output"}
    nir.write(tmp_path / "graph.nir", graph)
    for read in (graph, nir.read(tmp_path / "graph.nir")):
        back = from_nir(read)
        expected = run(layer, X)
        found = run(back, X)
        if layer.options.output == "spikes":
            assert torch.equal(found, expected) and 0.02 < float(found.mean()) < 0.9
        else:
            torch.testing.assert_close(found, expected)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        TimeDistributed(nn.Sequential(nn.Conv2d(2, 4, 3, padding=(1, 0), stride=(2, 1)), nn.AvgPool2d(2))),
        LIF(beta=torch.linspace(0.5, 0.9, 4), threshold=0.2, channel_dim=2, **SAID),
        nn.Dropout(0.5),
        TimeDistributed(nn.Conv2d(4, 4, 3, padding="same", bias=False)),
        LIF(beta=0.9, threshold=0.2, **SAID),
        nn.Flatten(2),
        nn.Linear(4 * 2 * 3, 5, bias=False),
        nn.Identity(),
        LIF(5, beta=0.8, threshold=0.3, **SAID),
        TimeDistributed(nn.Sequential(nn.Flatten(), nn.Linear(5, 3))),
        LIF(beta=0.8, reset="none", output="trace"),
    )


def test_a_network_comes_back(tmp_path: Path) -> None:
    model = network()
    x = torch.randn(9, 4, 2, 8, 8)
    graph = to_nir(model, x)
    assert model.training and not any(module._forward_hooks for module in model.modules())
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    assert sorted(kinds) == sorted(
        [
            "Input",
            "Conv2d",
            "AvgPool2d",
            "LIF",
            "Conv2d",
            "LIF",
            "Flatten",
            "Linear",
            "LIF",
            "Flatten",
            "Affine",
        ]
        + ["LI", "Output"]
    )
    model.eval()
    expected = model(x)[0]
    nir.write(tmp_path / "graph.nir", graph)
    back = from_nir(nir.read(tmp_path / "graph.nir"), surrogate=surrogate.ATan())
    torch.testing.assert_close(run(back, x), expected.detach())
    again = to_nir(back, x)
    assert sorted(type(node).__name__ for node in again.nodes.values()) == sorted(kinds)
    assert {module.surrogate for module in back.modules() if type(module) is LIF} == {surrogate.ATan()}
    back(x).sum().backward()
    assert all(parameter.grad is not None for parameter in back.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"reset": "subtract", "strict": True},
        {"reset": "zero"},
        {"reset": "subtract", "strict": True, "delay_reset": True, "detach_reset": True},
        {"reset": "zero", "strict": True, "refractory": 2},
        {"reset": "zero", "strict": True, "v_min": 0.25, "v_reset": -1.0},
    ],
    ids=str,
)
def test_what_nir_cannot_say_raises_or_is_noted(options: dict[str, Any], tmp_path: Path) -> None:
    layer = LIF(beta=0.9, return_state=False, **options)
    x = 2 * X
    with pytest.raises(ValueError, match="0: NIR cannot say .*unsaid='note'"):
        to_nir(nn.Sequential(layer), x)
    graph = to_nir(nn.Sequential(layer), x, unsaid="note")
    nir.write(tmp_path / "graph.nir", graph)
    for read in (graph, nir.read(tmp_path / "graph.nir")):
        assert torch.equal(run(from_nir(read), x), run(layer, x))
    node = graph.nodes["0"]
    node.metadata = {"of someone else": 3}
    silent = run(from_nir(graph), x)
    assert torch.equal(silent, run(LIF(beta=0.9, v_reset=options.get("v_reset", 0.0), **SAID), x))


# What others wrote.


def test_a_graph_that_snntorch_wrote() -> None:
    """Its reset to zero at the next step gives the spikes of NIR's at this one."""
    needs("snnTorch")
    pytest.importorskip("nirtorch")
    import snntorch as snn
    from snntorch.export_nir import export_to_nir

    torch.manual_seed(0)
    options = {"init_hidden": True, "reset_mechanism": "zero"}
    theirs = nn.Sequential(
        nn.Linear(6, 20),
        snn.Leaky(beta=0.9 * torch.ones(20), threshold=torch.ones(20), **options),
        nn.Linear(20, 5),
        snn.Leaky(beta=0.8 * torch.ones(5), threshold=0.2 * torch.ones(5), **options),
    )
    graph = export_to_nir(theirs, X[0], ignore_dims=[0])
    ours = from_nir(graph)
    for layer in theirs:
        if isinstance(layer, snn.Leaky):
            layer.reset_mem()
    expected = torch.stack([theirs(step) for step in 3 * X]).detach()
    found = run(ours, 3 * X)
    assert float((found != expected).float().mean()) < 0.005 and float(expected.mean()) > 0.05


def test_a_graph_that_sinabs_wrote() -> None:
    needs("sinabs")
    pytest.importorskip("nirtorch")
    import sinabs.layers as sl
    from sinabs.activation import MembraneReset, SingleSpike
    from sinabs.nir import to_nir as sinabs_to_nir

    torch.manual_seed(0)
    once = {"spike_fn": SingleSpike, "reset_fn": MembraneReset()}
    tau, threshold = torch.full((20,), 5.0), torch.full((20,), 0.3)
    theirs = nn.Sequential(
        nn.Linear(6, 20),
        sl.LIFSqueeze(tau_mem=tau, spike_threshold=threshold, batch_size=3, **once),
        nn.Linear(20, 5),
        sl.IAFSqueeze(batch_size=3, **once),
    )
    x = 3 * X.transpose(0, 1).flatten(0, 1)
    theirs(x)
    graph = sinabs_to_nir(theirs, x)
    for layer in theirs:
        if isinstance(layer, sl.StatefulLayer):
            layer.reset_states()
    expected = theirs(x).detach().unflatten(0, (3, 12)).transpose(0, 1)
    found = run(from_nir(graph, dt=1.0, decay="exp"), 3 * X)
    assert float((found != expected).float().mean()) < 0.005 and float(expected.mean()) > 0.02


def test_a_graph_by_hand() -> None:
    """An addition where two edges meet, a scale, sums, and a graph within the graph."""
    inner = nir.NIRGraph(
        {
            "input": nir.Input({"input": np.array([2, 4, 4])}),
            "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
            "output": nir.Output({"output": np.array([2, 2, 2])}),
        },
        [("input", "pool"), ("pool", "output")],
    )
    ones = np.ones(8)
    graph = nir.NIRGraph(
        {
            "in": nir.Input({"input": np.array([2, 4, 4])}),
            "inner": inner,
            "flat": nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1),
            "scale": nir.Scale(2 * ones),
            "if": nir.IF(r=1e4 * ones, v_threshold=10 * ones),
            "out": nir.Output({"output": np.array([8])}),
        },
        [
            ("in", "inner"),
            ("inner", "flat"),
            ("flat", "scale"),
            ("scale", "if"),
            ("flat", "if"),
            ("if", "out"),
        ],
        type_check=False,
    )
    x = torch.rand(7, 3, 2, 4, 4)
    sums = nn.functional.avg_pool2d(x.flatten(0, 1), 2, divisor_override=1).unflatten(0, (7, 3)).flatten(2)
    expected = IF(threshold=10.0, **SAID)(3 * sums)
    assert torch.equal(run(from_nir(graph), x), expected) and expected.mean() > 0.1


# What is wrong.


def test_a_cycle_has_no_layer() -> None:
    ones = np.ones(3)
    graph = nir.NIRGraph(
        {
            "input": nir.Input({"input": np.array([3])}),
            "lif": nir.LIF(tau=1e-3 * ones, r=ones, v_leak=0 * ones, v_threshold=ones),
            "w": nir.Linear(np.ones((3, 3))),
            "output": nir.Output({"output": np.array([3])}),
        },
        [("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")],
    )
    with pytest.raises(ValueError, match="graph has a cycle through lif, w, output: recurrent weights"):
        from_nir(graph)


class Adds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.lif = LIF(**SAID)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lif(self.linear(x) + x)
        return out


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.linear(x))
        return out


class Between(nn.Module):
    """Two modules, and an operation between them that leaves the memory where it is."""

    def __init__(self, operation: Any) -> None:
        super().__init__()
        self.first, self.second = LIF(**SAID), LIF(**SAID)
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.operation(self.first(x)))
        return out


class After(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x) + 1
        return out


def leaky() -> nn.Module:
    needs("snnTorch")
    import lif_cuda

    made: nn.Module = lif_cuda.convert(nn.Sequential(evaluated("snnTorch", "snn.Leaky(beta=0.9)")))
    return made


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: Adds(), "lif: its input comes from an operation that is no module"),
        (lambda: Twice(), "linear: is called twice"),
        (lambda: Between(lambda x: x.mul_(2)), "second: its input comes from an operation"),
        (lambda: Between(lambda x: x.view(12, 3, 2, 3)), "second: its input comes from an operation"),
        (lambda: Between(lambda x: x.view(12, 3, 2, 3).transpose(2, 3)), "second: its input comes from an"),
        (lambda: Between(lambda x: x.transpose(0, 1)), "second: its input comes from an operation"),
        (lambda: After(nn.Linear(6, 6)), "it computes something after that"),
        (lambda: nn.Sequential(nn.LayerNorm(6)), "0: NIR has no node for LayerNorm"),
        (lambda: nn.Sequential(TimeDistributed(nn.BatchNorm1d(6))), "0.module: .*BatchNorm1d; fold it"),
        (lambda: nn.Sequential(nn.Flatten(1)), "0: flattens time or batch: start_dim must be 2"),
        (lambda: nn.Sequential(LIF(output="count", **SAID)), "0: NIR cannot say output='count'"),
        (lambda: nn.Sequential(AdaptiveLIF(**SAID)), "0: NIR cannot say kappa and rho"),
        (lambda: nn.Sequential(LI(output="max")), "0: NIR cannot say output='trace_max'"),
        (lambda: nn.Sequential(LI(v_min=0.0)), "0: NIR cannot say v_min=0.0"),
        (lambda: nn.Sequential(CurrentLIF(beta=1.0, **SAID)), "and without a leak"),
        (lambda: nn.Sequential(CurrentLIF(alpha=1.0, **SAID)), "alpha must be below 1"),
        (lambda: nn.Sequential(LIF(beta=torch.tensor([1.0, 0.5] * 3), **SAID)), "beta is 1 in some neurons"),
        (leaky, "0: is called a step at a time"),
    ],
)
def test_what_has_no_node(model: Any, said: str) -> None:
    made = model()
    with pytest.raises(ValueError, match=said):
        to_nir(made, X)
    assert not any(module._forward_hooks for module in made.modules())


def test_what_is_wrong_is_named() -> None:
    graph = to_nir(nn.Sequential(LIF(**SAID)), X)
    calls: list[tuple[Any, type[Exception], str]] = [
        (lambda: to_nir(3, X), TypeError, "model must be an nn.Module"),
        (lambda: to_nir(nn.Identity(), [1]), TypeError, "sample must be a torch.Tensor"),
        (lambda: to_nir(nn.Identity(), X[0]), ValueError, r"sample must be \[T, B, features...\]"),
        (lambda: to_nir(nn.Identity(), X, dt=0.0), ValueError, "dt must be above 0"),
        (lambda: to_nir(nn.Identity(), X, unsaid="ignore"), ValueError, "unsaid must be one of"),
        (lambda: from_nir(3), TypeError, "graph must be a nir.NIRGraph"),
        (lambda: from_nir(graph, decay="half"), ValueError, "decay must be one of"),
        (lambda: from_nir(graph, dt=1.0), ValueError, "0 .LIF.: tau must be at least dt"),
        (lambda: from_nir(graph, surrogate=1), TypeError, "surrogate must be an object of"),
    ]
    for call, error, said in calls:
        with pytest.raises(error, match=said):
            call()
    graph.nodes["0"].metadata = {"lif_cuda.colour": "red"}
    with pytest.raises(ValueError, match="metadata has lif_cuda.colour"):
        from_nir(graph)


def test_nir_is_imported_when_it_is_needed() -> None:
    code = """
import sys
sys.modules["nir"] = None
import torch
import lif_cuda
try:
    lif_cuda.to_nir(torch.nn.Identity(), torch.ones(1, 1, 1))
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'NIR needs the package nir: pip install "lif_cuda[nir]"\n'
