// What a launch of a recurrent layer is told: plain structs, the same for CPU and CUDA.
//
//   r[t] = bias (or 0), then + W[:, i] for each neuron i that fired at t-1, i ascending
//   u[t] = beta * v[t-1] + g * (x[t] + r[t]), and the rest as in step.h
//
// and on the way back, with dr[t] = dx[t] = g * d[t] as in back.h:
//
//   G[t-1] += dr[t] W        j ascending, each product and each sum rounded once
//   dW     += dr[t] s[t-1]   dbias += dr[t]
//
// Forward keeps u and the spikes as bits, and backward needs no x: to compute u again from x would take the
// sum over the spikes once more, which is most of forward.
//
// A layer has `samples` of `neurons` each. What lies in rows has one row for each sample of a step.
#pragma once

#include "neuron/params.h"

namespace lif {

// Rows [steps, samples] of neurons, those of a row side by side; null where the tensor is absent.
template <typename T>
struct SampleRows {
  T* data = nullptr;
  int64_t step = 0;    // elements from a step to the next
  int64_t sample = 0;  // and from a sample to the next
};

template <typename T>
LIF_FN T* row_at(const SampleRows<T>& rows, int64_t t, int64_t sample) {
  return rows.data + t * rows.step + sample * rows.sample;
}

// Of one layer, both ways.
template <typename S>
struct RecurrentNeuron {
  Reset reset = Reset::subtract;
  bool strict = false;
  bool detach_reset = false;
  S v_reset = S(0);
  S gain = S(1);
  Parameter<S> beta, threshold;  // of a period of 1 or of all neurons
};

struct RecurrentExtent {
  int64_t steps = 0;
  int64_t samples = 0;
  int64_t neurons = 0;
};

// T is the type of x, spikes and trace, W that of the weight; the rest is StateOf<T>. Without a time axis
// tensors are dense [samples, neurons].
template <typename T, typename W = StateOf<T>>
struct RecurrentForward {
  using S = StateOf<T>;
  RecurrentExtent extent;
  RecurrentNeuron<S> neuron;
  SampleRows<const T> x;
  const W* weight = nullptr;  // [neurons, neurons], as nn.Linear has it
  const S* bias = nullptr;
  const S* membrane = nullptr;  // before the first step; null: zeros
  const S* fired = nullptr;     // the spikes of the step before it; null: none

  // Outputs; null: not wanted.
  SampleRows<T> spikes, trace;
  S* count = nullptr;
  S* rate = nullptr;
  S* final_membrane = nullptr;
  S* final_spikes = nullptr;
  SampleRows<S> u;                    // kept for backward
  SampleRows<uint64_t> fired_before;  // the spikes of the step before each, kept for the weight's gradient
};

template <typename T, typename W = StateOf<T>>
struct RecurrentBackward {
  using S = StateOf<T>;
  RecurrentExtent extent;
  RecurrentNeuron<S> neuron;
  Surrogate<S> surrogate;
  const W* weight = nullptr;
  const S* membrane = nullptr;
  SampleRows<const S> u;

  // Incoming gradients; null: zero.
  SampleRows<const T> grad_spikes, grad_trace;
  const S* grad_steady = nullptr;  // of the spikes, the same at each step
  const S* grad_final_membrane = nullptr;
  const S* grad_final_spikes = nullptr;

  // Outputs; null but for the first: not wanted.
  SampleRows<S> grad_input;  // of x and of r
  S* grad_membrane = nullptr;
  S* grad_fired = nullptr;
  S* grad_beta = nullptr;  // one partial a neuron of a sample
  S* grad_threshold = nullptr;
};

// The gradients of weight and bias. [neurons, neurons] and [neurons]; null: not wanted.
template <typename S>
struct RecurrentWeights {
  int64_t rows = 0;  // steps * samples
  int64_t neurons = 0;
  const S* grad_input = nullptr;
  int64_t stride = 0;  // elements from a row of it to the next
  const uint64_t* fired_before = nullptr;
  int64_t words = 0;  // of a row of it
  S* grad_weight = nullptr;
  S* grad_bias = nullptr;
};

}  // namespace lif
