// What is read out once, after the last step: counts, rates, totals and final states.
#pragma once

#include "cuda/access.cuh"
#include "neuron/back.h"

namespace lif::cuda {

// Add a thread's spikes to those of all neurons. Integers: no order of additions changes the sum.
LIF_DEVICE_FN void add_to_total(int64_t* total, unsigned spikes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  // Turing has no reduction over a warp: one addition a neuron that fired, once for all T steps.
  if (spikes > 0) {
    atomicAdd(reinterpret_cast<unsigned long long*>(total), static_cast<unsigned long long>(spikes));
  }
#elif defined(__CUDA_ARCH__)
  // One addition a warp; threads behind the last neuron have left.
  const unsigned mask = __activemask();
  const unsigned sum = __reduce_add_sync(mask, spikes);
  if ((threadIdx.x & 31u) == static_cast<unsigned>(__ffs(static_cast<int>(mask)) - 1)) {
    atomicAdd(reinterpret_cast<unsigned long long*>(total), static_cast<unsigned long long>(sum));
  }
#else
  *total += spikes;
#endif
}

// The counts of W neurons of so many steps, in the forms that are wanted. A reference here and below: a copy
// of what is a constant for the lean kernels moved their registers.
template <int W, typename T, typename S = StateOf<T>>
LIF_DEVICE_FN void write_counts(const Forward<T>& args, int64_t neuron, const Pack<S, W>& count,
                                const int64_t& steps) {
  if (args.count != nullptr) {
    store<W>(args.count + neuron, count);
  }
  if (args.rate != nullptr) {
    Pack<S, W> rate;
#pragma unroll
    for (int w = 0; w < W; ++w) {
      rate.at[w] = div(count.at[w], static_cast<S>(steps > 0 ? steps : 1));
    }
    store<W>(args.rate + neuron, rate);
  }
  if (args.total != nullptr) {
    unsigned total = 0;
#pragma unroll
    for (int w = 0; w < W; ++w) {
      total += static_cast<unsigned>(count.at[w]);
    }
    add_to_total(args.total, total);
  }
}

template <int W, typename T, typename Kind, typename S = StateOf<T>>
LIF_FN void write_states(const Forward<T>& args, int64_t neuron, const Kind& kind,
                         const States<S> (&states)[W]) {
#pragma unroll
  for (int state = 0; state < kStates; ++state) {
    if (has_state(kind, state) && args.final_state[state] != nullptr) {
      store<W>(args.final_state[state] + neuron, pack_of<W>(states, state));
    }
  }
}

// The gradient that all steps share, from the count and the rate; -0 where there is neither, which added to
// any number leaves its bits.
template <int W, typename T, typename S = StateOf<T>>
LIF_FN Pack<S, W> constant_gradient(const Backward<T>& args, const Place& place, const int64_t& steps) {
  if (args.grad_count.data == nullptr && args.grad_rate.data == nullptr) {
    return splat<S, W>(-S(0));
  }
  const Pack<S, W> count = load_row<W>(args.grad_count, place);
  if (args.grad_rate.data == nullptr) {
    return count;
  }
  Pack<S, W> sum = load_row<W>(args.grad_rate, place);
#pragma unroll
  for (int w = 0; w < W; ++w) {
    sum.at[w] = div(sum.at[w], static_cast<S>(steps));
    if (args.grad_count.data != nullptr) {
      sum.at[w] = add(sum.at[w], count.at[w]);
    }
  }
  return sum;
}

// And from the spikes, where their gradient is one number (of .sum(), say).
template <typename T>
LIF_FN bool steady_spikes(const Backward<T>& args) {
  return args.grad_spikes.uniform && args.grad_spikes.time_stride == 0;
}

template <int W, typename T, typename S = StateOf<T>>
LIF_FN Pack<S, W> steady_gradient(const Backward<T>& args, const Place& place) {
  Pack<S, W> sum = constant_gradient<W>(args, place, args.extent.steps);
  if (steady_spikes(args)) {
    const S one = lif::widen(*start_of(args.grad_spikes, place));
#pragma unroll
    for (int w = 0; w < W; ++w) {
      sum.at[w] = add(one, sum.at[w]);
    }
  }
  return sum;
}

// What a backward pass returns once: gradients of the states, and one partial a neuron of the parameters.
// What is not written here is not summed either: of a compiled member a value to reset to and a gain are
// numbers.
template <bool kLearn, typename Kind, int W, typename T, typename S = StateOf<T>>
LIF_FN void write_gradients(const Backward<T>& args, int64_t neuron, const Kind& kind,
                            const Adjoint<S> (&adjoint)[W], const Sums<S> (&sums)[W]) {
  const auto put = [&](S* to, const auto& value_of) {
    if (to != nullptr) {
      Pack<S, W> pack;
#pragma unroll
      for (int w = 0; w < W; ++w) {
        pack.at[w] = value_of(w);
      }
      store<W>(to + neuron, pack);
    }
  };
#pragma unroll
  for (int state = 0; state < kSmoothStates; ++state) {
    if (has_state(kind, state)) {
      put(args.grad_state[state], [&](int w) { return adjoint[w].of[state]; });
    }
  }
  if constexpr (kLearn) {
    put(args.grad_parameter[kBeta], [&](int w) { return sums[w].beta; });
    put(args.grad_parameter[kThreshold], [&](int w) { return sums[w].theta; });
    if (kind.synapse) {
      put(args.grad_parameter[kAlpha], [&](int w) { return sums[w].alpha; });
    }
    if (kind.adaptive) {
      put(args.grad_parameter[kKappa], [&](int w) { return sums[w].kappa; });
      put(args.grad_parameter[kRho], [&](int w) { return sums[w].rho; });
    }
    if constexpr (std::is_same_v<Kind, AnyMember>) {
      put(args.grad_parameter[kResetTo], [&](int w) { return sums[w].v_reset; });
      put(args.grad_parameter[kGain], [&](int w) { return sums[w].gain; });
    }
  }
}

// The gradients of the states that come in.
template <int W, typename T, typename Kind, typename S = StateOf<T>>
LIF_FN void load_adjoint(Adjoint<S> (&adjoint)[W], const Backward<T>& args, const Kind& kind,
                         int64_t neuron) {
#pragma unroll
  for (int state = 0; state < kSmoothStates; ++state) {
    Pack<S, W> pack = splat<S, W>(S(0));
    if (has_state(kind, state)) {
      pack = load_or_zero<W>(args.grad_final[state], neuron);
    }
#pragma unroll
    for (int w = 0; w < W; ++w) {
      adjoint[w].of[state] = pack.at[w];
    }
  }
}

}  // namespace lif::cuda
