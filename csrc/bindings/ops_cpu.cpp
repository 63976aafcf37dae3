// The operators on the CPU: tensors in, tasks on torch's own threads, tensors out.
#include "bindings/direct.h"
#include "bindings/operators.h"
#include "cpu/dispatch.h"

namespace lif::bindings {
namespace {

// Below this many neuron-steps a thread's start costs more than it saves: of forward and backward, 32,768
// took 107 us on one thread and 111 on two, 65,536 123 and 115, half a million 432 and 278.
constexpr int64_t kWorthAThread = 32768;

int64_t useful_threads(const Extent& extent) {
  const int64_t work = neurons(extent) * extent.steps;
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t most = work / kWorthAThread;
  return most < 1 ? 1 : most < threads ? most : threads;
}

// Run `kernel(args, tiling, begin, end)` over all tasks.
template <typename Args, typename Kernel>
void run_tasks(const Args& args, int64_t most_neurons, const Kernel& kernel) {
  const int64_t threads = useful_threads(args.extent);
  const cpu::Tiling tiling = cpu::tile(args.extent, most_neurons, threads);
  if (threads == 1) {
    kernel(args, tiling, 0, tiling.tasks);
    return;
  }
  torch::stable::parallel_for(0, tiling.tasks, (tiling.tasks + threads - 1) / threads,
                              [&](int64_t begin, int64_t end) { kernel(args, tiling, begin, end); });
}

struct Cpu {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  template <typename T>
  static void forward(const Forward<T>& args, const Tensor&) {
    const cpu::Kernels<T> kernels = cpu::active_kernels<T>();
    run_tasks(args, kernels.forward_neurons(args), kernels.forward);
  }

  template <typename T>
  static void backward(const Backward<T>& args, const Tensor&) {
    const cpu::Kernels<T> kernels = cpu::active_kernels<T>();
    run_tasks(args, kernels.backward_neurons(args), kernels.backward);
  }

  // Each is the same for any number of threads.
  template <typename S>
  static void sum(const std::vector<PartialSum<S>>& sums, const Tensor&) {
    for (const PartialSum<S>& each : sums) {
      if (each.columns > 0) {
        cpu::active_kernels<S>().sum_partials(each.values, each.rows, each.columns, each.repeat, each.sum);
      }
    }
  }
};

}  // namespace
}  // namespace lif::bindings

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CPU, m) {
  m.impl("lif_forward", TORCH_BOX(&lif::bindings::lif_forward<lif::bindings::Cpu>));
  m.impl("lif_backward", TORCH_BOX(&lif::bindings::lif_backward<lif::bindings::Cpu>));
  m.impl("lif", TORCH_BOX(&lif::bindings::lif<lif::bindings::Cpu>));
}

const lif::bindings::Direct lif_cuda_direct{&lif::bindings::lif_forward<lif::bindings::Cpu>,
                                            &lif::bindings::lif_backward<lif::bindings::Cpu>};
