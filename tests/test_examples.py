"""Each example runs, on a small scale, and does what it says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
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


@pytest.mark.slow
@pytest.mark.skipif(cxx() is None, reason="no C++ compiler")
def test_inference(tmp_path: Path) -> None:
    same = example("inference").main(["--out", str(tmp_path)])
    assert len(same) == 4 and all(same.values()), same
    assert (tmp_path / "network.aoti.pt2").is_file() and (tmp_path / "network.pt2").is_file()
