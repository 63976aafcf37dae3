// Launching the CUDA kernels: raw pointers, sizes and a stream, no torch.
#pragma once

#include <vector>

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

// Enqueue the sums of a call's partial gradients; at most kLearnable of them. `scratch`: sum_scratch
// doubles of memory of the device, null where that is 0.
template <typename S>
int64_t sum_scratch(const std::vector<PartialSum<S>>& sums);
template <typename S>
int launch_sums(const std::vector<PartialSum<S>>& sums, double* scratch, void* stream);

// The most time steps that a backward block of this neuron holds in shared memory. Returns a cudaError_t.
template <typename T>
int longest_chunk(const Neuron<StateOf<T>>& neuron, int64_t& steps);

}  // namespace lif::cuda
