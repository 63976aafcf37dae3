// The CUDA launchers and kernels, compiled for the host, as operators on CPU tensors: the bindings that the
// CUDA library has, behind the same schemas, in a namespace of their own.
#include <string>

#include "bindings/operators.h"
#include "cuda/launch.h"
#include "machine.h"

namespace lif::bindings {
namespace {

struct HostCuda {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  template <typename T>
  static void forward(const Forward<T>& args, const Tensor&) {
    finish(cuda::launch_forward(args, nullptr));
  }

  template <typename T>
  static void backward(const Backward<T>& args, const Tensor&) {
    finish(cuda::launch_backward(args, nullptr));
  }

  // Sums in order; what a GPU does with partial gradients is torch's own sum.
  template <typename T>
  static Tensor reduce(const Tensor& partial, int64_t rows, int64_t columns, int64_t repeat,
                       const Tensor& parameter) {
    using S = StateOf<T>;
    Tensor sum = torch::stable::new_empty(partial, shape_of(parameter));
    const S* from = static_cast<const S*>(partial.const_data_ptr());
    S* to = static_cast<S*>(sum.mutable_data_ptr());
    for (int64_t c = 0; c < columns; ++c) {
      double total = 0;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t p = 0; p < repeat; ++p) {
          total += static_cast<double>(from[(r * columns + c) * repeat + p]);
        }
      }
      to[c] = static_cast<S>(total);
    }
    return sum;
  }

 private:
  static void finish(int error) {
    const std::string fault = host_cuda::take_fault();
    STD_TORCH_CHECK(error == 0, "CUDA error ", error);
    STD_TORCH_CHECK(fault.empty(), fault);
  }
};

}  // namespace
}  // namespace lif::bindings

STABLE_TORCH_LIBRARY(lif_cuda_on_host, m) {
  m.def(lif::bindings::kForwardSchema);
  m.def(lif::bindings::kBackwardSchema);
}

STABLE_TORCH_LIBRARY_IMPL(lif_cuda_on_host, CPU, m) {
  m.impl("lif_forward", TORCH_BOX(&lif::bindings::lif_forward<lif::bindings::HostCuda>));
  m.impl("lif_backward", TORCH_BOX(&lif::bindings::lif_backward<lif::bindings::HostCuda>));
}

extern "C" {

// The kernel of the last launch, with its arguments.
__attribute__((visibility("default"))) const char* host_last_kernel() {
  static std::string symbol;
  symbol = host_cuda::last_kernel_symbol();
  return symbol.c_str();
}

__attribute__((visibility("default"))) unsigned host_launches() { return host_cuda::launches; }

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
