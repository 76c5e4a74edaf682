"""What a report is made of, and on which shapes it is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..checking.verify import Agreement
from ..interface import Variant
from ..machine.calm import Calm
from ..measuring.race import Result, Workload, distinct
from ..measuring.roofline import Roofline
from ..measuring.startup import Start
from ..network import Network, Shape
from . import fits

BASE = Shape(n=10_000, d=30, M=100, K=3)
# One size at a time; the others as in the base.
SWEEPS = {
    "n": (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000),
    "d": (3, 10, 30, 100, 300, 1_000),
    "M": (3, 10, 30, 100, 300, 1_000),
    "K": (1, 3, 10, 30, 100),
}
# Two sizes at a time; what the sweeps share with them is measured once.
MAPS = {
    ("n", "M"): ((1, 10, 100, 1_000, 10_000, 100_000), (10, 30, 100, 300, 1_000)),
    ("d", "M"): ((10, 30, 100, 300, 1_000), (10, 30, 100, 300, 1_000)),
}
CLOSE = 1.5  # times the fastest's time, beyond which a variant in the sweeps wins nowhere near
ROOFED = (3, 30, 100, 1_000)  # hidden units, to which the flop a byte is about proportional


@dataclass
class Study:
    """All figures of one network, dtype and number of threads.

    variants: those wanted, runnable here or not. sweeps: results by axis. maps: results by two
    axes. starts: before the first epoch of `base`, by variant; started: what was met meanwhile.
    agreements: with the oracle, by
    variant, in both dtypes.
    """

    net: Network
    dtype: str
    threads: int
    variants: list[Variant]
    roof: Roofline
    sweeps: dict[str, list[Result]] = field(default_factory=dict)
    maps: dict[tuple[str, str], list[Result]] = field(default_factory=dict)
    starts: dict[str, Start] = field(default_factory=dict)
    started: dict[str, Calm] = field(default_factory=dict)
    agreements: dict[str, list[Agreement]] = field(default_factory=dict)

    @property
    def base(self) -> Workload:
        """The problem that all sweeps share."""
        return Workload(self.net, self.net.with_outputs(BASE), self.dtype)

    @property
    def swept(self) -> list[Result]:
        """The results of all sweeps, each once."""
        return distinct(self.sweeps)

    @property
    def mapped(self) -> list[Result]:
        """The results of all maps, each once."""
        return distinct({"-".join(axes): results for axes, results in self.maps.items()})

    @property
    def results(self) -> list[Result]:
        """All results, each once."""
        return distinct({"swept": self.swept, "mapped": self.mapped})

    @property
    def at_base(self) -> Result:
        """The result of `base`."""
        return next(result for result in self.swept if result.workload == self.base)

    @property
    def roofed(self) -> list[Result]:
        """Results on the CPU that are apart in flop a byte, for its roofline."""
        on_cpu = [r.on("cpu") for r in self.sweeps["M"] if r.workload.shape.M in ROOFED]
        return [result for result in on_cpu if result.ranking]

    def costs(self, cached: bool) -> dict[str, tuple[float, float]]:
        """Seconds until the first epoch of `base` and of each further one, by variant."""
        found = {}
        for entry in self.at_base.ranking:
            start = self.starts.get(entry.variant.name, Start())
            first = start.cached if cached else start.cold
            if first is not None:
                found[entry.variant.name] = (first, entry.seconds.median)
        return found

    def reigns(self, cached: bool) -> list[fits.Reign]:
        """Who takes the least time in all on `base`, from how many epochs on."""
        costs = self.costs(cached)
        return fits.reigns(costs) if costs else []


def workloads(net: Network, dtype: str) -> tuple[
    dict[str, list[Workload]], dict[tuple[str, str], list[Workload]]
]:  # fmt: skip
    """The problems of the sweeps by axis, and those of the maps by two axes."""
    base = net.with_outputs(BASE)

    def problems(shapes: Iterator[Shape]) -> list[Workload]:
        return [Workload(net, shape, dtype) for shape in shapes]

    sweeps = {
        axis: problems(base._replace(**{axis: size}) for size in sizes)
        for axis, sizes in SWEEPS.items()
        if axis != "K" or not net.objective.targets.single
    }
    maps = {
        (x, y): problems(
            base._replace(**{x: i, y: j}) for j in MAPS[x, y][1] for i in MAPS[x, y][0]
        )
        for x, y in MAPS
    }
    return sweeps, maps


def contenders(results: Sequence[Result], within: float = CLOSE) -> list[Variant]:
    """The variants that came within so many times the fastest's time on at least one problem."""
    found = {
        entry.variant.name: entry.variant
        for result in results
        for entry in result.ranking
        if entry.seconds.median <= within * result.ranking[0].seconds.median
    }
    return list(found.values())
