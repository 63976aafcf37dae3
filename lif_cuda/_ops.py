"""The compiled operators: loading them, and calling them with plain arguments.

What the arguments of the operators mean stands in ``csrc/ops/interface.h``.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from ._build_facts import cuda_missing_reason, kernel_libraries
from ._parameters import LEARNABLE, Parameters
from ._state import NeuronState

_SIMD_LEVELS = ("baseline", "avx2", "avx512")


# What lif_forward returns, in this order; the states are those of NeuronState.
OUTPUTS = {
    "spikes": 1,
    "packed": 65536,
    "count": 2,
    "rate": 4,
    "first_spike": 8,
    "trace": 16,
    "trace_before_reset": 32,
    "total": 64,
    "trace_max": 128,
    "trace_mean": 256,
    "membrane": 512,
    "current": 1024,
    "adaptation": 2048,
    "silence": 4096,
    "peak": 8192,
    "checkpoints": 16384,
    "bits": 32768,
}
# The tensors that the operators take beside x, bit i of `present` for the i-th: states, parameters, lengths,
# the table of a surrogate, what forward kept for backward, and the gradients that come in, in the order in
# which lif_forward returns their outputs.
STATES, PARAMETERS = NeuronState._fields, Parameters._fields
INCOMING = (
    "spikes",
    "count",
    "rate",
    "first_spike",
    "trace",
    "trace_before_reset",
    "trace_max",
    "trace_mean",
    "membrane",
    "current",
    "adaptation",
)
FIRST_PARAMETER = len(STATES)
FLOOR = FIRST_PARAMETER + PARAMETERS.index("v_min")
LENGTHS = FIRST_PARAMETER + len(PARAMETERS)
TABLE = LENGTHS + 1
CHECKPOINTS, BITS, FIRST_SPIKE, PEAK, FIRST_GRADIENT = range(TABLE + 1, TABLE + 6)
SLOTS = FIRST_GRADIENT + len(INCOMING)
# Not among them: the gradient of the total, which the operators take as one of the counts.
TOTAL = SLOTS
# The numbers that they take, in these orders.
INTS = (
    "present",
    "asked",
    "time_dim",
    "time_first",
    "reset",
    "traits",
    "refractory",
    "surrogate",
)
FLOATS = (*PARAMETERS, "rest", "slope", "scale")
# Time steps in a word of the bits.
STEPS_OF_WORD = 16
# Spikes in a word of those that are packed.
SPIKES_OF_WORD = 64
# The gradients that lif_backward returns, bit i for the i-th.
WANTED = ("x", "membrane", "current", "adaptation", *LEARNABLE)
# Traits that set a neuron apart from the plain one.
STRICT, DELAYED, DETACH_RESET, SYNAPSE, ADAPTIVE, DECAY_INPUT, FLOORED = 1, 2, 4, 8, 16, 32, 64

# Those of recurrent layers (csrc/ops/recurrent_interface.h).
RECURRENT_SLOTS = (
    "bias",
    "membrane",
    "fired",
    "beta",
    "threshold",
    "table",
    "grad_spikes",
    "grad_trace",
    "grad_steady",
    "grad_membrane",
    "grad_fired",
)
RECURRENT_OUTPUTS = ("spikes", "count", "rate", "trace", "membrane", "fired", "u", "fired_before")
RECURRENT_WANTED = ("membrane", "fired", "beta", "threshold")

RESETS = {"subtract": 0, "zero": 1, "none": 2}


def _load() -> dict[str, Path]:
    """Load the operator libraries; which there are, by the type of their device."""
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
            return {"cpu": kernels, "cuda": cuda_kernels[0]}
    except OSError as error:
        raise ImportError(
            f"lif_cuda was built against another torch than the installed {torch.__version__}: "
            f"{error}. Build it again with 'pip install --force-reinstall --no-deps .'"
        ) from error
    return {"cpu": kernels}


LIBRARIES = _load()
HAS_CUDA_KERNELS = "cuda" in LIBRARIES

lif_forward = torch.ops.lif_cuda.lif_forward.default
lif_backward = torch.ops.lif_cuda.lif_backward.default
lif = torch.ops.lif_cuda.lif.default
spike_pack = torch.ops.lif_cuda.spike_pack.default
spike_unpack = torch.ops.lif_cuda.spike_unpack.default
spike_linear = torch.ops.lif_cuda.spike_linear.default
spike_gradient = torch.ops.lif_cuda.spike_gradient.default
recurrent = torch.ops.lif_cuda.recurrent.default
recurrent_forward = torch.ops.lif_cuda.recurrent_forward.default
recurrent_backward = torch.ops.lif_cuda.recurrent_backward.default
recurrent_weights = torch.ops.lif_cuda.recurrent_weights.default


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


def checkpoint_interval(device_type: str) -> int:
    """Time steps K between the states kept for backward: before steps K, 2 K, ..., so none where T <= K.

    One number for a device, whatever the neuron and T: (T - 1) // K rows follow from it before anyone knows
    which kernels run. Backward computes K steps at a time again, and holds them close to the arithmetic: on
    the CPU 1024 neurons (2048 where one row of a step is kept) * 32 steps * 4 bytes are 128 KiB of the
    second-level cache; on CUDA a thread's column of 16 steps * 16 bytes leaves four blocks of 128 threads and
    more in the shared memory of a multiprocessor. The cost in fp32 is 4 bytes written and 4 read for each
    neuron and row.
    """
    return 16 if device_type == "cuda" else 32


def recurrent_kernels(device_type: str) -> str:
    """Whose kernels run a recurrent layer on a device, ``"cpu"`` or ``"cuda"``: each keeps its own things."""
    return device_type
