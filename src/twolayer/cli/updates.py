"""`twolayer bench --updates`: updates over mini-batches, the variants' own and other libraries'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from ..checking.answers import Answers
from ..interface import Variant
from ..measuring.peers import PEERS
from ..measuring.race import Workload
from ..network import Network, Shape, read_integer
from ..progress import Bar
from ..showing import output, tables
from ..showing import updates as table
from ..texts import parts
from ..training import optimizers, updates
from . import codes


def tasks(
    shapes: Sequence[str], activation: str | None, loss: str | None, dtype: str,
    batches: str | None, names: str | None,
) -> list[updates.Result]:  # fmt: skip
    """What is to be measured: each shape with each batch and optimizer.

    The loss is softmax, or squared for one output, unless another is named. Raises ValueError for
    texts that are no shapes, batches or optimizers.
    """
    rows = [
        read_integer("batches", text)
        for text in (parts(batches) if batches else map(str, updates.BATCHES))
    ]
    chosen = [optimizers.get(name).name for name in (parts(names) if names else updates.OPTIMIZERS)]
    found = []
    for shape in map(Shape.parse, shapes) if shapes else (Shape(*s) for s in updates.SHAPES):
        net = Network(activation or "tanh", loss or ("softmax" if shape.K > 1 else "squared"))
        net.check_outputs(shape.K)
        workload = Workload(net, shape, dtype)
        for batch in dict.fromkeys(min(size, shape.n) for size in rows):
            found += [updates.Result(workload, batch, name) for name in chosen]
    return found


def bench(
    results: list[updates.Result], field: list[Variant], peers: bool, threads: int, rounds: int,
    json: Path | None, readme: Path | None, waiting: Callable[[], None],
) -> None:  # fmt: skip
    """Fill the results in, show and write them; a run that was interrupted keeps what it has."""
    output.check_writable(json=json)
    if readme is not None:
        tables.check_markers(readme, table.MARKER)
    rivals = PEERS if peers else ()
    interrupted = False
    units_of_one = (len(field) + len(rivals)) * (rounds + 1)
    try:
        with Bar(len(results) * units_of_one, lines=True) as bar:
            answers, last = None, None
            for number, result in enumerate(results):
                if result.workload != last:
                    answers, last = result.workload.load(), result.workload
                assert isinstance(answers, Answers)
                what = f"{result.workload} batch {result.batch} {result.optimizer}"

                def progress(name: str, done: int, what: str = what) -> None:
                    bar.add(f"{what}  {name}", done)

                waiting()
                updates.race(result, answers, field, rivals, threads, rounds, progress)
                bar.line(f"{number + 1}/{len(results)} {what}")
    except KeyboardInterrupt:
        interrupted = True
        output.complain("interrupted: what was measured until now follows")
    finished = [result for result in results if result.entries]
    entries = [entry for result in finished for entry in result.entries]
    timed = any(entry.blocks for entry in entries)
    date, command = output.occasion()
    report = {"date": date, "command": command, "interrupted": interrupted}
    machine = tables.describe_machine(threads, results[0].workload.dtype)
    output.deliver(
        lambda: table.show(output.stdout(), finished),
        (json, lambda file: output.write_json(file, report | table.report(finished, threads))),
        (readme if timed and not interrupted else None, lambda file: tables.write_between(
            file, table.markdown(finished, machine, command), table.MARKER
        )),
    )  # fmt: skip
    if interrupted:
        raise typer.Exit(codes.INTERRUPTED)
    if code := codes.of(any(entry.wrong for entry in entries), timed):
        raise typer.Exit(code)
