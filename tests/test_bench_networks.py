"""The benchmark of networks: nothing wrong is timed, and a small run writes what it should."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import networks
import pytest
import torch

import lif_cuda
from common.turns import Turns
from nets.equal import BOUNDS, Apart, apart, faults, neuron_fault, verify
from nets.networks import CASES, MLP, Case, case_of, ours
from nets.worker import Worker, serve, trainer
from rivals.equals import by_name, version

SMALL = {"steps": 3, "batch": 4, "width": 8}


def small(name: str) -> Case:
    case = case_of(name).resized(**SMALL)
    if version(case.library) is None:
        pytest.skip(f"{case.library} is not installed: pip install --no-deps -r tests/libraries.txt")
    return case


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_networks_are_equal(name: str) -> None:
    case = small(name)
    made = case.networks()
    assert set(made) >= {case.library, "lif_cuda", "ReLU"}
    states = [
        {key: value for key, value in network.named_parameters() if "inner" not in key}
        for network in made.values()
    ]
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[key], states[0][key]) for key in state)
    wrong, distances = verify(case, made)
    assert wrong == {} and set(distances) == set(made) - {case.library, "ReLU"}


def test_another_neuron_is_found_out() -> None:
    """A network whose neurons differ in one option is not equal, and gets no time."""
    case = small("mlp-rate").resized(steps=12)
    equal = by_name(case.neuron)
    for option, other in (
        ("beta=0.9", "beta=0.89"),
        ("surrogate.ATan()", "surrogate.ATan(2.1)"),
        ("delay_reset=True, ", ""),
    ):
        assert option in equal.ours
        made = case.networks()
        torch.manual_seed(0)
        made["lif_cuda"] = MLP(ours(replace(equal, ours=equal.ours.replace(option, other))), case)
        wrong, _ = verify(case, made)
        assert "in float64 are" in wrong["lif_cuda"] and "step loop" not in wrong, option


def test_faults() -> None:
    good = dict(BOUNDS)
    assert faults(good) == []
    found = faults(good | {"float32": Apart(0.0, float("nan"))})
    assert len(found) == 1 and "gradients in float32 are nan" in found[0]
    found = faults(good | {"float64": Apart(1e-3, 0.0)})
    assert len(found) == 1 and "logits in float64 are 0.001" in found[0]


def test_a_neuron_that_is_not_its_row_s_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    case = small("mlp")
    assert neuron_fault(case) is None
    equal = by_name(case.neuron)
    other = replace(equal, ours=equal.ours.replace("beta=0.9", "beta=0.8"))
    monkeypatch.setattr("nets.equal.by_name", lambda name: other)
    assert "of the neurons differ" in (neuron_fault(case) or "")
    wrong, _ = verify(case, case.networks())
    assert "its neuron: " in wrong["lif_cuda"]


def test_the_network_that_is_timed_is_the_one_that_was_verified() -> None:
    """Each step costs what training does and moves the weights, but next to not at all."""
    case = small("mlp")
    network = case.networks(["lif_cuda"])["lif_cuda"]
    before = [parameter.detach().clone() for parameter in network.parameters()]
    train = trainer(network, case)
    for _ in range(10):
        train()
    moved = [float((a.detach() - b).abs().max()) for a, b in zip(network.parameters(), before, strict=True)]
    assert all(0 < distance < 1e-5 for distance in moved)
    right = case.networks(["lif_cuda"])["lif_cuda"]
    assert apart(network, right, *case.input()).logits < 1e-3


def test_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    monkeypatch.setattr(lif_cuda, "keep_memory", lambda: kept.append(True))
    small("mlp")
    task = {"case": "mlp", "network": "lif_cuda", "threads": None, "keep": True, "sizes": SMALL}
    answers = io.StringIO()
    serve(task, io.StringIO("\n\n"), answers)
    ready, *steps = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert kept == [True] and ready == {} and len(steps) == 2
    assert all(step["faults"] >= 0 and step["peak_bytes"] >= 0 for step in steps)


def test_a_worker_that_fails() -> None:
    small("mlp")
    with pytest.raises(RuntimeError, match="ended with status 1"):
        Worker(case_of("mlp"), "no such network", keep=False, threads=1, sizes=SMALL)


def test_ratios_are_those_of_networks_with_memory_alike() -> None:
    seconds = {
        "A": 8.0,
        "A, kept": 6.0,
        "lif_cuda": 2.0,
        "lif_cuda, kept": 1.0,
        "ReLU": 4.0,
        "ReLU, kept": 3.0,
    }
    times = networks._times(
        Turns({name: [value] for name, value in seconds.items()}, {name: [True] for name in seconds})
    )
    assert times["times_of_lif_cuda"]["A"]["median"] == 4.0
    assert times["times_of_lif_cuda"]["A, kept"]["median"] == 6.0
    assert times["times_of_relu"]["lif_cuda, kept"]["median"] == pytest.approx(1 / 3)
    assert {name: gain["median"] for name, gain in times["kept_gains"].items()} == {
        "A": pytest.approx(4 / 3),
        "lif_cuda": 2.0,
        "ReLU": pytest.approx(4 / 3),
    }


def arguments(path: Path) -> list[str]:
    sizes = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    return ["--networks", "mlp", "--seconds", "0.01", "--threads", "1", "--json", str(path), *sizes]


@pytest.mark.slow
def test_a_small_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small("mlp")
    threads = torch.get_num_threads()
    path = tmp_path / "networks.json"
    try:
        assert networks.main([*arguments(path), "--keep-memory", "off"]) == 0
    finally:
        torch.set_num_threads(threads)
    results = json.loads(path.read_text())
    (row,) = results["networks"]
    assert set(row["seconds"]) == {"snnTorch", "snnTorch, step loop", "lif_cuda", "ReLU"}
    assert row["times_of_lif_cuda"]["lif_cuda"]["median"] == 1.0 and row["kept_gains"] == {}
    assert row["sizes"]["batch"] == 4 and results["machine"]["threads"] == 1
    assert results["versions"]["snnTorch"] and results["commit"] and row["missing"] == {}
    assert "times lif_cuda" in capsys.readouterr().out


def test_a_wrong_network_gets_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the process that verifies says of a network keeps it from being timed."""

    class Stub:
        peak_bytes = 0

        def __init__(self, case: Case, network: str | None, **_: object) -> None:
            assert network != "lif_cuda"
            wrong = {"lif_cuda": "logits in float64 are 0.5 of their length apart"}
            self.facts = {"networks": ["snnTorch", "lif_cuda", "ReLU"], "wrong": wrong}
            self.faults: list[int] = []

        def train(self) -> None:
            self.faults.append(0)

        def close(self) -> None:
            pass

    small("mlp")
    monkeypatch.setattr(networks, "Worker", Stub)
    threads = torch.get_num_threads()
    path = tmp_path / "networks.json"
    try:
        assert networks.main([*arguments(path), "--keep-memory", "on"]) == 1
    finally:
        torch.set_num_threads(threads)
    (row,) = json.loads(path.read_text())["networks"]
    assert set(row["seconds"]) == {"snnTorch, kept", "ReLU, kept"} and set(row["missing"]) == {"lif_cuda"}
    assert "lif_cuda: no time: logits in float64 are 0.5" in capsys.readouterr().out


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--threads", "0"], ["--networks", "vgg"], ["--keep-memory", "maybe"], ["--batch", "x"]):
        with pytest.raises(SystemExit):
            networks.main(words)
        assert words[0] in capsys.readouterr().err
