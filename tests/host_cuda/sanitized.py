"""A file of tests once more, with csrc/cuda compiled for the host under GCC's sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from _compile import cxx

_ASKED = "LIF_HOST_CUDA_SANITIZE"
# Whether this is that second run.
SANITIZED = os.environ.get(_ASKED) == "1"


def run_sanitized(file: str, folder: Path, *options: str) -> None:
    """Run ``file`` in ``folder``, with options of pytest; it builds its kernels by SANITIZED."""
    compiler = cxx()
    if compiler is None:
        pytest.skip("no C++ compiler")
    asked = [compiler, "-print-file-name=libasan.so"]
    runtime = Path(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip())
    if not runtime.is_absolute():
        pytest.skip("the C++ compiler has no libasan.so to load into Python")
    environment = os.environ | {
        _ASKED: "1",
        "LD_PRELOAD": str(runtime.resolve()),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # Python keeps memory until it ends; and it is Python that is preloaded.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["--basetemp", str(folder / "sanitized")]
    done = subprocess.run(
        [*command, *options, file],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
