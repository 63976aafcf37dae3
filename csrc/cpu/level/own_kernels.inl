// Which neurons have kernels of their own at this level; any other runs in the one for any neuron, as right
// and slower: those with a membrane alone in fp64, which is for checks, and on the baseline of x86-64, which
// few processors run; elsewhere all of the list. Each level would take half as long again to compile.
#pragma once

#include <type_traits>

#include "neuron/member.h"
#include "neuron/storage.h"

namespace lif::cpu::LIF_SIMD {
namespace {

#if defined(LIF_SIMD_LEAN)
constexpr bool kLean = true;
#else
constexpr bool kLean = false;
#endif

template <typename S>
using OwnKernels = std::conditional_t<kLean || std::is_same_v<S, double>, PlainMembers, CompiledMembers>;

// Whether plain_forward.inl and plain_backward.inl are compiled for a type. On the baseline of x86-64 they
// took 18 of the 146 s that all files take to compile; without them its plain neuron needs 1.1 to 1.6 times
// as long in fp32, 1.2 to 2.1 times in bfloat16, and less than before in fp16.
template <typename T>
constexpr bool kHasPlain = !kLean && !std::is_same_v<T, double>;

// The type of a tensor as the wide kernels know it. Few train in fp16 on a CPU: it is widened into the strip
// that a tile works on, a pass that the kernel waits for. In bfloat16 that took twice as long forward on [25,
// 128, 1000], and half as long again with backward.
template <typename T>
using InTile = std::conditional_t<std::is_same_v<T, Half>, float, T>;

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
