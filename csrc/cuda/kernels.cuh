// The CUDA kernels. No torch, and nothing of CUDA but blockIdx, blockDim, threadIdx, dynamic shared memory
// and the rounding intrinsics of neuron/scalar.h, so that the tests can run these very bodies on the host.
//
// A thread owns W neighbouring neurons for all T steps; their state stays in registers. Neighbouring
// threads own neighbouring neurons, so each access of a warp is one contiguous piece of 32 * W values. No
// thread reads what another wrote: there is no synchronisation, and no order of threads changes a bit.
#pragma once

#include <cstdint>

#include "neuron/params.h"
#include "neuron/step.h"
#include "neuron/surrogate.h"

namespace lif::cuda {

constexpr int kForwardThreads = 256;
constexpr int kBackwardThreads = 128;

// Time steps whose loads are in flight at once. A wide thread has 64 bytes on the way: with 2048 threads a
// multiprocessor that is 128 KiB, where 4.8 TB/s * 0.65 us / 132 multiprocessors asks for 24 KiB.
constexpr int kAhead = 4;

// W values moved as one access of W * sizeof(S) bytes.
template <typename S, int W>
struct alignas(sizeof(S) * W) Pack {
  S at[W];
};

template <int W, typename S>
LIF_FN Pack<S, W> load(const S* from) {
  return *reinterpret_cast<const Pack<S, W>*>(from);
}

template <int W, typename S>
LIF_FN void store(S* to, const Pack<S, W>& pack) {
  *reinterpret_cast<Pack<S, W>*>(to) = pack;
}

template <int W, typename S>
LIF_FN Pack<S, W> splat(S value) {
  Pack<S, W> pack;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    pack.at[w] = value;
  }
  return pack;
}

template <int W, typename S>
LIF_FN Pack<S, W> load_or_zero(const S* from, int64_t neuron) {
  return from != nullptr ? load<W>(from + neuron) : splat<W>(S(0));
}

// A parameter's values for the thread's neurons: one modulo for all T steps. They may straddle the end of
// a period, so each is read by itself.
template <int W, typename S>
LIF_FN Pack<S, W> load_parameter(const Parameter<S>& parameter, int64_t neuron) {
  Pack<S, W> pack = splat<W>(parameter.value);
  if (parameter.values != nullptr) {
    int64_t index = neuron % parameter.period;
#pragma unroll
    for (int w = 0; w < W; ++w) {
      pack.at[w] = parameter.values[index];
      index = index + 1 == parameter.period ? 0 : index + 1;
    }
  }
  return pack;
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
  return series.data + place.outer * series.outer_stride + place.inner;
}

// One time step of the thread's neurons; returns the spikes.
template <typename S, int W>
LIF_FN Pack<S, W> step(Pack<S, W>& v, const Pack<S, W>& x, const Pack<S, W>& beta, const Pack<S, W>& theta) {
  Pack<S, W> spikes;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    const S u = integrate(beta.at[w], v.at[w], x.at[w]);
    const S s = fire(u, theta.at[w]);
    v.at[w] = reset_subtract(u, theta.at[w], s);
    spikes.at[w] = s;
  }
  return spikes;
}

// Forward, T steps. Bytes a neuron-step in fp32: 4 of x (4 / T for a constant input), 4 of spikes or 4 / T
// of counts, 4 / K of checkpoints. On an H200 at 4.8 TB/s 8 bytes are 1.7 ps.
template <typename S, int W>
__global__ void __launch_bounds__(kForwardThreads) forward_kernel(const Forward<S> args) {
  const int64_t neuron = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * W;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const int64_t steps = args.extent.steps;
  const S* x = start_of(args.x, place);
  const int64_t x_stride = args.x.time_stride;
  S* spikes_out = args.spikes.data != nullptr ? start_of(args.spikes, place) : nullptr;
  Pack<S, W> v = load_or_zero<W>(args.membrane, neuron);
  const Pack<S, W> beta = load_parameter<W>(args.beta, neuron);
  const Pack<S, W> theta = load_parameter<W>(args.threshold, neuron);
  Pack<S, W> count = splat<W>(S(0));

  // A constant input is loaded once and stays in its register; otherwise slot j holds the next step t with
  // t % kAhead == j, loaded kAhead steps before it is used.
  Pack<S, W> ahead[kAhead];
#pragma unroll
  for (int j = 0; j < kAhead; ++j) {
    ahead[j] = j < steps ? load<W>(x + j * x_stride) : splat<W>(S(0));
  }
  S* checkpoint = args.checkpoints;
  int64_t until_checkpoint = args.checkpoint_every;
  for (int64_t first = 0; first < steps; first += kAhead) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int64_t t = first + j;
      if (t >= steps) {
        break;
      }
      if (checkpoint != nullptr && until_checkpoint-- == 0) {
        store<W>(checkpoint + neuron, v);
        checkpoint += neurons(args.extent);
        until_checkpoint = args.checkpoint_every - 1;
      }
      const Pack<S, W> current = ahead[j];
      if (x_stride != 0 && t + kAhead < steps) {
        ahead[j] = load<W>(x + (t + kAhead) * x_stride);
      }
      const Pack<S, W> spikes = step(v, current, beta, theta);
      if (spikes_out != nullptr) {
        store<W>(spikes_out + t * args.spikes.time_stride, spikes);
      }
#pragma unroll
      for (int w = 0; w < W; ++w) {
        count.at[w] = add(count.at[w], spikes.at[w]);
      }
    }
  }
  if (args.count != nullptr) {
    store<W>(args.count + neuron, count);
  }
  if (args.final_membrane != nullptr) {
    store<W>(args.final_membrane + neuron, v);
  }
}

template <typename S>
LIF_FN S surrogate(S z, const NeuronOptions<S>& options) {
  switch (options.shape) {
    case Shape::fast_sigmoid:
      return fast_sigmoid(z, options.slope, options.scale);
  }
  return S(0);
}

// What a thread carries back through time.
template <typename S, int W>
struct Adjoint {
  Pack<S, W> a;  // dL/dv
  Pack<S, W> grad_x, grad_beta, grad_threshold;
};

// One time step back, from u of the step and v before it; returns dL/dx of the step.
template <bool kDetachReset, typename S, int W>
LIF_FN Pack<S, W> step_back(Adjoint<S, W>& adjoint, const Pack<S, W>& g, const Pack<S, W>& u,
                            const Pack<S, W>& v_before, const Pack<S, W>& beta, const Pack<S, W>& theta,
                            const NeuronOptions<S>& options) {
  Pack<S, W> gradient;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    const S a = adjoint.a.at[w];
    const S h = surrogate(sub(u.at[w], theta.at[w]), options);
    const S e = reach_spike<kDetachReset>(g.at[w], theta.at[w], a);
    const S d = reach_membrane(a, e, h);
    const S s = fire(u.at[w], theta.at[w]);
    adjoint.grad_x.at[w] = add(adjoint.grad_x.at[w], d);
    adjoint.grad_beta.at[w] = add(adjoint.grad_beta.at[w], beta_gradient(d, v_before.at[w]));
    adjoint.grad_threshold.at[w] = add(adjoint.grad_threshold.at[w], threshold_gradient(e, h, a, s));
    adjoint.a.at[w] = leak_back(beta.at[w], d);
    gradient.at[w] = d;
  }
  return gradient;
}

template <typename S, int W>
LIF_FN Pack<S, W> reset(const Pack<S, W>& u, const Pack<S, W>& theta) {
  Pack<S, W> v;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    v.at[w] = reset_subtract(u.at[w], theta.at[w], fire(u.at[w], theta.at[w]));
  }
  return v;
}

template <int W, typename S>
LIF_FN Pack<S, W> load_gradient(const S* from, bool uniform) {
  return from == nullptr ? splat<W>(S(0)) : uniform ? splat<W>(*from) : load<W>(from);
}

// Backward, T steps. A chunk's membranes u are recomputed from x into the thread's own column of shared
// memory, and read back in reverse: for each step the columns of a warp are neighbours, so there are no
// bank conflicts and nothing to synchronise. An array over the chunk in registers would spill.
//
// Bytes a neuron-step in fp32: 4 of x, 4 of the incoming gradient, 4 of dL/dx, 4 / K of checkpoints: 2.5 ps
// on an H200. Shared memory: 4 * W * threads bytes a step of the chunk, 56 KiB for 28 steps of 128 threads
// with W = 4, so four blocks fit a multiprocessor.
template <typename S, int W, bool kDetachReset>
__global__ void __launch_bounds__(kBackwardThreads) backward_kernel(const Backward<S> args) {
  extern __shared__ __align__(16) unsigned char shared[];
  S* column = reinterpret_cast<S*>(shared) + threadIdx.x * W;
  const int64_t row = static_cast<int64_t>(blockDim.x) * W;

  const int64_t neuron = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * W;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const int64_t steps = args.extent.steps;
  const S* x = start_of(args.x, place);
  const int64_t x_stride = args.x.time_stride;
  const S* g = nullptr;
  if (args.grad_out.data != nullptr) {
    g = args.grad_out.data + place.outer * args.grad_out.outer_stride +
        (args.grad_out_uniform ? 0 : place.inner);
  }
  const int64_t g_stride = args.grad_out.time_stride;
  S* grad_x = args.grad_x.data != nullptr ? start_of(args.grad_x, place) : nullptr;
  const Pack<S, W> beta = load_parameter<W>(args.beta, neuron);
  const Pack<S, W> theta = load_parameter<W>(args.threshold, neuron);
  Adjoint<S, W> adjoint{load_or_zero<W>(args.grad_final_membrane, neuron), splat<W>(S(0)), splat<W>(S(0)),
                        splat<W>(S(0))};

  for (int64_t chunk = (steps + args.chunk - 1) / args.chunk - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * args.chunk;
    const int64_t end = begin + args.chunk < steps ? begin + args.chunk : steps;
    const Pack<S, W> v_begin = chunk == 0
                                   ? load_or_zero<W>(args.membrane, neuron)
                                   : load<W>(args.checkpoints + (chunk - 1) * neurons(args.extent) + neuron);

    Pack<S, W> ahead[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      ahead[j] = begin + j < end ? load<W>(x + (begin + j) * x_stride) : splat<W>(S(0));
    }
    Pack<S, W> v = v_begin;
    for (int64_t first = begin; first < end; first += kAhead) {
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int64_t t = first + j;
        if (t >= end) {
          break;
        }
        const Pack<S, W> current = ahead[j];
        if (x_stride != 0 && t + kAhead < end) {
          ahead[j] = load<W>(x + (t + kAhead) * x_stride);
        }
        Pack<S, W> u;
#pragma unroll
        for (int w = 0; w < W; ++w) {
          u.at[w] = integrate(beta.at[w], v.at[w], current.at[w]);
        }
        store<W>(column + (t - begin) * row, u);
        v = reset(u, theta);
      }
    }

#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int64_t t = end - 1 - j;
      ahead[j] =
          load_gradient<W>(g != nullptr && t >= begin ? g + t * g_stride : nullptr, args.grad_out_uniform);
    }
    Pack<S, W> u = load<W>(column + (end - 1 - begin) * row);
    for (int64_t last = end - 1; last >= begin; last -= kAhead) {
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int64_t t = last - j;
        if (t < begin) {
          break;
        }
        const Pack<S, W> incoming = ahead[j];
        if (g_stride != 0 && g != nullptr && t - kAhead >= begin) {
          ahead[j] = load_gradient<W>(g + (t - kAhead) * g_stride, args.grad_out_uniform);
        }
        Pack<S, W> u_before = u;
        Pack<S, W> v_before = v_begin;
        if (t > begin) {
          u_before = load<W>(column + (t - 1 - begin) * row);
          v_before = reset(u_before, theta);
        }
        const Pack<S, W> d =
            step_back<kDetachReset>(adjoint, incoming, u, v_before, beta, theta, args.options);
        if (grad_x != nullptr) {
          store<W>(grad_x + t * args.grad_x.time_stride, d);
        }
        u = u_before;
      }
    }
  }

  if (args.grad_x_sum != nullptr) {
    store<W>(args.grad_x_sum + neuron, adjoint.grad_x);
  }
  if (args.grad_membrane != nullptr) {
    store<W>(args.grad_membrane + neuron, adjoint.a);
  }
  if (args.grad_beta != nullptr) {
    store<W>(args.grad_beta + neuron, adjoint.grad_beta);
  }
  if (args.grad_threshold != nullptr) {
    store<W>(args.grad_threshold + neuron, adjoint.grad_threshold);
  }
}

}  // namespace lif::cuda
