"""Training over two gloo processes gives what one process gives: DDP, FSDP2 and DTensor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch has no distributed package"
)

# Before each worker: who it is, and where the others are.
START = """
import sys
import torch
import torch.distributed as dist
from torch import nn

out, meeting, rank, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
torch.manual_seed(0)
"""
# After it: rank 0 tells what it has.
END = """
if rank == 0:
    torch.save(found, out)
dist.barrier()  # nobody leaves while another is still talking
dist.destroy_process_group()
"""

DDP = """
from torch.nn.parallel import DistributedDataParallel
from lif_cuda.models import SNNClassifier

model = SNNClassifier(12, 9, 4)
wrapped = DistributedDataParallel(model)
x, y = torch.randn(8, 12), torch.randint(4, (8,))
share = slice(rank * 8 // size, (rank + 1) * 8 // size)
torch.nn.functional.cross_entropy(wrapped(x[share]), y[share]).backward()
found = {n: p.grad for n, p in model.named_parameters()}
"""

FSDP = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from lif_cuda.models import SNNClassifier

model = SNNClassifier(12, 9, 4)
mesh = init_device_mesh("cpu", (size,))
for layer in (model.fc1, model.lif1, model.fc2, model.lif2):  # the model takes the weight of fc3 by itself
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
x, y = torch.randn(8, 12), torch.randint(4, (8,))
share = slice(rank * 8 // size, (rank + 1) * 8 // size)
torch.nn.functional.cross_entropy(model(x[share]), y[share]).backward()
found = {n: p.grad.full_tensor() for n, p in model.named_parameters()}
"""

# x sharded over the batch, over the features and not at all; a decay that is a number, one tensor, or one of
# each neuron; what each process has of the results put together.
DTENSOR = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from lif_cuda import functional

mesh = init_device_mesh("cpu", (size,))
x, weights, each = torch.randn(7, 4, 10), torch.randn(7, 4, 10), torch.rand(10)
found = {}
for where, placement in {"batch": Shard(1), "features": Shard(-1), "everywhere": Replicate()}.items():
    for kind, beta in {"number": 0.9, "tensor": torch.tensor(0.8), "neurons": each, "placed": each}.items():
        leaf = distribute_tensor(x, mesh, [placement]).requires_grad_()
        if kind != "number":
            beta = beta.clone()
            if kind == "placed":
                beta = distribute_tensor(beta, mesh, [Shard(0) if where == "features" else Replicate()])
            beta.requires_grad_()
        with CommDebugMode() as talk:
            outputs, state = functional.lif(leaf, beta, 0.7, output=("spikes", "count", "total"))
        assert talk.get_total_counts() == 0, (where, kind, talk.get_comm_counts())
        assert outputs.spikes.placements == leaf.placements
        again, _ = functional.lif(leaf, beta, 0.7, state)
        loss = (again * distribute_tensor(weights, mesh, [placement])).sum() + outputs.count.sum()
        loss = loss.redistribute(placements=[Replicate()]).to_local()
        with CommDebugMode() as talk:
            loss.backward()
        if kind == "number" or (kind == "placed" and where == "features"):
            assert talk.get_total_counts() == 0, (where, kind, talk.get_comm_counts())
        tensors = [outputs.spikes, outputs.count, outputs.total, state, again, leaf.grad]
        tensors += [] if kind == "number" else [beta.grad]
        found[f"{where}, {kind}"] = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in tensors]
"""

# A Linear cut by its columns, the neurons, a Linear cut by its rows: the neurons add no communication.
TENSOR_PARALLEL = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from lif_cuda import LIF

mesh = init_device_mesh("cpu", (size,))

def build(neurons):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 12), neurons(), nn.Linear(12, 5))
    parallelize_module(model, mesh, {"0": ColwiseParallel(use_local_output=False), "2": RowwiseParallel()})
    return model

def neurons():
    layer = LIF(12, beta=0.8, learn_beta=True, return_state=False)
    layer.beta_logit = nn.Parameter(distribute_tensor(layer.beta_logit.detach(), mesh, [Shard(0)]))
    return layer

x = torch.randn(9, 4, 6)
talked = []
for make in (nn.Identity, neurons):
    model = build(make)
    with CommDebugMode() as talk:
        model(x).square().sum().backward()
    talked.append(talk.get_total_counts())
assert talked[0] == talked[1], talked
found = {n: p.grad.full_tensor() for n, p in model.named_parameters()}
"""

ERRORS = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from lif_cuda import functional

mesh = init_device_mesh("cpu", (size,))
x = torch.randn(4, 6, 8)
found = []
for arguments in (
    (distribute_tensor(x, mesh, [Shard(0)]), 0.9),
    (DTensor.from_local(x, mesh, [Partial()]), 0.9),
    (distribute_tensor(x, mesh, [Shard(1)]), DTensor.from_local(torch.rand(8), mesh, [Partial()])),
    (distribute_tensor(x, mesh, [Shard(1)]), 0.9, 1.0, torch.zeros(6, 8)),
):
    try:
        functional.lif(*arguments)
        found.append("nothing was raised")
    except (TypeError, ValueError) as error:
        found.append(f"{type(error).__name__}: {error}")
"""


def run_workers(body: str, folder: Path, size: int) -> object:
    """What rank 0 of ``size`` processes leaves in ``found``."""
    script, out, meeting = folder / "worker.py", folder / f"{size}.pt", folder / f"meeting{size}"
    script.write_text(START + body + END)
    # The workers meet in a file: no ports and no host names that a machine may lack.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
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
    return torch.load(out)


@pytest.mark.parametrize("body", [DDP, FSDP, TENSOR_PARALLEL], ids=["DDP", "FSDP2", "tensor parallel"])
def test_two_processes_give_the_gradients_of_one(body: str, tmp_path: Path) -> None:
    one, two = (run_workers(body, tmp_path, size) for size in (1, 2))
    assert isinstance(one, dict) and isinstance(two, dict)
    assert any(grad.abs().sum() > 0 for grad in one.values())
    for name, grad in one.items():
        torch.testing.assert_close(two[name], grad, rtol=1e-4, atol=1e-6)


def test_distributed_tensors(tmp_path: Path) -> None:
    one, two = (run_workers(DTENSOR, tmp_path, size) for size in (1, 2))
    assert isinstance(one, dict) and isinstance(two, dict)
    assert len(one) == 12
    for name, tensors in one.items():
        for at, (mine, other) in enumerate(zip(tensors, two[name], strict=True)):
            if at < 6:
                assert torch.equal(mine, other), name
            else:  # the gradient of the decay is a sum
                torch.testing.assert_close(other, mine, rtol=1e-5, atol=1e-6)


def test_what_a_distributed_tensor_cannot_be(tmp_path: Path) -> None:
    found = run_workers(ERRORS, tmp_path, 2)
    assert isinstance(found, list)
    for message, expected in zip(
        found,
        [
            "ValueError: x must not be sharded over its time axis 0",
            "ValueError: x must be sharded or replicated, got a DTensor with partial sums",
            "ValueError: beta must be sharded or replicated",
            "TypeError: membrane must be a DTensor like x, got Tensor",
        ],
        strict=True,
    ):
        assert message.startswith(expected), message
