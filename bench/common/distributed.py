"""The processes that share one job: those torchrun started, or this one alone.

In a process that torchrun did not start, nothing here communicates: there is one process, the first,
its share is everything, and its sums are the sums.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NoReturn, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

_P = ParamSpec("_P")
_R = TypeVar("_R")


class DeviceError(Exception):
    """The processes cannot have the device; the message says why and what to do."""


@contextmanager
def job() -> Iterator[None]:
    """While open, the processes of torchrun are one job, of which the first alone prints.

    Exits with a message if this process was started like one of several, but not by torchrun.
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
        yield
        return
    missing = {"MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"} - os.environ.keys()
    if missing:
        sys.exit(
            "error: the environment must be that of torchrun or of one process, got RANK, WORLD_SIZE and "
            f"LOCAL_RANK without {', '.join(sorted(missing))}; start by torchrun, or unset these three"
        )
    # gloo in any case: it also carries what is not a tensor, without a detour through a GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        with redirect_stdout(sys.stdout if rank() == 0 else None):  # print() is silent on None
            yield
    except SystemExit as stop:
        _leave(stop.code)
    # Not after an error: the others may be waiting for this process, and torchrun ends them.
    dist.destroy_process_group()
    _leave(0)


def _leave(code: str | int | None) -> NoReturn:
    """As sys.exit does, but at once.

    gloo's threads end with the last object that holds their group, and a model under
    DistributedDataParallel does. Those that are left may abort an interpreter that ends ("terminate called
    without an active exception"): seen on a busy machine, also after the group was destroyed.
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if isinstance(code, str) else code or 0)


def rank() -> int:
    """Which of the processes this is; 0 is the first."""
    return dist.get_rank() if _by_torchrun() else 0


def size() -> int:
    """How many processes share the job."""
    return dist.get_world_size() if _by_torchrun() else 1


def launcher() -> list[str]:
    """The words of a command line before the script's name that start as many processes."""
    if not _by_torchrun():
        return ["python"]
    nodes, here = os.environ["GROUP_WORLD_SIZE"], os.environ["LOCAL_WORLD_SIZE"]
    return ["torchrun", "--nnodes", nodes, "--nproc-per-node", here]


def choose_device(device: torch.device) -> None:
    """Make the device ``cuda`` mean the GPU of this process: that of its number on this machine.

    Raises:
        DeviceError: ``device`` is one certain GPU, or there are fewer GPUs than processes; see
            :func:`in_first`.
    """
    if _by_torchrun() and device.type == "cuda":
        in_first(_require_gpus, device)
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _require_gpus(device: torch.device) -> None:
    if device.index is not None:
        raise DeviceError(
            "--device must be cuda, without a number, under torchrun, as each process has its own GPU; got "
            f"{device}; give cuda, and choose the GPUs by CUDA_VISIBLE_DEVICES"
        )
    processes, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if processes > gpus:
        raise DeviceError(
            f"--device {device} needs a GPU for each process, got {gpus} for {processes} processes; give "
            f"torchrun --nproc-per-node {gpus}, or --device cpu"
        )


def in_first(function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Call ``function`` in the first process; its result is given to all.

    For what may be done once only, such as writing a file, and for what must not come out
    differently, such as reading one. If it raises, so does this in the first process, and the
    others end: one message, and none is left waiting.
    """
    if size() == 1:
        return function(*args, **kwargs)
    # Whether there is a result, and the result.
    answer: list[Any] = [False, None]
    try:
        if rank() == 0:
            answer = [True, function(*args, **kwargs)]
    finally:
        dist.broadcast_object_list(answer)
    if not answer[0]:
        # As a success: of a failure torchrun would end the first process before it said why.
        sys.exit(0)
    result: _R = answer[1]
    return result


def share(count: int) -> slice:
    """Those of ``count`` things in a row that are this process's; none if there are too few."""
    return slice(rank() * count // size(), (rank() + 1) * count // size())


def summed(tensor: Tensor) -> Tensor:
    """``tensor``, which becomes its sum over the processes."""
    if _by_torchrun():
        dist.all_reduce(tensor)
    return tensor


def parallel(model: nn.Module, example: Tensor) -> nn.Module:
    """``model`` as one whose gradients are the mean of those of all processes.

    Args:
        model: on its device, with the same weights in each process. It has no buffers: they would tie
            each forward pass to one in the other processes, which when evaluating may have fewer.
        example: an input of it.
    """
    if not _by_torchrun():
        return model
    wrapped = DistributedDataParallel(model)
    # The first backward pass decides on the order in which gradients lie side by side in later ones,
    # and so on the order in which three or more processes add. Done here, it is the same for every
    # training step, and a resumed run adds as an undisturbed one.
    wrapped(example).sum().backward()
    wrapped.zero_grad()
    return wrapped


def _by_torchrun() -> bool:
    return dist.is_available() and dist.is_initialized()
