// The CPU kernels of recurrent layers, for each SIMD level as kernels.h has those of the others.
//
// A sample's time steps wait for each other, and samples do not: work is cut into ranges of samples, and for
// the weight's gradient into ranges of weights. No number depends on how.
#pragma once

#include "cpu/simd.h"
#include "neuron/recurrent.h"

namespace lif::cpu {

// Elements of the rows that forward keeps and backward returns: whole vectors at any SIMD level.
constexpr int64_t kWholeRow = 16;

inline constexpr int64_t whole_vectors(int64_t neurons) {
  return (neurons + kWholeRow - 1) / kWholeRow * kWholeRow;
}

template <typename T>
struct RecurrentKernels {
  using S = StateOf<T>;
  // Numbers of a weight as the kernels read it, and the weight so: transposed for forward.
  int64_t (*packed_size)(int64_t neurons);
  void (*pack_forward)(const S* weight, int64_t neurons, S* packed);
  void (*pack_backward)(const S* weight, int64_t neurons, S* packed);
  // Run samples [begin, end).
  void (*forward)(const RecurrentForward<T>&, const S* packed, int64_t begin, int64_t end);
  void (*backward)(const RecurrentBackward<T>&, const S* packed, int64_t begin, int64_t end);
  // As that of BackwardKernels (kernels.h).
  void (*sum_partials)(const S* partial, int64_t rows, int64_t columns, int64_t repeat, S* out);
};

template <typename S>
struct RecurrentWeightKernels {
  int64_t (*tasks)(const RecurrentWeights<S>&);
  // Run tasks [begin, end).
  void (*run)(const RecurrentWeights<S>&, int64_t begin, int64_t end);
};

#define LIF_RECURRENT_LEVEL(level)                      \
  namespace level {                                     \
  template <typename T>                                 \
  RecurrentKernels<T> recurrent_kernels();              \
  template <typename S>                                 \
  RecurrentWeightKernels<S> recurrent_weight_kernels(); \
  }
LIF_RECURRENT_LEVEL(baseline)
#if defined(__x86_64__)
LIF_RECURRENT_LEVEL(avx2)
LIF_RECURRENT_LEVEL(avx512)
#endif
#undef LIF_RECURRENT_LEVEL

}  // namespace lif::cpu
