// The way back, of any neuron of the family: step_back() of neuron/back.h on vectors.
//
// A chunk of time steps is computed once more into rows of the second-level cache, and walked back through in
// tiles. The surrogate derivatives of a strip at the steps of a tile are a pass of their own (slopes.inl).
#pragma once

#include "cpu/level/column.inl"
#include "cpu/level/slopes.inl"
#include "cpu/level/wide_forward.inl"
#include "neuron/back.h"

namespace lif::cpu::LIF_SIMD {
namespace {

template <typename T, typename S = StateOf<T>>
struct WideBackwardTile {
  int64_t t = 0;  // the first step
  int64_t steps = 0;
  Rows<const T> g, grad_trace, grad_before, x;
  Rows<const S> u, h, s;  // s: where there are bits in place of u
  Rows<const S> before[kStates];
  Rows<T> grad_x;
  bool counted = false;  // rows.constant is part of every g
  bool summing = false;  // the gradient of x over the steps
  bool timed = false;
  bool peaked = false;
  bool averaged = false;
  bool by_gain = false;
};

template <typename V>
constexpr V Sums<V>::* kSumOf[kLearnable] = {&Sums<V>::beta, &Sums<V>::theta, &Sums<V>::v_reset,
                                             &Sums<V>::gain, &Sums<V>::alpha, &Sums<V>::kappa,
                                             &Sums<V>::rho};

// Whether a parameter of a kind can be learned where its kernel is compiled.
template <typename Kind>
[[gnu::always_inline]] inline bool has_parameter(const Kind& kind, int name) {
  return name == kAlpha                   ? kind.synapse
         : name == kKappa || name == kRho ? kind.adaptive
         : name == kResetTo               ? kind.reset == Reset::zero
                                          : true;
}

// A step of a vector of neurons as it was.
template <typename Kind, typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline Was<Vector<S>> load_was(const Kind& kind, const Values<Vector<S>>& own,
                                                      const WideBackwardTile<T>& tile, int64_t j,
                                                      int64_t at) {
  using V = Vector<S>;
  constexpr bool kAny = std::is_same_v<Kind, AnyMember>;
  Was<V> was;
  for (int name = 0; name < kStates; ++name) {
    const bool kept = has_state(kind, name) && tile.before[name].data != nullptr;
    was.before.of[name] = kept ? load(tile.before[name].at(j, at)) : V{};
  }
  const V silent = was.before.of[kSilence];
  const V u = kAny && tile.u.data == nullptr ? V{} : load(tile.u.at(j, at));
  const Step<V> met = meet_threshold(kind, own, u, was.before.of[kAdaptation], silent);
  was.u = met.u;
  was.theta = met.theta;
  was.s = kAny && tile.s.data != nullptr ? load(tile.s.at(j, at)) : met.s;
  const V h = load(tile.h.at(j, at));
  was.h = kind.refractory ? (silent > number<V>(0) ? number<V>(0) : h) : h;
  return was;
}

template <typename Kind, bool kLearn, typename T, typename S = StateOf<T>>
[[gnu::noinline]] void wide_backward_groups(const Neuron<S>& neuron, const WideBackwardTile<T>& given,
                                            const WideRows<S>& given_rows, int64_t n) {
  using V = Vector<S>;
  constexpr bool kAny = std::is_same_v<Kind, AnyMember>;
  // Copies, which the compiler knows that no store can change.
  const WideBackwardTile<T> tile(given);
  const WideRows<S> rows(given_rows);
  const Kind kind = wide_kind<Kind>(neuron);
  const auto each = [](const auto& run) {
    for (int64_t k = 0; k < kWideVectors; ++k) {
      run(k, k * kLanes<S>);
    }
  };
  for (int64_t i = 0; i < n; i += kWideGroup<S>) {
    Values<V> own[kWideVectors];
    Adjoint<V> adjoint[kWideVectors];
    Sums<V> sums[kWideVectors];
    V sum_x[kWideVectors];
    each([&](int64_t k, int64_t lane) {
      own[k] = load_values(kind, neuron, rows, i + lane);
      for (int name = 0; name < kSmoothStates; ++name) {
        adjoint[k].of[name] = has_state(kind, name) ? load(rows.adjoint[name] + i + lane) : V{};
      }
      for (int name = 0; kLearn && name < kLearnable; ++name) {
        sums[k].*kSumOf<V>[name] = has_parameter(kind, name) ? load(rows.sums[name] + i + lane) : V{};
      }
      sum_x[k] = load(rows.grad_x + i + lane);
    });
    for (int64_t j = tile.steps - 1; j >= 0; --j) {
      V g[kWideVectors], dx[kWideVectors];
      Was<V> was[kWideVectors];
      each([&](int64_t k, int64_t lane) {
        was[k] = load_was(kind, own[k], tile, j, i + lane);
        g[k] = -number<V>(0);  // which leaves what is added to it as it is
      });
      if (tile.g.data != nullptr) {
        each([&](int64_t k, int64_t lane) { g[k] = load(tile.g.at(j, i + lane)); });
      }
      if (kAny && tile.timed) {
        each([&](int64_t k, int64_t lane) {
          const V later = load(rows.later + i + lane);
          const auto t = splat(static_cast<S>(tile.t + j));
          g[k] = add(g[k], first_spike_gradient(later, load(rows.first + i + lane), t));
          store(rows.later + i + lane,
                first_spike_earlier(load(rows.grad_first + i + lane), later, was[k].s));
        });
      }
      if (tile.counted) {
        each([&](int64_t k, int64_t lane) { g[k] = add(g[k], load(rows.constant + i + lane)); });
      }
      if (tile.grad_trace.data != nullptr) {
        each([&](int64_t k, int64_t lane) {
          V& a = adjoint[k].of[kMembrane];
          a = add(a, load(tile.grad_trace.at(j, i + lane)));
        });
      }
      if (kAny && tile.peaked) {
        each([&](int64_t k, int64_t lane) {
          V& a = adjoint[k].of[kMembrane];
          const auto t = splat(static_cast<S>(tile.t + j));
          a = add(a, peak_gradient(load(rows.highest + i + lane), load(rows.peak + i + lane), t));
        });
      }
      if (kAny && tile.averaged) {
        each([&](int64_t k, int64_t lane) {
          V& a = adjoint[k].of[kMembrane];
          a = add(a, load(rows.sum_v + i + lane));
        });
      }
      each([&](int64_t k, int64_t lane) {
        Maybe<V> before_reset, input;
        if (tile.grad_before.data != nullptr) {
          before_reset = {true, load(tile.grad_before.at(j, i + lane))};
        }
        if (kLearn && tile.by_gain) {
          const V x = load(tile.x.at(j, i + lane));
          input = {true, kind.synapse ? synapse(own[k].alpha, was[k].before.of[kCurrent], x) : x};
        }
        dx[k] = step_back<kLearn>(kind, own[k], was[k], g[k], adjoint[k], sums[k], before_reset, input);
      });
      if (tile.grad_x.data != nullptr) {
        each([&](int64_t k, int64_t lane) { store_as(tile.grad_x.at(j, i + lane), dx[k]); });
      }
      if (tile.summing) {
        each([&](int64_t k, int64_t) { sum_x[k] = add(sum_x[k], dx[k]); });
      }
    }
    each([&](int64_t k, int64_t lane) {
      for (int name = 0; name < kSmoothStates; ++name) {
        if (has_state(kind, name)) {
          store(rows.adjoint[name] + i + lane, adjoint[k].of[name]);
        }
      }
      for (int name = 0; kLearn && name < kLearnable; ++name) {
        if (has_parameter(kind, name)) {
          store(rows.sums[name] + i + lane, sums[k].*kSumOf<V>[name]);
        }
      }
      if (tile.summing) {
        store(rows.grad_x + i + lane, sum_x[k]);
      }
    });
  }
}

template <typename T, typename S = StateOf<T>>
using WideBackwardGroups = void (*)(const Neuron<S>&, const WideBackwardTile<T>&, const WideRows<S>&,
                                    int64_t);

template <typename T>
bool learns(const Backward<T>& args) {
  bool any = false;
  for (int name = 0; name < kLearnable; ++name) {
    any = any || args.grad_parameter[name] != nullptr;
  }
  return any;
}

// What a compiled member has no kernel for: bits in place of u, the time of the first spike, the largest
// membrane or their mean.
template <typename T>
bool is_general(const Backward<T>& args) {
  return args.bits != nullptr || args.grad_first.data != nullptr || args.grad_trace_max.data != nullptr ||
         args.grad_trace_mean.data != nullptr;
}

template <typename T>
WideBackwardGroups<InTile<T>> wide_backward_groups_of(const Backward<T>& args) {
  if (is_general(args)) {
    return &wide_backward_groups<AnyMember, true, InTile<T>>;
  }
  return with_member(OwnKernels<StateOf<T>>(), args.neuron, [&](auto tag) -> WideBackwardGroups<InTile<T>> {
    using Kind = typename decltype(tag)::type;
    return learns(args) ? &wide_backward_groups<Kind, true, InTile<T>>
                        : &wide_backward_groups<Kind, false, InTile<T>>;
  });
}

// Whether one row of a step is kept, or two.
template <typename T>
bool keeps_few(const Backward<T>& args) {
  return (kHasPlain<T> && is_plain(args)) ||
         (states_of(args.neuron) == 1 && (!learns(args) || shares_membranes(args.neuron)));
}

template <typename T>
WideNeeds needs_of(const Backward<T>& args) {
  WideNeeds needs;
  needs.back = true;
  needs.learn = learns(args) || is_general(args);
  needs.timed = args.grad_first.data != nullptr;
  needs.peaked = args.grad_trace_max.data != nullptr;
  needs.averaged = args.grad_trace_mean.data != nullptr;
  needs.counted = args.grad_count.data != nullptr || args.grad_rate.data != nullptr || is_steady(args);
  needs.summing = args.grad_x_sum != nullptr;
  return needs;
}

// The steps [first, last) of a chunk.
template <typename T, typename S = StateOf<T>>
void wide_recompute(const Backward<T>& args, const Block& block, const WideRows<S>& rows, int64_t chunk,
                    int64_t first, int64_t last, const WideKept<S>& kept, WideForwardGroups<InTile<T>> groups,
                    Inlet<T>& x) {
  const int64_t n = block.size;
  const S* from[kStates];
  int64_t slot = (chunk - 1) * states_of(args.neuron);
  for (int state = 0; state < kStates; ++state) {
    from[state] = chunk == 0 || !has_state(args.neuron, state)
                      ? args.state[state]
                      : args.checkpoints + slot++ * neurons(args.extent);
  }
  load_states<T>(rows, args.neuron, from, block);
  if (kept.shares) {
    copy_row(kept.u.at(-1, 0), rows.state[kMembrane], n);
  }
  WideForwardTile<InTile<T>> tile;
  for (int64_t t = first; t < last; t += tile.steps) {
    tile.steps = smaller(kTileSteps, last - t);
    const auto x_rows = rows_of(args.x, block, t);
    for (int64_t i = 0, size; i < n; i += size) {
      size = strip_of<S>(i, n);
      tile.x = x.rows(x_rows, tile.steps, i, size);
      tile.u = beyond(later(kept.u, t - first), i);
      for (int state = kept.shares ? kMembrane + 1 : kMembrane; state < kStates; ++state) {
        tile.before[state] = beyond(later(kept.before[state], t - first), i);
      }
      groups(args.neuron, tile, rows.from(i), size);
    }
  }
}

template <typename T, typename S = StateOf<T>>
void wide_backward_task(const Backward<T>& args, const Block& block, const WideRows<S>& rows,
                        const WideKept<S>& kept, WideForwardGroups<InTile<T>> forward,
                        WideBackwardGroups<InTile<T>> groups) {
  const int64_t n = block.size;
  const int64_t steps = block.steps;
  const WideNeeds needs = needs_of(args);
  rows.load(args.neuron, args.parameter, block);
  for (int state = 0; state < kSmoothStates; ++state) {
    if (!has_state(args.neuron, state)) {
      continue;
    }
    const S* from = args.grad_final[state];
    load_or_zero(rows.adjoint[state], from == nullptr ? nullptr : from + block.neuron, n);
  }
  for (int name = 0; name < kLearnable; ++name) {
    if (needs.learn && has_parameter(args.neuron, name)) {
      fill_row(rows.sums[name], S(0), n);
    }
  }
  if (needs.summing) {
    fill_row(rows.grad_x, S(0), n);
  }
  WideBackwardTile<InTile<T>> tile;
  tile.timed = needs.timed;
  const bool steady = is_steady(args) && !tile.timed;  // the gradient of a first spike is added before others
  const Series<const T> none;
  const Series<const T> moving = steady ? none : args.grad_spikes;
  const S* constant =
      constant_gradient(args, steady ? args.grad_spikes : none, block, rows.constant, rows.scratch);
  tile.counted = constant != nullptr;
  tile.summing = needs.summing;
  tile.by_gain = args.grad_parameter[kGain] != nullptr;
  if (tile.timed) {
    const S* from = read_row(args.grad_first, block, 0, rows.scratch);
    copy_row(rows.grad_first, from, n);
    copy_row(rows.later, from, n);
    copy_row(rows.first, args.first + block.neuron, n);
  }
  tile.peaked = needs.peaked;
  tile.averaged = needs.averaged;
  if (tile.peaked) {
    copy_row(rows.highest, read_row(args.grad_trace_max, block, 0, rows.scratch), n);
    copy_row(rows.peak, args.peak + block.neuron, n);
  }
  if (tile.averaged) {
    divide_row(rows.sum_v, read_row(args.grad_trace_mean, block, 0, rows.scratch), rate_divisor<S>(block), n);
  }
  Inlet<T> x, g, grad_trace, grad_before;
  Outlet<T> grad_x;
  alignas(64) S h[kTileSteps * kWideStrip<S>];
  alignas(64) S spikes[kTileSteps * kWideStrip<S>];
  SlopesStrip<S> slopes;
  slopes.h = {h, kWideStrip<S>, false};
  tile.h = {h, kWideStrip<S>, false};
  const auto read = [](const Rows<S>& rows) { return Rows<const S>{rows.data, rows.stride, false}; };
  for (int64_t chunk = (steps + args.chunk - 1) / args.chunk - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * args.chunk;
    const int64_t end = smaller(begin + args.chunk, steps);
    if (args.bits == nullptr) {
      wide_recompute(args, block, rows, chunk, begin, end, kept, forward, x);
    }
    for (int64_t last = end; last > begin; last -= tile.steps) {
      tile.steps = smaller(kTileSteps, last - begin);
      const int64_t t = last - tile.steps;
      tile.t = t;
      const auto x_rows = rows_of(args.x, block, t);
      const auto g_rows = rows_of(moving, block, t);
      const auto trace_rows = rows_of(args.grad_trace, block, t);
      const auto before_rows = rows_of(args.grad_trace_before, block, t);
      const auto grad_x_rows = rows_of(args.grad_x, block, t);
      for (int64_t i = 0, size; i < n; i += size) {
        size = strip_of<S>(i, n);
        tile.g = g.rows(g_rows, tile.steps, i, size);
        tile.grad_trace = grad_trace.rows(trace_rows, tile.steps, i, size);
        tile.grad_before = grad_before.rows(before_rows, tile.steps, i, size);
        if (tile.by_gain) {
          tile.x = x.rows(x_rows, tile.steps, i, size);
        }
        tile.grad_x = grad_x.rows(grad_x_rows, i, size);
        if (args.bits == nullptr) {
          tile.u = read(beyond(later(kept.u, t - begin), i));
          for (int state = 0; state < kStates; ++state) {
            tile.before[state] = read(beyond(later(kept.before[state], t - begin), i));
          }
          slopes.steps = tile.steps;
          slopes.u = tile.u;
          slopes.theta = rows.parameter[kThreshold] + i;
          slopes.kappa = rows.parameter[kKappa] + i;
          slopes.adaptation = tile.before[kAdaptation];
          slopes.read = Ahead(tile.g);
          slopes.written = Ahead(tile.grad_x);
          write_slopes(slopes, args.surrogate, size);
        } else {
          for (int64_t j = 0; j < tile.steps; ++j) {
            const uint32_t* words =
                args.bits + (t + j) / kStepsOfWord * neurons(args.extent) + block.neuron + i;
            bit_row(spikes + j * kWideStrip<S>, words, fired_bit(t + j), S(1), size);
            bit_row(h + j * kWideStrip<S>, words, inside_bit(t + j), args.surrogate.scale, size);
          }
          tile.s = {spikes, kWideStrip<S>, false};
        }
        groups(args.neuron, tile, rows.from(i), size);
        grad_x.finish(tile.steps, size);
      }
    }
  }
  zero_rest(args.grad_x, args.extent, block);
  if (tile.summing) {
    narrow_row<T>(args.grad_x_sum + block.neuron, rows.grad_x, n);
  }
  for (int state = 0; state < kSmoothStates; ++state) {
    if (args.grad_state[state] != nullptr) {
      copy_row(args.grad_state[state] + block.neuron, rows.adjoint[state], n);
    }
  }
  for (int name = 0; name < kLearnable; ++name) {
    if (args.grad_parameter[name] != nullptr) {
      copy_row(args.grad_parameter[name] + block.neuron, rows.sums[name], n);
    }
  }
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
