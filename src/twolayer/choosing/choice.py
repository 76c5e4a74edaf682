"""The answer to "which variant?", and how it goes to the store and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """A variant that could have been chosen, with what is known of it.

    seconds: an epoch; interval: from and to, in which 95% of such times are expected to
    lie; measured: whether this shape was timed, else it is the model's prediction; memory: bytes of
    X, Y, θ, ∇L and all buffers; before: seconds before the first epoch in a new process, for
    imports, compiling or loading code, checks and copies; terms: the model's seconds by term.
    """

    variant: str
    seconds: float
    interval: tuple[float, float]
    measured: bool
    memory: int
    before: float
    terms: Mapping[str, float]

    def total(self, epochs: int) -> float:
        """Seconds of a process that runs so many epochs."""
        return self.before + epochs * self.seconds


@dataclass(frozen=True)
class Choice:
    """The variant to take, and why.

    seconds_per_epoch, interval and memory are those of the chosen one. runners_up: the others, best
    first. ruled_out: variants and reasons. break_even: for rising numbers of epochs, the variant
    that is the best from there on, if a new process has to make its plan first.
    """

    variant: str
    seconds_per_epoch: float
    interval: tuple[float, float]
    reason: str
    memory: int
    chosen: Candidate
    runners_up: tuple[Candidate, ...]
    ruled_out: tuple[tuple[str, str], ...]
    epochs: int | None
    total_seconds: float | None
    break_even: tuple[tuple[int, str], ...]

    def to_json(self) -> dict[str, Any]:
        """The choice as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Choice:
        """The choice that `to_json` wrote. Raises KeyError or TypeError for anything else."""
        found = dict(values)
        found["chosen"] = _candidate(found["chosen"])
        found["runners_up"] = tuple(map(_candidate, found["runners_up"]))
        found["interval"] = tuple(found["interval"])
        for name in ("ruled_out", "break_even"):
            found[name] = tuple((first, second) for first, second in found[name])
        return cls(**found)


def _candidate(values: Mapping[str, Any]) -> Candidate:
    return Candidate(**{**values, "interval": tuple(values["interval"])})


def break_even(candidates: Iterable[Candidate]) -> tuple[tuple[int, str], ...]:
    """(epochs, variant) for rising epochs: who is the best from there on; the first is from 1 on.

    The lower envelope of the lines before + epochs · seconds.
    """
    left = list(candidates)
    epochs, found = 1, []
    while True:
        best = min(left, key=lambda c: (c.total(epochs), c.seconds))
        found.append((epochs, best.variant))
        left = [c for c in left if c.seconds < best.seconds]
        if not left:
            return tuple(found)
        epochs = max(
            epochs + 1,
            min(int((c.before - best.before) / (best.seconds - c.seconds)) + 1 for c in left),
        )
