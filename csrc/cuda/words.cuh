// Spikes into words and back: a bit each, 64 in a word, the lowest first. A thread has 8 neighbouring spikes
// of a row, a byte. In fp32 32 bytes are read and one written, or the other way round, and nothing twice: the
// memory's time. In fours where rows are whole, as the bytes of one warp are 1024 neighbouring bytes of
// spikes, which the first-level cache hands out.
#pragma once

#include "cuda/access.cuh"

namespace lif::cuda {

constexpr int kWordsThreads = 256;
constexpr int kSpikesOfByte = 8;

// A launch of either. A row of `neurons` spikes has `bytes` of words, whole words of 8. Rows without a bit to
// spare are one long row, in which no thread divides.
template <typename T>
struct Words {
  const T* from = nullptr;  // spikes that are packed
  T* to = nullptr;          // spikes that are unpacked
  const unsigned char* words = nullptr;
  unsigned char* packed = nullptr;
  int64_t rows = 0, neurons = 0, bytes = 0;
};

template <typename T, int W>
__global__ void __launch_bounds__(kWordsThreads) pack_kernel(const Words<T> args) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= args.rows * args.bytes) {
    return;
  }
  const int64_t row = args.rows == 1 ? 0 : at / args.bytes;
  const int64_t first = (at - row * args.bytes) * kSpikesOfByte;
  const T* from = args.from + row * args.neurons + first;
  const int64_t left = args.neurons - first;  // none, in bytes that fill up the last word
  unsigned byte = 0;
#pragma unroll
  for (int i = 0; i < kSpikesOfByte; i += W) {
    if (i < left) {
      const auto spikes = widen<T, W>(load_raw<W>(from + i));
#pragma unroll
      for (int w = 0; w < W; ++w) {
        const unsigned place = static_cast<unsigned>(i + w);
        byte |= spikes.at[w] != 0 ? 1u << place : 0u;
      }
    }
  }
  args.packed[at] = static_cast<unsigned char>(byte);
}

template <typename T, int W>
__global__ void __launch_bounds__(kWordsThreads) unpack_kernel(const Words<T> args) {
  using S = StateOf<T>;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= args.rows * args.bytes) {
    return;
  }
  const int64_t row = args.rows == 1 ? 0 : at / args.bytes;
  const int64_t first = (at - row * args.bytes) * kSpikesOfByte;
  T* to = args.to + row * args.neurons + first;
  const int64_t left = args.neurons - first;
  const unsigned byte = args.words[at];
#pragma unroll
  for (int i = 0; i < kSpikesOfByte; i += W) {
    if (i < left) {
      Pack<S, W> spikes;
#pragma unroll
      for (int w = 0; w < W; ++w) {
        spikes.at[w] = static_cast<S>(byte >> (i + w) & 1u);
      }
      store_raw<W>(to + i, narrow<T, W>(spikes));
    }
  }
}

}  // namespace lif::cuda
