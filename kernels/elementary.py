"""Elementary functions that one formula can use on floats, on arrays and in jitted code."""

import math

import numpy as np
from numba.extending import overload

__all__ = ["erfc", "exp", "expm1", "like", "log1p", "select", "tanh"]

_JIT = {"fastmath": {"contract"}, "error_model": "numpy"}


def exp(x):
    """e**x."""
    if not isinstance(x, float):
        return np.exp(x)
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def expm1(x):
    """e**x - 1."""
    if not isinstance(x, float):
        return np.expm1(x)
    try:
        return math.expm1(x)
    except OverflowError:
        return math.inf


def log1p(x):
    """log(1 + x)."""
    if not isinstance(x, float):
        return np.log1p(x)
    if x <= -1.0:
        return -math.inf if x == -1.0 else math.nan
    return math.log1p(x)


def tanh(x):
    """Hyperbolic tangent."""
    return math.tanh(x) if isinstance(x, float) else np.tanh(x)


def erfc(x):
    """1 - erf(x)."""
    if isinstance(x, float):
        return math.erfc(x)
    from scipy.special import erfc as array_erfc

    return array_erfc(x)


def select(condition, x, y):
    """Return x where the condition holds and y elsewhere."""
    if isinstance(condition, bool | np.bool_):
        return x if condition else y
    return np.where(condition, x, y)


def like(x, value):
    """Return the constant in the precision of x."""
    return float(value)


@overload(exp, jit_options=_JIT)
def _exp(x):
    return lambda x: math.exp(x)


@overload(expm1, jit_options=_JIT)
def _expm1(x):
    return lambda x: math.expm1(x)


@overload(log1p, jit_options=_JIT)
def _log1p(x):
    return lambda x: math.log1p(x)


@overload(tanh, jit_options=_JIT)
def _tanh(x):
    return lambda x: math.tanh(x)


@overload(erfc, jit_options=_JIT)
def _erfc(x):
    return lambda x: math.erfc(x)


@overload(select, jit_options=_JIT)
def _select(condition, x, y):
    return lambda condition, x, y: x if condition else y


@overload(like, jit_options=_JIT)
def _like(x, value):
    return lambda x, value: type(x)(value)
