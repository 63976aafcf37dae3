// Backward of the plain members: those of one membrane. Included by a source file for each type.
#pragma once

#include "cuda/bits.cuh"
#include "cuda/launch_backward.cuh"
#include "cuda/long_backward.cuh"

namespace lif::cuda {

template <typename Kind, typename T>
int bits_as(const Backward<T>& args, const On& on, bool& done) {
  constexpr int kWide = 16 / sizeof(StateOf<T>);
  if constexpr (kIsTrainedIn<T> && (Kind::reset != Reset::zero || Kind::detached)) {
    done = args.extent.steps > 0 && is_series(args) && !learns(args) && is_aligned(args, kWide);
    if (done) {
      return launch<&bits_backward_kernel<T, Kind, kWide>>(
          args, blocks_for(args.extent, kWide, kBackwardThreads), kBackwardThreads, 0, on);
    }
  }
  return cudaSuccess;
}

// With as many producers as the neurons, and the shared memory of a block, allow.
template <typename Kind, bool kLearn, typename T>
int long_as(const Backward<T>& args, const On& on) {
  using S = StateOf<T>;
  const bool fewest = neurons(args.extent) <= int64_t{kFewNeurons / 4} * on.device.multiprocessors;
  int producers = fewest ? kMostProducers : kFewProducers;
  while (producers > 1 &&
         long_backward_bytes<S, Kind, kLearn>(producers) > static_cast<size_t>(on.device.shared_bytes)) {
    --producers;
  }
  const int64_t blocks = args.extent.outer * ceil_div(args.extent.inner, kWarp);
  return launch<&long_backward_kernel<T, Kind, kLearn>>(args, blocks, (producers + 1) * kWarp,
                                                        long_backward_bytes<S, Kind, kLearn>(producers), on);
}

template <typename Kind, bool kLearn, typename T>
int plain_as(const Backward<T>& args, const On& on, bool& done) {
  done = true;
  if (few_for_long(args.extent, on.device) && args.chunk == kStage) {
    return long_as<Kind, kLearn>(args, on);
  }
  if constexpr (kIsTrainedIn<T>) {
    if (is_series(args)) {
      if constexpr (!Kept<Kind, kLearn, Slopes::pass>::u) {
        constexpr int kWide = kBackwardWide<T, Kind, kLearn, Slopes::pass>;
        if (is_aligned(args, kWide)) {
          return backward_wide<Kind, kWide, kLearn, Slopes::pass, Flow::series>(args, on);
        }
      } else {
        constexpr int kWide = kBackwardWide<T, Kind, kLearn, Slopes::atan>;
        const Shape shape = args.surrogate.shape;
        if (is_aligned(args, kWide) && shape == Shape::fast_sigmoid) {
          return backward_wide<Kind, kWide, kLearn, Slopes::fast_sigmoid, Flow::series>(args, on);
        }
        if (is_aligned(args, kWide) && shape == Shape::atan) {
          return backward_wide<Kind, kWide, kLearn, Slopes::atan, Flow::series>(args, on);
        }
      }
    }
  }
  constexpr int kWide = kBackwardWide<T, Kind, kLearn, Slopes::pass>;
  if (is_aligned(args, kWide)) {
    return backward_wide<Kind, kWide, kLearn, Slopes::pass, Flow::any>(args, on);
  }
  if constexpr (kIsTrainedIn<T>) {
    return backward_wide<Kind, 1, true, Slopes::pass, Flow::any>(args, on);
  }
  done = false;
  return cudaSuccess;
}

template <typename T>
int backward_plain(const Backward<T>& args, const On& on, bool& done) {
  done = false;
  return with_member(PlainMembers(), args.neuron, [&](auto tag) -> int {
    using Kind = typename decltype(tag)::type;
    if constexpr (std::is_same_v<Kind, AnyMember>) {
      return cudaSuccess;
    } else if (args.bits != nullptr) {
      return bits_as<Kind>(args, on, done);
    } else {
      return learns(args) ? plain_as<Kind, true>(args, on, done) : plain_as<Kind, false>(args, on, done);
    }
  });
}

}  // namespace lif::cuda
