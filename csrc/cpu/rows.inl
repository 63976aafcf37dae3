// Rows: a row is one time step of the neurons of a task.
//
// Each function named ..._row below is one pass over a row. Rows live in the first-level cache between
// passes, so a further pass costs arithmetic and no memory traffic. The loops are written for the compiler's
// vectoriser (tests/test_vectorised.py reads its report).
#pragma once

#include "cpu/kernels.h"
#include "neuron/back.h"
#include "neuron/step.h"
#include "neuron/storage.h"
#include "neuron/surrogate.h"

namespace lif::cpu::LIF_SIMD {
namespace {

// A block of neurons that one task owns: [first, first + size) of row `outer`.
struct Block {
  int64_t outer;
  int64_t first;
  int64_t size;
  int64_t neuron;  // index of the first neuron among all
};

Block block_of(const Extent& extent, const Tiling& tiling, int64_t task) {
  const int64_t outer = task / tiling.tasks_per_outer;
  const int64_t first = (task - outer * tiling.tasks_per_outer) * tiling.neurons;
  const int64_t left = extent.inner - first;
  return {outer, first, left < tiling.neurons ? left : tiling.neurons, outer * extent.inner + first};
}

template <typename T>
T* row_of(const Series<T>& series, const Block& block, int64_t t) {
  return series.data + block.outer * series.outer_stride + t * series.time_stride +
         (series.uniform ? 0 : block.first);
}
// Moving rows.

template <typename S>
void fill_row(S* __restrict__ row, S value, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    row[i] = value;
  }
}

template <typename S>
void copy_row(S* __restrict__ to, const S* __restrict__ from, int64_t n) {
  std::memcpy(to, from, static_cast<size_t>(n) * sizeof(S));
}

template <typename T>
void widen_row(StateOf<T>* __restrict__ to, const T* __restrict__ from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    to[i] = widen(from[i]);
  }
}

template <typename T>
void narrow_row(T* __restrict__ to, const StateOf<T>* __restrict__ from, int64_t n) {
  if constexpr (std::is_same_v<T, StateOf<T>>) {
    copy_row(to, from, n);
  } else {
    for (int64_t i = 0; i < n; ++i) {
      to[i].bits = narrow<T>(from[i]).bits;  // not the struct: GCC has no vectors of structs
    }
  }
}

#if defined(LIF_SIMD_F16C)
// One instruction for eight values, where the general conversion takes a dozen.
template <>
void widen_row<Half>(float* __restrict__ to, const Half* __restrict__ from, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  }
  for (; i < n; ++i) {
    to[i] = widen(from[i]);
  }
}

template <>
void narrow_row<Half>(Half* __restrict__ to, const float* __restrict__ from, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < n; ++i) {
    to[i] = narrow<Half>(from[i]);
  }
}
#endif

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

// Outputs of so many bytes, more than a last-level cache holds, are written past the caches: a plain store
// reads its line first, a streaming one does not. What is smaller may lie in the cache already, from where a
// streaming store has to drive it out; and the next layer reads it there.
constexpr int64_t kStreamedBytes = int64_t{64} << 20;

bool is_streamed([[maybe_unused]] const Extent& extent, [[maybe_unused]] int64_t size) {
#if defined(LIF_SIMD_STREAM)
  return neurons(extent) * extent.steps * size >= kStreamedBytes;
#else
  return false;
#endif
}

// Streamed stores are ordered with nothing; before another thread reads them there has to be a fence.
void finish_streaming([[maybe_unused]] bool streamed) {
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

template <typename T>
void stream_row(T* to, const T* from, int64_t n) {
#if defined(LIF_SIMD_STREAM)
  constexpr int64_t kWide = 32 / sizeof(T);
  if (reinterpret_cast<uintptr_t>(to) % 32 == 0 && !collides(to, from)) {
    int64_t i = 0;
    for (; i + kWide <= n; i += kWide) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i),
                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
    }
    copy_row(to + i, from + i, n - i);
    return;
  }
#endif
  copy_row(to, from, n);
}

// Where a row of an output can be computed: in place, or in `buffer` until write_row narrows or streams it.
template <typename T, typename S = StateOf<T>>
S* row_to_write(const Series<T>& series, const Block& block, int64_t t, S* buffer, bool streamed) {
  if constexpr (std::is_same_v<T, S>) {
    return series.data != nullptr && !streamed ? row_of(series, block, t) : buffer;
  } else {
    return buffer;
  }
}

template <typename T, typename S = StateOf<T>>
void write_row(const Series<T>& series, const Block& block, int64_t t, const S* row, S* narrowed,
               bool streamed) {
  if (series.data == nullptr) {
    return;
  }
  T* to = row_of(series, block, t);
  if constexpr (std::is_same_v<T, S>) {
    if (streamed) {
      stream_row(to, row, block.size);
    }
  } else if (streamed) {
    narrow_row<T>(reinterpret_cast<T*>(narrowed), row, block.size);
    stream_row(to, reinterpret_cast<const T*>(narrowed), block.size);
  } else {
    narrow_row<T>(to, row, block.size);
  }
}

// Arithmetic on rows.

template <typename S>
void add_row(S* __restrict__ sum, const S* __restrict__ row, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    sum[i] = add(sum[i], row[i]);
  }
}

template <typename S>
void sum_row(S* __restrict__ sum, const S* __restrict__ a, const S* __restrict__ b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    sum[i] = add(a[i], b[i]);
  }
}

template <typename S>
void product_row(S* __restrict__ product, const S* __restrict__ a, const S* __restrict__ b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    product[i] = mul(a[i], b[i]);
  }
}

template <typename S>
void add_product_row(S* __restrict__ sum, const S* __restrict__ a, const S* __restrict__ b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    sum[i] = add(sum[i], mul(a[i], b[i]));
  }
}

template <typename S>
void divide_row(S* __restrict__ to, const S* __restrict__ row, S by, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    to[i] = div(row[i], by);
  }
}

// To zero where `flag` is above 0.
template <typename S>
void clear_row(S* __restrict__ row, const S* __restrict__ flag, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    row[i] = flag[i] > S(0) ? S(0) : row[i];
  }
}

// From `other` where `flag` is above 0.
template <typename S>
void replace_row(S* __restrict__ row, const S* __restrict__ other, const S* __restrict__ flag, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    // Both are read in any case: a load that depends on the flag would be a branch.
    const S kept = row[i];
    const S taken = other[i];
    row[i] = flag[i] > S(0) ? taken : kept;
  }
}
// A gain of 1 is left out: a product with 1 is exact.
template <typename S>
bool has_gain(const Parameter<S>* parameters) {
  return parameters[kGain].values != nullptr || parameters[kGain].value != S(1);
}

// The gradient that all steps of a series share: of its rate, of its count, and `steady`, one of the spikes
// that is the same at each step. Null where there is none of them.
template <typename T, typename S = StateOf<T>>
const S* constant_gradient(const Backward<T>& args, const Series<const T>& steady, const Block& block, S* sum,
                           S* widened) {
  const int64_t n = block.size;
  bool any = false;
  const auto plus = [&](const S* term) {
    any ? add_row(sum, term, n) : copy_row(sum, term, n);
    any = true;
  };
  if (args.grad_rate.data != nullptr) {
    divide_row(sum, read_row(args.grad_rate, block, 0, widened), static_cast<S>(args.extent.steps), n);
    any = true;
  }
  if (args.grad_count.data != nullptr) {
    plus(read_row(args.grad_count, block, 0, widened));
  }
  if (steady.data != nullptr) {
    plus(read_row(steady, block, 0, widened));
  }
  return any ? sum : nullptr;
}

// What the spikes of a task add up to: its counts, its rates, and its share of the total.
template <typename T, typename S = StateOf<T>>
void write_counts(const Forward<T>& args, const Block& block, const S* count) {
  const int64_t steps = args.extent.steps;
  if (args.count != nullptr) {
    copy_row(args.count + block.neuron, count, block.size);
  }
  if (args.rate != nullptr) {
    divide_row(args.rate + block.neuron, count, static_cast<S>(steps > 0 ? steps : 1), block.size);
  }
  if (args.total != nullptr) {
    int64_t total = 0;
    for (int64_t i = 0; i < block.size; ++i) {
      total += static_cast<int64_t>(count[i]);
    }
    // Integers: their sum does not depend on the order.
    __atomic_fetch_add(args.total, total, __ATOMIC_RELAXED);
  }
}

// The surrogate derivative h of each spike.

template <Shape kShape, typename S>
void surrogate_row(S* __restrict__ h, const S* __restrict__ u, const S* __restrict__ theta, S slope, S scale,
                   int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const S z = sub(u[i], theta[i]);
    h[i] = kShape == Shape::fast_sigmoid    ? fast_sigmoid(z, slope, scale)
           : kShape == Shape::atan          ? atan_shape(z, slope, scale)
           : kShape == Shape::sigmoid       ? sigmoid(z, slope, scale)
           : kShape == Shape::triangle      ? triangle(z, slope, scale)
           : kShape == Shape::piecewise_exp ? piecewise_exp(z, slope, scale)
           : kShape == Shape::gaussian      ? gaussian(z, slope, scale)
                                            : rectangle(z, slope, scale);
  }
}

// Reads from a place that depends on each value: a gather, where the processor has one.
template <typename S>
void table_lookup(S* __restrict__ h, const S* __restrict__ u, const S* __restrict__ theta,
                  const Surrogate<S>& surrogate, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    h[i] = table_shape(sub(u[i], theta[i]), surrogate);
  }
}

// The same of several rows, `h_stride` and `u_stride` apart.
template <typename S>
void surrogate_rows(S* h, int64_t h_stride, const S* u, int64_t u_stride, const S* theta,
                    const Surrogate<S>& surrogate, int64_t rows, int64_t n) {
  const S slope = surrogate.slope;
  const S scale = surrogate.scale;
  const auto all = [&](auto row) {
    for (int64_t j = 0; j < rows; ++j) {
      row(h + j * h_stride, u + j * u_stride, theta, slope, scale, n);
    }
  };
  switch (surrogate.shape) {
    case Shape::fast_sigmoid:
      return all(surrogate_row<Shape::fast_sigmoid, S>);
    case Shape::atan:
      return all(surrogate_row<Shape::atan, S>);
    case Shape::sigmoid:
      return all(surrogate_row<Shape::sigmoid, S>);
    case Shape::triangle:
      return all(surrogate_row<Shape::triangle, S>);
    case Shape::piecewise_exp:
      return all(surrogate_row<Shape::piecewise_exp, S>);
    case Shape::gaussian:
      return all(surrogate_row<Shape::gaussian, S>);
    case Shape::rectangle:
      return all(surrogate_row<Shape::rectangle, S>);
    case Shape::table:
      for (int64_t j = 0; j < rows; ++j) {
        table_lookup(h + j * h_stride, u + j * u_stride, theta, surrogate, n);
      }
  }
}

// Memory for rows, in one piece. A row is a whole number of cache lines, and three more: rows a multiple of
// 4 KiB apart would fall on the same lines of the first-level cache (forward 0.45 instead of 0.6 ns a
// neuron-step). The first row begins at the address `like`, modulo 4 KiB and in whole lines.
//
// From malloc, which learns to keep a size that was freed: what aligned_alloc had asked the system for, it
// asked for again at each call (8 instead of 1 ns a neuron-step).
template <typename S>
class Workspace {
 public:
  Workspace(int64_t neurons, int64_t rows, uintptr_t like = 0)
      : stride_((neurons + kLine - 1) / kLine * kLine + 3 * kLine),
        memory_(std::malloc(static_cast<size_t>(stride_ * rows) * sizeof(S) + kPage + kBytes), &std::free) {
    if (memory_ == nullptr) {
      throw std::bad_alloc();
    }
    char* begin = static_cast<char*>(memory_.get());
    const auto place = reinterpret_cast<uintptr_t>(begin);
    next_ = reinterpret_cast<S*>(begin + (like / kBytes * kBytes - place) % kPage);
  }

  S* rows(int64_t count) {
    S* row = next_;
    next_ += count * stride_;
    return row;
  }

  S* row() { return rows(1); }

  int64_t stride() const { return stride_; }

 private:
  static constexpr uintptr_t kPage = 4096;
  static constexpr uintptr_t kBytes = 64;
  static constexpr int64_t kLine = kBytes / sizeof(S);
  int64_t stride_;
  std::unique_ptr<void, decltype(&std::free)> memory_;
  S* next_;
};
}  // namespace
}  // namespace lif::cpu::LIF_SIMD
