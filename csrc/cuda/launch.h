// Launching the CUDA kernels: raw pointers, sizes and a stream, no torch.
#pragma once

#include "neuron/params.h"

namespace lif::cuda {

// Enqueue all T steps on `stream` (a cudaStream_t) of the current device; no synchronisation. Returns a
// cudaError_t, 0 for success.
template <typename S>
int launch_forward(const Forward<S>& args, void* stream);
template <typename S>
int launch_backward(const Backward<S>& args, void* stream);

// The most time steps whose membranes a backward block holds in shared memory.
template <typename S>
int64_t longest_chunk();

}  // namespace lif::cuda
