// Backward, compiled once for each SIMD level, as forward.inl is.
#include "cpu/level/plain_backward.inl"
#include "cpu/level/sums.inl"
#include "cpu/level/wide_backward.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

template <typename T, typename S = StateOf<T>>
void plain_backward(const Backward<T>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  const int64_t chunk = smaller(args.chunk, args.extent.steps);
  const bool entered = keeps_entered(args);
  Workspace<S> workspace(tiling.neurons, PlainRows<S>::kRows + KeptRows<S>::count(chunk, entered));
  PlainRows<S> rows(workspace, args.parameter, tiling.neurons);
  const KeptRows<S> kept(workspace, chunk, kept_of(args), entered);
  for (int64_t task = begin; task < end; ++task) {
    plain_backward_task(args, block_of(args.extent, args.lengths, tiling, task), rows, kept);
  }
}

template <typename T, typename S = StateOf<T>>
void wide_backward(const Backward<T>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  const int64_t chunk = smaller(args.chunk, args.extent.steps);
  const bool learn = learns(args);
  Workspace<S> workspace(tiling.neurons, WideRows<S>::kRows + WideKept<S>::count(args.neuron, chunk, learn));
  const WideRows<S> rows(workspace, args.neuron, args.parameter, needs_of(args), tiling.neurons);
  const WideKept<S> kept(workspace, args.neuron, chunk, learn);
  for (int64_t task = begin; task < end; ++task) {
    wide_backward_task(args, block_of(args.extent, args.lengths, tiling, task), rows, kept,
                       wide_forward_groups_of<WideWrites::kept, InTile<T>>(args.neuron),
                       wide_backward_groups_of(args));
  }
}

template <typename T>
void backward(const Backward<T>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  bool done = false;
  if constexpr (kHasPlain<T>) {
    done = is_plain(args);
    if (done) {
      plain_backward(args, tiling, begin, end);
    }
  }
  if (!done) {
    wide_backward(args, tiling, begin, end);
  }
  finish_streaming(is_streamed(args.extent, sizeof(T)));
}

}  // namespace

template <typename T>
BackwardKernels<T> backward_kernels() {
  return {[](const Backward<T>& args) { return keeps_few(args) ? kBackwardNeurons : kBackwardNeurons / 2; },
          &backward<T>, &sum_partials<StateOf<T>>};
}

template BackwardKernels<float> backward_kernels<float>();
template BackwardKernels<double> backward_kernels<double>();
template BackwardKernels<Half> backward_kernels<Half>();
template BackwardKernels<BFloat16> backward_kernels<BFloat16>();

}  // namespace lif::cpu::LIF_SIMD
