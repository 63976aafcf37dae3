// Two bits a step in place of x, where the surrogate is a window: whether the neuron fired, and whether its
// membrane was inside. Backward needs no more, so nothing is computed again. Bytes a neuron-step in
// fp32: 8.25 forward and 8.25 backward, where keeping x takes 20 in all.
#pragma once

#include "cuda/wide_backward.cuh"

namespace lif::cuda {

// A word takes up steps at its top, each pushing the others down: after 16 the first is in the lowest bits.
constexpr uint32_t kFiredAtTop = 1u << 30;
constexpr uint32_t kInsideAtTop = 2u << 30;

template <typename T, typename Kind, int W>
__global__ void __launch_bounds__(kForwardThreads) bits_forward_kernel(const Forward<T> args) {
  using S = StateOf<T>;
  const int64_t neuron = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * W;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const auto group = load_group<Kind, W>(args.neuron, args.parameter, neuron);
  States<S> states[W];
  load_states<W>(states, group.kind, [&](int state) { return initial_state(args, state, neuron); });
  T* spikes_out = start_of(args.spikes, place);
  uint32_t* words = args.bits + neuron;
  Pack<uint32_t, W> word = splat<uint32_t, W>(0);
  constexpr int kGroups = static_cast<int>(kStepsOfWord) / kAhead<T, W>;
  const auto put_words = [&] {
    store<W>(words, word);
    words += neurons(args.extent);
    return kGroups;
  };
  Stream<T, W> x{start_of(args.x, place), args.x.time_stride};
  const int steps = static_cast<int>(args.extent.steps);
  InFlight<T, W> flight;
  fill(flight, x, steps);
  with_loads_ahead(flight, x, steps, kGroups, put_words, [&](const Raw<T, W>& raw, auto) {
    const Pack<S, W> x_now = widen<T, W>(raw);
    Pack<S, W> spikes;
#pragma unroll
    for (int w = 0; w < W; ++w) {
      const Values<S>& own = group.own[w];
      const Step<S> now = step(group.kind, own, states[w], x_now.at[w]);
      spikes.at[w] = now.s;
      word.at[w] = word.at[w] >> 2 | (now.s != S(0) ? kFiredAtTop : 0u) |
                   (inside_window(sub(now.u, own.theta), args.window) ? kInsideAtTop : 0u);
    }
    store_raw<W>(spikes_out, narrow<T, W>(spikes));
    spikes_out += args.spikes.time_stride;
  });
  // The last word: full, or its steps are pushed down the rest of the way.
  if (steps > 0) {
    const int missing = static_cast<int>((kStepsOfWord - steps % kStepsOfWord) % kStepsOfWord);
#pragma unroll
    for (int w = 0; w < W; ++w) {
      word.at[w] >>= 2 * missing;
    }
    put_words();
  }
  write_states<W>(args, neuron, group.kind, states);
}

template <typename T, typename Kind, int W>
__global__ void __launch_bounds__(kBackwardThreads) bits_backward_kernel(const Backward<T> args) {
  using S = StateOf<T>;
  const int64_t neuron = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * W;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const auto group = load_group<Kind, W>(args.neuron, args.parameter, neuron);
  Adjoint<S> adjoint[W];
  load_adjoint<W>(adjoint, args, group.kind, neuron);
  Sums<S> sums[W] = {};

  const int steps = static_cast<int>(args.extent.steps);
  const int64_t last = steps - 1;
  const int64_t row = neurons(args.extent);
  const uint32_t* words = args.bits + last / kStepsOfWord * row + neuron;
  T* grad_x = start_of(args.grad_x, place) + last * args.grad_x.time_stride;
  Stream<T, W> g{start_of(args.grad_spikes, place) + last * args.grad_spikes.time_stride,
                 -args.grad_spikes.time_stride};
  InFlight<T, W> flight;
  fill(flight, g, steps);
  // Of the last word only the steps that there are, pushed up to the top.
  int in_word = static_cast<int>(last % kStepsOfWord) + 1;
  Pack<uint32_t, W> word = load<W>(words);
#pragma unroll
  for (int w = 0; w < W; ++w) {
    word.at[w] <<= 2 * (kStepsOfWord - in_word);
  }
  with_loads_ahead(flight, g, steps, [&](const Raw<T, W>& raw, auto) {
    if (in_word == 0) {
      words -= row;
      word = load<W>(words);
      in_word = static_cast<int>(kStepsOfWord);
    }
    --in_word;
    const Pack<S, W> g_now = widen<T, W>(raw);
    Pack<S, W> dx;
#pragma unroll
    for (int w = 0; w < W; ++w) {
      Was<S> was;
      was.theta = group.own[w].theta;
      was.s = word.at[w] & kFiredAtTop ? S(1) : S(0);
      was.h = word.at[w] & kInsideAtTop ? args.surrogate.scale : S(0);
      word.at[w] <<= 2;
      dx.at[w] = step_back<false>(group.kind, group.own[w], was, g_now.at[w], adjoint[w], sums[w]);
    }
    store_raw<W>(grad_x, narrow<T, W>(dx));
    grad_x -= args.grad_x.time_stride;
  });
  write_gradients<false>(args, neuron, group.kind, adjoint, sums);
}

}  // namespace lif::cuda
