// Launching the kernels that pack spikes into words and unpack them, as launch.h does those of neurons.
#pragma once

#include <cstdint>

namespace lif::cuda {

// `rows` of `neurons` spikes each, dense, from and to rows of whole words. On `stream` (a cudaStream_t) of
// the current device; returns a cudaError_t, 0 for success. All but 0 counts as a spike.
template <typename T>
int launch_pack(const T* spikes, int64_t rows, int64_t neurons, uint64_t* words, void* stream);
template <typename T>
int launch_unpack(const uint64_t* words, int64_t rows, int64_t neurons, T* spikes, void* stream);

}  // namespace lif::cuda
