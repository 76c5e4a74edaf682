"""What is compared by a rule besides what is tested: compiling, and accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Records = Sequence[Mapping[str, Any]]

ROUNDS = 3  # of compiling: a suspicion of the first is measured again


@dataclass(frozen=True)
class Rule:
    """An alarm needs head > factor · base and head > base + least. unit: of the figures."""

    title: str
    unit: str
    factor: float
    least: float


RULES = {
    # The least of two rounds in either order, without the one that raised the suspicion.
    "compile": Rule("plan and first step, compiled", "s", 1.3, 1.0),
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


def judge(kind: str, variant: str, base: float, head: float) -> Cost:
    """Apply the rule of a kind in both directions."""
    rule = RULES[kind]
    verdict = "same"
    for name, low, high in (("worse", base, head), ("better", head, base)):
        if high > rule.factor * low and high > low + rule.least:
            verdict = name
    return Cost(kind, variant, base, head, verdict)


def compiled(records: Records) -> list[Cost]:
    """The compile times of the variants that both sides have.

    records: of both sides in the rounds so far; where there are several, the first is left out.
    """
    figures: dict[str, dict[int, dict[str, float]]] = {}
    for record in (record for record in records if "seconds" in record):
        rounds = figures.setdefault(record["variant"], {})
        rounds.setdefault(record["round"], {})[record["side"]] = record["seconds"]
    found = []
    for variant, rounds in figures.items():
        pairs = [pair for _, pair in sorted(rounds.items()) if len(pair) == 2]
        pairs = pairs[1:] or pairs
        if pairs:
            base, head = (min(pair[side] for pair in pairs) for side in ("base", "head"))
            found.append(judge("compile", variant, base, head))
    return found


def accuracy(right: Records, variant_of: Mapping[str, str]) -> list[Cost]:
    """The largest error over the benchmarks of each variant; variant_of: by benchmark's name."""
    found: dict[str, tuple[float, float]] = {}
    for record in right:
        variant, error = variant_of[record["benchmark"]], record["error"]
        base, head = found.get(variant, (0.0, 0.0))
        found[variant] = max(base, error["base"]), max(head, error["head"])
    return [judge("accuracy", variant, *pair) for variant, pair in found.items()]
