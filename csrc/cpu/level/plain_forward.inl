// The plain neuron, which most networks are made of: it fires at its threshold, is reset at once by
// subtraction or to a value, and has no state beside its membrane.
//
// A tile is a few time steps of a block's neurons. A group of vectors walks through the steps of a tile with
// its membrane and its parameters in registers, so that a step forward reads x and writes the spike and
// touches nothing else; the vectors of a group wait for their arithmetic together. The rows of a tile are
// read side by side, each as a stream of its own.
//
// What it works on stands in plain_rows.inl, the way back in plain_backward.inl.
//
// Nothing is prefetched by instructions here: they took as long as the arithmetic between them (in the
// second-level cache 0.20 instead of 0.17 ns a neuron-step forward), and from memory they gained nothing over
// the processor's own prefetching.
#pragma once

#include "cpu/level/packed_rows.inl"
#include "cpu/level/plain_rows.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

// Time steps of a tile whose outputs are streamed: of four rows at once, x and spikes at the same place of
// their pages, as large tensors are, would be one of the collisions below.
constexpr int64_t kStreamedTileSteps = 2;

// Rows of x in and spikes out; or a constant input, and counts.
template <typename T>
bool is_plain(const Forward<T>& args) {
  const bool plainly = is_plain(args.neuron) && !has_gain(args.parameter) && !args.x.uniform &&
                       args.trace.data == nullptr && args.trace_before.data == nullptr &&
                       args.first == nullptr && args.bits == nullptr && args.trace_max == nullptr &&
                       args.trace_mean == nullptr;
  return plainly && (is_counted(args) ? !has_spikes(args) && args.x.time_stride == 0 : has_spikes(args));
}

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
    for (const S* row : {rows.beta, rows.theta, rows.v_reset, rows.v}) {
      collide = collide || collides(spikes, row);
    }
    if (collide) {
      return false;
    }
  }
  return true;
}

// What the steps of a tile write. Each is compiled for itself: a question asked at each step of each vector
// costs as much as its arithmetic.
enum class Writes { spikes, u, counts };

template <typename T, typename S = StateOf<T>>
struct ForwardTile {
  Writes writes = Writes::spikes;
  int64_t steps = 0;
  Rows<const T> x;
  Rows<T> spikes;
  Rows<S> u;  // where backward recomputes; it wants nothing else
  bool streamed = false;
};

template <Reset kReset, Writes kWrites, typename T, typename Steps, typename S = StateOf<T>>
[[gnu::always_inline]] inline void forward_group(const ForwardTile<T>& tile, const PlainRows<S>& rows,
                                                 Steps steps, int64_t i) {
  constexpr bool kCounts = kWrites == Writes::counts;
  const auto beta = load_group(rows.beta + i);
  const auto theta = load_group(rows.theta + i);
  const auto v_reset = load_group(rows.v_reset + i);
  auto v = load_group(rows.v + i);
  const T* x = tile.x.at(0, i);
  T* spikes = tile.spikes.at(0, i);
  S* u_to = tile.u.at(0, i);
  Group<S> count, input;
  if constexpr (kCounts) {
    count = load_group(rows.count + i);
    input = load_group(x);
  }
  for (int64_t j = 0; j < steps; ++j) {
    if constexpr (!kCounts) {
      input = load_group(x);
      x += tile.x.stride;
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
    } else {
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
  switch (tile.writes) {
    case Writes::spikes:
      return forward_groups<kReset, Writes::spikes>(tile, rows, n);
    case Writes::u:
      return forward_groups<kReset, Writes::u>(tile, rows, n);
    case Writes::counts:
      return forward_groups<kReset, Writes::counts>(tile, rows, n);
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
    Tail<T> x, spikes;
    ForwardTile<T> rest;
    rest.writes = tile.writes;
    for (int64_t j = 0; j < tile.steps; j += kTileSteps) {
      rest.steps = j + kTileSteps < tile.steps ? kTileSteps : tile.steps - j;
      rest.x = x.read(later(tile.x, j), rest.steps, whole, n - whole);
      rest.u = beyond(later(tile.u, j), whole);
      rest.spikes = tile.spikes.data == nullptr ? Rows<T>{} : spikes.rows();
      forward_groups(neuron, rest, rows.from(whole), kWidth);
      spikes.write(later(tile.spikes, j), rest.steps, whole, n - whole);
    }
  }
}

template <typename T, typename S = StateOf<T>>
void plain_forward_task(const Forward<T>& args, const Block& block, PlainRows<S>& rows,
                        const PackedRows<T>& packed) {
  const int64_t n = block.size;
  const int64_t steps = block.steps;
  rows.template load<T>(args.parameter, block);
  load_values<T>(rows.v, args.state[kMembrane], block);
  const bool counted = is_counted(args);
  ForwardTile<T> tile;
  tile.writes = counted ? Writes::counts : Writes::spikes;
  if (counted) {
    fill_row(rows.count, S(0), lanes_of<S>(n));
  }
  tile.streamed = streams(args, block, rows);
  // Of a tile, which is as long as all of it where no row moves.
  const int64_t most = counted ? steps : tile.streamed ? kStreamedTileSteps : kTileSteps;
  S* checkpoint = args.checkpoints;
  int64_t until_checkpoint = checkpoint == nullptr ? steps : args.checkpoint_every;
  for (int64_t t = 0; t < steps; t += tile.steps) {
    if (until_checkpoint == 0) {
      store_values<T>(checkpoint, rows.v, block);
      checkpoint += neurons(args.extent);
      until_checkpoint = args.checkpoint_every;
    }
    tile.steps = smaller(most, smaller(steps - t, until_checkpoint));
    tile.x = rows_of(args.x, block, t);
    tile.spikes = packed.wanted() ? packed.rows() : rows_of(args.spikes, block, t);
    forward_tile(args.neuron, tile, rows, n);
    packed.write(block, t, tile.steps);
    until_checkpoint -= tile.steps;
  }
  zero_rest(args.spikes, args.extent, block);
  packed.zero_rest(args.extent, block);
  if (counted) {
    from_groups<T>(rows.start, rows.count, n);
    write_counts(args, block, rows.start);
  }
  store_values<T>(args.final_state[kMembrane], rows.v, block);
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
