"""Empty modules in place of what a rival imports and does not need for what is timed here.

SpikingJelly's models import data sets and file formats; a machine without a network may have its wheel and
none of those.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NOT_NEEDED = (
    "torchvision",
    "torchaudio",
    "h5py",
    "scipy",
    "tensorboard",
    "matplotlib",
    "scienceplots",
    "requests",
    "tqdm",
)


class _Stub(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Finder(MetaPathFinder, Loader):
    """Finds an empty module for each of some names, and for whatever lies below them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self._names:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def stand_in(names: Sequence[str] = NOT_NEEDED) -> Iterator[list[str]]:
    """Put empty modules in place of those that cannot be imported, and say which. They go at the end, when
    they would be taken for the real ones; who imported them keeps them."""
    absent = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # torchvision beside a torch that it was not built for raises a RuntimeError
            _forget(name)
            absent.append(name)
    finder = _Finder(absent)
    sys.meta_path.insert(0, finder)
    try:
        yield absent
    finally:
        sys.meta_path.remove(finder)
        for name in absent:
            _forget(name)


def _forget(name: str) -> None:
    for part in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[part]
