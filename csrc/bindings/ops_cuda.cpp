// The operators on CUDA: tensors in, one launch on the current stream, tensors out. No host synchronisation.
#include <torch/csrc/stable/accelerator.h>

#include "bindings/direct.h"
#include "bindings/operators.h"
#include "cuda/launch.h"

namespace lif::bindings {
namespace {

void* current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
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

struct Cuda {
  struct Guard {
    explicit Guard(const Tensor& x) : device(x.get_device_index()) {}
    torch::stable::accelerator::DeviceGuard device;
  };

  template <typename T>
  static void forward(const Forward<T>& args, const Tensor& x) {
    check_launch(cuda::launch_forward(args, current_stream(x)), "lif_forward");
  }

  template <typename T>
  static void backward(const Backward<T>& args, const Tensor& x) {
    int64_t longest = 0;
    check_launch(cuda::longest_chunk<T>(args.neuron, longest), "lif_backward");
    STD_TORCH_CHECK(args.chunk <= longest, "a chunk of ", args.chunk,
                    " time steps does not fit in shared memory; give checkpoints every ", longest,
                    " steps or fewer");
    check_launch(cuda::launch_backward(args, current_stream(x)), "lif_backward");
  }

  template <typename S>
  static void sum(const std::vector<PartialSum<S>>& sums, const Tensor& x) {
    const int64_t doubles = cuda::sum_scratch(sums);
    std::optional<Tensor> scratch;
    if (doubles > 0) {
      scratch = new_empty(x, Shape{doubles}, ScalarType::Double);
    }
    double* data = scratch ? static_cast<double*>(scratch->mutable_data_ptr()) : nullptr;
    check_launch(cuda::launch_sums(sums, data, current_stream(x)), "lif_backward");
  }
};

}  // namespace
}  // namespace lif::bindings

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CUDA, m) {
  m.impl("lif_forward", TORCH_BOX(&lif::bindings::lif_forward<lif::bindings::Cuda>));
  m.impl("lif_backward", TORCH_BOX(&lif::bindings::lif_backward<lif::bindings::Cuda>));
  m.impl("lif", TORCH_BOX(&lif::bindings::lif<lif::bindings::Cuda>));
}

const lif::bindings::Direct lif_cuda_direct{&lif::bindings::lif_forward<lif::bindings::Cuda>,
                                            &lif::bindings::lif_backward<lif::bindings::Cuda>};
