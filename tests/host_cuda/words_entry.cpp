// The CUDA kernels of packed spikes, compiled for the host, as operators on CPU tensors.
#include <string>

#include "cuda/launch_words.h"
#include "finish.h"
#include "machine.h"
#include "ops/interface.h"
#include "ops/words.h"

namespace lif::ops {
namespace {

std::string last_kernel;

struct HostCuda {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  template <typename T>
  static bool pack(const T* spikes, int64_t rows, int64_t neurons, uint64_t* words, const Tensor&) {
    const int error = cuda::launch_pack(spikes, rows, neurons, words, nullptr);
    last_kernel = host_cuda::last_kernel_symbol();
    finish(error);
    return true;
  }

  template <typename T>
  static void unpack(const uint64_t* words, int64_t rows, int64_t neurons, T* spikes, const Tensor&) {
    const int error = cuda::launch_unpack(words, rows, neurons, spikes, nullptr);
    last_kernel = host_cuda::last_kernel_symbol();
    finish(error);
  }
};

}  // namespace
}  // namespace lif::ops

STABLE_TORCH_LIBRARY(lif_cuda_words_on_host, m) {
  m.def(lif::ops::kPackSchema);
  m.def(lif::ops::kUnpackSchema);
}

STABLE_TORCH_LIBRARY_IMPL(lif_cuda_words_on_host, CPU, m) {
  m.impl("spike_pack", TORCH_BOX(&lif::ops::spike_pack<lif::ops::HostCuda>));
  m.impl("spike_unpack", TORCH_BOX(&lif::ops::spike_unpack<lif::ops::HostCuda>));
}

extern "C" {

// The kernel of the last launch, with its arguments.
__attribute__((visibility("default"))) const char* host_last_kernel() {
  return lif::ops::last_kernel.c_str();
}
}
