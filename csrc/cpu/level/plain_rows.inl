// What the loops of the plain neuron work on, both ways: the rows of a tile as they lie in the tensors, and
// those of a task, which hold a value of each of its neurons in the order of the vectors.
#pragma once

#include "cpu/level/readout.inl"
#include "cpu/level/vector.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

template <typename S>
bool is_plain(const Neuron<S>& neuron) {
  return neuron.reset != Reset::none && !neuron.strict && !neuron.synapse && !neuron.adaptive &&
         !neuron.delayed && neuron.refractory == 0 && neuron.rest == S(0) && !neuron.floored;
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

// The last neurons of a block, fewer than a group, are computed in rows of their own: kTileSteps of them,
// and what they hold in the lanes behind the last neuron is never looked at.
template <typename T>
struct Tail {
  static constexpr int64_t kWidth = kGroup * kLanes<StateOf<T>>;
  T data[kTileSteps * kWidth] = {};

  Rows<T> rows() { return {data, kWidth, false}; }

  Rows<const T> read(const Rows<const T>& from, int64_t steps, int64_t i, int64_t n) {
    if (from.data == nullptr) {
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
  static constexpr int64_t kRows = 11;

  S *beta, *theta, *v_reset;
  S *v, *count;                                               // forward
  S *start, *a, *grad_x, *grad_beta, *grad_theta, *constant;  // backward

  // Rows of a parameter that is a number stay as they are from task to task: filled anew for each, they and
  // the sums took eight stores a neuron, as many as four time steps of spikes and gradients.
  PlainRows(Workspace<S>& workspace, const Parameter<S>* parameters, int64_t neurons) {
    for (S** row :
         {&beta, &theta, &v_reset, &v, &count, &start, &a, &grad_x, &grad_beta, &grad_theta, &constant}) {
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
  }

  // The same from neuron i of the block on.
  PlainRows from(int64_t i) const {
    PlainRows rows(*this);
    for (S** row : {&rows.beta, &rows.theta, &rows.v_reset, &rows.v, &rows.count, &rows.start, &rows.a,
                    &rows.grad_x, &rows.grad_beta, &rows.grad_theta, &rows.constant}) {
      *row += i;
    }
    return rows;
  }
};

// A value of each neuron of a block; null: zeros.
template <typename T, typename S = StateOf<T>>
void load_values(S* row, const S* from, const Block& block) {
  if (from == nullptr) {
    fill_row(row, S(0), lanes_of<S>(block.size));
  } else {
    to_groups<T>(row, from + block.neuron, block.size);
  }
}

// And back, where it is asked for.
template <typename T, typename S = StateOf<T>>
void store_values(S* to, const S* row, const Block& block) {
  if (to != nullptr) {
    from_groups<T>(to + block.neuron, row, block.size);
  }
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
