// The CUDA launchers and kernels, compiled for the host, behind a C interface for ctypes.
//
// launchers.inl is csrc/cuda/lif_cuda.cu with its kernel<<<...>>>(...) written as a call, which is all that
// a C++ compiler does not understand; tests/test_cuda_on_host.py makes it.
#include "launchers.inl"

namespace {

struct HostSeries {
  void* data;
  int64_t outer_stride;
  int64_t time_stride;
};

struct HostParameter {
  const void* values;
  int64_t period;
  double value;
};

// Forward and Backward in one, with plain types, the same for float and double. Mirrored by `Call` in
// tests/test_cuda_on_host.py.
struct Call {
  int64_t outer, steps, inner;
  HostSeries x, spikes, grad_out, grad_x;
  HostParameter beta, threshold;
  const void *membrane, *grad_final_membrane;
  void *count, *final_membrane, *checkpoints;
  void *grad_x_sum, *grad_membrane, *grad_beta, *grad_threshold;
  int64_t chunk, grad_out_uniform, detach_reset;
  double slope, scale;
};

template <typename S>
lif::Series<S> series(const HostSeries& from) {
  return {static_cast<S*>(from.data), from.outer_stride, from.time_stride};
}

template <typename S>
lif::Parameter<S> parameter(const HostParameter& from) {
  return {static_cast<const S*>(from.values), from.period, static_cast<S>(from.value)};
}

template <typename S>
int forward(const Call& call) {
  lif::Forward<S> args;
  args.extent = {call.outer, call.steps, call.inner};
  args.x = series<const S>(call.x);
  args.membrane = static_cast<const S*>(call.membrane);
  args.beta = parameter<S>(call.beta);
  args.threshold = parameter<S>(call.threshold);
  args.spikes = series<S>(call.spikes);
  args.count = static_cast<S*>(call.count);
  args.final_membrane = static_cast<S*>(call.final_membrane);
  args.checkpoints = static_cast<S*>(call.checkpoints);
  args.checkpoint_every = call.chunk;
  return lif::cuda::launch_forward(args, nullptr);
}

template <typename S>
int backward(const Call& call) {
  lif::Backward<S> args;
  args.extent = {call.outer, call.steps, call.inner};
  args.x = series<const S>(call.x);
  args.membrane = static_cast<const S*>(call.membrane);
  args.beta = parameter<S>(call.beta);
  args.threshold = parameter<S>(call.threshold);
  args.options = {lif::Shape::fast_sigmoid, static_cast<S>(call.slope), static_cast<S>(call.scale),
                  call.detach_reset != 0};
  args.checkpoints = static_cast<const S*>(call.checkpoints);
  args.chunk = call.chunk;
  args.grad_out = series<const S>(call.grad_out);
  args.grad_out_uniform = call.grad_out_uniform != 0;
  args.grad_final_membrane = static_cast<const S*>(call.grad_final_membrane);
  args.grad_x = series<S>(call.grad_x);
  args.grad_x_sum = static_cast<S*>(call.grad_x_sum);
  args.grad_membrane = static_cast<S*>(call.grad_membrane);
  args.grad_beta = static_cast<S*>(call.grad_beta);
  args.grad_threshold = static_cast<S*>(call.grad_threshold);
  return lif::cuda::launch_backward(args, nullptr);
}

template <typename S, int W>
bool launched_width() {
  for (const void* kernel : {reinterpret_cast<const void*>(&lif::cuda::forward_kernel<S, W>),
                             reinterpret_cast<const void*>(&lif::cuda::backward_kernel<S, W, false>),
                             reinterpret_cast<const void*>(&lif::cuda::backward_kernel<S, W, true>)}) {
    if (kernel == host_cuda::last_launch.kernel) {
      return true;
    }
  }
  return false;
}

}  // namespace

extern "C" {

int64_t host_call_size() { return sizeof(Call); }

int host_forward(const Call* call, int is_double) {
  return is_double != 0 ? forward<double>(*call) : forward<float>(*call);
}

int host_backward(const Call* call, int is_double) {
  return is_double != 0 ? backward<double>(*call) : backward<float>(*call);
}

int64_t host_longest_chunk(int is_double) {
  return is_double != 0 ? lif::cuda::longest_chunk<double>() : lif::cuda::longest_chunk<float>();
}

// Neurons a thread in the last launch.
int host_launched_width() {
  return launched_width<float, 4>()                                  ? 4
         : launched_width<double, 2>()                               ? 2
         : launched_width<float, 1>() || launched_width<double, 1>() ? 1
                                                                     : 0;
}

// What the stand-in for CUDA found wrong in all launches so far; empty if nothing.
const char* host_fault() { return host_cuda::fault.c_str(); }
}
