"""Variants with one fault each that shows only where somebody uses more than the first gradient."""

from __future__ import annotations

import numpy as np
from mistakes import Batch

from twolayer import Parameters, Variant
from twolayer.kernels.formulas.updates import UPDATES

FAULTS: dict[str, Variant] = {}


def fault(cls, **options):
    FAULTS[cls.__name__] = Variant(cls.__name__, "cpu", cls.__doc__ or cls.__name__, cls, **options)
    return cls


@fault
class frozen_gradient(Batch):
    """gradient stays at the first θ; step and predict go on."""

    def gradient(self, rows=None):
        if not hasattr(self, "first"):
            self.first = self.V.copy(), self.W.copy()
        now = self.V, self.W
        self.V, self.W = self.first
        try:
            return super().gradient(rows)
        finally:
            self.V, self.W = now


@fault
class stale_setter(Batch):
    """What is set reaches the reader of θ and not the products."""

    def _set_theta(self, theta):
        self.shown = theta

    def _get_theta(self):
        return getattr(self, "shown", None) or super()._get_theta()

    def _step(self, mu):
        loss = super()._step(mu)
        self.shown = None
        return loss


@fault
class predicts_with_a_copy(Batch):
    """predict uses a copy of θ that steps refresh and the setter does not."""

    kept = None

    def _step(self, mu):
        loss = super()._step(mu)
        self.kept = self.V.copy(), self.W.copy()
        return loss

    def _forward(self, X, F):
        now = self.V, self.W
        self.V, self.W = self.kept or now
        super()._forward(X, F)
        self.V, self.W = now


@fault
class setter_keeps_the_array(Batch):
    """The caller's arrays become the plan's."""

    def _check_like_theta(self, theta):
        return theta

    def _set_theta(self, theta):
        self.V, self.W = theta


@fault
class theta_is_no_copy(Batch):
    def _get_theta(self):
        return Parameters(self.V, self.W)


class _Leaves_out(Batch):
    inputs = units = outputs = None
    limit = None

    def _cut(self):
        V, W = self.V.copy(), self.W.copy()
        if self.inputs:
            V[:, self.inputs :] = 0
        if self.units:
            W[:, self.units :] = 0
        if self.outputs:
            W[self.outputs :] = 0
        return V, W

    def _backpropagate(self, X, Y, gradient):
        now = self.V, self.W
        self.V, self.W = self._cut()
        loss = super()._backpropagate(X, Y, gradient)
        self.V, self.W = now
        return loss

    def _forward(self, X, F):
        now = self.V, self.W
        self.V, self.W = self._cut()
        super()._forward(X, F)
        self.V, self.W = now


@fault
class hidden_units_from_32_left_out(_Leaves_out):
    units = 32


@fault
class inputs_from_18_left_out(_Leaves_out):
    inputs = 18


@fault
class outputs_from_10_left_out(_Leaves_out):
    outputs = 10


@fault
class rows_from_1032_left_out(Batch):
    """The sums stop there; the mean is still taken over all."""

    def combine(self, total, gV, gW, n):
        return super().combine(total, gV, gW, self.all)

    def rows(self, X, Y):
        self.all = len(X)
        return X[:1032], Y[:1032]


@fault
class half_of_more_than_2000_rows(Batch):
    def rows(self, X, Y):
        return (X[: len(X) // 2], Y[: len(X) // 2]) if len(X) > 2000 else (X, Y)


@fault
class nan_at_zero(Batch):
    """σ(a) as a · (σ(a) / a)."""

    def value(self, A):
        with np.errstate(all="ignore"):
            return A * (super().value(A) / A)


@fault
class predicts_n_rows_only(Batch):
    """Rows beyond n are left at 0."""

    def _forward(self, X, F):
        F[...] = 0
        super()._forward(X[: self.shape.n], F[: self.shape.n])


@fault
class predicts_few_rows_wrongly(Batch):
    def _forward(self, X, F):
        super()._forward(X, F)
        if len(X) < self.shape.n // 2:
            F *= 1.01


@fault
class update_over_rows_uses_all(Batch):
    def _update(self, update, scalars, rows):
        return super()._update(update, scalars, slice(0, self.shape.n))


@fault
class momentum_forgets_the_slope(Batch):
    def _update(self, update, scalars, rows):
        if update.name == "descend_with_momentum":
            mu, beta = scalars
            scalars = (mu, beta * 0.99)
        return super()._update(update, scalars, rows)


@fault
class every_update_is_descent(Batch):
    def _update(self, update, scalars, rows):
        kept, self._slots = self._slots, ()
        loss = super()._update(UPDATES["descend"], scalars[:1], rows)
        self._slots = kept
        return loss


@fault
class slots_are_no_copies(Batch):
    def _get_slots(self):
        return self._slots


@fault
class destroys_X(Batch):
    """X serves as a buffer at the end of an epoch."""

    def _step(self, mu):
        loss = super()._step(mu)
        self.X *= np.asarray(0.5, self.dtype)
        return loss


@fault
class writes_into_X_new(Batch):
    def _forward(self, X, F):
        super()._forward(X, F)
        X[-1] = 0


class _Sharing(Variant):
    """Steps are made in the arrays that the caller gave."""

    def plan(self, net, X, Y, theta, threads=None, device=None):
        plan = super().plan(net, X, Y, theta, threads, device)
        plan.V, plan.W = theta
        return plan


FAULTS["writes_into_theta"] = _Sharing("writes_into_theta", "cpu", _Sharing.__doc__, Batch)


@fault
class not_reproducible(Batch):
    """The rows in another order each time."""

    calls = 0

    def rows(self, X, Y):
        not_reproducible.calls += 1
        order = np.random.default_rng(self.calls).permutation(len(X))
        return X[order], Y[order]


@fault
class float32_products_in_float64(Batch):
    def rows(self, X, Y):
        return X.astype(np.float32).astype(self.dtype), Y


@fault
class loss_after_the_step(Batch):
    def _step(self, mu):
        super()._step(mu)
        return self._backpropagate(self.X, self.Y, self._gradient)


@fault
class results_share_a_buffer(Batch):
    def gradient(self, rows=None):
        loss, gradient = super().gradient(rows)
        if not hasattr(self, "result"):
            self.result = gradient
        for mine, new in zip(self.result, gradient, strict=True):
            mine[...] = new
        return loss, self.result


@fault
class predictions_share_a_buffer(Batch):
    buffer = None

    def predict(self, X_new):
        F = super().predict(X_new)
        if self.buffer is None or len(self.buffer) < len(F):
            self.buffer = np.empty_like(F)
        self.buffer[: len(F)] = F
        return self.buffer[: len(F)]


@fault
class changes_the_error_state(Batch):
    def _backpropagate(self, X, Y, gradient):
        loss = super()._backpropagate(X, Y, gradient)
        np.seterr(over="ignore")
        return loss


@fault
class seeds_the_global_generator(Batch):
    def _step(self, mu):
        np.random.seed(0)
        return super()._step(mu)


@fault
class stops_after_26_steps(Batch):
    steps = 0

    def _step(self, mu):
        self.steps += 1
        return super()._step(mu if self.steps <= 26 else 0.0)


@fault
class limits_the_step_size(Batch):
    def _step(self, mu):
        return super()._step(min(mu, 1.0))


@fault
class slices_begin_at_multiples_of_4(Batch):
    def _loss_and_gradient(self, rows, gradient):
        return super()._loss_and_gradient(slice(rows.start // 4 * 4, rows.stop), gradient)


@fault
class loss_is_a_numpy_number(Batch):
    def step(self, mu):
        return np.float64(super().step(mu))
