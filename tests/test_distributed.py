"""Data-parallel training over two gloo processes gives the gradients of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from lif_cuda.models import SNNClassifier

out, meeting, rank, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
torch.manual_seed(0)
model = SNNClassifier(12, 9, 4)
wrapped = DistributedDataParallel(model)
x, y = torch.randn(8, 12), torch.randint(4, (8,))
share = slice(rank * 8 // size, (rank + 1) * 8 // size)
torch.nn.functional.cross_entropy(wrapped(x[share]), y[share]).backward()
if rank == 0:
    torch.save({n: p.grad for n, p in model.named_parameters()}, out)
dist.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no distributed package")
def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    gradients = []
    # The workers meet in a file: no ports and no host names that a machine may lack.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    for size in (1, 2):
        out, meeting = tmp_path / f"{size}.pt", tmp_path / f"meeting{size}"
        workers = [
            subprocess.Popen(
                [sys.executable, "-P", str(script), str(out), str(meeting), str(rank), str(size)],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]
        for worker in workers:
            _, errors = worker.communicate(timeout=240)
            assert worker.returncode == 0, errors[-3000:]
        gradients.append(torch.load(out))
    assert any(grad.abs().sum() > 0 for grad in gradients[0].values())
    for name, grad in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], grad, rtol=1e-4, atol=1e-6)
