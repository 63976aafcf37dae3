// The operators on CUDA: tensors in, one launch on the current stream, tensors out. No host synchronisation.
#include <torch/csrc/stable/accelerator.h>

#include "bindings/problem.h"
#include "cuda/launch.h"

namespace lif::bindings {
namespace {

void* current_stream(int32_t device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return stream;
}

void check_launch(int error, const char* name) {
  char* message = nullptr;
  torch_c10_cuda_check_msg(error, __FILE__, name, __LINE__, true, &message);
  if (message != nullptr) {
    const std::string text(message);
    torch_c10_cuda_free_error_msg(message);
    throw std::runtime_error(text);
  }
}

// torch's sum over a dimension is deterministic on CUDA: no atomics, an order set by the sizes.
Tensor reduce(const Tensor& partial, const Tensor& parameter) {
  const int64_t columns = parameter.numel();
  const int64_t rows = columns > 0 ? partial.numel() / columns : 0;
  const std::array<int64_t, 2> matrix{rows, columns};
  const std::array<int64_t, 1> over{0};
  const Tensor sum = torch::stable::sum(torch::stable::view(partial, matrix), over);
  return torch::stable::view(sum, shape_of(parameter));
}

template <typename S>
std::vector<Tensor> forward_as(const Neurons& problem, int64_t outputs, int64_t checkpoint_every) {
  const int32_t device = problem.x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  return forward<S>(problem, outputs, checkpoint_every, [&](const Forward<S>& args) {
    check_launch(cuda::launch_forward(args, current_stream(device)), "lif_forward");
  });
}

template <typename S>
std::vector<Tensor> backward_as(const Neurons& problem, const Gradients& gradients, int64_t wanted) {
  const int32_t device = problem.x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const auto launch = [&](const Backward<S>& args) {
    STD_TORCH_CHECK(args.chunk <= cuda::longest_chunk<S>(), "a chunk of ", args.chunk,
                    " time steps does not fit in shared memory; give checkpoints every ",
                    cuda::longest_chunk<S>(), " steps or fewer");
    check_launch(cuda::launch_backward(args, current_stream(device)), "lif_backward");
  };
  return backward<S>(problem, gradients, wanted, launch, &reduce);
}

std::vector<Tensor> lif_forward(const Tensor& x, const OptionalTensor& membrane, const OptionalTensor& beta,
                                double beta_value, const OptionalTensor& threshold, double threshold_value,
                                int64_t steps, int64_t outputs, int64_t checkpoint_every) {
  const Neurons problem{x, membrane, beta, beta_value, threshold, threshold_value, steps};
  return x.scalar_type() == ScalarType::Double ? forward_as<double>(problem, outputs, checkpoint_every)
                                               : forward_as<float>(problem, outputs, checkpoint_every);
}

std::vector<Tensor> lif_backward(const Tensor& x, const OptionalTensor& membrane, const OptionalTensor& beta,
                                 double beta_value, const OptionalTensor& threshold, double threshold_value,
                                 int64_t steps, const OptionalTensor& checkpoints, int64_t checkpoint_every,
                                 const OptionalTensor& grad_spikes, const OptionalTensor& grad_count,
                                 const OptionalTensor& grad_membrane, int64_t surrogate, double slope,
                                 double scale, bool detach_reset, int64_t wanted) {
  const Neurons problem{x, membrane, beta, beta_value, threshold, threshold_value, steps};
  const Gradients gradients{checkpoints,   checkpoint_every, grad_spikes, grad_count,
                            grad_membrane, surrogate,        slope,       scale,
                            detach_reset};
  return x.scalar_type() == ScalarType::Double ? backward_as<double>(problem, gradients, wanted)
                                               : backward_as<float>(problem, gradients, wanted);
}

}  // namespace
}  // namespace lif::bindings

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CUDA, m) {
  m.impl("lif_forward", TORCH_BOX(&lif::bindings::lif_forward));
  m.impl("lif_backward", TORCH_BOX(&lif::bindings::lif_backward));
}
