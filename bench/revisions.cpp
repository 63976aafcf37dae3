// The CPU kernels of one revision, without torch, for revisions.py: compiled beside that revision's csrc.
#include "cpu/dispatch.h"

namespace {

// As in revisions.py. Tensors are [steps, neurons]; x is [neurons] where it is constant, and so is its
// gradient.
struct Call {
  int64_t steps, neurons, repeat, checkpoint_every;
  int32_t bfloat16, constant, reset_zero;
  const void* x;
  const void* grad;  // of the spikes; of the counts, in float, where x is constant
  void* spikes;
  void* grad_x;
  float* count;           // in place of the spikes, where it is given
  float* grad_beta;       // where it is given, beta is learned
  float* grad_threshold;  // and so is the threshold
  float* checkpoints;
};

template <typename T, typename Args>
void set_common(Args& args, const Call& call) {
  args.extent = {1, call.steps, call.neurons};
  args.x = {static_cast<const T*>(call.x), 0, call.constant ? 0 : call.neurons, false};
  args.parameter[lif::kBeta].value = 0.9F;
  args.parameter[lif::kThreshold].value = 1.0F;
  args.parameter[lif::kGain].value = 1.0F;
  args.neuron.reset = call.reset_zero ? lif::Reset::zero : lif::Reset::subtract;
}

template <typename T>
void forward(const Call& call) {
  lif::Forward<T> args;
  set_common<T>(args, call);
  args.count = call.count;
  if (call.count == nullptr) {
    args.spikes = {static_cast<T*>(call.spikes), 0, call.neurons, false};
  }
  args.checkpoints = call.checkpoints;
  args.checkpoint_every = call.checkpoint_every;
  const auto kernels = lif::cpu::active_kernels<T>();
  const auto tiling = lif::cpu::tile(args.extent, kernels.forward_neurons(args), 1);
  for (int64_t i = 0; i < call.repeat; ++i) {
    kernels.forward(args, tiling, 0, tiling.tasks);
  }
}

template <typename T>
void backward(const Call& call) {
  lif::Backward<T> args;
  set_common<T>(args, call);
  args.surrogate = {lif::Shape::fast_sigmoid, 10.0F, 1.0F};
  args.checkpoints = call.checkpoints;
  args.chunk = call.checkpoints == nullptr ? call.steps : call.checkpoint_every;
  args.grad_parameter[lif::kBeta] = call.grad_beta;
  args.grad_parameter[lif::kThreshold] = call.grad_threshold;
  if (call.count != nullptr) {
    args.grad_count = {static_cast<const float*>(call.grad), 0, 0, false};
  } else {
    args.grad_spikes = {static_cast<const T*>(call.grad), 0, call.neurons, false};
  }
  if (call.constant) {
    args.grad_x_sum = static_cast<T*>(call.grad_x);
  } else {
    args.grad_x = {static_cast<T*>(call.grad_x), 0, call.neurons, false};
  }
  const auto kernels = lif::cpu::active_kernels<T>();
  const auto tiling = lif::cpu::tile(args.extent, kernels.backward_neurons(args), 1);
  for (int64_t i = 0; i < call.repeat; ++i) {
    kernels.backward(args, tiling, 0, tiling.tasks);
  }
}

}  // namespace

extern "C" [[gnu::visibility("default")]] void run_forward(const Call* call) {
  call->bfloat16 ? forward<lif::BFloat16>(*call) : forward<float>(*call);
}

extern "C" [[gnu::visibility("default")]] void run_backward(const Call* call) {
  call->bfloat16 ? backward<lif::BFloat16>(*call) : backward<float>(*call);
}
