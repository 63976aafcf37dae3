// The operators of recurrent layers on the CPU: samples on torch's own threads.
#include "cpu/recurrent.h"
#include "ops/recurrent.h"

namespace lif::ops {
namespace {

template <typename T>
cpu::RecurrentKernels<T> active_recurrent_kernels() {
#if defined(__x86_64__)
  switch (active_simd()) {
    case Simd::avx512:
      return cpu::avx512::recurrent_kernels<T>();
    case Simd::avx2:
      return cpu::avx2::recurrent_kernels<T>();
    case Simd::baseline:
      break;
  }
#endif
  return cpu::baseline::recurrent_kernels<T>();
}

template <typename S>
cpu::RecurrentWeightKernels<S> active_recurrent_weight_kernels() {
#if defined(__x86_64__)
  switch (active_simd()) {
    case Simd::avx512:
      return cpu::avx512::recurrent_weight_kernels<S>();
    case Simd::avx2:
      return cpu::avx2::recurrent_weight_kernels<S>();
    case Simd::baseline:
      break;
  }
#endif
  return cpu::baseline::recurrent_weight_kernels<S>();
}

// Below this many neuron-steps a second thread is not worth its start, as for the other layers.
constexpr int64_t kWorthAThread = 32768;

// Run `run(begin, end)` over `tasks`, of `work` neuron-steps in all.
template <typename Run>
void in_parallel(int64_t tasks, int64_t work, const Run& run) {
  const int64_t most = std::max<int64_t>(1, work / kWorthAThread);
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), most);
  if (threads == 1) {
    run(0, tasks);
  } else {
    torch::stable::parallel_for(0, tasks, (tasks + threads - 1) / threads, run);
  }
}

int64_t work_of(const RecurrentExtent& extent) { return extent.steps * extent.samples * extent.neurons; }

void check_weight(const RecurrentProblem& problem, ScalarType state) {
  STD_TORCH_CHECK(problem.weight.scalar_type() == state, "weight must have the dtype of the state");
}

std::vector<Tensor> forward_on_cpu(const Tensor& x, const Tensor& weight, const std::vector<Tensor>& given,
                                   const std::vector<int64_t>& ints, const std::vector<double>& floats) {
  const RecurrentProblem problem(x, weight, given, ints, floats);
  return with_type_of(x, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    using S = StateOf<T>;
    check_weight(problem, kTypeOf<S>);
    const auto kernels = active_recurrent_kernels<T>();
    const int64_t row = cpu::whole_vectors(problem.extent.neurons);
    return recurrent_forward<T, S>(problem, row, [&](const RecurrentForward<T>& args) {
      const auto [steps, samples, neurons] = args.extent;
      const std::unique_ptr<S[]> packed(new S[static_cast<size_t>(kernels.packed_size(neurons))]);
      kernels.pack_forward(args.weight, neurons, packed.get());
      in_parallel(samples, work_of(args.extent),
                  [&](int64_t begin, int64_t end) { kernels.forward(args, packed.get(), begin, end); });
    });
  });
}

template <typename T>
std::vector<Tensor> backward_of(const RecurrentProblem& problem) {
  using S = StateOf<T>;
  check_weight(problem, kTypeOf<S>);
  STD_TORCH_CHECK(problem.rows.size(2) == cpu::whole_vectors(problem.extent.neurons),
                  "u must be what recurrent_forward kept");
  const auto kernels = active_recurrent_kernels<T>();
  return recurrent_backward<T, S>(
      problem,
      [&](const RecurrentBackward<T>& args) {
        const auto [steps, samples, neurons] = args.extent;
        const std::unique_ptr<S[]> packed(new S[static_cast<size_t>(kernels.packed_size(neurons))]);
        kernels.pack_backward(args.weight, neurons, packed.get());
        in_parallel(samples, work_of(args.extent),
                    [&](int64_t begin, int64_t end) { kernels.backward(args, packed.get(), begin, end); });
      },
      [&](const std::vector<PartialSum<S>>& sums) {
        for (const PartialSum<S>& each : sums) {
          if (each.columns > 0) {
            kernels.sum_partials(each.values, each.rows, each.columns, each.repeat, each.sum);
          }
        }
      });
}

std::vector<Tensor> backward_on_cpu(const Tensor& u, const Tensor& weight, const std::vector<Tensor>& given,
                                    const std::vector<int64_t>& ints, const std::vector<double>& floats) {
  const RecurrentProblem problem(u, weight, given, ints, floats);
  const Tensor* spikes = problem.given[RecurrentSlot::grad_spikes];
  const Tensor* trace = problem.given[RecurrentSlot::grad_trace];
  return with_type_of(spikes  ? *spikes
                      : trace ? *trace
                              : u,
                      [&](auto* of) { return backward_of<std::remove_pointer_t<decltype(of)>>(problem); });
}

template <typename S>
std::vector<Tensor> weights_of(const Tensor& grad_input, const Tensor& fired_before, int64_t neurons,
                               int64_t asked) {
  const auto kernels = active_recurrent_weight_kernels<S>();
  RecurrentWeights<S> args;
  args.rows = grad_input.size(0) * grad_input.size(1);
  args.neurons = neurons;
  args.grad_input = static_cast<const S*>(grad_input.const_data_ptr());
  args.stride = grad_input.size(2);
  args.fired_before = static_cast<const uint64_t*>(fired_before.const_data_ptr());
  args.words = fired_before.size(2);
  Returned returned(grad_input);
  args.grad_weight = returned.add<S>((asked & kGradWeight) != 0, {neurons, neurons}, kTypeOf<S>);
  args.grad_bias = returned.add<S>((asked & kGradBias) != 0, {neurons}, kTypeOf<S>);
  in_parallel(kernels.tasks(args), args.rows * neurons,
              [&](int64_t begin, int64_t end) { kernels.run(args, begin, end); });
  return returned.take();
}

std::vector<Tensor> weights_on_cpu(const Tensor& grad_input, const Tensor& fired_before, int64_t neurons,
                                   int64_t asked) {
  STD_TORCH_CHECK(grad_input.dim() == 3 && grad_input.is_contiguous() && neurons >= 0 &&
                      grad_input.size(2) == cpu::whole_vectors(neurons),
                  "grad_input must be what recurrent_backward returned");
  STD_TORCH_CHECK(
      fired_before.dim() == 3 && fired_before.is_contiguous() &&
          fired_before.scalar_type() == ScalarType::Long && fired_before.size(0) == grad_input.size(0) &&
          fired_before.size(1) == grad_input.size(1) && fired_before.size(2) == spike_words(neurons),
      "fired_before must be what recurrent_forward kept");
  if (grad_input.scalar_type() == ScalarType::Double) {
    return weights_of<double>(grad_input, fired_before, neurons, asked);
  }
  STD_TORCH_CHECK(grad_input.scalar_type() == ScalarType::Float, "grad_input must be float32 or float64");
  return weights_of<float>(grad_input, fired_before, neurons, asked);
}

}  // namespace
}  // namespace lif::ops

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CPU, m) {
  m.impl("recurrent", TORCH_BOX(&lif::ops::recurrent<&lif::ops::forward_on_cpu>));
  m.impl("recurrent_forward", TORCH_BOX(&lif::ops::forward_on_cpu));
  m.impl("recurrent_backward", TORCH_BOX(&lif::ops::backward_on_cpu));
  m.impl("recurrent_weights", TORCH_BOX(&lif::ops::weights_on_cpu));
}
