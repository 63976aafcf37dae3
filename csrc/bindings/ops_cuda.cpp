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

// torch's sum over dimensions is deterministic on CUDA: no atomics, an order set by the sizes.
Tensor reduce(const Tensor& partial, int64_t rows, int64_t columns, int64_t repeat, const Tensor& parameter) {
  const std::array<int64_t, 3> cube{rows, columns, repeat};
  const std::array<int64_t, 2> over{0, 2};
  const Tensor sum = torch::stable::sum(torch::stable::view(partial, cube), over);
  return torch::stable::view(sum, shape_of(parameter));
}

std::vector<Tensor> lif_forward(const Tensor& x, const Tensors& state, const Tensors& parameters,
                                const std::vector<double>& numbers, int64_t time_dim, int64_t steps,
                                bool time_first, int64_t reset, int64_t traits, int64_t refractory,
                                double rest, int64_t outputs, int64_t checkpoint_every) {
  const Problem problem{x,          state, parameters, numbers,    time_dim, steps,
                        time_first, reset, traits,     refractory, rest};
  const int32_t device = x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  return with_type_of(x, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    return forward<T>(problem, outputs, checkpoint_every, [&](const Forward<T>& args) {
      check_launch(cuda::launch_forward(args, current_stream(device)), "lif_forward");
    });
  });
}

std::vector<Tensor> lif_backward(const Tensor& x, const Tensors& state, const Tensors& parameters,
                                 const std::vector<double>& numbers, int64_t time_dim, int64_t steps,
                                 bool time_first, int64_t reset, int64_t traits, int64_t refractory,
                                 double rest, const OptionalTensor& checkpoints, int64_t checkpoint_every,
                                 const OptionalTensor& first_spike, const Tensors& grads, int64_t surrogate,
                                 double slope, double scale, const OptionalTensor& table, int64_t wanted) {
  const Problem problem{x,          state, parameters, numbers,    time_dim, steps,
                        time_first, reset, traits,     refractory, rest};
  const Gradients gradients{checkpoints, checkpoint_every, first_spike, grads,
                            surrogate,   slope,            scale,       table};
  const int32_t device = x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  return with_type_of(x, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    const auto launch = [&](const Backward<T>& args) {
      const int64_t longest = cuda::longest_chunk<T>(args.neuron);
      STD_TORCH_CHECK(args.chunk <= longest, "a chunk of ", args.chunk,
                      " time steps does not fit in shared memory; give checkpoints every ", longest,
                      " steps or fewer");
      check_launch(cuda::launch_backward(args, current_stream(device)), "lif_backward");
    };
    return backward<T>(problem, gradients, wanted, launch, &reduce);
  });
}

}  // namespace
}  // namespace lif::bindings

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CUDA, m) {
  m.impl("lif_forward", TORCH_BOX(&lif::bindings::lif_forward));
  m.impl("lif_backward", TORCH_BOX(&lif::bindings::lif_backward));
}
