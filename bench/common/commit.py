"""Which commit the sources are of. Standard library only: it is asked before anything is built."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Names the commit where the sources are a copy, whose history may end before it.
VARIABLE = "LIF_CUDA_COMMIT"
# All but what a benchmark before this one has written.
_CODE = (":(top)", ":(top,exclude)bench/results")


def commit() -> dict[str, Any]:
    """``hash`` of the checkout this script lies in, and whether it was ``changed`` since, results apart.

    Where VARIABLE names the commit, or outside a git checkout, nothing says whether: ``changed`` is None.
    """
    named = os.environ.get(VARIABLE)
    name = named or _git("rev-parse", "HEAD")
    if named or name is None:
        return {"hash": name, "changed": None}
    return {
        "hash": name,
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
