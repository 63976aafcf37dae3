// Products with spikes on the CPU, which read one bit a spike: raw pointers and sizes, no torch.
//
// A row of n spikes is ceil(n / 64) words, the lowest bit first; the bits behind its last spike are 0. The
// sums are taken in one order, whoever computes them: what a sum starts with, then the terms of the spikes
// that are set, ascending. A term is added and rounded; nothing is multiplied. So results are the same at
// each SIMD level, for any number of threads and for any way in which spikes came, packed or not.
//
// Compiled for each SIMD level like kernels.h, and without functions for the same reason.
#pragma once

#include <cstdint>

#include "neuron/storage.h"

namespace lif::cpu {

// y[m, n] = 0 + bias[n], then + weight[n, k] for each spike k of row m. Sums of 16-bit numbers are kept in
// float32, and rounded once at their end.
template <typename T>
struct SpikeProduct {
  using S = StateOf<T>;
  int64_t rows = 0;                 // M
  int64_t inputs = 0;               // K
  int64_t outputs = 0;              // N
  const uint64_t* words = nullptr;  // [M, ceil(K / 64)]
  const S* panels = nullptr;        // what pack_weight made of the weight
  const T* bias = nullptr;          // [N]; null: zeros
  S* sums = nullptr;                // [M, N], room for sums that are not done; y itself where T is S
  T* y = nullptr;                   // [M, N]
};

// grad_weight[n, k] = 0, then + grad_y[m, n] for each row m in which k is set, m ascending.
template <typename T>
struct SpikeGradient {
  int64_t rows = 0;
  int64_t inputs = 0;
  int64_t outputs = 0;
  const uint64_t* columns = nullptr;  // [K, ceil(M / 64)], what transpose_words made of the words
  const T* grad_y = nullptr;          // [M, N]
  T* grad_weight = nullptr;           // [N, K]
  int64_t task_inputs = 1;            // that a task computes, at the most kTaskInputs
};

// Inputs of a task of the gradient at the most: with their sums of a panel, and the piece of grad_y that they
// share, they lie in the second-level cache.
constexpr int64_t kTaskInputs = 512;

template <typename T>
struct EventKernels {
  using S = StateOf<T>;
  // Elements of the panels of a weight [outputs, inputs], and tasks in which they are written.
  int64_t (*panel_elements)(int64_t inputs, int64_t outputs);
  int64_t (*panel_tasks)(int64_t inputs, int64_t outputs);
  void (*pack_weight)(const T* weight, int64_t inputs, int64_t outputs, S* panels, int64_t begin,
                      int64_t end);
  // Rows [begin, end).
  void (*product)(const SpikeProduct<T>&, int64_t begin, int64_t end);
  int64_t (*gradient_tasks)(const SpikeGradient<T>&);
  void (*gradient)(const SpikeGradient<T>&, int64_t begin, int64_t end);
  // Rows [begin, end) of spikes [M, inputs] to words; false where one of them is neither 0 nor 1.
  bool (*pack)(const T* spikes, int64_t inputs, uint64_t* words, int64_t begin, int64_t end);
  void (*unpack)(const uint64_t* words, int64_t inputs, T* spikes, int64_t begin, int64_t end);
  // Of words [rows, ceil(inputs / 64)] the columns of words [begin, end), as rows of ceil(rows / 64) words.
  void (*transpose_words)(const uint64_t* words, int64_t rows, int64_t inputs, uint64_t* columns,
                          int64_t begin, int64_t end);
  // The spikes in rows [begin, end); -1 where there are bits behind the last spike of a row.
  int64_t (*count)(const uint64_t* words, int64_t inputs, int64_t begin, int64_t end);
};

namespace baseline {
template <typename T>
EventKernels<T> event_kernels();
}
#if defined(__x86_64__)
namespace avx2 {
template <typename T>
EventKernels<T> event_kernels();
}
namespace avx512 {
template <typename T>
EventKernels<T> event_kernels();
}
#endif

}  // namespace lif::cpu
