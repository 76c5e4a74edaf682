"""A choice made: a model makes the shortlist, and a short measurement decides where it is close."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import variants
from ..checking.answers import DISAGREES, Answers
from ..interface import Plan, Variant
from ..machine.hardware import available_memory
from ..machine.store import Store
from ..measuring import timing
from ..measuring.race import TOO_LITTLE, Entry, cause, side_by_side
from ..network import Network, Shape
from . import Progress, Terms, calibrate, known, starts
from .choice import Candidate, Choice, break_even
from .model import Model, Question

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # whoever has set up no logging sees nothing

_MARGIN = 1.02  # times the fastest: what is closer is as good, and the plan in memory decides
_CONTENDERS = 4
_LONGEST = 0.1  # seconds an epoch in a measurement: a longer one runs on fewer rows
# Of each round, how many times the fastest a variant may have taken so far and still take part.
_FAR = (math.inf, 3.0, 1.3)
_NEEDS = "MiB of memory"
NOISE = math.log(1.25)  # how far another measurement of the same may lie, on a shared machine


def choose(
    store: Store, net: Network, q: Question, asked: Terms, fresh: bool, progress: Progress
) -> tuple[Choice, bool]:
    """The choice, and whether it will hold later.

    It will not where the memory that is free now decided it, or a failure that may pass.

    Raises RuntimeError where no variant is left, with the reason of each; MemoryError where memory
    is one.
    """
    shape = Shape(q.n, q.d, q.M, q.K)
    net.init(1, 1, q.K)  # refuses more outputs than the loss has
    field, ruled_out, holds = _field(net, shape, q, asked)
    known_before = set(ruled_out)
    models = _models(store, field, q, ruled_out, fresh, progress)
    if asked.epochs is not None:
        _time_starts(store, models, ruled_out, fresh, progress)
    candidates = [_predict(store, variant, model, q, asked) for variant, model in models.items()]
    by_name = {variant.name: (variant, model) for variant, model in models.items()}
    candidates = _measure(net, q, by_name, candidates, ruled_out)
    ranking = sorted(candidates, key=_rank(asked.epochs))
    while ranking:
        variant, _ = by_name[ranking[0].variant]
        failure = "" if ranking[0].measured else _failure(variant, net, _part(q, ranking[0]))
        if not failure:
            passing = {
                name: reason for name, reason in ruled_out.items()
                if name not in known_before and not reason.startswith(DISAGREES)
            }  # fmt: skip
            for name, reason in passing.items():
                _log.warning("%s is left out this time: %s", name, reason)
            return _choice(ranking, ruled_out, asked), holds and not passing
        ruled_out[variant.name] = failure
        del ranking[0]
    reasons = "; ".join(f"{name} {reason}" for name, reason in ruled_out.items())
    lacks = any(_NEEDS in why or TOO_LITTLE in why for why in ruled_out.values())
    error = MemoryError if lacks else RuntimeError
    raise error(f"no variant is left for {shape}: {reasons}")


def outside() -> list[tuple[str, str]]:
    """The variants from outside of the package, with the digests of their files."""
    return [
        (variant.name, digest) for variant in variants.REGISTRY
        if (digest := calibrate.source(variant))
    ]  # fmt: skip


def _field(
    net: Network, shape: Shape, q: Question, asked: Terms
) -> tuple[list[Variant], dict[str, str], bool]:
    """The variants that can do it, the reasons of the others, and whether free memory was one."""
    free = available_memory() + (q.data_bytes if asked.held else 0)
    field, ruled_out, holds = [], {}, True
    named = asked.variants
    for variant in map(variants.get, named) if named else variants.REGISTRY:
        if variant.device == "any":  # itself a choice
            continue
        if asked.device in variant.devices:
            variant = variant.on(asked.device)
        reason = variant.unavailable()
        if asked.device not in (None, variant.device):
            reason = f"runs on {', '.join(variant.devices)}"
        elif not named and asked.device is None and variant.device == "cluster":
            reason = "runs on a cluster, and is chosen only where it is asked for"
        elif not named and not calibrate.by_default(variant):
            reason = "is another library, and is chosen only where it is named"
        elif asked.deterministic and not variant.reproducible:
            reason = "does not return the same bits each time"
        elif reason is None:
            reason = variant.refusal(net, shape, np.dtype(q.dtype))
        if reason is None:
            needed = _memory(variant, q)
            limit = free if asked.max_memory is None else min(free, asked.max_memory)
            if needed > limit:
                holds = holds and limit == asked.max_memory
                reason = (
                    f"needs {needed / 2**20:.0f} {_NEEDS}, "
                    f"{limit / 2**20:.0f} MiB are {'free' if limit == free else 'allowed'}"
                )
        if reason is None:
            field.append(variant)
        else:
            ruled_out[variant.name] = reason
    return field, ruled_out, holds


def _memory(variant: Variant, q: Question) -> int:
    """Bytes of X, Y, θ as passed in, the plan's θ and ∇L, and the variant's buffers."""
    parameters = q.M * (q.d + q.K) * q.itemsize
    workspace = variant.workspace(Shape(q.n, q.d, q.M, q.K), q.itemsize, q.threads)
    return q.data_bytes + 3 * parameters + workspace


def _models(
    store: Store, field: Sequence[Variant], q: Question, ruled_out: dict[str, str], fresh: bool,
    progress: Progress,
) -> dict[Variant, Model]:  # fmt: skip
    """The models of the variants, calibrated now where they are not known."""
    wanted = calibrate.tasks(field, [q.dtype], [q.threads])
    failed: dict[calibrate.Task, str] = {}
    if todo := calibrate.missing(store, wanted, fresh):
        _log.info("calibrating %d variants, once for this machine and version", len(todo))
        units = _counted(progress, len(todo) * calibrate.UNITS)
        failed = calibrate.calibrate(store, todo, units, fresh)
    found = {}
    for task in wanted:
        entry = task.entry(store)
        if task in failed or entry is None:
            ruled_out[task.variant.name] = failed.get(task, "could not be calibrated")
        elif entry.model is None:
            ruled_out[task.variant.name] = entry.failure
        else:
            found[task.variant] = entry.model
    return found


def _time_starts(
    store: Store, models: dict[Variant, Model], ruled_out: dict[str, str], fresh: bool,
    progress: Progress,
) -> None:  # fmt: skip
    """Time the starts that are not known; who does not start is no candidate."""
    if not (todo := starts.missing(store, [*models], fresh)):
        return
    _log.info("timing %d starts of a process, once for this machine and version", len(todo))
    failed = starts.time_starts(store, todo, _counted(progress, len(todo)))
    ruled_out |= failed
    for variant in [variant for variant in models if variant.name in failed]:
        del models[variant]


def _counted(progress: Progress, total: int) -> calibrate.Progress:
    """What is called with the units done since the last call, of so many."""
    done = 0

    def add(what: str, units: int) -> None:
        nonlocal done
        done += units
        progress(what, done, total)

    return add


def _predict(store: Store, variant: Variant, model: Model, q: Question, asked: Terms) -> Candidate:
    seconds = model.seconds(q)
    spread = math.exp(model.spread)
    before = model.plan_seconds(q)
    if asked.epochs is not None:
        cached, cold = known.start(store, variant.name, variant.device) or (0.0, 0.0)
        before += cold if asked.cold else cached
    return Candidate(
        variant.name, seconds, (seconds / spread, seconds * spread), False, _memory(variant, q),
        before, model.parts(q),
    )  # fmt: skip


def _rank(epochs: int | None) -> Any:
    return lambda c: c.seconds if epochs is None else c.total(epochs)


def _measure(
    net: Network,
    q: Question,
    models: dict[str, tuple[Variant, Model]],
    candidates: Sequence[Candidate],
    ruled_out: dict[str, str],
) -> list[Candidate]:
    """The candidates, those measured anew that the models cannot tell from the best.

    Where a measurement takes longer than the prediction of one that was left out, that one is
    measured too. One that is wrong, or finds too little memory as a GPU's can be, is ruled out.
    """
    found = {c.variant: c for c in candidates}
    close, tried = _close(candidates), set[str]()
    on_gpu = any(models[c.variant][0].device == "cuda" for c in close)  # which may be too small
    if len(candidates) < 2 or (len(close) < 2 and not on_gpu):
        return list(candidates)
    part = _part(q, close[0])
    while close:
        timed = _race(net, part, [models[c.variant][0] for c in close])
        for c in close:
            figures = timed.get(c.variant)
            if isinstance(figures, str):
                ruled_out[c.variant] = figures
                del found[c.variant]
            elif figures is not None:
                model = models[c.variant][1]
                scale = model.seconds(q) / model.seconds(part)
                low, seconds, high = (scale * value for value in figures)
                noise = math.exp(NOISE)
                interval = (min(low, seconds / noise), max(high, seconds * noise))
                found[c.variant] = replace(c, seconds=seconds, interval=interval, measured=True)
        tried |= {c.variant for c in close}
        left = [c for c in found.values() if not c.measured and c.variant not in tried]
        best = min((c.seconds for c in found.values() if c.measured), default=None)
        close = _close(left) if best is None else [c for c in left if c.seconds < best]
    return list(found.values())


def _close(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first of those that may be the best as far as the models can tell."""
    certain = min((c.interval[1] for c in candidates), default=0.0)
    close = sorted((c for c in candidates if c.interval[0] <= certain), key=lambda c: c.seconds)
    return close[:_CONTENDERS]


def _part(q: Question, candidate: Candidate) -> Question:
    """The question with fewer rows where an epoch would take too long, or memory is short."""
    factor = min(1.0, _LONGEST / candidate.seconds, available_memory() / 4 / q.data_bytes)
    return q._replace(n=max(1, int(q.n * factor)))


def _plan(variant: Variant, answers: Answers, threads: int) -> Plan | str:
    """A plan that was held to the answers, or why the variant is ruled out."""
    try:
        plan = variant.plan(*answers.problem, threads)
        answers.hold(plan)
    except Exception as error:  # whatever a variant raises is its own affair
        return cause(error)
    return plan


def _failure(variant: Variant, net: Network, q: Question) -> str:
    """Nothing, or why a variant that was not measured is ruled out."""
    try:
        answers = Answers.drawn(net, Shape(q.n, q.d, q.M, q.K), q.dtype)
    except MemoryError as error:
        return cause(error)
    found = _plan(variant, answers, q.threads)
    return found if isinstance(found, str) else ""


def _race(
    net: Network, q: Question, field: Sequence[Variant]
) -> dict[str, timing.Quartiles | str]:  # fmt: skip
    """Quartiles of the seconds an epoch, by blocks in alternating order, or why it is ruled out."""
    answers = Answers.drawn(net, Shape(q.n, q.d, q.M, q.K), q.dtype)
    entries, running = [Entry(variant) for variant in field], []
    for entry in entries:
        found = _plan(entry.variant, answers, q.threads)
        if isinstance(found, str):
            entry.skipped = found
        else:
            running.append((entry, found))
    side_by_side(running, answers, q.threads, _FAR)
    return {entry.variant.name: entry.skipped or entry.seconds for entry in entries}


def _choice(ranking: Sequence[Candidate], ruled_out: dict[str, str], asked: Terms) -> Choice:
    best, others = ranking[0], tuple(ranking[1:])
    from_on = break_even(ranking) if asked.epochs is not None else ()
    total = None if asked.epochs is None else best.total(asked.epochs)
    return Choice(
        best.variant, best.seconds, best.interval, _reason(best, others, asked), best.memory, best,
        others, tuple(ruled_out.items()), asked.epochs, total, from_on,
    )  # fmt: skip


def _reason(best: Candidate, others: Sequence[Candidate], asked: Terms) -> str:
    if not others:
        return f"{best.variant} is the only variant that can do it here"
    second = others[0]
    value = _rank(asked.epochs)
    what = "an epoch" if asked.epochs is None else f"{asked.epochs} epochs from the start"
    ratio = value(second) / value(best)
    how = "measured" if best.measured else "predicted"
    if best.measured and second.measured and ratio < _MARGIN:
        return (
            f"{best.variant} and {second.variant} take the same time for {what} within "
            f"{100 * (_MARGIN - 1):.0f}%, as measured on this shape"
        )
    return (
        f"{best.variant} is {how} to take the least time for {what}, {second.variant} "
        f"{ratio:.2f} times as much"
    )
