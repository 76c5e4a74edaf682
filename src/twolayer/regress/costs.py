"""What is compared besides the seconds of an epoch: compiling, loading, memory and accuracy.

Each has its own rule, for each scatters in its own way. None takes part in the corrected test.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Rule:
    """An alarm needs head > factor · base and head > base + least. unit: of the figures."""

    title: str
    unit: str
    factor: float
    least: float


RULES = {
    # Minutes may lie between the two sides' compilations, so a suspicion is measured again.
    "compile": Rule("plan and first step, compiled", "s", 1.3, 1.0),
    # Means over the processes, most of which must agree.
    "load": Rule("plan and first step, code from disk", "s", 1.2, 0.02),
    # Resident memory comes in pages, and what malloc keeps differs from process to process.
    "memory": Rule("memory of a plan and a step", "bytes", 1.1, 512 << 10),
    # The same bits in every process: only what rounding in another order makes is allowed.
    "accuracy": Rule("root mean square error of ∇L", "ε", 1.25, 0.05),
}


@dataclass(frozen=True)
class Cost:
    """One variant's figures of one kind on both sides; verdict: "worse", "better" or "same"."""

    kind: str
    variant: str
    base: float
    head: float
    verdict: str


def judge(kind: str, variant: str, base: float, head: float, agreed: bool = True) -> Cost:
    """Apply the rule of a kind in both directions; agreed: whether the processes do."""
    rule = RULES[kind]
    verdict = "same"
    for name, low, high in (("worse", base, head), ("better", head, base)):
        if agreed and high > rule.factor * low and high > low + rule.least:
            verdict = name
    return Cost(kind, variant, base, head, verdict)


def compare(records: Records, variant_of: Mapping[str, str]) -> list[Cost]:
    """Loading, memory and accuracy from the records of timings; variant_of: by benchmark's name."""
    found = []
    for variant in dict.fromkeys(variant_of.values()):
        mine = [r for r in records if variant_of.get(r["benchmark"]) == variant]
        found += [*_load(variant, mine), *_memory(variant, mine), *_accuracy(variant, mine)]
    return found


def compiled(
    base: Mapping[str, float],
    head: Mapping[str, float],
    again: Callable[[Sequence[str]], tuple[Mapping[str, float], Mapping[str, float]]],
) -> list[Cost]:
    """Compile times by variant; what looks worse or better is measured again, and only that counts.

    The first figures may have found code on disk, of an interrupted run or of another variant. The
    least of the later ones decides. again(variants): both sides' figures, with nothing compiled.
    """
    shared = [name for name in base if name in head]
    costs = {name: judge("compile", name, base[name], head[name]) for name in shared}
    fresh: dict[str, tuple[float, float]] = {}
    for _ in range(2):
        suspects = [name for name, cost in costs.items() if cost.verdict != "same"]
        if suspects:
            new_base, new_head = again(suspects)
            for name in suspects:
                if name in new_base and name in new_head:
                    least = fresh.get(name, (float("inf"), float("inf")))
                    fresh[name] = min(least[0], new_base[name]), min(least[1], new_head[name])
                    costs[name] = judge("compile", name, *fresh[name])
    return list(costs.values())


def _load(variant: str, records: Records) -> Iterable[Cost]:
    """The longest first call in each process but the first, which may have compiled."""
    slowest: dict[int, Mapping[str, float]] = {}
    for record in records:
        number = record["process"]
        if not record["first"]:  # two processes, whose first calls are no pair
            return
        if number and max(record["first"].values()) > max(slowest.get(number, {"": 0.0}).values()):
            slowest[number] = record["first"]
    if len(slowest) < 2:
        return
    # Who comes second finds libraries loaded; the sides take turns at that.
    base, head = (statistics.mean(pair[side] for pair in slowest.values()) for side in _SIDES)
    signs = [(pair["head"] > pair["base"]) == (head > base) for pair in slowest.values()]
    yield judge("load", variant, base, head, statistics.mean(signs) >= 0.75)


def _memory(variant: str, records: Records) -> Iterable[Cost]:
    """The largest over the benchmarks of the median over the processes."""
    both = [record for record in records if len(record["memory"]) == 2]
    if both:
        base, head = (_worst(both, "memory", side) for side in _SIDES)
        yield judge("memory", variant, base, head)


def _accuracy(variant: str, records: Records) -> Iterable[Cost]:
    """The largest over the benchmarks."""
    both = [record for record in records if len(record["error"]) == 2]
    if both:
        base, head = (_worst(both, "error", side) for side in _SIDES)
        yield judge("accuracy", variant, base, head)


def _worst(records: Records, figure: str, side: str) -> float:
    by_name: dict[str, list[float]] = {}
    for record in records:
        by_name.setdefault(record["benchmark"], []).append(record[figure][side])
    return max(statistics.median(values) for values in by_name.values())


_SIDES = ("base", "head")
