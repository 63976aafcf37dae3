"""csrc/neuron/exponential.h and storage.h, compiled for the host: accuracy, and every 16-bit number."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from _compile import CSRC, CXX_FLAGS, compile_source, cxx
from numpy.typing import NDArray

SOURCE = """
#include <cstdint>
#include "neuron/exponential.h"
#include "neuron/storage.h"
#define LOOP(to, from, expression) for (int64_t i = 0; i < n; ++i) { to[i] = expression; }
extern "C" {
__attribute__((visibility("default"))) void exp_float(float* out, const float* y, int64_t n) {
  LOOP(out, y, lif::exp_minus(y[i]))
}
__attribute__((visibility("default"))) void exp_double(double* out, const double* y, int64_t n) {
  LOOP(out, y, lif::exp_minus(y[i]))
}
__attribute__((visibility("default"))) void widen_half(float* out, const uint16_t* y, int64_t n) {
  LOOP(out, y, lif::widen(lif::Half{y[i]}))
}
__attribute__((visibility("default"))) void widen_bfloat16(float* out, const uint16_t* y, int64_t n) {
  LOOP(out, y, lif::widen(lif::BFloat16{y[i]}))
}
__attribute__((visibility("default"))) void narrow_half(uint16_t* out, const float* y, int64_t n) {
  LOOP(out, y, lif::narrow<lif::Half>(y[i]).bits)
}
__attribute__((visibility("default"))) void narrow_bfloat16(uint16_t* out, const float* y, int64_t n) {
  LOOP(out, y, lif::narrow<lif::BFloat16>(y[i]).bits)
}
}
"""
Array = NDArray[np.generic]
Call = Callable[[str, Array, type], Array]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Call:
    """Run one of the functions above over an array."""
    compiler = cxx()
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("exponential")
    source, library = folder / "functions.cpp", folder / "functions.so"
    source.write_text(SOURCE)
    command: list[str | Path] = [compiler, *CXX_FLAGS, "-std=c++17", "-shared", "-fPIC"]
    compile_source([*command, f"-I{CSRC}", source, "-o", library])
    functions = ctypes.CDLL(str(library))

    def run(name: str, values: Array, kind: type) -> Array:
        out = np.empty(values.shape, kind)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (out, values)]
        getattr(functions, name)(*pointers, ctypes.c_int64(values.size))
        return out

    return run


@pytest.mark.parametrize(
    ("name", "kind", "end"), [("exp_float", np.float32, 87.0), ("exp_double", np.float64, 708.0)]
)
def test_the_exponential_is_accurate(call: Call, name: str, kind: type, end: float) -> None:
    generator = np.random.default_rng(0)
    y = np.concatenate(
        [
            np.linspace(0, end, 1_000_001),
            10.0 ** generator.uniform(-40, np.log10(end), 1_000_000),
            np.log(2) * (np.arange(int(end / np.log(2))) + 0.5),
            [0.0, end],
        ]
    ).astype(kind)
    exact = np.exp(-y.astype(np.longdouble))
    error = np.abs(call(name, y, kind).astype(np.longdouble) - exact) / np.spacing(exact.astype(kind))
    # Measured: 0.98 and 0.94 ulp; over all 1.1e9 floats from 0 to 87, 0.992, and not one rise.
    assert error.max() < 1.2
    # Never rises: no membrane closer to the threshold gets a smaller derivative, but by roundings.
    ordered = np.sort(y)
    values = call(name, ordered, kind)
    assert (np.diff(values) <= np.spacing(values[:-1])).all()
    assert call(name, np.array([0.0], kind), kind)[0] == 1.0


@pytest.mark.parametrize(("name", "kind"), [("exp_float", np.float32), ("exp_double", np.float64)])
def test_the_exponential_at_its_ends(call: Call, name: str, kind: type) -> None:
    tiny = np.finfo(kind).smallest_subnormal
    y = np.array([tiny, np.inf, 1e30, 800.0, np.nan], kind)
    found = call(name, y, kind)
    assert found[0] == 1.0
    assert (found[1:4] == 0).all()  # below the smallest normal number: 0
    assert np.isnan(found[4])


@pytest.mark.parametrize(
    ("name", "dtype"), [("half", torch.float16), ("bfloat16", torch.bfloat16)], ids=["half", "bfloat16"]
)
def test_every_16_bit_number_is_widened(call: Call, name: str, dtype: torch.dtype) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    expected = torch.from_numpy(bits.view(np.int16)).view(dtype).float().numpy()
    np.testing.assert_array_equal(call(f"widen_{name}", bits, np.float32), expected)
    # And comes back.
    numbers = ~np.isnan(expected)
    assert (call(f"narrow_{name}", expected, np.uint16)[numbers] == bits[numbers]).all()


@pytest.mark.parametrize(
    ("name", "dtype"), [("half", torch.float16), ("bfloat16", torch.bfloat16)], ids=["half", "bfloat16"]
)
def test_rounding_to_16_bits_is_torchs(call: Call, name: str, dtype: torch.dtype) -> None:
    generator = np.random.default_rng(1)
    bits = generator.integers(0, 2**32, 2_000_000, dtype=np.uint32)
    # Ties, and their neighbours, of each 16-bit number.
    widened = call(f"widen_{name}", np.arange(65536, dtype=np.uint16), np.float32).view(np.uint32)
    half_step = np.uint32(1 << (12 if name == "half" else 15))
    ties = np.concatenate([widened + half_step + np.uint32(d) for d in (0, 1, 2**32 - 1)])
    values = np.concatenate([bits, ties]).astype(np.uint32).view(np.float32)
    subnormal = np.linspace(-(2.0**-13), 2.0**-13, 1_000_001, dtype=np.float32)
    values = np.concatenate([values, subnormal])
    expected = torch.from_numpy(values).to(dtype).view(torch.int16).numpy().view(np.uint16)
    found = call(f"narrow_{name}", values, np.uint16)
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(found[numbers], expected[numbers])
    nan = call(f"widen_{name}", found[~numbers], np.float32)
    assert np.isnan(nan).all()
