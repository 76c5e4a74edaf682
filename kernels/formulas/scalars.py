"""What formulas do with numbers besides arithmetic, on floats, on arrays and in jitted code."""

import numpy as np
from numba.extending import overload

from ..compiler.jit import NO_WRAPPER
from .intrinsics import select as _select

# Stated for each overload: a callee inherits its caller's flags otherwise, and ``reassoc`` would
# cancel the compensated steps. Nothing may assume the absence of NaN or infinity. A call that LLVM
# finds too long to inline would keep the loop around it scalar.
JIT = {"fastmath": {"contract"}, "error_model": "numpy", "forceinline": True, **NO_WRAPPER}


def select(condition, x, y):
    """Return x where the condition holds and y elsewhere; both are evaluated."""
    if isinstance(condition, bool | np.bool_):
        return x if condition else y
    return np.where(condition, x, y)


def positive(x):
    """x itself, for x > 0 only; jitted |x|.

    Where a loop leaves some numbers of an array as they are, LLVM stores the others alone, under a
    mask, which takes more than ten cycles on some processors. What was computed is always stored.
    """
    return x


def like(x, value):
    """Return the constant in the precision of x, which a literal in jitted code would widen."""
    return float(value)


@overload(select, jit_options=JIT)
def _overload_select(condition, x, y):
    return lambda condition, x, y: _select(condition, x, y)


@overload(positive, jit_options=JIT)
def _overload_positive(x):
    return lambda x: abs(x)


@overload(like, jit_options=JIT)
def _overload_like(x, value):
    return lambda x, value: type(x)(value)
