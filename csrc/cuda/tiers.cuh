// Which kernel a call fits, and launching it.
#pragma once

#include <algorithm>
#include <atomic>

#include "cuda/access.cuh"
#include "cuda/device.h"
#include "cuda/long_forward.cuh"

namespace lif::cuda {

// Where a launch goes.
struct On {
  Device device;
  cudaStream_t stream;
};

// Shared memory that a block has without asking.
constexpr size_t kSharedUnasked = 48 * 1024;

// Enqueue a kernel. One that needs more shared memory than a block has by itself asks for the most there is,
// once for each device: host threads share the limit of a kernel, and all set it to the same.
template <auto kKernel, typename Args>
int launch(const Args& args, int64_t blocks, int threads, size_t shared_bytes, const On& on) {
  static std::array<std::atomic<bool>, kMostDevices> asked{};
  if (shared_bytes > kSharedUnasked && !asked[on.device.index].load(std::memory_order_relaxed)) {
    if (const auto error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                on.device.shared_bytes);
        error != cudaSuccess) {
      return error;
    }
    asked[on.device.index].store(true, std::memory_order_relaxed);
  }
  Args copy = args;
  void* arguments[] = {&copy};
  const auto error =
      cudaLaunchKernel(kKernel, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)),
                       arguments, shared_bytes, on.stream);
  if (error != cudaSuccess) {
    cudaGetLastError();  // CUDA keeps it too, and would hand it to whoever asks next
  }
  return error;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int64_t blocks_for(const Extent& extent, int width, int threads) {
  return ceil_div(neurons(extent), int64_t{width} * threads);
}

// Whether every access of a thread with `width` neurons is aligned. Where the inner size is not a multiple of
// the width, each row of a time step starts elsewhere, so it is not only the end that is misaligned.
class Alignment {
 public:
  explicit Alignment(int width) : width_(width) {}

  template <typename T>
  Alignment& pointer(const T* data) {
    aligned_ = aligned_ && reinterpret_cast<uintptr_t>(data) % (sizeof(T) * width_) == 0;
    return *this;
  }

  template <typename T, int n>
  Alignment& pointers(T* const (&data)[n]) {
    for (const T* each : data) {
      pointer(each);
    }
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
bool is_aligned(const Forward<T>& args, int width) {
  return bool(Alignment(width)
                  .stride(args.extent.inner)
                  .series(args.x)
                  .series(args.spikes)
                  .pointers(args.state)
                  .pointers(args.final_state)
                  .pointer(args.count)
                  .pointer(args.rate)
                  .pointer(args.checkpoints)
                  .pointer(args.bits));
}

template <typename T>
bool is_aligned(const Backward<T>& args, int width) {
  return bool(Alignment(width)
                  .stride(args.extent.inner)
                  .series(args.x)
                  .series(args.grad_x)
                  .series(args.grad_spikes)
                  .series(args.grad_count)
                  .series(args.grad_rate)
                  .pointers(args.state)
                  .pointers(args.grad_final)
                  .pointers(args.grad_state)
                  .pointers(args.grad_parameter)
                  .pointer(args.grad_x_sum)
                  .pointer(args.checkpoints)
                  .pointer(args.bits));
}

// Few neurons for long. On an H200 of 132 multiprocessors a prototype's long kernels were ahead at [100,
// 65536] (19 and 33 us where wide ones took 25 and 43), and behind at [25, 128000].
constexpr int64_t kFewNeurons = 512;  // a multiprocessor

inline bool few_for_long(const Extent& extent, const Device& device) {
  return extent.steps > 2 * kStage && neurons(extent) <= kFewNeurons * device.multiprocessors;
}

// Steps are counted in 32 bits in all kernels but the general ones.
constexpr int64_t kMostSteps = int64_t{1} << 30;

// Networks are trained in these types, and have lean kernels; in fp64, which is for checks, the kernels for
// any flow and the general ones do.
template <typename T>
constexpr bool kIsTrainedIn = !std::is_same_v<T, double>;

// What no compiled member has: a gain, or a value to reset to, that differs between neurons.
template <typename S>
bool is_uniform(const Parameter<S>* parameter) {
  return parameter[kGain].values == nullptr && parameter[kResetTo].values == nullptr;
}

}  // namespace lif::cuda
