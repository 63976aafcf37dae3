"""A compiler that compiles each file once for many builds: tests/test_install.py installs in six ways.

    python tests/_cached_compiler.py CACHE g++ ARGUMENTS...

What differs between those builds is where the headers of the same torch and the same Python lie, so folders
are no part of the key. Linking, and whatever is not the compilation of a source, goes on as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PATHS = ("-I", "-isystem", "-MF", "-o")


def key(arguments: list[str]) -> str | None:
    """What names the object: source and flags; None where no source is compiled."""
    if "-c" not in arguments or "-o" not in arguments:
        return None
    kept = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in PATHS:
            skip = True
        elif argument.startswith("-I") or argument in ("-c", "-MMD"):
            continue  # ninja says -c twice, and asks for dependencies
        elif argument.endswith((".cpp", ".cu")):
            kept.append("/".join(Path(argument).parts[-2:]))
        else:
            kept.append(argument)
    return hashlib.sha256("\0".join(kept).encode()).hexdigest()


def main(cache: str, *command: str) -> int:
    """Run the compiler, or copy what it made before."""
    arguments = list(command[1:])
    name = key(arguments)
    if name is None:
        return subprocess.run(command, check=False).returncode
    stored = Path(cache, f"{name}.o")
    made = arguments[arguments.index("-o") + 1]
    if stored.is_file():
        shutil.copyfile(stored, made)
        return 0
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        beside = stored.with_suffix(f".{os.getpid()}")  # builds run side by side
        shutil.copyfile(made, beside)
        beside.replace(stored)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
