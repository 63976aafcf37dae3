// From the tensors of an operator call to the plain structs that the kernels take, for CPU and CUDA alike.
//
//   x               [T, features...], or [features...] where steps >= 0: a constant input. Contiguous.
//   steps           -1: x has a time axis; otherwise T
//   membrane        [features...], contiguous; absent: zeros
//   beta, threshold absent: the number beside them; otherwise contiguous values that repeat over the
//                   neurons, neuron m having values[m % numel]
//   outputs         the sum of Output flags: the tensors to return, in that order
//   checkpoints     [ceil(T / checkpoint_every) - 1, features...]: the membrane before steps K, 2K, ...
//   grad_spikes     like the spikes; contiguous, or constant over time (time stride 0), or one value a step
//   wanted          the sum of Wanted flags: the gradients to return, in that order
//
// These checks are a backstop for calls that bypass lif_cuda.functional: they keep a wrong call from
// touching memory that is not its own.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "neuron/params.h"

namespace lif::bindings {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Shape = std::vector<int64_t>;

enum Output : int64_t { kSpikes = 1, kCount = 2, kMembrane = 4, kCheckpoints = 8 };
enum Wanted : int64_t { kGradX = 1, kGradMembrane = 2, kGradBeta = 4, kGradThreshold = 8 };

inline Shape shape_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return Shape(sizes.begin(), sizes.end());
}

inline Shape with_leading(int64_t size, const Shape& features) {
  Shape shape(features.size() + 1, size);
  std::copy(features.begin(), features.end(), shape.begin() + 1);
  return shape;
}

// Whether autograd would have to differentiate through `tensor`. The stable ABI does not tell, but an alias
// made with grad mode on is a leaf only if its base needs no gradient.
inline bool requires_grad(const Tensor& tensor) {
  std::array<StableIValue, 1> alias{torch::stable::detail::from(tensor)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::alias", "", alias.data(), TORCH_ABI_VERSION));
  std::array<StableIValue, 1> leaf{alias[0]};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::is_leaf", "", leaf.data(), TORCH_ABI_VERSION));
  return !torch::stable::detail::to<bool>(leaf[0]);
}

// What forward and backward share.
struct Neurons {
  const Tensor& x;
  const OptionalTensor& membrane;
  const OptionalTensor& beta;
  double beta_value;
  const OptionalTensor& threshold;
  double threshold_value;
  int64_t given_steps;

  bool constant_input() const { return given_steps >= 0; }
  int64_t steps() const { return constant_input() ? given_steps : x.sizes()[0]; }
  Shape features() const {
    const auto sizes = x.sizes();
    return Shape(sizes.begin() + (constant_input() ? 0 : 1), sizes.end());
  }
  int64_t count() const {
    int64_t n = 1;
    for (int64_t size : features()) {
      n *= size;
    }
    return n;
  }
  Extent extent() const { return {1, steps(), count()}; }
};

inline void check_like_x(const Tensor& x, const OptionalTensor& tensor, const char* name, int64_t numel) {
  if (!tensor) {
    return;
  }
  STD_TORCH_CHECK(tensor->scalar_type() == x.scalar_type(), name, " must have the dtype of x");
  STD_TORCH_CHECK(tensor->is_cuda() == x.is_cuda() && tensor->get_device_index() == x.get_device_index(),
                  name, " must be on the device of x");
  STD_TORCH_CHECK(tensor->is_contiguous(), name, " must be contiguous");
  STD_TORCH_CHECK(tensor->numel() == numel, name, " must have ", numel, " elements, got ", tensor->numel());
}

inline void check(const Neurons& problem) {
  const Tensor& x = problem.x;
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double,
                  "x must have dtype float32 or float64");
  STD_TORCH_CHECK(x.is_contiguous(), "x must be contiguous");
  STD_TORCH_CHECK(problem.given_steps >= -1, "steps must be -1 or more, got ", problem.given_steps);
  STD_TORCH_CHECK(problem.constant_input() || x.dim() > 0, "x must have a time axis, or steps be given");
  const int64_t n = problem.count();
  check_like_x(x, problem.membrane, "membrane", n);
  for (const auto* parameter : {&problem.beta, &problem.threshold}) {
    if (*parameter) {
      const int64_t period = (*parameter)->numel();
      check_like_x(x, *parameter, "beta or threshold", period);
      STD_TORCH_CHECK(n == 0 || (period > 0 && n % period == 0),
                      "beta and threshold must repeat evenly over the neurons");
    }
  }
  if (aoti_torch_grad_mode_is_enabled()) {
    for (const Tensor* tensor :
         {&x, problem.membrane ? &*problem.membrane : nullptr, problem.beta ? &*problem.beta : nullptr,
          problem.threshold ? &*problem.threshold : nullptr}) {
      STD_TORCH_CHECK(tensor == nullptr || !requires_grad(*tensor),
                      "an argument requires grad, and this operator has no derivative of its own; call "
                      "lif_cuda.functional.lif, or run under torch.no_grad()");
    }
  }
}

template <typename S>
const S* read(const OptionalTensor& tensor) {
  return tensor ? static_cast<const S*>(tensor->const_data_ptr()) : nullptr;
}

template <typename S>
Parameter<S> parameter_of(const OptionalTensor& tensor, double value) {
  return {read<S>(tensor), tensor && tensor->numel() > 0 ? tensor->numel() : 1, static_cast<S>(value)};
}

template <typename S>
Series<const S> input_of(const Neurons& problem) {
  return {static_cast<const S*>(problem.x.const_data_ptr()), 0,
          problem.constant_input() ? 0 : problem.count()};
}

// The tensors that a call returns, in the order in which they are asked for.
class Returned {
 public:
  explicit Returned(const Tensor& like) : like_(like) {}

  // A new tensor if `asked`, and its memory; otherwise null.
  template <typename S>
  S* add(bool asked, const Shape& shape) {
    if (!asked) {
      return nullptr;
    }
    tensors_.push_back(torch::stable::new_empty(like_, shape));
    return static_cast<S*>(tensors_.back().mutable_data_ptr());
  }

  std::vector<Tensor> take() { return std::move(tensors_); }

 private:
  const Tensor& like_;
  std::vector<Tensor> tensors_;
};

// Run `launch(const Forward<S>&)` on the tensors of a call of lif_forward.
template <typename S, typename Launch>
std::vector<Tensor> forward(const Neurons& problem, int64_t outputs, int64_t checkpoint_every,
                            const Launch& launch) {
  check(problem);
  STD_TORCH_CHECK(!(outputs & kCheckpoints) || checkpoint_every > 0, "checkpoint_every must be above 0");
  const Shape features = problem.features();
  Forward<S> args;
  args.extent = problem.extent();
  args.x = input_of<S>(problem);
  args.membrane = read<S>(problem.membrane);
  args.beta = parameter_of<S>(problem.beta, problem.beta_value);
  args.threshold = parameter_of<S>(problem.threshold, problem.threshold_value);
  args.checkpoint_every = checkpoint_every;

  Returned returned(problem.x);
  args.spikes = {returned.add<S>(outputs & kSpikes, with_leading(args.extent.steps, features)), 0,
                 args.extent.inner};
  args.count = returned.add<S>(outputs & kCount, features);
  args.final_membrane = returned.add<S>(outputs & kMembrane, features);
  if (outputs & kCheckpoints) {
    const int64_t chunks = (args.extent.steps + checkpoint_every - 1) / checkpoint_every;
    args.checkpoints = returned.add<S>(true, with_leading(chunks > 0 ? chunks - 1 : 0, features));
  }
  if (args.extent.inner > 0) {
    launch(args);
  }
  return returned.take();
}

struct Gradients {
  const OptionalTensor& checkpoints;
  int64_t checkpoint_every;
  const OptionalTensor& spikes;
  const OptionalTensor& count;
  const OptionalTensor& membrane;
  int64_t surrogate;
  double slope;
  double scale;
  bool detach_reset;
};

// How the kernels read the gradient of the spikes, or of their count, as it lies.
template <typename S>
void set_grad_out(Backward<S>& args, const Neurons& problem, const Gradients& gradients) {
  const int64_t n = args.extent.inner;
  const bool counted = gradients.count.has_value();
  const OptionalTensor& given = counted ? gradients.count : gradients.spikes;
  STD_TORCH_CHECK(!(gradients.count && gradients.spikes),
                  "only one of grad_spikes and grad_count can be given");
  if (!given) {
    return;
  }
  const Tensor& grad = *given;
  STD_TORCH_CHECK(grad.scalar_type() == problem.x.scalar_type(), "the gradient must have the dtype of x");
  STD_TORCH_CHECK(
      grad.is_cuda() == problem.x.is_cuda() && grad.get_device_index() == problem.x.get_device_index(),
      "the gradient must be on the device of x");
  STD_TORCH_CHECK(grad.numel() == (counted ? n : n * args.extent.steps),
                  "the gradient must have the shape of the output");
  if (grad.numel() == 0) {
    return;
  }
  args.grad_out.data = static_cast<const S*>(grad.const_data_ptr());
  const auto strides = grad.strides();
  const auto sizes = grad.sizes();
  const size_t first = counted ? 0 : 1;
  args.grad_out.time_stride = counted ? 0 : strides[0];
  // The features of one step: all at one address, or dense.
  bool uniform = true;
  bool dense = true;
  int64_t expected = 1;
  for (size_t i = sizes.size(); i-- > first;) {
    uniform = uniform && (sizes[i] == 1 || strides[i] == 0);
    dense = dense && (sizes[i] == 1 || strides[i] == expected);
    expected *= sizes[i];
  }
  STD_TORCH_CHECK(uniform || dense, "the gradient must be dense within a time step, or constant");
  args.grad_out_uniform = uniform && !dense;
}

// Run `launch(const Backward<S>&)` on the tensors of a call of lif_backward. A parameter's partial
// gradients, one a neuron, are brought to its shape by `reduce(partial, rows, parameter)`.
template <typename S, typename Launch, typename Reduce>
std::vector<Tensor> backward(const Neurons& problem, const Gradients& gradients, int64_t wanted,
                             const Launch& launch, const Reduce& reduce) {
  check(problem);
  const Shape features = problem.features();
  Backward<S> args;
  args.extent = problem.extent();
  args.x = input_of<S>(problem);
  args.membrane = read<S>(problem.membrane);
  args.beta = parameter_of<S>(problem.beta, problem.beta_value);
  args.threshold = parameter_of<S>(problem.threshold, problem.threshold_value);
  STD_TORCH_CHECK(gradients.surrogate == static_cast<int64_t>(lif::Shape::fast_sigmoid), "unknown surrogate ",
                  gradients.surrogate);
  args.options = {static_cast<lif::Shape>(gradients.surrogate), static_cast<S>(gradients.slope),
                  static_cast<S>(gradients.scale), gradients.detach_reset};

  const int64_t n = args.extent.inner;
  const int64_t steps = args.extent.steps;
  args.chunk = steps > 0 ? steps : 1;
  if (gradients.checkpoints) {
    STD_TORCH_CHECK(gradients.checkpoint_every > 0, "checkpoint_every must be above 0");
    args.chunk = std::min(gradients.checkpoint_every, args.chunk);
    const int64_t chunks = (steps + args.chunk - 1) / args.chunk;
    check_like_x(problem.x, gradients.checkpoints, "checkpoints", chunks > 0 ? (chunks - 1) * n : 0);
    args.checkpoints = read<S>(gradients.checkpoints);
  }
  set_grad_out(args, problem, gradients);
  check_like_x(problem.x, gradients.membrane, "grad_membrane", n);
  args.grad_final_membrane = read<S>(gradients.membrane);
  STD_TORCH_CHECK(!(wanted & kGradBeta) || problem.beta, "the gradient of a beta that is a number");
  STD_TORCH_CHECK(!(wanted & kGradThreshold) || problem.threshold,
                  "the gradient of a threshold that is a number");

  Returned returned(problem.x);
  S* grad_x = returned.add<S>(wanted & kGradX, shape_of(problem.x));
  if (problem.constant_input()) {
    args.grad_x_sum = grad_x;
  } else {
    args.grad_x = {grad_x, 0, n};
  }
  args.grad_membrane = returned.add<S>(wanted & kGradMembrane, features);
  // A parameter with a value for each neuron has its gradient written in place; the others need a partial
  // a neuron (4 / T bytes a neuron-step in fp32) and a reduction.
  Returned partials(problem.x);
  const auto parameter_gradient = [&](bool asked, const OptionalTensor& parameter) -> S* {
    if (!asked) {
      return nullptr;
    }
    return parameter->numel() == n ? returned.add<S>(true, shape_of(*parameter))
                                   : partials.add<S>(true, Shape{n});
  };
  args.grad_beta = parameter_gradient(wanted & kGradBeta, problem.beta);
  args.grad_threshold = parameter_gradient(wanted & kGradThreshold, problem.threshold);
  if (n > 0) {
    launch(args);
  }

  std::vector<Tensor> reduced = partials.take();
  std::vector<Tensor> result = returned.take();
  auto partial = reduced.begin();
  const auto finish = [&](bool asked, const OptionalTensor& parameter, size_t position) {
    if (asked && parameter->numel() != n) {
      result.insert(result.begin() + static_cast<std::ptrdiff_t>(position), reduce(*partial++, *parameter));
    }
  };
  const size_t before = ((wanted & kGradX) != 0) + ((wanted & kGradMembrane) != 0);
  finish(wanted & kGradBeta, problem.beta, before);
  finish(wanted & kGradThreshold, problem.threshold, before + ((wanted & kGradBeta) != 0));
  return result;
}

}  // namespace lif::bindings
