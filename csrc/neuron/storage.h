// How numbers lie in memory, and the type that they are computed in.
//
// float and double are computed as they lie. The 16-bit formats are widened to float when read and rounded
// once, to nearest even, when written. The conversions below have no branches, so that compilers vectorise
// them where there is no instruction for the task.
#pragma once

#include <stdint.h>
#include <string.h>

#include <type_traits>

#if defined(__CUDA_ARCH__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include "neuron/scalar.h"

namespace lif {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

// The type in which a neuron that lies in memory as T keeps its state and computes.
template <typename T>
struct StateType {
  using type = T;
};
template <>
struct StateType<Half> {
  using type = float;
};
template <>
struct StateType<BFloat16> {
  using type = float;
};
template <typename T>
using StateOf = typename StateType<T>::type;

LIF_FN float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

LIF_FN uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

LIF_FN float widen(float value) { return value; }
LIF_FN double widen(double value) { return value; }

LIF_FN float widen(BFloat16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }

LIF_FN float widen(Half value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  // The exponent's bias differs by 112: a product with 2^112 also makes subnormals normal. Infinities and
  // NaN (exponent 31) keep the highest exponent.
  const uint32_t rest = static_cast<uint32_t>(value.bits & 0x7fff) << 13;
  const uint32_t finite = bits_of(float_of(rest) * 0x1p112f);
  const uint32_t magnitude = rest >= (0x7c00u << 13) ? rest | 0x7f800000u : finite;
  return float_of(magnitude | static_cast<uint32_t>(value.bits & 0x8000) << 16);
#endif
}

// The nearest bfloat16 of a number, or of each of a vector of them, in the high half of its bits. Of NaN only
// where the low half is 0, as it is in all that came from bfloat16; others could become 0.
template <typename Bits>
LIF_FN Bits nearest_bfloat16(Bits bits) {
  return bits + 0x7fffu + (bits >> 16 & 1u);
}

LIF_FN BFloat16 to_bfloat16(float value) {
#if defined(__CUDA_ARCH__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
  const uint32_t bits = bits_of(value);
  constexpr uint32_t kQuiet = 0x400000;
  // NOLINTNEXTLINE(misc-redundant-expression): NaN alone is not equal to itself.
  return {static_cast<uint16_t>((value != value ? bits | kQuiet : nearest_bfloat16(bits)) >> 16)};
#endif
}

LIF_FN Half to_half(float value) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(value))};
#else
  const uint32_t bits = bits_of(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Adding 1/2 shifts a subnormal's digits to the low end, where the addition itself rounds them.
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t finite = magnitude < (113u << 23) ? subnormal : normal;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  // From 65520 on the nearest even is infinity.
  const uint32_t rounded = magnitude >= 0x477ff000u ? special : finite;
  return {static_cast<uint16_t>(rounded | (bits >> 16 & 0x8000u))};
#endif
}

template <typename T>
LIF_FN T narrow(StateOf<T> value) {
  if constexpr (std::is_same_v<T, Half>) {
    return to_half(value);
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return to_bfloat16(value);
  } else {
    return value;
  }
}

}  // namespace lif
