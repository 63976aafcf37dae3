// The surrogate derivatives of a chunk of steps: a pass of its own between computing u again and going back.
//
// So the choice among eight shapes stands outside of the loops over steps and not in them. The price is one
// load and one store of shared memory a step: 1 % of the time where neurons are many, measured on an H200
// with a prototype; kernels for each shape would be eight times the code.
#pragma once

#include "cuda/column.cuh"
#include "neuron/back.h"
#include "neuron/surrogate.h"

namespace lif::cuda {

// Below 2^126 the reciprocal of 1 and more is a normal number, and a step of Newton's method from the
// approximation of the hardware rounds it correctly: it is what __frcp_rn itself does for such exponents,
// after a test for each value. Here there is one for W of them.
constexpr float kReciprocalIsNormal = 8.507059e37f;

LIF_FN float reciprocal_of_normal(float a) {
#if defined(__CUDA_ARCH__)
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a));
  return __fmaf_rn(r, __fmaf_rn(-a, r, 1.0f), r);
#else
  return a < kReciprocalIsNormal ? 1.0f / a : NAN;  // tests see who asks for another
#endif
}

LIF_FN float reciprocal(float a) {
#if defined(__CUDA_ARCH__)
  return __frcp_rn(a);
#else
  return 1.0f / a;
#endif
}

// Whether a shape is 1 divided by a number that is 1 or more.
template <Shape kShape>
// NOLINTNEXTLINE(modernize-avoid-c-style-cast): clang-tidy 23 takes the parameter of a template for a cast.
constexpr bool kDivides = kShape == Shape::fast_sigmoid || kShape == Shape::atan;

// What 1 is divided by, of W neurons; returns whether all reciprocals are normal numbers, or NaN.
template <Shape kShape, int W>
LIF_FN bool divisors(Pack<float, W>& q, const Pack<float, W>& z, float slope) {
  float most = 1.0f;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    q.at[w] = kShape == Shape::atan ? atan_divisor(z.at[w], slope) : fast_sigmoid_divisor(z.at[w], slope);
    most = fmaxf(most, q.at[w]);  // which passes NaN over, as it may
  }
  return most < kReciprocalIsNormal;
}

// h of W neurons, for a shape that divides.
template <Shape kShape, int W>
LIF_FN Pack<float, W> divided(const Pack<float, W>& z, const Surrogate<float>& of) {
  Pack<float, W> h;
  if (divisors<kShape>(h, z, of.slope)) {
#pragma unroll
    for (int w = 0; w < W; ++w) {
      h.at[w] = reciprocal_of_normal(h.at[w]);
    }
  } else {
    // Next to never. One after the other, so that the code, 14 instructions each, is there once.
#pragma unroll 1
    for (int n = 0; n < W; ++n) {
      float a = h.at[0];
#pragma unroll
      for (int w = 1; w < W; ++w) {
        a = n == w ? h.at[w] : a;
      }
      a = reciprocal(a);
#pragma unroll
      for (int w = 0; w < W; ++w) {
        h.at[w] = n == w ? a : h.at[w];
      }
    }
  }
#pragma unroll
  for (int w = 0; w < W; ++w) {
    h.at[w] = mul(of.scale, h.at[w]);
  }
  return h;
}

// h of W neurons, or of W steps.
template <Shape kShape, typename S, int W>
LIF_FN Pack<S, W> slopes_of(const Pack<S, W>& z, const Surrogate<S>& of) {
  if constexpr (kDivides<kShape> && std::is_same_v<S, float>) {
    return divided<kShape>(z, of);
  } else {
    Pack<S, W> h;
#pragma unroll
    for (int w = 0; w < W; ++w) {
      h.at[w] = derivative<kShape>(z.at[w], of);
    }
    return h;
  }
}

// u - theta of W neurons at a step of a chunk.
template <typename Rows, typename Kind, typename S, int W, int kRows, int kThreads>
LIF_FN Pack<S, W> distance(const Column<S, W, kRows, kThreads>& column, const Group<Kind, S, W>& group) {
  Pack<S, W> z = at(column, Rows::u_row);
  Pack<S, W> b{};
  if constexpr (Rows::b) {
    b = at(column, Rows::b_row);
  }
#pragma unroll
  for (int w = 0; w < W; ++w) {
    const Values<S>& own = group.own[w];
    z.at[w] = sub(z.at[w], Rows::b ? adapted_threshold(own.theta, own.kappa, b.at[w]) : own.theta);
  }
  return z;
}

// h of a step into the column; 0 where a neuron is silent.
template <typename Rows, typename S, int W, int kRows, int kThreads>
LIF_FN void put_slope(const Column<S, W, kRows, kThreads>& column, Pack<S, W> h) {
  if constexpr (Rows::q) {
    const Pack<S, W> q = at(column, Rows::q_row);
#pragma unroll
    for (int w = 0; w < W; ++w) {
      h.at[w] = q.at[w] > S(0) ? S(0) : h.at[w];
    }
  }
  at(column, Rows::h_row) = h;
}

// pass(shape) with the shape as a type.
template <typename S, typename Pass>
LIF_FN void with_shape(const Surrogate<S>& surrogate, const Pass& pass) {
  switch (surrogate.shape) {
    case Shape::fast_sigmoid:
      return pass(std::integral_constant<Shape, Shape::fast_sigmoid>());
    case Shape::atan:
      return pass(std::integral_constant<Shape, Shape::atan>());
    case Shape::sigmoid:
      return pass(std::integral_constant<Shape, Shape::sigmoid>());
    case Shape::triangle:
      return pass(std::integral_constant<Shape, Shape::triangle>());
    case Shape::piecewise_exp:
      return pass(std::integral_constant<Shape, Shape::piecewise_exp>());
    case Shape::gaussian:
      return pass(std::integral_constant<Shape, Shape::gaussian>());
    case Shape::rectangle:
      return pass(std::integral_constant<Shape, Shape::rectangle>());
    case Shape::table:
      return pass(std::integral_constant<Shape, Shape::table>());
  }
}

template <typename Rows, typename Kind, typename S, int W, int kRows, int kThreads>
LIF_FN void write_slopes(Column<S, W, kRows, kThreads> column, int steps, const Group<Kind, S, W>& group,
                         const Surrogate<S>& of) {
  with_shape(of, [&](auto shape) {
    constexpr Shape kShape = decltype(shape)::value;
    int step = 0;
    if constexpr (kDivides<kShape> && std::is_same_v<S, float>) {
      // Up to a step whose reciprocals may not be normal; the rest of the chunk goes the slow way.
#pragma unroll 2
      for (; step < steps; ++step) {
        Pack<S, W> h;
        if (!divisors<kShape>(h, distance<Rows>(column, group), of.slope)) {
          break;
        }
#pragma unroll
        for (int w = 0; w < W; ++w) {
          h.at[w] = mul(of.scale, reciprocal_of_normal(h.at[w]));
        }
        put_slope<Rows>(column, h);
        column = moved(column, 1);
      }
    }
#pragma unroll 1
    for (; step < steps; ++step) {
      Pack<S, W> h = distance<Rows>(column, group);
#pragma unroll
      for (int w = 0; w < W; ++w) {
        h.at[w] = derivative<kShape>(h.at[w], of);
      }
      put_slope<Rows>(column, h);
      column = moved(column, 1);
    }
  });
}

}  // namespace lif::cuda
