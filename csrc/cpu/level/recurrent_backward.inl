// A recurrent layer backward: a thread takes a few samples back through all time steps. What reaches the
// spikes of a step from the one after it is a product of the samples' gradients with the weight; each of its
// sums runs over the neurons in their order, so the numbers are those of any number of threads, any number of
// samples and any SIMD level.
#pragma once

#include "cpu/level/recurrent_rows.inl"
#include "cpu/level/slopes.inl"
#include "neuron/back.h"
#include "neuron/member.h"

namespace lif::cpu::LIF_SIMD {
namespace {

// Sums of a product that stay in registers: kProductSamples rows of kProductVectors vectors.
constexpr int64_t kProductSamples = 4;
constexpr int64_t kProductVectors = LIF_SIMD_BYTES == 64 ? 4 : 2;
// Rows of the weight that are used for all samples of a block before the next ones: 16 KiB of them.
constexpr int64_t kProductRows = 64;

template <typename S>
constexpr int64_t kPanel = kProductVectors * kLanes<S>;

template <typename S>
int64_t panels_of(int64_t neurons) {
  return (neurons + kPanel<S> - 1) / kPanel<S>;
}

// The weight in panels of columns, [panel][row][kPanel]; columns behind the last are 0.
template <typename S>
void panels_of_weight(const S* weight, int64_t neurons, S* panels) {
  for (int64_t panel = 0; panel < panels_of<S>(neurons); ++panel) {
    const int64_t first = panel * kPanel<S>;
    const int64_t size = smaller(kPanel<S>, neurons - first);
    for (int64_t j = 0; j < neurons; ++j) {
      S* const to = panels + (panel * neurons + j) * kPanel<S>;
      copy_row(to, weight + j * neurons + first, size);
      fill_row(to + size, S(0), kPanel<S> - size);
    }
  }
}

// Each lane the number itself, -0 included, which a sum with 0 would lose.
template <typename S>
[[gnu::always_inline]] inline Vector<S> each_lane(S value) {
  return value - Vector<S>{};
}

// sums[b] += grad[b][j] * panel[j] for j in [begin, end), of kSamples samples.
template <int64_t kSamples, typename S>
[[gnu::noinline]] void multiply_panel(const S* grad, int64_t grad_stride, const S* panel, S* sums,
                                      int64_t sums_stride, int64_t begin, int64_t end) {
  Vector<S> sum[kSamples][kProductVectors];
  for (int64_t b = 0; b < kSamples; ++b) {
    for (int64_t k = 0; k < kProductVectors; ++k) {
      sum[b][k] = load(sums + b * sums_stride + k * kLanes<S>);
    }
  }
  for (int64_t j = begin; j < end; ++j) {
    Vector<S> weight[kProductVectors];
    for (int64_t k = 0; k < kProductVectors; ++k) {
      weight[k] = load(panel + j * kPanel<S> + k * kLanes<S>);
    }
    for (int64_t b = 0; b < kSamples; ++b) {
      const auto factor = each_lane(grad[b * grad_stride + j]);
      for (int64_t k = 0; k < kProductVectors; ++k) {
        sum[b][k] = add(sum[b][k], mul(factor, weight[k]));
      }
    }
  }
  for (int64_t b = 0; b < kSamples; ++b) {
    for (int64_t k = 0; k < kProductVectors; ++k) {
      store(sums + b * sums_stride + k * kLanes<S>, sum[b][k]);
    }
  }
}

// sums = grad W, for `size` samples.
template <typename S>
void multiply(const S* grad, int64_t grad_stride, const S* panels, int64_t neurons, S* sums,
              int64_t sums_stride, int64_t size) {
  for (int64_t b = 0; b < size; ++b) {
    fill_row(sums + b * sums_stride, S(0), panels_of<S>(neurons) * kPanel<S>);
  }
  for (int64_t p = 0; p < panels_of<S>(neurons); ++p) {
    const S* const panel = panels + p * neurons * kPanel<S>;
    for (int64_t j = 0; j < neurons; j += kProductRows) {
      const int64_t end = smaller(j + kProductRows, neurons);
      int64_t b = 0;
      for (; b + kProductSamples <= size; b += kProductSamples) {
        multiply_panel<kProductSamples>(grad + b * grad_stride, grad_stride, panel,
                                        sums + b * sums_stride + p * kPanel<S>, sums_stride, j, end);
      }
      for (; b < size; ++b) {
        multiply_panel<1>(grad + b * grad_stride, grad_stride, panel, sums + b * sums_stride + p * kPanel<S>,
                          sums_stride, j, end);
      }
    }
  }
}

// The rows of one step back of a sample.
template <typename S>
struct RecurrentBackRows {
  const S *u, *h, *spikes, *from_later, *trace;  // trace: null where there is none
  const S* before;                               // u of the step before, or the first membrane
  bool first;                                    // whether it is that
  S *adjoint, *input, *beta, *theta;
};

template <typename Kind, bool kLearn, typename S>
[[gnu::noinline]] void recurrent_step_back(const RecurrentRows<S>& given, const RecurrentNeuron<S>& of,
                                           const RecurrentBackRows<S>& given_back, int64_t whole) {
  const RecurrentRows<S> rows(given);
  const RecurrentNeuron<S> neuron(of);
  const RecurrentBackRows<S> back(given_back);
  const Kind kind;
  for (int64_t i = 0; i < whole; i += kLanes<S>) {
    const auto own = rows.values(neuron, i);
    Was<Vector<S>> was{};
    was.u = load(back.u + i);
    was.s = fire(was.u, own.level, false);
    was.theta = own.theta;
    was.h = load(back.h + i);
    Sums<Vector<S>> sums{};
    if (kLearn) {
      const auto before = load(back.before + i);
      const Step<Vector<S>> then{before, fire(before, own.level, false), own.theta};
      was.before.of[kMembrane] = back.first ? before : after(kind, own, then);
      sums.beta = load(back.beta + i);
      sums.theta = load(back.theta + i);
    }
    Adjoint<Vector<S>> to{};
    to.of[kMembrane] = load(back.adjoint + i);
    if (back.trace != nullptr) {
      to.of[kMembrane] = add(to.of[kMembrane], load(back.trace + i));
    }
    const auto g = add(load(back.spikes + i), load(back.from_later + i));
    store(back.input + i, step_back<kLearn>(kind, own, was, g, to, sums));
    store(back.adjoint + i, to.of[kMembrane]);
    if (kLearn) {
      store(back.beta + i, sums.beta);
      store(back.theta + i, sums.theta);
    }
  }
}

template <typename S>
using RecurrentStepBack = void (*)(const RecurrentRows<S>&, const RecurrentNeuron<S>&,
                                   const RecurrentBackRows<S>&, int64_t);

template <typename Kind, typename S>
RecurrentStepBack<S> recurrent_step_back_of(bool learn) {
  return learn ? &recurrent_step_back<Kind, true, S> : &recurrent_step_back<Kind, false, S>;
}

template <typename S>
RecurrentStepBack<S> recurrent_step_back_of(const RecurrentNeuron<S>& neuron, bool learn) {
  if (neuron.reset == Reset::subtract) {
    return neuron.detach_reset ? recurrent_step_back_of<Member<Reset::subtract, Has::detached>, S>(learn)
                               : recurrent_step_back_of<Member<Reset::subtract>, S>(learn);
  }
  return neuron.detach_reset ? recurrent_step_back_of<Member<Reset::zero, Has::detached>, S>(learn)
                             : recurrent_step_back_of<Member<Reset::zero>, S>(learn);
}

template <typename T, typename S = StateOf<T>>
void recurrent_backward(const RecurrentBackward<T>& args, const S* weight, int64_t begin, int64_t end) {
  const auto [steps, samples, n] = args.extent;
  const int64_t whole = whole_vectors(n);
  const int64_t columns = panels_of<S>(n) * kPanel<S>;
  const bool learn = args.grad_beta != nullptr || args.grad_threshold != nullptr;
  Workspace<S> workspace(columns > whole ? columns : whole, RecurrentRows<S>::kRows + 5 + 4 * kBlockSamples);
  const int64_t stride = workspace.stride();
  const RecurrentRows<S> rows(workspace, args.neuron, n);
  S* const zeros = zero_row(workspace);
  S* const spikes = zero_row(workspace);
  S* const trace = zero_row(workspace);
  S* const membrane = zero_row(workspace);
  S* const h = workspace.row();
  S* const adjoint = workspace.rows(kBlockSamples);
  S* const later = workspace.rows(kBlockSamples);
  S* const beta = workspace.rows(kBlockSamples);
  S* const theta = workspace.rows(kBlockSamples);
  const auto step_back = recurrent_step_back_of(args.neuron, learn);
  for (int64_t first = begin; first < end; first += kBlockSamples) {
    const int64_t size = smaller(kBlockSamples, end - first);
    for (int64_t b = 0; b < size; ++b) {
      const auto start = [&](S* row, const S* from) {
        fill_row(row, S(0), stride);
        load_or_zero(row, from == nullptr ? nullptr : from + (first + b) * n, n);
      };
      start(adjoint + b * stride, args.grad_final_membrane);
      start(later + b * stride, args.grad_final_spikes);
      start(beta + b * stride, nullptr);
      start(theta + b * stride, nullptr);
    }
    for (int64_t t = steps - 1; t >= 0; --t) {
      for (int64_t b = 0; b < size; ++b) {
        const int64_t sample = first + b;
        const S* const u = row_at(args.u, t, sample);
        SlopesStrip<S> slopes;
        slopes.steps = 1;
        slopes.u = {u, 0, false};
        slopes.h = {h, 0, false};
        slopes.theta = rows.theta;
        write_slopes(slopes, args.surrogate, whole);
        RecurrentBackRows<S> back{};
        back.u = u;
        back.h = h;
        back.spikes = zeros;
        if (args.grad_spikes.data != nullptr) {
          back.spikes = whole_row(row_at(args.grad_spikes, t, sample), spikes, n, whole);
        }
        if (args.grad_steady != nullptr) {
          if (back.spikes != spikes) {
            copy_row(spikes, back.spikes, n);
          }
          add_row(spikes, args.grad_steady + sample * n, n);
          back.spikes = spikes;
        }
        if (args.grad_trace.data != nullptr) {
          back.trace = whole_row(row_at(args.grad_trace, t, sample), trace, n, whole);
        }
        back.first = t == 0;
        back.before = membrane;
        if (learn && t > 0) {
          back.before = row_at(args.u, t - 1, sample);
        } else if (learn) {
          load_or_zero(membrane, args.membrane == nullptr ? nullptr : args.membrane + sample * n, n);
        }
        back.from_later = later + b * stride;
        back.adjoint = adjoint + b * stride;
        back.input = row_at(args.grad_input, t, sample);
        back.beta = beta + b * stride;
        back.theta = theta + b * stride;
        step_back(rows, args.neuron, back, whole);
      }
      if (t > 0 || args.grad_fired != nullptr) {
        multiply(row_at(args.grad_input, t, first), args.grad_input.sample, weight, n, later, stride, size);
      }
    }
    for (int64_t b = 0; b < size; ++b) {
      const int64_t sample = first + b;
      const auto finish = [&](S* to, const S* row, int64_t length) {
        if (to != nullptr) {
          copy_row(to + sample * length, row + b * stride, length);
        }
      };
      finish(args.grad_membrane, adjoint, n);
      finish(args.grad_fired, later, n);
      finish(args.grad_beta, beta, n);
      finish(args.grad_threshold, theta, n);
    }
  }
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
