#include "cuda/launch_words.h"
#include "cuda/tiers.cuh"
#include "cuda/words.cuh"

namespace lif::cuda {
namespace {

constexpr int kSpikesOfWord = 64;
constexpr int kWide = 4;

template <auto kInFours, auto kOneByOne, typename T>
int launch_words(Words<T> args, const T* spikes, void* stream) {
  On on{{}, static_cast<cudaStream_t>(stream)};
  if (const auto error = current_device(on.device); error != cudaSuccess) {
    return error;
  }
  if (args.neurons % kSpikesOfWord == 0) {
    args.neurons *= args.rows;
    args.rows = 1;
  }
  args.bytes = ceil_div(args.neurons, kSpikesOfWord) * (kSpikesOfWord / kSpikesOfByte);
  const int64_t blocks = ceil_div(args.rows * args.bytes, kWordsThreads);
  if (blocks == 0) {
    return cudaSuccess;
  }
  const bool in_fours = bool(Alignment(kWide).stride(args.neurons).pointer(spikes));
  return in_fours ? launch<kInFours>(args, blocks, kWordsThreads, 0, on)
                  : launch<kOneByOne>(args, blocks, kWordsThreads, 0, on);
}

}  // namespace

template <typename T>
int launch_pack(const T* spikes, int64_t rows, int64_t neurons, uint64_t* words, void* stream) {
  Words<T> args;
  args.from = spikes;
  args.packed = reinterpret_cast<unsigned char*>(words);
  args.rows = rows;
  args.neurons = neurons;
  return launch_words<&pack_kernel<T, kWide>, &pack_kernel<T, 1>>(args, spikes, stream);
}

template <typename T>
int launch_unpack(const uint64_t* words, int64_t rows, int64_t neurons, T* spikes, void* stream) {
  Words<T> args;
  args.to = spikes;
  args.words = reinterpret_cast<const unsigned char*>(words);
  args.rows = rows;
  args.neurons = neurons;
  return launch_words<&unpack_kernel<T, kWide>, &unpack_kernel<T, 1>>(args, spikes, stream);
}

template int launch_pack(const float*, int64_t, int64_t, uint64_t*, void*);
template int launch_pack(const double*, int64_t, int64_t, uint64_t*, void*);
template int launch_pack(const Half*, int64_t, int64_t, uint64_t*, void*);
template int launch_pack(const BFloat16*, int64_t, int64_t, uint64_t*, void*);
template int launch_unpack(const uint64_t*, int64_t, int64_t, float*, void*);
template int launch_unpack(const uint64_t*, int64_t, int64_t, double*, void*);
template int launch_unpack(const uint64_t*, int64_t, int64_t, Half*, void*);
template int launch_unpack(const uint64_t*, int64_t, int64_t, BFloat16*, void*);

}  // namespace lif::cuda
