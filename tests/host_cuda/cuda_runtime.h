// A stand-in for CUDA on the host, for tests only: just enough for csrc/cuda to be compiled by a C++ compiler
// and run. This is what a kernel and its launcher see; machine.h is what the tests see.
#pragma once

#include <cstddef>
#include <cstdint>

// NOLINTBEGIN(bugprone-reserved-identifier): CUDA's own names.
#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
// NOLINTEND(bugprone-reserved-identifier)

using cudaError_t = int;
using cudaStream_t = void*;
enum : cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidDevice = 101 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaDevAttrMultiProcessorCount };

struct dim3 {
  unsigned x;
  unsigned y;
  unsigned z;
  // NOLINTNEXTLINE(google-explicit-constructor): a number is a dim3 in CUDA.
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct HostIndex {
  unsigned x = 0;
};
extern HostIndex gridDim, blockDim, blockIdx, threadIdx;

// Each waits for the threads, of the block or of the warp, that have not left the kernel. There is no mask:
// only whole warps meet.
// NOLINTBEGIN(bugprone-reserved-identifier)
void __syncthreads();
void __syncwarp();
// NOLINTEND(bugprone-reserved-identifier)

namespace host_cuda {

// A kernel whose type is forgotten, and the function that remembers it.
struct Kernel {
  void (*address)();
  void (*call)(void (*address)(), void** args);
};

cudaError_t launch(const Kernel& kernel, dim3 grid, dim3 block, void** args, size_t shared_bytes);
cudaError_t allow_shared(void (*address)(), int bytes);

}  // namespace host_cuda

// A kernel here has one argument, a struct.
template <typename Args>
cudaError_t cudaLaunchKernel(void (*kernel)(Args), dim3 grid, dim3 block, void** args,
                             size_t shared_bytes = 0, cudaStream_t = nullptr) {
  const auto call = [](void (*address)(), void** arguments) {
    reinterpret_cast<void (*)(Args)>(address)(*static_cast<const Args*>(arguments[0]));
  };
  return host_cuda::launch({reinterpret_cast<void (*)()>(kernel), call}, grid, block, args, shared_bytes);
}

template <typename Args>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Args), cudaFuncAttribute, int bytes) {
  return host_cuda::allow_shared(reinterpret_cast<void (*)()>(kernel), bytes);
}

cudaError_t cudaGetLastError();
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device);
