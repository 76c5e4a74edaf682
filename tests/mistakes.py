"""Deliberately wrong implementations. Each makes one mistake that somebody has made before.

The names of the classes are the names under which the agreement tests must catch them.
"""

import numpy as np
from batch import Batch, copied, planned

from twolayer import Parameters, Plan, Variant

MISTAKES: dict[str, Variant] = {}


def mistake(cls):
    name = cls.__name__
    MISTAKES[name] = Variant(name, "cpu", cls.__doc__ or name, cls)
    return cls


def only(loss):
    """Replace loss_and_delta for one loss and leave the others right."""

    def decorate(wrong):
        def loss_and_delta(self, U, Y):
            if self.net.loss == loss:
                return wrong(self, U, Y)
            return Batch.loss_and_delta(self, U, Y)

        return loss_and_delta

    return decorate


def _softmax(U, Y, shift):
    e = np.exp(U - shift)
    s = e.sum(axis=1, keepdims=True)
    loss = (Y * (np.log(s) - (U - shift))).sum(dtype=np.float64)
    return float(loss), e / s - Y


@mistake
class dropped_factor_2(Batch):
    """δ = u − y."""

    @only("squared")
    def loss_and_delta(self, U, Y):
        return float(((U - Y) ** 2).sum(dtype=np.float64)), U - Y


@mistake
class missing_link_slope(Batch):
    """δ = 2 (f − y) without h′."""

    @only("squared_logistic")
    def loss_and_delta(self, U, Y):
        total, _ = Batch.loss_and_delta(self, U, Y)
        return total, 2 * (self.link(U) - Y)


@mistake
class maximum_of_the_whole_batch(Batch):
    @only("softmax")
    def loss_and_delta(self, U, Y):
        return _softmax(U, Y, U.max())


@mistake
class maximum_of_the_column(Batch):
    @only("softmax")
    def loss_and_delta(self, U, Y):
        return _softmax(U, Y, U.max(axis=0))


@mistake
class no_maximum(Batch):
    @only("softmax")
    def loss_and_delta(self, U, Y):
        return _softmax(U, Y, 0)


@mistake
class ragged_tail_left_out(Batch):
    def rows(self, X, Y):
        whole = max(8, len(X) // 8 * 8)
        return X[:whole], Y[:whole]


@mistake
class lost_block(Batch):
    """The second block of 512 rows is lost; the mean is still taken over all."""

    def differentiate(self, X, Y, theta, gradient):
        keep = np.r_[0 : min(512, len(X)), min(1024, len(X)) : len(X)]
        loss = super().differentiate(X[keep], Y[keep], theta, gradient)
        for part in gradient:
            part *= len(keep) / len(X)
        return loss * len(keep) / len(X)


@mistake
class block_counted_twice(Batch):
    def rows(self, X, Y):
        again = np.r_[0 : len(X), 0 : len(X) % 16]
        return X[again], Y[again]


@mistake
class activation_in_place_of_slope(Batch):
    def slope(self, A):
        return self.value(A)


@mistake
class slope_of_the_features(Batch):
    """σ′(Z) in place of σ′(A)."""

    def slope(self, A):
        return self.net.sigma.slope(self.value(A))


@mistake
class missing_slope(Batch):
    def slope(self, A):
        return np.ones_like(A)


@mistake
class sum_in_place_of_the_mean(Batch):
    def combine(self, total, gV, gW, n):
        return total / n, gV, gW


@mistake
class loss_summed(Batch):
    def combine(self, total, gV, gW, n):
        return total, gV / n, gW / n


@mistake
class mean_over_outputs_too(Batch):
    def combine(self, total, gV, gW, n):
        K = self.shape.K
        return total / (n * K), gV / (n * K), gW / (n * K)


@mistake
class loss_halved(Batch):
    def combine(self, total, gV, gW, n):
        return total / (2 * n), gV / n, gW / n


@mistake
class single_output_forgets_the_sign(Batch):
    """A K = 1 path that takes δ for |δ|."""

    def loss_and_delta(self, U, Y):
        total, Delta = super().loss_and_delta(U, Y)
        return total, abs(Delta) if self.shape.K == 1 else Delta


@mistake
class labels_taken_for_0_and_1(Batch):
    @only("logistic")
    def loss_and_delta(self, U, Y):
        total, _ = Batch.loss_and_delta(self, U, Y)
        return total, self.link(U) - Y


@mistake
class update_with_stale_parameters(Batch):
    """V's gradient is taken where W already is, after W's update."""

    def step(self, X, Y, weights, mu):
        theta, gradient = weights.theta, weights.gradient
        loss = self.differentiate(X, Y, theta, gradient)
        theta.W[...] -= mu * gradient.W
        self.differentiate(X, Y, theta, gradient)
        theta.V[...] -= mu * gradient.V
        return loss


@mistake
class gradient_of_the_first_step_for_ever(Batch):
    _first = None

    def step(self, X, Y, weights, mu):
        loss = self.differentiate(X, Y, weights.theta, weights.gradient)
        self._first = self._first or copied(weights.gradient)
        for array, slope in zip(weights.theta, self._first, strict=True):
            array -= mu * slope
        return loss


@mistake
class gradient_not_cleared(Batch):
    """The buffer of the last epoch's gradient is added to."""

    _sum = None

    def step(self, X, Y, weights, mu):
        self._sum = self._sum or Parameters(*map(np.zeros_like, weights.theta))
        loss = self.differentiate(X, Y, weights.theta, weights.gradient)
        for total, part, array in zip(self._sum, weights.gradient, weights.theta, strict=True):
            total += part
            array -= mu * total
        return loss


@mistake
class step_uphill(Batch):
    def step(self, X, Y, weights, mu):
        return super().step(X, Y, weights, -mu)


@mistake
class loss_after_the_step(Batch):
    def step(self, X, Y, weights, mu):
        super().step(X, Y, weights, mu)
        return self.differentiate(X, Y, weights.theta, weights.gradient)


@mistake
class gradient_changes_parameters(Batch):
    def backpropagate(self, X, Y, theta, gradient):
        loss = super().backpropagate(X, Y, theta, gradient)
        theta.W[...] -= 1e-3 * gradient.W
        return loss


@mistake
class float32_sums_in_float64(Batch):
    def combine(self, total, gV, gW, n):
        return total / n, gV.astype(np.float32) / n, gW.astype(np.float32) / n


@mistake
class float32_loss_in_float64(Batch):
    def combine(self, total, gV, gW, n):
        return float(np.float32(total / n)), gV / n, gW / n


@mistake
class half_precision_inputs(Batch):
    def rows(self, X, Y):
        return X.astype(np.float16).astype(self.dtype), Y


@mistake
class last_hidden_unit_lost(Batch):
    """A loop over pairs of hidden units."""

    def value(self, A):
        Z = super().value(A)
        if A.shape[1] % 2 and A.shape[1] > 1:
            Z[:, -1] = 0
        return Z


@mistake
class last_inputs_lost(Batch):
    """A loop over four inputs at a time."""

    def rows(self, X, Y):
        X = X.copy()
        if X.shape[1] > 4:
            X[:, X.shape[1] // 4 * 4 :] = 0
        return X, Y


@mistake
class rows_ignored(Batch):
    def differentiate(self, X, Y, theta, gradient):
        return super().differentiate(self.X, self.Y, theta, gradient)


@mistake
class rows_divided_by_all(Batch):
    def combine(self, total, gV, gW, n):
        return super().combine(total, gV, gW, self.shape.n)


@mistake
class predict_without_link(Batch):
    def link(self, U):
        return U


@mistake
class predict_with_the_first_parameters(Batch):
    first = None

    def backpropagate(self, X, Y, theta, gradient):
        self.first = self.first or copied(theta)
        return super().backpropagate(X, Y, theta, gradient)

    def forward(self, X, theta, F):
        super().forward(X, self.first or theta, F)


@mistake
class gelu_by_tanh(Batch):
    """The approximation ½ a (1 + tanh(√(2/π) (a + 0.044715 a³)))."""

    def value(self, A):
        if self.net.activation != "gelu":
            return super().value(A)
        return A * (1 + np.tanh(0.7978845608028654 * (A + 0.044715 * A**3))) / 2


@mistake
class leaky_slope_of_relu(Batch):
    def slope(self, A):
        S = super().slope(A)
        return np.where(A > 0, S, 0.01).astype(self.dtype) if self.net.activation == "relu" else S


@mistake
class softplus_that_overflows(Batch):
    def value(self, A):
        return np.log1p(np.exp(A)) if self.net.activation == "softplus" else super().value(A)


@mistake
class elu_slope_of_its_value(Batch):
    """σ′ = σ, where σ′ = σ + 1."""

    def slope(self, A):
        S = super().slope(A)
        return np.where(A > 0, 1, S - 1).astype(self.dtype) if self.net.activation == "elu" else S


@mistake
class second_layer_transposed(Batch):
    """W read in the wrong order; its shape is right."""

    def second_layer(self, W):
        return np.ascontiguousarray(W.T).reshape(W.shape)


@mistake
class duplicated_rows_counted_once(Batch):
    def rows(self, X, Y):
        _, first = np.unique(np.hstack([X, Y]), axis=0, return_index=True)
        return X[first], Y[first]


class returns_another_dtype(Plan):
    def predict(self, X_new):
        return super().predict(X_new).astype(np.float64 if self.dtype == np.float32 else "f4")


MISTAKES["returns_another_dtype"] = planned(returns_another_dtype)


@mistake
class loss_is_a_difference_of_large_numbers(Batch):
    @only("squared")
    def loss_and_delta(self, U, Y):
        return float((Y * Y - 2 * Y * U + U * U).sum()), 2 * (U - Y)
