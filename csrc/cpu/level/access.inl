// From tensors to what the kernels read and write: rows of a block, rows of a tile, values of the parameters.
#pragma once

#include "cpu/level/rows.inl"
#include "cpu/level/vector.inl"
#include "cpu/level/workspace.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

inline int64_t smaller(int64_t one, int64_t other) { return one < other ? one : other; }

template <typename T>
T* row_of(const Series<T>& series, const Block& block, int64_t t) {
  return series.data + block.outer * series.outer_stride + t * series.time_stride +
         (series.uniform ? 0 : block.first);
}

// Zeros in a series after the steps of a block, whose samples may be shorter than others.
template <typename T>
void zero_rest(const Series<T>& series, const Extent& extent, const Block& block) {
  for (int64_t t = block.steps; series.data != nullptr && t < extent.steps; ++t) {
    std::memset(static_cast<void*>(row_of(series, block, t)), 0, static_cast<size_t>(block.size) * sizeof(T));
  }
}

template <typename S>
void load_or_zero(S* row, const S* from, int64_t n) {
  if (from != nullptr) {
    copy_row(row, from, n);
  } else {
    fill_row(row, S(0), n);
  }
}

// A parameter's values for the block. The divisions are paid once for all T steps.
template <typename S>
void load_parameter(S* row, const Parameter<S>& parameter, const Block& block) {
  if (parameter.values == nullptr) {
    fill_row(row, parameter.value, block.size);
    return;
  }
  int64_t at = block.neuron / parameter.repeat % parameter.period;
  int64_t within = block.neuron % parameter.repeat;
  for (int64_t done = 0; done < block.size;) {
    const int64_t left = block.size - done;
    int64_t run;
    if (parameter.repeat == 1) {
      run = parameter.period - at < left ? parameter.period - at : left;
      copy_row(row + done, parameter.values + at, run);
      at = 0;
    } else {
      run = parameter.repeat - within < left ? parameter.repeat - within : left;
      fill_row(row + done, parameter.values[at], run);
      within = 0;
      at = at + 1 == parameter.period ? 0 : at + 1;
    }
    done += run;
  }
}

// A gain of 1 is left out: a product with 1 is exact.
template <typename S>
bool has_gain(const Parameter<S>* parameters) {
  return parameters[kGain].values != nullptr || parameters[kGain].value != S(1);
}

// A row of a series as the arithmetic wants it: where it lies, or widened into `buffer`.
template <typename T, typename S = StateOf<T>>
const S* read_row(const Series<const T>& series, const Block& block, int64_t t, S* buffer) {
  const T* row = row_of(series, block, t);
  if (series.uniform) {
    fill_row(buffer, widen(*row), block.size);
    return buffer;
  }
  if constexpr (std::is_same_v<T, S>) {
    return row;
  } else {
    widen_row(buffer, row, block.size);
    return buffer;
  }
}

// Tiles.

// Time steps of a tile, each a stream of x and one of spikes: 8 took a third longer forward on [25, 128,
// 1000], 2 as long but more arithmetic.
constexpr int64_t kTileSteps = 4;

// The rows of a series at the steps of a tile, from the block's first neuron on.
template <typename T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;
  bool uniform = false;

  T* at(int64_t step, int64_t i) const { return data + step * stride + i; }
};

template <typename T>
Rows<T> rows_of(const Series<T>& series, const Block& block, int64_t t) {
  return series.data == nullptr ? Rows<T>{}
                                : Rows<T>{row_of(series, block, t), series.time_stride, series.uniform};
}

// The same rows from a step on.
template <typename T>
Rows<T> later(Rows<T> rows, int64_t steps) {
  rows.data += rows.data == nullptr ? 0 : steps * rows.stride;
  return rows;
}

// And from a neuron on.
template <typename T>
Rows<T> beyond(Rows<T> rows, int64_t neurons) {
  rows.data += rows.data == nullptr || rows.uniform ? 0 : neurons;
  return rows;
}

// Writing past the caches.

// Outputs of so many bytes, more than a last-level cache holds, are written past the caches: a plain store
// reads its line first, a streaming one does not. What is smaller may lie in the cache already, from where a
// streaming store has to drive it out; and the next layer reads it there.
constexpr int64_t kStreamedBytes = int64_t{64} << 20;

[[maybe_unused]] bool is_streamed([[maybe_unused]] const Extent& extent, [[maybe_unused]] int64_t size) {
#if defined(LIF_SIMD_STREAM)
  return neurons(extent) * extent.steps * size >= kStreamedBytes;
#else
  return false;
#endif
}

// Streamed stores are ordered with nothing; before another thread reads them there has to be a fence.
[[maybe_unused]] void finish_streaming([[maybe_unused]] bool streamed) {
#if defined(LIF_SIMD_STREAM)
  if (streamed) {
    _mm_sfence();
  }
#endif
}

// Whether reading `from` waits for streamed stores to `to`, when both advance together. A processor tells a
// load from the stores before it by the lowest 12 bits of their addresses, and a streamed store is slow to
// leave: with the spikes 64 to 192 bytes ahead of x or of a row of the task's, modulo 4096, forward on [16,
// 64, 16384] took 1.0 to 1.5 ns a neuron-step, at any other distance 0.3 to 0.45, and with plain stores 0.4
// to 0.6.
inline bool collides(const void* to, const void* from) {
  constexpr uintptr_t kPage = 4096;
  constexpr uintptr_t kWindow = 320;
  const uintptr_t ahead = (reinterpret_cast<uintptr_t>(to) - reinterpret_cast<uintptr_t>(from)) % kPage;
  return ahead != 0 && ahead < kWindow;
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
