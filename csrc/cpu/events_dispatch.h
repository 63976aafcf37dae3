// The products with spikes of the SIMD level in use.
#pragma once

#include "cpu/events.h"
#include "cpu/simd.h"

namespace lif::cpu {

template <typename T>
EventKernels<T> active_event_kernels() {
#if defined(__x86_64__)
  switch (active_simd()) {
    case Simd::avx512:
      return avx512::event_kernels<T>();
    case Simd::avx2:
      return avx2::event_kernels<T>();
    case Simd::baseline:
      break;
  }
#endif
  return baseline::event_kernels<T>();
}

}  // namespace lif::cpu
