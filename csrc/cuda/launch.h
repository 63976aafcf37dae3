// Launching the CUDA kernels: raw pointers, sizes and a stream, no torch.
#pragma once

#include "neuron/params.h"

namespace lif::cuda {

// Steps between checkpoints for which kernels are compiled: checkpoint_interval of lif_cuda/_ops.py. Backward
// holds so many in shared memory, 256 bytes a thread for a row of them, 32 KiB a block. Others run in the
// general kernels.
constexpr int kChunk = 16;

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
