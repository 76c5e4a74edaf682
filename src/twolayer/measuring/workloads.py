"""What `twolayer bench` runs on: real data, and shapes swept one axis at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..data.bundled import BUNDLED
from ..network import Network, Shape, read_integer
from ..texts import parts
from .race import Workload

Groups = dict[str, list[Workload]]

_BASE = Shape(n=10_000, d=32, M=64, K=4)
_SWEEPS = {
    "n": (100, 1_000, 10_000, 100_000),
    "d": (4, 32, 128, 512),
    "M": (8, 64, 256, 1024),
    "K": (1, 4, 16, 64),
}
_QUICK_BASE = Shape(n=2_000, d=32, M=64, K=4)
_QUICK_SWEEPS = {"n": (100, 2_000, 20_000), "d": (32, 256)}
_QUICK_DATA = ("diabetes",)  # whose loss, and so whose kernels, the sweeps share
# As many pixels as MNIST and scikit-learn's digits have, many samples and few, networks wide and
# narrow, one output and ten.
_PEERS = (
    (Shape(60_000, 784, 128, 10), "tanh", "softmax"),
    (Shape(1_000_000, 8, 32, 1), "tanh", "squared"),
    (Shape(100_000, 64, 64, 10), "tanh", "softmax"),
    (Shape(10_000, 784, 1024, 10), "tanh", "softmax"),
    (Shape(200_000, 32, 256, 1), "tanh", "squared"),
    (Shape(1_000, 16, 16, 1), "tanh", "squared"),
    (Shape(1_797, 64, 32, 10), "relu", "softmax"),
    (Shape(4_096, 2048, 2048, 10), "tanh", "softmax"),
)
_QUICK_FLOPS = 3e9  # of a shape of the peers, about 0.1 s in the slowest of them
_DATA_HIDDEN = 32  # hidden units on real data sets


def workloads(
    net: Network,
    dtype: str,
    shapes: Sequence[str] = (),
    sweeps: Sequence[str] = (),
    quick: bool = False,
    complain: Callable[[str], None] = lambda sentence: None,
) -> Groups:
    """Groups of workloads: the shapes and sweeps asked for, else real data and sweeps of all axes.

    Real data sets that are not installed are left out, which complain(sentence) is told. Raises
    ValueError for texts that are no shapes or sweeps, and for K > 1 with a loss of one output.
    """
    base = net.with_outputs(_QUICK_BASE if quick else _BASE)
    groups: Groups = {}
    if shapes:
        groups["shapes"] = [Workload(net, Shape.parse(text), dtype) for text in shapes]
    chosen: dict[str, list[int]] = {}
    for text in sweeps:
        axis, values = parse_sweep(text)
        chosen[axis] = sorted({*chosen.get(axis, ()), *values})
    if not groups and not chosen:
        try:
            groups["data"] = [
                Workload.bundled(name, _DATA_HIDDEN, net.activation, dtype)
                for name in (_QUICK_DATA if quick else BUNDLED)
            ]
        except RuntimeError as error:  # the sweeps need no more than the package itself
            complain(f"real data sets are left out: {error}")
        chosen = {axis: [*values] for axis, values in (_QUICK_SWEEPS if quick else _SWEEPS).items()}
        if net.objective.targets.single:
            chosen.pop("K", None)
    for axis, values in chosen.items():
        groups[axis] = [Workload(net, base._replace(**{axis: value}), dtype) for value in values]
    for workload in (workload for group in groups.values() for workload in group):
        if not workload.dataset:
            net.init(1, 1, workload.shape.K)
    return groups


def peers(dtype: str, quick: bool = False) -> Groups:
    """The shapes on which libraries meet, each with a network of its own."""
    return {
        "shapes": [
            Workload(Network(activation, loss), shape, dtype)
            for shape, activation, loss in _PEERS
            if not quick or shape.flops() < _QUICK_FLOPS
        ]
    }


def parse_sweep(text: str) -> tuple[str, list[int]]:
    """Axis and values of a text like "n=100,1000"."""
    axis, equals, values = text.partition("=")
    if axis not in Shape._fields or not equals:
        raise ValueError(f"sweep: expected n, d, M or K = sizes, as in n=100,1000, got {text!r}")
    return axis, [read_integer("sweep", size) for size in parts(values)]
