"""The CUDA kernels of recurrent layers on the host (test_cuda_on_host.py): the bits of the CPU's kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from _compile import CSRC, cxx
from host_cuda.harness import SHARED_BYTES, SHIM, TARGET_FLAG, compile_library
from host_cuda.sanitized import SANITIZED, run_sanitized
from test_recurrent import DTYPES, OPTIONS, call, draw, gradients_by

from lif_cuda import _ops, functional, surrogate

OWN, THROUGH_CACHE = (
    "true>",
    "false>",
)  # the last argument of the kernel: whether the weight is in shared memory


class Kernels:
    """csrc/cuda/recurrent_*.cu, compiled for the host."""

    def __init__(self, library: Path) -> None:
        torch.ops.load_library(library)
        self._library = ctypes.CDLL(str(library))
        self._library.host_last_kernel.restype = ctypes.c_char_p

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let lif_cuda.functional run these kernels, and keep what it keeps on CUDA."""
        names = ("recurrent_forward", "recurrent_backward", "recurrent_kernels")
        saved = [getattr(_ops, name) for name in names]
        operators = torch.ops.lif_cuda_recurrent_on_host
        mine = (
            operators.recurrent_forward.default,
            operators.recurrent_backward.default,
            lambda device_type: "cuda",
        )
        for name, operator in zip(names, mine, strict=True):
            setattr(_ops, name, operator)
        try:
            yield
        finally:
            for name, operator in zip(names, saved, strict=True):
                setattr(_ops, name, operator)

    @contextmanager
    def device(self, *, multiprocessors: int = 0, shared_bytes: int = SHARED_BYTES) -> Iterator[None]:
        """Let the device have so many multiprocessors, and a block so many bytes of shared memory."""
        self._library.host_set_device(multiprocessors, shared_bytes)
        try:
            yield
        finally:
            self._library.host_set_device(0, SHARED_BYTES)

    @property
    def last(self) -> str:
        """The kernel of the last launch."""
        return str(self._library.host_last_kernel().decode())


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    compiler = cxx()
    if compiler is None:
        pytest.skip("no C++ compiler")
    torch_folder = Path(torch.__path__[0])
    library = compile_library(
        compiler,
        tmp_path_factory.mktemp("recurrent_on_host"),
        "lif_cuda_recurrent_on_host",
        kernels=[*sorted((CSRC / "cuda").glob("recurrent_*.cu")), CSRC / "cuda" / "sums.cu"],
        others=[SHIM / "recurrent_entry.cpp"],
        options=[TARGET_FLAG, "-isystem", str(torch_folder / "include")],
        libraries=[f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch", "-ltorch_cpu"],
        sanitized=SANITIZED,
    )
    return Kernels(library)


def check(kernels: Kernels, tensors: dict[str, Any], *expected: str, **options: Any) -> None:
    """The bits of the CPU, gradients included, but for those of the parameters."""
    outputs = ("spikes", "trace", "count", "rate")
    theirs = call(functional.recurrent_lif, tensors, outputs, **options)
    their_gradients = gradients_by(functional.recurrent_lif, tensors, **options)
    torch.use_deterministic_algorithms(True)  # what torch allocates is filled with NaN
    try:
        with kernels.in_use():
            mine = call(functional.recurrent_lif, tensors, outputs, **options)
            for word in expected:
                assert word in kernels.last
            my_gradients = gradients_by(functional.recurrent_lif, tensors, **options)
            for word in expected:
                assert word in kernels.last and "backward" in kernels.last
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip((*mine[0], *mine[1]), (*theirs[0], *theirs[1]), strict=True):
        assert torch.equal(a, b)
    for name, gradient in my_gradients.items():
        if name in ("weight", "bias", "beta", "threshold"):
            eps = torch.finfo(gradient.dtype).eps
            scale = float(their_gradients[name].abs().max()) + 1
            torch.testing.assert_close(gradient, their_gradients[name], rtol=0, atol=100 * eps * scale)
        else:
            assert torch.equal(gradient, their_gradients[name]), name


SIZES = [(3, 2, 1), (7, 3, 20), (5, 4, 32), (4, 2, 33), (4, 3, 100)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_weight_in_shared_memory(
    kernels: Kernels, size: tuple[int, int, int], dtype: torch.dtype, options: dict[str, Any]
) -> None:
    check(kernels, draw(*size, dtype), OWN, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_weight_through_the_cache(kernels: Kernels, size: tuple[int, int, int], dtype: torch.dtype) -> None:
    with kernels.device(shared_bytes=size[1] * size[2] * size[2]):
        check(kernels, draw(*size, dtype), THROUGH_CACHE if size[2] > 32 else "recurrent")


def test_several_samples_of_a_block(kernels: Kernels) -> None:
    """With fewer multiprocessors than samples, and a ragged last block."""
    with kernels.device(multiprocessors=3):
        check(kernels, draw(6, 8, 40, torch.float32), OWN)


def test_more_neurons_than_threads(kernels: Kernels) -> None:
    check(kernels, draw(2, 1, 1030, torch.bfloat16), THROUGH_CACHE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_weights_of_16_bits(kernels: Kernels, dtype: torch.dtype) -> None:
    tensors = draw(6, 3, 50, dtype)
    check(kernels, tensors | {"weight": tensors["weight"].to(dtype)}, OWN)


def test_what_fits(kernels: Kernels) -> None:
    """A weight of 16 bits with 320 neurons, one of 32 with 224."""
    for neurons, dtype in ((320, torch.bfloat16), (224, torch.float32)):
        tensors = draw(1, 1, neurons, dtype)
        check(kernels, tensors | {"weight": tensors["weight"].to(dtype)}, OWN)


@pytest.mark.parametrize(
    "shape", [surrogate.Sigmoid(4.0), surrogate.Custom(lambda z: torch.exp(-z * z), reach=4.0)], ids=str
)
def test_other_surrogates(kernels: Kernels, shape: surrogate.Surrogate) -> None:
    check(kernels, draw(6, 2, 40, torch.float32), surrogate=shape)


@pytest.mark.parametrize("steps", [0, 1])
def test_no_and_one_step(kernels: Kernels, steps: int) -> None:
    check(kernels, draw(steps, 2, 20, torch.float32))


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="runs this file")
def test_sanitized(tmp_path: Path) -> None:
    """All of the above under the address sanitizer, and the one for undefined behaviour."""
    run_sanitized(__file__, tmp_path)
