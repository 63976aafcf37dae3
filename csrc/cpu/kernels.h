// The CPU kernels: raw pointers and sizes, no torch.
//
// Work is cut into tasks of neighbouring neurons that own all their time steps, so tasks are independent
// and the numbers do not depend on how many threads run them.
#pragma once

#include <cstdint>

#include "cpu/simd.h"
#include "neuron/params.h"

namespace lif::cpu {

// How the neurons are cut into tasks.
struct Tiling {
  int64_t neurons = 0;  // of a task
  int64_t tasks_per_outer = 0;
  int64_t tasks = 0;
};

// Neurons in a task at the most. The state, and in backward the membranes of a chunk of time steps, stay in
// the first- and second-level cache; a row of x is still long enough for the hardware prefetcher.
constexpr int64_t kForwardNeurons = 1024;
constexpr int64_t kBackwardNeurons = 256;

// Tasks of `most` neurons, or fewer where that would leave threads idle. Whole cache lines each.
inline Tiling tile(const Extent& extent, int64_t most, int64_t threads) {
  constexpr int64_t kLine = 16;
  const int64_t share = (neurons(extent) + threads - 1) / threads;
  const int64_t rounded = (share + kLine - 1) / kLine * kLine;
  Tiling tiling;
  tiling.neurons = rounded < kLine ? kLine : rounded > most ? most : rounded;
  tiling.tasks_per_outer = (extent.inner + tiling.neurons - 1) / tiling.neurons;
  tiling.tasks = extent.outer * tiling.tasks_per_outer;
  return tiling;
}

template <typename S>
struct Kernels {
  // Run tasks [begin, end).
  void (*forward)(const Forward<S>&, const Tiling&, int64_t begin, int64_t end);
  void (*backward)(const Backward<S>&, const Tiling&, int64_t begin, int64_t end);
  // out[c] = sum over r of partial[r * columns + c], for c in [begin, end), begin a multiple of 64.
  void (*sum_rows)(const S* partial, int64_t rows, int64_t columns, S* out, int64_t begin, int64_t end);
};

namespace baseline {
template <typename S>
Kernels<S> kernels();
}
#if defined(__x86_64__)
namespace avx2 {
template <typename S>
Kernels<S> kernels();
}
namespace avx512 {
template <typename S>
Kernels<S> kernels();
}
#endif

// The kernels of the SIMD level in use.
template <typename S>
Kernels<S> active_kernels() {
#if defined(__x86_64__)
  switch (active_simd()) {
    case Simd::avx512:
      return avx512::kernels<S>();
    case Simd::avx2:
      return avx2::kernels<S>();
    case Simd::baseline:
      break;
  }
#endif
  return baseline::kernels<S>();
}

}  // namespace lif::cpu
