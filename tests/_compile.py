"""What compiles the C++ and CUDA sources besides the build shares: where those lie, and the build's flags."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "build_backend"))

from lif_build import CXX_FLAGS, NVCC_FLAGS, target_version

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"

__all__ = ["CSRC", "CXX_FLAGS", "NVCC_FLAGS", "ROOT", "compile_source", "cxx", "target_version"]


def cxx() -> str | None:
    """The C++ compiler of the build, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


def compile_source(command: list[str | Path], folder: Path | None = None) -> str:
    """Run a compiler, in ``folder``, and return what it printed, which is also the failure's message."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        # Under a sanitizer loaded into Python, the compiler itself would run several times slower.
        env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout
