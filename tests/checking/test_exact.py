"""The exact cases: one lost row, unit, input or output is an inequality, at any n."""

import numpy as np
import pytest
from batch import Batch

import twolayer as tl
from twolayer.checking import cases
from twolayer.checking.exact import exact
from twolayer.network import DTYPES


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_sum_is_exact(dtype):
    """In any order of the terms: the sums of their absolute values stay below 2²⁴ or 2⁵³."""
    wide = 0
    for case in cases.exact(dtype):
        assert cases.is_exact(case, cases.HELD[dtype])
        wide += case.name.endswith("many bits")
        assert cases.is_exact(case) or dtype == "float64"
    assert wide >= 3
    large = cases.integers(tl.Shape(64, 3, 5, 2), dtype, 0)
    assert not cases.is_exact(large._replace(Y=large.Y * (1 << 20)))


class Loses(Batch):
    """Leaves a part out where there is enough of it; means are taken over all."""

    def lose(self, X, Y):
        return X, Y

    def differentiate(self, X, Y, theta, gradient):
        count = len(X)
        X, Y = self.lose(X, Y)
        loss = super().differentiate(X, Y, theta, gradient)
        for part in gradient:
            part *= len(X) / count
        return loss * len(X) / count


class one_row_beyond_4000(Loses):
    def lose(self, X, Y):
        keep = np.arange(len(X)) != 4000
        return X[keep], Y[keep]


class rows_from_100000(Loses):
    def lose(self, X, Y):
        return X[:100_000], Y[:100_000]


class fourth_chunk_of_480(Loses):
    def lose(self, X, Y):
        keep = np.r_[0 : min(1440, len(X)), min(1920, len(X)) : len(X)]
        return X[keep], Y[keep]


class inputs_from_128(Loses):
    def lose(self, X, Y):
        return np.where(np.arange(X.shape[1]) < 128, X, np.zeros_like(X)), Y


class last_of_many_hidden_units(Batch):
    def value(self, A):
        Z = super().value(A)
        if Z.shape[1] > 144:
            Z[:, 144:] = 0
        return Z


class outputs_from_32(Batch):
    def link(self, U):
        U[:, 32:] = 0
        return U


@pytest.mark.parametrize(
    "wrong",
    [
        one_row_beyond_4000, rows_from_100000, fourth_chunk_of_480, inputs_from_128,
        last_of_many_hidden_units, outputs_from_32,
    ],
)  # fmt: skip
def test_what_is_lost_is_found(wrong, monkeypatch):
    monkeypatch.setattr("twolayer.checking.exact._LONGEST", np.inf)
    results = (
        result
        for dtype in DTYPES
        for result in exact(tl.Variant(wrong.__name__, "cpu", "", wrong), dtype)
    )
    found = next(result for result in results if not result.agrees)
    assert str(found).startswith(wrong.__name__)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_right_is_equal(dtype):
    found = list(exact(tl.Variant("right", "cpu", "", Batch), dtype))
    assert len(found) == len(list(cases.exact(dtype)))
    for result in found:
        assert result.agrees, result


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_variant_is_equal(variant, dtype):
    if variant.name in ("dask", "numpy-samples", "torch-compile"):
        pytest.skip("takes long")
    for result in exact(variant, dtype):
        assert result.agrees, result


class Slow(Batch):
    """What every call costs, or what every row costs."""

    a_call = a_row = 0.0
    clock = None

    def rows(self, X, Y):
        self.clock.sleep(self.a_call + self.a_row * len(X))
        return X, Y


@pytest.mark.parametrize(("a_call", "a_row", "spared"), [(2e-3, 0, False), (0, 1e-4, True)])
def test_what_takes_long_for_each_row_is_spared_many_rows(
    a_call, a_row, spared, clock, monkeypatch
):
    monkeypatch.setattr("twolayer.checking.exact.time", clock)
    monkeypatch.setattr(Slow, "clock", clock)
    monkeypatch.setattr(Slow, "a_call", a_call)
    monkeypatch.setattr(Slow, "a_row", a_row)
    found = list(exact(tl.Variant("slow", "cpu", "", Slow), "float32"))
    assert all(result.agrees for result in found)
    assert (max(result.shape.n for result in found) < 1 << 17) is spared
