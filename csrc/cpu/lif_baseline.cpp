// The CPU kernels for any processor of the architecture.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <type_traits>

#include "cpu/kernels.h"

#define LIF_SIMD baseline
#include "cpu/kernels.inl"
