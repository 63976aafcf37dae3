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

// Neurons in a task at the most. The half dozen rows that a step works in, 2 KiB each in fp32, stay in the
// first-level cache, and in backward the membranes of a chunk of time steps in the second; longer rows of x
// would be kinder to the hardware prefetcher.
constexpr int64_t kForwardNeurons = 512;
constexpr int64_t kBackwardNeurons = 512;

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

// The kernels for tensors of type T.
template <typename T>
struct Kernels {
  using S = StateOf<T>;
  // Run tasks [begin, end).
  void (*forward)(const Forward<T>&, const Tiling&, int64_t begin, int64_t end);
  void (*backward)(const Backward<T>&, const Tiling&, int64_t begin, int64_t end);
  // out[c] = the sum over r and p of partial[(r * columns + c) * repeat + p].
  void (*sum_partials)(const S* partial, int64_t rows, int64_t columns, int64_t repeat, S* out);
};

namespace baseline {
template <typename T>
Kernels<T> kernels();
}
#if defined(__x86_64__)
namespace avx2 {
template <typename T>
Kernels<T> kernels();
}
namespace avx512 {
template <typename T>
Kernels<T> kernels();
}
#endif

// The kernels of the SIMD level in use.
template <typename T>
Kernels<T> active_kernels() {
#if defined(__x86_64__)
  switch (active_simd()) {
    case Simd::avx512:
      return avx512::kernels<T>();
    case Simd::avx2:
      return avx2::kernels<T>();
    case Simd::baseline:
      break;
  }
#endif
  return baseline::kernels<T>();
}

}  // namespace lif::cpu
