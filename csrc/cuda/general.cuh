// Any neuron of the family and any output, and batches whose samples have lengths of their own: one neuron a
// thread, and what it has is asked at each step.
#pragma once

#include "cuda/slopes.cuh"
#include "cuda/wide_backward.cuh"
#include "neuron/readout.h"

namespace lif::cuda {

// A value of each of the next steps is on its way while the steps before are gone through. `moves` is false
// for a series that is the same at each step: it is loaded once.
constexpr int kGeneralAhead = 4;

// NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result): one times a few steps.
// body(t, value) for each step t from `first` on and before `last`, forward in time (kDirection 1) or
// backward (-1), where value is load(t).
template <int kDirection, typename Load, typename Body>
LIF_FN void each_step(int64_t first, int64_t last, bool moves, const Load& load, const Body& body) {
  using Value = decltype(load(first));
  const auto left = [&](int64_t t) { return kDirection * (last - t); };
  Value ahead[kGeneralAhead];
#pragma unroll
  for (int j = 0; j < kGeneralAhead; ++j) {
    const int64_t t = first + kDirection * j;
    ahead[j] = left(t) > 0 ? load(t) : Value{};
  }
  for (int64_t turn = first; left(turn) > 0; turn += kDirection * kGeneralAhead) {
#pragma unroll
    for (int j = 0; j < kGeneralAhead; ++j) {
      const int64_t t = turn + kDirection * j;
      if (left(t) <= 0) {
        break;
      }
      const Value value = ahead[j];
      if (moves && left(t) > kGeneralAhead) {
        ahead[j] = load(t + kDirection * kGeneralAhead);
      }
      body(t, value);
    }
  }
}
// NOLINTEND(bugprone-implicit-widening-of-multiplication-result)

// Zeros in a series after the steps of a neuron's sample.
template <typename T>
LIF_FN void zero_rest(T* row, int64_t stride, int64_t first, int64_t last) {
#pragma unroll 1
  for (int64_t t = first; row != nullptr && t < last; ++t) {
    row[t * stride] = T{};
  }
}

// Blocks of a multiprocessor that the registers are to leave room for.
template <typename T>
constexpr int kGeneralForwardBlocks = std::is_same_v<StateOf<T>, double> ? 2 : 3;

// Up to 8 bytes a neuron-step more than the plain kernel for two traces.
template <typename T>
__global__ void __launch_bounds__(kForwardThreads, kGeneralForwardBlocks<T>)
    general_forward_kernel(const Forward<T> args) {
  using S = StateOf<T>;
  const int64_t neuron = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const auto group = load_group<AnyMember, 1>(args.neuron, args.parameter, neuron);
  const AnyMember& kind = group.kind;
  const Values<S>& own = group.own[0];
  const int64_t steps = steps_of(args.extent, args.lengths, neuron);
  const T* x = start_of(args.x, place);
  const int64_t x_stride = args.x.time_stride;
  T* spikes_out = start_of(args.spikes, place);
  T* trace = start_of(args.trace, place);
  T* trace_before = start_of(args.trace_before, place);
  States<S> states[1];
  load_states<1>(states, kind, [&](int state) { return initial_state(args, state, neuron); });
  Pack<S, 1> count = splat<S, 1>(S(0));
  S alive = S(1);
  S first_spike = S(0);
  Peak<S> peak;
  S sum_v = S(0);
  uint32_t word = 0;

  S* checkpoint = args.checkpoints == nullptr ? nullptr : args.checkpoints + neuron;
  int64_t until_checkpoint = args.checkpoint_every;
  const auto load_x = [&](int64_t t) { return x[t * x_stride]; };
  each_step<1>(0, steps, x_stride != 0, load_x, [&](int64_t t, const T& x_now) {
    if (checkpoint != nullptr && until_checkpoint-- == 0) {
      checkpoint = store_checkpoint<1>(checkpoint, neurons(args.extent), kind, states);
      until_checkpoint = args.checkpoint_every - 1;
    }
    const Step<S> now = step(kind, own, states[0], lif::widen(x_now));
    if (spikes_out != nullptr) {
      spikes_out[t * args.spikes.time_stride] = lif::narrow<T>(now.s);
    }
    if (trace != nullptr) {
      trace[t * args.trace.time_stride] = lif::narrow<T>(states[0].of[kMembrane]);
    }
    if (trace_before != nullptr) {
      trace_before[t * args.trace_before.time_stride] = lif::narrow<T>(now.u);
    }
    if (args.bits != nullptr) {
      word |= now.s != S(0) ? fired_bit(t) : 0;
      word |= inside_window(sub(now.u, own.theta), args.window) ? inside_bit(t) : 0;
      if (t % kStepsOfWord == kStepsOfWord - 1 || t == steps - 1) {
        args.bits[t / kStepsOfWord * neurons(args.extent) + neuron] = word;
        word = 0;
      }
    }
    count.at[0] = add(count.at[0], now.s);
    alive = mul(alive, sub(S(1), now.s));
    first_spike = add(first_spike, alive);
    sum_v = add(sum_v, states[0].of[kMembrane]);
    if (args.trace_max != nullptr) {
      climb(peak, states[0].of[kMembrane], static_cast<S>(t));
    }
  });
  zero_rest(spikes_out, args.spikes.time_stride, steps, args.extent.steps);
  zero_rest(trace, args.trace.time_stride, steps, args.extent.steps);
  zero_rest(trace_before, args.trace_before.time_stride, steps, args.extent.steps);
  write_counts<1>(args, neuron, count, steps);
  if (args.first != nullptr) {
    args.first[neuron] = first_spike;
  }
  if (args.trace_max != nullptr) {
    args.trace_max[neuron] = peak.value;
  }
  if (args.peak != nullptr) {
    args.peak[neuron] = peak.step;
  }
  if (args.trace_mean != nullptr) {
    args.trace_mean[neuron] = div(sum_v, static_cast<S>(steps > 0 ? steps : 1));
  }
  write_states<1>(args, neuron, kind, states);
}

// The derivative of whichever shape the surrogate has.
template <typename S>
LIF_FN S any_derivative(S z, const Surrogate<S>& of) {
  S h = S(0);
  with_shape(of, [&](auto shape) { h = derivative<decltype(shape)::value>(z, of); });
  return h;
}

// With four blocks a multiprocessor it would spill in fp64.
constexpr int kGeneralBackwardBlocks = 3;

// A thread's column holds 2 to 5 values a step: 40 KiB for chunks of 16 steps of 128 threads with 5 of them
// in fp32.
template <typename T>
__global__ void __launch_bounds__(kBackwardThreads, kGeneralBackwardBlocks)
    general_backward_kernel(const Backward<T> args) {
  using S = StateOf<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  S* column = reinterpret_cast<S*>(shared) + threadIdx.x;

  const int64_t neuron = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const auto group = load_group<AnyMember, 1>(args.neuron, args.parameter, neuron);
  const AnyMember& kind = group.kind;
  const Values<S>& own = group.own[0];
  const int64_t steps = steps_of(args.extent, args.lengths, neuron);
  const int kept = 1 + slot_of(kind, kStates);
  const auto kept_at = [&](int64_t step, int value) -> S& {
    return column[(step * kept + value) * blockDim.x];
  };
  const T* x = start_of(args.x, place);
  const int64_t x_stride = args.x.time_stride;
  const T* g_spikes = start_of(args.grad_spikes, place);
  const int64_t g_stride = args.grad_spikes.time_stride;
  const T* g_trace = start_of(args.grad_trace, place);
  const T* g_trace_before = start_of(args.grad_trace_before, place);
  T* grad_x = start_of(args.grad_x, place);

  const S constant = constant_gradient<1>(args, place, steps).at[0];
  const bool by_gain = args.grad_parameter[kGain] != nullptr;
  const bool timed = args.grad_first.data != nullptr;
  const S grad_first = timed ? *start_of(args.grad_first, place) : S(0);
  const S first_spike = timed ? args.first[neuron] : S(0);
  S later = grad_first;
  const bool peaked = args.grad_trace_max.data != nullptr;
  const S grad_peak = peaked ? *start_of(args.grad_trace_max, place) : S(0);
  const S peak = peaked ? args.peak[neuron] : S(0);
  const bool averaged = args.grad_trace_mean.data != nullptr;
  const S grad_mean =
      averaged ? div(*start_of(args.grad_trace_mean, place), static_cast<S>(steps > 0 ? steps : 1)) : S(0);
  S sum_x = S(0);
  Adjoint<S> adjoint[1];
  load_adjoint<1>(adjoint, args, kind, neuron);
  Sums<S> sums[1] = {};

  // Bits hold what backward needs: there is nothing to recompute, no x and no checkpoints. A chunk is a word.
  const bool by_bits = args.bits != nullptr;
  for (int64_t chunk = (steps + args.chunk - 1) / args.chunk - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * args.chunk;
    const int64_t end = begin + args.chunk < steps ? begin + args.chunk : steps;
    const uint32_t word = by_bits ? args.bits[chunk * neurons(args.extent) + neuron] : 0;
    if (!by_bits) {
      States<S> states[1];
      load_states<1>(states, kind, [&](int state) { return state_before(args, kind, chunk, state, neuron); });
      const auto load_x = [&](int64_t t) { return x[t * x_stride]; };
      each_step<1>(begin, end, x_stride != 0, load_x, [&](int64_t t, const T& x_now) {
#pragma unroll
        for (int state = 0; state < kStates; ++state) {
          if (has_state(kind, state)) {
            kept_at(t - begin, 1 + slot_of(kind, state)) = states[0].of[state];
          }
        }
        kept_at(t - begin, 0) = step(kind, own, states[0], lif::widen(x_now)).u;
      });
    }

    const auto load_g = [&](int64_t t) { return g_spikes == nullptr ? T{} : g_spikes[t * g_stride]; };
    each_step<-1>(end - 1, begin - 1, g_stride != 0, load_g, [&](int64_t t, const T& g_now) {
      Was<S> was{};
      was.theta = own.theta;
      if (by_bits) {
        was.s = word & fired_bit(t) ? S(1) : S(0);
        was.h = word & inside_bit(t) ? args.surrogate.scale : S(0);
      } else {
#pragma unroll
        for (int state = 0; state < kStates; ++state) {
          if (has_state(kind, state)) {
            was.before.of[state] = kept_at(t - begin, 1 + slot_of(kind, state));
          }
        }
        const S q = was.before.of[kSilence];
        const Step<S> met = meet_threshold(kind, own, kept_at(t - begin, 0), was.before.of[kAdaptation], q);
        was.u = met.u;
        was.s = met.s;
        was.theta = met.theta;
        was.h = q > S(0) ? S(0) : any_derivative(sub(met.u, met.theta), args.surrogate);
      }

      S g = lif::widen(g_now);
      if (timed) {
        g = add(g, first_spike_gradient(later, first_spike, static_cast<S>(t)));
        later = first_spike_earlier(grad_first, later, was.s);
      }
      g = add(g, constant);
      if (g_trace != nullptr) {
        S& a = adjoint[0].of[kMembrane];
        a = add(a, lif::widen(g_trace[t * args.grad_trace.time_stride]));
      }
      if (peaked) {
        S& a = adjoint[0].of[kMembrane];
        a = add(a, peak_gradient(grad_peak, peak, static_cast<S>(t)));
      }
      if (averaged) {
        S& a = adjoint[0].of[kMembrane];
        a = add(a, grad_mean);
      }
      Maybe<S> before_reset, input;
      if (g_trace_before != nullptr) {
        before_reset = {true, lif::widen(g_trace_before[t * args.grad_trace_before.time_stride])};
      }
      if (by_gain) {  // only here is x read a second time
        const S x_now = lif::widen(x[t * x_stride]);
        input = {true, kind.synapse ? synapse(own.alpha, was.before.of[kCurrent], x_now) : x_now};
      }
      const S dx = step_back<true>(kind, own, was, g, adjoint[0], sums[0], before_reset, input);
      sum_x = add(sum_x, dx);
      if (grad_x != nullptr) {
        grad_x[t * args.grad_x.time_stride] = lif::narrow<T>(dx);
      }
    });
  }

  zero_rest(grad_x, args.grad_x.time_stride, steps, args.extent.steps);
  if (args.grad_x_sum != nullptr) {
    args.grad_x_sum[neuron] = lif::narrow<T>(sum_x);
  }
  write_gradients<true>(args, neuron, kind, adjoint, sums);
}

}  // namespace lif::cuda
