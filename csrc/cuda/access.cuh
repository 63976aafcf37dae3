// Vector access: W neighbouring neurons at once, and where a thread's neurons lie.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "neuron/member.h"
#include "neuron/params.h"
#include "neuron/storage.h"

namespace lif::cuda {

// W values moved as one access of W * sizeof(T) bytes.
template <typename T, int W>
struct alignas(sizeof(T) * W) Pack {
  T at[W];
};

template <typename S, int W>
LIF_FN Pack<S, W> splat(S value) {
  Pack<S, W> pack;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    pack.at[w] = value;
  }
  return pack;
}

template <int W, typename T>
LIF_FN Pack<T, W> load(const T* from) {
  return *reinterpret_cast<const Pack<T, W>*>(from);
}

template <int W, typename T>
LIF_FN void store(T* to, const Pack<T, W>& pack) {
  *reinterpret_cast<Pack<T, W>*>(to) = pack;
}

// Two 16-bit values lie in a word, and one instruction rounds two numbers into it, or widens one of them.
// Words are carried as words: out of a pack of halves the compiler makes words anew, 12 instructions in 16
// neuron-steps.
template <typename T, int W>
constexpr bool kPaired = sizeof(T) == 2 && W % 2 == 0;

// W values as they lie in memory.
template <typename T, int W>
using Raw = std::conditional_t<kPaired<T, W>, Pack<uint32_t, (W + 1) / 2>, Pack<T, W>>;

template <int W, typename T>
LIF_FN Raw<T, W> load_raw(const T* from) {
  return *reinterpret_cast<const Raw<T, W>*>(from);
}

template <int W, typename T>
LIF_FN void store_raw(T* to, const Raw<T, W>& raw) {
  *reinterpret_cast<Raw<T, W>*>(to) = raw;
}

// The halves of a word, widened.
template <typename T>
LIF_FN void widen_pair(uint32_t word, float& first, float& second) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    first = float_of(word << 16);
    second = float_of(word & 0xffff0000u);
  } else {
    first = lif::widen(Half{static_cast<uint16_t>(word)});
    second = lif::widen(Half{static_cast<uint16_t>(word >> 16)});
  }
}

template <typename T>
LIF_FN uint32_t narrow_pair(float first, float second) {
#if defined(__CUDA_ARCH__)
  uint32_t word;
  if constexpr (std::is_same_v<T, BFloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    memcpy(&word, &pair, sizeof word);
  } else {
    const __half2 pair = __floats2half2_rn(first, second);
    memcpy(&word, &pair, sizeof word);
  }
  return word;
#else
  return static_cast<uint32_t>(lif::narrow<T>(second).bits) << 16 | lif::narrow<T>(first).bits;
#endif
}

template <typename T, int W, typename S = StateOf<T>>
LIF_FN Pack<S, W> widen(const Raw<T, W>& from) {
  Pack<S, W> pack;
  if constexpr (kPaired<T, W>) {
#pragma unroll
    for (int w = 0; w < W; w += 2) {
      widen_pair<T>(from.at[w / 2], pack.at[w], pack.at[w + 1]);
    }
  } else {
#pragma unroll
    for (int w = 0; w < W; ++w) {
      pack.at[w] = lif::widen(from.at[w]);
    }
  }
  return pack;
}

template <typename T, int W, typename S = StateOf<T>>
LIF_FN Raw<T, W> narrow(const Pack<S, W>& from) {
  Raw<T, W> raw;
  if constexpr (kPaired<T, W>) {
#pragma unroll
    for (int w = 0; w < W; w += 2) {
      raw.at[w / 2] = narrow_pair<T>(from.at[w], from.at[w + 1]);
    }
  } else {
#pragma unroll
    for (int w = 0; w < W; ++w) {
      raw.at[w] = lif::narrow<T>(from.at[w]);
    }
  }
  return raw;
}

template <int W, typename S>
LIF_FN Pack<S, W> load_or_zero(const S* from, int64_t neuron) {
  return from != nullptr ? load<W>(from + neuron) : splat<S, W>(S(0));
}

// A parameter's values for the thread's neurons: two divisions at the most for all of them and all T steps.
// The neurons may straddle the end of a channel and of a period, so each value is read by itself.
template <int W, typename S>
LIF_FN Pack<S, W> load_parameter(const Parameter<S>& parameter, int64_t neuron) {
  Pack<S, W> pack = splat<S, W>(parameter.value);
  if (parameter.values != nullptr) {
    const int64_t channel = parameter.repeat == 1 ? neuron : neuron / parameter.repeat;
    int64_t within = neuron - channel * parameter.repeat;
    int64_t at = channel < parameter.period ? channel : channel % parameter.period;
#pragma unroll
    for (int w = 0; w < W; ++w) {
      pack.at[w] = parameter.values[at];
      if (++within == parameter.repeat) {
        within = 0;
        at = at + 1 == parameter.period ? 0 : at + 1;
      }
    }
  }
  return pack;
}

// The numbers of W neurons of this kind. What it has not is not read. A reset to a value and a gain are the
// same for all neurons of a member (is_general of the launchers).
template <typename Kind, typename S, int W>
struct Group {
  Kind kind;
  Values<S> own[W];
};

template <typename Kind, int W, typename S>
LIF_FN Group<Kind, S, W> load_group(const Neuron<S>& neuron, const Parameter<S>* parameter, int64_t at) {
  Group<Kind, S, W> group{kind_of<Kind>(neuron), {}};
  const Kind& kind = group.kind;
  const Pack<S, W> beta = load_parameter<W>(parameter[kBeta], at);
  const Pack<S, W> theta = load_parameter<W>(parameter[kThreshold], at);
  Pack<S, W> alpha{}, kappa{}, rho{}, v_min{}, v_reset = splat<S, W>(parameter[kResetTo].value),
                                               gain = splat<S, W>(parameter[kGain].value);
  if (kind.synapse) {
    alpha = load_parameter<W>(parameter[kAlpha], at);
  }
  if (kind.adaptive) {
    kappa = load_parameter<W>(parameter[kKappa], at);
    rho = load_parameter<W>(parameter[kRho], at);
  }
  if constexpr (std::is_same_v<Kind, AnyMember>) {
    v_reset = load_parameter<W>(parameter[kResetTo], at);
    gain = load_parameter<W>(parameter[kGain], at);
    v_min = load_parameter<W>(parameter[kFloor], at);
  }
#pragma unroll
  for (int w = 0; w < W; ++w) {
    Values<S>& own = group.own[w];
    own.beta = beta.at[w];
    own.theta = theta.at[w];
    own.v_reset = v_reset.at[w];
    own.gain = gain.at[w];
    own.alpha = alpha.at[w];
    own.kappa = kappa.at[w];
    own.rho = rho.at[w];
    own.level = neuron.strict && !kind.strict ? next_above(own.theta) : own.theta;
    own.rest = neuron.rest;
    own.silence = static_cast<S>(neuron.refractory);
    own.v_min = v_min.at[w];
  }
  return group;
}

// Where the thread's neurons lie.
struct Place {
  int64_t neuron;
  int64_t outer;
  int64_t inner;
};

LIF_FN Place place_of(const Extent& extent, int64_t neuron) {
  const int64_t outer = extent.outer == 1 ? 0 : neuron / extent.inner;
  return {neuron, outer, neuron - outer * extent.inner};
}

template <typename T>
LIF_FN T* start_of(const Series<T>& series, const Place& place) {
  return series.data == nullptr
             ? nullptr
             : series.data + place.outer * series.outer_stride + (series.uniform ? 0 : place.inner);
}

// Of a tensor without a time axis; zeros where it is absent.
template <int W, typename S>
LIF_FN Pack<S, W> load_row(const Series<const S>& series, const Place& place) {
  const S* row = start_of(series, place);
  return row == nullptr ? splat<S, W>(S(0)) : series.uniform ? splat<S, W>(*row) : load<W>(row);
}

// The states of a neuron, and where each lies among those that it has.
template <typename Kind>
LIF_FN bool has_state(const Kind& kind, int state) {
  return state == kMembrane     ? true
         : state == kCurrent    ? kind.synapse
         : state == kAdaptation ? kind.adaptive
                                : kind.refractory;
}

template <typename Kind>
LIF_FN int slot_of(const Kind& kind, int state) {
  int slot = 0;
#pragma unroll
  for (int before = 0; before < kStates; ++before) {
    slot += before < state && has_state(kind, before);
  }
  return slot;
}

// The states of W neurons before a launch or a chunk; from(state) points to the first, or is null: zeros.
template <int W, typename Kind, typename S, typename From>
LIF_FN void load_states(States<S> (&states)[W], const Kind& kind, const From& from) {
#pragma unroll
  for (int state = 0; state < kStates; ++state) {
    Pack<S, W> pack = splat<S, W>(S(0));
    if (has_state(kind, state)) {
      const S* at = from(state);
      pack = at == nullptr ? pack : load<W>(at);
    }
#pragma unroll
    for (int w = 0; w < W; ++w) {
      states[w].of[state] = pack.at[w];
    }
  }
}

template <int W, typename S>
LIF_FN Pack<S, W> pack_of(const States<S> (&states)[W], int state) {
  Pack<S, W> pack;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    pack.at[w] = states[w].of[state];
  }
  return pack;
}

// The states of a checkpoint, one row of neurons each; returns where the next checkpoint begins.
template <int W, typename Kind, typename S>
LIF_FN S* store_checkpoint(S* to, int64_t row, const Kind& kind, const States<S> (&states)[W]) {
#pragma unroll
  for (int state = 0; state < kStates; ++state) {
    if (has_state(kind, state)) {
      store<W>(to, pack_of<W>(states, state));
      to += row;
    }
  }
  return to;
}

// Where a state before the first step lies; null: it is zeros.
template <typename Args>
LIF_FN auto initial_state(const Args& args, int state, int64_t neuron) {
  return args.state[state] == nullptr ? nullptr : args.state[state] + neuron;
}

// Where the states before a chunk lie: given by the caller for the first, else in a checkpoint.
template <typename Kind, typename T, typename S = StateOf<T>>
LIF_FN const S* state_before(const Backward<T>& args, const Kind& kind, int64_t chunk, int state,
                             int64_t neuron) {
  if (chunk == 0) {
    return initial_state(args, state, neuron);
  }
  const int64_t row = (chunk - 1) * slot_of(kind, kStates) + slot_of(kind, state);
  return args.checkpoints + row * neurons(args.extent) + neuron;
}

}  // namespace lif::cuda
