"""Small problems that make mistakes show: odd shapes, and inputs that break careless formulas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..network import Network, Parameters, Shape


class Case(NamedTuple):
    """A named problem: X (n, d), Y (n, K) and θ of one dtype."""

    name: str
    net: Network
    X: np.ndarray
    Y: np.ndarray
    theta: Parameters

    @property
    def shape(self) -> Shape:
        """The sizes n, d, M, K."""
        return Shape(*self.X.shape, *self.theta.W.shape[::-1])


# 1s, primes, one more and one less than powers of two; then what fills vectors and warps exactly;
# the last has more rows than any block.
SHAPES = (
    Shape(1, 1, 1, 1),
    Shape(2, 1, 3, 2),
    Shape(7, 5, 1, 3),
    Shape(33, 17, 13, 1),
    Shape(61, 7, 31, 9),
    Shape(32, 32, 64, 16),
    Shape(1031, 3, 5, 2),
)


_LONG_AXES = (Shape(64, 1100, 3, 2), Shape(64, 3, 1100, 2), Shape(64, 3, 5, 1100))
EXACT = (Network("identity", "squared"), Network("relu", "squared"))
# Of the exact cases: more rows, inputs, units and outputs than blocks and panels hold. In float32 n
# is a power of two, so that the division by it is exact too, wherever it is made; in float64 one
# more than a multiple of blocks of 96, 480, 1000 and of all powers of two.
EXACT_SHAPES = {
    "float32": (
        Shape(64, 3, 5, 2),
        Shape(256, 131, 150, 37),
        *_LONG_AXES,
        Shape(4096, 21, 41, 13),
        Shape(1 << 17, 2, 3, 2),
    ),
    "float64": (
        Shape(61, 3, 5, 2),
        Shape(259, 131, 150, 37),
        *_LONG_AXES,
        Shape(24001, 21, 41, 13),
        Shape((1 << 17) + 1, 2, 3, 2),
    ),
}
# Numbers that half of the bits cannot hold, and the largest integer below which all are held.
WIDE = {"float32": (1 << 11) + 1, "float64": (1 << 25) + 1}
HELD = {"float32": 1 << 24, "float64": 1 << 53}


def problem(net: Network, shape: Shape, dtype: str, seed: int = 0, name: str = "") -> Case:
    """A random problem of that shape: X, Y and θ of order 1."""
    shape = net.with_outputs(shape)
    random = np.random.default_rng(seed)
    X = random.standard_normal((shape.n, shape.d)).astype(dtype)
    V = random.standard_normal((shape.M, shape.d)).astype(dtype) / np.sqrt(shape.d).astype(dtype)
    W = random.standard_normal((shape.K, shape.M)).astype(dtype) / np.sqrt(shape.M).astype(dtype)
    Y = net.objective.targets.rows(random, shape.n, shape.K).astype(dtype)
    return Case(name or str(shape), net, X, Y, Parameters(V, W))


def shaped(net: Network, dtype: str) -> Iterator[Case]:
    """A random problem for each of `SHAPES`, the last two once an activation and a loss."""
    usual = net.activation == "tanh" or net.loss == "squared"
    for seed, shape in enumerate(SHAPES if usual else SHAPES[:-2]):
        yield problem(net, shape, dtype, seed)


def drawn_shapes(seed: int) -> tuple[Shape, ...]:
    """Shapes with sizes whose logarithms are uniform, up to many rows."""
    random = np.random.default_rng(seed)
    shapes = []
    for most in (10, 100, 1000, 30_000):
        d, M, K = (int(np.exp(random.uniform(0, np.log(limit)))) for limit in (300, 300, 40))
        n = int(np.exp(random.uniform(np.log(most / 10), np.log(most))))
        shapes.append(Shape(max(1, min(n, int(3e8) // Shape(1, d, M, K).flops())), d, M, K))
    return tuple(shapes)


def adversarial(net: Network, dtype: str) -> Iterator[Case]:
    """Problems on which a formula that is right for tame inputs only overflows or loses digits."""
    shape = Shape(19, 6, 9, 4)

    def base(name: str, seed: int) -> Case:
        return problem(net, shape, dtype, seed, name)

    case = base("logits of 1e4 in both signs", 11)
    yield case._replace(theta=_logits_of(case, 1e4))
    case = base("large offsets common to a row's outputs", 12)
    W = case.theta.W + np.asarray(1e3, dtype)
    yield case._replace(theta=case.theta._replace(W=W))
    case = base("saturated units", 13)
    yield case._replace(theta=case.theta._replace(V=case.theta.V * np.asarray(300, dtype)))
    case = base("dead units", 14)
    yield case._replace(X=abs(case.X), theta=case.theta._replace(V=-abs(case.theta.V)))
    case = base("one target only", 15)
    yield case._replace(Y=np.repeat(case.Y[1:2], shape.n, axis=0))
    case = base("duplicated rows", 16)
    again = np.maximum(np.arange(shape.n) - shape.n // 2, 0)  # the first row ten times
    yield case._replace(X=case.X[again], Y=case.Y[again])
    if net.objective.targets.labels:
        yield labelled(base("a class for each row", 19))
        few_units = problem(net, Shape(35, 3, 2, 3), dtype, 20, "a class for each row, few units")
        yield labelled(few_units)
    if net.objective.targets.wrong is None:
        case = base("a small loss of large numbers", 18)
        theta = case.theta._replace(W=case.theta.W * np.asarray(1000, dtype))
        U = net.sigma.value(case.X.astype(np.float64) @ theta.V.T) @ theta.W.T
        yield case._replace(theta=theta, Y=(U + 0.01).astype(dtype))
    case = base("rows of zeros", 17)  # a = 0 exactly
    yield case._replace(X=np.where(np.arange(shape.n)[:, None] % 3, case.X, np.zeros_like(case.X)))


def labelled(case: Case) -> Case:
    """The same with a single 1 in each row of Y, which variants may keep as a label."""
    return case._replace(Y=np.eye(case.shape.K, dtype=case.Y.dtype)[case.Y.argmax(axis=1)])


def _logits_of(case: Case, size: float) -> Parameters:
    """θ with W scaled so that the largest output before h is `size`."""
    with np.errstate(all="ignore"):
        U = case.net.sigma.value(case.X @ case.theta.V.T) @ case.theta.W.T
    scale = np.asarray(size / max(float(abs(U).max()), 1e-3), case.X.dtype)
    return case.theta._replace(W=case.theta.W * scale)


def exact(dtype: str) -> Iterator[Case]:
    """Networks of `EXACT` and integers: all sums are integers that the dtype holds exactly.

    One row, lane, part, panel or chunk that is lost shows as an inequality, at any n; so does a
    product of fewer bits, where X is wide. With relu many pre-activations are 0 exactly, where its
    slope is 0.
    """
    identity, relu = EXACT
    for seed, shape in enumerate(EXACT_SHAPES[dtype]):
        yield integers(shape, dtype, seed)._replace(net=identity)
        wide = integers(shape, dtype, seed, WIDE[dtype])
        if is_exact(wide, HELD[dtype]):
            yield wide._replace(net=identity, name="exact integers of many bits")
    yield integers(Shape(64, 7, 9, 3), dtype, 9)._replace(net=relu)


def integers(shape: Shape, dtype: str, seed: int, unit: int = 1) -> Case:
    """A problem of that shape in which all numbers are small integers, and X multiples of a unit.

    With σ(a) = a no residual is 0, and they are of either sign: each row counts, and the sums over
    rows stay so small that float32 hardly rounds them, where each term was divided by n before.
    """
    random = np.random.default_rng(seed)

    def draw(rows: int, columns: int) -> np.ndarray:
        return random.integers(-1, 2, (rows, columns)).astype(dtype)

    n, d, M, K = shape
    X, V, W = draw(n, d) * np.asarray(unit, dtype), draw(M, d), draw(K, M)
    noise = random.choice([-2, -1, 1, 2], (n, K)).astype(dtype)
    return Case("exact integers", EXACT[0], X, X @ V.T @ W.T + noise, Parameters(V, W))


def is_exact(case: Case, held: int = HELD["float32"]) -> bool:
    """Whether every sum of an epoch of integers is below `held`, in any order of its terms."""
    X, Y, V, W = (np.asarray(array, np.float64) for array in (case.X, case.Y, *case.theta))
    A = X @ V.T
    Delta = 2 * (A @ W.T - Y)
    G = Delta @ W
    products = ((X, V.T), (A, W.T), (Delta, W), (Delta.T, A), (G.T, X))
    return all((abs(left) @ abs(right)).max() < held for left, right in products)


def all_cases(net: Network, dtype: str) -> Iterator[Case]:
    """Every case for a network and dtype."""
    yield from shaped(net, dtype)
    yield from adversarial(net, dtype)
