// The plain neuron, which most networks are made of: it fires at its threshold, is reset at once by
// subtraction or to a value, and has no state beside its membrane.
//
// A tile is a few time steps of a block's neurons. A group of vectors walks through the steps of a tile with
// its membrane and its parameters in registers, so that a step forward reads x and writes the spike and
// touches nothing else; the vectors of a group wait for their arithmetic together. The rows of a tile are
// read side by side, each as a stream of its own.
//
// Backward recomputes u of a chunk of steps into rows of the second-level cache, and goes back through them
// in the same tiles. The surrogate derivative of a strip of neurons is a pass of its own, so that 8
// surrogates and 4 resets are 8 + 4 pieces of code.
#pragma once

#include "cpu/rows.inl"
#include "cpu/vector.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

// Time steps of a tile, each a stream of x and one of spikes: 8 took a third longer forward on [25, 128,
// 1000], 2 as long but more arithmetic.
constexpr int64_t kTileSteps = 4;
// The same where its outputs are streamed: stores past the caches to four rows at once took 1.6 ns a
// neuron-step on [16, 64, 16384], to two 0.8, and plain ones 0.95.
constexpr int64_t kStreamedTileSteps = 2;
// Neurons for which cache lines and surrogates are asked for at once.
constexpr int64_t kStrip = 64;

template <typename S>
bool is_plain(const Neuron<S>& neuron) {
  return neuron.reset != Reset::none && !neuron.strict && !neuron.synapse && !neuron.adaptive &&
         !neuron.delayed && neuron.refractory == 0 && neuron.rest == S(0);
}

template <typename T>
bool is_plain(const Forward<T>& args) {
  return is_plain(args.neuron) && args.trace_before.data == nullptr && args.first == nullptr &&
         args.bits == nullptr;
}

template <typename T>
bool is_plain(const Backward<T>& args) {
  return is_plain(args.neuron) && learns_plainly(args) && args.grad_trace_before.data == nullptr &&
         args.grad_first.data == nullptr && args.bits == nullptr;
}

// The rows of a series at the steps of a tile, from the block's first neuron on.
template <typename T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;
  bool uniform = false;

  T* at(int64_t step, int64_t i) const { return data + step * stride + i; }
};

template <typename T>
Rows<T> rows_of(const Series<T>& series, const Block& block, int64_t t) {
  return series.data == nullptr ? Rows<T>{}
                                : Rows<T>{row_of(series, block, t), series.time_stride, series.uniform};
}

template <typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline Group<S> load_group(const Rows<const T>& rows, int64_t step, int64_t i) {
  if (!rows.uniform) {
    return load_group(rows.at(step, i));
  }
  Group<S> group;
  for (int64_t k = 0; k < kGroup; ++k) {
    group.at[k] = splat(widen(*rows.at(step, 0)));
  }
  return group;
}

// Whether all rows of an output begin at a cache line, as streaming wants it.
template <typename T>
bool can_stream(const Series<T>& series, const Block& block) {
  constexpr int64_t kLine = 64;
  return series.data != nullptr && reinterpret_cast<uintptr_t>(row_of(series, block, 0)) % kLine == 0 &&
         series.time_stride * static_cast<int64_t>(sizeof(T)) % kLine == 0;
}

// The last neurons of a block, fewer than a group, are computed in rows of their own: kTileSteps of them,
// and what they hold in the lanes behind the last neuron is never looked at.
template <typename T>
struct Tail {
  static constexpr int64_t kWidth = kGroup * kLanes<StateOf<T>>;
  T data[kTileSteps * kWidth] = {};

  Rows<T> rows() { return {data, kWidth, false}; }

  Rows<const T> read(const Rows<const T>& from, int64_t steps, int64_t i, int64_t n) {
    if (from.data == nullptr || from.uniform) {
      return from;
    }
    for (int64_t j = 0; j < steps; ++j) {
      copy_row(data + j * kWidth, from.at(j, i), n);
      if (from.stride == 0) {
        return {data, 0, false};
      }
    }
    return {data, kWidth, false};
  }

  void write(const Rows<T>& to, int64_t steps, int64_t i, int64_t n) const {
    for (int64_t j = 0; to.data != nullptr && j < steps; ++j) {
      copy_row(to.at(j, i), data + j * kWidth, n);
    }
  }
};

// The values of the parameters for a block and what its neurons carry on from tile to tile.
template <typename S>
struct PlainRows {
  static constexpr int64_t kRows = 12;

  S *beta, *theta, *v_reset, *gain;
  S *v, *count;                                               // forward
  S *start, *a, *grad_x, *grad_beta, *grad_theta, *constant;  // backward
  bool has_gain;

  // Rows of a parameter that is a number stay as they are from task to task: filled anew for each, they and
  // the sums took eight stores a neuron, as many as four time steps of spikes and gradients.
  PlainRows(Workspace<S>& workspace, const Parameter<S>* parameters, int64_t neurons)
      : has_gain(LIF_SIMD::has_gain(parameters)) {
    for (S** row : {&beta, &theta, &v_reset, &gain, &v, &count, &start, &a, &grad_x, &grad_beta, &grad_theta,
                    &constant}) {
      *row = workspace.row();
    }
    each_parameter(parameters, [&](S* row, const Parameter<S>& parameter) {
      if (parameter.values == nullptr) {
        fill_row(row, parameter.value, neurons);
      }
    });
    // Added to in any case; a task that is asked for one of these sums begins it anew.
    for (S* sum : {count, grad_x, grad_beta, grad_theta}) {
      fill_row(sum, S(0), neurons);
    }
  }

  void load(const Parameter<S>* parameters, const Block& block) {
    each_parameter(parameters, [&](S* row, const Parameter<S>& parameter) {
      if (parameter.values != nullptr) {
        load_parameter(row, parameter, block);
      }
    });
  }

  template <typename Do>
  void each_parameter(const Parameter<S>* parameters, const Do& run) const {
    run(beta, parameters[kBeta]);
    run(theta, parameters[kThreshold]);
    run(v_reset, parameters[kResetTo]);
    if (has_gain) {
      run(gain, parameters[kGain]);
    }
  }

  // The same from neuron i of the block on.
  PlainRows from(int64_t i) const {
    PlainRows rows(*this);
    for (S** row : {&rows.beta, &rows.theta, &rows.v_reset, &rows.gain, &rows.v, &rows.count, &rows.start,
                    &rows.a, &rows.grad_x, &rows.grad_beta, &rows.grad_theta, &rows.constant}) {
      *row += i;
    }
    return rows;
  }
};

inline int64_t at_least(int64_t low, int64_t value) { return value < low ? low : value; }
inline int64_t smaller(int64_t one, int64_t other) { return one < other ? one : other; }

// The rows that the next tile will read, whose lines a tile asks for while it computes.
template <typename T>
struct Coming {
  Rows<const T> rows;
  int64_t steps = 0;
};

// Up to `most` rows of a series, from step `first` on and before `last`; none where it does not move.
template <typename T>
Coming<T> coming(const Series<const T>& series, const Block& block, int64_t first, int64_t last,
                 int64_t most = kTileSteps) {
  if (series.data == nullptr || series.time_stride == 0 || series.uniform || first >= last) {
    return {};
  }
  return {rows_of(series, block, first), last - first < most ? last - first : most};
}

// A whole strip line by line without a loop, whose questions took as long as the arithmetic between them: in
// the second-level cache 0.16 instead of 0.24 ns a neuron-step forward, and 0.49 instead of 0.57 backward.
template <typename T>
void ask_for(const Coming<T>& next, int64_t i, int64_t n) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t j = 0; j < next.steps; ++j) {
    const T* row = next.rows.at(j, i);
    if (n < kStrip) {
      prefetch_row(row, n);
      continue;
    }
#pragma GCC unroll 8
    for (int64_t line = 0; line < kStrip / kLine; ++line) {
      __builtin_prefetch(row + line * kLine);
    }
  }
}

// Forward.

template <typename T, typename S = StateOf<T>>
struct ForwardTile {
  int64_t steps = 0;
  Rows<const T> x;
  Rows<T> spikes, trace;
  Rows<S> u;  // where backward recomputes; it wants nothing else
  bool counting = false;
  bool streamed = false;
  Coming<T> next;
};

// What the steps of a tile write. The common cases are compiled for themselves: a question asked at each step
// of each vector costs as much as its arithmetic.
enum class Writes { spikes, u, counts, any };

template <typename T, typename S = StateOf<T>>
Writes writes_of(const ForwardTile<T>& tile, const PlainRows<S>& rows) {
  if (rows.has_gain || tile.x.uniform || tile.trace.data != nullptr) {
    return Writes::any;
  }
  if (tile.u.data != nullptr) {
    return Writes::u;
  }
  if (tile.counting) {
    return tile.spikes.data == nullptr && tile.x.stride == 0 ? Writes::counts : Writes::any;
  }
  return tile.spikes.data != nullptr ? Writes::spikes : Writes::any;
}

template <Reset kReset, Writes kWrites, typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline void forward_group(const ForwardTile<T>& tile, const PlainRows<S>& rows,
                                                 int64_t i) {
  constexpr bool kAny = kWrites == Writes::any;
  constexpr bool kCounts = kAny || kWrites == Writes::counts;
  const auto beta = load_group(rows.beta + i);
  const auto theta = load_group(rows.theta + i);
  const auto v_reset = load_group(rows.v_reset + i);
  auto v = load_group(rows.v + i);
  Group<S> count, constant;
  if constexpr (kCounts) {
    count = load_group(rows.count + i);
    constant = load_group(tile.x, 0, i);
  }
  const int64_t steps = tile.steps;
  const T* x = tile.x.at(0, i);
  T* spikes = tile.spikes.at(0, i);
  S* u_to = tile.u.at(0, i);
  for (int64_t j = 0; j < steps; ++j) {
    Group<S> input;
    if constexpr (kAny) {
      input = load_group(tile.x, j, i);
    } else if constexpr (kCounts) {
      input = constant;
    } else {
      input = load_group(x);
      x += tile.x.stride;
    }
    if (kAny && rows.has_gain) {
      input = each(load_group(rows.gain + i), input, [](auto g, auto in) { return mul(g, in); });
    }
    Group<S> u, s;
    for (int64_t k = 0; k < kGroup; ++k) {
      u.at[k] = integrate(beta.at[k], v.at[k], input.at[k]);
      s.at[k] = fire(u.at[k], theta.at[k], false);
      v.at[k] = reset(kReset, u.at[k], theta.at[k], v_reset.at[k], s.at[k]);
    }
    if constexpr (kWrites == Writes::u) {
      store_group(u_to, u);
      u_to += tile.u.stride;
    } else if constexpr (kWrites == Writes::spikes) {
      store_group<true>(spikes, s, tile.streamed);
      spikes += tile.spikes.stride;
    } else if constexpr (kAny) {
      if (tile.u.data != nullptr) {
        store_group(tile.u.at(j, i), u);
      }
      if (tile.spikes.data != nullptr) {
        store_group<true>(tile.spikes.at(j, i), s, tile.streamed);
      }
      if (tile.trace.data != nullptr) {
        store_group(tile.trace.at(j, i), v);
      }
    }
    if constexpr (kCounts) {
      count = each(count, s, [](auto sum, auto spike) { return add(sum, spike); });
    }
  }
  store_group(rows.v + i, v);
  if constexpr (kCounts) {
    store_group(rows.count + i, count);
  }
}

// Not inlined, here and in backward: called for whole blocks and for their ends, it would be compiled twice.
template <Reset kReset, Writes kWrites, typename T, typename S = StateOf<T>>
[[gnu::noinline]] void forward_groups(const ForwardTile<T>& given, const PlainRows<S>& given_rows,
                                      int64_t n) {
  // Copies, which the compiler knows that no store can change.
  const ForwardTile<T> tile(given);
  const PlainRows<S> rows(given_rows);
  for (int64_t strip = 0; strip < n; strip += kStrip) {
    const int64_t end = strip + kStrip < n ? strip + kStrip : n;
    ask_for(tile.next, strip, end - strip);
    for (int64_t i = strip; i < end; i += kGroup * kLanes<S>) {
      forward_group<kReset, kWrites>(tile, rows, i);
    }
  }
}

template <Reset kReset, typename T, typename S = StateOf<T>>
void forward_groups(const ForwardTile<T>& tile, const PlainRows<S>& rows, int64_t n) {
  switch (writes_of(tile, rows)) {
    case Writes::spikes:
      return forward_groups<kReset, Writes::spikes>(tile, rows, n);
    case Writes::u:
      return forward_groups<kReset, Writes::u>(tile, rows, n);
    case Writes::counts:
      return forward_groups<kReset, Writes::counts>(tile, rows, n);
    case Writes::any:
      return forward_groups<kReset, Writes::any>(tile, rows, n);
  }
}

template <typename T, typename S = StateOf<T>>
void forward_groups(const Neuron<S>& neuron, const ForwardTile<T>& tile, const PlainRows<S>& rows,
                    int64_t n) {
  neuron.reset == Reset::zero ? forward_groups<Reset::zero>(tile, rows, n)
                              : forward_groups<Reset::subtract>(tile, rows, n);
}

template <typename T, typename S = StateOf<T>>
void forward_tile(const Neuron<S>& neuron, const ForwardTile<T>& tile, const PlainRows<S>& rows, int64_t n) {
  constexpr int64_t kWidth = kGroup * kLanes<S>;
  const int64_t whole = n / kWidth * kWidth;
  forward_groups(neuron, tile, rows, whole);
  if (whole < n) {
    Tail<T> x, spikes, trace;
    ForwardTile<T> rest;
    rest.counting = tile.counting;
    for (int64_t j = 0; j < tile.steps; j += kTileSteps) {
      rest.steps = j + kTileSteps < tile.steps ? kTileSteps : tile.steps - j;
      const auto later = [&](auto of) {
        of.data += of.data == nullptr ? 0 : j * of.stride;
        return of;
      };
      rest.x = x.read(later(tile.x), rest.steps, whole, n - whole);
      rest.u = later(tile.u);
      rest.u.data += rest.u.data == nullptr ? 0 : whole;
      rest.spikes = tile.spikes.data == nullptr ? Rows<T>{} : spikes.rows();
      rest.trace = tile.trace.data == nullptr ? Rows<T>{} : trace.rows();
      forward_groups(neuron, rest, rows.from(whole), kWidth);
      spikes.write(later(tile.spikes), rest.steps, whole, n - whole);
      trace.write(later(tile.trace), rest.steps, whole, n - whole);
    }
  }
}

template <typename T, typename S = StateOf<T>>
void forward_task(const Forward<T>& args, const Block& block, PlainRows<S>& rows) {
  const int64_t n = block.size;
  const int64_t steps = args.extent.steps;
  rows.load(args.parameter, block);
  const S* from = args.state[kMembrane];
  load_or_zero(rows.v, from == nullptr ? nullptr : from + block.neuron, n);
  const bool moves = args.x.time_stride != 0 || args.spikes.data != nullptr || args.trace.data != nullptr;

  ForwardTile<T> tile;
  tile.counting = args.count != nullptr || args.rate != nullptr || args.total != nullptr;
  if (tile.counting) {
    fill_row(rows.count, S(0), n);
  }
  tile.streamed = is_streamed(args.extent, sizeof(T)) && can_stream(args.spikes, block);
  // Of a tile, which is as long as all of it where no row moves.
  const int64_t most = !moves ? steps : tile.streamed ? kStreamedTileSteps : kTileSteps;
  S* checkpoint = args.checkpoints;
  int64_t until_checkpoint = checkpoint == nullptr ? steps : args.checkpoint_every;
  for (int64_t t = 0; t < steps; t += tile.steps) {
    if (until_checkpoint == 0) {
      copy_row(checkpoint + block.neuron, rows.v, n);
      checkpoint += neurons(args.extent);
      until_checkpoint = args.checkpoint_every;
    }
    tile.steps = smaller(most, smaller(steps - t, until_checkpoint));
    tile.x = rows_of(args.x, block, t);
    tile.spikes = rows_of(args.spikes, block, t);
    tile.trace = rows_of(args.trace, block, t);
    tile.next = coming(args.x, block, t + tile.steps, steps, most);
    forward_tile(args.neuron, tile, rows, n);
    until_checkpoint -= tile.steps;
  }
  if (tile.counting) {
    write_counts(args, block, rows.count);
  }
  if (args.final_state[kMembrane] != nullptr) {
    copy_row(args.final_state[kMembrane] + block.neuron, rows.v, n);
  }
}

// Backward.

template <typename T, typename S = StateOf<T>>
struct BackwardTile {
  int64_t steps = 0;
  Rows<const T> g, grad_trace;
  Rows<T> grad_x;
  Rows<const S> u;       // of the tile's steps
  bool first = false;    // the step before the tile's first is not in the chunk: its v is in rows.start
  bool counted = false;  // rows.constant is part of every g
  bool by_beta = false;
  bool by_theta = false;
  bool streamed = false;
  Coming<T> next;
};

// What goes into a tile of backward and what comes out of it. As in forward, the common cases are compiled
// for themselves: gradients of spikes to gradients of x; the same, and those of beta and threshold; the
// gradient of counts to that of a constant input.
enum class Flow { spikes, learning, counts, any };

template <typename T, typename S = StateOf<T>>
Flow flow_of(const BackwardTile<T>& tile, const PlainRows<S>& rows) {
  if (rows.has_gain || tile.grad_trace.data != nullptr) {
    return Flow::any;
  }
  const bool learning = tile.by_beta || tile.by_theta;
  if (tile.g.data != nullptr && !tile.g.uniform && !tile.counted && tile.grad_x.data != nullptr) {
    return learning ? Flow::learning : Flow::spikes;
  }
  return tile.g.data == nullptr && tile.counted && tile.grad_x.data == nullptr && !learning ? Flow::counts
                                                                                            : Flow::any;
}

// `h`: the surrogate derivatives of the group's neurons, a row of kStrip for each step.
template <Reset kReset, bool kDetached, Flow kFlow, typename T, typename S = StateOf<T>>
[[gnu::always_inline]] inline void backward_group(const BackwardTile<T>& tile, const PlainRows<S>& rows,
                                                  const S* h, int64_t i) {
  constexpr bool kAny = kFlow == Flow::any;
  constexpr bool kLearning = kAny || kFlow == Flow::learning;
  constexpr bool kCounts = kAny || kFlow == Flow::counts;
  constexpr bool kWhole = kFlow == Flow::spikes || kFlow == Flow::learning;  // whole rows in and out
  constexpr bool kSpikes = kReset == Reset::zero || kLearning;
  const auto beta = load_group(rows.beta + i);
  const auto theta = load_group(rows.theta + i);
  const auto v_reset = load_group(rows.v_reset + i);
  auto a = load_group(rows.a + i);
  Group<S> constant{}, sum, grad_beta, grad_theta;
  if constexpr (kCounts) {
    sum = load_group(rows.grad_x + i);
    if (tile.counted) {
      constant = load_group(rows.constant + i);
    }
  }
  if constexpr (kLearning) {
    grad_beta = load_group(rows.grad_beta + i);
    grad_theta = load_group(rows.grad_theta + i);
  }
  const auto plus = [](auto one, auto other) { return add(one, other); };
  for (int64_t j = tile.steps - 1; j >= 0; --j) {
    Group<S> g;
    if constexpr (kWhole) {
      g = load_group(tile.g.at(j, i));
    } else {
      g = constant;
      if (kAny && tile.g.data != nullptr) {
        g = load_group(tile.g, j, i);
        if (tile.counted) {
          g = each(g, constant, plus);
        }
      }
    }
    if (kAny && tile.grad_trace.data != nullptr) {
      a = each(a, load_group(tile.grad_trace, j, i), plus);
    }
    Group<S> u{}, s{}, d;
    if constexpr (kSpikes) {
      u = load_group(tile.u.at(j, i));
    }
    const auto slope = load_group(h + j * kStrip);
    for (int64_t k = 0; k < kGroup; ++k) {
      if constexpr (kSpikes) {
        s.at[k] = fire(u.at[k], theta.at[k], false);
      }
      const auto e = reach_spike(kReset, kDetached, g.at[k], u.at[k], theta.at[k], v_reset.at[k], a.at[k]);
      const auto through = mul(e, slope.at[k]);
      d.at[k] = add(keep(kReset, a.at[k], s.at[k]), through);
      if constexpr (kLearning) {
        grad_theta.at[k] = add(grad_theta.at[k], threshold_gradient(kReset, through, a.at[k], s.at[k]));
      }
      a.at[k] = mul(beta.at[k], d.at[k]);
    }
    if (kLearning && tile.by_beta) {
      Group<S> v = load_group(rows.start + i);
      if (j > 0 || !tile.first) {
        const auto before = load_group(tile.u.at(j - 1, i));
        for (int64_t k = 0; k < kGroup; ++k) {
          const auto spike = fire(before.at[k], theta.at[k], false);
          v.at[k] = reset(kReset, before.at[k], theta.at[k], v_reset.at[k], spike);
        }
      }
      for (int64_t k = 0; k < kGroup; ++k) {
        grad_beta.at[k] = add(grad_beta.at[k], mul(d.at[k], v.at[k]));
      }
    }
    if (kAny && rows.has_gain) {
      d = each(load_group(rows.gain + i), d, [](auto gain, auto gradient) { return mul(gain, gradient); });
    }
    if (kWhole || (kAny && tile.grad_x.data != nullptr)) {
      store_group(tile.grad_x.at(j, i), d, tile.streamed);
    }
    if constexpr (kCounts) {
      sum = each(sum, d, plus);
    }
  }
  store_group(rows.a + i, a);
  if constexpr (kCounts) {
    store_group(rows.grad_x + i, sum);
  }
  if constexpr (kLearning) {
    store_group(rows.grad_beta + i, grad_beta);
    store_group(rows.grad_theta + i, grad_theta);
  }
}

template <Reset kReset, bool kDetached, Flow kFlow, typename T, typename S = StateOf<T>>
[[gnu::noinline]] void backward_groups(const BackwardTile<T>& given, const PlainRows<S>& given_rows,
                                       const Surrogate<S>& surrogate, int64_t n) {
  // Copies, which the compiler knows that no store can change.
  const BackwardTile<T> tile(given);
  const PlainRows<S> rows(given_rows);
  alignas(64) S h[kTileSteps * kStrip];
  for (int64_t strip = 0; strip < n; strip += kStrip) {
    const int64_t size = strip + kStrip < n ? kStrip : n - strip;
    surrogate_rows(h, kStrip, tile.u.at(0, strip), tile.u.stride, rows.theta + strip, surrogate, tile.steps,
                   size);
    ask_for(tile.next, strip, size);
    for (int64_t i = 0; i < size; i += kGroup * kLanes<S>) {
      backward_group<kReset, kDetached, kFlow>(tile, rows, h + i, strip + i);
    }
  }
}

template <Reset kReset, bool kDetached, typename T, typename S = StateOf<T>>
void backward_groups(const BackwardTile<T>& tile, const PlainRows<S>& rows, const Surrogate<S>& surrogate,
                     int64_t n) {
  switch (flow_of(tile, rows)) {
    case Flow::spikes:
      return backward_groups<kReset, kDetached, Flow::spikes>(tile, rows, surrogate, n);
    case Flow::learning:
      return backward_groups<kReset, kDetached, Flow::learning>(tile, rows, surrogate, n);
    case Flow::counts:
      return backward_groups<kReset, kDetached, Flow::counts>(tile, rows, surrogate, n);
    case Flow::any:
      return backward_groups<kReset, kDetached, Flow::any>(tile, rows, surrogate, n);
  }
}

template <typename T, typename S = StateOf<T>>
void backward_groups(const Neuron<S>& neuron, const BackwardTile<T>& tile, const PlainRows<S>& rows,
                     const Surrogate<S>& surrogate, int64_t n) {
  if (neuron.reset == Reset::zero) {
    neuron.detach_reset ? backward_groups<Reset::zero, true>(tile, rows, surrogate, n)
                        : backward_groups<Reset::zero, false>(tile, rows, surrogate, n);
  } else {
    neuron.detach_reset ? backward_groups<Reset::subtract, true>(tile, rows, surrogate, n)
                        : backward_groups<Reset::subtract, false>(tile, rows, surrogate, n);
  }
}

template <typename T, typename S = StateOf<T>>
void backward_tile(const Neuron<S>& neuron, const BackwardTile<T>& tile, const PlainRows<S>& rows,
                   const Surrogate<S>& surrogate, int64_t n) {
  constexpr int64_t kWidth = kGroup * kLanes<S>;
  const int64_t whole = n / kWidth * kWidth;
  backward_groups(neuron, tile, rows, surrogate, whole);
  if (whole < n) {
    Tail<T> g, grad_trace, grad_x;
    BackwardTile<T> rest(tile);
    rest.g = g.read(tile.g, tile.steps, whole, n - whole);
    rest.grad_trace = grad_trace.read(tile.grad_trace, tile.steps, whole, n - whole);
    rest.grad_x = tile.grad_x.data == nullptr ? Rows<T>{} : grad_x.rows();
    rest.u.data += whole;
    rest.streamed = false;
    rest.next = {};
    backward_groups(neuron, rest, rows.from(whole), surrogate, kWidth);
    grad_x.write(tile.grad_x, tile.steps, whole, n - whole);
  }
}

// u of the steps [first, last) of a chunk, into rows `stride` apart from `u` on.
template <typename T, typename S = StateOf<T>>
void recompute_chunk(const Backward<T>& args, const Block& block, const PlainRows<S>& rows, int64_t chunk,
                     int64_t first, int64_t last, S* u, int64_t stride) {
  const int64_t n = block.size;
  const S* from = chunk == 0 ? args.state[kMembrane] : args.checkpoints + (chunk - 1) * neurons(args.extent);
  load_or_zero(rows.v, from == nullptr ? nullptr : from + block.neuron, n);
  if (args.grad_parameter[kBeta] != nullptr) {
    copy_row(rows.start, rows.v, n);
  }
  ForwardTile<T> tile;
  for (int64_t t = first; t < last; t += tile.steps) {
    tile.steps = smaller(kTileSteps, last - t);
    tile.x = rows_of(args.x, block, t);
    tile.u = {u + (t - first) * stride, stride, false};
    const int64_t next = t + tile.steps;
    tile.next = next < last ? coming(args.x, block, next, last)
                            : coming(args.grad_spikes, block, at_least(first, last - kTileSteps), last);
    forward_tile(args.neuron, tile, rows, n);
  }
}

// `u`: room for a chunk's rows, `stride` apart.
template <typename T, typename S = StateOf<T>>
void backward_task(const Backward<T>& args, const Block& block, PlainRows<S>& rows, S* u, int64_t stride) {
  const int64_t n = block.size;
  const int64_t steps = args.extent.steps;
  rows.load(args.parameter, block);
  const S* from = args.grad_final[kMembrane];
  load_or_zero(rows.a, from == nullptr ? nullptr : from + block.neuron, n);
  const auto begin_sum = [&](bool asked, S* sum) {
    if (asked) {
      fill_row(sum, S(0), n);
    }
  };
  begin_sum(args.grad_x_sum != nullptr, rows.grad_x);
  begin_sum(args.grad_parameter[kBeta] != nullptr, rows.grad_beta);
  begin_sum(args.grad_parameter[kThreshold] != nullptr, rows.grad_theta);
  const S* constant = constant_gradient(args, block, rows.constant, rows.start);
  BackwardTile<T> tile;
  tile.counted = constant != nullptr;
  tile.by_beta = args.grad_parameter[kBeta] != nullptr;
  tile.by_theta = args.grad_parameter[kThreshold] != nullptr;
  tile.streamed = is_streamed(args.extent, sizeof(T)) && can_stream(args.grad_x, block);
  const int64_t most = tile.streamed ? kStreamedTileSteps : kTileSteps;
  for (int64_t chunk = (steps + args.chunk - 1) / args.chunk - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * args.chunk;
    const int64_t end = begin + args.chunk < steps ? begin + args.chunk : steps;
    recompute_chunk(args, block, rows, chunk, begin, end, u, stride);
    for (int64_t last = end; last > begin; last -= tile.steps) {
      tile.steps = smaller(most, last - begin);
      const int64_t t = last - tile.steps;
      tile.g = rows_of(args.grad_spikes, block, t);
      tile.grad_trace = rows_of(args.grad_trace, block, t);
      tile.grad_x = rows_of(args.grad_x, block, t);
      tile.u = {u + (t - begin) * stride, stride, false};
      tile.first = t == begin;
      tile.next = t > begin ? coming(args.grad_spikes, block, at_least(begin, t - most), t)
                            : coming(args.x, block, at_least(0, begin - args.chunk), begin);
      backward_tile(args.neuron, tile, rows, args.surrogate, n);
    }
  }
  if (args.grad_x_sum != nullptr) {
    narrow_row<T>(args.grad_x_sum + block.neuron, rows.grad_x, n);
  }
  const auto put = [&](S* to, const S* row) {
    if (to != nullptr) {
      copy_row(to + block.neuron, row, n);
    }
  };
  put(args.grad_state[kMembrane], rows.a);
  put(args.grad_parameter[kBeta], rows.grad_beta);
  put(args.grad_parameter[kThreshold], rows.grad_theta);
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
