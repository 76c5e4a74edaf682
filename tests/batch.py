"""A right engine in pieces, for tests to replace one; `mistakes.py` and `faults.py` do."""

import numpy as np

from twolayer import Engine, Parameters, Variant, Weights
from twolayer.kernels.formulas.updates import UPDATES

DESCEND = UPDATES["descend"]


class Batch(Engine):
    """The whole batch with plain NumPy expressions, in pieces that a mistake can replace."""

    layout = Weights
    X = Y = None  # of the plan, in which rows may be a part of them

    def weights(self):
        return self.layout(self.shape, self.dtype)

    def hold(self, X, Y):
        self.X, self.Y = X, Y
        return X, Y

    def rows(self, X, Y):
        return X, Y

    def value(self, A):
        return self.net.sigma.value(A)

    def slope(self, A):
        return self.net.sigma.slope(A)

    def loss_and_delta(self, U, Y):
        Delta = U.copy()
        return self.net.objective.loss_batch(Delta, Y), Delta

    def link(self, U):
        F = U.copy()
        self.net.objective.link_batch(F)
        return F

    def combine(self, total, gV, gW, n):
        return total / n, gV / n, gW / n

    def second_layer(self, W):
        return W

    def differentiate(self, X, Y, theta, gradient):
        """What each of the four below is made of, so that a mistake can be in one of them."""
        V, W = theta
        with np.errstate(all="ignore"):
            X, Y = self.rows(X, Y)
            A = X @ V.T
            Z = self.value(A)
            total, Delta = self.loss_and_delta(Z @ W.T, Y)
            gW = Delta.T @ Z
            G = (Delta @ self.second_layer(W)) * self.slope(A)
            loss, gradient.V[...], gradient.W[...] = self.combine(total, G.T @ X, gW, len(X))
        return loss

    def backpropagate(self, X, Y, theta, gradient):
        return self.differentiate(X, Y, theta, gradient)

    def loss(self, X, Y, theta, gradient):
        return self.differentiate(X, Y, theta, gradient)

    def step(self, X, Y, weights, mu):
        loss = self.differentiate(X, Y, weights.theta, weights.gradient)
        weights.apply(DESCEND, (mu,))
        return loss

    def update(self, X, Y, weights, update, scalars):
        if update is DESCEND:
            return self.step(X, Y, weights, *scalars)
        loss = self.differentiate(X, Y, weights.theta, weights.gradient)
        weights.apply(update, scalars)
        return loss

    def forward(self, X, theta, F):
        with np.errstate(all="ignore"):
            F[...] = self.link(self.value(X @ theta.V.T) @ theta.W.T)


def copied(theta):
    return Parameters(*(array.copy() for array in theta))


def planned(cls):
    """A variant of right engines whose plans are of that class: all plans would be wrong."""

    class Planned(Variant):
        def plan(self, *arguments, **options):
            plan = super().plan(*arguments, **options)
            plan.__class__ = cls
            return plan

    return Planned(cls.__name__, "cpu", cls.__doc__ or cls.__name__, Batch)
