"""Faults that show in some order of calls, at some sizes, or where a call must be refused."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from batch import DESCEND, Batch
from faults import FAULTS, fault

from twolayer import Parameters, Plan, Variant, Weights
from twolayer.kernels.formulas.updates import UPDATES


@fault
class update_over_rows_divides_by_all(Batch):
    """The mean of a mini-batch is taken over all rows."""

    updating = False

    def update(self, X, Y, weights, update, scalars):
        self.updating = True
        try:
            return super().update(X, Y, weights, update, scalars)
        finally:
            self.updating = False

    def combine(self, total, gV, gW, n):
        return super().combine(total, gV, gW, self.shape.n if self.updating else n)


@fault
class slots_are_set_once(Batch):
    """A second training goes on with the momentum of the first."""

    class layout(Weights):
        kept = ()

        @property
        def slots(self):
            return self.kept

        @slots.setter
        def slots(self, slots):
            if len(slots) != len(self.kept):
                self.kept = slots


@fault
class slots_are_float64(Batch):
    class layout(Weights):
        def get(self, arrays):
            values = super().get(arrays)
            if any(arrays is slot for slot in self.slots):
                return Parameters(*(array.astype(np.float64) for array in values))
            return values


@fault
class momentum_lies_in_the_gradient_buffer(Batch):
    """The next step overwrites it."""

    def update(self, X, Y, weights, update, scalars):
        loss = super().update(X, Y, weights, update, scalars)
        if update.slots == 1:
            weights.put(weights.slots[0], weights.gradient)
            weights.slots = (weights.gradient,)
        return loss


@fault
class setting_theta_clears_the_slots(Batch):
    class layout(Weights):
        def put(self, values, arrays):
            super().put(values, arrays)
            for array in (array for slot in self.slots for array in slot):
                if arrays is self.theta:
                    array[...] = 0


@fault
class products_are_kept_when_theta_is_set(Batch):
    """X Vᵀ is kept from gradient for the step; a step drops it, the setter does not."""

    kept = None

    def differentiate(self, X, Y, theta, gradient):
        if len(X) != self.shape.n:
            return super().differentiate(X, Y, theta, gradient)
        if self.kept is None:
            self.kept = X @ theta.V.T
        with np.errstate(all="ignore"):
            Z = self.value(self.kept)
            total, Delta = self.loss_and_delta(Z @ theta.W.T, Y)
            G = (Delta @ theta.W) * self.slope(self.kept)
            loss, gradient.V[...], gradient.W[...] = self.combine(
                total, G.T @ X, Delta.T @ Z, len(X)
            )
        return loss

    def update(self, X, Y, weights, update, scalars):
        if update is not DESCEND:
            self.kept = None
        loss = super().update(X, Y, weights, update, scalars)
        self.kept = None
        return loss


@fault
class step_takes_the_rows_of_the_last_gradient(Batch):
    """The slice of a mini-batch stays for the next step."""

    last = None

    def backpropagate(self, X, Y, theta, gradient):
        self.last = X, Y
        return super().backpropagate(X, Y, theta, gradient)

    def step(self, X, Y, weights, mu):
        (X, Y), self.last = self.last or (X, Y), None
        return super().step(X, Y, weights, mu)


@fault
class step_after_predict_uses_its_features(Batch):
    """predict leaves Z in the buffer that the step directly after it takes for its own."""

    Z = None

    def forward(self, X, theta, F):
        super().forward(X, theta, F)
        self.Z = self.value(X @ theta.V.T)

    def step(self, X, Y, weights, mu):
        loss = self.differentiate(X, Y, weights.theta, weights.gradient)
        if self.Z is not None and len(self.Z) != self.shape.n:
            weights.gradient.W[:, 0] += self.Z[0, 0]
        self.Z = None
        weights.apply(DESCEND, (mu,))
        return loss


class _Shares(Batch):
    """All plans of a shape have one θ."""

    pool: ClassVar[dict] = {}

    def weights(self):
        weights = super().weights()
        weights.theta = self.pool.setdefault((self.shape, self.dtype.name), weights.theta)
        return weights


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
    def step(self, X, Y, weights, mu):
        return super().step(X, Y, weights, max(mu, 0.0))


@fault
class no_step_no_loss(Batch):
    """μ = 0 returns at once."""

    def step(self, X, Y, weights, mu):
        return super().step(X, Y, weights, mu) if mu else 0.0


@fault
class open_slices_begin_at_1(Plan):
    def gradient(self, rows=None):
        if rows is not None and rows.start is None:
            rows = slice(1, rows.stop)
        return super().gradient(rows)


@fault
class rows_out_of_range_are_cut(Plan):
    def gradient(self, rows=None):
        if rows is not None:
            rows = slice(*rows.indices(self.shape.n))
        return super().gradient(rows)


@fault
class predicts_no_rows(Plan):
    def predict(self, X_new):
        if len(X_new) == 0:
            return np.empty((0, self.shape.K), self.dtype)
        return super().predict(X_new)


@fault
class step_sizes_that_are_not_finite_are_none(Plan):
    def step(self, mu):
        return super().step(mu if np.isfinite(mu) else 0.0)


@fault
class theta_of_any_shape_is_spread(Plan):
    """One row for all units, by NumPy's broadcasting."""

    def _check_like_theta(self, theta):
        return Parameters(*(np.array(array, self.dtype) for array in theta))


@fault
class theta_that_is_nan_is_taken(Plan):
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
    def update(self, X, Y, weights, update, scalars):
        loss = super().update(X, Y, weights, update, scalars)
        if update is not UPDATES["adam"]:
            return loss
        return self.differentiate(X, Y, weights.theta, weights.gradient)


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

    def forward(self, X, theta, F):
        key = X.ctypes.data, X.shape, theta.V.tobytes(), theta.W.tobytes()
        if self.known and self.known[0] == key:
            F[...] = self.known[1]
            return
        super().forward(X, theta, F)
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

    def forward(self, X, theta, F):
        A = X @ theta.V.T
        super().forward(X, theta, F)
        if A.shape == X.shape:
            X[...] = A


@fault
class every_100th_step_stands_still(Batch):
    taken = 0

    def step(self, X, Y, weights, mu):
        self.taken += 1
        return super().step(X, Y, weights, mu if self.taken % 100 else 0.0)


@fault
class units_beyond_256_are_lost(Batch):
    def combine(self, total, gV, gW, n):
        gV[256:] = 0
        return super().combine(total, gV, gW, n)


@fault
class inputs_beyond_512_are_lost(Batch):
    def forward(self, X, theta, F):
        super().forward(np.where(np.arange(X.shape[1]) < 512, X, np.zeros_like(X)), theta, F)


@fault
class outputs_beyond_128_are_lost(Batch):
    def combine(self, total, gV, gW, n):
        gW[128:] = 0
        return super().combine(total, gV, gW, n)


@fault
class X_is_known_by_its_ends(Batch):
    def forward(self, X, theta, F):
        mine = self.X
        known = len(X) == len(mine) and (X[0] == mine[0]).all() and (X[-1] == mine[-1]).all()
        super().forward(mine if known else X, theta, F)
