"""`twolayer updates`: updates over mini-batches, the variants' own and other libraries'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ....checking.answers import Answers
from ....interface import Variant, check_threads
from ....measuring.peers import PEERS
from ....measuring.race import REFERENCE, ROUNDS, Workload
from ....network import Network, Shape, float_type, read_integer
from ....progress import Bar
from ....showing import output, tables
from ....showing import updates as table
from ....texts import parts
from ....training import optimizers as optimizer_list
from ....training import updates as loops
from ... import codes, options
from ...calm import Waiting


def updates(
    shape: options.Shapes = None,
    batches: Annotated[
        str | None,
        typer.Option(
            help="Rows of a batch, as in 1,32,256,2048, the default.",
            rich_help_panel=options.PROBLEM,
        ),
    ] = None,
    optimizers: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between, by default sgd,adam.", rich_help_panel=options.PROBLEM
        ),
    ] = None,
    activation: options.Activation = "tanh",
    loss: Annotated[
        str | None,
        typer.Option(
            help="ℓ by name, by default softmax, squared for one output.",
            rich_help_panel=options.PROBLEM,
        ),
    ] = None,
    dtype: options.Dtype = "float32",
    variants: options.VariantNamesOrOurs = REFERENCE,
    variant_file: options.VariantFiles = None,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers", help="Loops of NumPy, PyTorch and JAX too.", rich_help_panel=options.VARIANTS
        ),
    ] = False,
    threads: options.Threads = None,
    wait_calm: options.WaitCalm = 0.0,
    json: options.JsonFile = None,
    readme: options.Readme = None,
) -> None:
    """Time updates of θ over mini-batches, each loop after it was checked.

    Without --shape: three shapes. Each is run with all batches and optimizers.
    """
    waiting = Waiting(wait_calm)
    field = options.select_variants(variants, variant_file)
    found = tasks(
        shape or (), activation, loss, float_type("dtype", dtype).name, batches, optimizers
    )
    _run(found, field, peers, check_threads(threads), waiting, json, readme)


def tasks(
    shapes: Sequence[str], activation: str, loss: str | None, dtype: str,
    batches: str | None, names: str | None,
) -> list[loops.Result]:  # fmt: skip
    """What is to be measured: each shape with each batch and optimizer.

    The loss is softmax, or squared for one output, unless another is named. Raises ValueError for
    texts that are no shapes, batches or optimizers.
    """
    rows = [
        read_integer("batches", text)
        for text in (parts(batches) if batches else map(str, loops.BATCHES))
    ]
    chosen = [
        optimizer_list.get(name).name for name in (parts(names) if names else loops.OPTIMIZERS)
    ]
    found = []
    for shape in map(Shape.parse, shapes) if shapes else (Shape(*s) for s in loops.SHAPES):
        net = Network(activation, loss or ("softmax" if shape.K > 1 else "squared"))
        net.check_outputs(shape.K)
        workload = Workload(net, shape, dtype)
        for batch in dict.fromkeys(min(size, shape.n) for size in rows):
            found += [loops.Result(workload, batch, name) for name in chosen]
    return found


def _run(
    results: list[loops.Result], field: list[Variant], peers: bool, threads: int, waiting: Waiting,
    json: Path | None, readme: Path | None,
) -> None:  # fmt: skip
    """Fill the results in, show and write them; a run that was interrupted keeps what it has."""
    output.check_writable(json=json)
    if readme is not None:
        tables.check_markers(readme, table.MARKER)
    rivals = PEERS if peers else ()
    interrupted = False
    units_of_one = (len(field) + len(rivals)) * (ROUNDS + 1)
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
                loops.race(result, answers, field, rivals, threads, progress=progress)
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
