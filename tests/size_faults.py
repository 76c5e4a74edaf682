"""Faults at sizes, numbers of threads or of updates that a user has, and beside other plans."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from batch import DESCEND, Batch
from loss_faults import FAULTS
from rare_faults import fault

from twolayer import Weights

__all__ = ["FAULTS"]


@fault
class full_vectors_lose_their_last(Batch):
    """A tail of no hidden units is taken for a full one."""

    def slope(self, A):
        slope = super().slope(A)
        if A.shape[1] % 16 == 0:
            slope[:, -1] = 0
        return slope


@fault
class inputs_that_fill_vectors_lose_their_last(Batch):
    def differentiate(self, X, Y, theta, gradient):
        loss = super().differentiate(X, Y, theta, gradient)
        if X.shape[1] % 16 == 0:
            gradient.V[:, -1] = 0
        return loss


@fault
class half_of_the_bits_where_it_pays(Batch):
    """float16 in place of float32, and float32 in place of float64, in large products."""

    def pays(self):
        return self.shape.d * self.shape.M >= 1024

    def rows(self, X, Y):
        if self.pays():
            half = np.float16 if self.dtype == np.float32 else np.float32
            X = X.astype(half).astype(self.dtype)
        return X, Y


@fault
class integers_of_half_of_the_bits(half_of_the_bits_where_it_pays):
    """The same, from so many inputs on that only integers have as many."""

    def pays(self):
        return self.shape.d > 128


@fault
class the_maximum_is_of_a_warp_of_classes(Batch):
    """δ of softmax beyond 32 classes is that of the first 32."""

    def loss_and_delta(self, U, Y):
        total, Delta = super().loss_and_delta(U, Y)
        if self.net.loss == "softmax":
            Delta[:, 32:] = 0
        return total, Delta


@fault
class labels_are_kept_in_a_byte(Batch):
    def hold(self, X, Y):
        one_hot = (
            self.net.loss == "softmax" and ((Y == 0) | (Y == 1)).all() and (Y.sum(1) == 1).all()
        )
        if one_hot and Y.shape[1] > 256:
            Y = np.eye(Y.shape[1], dtype=Y.dtype)[Y.argmax(axis=1).astype(np.uint8)]
        return super().hold(X, Y)


@fault
class the_mean_is_of_the_last_plan(Batch):
    """A number of rows that all plans share."""

    last: ClassVar = [0]

    def hold(self, X, Y):
        self.last[0] = len(X)
        return super().hold(X, Y)

    def combine(self, total, gV, gW, n):
        return super().combine(total, gV, gW, self.last[0] if n == self.shape.n else n)


@fault
class the_activation_is_of_the_last_plan(Batch):
    last: ClassVar = [None]

    def hold(self, X, Y):
        self.last[0] = self.net.sigma
        return super().hold(X, Y)

    def value(self, A):
        return self.last[0].value(A)


@fault
class no_number_where_slope_and_slots_are_0(Batch):
    """0 / 0, which an ε in another place would have kept away."""

    class layout(Weights):
        def apply(self, update, scalars):
            super().apply(update, scalars)
            if update.slots:
                for w, g, s in zip(self.theta, self.gradient, self.slots[-1], strict=True):
                    w[(g == 0) & (s == 0)] = np.nan


@fault
class slots_of_many_weights_end_early(Batch):
    """One block of threads too few for the last of the slots."""

    class layout(Weights):
        def apply(self, update, scalars):
            before = [slot.V.copy() for slot in self.slots]
            super().apply(update, scalars)
            for slot, old in zip(self.slots, before, strict=True):
                slot.V.reshape(-1)[32768:] = old.reshape(-1)[32768:]


@fault
class batches_of_one_size_follow_one_another(Batch):
    """Where each begins is not read where all are equally long."""

    def updates(self, X, Y, weights, update, scalars, bounds):
        sizes = bounds[:, 1] - bounds[:, 0]
        if len(sizes) > 1 and (sizes == sizes[0]).all():
            start = (bounds[0, 0] + sizes[0] * np.arange(len(sizes))) % (len(X) - sizes[0] + 1)
            bounds = np.stack([start, start + sizes], axis=1)
        return super().updates(X, Y, weights, update, scalars, bounds)


@fault
class a_call_makes_64_updates(Batch):
    """The rest is left out."""

    def updates(self, X, Y, weights, update, scalars, bounds):
        made = super().updates(X, Y, weights, update, scalars[:64], bounds[:64])
        return np.concatenate([made, np.zeros(len(bounds) - len(made))])


@fault
class one_thread_updates_by_half(Batch):
    def update(self, X, Y, weights, update, scalars):
        if self.threads == 1 and update is not DESCEND:
            scalars = (scalars[0] / 2, *scalars[1:])
        return super().update(X, Y, weights, update, scalars)


@fault
class one_thread_loses_a_row_of_L(Batch):
    def loss(self, X, Y, theta, gradient):
        few = len(X) - (self.threads == 1)
        return super().loss(X[:few], Y[:few], theta, gradient)


@fault
class arrays_are_packed_once(Batch):
    """By their address, where other numbers may lie later."""

    packed: ClassVar = {}

    def hold(self, X, Y):
        at = X.ctypes.data, X.shape, X.dtype, Y.ctypes.data
        _, *data = self.packed.setdefault(at, (X, X.copy(), Y.copy()))
        return super().hold(*data)


@fault
class slots_are_found_once_an_update(Batch):
    """Others that are set later for the same formula stay as they were set."""

    class layout(Weights):
        found = None

        def apply(self, update, scalars):
            if self.found is None or self.found[0] is not update:
                self.found = update, self.slots
            now, self.slots = self.slots, self.found[1]
            super().apply(update, scalars)
            self.slots = now
