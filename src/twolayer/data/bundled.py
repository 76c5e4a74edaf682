"""The data sets that come with scikit-learn, as far as is known without it, or any import."""

from __future__ import annotations

from typing import NamedTuple


class Bundled(NamedTuple):
    """The loss that fits a set, its samples, its inputs with the column of ones, its outputs."""

    loss: str
    n: int
    d: int
    K: int


BUNDLED = {
    "diabetes": Bundled("squared", 442, 11, 1),
    "linnerud": Bundled("squared", 20, 4, 3),
    "breast_cancer": Bundled("logistic", 569, 31, 1),
    "digits": Bundled("softmax", 1797, 65, 10),
}
