// The plain neuron, which most networks are made of: it fires at its threshold, is reset at once by
// subtraction or to a value, and has no state beside its membrane.
//
// A tile is a few time steps of a block's neurons. A group of vectors walks through the steps of a tile with
// its membrane and its parameters in registers, so that a step forward reads x and writes the spike and
// touches nothing else; the vectors of a group wait for their arithmetic together. The rows of a tile are
// read side by side, each as a stream of its own.
//
// The way back stands in plain_backward.inl.
//
// Nothing is prefetched by instructions: they took as long as the arithmetic between them (in the
// second-level cache 0.20 instead of 0.17 ns a neuron-step forward), and from memory they gained nothing over
// the processor's own prefetching.
#pragma once

#include "cpu/rows.inl"
#include "cpu/vector.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

// Time steps of a tile, each a stream of x and one of spikes: 8 took a third longer forward on [25, 128,
// 1000], 2 as long but more arithmetic.
constexpr int64_t kTileSteps = 4;
// The same where its outputs are streamed: of four rows at once, x and spikes at the same place of their
// pages, as large tensors are, would be one of the collisions below.
constexpr int64_t kStreamedTileSteps = 2;

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

// The same rows from a step on.
template <typename T>
Rows<T> later(Rows<T> rows, int64_t steps) {
  rows.data += rows.data == nullptr ? 0 : steps * rows.stride;
  return rows;
}

// And from a neuron on.
template <typename T>
Rows<T> beyond(Rows<T> rows, int64_t neurons) {
  rows.data += rows.data == nullptr || rows.uniform ? 0 : neurons;
  return rows;
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

// The lanes of the groups of n neurons.
template <typename S>
int64_t lanes_of(int64_t n) {
  constexpr int64_t kWidth = kGroup * kLanes<S>;
  return (n + kWidth - 1) / kWidth * kWidth;
}

// A row of n neurons from the order of memory to that of groups; of bfloat16 without digits in NaN. In place
// it took 1.1 instead of 0.15 ns a neuron.
template <typename T, typename S = StateOf<T>>
void to_groups(S* __restrict__ row, const S* __restrict__ from, int64_t n) {
  if constexpr (kEvensFirst<T>) {
    constexpr int64_t kHalf = kLanes<S>;
    const auto clean = [](S value) {
      return std::isnan(value) ? std::numeric_limits<S>::quiet_NaN() : value;
    };
    int64_t i = 0;
    for (; i + 2 * kHalf <= n; i += 2 * kHalf) {
      for (int64_t lane = 0; lane < kHalf; ++lane) {
        row[i + lane] = clean(from[i + 2 * lane]);
      }
      for (int64_t lane = 0; lane < kHalf; ++lane) {
        row[i + kHalf + lane] = clean(from[i + 2 * lane + 1]);
      }
    }
    for (int64_t j = 0; i + j < n; ++j) {
      row[i + j % 2 * kHalf + j / 2] = clean(from[i + j]);
    }
  } else {
    copy_row(row, from, n);
  }
}

// And back.
template <typename T, typename S = StateOf<T>>
void from_groups(S* __restrict__ to, const S* __restrict__ row, int64_t n) {
  if constexpr (kEvensFirst<T>) {
    constexpr int64_t kHalf = kLanes<S>;
    int64_t i = 0;
    for (; i + 2 * kHalf <= n; i += 2 * kHalf) {
      for (int64_t lane = 0; lane < kHalf; ++lane) {
        to[i + 2 * lane] = row[i + lane];
        to[i + 2 * lane + 1] = row[i + kHalf + lane];
      }
    }
    for (int64_t j = 0; i + j < n; ++j) {
      to[i + j] = row[i + j % 2 * kHalf + j / 2];
    }
  } else {
    copy_row(to, row, n);
  }
}

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
        fill_row(row, parameter.value, lanes_of<S>(neurons));
      }
    });
    // Added to in any case; a task that is asked for one of these sums begins it anew.
    for (S* sum : {count, grad_x, grad_beta, grad_theta}) {
      fill_row(sum, S(0), lanes_of<S>(neurons));
    }
  }

  template <typename T>
  void load(const Parameter<S>* parameters, const Block& block) {
    each_parameter(parameters, [&](S* row, const Parameter<S>& parameter) {
      if (parameter.values == nullptr) {
        return;
      }
      if constexpr (kEvensFirst<T>) {
        load_parameter(start, parameter, block);
        to_groups<T>(row, start, block.size);
      } else {
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

// A state of the neurons of a block; null: zeros.
template <typename T, typename S = StateOf<T>>
void load_state(S* row, const S* from, const Block& block) {
  if (from == nullptr) {
    fill_row(row, S(0), lanes_of<S>(block.size));
  } else {
    to_groups<T>(row, from + block.neuron, block.size);
  }
}

// And back, where it is asked for.
template <typename T, typename S = StateOf<T>>
void store_state(S* to, const S* row, const Block& block) {
  if (to != nullptr) {
    from_groups<T>(to + block.neuron, row, block.size);
  }
}

inline int64_t smaller(int64_t one, int64_t other) { return one < other ? one : other; }

// Whether the spikes of a block are written past the caches: where they are many, lie on whole cache lines,
// and collide with nothing that is read beside them. Rows of 16 bits would, as those of the state advance
// twice as fast.
template <typename T, typename S = StateOf<T>>
bool streams(const Forward<T>& args, const Block& block, const PlainRows<S>& rows) {
  if (!std::is_same_v<T, S> || args.spikes.data == nullptr || !is_streamed(args.extent, sizeof(T))) {
    return false;
  }
  constexpr uintptr_t kLine = 64;
  for (int64_t to = 0; to < kStreamedTileSteps; ++to) {
    const T* spikes = row_of(args.spikes, block, to);
    bool collide = reinterpret_cast<uintptr_t>(spikes) % kLine != 0;
    for (int64_t from = 0; from < kStreamedTileSteps; ++from) {
      collide = collide || collides(spikes, row_of(args.x, block, from));
    }
    for (const S* row : {rows.beta, rows.theta, rows.v_reset, rows.gain, rows.v, rows.count}) {
      collide = collide || collides(spikes, row);
    }
    if (collide) {
      return false;
    }
  }
  return true;
}

// Run `loop(steps)`, compiled once more for the usual number of steps. From the second-level cache forward
// takes 0.146 instead of 0.161 ns a neuron-step for it, and backward 0.40 instead of 0.42.
template <typename Loop>
[[gnu::always_inline]] inline void with_steps(int64_t steps, const Loop& loop) {
  if (steps == kTileSteps) {
    loop(std::integral_constant<int64_t, kTileSteps>());
  } else {
    loop(steps);
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

template <Reset kReset, Writes kWrites, typename T, typename Steps, typename S = StateOf<T>>
[[gnu::always_inline]] inline void forward_group(const ForwardTile<T>& tile, const PlainRows<S>& rows,
                                                 Steps steps, int64_t i) {
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

// Not inlined, here and on the way back: called for whole blocks and for their ends, it would be compiled
// twice.
template <Reset kReset, Writes kWrites, typename T, typename S = StateOf<T>>
[[gnu::noinline]] void forward_groups(const ForwardTile<T>& given, const PlainRows<S>& given_rows,
                                      int64_t n) {
  // Copies, which the compiler knows that no store can change.
  const ForwardTile<T> tile(given);
  const PlainRows<S> rows(given_rows);
  with_steps(tile.steps, [&](auto steps) {
    for (int64_t i = 0; i < n; i += kGroup * kLanes<S>) {
      forward_group<kReset, kWrites>(tile, rows, steps, i);
    }
  });
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
      rest.x = x.read(later(tile.x, j), rest.steps, whole, n - whole);
      rest.u = beyond(later(tile.u, j), whole);
      rest.spikes = tile.spikes.data == nullptr ? Rows<T>{} : spikes.rows();
      rest.trace = tile.trace.data == nullptr ? Rows<T>{} : trace.rows();
      forward_groups(neuron, rest, rows.from(whole), kWidth);
      spikes.write(later(tile.spikes, j), rest.steps, whole, n - whole);
      trace.write(later(tile.trace, j), rest.steps, whole, n - whole);
    }
  }
}

template <typename T, typename S = StateOf<T>>
void forward_task(const Forward<T>& args, const Block& block, PlainRows<S>& rows) {
  const int64_t n = block.size;
  const int64_t steps = args.extent.steps;
  rows.template load<T>(args.parameter, block);
  load_state<T>(rows.v, args.state[kMembrane], block);
  const bool moves = args.x.time_stride != 0 || args.spikes.data != nullptr || args.trace.data != nullptr;

  ForwardTile<T> tile;
  tile.counting = args.count != nullptr || args.rate != nullptr || args.total != nullptr;
  if (tile.counting) {
    fill_row(rows.count, S(0), lanes_of<S>(n));
  }
  tile.streamed = streams(args, block, rows);
  // Of a tile, which is as long as all of it where no row moves.
  const int64_t most = !moves ? steps : tile.streamed ? kStreamedTileSteps : kTileSteps;
  S* checkpoint = args.checkpoints;
  int64_t until_checkpoint = checkpoint == nullptr ? steps : args.checkpoint_every;
  for (int64_t t = 0; t < steps; t += tile.steps) {
    if (until_checkpoint == 0) {
      store_state<T>(checkpoint, rows.v, block);
      checkpoint += neurons(args.extent);
      until_checkpoint = args.checkpoint_every;
    }
    tile.steps = smaller(most, smaller(steps - t, until_checkpoint));
    tile.x = rows_of(args.x, block, t);
    tile.spikes = rows_of(args.spikes, block, t);
    tile.trace = rows_of(args.trace, block, t);
    forward_tile(args.neuron, tile, rows, n);
    until_checkpoint -= tile.steps;
  }
  if (tile.counting) {
    from_groups<T>(rows.start, rows.count, n);
    write_counts(args, block, rows.start);
  }
  store_state<T>(args.final_state[kMembrane], rows.v, block);
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
