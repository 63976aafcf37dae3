// Backward of the plain neuron, the second half: back through a chunk that plain_recompute.inl has left in
// rows, in tiles of the same size.
//
// The derivatives of the shapes that divide, which are the common ones, are computed where the division hides
// best; those of all others for a strip of neurons in a pass of their own (slopes.inl).
#pragma once

#include "cpu/level/plain_recompute.inl"
#include "cpu/level/slopes.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

// Neurons for which surrogate derivatives are computed at once.
constexpr int64_t kStrip = 256;

template <typename T, typename S = StateOf<T>>
struct BackwardTile {
  int64_t steps = 0;
  Rows<const T> g;
  Rows<T> grad_x;
  Rows<const S> u, slopes, entered;  // of the tile's steps
  bool first = false;  // the step before the tile's first is not in the chunk: its v is in rows.start
  In in = In::rows;
  bool by_beta = false;
  bool by_theta = false;
};

// The parameters that learn.
enum class Learn { none, beta, any };

// Where the surrogate derivatives come from: the rows of the chunk; or, of a shape that divides and has a
// scale of 1, from u where they are needed; or from u in strips.
enum class Slopes { kept, fast_sigmoid, atan, strips };

template <typename S>
Slopes slopes_of(const Surrogate<S>& surrogate) {
  const bool unit = surrogate.scale == S(1);
  return unit && surrogate.shape == Shape::fast_sigmoid ? Slopes::fast_sigmoid
         : unit && surrogate.shape == Shape::atan       ? Slopes::atan
                                                        : Slopes::strips;
}

template <typename S>
[[gnu::always_inline]] inline Group<S> fire_group(const Group<S>& u, const Group<S>& theta) {
  return each(u, theta, [](auto membrane, auto threshold) { return fire(membrane, threshold, false); });
}

// `kSum`: x is constant, and its gradient is summed; otherwise there is a row of it for each step.
// `slopes`: the rows of surrogate derivatives, if there are any, from the group's first neuron on.
template <Slopes kSlopes, Reset kReset, bool kDetached, In kIn, bool kSum, Learn kLearn, typename T,
          typename Steps, typename S = StateOf<T>>
[[gnu::always_inline]] inline void backward_group(const BackwardTile<T>& tile, const PlainRows<S>& rows,
                                                  const Surrogate<S>& surrogate, const Rows<const S>& slopes,
                                                  Steps steps, int64_t i) {
  constexpr bool kByBeta = kLearn != Learn::none;
  constexpr bool kByTheta = kLearn == Learn::any;
  constexpr bool kInRows = kSlopes == Slopes::kept || kSlopes == Slopes::strips;
  constexpr bool kSpikes = kReset == Reset::zero || kByTheta;
  const auto beta = load_group(rows.beta + i);
  const auto theta = load_group(rows.theta + i);
  const auto v_reset = load_group(rows.v_reset + i);
  auto a = load_group(rows.a + i);
  Group<S> constant{}, sum, grad_beta, grad_theta;
  if constexpr (kIn == In::constant) {
    constant = load_group(rows.constant + i);
  }
  if constexpr (kSum) {
    sum = load_group(rows.grad_x + i);
  }
  if constexpr (kByBeta) {
    grad_beta = load_group(rows.grad_beta + i);
  }
  if constexpr (kByTheta) {
    grad_theta = load_group(rows.grad_theta + i);
  }
  for (int64_t j = steps - 1; j >= 0; --j) {
    const Group<S> g = kIn == In::rows ? load_group(tile.g.at(j, i)) : constant;
    Group<S> u{}, s{}, slope, d;
    if constexpr (!kInRows || kSpikes) {
      u = load_group(tile.u.at(j, i));
    }
    if constexpr (kSpikes) {
      s = fire_group(u, theta);
    }
    if constexpr (kInRows) {
      slope = load_group(slopes.at(j, 0));
    } else {
      const auto steepness = splat(surrogate.slope);
      slope = each(u, theta, [&](auto membrane, auto threshold) {
        const auto z = sub(membrane, threshold);
        return kSlopes == Slopes::atan ? atan_shape(z, steepness) : fast_sigmoid(z, steepness);
      });
    }
    for (int64_t k = 0; k < kGroup; ++k) {
      const auto e = reach_spike(kReset, kDetached, g.at[k], u.at[k], theta.at[k], v_reset.at[k], a.at[k]);
      const auto through = mul(e, slope.at[k]);
      d.at[k] = add(keep(kReset, a.at[k], s.at[k]), through);
      if constexpr (kByTheta) {
        grad_theta.at[k] = add(grad_theta.at[k], threshold_gradient(kReset, through, a.at[k], s.at[k]));
      }
      a.at[k] = mul(beta.at[k], d.at[k]);
    }
    if (kLearn == Learn::beta || (kLearn == Learn::any && tile.by_beta)) {
      Group<S> v;
      if constexpr (kSlopes == Slopes::kept) {
        v = load_group(tile.entered.at(j, i));
      } else if (j > 0 || !tile.first) {
        const auto before = load_group(tile.u.at(j - 1, i));
        const auto spikes = fire_group(before, theta);
        for (int64_t k = 0; k < kGroup; ++k) {
          v.at[k] = reset(kReset, before.at[k], theta.at[k], v_reset.at[k], spikes.at[k]);
        }
      } else {
        v = load_group(rows.start + i);
      }
      for (int64_t k = 0; k < kGroup; ++k) {
        grad_beta.at[k] = add(grad_beta.at[k], mul(d.at[k], v.at[k]));
      }
    }
    if constexpr (kSum) {
      sum = each(sum, d, [](auto one, auto other) { return add(one, other); });
    } else {
      store_group(tile.grad_x.at(j, i), d);
    }
  }
  store_group(rows.a + i, a);
  if constexpr (kSum) {
    store_group(rows.grad_x + i, sum);
  }
  if constexpr (kByBeta) {
    store_group(rows.grad_beta + i, grad_beta);
  }
  if constexpr (kByTheta) {
    store_group(rows.grad_theta + i, grad_theta);
  }
}

template <Slopes kSlopes, Reset kReset, bool kDetached, In kIn, bool kSum, Learn kLearn, typename T,
          typename S = StateOf<T>>
[[gnu::noinline]] void backward_groups(const BackwardTile<T>& given_tile, const PlainRows<S>& given_rows,
                                       const Surrogate<S>& given_surrogate, int64_t n) {
  // Copies, which the compiler knows that no store can change.
  const BackwardTile<T> tile(given_tile);
  const PlainRows<S> rows(given_rows);
  const Surrogate<S> surrogate(given_surrogate);
  constexpr int64_t kWidth = kGroup * kLanes<S>;
  if constexpr (kSlopes == Slopes::strips) {
    alignas(64) S h[kTileSteps * kStrip];
    for (int64_t strip = 0; strip < n; strip += kStrip) {
      const int64_t end = smaller(strip + kStrip, n);
      SlopesStrip<S> slopes_of_strip;
      slopes_of_strip.steps = tile.steps;
      slopes_of_strip.u = beyond(tile.u, strip);
      slopes_of_strip.h = {h, kStrip, false};
      slopes_of_strip.theta = rows.theta + strip;
      slopes_of_strip.read = Ahead(beyond(tile.g, strip));
      slopes_of_strip.written = Ahead(beyond(tile.grad_x, strip));
      write_slopes(slopes_of_strip, surrogate, end - strip);
      for (int64_t i = strip; i < end; i += kWidth) {
        const Rows<const S> slopes{h + i - strip, kStrip, false};
        backward_group<kSlopes, kReset, kDetached, kIn, kSum, kLearn>(tile, rows, surrogate, slopes,
                                                                      tile.steps, i);
      }
    }
  } else {
    with_steps(tile.steps, [&](auto steps) {
      for (int64_t i = 0; i < n; i += kWidth) {
        const Rows<const S> slopes = beyond(tile.slopes, i);
        backward_group<kSlopes, kReset, kDetached, kIn, kSum, kLearn>(tile, rows, surrogate, slopes, steps,
                                                                      i);
      }
    });
  }
}

// The common cases are compiled for themselves: a question asked at each step of each vector costs as much as
// its arithmetic.

template <bool kDetached, In kIn, typename T, typename S = StateOf<T>>
void from_slopes(const BackwardTile<T>& tile, const PlainRows<S>& rows, const Surrogate<S>& surrogate,
                 int64_t n) {
  constexpr Slopes kKept = Slopes::kept;
  constexpr Reset kReset = Reset::subtract;
  if (tile.grad_x.data == nullptr) {
    tile.by_beta
        ? backward_groups<kKept, kReset, kDetached, kIn, true, Learn::beta>(tile, rows, surrogate, n)
        : backward_groups<kKept, kReset, kDetached, kIn, true, Learn::none>(tile, rows, surrogate, n);
  } else {
    tile.by_beta
        ? backward_groups<kKept, kReset, kDetached, kIn, false, Learn::beta>(tile, rows, surrogate, n)
        : backward_groups<kKept, kReset, kDetached, kIn, false, Learn::none>(tile, rows, surrogate, n);
  }
}

// Rows in and rows out.
template <Slopes kSlopes, Reset kReset, bool kDetached, typename T, typename S = StateOf<T>>
void from_membranes(const BackwardTile<T>& tile, const PlainRows<S>& rows, const Surrogate<S>& surrogate,
                    int64_t n) {
  constexpr In kRows = In::rows;
  // That of most networks, without the sums of the threshold.
  constexpr bool kCommon = kSlopes == Slopes::fast_sigmoid && kReset == Reset::subtract;
  constexpr Learn kBeta = kCommon ? Learn::beta : Learn::any;
  if (tile.by_theta) {
    return backward_groups<kSlopes, kReset, kDetached, kRows, false, Learn::any>(tile, rows, surrogate, n);
  }
  if (tile.by_beta) {
    return backward_groups<kSlopes, kReset, kDetached, kRows, false, kBeta>(tile, rows, surrogate, n);
  }
  backward_groups<kSlopes, kReset, kDetached, kRows, false, Learn::none>(tile, rows, surrogate, n);
}

template <Reset kReset, bool kDetached, typename T, typename S = StateOf<T>>
void backward_groups(const BackwardTile<T>& tile, const PlainRows<S>& rows, const Surrogate<S>& surrogate,
                     int64_t n) {
  if constexpr (kReset == Reset::subtract) {
    if (tile.slopes.data != nullptr) {
      return tile.in == In::rows ? from_slopes<kDetached, In::rows>(tile, rows, surrogate, n)
                                 : from_slopes<kDetached, In::constant>(tile, rows, surrogate, n);
    }
  }
  switch (slopes_of(surrogate)) {
    case Slopes::fast_sigmoid:
      return from_membranes<Slopes::fast_sigmoid, kReset, kDetached>(tile, rows, surrogate, n);
    case Slopes::atan:
      return from_membranes<Slopes::atan, kReset, kDetached>(tile, rows, surrogate, n);
    case Slopes::kept:
    case Slopes::strips:
      return from_membranes<Slopes::strips, kReset, kDetached>(tile, rows, surrogate, n);
  }
}

template <Reset kReset, typename T, typename S = StateOf<T>>
void backward_groups(const Neuron<S>& neuron, const BackwardTile<T>& tile, const PlainRows<S>& rows,
                     const Surrogate<S>& surrogate, int64_t n) {
  neuron.detach_reset ? backward_groups<kReset, true>(tile, rows, surrogate, n)
                      : backward_groups<kReset, false>(tile, rows, surrogate, n);
}

template <typename T, typename S = StateOf<T>>
void backward_groups(const Neuron<S>& neuron, const BackwardTile<T>& tile, const PlainRows<S>& rows,
                     const Surrogate<S>& surrogate, int64_t n) {
  neuron.reset == Reset::subtract ? backward_groups<Reset::subtract>(neuron, tile, rows, surrogate, n)
                                  : backward_groups<Reset::zero>(neuron, tile, rows, surrogate, n);
}

template <typename T, typename S = StateOf<T>>
void backward_tile(const Neuron<S>& neuron, const BackwardTile<T>& tile, const PlainRows<S>& rows,
                   const Surrogate<S>& surrogate, int64_t n) {
  constexpr int64_t kWidth = kGroup * kLanes<S>;
  const int64_t whole = n / kWidth * kWidth;
  backward_groups(neuron, tile, rows, surrogate, whole);
  if (whole < n) {
    Tail<T> g, grad_x;
    BackwardTile<T> rest(tile);
    rest.g = g.read(tile.g, tile.steps, whole, n - whole);
    rest.grad_x = tile.grad_x.data == nullptr ? Rows<T>{} : grad_x.rows();
    rest.u = beyond(tile.u, whole);
    rest.slopes = beyond(tile.slopes, whole);
    rest.entered = beyond(tile.entered, whole);
    backward_groups(neuron, rest, rows.from(whole), surrogate, kWidth);
    grad_x.write(tile.grad_x, tile.steps, whole, n - whole);
  }
}

template <typename T, typename S = StateOf<T>>
void plain_backward_task(const Backward<T>& args, const Block& block, PlainRows<S>& rows,
                         const KeptRows<S>& kept) {
  const int64_t n = block.size;
  const int64_t steps = block.steps;
  rows.template load<T>(args.parameter, block);
  load_values<T>(rows.a, args.grad_final[kMembrane], block);
  const auto begin_sum = [&](bool asked, S* sum) {
    if (asked) {
      fill_row(sum, S(0), lanes_of<S>(n));
    }
  };
  begin_sum(args.grad_x_sum != nullptr, rows.grad_x);
  begin_sum(args.grad_parameter[kBeta] != nullptr, rows.grad_beta);
  begin_sum(args.grad_parameter[kThreshold] != nullptr, rows.grad_theta);
  const bool steady = is_steady(args);
  const Series<const T> none;
  const Series<const T> moving = steady ? none : args.grad_spikes;
  const S* constant = constant_gradient(args, steady ? args.grad_spikes : none, block, rows.start, rows.v);
  if (constant != nullptr) {
    to_groups<T>(rows.constant, constant, n);
  }
  BackwardTile<T> tile;
  tile.in = in_of(args);
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
      tile.g = rows_of(moving, block, t);
      tile.grad_x = rows_of(args.grad_x, block, t);
      tile.u = read(later(kept.u, t - begin));
      tile.slopes = read(later(kept.slopes, t - begin));
      tile.entered = read(later(kept.entered, t - begin));
      tile.first = t == begin;
      backward_tile(args.neuron, tile, rows, args.surrogate, n);
    }
  }
  zero_rest(args.grad_x, args.extent, block);
  if (args.grad_x_sum != nullptr) {
    from_groups<T>(rows.start, rows.grad_x, n);
    narrow_row<T>(args.grad_x_sum + block.neuron, rows.start, n);
  }
  store_values<T>(args.grad_state[kMembrane], rows.a, block);
  store_values<T>(args.grad_parameter[kBeta], rows.grad_beta, block);
  store_values<T>(args.grad_parameter[kThreshold], rows.grad_theta, block);
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
