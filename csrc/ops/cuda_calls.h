// What every operator on CUDA needs of torch: the device, the stream, the text of an error, sums of partial
// gradients.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "ops/allocation.h"

namespace lif::ops {

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

template <typename S>
void sum_on_cuda(const std::vector<PartialSum<S>>& sums, const Tensor& x, const char* name) {
  const int64_t doubles = cuda::sum_scratch(sums);
  std::optional<Tensor> scratch;
  if (doubles > 0) {
    scratch = new_empty(x, Shape{doubles}, ScalarType::Double);
  }
  double* data = scratch ? static_cast<double*>(scratch->mutable_data_ptr()) : nullptr;
  check_launch(cuda::launch_sums(sums, data, current_stream(x)), name);
}

}  // namespace lif::ops
