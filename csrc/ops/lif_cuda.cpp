// The operators on CUDA: tensors in, one launch on the current stream, tensors out. No host synchronisation.
#include "cuda/launch.h"
#include "ops/cuda_calls.h"
#include "ops/direct.h"
#include "ops/operators.h"

namespace lif::ops {
namespace {

struct Cuda {
  using Guard = CudaGuard;

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
    sum_on_cuda(sums, x, "lif_backward");
  }
};

}  // namespace
}  // namespace lif::ops

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CUDA, m) {
  m.impl("lif_forward", TORCH_BOX(&lif::ops::lif_forward<lif::ops::Cuda>));
  m.impl("lif_backward", TORCH_BOX(&lif::ops::lif_backward<lif::ops::Cuda>));
  m.impl("lif", TORCH_BOX(&lif::ops::lif<lif::ops::Cuda>));
}

const lif::ops::Direct lif_cuda_direct{&lif::ops::lif_forward<lif::ops::Cuda>,
                                       &lif::ops::lif_backward<lif::ops::Cuda>};
