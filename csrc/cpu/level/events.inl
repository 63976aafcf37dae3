// Sums of the rows that a bit is set for: what a product with spikes is, one bit a spike.
//
// Spikes lie in words of 64 bits, the lowest bit first; each row of them begins a word, and the bits behind
// its last neuron are 0. The sums of a block of columns stay in registers while the bits of a row are walked
// through, word by word, so that a spike costs one load and one addition for each vector of columns. The
// order is that of the bits: each sum is rounded once for each spike, k ascending, at any SIMD level.
#pragma once

#include "cpu/level/spike_words.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

// Vectors of sums at the most: half of the registers, or all but what a row needs on its way. With 16 of
// AVX-512 a row of 256 columns is one walk through its bits.
constexpr int64_t kSumVectors = LIF_SIMD_BYTES == 64 ? 16 : 8;

// Columns of them.
template <typename S>
constexpr int64_t kSumColumns = kSumVectors * kLanes<S>;

// To sums[v] add the columns [v * kLanes, (v + 1) * kLanes) of row k of `rows`, for each bit k that is set
// in `words`, k ascending. The rows are `stride` elements apart, and dense.
template <int64_t kVectors, typename S>
[[gnu::always_inline]] inline void add_rows(Vector<S> (&sums)[kVectors], const uint64_t* words, int64_t count,
                                            const S* rows, int64_t stride) {
  for (int64_t w = 0; w < count; ++w) {
    const S* const first = rows + w * kSpikesOfWord * stride;
    for (uint64_t left = words[w]; left != 0; left &= left - 1) {
      const S* const row = first + __builtin_ctzll(left) * stride;
#pragma GCC unroll 16
      for (int64_t v = 0; v < kVectors; ++v) {
        sums[v] = add(sums[v], load(row + v * kLanes<S>));
      }
    }
  }
}

// Spikes whose places are listed at a time, and how many of a word without a question.
constexpr int64_t kListedWords = 8;
constexpr int64_t kListedAtOnce = 8;
constexpr int64_t kListed = kListedWords * kSpikesOfWord + kListedAtOnce;

// The places of the bits that are set in up to kListedWords words, ascending; how many there are. A walk
// through words, as add_rows takes it, mistakes the end of each of them for another spike, or the next spike
// for the end; the first few places of a word are listed whether they are there or not, and overwritten.
[[gnu::always_inline]] inline int64_t list_spikes(const uint64_t* words, int64_t count, uint32_t* places) {
  constexpr uint64_t kLast = uint64_t{1} << 63;  // so that there is a bit to find
  int64_t listed = 0;
  for (int64_t w = 0; w < count; ++w) {
    uint64_t left = words[w];
    const int64_t spikes = __builtin_popcountll(left);
    for (int64_t done = 0; done < spikes || done == 0; done += kListedAtOnce) {
#pragma GCC unroll 8
      for (int64_t i = 0; i < kListedAtOnce; ++i) {
        places[listed + done + i] = static_cast<uint32_t>(w * kSpikesOfWord + __builtin_ctzll(left | kLast));
        left &= left - 1;
      }
    }
    listed += spikes;
  }
  return listed;
}

// add_rows, by lists, of rows that are kVectors vectors long.
template <int64_t kVectors, typename S>
[[gnu::always_inline]] inline void add_listed_rows(Vector<S> (&sums)[kVectors], const uint64_t* words,
                                                   int64_t count, const S* rows) {
  constexpr int64_t kWidth = kVectors * kLanes<S>;
  uint32_t places[kListed];
  for (int64_t w = 0; w < count; w += kListedWords) {
    const int64_t listed =
        list_spikes(words + w, count - w < kListedWords ? count - w : kListedWords, places);
    const S* const first = rows + w * kSpikesOfWord * kWidth;
    for (int64_t i = 0; i < listed; ++i) {
      const S* const row = first + static_cast<int64_t>(places[i]) * kWidth;
#pragma GCC unroll 16
      for (int64_t v = 0; v < kVectors; ++v) {
        sums[v] = add(sums[v], load(row + v * kLanes<S>));
      }
    }
  }
}

// Run `run(vectors)` with the number of vectors, a constant, that n columns are computed in: the smallest
// power of two that holds them, or kSumVectors.
template <typename S, typename Run>
[[gnu::always_inline]] inline void with_vectors(int64_t n, const Run& run) {
  if (n > 8 * kLanes<S>) {
    run(std::integral_constant<int64_t, kSumVectors>());
  } else if (n > 4 * kLanes<S>) {
    run(std::integral_constant<int64_t, 8>());
  } else if (n > 2 * kLanes<S>) {
    run(std::integral_constant<int64_t, 4>());
  } else if (n > kLanes<S>) {
    run(std::integral_constant<int64_t, 2>());
  } else {
    run(std::integral_constant<int64_t, 1>());
  }
}

// The columns that a row of a panel of n columns has: those of with_vectors, the last ones of them 0.
template <typename S>
[[gnu::always_inline]] inline int64_t padded_columns(int64_t n) {
  int64_t columns = 0;
  with_vectors<S>(n, [&](auto vectors) { columns = vectors * kLanes<S>; });
  return columns;
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
