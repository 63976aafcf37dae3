"""The compiled operators: loading them, and calling them with plain arguments.

What the arguments of the operators mean stands in ``csrc/bindings/problem.h``.
"""

from __future__ import annotations

import os
from enum import IntFlag

import torch
from torch import Tensor

from ._build_facts import cuda_missing_reason, kernel_libraries

_SIMD_LEVELS = ("baseline", "avx2", "avx512")


class Output(IntFlag):
    """What ``lif_forward`` returns, in this order; the states are those of NeuronState."""

    SPIKES = 1
    COUNT = 2
    RATE = 4
    FIRST_SPIKE = 8
    TRACE = 16
    TRACE_BEFORE_RESET = 32
    TOTAL = 64
    MEMBRANE = 128
    CURRENT = 256
    ADAPTATION = 512
    SILENCE = 1024
    CHECKPOINTS = 2048


class Wanted(IntFlag):
    """The gradients that ``lif_backward`` returns, in this order."""

    X = 1
    MEMBRANE = 2
    CURRENT = 4
    ADAPTATION = 8
    BETA = 16
    THRESHOLD = 32
    V_RESET = 64
    GAIN = 128
    ALPHA = 256
    KAPPA = 512
    RHO = 1024


class Trait(IntFlag):
    """What sets a neuron apart from the plain one."""

    STRICT = 1
    DELAYED = 2
    DETACH_RESET = 4
    SYNAPSE = 8
    ADAPTIVE = 16


RESETS = {"subtract": 0, "zero": 1, "none": 2}


def _load() -> bool:
    """Load the operator libraries; True if the CUDA one is among them."""
    simd = os.environ.get("LIF_CUDA_SIMD")
    if simd and simd not in _SIMD_LEVELS:
        raise ImportError(
            f"the environment variable LIF_CUDA_SIMD must be one of {', '.join(_SIMD_LEVELS)}, "
            f"got {simd!r}; unset it to use the best level of this processor"
        )
    kernels, *cuda_kernels = kernel_libraries()
    try:
        torch.ops.load_library(kernels)
        if cuda_kernels and torch.version.cuda is not None:
            torch.ops.load_library(cuda_kernels[0])
            return True
    except OSError as error:
        raise ImportError(
            f"lif_cuda was built against another torch than the installed {torch.__version__}: "
            f"{error}. Build it again with 'pip install --force-reinstall --no-deps .'"
        ) from error
    return False


HAS_CUDA_KERNELS = _load()

lif_forward = torch.ops.lif_cuda.lif_forward.default
lif_backward = torch.ops.lif_cuda.lif_backward.default


def check_device(x: Tensor) -> None:
    """Raise unless there are kernels for the device of ``x``."""
    kind = x.device.type
    if kind == "cpu" or (kind == "cuda" and HAS_CUDA_KERNELS):
        return
    if kind == "cuda":
        raise RuntimeError(f"x is on {x.device}: {cuda_missing_reason()}")
    raise NotImplementedError(
        f"x must be on a CPU or a CUDA device, got {x.device}; move it with x.cpu(), or use "
        "lif_cuda.ReferenceLIF, which runs wherever PyTorch does"
    )


def checkpoint_interval(steps: int, device_type: str) -> int:
    """Time steps between the membranes saved for backward, or 0 where none is needed.

    Backward recomputes the membranes of one such chunk at a time and holds them close to the
    arithmetic: on the CPU 256 neurons * 32 steps * 4 bytes are 32 KiB of the second-level cache; on
    CUDA a thread's column of 28 steps * 16 bytes fits four blocks of 128 threads in the shared memory
    of a multiprocessor. Chunks are of equal length, give or take one step. The cost in fp32 is 4 bytes
    written and 4 read for each neuron and chunk.
    """
    whole, chunk = (28, 20) if device_type == "cuda" else (48, 32)
    if steps <= whole:
        return 0
    return -(-steps // max(2, round(steps / chunk)))
