// Small kernels, right and wrong, that show what the machine does (test_host_cuda.py).
#include <cstdint>
#include <cstring>
#include <string>

#include "cuda_pipeline.h"
#include "cuda_runtime.h"
#include "machine.h"

namespace lif::cuda {

struct Args {
  const float* in;
  float* out;
  int size;
};

#define SHARED_FLOATS                                     \
  extern __shared__ __align__(16) unsigned char shared[]; \
  auto* floats = reinterpret_cast<float*>(shared)

enum class Flaw { none, no_syncthreads, one_syncthreads_left_out, no_syncwarp, early_wait };

// The running sums of 32 columns, of `size` rounds of 4 rows: one warp brings rows by copies in flight and
// sums them up, another doubles the sums and puts them out, a round behind.
template <Flaw kFlaw>
__global__ void ring_kernel(const Args args) {
  SHARED_FLOATS;
  constexpr ptrdiff_t kRows = 4;
  constexpr ptrdiff_t kStage = kRows * 32;
  constexpr ptrdiff_t kStages = 3;
  float* handed_over = floats + kStages * kStage;
  const ptrdiff_t rounds = args.size;
  const ptrdiff_t warp = threadIdx.x / 32;
  const ptrdiff_t lane = threadIdx.x % 32;
  const float* in = args.in + blockIdx.x * rounds * kStage;
  float* out = args.out + blockIdx.x * rounds * kStage;
  const auto fetch = [&](ptrdiff_t round) {
    if (round < rounds) {
      __pipeline_memcpy_async(floats + round % kStages * kStage + 4 * lane, in + round * kStage + 4 * lane,
                              16);
    }
    __pipeline_commit();
  };
  if (warp == 0) {
    for (ptrdiff_t round = 0; round < kStages - 1; ++round) {
      fetch(round);
    }
  }
  float sum = 0;
  for (ptrdiff_t round = 0; round <= rounds; ++round) {
    if (warp == 0 && round < rounds) {
      __pipeline_wait_prior(kStages - 2 + (kFlaw == Flaw::early_wait ? 1 : 0));
      if (kFlaw != Flaw::no_syncwarp) {
        __syncwarp();
      }
      fetch(round + kStages - 1);
      for (ptrdiff_t row = 0; row < kRows; ++row) {
        sum += floats[round % kStages * kStage + row * 32 + lane];
        handed_over[round % 2 * kStage + row * 32 + lane] = sum;
      }
    }
    if (warp == 1 && round > 0) {
      for (ptrdiff_t row = 0; row < kRows; ++row) {
        out[(round - 1) * kStage + row * 32 + lane] =
            2 * handed_over[(round - 1) % 2 * kStage + row * 32 + lane];
      }
    }
    if (kFlaw != Flaw::no_syncthreads && (kFlaw != Flaw::one_syncthreads_left_out || round != 3)) {
      __syncthreads();
    }
  }
}

// Threads behind `size` leave before the barrier; the others turn their order around.
__global__ void leaving_kernel(const Args args) {
  SHARED_FLOATS;
  const int t = static_cast<int>(threadIdx.x);
  if (t >= args.size) {
    return;
  }
  floats[t] = args.in[t];
  __syncthreads();
  args.out[t] = floats[args.size - 1 - t];
}

// Halves of a word may be two threads'.
__global__ void halves_kernel(const Args args) {
  SHARED_FLOATS;
  reinterpret_cast<uint16_t*>(floats)[threadIdx.x] = static_cast<uint16_t>(threadIdx.x);
  __syncthreads();
  args.out[threadIdx.x] = reinterpret_cast<uint16_t*>(floats)[threadIdx.x ^ 1];
}

__global__ void unwritten_kernel(const Args args) {
  SHARED_FLOATS;
  args.out[threadIdx.x] = floats[threadIdx.x];
}

// The value is the same, and already there.
__global__ void two_writers_kernel(const Args args) {
  SHARED_FLOATS;
  floats[0] = 1;
  args.out[threadIdx.x] = 0;
}

// Warps of which each lane reads its neighbour's word: right with the barrier, wrong without or between
// warps.
template <bool kBarrier>
__global__ void neighbour_kernel(const Args args) {
  SHARED_FLOATS;
  floats[threadIdx.x] = args.in[threadIdx.x];
  if (kBarrier) {
    __syncwarp();
  }
  args.out[threadIdx.x] = floats[threadIdx.x ^ static_cast<unsigned>(args.size)];
}

// Each thread reads a neighbour's word, which that one overwrites at about the same time.
__global__ void write_after_read_kernel(const Args args) {
  SHARED_FLOATS;
  floats[threadIdx.x] = args.in[threadIdx.x];
  __syncthreads();
  args.out[threadIdx.x] = floats[threadIdx.x ^ 1];
  floats[threadIdx.x] = 0;
}

// Writes where `size` says.
__global__ void behind_kernel(const Args args) {
  SHARED_FLOATS;
  floats[args.size] = 1;
}

// Half of a warp waits for the block, and half for the warp.
__global__ void deadlock_kernel(const Args args) {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  args.out[threadIdx.x] = 1;
}

// `size` bytes on their way.
__global__ void copy_kernel(const Args args) {
  SHARED_FLOATS;
  if (threadIdx.x == 0) {
    __pipeline_memcpy_async(floats, args.in, args.size);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    args.out[0] = floats[0];
  }
}

// To what is not shared memory.
__global__ void copy_outside_kernel(const Args args) {
  if (threadIdx.x == 0) {
    __pipeline_memcpy_async(args.out, args.in, args.size);
  }
}

__global__ void no_barrier_kernel(const Args args) {
  SHARED_FLOATS;
  floats[threadIdx.x] = args.in[threadIdx.x];
  args.out[threadIdx.x] = floats[threadIdx.x];
}

// 20 barriers, and between them a few loads or stores a thread.
__global__ void barriers_kernel(const Args args) {
  SHARED_FLOATS;
  const unsigned threads = blockDim.x;
  for (unsigned round = 0; round < 10; ++round) {
    for (unsigned i = 0; i < 8; ++i) {
      floats[i * threads + threadIdx.x] = static_cast<float>(round + i);
    }
    __syncthreads();
    float sum = 0;
    for (unsigned i = 0; i < 8; ++i) {
      sum += floats[i * threads + threads - 1 - threadIdx.x];
    }
    args.out[threadIdx.x] = sum;
    __syncthreads();
  }
}

struct Probe {
  const char* name;
  void (*kernel)(Args);
};

constexpr Probe kProbes[] = {
    {"ring", &ring_kernel<Flaw::none>},
    {"no_syncthreads", &ring_kernel<Flaw::no_syncthreads>},
    {"one_syncthreads_left_out", &ring_kernel<Flaw::one_syncthreads_left_out>},
    {"no_syncwarp", &ring_kernel<Flaw::no_syncwarp>},
    {"early_wait", &ring_kernel<Flaw::early_wait>},
    {"leaving", &leaving_kernel},
    {"halves", &halves_kernel},
    {"unwritten", &unwritten_kernel},
    {"two_writers", &two_writers_kernel},
    {"neighbour", &neighbour_kernel<true>},
    {"neighbour_at_once", &neighbour_kernel<false>},
    {"write_after_read", &write_after_read_kernel},
    {"behind", &behind_kernel},
    {"deadlock", &deadlock_kernel},
    {"copy", &copy_kernel},
    {"copy_outside", &copy_outside_kernel},
    {"no_barrier", &no_barrier_kernel},
    {"barriers", &barriers_kernel},
};

}  // namespace lif::cuda

extern "C" {

// Runs a probe and returns the error of CUDA; -1 where there is no such probe.
int probe(const char* name, const float* in, float* out, int size, int blocks, int threads, int bytes) {
  using namespace lif::cuda;
  for (const Probe& one : kProbes) {
    if (std::strcmp(one.name, name) == 0) {
      Args args{in, out, size};
      void* pointers[] = {&args};
      return cudaLaunchKernel(one.kernel, dim3(blocks), dim3(threads), pointers, bytes, nullptr);
    }
  }
  return -1;
}

// What the kernels did wrong since the last call.
const char* probe_fault() {
  static std::string fault;
  fault = host_cuda::take_fault();
  return fault.c_str();
}

const char* probe_symbol() {
  static std::string symbol;
  symbol = host_cuda::last_kernel_symbol();
  return symbol.c_str();
}

unsigned probe_launches() { return host_cuda::launches; }
}
