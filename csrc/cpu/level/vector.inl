// Vectors as wide as the SIMD level's registers, in the compiler's own vector types: the functions of
// neuron/step.h take them as they take numbers. Loads and stores convert from and to the type in memory.
#pragma once

#include "neuron/exponential.h"
#include "neuron/storage.h"

namespace lif::cpu::LIF_SIMD {
namespace {

template <typename S>
struct VectorType {
  using type [[gnu::vector_size(LIF_SIMD_BYTES)]] = S;
};
template <typename S>
using Vector = typename VectorType<S>::type;

// Neurons of a vector whose state is S.
template <typename S>
constexpr int64_t kLanes = LIF_SIMD_BYTES / sizeof(S);

using Words [[gnu::vector_size(LIF_SIMD_BYTES)]] = uint32_t;
using HalfWords [[gnu::vector_size(LIF_SIMD_BYTES / 2)]] = uint16_t;

using LongWords [[gnu::vector_size(LIF_SIMD_BYTES)]] = uint64_t;

// The same bits as another type of vector.
template <typename To, typename From>
[[gnu::always_inline]] inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <typename S>
[[gnu::always_inline]] inline Vector<S> splat(S value) {
  return Vector<S>{} + value;
}

template <typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline Vector<S> load(const T* from) {
  if constexpr (std::is_same_v<T, S>) {
    Vector<S> value;
    std::memcpy(&value, from, sizeof value);
    return value;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    HalfWords bits;
    std::memcpy(&bits, from, sizeof bits);
    return bits_as<Vector<S>>(__builtin_convertvector(bits, Words) << 16);
  } else {
    HalfWords bits;
    std::memcpy(&bits, from, sizeof bits);
#if defined(LIF_SIMD_F16C) && LIF_SIMD_BYTES == 64
    // The forms with a mask: GCC 12 warns of an undefined value inside the others.
    return bits_as<Vector<S>>(_mm512_maskz_cvtph_ps(0xffff, bits_as<__m256i>(bits)));
#elif defined(LIF_SIMD_F16C)
    return bits_as<Vector<S>>(_mm256_cvtph_ps(bits_as<__m128i>(bits)));
#else
    Vector<S> value;
    for (int64_t lane = 0; lane < kLanes<S>; ++lane) {
      value[lane] = widen(Half{bits[lane]});
    }
    return value;
#endif
  }
}

// Write elements, past the caches if `streamed`; then `to` is a multiple of their size.
template <typename T, typename Elements>
[[gnu::always_inline]] inline void store(T* to, Elements elements, [[maybe_unused]] bool streamed = false) {
#if defined(LIF_SIMD_STREAM)
  if (streamed) {
#if LIF_SIMD_BYTES == 64
    if constexpr (sizeof elements == 64) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to), bits_as<__m512i>(elements));
      return;
    }
#endif
    if constexpr (sizeof elements == 32) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to), bits_as<__m256i>(elements));
      return;
    }
    if constexpr (sizeof elements == 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to), bits_as<__m128i>(elements));
      return;
    }
  }
#endif
  std::memcpy(to, &elements, sizeof elements);
}

template <typename S>
[[gnu::always_inline]] inline HalfWords to_halves(Vector<S> value) {
#if defined(LIF_SIMD_F16C) && LIF_SIMD_BYTES == 64
  return bits_as<HalfWords>(_mm512_maskz_cvtps_ph(0xffff, bits_as<__m512>(value), _MM_FROUND_TO_NEAREST_INT));
#elif defined(LIF_SIMD_F16C)
  return bits_as<HalfWords>(_mm256_cvtps_ph(bits_as<__m256>(value), _MM_FROUND_TO_NEAREST_INT));
#else
  HalfWords bits;
  for (int64_t lane = 0; lane < kLanes<S>; ++lane) {
    bits[lane] = to_half(value[lane]).bits;
  }
  return bits;
#endif
}

// The nearest bfloat16 of each; with kExact there is nothing to round.
template <bool kExact, typename S>
[[gnu::always_inline]] inline HalfWords to_bfloat16s(Vector<S> value) {
  const auto bits = bits_as<Words>(value);
  constexpr uint32_t kQuiet = 0x400000;
  // NOLINTNEXTLINE(misc-redundant-expression): NaN alone is not equal to itself.
  const Words nearest = kExact ? bits : value != value ? bits | kQuiet : nearest_bfloat16(bits);
  return __builtin_convertvector(nearest >> 16, HalfWords);
}

// Write a vector as T. kExact: each value is one that T holds, as a spike is.
template <bool kExact = false, typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline void store_as(T* to, Vector<S> value, bool streamed = false) {
  if constexpr (std::is_same_v<T, Half>) {
    store(to, to_halves<S>(value));
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    store(to, to_bfloat16s<kExact, S>(value));
  } else {
    store(to, value, streamed);
  }
}

// A row of T as the arithmetic wants it.
template <typename T, typename S = StateOf<T>>
void widen_row(S* to, const T* from, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes<S> <= n; i += kLanes<S>) {
    store(to + i, load(from + i));
  }
  for (; i < n; ++i) {
    to[i] = widen(from[i]);
  }
}

// A row of numbers as T.
template <typename T, typename S = StateOf<T>>
void narrow_row(T* to, const S* from, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes<S> <= n; i += kLanes<S>) {
    store_as(to + i, load(from + i));
  }
  for (; i < n; ++i) {
    to[i] = narrow<T>(from[i]);
  }
}

// Vectors that are computed side by side: a step's five roundings wait for each other, some 14 cycles, and
// two vectors wait together.
constexpr int64_t kGroup = 4;

template <typename S>
struct Group {
  Vector<S> at[kGroup];
};

// The order of the neurons in a group, and in the rows of a task that hold their state, is that of memory but
// for bfloat16: there the even ones of a pair of vectors come first, then the odd ones. A vector of words
// then becomes a pair, and a pair becomes words, in two instructions, which took four by conversions that
// keep the order.
template <typename T>
constexpr bool kEvensFirst = std::is_same_v<T, BFloat16>;

static_assert(kGroup % 2 == 0);

constexpr uint32_t kOdd = 0xffff0000;  // the half of a word in which the odd neuron lies

template <typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline Group<S> load_group(const T* from) {
  Group<S> group;
  if constexpr (kEvensFirst<T>) {
    for (int64_t k = 0; k < kGroup; k += 2) {
      Words pair;
      std::memcpy(&pair, from + k * kLanes<S>, sizeof pair);
      group.at[k] = bits_as<Vector<S>>(pair << 16);
      group.at[k + 1] = bits_as<Vector<S>>(pair & kOdd);
    }
  } else {
    for (int64_t k = 0; k < kGroup; ++k) {
      group.at[k] = load(from + k * kLanes<S>);
    }
  }
  return group;
}

// The high halves of two vectors of words, as they lie in memory.
[[gnu::always_inline]] inline Words joined(Words even, Words odd) {
#if LIF_SIMD_BYTES == 32
  return bits_as<Words>(_mm256_blend_epi16(bits_as<__m256i>(even >> 16), bits_as<__m256i>(odd), 0xaa));
#else
  return even >> 16 | (odd & kOdd);
#endif
}

// kExact: every value is one that T holds, as a spike is, so that there is nothing to round. Arithmetic hands
// on the digits of a NaN that it is given. Numbers and tables are finite, and to_groups (plain_rows.inl)
// takes the digits from all else, so that nearest_bfloat16 meets none: to look for NaN here made backward a
// tenth slower.
template <bool kExact = false, typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline void store_group(T* to, const Group<S>& group, bool streamed = false) {
  if constexpr (kEvensFirst<T>) {
    for (int64_t k = 0; k < kGroup; k += 2) {
      const auto even = bits_as<Words>(group.at[k]);
      const auto odd = bits_as<Words>(group.at[k + 1]);
      const Words pair = kExact ? joined(even, odd) : joined(nearest_bfloat16(even), nearest_bfloat16(odd));
      store(to + k * kLanes<S>, pair, streamed);
    }
  } else {
    for (int64_t k = 0; k < kGroup; ++k) {
      if constexpr (std::is_same_v<T, Half>) {
        store(to + k * kLanes<S>, to_halves<S>(group.at[k]), streamed);
      } else {
        store(to + k * kLanes<S>, group.at[k], streamed);
      }
    }
  }
}

template <typename S, typename Of>
[[gnu::always_inline]] inline Group<S> each(const Group<S>& one, const Group<S>& other, Of of) {
  Group<S> group;
  for (int64_t k = 0; k < kGroup; ++k) {
    group.at[k] = of(one.at[k], other.at[k]);
  }
  return group;
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD

namespace lif {

template <>
struct BitsOf<cpu::LIF_SIMD::Vector<float>> {
  using type = cpu::LIF_SIMD::Words;
};
template <>
struct BitsOf<cpu::LIF_SIMD::Vector<double>> {
  using type = cpu::LIF_SIMD::LongWords;
};

}  // namespace lif
