// Which neurons have kernels of their own at this level; any other runs in the one for any neuron, as right
// and slower. In fp64, which is for checks, those with a membrane alone.
//
// On x86-64 the baseline is for processors from before 2013: there none has, which is a quarter of the build.
#pragma once

#include <type_traits>

#include "neuron/member.h"

namespace lif::cpu::LIF_SIMD {
namespace {

#if defined(LIF_SIMD_LEAN)
template <typename S>
using OwnKernels = Members<>;
// Whether plain_forward.inl and plain_backward.inl are compiled for a type.
template <typename T>
constexpr bool kHasPlain = false;
#else
template <typename S>
using OwnKernels = std::conditional_t<std::is_same_v<S, double>, PlainMembers, CompiledMembers>;
template <typename T>
constexpr bool kHasPlain = !std::is_same_v<T, double>;
#endif

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
