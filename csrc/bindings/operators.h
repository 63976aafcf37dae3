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

// What the arguments mean stands in problem.h. Options travel in lists: on the way to an operator without
// anything to do, fourteen arguments of their own took 15 us, a list of SymInt 12, and this takes 10; one
// tensor takes 3. There is no `str` among them, whose conversion leaks in the stable ABI. The checks that a
// user meets are in Python, where they can name the argument and the remedy.
constexpr const char* kForwardSchema =
    "lif_forward(Tensor x, Tensor[] given, int[] ints, SymInt steps, SymInt checkpoint_every, "
    "float[] floats) -> Tensor[]";
constexpr const char* kBackwardSchema =
    "lif_backward(Tensor x, Tensor[] given, int[] ints, SymInt steps, SymInt checkpoint_every, "
    "float[] floats) -> Tensor[]";

template <typename Backend>
std::vector<Tensor> lif_forward(const Tensor& x, const std::vector<Tensor>& given,
                                const std::vector<int64_t>& ints, int64_t steps, int64_t checkpoint_every,
                                const std::vector<double>& floats) {
  const Problem problem(x, given, ints, steps, checkpoint_every, floats);
  const typename Backend::Guard guard(x);
  return with_type_of(x, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    return forward<T>(problem, [&](const Forward<T>& args) { Backend::forward(args, x); });
  });
}

template <typename Backend>
std::vector<Tensor> lif_backward(const Tensor& x, const std::vector<Tensor>& given,
                                 const std::vector<int64_t>& ints, int64_t steps, int64_t checkpoint_every,
                                 const std::vector<double>& floats) {
  const Problem problem(x, given, ints, steps, checkpoint_every, floats);
  const typename Backend::Guard guard(x);
  return with_type_of(x, [&](auto* of) {
    using T = std::remove_pointer_t<decltype(of)>;
    return backward<T>(
        problem, [&](const Backward<T>& args) { Backend::backward(args, x); }, &Backend::template reduce<T>);
  });
}

}  // namespace lif::bindings
