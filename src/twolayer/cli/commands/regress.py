"""`twolayer regress`: two revisions against each other, benchmark by benchmark."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ... import variants as registry
from ...interface import check_threads
from ...network import Network, float_type
from ...progress import Bar
from ...regress.decide import SLOWEST
from ...regress.dependency import Turns, environment
from ...regress.history import COSTS, Judgement, accepted, commits, subject
from ...regress.history import bisect as search
from ...regress.revisions import Revision, export, export_base, inside, results_file
from ...regress.run import LIMIT, SECONDS, Outcome, Run
from ...regress.suite import Benchmark, benchmarks
from ...showing import output, revisions
from ...texts import meant, parts
from .. import codes, options
from ..calm import Waiting


def regress(
    base: Annotated[str, typer.Argument(help="The revision to compare with.")],
    head: Annotated[
        str | None, typer.Argument(help="The revision to judge, by default the working tree.")
    ] = None,
    shape: options.Shapes = None,
    variants: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between; by default our own for the device.",
            rich_help_panel=options.VARIANTS,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu or cuda, by default cpu, or each named one's own.",
            rich_help_panel=options.VARIANTS,
        ),
    ] = None,
    variant_file: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file of the repository with variants, compared alone; repeatable.",
            rich_help_panel=options.VARIANTS,
        ),
    ] = None,
    dtype: options.Dtype = "float32",
    activation: options.Activation = "tanh",
    loss: options.Loss = "squared",
    threads: options.Threads = None,
    seconds: Annotated[
        float,
        typer.Option(
            help="Seconds of turns, with what is made for them, of a benchmark in each process.",
            rich_help_panel=options.MEASURING,
        ),
    ] = SECONDS,
    budget: Annotated[
        float,
        typer.Option(
            help="Seconds for all processes; four are run in any case.",
            rich_help_panel=options.MEASURING,
        ),
    ] = LIMIT,
    dep: Annotated[
        str | None,
        typer.Option(
            help="A package, whose versions BASE and HEAD are; on the working tree.",
            rich_help_panel=options.MEASURING,
        ),
    ] = None,
    costly: Annotated[
        bool,
        typer.Option(
            "--costs/--no-costs",
            help="Compare compiling, first steps and memory, too.",
            rich_help_panel=options.MEASURING,
        ),
    ] = True,
    tolerance: Annotated[
        str,
        typer.Option(
            metavar="2%",
            help="The share by which a step may be slower.",
            rich_help_panel=options.MEASURING,
        ),
    ] = "0%",
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Compare with BASE itself, not with where it was left.",
            rich_help_panel=options.MEASURING,
        ),
    ] = False,
    bisect: Annotated[
        bool,
        typer.Option(
            "--bisect",
            help="Find the commit between BASE and HEAD that is slower.",
            rich_help_panel=options.MEASURING,
        ),
    ] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A variant or benchmark whose cost is wanted.",
            rich_help_panel=options.MEASURING,
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            help="Write the table to this file, for a pull request.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    wait_calm: options.WaitCalm = 0.0,
    json: options.JsonFile = None,
) -> None:
    """Compare two revisions: exit code 0 no regression, 1 a regression, 2 a failure, 3 too little.

    Both are loaded into one process under two names, checked, and take turns on the same problems,
    in several fresh processes. A run that was interrupted goes on where it was. BASE stands for the
    commit where HEAD left it. A commit's trailer `Regress-Accept: NAME` accepts a cost.
    """
    share = _share(tolerance)
    waiting = Waiting(wait_calm)
    output.check_writable(markdown=markdown, json=json)
    output.check_unread(*(variant_file or ()))
    options.positive_seconds("seconds", seconds)
    options.positive_seconds("budget", budget)
    net = Network(activation, loss)
    kind = float_type("dtype", dtype).name
    names = None if variants is None else parts(variants)
    suite = benchmarks(net, kind, shape or (), names, device)
    if threads is not None:
        check_threads(threads)
    files = list(dict.fromkeys(inside(file) for file in variant_file or ()))
    pythons: dict[str, Path] = {}
    wanted = dict.fromkeys(accept or (), "")
    if bisect and (head is None or dep is not None):
        raise ValueError("--bisect: expected two revisions, the good one and the bad one")
    if bisect:
        options.refuse("with --bisect", exact=exact, markdown=markdown, json=json)
    if dep is not None:
        options.refuse("with --dep", exact=exact)
    if dep is None:
        complain = output.complain
        sides = (
            export_base(base, head, exact or bisect, complain, files),
            export(head, "head", complain, files),
        )
        wanted |= accepted(base, head)
        if sides[0].tree == sides[1].tree:
            complain("base and head have the same files: whatever differs is the machine's")
    elif head is None:
        raise ValueError("--dep: expected two versions, BASE and HEAD")
    else:
        pairs = {"base": base, "head": head}
        pythons = {side: environment(dep, version, side) for side, version in pairs.items()}
        sides = tuple(  # type: ignore[assignment]
            export(None, side, files=files)._replace(label=f"{dep} {version}")
            for side, version in pairs.items()
        )
    asked = Run(*sides, (), Path(), threads, files=files)
    if names is not None:
        _check_names(names, asked)
    elif files or not pythons:
        known, _ = asked.names()
        suite = benchmarks(net, kind, shape or (), None, device, known, bool(files))
    _check_accepted(accept or (), suite)
    path = _results(*sides, suite, threads, seconds, share, *pythons.values())
    waiting()
    with Bar(lines=True) as bar:
        make = partial(Turns, pythons=pythons) if pythons else Run
        run = make(
            *sides, suite, path, threads, seconds, budget,
            progress=bar.show, complain=output.complain, tolerance=share, accepted=wanted,
            files=files,
        )  # fmt: skip
        if bisect and not pythons:
            return _bisect(run, base, str(head))
        _report(run, sides, costly and not pythons, markdown, json)


def _check_names(names: Sequence[str], run: Run) -> None:
    """Raise ValueError for a name that neither revision knows, with the nearest that is known."""
    if set(names) <= set(registry.names()):
        return
    _, known = run.names()
    for name in names:
        if name not in known:
            raise ValueError(
                f"variants: expected names that a revision knows, {', '.join(known)}, "
                f"got {name!r}{meant(name, known)}"
            )


def _check_accepted(names: Sequence[str], suite: Sequence[Benchmark]) -> None:
    """Raise ValueError for a name by which no line of the table can go."""
    variants = {b.variant for b in suite}
    timed = {b.name for b in suite} | {f"{name} on all shapes" for name in variants}
    known = variants | timed | {name + SLOWEST for name in timed}
    known |= {f"{name}, {what}" for name in variants for what in COSTS}
    for name in names:
        if name not in known:
            raise ValueError(
                f"--accept: expected a variant, a benchmark or a line of the table, got {name!r}"
                f"{meant(name, known)}"
            )


def _results(base: Revision, head: Revision, suite: Sequence[Benchmark], *settings: object) -> Path:
    return results_file((base.tree, head.tree, *suite, *settings))


def _bisect(run: Run, good: str, bad: str) -> None:
    """Find the first commit that is slower where the last one is, and say which."""
    history = commits(good, bad)
    outcome = run.measure(costly=False)
    runs, wrong = [run], _worse(run, outcome)
    names = set().union(*wrong.values())
    suite = [b for b in run.suite if {b.name, b.variant} & names]

    def judge(commit: str) -> Judgement:
        try:
            head = export(commit, "head", files=run.files)
            path = _results(run.base, head, suite, run.threads, run.seconds, run.tolerance)
            runs.append(replace(run, head=head, suite=suite, path=path))
            found = runs[-1].measure(costly=False)
        except (ValueError, RuntimeError) as reason:  # it has no package, or cannot be imported
            output.complain(f"{subject(commit)} is skipped: {reason}")
            return "skip"
        judgement: Judgement = "skip"
        if wrong.keys() & _worse(runs[-1], found).keys():
            judgement = "bad"
        elif replace(found, costs=[]).exit_code == 0:  # what else is worse is not looked for
            judgement = "good"
        output.complain(f"{head.label} is {judgement}: {revisions.summary(found)}")
        return judgement

    if suite:
        first = search(history, judge)
        for commit in first.candidates:
            what = "is the first" if len(first.candidates) == 1 else "may be the first"
            output.stdout().print(f"{subject(commit)} {what} that is slower.", soft_wrap=True)
    else:
        output.complain(f"{bad} is not slower than {good}: {revisions.summary(outcome)}")
    for one in runs:  # not before: what was interrupted goes on
        one.end()
    failed = codes.FAILED if outcome.of("failed") else codes.TOO_LITTLE
    raise typer.Exit(codes.WRONG if suite else failed)


def _worse(run: Run, outcome: Outcome) -> dict[tuple[str, str], set[str]]:
    """The variants that are slower, or lost, each with its benchmarks or, of all shapes, itself."""
    found: dict[tuple[str, str], set[str]] = {}
    for d in outcome.decisions:
        if d.regression:
            name = d.variant if d.base is None else d.name.removesuffix(SLOWEST)
            found.setdefault(("slower", d.variant), set()).add(name)
    variant_of = {b.name: b.variant for b in run.suite}
    for kind, what in (("far", "slower"), ("lost", "lost")):
        for note in outcome.of(kind):
            pair = what, variant_of[note.benchmark]
            found.setdefault(pair, set()).add(note.benchmark)
    return found


def _share(text: str) -> float:
    """A share from "2%" or "0.02"."""
    with contextlib.suppress(ValueError):
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        if 0 <= share < 1:
            return share
    raise ValueError(f"--tolerance: expected a share from 0% to 100%, got {text!r}")


def _report(
    run: Run,
    sides: tuple[Revision, Revision],
    costly: bool,
    markdown: Path | None,
    json: Path | None,
) -> None:
    """Measure, show, write, and end with the exit code that says what was found."""
    try:
        outcome = run.measure(costly)
    except KeyboardInterrupt:
        output.complain("interrupted: the same command goes on from here; until now:")
        revisions.show(output.stdout(), run.outcome(), sides)
        raise typer.Exit(codes.INTERRUPTED) from None
    output.deliver(
        lambda: revisions.show(output.stdout(), outcome, sides),
        (markdown, lambda file: output.write_text(file, revisions.markdown(outcome, sides) + "\n")),
        (json, lambda file: output.write_json(file, revisions.report(outcome, sides))),
    )
    run.end()  # not before what was asked for is there
    raise typer.Exit(outcome.exit_code)
