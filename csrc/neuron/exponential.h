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

// Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
LIF_FN float exp_minus(float y) {
  constexpr float kRound = 12582912.0f;
  const float shifted = add(mul(y, -1.44269504f), kRound);
  const float n = sub(shifted, kRound);
  // ln 2 in two parts, the first with so few digits that n times it is exact.
  const float rest = sub(sub(-y, mul(n, 0.693359375f)), mul(n, -2.12194440e-4f));
  float sum = 1.9875691500e-4f;
  sum = add(mul(sum, rest), 1.3981999507e-3f);
  sum = add(mul(sum, rest), 8.3334519073e-3f);
  sum = add(mul(sum, rest), 4.1665795894e-2f);
  sum = add(mul(sum, rest), 1.6666665459e-1f);
  sum = add(mul(sum, rest), 5.0000001201e-1f);
  sum = add(add(mul(mul(sum, rest), rest), rest), 1.0f);
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127u) << 23;  // the high bits of 1.5 * 2^23 leave at the top
  float power;
  memcpy(&power, &bits, sizeof power);
  const float value = mul(sum, power);
  return y > 87.0f ? 0.0f : value;
}

LIF_FN double exp_minus(double y) {
  constexpr double kRound = 6755399441055744.0;
  const double shifted = add(mul(y, -1.4426950408889634), kRound);
  const double n = sub(shifted, kRound);
  const double rest = sub(sub(-y, mul(n, 6.93147180369123816490e-01)), mul(n, 1.90821492927058770002e-10));
  // Taylor: |rest| <= ln(2) / 2, so the next term is below 5e-18.
  double sum = 1.0 / 6227020800.0;
  sum = add(mul(sum, rest), 1.0 / 479001600.0);
  sum = add(mul(sum, rest), 1.0 / 39916800.0);
  sum = add(mul(sum, rest), 1.0 / 3628800.0);
  sum = add(mul(sum, rest), 1.0 / 362880.0);
  sum = add(mul(sum, rest), 1.0 / 40320.0);
  sum = add(mul(sum, rest), 1.0 / 5040.0);
  sum = add(mul(sum, rest), 1.0 / 720.0);
  sum = add(mul(sum, rest), 1.0 / 120.0);
  sum = add(mul(sum, rest), 1.0 / 24.0);
  sum = add(mul(sum, rest), 1.0 / 6.0);
  sum = add(mul(sum, rest), 0.5);
  sum = add(add(mul(mul(sum, rest), rest), rest), 1.0);
  uint64_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 1023u) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  const double value = mul(sum, power);
  return y > 708.0 ? 0.0 : value;
}

}  // namespace lif
