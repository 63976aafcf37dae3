"""PEP 517 and PEP 660 build backend: setuptools, built against the torch already installed.

An isolated build does not see the packages of the environment that it builds for. A torch named as a
build requirement would be downloaded (several GB), and the libraries would be built against that one and
not against the one they will run beside. So this module looks for the outer environment's torch and
appends its folder to ``sys.path``: last, so that the isolated build requirements win over what else lies
there. Where the outer environment cannot be found, the build stops and says what to do.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from lif_build import TORCH_MINIMUM

try:
    import setuptools
    from setuptools import build_meta
except ImportError:
    sys.exit(
        "error: a build of lif_cuda without isolation needs setuptools in the environment, and ninja to be "
        "fast. Run `pip install setuptools ninja`, or `uv pip install setuptools ninja`, and build again."
    )

# The first that reads `license = "MIT"`; of an older one pip shows a page of a validator's.
SETUPTOOLS_MINIMUM = 77


def check_setuptools(version: str) -> None:
    """Stop where a build without isolation finds an old setuptools; an isolated one gets what it asks for."""
    if int(version.split(".")[0]) < SETUPTOOLS_MINIMUM:
        sys.exit(
            f"error: lif_cuda is built by setuptools {SETUPTOOLS_MINIMUM} or newer, and here is {version}. "
            "Run `pip install -U setuptools`, or `uv pip install -U setuptools`, and build again."
        )


check_setuptools(setuptools.__version__)

TORCH_REQUIREMENT = f"torch>={TORCH_MINIMUM[0]}.{TORCH_MINIMUM[1]}"

ConfigSettings = Mapping[str, str | list[str] | None] | None


def isolated_by_pip() -> bool:
    """Whether pip isolates this build: it runs the outer Python, and takes its packages off ``sys.path``."""
    own = os.path.realpath(sysconfig.get_path("purelib"))
    return own not in map(os.path.realpath, sys.path)


def outer_python() -> str | None:
    """The Python of the environment that an isolated build is for.

    None where the build is not isolated, and where the outer environment left no trace: uv does not tell.
    """
    if isolated_by_pip():
        return sys.executable
    # `python -m build` makes an environment of this name, and venv writes down which Python asked for it.
    settings = Path(sys.prefix, "pyvenv.cfg")
    if not Path(sys.prefix).name.startswith("build-env-") or not settings.is_file():
        return None
    maker = re.search(r"^command = (.+?) -m venv ", settings.read_text(encoding="utf-8"), re.MULTILINE)
    return maker[1] if maker else None


def folders_of(python: str) -> list[str]:
    """Where ``python`` finds its packages, without what the isolation of this build put into its way."""
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONNOUSERSITE")}
    command = [python, "-P", "-c", "import json, sys; print(json.dumps(sys.path))"]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    folders: list[str] = json.loads(done.stdout.splitlines()[-1])
    return folders


def holds_torch(folder: str) -> bool:
    """Whether a torch new enough to build against is installed in ``folder``."""
    for found in metadata.distributions(name="torch", path=[folder]):
        release = re.match(r"(\d+)\.(\d+)", found.version)
        return release is not None and tuple(map(int, release.groups())) >= TORCH_MINIMUM
    return False


def make_torch_importable(importable: list[str], outer: Iterable[str]) -> bool:
    """Append the outer folder that holds torch to ``importable``, unless torch is there already.

    Returns:
        Whether torch can be imported afterwards.
    """
    if any(map(holds_torch, importable)):
        return True
    for folder in outer:
        if holds_torch(folder):
            importable.append(folder)
            return True
    return False


_OUTER_PYTHON = outer_python()
_TORCH_FOUND = make_torch_importable(sys.path, folders_of(_OUTER_PYTHON) if _OUTER_PYTHON else [])


def no_torch_message(outer: str | None) -> str:
    """Why a build stops that would otherwise take another torch than the installed one."""
    if outer is not None:
        return (
            f"lif_cuda is built against the torch that is installed, and the environment of {outer} has no "
            f"{TORCH_REQUIREMENT}. Remedy: install torch there, and build again."
        )
    return (
        f"lif_cuda is built against the torch that is installed, and no {TORCH_REQUIREMENT} can be seen from "
        "this build. Remedy: install torch, setuptools and ninja, and build without isolation: "
        "`uv pip install --no-build-isolation .`, `pip install --no-build-isolation .` or "
        "`python -m build --wheel --no-isolation`. In a uv project set "
        '`no-build-isolation-package = ["lif_cuda"]` under [tool.uv].'
    )


def get_requires_for_build_wheel(config_settings: ConfigSettings = None) -> list[str]:
    """torch, for pip where there is none; setuptools and ninja stand in pyproject.toml.

    pip then installs the same torch beside lif_cuda, which depends on it. Others may not, or there may be
    one that cannot be seen from here: the build stops.
    """
    if _TORCH_FOUND:
        return []
    if isolated_by_pip():
        return [TORCH_REQUIREMENT]
    sys.exit(f"error: {no_torch_message(_OUTER_PYTHON)}")


get_requires_for_build_editable = get_requires_for_build_wheel


def get_requires_for_build_sdist(config_settings: ConfigSettings = None) -> list[str]:
    """Nothing: an archive of the sources compiles nothing."""
    return []


prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable
build_wheel = build_meta.build_wheel
build_editable = build_meta.build_editable
build_sdist = build_meta.build_sdist
