"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..machine import calm as calms
from ..machine.hardware import fingerprint
from ..measuring import race
from ..showing.plot import theme
from ..showing.plot.style import styles
from ..showing.units import count, duration
from ..texts import counted, missing
from . import fits
from .figures import Named, figures
from .study import CLOSE, Study, contenders

_TEMPLATE = "page.html.jinja"
_FACTS = {
    "cpu": "processor",
    "cpus": "CPUs of this process",
    "cpu_target": "compiled for",
    "caches": "caches, bytes",
    "os": "system",
    "python": "Python",
    "libraries": "libraries",
    "blas": "BLAS",
    "gpus": "GPUs",
    "sources": "digest of the sources",
}


class Table(NamedTuple):
    """A caption, the columns' heads, and rows of as many cells."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def check() -> None:
    """Raise RuntimeError where what draws the page is not installed."""
    for package in ("jinja2", "matplotlib"):
        try:
            __import__(package)
        except ImportError:
            raise RuntimeError(missing("report: needs", package, "bench")) from None


def render(study: Study, machine: str, date: str, command: str, skipped: Iterable[str] = ()) -> str:
    """The page. Arguments: machine, a line; date, ISO; command; skipped, a line for each reason."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
    )  # fmt: skip
    return environment.get_template(_TEMPLATE).render(
        study=study, machine=machine, date=date, command=command, skipped=_skipped(study),
        light=theme.LIGHT, dark=theme.DARK, drawn=[_drawn(named) for named in figures(study)],
        summary=list(summary(study)), exponents=_exponents(study), starts=_starts(study),
        close=f"{CLOSE:g}", rivals=", ".join(variant.name for variant in contenders(study.swept)),
        roof=f"Peak {study.roof.flops / 1e9:.0f} GFLOP/s, memory "
        f"{study.roof.bandwidth / 1e9:.1f} GB/s, the best found during the run.",
        fingerprint=_facts(),
    )  # fmt: skip


def summary(study: Study) -> Iterable[str]:
    """What the figures say, in sentences, and what they were measured in."""
    met = [result.calm for result in study.results]
    disturbed = sum(bool(calm.reasons) for calm in met)
    if note := calms.note([*met, *study.started.values()]):
        yield (
            f"{note[:-1]}: {disturbed} of {counted(len(met), 'problem')}. --wait-calm 60 waits "
            "for calm and measures them again."
        )
    cells = [result for result in study.mapped if result.ranking]
    wins: dict[str, int] = {}
    for result in cells:
        name = result.ranking[0].variant.name
        wins[name] = wins.get(name, 0) + 1
    leads = [
        result.ranking[1].seconds.median / result.ranking[0].seconds.median
        for result in cells
        if len(result.ranking) > 1
    ]
    if leads:
        ranked = sorted(wins.items(), key=lambda item: -item[1])
        text = ", ".join(f"{name} on {number}" for name, number in ranked)
        yield (
            f"Fastest on {counted(len(cells), 'problem')}: {text}; in the median "
            f"{statistics.median(leads):.2f} times as fast as the second."
        )
    for cached, when in ((True, "Compiled code on disk"), (False, "Nothing compiled yet")):
        if reigns := study.reigns(cached):
            text = ", ".join(
                f"{reign.variant}{f' from {reign.epochs} epochs on' if i else ''}"
                for i, reign in enumerate(reigns)
            )
            yield f"{when}, least time in all on {study.base}: {text}."
    checked = [a for found in study.agreements.values() for a in found]
    if checked:
        worst = max(checked, key=lambda a: math.inf if math.isnan(a.ratio) else a.ratio)
        wrong = sorted({a.variant for a in checked if not a.agrees})
        if wrong:
            yield f"Wrong: {', '.join(wrong)}. Do not use what disagrees with the oracle."
        else:
            variants = {a.variant for a in checked}
            yield (
                f"{counted(len(variants), 'variant')} checked, all agree with the oracle; "
                "the largest error is "
                f"{worst.ratio:.2g} of its bound ({worst.variant}, {worst.dtype})."
            )


def _drawn(named: Named) -> dict[str, Any]:
    from markupsafe import Markup

    return {"name": named.name, "svg": Markup(theme.inline(named.draw, named.name, named.label))}


def _exponents(study: Study) -> Table:
    found = {axis: fits.fits(axis, results) for axis, results in study.sweeps.items()}
    names = styles(study.swept)
    rows = [[name, *(_exponent(fit.get(name)) for fit in found.values())] for name in names]
    caption = (
        "Exponent ± standard error of a straight line through the logarithms, the sizes between "
        "which it holds, and how far a point is off the line at most; – where three sizes or more "
        f"do not lie within {fits.STRAIGHT - 1:.0%} of one."
    )
    return Table(caption, ["variant", *found], rows)


def _exponent(fit: fits.Fit | None) -> str:
    if fit is None:
        return "–"
    return (
        f"{fit.exponent:.2f} ± {fit.error:.2f} ({count(fit.first)} to {count(fit.last)}, "
        f"{fit.spread - 1:.0%})"
    )


def _starts(study: Study) -> Table:
    costs = {cached: study.costs(cached) for cached in (True, False)}
    quickest = {cached: found[0].variant for cached in costs if (found := study.reigns(cached))}
    rows = []
    for name, start in study.starts.items():
        entry = study.at_base.of(name)
        overtaking = []
        for cached, first in quickest.items():
            both = costs[cached]
            epochs = fits.overtakes(both[name], both[first]) if name in both else None
            own = name == first
            overtaking.append(
                "–" if epochs is None and not own else "first" if own else f"{epochs}"
            )
        rows.append(
            [
                study.started[name].mark(name) if name in study.started else name,
                *("–" if s is None else duration(s) for s in (start.cached, start.cold)),
                duration(entry.seconds.median) if entry else "–",
                *overtaking,
            ]
        )
    heads = ["variant", "first epoch, code on disk", "first epoch, compiled", "an epoch"]
    for cached, first in quickest.items():
        heads.append(f"ahead of {first} from{'' if cached else ', compiled'}")
    caption = (
        "Seconds from the start of Python until the first epoch is done, and the number of epochs "
        "from which on a variant takes less time in all than whoever is done first; – for never."
    )
    return Table(caption, heads, rows)


def _skipped(study: Study) -> list[str]:
    """A line for each variant that has no figure somewhere, and why."""
    lines = [
        f"{variant.name}: {reason}."
        for variant in study.variants
        if (reason := variant.unavailable())
    ]
    found: dict[tuple[str, str], int] = {}
    for entry in (entry for result in study.results for entry in result.entries):
        if entry.skipped:
            # How long it would have taken differs from problem to problem.
            slow = entry.skipped.startswith(race.TOO_SLOW)
            key = entry.variant.name, "too slow" if slow else entry.skipped
            found[key] = found.get(key, 0) + 1
    lines += [f"{name}: {why} ({counted(n, 'problem')})." for (name, why), n in found.items()]
    failed = {name: start.failure for name, start in study.starts.items() if start.failure}
    lines += [f"{name}: {why} (first call)." for name, why in failed.items()]
    return lines


def _facts() -> dict[str, str]:
    found = fingerprint()
    texts = {}
    for key, name in _FACTS.items():
        value = found[key]
        texts[name] = ", ".join(value) if isinstance(value, list) else str(value)
    return {name: text for name, text in texts.items() if text}
