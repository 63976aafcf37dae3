// Vectors as wide as the SIMD level's registers, in the compiler's own vector types: the functions of
// neuron/step.h take them as they take numbers. Loads and stores convert from and to the type in memory.
#pragma once

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

[[gnu::always_inline]] inline Words widen_words(HalfWords bits) {
#if LIF_SIMD_BYTES == 64
  return bits_as<Words>(_mm512_maskz_cvtepu16_epi32(0xffff, bits_as<__m256i>(bits)));
#elif LIF_SIMD_BYTES == 32
  return bits_as<Words>(
      _mm256_cvtepu16_epi32(bits_as<__m128i>(bits)));  // GCC 12 takes five instructions for the general form
#else
  return __builtin_convertvector(bits, Words);
#endif
}

template <typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline Vector<S> load(const T* from) {
  if constexpr (std::is_same_v<T, S>) {
    Vector<S> value;
    std::memcpy(&value, from, sizeof value);
    return value;
  } else {
    HalfWords bits;
    std::memcpy(&bits, from, sizeof bits);
    if constexpr (std::is_same_v<T, BFloat16>) {
      return bits_as<Vector<S>>(widen_words(bits) << 16);
    } else {
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

// Vectors that are computed side by side: a step's five roundings wait for each other, some 14 cycles, and
// two vectors wait together.
constexpr int64_t kGroup = 4;

template <typename S>
struct Group {
  Vector<S> at[kGroup];
};

template <typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline Group<S> load_group(const T* from) {
  Group<S> group;
  for (int64_t k = 0; k < kGroup; ++k) {
    group.at[k] = load(from + k * kLanes<S>);
  }
  return group;
}

// The low halves of a group's words.
template <typename T>
[[gnu::always_inline]] inline void store_halves(T* to, const Words (&words)[kGroup], bool streamed) {
#if LIF_SIMD_BYTES == 32
  // Two vectors in two instructions, where each by itself takes three.
  for (int64_t k = 0; k < kGroup; k += 2) {
    const __m256i pairs = _mm256_packus_epi32(bits_as<__m256i>(words[k]), bits_as<__m256i>(words[k + 1]));
    store(to + k * kLanes<float>, _mm256_permute4x64_epi64(pairs, 0xd8), streamed);
  }
#else
  for (int64_t k = 0; k < kGroup; ++k) {
#if LIF_SIMD_BYTES == 64
    const auto halves = bits_as<HalfWords>(_mm512_maskz_cvtepi32_epi16(0xffff, bits_as<__m512i>(words[k])));
#else
    const auto halves = __builtin_convertvector(words[k], HalfWords);
#endif
    store(to + k * kLanes<float>, halves, streamed);
  }
#endif
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

// kExact: every value is one that T holds, as a spike is, so that there is nothing to round.
template <bool kExact = false, typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline void store_group(T* to, const Group<S>& group, bool streamed = false) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    Words words[kGroup];
    for (int64_t k = 0; k < kGroup; ++k) {
      const auto bits = bits_as<Words>(group.at[k]);
      words[k] = kExact ? bits >> 16 : bfloat16_bits(group.at[k], bits);
    }
    store_halves(to, words, streamed);
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
