// The operators for any backend. A backend says how a launch is made and how partial gradients are summed:
//
//   struct Backend {
//     struct Guard { explicit Guard(const Tensor& x); };                       // held during a call
//     template <typename T> static void forward(const Forward<T>&, const Tensor& x);
//     template <typename T> static void backward(const Backward<T>&, const Tensor& x);
//     template <typename S> static void sum(const std::vector<PartialSum<S>>&, const Tensor& x);
//   };
#pragma once

#include "bindings/problem.h"

namespace lif::bindings {

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
        problem, [&](const Backward<T>& args) { Backend::backward(args, x); },
        [&](const std::vector<PartialSum<StateOf<T>>>& sums) { Backend::sum(sums, x); });
  });
}

// Without a derivative, which is Python's. A program is called with tensors that lie otherwise than those it
// was exported with, and the layout in its graph is of those.
template <typename Backend>
std::vector<Tensor> lif(const Tensor& x, const std::vector<Tensor>& given, const std::vector<int64_t>& ints,
                        int64_t steps, const std::vector<double>& floats) {
  std::vector<Tensor> dense;
  dense.reserve(given.size());
  for (const Tensor& tensor : given) {
    dense.push_back(torch::stable::contiguous(tensor));
  }
  std::vector<int64_t> without_bits = ints;
  if (ints.size() == Int::count) {
    without_bits[Int::asked] &= ~int64_t{kBits};
  }
  return lif_forward<Backend>(torch::stable::contiguous(x), dense, without_bits, steps, 0, floats);
}

}  // namespace lif::bindings
