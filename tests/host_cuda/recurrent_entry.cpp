// The CUDA launchers and kernels of recurrent layers, compiled for the host, as operators on CPU tensors: a
// library beside that of entry.cpp, which takes minutes to compile.
#include <string>

#include "bindings/recurrent_device.h"
#include "cuda/launch_recurrent.h"
#include "machine.h"

namespace lif::bindings {
namespace {

struct HostCuda {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  template <typename T, typename W>
  static void forward(const RecurrentForward<T, W>& args, const Tensor&) {
    finish(cuda::launch_recurrent_forward(args, nullptr));
  }

  template <typename T, typename W>
  static void backward(const RecurrentBackward<T, W>& args, const Tensor&) {
    finish(cuda::launch_recurrent_backward(args, nullptr));
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
      for (int64_t r = 0; r < rows * repeat; ++r) {
        total += static_cast<double>(from[r * columns + c]);
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

STABLE_TORCH_LIBRARY(lif_cuda_recurrent_on_host, m) {
  m.def(lif::bindings::kRecurrentForwardSchema);
  m.def(lif::bindings::kRecurrentBackwardSchema);
}

STABLE_TORCH_LIBRARY_IMPL(lif_cuda_recurrent_on_host, CPU, m) {
  m.impl("recurrent_forward", TORCH_BOX(&lif::bindings::recurrent_forward_on<lif::bindings::HostCuda>));
  m.impl("recurrent_backward", TORCH_BOX(&lif::bindings::recurrent_backward_on<lif::bindings::HostCuda>));
}

extern "C" {

__attribute__((visibility("default"))) const char* host_last_kernel() {
  static std::string symbol;
  symbol = host_cuda::last_kernel_symbol();
  return symbol.c_str();
}

__attribute__((visibility("default"))) void host_set_device(int multiprocessors, int shared_bytes) {
  host_cuda::multiprocessors = multiprocessors;
  host_cuda::shared_optin = shared_bytes;
}
}
