"""The tables of tools/gpu_check.py: ceilings, every variant on every shape, and the bars."""

from __future__ import annotations

from typing import Any, NamedTuple

from twolayer.cli.gpu import SHAPES, share
from twolayer.cli.output import duration
from twolayer.cli.tables import markdown_table
from twolayer.network import DTYPES, Shape
from twolayer.roofline import Roofline

PEERS = ("torch", "torch-compile", "jax", "cupy")


class Bar(NamedTuple):
    """How many times as fast as the fastest peer one of the variants is to be on a shape."""

    shape: Shape
    variants: tuple[str, ...]
    least: float


BARS = (
    Bar(SHAPES[0], ("cuda-samples", "cuda-tiled", "cuda-fused", "cuda-tensor"), 5.0),
    *(Bar(shape, ("cuda-tiled",), 0.9) for shape in SHAPES[1:]),
    *(Bar(shape, ("cuda-tensor",), 1.5) for shape in SHAPES[1:]),
)


def records(found: dict[str, Any], dtype: str, shape: Shape) -> list[dict[str, Any]]:
    """What was found of every variant on a shape, timed or not."""
    races = (values for part, values in found.items() if part.startswith("race "))
    key = f"{dtype} {shape}"
    return [values[key] for values in races if key in values]


def markdown(found: dict[str, Any]) -> str:
    """Everything as Markdown."""
    parts = [_ceilings(found), _races(found), _bars(found), _origin(found)]
    return "\n\n".join(part for part in parts if part)


def _ceilings(found: dict[str, Any]) -> str:
    rows = [
        [f"{dtype} in registers", f"{values['flops'] / 1e12:.1f} TFLOP/s"]
        for dtype, values in found.get("ceilings", {}).items()
        if dtype in DTYPES
    ]
    rows += [
        [f"cuBLAS, {key}", f"{value / 1e12:.1f} TFLOP/s"]
        for key, value in found.get("cublas", {}).items()
        if isinstance(value, float)
    ]
    if "float32" in found.get("ceilings", {}):
        bandwidth = found["ceilings"]["float32"]["bandwidth"]
        rows.append(["copies of memory", f"{bandwidth / 1e12:.2f} TB/s"])
    return markdown_table(["ceiling", "measured"], rows) if rows else ""


def _races(found: dict[str, Any]) -> str:
    rows, skipped = [], {}
    for dtype in DTYPES:
        roof = found.get("ceilings", {}).get(dtype)
        for shape in SHAPES:
            for record in records(found, dtype, shape):
                if record["skipped"]:
                    skipped[f"{record['variant']}, {dtype}, {shape}"] = record["skipped"]
                    continue
                rows.append([
                    record["variant"], dtype, *map(str, shape),
                    *(duration(record[name]) for name in ("seconds", "wall", "transfer", "plan")),
                    f"{record['memory'] / 2**20:.0f} MiB", f"{record['error']:.2f}",
                    f"{share(record, Roofline(**roof)):.0%}" if roof else "–",
                ])  # fmt: skip
    if not rows:
        return ""
    heads = [
        "variant", "dtype", "n", "d", "M", "K", "an epoch", "host's clock", "copies", "plan",
        "memory", "error", "of the ceiling",
    ]  # fmt: skip
    lines = [markdown_table(heads, rows), "", "Errors in units of the bound for the dtype."]
    lines += [f"Not timed: {name}: {reason}." for name, reason in skipped.items()]
    return "\n".join(lines)


def ratio(found: dict[str, Any], bar: Bar) -> tuple[str, float] | None:
    """The fastest of a bar's variants, and the fastest peer's time over its own."""
    timed = {
        record["variant"]: record["seconds"]
        for record in records(found, "float32", bar.shape)
        if not record["skipped"]
    }
    own = {name: timed[name] for name in bar.variants if name in timed}
    peers = [timed[name] for name in PEERS if name in timed]
    if not own or not peers:
        return None
    name = min(own, key=own.__getitem__)
    return name, min(peers) / own[name]


def _bars(found: dict[str, Any]) -> str:
    rows = []
    for bar in BARS:
        one = ratio(found, bar)
        name, figure = one if one else (" or ".join(bar.variants), None)
        verdict = "not measured" if figure is None else "pass" if figure >= bar.least else "fail"
        figures = "–" if figure is None else f"{figure:.2f}"
        rows.append([name, str(bar.shape), f"{bar.least:g}", figures, verdict])
    heads = ["variant", "shape", "at least", "fastest peer / variant", "verdict"]
    return markdown_table(heads, rows)


def _origin(found: dict[str, Any]) -> str:
    machine = found.get("versions", {}).get("machine", {})
    device = ", ".join(machine.get("gpus", ())) or "the device did not say its name"
    libraries = ", ".join(machine.get("libraries", ()))
    return f"{device}; {libraries}. Written on {found['date']} by `tools/gpu_check.py`."
