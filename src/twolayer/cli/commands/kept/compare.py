"""`twolayer compare`: two commits, two machines or two files side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from ....history import Wanted, levels, sides
from ....machine.store import Store
from ....network import Shape
from ....showing import output
from ....showing.kept import compare as shown
from ....texts import parts
from ... import codes, options

_SIDE = (
    "A commit (HEAD~1, 1a2b3c4; HEAD+ with changes), a machine, or a --json file of bench or gpu."
)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_SIDE, show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The same.", show_default=False)],
    shape: Annotated[str | None, typer.Option(metavar="n,d,M,K", help="This shape only.")] = None,
    variants: options.VariantNames = None,
    json: options.JsonFile = None,
) -> None:
    """Set what was measured on two sides next to each other: B's time over A's.

    Each ratio has its interval of 95%, from the scatter of the blocks and of the machine from run
    to run. What cannot be compared is named, with the reason. Nothing is measured; to find out
    whether a change made it slower, `twolayer regress` measures both sides in turn and sees
    smaller changes.
    """
    output.check_writable(json=json)
    output.check_unread(a, b)
    wanted = Wanted(parts(variants) if variants else (), Shape.parse(shape) if shape else ())
    with Store() as store:
        known = levels.read(store, wanted)
    one, other = (sides.side(name, text, known) for name, text in (("A", a), ("B", b)))
    found = sides.compare(one, other, known)
    output.deliver(
        lambda: shown.show(output.stdout(), found),
        (json, lambda file: output.write_json(file, shown.report(found))),
    )
    if not found.pairs:
        raise typer.Exit(codes.TOO_LITTLE)
