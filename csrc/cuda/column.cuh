// What a thread keeps of a chunk of steps between computing them again and going back: its own column of
// shared memory. The columns of a warp are neighbours in each row, so there are no bank conflicts, and
// nothing to synchronise. An array over the chunk in registers would spill.
#pragma once

#include "cuda/access.cuh"
#include "neuron/surrogate.h"

namespace lif::cuda {

// Where the surrogate derivatives come from: a pass of its own (slopes.cuh), which leaves them in the column;
// or, where u is read on the way back anyhow, from u there, for the two shapes that divide 1: a kernel each.
enum class Slopes : int { pass, fast_sigmoid, atan };

// The rows of a step that a way back of this kind reads. With slopes from a pass the first holds h; where u
// is not read any more once h is known, it lies there before.
template <typename Kind, bool kLearn, Slopes kSlopes>
struct Kept {
  static constexpr bool h = kSlopes == Slopes::pass;
  // Whether the membrane before a step is asked for: where beta learns, and for a delayed reset to a value.
  static constexpr bool v = kLearn || (Kind::delayed && Kind::reset == Reset::zero);
  // Spikes are compared for again, and a reset to a value that is not detached asks for u itself.
  static constexpr bool u = v || Kind::reset == Reset::zero || Kind::adaptive;
  static constexpr bool i = Kind::synapse && kLearn;
  static constexpr bool b = Kind::adaptive;
  static constexpr bool q = Kind::refractory;

  static constexpr int h_row = 0;
  static constexpr int u_row = h && u ? 1 : 0;
  static constexpr int i_row = u_row + i;
  static constexpr int b_row = i_row + b;
  static constexpr int q_row = b_row + q;
  static constexpr int rows = q_row + 1;
};

// A step of a thread's column; the next one lies a block's rows further on.
template <typename S, int W, int kRows, int kThreads>
struct Column {
  Pack<S, W>* own;
};

template <typename S, int W, int kRows, int kThreads>
LIF_FN Pack<S, W>& at(const Column<S, W, kRows, kThreads>& column, int row) {
  return column.own[row * kThreads];
}

template <typename S, int W, int kRows, int kThreads>
LIF_FN Column<S, W, kRows, kThreads> moved(const Column<S, W, kRows, kThreads>& column, int steps) {
  return {column.own + steps * (kRows * kThreads)};
}

}  // namespace lif::cuda
