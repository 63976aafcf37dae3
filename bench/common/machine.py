"""Where a result came from: command, versions, machine and commit, as plain JSON values."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lif_cuda
from common.distributed import launcher

_REPOSITORY = Path(__file__).resolve().parents[2]


def command() -> str:
    """The command line that runs this again from the root of the repository."""
    script = Path(sys.argv[0]).resolve()
    if script.is_relative_to(_REPOSITORY):
        script = script.relative_to(_REPOSITORY)
    return shlex.join([*launcher(), *["-P"] * sys.flags.safe_path, str(script), *sys.argv[1:]])


def versions() -> dict[str, str | None]:
    """Versions of what the numbers depend on; None for what is not installed."""
    try:
        matplotlib = metadata.version("matplotlib")
    except metadata.PackageNotFoundError:
        matplotlib = None
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torch_cuda": torch.version.cuda,
        "lif_cuda": lif_cuda.__version__,
        "numpy": np.__version__,
        "matplotlib": matplotlib,
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads and, if it is used, the GPU."""
    facts: dict[str, Any] = {
        "cpu": _cpu(),
        "architecture": platform.machine(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
        "device": str(device),
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        facts["gpu"] = gpu.name
        facts["gpu_memory_gib"] = round(gpu.total_memory / 2**30, 1)
        facts["gpu_capability"] = f"{gpu.major}.{gpu.minor}"
    return facts


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores this process may use: under taskset or in a container not all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
