"""Where θ, ∇L and what an optimizer keeps for each weight live."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels.formulas import updates
from ..kernels.formulas.updates import Update
from ..network import Parameters, Shape

_DESCEND = updates.UPDATES["descend"]


class Weights:
    """θ, ∇L and the slots of an optimizer in one layout: here as arrays on the host.

    A subclass with a layout of its own gives `room`, `put`, `get` and `apply`. What it calls arrays
    may be anything that holds as many numbers as θ has. `slots` are such arrays, one for each
    number that the optimizer keeps for a weight.
    """

    def __init__(self, shape: Shape, dtype: np.dtype) -> None:
        self.shape, self.dtype = shape, dtype
        self.theta: Any = self.room()
        self.gradient: Any = self.room()
        self.slots: tuple[Any, ...] = ()

    def room(self) -> Any:
        """Arrays for θ, ∇L or one slot, with any numbers."""
        _, d, M, K = self.shape
        return Parameters(np.empty((M, d), self.dtype), np.empty((K, M), self.dtype))

    def put(self, values: Parameters, arrays: Any) -> None:
        """Write V (M, d) and W (K, M) from the host into arrays."""
        for array, value in zip(arrays, values, strict=True):
            array[...] = value

    def get(self, arrays: Any) -> Parameters:
        """V (M, d) and W (K, M) on the host, which the caller may change."""
        return Parameters(*(array.copy() for array in arrays))

    def apply(self, update: Update, scalars: tuple[float, ...]) -> None:
        """(θ, slots) ← formula(θ, ∇L, slots; scalars) for each weight, in place."""
        if update is _DESCEND:  # whose plain form compiles nothing, and makes no array
            mu = self.dtype.type(scalars[0])
            with np.errstate(all="ignore"):  # a descent that diverges shows in θ and L
                for weights, slope in zip(self.theta, self.gradient, strict=True):
                    slope *= mu
                    weights -= slope
            return
        apply(update, scalars, self.theta, self.gradient, *self.slots)


class ForeignWeights(Weights):
    """Weights that a library keeps: an optimizer's formula is applied to copies on the host."""

    def apply(self, update: Update, scalars: tuple[float, ...]) -> None:
        theta, gradient, *slots = map(self.get, (self.theta, self.gradient, *self.slots))
        apply(update, scalars, theta, gradient, *slots)
        for arrays, values in zip((self.theta, *self.slots), (theta, *slots), strict=True):
            self.put(values, arrays)


def apply(update: Update, scalars: tuple[float, ...], *arrays: Parameters) -> None:
    """Change θ and slots in place; arrays are θ, ∇L and the slots, C-contiguous on the host."""
    run = updates.loop(update)
    for of_weights in zip(*arrays, strict=True):
        run(*(array.reshape(-1) for array in of_weights), scalars)
