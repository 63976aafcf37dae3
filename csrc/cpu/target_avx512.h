// What comes first in a source that is compiled for processors with AVX-512 (F, VL, DQ, BW).
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>

// From here on the compiler may use AVX-512. The headers above must come first: an inline function of the
// standard library compiled for this target could be the copy that the linker keeps for everyone. Our own
// have internal linkage, and come later: a function compiled before this line could not work on wide vectors.
// "fma" is left out on purpose: the roundings are part of the contract.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("f16c,avx512f,avx512vl,avx512dq,avx512bw"))), \
                             apply_to = function)
#else
#pragma GCC target("f16c,avx512f,avx512vl,avx512dq,avx512bw,prefer-vector-width=512")
#endif

#define LIF_SIMD avx512
#define LIF_SIMD_BYTES 64
#define LIF_SIMD_F16C
#define LIF_SIMD_STREAM
