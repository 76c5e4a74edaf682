"""A choice made: a race decides, and start-up or memory where it is close."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..interface import Variant
from ..machine import calm
from ..machine.store import Store
from ..measuring import timing
from ..measuring.race import REFERENCE, Entry, cause
from ..network import Network, Shape
from ..texts import TOO_LITTLE
from . import Progress, Terms, known
from .choice import Candidate, Choice, Question, Span, break_even
from .contest import FAR, contest, usable
from .field import NEEDS, able, memory
from .starts import PROCESSES, start

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # whoever has set up no logging sees nothing

MARGIN = 1.02  # times the fastest: what is closer is as good
NOISE = math.log(1.5)  # how far another measurement of the same may lie, on a shared machine


def choose(
    store: Store, net: Network, q: Question, asked: Terms, fresh: bool, progress: Progress
) -> tuple[Choice, bool]:
    """The choice, and whether it will hold later.

    It will not where the memory that is free now decided it, a failure that may pass, or what
    others did on this machine. Raises RuntimeError where no variant is left, with the reason of
    each; MemoryError where memory is one.
    """
    net.init(1, 1, q.K)  # refuses more outputs than the loss has
    field, ruled_out, holds = able(net, q, asked)
    order = [*known.winners(store, q), REFERENCE]
    field.sort(key=lambda v: order.index(v.name) if v.name in order else len(order))
    add = _counted(progress, len(field) * (len(FAR) + 1))
    _log.info("timing %d variants for %s", len(field), Shape(q.n, q.d, q.M, q.K))
    watch = calm.Watch()
    try:
        entries, rows = contest(net, q, field, add) if field else ([], q.n)
    except MemoryError as error:
        ruled_out |= {variant.name: cause(error) for variant in field}
        entries, rows = [], q.n
    passing = {}
    candidates = []
    for entry in entries:
        if usable(entry):
            candidates.append(_candidate(entry, q, rows))
        else:
            ruled_out[entry.variant.name] = entry.skipped
            if entry.passing:
                passing[entry.variant.name] = entry.skipped
    if asked.epochs is not None:
        by_name = {entry.variant.name: entry.variant for entry in entries}
        candidates, failed = _started(store, candidates, by_name, asked, fresh, progress)
        passing |= failed
        ruled_out |= failed
    met = watch.calm()
    if not any(c.blocks for c in candidates):
        reasons = "; ".join(f"{name} {reason}" for name, reason in ruled_out.items())
        lacks = any(NEEDS in why or TOO_LITTLE in why for why in ruled_out.values())
        none = MemoryError if lacks else RuntimeError
        raise none(f"no variant is left for {Shape(q.n, q.d, q.M, q.K)}: {reasons}")
    for name, reason in passing.items():
        _log.warning("%s is left out this time: %s", name, reason)
    disturbed = " and ".join(met.reasons)
    choice = replace(_choice(candidates, entries, ruled_out, rows, asked), calm=disturbed)
    return choice, holds and not passing and not disturbed


def _counted(progress: Progress, total: int) -> Callable[[str, int], None]:
    """What is called with the units done since the last call, of so many."""
    done = 0

    def add(what: str, units: int) -> None:
        nonlocal done
        done += units
        progress(what, done, total)

    return add


def _candidate(entry: Entry, q: Question, rows: int) -> Candidate:
    """What is known of an entry, for an epoch of all n."""
    scale = q.n / (min(q.batch, rows) if q.batch else rows)
    if entry.blocks:
        low, median, high = (scale * seconds for seconds in timing.quartiles(entry.blocks))
    else:
        low = median = high = scale * (entry.estimate or 0.0)
    noise = math.exp(NOISE)
    seconds = Span(min(low, median / noise), median, max(high, median * noise))
    plan = (entry.plan or 0.0) * q.n / rows  # nearly all of it are checks and copies of X
    return Candidate(
        entry.variant.name, seconds, len(entry.blocks), memory(entry.variant, q), plan
    )  # fmt: skip


def _started(
    store: Store, candidates: Sequence[Candidate], variants: dict[str, Variant], asked: Terms,
    fresh: bool, progress: Progress,
) -> tuple[list[Candidate], dict[str, str]]:  # fmt: skip
    """The candidates with the start of a process, where they can win; and who cannot start."""
    epochs = asked.epochs or 0
    add = _counted(progress, len(candidates) * PROCESSES)
    best, found, failed = math.inf, [], {}
    for candidate in sorted(candidates, key=lambda c: c.seconds.median):
        # Those that follow take longer for the epochs alone.
        if candidate.blocks and candidate.total(epochs) < best:
            try:
                begin = start(store, variants[candidate.variant], asked.cold, fresh, add)
            except RuntimeError as error:
                failed[candidate.variant] = f"did not start in a new process: {error}"
                continue
            candidate = replace(candidate, start=begin)
            best = min(best, candidate.total(epochs))
        else:
            add("", PROCESSES)
        found.append(candidate)
    return found, failed


def _choice(
    candidates: Sequence[Candidate], entries: Sequence[Entry], ruled_out: dict[str, str],
    rows: int, asked: Terms,
) -> Choice:  # fmt: skip
    """The best of the candidates; of several that are as good the one that needs the least."""
    epochs = asked.epochs

    def value(c: Candidate) -> float:
        return c.seconds.median if epochs is None else c.total(epochs)

    timed = [c for c in candidates if c.blocks]
    if epochs is not None:  # without a start: it cannot win, or none of them has one
        timed = [c for c in timed if c.start] or timed
    least = min(map(value, timed))
    ties = [c for c in timed if value(c) <= MARGIN * least]
    best = min(ties, key=lambda c: (c.memory >> 20 if epochs is None else c.before, value(c)))
    blocks = {entry.variant.name: entry.blocks for entry in entries}
    mine = blocks[best.variant]
    others = []
    for c in sorted(candidates, key=lambda c: (c not in timed, value(c))):
        if c is not best:
            ratios = [a / b for a, b in zip(blocks[c.variant], mine, strict=False)]
            of_medians = c.seconds.median / best.seconds.median  # as the reason says
            span = Span(min([*ratios, of_medians]), of_medians, max([*ratios, of_medians]))
            others.append(replace(c, ratio=span if ratios else None))
    turns = break_even([c for c in timed if c.start]) if epochs is not None and best.start else ()
    second = min((value(c) for c in timed if c is not best), default=0.0)
    reason = _reason(best, others, ties, second / value(best), asked)
    return Choice(
        best.variant, reason, best, tuple(others), tuple(ruled_out.items()), rows, epochs, turns
    )


def _reason(
    best: Candidate, others: Sequence[Candidate], ties: Sequence[Candidate], ratio: float,
    asked: Terms,
) -> str:  # fmt: skip
    """Why it is the best; others, the second one first, which takes `ratio` times as long."""
    if not others:
        return f"{best.variant} is the only variant that can do it here"
    epochs = asked.epochs
    what = "an epoch" if epochs is None else f"{epochs} epochs from the start"
    if len(ties) > 1:
        names = [c.variant for c in ties if c.variant != best.variant]
        needs = "the least memory" if epochs is None else "the shortest start"
        return (
            f"{best.variant} and {', '.join(names)} take the same time for {what} within "
            f"{100 * (MARGIN - 1):.0f}%, and {best.variant} has {needs}"
        )
    took = f"{best.variant} took the least time for {what}"
    if not ratio:  # nobody else was worth a closer look
        longer = "was left behind" if epochs is None else "takes longer for the epochs alone"
        return f"{took}, every other variant {longer}"
    return f"{took}, {others[0].variant} {ratio:.2f} times as much"
