"""The floor of a call: an operator that is registered like ``lif_forward``, and takes what it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

_BENCH = Path(__file__).resolve().parent


def empty_operator() -> Any:
    """Compile ``empty_operator.cpp`` and load it; None where there is no compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return None
    torch_folder = Path(torch.__path__[0])
    major, minor = map(int, torch.__version__.split(".")[:2])
    target = f"0x{major << 56 | minor << 48:016x}"  # as the build sets it: the ABI of this torch
    flags = [
        "-O2",
        "-std=c++20",
        "-fPIC",
        "-fvisibility=hidden",
        "-shared",
        f"-DTORCH_TARGET_VERSION={target}",
    ]
    folders = [f"-I{_BENCH.parent / 'csrc'}", "-isystem", str(torch_folder / "include")]
    libraries = [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
    source = str(_BENCH / "empty_operator.cpp")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "empty.so"
        command = [compiler, *flags, *folders, source, *libraries, "-o", str(library)]
        subprocess.run(command, check=True)
        torch.ops.load_library(library)
    return torch.ops.lif_cuda_empty.lif_forward.default
