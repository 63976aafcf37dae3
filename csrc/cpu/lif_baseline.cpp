// The CPU kernels for any processor of the architecture.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <type_traits>

#define LIF_SIMD baseline
#define LIF_SIMD_BYTES 16
#include "cpu/kernels.inl"
