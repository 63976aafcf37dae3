// The arguments of lif_forward and lif_backward, and what both read of them: the plain structs' common part.
// What the arguments are stands in interface.h.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "neuron/params.h"
#include "ops/allocation.h"
#include "ops/interface.h"
#include "ops/strides.h"
#include "ops/tensors.h"

namespace lif::ops {

// The tensors of a call beside x, by their slots.
class Given {
 public:
  Given(const std::vector<Tensor>& tensors, int64_t present) {
    STD_TORCH_CHECK(present >= 0 && present >> Slot::count == 0, "unknown tensors, present is ", present);
    size_t next = 0;
    for (size_t slot = 0; slot < Slot::count; ++slot) {
      if (present >> slot & 1) {
        STD_TORCH_CHECK(next < tensors.size(), "given must have a tensor for each bit of present, got ",
                        tensors.size());
        slots_[slot] = &tensors[next++];
      }
    }
    STD_TORCH_CHECK(next == tensors.size(), "given must have ", next, " tensors, got ", tensors.size());
  }

  // Null where it is not given.
  const Tensor* operator[](size_t slot) const { return slots_[slot]; }

 private:
  std::array<const Tensor*, Slot::count> slots_{};
};

// A call, as forward and backward share it.
struct Problem {
  const Tensor& x;
  int64_t asked, given_steps, checkpoint_every, time_dim, reset, traits, refractory, surrogate;
  bool time_first;
  const double* numbers;
  double rest, slope, scale;
  Given given;
  Shape features;  // the shape of one time step
  Extent extent;

  Problem(const Tensor& x_given, const std::vector<Tensor>& tensors, const std::vector<int64_t>& ints,
          int64_t steps, int64_t every, const std::vector<double>& floats)
      : x(x_given), given(tensors, present(ints, floats)) {
    asked = ints[Int::asked];
    given_steps = steps;
    checkpoint_every = every;
    time_dim = ints[Int::time_dim];
    time_first = ints[Int::time_first] != 0;
    reset = ints[Int::reset];
    traits = ints[Int::traits];
    refractory = ints[Int::refractory];
    surrogate = ints[Int::surrogate];
    numbers = floats.data() + Float::number;
    rest = floats[Float::rest];
    slope = floats[Float::slope];
    scale = floats[Float::scale];

    STD_TORCH_CHECK(given_steps >= -1, "steps must be -1 or more, got ", given_steps);
    features = shape_of(x);
    const int64_t last = static_cast<int64_t>(features.size()) - (constant_input() ? 0 : 1);
    STD_TORCH_CHECK(time_dim >= 0 && time_dim <= last, "time_dim must be in [0, ", last, "], got ", time_dim);
    extent = {1, given_steps, 1};
    if (!constant_input()) {
      extent.steps = features[time_dim];
      features.erase(features.begin() + time_dim);
    }
    for (size_t i = 0; i < features.size(); ++i) {
      (static_cast<int64_t>(i) < time_dim ? extent.outer : extent.inner) *= features[i];
    }
  }

  bool constant_input() const { return given_steps >= 0; }
  const Tensor* state(size_t i) const { return given[Slot::state + i]; }
  const Tensor* parameter(size_t i) const { return given[Slot::parameter + i]; }
  const Tensor* grad(size_t i) const { return given[Slot::grad + i]; }

 private:
  static int64_t present(const std::vector<int64_t>& ints, const std::vector<double>& floats) {
    STD_TORCH_CHECK(ints.size() == Int::count, "ints must have ", size_t{Int::count}, " entries, got ",
                    ints.size());
    STD_TORCH_CHECK(floats.size() == Float::count, "floats must have ", size_t{Float::count},
                    " entries, got ", floats.size());
    return ints[Int::present];
  }
};

inline void check_lengths(const Tensor& x, const Tensor& lengths) {
  STD_TORCH_CHECK(lengths.scalar_type() == ScalarType::Long, "lengths must have dtype int64");
  STD_TORCH_CHECK(lengths.is_cuda() == x.is_cuda() && lengths.get_device_index() == x.get_device_index(),
                  "lengths must be on the device of x");
  STD_TORCH_CHECK(lengths.is_contiguous(), "lengths must be contiguous");
}

// A parameter of broadcast shape as values that repeat over the neurons.
template <typename S>
Parameter<S> parameter_of(const Tensor* tensor, double number, const Shape& features) {
  Parameter<S> parameter;
  parameter.value = static_cast<S>(number);
  if (!tensor) {
    return parameter;
  }
  const Shape sizes = shape_of(*tensor);
  size_t begin = 0;
  size_t end = sizes.size();
  while (begin < end && sizes[begin] == 1) {
    ++begin;
  }
  STD_TORCH_CHECK(sizes.size() - begin <= features.size(), "a parameter must repeat evenly over the neurons");
  const auto feature = [&](size_t i) { return features[features.size() - sizes.size() + i]; };
  while (end > begin && sizes[end - 1] == 1) {
    parameter.repeat *= feature(--end);
  }
  for (size_t i = begin; i < end; ++i) {
    STD_TORCH_CHECK(sizes[i] == feature(i), "a parameter must repeat evenly over the neurons");
    parameter.period *= sizes[i];
  }
  parameter.values = static_cast<const S*>(tensor->const_data_ptr());
  return parameter;
}

// How the kernels read a tensor like x, or one without the time axis, as it lies.
template <typename T>
Series<const T> series_of(const Tensor* tensor, const Problem& problem, bool timed, ScalarType type,
                          const char* name) {
  Series<const T> series;
  if (!tensor || tensor->numel() == 0) {
    return series;
  }
  STD_TORCH_CHECK(tensor->scalar_type() == type, name, " has the wrong dtype");
  STD_TORCH_CHECK(
      tensor->is_cuda() == problem.x.is_cuda() && tensor->get_device_index() == problem.x.get_device_index(),
      name, " must be on the device of x");
  const Extent& extent = problem.extent;
  Shape expected = problem.features;
  if (timed) {
    expected = with_axis(std::move(expected), problem.time_dim, extent.steps);
  }
  STD_TORCH_CHECK(shape_of(*tensor) == expected, name, " has the wrong shape");
  const auto sizes = tensor->sizes();
  const auto strides = tensor->strides();
  const auto time = static_cast<size_t>(problem.time_dim);
  const int64_t inner = joint_stride(sizes, strides, time + timed, sizes.size());
  STD_TORCH_CHECK(inner == 1 || inner == 0, name, " must be dense in the axes after time, or constant");
  const int64_t outer = joint_stride(sizes, strides, 0, time);
  STD_TORCH_CHECK(outer >= 0, name, " must have one stride in the axes before time");
  series.data = static_cast<const T*>(tensor->const_data_ptr());
  series.outer_stride = extent.outer == 1 ? 0 : outer;
  series.time_stride = !timed || sizes[time] == 1 ? 0 : strides[time];
  series.uniform = inner == 0;
  return series;
}

inline void check(const Problem& problem, ScalarType state_type) {
  const Tensor& x = problem.x;
  STD_TORCH_CHECK(problem.reset >= 0 && problem.reset < kResets, "unknown reset ", problem.reset);
  STD_TORCH_CHECK(problem.refractory >= 0, "refractory must be at least 0, got ", problem.refractory);
  const bool delayed = problem.traits & kDelayed;
  STD_TORCH_CHECK(!delayed || (problem.refractory == 0 && !(problem.traits & kAdaptive)),
                  "a delayed reset has no refractory or adaptive neuron");
  const int64_t n = neurons(problem.extent);
  for (size_t i = 0; i < kStates; ++i) {
    check_like_x(x, problem.state(i), "state", state_type, n);
  }
  for (size_t i = 0; i < kParameters; ++i) {
    const Tensor* parameter = problem.parameter(i);
    check_like_x(x, parameter, "a parameter", state_type, parameter ? parameter->numel() : 0);
  }
  if (aoti_torch_grad_mode_is_enabled()) {
    bool any = requires_grad(x);
    for (size_t slot = Slot::state; slot < Slot::lengths; ++slot) {
      const Tensor* tensor = problem.given[slot];
      any = any || (tensor && requires_grad(*tensor));
    }
    STD_TORCH_CHECK(!any,
                    "an argument requires grad, and this operator has no derivative of its own; call "
                    "lif_cuda.functional.lif, or run under torch.no_grad()");
  }
}

// Fill in what Forward and Backward have in common.
template <typename T, typename Args>
void set_common(Args& args, const Problem& problem) {
  using S = StateOf<T>;
  check(problem, kTypeOf<S>);
  args.extent = problem.extent;
  args.x = series_of<T>(&problem.x, problem, !problem.constant_input(), problem.x.scalar_type(), "x");
  for (int i = 0; i < kStates; ++i) {
    args.state[i] = read<S>(problem.state(i));
  }
  for (int i = 0; i < kParameters; ++i) {
    args.parameter[i] = parameter_of<S>(problem.parameter(i), problem.numbers[i], problem.features);
  }
  if (const Tensor* lengths = problem.given[Slot::lengths]) {
    check_lengths(problem.x, *lengths);
    args.lengths = parameter_of<int64_t>(lengths, 0.0, problem.features);
  }
  if ((problem.traits & kDecayInput) && !problem.parameter(kGain)) {
    args.parameter[kGain].value = S(1) - args.parameter[kBeta].value;
  }
  args.neuron.reset = static_cast<Reset>(problem.reset);
  args.neuron.strict = problem.traits & kStrict;
  args.neuron.delayed = problem.traits & kDelayed;
  args.neuron.detach_reset = problem.traits & kDetachReset;
  args.neuron.synapse = problem.traits & kSynapse;
  args.neuron.adaptive = problem.traits & kAdaptive;
  args.neuron.refractory = problem.refractory;
  args.neuron.rest = static_cast<S>(problem.rest);
  args.neuron.floored = problem.traits & kFloored;
}

// A new tensor like x, if `asked`.
template <typename T>
Series<T> new_series(Returned& returned, bool asked, const Problem& problem) {
  const Extent& extent = problem.extent;
  const Shape shape = with_axis(problem.features, problem.time_first ? 0 : problem.time_dim, extent.steps);
  T* data = returned.add<T>(asked, shape, problem.x.scalar_type());
  if (problem.time_first) {
    return {data, extent.inner, extent.outer * extent.inner};
  }
  return {data, extent.steps * extent.inner, extent.inner};
}

inline int64_t words_of(int64_t steps) { return (steps + kStepsOfWord - 1) / kStepsOfWord; }

// Whether two bits a step hold all that backward has to know of the neuron.
template <typename S>
void check_bits(const Neuron<S>& neuron) {
  STD_TORCH_CHECK(states_of(neuron) == 1 && !neuron.delayed, "bits are for neurons with a membrane only");
  STD_TORCH_CHECK(!neuron.floored, "bits do not hold where a floor held");
  STD_TORCH_CHECK(neuron.reset != Reset::zero || neuron.detach_reset,
                  "bits do not hold the membrane that a reset to zero needs in backward");
}

}  // namespace lif::ops
