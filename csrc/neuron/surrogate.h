// Surrogate derivatives of the spike: h(z) = scale * f(slope * z), z = u - theta.
//
// The roundings are those of the eager formulas in lif_cuda/surrogate.py, so that gradients agree bit for
// bit. A reciprocal, then a product: dividing by the square instead lands thousands of ulp away after
// many time steps.
#pragma once

#include "neuron/scalar.h"

namespace lif {

// The codes are those of the classes in lif_cuda/surrogate.py.
enum class Shape : int { fast_sigmoid = 0 };

template <typename S>
LIF_FN S fast_sigmoid(S z, S slope, S scale) {
  const S y = add(S(1), mul(slope, magnitude(z)));
  return mul(scale, div(S(1), mul(y, y)));
}

}  // namespace lif
