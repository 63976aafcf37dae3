// exp(-y) for y >= 0, the same bits on every backend.
//
// libm's exp is a call for each value, which no compiler vectorises without giving up exact roundings; and
// CUDA's is another function. This one is 2^n times a polynomial in the rest, without branches: its error is
// below 1 ulp (tests/test_exponential.py measures it). Below the smallest normal number it is 0.
#pragma once

#include <stdint.h>
#include <string.h>

#include "neuron/scalar.h"

namespace lif {

// The unsigned integers of a number's size, or of those of a vector, whose sums may wrap: that of a NaN does.
// A backend with vectors says which.
template <typename S>
struct BitsOf;

// S is float or a vector of them, and Bits are BitsOf it.
template <typename S, typename Bits>
LIF_FN S exp_minus_single(S y) {
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
  const S round = number<S>(12582912.0f);
  const S shifted = add(mul(y, number<S>(-1.44269504f)), round);
  const S n = sub(shifted, round);
  // ln 2 in two parts, the first with so few digits that n times it is exact.
  const S rest = sub(sub(-y, mul(n, number<S>(0.693359375f))), mul(n, number<S>(-2.12194440e-4f)));
  S sum = number<S>(1.9875691500e-4f);
  sum = add(mul(sum, rest), number<S>(1.3981999507e-3f));
  sum = add(mul(sum, rest), number<S>(8.3334519073e-3f));
  sum = add(mul(sum, rest), number<S>(4.1665795894e-2f));
  sum = add(mul(sum, rest), number<S>(1.6666665459e-1f));
  sum = add(mul(sum, rest), number<S>(5.0000001201e-1f));
  sum = add(add(mul(mul(sum, rest), rest), rest), number<S>(1.0f));
  Bits bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127u) << 23;  // the high bits of 1.5 * 2^23 leave at the top
  S power;
  memcpy(&power, &bits, sizeof power);
  const S value = mul(sum, power);
  return y > number<S>(87.0f) ? number<S>(0.0f) : value;
}

// And double.
template <typename S, typename Bits>
LIF_FN S exp_minus_double(S y) {
  const S round = number<S>(6755399441055744.0);
  const S shifted = add(mul(y, number<S>(-1.4426950408889634)), round);
  const S n = sub(shifted, round);
  const S rest = sub(sub(-y, mul(n, number<S>(6.93147180369123816490e-01))),
                     mul(n, number<S>(1.90821492927058770002e-10)));
  // Taylor: |rest| <= ln(2) / 2, so the next term is below 5e-18.
  S sum = number<S>(1.0 / 6227020800.0);
  sum = add(mul(sum, rest), number<S>(1.0 / 479001600.0));
  sum = add(mul(sum, rest), number<S>(1.0 / 39916800.0));
  sum = add(mul(sum, rest), number<S>(1.0 / 3628800.0));
  sum = add(mul(sum, rest), number<S>(1.0 / 362880.0));
  sum = add(mul(sum, rest), number<S>(1.0 / 40320.0));
  sum = add(mul(sum, rest), number<S>(1.0 / 5040.0));
  sum = add(mul(sum, rest), number<S>(1.0 / 720.0));
  sum = add(mul(sum, rest), number<S>(1.0 / 120.0));
  sum = add(mul(sum, rest), number<S>(1.0 / 24.0));
  sum = add(mul(sum, rest), number<S>(1.0 / 6.0));
  sum = add(mul(sum, rest), number<S>(0.5));
  sum = add(add(mul(mul(sum, rest), rest), rest), number<S>(1.0));
  Bits bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 1023u) << 52;
  S power;
  memcpy(&power, &bits, sizeof power);
  const S value = mul(sum, power);
  return y > number<S>(708.0) ? number<S>(0.0) : value;
}

LIF_FN float exp_minus(float y) { return exp_minus_single<float, uint32_t>(y); }
LIF_FN double exp_minus(double y) { return exp_minus_double<double, uint64_t>(y); }

// Of each of a vector.
template <typename S>
LIF_FN S exp_minus(S y) {
  using Bits = typename BitsOf<S>::type;
  if constexpr (sizeof(y[0]) == sizeof(float)) {
    return exp_minus_single<S, Bits>(y);
  } else {
    return exp_minus_double<S, Bits>(y);
  }
}

}  // namespace lif
