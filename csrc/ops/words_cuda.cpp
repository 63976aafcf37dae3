// Packing and unpacking spikes on CUDA, a launch each on the current stream. Products with spikes are torch's
// own there, of spikes that are unpacked.
#include "cuda/launch_words.h"
#include "ops/cuda_calls.h"
#include "ops/words.h"

namespace lif::ops {
namespace {

struct WordsCuda {
  using Guard = CudaGuard;

  // What was neither 0 nor 1 would be known on the device only, and asking would wait for it.
  template <typename T>
  static bool pack(const T* spikes, int64_t rows, int64_t neurons, uint64_t* words, const Tensor& of) {
    check_launch(cuda::launch_pack(spikes, rows, neurons, words, current_stream(of)), "spike_pack");
    return true;
  }

  template <typename T>
  static void unpack(const uint64_t* words, int64_t rows, int64_t neurons, T* spikes, const Tensor& of) {
    check_launch(cuda::launch_unpack(words, rows, neurons, spikes, current_stream(of)), "spike_unpack");
  }
};

}  // namespace
}  // namespace lif::ops

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CUDA, m) {
  m.impl("spike_pack", TORCH_BOX(&lif::ops::spike_pack<lif::ops::WordsCuda>));
  m.impl("spike_unpack", TORCH_BOX(&lif::ops::spike_unpack<lif::ops::WordsCuda>));
}
