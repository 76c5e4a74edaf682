"""`twolayer machines`: who measured on what, which variant wins where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ....history import machines as measured
from ....machine.store import Store
from ....showing import output, tables
from ....showing.kept import machines as shown
from ... import options

_FOLDER = Path("docs/measured/machines")


def machines(
    add: Annotated[
        bool, typer.Option("--add", help="Add this machine, as `twolayer bench` measured it.")
    ] = False,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", help="Add the machine of a --json file of bench or gpu; repeatable."
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the machines' files lie.")] = _FOLDER,
    page: Annotated[
        Path | None,
        typer.Option(
            help="Write the page between the markers in this file.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write the page as one HTML file.", rich_help_panel=options.OUTPUT),
    ] = None,
) -> None:
    """Show the machines that were measured: the fastest variants, and how far from the limit.

    A machine is a JSON file in the folder, and the page is what the files say.
    """
    output.check_writable(page=page, html=html)
    if page is not None:
        _markers(page)
    if not (add or source) and not folder.is_dir():
        raise ValueError(f"folder: expected an existing folder, got {str(folder)!r}")
    new = [measured.of_file(path) for path in source or ()]
    if add:
        with Store() as store:
            new.append(measured.of_store(store))
    for one in new:
        output.stderr().print(f"wrote {measured.add(folder, one)}", soft_wrap=True)
    found = measured.load_all(folder)
    output.deliver(
        lambda: shown.show(output.stdout(), found),
        (page, lambda file: tables.write_between(file, shown.markdown(found), shown.MARKER)),
        (html, lambda file: output.write_text(file, shown.page(found))),
    )


def _markers(page: Path) -> None:
    try:
        tables.between_markers(page, "", shown.MARKER)
    except (OSError, ValueError) as error:
        said = str(error).removeprefix("readme: ")
        text = said if said.startswith("expected") else f"expected an existing file: {said}"
        raise ValueError(f"page: {text}") from None
