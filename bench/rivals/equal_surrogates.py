"""Surrogates of other libraries, and those of lif_cuda that have the same derivative."""

from __future__ import annotations

import math

import lif_cuda

# The library, its expression of a spike as a function of u - threshold, and the surrogate of lif_cuda.
SURROGATES = (
    ("snnTorch", "surrogate.fast_sigmoid()", "surrogate.FastSigmoid(25.0)"),
    ("snnTorch", "surrogate.fast_sigmoid(7)", "surrogate.FastSigmoid(7.0)"),
    ("snnTorch", "surrogate.atan()", "surrogate.ATan()"),
    ("snnTorch", "surrogate.atan(3.0)", "surrogate.ATan(3.0)"),
    ("snnTorch", "surrogate.sigmoid(5)", "surrogate.Sigmoid(5.0)"),
    ("snnTorch", "surrogate.straight_through_estimator()", "surrogate.StraightThrough()"),
    ("SpikingJelly", "surrogate.Sigmoid()", "surrogate.Sigmoid()"),
    ("SpikingJelly", "surrogate.Sigmoid(3.0)", "surrogate.Sigmoid(3.0)"),
    ("SpikingJelly", "surrogate.ATan()", "surrogate.ATan()"),
    ("SpikingJelly", "surrogate.ATan(3.0)", "surrogate.ATan(3.0)"),
    ("SpikingJelly", "surrogate.SoftSign()", "surrogate.SoftSign()"),
    ("SpikingJelly", "surrogate.SoftSign(3.0)", "surrogate.SoftSign(3.0)"),
    ("SpikingJelly", "surrogate.SuperSpike(2.0)", "surrogate.SuperSpike(1.0, scale=2.0)"),
    ("SpikingJelly", "surrogate.PiecewiseQuadratic()", "surrogate.Triangle()"),
    ("SpikingJelly", "surrogate.PiecewiseQuadratic(1.5)", "surrogate.Triangle(1.5)"),
    ("SpikingJelly", "surrogate.PiecewiseExp()", "surrogate.PiecewiseExp()"),
    ("SpikingJelly", "surrogate.PiecewiseExp(2.0)", "surrogate.PiecewiseExp(2.0)"),
    ("SpikingJelly", "surrogate.Erf()", "surrogate.Gaussian()"),
    ("SpikingJelly", "surrogate.Erf(3.0)", "surrogate.Gaussian(3.0)"),
    ("Norse", 'lambda z: threshold.threshold(z, "super", 100.0)', "surrogate.SuperSpike(1.0)"),
    ("Norse", 'lambda z: threshold.threshold(z, "triangle", 0.3)', "surrogate.Triangle(1.0, scale=0.3)"),
    ("Norse", 'lambda z: threshold.threshold(z, "tanh", 3.0)', "surrogate.Sigmoid(6.0, scale=4.0)"),
    (
        "Norse",
        'lambda z: threshold.threshold(z, "heavi_erfc", 3.0)',
        "surrogate.Gaussian(3.0, scale=2 / math.pi**0.5)",
    ),
    (
        "sinabs",
        "lambda z: activation.SingleSpike.apply(z + 1, 1.0, activation.SingleExponential())",
        "surrogate.PiecewiseExp(2.0, scale=2.0)",
    ),
    (
        "sinabs",
        "lambda z: activation.SingleSpike.apply(z + 1, 1.0, activation.Gaussian())",
        "surrogate.Gaussian(2**0.5, scale=(2 / math.pi) ** 0.5)",
    ),
)


def our_surrogate(expression: str) -> lif_cuda.surrogate.Surrogate:
    """The surrogate of lif_cuda of an expression of ``SURROGATES``."""
    made: lif_cuda.surrogate.Surrogate = eval(expression, {"surrogate": lif_cuda.surrogate, "math": math})
    return made
