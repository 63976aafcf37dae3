"""What a run on a GPU ran on: device, driver, versions, commit. Needs torch, and nothing built here.

    cd bench && python -m on_gpu.facts DEVICE

prints them as JSON; the exit status is 1 if there is no such device.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from typing import Any

import torch

from common.commit import commit


def facts(device: torch.device) -> dict[str, Any]:
    """Plain JSON values; None for what this machine does not tell."""
    sources = commit()
    found: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "capability": None,
        "memory_gib": None,
        "driver": None,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "nvcc": _found(r"release ([\d.]+)", _output("nvcc", "--version")),
        "rivals": {name: _version(name) for name in ("spikingjelly", "triton")},
        "commit": sources["hash"],
        "changed": sources["changed"],
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        found |= {
            "device": gpu.name,
            "capability": f"{gpu.major}.{gpu.minor}",
            "memory_gib": round(gpu.total_memory / 2**30, 1),
            "driver": _found(
                r"([\d.]+)", _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
            ),
        }
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _found(pattern: str, text: str | None) -> str | None:
    match = re.search(pattern, text or "")
    return match[1] if match else None


def main() -> int:
    """Print the facts of the device that the first argument names."""
    device = torch.device(sys.argv[1])
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} sees no CUDA device", file=sys.stderr)
        return 1
    print(json.dumps(facts(device), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
