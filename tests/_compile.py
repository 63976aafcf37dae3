"""What the tests that compile the C++ and CUDA sources share: where those lie, and with which flags.

The flags are read out of setup.py rather than repeated, so that what is tested is what is built. They
are read as text: running setup.py would start a build.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"


def build_flags(name: str) -> list[str]:
    """The list of flags that setup.py calls ``name``."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            flags = ast.literal_eval(node.value)
            assert isinstance(flags, list)
            return flags
    raise LookupError(f"setup.py has no list {name}; the tests take the flags of the build from it")


def cxx() -> str | None:
    """The C++ compiler of the build, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


def compile_source(command: list[str | Path]) -> str:
    """Run a compiler and return what it printed; its whole output is the failure's message."""
    done = subprocess.run(
        [str(part) for part in command],
        # Under a sanitizer loaded into Python, the compiler itself would run several times slower.
        env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout
