// The way back through the plain neuron.
//
// A chunk of time steps is computed once more, in the tiles of forward, into rows of the second-level cache,
// and walked back through in tiles of the same size. Where the membranes of the chunk are of no further use,
// its rows hold the surrogate derivatives at once (Kept::slopes): the division hides behind the arithmetic of
// the membrane, which waits for itself. Otherwise they hold u, and the derivatives of a strip of neurons are
// a pass of their own, so that 8 surrogates and 4 resets are 8 + 4 pieces of code.
#pragma once

#include "cpu/plain.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

// Neurons for which surrogate derivatives are computed at once.
constexpr int64_t kStrip = 64;

template <typename T>
bool is_plain(const Backward<T>& args) {
  return is_plain(args.neuron) && learns_plainly(args) && args.grad_trace_before.data == nullptr &&
         args.grad_first.data == nullptr && args.bits == nullptr;
}

// What is kept of each step of a chunk.
enum class Kept {
  u,       // the membrane before its reset, from which all else follows
  slopes,  // the surrogate derivative, and the membrane that entered the step where beta is learned
};

// The shapes that divide are the common ones. With slopes backward takes 0.58 instead of 0.73 ns a
// neuron-step where all lies in a cache, 0.77 instead of 1.14 where beta is learned, and 0.97 instead of 1.08
// from memory.
template <typename T>
Kept kept_of(const Backward<T>& args) {
  const Shape shape = args.surrogate.shape;
  const bool enough = args.neuron.reset == Reset::subtract && args.grad_parameter[kThreshold] == nullptr;
  return enough && (shape == Shape::fast_sigmoid || shape == Shape::atan) && !args.x.uniform ? Kept::slopes
                                                                                             : Kept::u;
}

template <typename T>
bool keeps_entered(const Backward<T>& args) {
  return kept_of(args) == Kept::slopes && args.grad_parameter[kBeta] != nullptr;
}

// The rows of a chunk, and room for them.
template <typename S>
struct KeptRows {
  Rows<S> u, slopes, entered;

  static int64_t count(int64_t chunk, bool entered) { return entered ? 2 * chunk : chunk; }

  KeptRows(Workspace<S>& workspace, int64_t chunk, Kept kept, bool keeps_entered) {
    const auto rows = [&] { return Rows<S>{workspace.rows(chunk), workspace.stride(), false}; };
    (kept == Kept::u ? u : slopes) = rows();
    if (keeps_entered) {
      entered = rows();
    }
  }
};

// Computing again.

template <typename T, typename S = StateOf<T>>
struct SlopesTile {
  int64_t steps = 0;
  Rows<const T> x;
  Rows<S> slopes, entered;
  S slope, scale;  // of the surrogate
};

// `kUnit`: gain and scale are 1, as they mostly are.
template <Shape kShape, bool kEntered, bool kUnit, typename T, typename S = StateOf<T>>
[[gnu::noinline]] void slopes_groups(const SlopesTile<T>& given, const PlainRows<S>& given_rows, int64_t n) {
  // Copies, which the compiler knows that no store can change.
  const SlopesTile<T> tile(given);
  const PlainRows<S> rows(given_rows);
  const auto slope = splat(tile.slope);
  const auto scale = splat(tile.scale);
  for (int64_t i = 0; i < n; i += kGroup * kLanes<S>) {
    const auto beta = load_group(rows.beta + i);
    const auto theta = load_group(rows.theta + i);
    auto v = load_group(rows.v + i);
    const T* x = tile.x.at(0, i);
    S* slopes = tile.slopes.at(0, i);
    S* entered = tile.entered.at(0, i);
    for (int64_t j = 0; j < tile.steps; ++j) {
      if constexpr (kEntered) {
        store_group(entered, v);
        entered += tile.entered.stride;
      }
      Group<S> input = load_group(x);
      x += tile.x.stride;
      if (!kUnit && rows.has_gain) {
        input = each(load_group(rows.gain + i), input, [](auto g, auto in) { return mul(g, in); });
      }
      // Two loops: of one, the compiler kept v in memory.
      Group<S> u, h;
      for (int64_t k = 0; k < kGroup; ++k) {
        u.at[k] = integrate(beta.at[k], v.at[k], input.at[k]);
        v.at[k] = reset_subtract(u.at[k], theta.at[k], fire(u.at[k], theta.at[k], false));
      }
      for (int64_t k = 0; k < kGroup; ++k) {
        const auto z = sub(u.at[k], theta.at[k]);
        h.at[k] = kShape == Shape::atan ? atan_shape(z, slope) : fast_sigmoid(z, slope);
        if constexpr (!kUnit) {
          h.at[k] = mul(scale, h.at[k]);
        }
      }
      store_group(slopes, h);
      slopes += tile.slopes.stride;
    }
    store_group(rows.v + i, v);
  }
}

template <Shape kShape, typename T, typename S = StateOf<T>>
void slopes_groups(const SlopesTile<T>& tile, const PlainRows<S>& rows, int64_t n) {
  const bool unit = !rows.has_gain && tile.scale == S(1);
  if (tile.entered.data != nullptr) {
    unit ? slopes_groups<kShape, true, true>(tile, rows, n)
         : slopes_groups<kShape, true, false>(tile, rows, n);
  } else {
    unit ? slopes_groups<kShape, false, true>(tile, rows, n)
         : slopes_groups<kShape, false, false>(tile, rows, n);
  }
}

template <typename T, typename S = StateOf<T>>
void slopes_groups(Shape shape, const SlopesTile<T>& tile, const PlainRows<S>& rows, int64_t n) {
  shape == Shape::atan ? slopes_groups<Shape::atan>(tile, rows, n)
                       : slopes_groups<Shape::fast_sigmoid>(tile, rows, n);
}

template <typename T, typename S = StateOf<T>>
void slopes_tile(Shape shape, const SlopesTile<T>& tile, const PlainRows<S>& rows, int64_t n) {
  constexpr int64_t kWidth = kGroup * kLanes<S>;
  const int64_t whole = n / kWidth * kWidth;
  slopes_groups(shape, tile, rows, whole);
  if (whole < n) {
    Tail<T> x;
    SlopesTile<T> rest(tile);
    rest.x = x.read(tile.x, tile.steps, whole, n - whole);
    rest.slopes = beyond(tile.slopes, whole);
    rest.entered = beyond(tile.entered, whole);
    slopes_groups(shape, rest, rows.from(whole), kWidth);
  }
}

// The steps [first, last) of a chunk.
template <typename T, typename S = StateOf<T>>
void recompute_chunk(const Backward<T>& args, const Block& block, const PlainRows<S>& rows, int64_t chunk,
                     int64_t first, int64_t last, const KeptRows<S>& kept) {
  const int64_t n = block.size;
  const S* from = chunk == 0 ? args.state[kMembrane] : args.checkpoints + (chunk - 1) * neurons(args.extent);
  load_or_zero(rows.v, from == nullptr ? nullptr : from + block.neuron, n);
  if (kept.u.data != nullptr && args.grad_parameter[kBeta] != nullptr) {
    copy_row(rows.start, rows.v, n);
  }
  SlopesTile<T> slopes;
  slopes.slope = args.surrogate.slope;
  slopes.scale = args.surrogate.scale;
  ForwardTile<T> membranes;
  for (int64_t t = first; t < last; t += kTileSteps) {
    const int64_t steps = smaller(kTileSteps, last - t);
    const Rows<const T> x = rows_of(args.x, block, t);
    if (kept.u.data == nullptr) {
      slopes.steps = steps;
      slopes.x = x;
      slopes.slopes = later(kept.slopes, t - first);
      slopes.entered = later(kept.entered, t - first);
      slopes_tile(args.surrogate.shape, slopes, rows, n);
    } else {
      membranes.steps = steps;
      membranes.x = x;
      membranes.u = later(kept.u, t - first);
      forward_tile(args.neuron, membranes, rows, n);
    }
  }
}

// Going back.

template <typename T, typename S = StateOf<T>>
struct BackwardTile {
  int64_t steps = 0;
  Rows<const T> g, grad_trace;
  Rows<T> grad_x;
  Rows<const S> u, slopes, entered;  // of the tile's steps
  bool first = false;    // the step before the tile's first is not in the chunk: its v is in rows.start
  bool counted = false;  // rows.constant is part of every g
  bool by_beta = false;
  bool by_theta = false;
};

// The gradient that comes in at each step: a row of it, the same one at all steps (of counts), or whatever
// there is. The common cases are compiled for themselves, as in forward: with slopes kept all, with u those
// of rows in and rows out.
enum class In { rows, constant, any };

template <typename T>
In in_of(const BackwardTile<T>& tile) {
  if (tile.grad_trace.data != nullptr) {
    return In::any;
  }
  if (tile.g.data != nullptr) {
    return tile.counted || tile.g.uniform ? In::any : In::rows;
  }
  return tile.counted ? In::constant : In::any;
}

// `kSum`: x is constant, and its gradient is summed; otherwise there is a row of it for each step.
// `slopes`: the surrogate derivatives, from the group's first neuron on.
template <Kept kKept, Reset kReset, bool kDetached, In kIn, bool kSum, bool kLearning, typename T,
          typename S = StateOf<T>>
[[gnu::always_inline]] inline void backward_group(const BackwardTile<T>& tile, const PlainRows<S>& rows,
                                                  const Rows<const S>& slopes, int64_t i) {
  constexpr bool kByTheta = kLearning && kKept == Kept::u;
  constexpr bool kSpikes = kReset == Reset::zero || kByTheta;
  const auto beta = load_group(rows.beta + i);
  const auto theta = load_group(rows.theta + i);
  const auto v_reset = load_group(rows.v_reset + i);
  auto a = load_group(rows.a + i);
  Group<S> constant{}, sum, grad_beta, grad_theta;
  if (kIn != In::rows && tile.counted) {
    constant = load_group(rows.constant + i);
  }
  if constexpr (kSum) {
    sum = load_group(rows.grad_x + i);
  }
  if constexpr (kLearning) {
    grad_beta = load_group(rows.grad_beta + i);
  }
  if constexpr (kByTheta) {
    grad_theta = load_group(rows.grad_theta + i);
  }
  const auto plus = [](auto one, auto other) { return add(one, other); };
  for (int64_t j = tile.steps - 1; j >= 0; --j) {
    Group<S> g = constant;
    if constexpr (kIn == In::rows) {
      g = load_group(tile.g.at(j, i));
    } else if (kIn == In::any && tile.g.data != nullptr) {
      g = load_group(tile.g, j, i);
      if (tile.counted) {
        g = each(g, constant, plus);
      }
    }
    if (kIn == In::any && tile.grad_trace.data != nullptr) {
      a = each(a, load_group(tile.grad_trace, j, i), plus);
    }
    Group<S> u{}, s{}, d;
    if constexpr (kSpikes) {
      u = load_group(tile.u.at(j, i));
    }
    const auto slope = load_group(slopes.at(j, 0));
    for (int64_t k = 0; k < kGroup; ++k) {
      if constexpr (kSpikes) {
        s.at[k] = fire(u.at[k], theta.at[k], false);
      }
      const auto e = reach_spike(kReset, kDetached, g.at[k], u.at[k], theta.at[k], v_reset.at[k], a.at[k]);
      const auto through = mul(e, slope.at[k]);
      d.at[k] = add(keep(kReset, a.at[k], s.at[k]), through);
      if constexpr (kByTheta) {
        grad_theta.at[k] = add(grad_theta.at[k], threshold_gradient(kReset, through, a.at[k], s.at[k]));
      }
      a.at[k] = mul(beta.at[k], d.at[k]);
    }
    if (kLearning && (kKept == Kept::slopes || tile.by_beta)) {
      Group<S> v;
      if constexpr (kKept == Kept::slopes) {
        v = load_group(tile.entered.at(j, i));
      } else if (j > 0 || !tile.first) {
        const auto before = load_group(tile.u.at(j - 1, i));
        for (int64_t k = 0; k < kGroup; ++k) {
          const auto spike = fire(before.at[k], theta.at[k], false);
          v.at[k] = reset(kReset, before.at[k], theta.at[k], v_reset.at[k], spike);
        }
      } else {
        v = load_group(rows.start + i);
      }
      for (int64_t k = 0; k < kGroup; ++k) {
        grad_beta.at[k] = add(grad_beta.at[k], mul(d.at[k], v.at[k]));
      }
    }
    if (rows.has_gain) {
      d = each(load_group(rows.gain + i), d, [](auto gain, auto gradient) { return mul(gain, gradient); });
    }
    if constexpr (kSum) {
      sum = each(sum, d, plus);
    } else {
      store_group(tile.grad_x.at(j, i), d);
    }
  }
  store_group(rows.a + i, a);
  if constexpr (kSum) {
    store_group(rows.grad_x + i, sum);
  }
  if constexpr (kLearning) {
    store_group(rows.grad_beta + i, grad_beta);
  }
  if constexpr (kByTheta) {
    store_group(rows.grad_theta + i, grad_theta);
  }
}

template <Kept kKept, Reset kReset, bool kDetached, In kIn, bool kSum, bool kLearning, typename T,
          typename S = StateOf<T>>
[[gnu::noinline]] void backward_groups(const BackwardTile<T>& given, const PlainRows<S>& given_rows,
                                       const Surrogate<S>& surrogate, int64_t n) {
  // Copies, which the compiler knows that no store can change.
  const BackwardTile<T> tile(given);
  const PlainRows<S> rows(given_rows);
  constexpr int64_t kWidth = kGroup * kLanes<S>;
  if constexpr (kKept == Kept::slopes) {
    for (int64_t i = 0; i < n; i += kWidth) {
      backward_group<kKept, kReset, kDetached, kIn, kSum, kLearning>(tile, rows, beyond(tile.slopes, i), i);
    }
  } else {
    alignas(64) S h[kTileSteps * kStrip];
    for (int64_t strip = 0; strip < n; strip += kStrip) {
      const int64_t end = smaller(strip + kStrip, n);
      surrogate_rows(h, kStrip, tile.u.at(0, strip), tile.u.stride, rows.theta + strip, surrogate, tile.steps,
                     end - strip);
      for (int64_t i = strip; i < end; i += kWidth) {
        backward_group<kKept, kReset, kDetached, kIn, kSum, kLearning>(tile, rows,
                                                                       {h + i - strip, kStrip, false}, i);
      }
    }
  }
}

template <Reset kReset, bool kDetached, In kIn, typename T, typename S = StateOf<T>>
void with_slopes(const BackwardTile<T>& tile, const PlainRows<S>& rows, const Surrogate<S>& surrogate,
                 int64_t n) {
  constexpr Kept kKept = Kept::slopes;
  if (tile.grad_x.data == nullptr) {
    tile.by_beta ? backward_groups<kKept, kReset, kDetached, kIn, true, true>(tile, rows, surrogate, n)
                 : backward_groups<kKept, kReset, kDetached, kIn, true, false>(tile, rows, surrogate, n);
  } else {
    tile.by_beta ? backward_groups<kKept, kReset, kDetached, kIn, false, true>(tile, rows, surrogate, n)
                 : backward_groups<kKept, kReset, kDetached, kIn, false, false>(tile, rows, surrogate, n);
  }
}

template <Kept kKept, Reset kReset, bool kDetached, typename T, typename S = StateOf<T>>
void backward_groups(const BackwardTile<T>& tile, const PlainRows<S>& rows, const Surrogate<S>& surrogate,
                     int64_t n) {
  const In in = in_of(tile);
  const bool sum = tile.grad_x.data == nullptr;
  const bool learning = tile.by_beta || tile.by_theta;
  if constexpr (kKept == Kept::slopes) {
    in == In::rows       ? with_slopes<kReset, kDetached, In::rows>(tile, rows, surrogate, n)
    : in == In::constant ? with_slopes<kReset, kDetached, In::constant>(tile, rows, surrogate, n)
                         : with_slopes<kReset, kDetached, In::any>(tile, rows, surrogate, n);
  } else if (in == In::rows && !sum) {
    learning ? backward_groups<kKept, kReset, kDetached, In::rows, false, true>(tile, rows, surrogate, n)
             : backward_groups<kKept, kReset, kDetached, In::rows, false, false>(tile, rows, surrogate, n);
  } else {
    sum ? backward_groups<kKept, kReset, kDetached, In::any, true, true>(tile, rows, surrogate, n)
        : backward_groups<kKept, kReset, kDetached, In::any, false, true>(tile, rows, surrogate, n);
  }
}

template <Kept kKept, Reset kReset, typename T, typename S = StateOf<T>>
void backward_groups(const Neuron<S>& neuron, const BackwardTile<T>& tile, const PlainRows<S>& rows,
                     const Surrogate<S>& surrogate, int64_t n) {
  neuron.detach_reset ? backward_groups<kKept, kReset, true>(tile, rows, surrogate, n)
                      : backward_groups<kKept, kReset, false>(tile, rows, surrogate, n);
}

template <typename T, typename S = StateOf<T>>
void backward_groups(const Neuron<S>& neuron, const BackwardTile<T>& tile, const PlainRows<S>& rows,
                     const Surrogate<S>& surrogate, int64_t n) {
  if (tile.slopes.data != nullptr) {
    backward_groups<Kept::slopes, Reset::subtract>(neuron, tile, rows, surrogate, n);
  } else if (neuron.reset == Reset::subtract) {
    backward_groups<Kept::u, Reset::subtract>(neuron, tile, rows, surrogate, n);
  } else {
    backward_groups<Kept::u, Reset::zero>(neuron, tile, rows, surrogate, n);
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
    rest.u = beyond(tile.u, whole);
    rest.slopes = beyond(tile.slopes, whole);
    rest.entered = beyond(tile.entered, whole);
    backward_groups(neuron, rest, rows.from(whole), surrogate, kWidth);
    grad_x.write(tile.grad_x, tile.steps, whole, n - whole);
  }
}

template <typename T, typename S = StateOf<T>>
void backward_task(const Backward<T>& args, const Block& block, PlainRows<S>& rows, const KeptRows<S>& kept) {
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
  const auto read = [](const Rows<S>& rows) { return Rows<const S>{rows.data, rows.stride, false}; };
  for (int64_t chunk = (steps + args.chunk - 1) / args.chunk - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * args.chunk;
    const int64_t end = smaller(begin + args.chunk, steps);
    recompute_chunk(args, block, rows, chunk, begin, end, kept);
    for (int64_t last = end; last > begin; last -= tile.steps) {
      tile.steps = smaller(kTileSteps, last - begin);
      const int64_t t = last - tile.steps;
      tile.g = rows_of(args.grad_spikes, block, t);
      tile.grad_trace = rows_of(args.grad_trace, block, t);
      tile.grad_x = rows_of(args.grad_x, block, t);
      tile.u = read(later(kept.u, t - begin));
      tile.slopes = read(later(kept.slopes, t - begin));
      tile.entered = read(later(kept.entered, t - begin));
      tile.first = t == begin;
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
