// Surrogate derivatives of the spike: h(z) = scale * f(slope * z), z = u - theta.
//
// The roundings are those of the eager formulas in lif_cuda/surrogate.py, so that gradients agree bit for
// bit, but for the exponential, which is our own (exponential.h). A reciprocal, then a product: dividing by
// the square instead lands thousands of ulp away after many time steps.
#pragma once

#include "neuron/exponential.h"
#include "neuron/scalar.h"

namespace lif {

// The codes are those of the classes in lif_cuda/surrogate.py.
enum class Shape : int {
  fast_sigmoid = 0,
  atan = 1,
  sigmoid = 2,
  triangle = 3,
  piecewise_exp = 4,
  gaussian = 5,
  rectangle = 6,
  table = 7
};
constexpr int kShapes = 8;

template <typename S>
struct Surrogate {
  Shape shape = Shape::fast_sigmoid;
  S slope = S(0);
  S scale = S(0);
  // Of Shape::table: f at `points` >= 2 evenly spaced places in [-1, 1].
  const S* table = nullptr;
  int64_t points = 0;
};

// What 1 is divided by.
template <typename S>
LIF_FN S fast_sigmoid_divisor(S z, S slope) {
  const S y = add(number<S>(1), mul(slope, magnitude(z)));
  return mul(y, y);
}

// Of a scale of 1, which is left out: a product with 1 is exact.
template <typename S>
LIF_FN S fast_sigmoid(S z, S slope) {
  return div(number<S>(1), fast_sigmoid_divisor(z, slope));
}

template <typename S>
LIF_FN S fast_sigmoid(S z, S slope, S scale) {
  return mul(scale, fast_sigmoid(z, slope));
}

// What 1 is divided by.
template <typename S>
LIF_FN S atan_divisor(S z, S slope) {
  const S y = mul(slope, z);
  return add(number<S>(1), mul(y, y));
}

template <typename S>
LIF_FN S atan_shape(S z, S slope) {
  return div(number<S>(1), atan_divisor(z, slope));
}

template <typename S>
LIF_FN S atan_shape(S z, S slope, S scale) {
  return mul(scale, atan_shape(z, slope));
}

template <typename S>
LIF_FN S sigmoid(S z, S slope, S scale) {
  const S e = exp_minus(mul(slope, magnitude(z)));
  const S y = add(number<S>(1), e);
  return mul(scale, div(e, mul(y, y)));
}

template <typename S>
LIF_FN S triangle(S z, S slope, S scale) {
  const S y = sub(number<S>(1), mul(slope, magnitude(z)));
  return mul(scale, y < number<S>(0) ? number<S>(0) : y);
}

template <typename S>
LIF_FN S piecewise_exp(S z, S slope, S scale) {
  return mul(scale, exp_minus(mul(slope, magnitude(z))));
}

template <typename S>
LIF_FN S gaussian(S z, S slope, S scale) {
  const S y = mul(slope, z);
  return mul(scale, exp_minus(mul(y, y)));
}

// A window: the only surrogate whose derivative is known from one bit.
template <typename S>
LIF_FN auto inside_window(S z, S slope) {
  return mul(slope, magnitude(z)) < number<S>(0.5);
}

template <typename S>
LIF_FN S rectangle(S z, S slope, S scale) {
  return inside_window(z, slope) ? scale : number<S>(0);
}

// Where z lies between the samples of a table, the first of which is at 0 and the last at `last`. NaN is read
// at the lower end.
template <typename S>
LIF_FN S table_place(S z, S slope, S last) {
  const S y = mul(add(mul(slope, z), number<S>(1)), mul(last, number<S>(0.5)));
  const S above = y > number<S>(0) ? y : number<S>(0);
  return above < last ? above : last;
}

// Between two samples a line; beyond the ends their values.
template <typename S>
LIF_FN S table_line(S low, S high, S beyond_low, S scale) {
  return mul(scale, add(low, mul(beyond_low, sub(high, low))));
}

template <typename S>
LIF_FN S table_shape(S z, const Surrogate<S>& surrogate) {
  const S place = table_place(z, surrogate.slope, static_cast<S>(surrogate.points - 1));
  const auto most = static_cast<int32_t>(surrogate.points - 2);
  const auto floor = static_cast<int32_t>(place);
  const int32_t at = floor < most ? floor : most;
  return table_line(surrogate.table[at], surrogate.table[at + 1], sub(place, static_cast<S>(at)),
                    surrogate.scale);
}

// h(z) of the shape that the surrogate has.
template <Shape kShape, typename S>
LIF_FN S derivative(S z, const Surrogate<S>& of) {
  if constexpr (kShape == Shape::fast_sigmoid) {
    return fast_sigmoid(z, of.slope, of.scale);
  } else if constexpr (kShape == Shape::atan) {
    return atan_shape(z, of.slope, of.scale);
  } else if constexpr (kShape == Shape::sigmoid) {
    return sigmoid(z, of.slope, of.scale);
  } else if constexpr (kShape == Shape::triangle) {
    return triangle(z, of.slope, of.scale);
  } else if constexpr (kShape == Shape::piecewise_exp) {
    return piecewise_exp(z, of.slope, of.scale);
  } else if constexpr (kShape == Shape::gaussian) {
    return gaussian(z, of.slope, of.scale);
  } else if constexpr (kShape == Shape::rectangle) {
    return rectangle(z, of.slope, of.scale);
  } else {
    return table_shape(z, of);
  }
}

}  // namespace lif
