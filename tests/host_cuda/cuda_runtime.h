// A stand-in for CUDA on the host, for tests only: just enough for csrc/cuda to be compiled by a C++
// compiler and run, one thread after another.
//
// That is a faithful machine for these kernels because their threads never meet: no synchronisation, and no
// atomics but a sum of integers. The one thing that running in turn could hide is a thread that relies on, or
// tramples on, another's shared memory. So a thread starts with all of it poisoned, and each word it writes
// becomes its own: a second writer is a fault. Order can hide nothing else, and it runs backwards here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define HOST_CUDA_FORBID(address, size) __asan_poison_memory_region(address, size)
#define HOST_CUDA_ALLOW(address, size) __asan_unpoison_memory_region(address, size)
#else
#define HOST_CUDA_FORBID(address, size) static_cast<void>(0)
#define HOST_CUDA_ALLOW(address, size) static_cast<void>(0)
#endif

// NOLINTBEGIN(bugprone-reserved-identifier): CUDA's own names.
#define __global__
#define __shared__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
// NOLINTEND(bugprone-reserved-identifier)

using cudaError_t = int;
using cudaStream_t = void*;
enum : cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaDevAttrMultiProcessorCount };

struct HostIndex {
  unsigned x = 0;
};
inline HostIndex blockIdx, blockDim, threadIdx;

namespace host_cuda {

// Of an H100 or H200: what a block may ask for, and what it gets without asking.
constexpr int kSharedOptin = 227 * 1024;
constexpr int kSharedDefault = 48 * 1024;
constexpr size_t kGuard = 4096;
constexpr unsigned char kPoison = 0xff;  // four or eight of them are a NaN
constexpr uint32_t kPoisonWord = 0xffffffff;

}  // namespace host_cuda

namespace lif::cuda {
// What the kernels declare as `extern __shared__`.
alignas(16) unsigned char shared[host_cuda::kSharedOptin + host_cuda::kGuard];
}  // namespace lif::cuda

namespace host_cuda {

// What the last launch was, for the tests to look at.
struct Launch {
  const void* kernel = nullptr;
  unsigned blocks = 0;
  unsigned threads = 0;
  size_t shared_bytes = 0;
};
inline Launch last_launch;
inline std::string fault;
inline int shared_optin = kSharedOptin;  // at the most kSharedOptin
inline int multiprocessors = 1;          // so few that the smallest grid is wide where it can be
inline cudaError_t last_error = cudaSuccess;
inline std::map<const void*, int> shared_limit;

// The words of shared memory that the threads of a block have written so far.
class Ownership {
 public:
  explicit Ownership(size_t bytes) : bytes_(bytes), owner_(bytes / sizeof(uint32_t), 0) {}

  void poison() const { std::memset(lif::cuda::shared, kPoison, bytes_ + kGuard); }

  void claim(unsigned thread) {
    const auto* words = reinterpret_cast<const uint32_t*>(lif::cuda::shared);
    for (size_t i = 0; i < owner_.size(); ++i) {
      if (words[i] != kPoisonWord) {
        if (owner_[i] != 0) {
          fault = "threads " + std::to_string(owner_[i] - 1) + " and " + std::to_string(thread) +
                  " both wrote word " + std::to_string(i) + " of shared memory";
        }
        owner_[i] = thread + 1;
      }
    }
    HOST_CUDA_ALLOW(lif::cuda::shared + bytes_, kGuard);
    for (size_t i = bytes_; i < bytes_ + kGuard; ++i) {
      if (lif::cuda::shared[i] != kPoison) {
        fault = "thread " + std::to_string(thread) + " wrote behind the block's shared memory";
      }
    }
  }

 private:
  size_t bytes_;
  std::vector<unsigned> owner_;
};

// kernel<<<blocks, threads, shared_bytes, stream>>>(args)
template <typename Args>
void launch(void (*kernel)(Args), unsigned blocks, unsigned threads, size_t shared_bytes, cudaStream_t,
            const Args& args) {
  last_launch = {reinterpret_cast<const void*>(kernel), blocks, threads, shared_bytes};
  const auto limit = shared_limit.find(last_launch.kernel);
  const int allowed = limit == shared_limit.end() ? kSharedDefault : limit->second;
  if (blocks == 0 || threads == 0 || threads > 1024 || shared_bytes > static_cast<size_t>(allowed)) {
    last_error = cudaErrorInvalidValue;
    return;
  }
  blockDim.x = threads;
  for (unsigned block = blocks; block-- > 0;) {
    Ownership ownership(shared_bytes);
    for (unsigned thread = threads; thread-- > 0;) {
      ownership.poison();
      HOST_CUDA_FORBID(lif::cuda::shared + shared_bytes, kGuard);
      blockIdx.x = block;
      threadIdx.x = thread;
      kernel(args);
      ownership.claim(thread);
    }
  }
}

}  // namespace host_cuda

inline cudaError_t cudaGetLastError() {
  const cudaError_t error = host_cuda::last_error;
  host_cuda::last_error = cudaSuccess;
  return error;
}

template <typename Args>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Args), cudaFuncAttribute, int bytes) {
  if (bytes < 0 || bytes > host_cuda::shared_optin) {
    return cudaErrorInvalidValue;
  }
  host_cuda::shared_limit[reinterpret_cast<const void*>(kernel)] = bytes;
  return cudaSuccess;
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = which == cudaDevAttrMultiProcessorCount ? host_cuda::multiprocessors : host_cuda::shared_optin;
  return cudaSuccess;
}
