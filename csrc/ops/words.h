// Packing spikes into words and unpacking them, for any backend:
//
//   struct Backend {
//     struct Guard { explicit Guard(const Tensor& spikes); };
//     // Whether all were zeros and ones, where that can be told.
//     template <typename T> static bool pack(const T* spikes, int64_t rows, int64_t neurons, uint64_t* words,
//                                            const Tensor& of);
//     template <typename T> static void unpack(const uint64_t* words, int64_t rows, int64_t neurons,
//                                              T* spikes, const Tensor& of);
//   };
#pragma once

#include <cstdint>

#include "ops/allocation.h"
#include "ops/spikes.h"

namespace lif::ops {

template <typename Backend>
Tensor spike_pack(const Tensor& given) {
  const typename Backend::Guard guard(given);
  const Tensor spikes = torch::stable::contiguous(given);
  const int64_t neurons = with_last(spikes, 0).empty() ? 0 : spikes.sizes().back();
  const int64_t rows = rows_of(spikes);
  Tensor words = new_empty(spikes, with_last(spikes, spike_words(neurons)), ScalarType::Long);
  auto* const to = static_cast<uint64_t*>(words.mutable_data_ptr());
  const bool all = with_type_of(spikes, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    return Backend::pack(static_cast<const T*>(spikes.const_data_ptr()), rows, neurons, to, spikes);
  });
  STD_TORCH_CHECK(all, "spikes must be zeros and ones; use nn.Linear for other numbers");
  return words;
}

template <typename Backend>
Tensor spike_unpack(const Tensor& given, const Tensor& like) {
  const typename Backend::Guard guard(given);
  const Shape shape = shape_of(like);
  STD_TORCH_CHECK(!shape.empty(), "like must have an axis of neurons");
  check_words(given, shape.back());
  check_same(given, like, "like");
  STD_TORCH_CHECK(with_last(given, shape.back()) == shape, "words and like must have the same rows");
  const Tensor words = torch::stable::contiguous(given);
  Tensor spikes = new_empty(like, shape, like.scalar_type());
  with_type_of(like, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    auto* const to = static_cast<T*>(spikes.mutable_data_ptr());
    Backend::unpack(read_words(words), rows_of(spikes), shape.back(), to, spikes);
  });
  return spikes;
}

}  // namespace lif::ops
