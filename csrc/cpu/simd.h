// Which SIMD level the CPU kernels run at: compiled three times, chosen once at run time.
//
// The kernels of each level are the same source (level/forward.inl, level/backward.inl) compiled for another
// target, so that one binary runs everywhere and needs no -march=native. LIF_CUDA_SIMD=baseline|avx2|avx512
// lowers the level, for tests and for measuring; a level the processor lacks, or an unknown name, is ignored
// here and reported by `python -m lif_cuda info`.
#pragma once

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace lif {

enum class Simd { baseline = 0, avx2 = 1, avx512 = 2 };

inline const char* simd_name(Simd level) {
  constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};
  return kNames[static_cast<int>(level)];
}

// The highest level this processor runs.
inline Simd best_simd() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("f16c")) {
    return Simd::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) {
    return Simd::avx2;
  }
#endif
  return Simd::baseline;
}

// The level in use: the best one, or the lower one that LIF_CUDA_SIMD names. Read once a process.
inline Simd active_simd() {
  static const Simd level = [] {
    const Simd best = best_simd();
    const char* wanted = std::getenv("LIF_CUDA_SIMD");
    for (Simd lower : {Simd::baseline, Simd::avx2, Simd::avx512}) {
      if (wanted != nullptr && lower < best && std::strcmp(wanted, simd_name(lower)) == 0) {
        return lower;
      }
    }
    return best;
  }();
  return level;
}

}  // namespace lif
