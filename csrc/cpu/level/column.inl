// What the wide way back keeps of a chunk of steps between computing them again and going back: rows in the
// second-level cache.
#pragma once

#include "cpu/level/wide_rows.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

// With a delayed reset the membrane before a step is the one of the step before, unless a floor raised it.
template <typename S>
bool shares_membranes(const Neuron<S>& neuron) {
  return neuron.delayed && !neuron.floored;
}

// What is kept of each step of a chunk: the membrane before its reset, and the states before the step.
template <typename S>
struct WideKept {
  Rows<S> u;
  Rows<S> before[kStates];
  bool shares = false;  // shares_membranes

  static bool keeps_membrane(const Neuron<S>& neuron, bool learn) {
    return learn || (neuron.delayed && neuron.reset == Reset::zero);
  }

  // Rows of a chunk.
  static int64_t count(const Neuron<S>& neuron, int64_t chunk, bool learn) {
    const int64_t rows = 1 + (keeps_membrane(neuron, learn) && !shares_membranes(neuron)) +
                         (neuron.synapse && learn) + neuron.adaptive + (neuron.refractory > 0);
    return rows * chunk + 1;
  }

  WideKept(Workspace<S>& workspace, const Neuron<S>& neuron, int64_t chunk, bool learn)
      : shares(shares_membranes(neuron)) {
    const int64_t stride = workspace.stride();
    const auto rows = [&](int64_t count) { return Rows<S>{workspace.rows(count), stride, false}; };
    u = rows(chunk + 1);
    u.data += stride;
    if (keeps_membrane(neuron, learn)) {
      before[kMembrane] = shares ? Rows<S>{u.data - stride, stride, false} : rows(chunk);
    }
    if (neuron.synapse && learn) {
      before[kCurrent] = rows(chunk);
    }
    if (neuron.adaptive) {
      before[kAdaptation] = rows(chunk);
    }
    if (neuron.refractory > 0) {
      before[kSilence] = rows(chunk);
    }
  }
};

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
