// What a launch is told: plain structs of pointers, sizes and options, the same for CPU and CUDA.
//
// A kernel sees a tensor with a time axis as (outer, T, inner): element (o, t, i) lies at
// data[o * outer_stride + t * time_stride + i]. Time first, [T, B, ...], is outer = 1. A time stride of 0
// is a value that is the same at each step: it is read once. Tensors without a time axis (membranes,
// counts, checkpoints, partial gradients) are dense in the order of the neuron m = o * inner + i.
#pragma once

#include <cstdint>

#include "neuron/scalar.h"
#include "neuron/surrogate.h"

namespace lif {

// A number, or values that repeat over the neurons: neuron m has values[m % period].
template <typename S>
struct Parameter {
  const S* values = nullptr;
  int64_t period = 1;
  S value = S(0);
};

// A tensor with a time axis. `data` is null where the tensor is absent.
template <typename T>
struct Series {
  T* data = nullptr;
  int64_t outer_stride = 0;
  int64_t time_stride = 0;
};

template <typename S>
struct NeuronOptions {
  Shape shape = Shape::fast_sigmoid;
  S slope = S(0);
  S scale = S(0);
  bool detach_reset = false;
};

struct Extent {
  int64_t outer = 0;
  int64_t steps = 0;
  int64_t inner = 0;
};

LIF_FN int64_t neurons(const Extent& extent) { return extent.outer * extent.inner; }

template <typename S>
struct Forward {
  Extent extent;
  Series<const S> x;
  const S* membrane = nullptr;  // null: zeros
  Parameter<S> beta;
  Parameter<S> threshold;

  // Outputs; null: not wanted.
  Series<S> spikes;
  S* count = nullptr;
  S* final_membrane = nullptr;
  // The membrane before steps K, 2K, ...: [ceil(T / K) - 1, neurons].
  S* checkpoints = nullptr;
  int64_t checkpoint_every = 0;
};

template <typename S>
struct Backward {
  Extent extent;
  Series<const S> x;
  const S* membrane = nullptr;
  Parameter<S> beta;
  Parameter<S> threshold;
  NeuronOptions<S> options;
  const S* checkpoints = nullptr;
  int64_t chunk = 0;  // steps between checkpoints; at least T where there are none

  // Incoming gradients; null: zero.
  Series<const S> grad_out;
  bool grad_out_uniform = false;  // one value for all neurons of a step (the gradient of a sum)
  const S* grad_final_membrane = nullptr;

  // Outputs; null: not wanted.
  Series<S> grad_x;         // dense in time
  S* grad_x_sum = nullptr;  // summed over time, for a constant input
  S* grad_membrane = nullptr;
  S* grad_beta = nullptr;       // one partial a neuron
  S* grad_threshold = nullptr;  // one partial a neuron
};

}  // namespace lif
