// The surrogate derivatives of a strip of neurons at the steps of a tile: a pass of its own, so that 8
// surrogates and 13 members are 8 + 13 pieces of code.
#pragma once

#include "cpu/level/access.inl"
#include "cpu/level/vector.inl"
#include "neuron/step.h"
#include "neuron/surrogate.h"

namespace lif::cpu::LIF_SIMD {
namespace {

// The rows of a tile that come next, as bytes.
struct Ahead {
  Rows<const char> rows;
  int64_t size = 0;  // bytes of an element

  Ahead() = default;
  template <typename T>
  explicit Ahead(const Rows<T>& of)
      : rows{reinterpret_cast<const char*>(of.data), of.stride * static_cast<int64_t>(sizeof(T)), false},
        size(sizeof(T)) {}
};

// Whether a derivative takes so long that the memory would stand idle. Then what the way back reads and
// writes next is fetched meanwhile: a table took 1.33 instead of 1.56 times the plain neuron, a Sigmoid 1.22
// instead of 1.40, both ways on [25, 131072]. A fast sigmoid took 1.18 instead of 1.08 with it.
constexpr bool takes_long(Shape shape) {
  return shape == Shape::sigmoid || shape == Shape::piecewise_exp || shape == Shape::gaussian ||
         shape == Shape::table;
}

// u and h of the steps; theta, or what a threshold that moves is computed from.
template <typename S>
struct SlopesStrip {
  int64_t steps = 0;
  Rows<const S> u;
  Rows<S> h;
  const S* theta = nullptr;
  const S* kappa = nullptr;
  Ahead read, written;
  Rows<const S> adaptation;  // null: the threshold does not move
};

template <typename S>
using Indices [[gnu::vector_size(LIF_SIMD_BYTES / sizeof(S) * sizeof(int32_t))]] = int32_t;

// Two neighbours in a table for each of a vector of places.
template <typename S>
struct Neighbours {
  Vector<S> low, high;
};

template <typename S>
[[gnu::always_inline]] inline Neighbours<S> neighbours(const S* table, Indices<S> at) {
  // The forms with a mask: GCC 12 warns of an undefined value inside the others.
#if LIF_SIMD_BYTES == 64
  if constexpr (sizeof(S) == 4) {
    // Two neighbours at once, as one number of 64 bits.
    const auto all = bits_as<__m512i>(at);
    const auto zero = _mm512_setzero_si512();
    const auto first =
        _mm512_mask_i32gather_epi64(zero, 0xff, _mm512_maskz_extracti64x4_epi64(0xff, all, 0), table, 4);
    const auto second =
        _mm512_mask_i32gather_epi64(zero, 0xff, _mm512_maskz_extracti64x4_epi64(0xff, all, 1), table, 4);
    const auto low = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const auto high = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return {bits_as<Vector<S>>(_mm512_permutex2var_epi32(first, low, second)),
            bits_as<Vector<S>>(_mm512_permutex2var_epi32(first, high, second))};
  } else {
    const auto of = bits_as<__m256i>(at);
    const auto zero = _mm512_setzero_pd();
    return {bits_as<Vector<S>>(_mm512_mask_i32gather_pd(zero, 0xff, of, table, 8)),
            bits_as<Vector<S>>(_mm512_mask_i32gather_pd(zero, 0xff, of, table + 1, 8))};
  }
#elif LIF_SIMD_BYTES == 32
  if constexpr (sizeof(S) == 4) {
    const auto all = bits_as<__m256i>(at);
    const auto* pairs = reinterpret_cast<const long long*>(table);
    const auto first = _mm256_castsi256_ps(_mm256_i32gather_epi64(pairs, _mm256_castsi256_si128(all), 4));
    const auto second =
        _mm256_castsi256_ps(_mm256_i32gather_epi64(pairs, _mm256_extracti128_si256(all, 1), 4));
    // Of each half of the two, the even words and the odd ones; and the quarters in order.
    const auto low = _mm256_castps_si256(_mm256_shuffle_ps(first, second, 0x88));
    const auto high = _mm256_castps_si256(_mm256_shuffle_ps(first, second, 0xdd));
    return {bits_as<Vector<S>>(_mm256_permute4x64_epi64(low, 0xd8)),
            bits_as<Vector<S>>(_mm256_permute4x64_epi64(high, 0xd8))};
  } else {
    const auto of = bits_as<__m128i>(at);
    const auto zero = _mm256_setzero_pd();
    const auto all = _mm256_castsi256_pd(_mm256_set1_epi64x(-1));
    return {bits_as<Vector<S>>(_mm256_mask_i32gather_pd(zero, table, of, all, 8)),
            bits_as<Vector<S>>(_mm256_mask_i32gather_pd(zero, table + 1, of, all, 8))};
  }
#else
  Neighbours<S> found{};
  for (int64_t lane = 0; lane < kLanes<S>; ++lane) {
    found.low[lane] = table[at[lane]];
    found.high[lane] = table[at[lane] + 1];
  }
  return found;
#endif
}

template <typename S>
[[gnu::always_inline]] inline Vector<S> table_slopes(Vector<S> z, const Surrogate<S>& of) {
  const auto place = table_place(z, splat(of.slope), splat(static_cast<S>(of.points - 1)));
  const auto most = Indices<S>{} + static_cast<int32_t>(of.points - 2);
  const auto floor = __builtin_convertvector(place, Indices<S>);
  const auto at = floor < most ? floor : most;
  const auto [low, high] = neighbours(of.table, at);
  return table_line(low, high, sub(place, __builtin_convertvector(at, Vector<S>)), splat(of.scale));
}

template <Shape kShape, typename S>
[[gnu::noinline]] void slopes_strip(const SlopesStrip<S>& given, const Surrogate<S>& surrogate, int64_t n) {
  const SlopesStrip<S> strip(given);
  const Surrogate<S> scalar(surrogate);
  const Surrogate<Vector<S>> of{kShape, splat(surrogate.slope), splat(surrogate.scale), nullptr, 0};
  for (int64_t j = 0; j < strip.steps; ++j) {
    const S* u = strip.u.at(j, 0);
    const S* b = strip.adaptation.data == nullptr ? nullptr : strip.adaptation.at(j, 0);
    S* h = strip.h.at(j, 0);
    const char* read = strip.read.rows.data == nullptr ? nullptr : strip.read.rows.at(j, 0);
    const char* written = strip.written.rows.data == nullptr ? nullptr : strip.written.rows.at(j, 0);
    for (int64_t i = 0; i < n; i += kLanes<S>) {
      if (takes_long(kShape) && read != nullptr) {
        __builtin_prefetch(read + i * strip.read.size);
      }
      if (takes_long(kShape) && written != nullptr) {
        __builtin_prefetch(written + i * strip.written.size, 1);
      }
      auto theta = load(strip.theta + i);
      if (b != nullptr) {
        theta = adapted_threshold(theta, load(strip.kappa + i), load(b + i));
      }
      const auto z = sub(load(u + i), theta);
      if constexpr (kShape == Shape::table) {
        store(h + i, table_slopes(z, scalar));
      } else {
        store(h + i, derivative<kShape>(z, of));
      }
    }
  }
}

template <typename S>
void write_slopes(const SlopesStrip<S>& strip, const Surrogate<S>& surrogate, int64_t n) {
  switch (surrogate.shape) {
    case Shape::fast_sigmoid:
      return slopes_strip<Shape::fast_sigmoid>(strip, surrogate, n);
    case Shape::atan:
      return slopes_strip<Shape::atan>(strip, surrogate, n);
    case Shape::sigmoid:
      return slopes_strip<Shape::sigmoid>(strip, surrogate, n);
    case Shape::triangle:
      return slopes_strip<Shape::triangle>(strip, surrogate, n);
    case Shape::piecewise_exp:
      return slopes_strip<Shape::piecewise_exp>(strip, surrogate, n);
    case Shape::gaussian:
      return slopes_strip<Shape::gaussian>(strip, surrogate, n);
    case Shape::rectangle:
      return slopes_strip<Shape::rectangle>(strip, surrogate, n);
    case Shape::table:
      return slopes_strip<Shape::table>(strip, surrogate, n);
  }
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
