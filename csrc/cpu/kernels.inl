// The CPU kernels, compiled once for each SIMD level: LIF_SIMD names the level's namespace.
//
// A task walks its neurons through time in rows: one row is one time step of the task's neurons. Each
// function below is one pass over a row; a reset, a surrogate or a wanted gradient is a pass of its own,
// so that n surrogates and m resets cost n + m loops and not n * m. Rows live in the first-level cache
// between passes, so a further pass costs arithmetic and no memory traffic. The loops are written for the
// compiler's vectoriser (tests/test_vectorised.py reads its report).

#include "neuron/step.h"
#include "neuron/surrogate.h"

namespace lif::cpu::LIF_SIMD {
namespace {

// How many time steps ahead a row is asked for.
constexpr int64_t kRowsAhead = 2;

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
  return series.data + block.outer * series.outer_stride + t * series.time_stride + block.first;
}

// Ask for a row of a later step. Rows of one task lie a whole time step apart, so the hardware prefetcher
// starts afresh at each and is late for most of it.
template <typename S>
void prefetch_row(const S* row, int64_t n) {
  constexpr int64_t kLine = 64 / sizeof(S);
  for (int64_t i = 0; i < n; i += kLine) {
    __builtin_prefetch(row + i);
  }
}

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

template <typename S>
void load_or_zero(S* row, const S* from, const Block& block) {
  if (from != nullptr) {
    copy_row(row, from + block.neuron, block.size);
  } else {
    fill_row(row, S(0), block.size);
  }
}

// A parameter's values for the block. The modulo is paid once for all T steps.
template <typename S>
void load_parameter(S* __restrict__ row, const Parameter<S>& parameter, const Block& block) {
  if (parameter.values == nullptr) {
    fill_row(row, parameter.value, block.size);
    return;
  }
  int64_t from = block.neuron % parameter.period;
  for (int64_t done = 0; done < block.size; from = 0) {
    const int64_t left = block.size - done;
    const int64_t run = parameter.period - from < left ? parameter.period - from : left;
    copy_row(row + done, parameter.values + from, run);
    done += run;
  }
}

template <typename S>
void add_row(S* __restrict__ sum, const S* __restrict__ row, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    sum[i] = add(sum[i], row[i]);
  }
}

// One time step: v and, where wanted, the spikes or their count.
template <bool kSpikes, bool kCount, typename S>
void step_row(S* __restrict__ v, const S* __restrict__ x, const S* __restrict__ beta,
              const S* __restrict__ theta, S* __restrict__ spikes, S* __restrict__ count, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const S u = integrate(beta[i], v[i], x[i]);
    const S s = fire(u, theta[i]);
    v[i] = reset_subtract(u, theta[i], s);
    if (kSpikes) {
      spikes[i] = s;
    }
    if (kCount) {
      count[i] = add(count[i], s);
    }
  }
}

// One time step of the recomputation in backward: u is kept.
template <typename S>
void recompute_row(S* __restrict__ u, const S* __restrict__ v, const S* __restrict__ x,
                   const S* __restrict__ beta, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    u[i] = integrate(beta[i], v[i], x[i]);
  }
}

template <typename S>
void reset_row(S* __restrict__ v, const S* __restrict__ u, const S* __restrict__ theta, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    v[i] = reset_subtract(u[i], theta[i], fire(u[i], theta[i]));
  }
}

template <typename S>
void fast_sigmoid_row(S* __restrict__ h, const S* __restrict__ u, const S* __restrict__ theta, S slope,
                      S scale, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    h[i] = fast_sigmoid(sub(u[i], theta[i]), slope, scale);
  }
}

template <typename S>
void surrogate_row(S* h, const S* u, const S* theta, const NeuronOptions<S>& options, int64_t n) {
  switch (options.shape) {
    case Shape::fast_sigmoid:
      return fast_sigmoid_row(h, u, theta, options.slope, options.scale, n);
  }
}

template <bool kDetachReset, typename S>
void threshold_gradient_row(S* __restrict__ grad, const S* __restrict__ g, const S* __restrict__ h,
                            const S* __restrict__ u, const S* __restrict__ a, const S* __restrict__ theta,
                            int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const S e = reach_spike<kDetachReset>(g[i], theta[i], a[i]);
    grad[i] = add(grad[i], threshold_gradient(e, h[i], a[i], fire(u[i], theta[i])));
  }
}

// One time step back: a[t] becomes a[t-1], and d[t], the gradient of u[t], is written.
template <bool kDetachReset, typename S>
void back_row(S* __restrict__ a, S* __restrict__ d, const S* __restrict__ g, const S* __restrict__ h,
              const S* __restrict__ beta, const S* __restrict__ theta, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const S e = reach_spike<kDetachReset>(g[i], theta[i], a[i]);
    const S gradient = reach_membrane(a[i], e, h[i]);
    d[i] = gradient;
    a[i] = leak_back(beta[i], gradient);
  }
}

template <typename S>
void beta_gradient_row(S* __restrict__ grad, const S* __restrict__ d, const S* __restrict__ v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    grad[i] = add(grad[i], beta_gradient(d[i], v[i]));
  }
}

template <typename S>
void forward_task(const Forward<S>& args, const Block& block) {
  alignas(64) S v[kForwardNeurons];
  alignas(64) S beta[kForwardNeurons];
  alignas(64) S theta[kForwardNeurons];
  alignas(64) S count[kForwardNeurons];
  const int64_t n = block.size;
  load_or_zero(v, args.membrane, block);
  load_parameter(beta, args.beta, block);
  load_parameter(theta, args.threshold, block);
  fill_row(count, S(0), n);

  int64_t until_checkpoint = args.checkpoint_every;
  S* checkpoint = args.checkpoints;
  for (int64_t t = 0; t < args.extent.steps; ++t) {
    if (checkpoint != nullptr && until_checkpoint-- == 0) {
      copy_row(checkpoint + block.neuron, v, n);
      checkpoint += neurons(args.extent);
      until_checkpoint = args.checkpoint_every - 1;
    }
    const S* x = row_of(args.x, block, t);
    if (t + kRowsAhead < args.extent.steps) {
      prefetch_row(row_of(args.x, block, t + kRowsAhead), n);
    }
    if (args.spikes.data != nullptr) {
      S* spikes = row_of(args.spikes, block, t);
      if (args.count != nullptr) {
        step_row<true, true>(v, x, beta, theta, spikes, count, n);
      } else {
        step_row<true, false>(v, x, beta, theta, spikes, count, n);
      }
    } else if (args.count != nullptr) {
      step_row<false, true, S>(v, x, beta, theta, nullptr, count, n);
    } else {
      step_row<false, false, S>(v, x, beta, theta, nullptr, count, n);
    }
  }

  if (args.count != nullptr) {
    copy_row(args.count + block.neuron, count, n);
  }
  if (args.final_membrane != nullptr) {
    copy_row(args.final_membrane + block.neuron, v, n);
  }
}

// The rows that a backward task works in, in one piece of memory.
template <typename S>
struct BackwardRows {
  S* u;  // of each step of a chunk
  S *v, *a, *h, *g, *d, *beta, *theta, *grad_x, *grad_beta, *grad_threshold;

  static constexpr int64_t kRows = 10;

  static int64_t size(int64_t chunk) { return (chunk + kRows) * kBackwardNeurons; }

  BackwardRows(S* memory, int64_t chunk) {
    u = memory;
    memory += chunk * kBackwardNeurons;
    for (S** row : {&v, &a, &h, &g, &d, &beta, &theta, &grad_x, &grad_beta, &grad_threshold}) {
      *row = memory;
      memory += kBackwardNeurons;
    }
  }
};

// The incoming gradient of the spikes of step t; `rows.g` holds it where it is not a row in memory.
template <typename S>
const S* grad_out_row(const Backward<S>& args, const Block& block, const BackwardRows<S>& rows, int64_t t) {
  if (args.grad_out.data == nullptr) {
    return rows.g;  // zeros, written once
  }
  if (args.grad_out_uniform) {
    const S* value =
        args.grad_out.data + block.outer * args.grad_out.outer_stride + t * args.grad_out.time_stride;
    fill_row(rows.g, *value, block.size);
    return rows.g;
  }
  return row_of(args.grad_out, block, t);
}

template <bool kDetachReset, typename S>
void backward_task(const Backward<S>& args, const Block& block, const BackwardRows<S>& rows) {
  const int64_t n = block.size;
  load_parameter(rows.beta, args.beta, block);
  load_parameter(rows.theta, args.threshold, block);
  load_or_zero(rows.a, args.grad_final_membrane, block);
  for (S* row : {rows.g, rows.grad_x, rows.grad_beta, rows.grad_threshold}) {
    fill_row(row, S(0), n);
  }

  const int64_t steps = args.extent.steps;
  const int64_t chunks = (steps + args.chunk - 1) / args.chunk;
  for (int64_t c = chunks - 1; c >= 0; --c) {
    const int64_t first = c * args.chunk;
    const int64_t last = first + args.chunk < steps ? first + args.chunk : steps;
    const S* before = c == 0 ? args.membrane : args.checkpoints + (c - 1) * neurons(args.extent);

    load_or_zero(rows.v, before, block);
    for (int64_t t = first; t < last; ++t) {
      S* u = rows.u + (t - first) * kBackwardNeurons;
      if (t + kRowsAhead < last) {
        prefetch_row(row_of(args.x, block, t + kRowsAhead), n);
      }
      recompute_row(u, rows.v, row_of(args.x, block, t), rows.beta, n);
      reset_row(rows.v, u, rows.theta, n);
    }

    for (int64_t t = last - 1; t >= first; --t) {
      const S* u = rows.u + (t - first) * kBackwardNeurons;
      const S* g = grad_out_row(args, block, rows, t);
      if (args.grad_out.data != nullptr && t >= kRowsAhead) {
        prefetch_row(row_of(args.grad_out, block, t - kRowsAhead), n);
      }
      surrogate_row(rows.h, u, rows.theta, args.options, n);
      if (args.grad_threshold != nullptr) {
        threshold_gradient_row<kDetachReset>(rows.grad_threshold, g, rows.h, u, rows.a, rows.theta, n);
      }
      S* d = args.grad_x.data != nullptr ? row_of(args.grad_x, block, t) : rows.d;
      back_row<kDetachReset>(rows.a, d, g, rows.h, rows.beta, rows.theta, n);
      if (args.grad_x_sum != nullptr) {
        add_row(rows.grad_x, d, n);
      }
      if (args.grad_beta != nullptr) {
        if (t > first) {
          reset_row(rows.v, u - kBackwardNeurons, rows.theta, n);
        } else {
          load_or_zero(rows.v, before, block);
        }
        beta_gradient_row(rows.grad_beta, d, rows.v, n);
      }
    }
  }

  const auto store = [&](S* to, const S* row) {
    if (to != nullptr) {
      copy_row(to + block.neuron, row, n);
    }
  };
  store(args.grad_x_sum, rows.grad_x);
  store(args.grad_membrane, rows.a);
  store(args.grad_beta, rows.grad_beta);
  store(args.grad_threshold, rows.grad_threshold);
}

template <typename S>
void forward(const Forward<S>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) {
    forward_task(args, block_of(args.extent, tiling, task));
  }
}

template <typename S>
void backward(const Backward<S>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  const int64_t chunk = args.chunk < args.extent.steps ? args.chunk : args.extent.steps;
  const auto size = static_cast<size_t>(BackwardRows<S>::size(chunk));
  const std::unique_ptr<S[], decltype(&std::free)> memory(
      static_cast<S*>(std::aligned_alloc(64, size * sizeof(S))), &std::free);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  const BackwardRows<S> rows(memory.get(), chunk);
  for (int64_t task = begin; task < end; ++task) {
    const Block block = block_of(args.extent, tiling, task);
    if (args.options.detach_reset) {
      backward_task<true>(args, block, rows);
    } else {
      backward_task<false>(args, block, rows);
    }
  }
}

// Sums in double, in an order that depends only on the sizes. Narrow rows are folded side by side, so that
// even the sum over a single column has a vector's width of independent additions.
template <typename S>
void sum_rows(const S* partial, int64_t rows, int64_t columns, S* out, int64_t begin, int64_t end) {
  constexpr int64_t kWidth = 64;
  const int64_t fold = columns < kWidth ? kWidth / columns : 1;
  const int64_t stride = columns * fold;
  const int64_t size = rows * columns;
  for (int64_t first = begin; first < end; first += kWidth) {
    const int64_t wide = fold > 1 ? stride : end - first < kWidth ? end - first : kWidth;
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

}  // namespace

template <typename S>
Kernels<S> kernels() {
  return {&forward<S>, &backward<S>, &sum_rows<S>};
}

template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();

}  // namespace lif::cpu::LIF_SIMD
