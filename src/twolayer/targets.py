"""The kinds of targets that a loss may take: what Y must be, examples, and how good F is."""

from __future__ import annotations

from typing import Any

import numpy as np


class Targets:
    """Real numbers; the kinds below, and those of others, say what else they ask for.

    Drawn numbers must stay what they should be when they are rounded.

    `single`, whether K = 1 is all there is; `labels`, whether (n,) integers may stand for rows with
    a single 1; `wrong`, a number that no row may hold.
    """

    name = "real"
    single = False
    labels = False
    wrong: float | None = None

    def check(self, Y: np.ndarray, dtype: np.dtype) -> None:
        """Raise ValueError unless these finite Y (n, K) are such targets; dtype, the network's."""

    def codes(self, K: int) -> np.ndarray:
        """The labels (K,) of so many classes. Raises ValueError where there are none."""
        if not self.labels:
            raise ValueError("classes: expected a loss that takes labels, as softmax or logistic")
        return np.arange(K)

    def draw(self, random: np.random.Generator, n: int, K: int, dtype: Any) -> np.ndarray:
        """Random targets as users have them, (n, K), (n,) or labels."""
        return random.standard_normal((n, K), dtype)

    def rows(self, random: np.random.Generator, n: int, K: int) -> np.ndarray:
        """Random targets (n, K) in float64, of all sorts that there are."""
        return np.asarray(self.draw(random, n, K, "float64"), np.float64).reshape(n, K)

    def score(self, F: np.ndarray, Y: np.ndarray, zero: np.ndarray) -> tuple[str, float]:
        """How good F (n, K) is for Y, and what the number is called; zero (K,), h(0).

        Here R² = 1 − Σ(y − f)² / Σ(y − ȳ)², over all outputs; where all y are equal it is 1 for
        F = Y and 0 otherwise.
        """
        Y = Y.reshape(F.shape).astype(np.float64)
        residual = float(((Y - F) ** 2).sum())
        total = float(((Y - Y.mean(axis=0)) ** 2).sum())
        return "R²", 1 - residual / total if total > 0 else float(residual == 0)


class Signs(Targets):
    """Labels of +1 or −1, for one output."""

    name = "sign"
    single = True
    wrong = 2.0

    def check(self, Y: np.ndarray, dtype: np.dtype) -> None:
        advice = ": 2 * Y - 1, or --classes, makes them of 0 and 1"
        first_bad("Y", np.abs(Y) != 1, Y, "labels of +1 or -1", advice)

    def codes(self, K: int) -> np.ndarray:
        if K != 2:
            raise ValueError(f"classes: expected two for a loss of one output, got {K}")
        return np.array([-1, 1])

    def draw(self, random: np.random.Generator, n: int, K: int, dtype: Any) -> np.ndarray:
        return 2 * random.integers(0, 2, n) - 1

    def score(self, F: np.ndarray, Y: np.ndarray, zero: np.ndarray) -> tuple[str, float]:
        return "accuracy", float(((zero < F) == (Y.reshape(F.shape) > 0)).mean())


class Distributions(Targets):
    """Rows of non-negative numbers that sum to 1, or class labels."""

    name = "distribution"
    labels = True
    wrong = 2.0

    def check(self, Y: np.ndarray, dtype: np.dtype) -> None:
        first_bad("Y", Y < 0, Y, "rows of non-negative numbers that sum to 1")
        sums = Y.sum(axis=1, dtype=np.float64)
        kind = Y.dtype if Y.dtype.kind == "f" else dtype
        tolerance = 4 * Y.shape[1] * float(np.finfo(kind).eps)
        first_bad("Y", np.abs(sums - 1) > tolerance, sums, "rows that sum to 1")

    def draw(self, random: np.random.Generator, n: int, K: int, dtype: Any) -> np.ndarray:
        return random.integers(0, K, n)

    def rows(self, random: np.random.Generator, n: int, K: int) -> np.ndarray:
        Y = np.eye(K)[random.integers(0, K, n)]
        Y[::5] = random.choice([0.25, 0.75], (len(Y[::5]), 1)) * Y[::5]
        Y[::5, 0] += 1 - Y[::5].sum(axis=1)  # sums to 1 exactly, in both dtypes
        return Y

    def score(self, F: np.ndarray, Y: np.ndarray, zero: np.ndarray) -> tuple[str, float]:
        classes = Y if Y.ndim == 1 else Y.argmax(axis=1)
        return "accuracy", float((F.argmax(axis=1) == classes).mean())


REAL, SIGNS, DISTRIBUTIONS = Targets(), Signs(), Distributions()


def one_hot(labels: np.ndarray, K: int, dtype: np.dtype) -> np.ndarray:
    """Rows (n, K) with a 1 at each label. Raises TypeError or ValueError for other labels."""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"Y: expected integer class labels for shape (n,), got {labels.dtype}")
    advice = ": --classes numbers the labels that occur"
    first_bad("Y", (labels < 0) | (labels >= K), labels, f"class labels 0 to {K - 1}", advice)
    Y = np.zeros((len(labels), K), dtype)
    Y[np.arange(len(labels)), labels] = 1
    return Y


def first_bad(
    argument: str, wrong: np.ndarray, values: np.ndarray, expected: str, advice: str = ""
) -> None:
    """Raise ValueError naming the first of the values that is wrong, if there is one."""
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = ", ".join(map(str, at))
        raise ValueError(f"{argument}: expected {expected}, got {values[at]} at [{where}]{advice}")
