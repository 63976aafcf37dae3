// The operators of recurrent layers on CUDA, for a backend that launches:
//
//   struct Backend {
//     struct Guard { explicit Guard(const Tensor& x); };
//     template <typename T, typename W> static void forward(const RecurrentForward<T, W>&, const Tensor& x);
//     template <typename T, typename W> static void backward(const RecurrentBackward<T, W>&, const Tensor&);
//     template <typename S> static void sum(const std::vector<PartialSum<S>>&, const Tensor& x);
//   };
#pragma once

#include "ops/recurrent.h"

namespace lif::ops {

// run(T*, W*) with the types of x and of the weight, which is T's or that of the state.
template <typename Run>
auto with_types_of(const Tensor& x, const Tensor& weight, const Run& run) {
  return with_type_of(x, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    using S = StateOf<T>;
    if (weight.scalar_type() == x.scalar_type()) {
      return run(static_cast<T*>(nullptr), static_cast<T*>(nullptr));
    }
    STD_TORCH_CHECK(weight.scalar_type() == kTypeOf<S>, "weight must have the dtype of x or of the state");
    return run(static_cast<T*>(nullptr), static_cast<S*>(nullptr));
  });
}

template <typename Backend>
std::vector<Tensor> recurrent_forward_on(const Tensor& x, const Tensor& weight,
                                         const std::vector<Tensor>& given, const std::vector<int64_t>& ints,
                                         const std::vector<double>& floats) {
  const typename Backend::Guard guard(x);
  STD_TORCH_CHECK(weight.dim() == 2, "weight must be [neurons, neurons]");
  const Tensor transposed = torch::stable::contiguous(torch::stable::transpose(weight, 0, 1));
  const RecurrentProblem problem(x, transposed, given, ints, floats);
  return with_types_of(x, weight, [&](auto* of, auto* of_weight) {
    using T = std::remove_pointer_t<decltype(of)>;
    using W = std::remove_pointer_t<decltype(of_weight)>;
    return recurrent_forward<T, W>(problem, problem.extent.neurons,
                                   [&](const RecurrentForward<T, W>& args) { Backend::forward(args, x); });
  });
}

template <typename Backend>
std::vector<Tensor> recurrent_backward_on(const Tensor& u, const Tensor& weight,
                                          const std::vector<Tensor>& given, const std::vector<int64_t>& ints,
                                          const std::vector<double>& floats) {
  const typename Backend::Guard guard(u);
  const RecurrentProblem problem(u, weight, given, ints, floats);
  STD_TORCH_CHECK(u.size(2) == problem.extent.neurons, "u must be what recurrent_forward kept");
  const Tensor* spikes = problem.given[RecurrentSlot::grad_spikes];
  const Tensor* trace = problem.given[RecurrentSlot::grad_trace];
  // Without gradients in x's dtype the weight alone says which that may be.
  const Tensor& typed = spikes                                  ? *spikes
                        : trace                                 ? *trace
                        : u.scalar_type() == ScalarType::Double ? u
                                                                : weight;
  return with_types_of(typed, weight, [&](auto* of, auto* of_weight) {
    using T = std::remove_pointer_t<decltype(of)>;
    using W = std::remove_pointer_t<decltype(of_weight)>;
    return recurrent_backward<T, W>(
        problem, [&](const RecurrentBackward<T, W>& args) { Backend::backward(args, u); },
        [&](const std::vector<PartialSum<StateOf<T>>>& sums) { Backend::sum(sums, u); });
  });
}

}  // namespace lif::ops
