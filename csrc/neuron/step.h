// The leaky integrate-and-fire neuron: one time step forward, one backward.
//
//   u[t] = beta * v[t-1] + x[t]            integrate and leak
//   s[t] = 1 if u[t] >= theta else 0       fire
//   v[t] = u[t] - theta * s[t]             reset "subtract"
//
// Backward, with G[t] = dL/ds[t], a[t] = dL/dv[t], h[t] the surrogate derivative of the spike (surrogate.h)
// and k = 0 if the reset is detached, else 1:
//
//   e[t]   = G[t] - k * theta * a[t]       what reaches the spike
//   d[t]   = a[t] + e[t] * h[t]            = dL/du[t] = dL/dx[t]
//   a[t-1] = beta * d[t]
//   dbeta  += d[t] * v[t-1]
//   dtheta -= e[t] * h[t] + a[t] * s[t]
//
// These are all the equations there are: the CPU and the CUDA kernels call the functions below, S being
// float or double, and decide only which neuron and which time step come next.
#pragma once

#include "neuron/scalar.h"

namespace lif {

template <typename S>
LIF_FN S integrate(S beta, S v, S x) {
  return add(mul(beta, v), x);
}

template <typename S>
LIF_FN S fire(S u, S theta) {
  return u >= theta ? S(1) : S(0);
}

template <typename S>
LIF_FN S reset_subtract(S u, S theta, S s) {
  return sub(u, mul(theta, s));
}

template <bool kDetachReset, typename S>
LIF_FN S reach_spike(S g, S theta, S a) {
  return kDetachReset ? g : sub(g, mul(theta, a));
}

template <typename S>
LIF_FN S reach_membrane(S a, S e, S h) {
  return add(a, mul(e, h));
}

template <typename S>
LIF_FN S leak_back(S beta, S d) {
  return mul(beta, d);
}

template <typename S>
LIF_FN S beta_gradient(S d, S v_before) {
  return mul(d, v_before);
}

template <typename S>
LIF_FN S threshold_gradient(S e, S h, S a, S s) {
  return sub(-mul(e, h), mul(a, s));
}

}  // namespace lif
