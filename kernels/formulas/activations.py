"""The activations σ and their slopes σ′, each formula written once.

A formula is a function of one pre-activation `a`, written with the primitives of `elementary`, so
that the same text serves Python floats, NumPy arrays and code compiled by Numba. All are finite for
every finite `a`, keep their relative accuracy near 0 and in both tails, and pass NaN on. There is
one exception: σ′ of tanh, compiled in float32, is 1 − tanh² a, because that takes half as long.

The accuracy stated with each entry is the largest error, in units in the last place (ULP) of the
larger of the result and of the largest term that was added to form it (σ′ of silu and gelu crosses
zero between terms of opposite sign; of 1 − tanh² a the largest term is 1); where an exponential
underflows, |a| times the smallest subnormal comes on top. Jitted exponentials are 0 a little before
they would be subnormal: there |a| times four of the least normal numbers comes on top, 128 of them
for gelu. gelu's tail, a < 0, is conditioned like a²: the rounding of a/√2 brings 1.5 a² ULP on top
there, and where Φ is subnormal the result may be 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..compiler.jit import jitable
from .elementary import (
    erfc,
    exp_neg,
    expm1_neg,
    gaussian,
    like,
    log1p_exp,
    logistic,
    positive,
    select,
    tanh,
    tanh_slope,
)
from .scalars import JIT

# Beyond this both dtypes have rounded e^(-|a|) to 0. Clipping there keeps inf * 0 out of a product.
_FAR = 1e4


class Activation(NamedTuple):
    """An activation: `value(a)` = σ(a) and `slope(a)` = σ′(a), with their accuracy in ULP."""

    name: str
    value: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    ulp: tuple[float, float]


@jitable(forceinline=True)
def _clip_low(a):
    return select(a < like(a, -_FAR), like(a, -_FAR), a)


@jitable(forceinline=True)
def _clip(a):
    return _clip_low(select(a > like(a, _FAR), like(a, _FAR), a))


@jitable(forceinline=True)
def identity(a):
    """σ(a) = a. Exact."""
    return a


@jitable(forceinline=True)
def identity_slope(a):
    """σ′(a) = 1. Exact."""
    return select(a == a, like(a, 1.0), a)


@jitable(**JIT)  # a caller's `reassoc` would part the product that it shares with `logistic`
def sigmoid_slope(a):
    """σ′(a) = σ(a) σ(−a) = e^(−|a|) σ(|a|)². 5 ULP."""
    s = logistic(abs(a))
    return exp_neg(-abs(a)) * s * s


@jitable(forceinline=True)
def relu(a):
    """σ(a) = max(a, 0). Exact."""
    return select(a <= like(a, 0.0), like(a, 0.0), positive(a))


@jitable(forceinline=True)
def relu_slope(a):
    """σ′(a) = 1 for a > 0, else 0. Exact."""
    zero = like(a, 0.0)
    return select(a > zero, like(a, 1.0), select(a <= zero, zero, a))


@jitable(forceinline=True)
def leaky_relu(a):
    """σ(a) = a for a > 0, else 0.01 a. 1 ULP."""
    return select(a > like(a, 0.0), positive(a), like(a, 0.01) * a)


@jitable(forceinline=True)
def leaky_relu_slope(a):
    """σ′(a) = 1 for a > 0, else 0.01. 1 ULP."""
    zero = like(a, 0.0)
    return select(a > zero, like(a, 1.0), select(a <= zero, like(a, 0.01), a))


@jitable(forceinline=True)
def silu(a):
    """σ(a) = a / (1 + e⁻ᵃ). 5 ULP."""
    return _clip_low(a) * logistic(a)


@jitable(forceinline=True)
def silu_slope(a):
    """σ′(a) = s + a s′ with s the logistic function. 7 ULP."""
    return logistic(a) + _clip(a) * sigmoid_slope(a)


@jitable(forceinline=True)
def gelu(a):
    """σ(a) = a Φ(a), Φ(a) = ½ erfc(−a/√2) the normal distribution function. 6 ULP."""
    return _clip_low(a) * _normal_distribution(a)


@jitable(forceinline=True)
def gelu_slope(a):
    """σ′(a) = Φ(a) + a φ(a), φ(a) = e^(−a²/2) / √(2π). 8 ULP."""
    b = _clip(a)
    density = gaussian(a * like(a, -0.7071067811865476)) * like(a, 0.3989422804014327)
    return _normal_distribution(a) + b * density


@jitable(forceinline=True)
def _normal_distribution(a):
    return like(a, 0.5) * erfc(a * like(a, -0.7071067811865476))


@jitable(forceinline=True)
def softplus(a):
    """σ(a) = log(1 + eᵃ) = max(a, 0) + log(1 + e^(−|a|)). 4 ULP."""
    return select(a > like(a, 0.0), a, like(a, 0.0)) + log1p_exp(-abs(a))


@jitable(forceinline=True)
def elu(a):
    """σ(a) = a for a > 0, else eᵃ − 1. 2 ULP."""
    zero = like(a, 0.0)
    return select(a > zero, positive(a), expm1_neg(select(a > zero, zero, a)))


@jitable(forceinline=True)
def elu_slope(a):
    """σ′(a) = 1 for a > 0, else eᵃ. 2 ULP, 3 on a GPU."""
    zero = like(a, 0.0)
    return select(a > zero, like(a, 1.0), exp_neg(select(a > zero, zero, a)))


ACTIVATIONS: dict[str, Activation] = {
    entry.name: entry
    for entry in (
        Activation("identity", identity, identity_slope, (0, 0)),
        Activation("sigmoid", logistic, sigmoid_slope, (4, 5)),
        Activation("tanh", tanh, tanh_slope, (6.5, 6.5)),
        Activation("relu", relu, relu_slope, (0, 0)),
        Activation("leaky_relu", leaky_relu, leaky_relu_slope, (1, 1)),
        Activation("silu", silu, silu_slope, (5, 7)),
        Activation("gelu", gelu, gelu_slope, (6, 8)),
        Activation("softplus", softplus, logistic, (4, 4)),
        Activation("elu", elu, elu_slope, (2, 3)),
    )
}
