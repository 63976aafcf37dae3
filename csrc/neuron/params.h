// What a launch is told: plain structs of pointers, sizes and options, the same for CPU and CUDA.
//
// A kernel sees a tensor with a time axis as (outer, T, inner): element (o, t, i) lies at
// data[o * outer_stride + t * time_stride + i]. Time first, [T, B, ...], is outer = 1; batch first,
// [B, T, ...], is outer = B. A time stride of 0 is a value that is the same at each step: it is read once.
// Tensors without a time axis (states, counts, checkpoints, partial gradients) are dense in the order of the
// neuron m = o * inner + i.
#pragma once

#include <cstdint>

#include "neuron/scalar.h"
#include "neuron/step.h"
#include "neuron/storage.h"
#include "neuron/surrogate.h"

namespace lif {

// What can differ between neurons. All but the floor can be learned.
enum ParameterName : int { kBeta, kThreshold, kResetTo, kGain, kAlpha, kKappa, kRho, kFloor, kParameters };
constexpr int kLearnable = kFloor;

// A number, or values that repeat over the neurons: neuron m has values[(m / repeat) % period].
template <typename S>
struct Parameter {
  const S* values = nullptr;
  int64_t period = 1;
  int64_t repeat = 1;
  S value = S(0);
};

// A tensor with a time axis. `data` is null where the tensor is absent.
template <typename T>
struct Series {
  T* data = nullptr;
  int64_t outer_stride = 0;
  int64_t time_stride = 0;
  bool uniform = false;  // one value for all inner neurons (the gradient of a sum)
};

template <typename S>
struct Neuron {
  Reset reset = Reset::subtract;
  bool strict = false;
  bool delayed = false;       // reset on the way into the next step
  bool detach_reset = false;  // always, where delayed
  bool synapse = false;
  bool adaptive = false;
  int64_t refractory = 0;  // steps of silence after a spike
  S rest = S(0);
  bool floored = false;  // whether there is a floor under the membrane
};

// Whether a neuron has a state beside its membrane.
template <typename S>
LIF_FN bool has_state(const Neuron<S>& neuron, int state) {
  return state == kMembrane     ? true
         : state == kCurrent    ? neuron.synapse
         : state == kAdaptation ? neuron.adaptive
                                : neuron.refractory > 0;
}

template <typename S>
LIF_FN int states_of(const Neuron<S>& neuron) {
  int states = 0;
  for (int state = 0; state < kStates; ++state) {
    states += has_state(neuron, state);
  }
  return states;
}

// Two bits a step, in place of x, for a backward pass that needs no more: whether the neuron fired, and
// whether its membrane was inside the window of the surrogate. Words hold 16 steps, the first in the lowest
// bits.
constexpr int64_t kStepsOfWord = 16;

LIF_FN uint32_t fired_bit(int64_t t) { return 1u << (2 * (t % kStepsOfWord)); }
LIF_FN uint32_t inside_bit(int64_t t) { return 2u << (2 * (t % kStepsOfWord)); }

struct Extent {
  int64_t outer = 0;
  int64_t steps = 0;
  int64_t inner = 0;
};

LIF_FN int64_t neurons(const Extent& extent) { return extent.outer * extent.inner; }

// The time steps of a neuron: those of its sample in a padded batch, or all. A number of them that is out of
// range is clamped: on CUDA nobody has looked at it before.
LIF_FN int64_t steps_of(const Extent& extent, const Parameter<int64_t>& lengths, int64_t neuron) {
  if (lengths.values == nullptr) {
    return extent.steps;
  }
  const int64_t length = lengths.values[neuron / lengths.repeat % lengths.period];
  return length < 0 ? 0 : length < extent.steps ? length : extent.steps;
}

// A launch forward. T is the type of x and of what has a time axis; the rest is StateOf<T>.
template <typename T>
struct Forward {
  using S = StateOf<T>;
  Extent extent;
  Series<const T> x;
  const S* state[kStates] = {};  // null: zeros
  Parameter<S> parameter[kParameters];
  Neuron<S> neuron;

  // Outputs; null: not wanted.
  Series<T> spikes;
  Series<T> trace;         // the membrane after each step's reset
  Series<T> trace_before;  // and before it
  S* count = nullptr;
  S* rate = nullptr;         // count / T; 0 where T is
  S* first = nullptr;        // the step of the first spike; T where there is none
  int64_t* total = nullptr;  // the spikes of all neurons; set to 0 by the caller
  S* trace_max = nullptr;    // the largest membrane after a step; needs one
  S* peak = nullptr;         // the step that reached it first; needs trace_max
  S* trace_mean = nullptr;   // their sum / T; 0 where T is
  S* final_state[kStates] = {};
  // The states before steps K, 2K, ...: [ceil(T / K) - 1, states_of(neuron), neurons].
  S* checkpoints = nullptr;
  int64_t checkpoint_every = 0;
  uint32_t* bits = nullptr;  // [ceil(T / kStepsOfWord), neurons]
  S window = S(0);           // slope of the surrogate, for the bits
  // The spikes in place of the series of them, on the CPU: one bit each, in rows of `packed_neurons` that
  // begin a word of 64; its strides are of words, and the rows of a time step lie one behind the other.
  Series<uint64_t> packed;
  int64_t packed_neurons = 0;
  // Of the samples of a padded batch, in time steps: after its own a neuron neither integrates nor fires.
  // What is kept for backward has no values then. `values` is null where all samples take all steps.
  Parameter<int64_t> lengths;
};

template <typename T>
struct Backward {
  using S = StateOf<T>;
  Extent extent;
  Series<const T> x;
  const S* state[kStates] = {};
  Parameter<S> parameter[kParameters];
  Neuron<S> neuron;
  Surrogate<S> surrogate;
  const S* checkpoints = nullptr;
  int64_t chunk = 0;               // steps between checkpoints; at least T where there are none
  const uint32_t* bits = nullptr;  // in place of x, which is then only a shape
  const S* first = nullptr;        // that forward wrote; needed with grad_first
  const S* peak = nullptr;         // and with grad_trace_max

  // Incoming gradients; null: zero. Those without a time axis have time stride 0.
  Series<const T> grad_spikes;
  Series<const T> grad_trace;
  Series<const T> grad_trace_before;
  Series<const S> grad_count;
  Series<const S> grad_rate;
  Series<const S> grad_first;
  Series<const S> grad_trace_max;
  Series<const S> grad_trace_mean;
  const S* grad_final[kSmoothStates] = {};

  // Outputs; null: not wanted.
  Series<T> grad_x;
  T* grad_x_sum = nullptr;  // summed over time, for a constant input
  S* grad_state[kSmoothStates] = {};
  S* grad_parameter[kLearnable] = {};  // one partial a neuron
  Parameter<int64_t> lengths;          // as forward had them
};

// Partial gradients of a parameter, values [rows, columns, repeat], which are to be summed over rows and
// repeat to the gradient [columns].
template <typename S>
struct PartialSum {
  const S* values = nullptr;
  int64_t rows = 0, columns = 0, repeat = 1;
  S* sum = nullptr;
};

// Whether no parameter but beta and the threshold is asked for its gradient.
template <typename T>
LIF_FN bool learns_plainly(const Backward<T>& args) {
  bool plainly = true;
  for (int name = 0; name < kLearnable; ++name) {
    plainly = plainly && (name == kBeta || name == kThreshold || args.grad_parameter[name] == nullptr);
  }
  return plainly;
}

}  // namespace lif
