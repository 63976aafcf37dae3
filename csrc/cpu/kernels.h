// The CPU kernels: raw pointers and sizes, no torch.
//
// Work is cut into tasks of neighbouring neurons that own all their time steps, so tasks are independent
// and the numbers do not depend on how many threads run them. This header is compiled for each SIMD level,
// so it has no function that the linker could share between them; those are in dispatch.h.
#pragma once

#include <cstdint>

#include "neuron/params.h"

namespace lif::cpu {

// How the neurons are cut into tasks.
struct Tiling {
  int64_t neurons = 0;  // of a task
  int64_t tasks_per_outer = 0;
  int64_t tasks = 0;
};

// Neurons in a task at the most. A row of 1024 is a page of x in fp32, long enough for the hardware
// prefetcher, and the membranes of a chunk of time steps stay in the second-level cache; 512 took 10 % longer
// forward on [100, 128, 512], 2048 as long.
constexpr int64_t kForwardNeurons = 1024;
constexpr int64_t kBackwardNeurons = 1024;

// The kernels for tensors of type T.
template <typename T>
struct Kernels {
  using S = StateOf<T>;
  // Run tasks [begin, end).
  void (*forward)(const Forward<T>&, const Tiling&, int64_t begin, int64_t end);
  void (*backward)(const Backward<T>&, const Tiling&, int64_t begin, int64_t end);
  // out[c] = the sum over r and p of partial[(r * columns + c) * repeat + p].
  void (*sum_partials)(const S* partial, int64_t rows, int64_t columns, int64_t repeat, S* out);
};

namespace baseline {
template <typename T>
Kernels<T> kernels();
}
#if defined(__x86_64__)
namespace avx2 {
template <typename T>
Kernels<T> kernels();
}
namespace avx512 {
template <typename T>
Kernels<T> kernels();
}
#endif

}  // namespace lif::cpu
