"""A trained classifier, exported with a dynamic batch and packaged by AOTInductor, runs from C++.

The C++ program links torch alone and loads the operator library beside it: no Python in the process.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from _compile import ROOT, compile_source, cxx
from torch import Tensor, nn
from torch.nn import functional as nnf

from lif_cuda._build_facts import kernel_libraries
from lif_cuda.models import SNNClassifier

PIXELS, STEPS = 49, 12
pytestmark = [pytest.mark.slow, pytest.mark.skipif(cxx() is None, reason="no C++ compiler")]


class Classifier(nn.Module):
    """The network with its number of time steps fixed, as a program that runs it would want it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SNNClassifier(PIXELS, 32)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, pixels] to logits [B, 10]."""
        logits = self.network(images, num_steps=STEPS)
        assert isinstance(logits, Tensor)
        return logits


@pytest.fixture(scope="module")
def model() -> Classifier:
    """After some steps of training."""
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        loss = nnf.cross_entropy(model(torch.randn(32, PIXELS)), torch.randint(10, (32,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def package(model: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What AOTInductor makes of the exported model."""
    batch = torch.export.Dim("batch", min=2, max=4096)
    with torch.no_grad():
        exported = torch.export.export(model, (torch.randn(4, PIXELS),), dynamic_shapes=({0: batch},))
        path = tmp_path_factory.mktemp("aoti") / "model.pt2"
        torch._inductor.aoti_compile_and_package(exported, package_path=str(path))
    return path


def test_from_python(model: Classifier, package: Path) -> None:
    run = torch._inductor.aoti_load_package(str(package))
    for batch in (2, 7, 256):
        images = torch.randn(batch, PIXELS)
        with torch.no_grad():
            torch.testing.assert_close(run(images), model(images))


def test_from_cpp(model: Classifier, package: Path, tmp_path: Path) -> None:
    torch_folder = Path(torch.__path__[0])
    program = tmp_path / "run_model"
    compiler = cxx()
    assert compiler is not None
    abi = int(torch.compiled_with_cxx11_abi())
    command: list[str | Path] = [compiler, "-std=c++20", "-O0", "-g0", f"-D_GLIBCXX_USE_CXX11_ABI={abi}"]
    command += ["-isystem", torch_folder / "include", ROOT / "tests" / "aoti" / "main.cpp", "-o", program]
    command += [f"-L{torch_folder / 'lib'}", f"-Wl,-rpath,{torch_folder / 'lib'}"]
    command += ["-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10", "-ldl"]
    compile_source(command)
    for batch in (2, 37):
        images = torch.randn(batch, PIXELS)
        (tmp_path / "input").write_bytes(images.numpy().tobytes())
        subprocess.run(
            [program, kernel_libraries()[0], package, tmp_path / "input", str(batch), tmp_path / "output"],
            check=True,
        )
        logits = torch.frombuffer(bytearray((tmp_path / "output").read_bytes()), dtype=torch.float32)
        with torch.no_grad():
            torch.testing.assert_close(logits.reshape(batch, 10), model(images))
