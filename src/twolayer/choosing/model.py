"""What an epoch costs: a sum of few terms, each a number of things times seconds a thing.

Everything here is plain Python, so that who only asks needs neither NumPy nor a compiler.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_LINE = 64  # bytes of a vector and of a line of a cache, on most machines
_CACHE = 1 << 20  # bytes of θ beyond which each sample fetches it from farther away
_QUANTILE = 0.95  # of the residuals of held-out shapes that the interval takes in
_WIDEST = math.log(100)


class Question(NamedTuple):
    """What is asked: a network, its sizes, the dtype, and how many threads."""

    activation: str
    loss: str
    n: int
    d: int
    M: int
    K: int
    dtype: str
    threads: int

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return 4 if self.dtype == "float32" else 8

    @property
    def data_bytes(self) -> int:
        """Bytes of X and Y."""
        return self.n * (self.d + self.K) * self.itemsize

    @property
    def flops(self) -> int:
        """Floating-point operations of an epoch's products, 4ndM + 6nMK."""
        return self.n * self.M * (4 * self.d + 6 * self.K)


def terms(q: Question) -> dict[str, float]:
    """How much of each thing an epoch has, by the name of the thing, units in `UNITS`."""
    n, d, M, K = q.n, q.d, q.M, q.K
    lane = _LINE // q.itemsize
    parameters = M * (d + K)
    beyond = parameters * q.itemsize > _CACHE
    return {
        "overhead": 1.0,
        "samples": n,
        "bytes": q.data_bytes,
        "parameters": parameters,
        f"σ {q.activation}": n * M,
        f"ℓ {q.loss}": n * K,
        "products over d": 4.0 * n * d * M,
        "products over K": 6.0 * n * M * K,
        "products over d in whole vectors": 4.0 * n * d * -(-M // lane) * lane,
        "products over K in whole vectors": 6.0 * n * M * -(-K // lane) * lane,
        "products beyond the cache": float(q.flops if beyond else 0),
    }


UNITS = {
    "overhead": "s an epoch",
    "samples": "s a sample",
    "bytes": "s a byte of X and Y",
    "parameters": "s a number of θ",
    "σ": "s a number of A",
    "ℓ": "s a number of U",
    "products": "s an operation",
}


@dataclass(frozen=True)
class Model:
    """Seconds an epoch of one variant, dtype and number of threads, and seconds to make a plan.

    coefficients: seconds a thing, by the names of `terms`; spread: the interval of a prediction t
    is t e^(±spread); setup: seconds of a plan whose code is loaded, and seconds a byte of X and Y
    on top; samples: how many epochs it was fitted to.
    """

    variant: str
    dtype: str
    threads: int
    coefficients: Mapping[str, float]
    spread: float
    setup: tuple[float, float]
    samples: int

    def parts(self, q: Question) -> dict[str, float]:
        """Seconds of each term of an epoch."""
        found = {name: self.coefficients.get(name) for name in terms(q)}
        # A σ or ℓ that no epoch had costs what the dearest known one does.
        for name, value in found.items():
            if value is None:
                family = [
                    c for k, c in self.coefficients.items() if k[0] == name[0] and k[1] == " "
                ]
                found[name] = max(family, default=0.0)
        return {name: amount * (found[name] or 0.0) for name, amount in terms(q).items()}

    def seconds(self, q: Question) -> float:
        """Seconds an epoch."""
        return max(sum(self.parts(q).values()), 1e-9)

    def plan_seconds(self, q: Question) -> float:
        """Seconds to make a plan once its code is loaded: checks, buffers and copies."""
        return self.setup[0] + self.setup[1] * q.data_bytes


class Sample(NamedTuple):
    """One measurement: seconds to make a plan whose code is loaded, and seconds an epoch."""

    question: Question
    plan: float
    epoch: float


def fit(
    variant: str, dtype: str, threads: int, sigmas: Sequence[Sample], shapes: Sequence[Sample]
) -> Model:
    """The model with the least relative errors and no negative coefficient.

    Arguments: sigmas, samples of one shape that differ in σ; shapes, samples of many shapes. What
    one σ costs more than another comes from the former, all else from both. The spread is that of
    shapes that a fit did not see: each tenth of them in turn is predicted from the others.
    Source: Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23.
    """
    least = min(sample.epoch for sample in sigmas)
    extra = {
        s.question.activation: (s.epoch - least) / (s.question.n * s.question.M) for s in sigmas
    }

    def fitted(samples: Sequence[Sample], spread: float) -> Model:
        rows = [_shared(terms(s.question), extra) for s in samples]
        found = _solve(rows, [s.epoch for s in samples])
        a_number, times = found.pop("number of A", 0.0), found.pop("σ", 0.0)
        found |= {f"σ {name}": a_number + times * more for name, more in extra.items()}
        rows = [{"plan": 1.0, "byte": float(s.question.data_bytes)} for s in samples]
        setup = _solve(rows, [s.plan for s in samples])
        return Model(
            variant, dtype, threads, found, spread, (setup["plan"], setup["byte"]), len(samples)
        )

    held_out = []
    parts = min(10, len(shapes))
    for part in range(parts):
        inside = [s for i, s in enumerate(shapes) if i % parts != part]
        known = fitted([*sigmas, *inside], 0.0)
        for s in shapes[part::parts]:
            held_out.append(abs(math.log(s.epoch / known.seconds(s.question))))
    spread = min(quantile(held_out, _QUANTILE), _WIDEST) if held_out else _WIDEST
    return fitted([*sigmas, *shapes], spread)


def _shared(row: Mapping[str, float], extra: Mapping[str, float]) -> dict[str, float]:
    """The terms of an epoch with what all σ share, and what this one costs more, as two terms."""
    (sigma,) = (name for name in row if name.startswith("σ "))
    others = {name: amount for name, amount in row.items() if name != sigma}
    more = extra.get(sigma[2:], max(extra.values()))
    return {**others, "number of A": row[sigma], "σ": row[sigma] * more}


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that a new one exceeds with probability 1 − share, if the order is chance.

    Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005).
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * (len(ordered) + 1)) - 1)]


def _solve(rows: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> dict[str, float]:
    """Coefficients ≥ 0 with the least Σ (prediction / seconds − 1)²."""
    import numpy as np
    from scipy.optimize import nnls

    names = sorted({name for row in rows for name, amount in row.items() if amount})
    A = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    A /= np.asarray(seconds)[:, None]
    scale = A.max(axis=0)  # columns of one size, or the solver's tolerance would drop small ones
    solution, _ = nnls(A / scale, np.ones(len(rows)))
    return dict(zip(names, (solution / scale).tolist(), strict=True))


def to_json(model: Model) -> dict[str, Any]:
    """The model as JSON values."""
    return {
        "coefficients": dict(model.coefficients),
        "spread": model.spread,
        "setup": list(model.setup),
        "samples": model.samples,
    }
