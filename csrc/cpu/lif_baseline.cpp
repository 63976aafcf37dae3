// The CPU kernels for any processor of the architecture.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>

#include "cpu/kernels.h"

#define LIF_SIMD baseline
#include "cpu/kernels.inl"
