// Forward, compiled once for each SIMD level: LIF_SIMD names the level's namespace, LIF_SIMD_BYTES the width
// of its registers.
//
// Two tiers compute the same numbers, both in vector registers: plain_forward.inl the neuron and the outputs
// that most networks use, wide_forward.inl all others.
#include "cpu/level/plain_forward.inl"
#include "cpu/level/wide_forward.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

template <typename T, typename S = StateOf<T>>
void plain_forward(const Forward<T>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  // Half a kilobyte beyond the spikes, modulo a page: with what is streamed it does not collide.
  const uintptr_t place = reinterpret_cast<uintptr_t>(args.spikes.data) + 512;
  Workspace<S> workspace(tiling.neurons, PlainRows<S>::kRows, place);
  PlainRows<S> rows(workspace, args.parameter, tiling.neurons);
  const PackedRows<T> packed(args, tiling.neurons);
  for (int64_t task = begin; task < end; ++task) {
    plain_forward_task(args, block_of(args.extent, args.lengths, tiling, task), rows, packed);
  }
}

template <typename T, typename S = StateOf<T>>
void wide_forward(const Forward<T>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  Workspace<S> workspace(tiling.neurons, WideRows<S>::kRows);
  const WideRows<S> rows(workspace, args.neuron, args.parameter, needs_of(args), tiling.neurons);
  const PackedRows<T> packed(args, tiling.neurons);
  const auto groups = wide_forward_groups_of(args);
  for (int64_t task = begin; task < end; ++task) {
    wide_forward_task(args, block_of(args.extent, args.lengths, tiling, task), rows, packed, groups);
  }
}

template <typename T>
void forward(const Forward<T>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  bool done = false;
  if constexpr (kHasPlain<T>) {
    done = is_plain(args);
    if (done) {
      plain_forward(args, tiling, begin, end);
    }
  }
  if (!done) {
    wide_forward(args, tiling, begin, end);
  }
  finish_streaming(is_streamed(args.extent, sizeof(T)));
}

}  // namespace

template <typename T>
ForwardKernels<T> forward_kernels() {
  return {[](const Forward<T>&) { return kForwardNeurons; }, &forward<T>};
}

template ForwardKernels<float> forward_kernels<float>();
template ForwardKernels<double> forward_kernels<double>();
template ForwardKernels<Half> forward_kernels<Half>();
template ForwardKernels<BFloat16> forward_kernels<BFloat16>();

}  // namespace lif::cpu::LIF_SIMD
