"""Training: one epoch after the other over a plan, and how good the model is that comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..interface import Plan
from ..network import Parameters, Shape, positive_integer
from .optimizers import Algorithm, advance, advance_over

_TOGETHER = 64  # updates that share what a call costs, at most
_WORK = 1e9  # operations of a call that no interruption waits long for

Arrays = Mapping[str, np.ndarray]


def updates_a_call(shape: Shape, batch: int) -> int:
    """How many updates over batches of so many rows share what a call costs."""
    return max(1, min(_TOGETHER, int(_WORK // shape._replace(n=batch).flops())))


def whole_batches(n: int, size: int) -> np.ndarray:
    """The rows of neighbouring batches as `Plan.updates` takes them, (count, 2).

    What fills no batch at the end is left out; fewer than `size` rows are one.
    """
    starts = size * np.arange(max(1, n // size))
    return np.stack([starts, np.minimum(starts + size, n)], axis=1)


class Epoch(NamedTuple):
    """An epoch that is done: its number, from 1 on, and L.

    loss is L at the parameters that the epoch started from, or with mini-batches the mean over all
    rows, each batch at the parameters that it started from; validation is L of the validation data
    at the parameters after the epoch, NaN without such data.
    """

    number: int
    loss: float
    validation: float = math.nan


class Best(NamedTuple):
    """The parameters with the lowest loss so far, and after which epoch they were met."""

    epoch: int
    loss: float
    theta: Parameters


class Diverged(ArithmeticError):
    """L or the parameters were not finite any more."""


class Training:
    """An optimizer at work on a plan, epoch by epoch.

    Arguments: plan, which keeps θ; optimizer; batch, rows of a mini-batch, all by default; seed of
    the order of the batches; validate, a function of θ that returns the validation loss.

    Mini-batches are runs of neighbouring rows, so that none is copied: each epoch takes all runs
    once, in a random order of its own. Rows in an order that means something, by class for example,
    have to be shuffled before the plan is made.

    `best` has the lowest validation loss; without validation, the lowest loss, at the parameters
    that its epoch started from. Raises ValueError for a batch that is not a positive integer.
    """

    def __init__(
        self,
        plan: Plan,
        optimizer: Algorithm,
        batch: int | None = None,
        seed: int = 0,
        validate: Callable[[Parameters], float] | None = None,
    ) -> None:
        n = plan.shape.n
        self.plan, self.optimizer, self.seed, self.validate = plan, optimizer, seed, validate
        self.batch = n if batch is None else min(n, positive_integer("batch", batch))
        self._together = updates_a_call(plan.shape, self.batch)
        self.history: list[Epoch] = []
        self._theta = plan.theta
        self.best = Best(0, math.inf, self._theta)
        self._k = 0  # updates so far
        self._diverged = False
        plan.slots = optimizer.init(self._theta).slots

    def epoch(self) -> Epoch:
        """Make one epoch.

        Raises Diverged when L or θ stop being finite; the plan then has the best parameters.
        """
        number, start = len(self.history) + 1, self._theta
        loss = 0.0
        for rows, of_rows in self._losses(number):
            for run, part in zip(rows, of_rows, strict=True):
                if not math.isfinite(part):
                    self._give_up(number, f"the loss was {part}")
                loss += part * ((run[1] - run[0]) / self.plan.shape.n)
        theta = self.plan.theta
        if self.validate is None and loss < self.best.loss:
            self.best = Best(number - 1, loss, start)
        if not all(np.isfinite(array).all() for array in theta):
            self._give_up(number, "the parameters were not finite any more")
        epoch = Epoch(number, loss)
        if self.validate is not None:
            epoch = Epoch(number, loss, self.validate(theta))
            if not math.isfinite(epoch.validation):
                self._give_up(number, f"the validation loss was {epoch.validation}")
            if epoch.validation < self.best.loss:
                self.best = Best(number, epoch.validation, theta)
        self._theta = theta
        self.history.append(epoch)
        return epoch

    def _losses(self, number: int) -> Iterator[tuple[list[list[int]], list[float]]]:
        """Make an epoch's updates, some a call; yield their rows, from and to which, and L."""
        n, batch = self.plan.shape.n, self.batch
        if batch == n:
            self._k += 1
            yield [[0, n]], [advance(self.optimizer, self.plan, self._k)]
            return
        order = np.random.default_rng([self.seed, number]).permutation(-(-n // batch))
        rows = np.stack([batch * order, np.minimum(batch * order + batch, n)], axis=1)
        for first in range(0, len(rows), self._together):
            of_call = rows[first : first + self._together]
            losses = advance_over(self.optimizer, self.plan, self._k + 1, of_call)
            self._k += len(of_call)
            yield of_call.tolist(), losses.tolist()

    def _give_up(self, number: int, what: str) -> None:
        self._diverged = True
        self.plan.theta = self.best.theta
        raise Diverged(
            f"training stopped in epoch {number}, where {what}: a smaller step or scaled inputs "
            f"help; the best parameters, those after epoch {self.best.epoch}, are kept"
        )

    @property
    def theta(self) -> Parameters:
        """What to keep: the best parameters of a validation or of a training that diverged.

        Else those after the last epoch.
        """
        return self._theta if self.validate is None and not self._diverged else self.best.theta

    def stalled(self, patience: int | None) -> bool:
        """Whether so many epochs brought nothing better than the best; never for None."""
        return patience is not None and len(self.history) - self.best.epoch >= patience

    def state(self) -> dict[str, np.ndarray]:
        """All that decides how the training goes on, as arrays by name."""
        arrays = {"k": np.array(self._k), "history": np.array(self.history, np.float64)}
        arrays |= {"best_epoch": np.array(self.best.epoch), "best_loss": np.array(self.best.loss)}
        several = {"": self._theta, "best_": self.best.theta}
        several |= {f"slot{i}_": slot for i, slot in enumerate(self.plan.slots)}
        for name, pair in several.items():
            arrays |= {f"{name}V": pair.V, f"{name}W": pair.W}
        return arrays

    def restore(self, arrays: Arrays) -> None:
        """Go on where the training was whose `state` this is.

        Raises KeyError, TypeError or ValueError for what is no state of such a training.
        """

        def pair(name: str) -> Parameters:
            return Parameters(arrays[f"{name}V"], arrays[f"{name}W"])

        self._k = int(arrays["k"])
        self.history = [
            Epoch(int(number), float(loss), float(validation))
            for number, loss, validation in arrays["history"].reshape(-1, 3)
        ]
        if self._k < 0 or [epoch.number for epoch in self.history] != [
            *range(1, 1 + len(self.history))
        ]:
            raise ValueError("updates and epochs that do not follow one another")
        # The plan looks at the best parameters as at the others.
        self.plan.theta = pair("best_")
        self.best = Best(int(arrays["best_epoch"]), float(arrays["best_loss"]), self.plan.theta)
        self._theta = self.plan.theta = pair("")
        self.plan.slots = [pair(f"slot{i}_") for i in range(self.optimizer.formula.slots)]


def train(plan: Plan, optimizer: Algorithm, epochs: int, **options: Any) -> Iterator[Epoch]:
    """Make so many epochs, and yield what is known after each.

    Arguments: plan, which keeps the parameters, so that a caller may stop at any epoch and read
    them; optimizer; epochs, at least 1; options of `Training`. Raises Diverged as its `epoch`.
    """
    epochs = positive_integer("epochs", epochs)
    training = Training(plan, optimizer, **options)
    return (training.epoch() for _ in range(epochs))
