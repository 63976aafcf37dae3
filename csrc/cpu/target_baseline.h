// What comes first in a source that is compiled for any processor of the architecture.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>

#define LIF_SIMD baseline
#define LIF_SIMD_BYTES 16
// There are higher levels on x86-64, and this one is for few processors (level/own_kernels.inl).
#if defined(__x86_64__)
#define LIF_SIMD_LEAN
#endif
