"""`twolayer bench --device cuda`: the variants on a GPU, by its own clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from .. import gpu, verify
from ..cases import problem
from ..interface import Variant
from ..machine import fingerprint
from ..network import Network, Shape
from . import output

SHAPES = (
    Shape(1_000_000, 8, 32, 1),
    Shape(100_000, 784, 128, 10),
    Shape(60_000, 784, 1024, 10),
)
_CHECKED = Shape(257, 8, 32, 1)


def bench(
    field: list[Variant], net: Network, shapes: list[Shape], dtype: str, json: Path | None = None,
    repetitions: int = 30, warm_up: float = gpu.WARM_UP, size: int = 1 << 28,
) -> list[dict[str, Any]]:  # fmt: skip
    """Check and time the CUDA variants on each shape; prints a table and returns its records.

    Raises ValueError where none of the variants can run.
    """
    field = [variant for variant in field if variant.device == "cuda"]
    reasons = {variant.name: variant.unavailable() for variant in field}
    if not field or all(reasons.values()):
        why = next(iter(reasons.values()), "none of the variants runs there")
        raise ValueError(f"device: expected a device that is here, got 'cuda': {why}")
    roof = gpu.ceilings(dtype, size, warm_up)
    records = [
        _record(variant, net, shape, dtype, roof, repetitions, warm_up)
        for shape in shapes
        for variant in field
    ]
    columns = (
        "shape",
        "variant",
        "an epoch",
        "host's clock",
        "copies",
        "plan",
        "memory",
        "of the ceiling",
    )
    table = Table(*columns, title=f"{dtype}, {net.activation}, {net.loss}")
    for record in records:
        if record["skipped"]:
            table.add_row(record["shape"], record["variant"], record["skipped"])
            continue
        table.add_row(
            record["shape"], record["variant"],
            *(output.duration(record[name]) for name in ("seconds", "wall", "transfer", "plan")),
            f"{record['memory'] / 2**20:.1f} MiB", f"{record['roofline']:.0%}",
        )  # fmt: skip
    output.stdout().print(table)
    if json is not None:
        ceilings = {"flops": roof.flops, "bandwidth": roof.bandwidth}
        output.write_json(
            json, {"machine": fingerprint(), "ceilings": ceilings, "results": records}
        )
    return records


def _record(
    variant: Variant, net: Network, shape: Shape, dtype: str, roof: Any, repetitions: int,
    warm_up: float,
) -> dict[str, Any]:  # fmt: skip
    """What is known of a variant on a shape, or why it was left out."""
    record: dict[str, Any] = {"shape": str(shape), "variant": variant.name, "dtype": dtype}
    checked = problem(net, shape._replace(n=min(shape.n, _CHECKED.n)), dtype)
    skipped = variant.unavailable() or variant.refuses(shape, checked.X.dtype)
    if not skipped:
        found = verify.agreement(variant, checked)
        skipped = None if found.agrees else f"disagrees with the oracle: {found}"
    if skipped:
        return record | {"skipped": skipped}
    try:
        figures = gpu.epochs(variant, net, shape, dtype, repetitions, warm_up)
    except MemoryError as error:
        return record | {"skipped": str(error)}
    return record | {
        "skipped": "",
        "seconds": figures.median,
        "all_seconds": figures.seconds,
        "wall": sorted(figures.wall)[len(figures.wall) // 2],
        "transfer": figures.transfer,
        "plan": figures.plan,
        "memory": figures.memory,
        "gflops": shape.flops() / figures.median / 1e9,
        "roofline": roof.seconds(shape.flops(), shape.bytes(dtype)) / figures.median,
    }
