// The sum of the partial gradients of the neurons that share a parameter.
#pragma once

#include "neuron/params.h"

namespace lif::cpu::LIF_SIMD {
namespace {

// Sums in double, in an order that depends only on the sizes. Narrow rows are folded side by side, so that
// even the sum over a single column has a vector's width of independent additions.
template <typename S>
void sum_columns(const S* partial, int64_t rows, int64_t columns, S* out) {
  constexpr int64_t kWidth = 64;
  const int64_t fold = columns < kWidth ? kWidth / columns : 1;
  const int64_t stride = columns * fold;
  const int64_t size = rows * columns;
  for (int64_t first = 0; first < columns; first += kWidth) {
    const int64_t wide = fold > 1 ? stride : columns - first < kWidth ? columns - first : kWidth;
    double sum[kWidth] = {};
    for (int64_t row = first; row < size; row += stride) {
      const int64_t n = size - row < wide ? size - row : wide;
      for (int64_t i = 0; i < n; ++i) {
        sum[i] += static_cast<double>(partial[row + i]);
      }
    }
    for (int64_t i = 0; i < wide && i < columns; ++i) {
      double total = sum[i];
      for (int64_t f = 1; f < fold; ++f) {
        total += sum[f * columns + i];
      }
      out[first + i] = static_cast<S>(total);
    }
  }
}

template <typename S>
void sum_partials(const S* partial, int64_t rows, int64_t columns, int64_t repeat, S* out) {
  if (repeat == 1) {
    return sum_columns(partial, rows, columns, out);
  }
  for (int64_t c = 0; c < columns; ++c) {
    double total = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const S* from = partial + (r * columns + c) * repeat;
      double lanes[16] = {};
      int64_t p = 0;
      for (; p + 16 <= repeat; p += 16) {
        for (int lane = 0; lane < 16; ++lane) {
          lanes[lane] += static_cast<double>(from[p + lane]);
        }
      }
      for (; p < repeat; ++p) {
        total += static_cast<double>(from[p]);
      }
      for (double lane : lanes) {
        total += lane;
      }
    }
    out[c] = static_cast<S>(total);
  }
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
