// Products with spikes, compiled once for each SIMD level: of their rows with a weight, and of their columns
// with a gradient. Both add rows of numbers where a bit is set (add_tile).
//
// The numbers are read in panels of kSumColumns columns, and a panel in tiles that stay in the second-level
// cache while all rows of bits pass them.
//
// Where most bits of a few rows are set, each number is loaded once for all of these rows and added where
// there is a spike. The order is the same, so the bits are.
#pragma once

#include "cpu/events.h"
#include "cpu/level/events.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

// Of a tile of a panel. Half of the second-level cache of today's processors: the rows of the sums pass
// through the other half.
constexpr int64_t kTileBytes = int64_t{512} << 10;

// Words of spikes whose rows of `width` columns are a tile.
template <typename S>
constexpr int64_t tile_words(int64_t width) {
  return kTileBytes / (width * static_cast<int64_t>(sizeof(S)) * kSpikesOfWord);
}

// Rows of bits that are taken together where they are dense, and vectors of their sums: with the row of
// numbers they fill the registers.
constexpr int64_t kDenseRows = LIF_SIMD_BYTES == 64 ? 4 : 2;
constexpr int64_t kDenseVectors = 4;
// Spikes that are taken into masks at a time.
constexpr int64_t kDenseWords = 4;

// Rows are dense where more than kDenseOf / 256 of their bits are set.
constexpr int64_t kDenseOf = 128;

// Whether a spike is set, as the addition asks for it.
#if LIF_SIMD_BYTES == 64
template <typename S>
using Where = std::conditional_t<sizeof(S) == 4, __mmask16, __mmask8>;

[[gnu::always_inline]] inline Vector<float> add_where(Vector<float> sum, Vector<float> term,
                                                      __mmask16 where) {
  return bits_as<Vector<float>>(
      _mm512_mask_add_ps(bits_as<__m512>(sum), where, bits_as<__m512>(sum), bits_as<__m512>(term)));
}
[[gnu::always_inline]] inline Vector<double> add_where(Vector<double> sum, Vector<double> term,
                                                       __mmask8 where) {
  return bits_as<Vector<double>>(
      _mm512_mask_add_pd(bits_as<__m512d>(sum), where, bits_as<__m512d>(sum), bits_as<__m512d>(term)));
}
#else
template <typename S>
using Where = std::conditional_t<sizeof(S) == 4, uint32_t, uint64_t>;

// A sum is never -0, to which 0 may not be added: it starts with 0 + something.
template <typename V, typename W>
[[gnu::always_inline]] inline V add_where(V sum, V term, W where) {
  using Masks = std::conditional_t<sizeof(W) == 4, Words, LongWords>;
  return add(sum, bits_as<V>(bits_as<Masks>(term) & (Masks{} + where)));
}
#endif

// sums[r] += the rows of numbers at the spikes of row r, for kDenseRows rows of `count` spikes.
template <int64_t kVectors, typename S>
[[gnu::always_inline]] inline void add_dense(const Where<S>* where, int64_t count, const S* rows,
                                             int64_t stride, S* sums, int64_t sums_stride) {
  Vector<S> sum[kDenseRows][kVectors];
#pragma GCC unroll 4
  for (int64_t r = 0; r < kDenseRows; ++r) {
#pragma GCC unroll 4
    for (int64_t v = 0; v < kVectors; ++v) {
      sum[r][v] = load(sums + r * sums_stride + v * kLanes<S>);
    }
  }
  for (int64_t k = 0; k < count; ++k) {
#pragma GCC unroll 4
    for (int64_t v = 0; v < kVectors; ++v) {
      const auto term = load(rows + k * stride + v * kLanes<S>);
#pragma GCC unroll 4
      for (int64_t r = 0; r < kDenseRows; ++r) {
        sum[r][v] = add_where(sum[r][v], term, where[k * kDenseRows + r]);
      }
    }
  }
#pragma GCC unroll 4
  for (int64_t r = 0; r < kDenseRows; ++r) {
#pragma GCC unroll 4
    for (int64_t v = 0; v < kVectors; ++v) {
      store(sums + r * sums_stride + v * kLanes<S>, sum[r][v]);
    }
  }
}

// A tile: to rows of sums the rows of numbers at their spikes are added.
template <typename S>
struct Tile {
  const uint64_t* words = nullptr;  // of the rows of sums, `words_stride` apart
  int64_t words_stride = 0;
  int64_t count = 0;        // words of a row in this tile
  int64_t spikes = 0;       // spikes in them
  const S* rows = nullptr;  // of numbers, `stride` apart, whole vectors of them
  int64_t stride = 0;
  const S* from = nullptr;  // the sums so far, `from_stride` apart
  int64_t from_stride = 0;
  S* to = nullptr;  // and with this tile
  int64_t to_stride = 0;
  int64_t columns = 0;  // of a row of sums; what the vectors have beyond is nobody's
};

template <int64_t kVectors, typename S>
[[gnu::noinline]] void add_dense_rows(const Tile<S>& tile) {
  constexpr int64_t kWidth = kVectors * kLanes<S>;
  constexpr int64_t kPart = kVectors < kDenseVectors ? kVectors : kDenseVectors;
  S sums[kDenseRows * kWidth] = {};
  Where<S> where[kDenseWords * kSpikesOfWord * kDenseRows];
  for (int64_t r = 0; r < kDenseRows; ++r) {
    copy_row(sums + r * kWidth, tile.from + r * tile.from_stride, tile.columns);
  }
  for (int64_t w = 0; w < tile.count; w += kDenseWords) {
    const int64_t first = w * kSpikesOfWord;
    const int64_t n = smaller(kDenseWords * kSpikesOfWord, tile.spikes - first);
    for (int64_t r = 0; r < kDenseRows; ++r) {
      const uint64_t* const words = tile.words + r * tile.words_stride + w;
      for (int64_t k = 0; k < n; ++k) {
        const uint64_t set = words[k / kSpikesOfWord] >> k % kSpikesOfWord & 1;
        where[k * kDenseRows + r] = static_cast<Where<S>>(uint64_t{0} - set);
      }
    }
    for (int64_t v = 0; v < kVectors; v += kPart) {
      add_dense<kPart>(where, n, tile.rows + first * kWidth + v * kLanes<S>, kWidth, sums + v * kLanes<S>,
                       kWidth);
    }
  }
  for (int64_t r = 0; r < kDenseRows; ++r) {
    copy_row(tile.to + r * tile.to_stride, sums + r * kWidth, tile.columns);
  }
}

template <int64_t kVectors, typename S>
[[gnu::always_inline]] inline void add_sparse_row(const Tile<S>& tile, int64_t r) {
  constexpr int64_t kWidth = kVectors * kLanes<S>;
  const S* from = tile.from + r * tile.from_stride;
  S* const to = tile.to + r * tile.to_stride;
  const bool whole = tile.columns == kWidth;
  S buffer[kWidth];
  if (!whole) {
    fill_row(buffer, S(0), kWidth);
    copy_row(buffer, from, tile.columns);
    from = buffer;
  }
  Vector<S> sums[kVectors];
#pragma GCC unroll 16
  for (int64_t v = 0; v < kVectors; ++v) {
    sums[v] = load(from + v * kLanes<S>);
  }
  add_listed_rows(sums, tile.words + r * tile.words_stride, tile.count, tile.rows);
  S* const into = whole ? to : buffer;
#pragma GCC unroll 16
  for (int64_t v = 0; v < kVectors; ++v) {
    store(into + v * kLanes<S>, sums[v]);
  }
  if (!whole) {
    copy_row(to, buffer, tile.columns);
  }
}

inline int64_t spikes_of(const uint64_t* words, int64_t count) {
  int64_t spikes = 0;
  for (int64_t w = 0; w < count; ++w) {
    spikes += __builtin_popcountll(words[w]);
  }
  return spikes;
}

template <int64_t kVectors, typename S>
[[gnu::noinline]] void add_tile(const Tile<S>& given, int64_t rows) {
  Tile<S> tile(given);
  int64_t r = 0;
  for (; r + kDenseRows <= rows; r += kDenseRows) {
    int64_t spikes = 0;
    for (int64_t i = 0; i < kDenseRows; ++i) {
      spikes += spikes_of(tile.words + i * tile.words_stride, tile.count);
    }
    if (spikes * 256 > kDenseOf * kDenseRows * tile.spikes) {
      add_dense_rows<kVectors>(tile);
    } else {
      for (int64_t i = 0; i < kDenseRows; ++i) {
        add_sparse_row<kVectors>(tile, i);
      }
    }
    tile.words += kDenseRows * tile.words_stride;
    tile.from += kDenseRows * tile.from_stride;
    tile.to += kDenseRows * tile.to_stride;
  }
  for (int64_t i = 0; r + i < rows; ++i) {
    add_sparse_row<kVectors>(tile, i);
  }
}

template <typename S>
int64_t panels_of(int64_t outputs) {
  return (outputs + kSumColumns<S> - 1) / kSumColumns<S>;
}

template <typename S>
int64_t panel_elements(int64_t inputs, int64_t outputs) {
  const int64_t whole = outputs / kSumColumns<S> * kSumColumns<S>;
  return inputs * (outputs == whole ? whole : whole + padded_columns<S>(outputs - whole));
}

template <typename S>
int64_t panel_tasks(int64_t inputs, int64_t outputs) {
  return panels_of<S>(outputs) * spike_words(inputs);
}

// A weight [outputs, inputs] as panels [inputs, columns], one behind the other; a task writes the rows of a
// word of spikes in one of them.
template <typename T, typename S = StateOf<T>>
void pack_weight(const T* weight, int64_t inputs, int64_t outputs, S* panels, int64_t begin, int64_t end) {
  constexpr int64_t kAtOnce = 16;  // rows that are written together, a cache line of each
  const int64_t pieces = spike_words(inputs);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task / pieces * kSumColumns<S>;
    const int64_t columns = smaller(kSumColumns<S>, outputs - first);
    const int64_t width = padded_columns<S>(columns);
    const int64_t piece = task % pieces * kSpikesOfWord;
    const int64_t last = smaller(piece + kSpikesOfWord, inputs);
    for (int64_t k0 = piece; k0 < last; k0 += kAtOnce) {
      const int64_t size = smaller(kAtOnce, last - k0);
      S* const to = panels + first * inputs + k0 * width;
      for (int64_t n = 0; n < columns; ++n) {
        const T* const from = weight + (first + n) * inputs + k0;
        for (int64_t k = 0; k < size; ++k) {
          to[k * width + n] = widen(from[k]);
        }
      }
      for (int64_t k = 0; k < size; ++k) {
        fill_row(to + k * width + columns, S(0), width - columns);
      }
    }
  }
}

template <typename T, typename S = StateOf<T>>
void product(const SpikeProduct<T>& args, int64_t begin, int64_t end) {
  const int64_t row_words = spike_words(args.inputs);
  for (int64_t first = 0; first < args.outputs; first += kSumColumns<S>) {
    const int64_t columns = smaller(kSumColumns<S>, args.outputs - first);
    S start[kSumColumns<S>] = {};
    for (int64_t n = 0; n < columns && args.bias != nullptr; ++n) {
      start[n] = add(S(0), widen(args.bias[first + n]));
    }
    with_vectors<S>(columns, [&](auto vectors) {
      constexpr int64_t kWidth = decltype(vectors)::value * kLanes<S>;
      Tile<S> tile;
      tile.words_stride = row_words;
      tile.to = args.sums + begin * args.outputs + first;
      tile.to_stride = args.outputs;
      tile.columns = columns;
      tile.from = start;
      int64_t w = 0;
      do {
        tile.words = args.words + begin * row_words + w;
        tile.count = smaller(tile_words<S>(kWidth), row_words - w);
        tile.spikes = smaller(tile.count * kSpikesOfWord, args.inputs - w * kSpikesOfWord);
        tile.rows = args.panels + first * args.inputs + w * kSpikesOfWord * kWidth;
        add_tile<decltype(vectors)::value>(tile, end - begin);
        tile.from = tile.to;
        tile.from_stride = tile.to_stride;
        w += tile.count;
      } while (w < row_words);
    });
  }
  if constexpr (!std::is_same_v<T, S>) {
    const int64_t at = begin * args.outputs;
    narrow_row(args.y + at, args.sums + at, end * args.outputs - at);
  }
}

template <typename T, typename S = StateOf<T>>
int64_t gradient_tasks(const SpikeGradient<T>& args) {
  return panels_of<S>(args.outputs) * ((args.inputs + args.task_inputs - 1) / args.task_inputs);
}

// The sums of a task's inputs, of one panel, go back and forth between the registers and memory of its own
// once for each tile of rows.
template <typename T, typename S = StateOf<T>>
void gradient_task(const SpikeGradient<T>& args, int64_t first, int64_t begin, int64_t end, S* sums,
                   S* rows) {
  const int64_t column_words = spike_words(args.rows);
  const int64_t columns = smaller(kSumColumns<S>, args.outputs - first);
  with_vectors<S>(columns, [&](auto vectors) {
    constexpr int64_t kWidth = decltype(vectors)::value * kLanes<S>;
    fill_row(sums, S(0), (end - begin) * kWidth);
    Tile<S> tile;
    tile.words_stride = column_words;
    tile.from = tile.to = sums;
    tile.from_stride = tile.to_stride = tile.columns = kWidth;
    for (int64_t w = 0; w < column_words; w += tile.count) {
      const int64_t m = w * kSpikesOfWord;
      tile.words = args.columns + begin * column_words + w;
      tile.count = smaller(tile_words<S>(kWidth), column_words - w);
      tile.spikes = smaller(tile.count * kSpikesOfWord, args.rows - m);
      const T* const from = args.grad_y + m * args.outputs + first;
      tile.rows = rows;
      if constexpr (std::is_same_v<T, S>) {
        if (args.outputs == kWidth) {
          tile.rows = from;  // they lie like a tile
        }
      }
      for (int64_t i = 0; tile.rows == rows && i < tile.spikes; ++i) {
        widen_row(rows + i * kWidth, from + i * args.outputs, columns);
        fill_row(rows + i * kWidth + columns, S(0), kWidth - columns);
      }
      add_tile<decltype(vectors)::value>(tile, end - begin);
    }
    for (int64_t n = 0; n < columns; ++n) {
      T* const to = args.grad_weight + (first + n) * args.inputs;
      for (int64_t k = begin; k < end; ++k) {
        to[k] = narrow<T>(sums[(k - begin) * kWidth + n]);
      }
    }
  });
}

template <typename T, typename S = StateOf<T>>
void gradient(const SpikeGradient<T>& args, int64_t begin, int64_t end) {
  const int64_t pieces = (args.inputs + args.task_inputs - 1) / args.task_inputs;
  // A tile of rows has as many elements in any panel.
  constexpr int64_t kTile = kTileBytes / static_cast<int64_t>(sizeof(S));
  Workspace<S> workspace(args.task_inputs * kSumColumns<S> + kTile, 1);
  S* const sums = workspace.row();
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task / pieces * kSumColumns<S>;
    const int64_t k = task % pieces * args.task_inputs;
    gradient_task(args, first, k, smaller(k + args.task_inputs, args.inputs), sums,
                  sums + args.task_inputs * kSumColumns<S>);
  }
}

}  // namespace

template <typename T>
EventKernels<T> event_kernels() {
  using S = StateOf<T>;
  return {&panel_elements<S>, &panel_tasks<S>, &pack_weight<T>, &product<T>,      &gradient_tasks<T>,
          &gradient<T>,       &pack<T>,        &unpack<T>,      &transpose_words, &count};
}

template EventKernels<float> event_kernels<float>();
template EventKernels<double> event_kernels<double>();
template EventKernels<Half> event_kernels<Half>();
template EventKernels<BFloat16> event_kernels<BFloat16>();

}  // namespace lif::cpu::LIF_SIMD
