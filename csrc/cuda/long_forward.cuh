// Forward where neurons are few and T is long: what counts is how long one step takes, 37 cycles for the
// chain of a step, and that no step waits for memory.
//
// A block is one warp, and owns 32 neurons of one row. x comes in stages of 16 steps: pieces of 16 bytes,
// copied asynchronously into a ring of shared memory, five stages ahead of their use; and one stage ahead
// into registers. On an H200 a prototype took 27 us at [1000, 4096 neurons], where wide threads took 208.
#pragma once

#include <cuda_pipeline.h>

#include "cuda/access.cuh"
#include "cuda/launch.h"
#include "cuda/readout.cuh"

namespace lif::cuda {

constexpr int kWarp = 32;
// Steps of a stage, and of a chunk backward: where checkpoints are kept, each begins with one.
constexpr int kStage = kChunk;
constexpr int kStages = 6;
constexpr int kPieceBytes = 16;

// Where the warp's neurons lie: a warp owns neurons of one row, so the last of a row may be fewer.
struct WarpPlace {
  Place first;
  int size;
};

LIF_DEVICE_FN WarpPlace warp_place(const Extent& extent) {
  const int64_t warps_of_row = (extent.inner + kWarp - 1) / kWarp;
  const int64_t outer = blockIdx.x / warps_of_row;
  const int64_t inner = (blockIdx.x - outer * warps_of_row) * kWarp;
  const int64_t left = extent.inner - inner;
  return {{outer * extent.inner + inner, outer, inner}, left < kWarp ? static_cast<int>(left) : kWarp};
}

// The ring: stage after stage of x on its way into shared memory.
template <typename T>
struct Ring {
  static constexpr int kPiece = kPieceBytes / sizeof(T);  // values of a piece
  static constexpr int kPiecesOfRow = kWarp / kPiece;
  static constexpr int kRowsAtOnce = kWarp / kPiecesOfRow;

  T* slots;       // [kStages][kStage][kWarp]
  const T* from;  // of this lane's next piece
  int64_t stride;
  int row, column;  // of this lane's first piece in a stage
  bool whole;       // whether the lane's pieces are inside of the row
  int next_stage, steps;
};

template <typename T>
LIF_FN Ring<T> make_ring(T* slots, const Series<const T>& series, const WarpPlace& place, int steps,
                         int lane) {
  using Of = Ring<T>;
  const int row = lane / Of::kPiecesOfRow;
  const int column = lane % Of::kPiecesOfRow * Of::kPiece;
  const T* from = start_of(series, place.first) + row * series.time_stride + column;
  return {slots, from, series.time_stride, row, column, column < place.size, 0, steps};
}

// Let the copies of the next stage begin. A group of copies is closed also where there are none, so that the
// number of groups behind a stage is always the same.
template <typename T>
LIF_DEVICE_FN void begin_stage(Ring<T>& ring) {
  using Of = Ring<T>;
  T* to = ring.slots + (ring.next_stage % kStages * kStage + ring.row) * kWarp + ring.column;
  const int left = ring.steps - ring.next_stage * kStage - ring.row;
#pragma unroll
  for (int k = 0; k < kStage; k += Of::kRowsAtOnce) {
    if (ring.whole && k < left) {
      __pipeline_memcpy_async(to + k * kWarp, ring.from, kPieceBytes);
      ring.from += Of::kRowsAtOnce * ring.stride;
    }
  }
  __pipeline_commit();
  ++ring.next_stage;
}

// A stage of one neuron, in registers.
template <typename T>
struct StageValues {
  T at[kStage];
};

// Wait for the copies of a stage, let those of another begin in its predecessor's slot, and take it over.
template <typename T>
LIF_DEVICE_FN void take_stage(StageValues<T>& values, Ring<T>& ring, int stage, int lane) {
  __pipeline_wait_prior(kStages - 2);
  __syncwarp();  // each lane's copies are there for all, and all have read the slot that is filled next
  begin_stage(ring);
  const T* slot = ring.slots + stage % kStages * kStage * kWarp + lane;
#pragma unroll
  for (int j = 0; j < kStage; ++j) {
    values.at[j] = slot[j * kWarp];
  }
}

template <typename T, typename Kind>
__global__ void __launch_bounds__(kWarp) long_forward_kernel(const Forward<T> args) {
  using S = StateOf<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  const int lane = static_cast<int>(threadIdx.x);
  const WarpPlace place = warp_place(args.extent);
  const int steps = static_cast<int>(args.extent.steps);
  // A lane behind the last neuron copies nothing and computes that one's steps, unseen.
  const bool real = lane < place.size;
  const int own_lane = real ? lane : place.size - 1;
  const int64_t neuron = place.first.neuron + own_lane;
  const auto group = load_group<Kind, 1>(args.neuron, args.parameter, neuron);
  States<S> states[1];
  load_states<1>(states, group.kind, [&](int state) { return initial_state(args, state, neuron); });
  Pack<S, 1> count = splat<S, 1>(S(0));
  // Whether spikes are written is asked by a predicate a step, and pointers move in any case.
  const bool writes = real && args.spikes.data != nullptr;
  T* spikes_out = writes ? start_of(args.spikes, place.first) + lane : nullptr;
  const int64_t out_stride = writes ? args.spikes.time_stride : 0;
  S* checkpoint = real && args.checkpoints != nullptr ? args.checkpoints + neuron : nullptr;

  auto ring = make_ring(reinterpret_cast<T*>(shared), args.x, place, steps, lane);
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    begin_stage(ring);
  }
  const auto one_step = [&](const T& raw) {
    const S s = step(group.kind, group.own[0], states[0], lif::widen(raw)).s;
    count.at[0] = add(count.at[0], s);
    if (writes) {
      *spikes_out = lif::narrow<T>(s);
    }
    spikes_out += out_stride;
  };
  const auto keep_states = [&](int stage) {
    if (checkpoint != nullptr && stage > 0) {
      checkpoint = store_checkpoint<1>(checkpoint, neurons(args.extent), group.kind, states);
    }
  };
  const auto run_stage = [&](const StageValues<T>& values, int stage) {
    keep_states(stage);
#pragma unroll
    for (int j = 0; j < kStage; ++j) {
      one_step(values.at[j]);
    }
  };
  // Two stages in registers in turn: one is gone through while the other one arrives.
  StageValues<T> even, odd;
  const int whole = steps / kStage;
  take_stage(even, ring, 0, own_lane);
  for (int stage = 0; stage < whole; stage += 2) {
    take_stage(odd, ring, stage + 1, own_lane);
    run_stage(even, stage);
    if (stage + 1 < whole) {
      take_stage(even, ring, stage + 2, own_lane);
      run_stage(odd, stage + 1);
    }
  }
  // The steps of a last stage that is not whole lie in its slot still.
  if (whole * kStage < steps) {
    keep_states(whole);
    const T* slot = ring.slots + whole % kStages * kStage * kWarp + own_lane;
    for (int j = 0; j < steps - whole * kStage; ++j) {
      one_step(slot[j * kWarp]);
    }
  }
  if (real) {
    write_states<1>(args, neuron, group.kind, states);
    write_counts<1>(args, neuron, count, args.extent.steps);
  }
}

template <typename T>
constexpr size_t kLongForwardBytes = size_t{kStages} * kStage * kWarp * sizeof(T);

}  // namespace lif::cuda
