// The leaky integrate-and-fire family: one time step back. The step forward stands in step.h.
//
// With G[t] = dL/ds[t], a[t] = dL/dv[t], h[t] the surrogate derivative of the spike (surrogate.h) and k = 0
// if the reset is detached, else 1:
//
//   e[t]   = G[t] - k * theta * a[t]           what reaches the spike: "subtract"
//          = G[t] + k * (v_reset - u[t]) * a[t]                        "zero"
//          = G[t]                                                      "none", and delayed
//   d[t]   = keep(a[t]) + e[t] * h[t]          = dL/du[t]; keep is 0 where "zero" has reset, else a[t]
//   dx[t]  = g * d[t]
//   a[t-1] = beta * d[t]
//   dbeta  += d[t] * (v[t-1] - r)
//   dg     += d[t] * x[t]
//   dtheta -= e[t] * h[t] + a[t] * s[t]        without the second term unless "subtract"
//   dv_reset += a[t] * s[t]                    "zero"
//
// The relatives:
//
//   delayed reset    with the spike r[t] of u[t-1]: dtheta -= r[t] * d[t] where it subtracts; where it is to
//                    v_reset, dv_reset += r[t] * beta * d[t], and a[t-1] is 0 where r[t] is 1
//   current-based    c[t] = g * d[t] + alpha * c[t+1] = dL/di[t];  dx[t] = c[t];  dalpha += c[t] * i[t-1]
//   adaptive         with m[t] = dL/db[t]: G[t] += m[t];  A[t] in place of theta, and D[t] its gradient:
//                    dkappa += D[t] * b[t-1];  drho += m[t] * b[t-1];  m[t-1] = rho * m[t] + kappa * D[t]
//   refractory       of a silent step: h = 0, d[t] = 0 and a[t-1] = keep(a[t])
//   floor            before all that, a[t] is 0 where the floor held: where the membrane after its reset was
//                    below v_min, and not at it; as of torch.clamp also where that is NaN
#pragma once

#include "neuron/scalar.h"
#include "neuron/step.h"

namespace lif {

// A step as it was: what forward computed, the surrogate derivative, and the states before it.
template <typename S>
struct Was {
  S u, s, theta, h;
  States<S> before;
};

// The gradients of the states after a step; step_back makes them those before it.
template <typename S>
struct Adjoint {
  S of[kSmoothStates];
};

// The sums over time of the parameters' gradients.
template <typename S>
struct Sums {
  S beta, theta, v_reset, gain, alpha, kappa, rho;
};

// The pieces of a step back.

template <typename S>
LIF_FN S reach_spike(Reset kind, bool detached, S g, S u, S theta, S v_reset, S a) {
  return detached || kind == Reset::none ? g
         : kind == Reset::subtract       ? sub(g, mul(theta, a))
                                         : add(g, mul(sub(v_reset, u), a));
}

template <typename S>
LIF_FN S keep(Reset kind, S a, S s) {
  return kind != Reset::zero ? a : s != number<S>(0) ? number<S>(0) : a;
}

template <typename S>
LIF_FN S threshold_gradient(Reset kind, S through, S a, S s) {
  return kind == Reset::subtract ? sub(-through, mul(a, s)) : -through;
}

// The gradient of the first-spike time, first = sum over t of prod over k <= t of (1 - s[k]), by the product
// rule. `later` is dL/d(that product at t); only up to the first spike is a product without s[t] not zero.
template <typename S>
LIF_FN S first_spike_gradient(S later, S first, S t) {
  return first >= t ? -later : number<S>(0);
}

template <typename S>
LIF_FN S first_spike_earlier(S grad_first, S later, S s) {
  return add(grad_first, mul(later, sub(number<S>(1), s)));
}

// What a step back may be given beside the rest.
template <typename S>
struct Maybe {
  bool given = false;
  S value = S();
};

// One time step back; returns dL/dx. `kLearn` says whether the sums are wanted, which cost half of what the
// rest does. `before_reset` is a gradient that meets u itself; `input` is what the gain multiplied, where its
// gradient is wanted.
template <bool kLearn, typename Kind, typename S>
LIF_FN S step_back(const Kind& kind, const Values<S>& own, const Was<S>& was, S g, Adjoint<S>& to,
                   Sums<S>& sums, const Maybe<S>& before_reset = {}, const Maybe<S>& input = {}) {
  const S b = was.before.of[kAdaptation];
  const S silent = was.before.of[kSilence];
  S a = to.of[kMembrane];
  if (kind.floored) {
    const S v = after_reset(kind, own, {was.u, was.s, was.theta});
    a = v >= own.v_min ? a : number<S>(0);
  }
  if (kind.adaptive) {
    g = add(g, to.of[kAdaptation]);
  }
  const bool detached = kind.detached || kind.delayed;
  const S e = reach_spike(kind.reset, detached, g, was.u, was.theta, own.v_reset, a);
  const S through = mul(e, was.h);
  const S by_threshold = kind.delayed ? -through : threshold_gradient(kind.reset, through, a, was.s);
  if (kLearn) {
    sums.theta = add(sums.theta, by_threshold);
  }
  if (!kind.delayed) {
    if (kLearn && kind.reset == Reset::zero) {
      sums.v_reset = add(sums.v_reset, mul(a, was.s));
    }
    a = keep(kind.reset, a, was.s);
  }
  if (kind.adaptive) {
    if (kLearn) {
      sums.kappa = add(sums.kappa, mul(by_threshold, b));
      sums.rho = add(sums.rho, mul(to.of[kAdaptation], b));
    }
    to.of[kAdaptation] = add(mul(own.rho, to.of[kAdaptation]), mul(own.kappa, by_threshold));
  }
  if (before_reset.given) {
    a = add(a, before_reset.value);
  }
  const S whole = add(a, through);
  const S d = kind.refractory ? (silent > number<S>(0) ? number<S>(0) : whole) : whole;
  a = mul(own.beta, d);
  if (kind.refractory) {
    a = silent > number<S>(0) ? whole : a;
  }
  if (kind.delayed && (kLearn || kind.reset == Reset::zero)) {
    const S r = fire(was.before.of[kMembrane], own.level, kind.strict);
    if (kLearn && kind.reset == Reset::subtract) {
      sums.theta = sub(sums.theta, mul(r, d));
    }
    if (kind.reset == Reset::zero) {
      if (kLearn) {
        sums.v_reset = add(sums.v_reset, mul(a, r));
      }
      a = keep(kind.reset, a, r);
    }
  }
  to.of[kMembrane] = a;
  if (kLearn) {
    const S from = leaking(kind, own, was.before.of[kMembrane]);
    sums.beta = add(sums.beta, mul(d, kind.rested ? sub(from, own.rest) : from));
  }
  if (input.given) {
    sums.gain = add(sums.gain, mul(d, input.value));
  }
  S dx = mul(own.gain, d);
  if (kind.synapse) {
    dx = add(dx, to.of[kCurrent]);
    if (kLearn) {
      sums.alpha = add(sums.alpha, mul(dx, was.before.of[kCurrent]));
    }
    to.of[kCurrent] = mul(own.alpha, dx);
  }
  return dx;
}

}  // namespace lif
