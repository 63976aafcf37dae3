// Spikes to words and back, and words of rows to words of columns.
#pragma once

#include "cpu/level/access.inl"
#include "cpu/level/vector.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

constexpr int64_t kSpikesOfWord = 64;

// Words of a row of n spikes.
[[gnu::always_inline]] inline int64_t spike_words(int64_t n) {
  return (n + kSpikesOfWord - 1) / kSpikesOfWord;
}

// One bit of each lane of a comparison.
template <typename S, typename Compared>
[[gnu::always_inline]] inline uint64_t lane_bits(Compared compared) {
#if LIF_SIMD_BYTES == 64
  if constexpr (sizeof(S) == 4) {
    return _mm512_movepi32_mask(bits_as<__m512i>(compared));
  } else {
    return _mm512_movepi64_mask(bits_as<__m512i>(compared));
  }
#elif LIF_SIMD_BYTES == 32
  if constexpr (sizeof(S) == 4) {
    return static_cast<uint32_t>(_mm256_movemask_ps(bits_as<__m256>(compared)));
  } else {
    return static_cast<uint32_t>(_mm256_movemask_pd(bits_as<__m256d>(compared)));
  }
#else
  uint64_t bits = 0;
  for (int64_t lane = 0; lane < kLanes<S>; ++lane) {
    bits |= static_cast<uint64_t>(compared[lane] != 0) << lane;
  }
  return bits;
#endif
}

// The spikes [begin, end) of [M, inputs] as words; whether all of them are 0 or 1.
template <typename T, typename S = StateOf<T>>
bool pack(const T* spikes, int64_t inputs, uint64_t* words, int64_t begin, int64_t end) {
  const int64_t row_words = spike_words(inputs);
  const auto zero = splat(S(0));
  const auto one = splat(S(1));
  auto strange = zero == one;
  bool all = true;
  for (int64_t m = begin; m < end; ++m) {
    const T* const row = spikes + m * inputs;
    for (int64_t w = 0; w < row_words; ++w) {
      const T* const from = row + w * kSpikesOfWord;
      const int64_t size = inputs - w * kSpikesOfWord;
      uint64_t word = 0;
      int64_t i = 0;
      const int64_t whole = size < kSpikesOfWord ? size / kLanes<S> * kLanes<S> : kSpikesOfWord;
      for (; i < whole; i += kLanes<S>) {
        const auto value = load(from + i);
        const auto fired = value != zero;
        strange |= fired & (value != one);
        word |= lane_bits<S>(fired) << i;
      }
      for (; i < kSpikesOfWord && i < size; ++i) {
        const S value = widen(from[i]);
        all = all && (value == S(0) || value == S(1));
        word |= static_cast<uint64_t>(value != S(0)) << i;
      }
      words[m * row_words + w] = word;
    }
  }
  return all && lane_bits<S>(strange) == 0;
}

// The bits of up to 64 spikes.
template <typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline uint64_t spike_bits(const T* spikes, int64_t n) {
  uint64_t word = 0;
  int64_t i = 0;
  for (; i + kLanes<S> <= n; i += kLanes<S>) {
    word |= lane_bits<S>(load(spikes + i) != Vector<S>{}) << i;
  }
  for (; i < n; ++i) {
    word |= static_cast<uint64_t>(widen(spikes[i]) != S(0)) << i;
  }
  return word;
}

// A row of spikes as words.
template <typename T>
void pack_row(uint64_t* __restrict__ words, const T* __restrict__ row, int64_t n) {
  for (int64_t i = 0; i < n; i += kSpikesOfWord) {
    *words++ = spike_bits(row + i, n - i < kSpikesOfWord ? n - i : kSpikesOfWord);
  }
}

// Write n spikes into the words of rows of `neurons`, from neuron `first` of all rows on, which begins a
// word: tasks have whole words of a row, or whole rows (together() of cpu/dispatch.h).
template <typename T>
void write_words(uint64_t* words, int64_t neurons, int64_t first, const T* spikes, int64_t n) {
  int64_t column = first % neurons;
  uint64_t* word = words + first / neurons * spike_words(neurons) + column / kSpikesOfWord;
  for (int64_t i = 0; i < n;) {
    const int64_t size = smaller(kSpikesOfWord, smaller(neurons - column, n - i));
    *word++ = spike_bits(spikes + i, size);
    i += size;
    column = column + size == neurons ? 0 : column + size;
  }
}

template <typename T, typename S = StateOf<T>>
void unpack(const uint64_t* words, int64_t inputs, T* spikes, int64_t begin, int64_t end) {
  const T zero = narrow<T>(S(0));
  const T one = narrow<T>(S(1));
  const int64_t row_words = spike_words(inputs);
  for (int64_t m = begin; m < end; ++m) {
    for (int64_t i = 0; i < inputs; ++i) {
      const uint64_t word = words[m * row_words + i / kSpikesOfWord];
      spikes[m * inputs + i] = (word >> i % kSpikesOfWord & 1) != 0 ? one : zero;
    }
  }
}

// 64 words of 64 bits, transposed in place: halves of the square change places, then quarters of the halves.
inline void transpose_square(uint64_t* square) {
  uint64_t low = 0xffffffffu;
  for (int64_t half = 32; half != 0; half /= 2, low ^= low << half) {
    for (int64_t i = 0; i < kSpikesOfWord; i += 2 * half) {
      for (int64_t j = i; j < i + half; ++j) {
        const uint64_t swapped = (square[j] >> half ^ square[j + half]) & low;
        square[j] ^= swapped << half;
        square[j + half] ^= swapped;
      }
    }
  }
}

inline void transpose_words(const uint64_t* words, int64_t rows, int64_t inputs, uint64_t* columns,
                            int64_t begin, int64_t end) {
  const int64_t row_words = spike_words(inputs);
  const int64_t column_words = spike_words(rows);
  for (int64_t w = begin; w < end; ++w) {
    const int64_t first = w * kSpikesOfWord;
    const int64_t wide = inputs - first < kSpikesOfWord ? inputs - first : kSpikesOfWord;
    for (int64_t m = 0; m < column_words; ++m) {
      const int64_t left = rows - m * kSpikesOfWord;
      const int64_t high = left < kSpikesOfWord ? left : kSpikesOfWord;
      uint64_t square[kSpikesOfWord] = {};
      for (int64_t i = 0; i < high; ++i) {
        square[i] = words[(m * kSpikesOfWord + i) * row_words + w];
      }
      transpose_square(square);
      for (int64_t i = 0; i < wide; ++i) {
        columns[(first + i) * column_words + m] = square[i];
      }
    }
  }
}

inline int64_t count(const uint64_t* words, int64_t inputs, int64_t begin, int64_t end) {
  const int64_t row_words = spike_words(inputs);
  const int64_t rest = inputs % kSpikesOfWord;
  const uint64_t behind = rest == 0 ? 0 : ~uint64_t{0} << rest;
  int64_t spikes = 0;
  for (int64_t m = begin; m < end; ++m) {
    const uint64_t* const row = words + m * row_words;
    for (int64_t w = 0; w < row_words; ++w) {
      spikes += __builtin_popcountll(row[w]);
    }
    if (row_words > 0 && (row[row_words - 1] & behind) != 0) {
      return -1;
    }
  }
  return spikes;
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
