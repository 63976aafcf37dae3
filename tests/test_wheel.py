"""The wheel of `make wheel`: its tag; and it works without a compiler, beside another torch than its own.

LIF_CUDA_WHEEL names one that is there already: `make wheel-cuda` has its own looked at so.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from _compile import ROOT, cxx

GIVEN = os.environ.get("LIF_CUDA_WHEEL")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(GIVEN is None and cxx() is None, reason="no C++ compiler"),
    pytest.mark.skipif(
        GIVEN is None and torch.version.cuda is not None,
        reason="the wheel is made beside a torch for the CPU, by make wheel",
    ),
]
WITH_CUDA = torch.version.cuda is not None
LIBRARIES = ["_build", "_kernels", *(["_kernels_cuda"] if WITH_CUDA else []), "_node"]
LARGEST = (16 if WITH_CUDA else 8) << 20  # bytes

# A few steps of training, in which the loss falls, and one call with the dispatcher's own ways.
TRAINING = """
import torch, lif_cuda
torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Linear(8, 32),
    lif_cuda.LIF(32, learn_beta=True, return_state=False, output="rate"),
    torch.nn.Linear(32, 2),
)
optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
x = torch.randn(25, 64, 8)
target = (x.mean((0, 2)) > 0).long()
losses = []
for _ in range(60):
    loss = torch.nn.functional.cross_entropy(network(x), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())
assert losses[-1] < 0.7 * losses[0], losses
print("trained with torch", torch.__version__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one that is given, or made by what `make wheel` runs."""
    if GIVEN is not None:
        return Path(GIVEN).resolve()
    pytest.importorskip("auditwheel", reason="auditwheel is not installed: pip install '.[dev]'")
    out = tmp_path_factory.mktemp("wheel")
    script = ROOT / "build_backend" / "make_wheel.py"
    subprocess.run([sys.executable, script, "cpu", "--out", out], check=True)
    (made,) = out.glob("*.whl")
    return made


def other_torches() -> list[Path]:
    """The environments of `make test-versions`, or those that LIF_CUDA_TORCHES names, separated by colons."""
    named = os.environ.get("LIF_CUDA_TORCHES")
    found = named.split(os.pathsep) if named else sorted(map(str, ROOT.glob(".venv-torch-*")))
    packages = [path for name in found for path in Path(name).glob("lib/python*/site-packages")]
    return [path for path in packages if (path / "torch").is_dir()]


def beside(packages: Path, wheel: Path, env: Path) -> dict[str, str]:
    """Install the wheel into a new environment that finds torch in ``packages``; returns its variables."""
    subprocess.run([sys.executable, "-m", "venv", env], check=True)
    own = next(env.glob("lib/python*/site-packages"))
    install = [env / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
    environ = {"PATH": str(env / "bin"), "HOME": str(env), "CUDA_VISIBLE_DEVICES": ""}  # no compiler
    subprocess.run(install, env=environ, check=True)
    (own / "torch.pth").write_text(f"{packages}\n")
    return environ


def ran(env: Path, environ: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [env / "bin" / "python", "-P", "-W", "ignore", *arguments],
        cwd=env,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_tag_says_where_it_runs(wheel: Path) -> None:
    """Not linux_x86_64, which says nothing of the C library; and torch is not in it."""
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    # Of the source: the package need not be installed beside this Python.
    source = (ROOT / "lif_cuda" / "__init__.py").read_text()
    release = re.escape(re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE)[0])
    name = rf"lif_cuda-{release}-{version}-{version}-manylinux_\d+_\d+_\w+\.whl"
    assert re.fullmatch(name, wheel.name), wheel.name
    with zipfile.ZipFile(wheel) as archive:
        libraries = [path for path in archive.namelist() if ".so" in path]
    assert sorted(path.partition(".")[0] for path in libraries) == [f"lif_cuda/{name}" for name in LIBRARIES]
    assert wheel.stat().st_size < LARGEST


def test_beside_the_torch_that_it_was_built_with(wheel: Path, tmp_path: Path) -> None:
    packages = Path(torch.__file__).parent.parent
    environ = beside(packages, wheel, tmp_path)
    said = ran(tmp_path, environ, "-m", "lif_cuda", "info")
    assert re.search(r"works beside +torch 2.11 and newer\n", said), said
    assert re.search(r"autograd +recorded in C\+\+\n", said), said
    assert "trained" in ran(tmp_path, environ, "-c", TRAINING)


def test_beside_another_torch(wheel: Path, tmp_path: Path) -> None:
    """Python does the work of what is bound to the torch of the build, unasked, and `info` says so."""
    others = other_torches()
    if not others:
        pytest.skip("there is no other torch: `make test-versions` makes environments with some")
    for number, packages in enumerate(others):
        env = tmp_path / str(number)
        environ = beside(packages, wheel, env)
        said = ran(env, environ, "-m", "lif_cuda", "info")
        assert re.search(r"autograd +recorded in Python, .*built against another torch\n", said), said
        assert said.count("equals the reference") == 2, said
        trained = ran(env, environ, "-c", TRAINING)
        assert torch.__version__ not in trained
