// The CUDA launchers and kernels of recurrent layers, compiled for the host, as operators on CPU tensors: a
// library beside that of entry.cpp, which takes minutes to compile.
#include <string>

#include "cuda/launch.h"
#include "cuda/launch_recurrent.h"
#include "finish.h"
#include "machine.h"
#include "ops/recurrent_device.h"

namespace lif::ops {
namespace {

// The kernel of the last launch; those of sums apart.
std::string last_kernel;

struct HostCuda {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  template <typename T, typename W>
  static void forward(const RecurrentForward<T, W>& args, const Tensor&) {
    const int error = cuda::launch_recurrent_forward(args, nullptr);
    last_kernel = host_cuda::last_kernel_symbol();
    finish(error);
  }

  template <typename T, typename W>
  static void backward(const RecurrentBackward<T, W>& args, const Tensor&) {
    const int error = cuda::launch_recurrent_backward(args, nullptr);
    last_kernel = host_cuda::last_kernel_symbol();
    finish(error);
  }

  template <typename S>
  static void sum(const std::vector<PartialSum<S>>& sums, const Tensor&) {
    std::vector<double> scratch(cuda::sum_scratch(sums));
    finish(cuda::launch_sums(sums, scratch.empty() ? nullptr : scratch.data(), nullptr));
  }
};

}  // namespace
}  // namespace lif::ops

STABLE_TORCH_LIBRARY(lif_cuda_recurrent_on_host, m) {
  m.def(lif::ops::kRecurrentForwardSchema);
  m.def(lif::ops::kRecurrentBackwardSchema);
}

STABLE_TORCH_LIBRARY_IMPL(lif_cuda_recurrent_on_host, CPU, m) {
  m.impl("recurrent_forward", TORCH_BOX(&lif::ops::recurrent_forward_on<lif::ops::HostCuda>));
  m.impl("recurrent_backward", TORCH_BOX(&lif::ops::recurrent_backward_on<lif::ops::HostCuda>));
}

extern "C" {

__attribute__((visibility("default"))) const char* host_last_kernel() {
  return lif::ops::last_kernel.c_str();
}

__attribute__((visibility("default"))) void host_set_device(int multiprocessors, int shared_bytes) {
  host_cuda::multiprocessors = multiprocessors;
  host_cuda::shared_optin = shared_bytes;
}
}
