// Recurrent layers: a kernel that stays for all T steps. A block takes a few samples, a thread the neurons
// n, n + threads, ... of each; what a sample's neurons tell each other goes through shared memory, with one
// barrier a step. The weight lies in shared memory where it fits there, in its own type, else every step
// reads it through the second-level cache.
//
// The sums have the order of the CPU's kernels, and so their bits.
#pragma once

#include "cuda/general.cuh"
#include "cuda/launch_recurrent.h"
#include "cuda/tiers.cuh"
#include "neuron/recurrent.h"

namespace lif::cuda {

// Of a block. With more in fp64 the registers would not do.
template <typename T>
constexpr int kMostRecurrentThreads = std::is_same_v<T, double> ? 512 : 1024;

// What the launcher decides.
template <typename Args>
struct Persistent {
  Args args;
  int64_t samples;  // of a block
};

LIF_DEVICE_FN int lowest_bit(uint32_t word) {
#if defined(__CUDA_ARCH__)
  return __ffs(static_cast<int>(word)) - 1;
#else
  return __builtin_ctz(word);
#endif
}

// A word of the warp's spikes, written by its first lane. On the host, where lanes do nothing together, it is
// put together from `flags`, a byte for each thread.
LIF_DEVICE_FN void write_ballot(uint32_t* word, bool fired, [[maybe_unused]] unsigned char* flags) {
  const bool first = threadIdx.x % kWarp == 0;
#if defined(__CUDA_ARCH__)
  const uint32_t all = __ballot_sync(0xffffffffu, fired);
#else
  uint32_t all = 0;
  flags[threadIdx.x] = fired;
  __syncwarp();
  for (unsigned lane = 0; first && lane < unsigned{kWarp}; ++lane) {
    all |= static_cast<uint32_t>(flags[threadIdx.x + lane]) << lane;
  }
  __syncwarp();
#endif
  if (first) {
    *word = all;
  }
}

// The parts of a block's shared memory, one after the other; the launcher counts the bytes with a null
// pointer.
class Parts {
 public:
  LIF_FN Parts from(unsigned char* memory) {
    Parts parts;
    parts.next_ = memory;
    return parts;
  }

  template <typename E>
  __host__ __device__ E* take(int64_t count) {
    constexpr uintptr_t kLine = 16;
    E* const part = reinterpret_cast<E*>(next_ + bytes_);
    bytes_ += (static_cast<size_t>(count) * sizeof(E) + kLine - 1) / kLine * kLine;
    return part;
  }

  __host__ __device__ size_t bytes() const { return bytes_; }

 private:
  unsigned char* next_ = nullptr;
  size_t bytes_ = 0;
};

// Of samples x neurons each; the words of spikes are for the step before, and for this one.
template <typename S, typename W>
struct ForwardParts {
  W* weight;
  uint32_t* fired;
  S *v, *count;
  unsigned char* flags;
  size_t bytes;
};

template <bool kShared, typename S, typename W>
LIF_FN ForwardParts<S, W> forward_parts(unsigned char* memory, const RecurrentExtent& extent,
                                        int64_t samples) {
  Parts parts = Parts::from(memory);
  ForwardParts<S, W> found{};
  const int64_t n = extent.neurons;
  const int64_t words = (n + kWarp - 1) / kWarp;
  found.weight = parts.template take<W>(kShared ? n * n : 0);
  found.fired = parts.template take<uint32_t>(2 * samples * words);
  found.v = parts.template take<S>(samples * n);
  found.count = parts.template take<S>(samples * n);
#if defined(__CUDACC__)
  found.flags = nullptr;
#else
  found.flags = parts.template take<unsigned char>(kMostRecurrentThreads<S>);
#endif
  found.bytes = parts.bytes();
  return found;
}

template <typename S>
LIF_FN S value_of(const Parameter<S>& parameter, int64_t neuron) {
  return parameter.values == nullptr ? parameter.value : parameter.values[parameter.period == 1 ? 0 : neuron];
}

template <typename S>
LIF_FN Values<S> values_of(const RecurrentNeuron<S>& neuron, int64_t n) {
  Values<S> own{};
  own.beta = value_of(neuron.beta, n);
  own.theta = value_of(neuron.threshold, n);
  own.level = neuron.strict ? next_above(own.theta) : own.theta;
  own.v_reset = neuron.v_reset;
  own.gain = neuron.gain;
  return own;
}

// sum + the rows of the transposed weight that the words name, in their order. Loads go ahead of the sums, a
// few at a time: a sum has to wait for the one before it, and a load would make it wait for the memory too.
template <typename S, typename W>
LIF_DEVICE_FN S add_spikes(S sum, const uint32_t* fired, int64_t neurons, const W* column) {
  constexpr int kAtOnce = 4;
  for (int64_t first = 0; first < neurons; first += kWarp) {
    uint32_t left = fired[first / kWarp];
    while (left != 0) {
      S row[kAtOnce];
      bool there[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        there[k] = left != 0;
        row[k] = there[k] ? lif::widen(column[(first + lowest_bit(left)) * neurons]) : S(0);
        left &= left - 1;
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        sum = there[k] ? add(sum, row[k]) : sum;
      }
    }
  }
  return sum;
}

template <typename W>
LIF_DEVICE_FN void copy_weight(W* to, const W* from, int64_t size) {
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
    to[i] = from[i];
  }
}

// The weight is transposed: row i is what a spike of neuron i adds.
template <typename T, typename W, bool kShared>
__global__ void __launch_bounds__(kMostRecurrentThreads<T>)
    recurrent_forward_kernel(const Persistent<RecurrentForward<T, W>> given) {
  using S = StateOf<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  const RecurrentForward<T, W>& args = given.args;
  const int64_t n = args.extent.neurons;
  const int64_t steps = args.extent.steps;
  const auto parts = forward_parts<kShared, S, W>(shared, args.extent, given.samples);
  const int64_t words = (n + kWarp - 1) / kWarp;
  const int64_t whole = words * kWarp;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * given.samples;
  const int64_t left = args.extent.samples - begin;
  const int64_t samples = left < given.samples ? left : given.samples;
  const W* weight = args.weight;
  if (kShared) {
    copy_weight(parts.weight, args.weight, n * n);
    weight = parts.weight;
  }
  // Whole warps go through the neurons: those behind the last one never fire.
  for (int64_t b = 0; b < samples; ++b) {
    for (int64_t i = threadIdx.x; i < whole; i += blockDim.x) {
      const int64_t at = (begin + b) * n + i;
      bool fired = false;
      if (i < n) {
        parts.v[b * n + i] = args.membrane == nullptr ? S(0) : args.membrane[at];
        parts.count[b * n + i] = S(0);
        fired = args.fired != nullptr && args.fired[at] != S(0);
      }
      write_ballot(parts.fired + b * words + i / kWarp, fired, parts.flags);
    }
  }
  __syncthreads();
  for (int64_t t = 0; t < steps; ++t) {
    const uint32_t* spikes_before = parts.fired + t % 2 * given.samples * words;
    uint32_t* spikes_now = parts.fired + (t + 1) % 2 * given.samples * words;
    for (int64_t b = 0; b < samples; ++b) {
      const uint32_t* before = spikes_before + b * words;
      for (int64_t i = threadIdx.x; i < whole; i += blockDim.x) {
        bool fired = false;
        if (i < n) {
          const S x = lif::widen(row_at(args.x, t, begin + b)[i]);
          const S r = add_spikes(args.bias == nullptr ? S(0) : args.bias[i], before, n, weight + i);
          const Values<S> own = values_of(args.neuron, i);
          States<S> state{};
          state.of[kMembrane] = parts.v[b * n + i];
          const Step<S> now = args.neuron.reset == Reset::subtract
                                  ? step(Member<Reset::subtract>(), own, state, add(x, r))
                                  : step(Member<Reset::zero>(), own, state, add(x, r));
          parts.v[b * n + i] = state.of[kMembrane];
          parts.count[b * n + i] = add(parts.count[b * n + i], now.s);
          fired = now.s != S(0);
          if (args.spikes.data != nullptr) {
            row_at(args.spikes, t, begin + b)[i] = lif::narrow<T>(now.s);
          }
          if (args.trace.data != nullptr) {
            row_at(args.trace, t, begin + b)[i] = lif::narrow<T>(state.of[kMembrane]);
          }
          if (args.u.data != nullptr) {
            row_at(args.u, t, begin + b)[i] = now.u;
          }
          if (t == steps - 1 && args.final_spikes != nullptr) {
            args.final_spikes[(begin + b) * n + i] = now.s;
          }
        }
        write_ballot(spikes_now + b * words + i / kWarp, fired, parts.flags);
      }
    }
    __syncthreads();
  }
  for (int64_t b = 0; b < samples; ++b) {
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
      const int64_t at = (begin + b) * n + i;
      if (args.count != nullptr) {
        args.count[at] = parts.count[b * n + i];
      }
      if (args.rate != nullptr) {
        args.rate[at] = div(parts.count[b * n + i], static_cast<S>(steps > 0 ? steps : 1));
      }
      if (args.final_membrane != nullptr) {
        args.final_membrane[at] = parts.v[b * n + i];
      }
      if (steps == 0 && args.final_spikes != nullptr) {
        args.final_spikes[at] = args.fired == nullptr ? S(0) : args.fired[at];
      }
    }
  }
}

template <typename S, typename W>
struct BackwardParts {
  W* weight;
  S *input, *adjoint, *beta, *theta;
  size_t bytes;
};

template <bool kShared, typename S, typename W>
LIF_FN BackwardParts<S, W> backward_parts(unsigned char* memory, const RecurrentExtent& extent,
                                          int64_t samples) {
  Parts parts = Parts::from(memory);
  BackwardParts<S, W> found{};
  const int64_t n = extent.neurons;
  found.weight = parts.template take<W>(kShared ? n * n : 0);
  found.input = parts.template take<S>(2 * samples * n);
  found.adjoint = parts.template take<S>(samples * n);
  found.beta = parts.template take<S>(samples * n);
  found.theta = parts.template take<S>(samples * n);
  found.bytes = parts.bytes();
  return found;
}

// What reaches neuron i of a sample from the step after: the product of the gradients of all neurons with its
// column of the weight.
template <typename S, typename W>
LIF_DEVICE_FN S from_later(const S* input, int64_t neurons, const W* column) {
  S sum = S(0);
#pragma unroll 8
  for (int64_t j = 0; j < neurons; ++j) {
    sum = add(sum, mul(input[j], lif::widen(column[j * neurons])));
  }
  return sum;
}

// What a step back reads of a neuron: loads that go ahead of the product, which takes longer than they do.
template <typename S>
struct Loaded {
  S u, before;  // before: u of the step before, or the first membrane
  bool first;   // whether it is that
  S g, trace;
};

template <typename T, typename W, typename S = StateOf<T>>
LIF_DEVICE_FN Loaded<S> load_step(const RecurrentBackward<T, W>& args, int64_t t, int64_t sample, int64_t i) {
  const int64_t at = sample * args.extent.neurons + i;
  Loaded<S> step{};
  step.u = row_at(args.u, t, sample)[i];
  step.first = t == 0;
  step.before = t > 0                      ? row_at(args.u, t - 1, sample)[i]
                : args.membrane == nullptr ? S(0)
                                           : args.membrane[at];
  step.g = args.grad_spikes.data == nullptr ? S(0) : lif::widen(row_at(args.grad_spikes, t, sample)[i]);
  if (args.grad_steady != nullptr) {
    step.g = add(step.g, args.grad_steady[at]);
  }
  step.trace = args.grad_trace.data == nullptr ? S(0) : lif::widen(row_at(args.grad_trace, t, sample)[i]);
  return step;
}

template <Reset kReset, unsigned kHas, typename S>
LIF_DEVICE_FN S recurrent_step_back(const Values<S>& own, const Surrogate<S>& surrogate,
                                    const Loaded<S>& step, S g, Adjoint<S>& adjoint, Sums<S>& sums) {
  const Member<kReset, kHas> kind;
  Was<S> was{};
  was.u = step.u;
  was.s = fire(was.u, own.level, false);
  was.theta = own.theta;
  was.h = any_derivative(sub(was.u, own.theta), surrogate);
  const S fired_before = fire(step.before, own.level, false);
  was.before.of[kMembrane] =
      step.first ? step.before : after(kind, own, Step<S>{step.before, fired_before, own.theta});
  return step_back<true>(kind, own, was, g, adjoint, sums);
}

template <typename S>
LIF_DEVICE_FN S any_step_back(const RecurrentNeuron<S>& neuron, const Values<S>& own,
                              const Surrogate<S>& surrogate, const Loaded<S>& step, S g, Adjoint<S>& adjoint,
                              Sums<S>& sums) {
  if (neuron.reset == Reset::subtract) {
    return neuron.detach_reset
               ? recurrent_step_back<Reset::subtract, Has::detached>(own, surrogate, step, g, adjoint, sums)
               : recurrent_step_back<Reset::subtract, Has::nothing>(own, surrogate, step, g, adjoint, sums);
  }
  return neuron.detach_reset
             ? recurrent_step_back<Reset::zero, Has::detached>(own, surrogate, step, g, adjoint, sums)
             : recurrent_step_back<Reset::zero, Has::nothing>(own, surrogate, step, g, adjoint, sums);
}

// The weight is as nn.Linear has it.
template <typename T, typename W, bool kShared>
__global__ void __launch_bounds__(kMostRecurrentThreads<T>)
    recurrent_backward_kernel(const Persistent<RecurrentBackward<T, W>> given) {
  using S = StateOf<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  const RecurrentBackward<T, W>& args = given.args;
  const int64_t n = args.extent.neurons;
  const int64_t steps = args.extent.steps;
  const auto parts = backward_parts<kShared, S, W>(shared, args.extent, given.samples);
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * given.samples;
  const int64_t left = args.extent.samples - begin;
  const int64_t samples = left < given.samples ? left : given.samples;
  const W* weight = args.weight;
  if (kShared) {
    copy_weight(parts.weight, args.weight, n * n);
    weight = parts.weight;
  }
  for (int64_t b = 0; b < samples; ++b) {
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
      const int64_t at = (begin + b) * n + i;
      parts.adjoint[b * n + i] = args.grad_final_membrane == nullptr ? S(0) : args.grad_final_membrane[at];
      parts.beta[b * n + i] = S(0);
      parts.theta[b * n + i] = S(0);
    }
  }
  __syncthreads();
  // The gradients of step t reach the spikes of the one before; those of the last come from outside. What
  // reaches the spikes before the first step is computed where it is wanted.
  for (int64_t t = steps; t >= (args.grad_fired == nullptr ? 1 : 0); --t) {
    const S* input_later = parts.input + t % 2 * given.samples * n;
    S* input_now = parts.input + (t + 1) % 2 * given.samples * n;
    for (int64_t b = 0; b < samples; ++b) {
      const int64_t sample = begin + b;
      for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        Loaded<S> step{};
        if (t > 0) {
          step = load_step(args, t - 1, sample, i);
        }
        S later = args.grad_final_spikes == nullptr ? S(0) : args.grad_final_spikes[sample * n + i];
        if (t < steps) {
          later = from_later(input_later + b * n, n, weight + i);
        }
        if (t == 0) {
          args.grad_fired[sample * n + i] = later;
          continue;
        }
        Adjoint<S> adjoint{};
        adjoint.of[kMembrane] = add(parts.adjoint[b * n + i], step.trace);
        Sums<S> sums{};
        sums.beta = parts.beta[b * n + i];
        sums.theta = parts.theta[b * n + i];
        const S input = any_step_back(args.neuron, values_of(args.neuron, i), args.surrogate, step,
                                      add(step.g, later), adjoint, sums);
        row_at(args.grad_input, t - 1, sample)[i] = input;
        input_now[b * n + i] = input;
        parts.adjoint[b * n + i] = adjoint.of[kMembrane];
        parts.beta[b * n + i] = sums.beta;
        parts.theta[b * n + i] = sums.theta;
      }
    }
    __syncthreads();
  }
  for (int64_t b = 0; b < samples; ++b) {
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
      const int64_t at = (begin + b) * n + i;
      const auto put = [&](S* to, const S* from) {
        if (to != nullptr) {
          to[at] = from[b * n + i];
        }
      };
      put(args.grad_membrane, parts.adjoint);
      put(args.grad_beta, parts.beta);
      put(args.grad_threshold, parts.theta);
    }
  }
}

// Samples of a block whose weight is its own: as few as let all blocks run at once. Without a weight of its
// own a block has one, and a multiprocessor several blocks.
inline int64_t samples_of_block(const RecurrentExtent& extent, const Device& device) {
  return device.multiprocessors > 0 ? ceil_div(extent.samples, device.multiprocessors) : 1;
}

template <typename T>
int recurrent_threads(const RecurrentExtent& extent) {
  const int64_t whole = ceil_div(extent.neurons, kWarp) * kWarp;
  return static_cast<int>(std::min<int64_t>(whole, kMostRecurrentThreads<T>));
}

template <typename T, auto kOwn, auto kThroughCache, typename Args, typename Bytes>
int launch_persistent(const Args& args, const Bytes& bytes, void* stream) {
  On on{{}, static_cast<cudaStream_t>(stream)};
  if (const auto error = current_device(on.device); error != cudaSuccess) {
    return error;
  }
  const int threads = recurrent_threads<T>(args.extent);
  const int64_t samples = samples_of_block(args.extent, on.device);
  const size_t own = bytes(std::true_type(), samples);
  if (own <= static_cast<size_t>(on.device.shared_bytes)) {
    return launch<kOwn>(Persistent<Args>{args, samples}, ceil_div(args.extent.samples, samples), threads, own,
                        on);
  }
  return launch<kThroughCache>(Persistent<Args>{args, 1}, args.extent.samples, threads,
                               bytes(std::false_type(), 1), on);
}

template <typename T, typename W>
int launch_recurrent_forward(const RecurrentForward<T, W>& args, void* stream) {
  const auto bytes = [&](auto own, int64_t samples) {
    return forward_parts<decltype(own)::value, StateOf<T>, W>(nullptr, args.extent, samples).bytes;
  };
  return launch_persistent<T, &recurrent_forward_kernel<T, W, true>, &recurrent_forward_kernel<T, W, false>>(
      args, bytes, stream);
}

template <typename T, typename W>
int launch_recurrent_backward(const RecurrentBackward<T, W>& args, void* stream) {
  const auto bytes = [&](auto own, int64_t samples) {
    return backward_parts<decltype(own)::value, StateOf<T>, W>(nullptr, args.extent, samples).bytes;
  };
  return launch_persistent<T, &recurrent_backward_kernel<T, W, true>,
                           &recurrent_backward_kernel<T, W, false>>(args, bytes, stream);
}

}  // namespace lif::cuda
