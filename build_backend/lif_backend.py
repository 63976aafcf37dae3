"""PEP 517 and PEP 660 build backend: setuptools, built against the torch already installed.

pip builds in an isolated environment without the packages around it. A torch named as a build
requirement would be downloaded there (several GB), and the extension would be built against that
one and not against the one it will run beside. But ``sysconfig`` still names the outer
environment's site-packages, so this module finds the torch there and appends that folder to
``sys.path``: last, so that the isolated build requirements win over what else lies in it.
"""

from __future__ import annotations

import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from importlib import metadata

from setuptools import build_meta

TORCH_MINIMUM = (2, 11)
TORCH_REQUIREMENT = "torch>=2.11"

ConfigSettings = Mapping[str, str | list[str] | None] | None


def outer_folders() -> list[str]:
    """Site-packages of the environment that pip was started in, the most specific first."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    # Those of the base installation too, where the environment was made to see it.
    folders += site.getsitepackages()
    if sys.prefix == sys.base_prefix:
        folders.append(site.getusersitepackages())
    return list(dict.fromkeys(folders))


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


_TORCH_FOUND = make_torch_importable(sys.path, outer_folders())


def get_requires_for_build_wheel(config_settings: ConfigSettings = None) -> list[str]:
    """torch, where there is none; setuptools, ninja and pybind11 stand in pyproject.toml."""
    return [] if _TORCH_FOUND else [TORCH_REQUIREMENT]


get_requires_for_build_editable = get_requires_for_build_wheel


def get_requires_for_build_sdist(config_settings: ConfigSettings = None) -> list[str]:
    """Nothing: an archive of the sources compiles nothing."""
    return []


prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable
build_wheel = build_meta.build_wheel
build_editable = build_meta.build_editable
build_sdist = build_meta.build_sdist
