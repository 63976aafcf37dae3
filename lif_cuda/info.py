"""What was built, on what it runs, and whether it computes what the reference computes."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import __version__, _build_facts
from ._torch_private import has_kernel
from .layers import LIF
from .reference import ReferenceLIF

OPERATORS = (
    "lif_cuda::lif_forward",
    "lif_cuda::lif_backward",
    "lif_cuda::lif",
    "lif_cuda::recurrent",
    "lif_cuda::recurrent_forward",
    "lif_cuda::recurrent_backward",
)

# Parameter gradients are sums over time and batch, added up in another order than the reference's.
# These are 100 terms each; the kernels' bound is a small multiple of eps * the sum of their sizes.
PARAMETER_TOLERANCE = 1000.0


class Check(NamedTuple):
    """The outcome of one self-check: the names of what differs, or the error that came instead."""

    device: str
    dtype: torch.dtype
    differs: list[str]

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.differs


def processor() -> str:
    """The name of the processor."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def devices() -> list[str]:
    """The devices present, as torch names them."""
    found = torch.cuda.device_count() if torch.version.cuda is not None else 0
    return ["cpu", *(f"cuda:{index}" for index in range(found))]


def describe_device(device: str) -> str:
    """Name and compute capability, or the processor's name."""
    if device == "cpu":
        return processor()
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, compute capability {properties.major}.{properties.minor}"


def operator_keys() -> dict[str, list[str]]:
    """The devices for which each operator has a kernel."""
    return {name: [key for key in ("CPU", "CUDA") if has_kernel(name, key)] for name in OPERATORS}


def report() -> list[tuple[str, str]]:
    """The facts, as (name, value), in the order in which they are printed."""
    facts = _build_facts.facts()
    simd = f"{facts['simd']} in use, of {', '.join(facts['simd_levels'])} compiled"
    if facts["simd"] != facts["simd_best"]:
        simd += f"; LIF_CUDA_SIMD={os.environ.get('LIF_CUDA_SIMD')}, the processor runs "
        simd += facts["simd_best"]
    if facts["kind"] == "cuda":
        cuda = f"nvcc {facts['cuda']} for {facts['cuda_archs']}"
    else:
        cuda = f"none: {facts['no_cuda_because']}"
    if _build_facts.node_module() is not None:
        autograd = "recorded in C++"
        if _build_facts.always_dispatches():
            autograd += "; each operator through the dispatcher, as LIF_CUDA_DISPATCHER=always asks"
    elif facts["torch"] != torch.__version__:
        autograd = "recorded in Python, which is slower a call: built against another torch"
    else:
        autograd = "recorded in Python, as LIF_CUDA_AUTOGRAD=python asks"
    keys = operator_keys()
    torch_cuda = torch.version.cuda
    return [
        ("lif_cuda", f"{__version__}, {facts['kind']} build"),
        ("libraries in", str(_build_facts.library_folder())),
        ("compiler", f"{facts['compiler']}, C++ {facts['cpp_standard']}"),
        ("built against", f"torch {facts['torch']}"),
        ("works beside", f"torch {facts['for_torch']} and newer"),
        ("CUDA kernels", cuda),
        ("operators", ", ".join(f"{name} ({' and '.join(on)})" for name, on in keys.items())),
        ("SIMD", simd),
        ("autograd", autograd),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
        ("torch", f"{torch.__version__}, {f'CUDA {torch_cuda}' if torch_cuda else 'without CUDA'}"),
        ("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors"),
        *((device, describe_device(device)) for device in devices()),
    ]


def _run(layer: Any, x: Tensor, membrane: Tensor) -> dict[str, Tensor]:
    """Everything that one forward and one backward compute."""
    x = x.clone().requires_grad_()
    membrane = membrane.clone().requires_grad_()
    spikes, last = layer(x, membrane)
    # Weights that differ from neuron to neuron and from step to step, so that no error cancels.
    weight = torch.linspace(-1.0, 1.0, spikes.numel(), dtype=x.dtype, device=x.device)
    ((spikes * weight.view_as(spikes)).sum() + (last * last).sum()).backward()
    assert x.grad is not None and membrane.grad is not None
    return {
        "spikes": spikes.detach(),
        "membrane": last.detach(),
        "gradient of x": x.grad,
        "gradient of the initial membrane": membrane.grad,
        **{f"gradient of {name}": value.grad for name, value in layer.named_parameters()},
    }


def _same(name: str, fused: Tensor, reference: Tensor, parameters: set[str]) -> bool:
    if fused.shape != reference.shape or fused.dtype != reference.dtype:
        return False
    if name not in parameters:
        return torch.equal(fused, reference)
    bound = PARAMETER_TOLERANCE * torch.finfo(fused.dtype).eps * reference.abs().max()
    return bool(((fused - reference).abs() <= bound).all())


def self_check(device: str, dtype: torch.dtype) -> Check:
    """One forward and one backward of :class:`LIF` against :class:`ReferenceLIF`.

    Everything must be equal to the last bit, but for the parameters' gradients, which are sums.
    """
    steps, batch, neurons = 25, 4, 67
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps, batch, neurons, generator=generator, dtype=dtype).to(device)
    membrane = torch.randn(batch, neurons, generator=generator, dtype=dtype).to(device)
    options: dict[str, Any] = {
        "beta": torch.linspace(0.5, 0.95, neurons),
        "learn_beta": True,
        "learn_threshold": True,
        "device": device,
        "dtype": dtype,
    }
    try:
        reference_layer = ReferenceLIF(neurons, **options)
        reference = _run(reference_layer, x, membrane)
        fused = _run(LIF(neurons, **options), x, membrane)
    except Exception as error:
        return Check(device, dtype, [f"{type(error).__name__}: {error}"])
    parameters = {f"gradient of {name}" for name, _ in reference_layer.named_parameters()}
    differs = [name for name in reference if not _same(name, fused[name], reference[name], parameters)]
    return Check(device, dtype, differs)


def main() -> int:
    """Print the report and check each device present.

    Returns:
        0, or 1 if a check differs from the reference or an operator lacks a kernel that was built.
    """
    for name, value in report():
        print(f"{name:>14}  {value}")

    failed = False
    for device in devices():
        for dtype in (torch.float32, torch.float64):
            check = self_check(device, dtype)
            failed |= not check.passed
            outcome = "equals the reference" if check.passed else "DIFFERS: "
            print(f"{'check':>14}  {device} {dtype}: {outcome}{'; '.join(check.differs)}")

    expected = ["CPU", "CUDA"] if _build_facts.facts()["kind"] == "cuda" else ["CPU"]
    if torch.version.cuda is None:
        expected = ["CPU"]
    for name, keys in operator_keys().items():
        if not set(expected) <= set(keys):
            failed = True
            print(f"{'check':>14}  {name} has kernels for {keys}, not for {expected}")

    missing = _build_facts.cuda_missing_reason()
    if missing is not None:
        bar = "!" * 100
        print(f"{bar}\nWARNING: {missing}\n{bar}", file=sys.stderr, flush=True)
    return int(failed)
