// Passes over rows; a row is a value of each neuron of a task.
//
// Each function named ..._row is one pass. The loops are written for the compiler's vectoriser
// (tests/test_vectorised.py reads its report).
#pragma once

#include "neuron/scalar.h"

namespace lif::cpu::LIF_SIMD {
namespace {

template <typename S>
void fill_row(S* __restrict__ row, S value, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    row[i] = value;
  }
}

template <typename S>
void copy_row(S* __restrict__ to, const S* __restrict__ from, int64_t n) {
  std::memcpy(to, from, static_cast<size_t>(n) * sizeof(S));
}

template <typename S>
void next_above_row(S* __restrict__ above, const S* __restrict__ row, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    above[i] = next_above(row[i]);
  }
}

// What is in the bits of a step: the spikes and the surrogate derivatives.
template <typename S>
void bit_row(S* __restrict__ row, const uint32_t* __restrict__ words, uint32_t bit, S value, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    row[i] = (words[i] & bit) != 0 ? value : S(0);
  }
}

template <typename S>
void add_row(S* __restrict__ sum, const S* __restrict__ row, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    sum[i] = add(sum[i], row[i]);
  }
}

template <typename S>
void divide_row(S* __restrict__ to, const S* __restrict__ row, S by, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    to[i] = div(row[i], by);
  }
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
