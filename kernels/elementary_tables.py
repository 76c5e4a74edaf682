"""Constants of the jitted elementary functions; ``tools/minimax.py`` prints the coefficients."""

from typing import NamedTuple

import numpy as np


class Table(NamedTuple):
    """The constants of one floating-point type; coefficients stand lowest power first."""

    dtype: type[np.floating]
    mantissa: int  # stored bits
    bias: int  # of the exponent
    exp_low: float  # below this exp rounds to 0 and expm1 to -1
    exp_high: float  # above this both overflow
    ln2_high: float  # so few bits that its product with any exponent is exact
    ln2_low: float
    exp: tuple[float, ...]  # (e**r - 1 - r) / r**2 for |r| <= log(2) / 2
    tanh: tuple[float, ...]  # (tanh(x) / x - 1) / x**2 in x**2, for tanh(x) below 1/2
    log: tuple[float, ...]  # (2 atanh(s) / s - 2) / s**2 in s**2, |s| <= (sqrt 2 - 1)**2


FLOAT32 = Table(
    dtype=np.float32,
    mantissa=23,
    bias=127,
    exp_low=-104.0,
    exp_high=89.0,
    ln2_high=0.69314575,
    ln2_low=1.4286068e-06,
    exp=(0.5, 0.16666667, 0.04166633, 0.00833322, 0.0013943198, 0.00019962144),
    tanh=(-0.33333316, 0.13332592, -0.05385299, 0.021074684, -0.0062787635),
    log=(0.6666666, 0.40000334, 0.2853731, 0.23582155),
)

FLOAT64 = Table(
    dtype=np.float64,
    mantissa=52,
    bias=1023,
    exp_low=-746.0,
    exp_high=710.0,
    ln2_high=0.693147180559663,
    ln2_low=2.8235290563031577e-13,
    exp=(
        0.5,
        0.1666666666666667,
        0.0416666666666523,
        0.00833333333332616,
        0.0013888888895593106,
        0.0001984126987474495,
        2.4801574543211277e-05,
        2.755725548743022e-06,
        2.7567925056102806e-07,
        2.510518354520322e-08,
        1.7687723268769863e-09,
    ),
    tanh=(
        -0.3333333333333233,
        0.13333333333171685,
        -0.05396825387755133,
        0.02186948601028114,
        -0.00886319498528552,
        0.0035917236214280703,
        -0.0014532363909092755,
        0.0005791960038884003,
        -0.00021040001873034563,
        5.108985177974938e-05,
    ),
    log=(
        0.6666666666666734,
        0.39999999999414687,
        0.2857142874238639,
        0.22222198573282972,
        0.18183564321921053,
        0.15314050643730914,
        0.14795948898634034,
    ),
)
