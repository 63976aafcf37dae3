// The gradients of a recurrent layer's weight and bias, in one pass over all steps: for each spike, the
// gradient of the step after it is added. So the cost is that of the spikes, as in forward.
//
// A task is a few columns of neurons that are reached, whose sums stay in registers, and half a word of
// neurons that fired. The rows, a step of a sample each, come in blocks that stay in the second-level cache;
// each block has sums of its own, which are added up: the order depends on nothing but the sizes.
#pragma once

#include "cpu/level/recurrent_rows.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

constexpr int64_t kFiringNeurons = kSpikesOfWord / 2;
constexpr int64_t kBlockWords = 8;
constexpr int64_t kBlockRows = kBlockWords * kSpikesOfWord;

// Rows of 64 bits become columns: bit j of word i and bit i of word j change places.
inline void transpose_bits(uint64_t* rows) {
  uint64_t mask = 0x00000000ffffffffu;
  for (int64_t half = kSpikesOfWord / 2; half != 0; half /= 2, mask ^= mask << half) {
    for (int64_t i = 0; i < kSpikesOfWord; i = (i + half + 1) & ~half) {
      const uint64_t moved = ((rows[i] >> half) ^ rows[i + half]) & mask;
      rows[i] ^= moved << half;
      rows[i + half] ^= moved;
    }
  }
}

// The spikes of the neurons of a task in a block of rows: a bit for each row.
struct BlockOfSpikes {
  uint64_t words[kFiringNeurons][kBlockWords];

  template <typename S>
  void load(const RecurrentWeights<S>& args, int64_t first_row, int64_t first_neuron) {
    const int64_t word = first_neuron / kSpikesOfWord;
    const int64_t half = first_neuron % kSpikesOfWord;
    uint64_t bits[kSpikesOfWord];
    for (int64_t w = 0; w < kBlockWords; ++w) {
      for (int64_t i = 0; i < kSpikesOfWord; ++i) {
        const int64_t row = first_row + w * kSpikesOfWord + i;
        bits[i] = row < args.rows ? args.fired_before[row * args.words + word] : 0;
      }
      transpose_bits(bits);
      for (int64_t i = 0; i < kFiringNeurons; ++i) {
        words[i][w] = bits[half + i];
      }
    }
  }
};

template <int64_t kVectors, typename S>
[[gnu::noinline]] void sum_weights(const RecurrentWeights<S>& given, int64_t column, int64_t neuron) {
  const RecurrentWeights<S> args(given);
  constexpr int64_t kColumns = kVectors * kLanes<S>;
  alignas(64) S total[kFiringNeurons][kColumns] = {};
  BlockOfSpikes spikes;
  for (int64_t row = 0; row < args.rows; row += kBlockRows) {
    spikes.load(args, row, neuron);
    const S* const block = args.grad_input + row * args.stride + column;
    for (int64_t i = 0; i < kFiringNeurons; ++i) {
      Vector<S> sums[kVectors] = {};
      add_rows<kVectors>(sums, spikes.words[i], kBlockWords, block, args.stride);
      for (int64_t k = 0; k < kVectors; ++k) {
        S* const to = total[i] + k * kLanes<S>;
        store(to, add(load(to), sums[k]));
      }
    }
  }
  const int64_t fired = smaller(kFiringNeurons, args.neurons - neuron);
  for (int64_t j = 0; j < smaller(kColumns, args.neurons - column); ++j) {
    for (int64_t i = 0; i < fired; ++i) {
      args.grad_weight[(column + j) * args.neurons + neuron + i] = total[i][j];
    }
  }
}

template <int64_t kVectors, typename S>
[[gnu::noinline]] void sum_biases(const RecurrentWeights<S>& given, int64_t column) {
  const RecurrentWeights<S> args(given);
  constexpr int64_t kColumns = kVectors * kLanes<S>;
  Vector<S> total[kVectors] = {};
  for (int64_t row = 0; row < args.rows; row += kBlockRows) {
    Vector<S> sums[kVectors] = {};
    for (int64_t r = row; r < smaller(row + kBlockRows, args.rows); ++r) {
      for (int64_t k = 0; k < kVectors; ++k) {
        sums[k] = add(sums[k], load(args.grad_input + r * args.stride + column + k * kLanes<S>));
      }
    }
    for (int64_t k = 0; k < kVectors; ++k) {
      total[k] = add(total[k], sums[k]);
    }
  }
  alignas(64) S row[kColumns];
  for (int64_t k = 0; k < kVectors; ++k) {
    store(row + k * kLanes<S>, total[k]);
  }
  copy_row(args.grad_bias + column, row, smaller(kColumns, args.neurons - column));
}

// Columns of a task: 8 vectors, of which the last task may have fewer.
constexpr int64_t kWeightVectors = 8;
template <typename S>
constexpr int64_t kWeightColumns = kWeightVectors * kLanes<S>;

template <typename S>
int64_t firing_ranges(const RecurrentWeights<S>& args) {
  return (args.neurons + kFiringNeurons - 1) / kFiringNeurons;
}

template <typename S>
int64_t recurrent_weight_tasks(const RecurrentWeights<S>& args) {
  return (args.neurons + kWeightColumns<S> - 1) / kWeightColumns<S> * firing_ranges(args);
}

// The widest of the compiled numbers of vectors that `left` of them hold. Not with_vectors, which rounds up:
// a panel may be read beyond its last column, a tensor may not.
template <typename Run>
void with_fitting_vectors(int64_t left, const Run& run) {
  if (left >= 8) {
    run(std::integral_constant<int64_t, 8>());
  } else if (left >= 4) {
    run(std::integral_constant<int64_t, 4>());
  } else if (left >= 2) {
    run(std::integral_constant<int64_t, 2>());
  } else {
    run(std::integral_constant<int64_t, 1>());
  }
}

template <typename S>
void recurrent_weights(const RecurrentWeights<S>& args, int64_t begin, int64_t end) {
  const int64_t ranges = firing_ranges(args);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t neuron = task % ranges * kFiringNeurons;
    int64_t column = task / ranges * kWeightColumns<S>;
    // Columns that belong to no neuron are left out, but for those in a vector with one that does.
    const int64_t last = smaller(column + kWeightColumns<S>, args.neurons);
    while (column < last) {
      with_fitting_vectors((smaller(column + kWeightColumns<S>, args.stride) - column) / kLanes<S>,
                           [&](auto vectors) {
                             if (args.grad_weight != nullptr) {
                               sum_weights<vectors>(args, column, neuron);
                             }
                             if (args.grad_bias != nullptr && neuron == 0) {
                               sum_biases<vectors>(args, column);
                             }
                             column += vectors * kLanes<S>;
                           });
    }
  }
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
