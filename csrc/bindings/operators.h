// The operators for any backend. A backend says how a launch is made and how partial gradients are summed:
//
//   struct Backend {
//     struct Guard { explicit Guard(const Tensor& x); };                       // held during a call
//     template <typename T> static void forward(const Forward<T>&, const Tensor& x);
//     template <typename T> static void backward(const Backward<T>&, const Tensor& x);
//     // [rows, columns, repeat] summed over rows and repeat, of the shape of `parameter`.
//     template <typename T> static Tensor reduce(const Tensor& partial, int64_t rows, int64_t columns,
//                                                int64_t repeat, const Tensor& parameter);
//   };
#pragma once

#include "bindings/problem.h"

namespace lif::bindings {

// What the arguments mean stands in problem.h. No `str` among them: its conversion leaks in the stable ABI,
// so options travel as ints. The checks that a user meets are in Python, where they can name the argument and
// the remedy.
constexpr const char* kForwardSchema =
    "lif_forward(Tensor x, Tensor?[] state, Tensor?[] parameters, float[] numbers, int time_dim, "
    "SymInt steps, bool time_first, int reset, int traits, int refractory, float rest, int outputs, "
    "SymInt checkpoint_every, float window) -> Tensor[]";
constexpr const char* kBackwardSchema =
    "lif_backward(Tensor x, Tensor?[] state, Tensor?[] parameters, float[] numbers, int time_dim, "
    "SymInt steps, bool time_first, int reset, int traits, int refractory, float rest, "
    "Tensor? checkpoints, SymInt checkpoint_every, Tensor? bits, Tensor? first_spike, Tensor?[] grads, "
    "int surrogate, float slope, float scale, Tensor? table, int wanted) -> Tensor[]";

inline Problem problem_of(const Tensor& x, const Tensors& state, const Tensors& parameters,
                          const std::vector<double>& numbers, int64_t time_dim, int64_t steps,
                          bool time_first, int64_t reset, int64_t traits, int64_t refractory, double rest) {
  Problem problem{x,
                  Listed(state, kStates, "state"),
                  Listed(parameters, kParameters, "parameters"),
                  numbers,
                  time_dim,
                  steps,
                  time_first,
                  reset,
                  traits,
                  refractory,
                  rest,
                  {},
                  {}};
  problem.settle();
  return problem;
}

template <typename Backend>
std::vector<Tensor> lif_forward(const Tensor& x, const Tensors& state, const Tensors& parameters,
                                const std::vector<double>& numbers, int64_t time_dim, int64_t steps,
                                bool time_first, int64_t reset, int64_t traits, int64_t refractory,
                                double rest, int64_t outputs, int64_t checkpoint_every, double window) {
  const Problem problem =
      problem_of(x, state, parameters, numbers, time_dim, steps, time_first, reset, traits, refractory, rest);
  const typename Backend::Guard guard(x);
  return with_type_of(x, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    return forward<T>(problem, outputs, checkpoint_every, window,
                      [&](const Forward<T>& args) { Backend::forward(args, x); });
  });
}

template <typename Backend>
std::vector<Tensor> lif_backward(const Tensor& x, const Tensors& state, const Tensors& parameters,
                                 const std::vector<double>& numbers, int64_t time_dim, int64_t steps,
                                 bool time_first, int64_t reset, int64_t traits, int64_t refractory,
                                 double rest, const OptionalTensor& checkpoints, int64_t checkpoint_every,
                                 const OptionalTensor& bits, const OptionalTensor& first_spike,
                                 const Tensors& grads, int64_t surrogate, double slope, double scale,
                                 const OptionalTensor& table, int64_t wanted) {
  const Listed incoming(grads, kIncoming, "grads");
  const Problem problem =
      problem_of(x, state, parameters, numbers, time_dim, steps, time_first, reset, traits, refractory, rest);
  const Gradients gradients{
      checkpoints, checkpoint_every, bits, first_spike, incoming, surrogate, slope, scale, table};
  const typename Backend::Guard guard(x);
  return with_type_of(x, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    return backward<T>(
        problem, gradients, wanted, [&](const Backward<T>& args) { Backend::backward(args, x); },
        &Backend::template reduce<T>);
  });
}

}  // namespace lif::bindings
