"""`twolayer report`: all that is known of the variants on this machine, in one page."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ...interface import check_threads
from ...machine.store import Store
from ...network import Network, float_type
from ...progress import Bar
from ...report import figures, page, record
from ...report.figures import Named
from ...report.gather import Gathering
from ...report.study import Study
from ...showing import output, tables
from ...showing.plot import theme
from .. import codes, options
from ..calm import Waiting

_MARKER = "report"
_SHOWN = ("winners-n-M", "total-cached")  # in a README


def report(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The page to write.")] = Path(
        "report.html"
    ),
    plots: Annotated[
        Path | None,
        typer.Option(
            help="Write the figures to this folder, as SVG files; it is made where it is missing.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    readme: Annotated[
        Path | None,
        typer.Option(
            help="Show two of the figures between the markers in this file.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    variants: options.VariantNames = None,
    variant_file: options.VariantFiles = None,
    dtype: options.Dtype = "float32",
    activation: options.Activation = "tanh",
    loss: options.Loss = "squared",
    threads: options.Threads = None,
    wait_calm: options.WaitCalm = 0.0,
    json: options.JsonFile = None,
) -> None:
    """Scaling, winners, roofline, first calls, break-even and accuracy as one HTML file.

    What this machine has not measured yet is measured, which takes some minutes, and kept; a run
    that was interrupted goes on where it was. With --wait-calm, what was measured while something
    disturbed is measured again.
    """
    field = options.select_variants(variants, variant_file, clustered=False)
    net = Network(activation, loss)
    dtype = float_type("dtype", dtype).name
    threads = check_threads(threads)
    waiting = Waiting(wait_calm)
    page.check()
    _check_outputs(path, plots, readme, json)
    with Store() as store, Bar(lines=True) as bar:
        gathering = Gathering(
            net, dtype, threads, field, store, variant_file or (), bar.show, waiting, waiting.asked
        )
        try:
            study = gathering.run()
        except KeyboardInterrupt:
            output.complain("interrupted: the same command goes on from here")
            raise typer.Exit(codes.INTERRUPTED) from None
    if not any(result.ranking for result in study.swept):
        output.complain("nothing was timed, so nothing was written")
        raise typer.Exit(codes.TOO_LITTLE)
    _write(study, path, plots, readme, json)
    raced = (entry.wrong for result in study.swept for entry in result.entries)
    checked = (not one.agrees for found in study.agreements.values() for one in found)
    if any(raced) or any(checked):
        output.complain("a variant disagrees with the oracle")
        raise typer.Exit(codes.WRONG)


def _check_outputs(path: Path, plots: Path | None, readme: Path | None, json: Path | None) -> None:
    """Refuse what could not be written at the end before anything is measured."""
    output.kind("FILE", path, (".html", ".htm"))
    output.check_writable(FILE=path, json=json)
    if plots is not None:
        try:
            plots.mkdir(exist_ok=True)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ValueError(f"plots: expected a folder, got {str(plots)!r}: {why}") from None
        output.check_writable(plots=plots / f"{_SHOWN[0]}.svg")
    if readme is not None:
        if plots is None:
            raise ValueError("readme: expected --plots, the folder of the figures, beside it")
        tables.check_markers(readme, _MARKER)


def _write(
    study: Study, path: Path, plots: Path | None, readme: Path | None, json: Path | None
) -> None:
    date, command = output.occasion()
    machine = tables.describe_machine(study.threads, study.dtype)
    groups = {**study.sweeps, **{", ".join(axes): found for axes, found in study.maps.items()}}
    drawn = list(figures.figures(study)) if plots is not None else []

    def write_readme(file: Path) -> None:
        assert plots is not None
        folder = Path(os.path.relpath(plots, file.parent)).as_posix()
        pictures = [
            f"![{named.label}]({folder}/{named.name}.svg)" for named in drawn
            if named.name in _SHOWN
        ]  # fmt: skip
        sentences = [f"- {sentence}" for sentence in page.summary(study)]
        content = "\n\n".join([*pictures, "\n".join(sentences), tables.origin(machine, command)])
        tables.write_between(file, content, _MARKER)

    def write_json(file: Path) -> None:
        results = tables.report(groups, study.roof, study.threads)
        head = {"date": date, "command": command}
        output.write_json(file, head | results | record.record(study))

    def show() -> None:
        for sentence in page.summary(study):
            output.stdout().print(sentence, soft_wrap=True)
        output.stderr().print(f"written: {', '.join(map(str, written))}", soft_wrap=True)

    files: list[tuple[Path | None, Callable[[Path], object]]] = [
        (path, lambda file: output.write_text(file, page.render(study, machine, date, command))),
        *(
            (plots / f"{named.name}.svg", partial(_draw, named))
            for named in drawn if plots is not None
        ),
        (readme, write_readme),
        (json, write_json),
    ]  # fmt: skip
    written = [file for file, _ in files if file is not None]
    output.deliver(show, *files)


def _draw(figure: Named, path: Path) -> None:
    output.write_text(path, theme.standalone(figure.draw))
