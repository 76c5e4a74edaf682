"""Faults of L alone, which `plan.loss` gives without a gradient."""

from __future__ import annotations

import numpy as np
from batch import DESCEND, Batch, copied
from rare_faults import FAULTS, fault

from twolayer import Plan, Weights

__all__ = ["FAULTS"]


@fault
class loss_ignores_rows(Batch):
    def loss(self, X, Y, theta, gradient):
        return super().loss(self.X, self.Y, theta, gradient)


@fault
class loss_of_rows_divides_by_all(Batch):
    def loss(self, X, Y, theta, gradient):
        return super().loss(X, Y, theta, gradient) * len(X) / self.shape.n


@fault
class loss_of_the_last_gradient(Batch):
    """The number that gradient found; steps go on."""

    kept = None

    def backpropagate(self, X, Y, theta, gradient):
        loss = super().backpropagate(X, Y, theta, gradient)
        self.kept = len(X), loss
        return loss

    def loss(self, X, Y, theta, gradient):
        rows, loss = self.kept
        return loss if rows == len(X) > 1 else super().loss(X, Y, theta, gradient)


@fault
class loss_of_another_theta(Batch):
    """θ as it was after the last step; the setter is not seen."""

    kept = None

    def update(self, X, Y, weights, update, scalars):
        loss = super().update(X, Y, weights, update, scalars)
        self.kept = copied(weights.theta)
        return loss

    def loss(self, X, Y, theta, gradient):
        return super().loss(X, Y, self.kept or theta, gradient)


@fault
class loss_changes_theta(Batch):
    """A line search that does not come back."""

    def loss(self, X, Y, theta, gradient):
        loss = super().loss(X, Y, theta, gradient)
        theta.W[...] -= np.asarray(1e-3, self.dtype) * gradient.W
        return loss


@fault
class loss_works_in_the_slots(Batch):
    def weights(self):
        self.mine = super().weights()
        return self.mine

    def loss(self, X, Y, theta, gradient):
        room = self.mine.slots[0] if self.mine.slots else gradient
        return super().loss(X, Y, theta, room)


@fault
class loss_works_in_the_gradient_returned(Batch):
    """What the caller was given serves as room."""

    class layout(Weights):
        given = None

        def get(self, arrays):
            values = super().get(arrays)
            if arrays is self.gradient:
                self.given = values
            return values

    def weights(self):
        self.mine = super().weights()
        return self.mine

    def loss(self, X, Y, theta, gradient):
        loss = super().loss(X, Y, theta, gradient)
        for array in self.mine.given or ():
            array[...] = 0
        return loss


@fault
class step_after_a_loss_takes_its_gradient(Batch):
    """∇L is not computed again where the buffer has one, of whatever rows."""

    fresh = False

    def loss(self, X, Y, theta, gradient):
        self.fresh = True
        return super().loss(X, Y, theta, gradient)

    def step(self, X, Y, weights, mu):
        if not self.fresh:
            return super().step(X, Y, weights, mu)
        self.fresh, gradient = False, copied(weights.gradient)
        loss = self.differentiate(X, Y, weights.theta, weights.gradient)
        weights.put(gradient, weights.gradient)
        weights.apply(DESCEND, (mu,))
        return loss


@fault
class loss_alone_is_halved(Batch):
    def loss(self, X, Y, theta, gradient):
        return super().loss(X, Y, theta, gradient) / 2


@fault
class loss_alone_is_an_array(Plan):
    def loss(self, rows=None):
        return np.array(super().loss(rows))


@fault
class loss_of_rows_out_of_range_is_cut(Plan):
    def loss(self, rows=None):
        if rows is not None:
            rows = slice(*rows.indices(self.shape.n))
        return super().loss(rows)
