// From the tensors of an operator call to the plain structs that the kernels take, for CPU and CUDA alike.
// What the arguments are stands in interface.h.
//
// These checks are a backstop for calls that bypass lif_cuda.functional: they keep a wrong call from
// touching memory that is not its own.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "bindings/interface.h"
#include "bindings/strides.h"
#include "neuron/params.h"

namespace lif::bindings {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Shape = std::vector<int64_t>;

template <typename T>
constexpr ScalarType kTypeOf = ScalarType::Float;
template <>
inline constexpr ScalarType kTypeOf<double> = ScalarType::Double;

// Call `run` with a null pointer to the type of x's elements.
template <typename Run>
auto with_type_of(const Tensor& x, const Run& run) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return run(static_cast<float*>(nullptr));
    case ScalarType::Double:
      return run(static_cast<double*>(nullptr));
    case ScalarType::Half:
      return run(static_cast<Half*>(nullptr));
    case ScalarType::BFloat16:
      return run(static_cast<BFloat16*>(nullptr));
    default:
      STD_TORCH_CHECK(false, "x must have dtype float32, float64, float16 or bfloat16");
  }
}

inline Shape shape_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return Shape(sizes.begin(), sizes.end());
}

inline int64_t numel(const Shape& shape) {
  int64_t n = 1;
  for (int64_t size : shape) {
    n *= size;
  }
  return n;
}

inline Shape with_axis(Shape shape, int64_t at, int64_t size) {
  shape.insert(shape.begin() + at, size);
  return shape;
}

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

// Whether autograd would have to differentiate through `tensor`. The stable ABI does not tell, but an alias
// made with grad mode on is a leaf only if its base needs no gradient.
inline bool requires_grad(const Tensor& tensor) {
  std::array<StableIValue, 1> alias{torch::stable::detail::from(tensor)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::alias", "", alias.data(), TORCH_ABI_VERSION));
  std::array<StableIValue, 1> leaf{alias[0]};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::is_leaf", "", leaf.data(), TORCH_ABI_VERSION));
  return !torch::stable::detail::to<bool>(leaf[0]);
}

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

inline void check_like_x(const Tensor& x, const Tensor* tensor, const char* name, ScalarType type,
                         int64_t elements) {
  if (!tensor) {
    return;
  }
  STD_TORCH_CHECK(tensor->scalar_type() == type, name,
                  " must have the dtype of the state: float64 where x has it, else float32");
  STD_TORCH_CHECK(tensor->is_cuda() == x.is_cuda() && tensor->get_device_index() == x.get_device_index(),
                  name, " must be on the device of x");
  STD_TORCH_CHECK(tensor->is_contiguous(), name, " must be contiguous");
  STD_TORCH_CHECK(tensor->numel() == elements, name, " must have ", elements, " elements, got ",
                  tensor->numel());
}

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

template <typename S>
const S* read(const Tensor* tensor) {
  return tensor ? static_cast<const S*>(tensor->const_data_ptr()) : nullptr;
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

// Let a large new tensor lie in huge pages where the system offers them on request. A fresh page of 4 KiB
// costs some 2 us when it is first written, 2 ns a float: more than the copy of all that the neuron reads and
// writes (forward on [16, 64, 16384], one thread: 1.0 instead of 2.8 ns a neuron-step, where clone
// takes 1.9).
inline void use_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr size_t kWorthIt = size_t{4} << 20;
  constexpr uintptr_t kPage = 4096;
  if (bytes >= kWorthIt) {
    const size_t before = (kPage - reinterpret_cast<uintptr_t>(data) % kPage) % kPage;
    // Advice: where it cannot be taken, nothing changes.
    madvise(static_cast<char*>(data) + before, (bytes - before) / kPage * kPage, MADV_HUGEPAGE);
  }
#endif
}

// The check that carries the text of an inner error, such as that of a lack of memory, is not in torch 2.11.
#if !defined(STABLE_TORCH_ERROR_CODE_CHECK)
#define STABLE_TORCH_ERROR_CODE_CHECK TORCH_ERROR_CODE_CHECK
#endif

// A new tensor without contents. torch::stable::new_empty finds its operator by name and boxes its arguments;
// aoti_torch_aten_new_empty asks the dispatcher four times, 3,600 instructions; this takes 2,500.
inline Tensor new_empty(const Tensor& like, const Shape& shape, const Shape& strides, ScalarType type) {
  int32_t device_type = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle tensor = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(), strides.data(),
                               torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)),
                               device_type, like.get_device_index(), &tensor));
  return Tensor(tensor);
}

inline Tensor new_empty(const Tensor& like, const Shape& shape, ScalarType type) {
  Shape strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(shape[i], 1);
  }
  return new_empty(like, shape, strides, type);
}

// The tensors that a call returns, in the order in which they are asked for.
class Returned {
 public:
  explicit Returned(const Tensor& like) : like_(like) {}

  // A new tensor if `asked`, and its memory; otherwise null.
  template <typename E>
  E* add(bool asked, const Shape& shape, ScalarType type) {
    if (!asked) {
      return nullptr;
    }
    tensors_.push_back(new_empty(like_, shape, type));
    E* data = static_cast<E*>(tensors_.back().mutable_data_ptr());
    if (!like_.is_cuda()) {
      use_huge_pages(data, static_cast<size_t>(numel(shape)) * sizeof(E));
    }
    return data;
  }

  // A tensor like x, if `asked`.
  template <typename T>
  Series<T> add_series(bool asked, const Problem& problem) {
    const Extent& extent = problem.extent;
    const Shape shape = with_axis(problem.features, problem.time_first ? 0 : problem.time_dim, extent.steps);
    T* data = add<T>(asked, shape, like_.scalar_type());
    if (problem.time_first) {
      return {data, extent.inner, extent.outer * extent.inner};
    }
    return {data, extent.steps * extent.inner, extent.inner};
  }

  // A tensor of zeros, on the CPU, of which there is one in memory.
  template <typename E>
  void add_shape(const Shape& shape, ScalarType type) {
    tensors_.push_back(new_empty(like_, shape, Shape(shape.size(), 0), type));
    if (numel(shape) > 0) {
      *static_cast<E*>(tensors_.back().mutable_data_ptr()) = E{};
    }
  }

  // Returns its place.
  size_t push(Tensor tensor) {
    tensors_.push_back(std::move(tensor));
    return tensors_.size() - 1;
  }
  Tensor& back() { return tensors_.back(); }
  std::vector<Tensor> take() { return std::move(tensors_); }

 private:
  const Tensor& like_;
  std::vector<Tensor> tensors_;
};

// Words of 64 bits for a row of n spikes.
constexpr int64_t kSpikesOfWord = 64;
inline int64_t spike_words(int64_t n) { return (n + kSpikesOfWord - 1) / kSpikesOfWord; }

inline int64_t words_of(int64_t steps) { return (steps + kStepsOfWord - 1) / kStepsOfWord; }

// Whether two bits a step hold all that backward has to know of the neuron.
template <typename S>
void check_bits(const Neuron<S>& neuron) {
  STD_TORCH_CHECK(states_of(neuron) == 1 && !neuron.delayed, "bits are for neurons with a membrane only");
  STD_TORCH_CHECK(!neuron.floored, "bits do not hold where a floor held");
  STD_TORCH_CHECK(neuron.reset != Reset::zero || neuron.detach_reset,
                  "bits do not hold the membrane that a reset to zero needs in backward");
}

// Spikes as words, and before them their shape, where autograd knows them by.
template <typename T>
void add_packed(Returned& returned, Forward<T>& args, const Problem& problem) {
  const Extent& extent = args.extent;
  const auto last = static_cast<int64_t>(problem.features.size());
  STD_TORCH_CHECK(!problem.x.is_cuda(), "packed spikes are written on the CPU");
  STD_TORCH_CHECK(problem.asked & kSpikes, "packed spikes stand beside spikes");
  STD_TORCH_CHECK(problem.time_dim < last, "packed spikes need an axis of neurons behind that of time");
  const int64_t at = problem.time_first ? 0 : problem.time_dim;
  Shape words = problem.features;
  args.packed_neurons = words.back();
  words.back() = spike_words(words.back());
  const int64_t inner =
      args.packed_neurons == 0 ? 0 : extent.inner / args.packed_neurons * spike_words(args.packed_neurons);
  returned.add_shape<T>(with_axis(problem.features, at, extent.steps), problem.x.scalar_type());
  args.packed.data = returned.add<uint64_t>(true, with_axis(words, at, extent.steps), ScalarType::Long);
  args.packed.outer_stride = problem.time_first ? inner : extent.steps * inner;
  args.packed.time_stride = problem.time_first ? extent.outer * inner : inner;
}

// Run `launch(const Forward<T>&)` on the tensors of a call of lif_forward.
template <typename T, typename Launch>
std::vector<Tensor> forward(const Problem& problem, const Launch& launch) {
  using S = StateOf<T>;
  constexpr ScalarType kState = kTypeOf<S>;
  const int64_t outputs = problem.asked;
  const int64_t checkpoint_every = problem.checkpoint_every;
  Forward<T> args;
  set_common<T>(args, problem);
  STD_TORCH_CHECK(!(outputs & kCheckpoints) || checkpoint_every > 0, "checkpoint_every must be above 0");
  const Shape& features = problem.features;
  args.checkpoint_every = checkpoint_every;

  Returned returned(problem.x);
  if (outputs & kPacked) {
    add_packed(returned, args, problem);
  } else {
    args.spikes = returned.add_series<T>(outputs & kSpikes, problem);
  }
  args.count = returned.add<S>(outputs & kCount, features, kState);
  args.rate = returned.add<S>(outputs & kRate, features, kState);
  args.first = returned.add<S>(outputs & kFirstSpike, features, kState);
  args.trace = returned.add_series<T>(outputs & kTrace, problem);
  args.trace_before = returned.add_series<T>(outputs & kTraceBefore, problem);
  std::optional<Tensor> total;
  size_t total_at = 0;
  if (outputs & kTotal) {
    total = torch::stable::new_zeros(problem.x, Shape{}, ScalarType::Long);
    args.total = static_cast<int64_t*>(total->mutable_data_ptr());
    total_at = returned.push(*total);
  }
  STD_TORCH_CHECK(!(outputs & kTraceMax) || args.extent.steps > 0, "the largest of no membranes");
  STD_TORCH_CHECK(!(outputs & kPeak) || (outputs & kTraceMax), "the step of the largest goes with it");
  args.trace_max = returned.add<S>(outputs & kTraceMax, features, kState);
  args.trace_mean = returned.add<S>(outputs & kTraceMean, features, kState);
  for (int i = 0; i < kStates; ++i) {
    const bool asked = outputs & (kFinalState << i);
    STD_TORCH_CHECK(!asked || has_state(args.neuron, i), "a final state that the neuron does not have");
    args.final_state[i] = returned.add<S>(asked, features, kState);
  }
  args.peak = returned.add<S>(outputs & kPeak, features, kState);
  if (outputs & kCheckpoints) {
    const int64_t chunks = (args.extent.steps + checkpoint_every - 1) / checkpoint_every;
    Shape shape = with_axis(features, 0, states_of(args.neuron));
    args.checkpoints = returned.add<S>(true, with_axis(shape, 0, chunks > 0 ? chunks - 1 : 0), kState);
  }
  if (outputs & kBits) {
    check_bits(args.neuron);
    args.bits =
        returned.add<uint32_t>(true, with_axis(features, 0, words_of(args.extent.steps)), ScalarType::Int);
    args.window = static_cast<S>(problem.slope);
  }
  if (neurons(args.extent) > 0) {
    launch(args);
  }
  std::vector<Tensor> results = returned.take();
  if (total) {
    // Counted in integers, whose sum no order changes; float64, which has a gradient, holds them to 2^53.
    results[total_at] = torch::stable::to(*total, ScalarType::Double);
  }
  return results;
}

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
    args.grad_x = returned.add_series<T>(wanted & kGradX, problem);
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

}  // namespace lif::bindings
