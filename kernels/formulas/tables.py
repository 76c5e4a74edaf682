"""Constants of the jitted elementary functions; ``tools/minimax.py`` prints the coefficients."""

import math
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
    log1p_exp: tuple[float, ...]  # (log(1 + e) / e - 1) / e for 0 <= e <= 1
    erf: tuple[float, ...]  # erf(x) / x - 1 in x**2, |x| <= 0.65
    erfc_end: float  # here erfc is twice the least normal number; beyond it is 0
    erfc_center: float
    erfc_center_value: float
    erfc_tail: tuple[float, ...]  # (1 + a) e**(a**2) erfc(a) = center value + t * tail(t),
    # t = (a - center) / (a + center)
    log: tuple[float, ...]  # (2 atanh(s) / s - 2) / s**2 in s**2, |s| <= (sqrt 2 - 1)**2
    tanh_end: float = 0.0  # from here on tanh is 1
    tanh_above: tuple[float, ...] = ()  # tanh(x) / x is a quotient of polynomials in x**2,
    tanh_below: tuple[float, ...] = ()  # |x| <= 8.4; none where e**x costs less

    def normal(self, times: float) -> np.floating:
        """So many times the least normal number.

        Processors take many times as long for numbers below it. What formulas multiply by, a
        quarter at least, must not lead there.
        """
        return self.dtype(times * float(np.finfo(self.dtype).tiny))

    @property
    def exp_least(self) -> np.floating:
        """x just above which e**x is four times the least normal number."""
        rounded = 1 - 4 * float(np.finfo(self.dtype).eps)
        return self.dtype(math.log(float(self.normal(4))) * rounded)


FLOAT32 = Table(
    dtype=np.float32,
    mantissa=23,
    bias=127,
    exp_low=-104.0,
    exp_high=89.0,
    ln2_high=0.69314575,
    ln2_low=1.4286068e-06,
    exp=(0.49999997, 0.16666543, 0.0416672, 0.008366514, 0.0013882525),
    log=(0.6666666, 0.40000334, 0.2853731, 0.23582155),
    log1p_exp=(
        -0.49999988,
        0.3333269,
        -0.2498858,
        0.19897933,
        -0.16129342,
        0.12467135,
        -0.083074234,
        0.041981503,
        -0.013631546,
        0.0020729606,
    ),
    erf=(
        0.12837917,
        -0.37612635,
        0.11283654,
        -0.026852211,
        0.00515962,
        -0.0007155895,
    ),
    erfc_end=9.155,
    erfc_center=2.8125,
    erfc_center_value=0.72355723,
    erfc_tail=(
        -0.23709743,
        0.09199908,
        -0.0007251079,
        -0.027749725,
        0.020192409,
        -0.0064949323,
        -0.00016978686,
        0.0008924554,
        -0.00010722343,
        -0.00012323726,
        -1.1997946e-05,
    ),
    tanh_end=9.0,
    tanh_above=(1.0, 0.13419576, 0.0035416132, 2.1379707e-05, 1.4457761e-08),
    tanh_below=(1.0, 0.467529, 0.026051424, 0.00033614205, 8.219923e-07),
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
        0.16666666666666602,
        0.041666666666620035,
        0.00833333333338835,
        0.0013888888920480927,
        0.0001984126970940301,
        2.480151638953226e-05,
        2.755742504840547e-06,
        2.762220819762435e-07,
        2.504589795545426e-08,
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
    log1p_exp=(
        -0.4999999999999946,
        0.33333333333235043,
        -0.24999999993676508,
        0.19999999791320494,
        -0.16666662498450574,
        0.14285658896463022,
        -0.12499479605460441,
        0.11107505948072592,
        -0.09981014704069362,
        0.09013152956529766,
        -0.08081209986857,
        0.07035540050005368,
        -0.05750200069933725,
        0.04230011635698703,
        -0.02674397373202346,
        0.013838599750295246,
        -0.005543114396924229,
        0.0015957430844218306,
        -0.0002917616602699932,
        2.5329985666754353e-05,
    ),
    erf=(
        0.1283791670955126,
        -0.37612638903183754,
        0.11283791670955123,
        -0.026866170645130187,
        0.0052239776254179695,
        -0.0008548327020197629,
        0.00012055332704383878,
        -1.4925634760682383e-05,
        1.6461527932700453e-06,
        -1.6351226262905096e-07,
        1.4574427960895792e-08,
        -1.0124075927907664e-09,
    ),
    erfc_end=26.528,
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
