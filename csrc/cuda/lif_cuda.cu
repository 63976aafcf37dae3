#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/kernels.cuh"
#include "cuda/launch.h"

namespace lif::cuda {
namespace {

// Neurons a wide thread owns: what 16 bytes of state hold.
template <typename T>
constexpr int kWide = 16 / sizeof(StateOf<T>);

// Whether every access of a wide thread is aligned. Where the inner size is not a multiple of the width, each
// row of a time step starts elsewhere, so it is not only the end that is misaligned.
class Alignment {
 public:
  explicit Alignment(int width) : width_(width) {}

  template <typename T>
  Alignment& pointer(const T* data) {
    aligned_ = aligned_ && reinterpret_cast<uintptr_t>(data) % (sizeof(T) * width_) == 0;
    return *this;
  }

  Alignment& stride(int64_t stride) {
    aligned_ = aligned_ && stride % width_ == 0;
    return *this;
  }

  // One value a row is read by itself, wherever it lies.
  template <typename T>
  Alignment& series(const Series<T>& series) {
    return series.uniform ? *this
                          : pointer(series.data).stride(series.outer_stride).stride(series.time_stride);
  }

  explicit operator bool() const { return aligned_; }

 private:
  int width_;
  bool aligned_ = true;
};

template <typename T>
bool fits_wide(const Forward<T>& args) {
  return bool(Alignment(kWide<T>)
                  .stride(args.extent.inner)
                  .series(args.x)
                  .series(args.spikes)
                  .pointer(args.state[kMembrane])
                  .pointer(args.count)
                  .pointer(args.rate)
                  .pointer(args.final_state[kMembrane])
                  .pointer(args.checkpoints));
}

template <typename T>
bool fits_wide(const Backward<T>& args) {
  return bool(Alignment(kWide<T>)
                  .stride(args.extent.inner)
                  .series(args.x)
                  .series(args.grad_x)
                  .series(args.grad_spikes)
                  .series(args.grad_count)
                  .series(args.grad_rate)
                  .pointer(args.state[kMembrane])
                  .pointer(args.checkpoints)
                  .pointer(args.grad_final[kMembrane])
                  .pointer(args.grad_x_sum)
                  .pointer(args.grad_state[kMembrane])
                  .pointer(args.grad_parameter[kBeta])
                  .pointer(args.grad_parameter[kThreshold]));
}

// A block of backward is halved down to one warp where its columns do not fit the shared memory.
constexpr int kFewestThreads = 32;

int64_t blocks_for(const Extent& extent, int width, int threads) {
  const int64_t per_block = static_cast<int64_t>(width) * threads;
  return (neurons(extent) + per_block - 1) / per_block;
}

int attribute(cudaDeviceAttr which) {
  int device = 0;
  int value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, which, device);
  return value;
}

// Shared memory that a block of the current device may have.
int most_shared_bytes() { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

// Wide threads move more bytes an instruction, but where they are so few that multiprocessors stay idle, four
// times as many narrow ones hide more latency: 65,536 neurons are 64 wide blocks forward for 132 of them.
template <typename T>
bool worth_wide(const Extent& extent, int threads) {
  return blocks_for(extent, kWide<T>, threads) >= attribute(cudaDevAttrMultiProcessorCount);
}

template <typename T>
cudaError_t forward_on(void (*kernel)(Forward<T>), int width, int batch, const Forward<T>& args,
                       cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(blocks_for(args.extent, width, kForwardThreads));
  const size_t column = batch * sizeof(StateOf<T>);  // 48 KiB a block at the most, which needs no permission
  kernel<<<blocks, kForwardThreads, column * kForwardThreads, stream>>>(args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t backward_on(void (*kernel)(Backward<T>), int width, int kept, Backward<T> args,
                        cudaStream_t stream) {
  args.chunk = std::max<int64_t>(1, std::min(args.chunk, args.extent.steps));
  // The limit of a kernel is shared by all host threads, so it is always set to the same value, the most the
  // device allows; what a launch takes is its own.
  if (const auto error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared_bytes());
      error != cudaSuccess) {
    return error;
  }
  // A neuron of five kept values in fp64 takes 140 KiB for 28 steps of 128 threads; devices below 9.0 but 8.0
  // have 64 or 99. Fewer threads a block need less.
  const auto column = static_cast<size_t>(args.chunk * kept * width) * sizeof(StateOf<T>);
  int threads = kBackwardThreads;
  while (threads > kFewestThreads && column * threads > static_cast<size_t>(most_shared_bytes())) {
    threads /= 2;
  }
  const auto blocks = static_cast<unsigned>(blocks_for(args.extent, width, threads));
  kernel<<<blocks, threads, column * threads, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

template <typename T>
int launch_forward(const Forward<T>& args, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (!is_plain(args)) {
    return forward_on(&general_forward_kernel<T>, 1, 0, args, on);
  }
  return fits_wide(args) && worth_wide<T>(args.extent, kForwardThreads)
             ? forward_on(&plain_forward_kernel<T, kWide<T>>, kWide<T>, 0, args, on)
             : forward_on(&plain_forward_kernel<T, 1>, 1, kForwardBatch<T>, args, on);
}

template <typename T>
int launch_backward(const Backward<T>& args, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const bool wide = is_plain(args) && fits_wide(args) && worth_wide<T>(args.extent, kBackwardThreads);
  // A narrow thread has registers for a batch: longer chunks, which only a caller of the raw operator makes,
  // go the general way.
  if (!is_plain(args) || (!wide && std::min(args.chunk, args.extent.steps) > kBackwardBatch)) {
    return backward_on(&general_backward_kernel<T>, 1, args.bits == nullptr ? kept_values(args.neuron) : 0,
                       args, on);
  }
  return wide ? backward_on(&plain_backward_kernel<T, kWide<T>>, kWide<T>, 1, args, on)
              : backward_on(&plain_backward_kernel<T, 1>, 1, 2, args, on);
}

template <typename T>
int64_t longest_chunk(const Neuron<StateOf<T>>& neuron) {
  const int64_t values = std::max<int64_t>(kWide<T>, kept_values(neuron));
  return most_shared_bytes() / (values * kFewestThreads * static_cast<int64_t>(sizeof(StateOf<T>)));
}

template int launch_forward<float>(const Forward<float>&, void*);
template int launch_forward<double>(const Forward<double>&, void*);
template int launch_forward<Half>(const Forward<Half>&, void*);
template int launch_forward<BFloat16>(const Forward<BFloat16>&, void*);
template int launch_backward<float>(const Backward<float>&, void*);
template int launch_backward<double>(const Backward<double>&, void*);
template int launch_backward<Half>(const Backward<Half>&, void*);
template int launch_backward<BFloat16>(const Backward<BFloat16>&, void*);
template int64_t longest_chunk<float>(const Neuron<float>&);
template int64_t longest_chunk<double>(const Neuron<double>&);
template int64_t longest_chunk<Half>(const Neuron<float>&);
template int64_t longest_chunk<BFloat16>(const Neuron<float>&);

}  // namespace lif::cuda
