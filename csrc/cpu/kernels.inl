// The CPU kernels, compiled once for each SIMD level: LIF_SIMD names the level's namespace.
//
// A task walks its neurons through time in rows: one row is one time step of the task's neurons. Each
// function named ..._row below is one pass over a row; a reset, a surrogate, a state or a wanted gradient is
// a pass of its own, so that n surrogates and m resets cost n + m loops and not n * m. Rows live in the
// first-level cache between passes, so a further pass costs arithmetic and no memory traffic. The loops are
// written for the compiler's vectoriser (tests/test_vectorised.py reads its report).

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

// What a pass asks for while it computes: the row that the next step will read, and the one it will write.
// Rows of a task lie a whole time step apart, so the hardware prefetcher starts afresh at each and is late
// for most of it; and a store to a line that is not there waits for it. Null where there is nothing to ask
// for.
template <typename T>
struct Ahead {
  const T* read = nullptr;
  const T* write = nullptr;
};

// How many steps ahead of its use a row is asked for.
constexpr int64_t kRowsAhead = 2;

// The row of a series at step t, or null: there is none, or it is there already.
template <typename T>
const T* row_to_ask_for(const Series<T>& series, const Block& block, int64_t t, int64_t first, int64_t last) {
  const bool moves = series.data != nullptr && series.time_stride != 0 && !series.uniform;
  return moves && t >= first && t < last ? row_of(series, block, t) : nullptr;
}

// Passes ask strip by strip, between their arithmetic: a processor has some twenty misses in flight, and a
// whole row asked for at once makes it wait. With streaming in the same pass, the operators alone and one
// thread: forward 0.35 instead of 0.60 ns a neuron-step on [100, 128, 512], backward 0.75 instead of 1.15 on
// [25, 128, 1000].
constexpr int64_t kStrip = 64;

template <typename T>
void prefetch(const Ahead<T>& ahead, int64_t first, int64_t n) {
  constexpr int64_t kLine = 64 / sizeof(T);
  if (ahead.read != nullptr) {
    for (int64_t i = first; i < first + n; i += kLine) {
      __builtin_prefetch(ahead.read + i);
    }
  }
  if (ahead.write != nullptr) {
    for (int64_t i = first; i < first + n; i += kLine) {
      __builtin_prefetch(ahead.write + i, 1);
    }
  }
}

// For a pass whose rows are of another type than the tensors, and for steps of many passes: ask at once.
template <typename S, typename T>
Ahead<S> take_along(const Ahead<T>& ahead, bool at_once, int64_t n) {
  if constexpr (std::is_same_v<T, S>) {
    if (at_once) {
      return ahead;
    }
  }
  prefetch(ahead, 0, n);
  return {};
}

// pass(first, n) for each strip of a row, while the lines of the next row come. Where the row is streamed
// `to` some place, strips end at its cache lines.
template <typename T, typename Pass>
[[gnu::always_inline]] inline void in_strips(const Ahead<T>& ahead, const T* to, int64_t n, Pass pass) {
  int64_t i = to == nullptr ? 0 : static_cast<int64_t>(-reinterpret_cast<uintptr_t>(to) % 64 / sizeof(T));
  if (i > 0) {
    i = i < n ? i : n;
    prefetch(ahead, 0, i);
    pass(0, i);
  }
  for (; i + kStrip <= n; i += kStrip) {
    prefetch(ahead, i, kStrip);
    pass(i, kStrip);
  }
  if (i < n) {
    prefetch(ahead, i, n - i);
    pass(i, n - i);
  }
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

// Outputs of so many bytes are written past the caches. A plain store reads its line first; a streaming one
// does not: a loop of the forward pass alone took 0.17 instead of 0.4 ns a neuron-step for it on
// [25, 128, 1000] with one thread, 0.4 instead of 0.6 on [16, 64, 16384] (memcpy: 0.20 and 0.42). What is
// smaller stays in the cache for the next layer to read.
constexpr int64_t kStreamedBytes = int64_t{8} << 20;

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

template <typename T>
void stream_row(T* to, const T* from, int64_t n) {
#if defined(LIF_SIMD_STREAM)
  constexpr int64_t kWide = 32 / sizeof(T);
  if (reinterpret_cast<uintptr_t>(to) % 32 == 0) {
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

// Where a pass itself streams a row to, while it computes it; null where write_row has to move it.
template <typename T, typename S = StateOf<T>>
S* row_to_stream(const Series<T>& series, const Block& block, int64_t t, bool streamed) {
  if constexpr (std::is_same_v<T, S>) {
    return series.data != nullptr && streamed ? row_of(series, block, t) : nullptr;
  } else {
    return nullptr;
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

// The step forward, in pieces.

template <typename S>
void synapse_row(S* __restrict__ after, const S* __restrict__ before, const S* __restrict__ alpha,
                 const S* __restrict__ x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    after[i] = synapse(alpha[i], before[i], x[i]);
  }
}

template <typename S>
void integrate_row(S* __restrict__ u, const S* __restrict__ v, const S* __restrict__ beta,
                   const S* __restrict__ input, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    u[i] = integrate(beta[i], v[i], input[i]);
  }
}

template <typename S>
void integrate_from_rest_row(S* __restrict__ u, const S* __restrict__ v, const S* __restrict__ beta, S rest,
                             const S* __restrict__ input, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    u[i] = integrate_from_rest(beta[i], v[i], rest, input[i]);
  }
}

template <typename S>
void adapted_threshold_row(S* __restrict__ adapted, const S* __restrict__ theta, const S* __restrict__ kappa,
                           const S* __restrict__ b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    adapted[i] = adapted_threshold(theta[i], kappa[i], b[i]);
  }
}

template <bool kStrict, typename S>
void fire_row(S* __restrict__ s, const S* __restrict__ u, const S* __restrict__ theta, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    s[i] = fire(u[i], theta[i], kStrict);
  }
}

template <typename S>
void fire_row(bool strict, S* s, const S* u, const S* theta, int64_t n) {
  strict ? fire_row<true>(s, u, theta, n) : fire_row<false>(s, u, theta, n);
}

template <Reset kReset, typename S>
void reset_row(S* __restrict__ v, const S* __restrict__ u, const S* __restrict__ theta,
               const S* __restrict__ v_reset, const S* __restrict__ s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    v[i] = reset(kReset, u[i], theta[i], v_reset[i], s[i]);
  }
}

template <typename S>
void reset_row(Reset kind, S* v, const S* u, const S* theta, const S* v_reset, const S* s, int64_t n) {
  switch (kind) {
    case Reset::subtract:
      return reset_row<Reset::subtract>(v, u, theta, v_reset, s, n);
    case Reset::zero:
      return reset_row<Reset::zero>(v, u, theta, v_reset, s, n);
    case Reset::none:
      return copy_row(v, u, n);
  }
}

template <typename S>
void adapt_row(S* __restrict__ after, const S* __restrict__ before, const S* __restrict__ rho,
               const S* __restrict__ s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    after[i] = adapt(rho[i], before[i], s[i]);
  }
}

template <typename S>
void count_down_row(S* __restrict__ after, const S* __restrict__ before, const S* __restrict__ s,
                    S refractory, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    after[i] = count_down(before[i], s[i], refractory);
  }
}

template <typename S>
void first_spike_row(S* __restrict__ first, S* __restrict__ alive, const S* __restrict__ s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    alive[i] = mul(alive[i], sub(S(1), s[i]));
    first[i] = add(first[i], alive[i]);
  }
}

// The common neuron, without a further state or a rest potential, in one pass: 4 rows read and 2 written,
// where the pieces read 8 and write 3.
template <Reset kReset, bool kStrict, typename S>
[[gnu::always_inline]] inline void step_strip_row(S* __restrict__ after, S* __restrict__ s,
                                                  const S* __restrict__ before, const S* __restrict__ input,
                                                  const S* __restrict__ beta, const S* __restrict__ theta,
                                                  const S* __restrict__ v_reset, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const S u = integrate(beta[i], before[i], input[i]);
    s[i] = fire(u, theta[i], kStrict);
    after[i] = reset(kReset, u, theta[i], v_reset[i], s[i]);
  }
}

// `to`: where s is streamed to, or null.
template <Reset kReset, bool kStrict, typename S>
void step_row(S* after, S* s, const S* before, const S* input, const S* beta, const S* theta,
              const S* v_reset, int64_t n, const Ahead<S>& ahead, S* to) {
  in_strips(ahead, to, n, [&](int64_t i, int64_t m) {
    step_strip_row<kReset, kStrict>(after + i, s + i, before + i, input + i, beta + i, theta + i, v_reset + i,
                                    m);
    if (to != nullptr) {
      stream_row(to + i, s + i, m);
    }
  });
}

// The same where backward recomputes: u is kept and the spike is not.
template <Reset kReset, bool kStrict, typename S>
[[gnu::always_inline]] inline void recompute_strip_row(
    S* __restrict__ after, S* __restrict__ u, const S* __restrict__ before, const S* __restrict__ input,
    const S* __restrict__ beta, const S* __restrict__ theta, const S* __restrict__ v_reset, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    u[i] = integrate(beta[i], before[i], input[i]);
    after[i] = reset(kReset, u[i], theta[i], v_reset[i], fire(u[i], theta[i], kStrict));
  }
}

template <Reset kReset, bool kStrict, typename S>
void recompute_row(S* after, S* u, const S* before, const S* input, const S* beta, const S* theta,
                   const S* v_reset, int64_t n, const Ahead<S>& ahead) {
  in_strips(ahead, static_cast<const S*>(nullptr), n, [&](int64_t i, int64_t m) {
    recompute_strip_row<kReset, kStrict>(after + i, u + i, before + i, input + i, beta + i, theta + i,
                                         v_reset + i, m);
  });
}

// The step backward, in pieces.

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

template <typename S>
void surrogate_row(S* h, const S* u, const S* theta, const Surrogate<S>& surrogate, int64_t n) {
  const S slope = surrogate.slope;
  const S scale = surrogate.scale;
  switch (surrogate.shape) {
    case Shape::fast_sigmoid:
      return surrogate_row<Shape::fast_sigmoid>(h, u, theta, slope, scale, n);
    case Shape::atan:
      return surrogate_row<Shape::atan>(h, u, theta, slope, scale, n);
    case Shape::sigmoid:
      return surrogate_row<Shape::sigmoid>(h, u, theta, slope, scale, n);
    case Shape::triangle:
      return surrogate_row<Shape::triangle>(h, u, theta, slope, scale, n);
    case Shape::piecewise_exp:
      return surrogate_row<Shape::piecewise_exp>(h, u, theta, slope, scale, n);
    case Shape::gaussian:
      return surrogate_row<Shape::gaussian>(h, u, theta, slope, scale, n);
    case Shape::rectangle:
      return surrogate_row<Shape::rectangle>(h, u, theta, slope, scale, n);
    case Shape::table:
      return table_lookup(h, u, theta, surrogate, n);
  }
}

// What comes back through the spike, e * h.
template <Reset kReset, bool kDetached, typename S>
void through_row(S* __restrict__ through, const S* __restrict__ g, const S* __restrict__ h,
                 const S* __restrict__ u, const S* __restrict__ a, const S* __restrict__ theta,
                 const S* __restrict__ v_reset, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    through[i] = mul(reach_spike(kReset, kDetached, g[i], u[i], theta[i], v_reset[i], a[i]), h[i]);
  }
}

template <typename S>
void through_row(Reset kind, bool detached, S* through, const S* g, const S* h, const S* u, const S* a,
                 const S* theta, const S* v_reset, int64_t n) {
  if (detached || kind == Reset::none) {
    product_row(through, g, h, n);
  } else if (kind == Reset::subtract) {
    through_row<Reset::subtract, false>(through, g, h, u, a, theta, v_reset, n);
  } else {
    through_row<Reset::zero, false>(through, g, h, u, a, theta, v_reset, n);
  }
}

template <Reset kReset, typename S>
void threshold_gradient_row(S* __restrict__ grad, const S* __restrict__ through, const S* __restrict__ a,
                            const S* __restrict__ s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    grad[i] = threshold_gradient(kReset, through[i], a[i], s[i]);
  }
}

template <typename S>
void sub_product_row(S* __restrict__ sum, const S* __restrict__ a, const S* __restrict__ b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    sum[i] = sub(sum[i], mul(a[i], b[i]));
  }
}

template <typename S>
void beta_gradient_from_rest_row(S* __restrict__ grad, const S* __restrict__ d, const S* __restrict__ v,
                                 S rest, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    grad[i] = add(grad[i], mul(d[i], sub(v[i], rest)));
  }
}

// The gradient of b[t] becomes that of b[t-1], through its own decay and through the threshold.
template <typename S>
void adaptation_back_row(S* __restrict__ grad, const S* __restrict__ rho, const S* __restrict__ kappa,
                         const S* __restrict__ grad_threshold, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    grad[i] = add(mul(rho[i], grad[i]), mul(kappa[i], grad_threshold[i]));
  }
}

template <typename S>
void first_spike_gradient_row(S* __restrict__ g, const S* __restrict__ later, const S* __restrict__ first,
                              S t, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    g[i] = add(g[i], first_spike_gradient(later[i], first[i], t));
  }
}

template <typename S>
void first_spike_earlier_row(S* __restrict__ later, const S* __restrict__ grad, const S* __restrict__ s,
                             int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    later[i] = first_spike_earlier(grad[i], later[i], s[i]);
  }
}

// The common neuron in one pass: a[t] becomes a[t-1], and d[t], the gradient of u[t], is written.
template <Reset kReset, bool kDetached, typename S>
[[gnu::always_inline]] inline void back_strip_row(S* __restrict__ a, S* __restrict__ d,
                                                  const S* __restrict__ g, const S* __restrict__ h,
                                                  const S* __restrict__ u, const S* __restrict__ s,
                                                  const S* __restrict__ beta, const S* __restrict__ theta,
                                                  const S* __restrict__ v_reset, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const S e = reach_spike(kReset, kDetached, g[i], u[i], theta[i], v_reset[i], a[i]);
    const S gradient = add(keep(kReset, a[i], s[i]), mul(e, h[i]));
    d[i] = gradient;
    a[i] = mul(beta[i], gradient);
  }
}

// `to`: where d is streamed to, or null.
template <Reset kReset, bool kDetached, typename S>
void back_row(S* a, S* d, const S* g, const S* h, const S* u, const S* s, const S* beta, const S* theta,
              const S* v_reset, int64_t n, const Ahead<S>& ahead, S* to) {
  in_strips(ahead, to, n, [&](int64_t i, int64_t m) {
    back_strip_row<kReset, kDetached>(a + i, d + i, g + i, h + i, u + i, s + i, beta + i, theta + i,
                                      v_reset + i, m);
    if (to != nullptr) {
      stream_row(to + i, d + i, m);
    }
  });
}

template <typename S>
void back_row(Reset kind, bool detached, S* a, S* d, const S* g, const S* h, const S* u, const S* s,
              const S* beta, const S* theta, const S* v_reset, int64_t n, const Ahead<S>& ahead, S* to) {
  const auto back = [&](auto row) { row(a, d, g, h, u, s, beta, theta, v_reset, n, ahead, to); };
  switch (kind) {
    case Reset::subtract:
      return detached ? back(back_row<Reset::subtract, true, S>) : back(back_row<Reset::subtract, false, S>);
    case Reset::zero:
      return detached ? back(back_row<Reset::zero, true, S>) : back(back_row<Reset::zero, false, S>);
    case Reset::none:
      return back(back_row<Reset::none, true, S>);
  }
}

// Memory for rows, in one piece. A row is a whole number of cache lines, and three more: rows a multiple of
// 4 KiB apart would fall on the same lines of the first-level cache (forward 0.45 instead of 0.6 ns a
// neuron-step).
template <typename S>
class Workspace {
 public:
  Workspace(int64_t neurons, int64_t rows)
      : stride_((neurons + kLine - 1) / kLine * kLine + 3 * kLine),
        memory_(static_cast<S*>(std::aligned_alloc(64, static_cast<size_t>(stride_ * rows) * sizeof(S))),
                &std::free),
        next_(memory_.get()) {
    if (next_ == nullptr) {
      throw std::bad_alloc();
    }
  }

  S* rows(int64_t count) {
    S* row = next_;
    next_ += count * stride_;
    return row;
  }

  S* row() { return rows(1); }

  int64_t stride() const { return stride_; }

 private:
  static constexpr int64_t kLine = 64 / sizeof(S);
  int64_t stride_;
  std::unique_ptr<S[], decltype(&std::free)> memory_;
  S* next_;
};

// The values of the parameters for a block, and the rows that a step forward works in.
template <typename S>
struct StepRows {
  static constexpr int64_t kRows = kParameters + 6;

  S* parameter[kParameters];
  S *x, *drive, *from, *adapted, *s, *narrowed;

  explicit StepRows(Workspace<S>& workspace) {
    for (S*& row : parameter) {
      row = workspace.row();
    }
    for (S** row : {&x, &drive, &from, &adapted, &s, &narrowed}) {
      *row = workspace.row();
    }
  }

  // The rows of options that a neuron does not have are never read, so they are not written either.
  void load(const Parameter<S>* parameters, const Neuron<S>& neuron, const Block& block) const {
    for (int name = 0; name < kParameters; ++name) {
      if (neuron.synapse || name != kAlpha) {
        if (neuron.adaptive || (name != kKappa && name != kRho)) {
          load_parameter(parameter[name], parameters[name], block);
        }
      }
    }
  }
};

// A row of each state.
template <typename S>
struct StateRows {
  S* of[kStates];
};

// A gain of 1 is left out: a product with 1 is exact.
template <typename S>
bool has_gain(const Parameter<S>* parameters) {
  return parameters[kGain].values != nullptr || parameters[kGain].value != S(1);
}

// Whether step_row, recompute_row and back_row hold all of the neuron between its input and its threshold.
template <typename S>
bool is_common(const Neuron<S>& neuron) {
  return neuron.rest == S(0) && !neuron.delayed && neuron.refractory == 0;
}

template <typename S>
const S* threshold_row(const Neuron<S>& neuron, const StepRows<S>& rows, const S* adaptation, int64_t n) {
  if (!neuron.adaptive) {
    return rows.parameter[kThreshold];
  }
  adapted_threshold_row(rows.adapted, rows.parameter[kThreshold], rows.parameter[kKappa], adaptation, n);
  return rows.adapted;
}

// What enters the membrane: the input, or the synaptic current that it feeds, times the gain.
template <typename S>
const S* drive_row(const Neuron<S>& neuron, const StepRows<S>& rows, bool gain, const S* x,
                   const StateRows<S>& before, const StateRows<S>& after, int64_t n) {
  const S* drive = x;
  if (neuron.synapse) {
    synapse_row(after.of[kCurrent], before.of[kCurrent], rows.parameter[kAlpha], x, n);
    drive = after.of[kCurrent];
  }
  if (gain) {
    product_row(rows.drive, rows.parameter[kGain], drive, n);
    drive = rows.drive;
  }
  return drive;
}

// One time step forward, piece by piece: from the states before to those after, u and s of the step beside.
template <typename S>
void step_in_pieces(const Neuron<S>& neuron, const StepRows<S>& rows, const S* drive,
                    const StateRows<S>& before, const StateRows<S>& after, S* u, S* s, int64_t n) {
  const S* v = before.of[kMembrane];
  const S* v_reset = rows.parameter[kResetTo];
  const S* from = v;
  if (neuron.delayed && neuron.reset != Reset::none) {
    fire_row(neuron.strict, s, v, rows.parameter[kThreshold], n);
  }
  if (neuron.delayed && neuron.reset == Reset::zero) {
    reset_row<Reset::zero>(rows.from, v, rows.parameter[kThreshold], v_reset, s, n);
    from = rows.from;
  }
  if (neuron.rest == S(0)) {
    integrate_row(u, from, rows.parameter[kBeta], drive, n);
  } else {
    integrate_from_rest_row(u, from, rows.parameter[kBeta], neuron.rest, drive, n);
  }
  if (neuron.delayed && neuron.reset == Reset::subtract) {
    sub_product_row(u, rows.parameter[kThreshold], s, n);
  }
  if (neuron.refractory > 0) {
    replace_row(u, v, before.of[kSilence], n);
  }
  const S* theta = threshold_row(neuron, rows, before.of[kAdaptation], n);
  fire_row(neuron.strict, s, u, theta, n);
  if (neuron.refractory > 0) {
    clear_row(s, before.of[kSilence], n);
    count_down_row(after.of[kSilence], before.of[kSilence], s, static_cast<S>(neuron.refractory), n);
  }
  reset_row(neuron.delayed ? Reset::none : neuron.reset, after.of[kMembrane], u, theta, v_reset, s, n);
  if (neuron.adaptive) {
    adapt_row(after.of[kAdaptation], before.of[kAdaptation], rows.parameter[kRho], s, n);
  }
}

template <bool kStrict, typename S>
void step_at_once(const Neuron<S>& neuron, const StepRows<S>& rows, const S* drive, const S* theta,
                  const S* before, S* after, S* s, int64_t n, const Ahead<S>& ahead, S* to) {
  const S* beta = rows.parameter[kBeta];
  const S* v_reset = rows.parameter[kResetTo];
  switch (neuron.reset) {
    case Reset::subtract:
      return step_row<Reset::subtract, kStrict>(after, s, before, drive, beta, theta, v_reset, n, ahead, to);
    case Reset::zero:
      return step_row<Reset::zero, kStrict>(after, s, before, drive, beta, theta, v_reset, n, ahead, to);
    case Reset::none:
      return step_row<Reset::none, kStrict>(after, s, before, drive, beta, theta, v_reset, n, ahead, to);
  }
}

template <bool kStrict, typename S>
void recompute_at_once(const Neuron<S>& neuron, const StepRows<S>& rows, const S* drive, const S* before,
                       S* after, S* u, int64_t n, const Ahead<S>& ahead) {
  const S* beta = rows.parameter[kBeta];
  const S* theta = rows.parameter[kThreshold];
  const S* v_reset = rows.parameter[kResetTo];
  switch (neuron.reset) {
    case Reset::subtract:
      return recompute_row<Reset::subtract, kStrict>(after, u, before, drive, beta, theta, v_reset, n, ahead);
    case Reset::zero:
      return recompute_row<Reset::zero, kStrict>(after, u, before, drive, beta, theta, v_reset, n, ahead);
    case Reset::none:
      return recompute_row<Reset::none, kStrict>(after, u, before, drive, beta, theta, v_reset, n, ahead);
  }
}

// The rows of a forward task. States alternate between two rows each.
template <typename S>
struct ForwardRows {
  static constexpr int64_t kRows = StepRows<S>::kRows + 2 * kStates + 4;

  StepRows<S> step;
  StateRows<S> state[2];
  S *u, *count, *alive, *first;

  explicit ForwardRows(Workspace<S>& workspace) : step(workspace) {
    for (StateRows<S>& rows : state) {
      for (S*& row : rows.of) {
        row = workspace.row();
      }
    }
    for (S** row : {&u, &count, &alive, &first}) {
      *row = workspace.row();
    }
  }
};

template <typename T, typename S = StateOf<T>>
void forward_task(const Forward<T>& args, const Block& block, const ForwardRows<S>& rows) {
  const Neuron<S>& neuron = args.neuron;
  const int64_t n = block.size;
  const int64_t steps = args.extent.steps;
  rows.step.load(args.parameter, neuron, block);
  for (int state = 0; state < kStates; ++state) {
    if (has_state(neuron, state)) {
      const S* from = args.state[state];
      load_or_zero(rows.state[0].of[state], from == nullptr ? nullptr : from + block.neuron, n);
    }
  }
  const bool counting = args.count != nullptr || args.rate != nullptr || args.total != nullptr;
  if (counting) {
    fill_row(rows.count, S(0), n);
  }
  if (args.first != nullptr) {
    fill_row(rows.alive, S(1), n);
    fill_row(rows.first, S(0), n);
  }
  const bool gain = has_gain(args.parameter);
  const bool at_once = is_common(neuron) && args.trace_before.data == nullptr;
  const bool streamed = is_streamed(args.extent, sizeof(T));
  const Series<T> stored = streamed ? Series<T>{} : args.spikes;

  int64_t until_checkpoint = args.checkpoint_every;
  S* checkpoint = args.checkpoints;
  for (int64_t t = 0; t < steps; ++t) {
    const StateRows<S>& before = rows.state[t & 1];
    const StateRows<S>& after = rows.state[~t & 1];
    if (checkpoint != nullptr && until_checkpoint-- == 0) {
      for (int state = 0; state < kStates; ++state) {
        if (has_state(neuron, state)) {
          copy_row(checkpoint + block.neuron, before.of[state], n);
          checkpoint += neurons(args.extent);
        }
      }
      until_checkpoint = args.checkpoint_every - 1;
    }
    const Ahead<T> next{row_to_ask_for(args.x, block, t + kRowsAhead, 0, steps),
                        row_to_ask_for(stored, block, t + 1, 0, steps)};
    const Ahead<S> ahead = take_along<S>(next, at_once, n);
    const S* x = read_row(args.x, block, t, rows.step.x);
    const S* drive = drive_row(neuron, rows.step, gain, x, before, after, n);
    S* s = row_to_write(args.spikes, block, t, rows.step.s, streamed);
    S* to = at_once ? row_to_stream(args.spikes, block, t, streamed) : nullptr;
    if (at_once) {
      const S* theta = threshold_row(neuron, rows.step, before.of[kAdaptation], n);
      const S* v = before.of[kMembrane];
      neuron.strict
          ? step_at_once<true>(neuron, rows.step, drive, theta, v, after.of[kMembrane], s, n, ahead, to)
          : step_at_once<false>(neuron, rows.step, drive, theta, v, after.of[kMembrane], s, n, ahead, to);
      if (neuron.adaptive) {
        adapt_row(after.of[kAdaptation], before.of[kAdaptation], rows.step.parameter[kRho], s, n);
      }
    } else {
      S* u = row_to_write(args.trace_before, block, t, rows.u, streamed);
      step_in_pieces(neuron, rows.step, drive, before, after, u, s, n);
      write_row(args.trace_before, block, t, u, rows.step.narrowed, streamed);
    }
    if (to == nullptr) {
      write_row(args.spikes, block, t, s, rows.step.narrowed, streamed);
    }
    if (args.trace.data != nullptr) {
      narrow_row<T>(row_of(args.trace, block, t), after.of[kMembrane], n);
    }
    if (counting) {
      add_row(rows.count, s, n);
    }
    if (args.first != nullptr) {
      first_spike_row(rows.first, rows.alive, s, n);
    }
  }

  if (args.count != nullptr) {
    copy_row(args.count + block.neuron, rows.count, n);
  }
  if (args.rate != nullptr) {
    divide_row(args.rate + block.neuron, rows.count, static_cast<S>(steps > 0 ? steps : 1), n);
  }
  if (args.first != nullptr) {
    copy_row(args.first + block.neuron, rows.first, n);
  }
  if (args.total != nullptr) {
    int64_t total = 0;
    for (int64_t i = 0; i < n; ++i) {
      total += static_cast<int64_t>(rows.count[i]);
    }
    // Integers: their sum does not depend on the order.
    __atomic_fetch_add(args.total, total, __ATOMIC_RELAXED);
  }
  for (int state = 0; state < kStates; ++state) {
    if (args.final_state[state] != nullptr) {
      copy_row(args.final_state[state] + block.neuron, rows.state[steps & 1].of[state], n);
    }
  }
}

// The rows of a backward task.
template <typename S>
struct BackwardRows {
  static constexpr int64_t kRows = StepRows<S>::kRows + kSmoothStates + kParameters + 14;

  StepRows<S> step;
  S* adjoint[kSmoothStates];  // the gradients of the states
  S* grad_parameter[kParameters];
  S *g, *h, *through, *d, *dx, *trace, *constant, *grad_first, *first, *later, *grad_x, *grad_theta, *zeros;
  S* widened;

  // Of each step of a chunk: u, and the states before it.
  S* u;
  S* state[kStates];
  int64_t stride;
  int64_t kept[kStates];  // rows of a state: all of the chunk, or two in turn where backward needs none

  // Rows beside kRows: u of a chunk, and of each state one more.
  static int64_t history(int64_t chunk) { return chunk + kStates * (chunk + 1); }

  BackwardRows(Workspace<S>& workspace, int64_t chunk, const bool (&keep)[kStates])
      : step(workspace), stride(workspace.stride()) {
    for (S*& row : adjoint) {
      row = workspace.row();
    }
    for (S*& row : grad_parameter) {
      row = workspace.row();
    }
    for (S** row : {&g, &h, &through, &d, &dx, &trace, &constant, &grad_first, &first, &later, &grad_x,
                    &grad_theta, &zeros, &widened}) {
      *row = workspace.row();
    }
    u = workspace.rows(chunk);
    for (int name = 0; name < kStates; ++name) {
      kept[name] = keep[name] ? chunk + 1 : 2;
      state[name] = workspace.rows(kept[name]);
    }
  }

  S* u_of(int64_t t) const { return u + t * stride; }

  // The states before step t of the chunk.
  StateRows<S> before(int64_t t) const {
    StateRows<S> rows;
    for (int name = 0; name < kStates; ++name) {
      rows.of[name] = state[name] + (kept[name] == 2 ? t & 1 : t) * stride;
    }
    return rows;
  }
};

// Recompute u and the states of the steps [first, last) of a chunk.
template <typename T, typename S = StateOf<T>>
void recompute_chunk(const Backward<T>& args, const Block& block, const BackwardRows<S>& rows, int64_t chunk,
                     int64_t first, int64_t last) {
  const Neuron<S>& neuron = args.neuron;
  const int64_t n = block.size;
  const StateRows<S> start = rows.before(0);
  const S* checkpoint =
      chunk == 0 ? nullptr : args.checkpoints + (chunk - 1) * states_of(neuron) * neurons(args.extent);
  for (int state = 0; state < kStates; ++state) {
    if (has_state(neuron, state)) {
      const S* from = chunk == 0 ? args.state[state] : checkpoint;
      load_or_zero(start.of[state], from == nullptr ? nullptr : from + block.neuron, n);
      checkpoint += chunk == 0 ? 0 : neurons(args.extent);
    }
  }
  const bool gain = has_gain(args.parameter);
  const bool at_once = is_common(neuron) && !neuron.adaptive;
  for (int64_t t = first; t < last; ++t) {
    const Ahead<T> next{row_to_ask_for(args.x, block, t + kRowsAhead, first, last), nullptr};
    const Ahead<S> ahead = take_along<S>(next, at_once, n);
    const StateRows<S> before = rows.before(t - first);
    const StateRows<S> after = rows.before(t - first + 1);
    const S* x = read_row(args.x, block, t, rows.step.x);
    const S* drive = drive_row(neuron, rows.step, gain, x, before, after, n);
    S* u = rows.u_of(t - first);
    if (at_once) {
      const S* v = before.of[kMembrane];
      neuron.strict ? recompute_at_once<true>(neuron, rows.step, drive, v, after.of[kMembrane], u, n, ahead)
                    : recompute_at_once<false>(neuron, rows.step, drive, v, after.of[kMembrane], u, n, ahead);
    } else {
      step_in_pieces(neuron, rows.step, drive, before, after, u, rows.step.s, n);
    }
  }
}

// The gradient that all steps of a series share, from its count and its rate; null where there is neither.
template <typename T, typename S = StateOf<T>>
const S* constant_gradient(const Backward<T>& args, const Block& block, const BackwardRows<S>& rows) {
  const int64_t n = block.size;
  if (args.grad_rate.data == nullptr) {
    if (args.grad_count.data == nullptr) {
      return nullptr;
    }
    const S* count = read_row(args.grad_count, block, 0, rows.constant);
    if (count != rows.constant) {
      copy_row(rows.constant, count, n);
    }
    return rows.constant;
  }
  const S* rate = read_row(args.grad_rate, block, 0, rows.widened);
  divide_row(rows.constant, rate, static_cast<S>(args.extent.steps), n);
  if (args.grad_count.data != nullptr) {
    add_row(rows.constant, read_row(args.grad_count, block, 0, rows.widened), n);
  }
  return rows.constant;
}

template <typename T, typename S = StateOf<T>>
void backward_task(const Backward<T>& args, const Block& block, const BackwardRows<S>& rows) {
  const Neuron<S>& neuron = args.neuron;
  const int64_t n = block.size;
  const int64_t steps = args.extent.steps;
  const S* const* parameter = rows.step.parameter;
  S* const* grad = rows.grad_parameter;
  const auto wants = [&](int name) { return args.grad_parameter[name] != nullptr; };
  rows.step.load(args.parameter, neuron, block);
  for (int state = 0; state < kSmoothStates; ++state) {
    const S* from = args.grad_final[state];
    load_or_zero(rows.adjoint[state], from == nullptr ? nullptr : from + block.neuron, n);
  }
  for (int name = 0; name < kParameters; ++name) {
    if (wants(name)) {
      fill_row(grad[name], S(0), n);
    }
  }
  if (args.grad_x_sum != nullptr) {
    fill_row(rows.grad_x, S(0), n);
  }
  fill_row(rows.zeros, S(0), n);
  const S* constant = constant_gradient(args, block, rows);
  const bool timed = args.grad_first.data != nullptr;
  if (timed) {
    const S* from = read_row(args.grad_first, block, 0, rows.widened);
    copy_row(rows.grad_first, from, n);
    copy_row(rows.later, from, n);
    copy_row(rows.first, args.first + block.neuron, n);
  }

  const bool gain = has_gain(args.parameter);
  const bool at_once = is_common(neuron) && args.grad_trace_before.data == nullptr;
  const bool streamed = is_streamed(args.extent, sizeof(T));
  const Series<T> stored = streamed ? Series<T>{} : args.grad_x;
  const bool subtracts = !neuron.delayed && neuron.reset == Reset::subtract;
  const bool zeroes = !neuron.delayed && neuron.reset == Reset::zero;
  const bool detached = neuron.detach_reset || neuron.delayed;
  const bool by_threshold = wants(kThreshold) || neuron.adaptive;
  const bool needs_spikes = by_threshold || zeroes || timed;
  const bool needs_through = !at_once || by_threshold;
  // Where dx is not the gradient of u itself, d is computed beside it.
  const bool further = neuron.synapse || gain || neuron.refractory > 0;
  S* a = rows.adjoint[kMembrane];
  S* s = rows.step.s;

  const int64_t chunks = (steps + args.chunk - 1) / args.chunk;
  for (int64_t c = chunks - 1; c >= 0; --c) {
    const int64_t begin = c * args.chunk;
    const int64_t end = begin + args.chunk < steps ? begin + args.chunk : steps;
    recompute_chunk(args, block, rows, c, begin, end);

    for (int64_t t = end - 1; t >= begin; --t) {
      const Ahead<T> next{row_to_ask_for(args.grad_spikes, block, t - kRowsAhead, 0, steps),
                          row_to_ask_for(stored, block, t - 1, 0, steps)};
      const Ahead<S> ahead = take_along<S>(next, at_once, n);
      const S* u = rows.u_of(t - begin);
      const StateRows<S> before = rows.before(t - begin);
      const StateRows<S> after = rows.before(t - begin + 1);
      const S* silence = before.of[kSilence];
      const S* theta = threshold_row(neuron, rows.step, before.of[kAdaptation], n);

      const S* g =
          args.grad_spikes.data == nullptr ? rows.zeros : read_row(args.grad_spikes, block, t, rows.g);
      const auto add_to_g = [&](const S* term) {
        if (g == rows.g) {
          add_row(rows.g, term, n);
        } else {
          sum_row(rows.g, g, term, n);
          g = rows.g;
        }
      };
      if (timed) {
        if (g != rows.g) {
          copy_row(rows.g, g, n);
          g = rows.g;
        }
        first_spike_gradient_row(rows.g, rows.later, rows.first, static_cast<S>(t), n);
      }
      if (constant != nullptr) {
        add_to_g(constant);
      }
      if (neuron.adaptive) {
        add_to_g(rows.adjoint[kAdaptation]);
      }
      if (args.grad_trace.data != nullptr) {
        add_row(a, read_row(args.grad_trace, block, t, rows.trace), n);
      }

      surrogate_row(rows.h, u, theta, args.surrogate, n);
      if (needs_spikes) {
        fire_row(neuron.strict, s, u, theta, n);
      }
      if (neuron.refractory > 0) {
        clear_row(rows.h, silence, n);
        clear_row(s, silence, n);
      }
      if (timed) {
        first_spike_earlier_row(rows.later, rows.grad_first, s, n);
      }
      if (needs_through) {
        through_row(neuron.reset, detached, rows.through, g, rows.h, u, a, theta, parameter[kResetTo], n);
      }
      if (by_threshold) {
        subtracts ? threshold_gradient_row<Reset::subtract>(rows.grad_theta, rows.through, a, s, n)
                  : threshold_gradient_row<Reset::zero>(rows.grad_theta, rows.through, a, s, n);
        if (wants(kThreshold)) {
          add_row(grad[kThreshold], rows.grad_theta, n);
        }
      }
      if (zeroes && wants(kResetTo)) {
        add_product_row(grad[kResetTo], a, s, n);
      }
      if (neuron.adaptive) {
        if (wants(kKappa)) {
          add_product_row(grad[kKappa], rows.grad_theta, before.of[kAdaptation], n);
        }
        if (wants(kRho)) {
          add_product_row(grad[kRho], rows.adjoint[kAdaptation], before.of[kAdaptation], n);
        }
        adaptation_back_row(rows.adjoint[kAdaptation], parameter[kRho], parameter[kKappa], rows.grad_theta,
                            n);
      }

      // d, the gradient of u, and a, that of the membrane before the step.
      S* d = further ? rows.d : row_to_write(args.grad_x, block, t, rows.d, streamed);
      S* to = at_once && !further ? row_to_stream(args.grad_x, block, t, streamed) : nullptr;
      const S* v = before.of[kMembrane];
      if (at_once) {
        back_row(neuron.reset, detached, a, d, g, rows.h, u, s, parameter[kBeta], theta, parameter[kResetTo],
                 n, ahead, to);
      } else {
        if (zeroes) {
          clear_row(a, s, n);
        }
        if (args.grad_trace_before.data != nullptr) {
          add_row(a, read_row(args.grad_trace_before, block, t, rows.trace), n);
        }
        sum_row(d, a, rows.through, n);
        if (neuron.refractory > 0) {
          copy_row(rows.through, d, n);  // what a silent neuron hands on
          clear_row(d, silence, n);
        }
        product_row(a, parameter[kBeta], d, n);
        if (neuron.refractory > 0) {
          replace_row(a, rows.through, silence, n);
        }
        if (neuron.delayed && neuron.reset != Reset::none) {
          fire_row(neuron.strict, s, v, parameter[kThreshold], n);
          if (neuron.reset == Reset::subtract && wants(kThreshold)) {
            sub_product_row(grad[kThreshold], s, d, n);
          }
          if (neuron.reset == Reset::zero) {
            reset_row<Reset::zero>(rows.step.from, v, parameter[kThreshold], parameter[kResetTo], s, n);
            v = rows.step.from;
            if (wants(kResetTo)) {
              add_product_row(grad[kResetTo], a, s, n);
            }
            clear_row(a, s, n);
          }
        }
      }
      if (wants(kBeta)) {
        neuron.rest == S(0) ? add_product_row(grad[kBeta], d, v, n)
                            : beta_gradient_from_rest_row(grad[kBeta], d, v, neuron.rest, n);
      }

      // dx, through the gain and the synaptic current.
      const S* dx = d;
      if (further) {
        S* through_input = row_to_write(args.grad_x, block, t, rows.dx, streamed);
        dx = through_input;
        if (wants(kGain)) {
          const S* input = neuron.synapse ? after.of[kCurrent] : read_row(args.x, block, t, rows.step.x);
          add_product_row(grad[kGain], d, input, n);
        }
        gain ? product_row(through_input, parameter[kGain], d, n) : copy_row(through_input, d, n);
        if (neuron.synapse) {
          S* current = rows.adjoint[kCurrent];
          add_row(through_input, current, n);
          if (wants(kAlpha)) {
            add_product_row(grad[kAlpha], dx, before.of[kCurrent], n);
          }
          product_row(current, parameter[kAlpha], dx, n);
        }
      }
      if (to == nullptr) {
        write_row(args.grad_x, block, t, dx, rows.step.narrowed, streamed);
      }
      if (args.grad_x_sum != nullptr) {
        add_row(rows.grad_x, dx, n);
      }
    }
  }

  if (args.grad_x_sum != nullptr) {
    narrow_row<T>(args.grad_x_sum + block.neuron, rows.grad_x, n);
  }
  for (int state = 0; state < kSmoothStates; ++state) {
    if (args.grad_state[state] != nullptr) {
      copy_row(args.grad_state[state] + block.neuron, rows.adjoint[state], n);
    }
  }
  for (int name = 0; name < kParameters; ++name) {
    if (wants(name)) {
      copy_row(args.grad_parameter[name] + block.neuron, grad[name], n);
    }
  }
}

template <typename T, typename S = StateOf<T>>
void forward(const Forward<T>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  Workspace<S> workspace(tiling.neurons, ForwardRows<S>::kRows);
  const ForwardRows<S> rows(workspace);
  for (int64_t task = begin; task < end; ++task) {
    forward_task(args, block_of(args.extent, tiling, task), rows);
  }
  finish_streaming(is_streamed(args.extent, sizeof(T)));
}

template <typename T, typename S = StateOf<T>>
void backward(const Backward<T>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  const int64_t chunk = args.chunk < args.extent.steps ? args.chunk : args.extent.steps;
  Workspace<S> workspace(tiling.neurons, BackwardRows<S>::kRows + BackwardRows<S>::history(chunk));
  const bool keep[kStates] = {
      args.grad_parameter[kBeta] != nullptr || args.neuron.delayed,
      args.grad_parameter[kAlpha] != nullptr || args.grad_parameter[kGain] != nullptr,
      true,
      true,
  };
  const BackwardRows<S> rows(workspace, chunk, keep);
  for (int64_t task = begin; task < end; ++task) {
    backward_task(args, block_of(args.extent, tiling, task), rows);
  }
  finish_streaming(is_streamed(args.extent, sizeof(T)));
}

// Sums in double, in an order that depends only on the sizes. Narrow rows are folded side by side, so that
// even the sum over a single column has a vector's width of independent additions.
template <typename S>
void sum_columns(const S* partial, int64_t rows, int64_t columns, S* out) {
  constexpr int64_t kWidth = 64;
  const int64_t fold = columns < kWidth ? kWidth / columns : 1;
  const int64_t stride = columns * fold;
  const int64_t size = rows * columns;
  for (int64_t first = 0; first < columns; first += kWidth) {
    const int64_t wide = fold > 1 ? stride : columns - first < kWidth ? columns - first : kWidth;
    double sum[kWidth] = {};
    for (int64_t row = first; row < size; row += stride) {
      const int64_t n = size - row < wide ? size - row : wide;
      for (int64_t i = 0; i < n; ++i) {
        sum[i] += static_cast<double>(partial[row + i]);
      }
    }
    for (int64_t i = 0; i < wide && i < columns; ++i) {
      double total = sum[i];
      for (int64_t f = 1; f < fold; ++f) {
        total += sum[f * columns + i];
      }
      out[first + i] = static_cast<S>(total);
    }
  }
}

template <typename S>
void sum_partials(const S* partial, int64_t rows, int64_t columns, int64_t repeat, S* out) {
  if (repeat == 1) {
    return sum_columns(partial, rows, columns, out);
  }
  for (int64_t c = 0; c < columns; ++c) {
    double total = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const S* from = partial + (r * columns + c) * repeat;
      double lanes[16] = {};
      int64_t p = 0;
      for (; p + 16 <= repeat; p += 16) {
        for (int lane = 0; lane < 16; ++lane) {
          lanes[lane] += static_cast<double>(from[p + lane]);
        }
      }
      for (; p < repeat; ++p) {
        total += static_cast<double>(from[p]);
      }
      for (double lane : lanes) {
        total += lane;
      }
    }
    out[c] = static_cast<S>(total);
  }
}

}  // namespace

template <typename T>
Kernels<T> kernels() {
  return {&forward<T>, &backward<T>, &sum_partials<StateOf<T>>};
}

template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();
template Kernels<Half> kernels<Half>();
template Kernels<BFloat16> kernels<BFloat16>();

}  // namespace lif::cpu::LIF_SIMD
