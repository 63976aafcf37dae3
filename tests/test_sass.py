"""What reads machine code and counts it: on listings made here and, where nvcc is, on small kernels."""

from __future__ import annotations

import shutil

import pytest
from _listing import compile_kernels, listing
from _sass import Function, short_names, shorten
from _sass_budget import Report, Step, check_budgets, instructions, read_report, write_report
from _sass_loops import loops, main_loops

BACK = "ISETP.NE.AND P0, PT, R0, RZ, PT"


def forward(begin: str, steps: int, extra: int = 0) -> list[str]:
    """A loop that reads and stores 16 bytes a step."""
    body = ["LDG.E.128 R4, desc[UR4][R2.64]", "STG.E.128 desc[UR4][R8.64], R4"] * steps
    body += ["FADD R4, R4, R5"] * extra
    return [f"{begin}: {body[0]}", *body[1:], BACK, f"@P0 BRA {begin}"]


def column(begin: str, *work: str) -> list[str]:
    """A loop that reads and stores 16 bytes of shared memory."""
    return [f"{begin}: LDS.128 R4, [R2]", *work, "STS.128 [R2], R4", BACK, f"@P0 BRA {begin}"]


def test_listing_is_read() -> None:
    function = listing(
        "LDC R1, c[0x0][0x28]",
        "@!P0 LDG.E.128 R24, desc[UR6][R28.64+0x4]",
        "FFMA R7, R7.reuse, -|R0|, R7",
        "EXIT",
    )
    load, add, leave = function.instructions[1:]
    assert (load.address, load.predicate, load.opcode, load.base) == (16, "!P0", "LDG.E.128", "LDG")
    assert load.operands == ("R24", "desc[UR6][R28.64+0x4]")
    assert add.operands == ("R7", "R7", "-|R0|", "R7")
    assert (leave.opcode, leave.operands) == ("EXIT", ())
    assert str(load) == "0010 @!P0 LDG.E.128 R24, desc[UR6][R28.64+0x4]"


@pytest.mark.parametrize(
    ("demangled", "short"),
    [
        (
            "void lif::cuda::wide_backward_kernel<lif::BFloat16, lif::Member<(lif::Reset)0, 1>, 4, true>"
            "(lif::cuda::Backward<lif::BFloat16>)",
            "wide_backward_kernel<BFloat16, Member<subtract, 1>, 4, true>",
        ),
        ("void lif::cuda::k<lif::V<float, (lif::Reset)2> >(void (*)(int))", "k<V<float, none>>"),
        ("lif::cuda::(anonymous namespace)::fill(float*, long)", "fill"),
        ("void lif::k<(lif::Reset)1, (lif::Shape)7>(int)", "k<zero, Shape 7>"),
    ],
)
def test_names_are_short(demangled: str, short: str) -> None:
    assert shorten(demangled) == short


def test_names_are_demangled() -> None:
    if shutil.which("c++filt") is None:
        pytest.skip("no c++filt")
    mangled = "_ZN3lif4cuda20wide_backward_kernelIfNS_6MemberILNS_5ResetE2ELi1ELb0EEELi4ELb1EEEvPfii"
    assert short_names([mangled, "plain"]) == {
        mangled: "wide_backward_kernel<float, Member<none, 1, false>, 4, true>",
        "plain": "plain",
    }


def test_main_loop_and_what_is_left_over() -> None:
    """Of two loops, one behind the other, the one with more steps; of equals, the leaner."""
    more = listing(*forward("TAIL_A", 1), *forward("MAIN_A", 4), *forward("TAIL_B", 2), "EXIT")
    assert [(loop.kind, loop.global_bytes) for loop in loops(more)] == [
        ("forward", n * 16) for n in (1, 4, 2)
    ]
    assert [loop.global_bytes for loop in main_loops(more)] == [64]
    equal = listing(*forward("MAIN_A", 4), *forward("TAIL_A", 4, extra=9), "EXIT")
    assert [loop.total for loop in main_loops(equal)] == [10]


def test_loops_within_a_loop() -> None:
    """Chunks around them run the passes; what is no loop of ours does not hide the one around it."""
    function = listing(
        "OUT_ER: LDG.E R1, desc[UR4][R2.64]",
        *column("PASS_A"),
        "STG.E desc[UR4][R2.64], R1",
        "@P1 BRA OUT_ER",
        "EXIT",
    )
    assert {loop.kind for loop in loops(function)} == {"whole", "surrogate"}
    assert [loop.kind for loop in main_loops(function)] == ["surrogate"]
    function = listing(*column("PASS_A", "IN_NER: IADD3 R9, R9, 0x1, RZ", "@P2 BRA IN_NER"), "EXIT")
    assert [(loop.kind, loop.total) for loop in main_loops(function)] == [("surrogate", 6)]


def test_slow_paths_count_and_called_ones_do_not() -> None:
    function = listing(
        "TOP_A: LDS R4, [R2]",
        "@P1 BRA SLOW_A",
        "BACK_A: STS [R2], R4",
        "NOP",
        "@P0 BRA TOP_A",
        "EXIT",
        "SLOW_A: MOV R6, 0x80",
        "CALL.REL.NOINC ROUTINE_A",
        "BRA BACK_A",
        "ROUTINE_A: MUFU.RCP R4, R4",
        "RET.REL.NODEC R6 0x0",
        "PAD_A: BRA PAD_A",
    )
    (loop,) = loops(function)
    assert loop.total == 7 and loop.counts["CALL"] == 1 and loop.counts["MUFU"] == 0


def test_either_branch_is_one_step() -> None:
    """And a branch whose condition stands among its operands is conditional."""
    function = listing(
        "TOP_A: LDG.E.64 R4, desc[UR4][R2.64]",
        "@P1 BRA P2, OTHER_A",
        "STG.E.64 desc[UR4][R8.64], R4",
        "BRA JOIN_A",
        "OTHER_A: STG.E.64 desc[UR4][R8.64], R6",
        "JOIN_A: @P0 BRA TOP_A",
        "EXIT",
    )
    (loop,) = main_loops(function)
    assert loop.counts["STG"] == 2 and loop.global_bytes == 8


def test_unrolled_to_the_end_is_no_loop() -> None:
    code = ["LDG.E.128 R4, desc[UR4][R2.64]", "STG.E.128 desc[UR4][R8.64], R4"] * 16
    function = listing(*code, "EXIT", "PAD_A: BRA PAD_A")
    assert loops(function) == [] and instructions(function, Step(4, 4)) == {}


def test_switch_needs_its_table() -> None:
    """The loops that a switch chooses from exclude each other, though they lie one behind the other."""
    code = [
        "LDC R8, c[0x2][R0+0x4]",
        "BRX R8 -0x20",
        *column("PASS_A", "MUFU.RCP R4, R5"),
        "BRA END_A",
        *column("PASS_B", "FCHK P1, R4, R5"),
        "BRA END_A",
        *column("PASS_C"),
        "END_A: EXIT",
    ]
    function = listing(*code, table=(0x7777, 0x20, 0x80, 0xE0))
    assert [loop.flavour for loop in main_loops(function)] == ["reciprocal", "division", "plain"]
    with pytest.raises(ValueError, match="no table for 0010 BRX"):
        loops(listing(*code))


@pytest.mark.parametrize(
    ("operations", "kind"),
    [
        ("LDG STG", "forward"),
        ("LDGSTS LDS STG", "forward"),
        ("LDG STS", "recompute"),
        ("LDGSTS LDS STS", "recompute"),
        ("LDS STS", "surrogate"),
        ("LDG LDS STG", "back"),
        ("LDS STG", "back"),
        ("LDG LDS STS STG", "whole"),
        ("LDG", "other"),
        ("STG", "other"),
    ],
)
def test_kinds(operations: str, kind: str) -> None:
    stores = {"STG": "STG.E desc[UR4][R2.64], R4", "STS": "STS [R2], R4"}
    body = [stores.get(name, f"{name} R4, [R2]") for name in operations.split()]
    (loop,) = loops(listing(f"TOP_A: {body[0]}", *body[1:], "@P0 BRA TOP_A", "EXIT"))
    assert loop.kind == kind


def test_instructions_a_neuron_step() -> None:
    function = listing(*forward("TOP_A", 4, extra=40), *column("PASS_A", *["FADD R4, R4, R5"] * 12), "EXIT")
    assert instructions(function, Step(4, 4)) == {"forward": (3.1,), "plain": (4.0,)}
    # Half the bytes an element: the same stores are twice the steps.
    assert instructions(function, Step(4, 2))["forward"] == (1.6,)
    # One store of the five is a checkpoint.
    more = listing(*forward("TOP_A", 5, extra=36), "EXIT")
    assert instructions(more, Step(4, 4, group=4)) == {"forward": (3.0,)}


def test_report_comes_back() -> None:
    report: Report = {
        "wide_forward_kernel<float, Member<subtract, 1>, 4>": {"forward": (8.2,)},
        "wide_backward_kernel<float, subtract, 4>": {
            "reciprocal": (9.0, 12.4),
            "plain": (3.0,),
            "back": (8.1,),
        },
        "general_backward_kernel<float>": {},
    }
    text = write_report(report, "Instructions, by ptxas of CUDA 13.0.")
    assert text.startswith("# Instructions, by ptxas of CUDA 13.0.\n") and " \n" not in text
    assert "  reciprocal 9.0 12.4  plain 3.0  back 8.1\n" in text
    assert read_report(text) == report


def test_budgets() -> None:
    report: Report = {
        "forward": {"forward": (8.2, 10.1)},
        "passes": {"recompute": (7.8,), "reciprocal": (27.0, 28.1, 60.0), "back": (8.0,)},
        "fused": {"recompute": (9.1,), "fused": (32.9,)},
        "free": {"forward": (99.0,)},
    }
    backward = {"recompute": 9, "way back": 36}
    budgets = {"forward": {"forward": 10}, "passes": backward, "fused": backward, "free": {}}
    assert check_budgets(report, budgets.__getitem__) == [
        "forward: forward: 10.1 instructions a neuron-step, not 10",
        "fused: recompute: 9.1 instructions a neuron-step, not 9",
        "passes: way back: 36.1 instructions a neuron-step, not 36",
    ]
    assert check_budgets({"passes": {"back": (8.0,)}}, budgets.__getitem__) == [
        "passes: recompute: no such loop found",
        "passes: way back: no such loop found",
    ]


KERNELS = r"""
__device__ __forceinline__ float quick(float q) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(q));
  return __fmaf_rn(r, __fmaf_rn(-q, r, 1.0f), r);
}

extern "C" __global__ void wide(const float4* x, float4* s, const float4* beta, int steps, long rows) {
  const float4 b = beta[threadIdx.x];
  float4 v = {0, 0, 0, 0};
  int t = 0;
  const auto step = [&](float4 in) {
    v.x = v.x * b.x + in.x; v.y = v.y * b.y + in.y; v.z = v.z * b.z + in.z; v.w = v.w * b.w + in.w;
    *s = v;
    s += rows;
  };
#pragma unroll 1
  for (; t + 4 <= steps; t += 4) {
    float4 in[4];
#pragma unroll
    for (int j = 0; j < 4; ++j, x += rows) in[j] = *x;
#pragma unroll
    for (int j = 0; j < 4; ++j) step(in[j]);
  }
#pragma unroll 1
  for (; t < steps; ++t, x += rows) step(*x);
}

extern "C" __global__ void passes(float* p, int kind, int steps, float a) {
  extern __shared__ float column[];
  const auto pass = [&](auto shape) {
#pragma unroll 2
    for (int t = 0; t < steps; ++t) column[t * 32 + threadIdx.x] = shape(column[t * 32 + threadIdx.x]);
  };
  for (int chunk = 0; chunk < 9; ++chunk) {
    column[threadIdx.x] = p[threadIdx.x + chunk];
    switch (kind) {
      case 0: pass([&](float z) { const float q = 1.0f + a * fabsf(z); return quick(q * q); }); break;
      case 1: pass([&](float z) { return quick(1.0f + z * z); }); break;
      case 2: pass([&](float z) { return a - fabsf(z); }); break;
      case 3: pass([&](float z) { return fabsf(z) < a ? a : 0.0f; }); break;
      case 4: pass([&](float z) { return __fdiv_rn(z, 1.0f + z * a); }); break;
      case 5: pass([&](float z) { return p[int(z)]; }); break;
      case 6: pass([&](float z) { return z * z * z * a; }); break;
      default: pass([&](float z) { return z + a * z; });
    }
    p[threadIdx.x + chunk] = column[threadIdx.x * 2];
  }
}

extern "C" __global__ void unrolled(const float* x, float* s) {
#pragma unroll
  for (int t = 0; t < 8; ++t) s[t * 4096 + threadIdx.x] = x[t * 4096 + threadIdx.x] + 1.0f;
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Function]:
    return compile_kernels(KERNELS, tmp_path_factory.mktemp("loops"), "--fmad=false").functions


@pytest.mark.nvcc
def test_compiled_loops(compiled: dict[str, Function]) -> None:
    (loop,) = main_loops(compiled["wide"])
    assert len(loops(compiled["wide"])) == 2
    assert loop.kind == "forward" and loop.counts["LDG"] == loop.counts["STG"] == 4
    (count,) = instructions(compiled["wide"], Step(4, 4))["forward"]
    assert 2 < count < 6  # a product and a sum, and a share of loads, stores and addresses
    assert instructions(compiled["unrolled"], Step(1, 4)) == {}


@pytest.mark.nvcc
def test_compiled_passes(compiled: dict[str, Function]) -> None:
    """Eight, which a switch jumps to through a table."""
    assert any(one.base == "BRX" for one in compiled["passes"].instructions)
    counts = instructions(compiled["passes"], Step(1, 4))
    found = {name: len(of_pass) for name, of_pass in counts.items()}
    assert found == {"reciprocal": 2, "plain": 4, "division": 1, "table": 1}
