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
    exp: tuple[float, ...]  # (e**r - 1 - r) / r**2 for |r| <= log(2) / 2; 1/2 is exact
    tanh: tuple[float, ...]  # (tanh(x) / x - 1) / x**2 in x**2, for tanh(x) below 1/2
    erfc_end: float  # beyond this erfc rounds to 0
    erfc_center: float
    erfc_center_value: float
    erfc_tail: tuple[float, ...]  # (1 + a) e**(a**2) erfc(a) = center value + t * tail(t),
    # t = (a - center) / (a + center)
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
    log=(0.6666666, 0.40000334, 0.2853731, 0.23582155),
    tanh=(-0.33333316, 0.13332593, -0.053853095, 0.021075148, -0.006279464),
    erfc_end=10.1,
    erfc_center=2.8125,
    erfc_center_value=0.72355723,
    erfc_tail=(
        -0.23709741,
        0.09199907,
        -0.0007255059,
        -0.027749905,
        0.02019631,
        -0.0064913835,
        -0.00018348292,
        0.0008738872,
        -9.5104806e-05,
        -9.410206e-05,
    ),
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
        0.16666666666666677,
        0.04166666666666658,
        0.008333333333322167,
        0.0013888888888942616,
        0.00019841269884918512,
        2.480158719829726e-05,
        2.7557245321399783e-06,
        2.755738700507527e-07,
        2.5108676009825955e-08,
        2.0878915401382787e-09,
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
    tanh=(
        -0.3333333333333234,
        0.13333333333172143,
        -0.053968253877777594,
        0.021869486015737565,
        -0.008863195059354336,
        0.003591724226048537,
        -0.0014532394196627625,
        0.0005792051141320679,
        -0.00021041511359487844,
        5.11004374445342e-05,
    ),
    erfc_end=27.3,
    erfc_center=2.75,
    erfc_center_value=0.7262328610465075,
    erfc_tail=(
        -0.23913474515321595,
        0.08929211063702489,
        0.0025843711442061807,
        -0.02882966460080367,
        0.01931829744666784,
        -0.005346273312808663,
        -0.0006387051012639964,
        0.0008522288392653505,
        -4.601779263891997e-05,
        -0.00012409175292150436,
        1.3047421465099529e-05,
        2.0956577604790275e-05,
        -1.373059748565941e-06,
        -3.981967997364042e-06,
        -2.0948848332288817e-07,
        7.523196995212698e-07,
        1.7340113736698534e-07,
        -1.1401265075599871e-07,
        -5.579113415157767e-08,
        6.5233225569889435e-09,
        8.75778777917089e-09,
        1.488536666808628e-09,
    ),
)
