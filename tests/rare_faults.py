"""Faults that show in some order of calls, at some sizes, or where a call must be refused."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from faults import FAULTS, fault
from mistakes import Batch

from twolayer import Parameters, Variant
from twolayer.kernels.formulas.updates import UPDATES


@fault
class update_over_rows_divides_by_all(Batch):
    """The mean of a mini-batch is taken over all rows."""

    updating = False

    def _update(self, update, scalars, rows):
        self.updating = True
        try:
            return super()._update(update, scalars, rows)
        finally:
            self.updating = False

    def combine(self, total, gV, gW, n):
        return super().combine(total, gV, gW, self.shape.n if self.updating else n)


@fault
class slots_are_set_once(Batch):
    """A second training goes on with the momentum of the first."""

    def _set_slots(self, slots):
        if len(slots) != len(self._slots):
            super()._set_slots(slots)


@fault
class slots_are_float64(Batch):
    def _get_slots(self):
        return tuple(
            Parameters(*(array.astype(np.float64) for array in slot)) for slot in self._slots
        )


@fault
class momentum_lies_in_the_gradient_buffer(Batch):
    """The next step overwrites it."""

    def _update(self, update, scalars, rows):
        loss = super()._update(update, scalars, rows)
        if update.slots == 1:
            for mine, slot in zip(self._gradient, self._slots[0], strict=True):
                mine[...] = slot
            self._slots = (self._gradient,)
        return loss


@fault
class setting_theta_clears_the_slots(Batch):
    changing = False

    def _update(self, update, scalars, rows):
        self.changing = True
        loss = super()._update(update, scalars, rows)
        self.changing = False
        return loss

    def _set_theta(self, theta):
        super()._set_theta(theta)
        if not self.changing:
            for slot in self._slots:
                for array in slot:
                    array[...] = 0


@fault
class products_are_kept_when_theta_is_set(Batch):
    """X Vᵀ is kept from gradient for the step; a step drops it, the setter does not."""

    kept = None

    def _loss_and_gradient(self, rows, gradient):
        if rows != slice(0, self.shape.n):
            return super()._loss_and_gradient(rows, gradient)
        if self.kept is None:
            self.kept = self.X @ self.V.T
        with np.errstate(all="ignore"):
            Z = self.value(self.kept)
            total, Delta = self.loss_and_delta(Z @ self.W.T, self.Y)
            G = (Delta @ self.W) * self.slope(self.kept)
            loss, gradient.V[...], gradient.W[...] = self.combine(
                total, G.T @ self.X, Delta.T @ Z, len(self.X)
            )
        return loss

    def _step(self, mu):
        loss = super()._step(mu)
        self.kept = None
        return loss

    def _update(self, update, scalars, rows):
        self.kept = None
        return super()._update(update, scalars, rows)


@fault
class step_takes_the_rows_of_the_last_gradient(Batch):
    """The slice of a mini-batch stays for the next step."""

    last = None

    def _loss_and_gradient(self, rows, gradient):
        if gradient is not self._gradient:
            self.last = rows
        return super()._loss_and_gradient(rows, gradient)

    def _step(self, mu):
        last, self.last = self.last or slice(0, self.shape.n), None
        X, Y = self.X, self.Y
        self.X, self.Y = X[last], Y[last]
        loss = self._backpropagate(self.X, self.Y, self._gradient)
        self.X, self.Y = X, Y
        for weights, slope in zip((self.V, self.W), self._gradient, strict=True):
            weights -= np.asarray(mu, self.dtype) * slope
        return loss


@fault
class step_after_predict_uses_its_features(Batch):
    """predict leaves Z in the buffer that the step directly after it takes for its own."""

    Z = None

    def _forward(self, X, F):
        super()._forward(X, F)
        self.Z = self.value(X @ self.V.T)

    def _step(self, mu):
        loss = self._loss_and_gradient(slice(0, self.shape.n), self._gradient)
        if self.Z is not None and len(self.Z) != self.shape.n:
            self._gradient.W[:, 0] += self.Z[0, 0]
        self.Z = None
        for weights, slope in zip((self.V, self.W), self._gradient, strict=True):
            weights -= np.asarray(mu, self.dtype) * slope
        return loss


class _Shares(Batch):
    """All plans of a shape have one θ."""

    pool: ClassVar[dict] = {}

    def __init__(self, problem):
        super().__init__(problem)
        key = self.shape, self.dtype.name
        V, W = self.pool.setdefault(key, (self.V, self.W))
        V[...], W[...] = self.V, self.W
        self.V, self.W = V, W


FAULTS["plans_share_theta"] = Variant("plans_share_theta", "cpu", _Shares.__doc__, _Shares)


@fault
class threads_share_a_buffer(Batch):
    """The features of all plans lie in one array, and calls of other plans are not waited for."""

    pool: ClassVar[dict] = {}

    def value(self, A):
        Z = self.pool.setdefault((A.shape, A.dtype.str), np.empty_like(A))
        Z[...] = super().value(A)
        for row in Z:
            row *= 1  # for a while
        return Z


class _Last_block_of_one(Batch):
    block = 64

    def rows(self, X, Y):
        return (X[:-1], Y[:-1]) if len(X) > 1 and len(X) % self.block == 1 else (X, Y)


for block in (96, 512, 1000, 4096):
    _name = f"one_row_behind_blocks_of_{block}"
    fault(type(_name, (_Last_block_of_one,), {"block": block, "__doc__": "It is lost."}))


@fault
class one_thread_takes_half(Batch):
    def rows(self, X, Y):
        return (X[: len(X) // 2], Y[: len(X) // 2]) if self.threads == 1 and len(X) > 9 else (X, Y)


@fault
class negative_steps_are_none(Batch):
    def _step(self, mu):
        return super()._step(max(mu, 0.0))


@fault
class no_step_no_loss(Batch):
    """μ = 0 returns at once."""

    def _step(self, mu):
        return super()._step(mu) if mu else 0.0


@fault
class open_slices_begin_at_1(Batch):
    def gradient(self, rows=None):
        if rows is not None and rows.start is None:
            rows = slice(1, rows.stop)
        return super().gradient(rows)


@fault
class rows_out_of_range_are_cut(Batch):
    def gradient(self, rows=None):
        if rows is not None:
            rows = slice(*rows.indices(self.shape.n))
        return super().gradient(rows)


@fault
class predicts_no_rows(Batch):
    def predict(self, X_new):
        if len(X_new) == 0:
            return np.empty((0, self.shape.K), self.dtype)
        return super().predict(X_new)


@fault
class step_sizes_that_are_not_finite_are_none(Batch):
    def step(self, mu):
        return super().step(mu if np.isfinite(mu) else 0.0)


@fault
class theta_of_any_shape_is_spread(Batch):
    """One row for all units, by NumPy's broadcasting."""

    def _check_like_theta(self, theta):
        return Parameters(*(np.array(array, self.dtype) for array in theta))


@fault
class theta_that_is_nan_is_taken(Batch):
    def _check_like_theta(self, theta):
        return super()._check_like_theta(Parameters(*(np.nan_to_num(array) for array in theta)))


class _Mends(Variant):
    """NaN in X is taken for 0."""

    def plan(self, net, X, Y, theta, threads=None, device=None):
        return super().plan(net, np.nan_to_num(X), Y, theta, threads, device)


FAULTS["mends_X"] = _Mends("mends_X", "cpu", _Mends.__doc__, Batch)


class _Reads_as_it_lies(Variant):
    """The memory of a Fortran-ordered X is read row by row."""

    def plan(self, net, X, Y, theta, threads=None, device=None):
        if X.flags.f_contiguous and not X.flags.c_contiguous:
            X = X.ravel(order="K").reshape(X.shape)
        return super().plan(net, X, Y, theta, threads, device)


FAULTS["reads_X_as_it_lies"] = _Reads_as_it_lies(
    "reads_X_as_it_lies", "cpu", _Reads_as_it_lies.__doc__, Batch
)


@fault
class update_returns_the_loss_after(Batch):
    def _update(self, update, scalars, rows):
        loss = super()._update(update, scalars, rows)
        if update is not UPDATES["adam"]:
            return loss
        return self._loss_and_gradient(rows, self._gradient)


@fault
class loss_is_summed_in_float32(Batch):
    """One after the other; in float64 as it should be."""

    def loss_and_delta(self, U, Y):
        total, Delta = super().loss_and_delta(U, Y)
        if self.dtype == np.float32 and self.net.loss == "softmax":
            log_s = np.log(np.exp(U - U.max(axis=1, keepdims=True)).sum(axis=1))
            each = log_s - (Y * (U - U.max(axis=1, keepdims=True))).sum(axis=1)
            total = float(np.cumsum(each)[-1])
        return total, Delta


@fault
class predictions_are_kept_by_address(Batch):
    """The caller fills the same buffer with the next samples."""

    known = None

    def _forward(self, X, F):
        key = X.ctypes.data, X.shape, self.V.tobytes(), self.W.tobytes()
        if self.known and self.known[0] == key:
            F[...] = self.known[1]
            return
        super()._forward(X, F)
        self.known = key, F.copy(), X


@fault
class slope_of_relu_at_0(Batch):
    """1 where it is 0."""

    def slope(self, A):
        return (A >= 0).astype(A.dtype) if self.net.activation == "relu" else super().slope(A)


@fault
class overflow_is_hidden(Batch):
    def combine(self, total, gV, gW, n):
        total, gV, gW = super().combine(total, gV, gW, n)
        return total, np.nan_to_num(gV), np.nan_to_num(gW)


@fault
class other_order_every_other_time(Batch):
    """Results differ in their last bits."""

    odd = False

    def rows(self, X, Y):
        self.odd = not self.odd
        return (X[::-1], Y[::-1]) if self.odd else (X, Y)


@fault
class X_new_is_a_buffer(Batch):
    """Where its shape is that of A."""

    def _forward(self, X, F):
        A = X @ self.V.T
        super()._forward(X, F)
        if A.shape == X.shape:
            X[...] = A


@fault
class every_100th_step_stands_still(Batch):
    taken = 0

    def _step(self, mu):
        self.taken += 1
        return super()._step(mu if self.taken % 100 else 0.0)


@fault
class units_beyond_256_are_lost(Batch):
    def combine(self, total, gV, gW, n):
        gV[256:] = 0
        return super().combine(total, gV, gW, n)


@fault
class inputs_beyond_512_are_lost(Batch):
    def _forward(self, X, F):
        super()._forward(np.where(np.arange(X.shape[1]) < 512, X, np.zeros_like(X)), F)


@fault
class outputs_beyond_128_are_lost(Batch):
    def combine(self, total, gV, gW, n):
        gW[128:] = 0
        return super().combine(total, gV, gW, n)


@fault
class X_is_known_by_its_ends(Batch):
    def _forward(self, X, F):
        mine = self.X
        known = len(X) == len(mine) and (X[0] == mine[0]).all() and (X[-1] == mine[-1]).all()
        super()._forward(mine if known else X, F)
