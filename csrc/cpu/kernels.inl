// The CPU kernels, compiled once for each SIMD level: LIF_SIMD names the level's namespace, LIF_SIMD_BYTES
// the width of its registers.
//
// Two tiers compute the same numbers: plain.inl the neuron and the outputs that most networks use, in
// registers; general.inl all others, row by row.

#include "cpu/general.inl"
#include "cpu/kernels.h"
#include "cpu/plain_backward.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

template <typename T, typename S = StateOf<T>>
void forward(const Forward<T>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  const auto run = [&](auto& rows) {
    for (int64_t task = begin; task < end; ++task) {
      forward_task(args, block_of(args.extent, tiling, task), rows);
    }
  };
  if (is_plain(args)) {
    // Half a kilobyte beyond the spikes, modulo a page: with what is streamed it does not collide.
    const uintptr_t place = reinterpret_cast<uintptr_t>(args.spikes.data) + 512;
    Workspace<S> workspace(tiling.neurons, PlainRows<S>::kRows, place);
    PlainRows<S> rows(workspace, args.parameter, tiling.neurons);
    run(rows);
  } else {
    Workspace<S> workspace(tiling.neurons, ForwardRows<S>::kRows);
    const ForwardRows<S> rows(workspace);
    run(rows);
  }
  finish_streaming(is_streamed(args.extent, sizeof(T)));
}

template <typename T, typename S = StateOf<T>>
void backward(const Backward<T>& args, const Tiling& tiling, int64_t begin, int64_t end) {
  const int64_t chunk = args.chunk < args.extent.steps ? args.chunk : args.extent.steps;
  if (is_plain(args)) {
    const bool entered = keeps_entered(args);
    Workspace<S> workspace(tiling.neurons, PlainRows<S>::kRows + KeptRows<S>::count(chunk, entered));
    PlainRows<S> rows(workspace, args.parameter, tiling.neurons);
    const KeptRows<S> kept(workspace, chunk, kept_of(args), entered);
    for (int64_t task = begin; task < end; ++task) {
      backward_task(args, block_of(args.extent, tiling, task), rows, kept);
    }
  } else {
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
  return {
      [](const Forward<T>& args) { return is_plain(args) ? kPlainForwardNeurons : kNeurons; },
      [](const Backward<T>& args) { return is_plain(args) ? kPlainBackwardNeurons : kNeurons; },
      &forward<T>,
      &backward<T>,
      &sum_partials<StateOf<T>>,
  };
}

template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();
template Kernels<Half> kernels<Half>();
template Kernels<BFloat16> kernels<BFloat16>();

}  // namespace lif::cpu::LIF_SIMD
