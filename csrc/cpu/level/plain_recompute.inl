// Backward of the plain neuron, the first half: a chunk of time steps is computed once more, in the tiles of
// forward, into rows of the second-level cache. The rows hold the membrane u, from which all else follows, or
// the surrogate derivatives at once (Kept).
#pragma once

#include "cpu/level/plain_forward.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

// The gradient that comes in at each step: a row of it, the same one at all steps (of counts), or whatever
// there is.
enum class In { rows, constant, any };

template <typename T>
In in_of(const Backward<T>& args) {
  const bool steady = is_steady(args);
  const bool moves = args.grad_spikes.data != nullptr && !steady;
  const bool counted = steady || args.grad_count.data != nullptr || args.grad_rate.data != nullptr;
  if (args.grad_trace.data != nullptr || moves == counted) {
    return In::any;
  }
  return counted ? In::constant : args.grad_spikes.uniform ? In::any : In::rows;
}

// What is kept of each step of a chunk.
enum class Kept {
  u,       // the membrane before its reset
  slopes,  // the surrogate derivative, and the membrane that entered the step where beta is learned
};

// Where a step's rows of 32 bits and more come in and go out, the walk back waits for memory, and a division
// hides in it: with u, backward from memory takes 0.63 instead of 0.68 ns a neuron-step, and 0.81 instead of
// 0.95 where beta is learned. Elsewhere it waits for its arithmetic, and a division hides in computing again,
// where each membrane waits for the one before: with slopes, backward takes 0.50 instead of 0.53 ns in
// bfloat16, and 0.56 instead of 0.63 for a constant input with counts and a learned beta.
template <typename T>
Kept kept_of(const Backward<T>& args) {
  const Shape shape = args.surrogate.shape;
  const bool enough = args.neuron.reset == Reset::subtract && args.grad_parameter[kThreshold] == nullptr &&
                      (shape == Shape::fast_sigmoid || shape == Shape::atan);
  const bool wide = std::is_same_v<T, StateOf<T>> && args.grad_x.data != nullptr && args.x.time_stride != 0;
  return enough && !(wide && in_of(args) == In::rows) ? Kept::slopes : Kept::u;
}

// Rows in and out; or a gradient that is the same at each step, where surrogate derivatives are kept.
template <typename T>
bool is_plain(const Backward<T>& args) {
  const bool plainly = is_plain(args.neuron) && !has_gain(args.parameter) && !args.x.uniform &&
                       learns_plainly(args) && args.grad_trace_before.data == nullptr &&
                       args.grad_first.data == nullptr && args.bits == nullptr &&
                       args.grad_trace_max.data == nullptr && args.grad_trace_mean.data == nullptr;
  const bool rows = in_of(args) == In::rows && args.grad_x.data != nullptr;
  return plainly && in_of(args) != In::any && (rows || kept_of(args) == Kept::slopes);
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

// `kUnit`: the scale is 1, as it mostly is.
template <Shape kShape, bool kEntered, bool kUnit, typename T, typename S = StateOf<T>>
[[gnu::noinline]] void slopes_groups(const SlopesTile<T>& given, const PlainRows<S>& given_rows, int64_t n) {
  // Copies, which the compiler knows that no store can change.
  const SlopesTile<T> tile(given);
  const PlainRows<S> rows(given_rows);
  const auto slope = splat(tile.slope);
  const auto scale = splat(tile.scale);
  with_steps(tile.steps, [&](auto steps) {
    for (int64_t i = 0; i < n; i += kGroup * kLanes<S>) {
      const auto beta = load_group(rows.beta + i);
      const auto theta = load_group(rows.theta + i);
      auto v = load_group(rows.v + i);
      const T* x = tile.x.at(0, i);
      S* slopes = tile.slopes.at(0, i);
      S* entered = tile.entered.at(0, i);
      for (int64_t j = 0; j < steps; ++j) {
        if constexpr (kEntered) {
          store_group(entered, v);
          entered += tile.entered.stride;
        }
        const Group<S> input = load_group(x);
        x += tile.x.stride;
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
  });
}

template <Shape kShape, typename T, typename S = StateOf<T>>
void slopes_groups(const SlopesTile<T>& tile, const PlainRows<S>& rows, int64_t n) {
  const bool unit = tile.scale == S(1);
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
  load_values<T>(rows.v, from, block);
  if (kept.u.data != nullptr && args.grad_parameter[kBeta] != nullptr) {
    copy_row(rows.start, rows.v, lanes_of<S>(n));
  }
  SlopesTile<T> slopes;
  slopes.slope = args.surrogate.slope;
  slopes.scale = args.surrogate.scale;
  ForwardTile<T> membranes;
  membranes.writes = Writes::u;
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

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
