// What any operator asks of a tensor: its type, its shape, where it lies, and whether it has a gradient.
//
// The checks here and in the files beside this one are a backstop for calls that bypass lif_cuda.functional:
// they keep a wrong call from touching memory that is not its own.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "neuron/storage.h"

namespace lif::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Shape = std::vector<int64_t>;

template <typename T>
constexpr ScalarType kTypeOf = ScalarType::Float;
template <>
inline constexpr ScalarType kTypeOf<double> = ScalarType::Double;

// Call `run` with a null pointer to the type of x's elements.
template <typename Run>
auto with_type_of(const Tensor& x, const Run& run) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return run(static_cast<float*>(nullptr));
    case ScalarType::Double:
      return run(static_cast<double*>(nullptr));
    case ScalarType::Half:
      return run(static_cast<Half*>(nullptr));
    case ScalarType::BFloat16:
      return run(static_cast<BFloat16*>(nullptr));
    default:
      STD_TORCH_CHECK(false, "x must have dtype float32, float64, float16 or bfloat16");
  }
}

inline Shape shape_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return Shape(sizes.begin(), sizes.end());
}

inline int64_t numel(const Shape& shape) {
  int64_t n = 1;
  for (int64_t size : shape) {
    n *= size;
  }
  return n;
}

inline Shape with_axis(Shape shape, int64_t at, int64_t size) {
  shape.insert(shape.begin() + at, size);
  return shape;
}

// Whether autograd would have to differentiate through `tensor`. The stable ABI does not tell, but an alias
// made with grad mode on is a leaf only if its base needs no gradient.
inline bool requires_grad(const Tensor& tensor) {
  std::array<StableIValue, 1> alias{torch::stable::detail::from(tensor)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::alias", "", alias.data(), TORCH_ABI_VERSION));
  std::array<StableIValue, 1> leaf{alias[0]};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::is_leaf", "", leaf.data(), TORCH_ABI_VERSION));
  return !torch::stable::detail::to<bool>(leaf[0]);
}

inline void check_like_x(const Tensor& x, const Tensor* tensor, const char* name, ScalarType type,
                         int64_t elements) {
  if (!tensor) {
    return;
  }
  STD_TORCH_CHECK(tensor->scalar_type() == type, name,
                  " must have the dtype of the state: float64 where x has it, else float32");
  STD_TORCH_CHECK(tensor->is_cuda() == x.is_cuda() && tensor->get_device_index() == x.get_device_index(),
                  name, " must be on the device of x");
  STD_TORCH_CHECK(tensor->is_contiguous(), name, " must be contiguous");
  STD_TORCH_CHECK(tensor->numel() == elements, name, " must have ", elements, " elements, got ",
                  tensor->numel());
}

template <typename S>
const S* read(const Tensor* tensor) {
  return tensor ? static_cast<const S*>(tensor->const_data_ptr()) : nullptr;
}

}  // namespace lif::ops
