"""The network f(x) = h(W σ(V x)): its names, its parameters and the size of a problem."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from . import activations, losses
from .kernels.formulas.activations import ACTIVATIONS, Activation
from .kernels.formulas.losses import LOSSES
from .losses import Loss
from .machine.hardware import available_memory
from .texts import meant, parts

DTYPES = ("float32", "float64")
_MOST = 2**63 - 1  # of a size or a count: what an index can be


class Parameters(NamedTuple):
    """θ = (V, W): V (M, d) the first layer's weights, W (K, M) the second's. Also a gradient ∇L."""

    V: np.ndarray
    W: np.ndarray


class Shape(NamedTuple):
    """The size of a problem: n samples, d inputs, M hidden units, K outputs."""

    n: int
    d: int
    M: int
    K: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """The shape of a text like "1000,16,32,4". Raises ValueError for what is none."""
        sizes = parts(text)
        if len(sizes) != 4 or not all(
            size.isdecimal() and len(size) < 19 and int(size) > 0 for size in sizes
        ):
            raise ValueError(f"shape: expected four sizes n,d,M,K, positive integers, got {text!r}")
        return cls(*map(int, sizes))

    def flops(self) -> int:
        """Floating-point operations of one epoch's products, 4ndM + 6nMK."""
        return self.n * self.M * (4 * self.d + 6 * self.K)

    def bytes(self, dtype: Any) -> int:
        """Bytes that one epoch must read, X and Y once."""
        return self.n * (self.d + self.K) * np.dtype(dtype).itemsize

    def __str__(self) -> str:
        return f"n={self.n} d={self.d} M={self.M} K={self.K}"


@dataclass(frozen=True, init=False)
class Network:
    """The network f(x) = h(W σ(V x)) with its loss.

    Arguments: activation, σ; loss, ℓ, which decides h: a name, or an object that need not be in any
    list. Afterwards `activation` and `loss` are the names, `sigma` and `objective` the objects.
    Raises ValueError for an unknown name. Source: the lecture's two-layer network.
    """

    activation: str
    loss: str
    sigma: Activation = field(repr=False)
    objective: Loss = field(repr=False)

    def __init__(self, activation: str | Activation = "tanh", loss: str | Loss = "squared") -> None:
        sigma = activation if isinstance(activation, Activation) else activations.get(activation)
        objective = loss if isinstance(loss, Loss) else losses.get(loss)
        found = {"activation": sigma.name, "loss": objective.name}
        vars(self).update(found, sigma=sigma, objective=objective)

    def __reduce__(self) -> tuple[Any, ...]:
        return Network, (_by_name(activations, self.sigma), _by_name(losses, self.objective))

    def from_outside(self) -> list[str]:
        """Which of its formulas this project does not come with, as "activation sine"."""
        found = []
        if ACTIVATIONS.get(self.activation) is not self.sigma:
            found.append(f"activation {self.activation}")
        if self.loss not in LOSSES or losses.get(self.loss) is not self.objective:
            found.append(f"loss {self.loss}")
        return found

    def with_outputs(self, shape: Shape) -> Shape:
        """The shape, with K = 1 where the loss has one output."""
        return shape._replace(K=1) if self.objective.targets.single else shape

    def check_outputs(self, K: int) -> None:
        """Raise ValueError for K > 1 with a loss of one output."""
        if self.objective.targets.single and K != 1:
            raise ValueError(f"K: the {self.loss} loss has one output, K = 1, got {K}")

    def init(
        self, d: int, M: int, K: int, dtype: Any = "float32", seed: int | None = 0
    ) -> Parameters:
        """Random parameters: V ~ N(0, 1/d), W ~ N(0, 1/M), so that A and U are of order 1.

        Arguments: d inputs, M hidden units, K outputs; dtype float32 or float64; seed for NumPy's
        default generator. Raises ValueError for a bad size, MemoryError for one that can't fit.
        Source: LeCun, Bottou, Orr, Müller, Efficient BackProp (1998), section 4.6.
        """
        dtype = float_type("dtype", dtype)
        d, M, K = (positive_integer(name, v) for name, v in (("d", d), ("M", M), ("K", K)))
        self.check_outputs(K)
        enough_memory(f"parameters with d={d}, M={M}, K={K}", 3 * M * (d + K) * dtype.itemsize)
        random = np.random.default_rng(seed)
        V = random.standard_normal((M, d), dtype=dtype)
        V /= math.sqrt(d)
        W = random.standard_normal((K, M), dtype=dtype)
        W /= math.sqrt(M)
        return Parameters(V, W)


def _by_name(lists: Any, entry: Any) -> Any:
    """The name of what is in a list, so that it is itself again in another process."""
    return entry.name if any(entry is known for known in lists.REGISTRY) else entry


def one_of(argument: str, name: Any, known: Iterable[str]) -> None:
    """Raise ValueError with the list of known names unless `name` is one of them."""
    known = list(known)
    if name not in known:
        raise ValueError(
            f"{argument}: expected one of {', '.join(known)}, got {name!r}{meant(name, known)}"
        )


def float_type(argument: str, dtype: Any) -> np.dtype:
    """The NumPy dtype, float32 or float64 in native byte order; TypeError for another."""
    try:
        result = np.dtype(dtype)
    except TypeError:
        result = None
    if result is None or result not in [np.dtype(name) for name in DTYPES]:
        raise TypeError(f"{argument}: expected dtype {' or '.join(DTYPES)}, got {dtype}")
    return result


def positive_integer(argument: str, value: Any) -> int:
    """The value as an int of at least 1; TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{argument}: expected a positive integer, got {value!r}")
    if int(value) < 1:
        raise ValueError(f"{argument}: expected a positive integer, got {_short(value)}")
    if int(value) > _MOST:
        raise ValueError(f"{argument}: expected at most {_MOST}, got {_short(value)}")
    return int(value)


def read_integer(argument: str, text: str) -> int:
    """The positive integer that a text is; TypeError or ValueError otherwise."""
    return positive_integer(argument, int(text) if text.isdecimal() and len(text) < 20 else text)


def _short(value: Any) -> str:
    """An integer as text; of one that Python refuses to write out, how long it is."""
    if abs(int(value)) <= _MOST:
        return str(int(value))
    return f"one of {int(value).bit_length()} bits"


def enough_memory(what: str, needed: int) -> None:
    """Raise MemoryError, before anything is allocated, if `needed` bytes are not available."""
    free = available_memory()
    if needed > free:
        raise MemoryError(
            f"{what}: needs {needed / 2**30:.2f} GiB of memory, {free / 2**30:.2f} GiB are free"
        )
