// The CUDA launchers and kernels, compiled for the host, as operators on CPU tensors: the code of csrc/ops
// that the CUDA library has, behind the same schemas, in a namespace of their own.
#include <string>

#include "cuda/launch.h"
#include "finish.h"
#include "machine.h"
#include "ops/operators.h"

namespace lif::ops {
namespace {

// The kernel of the last launch of a neuron, and how many launches there were; those of sums apart.
std::string last_kernel;
unsigned launches = 0;

struct HostCuda {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  template <typename T>
  static void forward(const Forward<T>& args, const Tensor&) {
    of_neuron([&] { return cuda::launch_forward(args, nullptr); });
  }

  template <typename T>
  static void backward(const Backward<T>& args, const Tensor&) {
    of_neuron([&] { return cuda::launch_backward(args, nullptr); });
  }

  template <typename S>
  static void sum(const std::vector<PartialSum<S>>& sums, const Tensor&) {
    std::vector<double> scratch(cuda::sum_scratch(sums));
    finish(cuda::launch_sums(sums, scratch.empty() ? nullptr : scratch.data(), nullptr));
  }

 private:
  template <typename Launch>
  static void of_neuron(const Launch& launch) {
    const unsigned before = host_cuda::launches;
    const int error = launch();
    launches += host_cuda::launches - before;
    last_kernel = host_cuda::last_kernel_symbol();
    finish(error);
  }
};

}  // namespace
}  // namespace lif::ops

STABLE_TORCH_LIBRARY(lif_cuda_on_host, m) {
  m.def(lif::ops::kForwardSchema);
  m.def(lif::ops::kBackwardSchema);
}

STABLE_TORCH_LIBRARY_IMPL(lif_cuda_on_host, CPU, m) {
  m.impl("lif_forward", TORCH_BOX(&lif::ops::lif_forward<lif::ops::HostCuda>));
  m.impl("lif_backward", TORCH_BOX(&lif::ops::lif_backward<lif::ops::HostCuda>));
}

extern "C" {

// The kernel of a neuron's last launch, with its arguments.
__attribute__((visibility("default"))) const char* host_last_kernel() {
  return lif::ops::last_kernel.c_str();
}

__attribute__((visibility("default"))) unsigned host_launches() { return lif::ops::launches; }

// Multiprocessors that the stand-in for a device claims to have, and what a block of it may ask for.
__attribute__((visibility("default"))) void host_set_device(int multiprocessors, int shared_bytes) {
  host_cuda::multiprocessors = multiprocessors;
  host_cuda::shared_optin = shared_bytes;
}

// Steps between the checkpoints for which kernels are compiled.
__attribute__((visibility("default"))) int host_chunk() { return lif::cuda::kChunk; }

__attribute__((visibility("default"))) int64_t host_longest_chunk() {
  int64_t steps = 0;
  lif::cuda::longest_chunk<float>({}, steps);
  return steps;
}
}
