// Launching the CUDA kernels: raw pointers, sizes and a stream, no torch.
#pragma once

#include "neuron/params.h"

namespace lif::cuda {

// Enqueue all T steps on `stream` (a cudaStream_t) of the current device; no synchronisation. Returns a
// cudaError_t, 0 for success.
template <typename T>
int launch_forward(const Forward<T>& args, void* stream);
template <typename T>
int launch_backward(const Backward<T>& args, void* stream);

// The most time steps that a backward block of this neuron holds in shared memory. Returns a cudaError_t.
template <typename T>
int longest_chunk(const Neuron<StateOf<T>>& neuron, int64_t& steps);

}  // namespace lif::cuda
