// Forward where neurons are many: a thread owns W neighbouring neurons for all T steps, and their state stays
// in registers. Neighbouring threads own neighbouring neurons, so that each access of a warp is one piece of
// 32 * W values. Threads never meet, and no order of them changes a bit.
//
// Bytes a neuron-step in fp32: 4 of x (4 / T for a constant input), 4 of spikes or 4 / T of counts, 4 / K of
// checkpoints; half of each in 16 bits. On an H200 at 4.8 TB/s 8 bytes are 1.7 ps.
#pragma once

#include "cuda/ahead.cuh"
#include "cuda/readout.cuh"

namespace lif::cuda {

constexpr int kForwardThreads = 256;

// What runs through a kernel. `series`: x in and spikes out, gradients of spikes in and of x out. `any`: also
// what has no time axis: counts, constants, what is summed over time; a few instructions more a step.
enum class Flow : int { series, any };

template <typename T, typename Kind, int W, Flow kFlow>
__global__ void __launch_bounds__(kForwardThreads) wide_forward_kernel(const Forward<T> args) {
  using S = StateOf<T>;
  const int64_t neuron = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * W;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const auto group = load_group<Kind, W>(args.neuron, args.parameter, neuron);
  const Kind& kind = group.kind;
  States<S> states[W];
  load_states<W>(states, kind, [&](int state) { return initial_state(args, state, neuron); });
  Pack<S, W> count = splat<S, W>(S(0));
  // Where spikes may be absent, a predicate says whether they are written, and the pointer moves in any case.
  T* spikes_out = start_of(args.spikes, place);
  const bool writes = kFlow == Flow::series || spikes_out != nullptr;
  const int64_t out_stride = writes ? args.spikes.time_stride : 0;
  // Checkpoints lie between whole groups of steps (is_general of launch_forward.cuh).
  S* checkpoint = args.checkpoints == nullptr ? nullptr : args.checkpoints + neuron;
  const int every = checkpoint == nullptr ? kNever : static_cast<int>(args.checkpoint_every) / kAhead<T, W>;
  const auto keep_states = [&] {
    checkpoint = store_checkpoint<W>(checkpoint, neurons(args.extent), kind, states);
    return every;
  };
  const auto one_step = [&](const Raw<T, W>& raw, auto) {
    const Pack<S, W> x = widen<T, W>(raw);
    Pack<S, W> spikes;
#pragma unroll
    for (int w = 0; w < W; ++w) {
      spikes.at[w] = step(kind, group.own[w], states[w], x.at[w]).s;
    }
    if (writes) {
      store_raw<W>(spikes_out, narrow<T, W>(spikes));
    }
    spikes_out += out_stride;
    if constexpr (kFlow == Flow::any) {
#pragma unroll
      for (int w = 0; w < W; ++w) {
        count.at[w] = add(count.at[w], spikes.at[w]);
      }
    }
  };
  Stream<T, W> x{start_of(args.x, place), args.x.time_stride};
  const int steps = static_cast<int>(args.extent.steps);
  InFlight<T, W, kAhead<T, W>> flight;
  fill(flight, x, steps);
  with_loads_ahead(flight, x, steps, every, keep_states, one_step);

  write_states<W>(args, neuron, kind, states);
  if constexpr (kFlow == Flow::any) {
    write_counts<W>(args, neuron, count, args.extent.steps);
  }
}

}  // namespace lif::cuda
