// The operators on the CPU: tensors in, tasks on torch's own threads, tensors out.
#include "cpu/dispatch.h"
#include "ops/direct.h"
#include "ops/operators.h"

namespace lif::ops {
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

// The samples of a padded batch take steps of their own, and often come in the order of their lengths: each
// thread takes pieces from the whole of the batch.
template <typename Args, typename Kernel>
void run_tasks_in_turns(const Args& args, const cpu::Tiling& tiling, int64_t threads, const Kernel& kernel) {
  constexpr int64_t kTurns = 8;
  const int64_t pieces = std::min(tiling.tasks, kTurns * threads);
  torch::stable::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; ++thread) {
      for (int64_t piece = thread; piece < pieces; piece += threads) {
        kernel(args, tiling, piece * tiling.tasks / pieces, (piece + 1) * tiling.tasks / pieces);
      }
    }
  });
}

// Run `kernel(args, tiling, begin, end)` over all tasks.
template <typename Args, typename Kernel>
void run_tasks(const Args& args, int64_t most_neurons, const Kernel& kernel) {
  const int64_t threads = useful_threads(args.extent);
  const cpu::Tiling tiling = cpu::tile(args.extent, most_neurons, threads, cpu::together(args));
  if (threads == 1) {
    kernel(args, tiling, 0, tiling.tasks);
    return;
  }
  if (args.lengths.values != nullptr) {
    run_tasks_in_turns(args, tiling, threads, kernel);
    return;
  }
  torch::stable::parallel_for(0, tiling.tasks, (tiling.tasks + threads - 1) / threads,
                              [&](int64_t begin, int64_t end) { kernel(args, tiling, begin, end); });
}

// A task is a part of a row, and all of its neurons take the same steps.
void check_lengths(const Extent& extent, const Parameter<int64_t>& lengths) {
  if (lengths.values == nullptr) {
    return;
  }
  STD_TORCH_CHECK(lengths.period == 1 || lengths.repeat % extent.inner == 0,
                  "lengths must be the same for all inner neurons");
  for (int64_t i = 0; i < lengths.period; ++i) {
    STD_TORCH_CHECK(lengths.values[i] >= 0 && lengths.values[i] <= extent.steps, "lengths must be in [0, ",
                    extent.steps, "], the time steps that there are, got ", lengths.values[i]);
  }
}

struct Cpu {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  template <typename T>
  static void forward(const Forward<T>& args, const Tensor&) {
    check_lengths(args.extent, args.lengths);
    const cpu::Kernels<T> kernels = cpu::active_kernels<T>();
    run_tasks(args, kernels.forward_neurons(args), kernels.forward);
  }

  template <typename T>
  static void backward(const Backward<T>& args, const Tensor&) {
    check_lengths(args.extent, args.lengths);
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
}  // namespace lif::ops

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CPU, m) {
  m.impl("lif_forward", TORCH_BOX(&lif::ops::lif_forward<lif::ops::Cpu>));
  m.impl("lif_backward", TORCH_BOX(&lif::ops::lif_backward<lif::ops::Cpu>));
  m.impl("lif", TORCH_BOX(&lif::ops::lif<lif::ops::Cpu>));
}

const lif::ops::Direct lif_cuda_direct{&lif::ops::lif_forward<lif::ops::Cpu>,
                                       &lif::ops::lif_backward<lif::ops::Cpu>};
