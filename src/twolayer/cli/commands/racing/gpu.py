"""`twolayer gpu`: the variants on a GPU, by its own clock."""

from __future__ import annotations

from itertools import product
from json import loads
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ....checking.answers import DISAGREES
from ....interface import Variant
from ....machine.calm import Watch
from ....machine.hardware import fingerprint
from ....machine.revision import revision
from ....machine.store import Store
from ....measuring import device_clock
from ....network import Network, Shape, float_type
from ....showing import output, units
from ....showing.table import Table
from ....showing.tables import show_calm
from ... import codes, options
from ...calm import Waiting

_COLUMNS = (
    "shape", "variant", "an epoch", "host's clock", "copies", "plan", "memory", "error",
    "of the ceiling",
)  # fmt: skip


def gpu(
    shape: options.Shapes = None,
    activation: options.Activation = "tanh",
    loss: options.Loss = "squared",
    dtype: options.Dtype = "float32",
    variants: options.VariantNames = None,
    variant_file: options.VariantFiles = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="Find and keep the kernels' parameters first.",
            rich_help_panel=options.MEASURING,
        ),
    ] = False,
    wait_calm: options.WaitCalm = 0.0,
    json: options.JsonFile = None,
) -> None:  # fmt: skip
    """Time the variants on a GPU by its own clock, each after it was checked.

    `twolayer bench` times them by the host's clock, beside those on the CPU.
    """
    output.check_writable(json=json)
    waiting = Waiting(wait_calm)
    shapes = [Shape.parse(text) for text in shape] if shape else [*device_clock.SHAPES]
    net, kind = Network(activation, loss), float_type("dtype", dtype).name
    field = options.select_variants(variants, variant_file, "cuda")
    if tune:
        find(field, net, shapes, kind)
    found = measure(field, net, shapes, kind, waiting, json)
    wrong = any(record["skipped"].startswith(DISAGREES) for record in found)
    if code := codes.of(wrong, any(not record["skipped"] for record in found)):
        raise typer.Exit(code)


def measure(
    field: list[Variant], net: Network, shapes: list[Shape], dtype: str, waiting: Waiting,
    json: Path | None = None, repetitions: int = 30, warm_up: float = device_clock.WARM_UP,
    size: int = 1 << 28,
) -> list[dict[str, Any]]:  # fmt: skip
    """Check, time and keep variants of the device "cuda" on each shape; prints a table of them.

    Raises ValueError where none of the variants can run.
    """
    reasons = {variant.name: variant.unavailable() for variant in field}
    if all(reasons.values()):
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ValueError(f"variants: expected one that runs on a GPU here, got none: {why}")
    roof = device_clock.ceilings(dtype, size, warm_up)
    records, met = [], []
    with Store() as store:
        for shape, variant in product(shapes, field):
            waiting()
            watch = Watch()
            found = device_clock.record(variant, net, shape, dtype, repetitions, warm_up)
            records.append(found)
            met.append(watch.calm())
            if not found["skipped"]:
                store.add(device_clock.measurement(found, shape, roof, met[-1]))
    table = Table(*_COLUMNS, title=f"{dtype}, {net.activation}, {net.loss}")
    for found, calm in zip(records, met, strict=True):
        if found["skipped"]:
            table.add_row(found["shape"], found["variant"], found["skipped"])
            continue
        table.add_row(
            found["shape"], calm.mark(found["variant"]),
            *(units.duration(found[name]) for name in ("seconds", "wall", "transfer", "plan")),
            f"{found['memory'] / 2**20:.1f} MiB", units.fixed(found["error"], 2),
            f"{device_clock.share(found, roof):.0%}",
        )  # fmt: skip
    ceilings = {"flops": roof.flops, "bandwidth": roof.bandwidth}
    results = [
        found
        | ({} if found["skipped"] else {"roofline": device_clock.share(found, roof)})
        | {"calm": calm.report()}
        for found, calm in zip(records, met, strict=True)
    ]
    date, command = output.occasion()
    report = {"date": date, "command": command, **revision()._asdict(), "machine": fingerprint()}
    report |= {"ceilings": ceilings, "results": results}

    def show() -> None:
        console = output.stdout()
        console.print(table)
        console.print(
            "Errors in units of the bound for that dtype: above 1 a variant is not timed."
        )
        show_calm(console, met)

    output.deliver(show, (json, lambda file: output.write_json(file, report)))
    return records


def find(
    field: list[Variant], net: Network, shapes: list[Shape], dtype: str,
    repetitions: int = 30, warm_up: float = device_clock.WARM_UP,
) -> None:  # fmt: skip
    """Choose the parameters of each variant on each shape, keep them and print what they took."""
    table = Table("shape", "variant", "parameters", "an epoch", title="parameters")
    for shape in shapes:
        for variant in field:
            if variant.unavailable() or variant.refusal(net, shape, np.dtype(dtype)):
                continue
            _, found = device_clock.tune(
                variant, net, shape, dtype, repetitions=repetitions, warm_up=warm_up
            )
            for candidate, value in found.items():
                text = ", ".join(f"{name} {one}" for name, one in loads(candidate).items())
                figure = value if isinstance(value, str) else units.duration(value)
                table.add_row(str(shape), variant.name, text, figure)
    output.stdout().print(table)
