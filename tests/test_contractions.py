"""What finds fused multiply-adds: on code made here and, where nvcc is, on small kernels."""

from __future__ import annotations

import pytest
from _contractions import contractions, ptx_contractions
from _listing import Compiled, compile_kernels, listing

RECIPROCAL = ["MUFU.RCP R7, R2", "FFMA R0, -R2, R7, 1", "FFMA R9, R7, R0, R7"]


@pytest.mark.parametrize(
    ("code", "flagged"),
    [
        (RECIPROCAL, 0),
        (["MUFU.RCP R7, R2", "FFMA R0, R7, -R2, 1", "FFMA R7, R0, R7, R7"], 0),
        (["MUFU.RCP R7, -R2", "FFMA R0, R2, R7, 1", "FFMA R7, R7, R0, R7"], 0),
        (["MUFU.RCP R7, |R2|", "MOV R8, R7", "FFMA R0, -|R2|, R8, 1", "FFMA R7, R7, R0, R8"], 0),
        (["@P1 MUFU.RCP R7, R2", "@P1 FFMA R0, -R2, R7, 1", "@P1 FFMA R7, R7, R0, R7"], 0),
        # of __frcp_rn
        (["MUFU.RCP R7, R0", "FFMA R2, R0, R7, -1", "FADD.FTZ R2, -R2, -RZ", "FFMA R7, R7, R2, R7"], 0),
        # a constant, a move, a product
        (["HFMA2.MMA R7, -RZ, RZ, 1.875, 0", "FFMA R8, RZ, R5, R3", "FFMA R6, R0, R5, RZ"], 0),
        (["FFMA R9, R2, R5, 2"], 1),
        (["HFMA2 R9, R2, R5, R3"], 1),
        (["DFMA R6, R2, R4, 1.25"], 1),
        # another sign, another q, a q that changed, a product with the reciprocal contracted
        (["MUFU.RCP R7, R2", "FFMA R0, R2, R7, 1", "FFMA R7, R7, R0, R7"], 2),
        (["MUFU.RCP R7, R2", "FFMA R0, -R3, R7, 1", "FFMA R7, R7, R0, R7"], 2),
        (["MUFU.RCP R7, R2", "FADD R2, R2, R3", "FFMA R0, -R2, R7, 1", "FFMA R7, R7, R0, R7"], 2),
        (["@P1 MUFU.RCP R7, R2", "FFMA R0, -R2, R7, 1", "FFMA R7, R7, R0, R7"], 2),
        ([*RECIPROCAL, "FFMA R4, R9, R5, R6"], 1),
        ([*RECIPROCAL, "FFMA R4, -R2, R9, 1"], 1),
    ],
)
def test_contractions(code: list[str], flagged: int) -> None:
    found = contractions(listing(*code, "EXIT"))
    assert len(found) == flagged, found


PTX = "rcp.approx.ftz.f32 %f1, %f2;\nneg.f32 %f3, %f2;\nmov.f32 %f4, 0f3F800000;\n"
STEPS = "fma.rn.f32 %f5, %f3, %f1, %f4;\nfma.rn.f32 %f6, %f1, %f5, %f1;\n"


@pytest.mark.parametrize(
    ("body", "flagged"),
    [
        (
            f"// inline\n{PTX}mul.rn.f32 %f9, %f2, %f2;\n{STEPS}mad.lo.s32 %r1, %r2, %r3, %r4;",
            0,
        ),
        (
            "neg.f32 %f2, %f9;\nrcp.approx.ftz.f32 %f1, %f2;\nmov.f32 %f3, %f9;\nmov.f32 %f4, 0f3F800000;\n"
            + STEPS,
            0,
        ),
        (PTX, 1),
        ("fma.rn.f32 %f1, %f2, %f3, %f4;", 1),
        ("$L__BB0_2: @%p1 fma.rn.f64 %fd1, %fd2, %fd3, %fd4;", 1),
        ("mad.rn.f32 %f1, %f2, %f3, %f4;\nex2.approx.ftz.f32 %f5, %f1;\ndiv.full.f32 %f6, %f5, %f1;", 3),
        (f"{PTX}add.f32 %f2, %f2, %f7;\nneg.f32 %f3, %f2;\n{STEPS}", 3),
        (f"{PTX}{STEPS}fma.rn.f32 %f7, %f6, %f8, %f9;", 1),
    ],
)
def test_ptx_contractions(body: str, flagged: int) -> None:
    found = ptx_contractions(body)
    assert len(found) == flagged, found


KERNELS = r"""
__device__ __forceinline__ float quick(float q) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(q));
  return __fmaf_rn(r, __fmaf_rn(-q, r, 1.0f), r);
}
#define KERNEL(NAME, T, VALUE) \
  extern "C" __global__ void NAME(T* p) { \
    const T x = p[threadIdx.x], y = p[threadIdx.x + 32]; \
    p[threadIdx.x + 64] = (VALUE) - x; \
  }
KERNEL(sum, float, x * y + 1.25f)
KERNEL(sum64, double, x * y + 1.25)
KERNEL(lone, float, __fmaf_rn(x, y, 2.0f))
KERNEL(quickly, float, quick(y))
KERNEL(twice, float, quick(x) * y + quick(-y))
KERNEL(reciprocal, float, __frcp_rn(y))
KERNEL(reciprocal64, double, __drcp_rn(y))
KERNEL(division, float, __fdiv_rn(x, y))
KERNEL(division64, double, __ddiv_rn(x, y))
"""


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_kernels(KERNELS, tmp_path_factory.mktemp("apart"), "--fmad=false")


@pytest.fixture(scope="module")
def contracted(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_kernels(KERNELS, tmp_path_factory.mktemp("contracted"), "--fmad=true")


@pytest.mark.nvcc
def test_compiled_apart(apart: Compiled) -> None:
    """Only the fused operation that is written as one is found, and no division of either type."""
    assert {name for name, function in apart.functions.items() if contractions(function)} == {"lone"}
    assert {name for name, body in apart.ptx.items() if ptx_contractions(body)} == {"lone"}


@pytest.mark.nvcc
def test_compiled_contracted(contracted: Compiled) -> None:
    """What the compiler fuses is found, with a reciprocal too; divisions and our reciprocal stay accepted."""
    fused = {"lone", "sum", "sum64", "twice"}
    assert {name for name, function in contracted.functions.items() if contractions(function)} == fused
    assert {name for name, body in contracted.ptx.items() if ptx_contractions(body)} == fused
