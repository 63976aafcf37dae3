"""The ways to install, as docs/install.md prints them, each in an environment that holds torch alone.

What is installed is a copy of these sources, in an environment with copies of the torch that runs this test
and of what that needs. Nothing is linked: an installer would write through a link. Each file is compiled once
for all the builds (_cached_compiler.py). Like a user's, the builds take setuptools and ninja from the index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
import torch
from _compile import ROOT, cxx

uv = pytest.importorskip("uv", reason="uv is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.version.cuda is not None, reason="a torch with CUDA is some GB to copy"),
]

PIP = "pip install ."
UV_HERE = "uv pip install ."
UV = ("uv pip install setuptools ninja", "uv pip install --no-build-isolation .")
UV_PROJECT = 'no-build-isolation-package = ["lif_cuda"]'
EDITABLE = "pip install -e ."
WHEEL = "python -m build --wheel"
SDIST = "python -m build --sdist"
RUN_HERE = {PIP, UV_HERE, *UV, EDITABLE, WHEEL, SDIST}


@dataclass(frozen=True)
class Place:
    """An environment with torch alone, and a copy of the sources."""

    env: Path
    source: Path
    environ: dict[str, str]

    @property
    def packages(self) -> Path:
        return next(self.env.glob("lib/python*/site-packages"))

    def installed(self) -> dict[str, str]:
        """What is installed, by name and version."""
        found = metadata.distributions(path=[str(self.packages)])
        return {distribution.name.lower(): distribution.version for distribution in found}

    def run(self, line: str, folder: Path | None = None, *, code: int = 0) -> str:
        """Run a line of a shell in which the environment is active; what it printed."""
        done = subprocess.run(
            line,
            shell=True,
            cwd=folder or self.source,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{line}\n{done.stdout}"
        return done.stdout

    def check(self, libraries: str = "lif_cuda") -> None:
        """The package works, and was built against the torch that is installed; its libraries are there."""
        said = self.run("python -P -W ignore -m lif_cuda info", self.env)
        assert re.search(rf"built against +torch {re.escape(torch.__version__)}\n", said), said
        assert re.search(rf"libraries in +{re.escape(str(self.packages / libraries))}\n", said), said

    def files(self) -> set[str]:
        """What lies in site-packages and in the source's package, but for what was compiled from Python."""
        everything = [*self.packages.iterdir(), *(self.source / "lif_cuda").iterdir()]
        return {str(path) for path in everything if path.name != "__pycache__"}


def copy_distribution(name: str, into: Path, done: set[str]) -> None:
    """Copy a distribution and what it requires from the running environment."""
    if name in done:
        return
    done.add(name)
    found = metadata.distribution(name)
    for file in found.files or ():
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        target = into / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(str(file.locate()), target)
    for requirement in found.requires or ():
        required = re.match(r"[\w.-]+", requirement)
        assert required is not None
        if "extra ==" not in requirement:
            copy_distribution(required[0].lower(), into, done)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The environment and the copy of the sources, made once."""
    folder = tmp_path_factory.mktemp("install")
    env, source, tools, cache = (folder / name for name in ("env", "source", "tools", "objects"))
    subprocess.run([sys.executable, "-m", "venv", env], check=True)
    compiler = cxx()
    assert compiler is not None, "no C++ compiler; set CXX"
    for path in (tools, cache):
        path.mkdir()
    # The tools of the system but ninja, which a machine need not have.
    for tool in (path for name in os.defpath.split(os.pathsep) for path in Path(name).iterdir()):
        if tool.name not in ("ninja", "uv") and not (tools / tool.name).is_symlink():
            (tools / tool.name).symlink_to(tool)
    (tools / "uv").symlink_to(uv.find_uv_bin())
    # Off the PATH, and of a name of its own: a compiler that calls another by name must not find this one.
    wrapper = folder / "cached-compiler"
    script = ROOT / "tests" / "_cached_compiler.py"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -E -S "{script}" "{cache}" "{compiler}" "$@"\n')
    wrapper.chmod(0o755)
    ignored = shutil.ignore_patterns(
        ".git",
        ".venv*",
        ".*_cache",
        ".hypothesis",
        "build",
        "dist",
        "runs",
        "*.so",
        "*.egg-info",
        "__pycache__",
    )
    shutil.copytree(ROOT, source, ignore=ignored)

    # Neither may fetch another torch, whatever is wrong.
    constraint = folder / "constraint.txt"
    constraint.write_text(f"torch=={torch.__version__}\n")
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LD_PRELOAD", "MAX_JOBS")}
    environ = {
        **kept,
        "PATH": os.pathsep.join([str(env / "bin"), str(tools)]),
        "VIRTUAL_ENV": str(env),
        "CXX": str(wrapper),
        "LIF_CUDA_BUILD": "cpu",
        "PIP_CONSTRAINT": str(constraint),
        "UV_CONSTRAINT": str(constraint),
        "UV_CACHE_DIR": str(folder / "uv"),
    }
    place = Place(env, source, environ)
    # A torch that pip installed has put its own setuptools in the place of the one that venv brings.
    place.run("if pip show --quiet setuptools; then pip uninstall --yes setuptools; fi")
    copy_distribution("torch", place.packages, set())
    return place


@pytest.fixture
def place(made: Place) -> Iterator[Place]:
    """The same, as fresh as it was made."""
    installed, files = made.installed(), made.files()
    assert "torch" in installed and not {"lif_cuda", "ninja", "pybind11"} & set(installed)
    yield made
    assert made.installed()["torch"] == installed["torch"]
    added = set(made.installed()) - set(installed)
    if added:
        made.run(f"python -m pip uninstall --yes {' '.join(sorted(added))}")
    shutil.rmtree(made.source / "dist", ignore_errors=True)
    assert made.installed() == installed
    assert made.files() == files, "uninstalled, and left something behind"


def test_pip(place: Place) -> None:
    place.run(PIP)
    place.check()


def test_uv_in_the_source_folder(place: Place) -> None:
    """Here pyproject.toml tells uv not to isolate the build. There is no ninja, and it says so."""
    said = place.run(f"{UV_HERE} --verbose")
    assert "lif_cuda is built without ninja" in said
    place.check()


def test_uv_without_isolation(place: Place) -> None:
    for line in UV:
        place.run(line)
    place.check()


def test_uv_stops_where_it_hides_the_torch(place: Place) -> None:
    said = place.run(f"uv pip install {place.source}", place.env, code=1)
    assert "no torch>=2.11 can be seen from this build. Remedy: " in said
    assert "lif_cuda" not in place.installed()


def test_a_uv_project(place: Place, tmp_path: Path) -> None:
    """torch is there already, and no matter of the project's, which would fetch one of its own."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "user"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["lif_cuda"]\n'
        f"[tool.uv]\n{UV_PROJECT}\n"
        "override-dependencies = [\"torch; sys_platform == 'none'\"]\n"
        f'[tool.uv.sources]\nlif_cuda = {{ path = "{place.source}" }}\n'
    )
    place.run("UV_PROJECT_ENVIRONMENT=$VIRTUAL_ENV uv sync --inexact", tmp_path)
    place.check()


def test_an_editable_install_and_what_it_leaves(place: Place) -> None:
    stale = place.source / "lif_cuda" / "_kernels.so"
    stale.touch()  # of an earlier build in place, which would be loaded instead
    place.run(EDITABLE)
    assert not stale.exists()
    place.check("lif_cuda.libs")
    where = place.run("python -P -W ignore -c 'import lif_cuda; print(lif_cuda.__file__)'", place.env)
    assert where.strip() == str(place.source / "lif_cuda" / "__init__.py")
    assert not list(place.source.glob("lif_cuda/*.so"))
    # The fixture sees that nothing is left once it is uninstalled.


def test_a_wheel_by_build(place: Place) -> None:
    place.run("pip install build")
    place.run(WHEEL)
    place.run("pip install --no-index dist/*.whl")
    place.check()


def test_a_wheel_by_build_stops_without_a_torch(place: Place, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    place.run(f"{python} -m pip install build")
    said = place.run(f"{python} -m build --wheel", code=1)
    assert (
        f"error: lif_cuda is built against the torch that is installed, and the environment of {python}"
        in said
    )
    assert not (place.source / "dist").exists() or not list((place.source / "dist").iterdir())


def test_an_archive_of_the_sources(place: Place) -> None:
    place.run("pip install build")
    place.run(SDIST)
    place.run("pip install dist/*.tar.gz")
    place.check()


def test_the_page_prints_what_was_run() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").partition("\n## CUDA\n")[0]
    readme = (
        (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Install\n")[2].partition("\n## ")[0]
    )
    printed = lines_of(page)
    assert PIP in printed and UV[-1] in printed
    assert printed | lines_of(readme) <= RUN_HERE, "a line that no test runs"
    assert UV_PROJECT in page


def lines_of(text: str) -> set[str]:
    """The lines of a shell that a text prints."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    quoted = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [line.strip() for block in fenced for line in block.splitlines()] + quoted
    return {line for line in lines if re.match(r"(uv )?pip |uv |python -m build", line)}
