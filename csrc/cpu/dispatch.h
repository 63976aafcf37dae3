// How many tasks a launch is cut into, and the kernels that run them: those of the SIMD level in use.
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace lif::cpu {

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
