// A recurrent layer forward: a thread takes a few samples through all time steps, step by step. The spikes of
// a sample are words of bits, and for each that is set a row of the transposed weight is added (events.inl);
// then the neurons make their step, on vectors.
#pragma once

#include "cpu/level/recurrent_rows.inl"
#include "neuron/member.h"

namespace lif::cpu::LIF_SIMD {
namespace {

// The transposed weight, as add_rows reads it: row i is what a spike of neuron i adds.
template <typename S>
void transpose_weight(const S* weight, int64_t neurons, S* rows) {
  constexpr int64_t kBlock = 16;
  const int64_t stride = sum_columns_of<S>(neurons);
  for (int64_t i = 0; i < neurons; ++i) {
    fill_row(rows + i * stride + neurons, S(0), stride - neurons);
  }
  for (int64_t j0 = 0; j0 < neurons; j0 += kBlock) {
    for (int64_t i0 = 0; i0 < neurons; i0 += kBlock) {
      for (int64_t i = i0; i < smaller(i0 + kBlock, neurons); ++i) {
        for (int64_t j = j0; j < smaller(j0 + kBlock, neurons); ++j) {
          rows[i * stride + j] = weight[j * neurons + i];
        }
      }
    }
  }
}

// sum = bias, then the rows of the weight that the bits name.
template <typename S>
[[gnu::noinline]] void sum_of_spikes(S* sum, const S* bias, const uint64_t* fired, const S* weight,
                                     int64_t neurons) {
  const int64_t stride = sum_columns_of<S>(neurons);
  for (int64_t j = 0; j < neurons; j += kSumColumns<S>) {
    with_vectors<S>(neurons - j, [&](auto vectors) {
      constexpr int64_t kVectors = vectors;
      Vector<S> sums[kVectors];
      for (int64_t k = 0; k < kVectors; ++k) {
        sums[k] = load(bias + j + k * kLanes<S>);
      }
      add_rows<kVectors>(sums, fired, spike_words(neurons), weight + j, stride);
      for (int64_t k = 0; k < kVectors; ++k) {
        store(sum + j + k * kLanes<S>, sums[k]);
      }
    });
  }
}

// A bit for each number that is not 0.
template <typename S>
[[gnu::always_inline]] inline uint64_t bits_of_spikes(Vector<S> s) {
  const auto fired = s != Vector<S>{};
#if LIF_SIMD_BYTES == 64
  if constexpr (sizeof(S) == 4) {
    return _mm512_movepi32_mask(bits_as<__m512i>(fired));
  } else {
    return _mm512_movepi64_mask(bits_as<__m512i>(fired));
  }
#elif LIF_SIMD_BYTES == 32
  if constexpr (sizeof(S) == 4) {
    return static_cast<uint64_t>(_mm256_movemask_ps(bits_as<__m256>(fired)));
  } else {
    return static_cast<uint64_t>(_mm256_movemask_pd(bits_as<__m256d>(fired)));
  }
#else
  uint64_t bits = 0;
  for (int64_t lane = 0; lane < kLanes<S>; ++lane) {
    bits |= static_cast<uint64_t>(fired[lane] != 0) << lane;
  }
  return bits;
#endif
}

// One step of a sample's neurons: from x + r and v to u, s and the v after it.
template <Reset kReset, typename S>
[[gnu::noinline]] void recurrent_step(const RecurrentRows<S>& given, const RecurrentNeuron<S>& of, const S* x,
                                      const S* r, S* v, S* u, S* s, uint64_t* fired, int64_t whole) {
  const RecurrentRows<S> rows(given);
  const RecurrentNeuron<S> neuron(of);
  for (int64_t word = 0; word < spike_words(whole); ++word) {
    uint64_t bits = 0;
    const int64_t first = word * kSpikesOfWord;
    const int64_t end = smaller(first + kSpikesOfWord, whole);
    for (int64_t i = first; i < end; i += kLanes<S>) {
      States<Vector<S>> state{};
      state.of[kMembrane] = load(v + i);
      const auto now = step(Member<kReset>(), rows.values(neuron, i), state, add(load(x + i), load(r + i)));
      store(v + i, state.of[kMembrane]);
      store(u + i, now.u);
      store(s + i, now.s);
      bits |= bits_of_spikes<S>(now.s) << (i - first);
    }
    fired[word] = bits;
  }
}

template <typename T, typename S = StateOf<T>>
void recurrent_forward(const RecurrentForward<T>& args, const S* weight, int64_t begin, int64_t end) {
  const auto [steps, samples, n] = args.extent;
  const int64_t whole = whole_vectors(n);
  const int64_t words = spike_words(n);
  const int64_t columns = sum_columns_of<S>(n);
  Workspace<S> workspace(columns > whole ? columns : whole, RecurrentRows<S>::kRows + 5 + 3 * kBlockSamples);
  const RecurrentRows<S> rows(workspace, args.neuron, n);
  S* const bias = zero_row(workspace);
  S* const r = zero_row(workspace);
  S* const x_row = zero_row(workspace);
  S* const u_row = workspace.row();
  S* const s_row = workspace.row();
  S* const v = workspace.rows(kBlockSamples);
  S* const count = workspace.rows(kBlockSamples);
  auto* const fired = reinterpret_cast<uint64_t*>(workspace.rows(kBlockSamples));
  if (args.bias != nullptr) {
    copy_row(bias, args.bias, n);
  }
  const auto step = args.neuron.reset == Reset::subtract ? &recurrent_step<Reset::subtract, S>
                                                         : &recurrent_step<Reset::zero, S>;
  const bool counted = args.count != nullptr || args.rate != nullptr;
  for (int64_t first = begin; first < end; first += kBlockSamples) {
    const int64_t size = smaller(kBlockSamples, end - first);
    for (int64_t b = 0; b < size; ++b) {
      S* const own = v + b * workspace.stride();
      fill_row(own, S(0), workspace.stride());
      load_or_zero(own, args.membrane == nullptr ? nullptr : args.membrane + (first + b) * n, n);
      uint64_t* const bits = fired + b * words;
      if (args.fired != nullptr) {
        pack_row(bits, args.fired + (first + b) * n, n);
      } else {
        fill_row(bits, uint64_t{0}, words);
      }
      fill_row(count + b * workspace.stride(), S(0), n);
    }
    for (int64_t t = 0; t < steps; ++t) {
      for (int64_t b = 0; b < size; ++b) {
        const int64_t sample = first + b;
        uint64_t* const bits = fired + b * words;
        if (args.fired_before.data != nullptr) {
          copy_row(row_at(args.fired_before, t, sample), bits, words);
        }
        sum_of_spikes(r, bias, bits, weight, n);
        S* const u = args.u.data == nullptr ? u_row : row_at(args.u, t, sample);
        S* const own = v + b * workspace.stride();
        const S* x = whole_row(row_at(args.x, t, sample), x_row, n, whole);
        step(rows, args.neuron, x, r, own, u, s_row, bits, whole);
        if (args.spikes.data != nullptr) {
          narrow_row<T>(row_at(args.spikes, t, sample), s_row, n);
        }
        if (args.trace.data != nullptr) {
          narrow_row<T>(row_at(args.trace, t, sample), own, n);
        }
        if (counted) {
          add_row(count + b * workspace.stride(), s_row, n);
        }
      }
    }
    for (int64_t b = 0; b < size; ++b) {
      const int64_t at = (first + b) * n;
      if (args.count != nullptr) {
        copy_row(args.count + at, count + b * workspace.stride(), n);
      }
      if (args.rate != nullptr) {
        divide_row(args.rate + at, count + b * workspace.stride(), static_cast<S>(steps > 0 ? steps : 1), n);
      }
      if (args.final_membrane != nullptr) {
        copy_row(args.final_membrane + at, v + b * workspace.stride(), n);
      }
      if (args.final_spikes != nullptr) {
        const uint64_t* const bits = fired + b * words;
        for (int64_t i = 0; i < n; ++i) {
          args.final_spikes[at + i] = bits[i / kSpikesOfWord] >> (i % kSpikesOfWord) & 1 ? S(1) : S(0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
