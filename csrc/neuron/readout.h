// What is read out of the membranes over time without keeping them: the largest v[t], and their mean.
//
// The mean is their sum in the order of time, by T; with m = dL/dmean each a[t] gets m / T. The largest is
// reached first at a step p, and with g = dL/dmax a[p] gets g. As in torch.max a NaN is above all numbers.
#pragma once

#include "neuron/scalar.h"

namespace lif {

// The largest membrane so far, and the step that reached it first.
template <typename S>
struct Peak {
  S value = number<S>(-INFINITY);
  S step = number<S>(0);
};

template <typename S>
LIF_FN void climb(Peak<S>& peak, S v, S t) {
  const S one = number<S>(1);
  const S zero = number<S>(0);
  // NOLINTNEXTLINE(misc-redundant-expression): NaN alone is not equal to itself.
  const S first_nan = v != v ? (peak.value == peak.value ? one : zero) : zero;
  const S higher = v > peak.value ? one : first_nan;
  peak.value = higher != zero ? v : peak.value;
  peak.step = higher != zero ? t : peak.step;
}

// What a[t] gets of the gradient of the largest.
template <typename S>
LIF_FN S peak_gradient(S grad, S step, S t) {
  return step == t ? grad : number<S>(0);
}

}  // namespace lif
