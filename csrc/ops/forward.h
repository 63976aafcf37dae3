// lif_forward: the tensors that it returns, and the struct that the kernels fill them by.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "ops/arguments.h"
#include "ops/spikes.h"

namespace lif::ops {

// Spikes as words, and before them their shape, where autograd knows them by.
template <typename T>
void add_packed(Returned& returned, Forward<T>& args, const Problem& problem) {
  const Extent& extent = args.extent;
  const auto last = static_cast<int64_t>(problem.features.size());
  STD_TORCH_CHECK(!problem.x.is_cuda(), "packed spikes are written on the CPU");
  STD_TORCH_CHECK(problem.asked & kSpikes, "packed spikes stand beside spikes");
  STD_TORCH_CHECK(problem.time_dim < last, "packed spikes need an axis of neurons behind that of time");
  const int64_t at = problem.time_first ? 0 : problem.time_dim;
  Shape words = problem.features;
  args.packed_neurons = words.back();
  words.back() = spike_words(words.back());
  const int64_t inner =
      args.packed_neurons == 0 ? 0 : extent.inner / args.packed_neurons * spike_words(args.packed_neurons);
  returned.add_shape<T>(with_axis(problem.features, at, extent.steps), problem.x.scalar_type());
  args.packed.data = returned.add<uint64_t>(true, with_axis(words, at, extent.steps), ScalarType::Long);
  args.packed.outer_stride = problem.time_first ? inner : extent.steps * inner;
  args.packed.time_stride = problem.time_first ? extent.outer * inner : inner;
}

// Run `launch(const Forward<T>&)` on the tensors of a call of lif_forward.
template <typename T, typename Launch>
std::vector<Tensor> forward(const Problem& problem, const Launch& launch) {
  using S = StateOf<T>;
  constexpr ScalarType kState = kTypeOf<S>;
  const int64_t outputs = problem.asked;
  const int64_t checkpoint_every = problem.checkpoint_every;
  Forward<T> args;
  set_common<T>(args, problem);
  STD_TORCH_CHECK(!(outputs & kCheckpoints) || checkpoint_every > 0, "checkpoint_every must be above 0");
  const Shape& features = problem.features;
  args.checkpoint_every = checkpoint_every;

  Returned returned(problem.x);
  if (outputs & kPacked) {
    add_packed(returned, args, problem);
  } else {
    args.spikes = new_series<T>(returned, outputs & kSpikes, problem);
  }
  args.count = returned.add<S>(outputs & kCount, features, kState);
  args.rate = returned.add<S>(outputs & kRate, features, kState);
  args.first = returned.add<S>(outputs & kFirstSpike, features, kState);
  args.trace = new_series<T>(returned, outputs & kTrace, problem);
  args.trace_before = new_series<T>(returned, outputs & kTraceBefore, problem);
  std::optional<Tensor> total;
  size_t total_at = 0;
  if (outputs & kTotal) {
    total = torch::stable::new_zeros(problem.x, Shape{}, ScalarType::Long);
    args.total = static_cast<int64_t*>(total->mutable_data_ptr());
    total_at = returned.push(*total);
  }
  STD_TORCH_CHECK(!(outputs & kTraceMax) || args.extent.steps > 0, "the largest of no membranes");
  STD_TORCH_CHECK(!(outputs & kPeak) || (outputs & kTraceMax), "the step of the largest goes with it");
  args.trace_max = returned.add<S>(outputs & kTraceMax, features, kState);
  args.trace_mean = returned.add<S>(outputs & kTraceMean, features, kState);
  for (int i = 0; i < kStates; ++i) {
    const bool asked = outputs & (kFinalState << i);
    STD_TORCH_CHECK(!asked || has_state(args.neuron, i), "a final state that the neuron does not have");
    args.final_state[i] = returned.add<S>(asked, features, kState);
  }
  args.peak = returned.add<S>(outputs & kPeak, features, kState);
  if (outputs & kCheckpoints) {
    const int64_t chunks = (args.extent.steps + checkpoint_every - 1) / checkpoint_every;
    Shape shape = with_axis(features, 0, states_of(args.neuron));
    args.checkpoints = returned.add<S>(true, with_axis(shape, 0, chunks > 0 ? chunks - 1 : 0), kState);
  }
  if (outputs & kBits) {
    check_bits(args.neuron);
    args.bits =
        returned.add<uint32_t>(true, with_axis(features, 0, words_of(args.extent.steps)), ScalarType::Int);
    args.window = static_cast<S>(problem.slope);
  }
  if (neurons(args.extent) > 0) {
    launch(args);
  }
  std::vector<Tensor> results = returned.take();
  if (total) {
    // Counted in integers, whose sum no order changes; float64, which has a gradient, holds them to 2^53.
    results[total_at] = torch::stable::to(*total, ScalarType::Double);
  }
  return results;
}

}  // namespace lif::ops
