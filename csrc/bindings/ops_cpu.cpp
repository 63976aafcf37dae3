// The operators on the CPU: tensors in, tasks on torch's own threads, tensors out.
#include "bindings/problem.h"
#include "cpu/kernels.h"

namespace lif::bindings {
namespace {

// Below this many neuron-steps a thread's start costs more than it saves (some 5 us at 0.3 ns each).
constexpr int64_t kWorthAThread = 16384;

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

std::vector<Tensor> lif_forward(const Tensor& x, const Tensors& state, const Tensors& parameters,
                                const std::vector<double>& numbers, int64_t time_dim, int64_t steps,
                                bool time_first, int64_t reset, int64_t traits, int64_t refractory,
                                double rest, int64_t outputs, int64_t checkpoint_every) {
  const Problem problem{x,          state, parameters, numbers,    time_dim, steps,
                        time_first, reset, traits,     refractory, rest};
  return with_type_of(x, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    return forward<T>(problem, outputs, checkpoint_every, [](const Forward<T>& args) {
      run_tasks(args, cpu::kForwardNeurons, cpu::active_kernels<T>().forward);
    });
  });
}

std::vector<Tensor> lif_backward(const Tensor& x, const Tensors& state, const Tensors& parameters,
                                 const std::vector<double>& numbers, int64_t time_dim, int64_t steps,
                                 bool time_first, int64_t reset, int64_t traits, int64_t refractory,
                                 double rest, const OptionalTensor& checkpoints, int64_t checkpoint_every,
                                 const OptionalTensor& first_spike, const Tensors& grads, int64_t surrogate,
                                 double slope, double scale, const OptionalTensor& table, int64_t wanted) {
  const Problem problem{x,          state, parameters, numbers,    time_dim, steps,
                        time_first, reset, traits,     refractory, rest};
  const Gradients gradients{checkpoints, checkpoint_every, first_spike, grads,
                            surrogate,   slope,            scale,       table};
  return with_type_of(x, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    using S = StateOf<T>;
    const auto launch = [](const Backward<T>& args) {
      run_tasks(args, cpu::kBackwardNeurons, cpu::active_kernels<T>().backward);
    };
    // The sum is the same for any number of threads.
    const auto reduce = [](const Tensor& partial, int64_t rows, int64_t columns, int64_t repeat,
                           const Tensor& parameter) {
      Tensor sum = torch::stable::new_empty(partial, shape_of(parameter));
      if (columns > 0) {
        cpu::active_kernels<T>().sum_partials(static_cast<const S*>(partial.const_data_ptr()), rows, columns,
                                              repeat, static_cast<S*>(sum.mutable_data_ptr()));
      }
      return sum;
    };
    return backward<T>(problem, gradients, wanted, launch, reduce);
  });
}

}  // namespace
}  // namespace lif::bindings

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CPU, m) {
  m.impl("lif_forward", TORCH_BOX(&lif::bindings::lif_forward));
  m.impl("lif_backward", TORCH_BOX(&lif::bindings::lif_backward));
}
