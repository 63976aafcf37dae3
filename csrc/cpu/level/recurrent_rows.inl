// What both ways of a recurrent layer work on: rows of whole vectors, in which what lies behind the last
// neuron never fires and has no gradient.
#pragma once

#include "cpu/level/access.inl"
#include "cpu/level/events.inl"
#include "cpu/level/vector.inl"
#include "cpu/recurrent.h"
#include "neuron/step.h"

namespace lif::cpu::LIF_SIMD {
namespace {

// Samples that go through time together: what they carry stays in the second-level cache.
constexpr int64_t kBlockSamples = 16;

// Columns of the rows of the transposed weight: those of events.inl, block by block.
template <typename S>
int64_t sum_columns_of(int64_t neurons) {
  const int64_t blocks = neurons / kSumColumns<S>;
  const int64_t rest = neurons - blocks * kSumColumns<S>;
  return blocks * kSumColumns<S> + (rest > 0 ? padded_columns<S>(rest) : 0);
}

// The parameters of the neurons, a value each. The level is what a membrane is compared with.
template <typename S>
struct RecurrentRows {
  S *beta, *theta, *level;

  static constexpr int64_t kRows = 3;

  RecurrentRows(Workspace<S>& workspace, const RecurrentNeuron<S>& neuron, int64_t neurons)
      : beta(workspace.row()), theta(workspace.row()), level(workspace.row()) {
    fill(beta, neuron.beta, neurons, workspace.stride(), S(0));
    fill(theta, neuron.threshold, neurons, workspace.stride(), S(1));
    if (neuron.strict) {
      next_above_row(level, theta, workspace.stride());
    } else {
      copy_row(level, theta, workspace.stride());
    }
  }

  [[gnu::always_inline]] Values<Vector<S>> values(const RecurrentNeuron<S>& neuron, int64_t i) const {
    Values<Vector<S>> own{};
    own.beta = load(beta + i);
    own.theta = load(theta + i);
    own.level = load(level + i);
    own.v_reset = splat(neuron.v_reset);
    own.gain = splat(neuron.gain);
    return own;
  }

 private:
  static void fill(S* row, const Parameter<S>& parameter, int64_t neurons, int64_t whole, S beyond) {
    const bool own = parameter.values != nullptr && parameter.period > 1;
    fill_row(row, parameter.values == nullptr ? parameter.value : parameter.values[0], neurons);
    if (own) {
      copy_row(row, parameter.values, neurons);
    }
    fill_row(row + neurons, beyond, whole - neurons);
  }
};

// A row of n numbers as whole vectors: where it lies, or in `buffer`, which is 0 behind them.
template <typename T, typename S = StateOf<T>>
const S* whole_row(const T* row, S* buffer, int64_t n, int64_t whole) {
  if constexpr (std::is_same_v<T, S>) {
    if (n == whole) {
      return row;
    }
  }
  widen_row(buffer, row, n);
  return buffer;
}

template <typename S>
S* zero_row(Workspace<S>& workspace) {
  S* const row = workspace.row();
  fill_row(row, S(0), workspace.stride());
  return row;
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
