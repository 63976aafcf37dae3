"""The floor of a call: an operator that is registered like ``lif_forward``, and takes what it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from common.build import target_version

_SOURCE = Path(__file__).resolve().with_name("empty_operator.cpp")
_CSRC = Path(__file__).resolve().parents[2] / "csrc"


def empty_operator() -> Any:
    """Compile ``empty_operator.cpp`` and load it; None, and a word on stderr, where that cannot be done."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        print("no C++ compiler: the empty operator is left out", file=sys.stderr)
        return None
    torch_folder = Path(torch.__path__[0])
    flags = [
        "-O2",
        "-std=c++20",
        "-fPIC",
        "-fvisibility=hidden",
        "-shared",
        f"-DTORCH_TARGET_VERSION={target_version(torch.__version__)}",
    ]
    folders = [f"-I{_CSRC}", "-isystem", str(torch_folder / "include")]
    libraries = [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "empty.so"
        command = [compiler, *flags, *folders, str(_SOURCE), *libraries, "-o", str(library)]
        if subprocess.run(command, check=False).returncode:
            print("it does not compile: the empty operator is left out", file=sys.stderr)
            return None
        torch.ops.load_library(library)
    return torch.ops.lif_cuda_empty.lif_forward.default
