// What comes first in a source that is compiled for processors with AVX2.
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

// From here on the compiler may use AVX2. The headers above must come first: an inline function of the
// standard library compiled for this target could be the copy that the linker keeps for everyone. Our own
// have internal linkage, and come later: a function compiled before this line could not work on wide vectors.
// "fma" is left out on purpose: the roundings are part of the contract.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,f16c")
#endif

#define LIF_SIMD avx2
#define LIF_SIMD_BYTES 32
#define LIF_SIMD_F16C
#define LIF_SIMD_STREAM
