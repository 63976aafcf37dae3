"""The CUDA kernels that pack and unpack spikes, on the host (test_cuda_on_host.py): the words of the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from _compile import CSRC, cxx
from host_cuda.harness import SHIM, TARGET_FLAG, compile_library
from host_cuda.sanitized import SANITIZED, run_sanitized

from lif_cuda import _ops

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Neurons of a row: none, bytes and words that begin and end anywhere, rows in fours and not, whole words.
NEURONS = [0, 1, 7, 8, 12, 63, 64, 65, 100, 128, 1001]


@pytest.fixture(scope="module")
def last_kernel(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Loads the operators; the function returns the name of the kernel that ran last."""
    compiler = cxx()
    if compiler is None:
        pytest.skip("no C++ compiler")
    torch_folder = Path(torch.__path__[0])
    library = compile_library(
        compiler,
        tmp_path_factory.mktemp("words_on_host"),
        "lif_cuda_words_on_host",
        kernels=[CSRC / "cuda" / "words.cu"],
        others=[SHIM / "words_entry.cpp"],
        options=[TARGET_FLAG, "-isystem", str(torch_folder / "include")],
        libraries=[f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch", "-ltorch_cpu"],
        sanitized=SANITIZED,
    )
    torch.ops.load_library(library)
    symbol = ctypes.CDLL(str(library)).host_last_kernel
    symbol.restype = ctypes.c_char_p
    return lambda: symbol().decode()


@pytest.fixture(autouse=True)
def poisoned() -> Any:
    """What torch allocates is filled: with NaN, and words with -1."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def spikes_of(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.rand(shape, generator=generator) < 0.3).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("neurons", NEURONS)
@pytest.mark.parametrize("rows", [(), (0,), (3,), (5, 67)], ids=str)
def test_words(
    last_kernel: Callable[[], str], rows: tuple[int, ...], neurons: int, dtype: torch.dtype
) -> None:
    mine = torch.ops.lif_cuda_words_on_host
    spikes = spikes_of(*rows, neurons, dtype=dtype)
    words = mine.spike_pack(spikes)
    assert words.shape == (*rows, -(-neurons // 64))
    assert torch.equal(words, _ops.spike_pack(spikes))
    back = mine.spike_unpack(words, spikes)
    assert back.dtype == dtype and torch.equal(back, spikes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_lie_anywhere(last_kernel: Callable[[], str], dtype: torch.dtype) -> None:
    """Fours where every row begins at one, single spikes elsewhere; transposed ones are copied."""
    mine = torch.ops.lif_cuda_words_on_host
    aligned = spikes_of(6, 128, dtype=dtype)
    beside = torch.cat([torch.zeros(1, dtype=dtype), aligned.flatten()])[1:].view(6, 128)
    ragged = spikes_of(6, 126, dtype=dtype)
    for spikes, width in ((aligned, 4), (beside, 1), (ragged, 1)):
        words = mine.spike_pack(spikes)
        assert f", {width}>" in last_kernel()
        assert torch.equal(words, _ops.spike_pack(spikes))
    assert torch.equal(mine.spike_pack(aligned.T), _ops.spike_pack(aligned.T))
    assert torch.equal(mine.spike_unpack(mine.spike_pack(aligned.T).T.contiguous().T, aligned.T), aligned.T)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_but_zero_is_a_spike(last_kernel: Callable[[], str], dtype: torch.dtype) -> None:
    """On CUDA nobody asks; NaN and the smallest numbers are no zeros, -0 is."""
    tiny = torch.finfo(dtype).smallest_normal
    spikes = torch.tensor([0.0, -0.0, 1.0, -1.0, tiny, float("nan"), float("inf"), 0.5], dtype=dtype)
    assert torch.ops.lif_cuda_words_on_host.spike_pack(spikes).item() == 0b11111100


@pytest.mark.skipif(SANITIZED, reason="the sanitizer was loaded before the library that throws")
def test_wrong_words_are_refused(last_kernel: Callable[[], str]) -> None:
    mine = torch.ops.lif_cuda_words_on_host
    with pytest.raises(RuntimeError, match="words in a row"):
        mine.spike_unpack(torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 65))
    with pytest.raises(RuntimeError, match="same rows"):
        mine.spike_unpack(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(4, 65))
    with pytest.raises(RuntimeError, match="int64"):
        mine.spike_unpack(torch.zeros(3, 2, dtype=torch.int32), torch.zeros(3, 65))


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="this is that run")
def test_sanitized(tmp_path: Path) -> None:
    """Once more under the address and undefined-behaviour sanitizers."""
    run_sanitized(__file__, tmp_path)
