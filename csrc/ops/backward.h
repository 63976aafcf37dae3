// lif_backward: the gradients that come in, what forward kept, and the gradients that it returns.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "ops/arguments.h"

namespace lif::ops {

template <typename T>
void set_gradients(Backward<T>& args, const Problem& problem) {
  using S = StateOf<T>;
  constexpr ScalarType kState = kTypeOf<S>;
  const ScalarType type = problem.x.scalar_type();
  const Tensor* first_spike = problem.given[Slot::first_spike];
  const int64_t n = neurons(args.extent);
  args.grad_spikes = series_of<T>(problem.grad(kOfSpikes), problem, true, type, "the gradient of the spikes");
  args.grad_trace = series_of<T>(problem.grad(kOfTrace), problem, true, type, "the gradient of the trace");
  args.grad_trace_before =
      series_of<T>(problem.grad(kOfTraceBefore), problem, true, type, "the gradient of the trace");
  args.grad_count = series_of<S>(problem.grad(kOfCount), problem, false, kState, "the gradient of the count");
  args.grad_rate = series_of<S>(problem.grad(kOfRate), problem, false, kState, "the gradient of the rate");
  args.grad_first = series_of<S>(problem.grad(kOfFirstSpike), problem, false, kState,
                                 "the gradient of the first-spike time");
  STD_TORCH_CHECK(!problem.grad(kOfFirstSpike) || first_spike,
                  "the gradient of the first-spike time needs that output");
  check_like_x(problem.x, first_spike, "first_spike", kState, n);
  args.first = read<S>(first_spike);
  const Tensor* peak = problem.given[Slot::peak];
  args.grad_trace_max =
      series_of<S>(problem.grad(kOfTraceMax), problem, false, kState, "the gradient of the largest membrane");
  args.grad_trace_mean =
      series_of<S>(problem.grad(kOfTraceMean), problem, false, kState, "the gradient of the mean membrane");
  STD_TORCH_CHECK(!problem.grad(kOfTraceMax) || peak,
                  "the gradient of the largest membrane needs the step of it");
  check_like_x(problem.x, peak, "peak", kState, n);
  args.peak = read<S>(peak);
  for (int i = 0; i < kSmoothStates; ++i) {
    const Tensor* grad = problem.grad(kOfState + i);
    check_like_x(problem.x, grad, "the gradient of the state", kState, n);
    args.grad_final[i] = read<S>(grad);
  }
}

template <typename T>
void set_surrogate(Backward<T>& args, const Problem& problem) {
  using S = StateOf<T>;
  const Tensor* table = problem.given[Slot::table];
  STD_TORCH_CHECK(problem.surrogate >= 0 && problem.surrogate < kShapes, "unknown surrogate ",
                  problem.surrogate);
  args.surrogate.shape = static_cast<lif::Shape>(problem.surrogate);
  args.surrogate.slope = static_cast<S>(problem.slope);
  args.surrogate.scale = static_cast<S>(problem.scale);
  if (args.surrogate.shape == lif::Shape::table) {
    STD_TORCH_CHECK(table && table->numel() >= 2 && table->numel() <= 1 << 24,
                    "a tabulated surrogate needs a table of 2 to 2^24 values");
    args.surrogate.points = table->numel();
    check_like_x(problem.x, table, "table", kTypeOf<S>, args.surrogate.points);
    args.surrogate.table = read<S>(table);
  }
}

// Run `launch(const Backward<T>&)` on the tensors of a call of lif_backward. Parameters' partial gradients,
// one a neuron, are brought to their shapes by `sum(const std::vector<PartialSum<S>>&)`.
template <typename T, typename Launch, typename Sum>
std::vector<Tensor> backward(const Problem& problem, const Launch& launch, const Sum& sum) {
  using S = StateOf<T>;
  constexpr ScalarType kState = kTypeOf<S>;
  const int64_t wanted = problem.asked;
  const Tensor* checkpoints = problem.given[Slot::checkpoints];
  const Tensor* bits = problem.given[Slot::bits];
  Backward<T> args;
  set_common<T>(args, problem);
  const Shape& features = problem.features;
  const int64_t n = neurons(args.extent);
  const int64_t steps = args.extent.steps;
  args.chunk = steps > 0 ? steps : 1;
  if (checkpoints) {
    STD_TORCH_CHECK(problem.checkpoint_every > 0, "checkpoint_every must be above 0");
    args.chunk = std::min(problem.checkpoint_every, args.chunk);
    const int64_t chunks = (steps + args.chunk - 1) / args.chunk;
    check_like_x(problem.x, checkpoints, "checkpoints", kState,
                 chunks > 0 ? (chunks - 1) * states_of(args.neuron) * n : 0);
    args.checkpoints = read<S>(checkpoints);
  }
  if (bits) {
    check_bits(args.neuron);
    STD_TORCH_CHECK(bits->scalar_type() == ScalarType::Int && bits->is_contiguous() &&
                        bits->numel() == words_of(steps) * n &&
                        bits->get_device_index() == problem.x.get_device_index() &&
                        bits->is_cuda() == problem.x.is_cuda(),
                    "bits must be what lif_forward returned");
    STD_TORCH_CHECK(problem.surrogate == static_cast<int64_t>(lif::Shape::rectangle),
                    "bits need a Rectangle");
    for (int name : {kBeta, kGain, kAlpha}) {
      STD_TORCH_CHECK(!(wanted & (kGradParameter << name)), "bits do not hold what this gradient needs");
    }
    args.bits = static_cast<const uint32_t*>(bits->const_data_ptr());
    args.chunk = kStepsOfWord;  // a word at a time, with nothing to recompute
  }
  set_gradients(args, problem);
  set_surrogate(args, problem);

  Returned returned(problem.x);
  if (problem.constant_input()) {
    args.grad_x_sum = returned.add<T>(wanted & kGradX, features, problem.x.scalar_type());
  } else {
    args.grad_x = new_series<T>(returned, wanted & kGradX, problem);
  }
  for (int i = 0; i < kSmoothStates; ++i) {
    const bool asked = wanted & (kGradState << i);
    STD_TORCH_CHECK(!asked || has_state(args.neuron, i),
                    "the gradient of a state that the neuron does not have");
    args.grad_state[i] = returned.add<S>(asked, features, kState);
  }
  // A parameter with a value for each neuron has its gradient written in place; the others need a partial a
  // neuron (4 / T bytes a neuron-step in fp32) and a reduction.
  std::array<std::optional<Tensor>, kLearnable> partials;
  for (int i = 0; i < kLearnable; ++i) {
    if (wanted & (kGradParameter << i)) {
      STD_TORCH_CHECK(problem.parameter(i), "the gradient of a parameter that is a number");
      partials[i] = new_empty(
          problem.x, problem.parameter(i)->numel() == n ? shape_of(*problem.parameter(i)) : Shape{n}, kState);
      args.grad_parameter[i] = static_cast<S*>(partials[i]->mutable_data_ptr());
    }
  }
  if (n > 0) {
    launch(args);
  }
  std::vector<PartialSum<S>> sums;
  for (int i = 0; i < kLearnable; ++i) {
    if (!partials[i]) {
      continue;
    }
    const Tensor& parameter = *problem.parameter(i);
    if (parameter.numel() == n) {
      returned.push(std::move(*partials[i]));
      continue;
    }
    const int64_t columns = args.parameter[i].period;
    const int64_t repeat = args.parameter[i].repeat;
    const int64_t rows = columns * repeat > 0 ? n / (columns * repeat) : 0;
    Tensor whole = new_empty(problem.x, shape_of(parameter), kState);
    sums.push_back(
        {args.grad_parameter[i], rows, columns, repeat, static_cast<S*>(whole.mutable_data_ptr())});
    returned.push(std::move(whole));
  }
  if (!sums.empty()) {
    sum(sums);
  }
  return returned.take();
}

}  // namespace lif::ops
