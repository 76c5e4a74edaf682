"""Variants with one fault each that shows only where somebody uses more than the first gradient."""

from __future__ import annotations

import numpy as np
from batch import DESCEND, Batch, copied, planned

from twolayer import Parameters, Plan, Variant, Weights

FAULTS: dict[str, Variant] = {}


def fault(cls):
    if issubclass(cls, Plan):
        FAULTS[cls.__name__] = planned(cls)
    else:
        FAULTS[cls.__name__] = Variant(cls.__name__, "cpu", cls.__doc__ or cls.__name__, cls)
    return cls


@fault
class frozen_gradient(Batch):
    """gradient stays at the first θ; step and predict go on."""

    first = None

    def backpropagate(self, X, Y, theta, gradient):
        self.first = self.first or copied(theta)
        return super().backpropagate(X, Y, self.first, gradient)


@fault
class stale_setter(Batch):
    """What is set reaches the reader of θ and not the products."""

    class layout(Weights):
        begun, shown = False, None

        def put(self, values, arrays):
            if arrays is self.theta and self.begun:
                self.shown = values
            else:
                super().put(values, arrays)
            self.begun = True

        def get(self, arrays):
            return copied((arrays is self.theta and self.shown) or arrays)

        def apply(self, update, scalars):
            super().apply(update, scalars)
            self.shown = None


@fault
class predicts_with_a_copy(Batch):
    """predict uses a copy of θ that steps refresh and the setter does not."""

    kept = None

    def step(self, X, Y, weights, mu):
        loss = super().step(X, Y, weights, mu)
        self.kept = copied(weights.theta)
        return loss

    def forward(self, X, theta, F):
        super().forward(X, self.kept or theta, F)


@fault
class setter_keeps_the_array(Plan):
    """The caller's arrays become the plan's."""

    @Plan.theta.setter
    def theta(self, theta):
        self.weights.theta = theta


@fault
class theta_is_no_copy(Batch):
    class layout(Weights):
        def get(self, arrays):
            return arrays if arrays is self.theta else super().get(arrays)


class _Leaves_out(Batch):
    inputs = units = outputs = None

    def cut(self, theta):
        V, W = copied(theta)
        if self.inputs:
            V[:, self.inputs :] = 0
        if self.units:
            W[:, self.units :] = 0
        if self.outputs:
            W[self.outputs :] = 0
        return Parameters(V, W)

    def differentiate(self, X, Y, theta, gradient):
        return super().differentiate(X, Y, self.cut(theta), gradient)

    def forward(self, X, theta, F):
        super().forward(X, self.cut(theta), F)


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

    def forward(self, X, theta, F):
        F[...] = 0
        super().forward(X[: self.shape.n], theta, F[: self.shape.n])


@fault
class predicts_few_rows_wrongly(Batch):
    def forward(self, X, theta, F):
        super().forward(X, theta, F)
        if len(X) < self.shape.n // 2:
            F *= 1.01


@fault
class update_over_rows_uses_all(Batch):
    def update(self, X, Y, weights, update, scalars):
        return super().update(self.X, self.Y, weights, update, scalars)


@fault
class momentum_forgets_the_slope(Batch):
    def update(self, X, Y, weights, update, scalars):
        if update.name == "descend_with_momentum":
            mu, beta = scalars
            scalars = (mu, beta * 0.99)
        return super().update(X, Y, weights, update, scalars)


@fault
class every_update_is_descent(Batch):
    def update(self, X, Y, weights, update, scalars):
        return super().update(X, Y, weights, DESCEND, scalars[:1])


@fault
class updates_share_their_scalars(Batch):
    """The step size of the first holds for all."""

    def updates(self, X, Y, weights, update, scalars, bounds):
        return super().updates(X, Y, weights, update, scalars[:1].repeat(len(bounds), 0), bounds)


@fault
class updates_leave_out_the_last(Batch):
    def updates(self, X, Y, weights, update, scalars, bounds):
        losses = [super().updates(X, Y, weights, update, scalars[:-1], bounds[:-1])]
        start, stop = bounds[-1]
        last = self.loss(X[start:stop], Y[start:stop], weights.theta, weights.room())
        return np.append(losses, last)


@fault
class updates_give_the_loss_after(Batch):
    """L at the new θ, which reads like a training that goes a little better."""

    def updates(self, X, Y, weights, update, scalars, bounds):
        losses = super().updates(X, Y, weights, update, scalars, bounds)
        start, stop = bounds[-1]
        last = self.loss(X[start:stop], Y[start:stop], weights.theta, weights.room())
        return np.append(losses[1:], last)


@fault
class updates_are_all_as_long_as_the_first(Batch):
    """What a compiled loop is made for: batches of one size."""

    def updates(self, X, Y, weights, update, scalars, bounds):
        rows = bounds[0, 1] - bounds[0, 0]
        ends = np.minimum(bounds[:, 0] + rows, len(X))
        return super().updates(X, Y, weights, update, scalars, np.stack([bounds[:, 0], ends], 1))


@fault
class updates_leave_their_scalars(Batch):
    """The next update of the same formula takes them."""

    left = None

    def updates(self, X, Y, weights, update, scalars, bounds):
        self.left = None
        losses = super().updates(X, Y, weights, update, scalars, bounds)
        self.left = update, scalars[-1]
        return losses

    def update(self, X, Y, weights, update, scalars):
        if self.left is not None and self.left[0] is update:
            scalars = tuple(self.left[1])
        return super().update(X, Y, weights, update, scalars)


@fault
class slots_are_no_copies(Batch):
    class layout(Weights):
        def get(self, arrays):
            return arrays if any(arrays is slot for slot in self.slots) else super().get(arrays)


@fault
class destroys_X(Batch):
    """X serves as a buffer at the end of an epoch."""

    def step(self, X, Y, weights, mu):
        loss = super().step(X, Y, weights, mu)
        self.X *= np.asarray(0.5, self.dtype)
        return loss


@fault
class writes_into_X_new(Batch):
    def forward(self, X, theta, F):
        super().forward(X, theta, F)
        X[-1] = 0


class _Sharing(Variant):
    """Steps are made in the arrays that the caller gave."""

    def plan(self, net, X, Y, theta, threads=None, device=None):
        plan = super().plan(net, X, Y, theta, threads, device)
        plan.weights.theta = theta
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
    def step(self, X, Y, weights, mu):
        super().step(X, Y, weights, mu)
        return self.differentiate(X, Y, weights.theta, weights.gradient)


@fault
class results_share_a_buffer(Batch):
    class layout(Weights):
        def get(self, arrays):
            return arrays if arrays is self.gradient else super().get(arrays)


@fault
class predictions_share_a_buffer(Plan):
    buffer = None

    def predict(self, X_new):
        F = super().predict(X_new)
        if self.buffer is None or len(self.buffer) < len(F):
            self.buffer = np.empty_like(F)
        self.buffer[: len(F)] = F
        return self.buffer[: len(F)]


@fault
class changes_the_error_state(Batch):
    def differentiate(self, X, Y, theta, gradient):
        loss = super().differentiate(X, Y, theta, gradient)
        np.seterr(over="ignore")
        return loss


@fault
class seeds_the_global_generator(Batch):
    def step(self, X, Y, weights, mu):
        np.random.seed(0)
        return super().step(X, Y, weights, mu)


@fault
class stops_after_26_steps(Batch):
    steps = 0

    def step(self, X, Y, weights, mu):
        self.steps += 1
        return super().step(X, Y, weights, mu if self.steps <= 26 else 0.0)


@fault
class limits_the_step_size(Batch):
    def step(self, X, Y, weights, mu):
        return super().step(X, Y, weights, min(mu, 1.0))


class _By_fours(np.ndarray):
    def __getitem__(self, rows):
        return np.asarray(self)[rows.start // 4 * 4 : rows.stop]


@fault
class slices_begin_at_multiples_of_4(Batch):
    def hold(self, X, Y):
        return tuple(array.view(_By_fours) for array in super().hold(X, Y))

    def rows(self, X, Y):
        return np.asarray(X), np.asarray(Y)


@fault
class loss_is_a_numpy_number(Plan):
    def step(self, mu):
        return np.float64(super().step(mu))
