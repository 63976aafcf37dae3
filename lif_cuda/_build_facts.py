"""What was built and can be used here, and what to say where the CUDA half is missing.

The build loads this file on its own, before there is a package, so it imports nothing of the
package, and torch only where it is used.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import os
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TypedDict, cast

_KERNELS = "_kernels.so"
_KERNELS_CUDA = "_kernels_cuda.so"
# Where an editable install has its libraries, in site-packages. No name of a package, so that nothing is
# imported from it.
EDITABLE_FOLDER = "lif_cuda.libs"


class Facts(TypedDict):
    """The facts that the compiled module ``lif_cuda._build`` holds."""

    kind: str  # "cpu", or "cuda": both halves
    compiler: str
    cpp_standard: int
    torch: str  # the version built against
    for_torch: str  # the oldest that the operators load beside
    torch_cuda: str | None  # the CUDA that torch was built with
    cuda: str | None  # the version of nvcc
    cuda_archs: str | None
    no_cuda_because: str | None
    simd_levels: list[str]
    simd_best: str  # the highest level that this processor runs
    simd: str  # the level in use


@functools.cache
def library_folder() -> Path:
    """The folder with the compiled libraries.

    That is the package's own, but for two cases. An editable install imports the package from the source
    folder, and its libraries lie in site-packages. And Python started in the source folder imports the
    package from there, when ``pip install .`` put the libraries into the installed copy.

    Raises:
        ImportError: nothing was compiled.
    """
    own = Path(__file__).resolve().parent
    installed = (
        Path(str(found.locate_file(name)))
        for found in metadata.distributions(name="lif_cuda")
        for name in (EDITABLE_FOLDER, "lif_cuda")
    )
    for folder in (own, *installed):
        if (folder / _KERNELS).is_file():
            return folder
    raise ImportError(
        f"lif_cuda has no compiled libraries: {own} holds its Python files alone, and no installed "
        "copy was found. Build them: run `pip install .` in the source folder"
    )


def kernel_libraries() -> list[Path]:
    """The operator libraries, in the order in which to load them: the CUDA half, if built, last."""
    folder = library_folder()
    return [path for name in (_KERNELS, _KERNELS_CUDA) if (path := folder / name).is_file()]


def _module(name: str) -> ModuleType:
    """A compiled module of this build.

    Raises:
        ImportError: nothing was compiled, or it was compiled for another Python.
    """
    folder = library_folder()
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            spec = importlib.util.spec_from_file_location(f"lif_cuda.{name}", path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise ImportError(
        f"no {name} module for this Python in {folder}: lif_cuda was compiled for another version. "
        "Build it again: run `pip install --force-reinstall --no-deps .` in the source folder"
    )


@functools.cache
def facts() -> Facts:
    """The facts of this build.

    Raises:
        ImportError: nothing was compiled, or it was compiled for another Python.
    """
    return cast(Facts, _module("_build").facts())


AUTOGRAD = ("cpp", "python")


@functools.cache
def node_module() -> ModuleType | None:
    """The operators under autograd in C++, or None where Python does its work.

    That is so beside another torch than the one that was built against, whose C++ interface it needs, and
    where the environment variable LIF_CUDA_AUTOGRAD is "python".

    Raises:
        ImportError: LIF_CUDA_AUTOGRAD has another value, or asks for what cannot be had.
    """
    import torch

    asked = os.environ.get("LIF_CUDA_AUTOGRAD")
    if asked and asked not in AUTOGRAD:
        raise ImportError(
            f"the environment variable LIF_CUDA_AUTOGRAD must be one of {', '.join(AUTOGRAD)}, got "
            f"{asked!r}; unset it to use the faster one that this torch allows"
        )
    built, found = facts()["torch"], str(torch.__version__)
    if asked == "python":
        return None
    if built == found:
        return _module("_node")
    if asked:
        raise ImportError(
            f"LIF_CUDA_AUTOGRAD={asked} needs the torch that lif_cuda was built against, {built}, got "
            f"{found}; unset it, or build again with 'pip install --force-reinstall --no-deps .'"
        )
    return None


DISPATCHER = ("auto", "always")


@functools.cache
def always_dispatches() -> bool:
    """Whether each operator goes through torch's dispatcher, as LIF_CUDA_DISPATCHER=always asks.

    Raises:
        ImportError: LIF_CUDA_DISPATCHER has another value than one of DISPATCHER.
    """
    asked = os.environ.get("LIF_CUDA_DISPATCHER")
    if asked and asked not in DISPATCHER:
        raise ImportError(
            f"the environment variable LIF_CUDA_DISPATCHER must be one of {', '.join(DISPATCHER)}, got "
            f"{asked!r}; unset it to pass the dispatcher by where nobody else is to hear of a call"
        )
    return asked == "always"


def cuda_missing_message(torch_version: str, torch_cuda: str, because: str) -> str:
    """The one sentence about a CPU-only build beside a torch with CUDA, and its remedy."""
    return (
        f"lif_cuda was built for the CPU only, but torch {torch_version} has CUDA {torch_cuda}: "
        f"its layers will not run on CUDA tensors. Why: {because}. Remedy: install a CUDA "
        f"{torch_cuda} toolkit with nvcc (CUDA_HOME set to its folder, or nvcc on PATH), then run "
        "`LIF_CUDA_BUILD=cuda pip install --force-reinstall --no-deps .` in the source folder."
    )


def cuda_missing_reason() -> str | None:
    """Why CUDA tensors cannot be computed on, with the remedy, where torch itself could hold them.

    None where the CUDA half was built, or where torch has no CUDA, so that nothing is missed.
    """
    import torch

    built = facts()
    if built["kind"] == "cuda" or torch.version.cuda is None:
        return None
    because = built["no_cuda_because"] or "the build does not say"
    return cuda_missing_message(str(torch.__version__), torch.version.cuda, because)
