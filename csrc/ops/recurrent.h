// The operators of recurrent layers, for any backend: from tensors to the plain structs that kernels take.
// What the arguments are stands in recurrent_interface.h.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "neuron/recurrent.h"
#include "ops/allocation.h"
#include "ops/recurrent_interface.h"
#include "ops/spikes.h"
#include "ops/tensors.h"

namespace lif::ops {

// A call of either way.
struct RecurrentProblem {
  const Tensor& rows;  // x or u
  const Tensor& weight;
  const std::vector<int64_t>& ints;
  const std::vector<double>& floats;
  std::array<const Tensor*, RecurrentSlot::count> given{};
  RecurrentExtent extent;

  RecurrentProblem(const Tensor& rows, const Tensor& weight, const std::vector<Tensor>& tensors,
                   const std::vector<int64_t>& ints, const std::vector<double>& floats)
      : rows(rows), weight(weight), ints(ints), floats(floats) {
    STD_TORCH_CHECK(ints.size() == RecurrentInt::count, "ints must have ", size_t{RecurrentInt::count},
                    " entries, got ", ints.size());
    STD_TORCH_CHECK(floats.size() == RecurrentFloat::count, "floats must have ",
                    size_t{RecurrentFloat::count}, " entries, got ", floats.size());
    const int64_t present = ints[RecurrentInt::present];
    STD_TORCH_CHECK(present >= 0 && present >> RecurrentSlot::count == 0, "unknown tensors, present is ",
                    present);
    size_t next = 0;
    for (size_t slot = 0; slot < RecurrentSlot::count; ++slot) {
      if (present >> slot & 1) {
        STD_TORCH_CHECK(next < tensors.size(), "given must have a tensor for each bit of present, got ",
                        tensors.size());
        given[slot] = &tensors[next++];
      }
    }
    STD_TORCH_CHECK(next == tensors.size(), "given must have ", next, " tensors, got ", tensors.size());
    STD_TORCH_CHECK(rows.dim() == 3, "rows must be [T, samples, neurons]");
    STD_TORCH_CHECK(weight.dim() == 2 && weight.size(0) == weight.size(1) && weight.is_contiguous(),
                    "weight must be [neurons, neurons], contiguous");
    STD_TORCH_CHECK(same_device(weight), "weight must be on the device of x");
    extent = {rows.size(0), rows.size(1), weight.size(0)};
    STD_TORCH_CHECK(ints[RecurrentInt::reset] == static_cast<int64_t>(Reset::subtract) ||
                        ints[RecurrentInt::reset] == static_cast<int64_t>(Reset::zero),
                    "unknown reset ", ints[RecurrentInt::reset]);
    if (aoti_torch_grad_mode_is_enabled()) {
      bool any = requires_grad(rows) || requires_grad(weight);
      for (const Tensor* tensor : given) {
        any = any || (tensor && requires_grad(*tensor));
      }
      STD_TORCH_CHECK(!any,
                      "an argument requires grad, and this operator has no derivative of its own; call "
                      "lif_cuda.functional.recurrent_lif, or run under torch.no_grad()");
    }
  }

  bool asked(int64_t flag) const { return (ints[RecurrentInt::asked] & flag) != 0; }

  bool same_device(const Tensor& tensor) const {
    return tensor.is_cuda() == rows.is_cuda() && tensor.get_device_index() == rows.get_device_index();
  }

  // A dense tensor of so many elements; null where it is absent.
  template <typename S>
  const S* dense(size_t slot, int64_t elements) const {
    check_like_x(rows, given[slot], "a tensor of a recurrent layer", kTypeOf<S>, elements);
    return read<S>(given[slot]);
  }

  template <typename S>
  const S* per_sample(size_t slot) const {
    return dense<S>(slot, extent.samples * extent.neurons);
  }

  template <typename S>
  Parameter<S> parameter(size_t slot, size_t number) const {
    Parameter<S> parameter;
    parameter.value = static_cast<S>(floats[number]);
    if (given[slot]) {
      parameter.period = given[slot]->numel();
      STD_TORCH_CHECK(parameter.period == 1 || parameter.period == extent.neurons,
                      "a parameter must have 1 or ", extent.neurons, " values, got ", parameter.period);
      parameter.values = dense<S>(slot, parameter.period);
    }
    return parameter;
  }

  template <typename S>
  RecurrentNeuron<S> neuron() const {
    RecurrentNeuron<S> neuron;
    neuron.reset = static_cast<Reset>(ints[RecurrentInt::reset]);
    neuron.strict = ints[RecurrentInt::strict] != 0;
    neuron.detach_reset = ints[RecurrentInt::detach_reset] != 0;
    neuron.v_reset = static_cast<S>(floats[RecurrentFloat::v_reset]);
    neuron.gain = static_cast<S>(floats[RecurrentFloat::gain]);
    neuron.beta = parameter<S>(RecurrentSlot::beta, RecurrentFloat::beta);
    neuron.threshold = parameter<S>(RecurrentSlot::threshold, RecurrentFloat::threshold);
    return neuron;
  }

  // A tensor [T, samples, at least `width`], dense in its last axis.
  template <typename T>
  SampleRows<const T> rows_of(const Tensor* tensor, ScalarType type, int64_t width) const {
    if (!tensor) {
      return {};
    }
    STD_TORCH_CHECK(tensor->scalar_type() == type && same_device(*tensor) && tensor->dim() == 3 &&
                        tensor->size(0) == extent.steps && tensor->size(1) == extent.samples &&
                        tensor->size(2) == width &&
                        (width <= 1 || tensor->numel() == 0 || tensor->stride(2) == 1),
                    "rows must be [T, samples, ", width, "], of the right dtype and dense in the last axis");
    return {static_cast<const T*>(tensor->const_data_ptr()), tensor->stride(0), tensor->stride(1)};
  }

  template <typename S>
  Surrogate<S> surrogate() const {
    const int64_t shape = ints[RecurrentInt::surrogate];
    STD_TORCH_CHECK(shape >= 0 && shape < kShapes, "unknown surrogate ", shape);
    Surrogate<S> of;
    of.shape = static_cast<lif::Shape>(shape);
    of.slope = static_cast<S>(floats[RecurrentFloat::slope]);
    of.scale = static_cast<S>(floats[RecurrentFloat::scale]);
    if (of.shape == lif::Shape::table) {
      const Tensor* table = given[RecurrentSlot::table];
      STD_TORCH_CHECK(table && table->numel() >= 2 && table->numel() <= 1 << 24,
                      "a tabulated surrogate needs a table of 2 to 2^24 values");
      of.points = table->numel();
      of.table = dense<S>(RecurrentSlot::table, of.points);
    }
    return of;
  }

  // New rows [T, samples, width], if they are wanted.
  template <typename E>
  SampleRows<E> new_rows(Returned& returned, bool wanted, int64_t width, ScalarType type) const {
    E* data = returned.add<E>(wanted, {extent.steps, extent.samples, width}, type);
    return {data, extent.samples * width, width};
  }
};

// The tensors of a call forward. `row` is the length of a row that is kept; `launch` takes the struct.
template <typename T, typename W, typename Launch>
std::vector<Tensor> recurrent_forward(const RecurrentProblem& problem, int64_t row, const Launch& launch) {
  using S = StateOf<T>;
  constexpr ScalarType kState = kTypeOf<S>;
  const auto [steps, samples, neurons] = problem.extent;
  const ScalarType type = problem.rows.scalar_type();
  const Shape features{samples, neurons};
  RecurrentForward<T, W> args;
  args.extent = problem.extent;
  args.neuron = problem.neuron<S>();
  args.x = problem.rows_of<T>(&problem.rows, type, neurons);
  args.weight = static_cast<const W*>(problem.weight.const_data_ptr());
  args.bias = problem.dense<S>(RecurrentSlot::bias, neurons);
  args.membrane = problem.per_sample<S>(RecurrentSlot::membrane);
  args.fired = problem.per_sample<S>(RecurrentSlot::fired);
  Returned returned(problem.rows);
  args.spikes = problem.new_rows<T>(returned, problem.asked(kRecurrentSpikes), neurons, type);
  args.count = returned.add<S>(problem.asked(kRecurrentCount), features, kState);
  args.rate = returned.add<S>(problem.asked(kRecurrentRate), features, kState);
  args.trace = problem.new_rows<T>(returned, problem.asked(kRecurrentTrace), neurons, type);
  args.final_membrane = returned.add<S>(problem.asked(kRecurrentMembrane), features, kState);
  args.final_spikes = returned.add<S>(problem.asked(kRecurrentFired), features, kState);
  args.u = problem.new_rows<S>(returned, problem.asked(kRecurrentKept), row, kState);
  args.fired_before = problem.new_rows<uint64_t>(returned, problem.asked(kRecurrentFiredBefore),
                                                 spike_words(neurons), ScalarType::Long);
  if (samples * neurons > 0) {
    launch(args);
  }
  return returned.take();
}

// And of one backward. The partial gradients of parameters, one a neuron of a sample, are brought to their
// shapes by `sum(const std::vector<PartialSum<S>>&)`.
template <typename T, typename W, typename Launch, typename Sum>
std::vector<Tensor> recurrent_backward(const RecurrentProblem& problem, const Launch& launch,
                                       const Sum& sum) {
  using S = StateOf<T>;
  constexpr ScalarType kState = kTypeOf<S>;
  const auto [steps, samples, neurons] = problem.extent;
  const Shape features{samples, neurons};
  const Tensor* grad_spikes = problem.given[RecurrentSlot::grad_spikes];
  const Tensor* grad_trace = problem.given[RecurrentSlot::grad_trace];
  const Tensor* typed = grad_spikes ? grad_spikes : grad_trace;
  const ScalarType type = typed ? typed->scalar_type() : kState;
  const int64_t row = problem.rows.size(2);
  RecurrentBackward<T, W> args;
  args.extent = problem.extent;
  args.neuron = problem.neuron<S>();
  args.surrogate = problem.surrogate<S>();
  args.weight = static_cast<const W*>(problem.weight.const_data_ptr());
  args.membrane = problem.per_sample<S>(RecurrentSlot::membrane);
  args.u = problem.rows_of<S>(&problem.rows, kState, row);
  args.grad_spikes = problem.rows_of<T>(grad_spikes, type, neurons);
  args.grad_trace = problem.rows_of<T>(grad_trace, type, neurons);
  args.grad_steady = problem.per_sample<S>(RecurrentSlot::grad_steady);
  args.grad_final_membrane = problem.per_sample<S>(RecurrentSlot::grad_final_membrane);
  args.grad_final_spikes = problem.per_sample<S>(RecurrentSlot::grad_final_spikes);
  Returned returned(problem.rows);
  args.grad_input = problem.new_rows<S>(returned, true, row, kState);
  args.grad_membrane = returned.add<S>(problem.asked(kGradMembrane), features, kState);
  args.grad_fired = returned.add<S>(problem.asked(kGradFired), features, kState);
  std::array<std::optional<Tensor>, 2> partials;
  const auto partial = [&](size_t i, int64_t flag) -> S* {
    if (!problem.asked(flag)) {
      return nullptr;
    }
    partials[i] = new_empty(problem.rows, features, kState);
    return static_cast<S*>(partials[i]->mutable_data_ptr());
  };
  args.grad_beta = partial(0, kGradBeta);
  args.grad_threshold = partial(1, kGradThreshold);
  if (samples * neurons > 0) {
    launch(args);
  }
  std::vector<PartialSum<S>> sums;
  for (size_t i = 0; i < partials.size(); ++i) {
    if (partials[i]) {
      const Tensor* parameter = problem.given[RecurrentSlot::beta + i];
      STD_TORCH_CHECK(parameter, "the gradient of a parameter that is a number");
      const int64_t columns = parameter->numel();
      const int64_t rows = columns > 0 ? samples * neurons / columns : 0;
      S* whole = returned.add<S>(true, shape_of(*parameter), kState);
      sums.push_back({static_cast<const S*>(partials[i]->const_data_ptr()), rows, columns, 1, whole});
    }
  }
  sum(sums);
  return returned.take();
}

using RecurrentOperator = std::vector<Tensor> (*)(const Tensor&, const Tensor&, const std::vector<Tensor>&,
                                                  const std::vector<int64_t>&, const std::vector<double>&);

// `recurrent` of a backend whose `recurrent_forward` this is.
template <RecurrentOperator kForward>
std::vector<Tensor> recurrent(const Tensor& x, const Tensor& weight, const std::vector<Tensor>& given,
                              const std::vector<int64_t>& ints, const std::vector<double>& floats) {
  std::vector<Tensor> dense;
  dense.reserve(given.size());
  for (const Tensor& tensor : given) {
    dense.push_back(torch::stable::contiguous(tensor));
  }
  return kForward(torch::stable::contiguous(x), torch::stable::contiguous(weight), dense, ints, floats);
}

}  // namespace lif::ops
