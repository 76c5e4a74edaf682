"""How far a GPU's elementary functions are from the exact values, over all float32 inputs."""

import math
from typing import NamedTuple

import numpy as np
from numba import cuda
from numba.extending import register_jitable

from ...kernels.cuda import elementary
from ...kernels.cuda.memory.halves import number

THREADS = 256
_BLOCKS = 4096
_TINY = float(np.finfo(np.float32).tiny)
_SMALL = 2 * _TINY
_LARGEST = float(np.finfo(np.float32).max)


class Error(NamedTuple):
    """The largest error in ULP, and the input where it is."""

    ulp: float
    x: float


@register_jitable
def _power_of_two(x):
    return 2.0**x


@register_jitable
def _reciprocal(x):
    return math.copysign(math.inf, x) if abs(x) < _TINY else 1.0 / x


@register_jitable
def _exponential(x):
    return math.exp(x)


@register_jitable
def _tanh(x):
    return math.tanh(x)


@register_jitable
def _tanh_slope(x):
    e = math.exp(-2.0 * abs(x))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


@register_jitable
def _logistic(x):
    e = math.exp(-abs(x))
    return (e if x < 0.0 else 1.0) / (1.0 + e)


@register_jitable
def _logistic_slope(x):
    e = math.exp(-abs(x))
    return e / ((1.0 + e) * (1.0 + e))


# Function, the same in float64, and the largest input that it is made for
FUNCTIONS = {
    "ex2": (elementary.ex2, _power_of_two, 127.99),
    "rcp": (elementary.rcp, _reciprocal, math.inf),
    "exp_neg": (elementary.exp_neg, _exponential, 0.0),
    "tanh": (elementary.tanh, _tanh, math.inf),
    "tanh_slope": (elementary.tanh_slope, _tanh_slope, math.inf),
    "logistic": (elementary.logistic, _logistic, math.inf),
    "logistic_slope": (elementary.logistic_slope, _logistic_slope, math.inf),
}


@register_jitable
def _error(got, exact):
    """|got − exact| in ULP of float32, less twice the smallest normal number."""
    if exact != exact or got != got:
        return 0.0 if exact != exact and got != got else math.inf
    if abs(exact) > _LARGEST:
        return 0.0 if abs(got) >= _LARGEST else math.inf
    excess = abs(got - exact) - _SMALL
    _, exponent = math.frexp(exact)
    return excess / math.ldexp(1.0, max(exponent - 24, -149)) if excess > 0.0 else 0.0


def kernel_of(function, exact, largest):
    """Kernel(every, errors, inputs): each thread's largest error and the bits of its input.

    The inputs are those with bits 0, `every`, 2 `every` ... below 2³²; NaN and infinities as well.
    """

    def kernel(every, errors, inputs):
        i = cuda.grid(1)
        step = np.int64(cuda.gridDim.x) * np.int64(THREADS) * every
        worst = -1.0
        bits = np.int64(i) * every
        while bits < 1 << 32:
            x = number(bits)
            if not x > largest:
                found = _error(np.float64(function(x)), np.float64(exact(np.float64(x))))
                if found > worst:
                    worst = found
                    inputs[i] = bits
            bits += step
        errors[i] = worst

    return cuda.jit(kernel)


def elementary_errors(every: int = 1, blocks: int = _BLOCKS) -> dict[str, Error]:
    """The largest error of each function over all float32 inputs, or over every so manieth."""
    found = {}
    for name, (function, exact, largest) in FUNCTIONS.items():
        errors = cuda.to_device(np.zeros(blocks * THREADS))
        inputs = cuda.to_device(np.zeros(blocks * THREADS, np.uint32))
        kernel_of(function, exact, largest)[blocks, THREADS](every, errors, inputs)
        all_errors = errors.copy_to_host()
        worst = int(np.argmax(all_errors))
        x = inputs.copy_to_host()[worst : worst + 1].view(np.float32)
        found[name] = Error(float(all_errors[worst]), float(x[0]))
    return found
