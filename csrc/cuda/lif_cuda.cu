#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/kernels.cuh"
#include "cuda/launch.h"

namespace lif::cuda {
namespace {

// Neurons a thread: 16 bytes' worth where every access is then aligned, else one. Where the inner size is
// not a multiple, each row of a time step starts elsewhere, so it is not only the end that is misaligned.
template <typename S>
constexpr int kWide = 16 / sizeof(S);

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

  template <typename T>
  Alignment& series(const Series<T>& series) {
    return pointer(series.data).stride(series.outer_stride).stride(series.time_stride);
  }

  explicit operator bool() const { return aligned_; }

 private:
  int width_;
  bool aligned_ = true;
};

template <typename S>
bool fits_wide(const Forward<S>& args) {
  return bool(Alignment(kWide<S>)
                  .stride(args.extent.inner)
                  .series(args.x)
                  .series(args.spikes)
                  .pointer(args.membrane)
                  .pointer(args.count)
                  .pointer(args.final_membrane)
                  .pointer(args.checkpoints));
}

template <typename S>
bool fits_wide(const Backward<S>& args) {
  Alignment alignment(kWide<S>);
  alignment.stride(args.extent.inner)
      .series(args.x)
      .series(args.grad_x)
      .pointer(args.membrane)
      .pointer(args.checkpoints)
      .pointer(args.grad_final_membrane)
      .pointer(args.grad_x_sum)
      .pointer(args.grad_membrane)
      .pointer(args.grad_beta)
      .pointer(args.grad_threshold);
  if (!args.grad_out_uniform) {
    alignment.series(args.grad_out);
  }
  return bool(alignment);
}

int64_t blocks_for(const Extent& extent, int width, int threads) {
  const int64_t per_block = static_cast<int64_t>(width) * threads;
  return (neurons(extent) + per_block - 1) / per_block;
}

// Shared memory that a block of the current device may have.
int most_shared_bytes() {
  int device = 0;
  int bytes = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return bytes;
}

template <typename S, int W>
cudaError_t forward_as(const Forward<S>& args, cudaStream_t stream) {
  const int64_t blocks = blocks_for(args.extent, W, kForwardThreads);
  forward_kernel<S, W><<<static_cast<unsigned>(blocks), kForwardThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

template <typename S, int W>
cudaError_t backward_as(Backward<S> args, cudaStream_t stream) {
  args.chunk = std::max<int64_t>(1, std::min(args.chunk, args.extent.steps));
  const auto kernel =
      args.options.detach_reset ? &backward_kernel<S, W, true> : &backward_kernel<S, W, false>;
  // The limit of a kernel is shared by all host threads, so it is always set to the same value, the most the
  // device allows; what a launch takes is its own.
  if (const auto error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared_bytes());
      error != cudaSuccess) {
    return error;
  }
  const auto bytes = static_cast<size_t>(args.chunk * W * kBackwardThreads) * sizeof(S);
  const int64_t blocks = blocks_for(args.extent, W, kBackwardThreads);
  kernel<<<static_cast<unsigned>(blocks), kBackwardThreads, bytes, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

template <typename S>
int launch_forward(const Forward<S>& args, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  return fits_wide(args) ? forward_as<S, kWide<S>>(args, on) : forward_as<S, 1>(args, on);
}

template <typename S>
int launch_backward(const Backward<S>& args, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  return fits_wide(args) ? backward_as<S, kWide<S>>(args, on) : backward_as<S, 1>(args, on);
}

template <typename S>
int64_t longest_chunk() {
  return most_shared_bytes() / static_cast<int64_t>(kWide<S> * kBackwardThreads * sizeof(S));
}

template int launch_forward<float>(const Forward<float>&, void*);
template int launch_forward<double>(const Forward<double>&, void*);
template int launch_backward<float>(const Backward<float>&, void*);
template int launch_backward<double>(const Backward<double>&, void*);
template int64_t longest_chunk<float>();
template int64_t longest_chunk<double>();

}  // namespace lif::cuda
