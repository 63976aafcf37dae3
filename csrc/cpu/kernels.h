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

// Neurons in a task at the most. Of each row of memory a task reads and writes a piece, and a processor finds
// the way into a piece anew: tasks are long, as long as the rows that they keep stay in the second-level
// cache. On [100, 128, 512] 4096 neurons instead of 1024 took 0.51 instead of 0.58 ns a neuron-step forward,
// and 2048 in backward, which keeps a chunk of steps, 1.62 instead of 1.74 together with it. Where backward
// keeps more than a row of each step, it has half as many neurons.
constexpr int64_t kForwardNeurons = 4096;
constexpr int64_t kBackwardNeurons = 2048;

// The kernels for tensors of type T. Each way is compiled by itself.
template <typename T>
struct ForwardKernels {
  // Neurons in a task at the most.
  int64_t (*forward_neurons)(const Forward<T>&);
  // Run tasks [begin, end).
  void (*forward)(const Forward<T>&, const Tiling&, int64_t begin, int64_t end);
};

template <typename T>
struct BackwardKernels {
  using S = StateOf<T>;
  int64_t (*backward_neurons)(const Backward<T>&);
  void (*backward)(const Backward<T>&, const Tiling&, int64_t begin, int64_t end);
  // out[c] = the sum over r and p of partial[(r * columns + c) * repeat + p].
  void (*sum_partials)(const S* partial, int64_t rows, int64_t columns, int64_t repeat, S* out);
};

template <typename T>
struct Kernels : ForwardKernels<T>, BackwardKernels<T> {};

namespace baseline {
template <typename T>
ForwardKernels<T> forward_kernels();
template <typename T>
BackwardKernels<T> backward_kernels();
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
template <typename T>
ForwardKernels<T> forward_kernels();
template <typename T>
BackwardKernels<T> backward_kernels();
}  // namespace avx2
namespace avx512 {
template <typename T>
ForwardKernels<T> forward_kernels();
template <typename T>
BackwardKernels<T> backward_kernels();
}  // namespace avx512
#endif

}  // namespace lif::cpu
