// How many tasks a launch is cut into, and the kernels that run them: those of the SIMD level in use.
#pragma once

#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace lif::cpu {

// Neurons that a task has a whole number of: a cache line; where they write bits, a word, or a row where it
// is not of whole words.
constexpr int64_t kTogether = 16;
template <typename T>
int64_t together(const Forward<T>& args) {
  return args.packed.data == nullptr ? kTogether : args.packed_neurons % 64 == 0 ? 64 : args.packed_neurons;
}
template <typename T>
int64_t together(const Backward<T>&) {
  return kTogether;
}

// Tasks of `most` neurons, or fewer where that would leave threads idle, and as many as the neurons that are
// `together`.
inline Tiling tile(const Extent& extent, int64_t most, int64_t threads, int64_t together = kTogether) {
  const int64_t share = (neurons(extent) + threads - 1) / threads;
  const int64_t least = (share + together - 1) / together;
  const int64_t whole = most / together;
  Tiling tiling;
  tiling.neurons = std::max(std::min(least, whole) * together, together);
  tiling.tasks_per_outer = (extent.inner + tiling.neurons - 1) / tiling.neurons;
  tiling.tasks = extent.outer * tiling.tasks_per_outer;
  return tiling;
}

// The kernels of the SIMD level in use.
template <typename T>
Kernels<T> active_kernels() {
#if defined(__x86_64__)
  switch (active_simd()) {
    case Simd::avx512:
      return {avx512::forward_kernels<T>(), avx512::backward_kernels<T>()};
    case Simd::avx2:
      return {avx2::forward_kernels<T>(), avx2::backward_kernels<T>()};
    case Simd::baseline:
      break;
  }
#endif
  return {baseline::forward_kernels<T>(), baseline::backward_kernels<T>()};
}

}  // namespace lif::cpu
