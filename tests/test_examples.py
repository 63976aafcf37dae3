"""Each example runs, on a small scale, and does what it says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from _compile import ROOT, cxx

EXAMPLES = ROOT / "examples"


def example(name: str) -> ModuleType:
    """An example, loaded from its file."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, which has the digits, is not installed")


def test_the_page_names_them_all() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(\.\./examples/(\w+\.py)\)", page))
    assert named == {path.name for path in EXAMPLES.glob("*.py")}
    here = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'example("{path.stem}")' in here, f"{path.name} has no test"


def test_quickstart(digits: None) -> None:
    found = example("quickstart").main(["--updates", "150"])
    assert found["accuracy"] > 0.8
    assert found["difference"] < 1e-4


def test_conv_net(digits: None) -> None:
    assert example("conv_net").main(["--updates", "60"])["accuracy"] > 0.8


def test_streaming(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, which draws, is not installed")
    found = example("streaming").main(["--seconds", "9", "--picture", str(tmp_path / "picture.png")])
    assert found["spikes"] == found["whole"] > 100
    assert found["in bursts"] > 0.6 * found["spikes"]
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_monitoring(digits: None, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, which draws, is not installed")
    found = example("monitoring").main(["--updates", "100", "--picture", str(tmp_path / "picture.png")])
    assert found["accuracy"] > 0.7
    assert found["rate with penalty"] < 0.8 * found["rate"]
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_recurrent(digits: None) -> None:
    found = example("recurrent").main(["--updates", "100"])
    assert found["recurrent"] > 0.75 and found["recurrent"] > found["alone"] + 0.05


def test_converting(digits: None) -> None:
    pytest.importorskip("snntorch", reason="pip install --no-deps -r tests/libraries.txt")
    found = example("converting").main(["--updates", "40"])
    assert found["difference"] < 1e-4
    assert found["after"] > max(75, found["before"])


@pytest.mark.slow
@pytest.mark.skipif(cxx() is None, reason="no C++ compiler")
def test_inference(tmp_path: Path) -> None:
    same = example("inference").main(["--out", str(tmp_path)])
    assert len(same) == 4 and all(same.values()), same
    assert (tmp_path / "network.aoti.pt2").is_file() and (tmp_path / "network.pt2").is_file()


@pytest.mark.parametrize("loss", ["targets", "cross-entropy", "snntorch"])
@pytest.mark.parametrize("latency", [False, True])
def test_temporal_coding_learns(latency: bool, loss: str) -> None:
    """Ten prototypes with noise, from a network in which hardly a neuron of the output fires at the start."""
    if loss == "snntorch":
        pytest.importorskip("snntorch", reason="pip install --no-deps -r tests/libraries.txt")
    temporal = example("temporal_coding")
    torch.manual_seed(0)
    prototypes = torch.rand(10, 64).round()
    labels = torch.arange(1280) % 10
    images = (0.7 * prototypes[labels] + 0.3 * torch.rand(1280, 64)).clamp(0, 1)
    network = temporal.TemporalClassifier(64, 64, steps=12, latency=latency)
    before, _ = temporal.evaluate(network, images, labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(4):
        temporal.train_epoch(network, optimizer, images, labels, loss)
    after, when = temporal.evaluate(network, images, labels)
    assert before < 40 and after > (60 if loss == "snntorch" else 80) and 0 <= when < 12, (
        before,
        after,
        when,
    )


def test_no_spike_is_no_answer() -> None:
    temporal = example("temporal_coding")
    network = temporal.TemporalClassifier(4, 5, steps=6)
    with torch.no_grad():
        network.fc2.weight.zero_()
        network.fc2.bias.zero_()
    assert temporal.evaluate(network, torch.rand(10, 4), torch.zeros(10, dtype=torch.long)) == (0.0, 6.0)


def test_targets_cost_nothing_when_they_are_met() -> None:
    temporal = example("temporal_coding")
    out = SimpleNamespace(first_spike=torch.tensor([[12.0, 4.0, 12.0]]))
    assert temporal.target_loss(out, torch.tensor([1]), 12) == 0
    assert temporal.target_loss(out, torch.tensor([0]), 12) > 0
