"""What test_distributed.py has torchrun start: each function, in every process; rank 0 saves the results.

torchrun --nproc-per-node 2 _distributed_worker.py FILE
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from lif_cuda import LIF, CurrentLIF, RecurrentLIF, SpikeLinear, functional
from lif_cuda.models import SNNClassifier

Gradients = dict[str, Tensor]


def batch(mesh: DeviceMesh) -> tuple[Tensor, Tensor]:
    """This process's share of eight inputs and of their labels."""
    x, y = torch.randn(8, 12), torch.randint(4, (8,))
    return x.chunk(mesh.size())[mesh.get_local_rank()], y.chunk(mesh.size())[mesh.get_local_rank()]


def ddp(mesh: DeviceMesh) -> Gradients:
    """A batch shared by DistributedDataParallel; the second Linear adds where a spike is set."""
    model = SNNClassifier(12, 9, 4)
    assert isinstance(model.fc2, SpikeLinear)
    wrapped = DistributedDataParallel(model)
    x, y = batch(mesh)
    torch.nn.functional.cross_entropy(wrapped(x), y).backward()
    return {n: p.grad for n, p in model.named_parameters()}


def ddp_recurrent(mesh: DeviceMesh) -> Gradients:
    """Sequences through a recurrent layer, shared by DistributedDataParallel."""
    recurrent = RecurrentLIF(9, learn_beta=True, learn_threshold=True, return_state=False)
    model = nn.Sequential(nn.Linear(12, 9), recurrent, SpikeLinear(9, 4))
    wrapped = DistributedDataParallel(model)
    x, y = torch.randn(8, 6, 12), torch.randint(4, (8,))
    share = slice(mesh.get_local_rank(), None, mesh.size())
    out = wrapped(x[share].transpose(0, 1)).sum(0)
    torch.nn.functional.cross_entropy(out, y[share]).backward()
    return {n: p.grad for n, p in model.named_parameters()}


def fsdp2(mesh: DeviceMesh) -> Gradients:
    """The same batch, the parameters sharded by fully_shard."""
    model = SNNClassifier(12, 9, 4)
    # Not fc3: the model takes its weight by itself.
    for layer in (model.fc1, model.lif1, model.fc2, model.lif2):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    x, y = batch(mesh)
    torch.nn.functional.cross_entropy(model(x), y).backward()
    return {n: p.grad.full_tensor() for n, p in model.named_parameters()}


def dtensor(mesh: DeviceMesh) -> dict[str, list[Tensor]]:
    """What each process has of the results, put together.

    x is sharded over the batch, over the features and not at all; the decay is a number, one tensor, or
    one of each neuron.
    """
    x, weights, each = torch.randn(7, 4, 10), torch.randn(7, 4, 10), torch.rand(10)
    found = {}
    for where, placement in {"batch": Shard(1), "features": Shard(-1), "everywhere": Replicate()}.items():
        decays = {"number": 0.9, "tensor": torch.tensor(0.8), "neurons": each, "placed": each}
        for kind, beta in decays.items():
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
            loss = loss + 0.1 * outputs.total
            loss = loss.redistribute(placements=[Replicate()]).to_local()
            with CommDebugMode() as talk:
                loss.backward()
            if kind == "number" or (kind == "placed" and where == "features"):
                assert talk.get_total_counts() == 0, (where, kind, talk.get_comm_counts())
            tensors = [outputs.spikes, outputs.count, outputs.total, state, again, leaf.grad]
            tensors += [] if kind == "number" else [beta.grad]
            found[f"{where}, {kind}"] = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in tensors]
    return found


def padded(mesh: DeviceMesh) -> dict[str, list[Tensor]]:
    """A padded batch: each process takes the lengths of its own samples, wherever all of them are."""
    x, weights, lengths = torch.randn(7, 4, 10), torch.randn(7, 4, 10), torch.tensor([0, 7, 3, 5])
    found = {}
    for where, placement in {"batch": Shard(1), "features": Shard(-1), "everywhere": Replicate()}.items():
        at = Shard(0) if where == "batch" else Replicate()
        for kind, given in {"one": lengths, "placed": distribute_tensor(lengths, mesh, [at])}.items():
            leaf = distribute_tensor(x, mesh, [placement]).requires_grad_()
            outputs, state = functional.lif(leaf, 0.9, 0.7, output=("spikes", "rate"), lengths=given)
            loss = (outputs.spikes * distribute_tensor(weights, mesh, [placement])).sum() + outputs.rate.sum()
            loss.redistribute(placements=[Replicate()]).to_local().backward()
            found[f"{where}, {kind}"] = [t.full_tensor() for t in (*outputs, state, leaf.grad)]
    return found


def tensor_parallel(mesh: DeviceMesh) -> Gradients:
    """A Linear cut by its columns, the neurons, a Linear cut by its rows; the neurons do not communicate."""

    def build(neurons: Callable[[], nn.Module]) -> nn.Module:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 12), neurons(), nn.Linear(12, 5))
        plan = {"0": ColwiseParallel(use_local_output=False), "2": RowwiseParallel()}
        return parallelize_module(model, mesh, plan)

    def neurons() -> nn.Module:
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
    return {n: p.grad.full_tensor() for n, p in model.named_parameters()}


def streaming(mesh: DeviceMesh) -> dict[str, Tensor]:
    """How far the states of a stateful layer under DDP are, in all processes, from those of its own chunks.

    The buffers of the BatchNorm before it are sent from the first process to all others.
    """

    class Net(nn.Module):
        def __init__(self, layer: LIF) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(6, affine=False)
            self.lif = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(self.norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]))

    makes = {
        "plain": lambda: LIF(6, learn_beta=True, stateful=True, return_state=False),
        "current": lambda: CurrentLIF(6, learn_beta=True, stateful=True, save_state=True, return_state=False),
    }
    apart = {}
    for name, make in makes.items():
        wrapped, alone = DistributedDataParallel(Net(make())), Net(make())
        generator = torch.Generator().manual_seed(mesh.get_local_rank())
        for _ in range(3):
            x = torch.randn(5, 4, 6, generator=generator)
            wrapped(x).sum().backward()
            # What is sent before each call is that of the first process.
            for mine, theirs in zip(alone.norm.buffers(), wrapped.module.norm.buffers(), strict=True):
                mine.copy_(theirs)
            alone(x)
        states = [net.lif.state for net in (wrapped.module, alone)]
        flat = [state if isinstance(state, Tensor) else state.membrane for state in states]
        distance = (flat[0] - flat[1]).abs().max()
        dist.all_reduce(distance, dist.ReduceOp.MAX)
        apart[name] = distance
    return apart


def errors(mesh: DeviceMesh) -> list[str]:
    """What is raised for DTensors that cannot be."""
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
    return found


def main() -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    found: dict[str, Any] = {}
    for function in (ddp, ddp_recurrent, fsdp2, dtensor, padded, tensor_parallel, streaming, errors):
        torch.manual_seed(0)
        found[function.__name__] = function(mesh)
    if dist.get_rank() == 0:
        torch.save(found, sys.argv[1])
    dist.barrier()  # nobody leaves while another is still talking
    dist.destroy_process_group()
    # At once: gloo's threads, which end with the last object that holds their group, may abort an interpreter
    # that ends ("terminate called without an active exception"), seen on a busy machine.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
