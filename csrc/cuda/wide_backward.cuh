// Backward where neurons are many. A chunk of steps at a time, the last chunk first: its membranes are
// computed again from x and from the states kept before it, then the surrogate derivatives, then the way
// back.
//
// Bytes a neuron-step in fp32: 4 of x, 4 of the incoming gradient, 4 of dL/dx, 4 / K of checkpoints: 2.5 ps
// on an H200, in which a multiprocessor issues 95 instructions for a lane; 47 in 16 bits. What the loops take
// stands in instructions.txt.
#pragma once

#include "cuda/ahead.cuh"
#include "cuda/column.cuh"
#include "cuda/readout.cuh"
#include "cuda/slopes.cuh"
#include "cuda/wide_forward.cuh"

namespace lif::cuda {

constexpr int kBackwardThreads = 128;
// Blocks of a multiprocessor that registers and shared memory leave room for. Asked for six in fp32, the
// compiler spilled, and the prototype took twice as long.
constexpr int kBackwardBlocks = 4;

// Neurons of a thread: 16 bytes of state where a step keeps one row, 8 where it keeps more, so that four
// blocks stay in the shared memory of a multiprocessor.
template <typename T, typename Kind, bool kLearn, Slopes kSlopes>
// NOLINTNEXTLINE(modernize-avoid-c-style-cast): as in slopes.cuh.
constexpr int kBackwardWide = (Kept<Kind, kLearn, kSlopes>::rows == 1 ? 16 : 8) / sizeof(StateOf<T>);

template <Flow kFlow, int W, typename T>
LIF_FN auto stream_of(const T* at, int64_t stride, bool present) {
  if constexpr (kFlow == Flow::series) {
    return Stream<T, W>{at, stride};
  } else {
    return OptionalStream<T, W>{at, stride, present};
  }
}

template <typename T, typename Kind, int W, bool kLearn, Slopes kSlopes, Flow kFlow>
__global__ void __launch_bounds__(kBackwardThreads, kBackwardBlocks)
    wide_backward_kernel(const Backward<T> args) {
  using S = StateOf<T>;
  using Rows = Kept<Kind, kLearn, kSlopes>;
  // A refractory neuron that learns would spill with eight steps ahead, as 16 bits have.
  constexpr int kSteps = Rows::q && kLearn ? 4 : kAhead<T, W>;
  extern __shared__ __align__(16) unsigned char shared[];
  const Column<S, W, Rows::rows, kBackwardThreads> column{reinterpret_cast<Pack<S, W>*>(shared) +
                                                          threadIdx.x};

  const int64_t neuron = (static_cast<int64_t>(blockIdx.x) * kBackwardThreads + threadIdx.x) * W;
  if (neuron >= neurons(args.extent)) {
    return;
  }
  const Place place = place_of(args.extent, neuron);
  const auto group = load_group<Kind, W>(args.neuron, args.parameter, neuron);
  const Kind& kind = group.kind;
  const T* x = start_of(args.x, place);
  const T* g = kFlow == Flow::any && steady_spikes(args) ? nullptr : start_of(args.grad_spikes, place);
  const bool has_g = g != nullptr;
  T* grad_x = start_of(args.grad_x, place);
  const int64_t x_stride = args.x.time_stride;
  const int64_t g_stride = g == nullptr ? 0 : args.grad_spikes.time_stride;
  [[maybe_unused]] Pack<S, W> constant = splat<S, W>(S(0));
  [[maybe_unused]] Pack<S, W> sum_x = splat<S, W>(S(0));
  if constexpr (kFlow == Flow::any) {
    constant = steady_gradient<W>(args, place);
  }

  Adjoint<S> adjoint[W];
  load_adjoint<W>(adjoint, args, kind, neuron);
  Sums<S> sums[W] = {};

  const int steps = static_cast<int>(args.extent.steps);
  const int of_chunk = static_cast<int>(args.chunk);
  // From here on pointers only move. dL/dx is written where the way back has come to.
  const int64_t last = steps - 1;
  g += last * g_stride;
  const bool writes = kFlow == Flow::series || grad_x != nullptr;
  const int64_t out_stride = writes ? args.grad_x.time_stride : 0;
  grad_x += last * out_stride;
  for (int chunk = (steps + of_chunk - 1) / of_chunk - 1; chunk >= 0; --chunk) {
    const int begin = chunk * of_chunk;
    const int size = steps - begin < of_chunk ? steps - begin : of_chunk;
    Stream<T, W> x_of_chunk{x + begin * x_stride, x_stride};
    InFlight<T, W, kSteps> x_flight;
    fill(x_flight, x_of_chunk, size);
    auto g_of_chunk = stream_of<kFlow, W>(g, -g_stride, has_g);
    g -= size * g_stride;
    InFlight<T, W, kSteps> g_flight;
    fill(g_flight, g_of_chunk, size);

    // Compute the chunk again.
    States<S> states[W];
    load_states<W>(states, kind, [&](int state) { return state_before(args, kind, chunk, state, neuron); });
    auto here = column;
    with_loads_ahead(x_flight, x_of_chunk, size, [&](const Raw<T, W>& raw, auto) {
      const Pack<S, W> x_now = widen<T, W>(raw);
      if constexpr (Rows::i) {
        at(here, Rows::i_row) = pack_of<W>(states, kCurrent);
      }
      if constexpr (Rows::b) {
        at(here, Rows::b_row) = pack_of<W>(states, kAdaptation);
      }
      if constexpr (Rows::q) {
        at(here, Rows::q_row) = pack_of<W>(states, kSilence);
      }
      Pack<S, W> u;
#pragma unroll
      for (int w = 0; w < W; ++w) {
        u.at[w] = step(kind, group.own[w], states[w], x_now.at[w]).u;
      }
      at(here, Rows::u_row) = u;
      here = moved(here, 1);
    });

    // The surrogate derivatives, in the place of u where that is not read again.
    if constexpr (kSlopes == Slopes::pass) {
      write_slopes<Rows>(column, size, group, args.surrogate);
    }

    // Go back. What a step was is read from the column; the membrane before it follows from the step before,
    // which is the next one here.
    const auto read = [&]([[maybe_unused]] const auto& from, Was<S>(&was)[W]) {
      Pack<S, W> u{}, b{}, q{};
      if constexpr (Rows::u) {
        u = at(from, Rows::u_row);
      }
      if constexpr (Rows::b) {
        b = at(from, Rows::b_row);
      }
      if constexpr (Rows::q) {
        q = at(from, Rows::q_row);
      }
#pragma unroll
      for (int w = 0; w < W; ++w) {
        const Step<S> met = meet_threshold(kind, group.own[w], u.at[w], b.at[w], q.at[w]);
        was[w].u = met.u;
        was[w].s = met.s;
        was[w].theta = met.theta;
        was[w].before.of[kAdaptation] = b.at[w];
        was[w].before.of[kSilence] = q.at[w];
      }
    };
    Was<S> was[W];
    Was<S> earlier[W];
    here = moved(column, size - 1);
    read(here, was);
    with_loads_ahead(g_flight, g_of_chunk, size, [&](const Raw<T, W>& raw, auto at_end) {
      const bool first = decltype(at_end)::value && here.own == column.own;
      Pack<S, W> g_now = widen<T, W>(raw);
      [[maybe_unused]] Pack<S, W> v_begin{};
      if constexpr (Rows::v) {
        if (!first) {
          read(moved(here, -1), earlier);
        } else if (const S* begin = state_before(args, kind, chunk, kMembrane, neuron)) {
          v_begin = load<W>(begin);  // once more, rather than in registers all the while
        }
      } else if constexpr (Rows::u || Rows::q) {
        read(here, was);
      }
      Pack<S, W> h, i{};
      if constexpr (Rows::h) {
        h = at(here, Rows::h_row);
      } else {
#pragma unroll
        for (int w = 0; w < W; ++w) {
          h.at[w] = sub(was[w].u, was[w].theta);
        }
        h = slopes_of<kSlopes == Slopes::atan ? Shape::atan : Shape::fast_sigmoid>(h, args.surrogate);
      }
      if constexpr (Rows::i) {
        i = at(here, Rows::i_row);
      }
      Pack<S, W> dx;
#pragma unroll
      for (int w = 0; w < W; ++w) {
        if constexpr (kFlow == Flow::any) {
          g_now.at[w] = add(g_now.at[w], constant.at[w]);
        }
        was[w].h = h.at[w];
        was[w].before.of[kCurrent] = i.at[w];
        if constexpr (Rows::v) {
          const Step<S> before{earlier[w].u, earlier[w].s, earlier[w].theta};
          const S v = after(kind, group.own[w], before);
          was[w].before.of[kMembrane] = first ? v_begin.at[w] : v;
        }
        dx.at[w] = step_back<kLearn>(kind, group.own[w], was[w], g_now.at[w], adjoint[w], sums[w]);
        if constexpr (Rows::v) {
          was[w] = earlier[w];
        }
        if constexpr (kFlow == Flow::any) {
          sum_x.at[w] = add(sum_x.at[w], dx.at[w]);
        }
      }
      if (writes) {
        store_raw<W>(grad_x, narrow<T, W>(dx));
      }
      grad_x -= out_stride;
      here = moved(here, -1);
    });
  }

  if constexpr (kFlow == Flow::any) {
    if (args.grad_x_sum != nullptr) {
      store_raw<W>(args.grad_x_sum + neuron, narrow<T, W>(sum_x));
    }
  }
  write_gradients<kLearn>(args, neuron, kind, adjoint, sums);
}

}  // namespace lif::cuda
