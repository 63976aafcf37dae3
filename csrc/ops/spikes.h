// Spikes in words, for any backend: the checks and shapes of tensors that hold them.
#pragma once

#include <cstdint>

#include "ops/tensors.h"

namespace lif::ops {

// Words of 64 bits for a row of n spikes.
constexpr int64_t kSpikesOfWord = 64;
inline int64_t spike_words(int64_t n) { return (n + kSpikesOfWord - 1) / kSpikesOfWord; }

// The shape of a tensor with another last axis.
inline Shape with_last(const Tensor& tensor, int64_t size) {
  Shape shape = shape_of(tensor);
  STD_TORCH_CHECK(!shape.empty(), "spikes need an axis of neurons, their last, got a tensor without axes");
  shape.back() = size;
  return shape;
}

inline int64_t rows_of(const Tensor& tensor) { return numel(with_last(tensor, 1)); }

inline void check_words(const Tensor& words, int64_t inputs) {
  STD_TORCH_CHECK(words.scalar_type() == ScalarType::Long, "words must have dtype int64");
  STD_TORCH_CHECK(with_last(words, spike_words(inputs)) == shape_of(words), "words must have ",
                  spike_words(inputs), " words in a row of ", inputs, " spikes");
}

inline const uint64_t* read_words(const Tensor& words) {
  return static_cast<const uint64_t*>(words.const_data_ptr());
}

inline void check_same(const Tensor& one, const Tensor& other, const char* name) {
  STD_TORCH_CHECK(one.is_cuda() == other.is_cuda() && one.get_device_index() == other.get_device_index(),
                  name, " must be on the device of the spikes");
}

}  // namespace lif::ops
