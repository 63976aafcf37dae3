// The leaky integrate-and-fire family: one time step forward. One step back stands in back.h.
//
//   u[t] = beta * v[t-1] + g * x[t]        integrate and leak (with a rest potential r: beta*(v-r) + r)
//   s[t] = 1 if u[t] >= theta else 0       fire (or strictly above)
//   v[t] = u[t] - theta * s[t]             reset "subtract"
//        = v_reset if s[t] else u[t]       reset "zero"
//        = u[t]                            reset "none"
//
// The relatives change one line each:
//
//   delayed reset    the state is u; the spike of u[t-1] resets on the way into step t:
//                    u[t] = (beta * u[t-1] + g * x[t]) - theta * s[t-1], or u[t-1] set to v_reset before it
//                    leaks
//   current-based    i[t] = alpha * i[t-1] + x[t] takes the place of x[t]
//   adaptive         A[t] = theta + kappa * b[t-1] takes the place of theta;  b[t] = rho * b[t-1] + s[t]
//   refractory       for N steps after a spike u[t] = v[t-1] and s[t] = 0
//   floor            what is v[t] above is raised to v_min where it is below: v[t] = max(v[t], v_min), of a
//                    delayed reset max(u[t], v_min). The state before the first step is taken as it is.
//
// step() below is all of them. What a neuron has is a `kind` (member.h): known to the compiler, which leaves
// out the rest, or at run time. S is float, double or a vector of them. Backends decide only which neuron and
// which time step come next.
#pragma once

#include "neuron/scalar.h"

namespace lif {

// The codes are those of lif_cuda/_ops.py.
enum class Reset : int { subtract = 0, zero = 1, none = 2 };
constexpr int kResets = 3;

// The numbers of a neuron, or of a vector of neurons.
template <typename S>
struct Values {
  S beta, theta, v_reset, gain, alpha, kappa, rho;
  // What a membrane is compared with: theta; or, of a strict neuron whose `kind` says that it is not strict,
  // the next number above theta, since u > theta is u >= that. A neuron that adapts compares with a threshold
  // that moves, and has no use for it.
  S level;
  S rest;
  S silence;  // time steps of it after a spike
  S v_min;
};

// What a neuron carries from one time step to the next. The count of silent steps has no gradient.
enum StateName : int { kMembrane, kCurrent, kAdaptation, kSilence, kStates };
constexpr int kSmoothStates = 3;

template <typename S>
struct States {
  S of[kStates];
};

// What a step computes on its way: the membrane before its reset, the spike, the threshold that it met.
template <typename S>
struct Step {
  S u, s, theta;
};

// The pieces of a step.

template <typename S>
LIF_FN S synapse(S alpha, S i, S x) {
  return add(mul(alpha, i), x);
}

template <typename S>
LIF_FN S integrate(S beta, S v, S input) {
  return add(mul(beta, v), input);
}

template <typename S>
LIF_FN S integrate_from_rest(S beta, S v, S rest, S input) {
  return add(add(mul(beta, sub(v, rest)), rest), input);
}

template <typename S>
LIF_FN S adapted_threshold(S theta, S kappa, S b) {
  return add(theta, mul(kappa, b));
}

template <typename S>
LIF_FN S fire(S u, S theta, bool strict) {
  if (strict) {
    return u > theta ? number<S>(1) : number<S>(0);
  }
  return at_least(u, theta);
}

template <typename S>
LIF_FN S reset_subtract(S u, S theta, S s) {
  return sub(u, mul(theta, s));
}

template <typename S>
LIF_FN S reset_zero(S u, S v_reset, S s) {
  return s != number<S>(0) ? v_reset : u;
}

template <typename S>
LIF_FN S reset(Reset kind, S u, S theta, S v_reset, S s) {
  return kind == Reset::subtract ? reset_subtract(u, theta, s)
         : kind == Reset::zero   ? reset_zero(u, v_reset, s)
                                 : u;
}

// No lower than the floor. A NaN, of either, comes out.
template <typename S>
LIF_FN S above_floor(S v, S v_min) {
  // NOLINTNEXTLINE(misc-redundant-expression): NaN alone is not equal to itself.
  return v >= v_min ? v : v != v ? v : v_min;
}

template <typename S>
LIF_FN S adapt(S rho, S b, S s) {
  return add(mul(rho, b), s);
}

// Time steps that a neuron stays silent: N after a spike, then one fewer each step.
template <typename S>
LIF_FN S count_down(S q, S s, S refractory) {
  const S less = sub(q, number<S>(1));
  const S fewer = less > number<S>(0) ? less : number<S>(0);
  return s != number<S>(0) ? refractory : fewer;
}

// The step as a whole.

// The membrane that leaks into a step: with a delayed reset to a value, after that.
template <typename Kind, typename S>
LIF_FN S leaking(const Kind& kind, const Values<S>& own, S v) {
  return kind.delayed && kind.reset == Reset::zero
             ? reset_zero(v, own.v_reset, fire(v, own.level, kind.strict))
             : v;
}

// The threshold that u meets, and whether it fires; `b` and `q` are the states before the step.
template <typename Kind, typename S>
LIF_FN Step<S> meet_threshold(const Kind& kind, const Values<S>& own, S u, S b, S q) {
  const S theta = kind.adaptive ? adapted_threshold(own.theta, own.kappa, b) : own.theta;
  const S s = fire(u, kind.adaptive ? theta : own.level, kind.strict);
  return {u, kind.refractory ? (q > number<S>(0) ? number<S>(0) : s) : s, theta};
}

// The membrane after a step's reset, above the floor or below.
template <typename Kind, typename S>
LIF_FN S after_reset(const Kind& kind, const Values<S>& own, const Step<S>& now) {
  return kind.delayed ? now.u : reset(kind.reset, now.u, now.theta, own.v_reset, now.s);
}

// The membrane after a step.
template <typename Kind, typename S>
LIF_FN S after(const Kind& kind, const Values<S>& own, const Step<S>& now) {
  const S v = after_reset(kind, own, now);
  return kind.floored ? above_floor(v, own.v_min) : v;
}

// One time step: `state` becomes that after it.
template <typename Kind, typename S>
LIF_FN Step<S> step(const Kind& kind, const Values<S>& own, States<S>& state, S x) {
  const S v = state.of[kMembrane];
  const S q = state.of[kSilence];
  if (kind.synapse) {
    state.of[kCurrent] = synapse(own.alpha, state.of[kCurrent], x);
  }
  const S drive = mul(own.gain, kind.synapse ? state.of[kCurrent] : x);
  const S from = leaking(kind, own, v);
  S u = kind.rested ? integrate_from_rest(own.beta, from, own.rest, drive) : integrate(own.beta, from, drive);
  if (kind.delayed && kind.reset == Reset::subtract) {
    u = reset_subtract(u, own.theta, fire(v, own.level, kind.strict));
  }
  if (kind.refractory) {
    u = q > number<S>(0) ? v : u;
  }
  const Step<S> now = meet_threshold(kind, own, u, state.of[kAdaptation], q);
  state.of[kMembrane] = after(kind, own, now);
  if (kind.adaptive) {
    state.of[kAdaptation] = adapt(own.rho, state.of[kAdaptation], now.s);
  }
  if (kind.refractory) {
    state.of[kSilence] = count_down(q, now.s, own.silence);
  }
  return now;
}

}  // namespace lif
