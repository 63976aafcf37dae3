// What every operator on CUDA needs of torch: the device, the stream, the text of an error, a sum.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include "bindings/problem.h"

namespace lif::bindings {

struct CudaGuard {
  explicit CudaGuard(const Tensor& x) : device(x.get_device_index()) {}
  torch::stable::accelerator::DeviceGuard device;
};

inline void* current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return stream;
}

inline void check_launch(int error, const char* name) {
  char* message = nullptr;
  torch_c10_cuda_check_msg(error, __FILE__, name, __LINE__, true, &message);
  if (message != nullptr) {
    const std::string text(message);
    torch_c10_cuda_free_error_msg(message);
    throw std::runtime_error(text);
  }
}

// [rows, columns, repeat] summed over rows and repeat, of the shape of `parameter`. torch's sum over
// dimensions is deterministic on CUDA: no atomics, an order set by the sizes.
inline Tensor sum_on_cuda(const Tensor& partial, int64_t rows, int64_t columns, int64_t repeat,
                          const Tensor& parameter) {
  const std::array<int64_t, 3> cube{rows, columns, repeat};
  const std::array<int64_t, 2> over{0, 2};
  const Tensor sum = torch::stable::sum(torch::stable::view(partial, cube), over);
  return torch::stable::view(sum, shape_of(parameter));
}

}  // namespace lif::bindings
