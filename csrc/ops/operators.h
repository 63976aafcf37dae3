// The operators for any backend. A backend says how a launch is made and how partial gradients are summed:
//
//   struct Backend {
//     struct Guard { explicit Guard(const Tensor& x); };                       // held during a call
//     template <typename T> static void forward(const Forward<T>&, const Tensor& x);
//     template <typename T> static void backward(const Backward<T>&, const Tensor& x);
//     template <typename S> static void sum(const std::vector<PartialSum<S>>&, const Tensor& x);
//   };
#pragma once

#include "ops/backward.h"
#include "ops/forward.h"

namespace lif::ops {

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

// x as the kernels read it: as it lies, where its axes allow that.
inline Tensor in_rows(const Tensor& x, const std::vector<int64_t>& ints, int64_t steps) {
  const auto sizes = x.sizes();
  const int64_t time_dim = ints[Int::time_dim];
  const auto outer = static_cast<size_t>(time_dim);
  const size_t inner = outer + (steps < 0 ? 1 : 0);
  const bool as_it_lies = time_dim >= 0 && inner <= sizes.size() &&
                          joint_stride(sizes, x.strides(), inner, sizes.size()) == 1 &&
                          joint_stride(sizes, x.strides(), 0, outer) >= 0;
  return as_it_lies ? x : torch::stable::contiguous(x);
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
  if (ints.size() != Int::count) {
    return lif_forward<Backend>(x, dense, ints, steps, 0, floats);  // which says so
  }
  std::vector<int64_t> without_bits = ints;
  without_bits[Int::asked] &= ~int64_t{kBits};
  return lif_forward<Backend>(in_rows(x, ints, steps), dense, without_bits, steps, 0, floats);
}

}  // namespace lif::ops
