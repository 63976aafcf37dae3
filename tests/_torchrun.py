"""Starting a script as its users do, by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def torchrun(processes: int, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in ``processes`` processes on this machine; what they print comes as ``stdout``."""
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), str(script), *arguments]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        # Not by the name of the host, which a machine may not know.
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
