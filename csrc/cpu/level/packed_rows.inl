// Spikes that are returned as words: the rows of a tile, which never leave the second-level cache, and how
// they get into the words.
#pragma once

#include <cstring>

#include "cpu/level/spike_words.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

template <typename T>
bool has_spikes(const Forward<T>& args) {
  return args.spikes.data != nullptr || args.packed.data != nullptr;
}

template <typename T>
class PackedRows {
 public:
  // Room for a tile of a task, where words are asked for.
  PackedRows(const Forward<T>& args, int64_t neurons)
      : to_(args.packed),
        neurons_(args.packed_neurons),
        memory_(wanted() ? neurons : 0, wanted() ? kTileSteps : 0),
        data_(memory_.rows(kTileSteps)) {}

  bool wanted() const { return to_.data != nullptr; }

  Rows<T> rows() const { return {data_, memory_.stride(), false}; }

  // The spikes of a tile's steps, as words.
  void write(const Block& block, int64_t t, int64_t steps) const {
    for (int64_t j = 0; wanted() && j < steps; ++j) {
      uint64_t* const words = to_.data + block.outer * to_.outer_stride + (t + j) * to_.time_stride;
      write_words(words, neurons_, block.first, data_ + j * memory_.stride(), block.size);
    }
  }

  // No spikes after the steps of a block.
  void zero_rest(const Extent& extent, const Block& block) const {
    if (wanted() && block.steps < extent.steps) {
      std::memset(static_cast<void*>(data_), 0, static_cast<size_t>(block.size) * sizeof(T));
    }
    for (int64_t t = block.steps; wanted() && t < extent.steps; ++t) {
      write(block, t, 1);
    }
  }

 private:
  Series<uint64_t> to_;
  int64_t neurons_;
  Workspace<T> memory_;
  T* data_;
};

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
