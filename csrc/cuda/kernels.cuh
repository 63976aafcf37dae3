// The CUDA kernels. No torch, and nothing of CUDA but blockIdx, blockDim, threadIdx, dynamic shared memory,
// an atomic addition of integers and the rounding intrinsics of neuron/scalar.h, so that the tests can run
// these very bodies on the host.
//
// A thread owns W neighbouring neurons for all T steps; their state stays in registers. Neighbouring
// threads own neighbouring neurons, so each access of a warp is one contiguous piece of 32 * W values. No
// thread reads what another wrote: there is no synchronisation, and no order of threads changes a bit.
//
// What is instantiated, for each of the four types of x, forward and backward:
//   plain, W wide   the common neuron (is_plain below), where every access is aligned
//   plain, W = 1    the same where it is not, or where wide threads would be too few
//   general, W = 1  everything else: further states, learnable v_reset and gain, traces, first-spike times
// 24 kernels. Resets, surrogates and the other options are uniform switches inside them: a product of
// options would be thousands of kernels, and a branch that a whole grid takes alike costs next to nothing
// beside memory.
#pragma once

#include <cstdint>

#include "neuron/params.h"
#include "neuron/step.h"
#include "neuron/storage.h"
#include "neuron/surrogate.h"

namespace lif::cuda {

constexpr int kForwardThreads = 256;
constexpr int kBackwardThreads = 128;
// Blocks of a multiprocessor that the registers of backward must leave room for. Asked for fewer than four,
// the compiler needs no spills; the shared memory of a wide block allows four.
constexpr int kBackwardBlocks = 3;
// The batches of a narrow thread alone are 56 registers, 112 in fp64.
template <int W>
constexpr int kPlainBackwardBlocks = W == 1 ? 2 : kBackwardBlocks;

// Time steps whose loads are in flight at once. A wide thread has 64 bytes on the way: with 2048 threads a
// multiprocessor that is 128 KiB, where 4.8 TB/s * 0.65 us / 132 multiprocessors asks for 24 KiB.
constexpr int kAhead = 4;

// A narrow thread, which stands alone where neurons are few, has a batch of steps on the way: a load takes
// some 0.65 us and a step forward some 12 ns, so that 55 steps hide the one behind the other; a step backward
// is longer, and has two series. Registers hold a batch while it travels, and a column of shared memory while
// it is used, so that the loop over its steps is not unrolled. Backward a batch is a chunk
// (checkpoint_interval of lif_cuda/_ops.py).
template <typename T>
constexpr int kForwardBatch = sizeof(T) == 8 ? 24 : 48;
constexpr int kBackwardBatch = 28;

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

template <typename T, int W, typename S = StateOf<T>>
LIF_FN Pack<S, W> widen(const Pack<T, W>& from) {
  Pack<S, W> pack;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    pack.at[w] = lif::widen(from.at[w]);
  }
  return pack;
}

template <typename T, int W, typename S = StateOf<T>>
LIF_FN Pack<T, W> narrow(const Pack<S, W>& from) {
  Pack<T, W> pack;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    pack.at[w] = lif::narrow<T>(from.at[w]);
  }
  return pack;
}

template <int W, typename S>
LIF_FN Pack<S, W> load_or_zero(const S* from, int64_t neuron) {
  return from != nullptr ? load<W>(from + neuron) : splat<S, W>(S(0));
}

// A parameter's values for the thread's neurons: two divisions for all of them and all T steps. The neurons
// may straddle the end of a channel and of a period, so each value is read by itself.
template <int W, typename S>
LIF_FN Pack<S, W> load_parameter(const Parameter<S>& parameter, int64_t neuron) {
  Pack<S, W> pack = splat<S, W>(parameter.value);
  if (parameter.values != nullptr) {
    const int64_t channel = parameter.repeat == 1 ? neuron : neuron / parameter.repeat;
    int64_t within = neuron - channel * parameter.repeat;
    int64_t at = channel % parameter.period;
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

// Element or elements of a row, in storage; `row` may be null: zeros.
template <int W, typename T>
LIF_FN Pack<T, W> load_row(const T* row, bool uniform) {
  return row == nullptr ? splat<T, W>(T{}) : uniform ? splat<T, W>(*row) : load<W>(row);
}

// body(t, value) for each step t from `first` on and before `last`, forward in time (kDirection 1) or
// backward (-1), where value is load(t): slot j holds the next step of its turn, loaded kAhead steps before
// it is used. A series that does not move is loaded once and stays in its registers.
// NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result): one times a few steps.
template <int kDirection, typename Load, typename Body>
LIF_FN void with_loads_ahead(int64_t first, int64_t last, bool moves, const Load& load, const Body& body) {
  using Value = decltype(load(first));
  const auto left = [&](int64_t t) { return kDirection * (last - t); };
  Value ahead[kAhead];
#pragma unroll
  for (int j = 0; j < kAhead; ++j) {
    const int64_t t = first + kDirection * j;
    ahead[j] = left(t) > 0 ? load(t) : Value{};
  }
  for (int64_t turn = first; left(turn) > 0; turn += kDirection * kAhead) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int64_t t = turn + kDirection * j;
      if (left(t) <= 0) {
        break;
      }
      const Value value = ahead[j];
      if (moves && left(t) > kAhead) {
        ahead[j] = load(t + kDirection * kAhead);
      }
      body(t, value);
    }
  }
}
// NOLINTEND(bugprone-implicit-widening-of-multiplication-result)

// The values of up to kSize steps, on their way from memory.
template <typename Value, int kSize>
struct Batch {
  Value at[kSize];
};

template <typename Value, int kSize, typename Load>
LIF_FN void load_batch(Batch<Value, kSize>& batch, int64_t first, int64_t last, const Load& load) {
#pragma unroll
  for (int j = 0; j < kSize; ++j) {
    batch.at[j] = first + j < last ? load(first + j) : Value{};
  }
}

// Into the thread's own column of shared memory, `row` apart.
template <typename T, int kSize, typename S = StateOf<T>>
LIF_FN void widen_batch(const Batch<Pack<T, 1>, kSize>& batch, S* column, int64_t row, int64_t size) {
#pragma unroll
  for (int j = 0; j < kSize; ++j) {
    if (j < size) {
      column[j * row] = lif::widen(batch.at[j].at[0]);
    }
  }
}

// body(t, value) for each step, forward in time, where a batch is used while the next one is loaded.
template <int kSize, typename S, typename Load, typename Body>
LIF_FN void with_batches_ahead(int64_t steps, bool moves, S* column, int64_t row, const Load& load,
                               const Body& body) {
  if (!moves) {
    const S value = steps > 0 ? lif::widen(load(0).at[0]) : S(0);
    for (int64_t t = 0; t < steps; ++t) {
      body(t, Pack<S, 1>{value});
    }
    return;
  }
  Batch<decltype(load(0)), kSize> batch;
  load_batch(batch, 0, steps, load);
  for (int64_t first = 0; first < steps; first += kSize) {
    const int64_t size = steps - first < kSize ? steps - first : kSize;
    widen_batch(batch, column, row, size);
    load_batch(batch, first + kSize, steps, load);
    for (int64_t j = 0; j < size; ++j) {
      body(first + j, Pack<S, 1>{column[j * row]});
    }
  }
}

template <typename S>
LIF_FN S surrogate(S z, const Surrogate<S>& surrogate) {
  switch (surrogate.shape) {
    case Shape::fast_sigmoid:
      return fast_sigmoid(z, surrogate.slope, surrogate.scale);
    case Shape::atan:
      return atan_shape(z, surrogate.slope, surrogate.scale);
    case Shape::sigmoid:
      return sigmoid(z, surrogate.slope, surrogate.scale);
    case Shape::triangle:
      return triangle(z, surrogate.slope, surrogate.scale);
    case Shape::piecewise_exp:
      return piecewise_exp(z, surrogate.slope, surrogate.scale);
    case Shape::gaussian:
      return gaussian(z, surrogate.slope, surrogate.scale);
    case Shape::rectangle:
      return rectangle(z, surrogate.slope, surrogate.scale);
    case Shape::table:
      return table_shape(z, surrogate);
  }
  return S(0);
}

// Add a thread's spikes to those of all neurons. Integers: no order of additions changes the sum.
LIF_FN void add_to_total(int64_t* total, unsigned spikes) {
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

// Whether the plain kernels hold all of a neuron: no further state, v_reset and gain the same for all.
template <typename S>
LIF_FN bool is_plain(const Neuron<S>& neuron, const Parameter<S>* parameter) {
  return !neuron.synapse && !neuron.adaptive && neuron.refractory == 0 && !neuron.delayed &&
         neuron.rest == S(0) && parameter[kResetTo].values == nullptr && parameter[kGain].values == nullptr;
}

template <typename T>
LIF_FN bool is_plain(const Forward<T>& args) {
  return is_plain(args.neuron, args.parameter) && args.trace.data == nullptr &&
         args.trace_before.data == nullptr && args.first == nullptr && args.bits == nullptr;
}

template <typename T>
LIF_FN bool is_plain(const Backward<T>& args) {
  return is_plain(args.neuron, args.parameter) && learns_plainly(args) && args.grad_trace.data == nullptr &&
         args.grad_trace_before.data == nullptr && args.grad_first.data == nullptr && args.bits == nullptr;
}

// One time step of the thread's neurons; returns the spikes.
template <typename S, int W>
LIF_FN Pack<S, W> step(Pack<S, W>& v, const Pack<S, W>& x, const Pack<S, W>& beta, const Pack<S, W>& theta,
                       const Neuron<S>& neuron, S v_reset, S gain) {
  Pack<S, W> spikes;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    const S u = integrate(beta.at[w], v.at[w], mul(gain, x.at[w]));
    const S s = fire(u, theta.at[w], neuron.strict);
    v.at[w] = reset(neuron.reset, u, theta.at[w], v_reset, s);
    spikes.at[w] = s;
  }
  return spikes;
}

// Forward, T steps, the common neuron. Bytes a neuron-step in fp32: 4 of x (4 / T for a constant input), 4 of
// spikes or 4 / T of counts, 4 / K of checkpoints; half of each in 16 bits. On an H200 at 4.8 TB/s 8 bytes
// are 1.7 ps.
template <typename T, int W>
__global__ void __launch_bounds__(kForwardThreads) plain_forward_kernel(const Forward<T> args) {
  using S = StateOf<T>;
  const int64_t neuron = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * W;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const int64_t steps = args.extent.steps;
  const T* x = start_of(args.x, place);
  const int64_t x_stride = args.x.time_stride;
  T* spikes_out = start_of(args.spikes, place);
  Pack<S, W> v = load_or_zero<W>(args.state[kMembrane], neuron);
  const Pack<S, W> beta = load_parameter<W>(args.parameter[kBeta], neuron);
  const Pack<S, W> theta = load_parameter<W>(args.parameter[kThreshold], neuron);
  const S v_reset = args.parameter[kResetTo].value;
  const S gain = args.parameter[kGain].value;
  Pack<S, W> count = splat<S, W>(S(0));

  S* checkpoint = args.checkpoints;
  int64_t until_checkpoint = args.checkpoint_every;
  const auto load_x = [&](int64_t t) { return load_row<W>(x + t * x_stride, args.x.uniform); };
  const auto step_of = [&](int64_t t, const Pack<S, W>& current) {
    if (checkpoint != nullptr && until_checkpoint-- == 0) {
      store<W>(checkpoint + neuron, v);
      checkpoint += neurons(args.extent);
      until_checkpoint = args.checkpoint_every - 1;
    }
    const Pack<S, W> spikes = step(v, current, beta, theta, args.neuron, v_reset, gain);
    if (spikes_out != nullptr) {
      store<W>(spikes_out + t * args.spikes.time_stride, narrow<T>(spikes));
    }
#pragma unroll
    for (int w = 0; w < W; ++w) {
      count.at[w] = add(count.at[w], spikes.at[w]);
    }
  };
  if constexpr (W == 1) {
    extern __shared__ __align__(16) unsigned char shared[];
    S* column = reinterpret_cast<S*>(shared) + threadIdx.x;
    with_batches_ahead<kForwardBatch<T>>(steps, x_stride != 0, column, blockDim.x, load_x, step_of);
  } else {
    with_loads_ahead<1>(0, steps, x_stride != 0, load_x,
                        [&](int64_t t, const Pack<T, W>& x_now) { step_of(t, widen(x_now)); });
  }
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
  if (args.final_state[kMembrane] != nullptr) {
    store<W>(args.final_state[kMembrane] + neuron, v);
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

// The gradient that all steps share, from the count and the rate.
template <int W, typename T, typename S = StateOf<T>>
LIF_FN Pack<S, W> constant_gradient(const Backward<T>& args, const Place& place) {
  const Pack<S, W> count = load_row<W>(start_of(args.grad_count, place), args.grad_count.uniform);
  if (args.grad_rate.data == nullptr) {
    return count;
  }
  Pack<S, W> sum = load_row<W>(start_of(args.grad_rate, place), args.grad_rate.uniform);
#pragma unroll
  for (int w = 0; w < W; ++w) {
    sum.at[w] = div(sum.at[w], static_cast<S>(args.extent.steps));
    if (args.grad_count.data != nullptr) {
      sum.at[w] = add(sum.at[w], count.at[w]);
    }
  }
  return sum;
}

// What a thread carries back through time.
template <typename S, int W>
struct Adjoint {
  Pack<S, W> a;  // dL/dv
  Pack<S, W> grad_x, grad_beta, grad_threshold;
};

// One time step back, from u of the step and v before it; returns dL/dx of the step.
template <typename S, int W>
LIF_FN Pack<S, W> step_back(Adjoint<S, W>& adjoint, const Pack<S, W>& g, const Pack<S, W>& u,
                            const Pack<S, W>& v_before, const Pack<S, W>& beta, const Pack<S, W>& theta,
                            const Neuron<S>& neuron, const Surrogate<S>& shape, S v_reset, S gain) {
  Pack<S, W> gradient;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    const S a = adjoint.a.at[w];
    const S h = surrogate(sub(u.at[w], theta.at[w]), shape);
    const S s = fire(u.at[w], theta.at[w], neuron.strict);
    const S e = reach_spike(neuron.reset, neuron.detach_reset, g.at[w], u.at[w], theta.at[w], v_reset, a);
    const S through = mul(e, h);
    const S d = add(keep(neuron.reset, a, s), through);
    const S dx = mul(gain, d);
    adjoint.grad_x.at[w] = add(adjoint.grad_x.at[w], dx);
    adjoint.grad_beta.at[w] = add(adjoint.grad_beta.at[w], mul(d, v_before.at[w]));
    adjoint.grad_threshold.at[w] =
        add(adjoint.grad_threshold.at[w], threshold_gradient(neuron.reset, through, a, s));
    adjoint.a.at[w] = mul(beta.at[w], d);
    gradient.at[w] = dx;
  }
  return gradient;
}

// Backward, T steps, the common neuron. A chunk's membranes u are recomputed from x into the thread's own
// column of shared memory, and read back in reverse: for each step the columns of a warp are neighbours, so
// there are no bank conflicts and nothing to synchronise. An array over the chunk in registers would spill.
//
// Bytes a neuron-step in fp32: 4 of x, 4 of the incoming gradient, 4 of dL/dx, 4 / K of checkpoints: 2.5 ps
// on an H200. Shared memory: 4 * W * threads bytes a step of the chunk, 56 KiB for 28 steps of 128 threads
// with W = 4, so four blocks fit a multiprocessor.
template <typename T, int W>
__global__ void __launch_bounds__(kBackwardThreads, kPlainBackwardBlocks<W>)
    plain_backward_kernel(const Backward<T> args) {
  using S = StateOf<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  S* column = reinterpret_cast<S*>(shared) + threadIdx.x * W;
  const int64_t row = static_cast<int64_t>(blockDim.x) * W;

  const int64_t neuron = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * W;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const int64_t steps = args.extent.steps;
  const T* x = start_of(args.x, place);
  const int64_t x_stride = args.x.time_stride;
  const T* g = start_of(args.grad_spikes, place);
  const int64_t g_stride = args.grad_spikes.time_stride;
  const auto load_x = [&](int64_t t) { return load_row<W>(x + t * x_stride, args.x.uniform); };
  const auto load_g = [&](int64_t t) {
    return load_row<W>(g == nullptr ? nullptr : g + t * g_stride, args.grad_spikes.uniform);
  };
  const bool counted = args.grad_count.data != nullptr || args.grad_rate.data != nullptr;
  const Pack<S, W> constant = constant_gradient<W>(args, place);
  T* grad_x = start_of(args.grad_x, place);
  const Pack<S, W> beta = load_parameter<W>(args.parameter[kBeta], neuron);
  const Pack<S, W> theta = load_parameter<W>(args.parameter[kThreshold], neuron);
  const S v_reset = args.parameter[kResetTo].value;
  const S gain = args.parameter[kGain].value;
  const Neuron<S>& options = args.neuron;
  const auto reset_all = [&](const Pack<S, W>& u) {
    Pack<S, W> v;
#pragma unroll
    for (int w = 0; w < W; ++w) {
      v.at[w] =
          reset(options.reset, u.at[w], theta.at[w], v_reset, fire(u.at[w], theta.at[w], options.strict));
    }
    return v;
  };
  Adjoint<S, W> adjoint{load_or_zero<W>(args.grad_final[kMembrane], neuron), splat<S, W>(S(0)),
                        splat<S, W>(S(0)), splat<S, W>(S(0))};

  const int64_t chunks = (steps + args.chunk - 1) / args.chunk;
  const auto end_of = [&](int64_t chunk) {
    return (chunk + 1) * args.chunk < steps ? (chunk + 1) * args.chunk : steps;
  };
  // A narrow thread: x and g of a chunk are loaded while the chunk after it is gone through, and have a
  // column each; u takes the place of x.
  constexpr int kBatch = W == 1 ? kBackwardBatch : 1;
  Batch<Pack<T, 1>, kBatch> x_batch, g_batch;
  const auto load_batches = [&](int64_t chunk) {
    if constexpr (W == 1) {
      if (chunk >= 0) {
        load_batch(x_batch, chunk * args.chunk, end_of(chunk), load_x);
        load_batch(g_batch, chunk * args.chunk, end_of(chunk), load_g);
      }
    }
  };
  load_batches(chunks - 1);
  for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * args.chunk;
    const int64_t end = end_of(chunk);
    const Pack<S, W> v_begin = chunk == 0
                                   ? load_or_zero<W>(args.state[kMembrane], neuron)
                                   : load<W>(args.checkpoints + (chunk - 1) * neurons(args.extent) + neuron);

    Pack<S, W> v = v_begin;
    const auto recompute = [&](int64_t t, const Pack<S, W>& current) {
      Pack<S, W> u;
#pragma unroll
      for (int w = 0; w < W; ++w) {
        u.at[w] = integrate(beta.at[w], v.at[w], mul(gain, current.at[w]));
      }
      store<W>(column + (t - begin) * row, u);
      v = reset_all(u);
    };
    Pack<S, W> u;
    const auto go_back = [&](int64_t t, Pack<S, W> incoming) {
      if (counted) {
#pragma unroll
        for (int w = 0; w < W; ++w) {
          incoming.at[w] = add(incoming.at[w], constant.at[w]);
        }
      }
      Pack<S, W> u_before = u;
      Pack<S, W> v_before = v_begin;
      if (t > begin) {
        u_before = load<W>(column + (t - 1 - begin) * row);
        v_before = reset_all(u_before);
      }
      const Pack<S, W> dx =
          step_back(adjoint, incoming, u, v_before, beta, theta, options, args.surrogate, v_reset, gain);
      if (grad_x != nullptr) {
        store<W>(grad_x + t * args.grad_x.time_stride, narrow<T>(dx));
      }
      u = u_before;
    };
    if constexpr (W == 1) {
      S* g_column = column + args.chunk * row;
      widen_batch(x_batch, column, row, end - begin);
      widen_batch(g_batch, g_column, row, end - begin);
      load_batches(chunk - 1);
      for (int64_t t = begin; t < end; ++t) {
        recompute(t, load<1>(column + (t - begin) * row));
      }
      u = load<1>(column + (end - 1 - begin) * row);
      for (int64_t t = end - 1; t >= begin; --t) {
        go_back(t, load<1>(g_column + (t - begin) * row));
      }
    } else {
      with_loads_ahead<1>(begin, end, x_stride != 0, load_x,
                          [&](int64_t t, const Pack<T, W>& x_now) { recompute(t, widen(x_now)); });
      u = load<W>(column + (end - 1 - begin) * row);
      with_loads_ahead<-1>(end - 1, begin - 1, g_stride != 0, load_g,
                           [&](int64_t t, const Pack<T, W>& g_now) { go_back(t, widen(g_now)); });
    }
  }

  if (args.grad_x_sum != nullptr) {
    store<W>(args.grad_x_sum + neuron, narrow<T>(adjoint.grad_x));
  }
  if (args.grad_state[kMembrane] != nullptr) {
    store<W>(args.grad_state[kMembrane] + neuron, adjoint.a);
  }
  if (args.grad_parameter[kBeta] != nullptr) {
    store<W>(args.grad_parameter[kBeta] + neuron, adjoint.grad_beta);
  }
  if (args.grad_parameter[kThreshold] != nullptr) {
    store<W>(args.grad_parameter[kThreshold] + neuron, adjoint.grad_threshold);
  }
}

// The parameters and the states of one neuron.
template <typename S>
struct OneNeuron {
  S beta, theta, v_reset, gain, alpha, kappa, rho;
  S v, i, b, q;
};

template <typename S>
LIF_FN OneNeuron<S> load_neuron(const Parameter<S>* parameter, int64_t neuron) {
  const auto value = [&](int name) { return load_parameter<1>(parameter[name], neuron).at[0]; };
  return {value(kBeta),
          value(kThreshold),
          value(kResetTo),
          value(kGain),
          value(kAlpha),
          value(kKappa),
          value(kRho),
          S(0),
          S(0),
          S(0),
          S(0)};
}

template <typename S>
LIF_FN S& state_of(OneNeuron<S>& neuron, int state) {
  return state == kMembrane     ? neuron.v
         : state == kCurrent    ? neuron.i
         : state == kAdaptation ? neuron.b
                                : neuron.q;
}

// The states before a launch or a chunk; `from` holds a pointer or null for each.
template <typename S, typename From>
LIF_FN void load_states(OneNeuron<S>& neuron, const Neuron<S>& options, const From& from) {
#pragma unroll
  for (int state = 0; state < kStates; ++state) {
    const S* at = has_state(options, state) ? from(state) : nullptr;
    state_of(neuron, state) = at != nullptr ? *at : S(0);
  }
}

// Where each state of a neuron lies among those that it has.
template <typename S>
LIF_FN int slot_of(const Neuron<S>& options, int state) {
  int slot = 0;
  for (int before = 0; before < state; ++before) {
    slot += has_state(options, before);
  }
  return slot;
}

// What one step computes on its way.
template <typename S>
struct OneStep {
  S u, s, theta;
};

// The membrane that leaks into a step: with a delayed reset to a value, after that.
template <typename S>
LIF_FN S leaking(const OneNeuron<S>& neuron, const Neuron<S>& options, S v) {
  return options.delayed && options.reset == Reset::zero
             ? reset_zero(v, neuron.v_reset, fire(v, neuron.theta, options.strict))
             : v;
}

// One time step of any neuron.
template <typename S>
LIF_FN OneStep<S> step_any(OneNeuron<S>& neuron, const Neuron<S>& options, S x) {
  S drive = x;
  if (options.synapse) {
    neuron.i = synapse(neuron.alpha, neuron.i, x);
    drive = neuron.i;
  }
  drive = mul(neuron.gain, drive);
  const S from = leaking(neuron, options, neuron.v);
  S u = options.rest == S(0) ? integrate(neuron.beta, from, drive)
                             : integrate_from_rest(neuron.beta, from, options.rest, drive);
  if (options.delayed && options.reset == Reset::subtract) {
    u = reset_subtract(u, neuron.theta, fire(neuron.v, neuron.theta, options.strict));
  }
  const bool silent = options.refractory > 0 && neuron.q > S(0);
  u = silent ? neuron.v : u;
  const S theta = options.adaptive ? adapted_threshold(neuron.theta, neuron.kappa, neuron.b) : neuron.theta;
  const S s = silent ? S(0) : fire(u, theta, options.strict);
  neuron.v = options.delayed ? u : reset(options.reset, u, theta, neuron.v_reset, s);
  if (options.adaptive) {
    neuron.b = adapt(neuron.rho, neuron.b, s);
  }
  if (options.refractory > 0) {
    neuron.q = count_down(neuron.q, s, static_cast<S>(options.refractory));
  }
  return {u, s, theta};
}

// Forward of any neuron. Up to 8 bytes a neuron-step more than the plain kernel for two traces.
template <typename T>
__global__ void __launch_bounds__(kForwardThreads) general_forward_kernel(const Forward<T> args) {
  using S = StateOf<T>;
  const int64_t neuron = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const Neuron<S>& options = args.neuron;
  const int64_t steps = args.extent.steps;
  const T* x = start_of(args.x, place);
  const int64_t x_stride = args.x.time_stride;
  T* spikes_out = start_of(args.spikes, place);
  T* trace = start_of(args.trace, place);
  T* trace_before = start_of(args.trace_before, place);
  OneNeuron<S> own = load_neuron(args.parameter, neuron);
  load_states(own, options,
              [&](int state) { return args.state[state] == nullptr ? nullptr : args.state[state] + neuron; });
  S count = S(0);
  S alive = S(1);
  S first_spike = S(0);
  uint32_t word = 0;

  S* checkpoint = args.checkpoints;
  int64_t until_checkpoint = args.checkpoint_every;
  const auto load_x = [&](int64_t t) { return x[t * x_stride]; };
  with_loads_ahead<1>(0, steps, x_stride != 0, load_x, [&](int64_t t, const T& x_now) {
    if (checkpoint != nullptr && until_checkpoint-- == 0) {
#pragma unroll
      for (int state = 0; state < kStates; ++state) {
        if (has_state(options, state)) {
          checkpoint[neuron] = state_of(own, state);
          checkpoint += neurons(args.extent);
        }
      }
      until_checkpoint = args.checkpoint_every - 1;
    }
    const OneStep<S> now = step_any(own, options, lif::widen(x_now));
    if (spikes_out != nullptr) {
      spikes_out[t * args.spikes.time_stride] = lif::narrow<T>(now.s);
    }
    if (trace != nullptr) {
      trace[t * args.trace.time_stride] = lif::narrow<T>(own.v);
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
    count = add(count, now.s);
    alive = mul(alive, sub(S(1), now.s));
    first_spike = add(first_spike, alive);
  });
  if (args.count != nullptr) {
    args.count[neuron] = count;
  }
  if (args.rate != nullptr) {
    args.rate[neuron] = div(count, static_cast<S>(steps > 0 ? steps : 1));
  }
  if (args.first != nullptr) {
    args.first[neuron] = first_spike;
  }
#pragma unroll
  for (int state = 0; state < kStates; ++state) {
    if (args.final_state[state] != nullptr) {
      args.final_state[state][neuron] = state_of(own, state);
    }
  }
  if (args.total != nullptr) {
    add_to_total(args.total, static_cast<unsigned>(count));
  }
}

// Values of a step that the general backward keeps: u, and the states before it.
template <typename S>
LIF_FN int kept_values(const Neuron<S>& options) {
  return 1 + states_of(options);
}

// Backward of any neuron. A thread's column holds 2 to 5 values a step: 40 KiB for chunks of 20 steps of 128
// threads with 4 of them in fp32.
template <typename T>
__global__ void __launch_bounds__(kBackwardThreads, kBackwardBlocks)
    general_backward_kernel(const Backward<T> args) {
  using S = StateOf<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  S* column = reinterpret_cast<S*>(shared) + threadIdx.x;

  const int64_t neuron = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const Neuron<S>& options = args.neuron;
  const int64_t steps = args.extent.steps;
  const int kept = kept_values(options);
  const auto kept_at = [&](int64_t step, int value) -> S& {
    return column[(step * kept + value) * blockDim.x];
  };
  const int i_slot = 1 + slot_of(options, kCurrent);
  const int b_slot = 1 + slot_of(options, kAdaptation);
  const int q_slot = 1 + slot_of(options, kSilence);
  const T* x = start_of(args.x, place);
  const int64_t x_stride = args.x.time_stride;
  const T* g_spikes = start_of(args.grad_spikes, place);
  const int64_t g_stride = args.grad_spikes.time_stride;
  const T* g_trace = start_of(args.grad_trace, place);
  const T* g_trace_before = start_of(args.grad_trace_before, place);
  T* grad_x = start_of(args.grad_x, place);
  OneNeuron<S> own = load_neuron(args.parameter, neuron);

  const bool counted = args.grad_count.data != nullptr || args.grad_rate.data != nullptr;
  const S constant = constant_gradient<1>(args, place).at[0];
  const bool by_gain = args.grad_parameter[kGain] != nullptr;
  const bool timed = args.grad_first.data != nullptr;
  const S grad_first = timed ? *start_of(args.grad_first, place) : S(0);
  const S first_spike = timed ? args.first[neuron] : S(0);
  S later = grad_first;
  const auto final_gradient = [&](int state) {
    return args.grad_final[state] == nullptr ? S(0) : args.grad_final[state][neuron];
  };
  S a = final_gradient(kMembrane);
  S grad_current = final_gradient(kCurrent);
  S grad_adaptation = final_gradient(kAdaptation);
  S grad_beta = S(0), grad_theta = S(0), grad_v_reset = S(0), grad_gain = S(0);
  S grad_alpha = S(0), grad_kappa = S(0), grad_rho = S(0), grad_x_sum = S(0);

  // Bits hold what backward needs: there is nothing to recompute, no x and no checkpoints. A chunk is a word.
  const bool by_bits = args.bits != nullptr;
  for (int64_t chunk = (steps + args.chunk - 1) / args.chunk - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * args.chunk;
    const int64_t end = begin + args.chunk < steps ? begin + args.chunk : steps;
    load_states(own, options, [&](int state) -> const S* {
      if (chunk == 0 || by_bits) {
        return args.state[state] == nullptr ? nullptr : args.state[state] + neuron;
      }
      const int64_t slot = (chunk - 1) * states_of(options) + slot_of(options, state);
      return args.checkpoints + slot * neurons(args.extent) + neuron;
    });
    const auto load_x = [&](int64_t t) { return x[t * x_stride]; };
    const uint32_t word = by_bits ? args.bits[chunk * neurons(args.extent) + neuron] : 0;
    with_loads_ahead<1>(begin, by_bits ? begin : end, x_stride != 0, load_x, [&](int64_t t, const T& x_now) {
      const int64_t at = t - begin;
      kept_at(at, 1) = own.v;
      if (options.synapse) {
        kept_at(at, i_slot) = own.i;
      }
      if (options.adaptive) {
        kept_at(at, b_slot) = own.b;
      }
      if (options.refractory > 0) {
        kept_at(at, q_slot) = own.q;
      }
      kept_at(at, 0) = step_any(own, options, lif::widen(x_now)).u;
    });

    const auto load_g = [&](int64_t t) { return g_spikes == nullptr ? T{} : g_spikes[t * g_stride]; };
    with_loads_ahead<-1>(end - 1, begin - 1, g_stride != 0, load_g, [&](int64_t t, const T& g_now) {
      const int64_t at = t - begin;
      const S u = by_bits ? S(0) : kept_at(at, 0);
      const S v = by_bits ? S(0) : kept_at(at, 1);
      const S i = options.synapse ? kept_at(at, i_slot) : S(0);
      const S b = options.adaptive ? kept_at(at, b_slot) : S(0);
      const bool silent = options.refractory > 0 && kept_at(at, q_slot) > S(0);
      const S theta = options.adaptive ? adapted_threshold(own.theta, own.kappa, b) : own.theta;
      S s = silent ? S(0) : fire(u, theta, options.strict);
      S h = silent ? S(0) : surrogate(sub(u, theta), args.surrogate);
      if (by_bits) {
        s = word & fired_bit(t) ? S(1) : S(0);
        h = word & inside_bit(t) ? args.surrogate.scale : S(0);
      }

      S g = lif::widen(g_now);
      if (timed) {
        g = add(g, first_spike_gradient(later, first_spike, static_cast<S>(t)));
        later = first_spike_earlier(grad_first, later, s);
      }
      if (counted) {
        g = add(g, constant);
      }
      if (options.adaptive) {
        g = add(g, grad_adaptation);
      }
      if (g_trace != nullptr) {
        a = add(a, lif::widen(g_trace[t * args.grad_trace.time_stride]));
      }

      const bool detached = options.detach_reset || options.delayed;
      const S e = reach_spike(options.reset, detached, g, u, theta, own.v_reset, a);
      const S through = mul(e, h);
      const S by_threshold = options.delayed ? -through : threshold_gradient(options.reset, through, a, s);
      grad_theta = add(grad_theta, by_threshold);
      if (!options.delayed) {
        grad_v_reset = add(grad_v_reset, mul(a, s));
        a = keep(options.reset, a, s);
      }
      if (options.adaptive) {
        grad_kappa = add(grad_kappa, mul(by_threshold, b));
        grad_rho = add(grad_rho, mul(grad_adaptation, b));
        grad_adaptation = add(mul(own.rho, grad_adaptation), mul(own.kappa, by_threshold));
      }
      if (g_trace_before != nullptr) {
        a = add(a, lif::widen(g_trace_before[t * args.grad_trace_before.time_stride]));
      }
      const S whole = add(a, through);
      const S d = silent ? S(0) : whole;
      a = silent ? whole : mul(own.beta, d);
      const S from = leaking(own, options, v);
      if (options.delayed) {
        const S r = fire(v, own.theta, options.strict);
        if (options.reset == Reset::subtract) {
          grad_theta = sub(grad_theta, mul(r, d));
        } else {
          grad_v_reset = add(grad_v_reset, mul(a, r));
          a = keep(options.reset, a, r);
        }
      }
      grad_beta = add(grad_beta, mul(d, options.rest == S(0) ? from : sub(from, options.rest)));

      if (by_gain) {  // only here is x read a second time
        const S x_now = lif::widen(x[t * x_stride]);
        const S input = options.synapse ? synapse(own.alpha, i, x_now) : x_now;
        grad_gain = add(grad_gain, mul(d, input));
      }
      S dx = mul(own.gain, d);
      if (options.synapse) {
        dx = add(dx, grad_current);
        grad_alpha = add(grad_alpha, mul(dx, i));
        grad_current = mul(own.alpha, dx);
      }
      grad_x_sum = add(grad_x_sum, dx);
      if (grad_x != nullptr) {
        grad_x[t * args.grad_x.time_stride] = lif::narrow<T>(dx);
      }
    });
  }

  const auto put = [&](S* to, S value) {
    if (to != nullptr) {
      to[neuron] = value;
    }
  };
  if (args.grad_x_sum != nullptr) {
    args.grad_x_sum[neuron] = lif::narrow<T>(grad_x_sum);
  }
  put(args.grad_state[kMembrane], a);
  put(args.grad_state[kCurrent], grad_current);
  put(args.grad_state[kAdaptation], grad_adaptation);
  put(args.grad_parameter[kBeta], grad_beta);
  put(args.grad_parameter[kThreshold], grad_theta);
  put(args.grad_parameter[kResetTo], grad_v_reset);
  put(args.grad_parameter[kGain], grad_gain);
  put(args.grad_parameter[kAlpha], grad_alpha);
  put(args.grad_parameter[kKappa], grad_kappa);
  put(args.grad_parameter[kRho], grad_rho);
}

}  // namespace lif::cuda
