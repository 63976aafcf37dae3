// New tensors, and those that a call returns.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "ops/tensors.h"

namespace lif::ops {

// Let a large new tensor lie in huge pages where the system offers them on request. A fresh page of 4 KiB
// costs some 2 us when it is first written, 2 ns a float: more than the copy of all that the neuron reads and
// writes (forward on [16, 64, 16384], one thread: 1.0 instead of 2.8 ns a neuron-step, where clone
// takes 1.9).
inline void use_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr size_t kWorthIt = size_t{4} << 20;
  constexpr uintptr_t kPage = 4096;
  if (bytes >= kWorthIt) {
    const size_t before = (kPage - reinterpret_cast<uintptr_t>(data) % kPage) % kPage;
    // Advice: where it cannot be taken, nothing changes.
    madvise(static_cast<char*>(data) + before, (bytes - before) / kPage * kPage, MADV_HUGEPAGE);
  }
#endif
}

// The check that carries the text of an inner error, such as that of a lack of memory, is not in torch 2.11.
#if !defined(STABLE_TORCH_ERROR_CODE_CHECK)
#define STABLE_TORCH_ERROR_CODE_CHECK TORCH_ERROR_CODE_CHECK
#endif

// A new tensor without contents. torch::stable::new_empty finds its operator by name and boxes its arguments;
// aoti_torch_aten_new_empty asks the dispatcher four times, 3,600 instructions; this takes 2,500.
inline Tensor new_empty(const Tensor& like, const Shape& shape, const Shape& strides, ScalarType type) {
  int32_t device_type = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle tensor = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(), strides.data(),
                               torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)),
                               device_type, like.get_device_index(), &tensor));
  return Tensor(tensor);
}

inline Tensor new_empty(const Tensor& like, const Shape& shape, ScalarType type) {
  Shape strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(shape[i], 1);
  }
  return new_empty(like, shape, strides, type);
}

// The tensors that a call returns, in the order in which they are asked for.
class Returned {
 public:
  explicit Returned(const Tensor& like) : like_(like) {}

  // A new tensor if `asked`, and its memory; otherwise null.
  template <typename E>
  E* add(bool asked, const Shape& shape, ScalarType type) {
    if (!asked) {
      return nullptr;
    }
    tensors_.push_back(new_empty(like_, shape, type));
    E* data = static_cast<E*>(tensors_.back().mutable_data_ptr());
    if (!like_.is_cuda()) {
      use_huge_pages(data, static_cast<size_t>(numel(shape)) * sizeof(E));
    }
    return data;
  }

  // A tensor of zeros, on the CPU, of which there is one in memory.
  template <typename E>
  void add_shape(const Shape& shape, ScalarType type) {
    tensors_.push_back(new_empty(like_, shape, Shape(shape.size(), 0), type));
    if (numel(shape) > 0) {
      *static_cast<E*>(tensors_.back().mutable_data_ptr()) = E{};
    }
  }

  // Returns its place.
  size_t push(Tensor tensor) {
    tensors_.push_back(std::move(tensor));
    return tensors_.size() - 1;
  }
  Tensor& back() { return tensors_.back(); }
  std::vector<Tensor> take() { return std::move(tensors_); }

 private:
  const Tensor& like_;
  std::vector<Tensor> tensors_;
};

}  // namespace lif::ops
