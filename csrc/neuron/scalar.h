// Arithmetic in which each operation rounds once, on the host and on the device.
//
// The promise that the kernels give the same bits as eager PyTorch rests on this file: a multiplication
// and an addition are never contracted into a fused multiply-add. On the device the intrinsics say so; on
// the host the build passes -ffp-contract=off.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <limits>
#include <type_traits>

#if defined(__CUDACC__)
#define LIF_FN __host__ __device__ __forceinline__ static
// Of what only a kernel may call.
#define LIF_DEVICE_FN __device__ __forceinline__ static
#else
// Internal linkage: the same functions are compiled for several SIMD levels, and a linker that merged
// them would hand an AVX-512 body to a processor without it.
#define LIF_FN [[gnu::always_inline]] inline static
#define LIF_DEVICE_FN LIF_FN
#endif

namespace lif {

#if defined(__CUDA_ARCH__)
LIF_FN float add(float a, float b) { return __fadd_rn(a, b); }
LIF_FN float sub(float a, float b) { return __fsub_rn(a, b); }
LIF_FN float mul(float a, float b) { return __fmul_rn(a, b); }
LIF_FN float div(float a, float b) { return __fdiv_rn(a, b); }
LIF_FN double add(double a, double b) { return __dadd_rn(a, b); }
LIF_FN double sub(double a, double b) { return __dsub_rn(a, b); }
LIF_FN double mul(double a, double b) { return __dmul_rn(a, b); }
LIF_FN double div(double a, double b) { return __ddiv_rn(a, b); }
#else
template <typename S>
LIF_FN S add(S a, S b) {
  return a + b;
}
template <typename S>
LIF_FN S sub(S a, S b) {
  return a - b;
}
template <typename S>
LIF_FN S mul(S a, S b) {
  return a * b;
}
template <typename S>
LIF_FN S div(S a, S b) {
  return a / b;
}
#endif

// A constant. S may be a vector of numbers (cpu/vector.h): the equations are written once for both.
template <typename S>
LIF_FN S number(double value) {
  if constexpr (std::is_arithmetic_v<S>) {
    return static_cast<S>(value);
  } else {
    return S{} + static_cast<std::remove_reference_t<decltype(S{}[0])>>(value);
  }
}

// 1 where a is b or more, else 0. On the device in one instruction, where a comparison and a choice are two.
template <typename S>
LIF_FN S at_least(S a, S b) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<S, float>) {
    float reached;
    asm("set.ge.f32.f32 %0, %1, %2;" : "=f"(reached) : "f"(a), "f"(b));
    return reached;
  } else {
    return a >= b ? number<S>(1) : number<S>(0);
  }
#else
  return a >= b ? number<S>(1) : number<S>(0);
#endif
}

// The next number above; NaN, which nothing reaches, where there is none. So a >= next_above(b) is a > b.
template <typename S>
LIF_FN S next_above(S a) {
  using Bits = std::conditional_t<sizeof(S) == 4, int32_t, int64_t>;
  Bits bits;
  memcpy(&bits, &a, sizeof a);
  bits = a == S(0) ? 1 : a > S(0) ? bits + 1 : bits - 1;
  S above;
  memcpy(&above, &bits, sizeof a);
  return a < S(INFINITY) ? above : S(NAN);
}

LIF_FN float magnitude(float a) { return fabsf(a); }
LIF_FN double magnitude(double a) { return fabs(a); }
// Of each of a vector: all bits but the sign.
template <typename S>
LIF_FN S magnitude(S a) {
  using Bits = decltype(a < a);
  constexpr auto kSign = std::numeric_limits<std::remove_reference_t<decltype(Bits{}[0])>>::min();
  return reinterpret_cast<S>(reinterpret_cast<Bits>(a) & ~(Bits{} + kSign));
}

}  // namespace lif
