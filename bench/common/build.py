"""What the build decides, for what compiles C++ here: its flags, and the stable ABI that it compiles for."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "build_backend"))

from lif_build import CXX_FLAGS, target_version

__all__ = ["CXX_FLAGS", "target_version"]
