"""Print the minimax coefficients used by ``kernels/formulas/elementary.py``.

Run ``python tools/minimax.py [name ...]``; needs mpmath. Each row of ``FITS`` asks for the
polynomial p of the given degree, or the quotient p / q of two, that minimizes
``max |weight(x) * (f(x) - p(x) / q(x))|`` over the interval; the weight turns that error into the
relative error of the function it serves. Coefficients are printed lowest power first, rounded to
the named precision, with the error that is left after rounding; q(0) is 1.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import mpmath
import numpy as np
from mpmath import mp, mpf

mp.dps = 60

Function = Callable[[mpf], mpf]


class Fit(NamedTuple):
    """One polynomial to compute, or a quotient of two."""

    f: Function
    weight: Function
    low: mpf
    high: mpf
    degree: int
    dtype: type
    below: int = 0  # the degree of q


def remez(fit: Fit, points: int = 1500, sweeps: int = 60) -> tuple[list[mpf], list[mpf]]:
    """Return the coefficients of p and q, lowest power first, by Remez's second algorithm.

    p(x) - q(x) f(x) = q(x) * error / weight is linear in all that is unknown but for the last
    product, where q is that of the sweep before.
    """
    n = fit.degree + fit.below
    below = [mpf(1)]
    half, middle = (fit.high - fit.low) / 2, (fit.high + fit.low) / 2
    grid = [middle - half * mp.cos(mp.pi * (i + mpf("0.5")) / points) for i in range(points)]
    values, weights = [fit.f(x) for x in grid], [fit.weight(x) for x in grid]
    reference = [(points - 1) * (2 * i + 1) // (2 * n + 4) for i in range(n + 2)]
    for _ in range(sweeps):
        rows = [
            [grid[j] ** i for i in range(fit.degree + 1)]
            + [-values[j] * grid[j] ** i for i in range(1, fit.below + 1)]
            + [(-1) ** row * mp.polyval(below[::-1], grid[j]) / weights[j]]
            for row, j in enumerate(reference)
        ]
        solution = mp.lu_solve(mp.matrix(rows), mp.matrix([values[j] for j in reference]))
        above, below = list(solution[: fit.degree + 1]), [mpf(1), *solution[fit.degree + 1 : n + 1]]
        error = [
            w * (v - quotient(above, below, x))
            for x, v, w in zip(grid, values, weights, strict=True)
        ]
        exchanged = alternation(error, n + 2)
        if max(map(abs, error)) <= abs(solution[n + 1]) * mpf("1.0001"):
            break
        reference = exchanged
    return above, below


def quotient(above: list[mpf], below: list[mpf], x: mpf) -> mpf:
    """p(x) / q(x)."""
    return mp.polyval(above[::-1], x) / mp.polyval(below[::-1], x)


def alternation(error: list[mpf], count: int) -> list[int]:
    """Return ``count`` indices where the error is largest between its changes of sign."""
    peaks = [0]
    for i, e in enumerate(error):
        if e * error[peaks[-1]] < 0:
            peaks.append(i)
        elif abs(e) > abs(error[peaks[-1]]):
            peaks[-1] = i
    if len(peaks) < count:
        raise ArithmeticError(f"the error has {len(peaks)} alternations; {count} are needed")
    while len(peaks) > count:
        peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
    return peaks


def expm1_tail(r: mpf) -> mpf:
    """(e**r - 1 - r) / r**2."""
    return (mp.expm1(r) - r) / r**2


def expm1_second_tail(r: mpf) -> mpf:
    """((e**r - 1 - r) / r**2 - 1/2) / r, where the 1/2 is wanted exact."""
    return (expm1_tail(r) - mpf(0.5)) / r


def atanh_tail(z: mpf) -> mpf:
    """(2 atanh(s) / s - 2) / s**2 at z = s**2."""
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) / s - 2) / z


def log1p_tail(e: mpf) -> mpf:
    """(log(1 + e) / e - 1) / e."""
    return (mp.log1p(e) / e - 1) / e


def erf_tail(z: mpf) -> mpf:
    """erf(x) / x - 1 at z = x**2."""
    x = mp.sqrt(z)
    return mp.erf(x) / x - 1


def tanh_quotient(z: mpf) -> mpf:
    """tanh(x) / x at z = x**2."""
    x = mp.sqrt(z)
    return mp.tanh(x) / x


def scaled_erfc(center: mpf) -> Function:
    """(1 + a) e**(a**2) erfc(a) at t = (a - center) / (a + center)."""

    def f(t: mpf) -> mpf:
        a = center * (1 + t) / (1 - t)
        return (1 + a) * mp.exp(a * a) * mp.erfc(a)

    return f


def erfc_fit(center: str, end: str, degree: int, dtype: type) -> Fit:
    """Fit for 0 <= a <= end; the center is one whose lowest coefficient hardly needs rounding."""
    f = scaled_erfc(mpf(center))
    high = (mpf(end) - mpf(center)) / (mpf(end) + mpf(center))
    return Fit(f, lambda t: 1 / f(t), mpf(-1), high, degree, dtype)


HALF_LN2 = mp.log(2) / 2
S2 = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2
ERF_END = mpf("0.65") ** 2

FITS = {
    f"{name}_{np.dtype(dtype).name}": Fit(f, weight, mpf(low), mpf(high), degree, dtype)
    for name, f, weight, low, high, degrees in (
        ("EXP", expm1_tail, lambda r: r**2 / abs(mp.expm1(r)), -HALF_LN2, HALF_LN2, (4, 9)),
        ("LOG", atanh_tail, lambda z: z / 2, 0, S2, (3, 6)),
        ("LOG1P_EXP", log1p_tail, lambda e: e**2 / mp.log1p(e), 0, 1, (9, 19)),
        ("ERF", erf_tail, lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)), 0, ERF_END, (5, 11)),
    )
    for degree, dtype in zip(degrees, (np.float32, np.float64), strict=True)
}
FITS["EXP_float64"] = FITS["EXP_float64"]._replace(
    f=expm1_second_tail, weight=lambda r: abs(r**3 / mp.expm1(r)), degree=8
)
FITS["TANH_float32"] = Fit(
    tanh_quotient, lambda z: 1 / tanh_quotient(z), mpf(0), mpf("8.4") ** 2, 4, np.float32, below=4
)
FITS["ERFC_float32"] = erfc_fit("2.8125", "10.2", 11, np.float32)
FITS["ERFC_float64"] = erfc_fit("2.75", "27.3", 22, np.float64)


def rounded(value: mpf, dtype: type) -> float:
    """Return the value rounded to the dtype, as a Python float."""
    return float(dtype(mpmath.nstr(value, 40)))


def main(names: list[str]) -> None:
    """Print the named fits, or all of them."""
    for name in names or FITS:
        fit = FITS[name]
        above, below = ([rounded(c, fit.dtype) for c in cs] for cs in remez(fit))
        xs = [fit.low + (fit.high - fit.low) * (i + mpf("0.5")) / 4000 for i in range(4000)]
        error = max(
            abs(fit.weight(x) * (fit.f(x) - quotient([*map(mpf, above)], [*map(mpf, below)], x)))
            for x in xs
        )
        print(f"{name}  # error 2**{mpmath.nstr(mp.log(error, 2), 4)}")
        for c in above + below if fit.below else above:
            print(f"    {np.format_float_scientific(fit.dtype(c), unique=True)},")


if __name__ == "__main__":
    main(sys.argv[1:])
