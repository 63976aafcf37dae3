// Backward where neurons are few and T is long. A block owns 32 neurons. One warp, the last, goes back
// through time; the others, its producers, compute a chunk of 16 steps each again, with its surrogate
// derivatives, from the checkpoint before it, into one of two buffers, while the last warp goes through the
// other: a barrier a round.
//
// On an H200 a prototype took 29 us with six producers at [1000, 4096 neurons], where narrow wide threads
// took 441; with 65,536 neurons three producers were best, and eight took twice as long.
#pragma once

#include "cuda/long_forward.cuh"
#include "cuda/slopes.cuh"

namespace lif::cuda {

constexpr int kMostProducers = 6;
constexpr int kFewProducers = 3;

// What the way back is handed of each step: h and the incoming gradient; u where it compares or resets again,
// and the membrane before the step where beta learns.
template <typename Kind, bool kLearn>
struct Handed {
  using Rows = Kept<Kind, kLearn, Slopes::pass>;
  static constexpr int h = 0;
  static constexpr int g = 1;
  static constexpr int u = 2;
  static constexpr int v = 3;
  static constexpr int values = 2 + Rows::u + Rows::v;
  static_assert(Kind::plain, "the others have more states");
};

// Bytes of shared memory: two buffers of a chunk for each producer.
template <typename S, typename Kind, bool kLearn>
constexpr size_t long_backward_bytes(int producers) {
  return size_t{2} * producers * Handed<Kind, kLearn>::values * kStage * kWarp * sizeof(S);
}

// A chunk of one neuron in a buffer: value `which` of step j.
template <typename S>
LIF_FN S& handed(S* chunk, int which, int j) {
  return chunk[(which * kStage + j) * kWarp];
}

// The steps of a chunk of one neuron, in registers.
template <typename T>
struct Chunk {
  StageValues<T> x, g;
};

template <typename T, typename Kind, bool kLearn>
__global__ void __launch_bounds__(kWarp*(kMostProducers + 1)) long_backward_kernel(const Backward<T> args) {
  using S = StateOf<T>;
  using Of = Handed<Kind, kLearn>;
  extern __shared__ __align__(16) unsigned char shared[];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int producers = static_cast<int>(blockDim.x) / kWarp - 1;
  const WarpPlace warp_at = warp_place(args.extent);
  const int steps = static_cast<int>(args.extent.steps);
  const bool real = lane < warp_at.size;
  const int own_lane = real ? lane : warp_at.size - 1;
  const Place place{warp_at.first.neuron + own_lane, warp_at.first.outer, warp_at.first.inner + own_lane};
  const auto group = load_group<Kind, 1>(args.neuron, args.parameter, place.neuron);
  const Kind& kind = group.kind;
  const Values<S>& own = group.own[0];
  const int chunks = (steps + kStage - 1) / kStage;
  const int rounds = (chunks + producers - 1) / producers;
  // Where a producer of a round puts its chunk: rounds take turns at the two buffers.
  const auto buffer = [&](int round, int producer) {
    const int slot = (round % 2 * producers + producer) * Of::values * kStage;
    return reinterpret_cast<S*>(shared) + slot * kWarp + lane;
  };
  const auto size_of = [&](int chunk) {
    return steps - chunk * kStage < kStage ? steps - chunk * kStage : kStage;
  };

  const T* x_start = start_of(args.x, place);
  const T* g_start = steady_spikes(args) ? nullptr : start_of(args.grad_spikes, place);
  const S constant = steady_gradient<1>(args, place).at[0];
  const auto load_chunk = [&](Chunk<T>& values, int round) {
    const int chunk = chunks - 1 - (round * producers + warp);
    if (chunk < 0) {
      return;
    }
    const int size = size_of(chunk);
    const T* x = x_start + static_cast<int64_t>(chunk) * kStage * args.x.time_stride;
#pragma unroll
    for (int j = 0; j < kStage; ++j) {
      values.x.at[j] = j < size ? *x : T{};
      x += args.x.time_stride;
    }
    if (g_start != nullptr) {
      const T* g = g_start + static_cast<int64_t>(chunk) * kStage * args.grad_spikes.time_stride;
#pragma unroll
      for (int j = 0; j < kStage; ++j) {
        values.g.at[j] = j < size ? *g : T{};
        g += args.grad_spikes.time_stride;
      }
    }
  };
  const auto produce = [&](Chunk<T>& values, int round) {
    const int chunk = chunks - 1 - (round * producers + warp);
    if (chunk < 0) {
      return;
    }
    S* to = buffer(round, warp);
    States<S> states[1];
    load_states<1>(states, kind,
                   [&](int state) { return state_before(args, kind, chunk, state, place.neuron); });
    S z[kStage];
#pragma unroll
    for (int j = 0; j < kStage; ++j) {
      if constexpr (Of::Rows::v) {
        handed(to, Of::v, j) = states[0].of[kMembrane];
      }
      const Step<S> now = step(kind, own, states[0], lif::widen(values.x.at[j]));
      z[j] = sub(now.u, now.theta);
      if constexpr (Of::Rows::u) {
        handed(to, Of::u, j) = now.u;
      }
      handed(to, Of::g, j) = add(lif::widen(values.g.at[j]), constant);
    }
    load_chunk(values, round + 1);
    with_shape(args.surrogate, [&](auto shape) {
    // A shape of the reciprocal tests four steps at once, as a wide thread does four neurons.
#pragma unroll
      for (int j = 0; j < kStage; j += 4) {
        Pack<S, 4> h{z[j], z[j + 1], z[j + 2], z[j + 3]};
        h = slopes_of<decltype(shape)::value>(h, args.surrogate);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          handed(to, Of::h, j + k) = h.at[k];
        }
      }
    });
  };

  Adjoint<S> adjoint[1];
  load_adjoint<1>(adjoint, args, kind, place.neuron);
  Sums<S> sums[1] = {};
  S sum_x = S(0);
  const bool writes = real && args.grad_x.data != nullptr;
  const int64_t out_stride = writes ? args.grad_x.time_stride : 0;
  T* grad_x = writes ? start_of(args.grad_x, place) + (steps - 1) * out_stride : nullptr;
  const auto go_back = [&](S* from, int j) {
    Was<S> was;
    was.h = handed(from, Of::h, j);
    was.theta = own.theta;
    if constexpr (Of::Rows::u) {
      was.u = handed(from, Of::u, j);
      was.s = fire(was.u, own.level, kind.strict);
    }
    if constexpr (Of::Rows::v) {
      was.before.of[kMembrane] = handed(from, Of::v, j);
    }
    const S dx = step_back<kLearn>(kind, own, was, handed(from, Of::g, j), adjoint[0], sums[0]);
    sum_x = add(sum_x, dx);
    if (writes) {
      *grad_x = lif::narrow<T>(dx);
    }
    grad_x -= out_stride;
  };
  const auto consume = [&](int round) {
    for (int producer = 0; producer < producers; ++producer) {
      const int chunk = chunks - 1 - (round * producers + producer);
      if (chunk < 0) {
        return;
      }
      S* from = buffer(round, producer);
      const int size = size_of(chunk);
      if (size == kStage) {
#pragma unroll
        for (int j = kStage - 1; j >= 0; --j) {
          go_back(from, j);
        }
      } else {
#pragma unroll 1
        for (int j = size - 1; j >= 0; --j) {
          go_back(from, j);
        }
      }
    }
  };

  Chunk<T> values{};
  const bool producing = warp < producers;
  if (producing) {
    load_chunk(values, 0);
  }
  for (int round = 0; round <= rounds; ++round) {
    if (producing && round < rounds) {
      produce(values, round);
    }
    if (!producing && round > 0) {
      consume(round - 1);
    }
    __syncthreads();
  }
  if (!producing && real) {
    if (args.grad_x_sum != nullptr) {
      args.grad_x_sum[place.neuron] = lif::narrow<T>(sum_x);
    }
    write_gradients<kLearn>(args, place.neuron, kind, adjoint, sums);
  }
}

}  // namespace lif::cuda
