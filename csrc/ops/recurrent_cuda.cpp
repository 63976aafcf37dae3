// The operators of recurrent layers on CUDA: one launch each way on the current stream. The gradients of the
// weight and the bias are products of what is there, and torch's own.
#include "cuda/launch_recurrent.h"
#include "ops/cuda_calls.h"
#include "ops/recurrent_device.h"

namespace lif::ops {
namespace {

struct RecurrentCuda {
  using Guard = CudaGuard;

  template <typename T, typename W>
  static void forward(const RecurrentForward<T, W>& args, const Tensor& x) {
    check_launch(cuda::launch_recurrent_forward(args, current_stream(x)), "recurrent_forward");
  }

  template <typename T, typename W>
  static void backward(const RecurrentBackward<T, W>& args, const Tensor& u) {
    check_launch(cuda::launch_recurrent_backward(args, current_stream(u)), "recurrent_backward");
  }

  template <typename S>
  static void sum(const std::vector<PartialSum<S>>& sums, const Tensor& u) {
    sum_on_cuda(sums, u, "recurrent_backward");
  }
};

}  // namespace
}  // namespace lif::ops

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CUDA, m) {
  m.impl("recurrent",
         TORCH_BOX(&lif::ops::recurrent<&lif::ops::recurrent_forward_on<lif::ops::RecurrentCuda>>));
  m.impl("recurrent_forward", TORCH_BOX(&lif::ops::recurrent_forward_on<lif::ops::RecurrentCuda>));
  m.impl("recurrent_backward", TORCH_BOX(&lif::ops::recurrent_backward_on<lif::ops::RecurrentCuda>));
}
