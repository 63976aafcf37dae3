// What the wide kernels work on, both ways: the rows of a task, which hold a value of each of its neurons,
// and the rows of a strip of neurons at the steps of a tile, in the type of the state.
#pragma once

#include "cpu/level/strip.inl"
#include "neuron/member.h"

namespace lif::cpu::LIF_SIMD {
namespace {

// Whether a neuron has a parameter.
template <typename S>
bool has_parameter(const Neuron<S>& neuron, int name) {
  return name == kAlpha                   ? neuron.synapse
         : name == kKappa || name == kRho ? neuron.adaptive
         : name == kResetTo               ? neuron.reset == Reset::zero
         : name == kFloor                 ? neuron.floored
                                          : true;
}

// What a call needs of WideRows beside its parameters and states.
struct WideNeeds {
  bool counting = false, timed = false, in_bits = false;               // forward
  bool peaked = false, averaged = false;                               // both
  bool back = false, learn = false, counted = false, summing = false;  // backward
};

// The values of the parameters for a block, and what its neurons carry on from tile to tile. What a call does
// not need is one row of zeros.
template <typename S>
struct WideRows {
  S* parameter[kParameters];
  S* level;                   // what a membrane is compared with
  S* state[kStates];          // forward, and where a chunk is computed again
  S *count, *alive, *first;   // forward
  S* adjoint[kSmoothStates];  // backward: the gradients of the states
  S* sums[kLearnable];        // and those of the parameters, summed over time
  S *constant, *grad_x, *later, *grad_first, *scratch;
  // The largest membrane and its step, and the sum of all; backward the gradients in their places.
  S *highest, *peak, *sum_v;
  uint32_t* words;

  static constexpr int64_t kRows = kParameters + kLearnable + kStates + kSmoothStates + 14;

  // Rows of a parameter that is a number stay as they are from task to task.
  WideRows(Workspace<S>& workspace, const Neuron<S>& neuron, const Parameter<S>* parameters,
           const WideNeeds& needs, int64_t size) {
    S* const zeros = workspace.row();
    fill_row(zeros, S(0), workspace.stride());
    const auto row_if = [&](bool needed) { return needed ? workspace.row() : zeros; };
    for (int name = 0; name < kParameters; ++name) {
      parameter[name] = row_if(has_parameter(neuron, name));
      if (name < kLearnable) {
        sums[name] = row_if(needs.learn && has_parameter(neuron, name));
      }
      if (has_parameter(neuron, name) && parameters[name].values == nullptr) {
        fill_row(parameter[name], parameters[name].value, workspace.stride());
      }
    }
    level = neuron.strict ? workspace.row() : parameter[kThreshold];
    if (parameters[kThreshold].values == nullptr) {
      load_level(size);
    }
    for (int name = 0; name < kStates; ++name) {
      state[name] = row_if(has_state(neuron, name));
    }
    for (int name = 0; name < kSmoothStates; ++name) {
      adjoint[name] = row_if(needs.back && has_state(neuron, name));
    }
    count = row_if(needs.counting);
    alive = row_if(needs.timed && !needs.back);
    first = row_if(needs.timed);
    constant = row_if(needs.counted);
    const bool over_time = needs.timed || needs.peaked || needs.averaged;
    scratch = row_if(needs.counted || (over_time && needs.back));
    grad_x = row_if(needs.summing);
    later = row_if(needs.timed && needs.back);
    grad_first = row_if(needs.timed && needs.back);
    highest = row_if(needs.peaked);
    peak = row_if(needs.peaked);
    sum_v = row_if(needs.averaged);
    words = reinterpret_cast<uint32_t*>(row_if(needs.in_bits));
  }

  void load(const Neuron<S>& neuron, const Parameter<S>* parameters, const Block& block) const {
    for (int name = 0; name < kParameters; ++name) {
      if (has_parameter(neuron, name) && parameters[name].values != nullptr) {
        load_parameter(parameter[name], parameters[name], block);
      }
    }
    if (parameters[kThreshold].values != nullptr) {
      load_level(block.size);
    }
  }

  // The same from neuron i of the block on.
  WideRows from(int64_t i) const {
    WideRows rows(*this);
    const auto move = [i](auto& of) {
      for (S*& row : of) {
        row += i;
      }
    };
    move(rows.parameter);
    move(rows.state);
    move(rows.adjoint);
    move(rows.sums);
    for (S** row : {&rows.level, &rows.count, &rows.alive, &rows.first, &rows.constant, &rows.grad_x,
                    &rows.later, &rows.grad_first, &rows.scratch, &rows.highest, &rows.peak, &rows.sum_v}) {
      *row += i;
    }
    rows.words += i;
    return rows;
  }

 private:
  void load_level(int64_t n) const {
    if (level != parameter[kThreshold]) {
      next_above_row(level, parameter[kThreshold], n);
    }
  }
};

// The kind of a neuron on the CPU. A strict comparison is one with Values::level but where the threshold
// moves.
template <typename Kind, typename S>
[[gnu::always_inline]] inline Kind wide_kind(const Neuron<S>& neuron) {
  Neuron<S> same(neuron);
  same.strict = neuron.strict && neuron.adaptive;
  return kind_of<Kind>(same);
}

template <typename Kind>
[[gnu::always_inline]] inline bool has_state(const Kind& kind, int state) {
  return state == kMembrane     ? true
         : state == kCurrent    ? kind.synapse
         : state == kAdaptation ? kind.adaptive
                                : kind.refractory;
}

// The numbers of a vector of neurons, of what a kind has.
template <typename Kind, typename S>
[[gnu::always_inline]] inline Values<Vector<S>> load_values(const Kind& kind, const Neuron<S>& neuron,
                                                            const WideRows<S>& rows, int64_t i) {
  Values<Vector<S>> own{};
  own.beta = load(rows.parameter[kBeta] + i);
  own.theta = load(rows.parameter[kThreshold] + i);
  own.level = load(rows.level + i);
  own.gain = load(rows.parameter[kGain] + i);
  if (kind.reset == Reset::zero) {
    own.v_reset = load(rows.parameter[kResetTo] + i);
  }
  if (kind.synapse) {
    own.alpha = load(rows.parameter[kAlpha] + i);
  }
  if (kind.adaptive) {
    own.kappa = load(rows.parameter[kKappa] + i);
    own.rho = load(rows.parameter[kRho] + i);
  }
  if (kind.rested) {
    own.rest = splat(neuron.rest);
  }
  if (kind.floored) {
    own.v_min = load(rows.parameter[kFloor] + i);
  }
  if (kind.refractory) {
    own.silence = splat(static_cast<S>(neuron.refractory));
  }
  return own;
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
