// The tasks of a launch, and memory for what they keep.
#pragma once

#include "cpu/kernels.h"

namespace lif::cpu::LIF_SIMD {
namespace {

// A block of neurons that one task owns: [first, first + size) of row `outer`.
struct Block {
  int64_t outer;
  int64_t first;
  int64_t size;
  int64_t neuron;  // index of the first neuron among all
  int64_t steps;   // of all of them: a row is a part of one sample
};

[[maybe_unused]] Block block_of(const Extent& extent, const Parameter<int64_t>& lengths, const Tiling& tiling,
                                int64_t task) {
  const int64_t outer = task / tiling.tasks_per_outer;
  const int64_t first = (task - outer * tiling.tasks_per_outer) * tiling.neurons;
  const int64_t left = extent.inner - first;
  const int64_t neuron = outer * extent.inner + first;
  return {outer, first, left < tiling.neurons ? left : tiling.neurons, neuron,
          steps_of(extent, lengths, neuron)};
}

// Memory for rows, in one piece. A row is a whole number of cache lines, and three more: rows a multiple of
// 4 KiB apart would fall on the same lines of the first-level cache (forward 0.45 instead of 0.6 ns a
// neuron-step). The first row begins at the address `like`, modulo 4 KiB and in whole lines.
//
// From malloc, which learns to keep a size that was freed: what aligned_alloc had asked the system for, it
// asked for again at each call (8 instead of 1 ns a neuron-step).
template <typename S>
class Workspace {
 public:
  Workspace(int64_t neurons, int64_t rows, uintptr_t like = 0)
      : stride_((neurons + kLine - 1) / kLine * kLine + 3 * kLine),
        memory_(std::malloc(static_cast<size_t>(stride_ * rows) * sizeof(S) + kPage + kBytes), &std::free) {
    if (memory_ == nullptr) {
      throw std::bad_alloc();
    }
    char* begin = static_cast<char*>(memory_.get());
    const auto place = reinterpret_cast<uintptr_t>(begin);
    next_ = reinterpret_cast<S*>(begin + (like / kBytes * kBytes - place) % kPage);
  }

  S* rows(int64_t count) {
    S* row = next_;
    next_ += count * stride_;
    return row;
  }

  S* row() { return rows(1); }

  int64_t stride() const { return stride_; }

 private:
  static constexpr uintptr_t kPage = 4096;
  static constexpr uintptr_t kBytes = 64;
  static constexpr int64_t kLine = kBytes / sizeof(S);
  int64_t stride_;
  std::unique_ptr<void, decltype(&std::free)> memory_;
  S* next_;
};

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
