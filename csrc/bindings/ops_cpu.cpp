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

template <typename Run>
void run_tasks(const cpu::Tiling& tiling, int64_t threads, const Run& run) {
  if (threads == 1) {
    run(0, tiling.tasks);
    return;
  }
  torch::stable::parallel_for(0, tiling.tasks, (tiling.tasks + threads - 1) / threads, run);
}

template <typename S>
void launch_forward(const Forward<S>& args) {
  const int64_t threads = useful_threads(args.extent);
  const cpu::Tiling tiling = cpu::tile(args.extent, cpu::kForwardNeurons, threads);
  const auto kernels = cpu::active_kernels<S>();
  run_tasks(tiling, threads, [&](int64_t begin, int64_t end) { kernels.forward(args, tiling, begin, end); });
}

template <typename S>
void launch_backward(const Backward<S>& args) {
  const int64_t threads = useful_threads(args.extent);
  const cpu::Tiling tiling = cpu::tile(args.extent, cpu::kBackwardNeurons, threads);
  const auto kernels = cpu::active_kernels<S>();
  run_tasks(tiling, threads, [&](int64_t begin, int64_t end) { kernels.backward(args, tiling, begin, end); });
}

// The sum is the same for any number of threads.
template <typename S>
Tensor reduce(const Tensor& partial, const Tensor& parameter) {
  Tensor sum = torch::stable::new_empty(partial, shape_of(parameter));
  const int64_t columns = parameter.numel();
  if (columns > 0) {
    cpu::active_kernels<S>().sum_rows(static_cast<const S*>(partial.const_data_ptr()),
                                      partial.numel() / columns, columns,
                                      static_cast<S*>(sum.mutable_data_ptr()), 0, columns);
  }
  return sum;
}

std::vector<Tensor> lif_forward(const Tensor& x, const OptionalTensor& membrane, const OptionalTensor& beta,
                                double beta_value, const OptionalTensor& threshold, double threshold_value,
                                int64_t steps, int64_t outputs, int64_t checkpoint_every) {
  const Neurons problem{x, membrane, beta, beta_value, threshold, threshold_value, steps};
  if (x.scalar_type() == ScalarType::Double) {
    return forward<double>(problem, outputs, checkpoint_every, &launch_forward<double>);
  }
  return forward<float>(problem, outputs, checkpoint_every, &launch_forward<float>);
}

std::vector<Tensor> lif_backward(const Tensor& x, const OptionalTensor& membrane, const OptionalTensor& beta,
                                 double beta_value, const OptionalTensor& threshold, double threshold_value,
                                 int64_t steps, const OptionalTensor& checkpoints, int64_t checkpoint_every,
                                 const OptionalTensor& grad_spikes, const OptionalTensor& grad_count,
                                 const OptionalTensor& grad_membrane, int64_t surrogate, double slope,
                                 double scale, bool detach_reset, int64_t wanted) {
  const Neurons problem{x, membrane, beta, beta_value, threshold, threshold_value, steps};
  const Gradients gradients{checkpoints,   checkpoint_every, grad_spikes, grad_count,
                            grad_membrane, surrogate,        slope,       scale,
                            detach_reset};
  if (x.scalar_type() == ScalarType::Double) {
    return backward<double>(problem, gradients, wanted, &launch_backward<double>, &reduce<double>);
  }
  return backward<float>(problem, gradients, wanted, &launch_backward<float>, &reduce<float>);
}

}  // namespace
}  // namespace lif::bindings

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CPU, m) {
  m.impl("lif_forward", TORCH_BOX(&lif::bindings::lif_forward));
  m.impl("lif_backward", TORCH_BOX(&lif::bindings::lif_backward));
}
