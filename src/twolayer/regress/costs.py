"""What goes by a rule and is not tested: compiling, accuracy, and what could not be timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

Records = Sequence[Mapping[str, Any]]

ROUNDS = 4  # of compiling: a suspicion is measured again until a round does not share it


@dataclass(frozen=True)
class Rule:
    """An alarm needs head > factor · base and head > base + least. unit: of the figures."""

    title: str
    unit: str
    factor: float
    least: float


RULES = {
    # In each of four rounds.
    "compile": Rule("plans and first steps, compiled", "s", 1.3, 1.0),
    # The same bits in every process: only what rounding in another order makes is allowed.
    "accuracy": Rule("root mean square error of ∇L", "ε", 1.25, 0.05),
}


@dataclass(frozen=True)
class Cost:
    """One variant's figures of one kind on both sides; verdict: "worse", "better" or "same".

    excuse: "accepted" where it is wanted, or nothing.
    """

    kind: str
    variant: str
    base: float
    head: float
    verdict: str
    excuse: str = ""

    @property
    def regression(self) -> bool:
        """Whether it raises the alarm of a run."""
        return self.verdict == "worse" and not self.excuse


class Note(NamedTuple):
    """What is told of a benchmark that was not timed; seconds: of an epoch in the head, if known.

    kind: "failed"; "repaired", where only the base does; "lost", what only the base has, and "new",
    what only the head has; "far", a head too slow to be timed; "absent", left out.
    """

    kind: str
    benchmark: str
    sentence: str
    seconds: float | None = None
    accepted: bool = False


def judge(kind: str, variant: str, base: float, head: float) -> Cost:
    """Apply the rule of a kind in both directions."""
    rule = RULES[kind]
    verdict = "same"
    for name, low, high in (("worse", base, head), ("better", head, base)):
        if high > rule.factor * low and high > low + rule.least:
            verdict = name
    return Cost(kind, variant, base, head, verdict)


def compiled(records: Records, least: int | None = None) -> list[Cost]:
    """The compile times of the variants, over the problems that both sides have.

    records: of both sides. A verdict is that of every round, of `ROUNDS` or so many at least; the
    figures are those of the fastest one.
    """
    figures: dict[str, dict[int, dict[str, dict[str, float]]]] = {}
    for record in (record for record in records if "seconds" in record):
        sides = figures.setdefault(record["variant"], {}).setdefault(record["round"], {})
        sides.setdefault(record["side"], {})[record["problem"]] = record["seconds"]
    found = []
    for variant, rounds in figures.items():
        pairs = []
        for _, sides in sorted(rounds.items()):
            base, head = (sides.get(side, {}) for side in ("base", "head"))
            if both := base.keys() & head.keys():
                pairs.append([sum(side[problem] for problem in both) for side in (base, head)])
        each = [judge("compile", variant, *pair) for pair in pairs]
        if each:
            shared = len(each) >= (least or ROUNDS) and len({cost.verdict for cost in each}) == 1
            verdict = each[0].verdict if shared else "same"
            found.append(replace(min(each, key=lambda c: c.base + c.head), verdict=verdict))
    return found


def accuracy(right: Records, variant_of: Mapping[str, str]) -> list[Cost]:
    """The largest error over the benchmarks of each variant; variant_of: by benchmark's name."""
    found: dict[str, tuple[float, float]] = {}
    for record in right:
        variant, error = variant_of[record["benchmark"]], record["error"]
        base, head = found.get(variant, (0.0, 0.0))
        found[variant] = max(base, error["base"]), max(head, error["head"])
    return [judge("accuracy", variant, *pair) for variant, pair in found.items()]
