// Backward: from a call to its kernel. The plain members have source files of their own (launch_plain.cuh),
// so that the kernels of a type compile side by side.
#pragma once

#include "cuda/launch.h"
#include "cuda/tiers.cuh"
#include "cuda/wide_backward.cuh"

namespace lif::cuda {

// A call that a compiled member may run, but for its neuron.
template <typename T>
bool is_general(const Backward<T>& args) {
  // Beside bits, x is only a shape.
  const bool unfit_x = args.bits == nullptr && (args.x.uniform || args.chunk > kChunk);
  return args.grad_trace.data != nullptr || args.grad_trace_before.data != nullptr ||
         args.grad_first.data != nullptr || args.grad_trace_max.data != nullptr ||
         args.grad_trace_mean.data != nullptr || args.grad_parameter[kGain] != nullptr || unfit_x ||
         (args.grad_spikes.uniform && !steady_spikes(args)) || !is_uniform(args.parameter) ||
         args.extent.steps > kMostSteps || args.lengths.values != nullptr;
}

template <typename T>
bool learns(const Backward<T>& args) {
  return std::any_of(std::begin(args.grad_parameter), std::end(args.grad_parameter),
                     [](const auto* grad) { return grad != nullptr; });
}

// Whether gradients of spikes come in and gradients of x go out, both with a time axis, and nothing else
// does.
template <typename T>
bool is_series(const Backward<T>& args) {
  return args.grad_spikes.data != nullptr && !args.grad_spikes.uniform && args.grad_count.data == nullptr &&
         args.grad_rate.data == nullptr && args.grad_x.data != nullptr && args.grad_x_sum == nullptr;
}

template <typename Kind, int W, bool kLearn, Slopes kSlopes, Flow kFlow, typename T>
int backward_wide(const Backward<T>& args, const On& on) {
  constexpr size_t kStep =
      size_t{Kept<Kind, kLearn, kSlopes>::rows} * W * kBackwardThreads * sizeof(StateOf<T>);
  return launch<&wide_backward_kernel<T, Kind, W, kLearn, kSlopes, kFlow>>(
      args, blocks_for(args.extent, W, kBackwardThreads), kBackwardThreads,
      kStep * std::min(args.chunk, args.extent.steps), on);
}

// Run the call if there is a kernel for it but the general one; `done` says whether there was.
template <typename T>
int backward_plain(const Backward<T>& args, const On& on, bool& done);

}  // namespace lif::cuda
