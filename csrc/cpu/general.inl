// Any neuron of the family, and any output: walked through time row by row.
//
// A reset, a state or a wanted gradient is a pass of its own over a row, so that n states and m resets cost
// n + m loops and not n * m.
#pragma once

#include "cpu/rows.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

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
// `bit` joins those of earlier steps where the neuron fired.
template <typename S>
void fired_bit_row(uint32_t* __restrict__ words, const S* __restrict__ s, uint32_t bit, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    words[i] |= s[i] != S(0) ? bit : 0u;
  }
}

template <typename S>
void inside_bit_row(uint32_t* __restrict__ words, const S* __restrict__ u, const S* __restrict__ theta,
                    S slope, uint32_t bit, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    words[i] |= inside_window(sub(u[i], theta[i]), slope) ? bit : 0u;
  }
}

// The step backward, in pieces.

// `value` where the bit is set, else 0.
template <typename S>
void bit_row(S* __restrict__ row, const uint32_t* __restrict__ words, uint32_t bit, S value, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    row[i] = (words[i] & bit) != 0 ? value : S(0);
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

// The rows of a forward task. States alternate between two rows each.
template <typename S>
struct ForwardRows {
  static constexpr int64_t kRows = StepRows<S>::kRows + 2 * kStates + 5;

  StepRows<S> step;
  StateRows<S> state[2];
  S *u, *count, *alive, *first;
  uint32_t* words;

  explicit ForwardRows(Workspace<S>& workspace) : step(workspace) {
    for (StateRows<S>& rows : state) {
      for (S*& row : rows.of) {
        row = workspace.row();
      }
    }
    for (S** row : {&u, &count, &alive, &first}) {
      *row = workspace.row();
    }
    words = reinterpret_cast<uint32_t*>(workspace.row());
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
  const bool streamed = is_streamed(args.extent, sizeof(T));

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
    const S* x = read_row(args.x, block, t, rows.step.x);
    const S* drive = drive_row(neuron, rows.step, gain, x, before, after, n);
    S* s = row_to_write(args.spikes, block, t, rows.step.s, streamed);
    S* u = row_to_write(args.trace_before, block, t, rows.u, streamed);
    step_in_pieces(neuron, rows.step, drive, before, after, u, s, n);
    write_row(args.trace_before, block, t, u, rows.step.narrowed, streamed);
    write_row(args.spikes, block, t, s, rows.step.narrowed, streamed);
    if (args.bits != nullptr) {
      if (t % kStepsOfWord == 0) {
        fill_row(rows.words, 0u, n);
      }
      fired_bit_row(rows.words, s, fired_bit(t), n);
      inside_bit_row(rows.words, u, rows.step.parameter[kThreshold], args.window, inside_bit(t), n);
      if (t % kStepsOfWord == kStepsOfWord - 1 || t == steps - 1) {
        copy_row(args.bits + t / kStepsOfWord * neurons(args.extent) + block.neuron, rows.words, n);
      }
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

  if (args.first != nullptr) {
    copy_row(args.first + block.neuron, rows.first, n);
  }
  if (counting) {
    write_counts(args, block, rows.count);
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
  for (int64_t t = first; t < last; ++t) {
    const StateRows<S> before = rows.before(t - first);
    const StateRows<S> after = rows.before(t - first + 1);
    const S* x = read_row(args.x, block, t, rows.step.x);
    const S* drive = drive_row(neuron, rows.step, gain, x, before, after, n);
    step_in_pieces(neuron, rows.step, drive, before, after, rows.u_of(t - first), rows.step.s, n);
  }
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
  const S* constant = constant_gradient(args, {}, block, rows.constant, rows.widened);
  const bool timed = args.grad_first.data != nullptr;
  if (timed) {
    const S* from = read_row(args.grad_first, block, 0, rows.widened);
    copy_row(rows.grad_first, from, n);
    copy_row(rows.later, from, n);
    copy_row(rows.first, args.first + block.neuron, n);
  }

  const bool gain = has_gain(args.parameter);
  const bool streamed = is_streamed(args.extent, sizeof(T));
  const bool subtracts = !neuron.delayed && neuron.reset == Reset::subtract;
  const bool zeroes = !neuron.delayed && neuron.reset == Reset::zero;
  const bool detached = neuron.detach_reset || neuron.delayed;
  const bool by_threshold = wants(kThreshold) || neuron.adaptive;
  const bool needs_spikes = by_threshold || zeroes || timed;
  // Where dx is not the gradient of u itself, d is computed beside it.
  const bool further = neuron.synapse || gain || neuron.refractory > 0;
  S* a = rows.adjoint[kMembrane];
  S* s = rows.step.s;

  const int64_t chunks = (steps + args.chunk - 1) / args.chunk;
  for (int64_t c = chunks - 1; c >= 0; --c) {
    const int64_t begin = c * args.chunk;
    const int64_t end = begin + args.chunk < steps ? begin + args.chunk : steps;
    if (args.bits == nullptr) {
      recompute_chunk(args, block, rows, c, begin, end);
    }

    for (int64_t t = end - 1; t >= begin; --t) {
      const S* u = rows.u_of(t - begin);
      const StateRows<S> before = rows.before(t - begin);
      const StateRows<S> after = rows.before(t - begin + 1);
      const S* silence = before.of[kSilence];
      const uint32_t* words = nullptr;
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

      if (args.bits == nullptr) {
        surrogate_rows(rows.h, 0, u, 0, theta, args.surrogate, 1, n);
      } else {
        words = args.bits + t / kStepsOfWord * neurons(args.extent) + block.neuron;
        bit_row(rows.h, words, inside_bit(t), args.surrogate.scale, n);
      }
      if (needs_spikes) {
        words == nullptr ? fire_row(neuron.strict, s, u, theta, n) : bit_row(s, words, fired_bit(t), S(1), n);
      }
      if (neuron.refractory > 0) {
        clear_row(rows.h, silence, n);
        clear_row(s, silence, n);
      }
      if (timed) {
        first_spike_earlier_row(rows.later, rows.grad_first, s, n);
      }
      through_row(neuron.reset, detached, rows.through, g, rows.h, u, a, theta, parameter[kResetTo], n);
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
      const S* v = before.of[kMembrane];
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
      write_row(args.grad_x, block, t, dx, rows.step.narrowed, streamed);
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

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
