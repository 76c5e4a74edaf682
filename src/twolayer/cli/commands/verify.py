"""`twolayer verify`: does every variant agree with the oracle?"""

from __future__ import annotations

import secrets
from operator import attrgetter
from typing import Annotated

import typer

from ... import activations, losses
from ...checking import cases
from ...checking.exact import exact
from ...checking.promises import SHAPES, promises
from ...checking.verify import Agreement, agreement, corners
from ...interface import Variant, check_threads
from ...network import DTYPES, Network, Shape, float_type
from ...progress import Bar
from ...showing import output, units
from ...showing.table import Table
from ...texts import TOO_LITTLE, parts
from .. import codes
from ..options import (
    PROBLEM,
    Device,
    JsonFile,
    Scheduler,
    Shapes,
    Threads,
    VariantFiles,
    VariantNames,
    connect,
    refuse,
    select_variants,
)

Some = Annotated[
    str | None,
    typer.Option(help="Names with commas between; all by default.", rich_help_panel=PROBLEM),
]


def verify(
    variants: VariantNames = None,
    activation: Some = None,
    loss: Some = None,
    dtype: Some = None,
    shape: Shapes = None,
    threads: Threads = None,
    device: Device = None,
    scheduler: Scheduler = None,
    variant_file: VariantFiles = None,
    thorough: Annotated[
        bool,
        typer.Option(
            help="Random shapes too, and the promises with every activation.",
            rich_help_panel=PROBLEM,
        ),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Draws the shapes of --thorough again.", rich_help_panel=PROBLEM),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Compare variants with the oracle; exit code 1 if one disagrees, 3 if none ran.

    Exit code 2 if one found too little memory and none disagrees.
    Losses, gradients, predictions and parameters after steps, on inputs that make mistakes show.
    With --shape: a random problem of that shape in place of all.
    Without --shape also all that the interface promises: steps, slices, updates, θ set and read,
    other layouts, nothing of the caller's written to; integers on which an epoch is exact; and the
    shapes at which a variant says that it begins to decide differently.
    What runs on a cluster is among all variants only with --scheduler. Errors are given in units
    of a bound that is derived in docs/math.md: 1 is the limit.
    """
    threads = check_threads(threads)
    chosen = select_variants(variants, variant_file, device, scheduler is not None)
    networks = [
        Network(a, b)
        for a in (parts(activation) if activation else activations.names())
        for b in (parts(loss) if loss else losses.names())
    ]
    dtypes = [float_type("dtype", name).name for name in (parts(dtype) if dtype else DTYPES)]
    sizes = [Shape.parse(text) for text in shape or ()]
    if not thorough:
        refuse("without --thorough", seed=None if seed is None else str(seed))
    output.check_writable(json=json)
    drawn: tuple[Shape, ...] = ()
    if thorough:
        seed = secrets.randbits(32) if seed is None else seed
        drawn = cases.drawn_shapes(seed)
        output.stdout().print(f"--seed {seed}")
    connect(scheduler, chosen)
    runnable = [variant for variant in chosen if variant.unavailable() is None]
    results: dict[str, list[Agreement]] = {variant.name: [] for variant in runnable}
    refused: dict[str, str] = {}
    with Bar() as bar:
        promised = [] if sizes else networks if thorough else _one_a_loss(networks)
        integers = [] if sizes else [net for net in networks if net in cases.EXACT]
        units = (len(networks) + len(promised) + bool(integers)) * len(dtypes) * len(runnable)
        bar.show("verifying", 0, units)
        for net in networks:
            for name in dtypes:
                asked = [cases.problem(net, size, name) for size in sizes]
                problems = asked or list(cases.all_cases(net, name))
                problems += [cases.problem(net, shape, name, seed or 0) for shape in drawn]
                for variant in runnable:
                    for case in problems:
                        if reason := variant.refusal(net, case.shape, case.X.dtype):
                            refused[variant.name] = reason
                        else:
                            results[variant.name].append(agreement(variant, case, threads))
                    bar.add(variant.name, 1)
        for name in dtypes if integers else ():
            for variant in runnable:
                results[variant.name] += exact(variant, name, threads, integers)
                bar.add(variant.name, 1)
        for net in promised:
            for name in dtypes:
                for variant in runnable:
                    shapes = SHAPES if net is promised[0] else SHAPES[:-1]
                    results[variant.name] += promises(variant, net, name, threads, shapes)
                    if net is promised[0]:
                        results[variant.name] += corners(variant, net, name, threads)
                    results[variant.name] += promises(
                        variant, net, name, threads, drawn[1:], seed or 0
                    )
                    bar.add(variant.name, 1)
    verified = [result for found in results.values() for result in found]
    output.deliver(
        lambda: _report(chosen, results, refused),
        (json, lambda file: output.write_json(file, {"results": [_record(r) for r in verified]})),
    )
    if not verified:
        output.complain("nothing was verified")
    wrong, undecided = (any(map(attrgetter(k), verified)) for k in ("wrong", "undecided"))
    if code := codes.of(wrong, bool(verified), undecided):
        raise typer.Exit(code)


def _one_a_loss(networks: list[Network]) -> list[Network]:
    """A network of each loss, with tanh where that is among them."""
    names = [net.activation for net in networks]
    activation = "tanh" if "tanh" in names else names[0]
    return [net for net in networks if net.activation == activation]


def _report(
    chosen: list[Variant], results: dict[str, list[Agreement]], refused: dict[str, str]
) -> None:
    table = Table("variant", "cases", "largest error", "where")
    wrong = []
    for variant in chosen:
        found = results.get(variant.name)
        if not found:
            table.add_row(
                variant.name,
                "",
                "",
                f"skipped: {variant.unavailable() or refused[variant.name]}",
                style="dim",
            )
            continue
        worst = max(found, key=lambda result: (not result.undecided, result.ratio))
        bad = [result for result in found if result.wrong]
        short = sum(result.undecided for result in found)
        where = f"{worst.quantity}: {worst.net.activation}, {worst.net.loss}, {worst.dtype}"
        table.add_row(
            variant.name,
            str(len(found)),
            "" if worst.undecided else units.fixed(worst.ratio, 2),
            f"{len(bad)} disagree" if bad
            else f"{short} {TOO_LITTLE}" if short
            else f"{where} ({worst.case})",
            style="red" if bad or short else None,
        )  # fmt: skip
        wrong += (bad or [result for result in found if result.undecided])[:3]
    console = output.stdout()
    console.print(table)
    console.print("Errors in units of the bound: above 1 a variant is wrong.")
    for result in wrong:
        output.complain(str(result))


def _record(result: Agreement) -> dict[str, object]:
    return {
        "variant": result.variant,
        "activation": result.net.activation,
        "loss": result.net.loss,
        "case": result.case,
        "shape": list(result.shape),
        "dtype": result.dtype,
        "ratio": result.ratio if result.ratio < float("inf") else None,
        "agrees": result.agrees,
        "quantity": result.quantity,
        "failure": result.failure,
        "undecided": result.undecided,
    }
