// Backward of all other neurons, and the way to each kernel. Included by a source file for each type.
#pragma once

#include "cuda/general.cuh"
#include "cuda/launch_backward.cuh"

namespace lif::cuda {

// A block of the general kernel is halved down to one warp where its columns do not fit the shared memory.
constexpr int kFewestThreads = 32;

template <typename T>
int backward_general(const Backward<T>& args, const On& on) {
  // A neuron of five kept values in fp64 takes 80 KiB for 16 steps of 128 threads; devices below 9.0 but 8.0
  // have 64 or 99. Fewer threads a block need less.
  const int64_t kept = args.bits == nullptr ? 1 + states_of(args.neuron) : 0;
  const int64_t chunk = std::max<int64_t>(1, std::min(args.chunk, args.extent.steps));
  const auto column = static_cast<size_t>(chunk * kept) * sizeof(StateOf<T>);
  int threads = kBackwardThreads;
  while (threads > kFewestThreads && column * threads > static_cast<size_t>(on.device.shared_bytes)) {
    threads /= 2;
  }
  return launch<&general_backward_kernel<T>>(args, blocks_for(args.extent, 1, threads), threads,
                                             column * threads, on);
}

template <typename Kind, bool kLearn, typename T>
int relative_as(const Backward<T>& args, const On& on, bool& done) {
  constexpr int kWide = kBackwardWide<T, Kind, kLearn, Slopes::pass>;
  done = is_aligned(args, kWide);
  return done ? backward_wide<Kind, kWide, kLearn, Slopes::pass, Flow::any>(args, on) : cudaSuccess;
}

template <typename T>
int backward_relative(const Backward<T>& args, const On& on, bool& done) {
  done = false;
  return with_member(RelativeMembers(), args.neuron, [&](auto tag) -> int {
    using Kind = typename decltype(tag)::type;
    if constexpr (std::is_same_v<Kind, AnyMember>) {
      return cudaSuccess;
    } else {
      return learns(args) ? relative_as<Kind, true>(args, on, done)
                          : relative_as<Kind, false>(args, on, done);
    }
  });
}

template <typename T>
int launch_backward(const Backward<T>& args, void* stream) {
  On on{{}, static_cast<cudaStream_t>(stream)};
  if (const auto error = current_device(on.device); error != cudaSuccess) {
    return error;
  }
  bool done = false;
  if (!is_general(args)) {
    if (const int error = backward_plain(args, on, done); done || error != cudaSuccess) {
      return error;
    }
    if (args.bits == nullptr) {
      if (const int error = backward_relative(args, on, done); done || error != cudaSuccess) {
        return error;
      }
    }
  }
  return backward_general(args, on);
}

template <typename T>
int longest_chunk(const Neuron<StateOf<T>>& neuron, int64_t& steps) {
  Device device;
  const auto error = current_device(device);
  const int64_t step = (1 + states_of(neuron)) * kFewestThreads * static_cast<int64_t>(sizeof(StateOf<T>));
  steps = device.shared_bytes / step;
  return error;
}

}  // namespace lif::cuda
