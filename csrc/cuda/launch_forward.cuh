// Forward: from a call to its kernel. Included by a source file for each type.
#pragma once

#include "cuda/bits.cuh"
#include "cuda/general.cuh"
#include "cuda/launch.h"
#include "cuda/long_forward.cuh"
#include "cuda/tiers.cuh"
#include "cuda/wide_forward.cuh"

namespace lif::cuda {

// Neurons of a wide thread forward: what 16 bytes of state hold.
template <typename T>
constexpr int kForwardWide = 16 / sizeof(StateOf<T>);

// Whether there is a kernel with one neuron a thread, for where nothing is aligned, and one for two bits a
// step.
template <typename T, typename Kind>
constexpr bool kHasNarrow = kIsTrainedIn<T> && Kind::plain;

template <typename T>
bool is_general(const Forward<T>& args) {
  const bool between = args.checkpoints == nullptr || args.checkpoint_every % (2 * kAhead<float, 4>) == 0;
  return args.trace.data != nullptr || args.trace_before.data != nullptr || args.first != nullptr ||
         args.trace_max != nullptr || args.trace_mean != nullptr || args.x.uniform ||
         !is_uniform(args.parameter) || args.extent.steps > kMostSteps || !between ||
         args.lengths.values != nullptr;
}

template <typename T>
bool is_counted(const Forward<T>& args) {
  return args.count != nullptr || args.rate != nullptr || args.total != nullptr;
}

// Whether x can be copied in whole pieces, and a checkpoint, if any, begins each stage.
template <typename T>
bool fits_long(const Forward<T>& args) {
  return args.x.data != nullptr &&
         bool(Alignment(Ring<T>::kPiece).stride(args.extent.inner).series(args.x)) &&
         (args.checkpoints == nullptr || args.checkpoint_every == kStage);
}

template <typename T>
int forward_general(const Forward<T>& args, const On& on) {
  return launch<&general_forward_kernel<T>>(args, blocks_for(args.extent, 1, kForwardThreads),
                                            kForwardThreads, 0, on);
}

template <typename Kind, int W, Flow kFlow, typename T>
int forward_wide(const Forward<T>& args, const On& on) {
  return launch<&wide_forward_kernel<T, Kind, W, kFlow>>(args, blocks_for(args.extent, W, kForwardThreads),
                                                         kForwardThreads, 0, on);
}

template <typename Kind, typename T>
int forward_as(const Forward<T>& args, const On& on) {
  constexpr int kWide = kForwardWide<T>;
  const bool wide = is_aligned(args, kWide);
  const bool lean = args.spikes.data != nullptr && !is_counted(args);
  if (args.bits != nullptr) {
    if constexpr (kHasNarrow<T, Kind>) {
      if (wide && lean && args.checkpoints == nullptr) {
        return launch<&bits_forward_kernel<T, Kind, kWide>>(
            args, blocks_for(args.extent, kWide, kForwardThreads), kForwardThreads, 0, on);
      }
    }
    return forward_general(args, on);
  }
  if constexpr (Kind::plain) {
    if (few_for_long(args.extent, on.device) && fits_long(args)) {
      const int64_t warps = args.extent.outer * ceil_div(args.extent.inner, kWarp);
      return launch<&long_forward_kernel<T, Kind>>(args, warps, kWarp, kLongForwardBytes<T>, on);
    }
  }
  if constexpr (kIsTrainedIn<T>) {
    if (wide && lean) {
      return forward_wide<Kind, kWide, Flow::series>(args, on);
    }
  }
  if (wide) {
    return forward_wide<Kind, kWide, Flow::any>(args, on);
  }
  if constexpr (kHasNarrow<T, Kind>) {
    return forward_wide<Kind, 1, Flow::any>(args, on);
  }
  return forward_general(args, on);
}

template <typename T>
int launch_forward(const Forward<T>& args, void* stream) {
  On on{{}, static_cast<cudaStream_t>(stream)};
  if (const auto error = current_device(on.device); error != cudaSuccess) {
    return error;
  }
  if (is_general(args)) {
    return forward_general(args, on);
  }
  return with_member(CompiledMembers(), args.neuron, [&](auto tag) {
    using Kind = typename Forwards<typename decltype(tag)::type>::type;
    if constexpr (std::is_same_v<Kind, AnyMember>) {
      return forward_general(args, on);
    } else {
      return forward_as<Kind>(args, on);
    }
  });
}

}  // namespace lif::cuda
