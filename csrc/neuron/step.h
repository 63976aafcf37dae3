// The leaky integrate-and-fire family: one time step forward, one backward.
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
//
// Backward, with G[t] = dL/ds[t], a[t] = dL/dv[t], h[t] the surrogate derivative of the spike (surrogate.h)
// and k = 0 if the reset is detached, else 1:
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
// These are all the equations there are: the CPU and the CUDA kernels call the functions below, S being
// float, double or a vector of them, and decide only which neuron and which time step come next.
#pragma once

#include "neuron/scalar.h"

namespace lif {

// The codes are those of lif_cuda/_ops.py.
enum class Reset : int { subtract = 0, zero = 1, none = 2 };
constexpr int kResets = 3;

// Forward.

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
  return (strict ? u > theta : u >= theta) ? number<S>(1) : number<S>(0);
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

template <typename S>
LIF_FN S adapt(S rho, S b, S s) {
  return add(mul(rho, b), s);
}

// Time steps that a neuron stays silent: N after a spike, then one fewer each step.
template <typename S>
LIF_FN S count_down(S q, S s, S refractory) {
  return s != S(0) ? refractory : q > S(0) ? sub(q, S(1)) : S(0);
}

// Backward.

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
  return first >= t ? -later : S(0);
}

template <typename S>
LIF_FN S first_spike_earlier(S grad_first, S later, S s) {
  return add(grad_first, mul(later, sub(S(1), s)));
}

}  // namespace lif
