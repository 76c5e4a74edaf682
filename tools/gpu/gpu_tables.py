"""The tables of gpu_check.py: goals, every variant on every shape, launches and ceilings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from twolayer.measuring.device_clock import SHAPES, share
from twolayer.measuring.roofline import Roofline
from twolayer.network import DTYPES, Shape
from twolayer.showing.tables import markdown_table
from twolayer.showing.units import duration

OWN = "cuda-"  # how the names of the variants in Numba CUDA begin
ONE_PASS = "cuda-tensor-tf32"  # no float32
PEERS = ("torch", "torch-compile", "jax", "cupy")
THREE_PASSES = "jax-tf32x3"  # a peer of what multiplies in three passes of TF32 only
# Shapes on which nothing was tuned: odd sizes, many outputs, few inputs, tiny problems.
HELD_OUT = (
    Shape(99_991, 61, 77, 3),
    Shape(4_097, 129, 515, 16),
    Shape(2_000, 20, 30, 1_000),
    Shape(50_000, 3, 100, 2),
    Shape(257, 17, 13, 1),
    Shape(1, 4, 4, 1),
)
_LIBRARIES = ("numba", "torch", "jax ", "cupy")  # in the line that says where figures are from
_LONGEST = 30e-6  # seconds of an epoch on one sample

Found = dict[str, Any]


class Bar(NamedTuple):
    """How many times as fast as the fastest peer a variant, or any of ours, is to be on a shape."""

    shape: Shape
    variant: str
    least: float


BARS = (
    Bar(SHAPES[0], "", 10.0),
    *(Bar(shape, "cuda-tensor", 2.5) for shape in SHAPES[1:]),
    Bar(SHAPES[1], "cuda-tiled", 1.2),
    Bar(SHAPES[2], "cuda-tiled", 1.0),
)
_LEAST_ONE_SAMPLE = 10.0


def ours(name: str) -> bool:
    """Whether a variant is one of this project's that compute in float32 or float64."""
    return name.startswith(OWN) and name != ONE_PASS


def of_peers(found: Found) -> Found:
    """What was found of peers, and of which sources when: their figures do not hang on ours."""
    parts: Found = {"peers": {"date": found["date"], "sources": machine(found).get("sources")}}
    for part, values in found.items():
        kind, _, name = part.partition(" ")
        if kind == "cublas" or (kind in ("race", "launches", "odd") and name and not ours(name)):
            parts[part] = values
    return parts


def records(found: Found, dtype: str, shape: Shape, part: str = "race") -> list[dict[str, Any]]:
    """What was found of every variant on a shape, timed or not."""
    races = (values for name, values in found.items() if name.startswith(f"{part} "))
    key = f"{dtype} {shape}"
    return [values[key] for values in races if key in values]


def times(found: Found, dtype: str, shape: Shape, part: str = "race") -> dict[str, float]:
    """Seconds an epoch of every variant that was timed on a shape, the fastest first."""
    timed = [r for r in records(found, dtype, shape, part) if not r["skipped"]]
    return {r["variant"]: r["seconds"] for r in sorted(timed, key=lambda r: r["seconds"])}


def one_sample(found: Found) -> dict[str, float]:
    """Seconds of an epoch on one sample by the host's clock, the fastest first."""
    timed = {}
    for part, values in found.items():
        if part.startswith("launches ") and _number(values.get("seconds")):
            timed[part.partition(" ")[2]] = values["seconds"]
    return dict(sorted(timed.items(), key=lambda item: item[1]))


def best(timed: dict[str, float]) -> str | None:
    """The fastest of this project's variants."""
    return next((name for name in timed if ours(name)), None)


def rival(timed: dict[str, float], name: str | None) -> str | None:
    """The fastest peer of a variant: who has float32's precision too."""
    peers = (*PEERS, THREE_PASSES) if name == "cuda-tensor" else PEERS
    return next((peer for peer in timed if peer in peers), None)


def ratio(timed: dict[str, float], name: str | None) -> float | None:
    """The fastest peer's time over a variant's; None unless both were timed."""
    peer = rival(timed, name)
    return None if name not in timed or peer is None else timed[peer] / timed[name]


def markdown(found: Found, file: str) -> str:
    """Everything as Markdown; file: where all figures are."""
    parts = [
        origin(found, file), _bars(found), *_races(found), _held_out(found), _one_sample(found),
        _tuning(found), _counters(found), _ceilings(found), _elementary(found),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def summary(found: Found, file: str) -> str:
    """A row a shape for the README: the fastest of ours and the fastest peer."""
    rows = []
    races = [(dtype, shape) for dtype in DTYPES for shape in SHAPES]
    for dtype, shape in races:
        timed = times(found, dtype, shape)
        if timed:
            rows.append([dtype, *map(str, shape), *_pair(timed, best(timed))])
    if timed := one_sample(found):
        rows.append(["float32", "1", "4", "4", "1", *_pair(timed, best(timed))])
    heads = ["dtype", "n", "d", "M", "K", "fastest here", "fastest peer", "times as fast"]
    return f"{markdown_table(heads, rows)}\n\n{origin(found, file)}"


def machine(found: Found) -> dict[str, Any]:
    """The machine's fingerprint."""
    kept = found.get("machine") or found.get("versions", {}).get("machine", {})
    return dict(kept)


def origin(found: Found, file: str) -> str:
    """Card, driver, versions, date and sources."""
    here = machine(found)
    device = found.get("versions", {}).get("device", "a GPU that did not say its name")
    device = "; ".join(here.get("gpus", ())) or device
    libraries = ", ".join(t for t in here.get("libraries", ()) if t.startswith(_LIBRARIES))
    sources = f"sources {here.get('sources', 'unknown')}"
    if found.get("revision"):
        sources = f"revision {found['revision']}, {sources}"
    peers = found.get("peers")
    if peers:
        sources += f", the peers on {peers['date']} by sources {peers['sources']}"
    return (
        f"{device}; {libraries}. Measured on {found['date']} by "
        f"`{found.get('by', 'tools/gpu/gpu_check.py')}`, {sources}; "
        f"all figures: `{file}`."
    )


def _number(value: Any) -> bool:
    return isinstance(value, float | int)


def _pair(timed: dict[str, float], name: str | None) -> list[str]:
    """A variant and its fastest peer with their times, and the ratio."""
    peer, figure = rival(timed, name), ratio(timed, name)
    cells = [f"{one} {duration(timed[one])}" if one else "–" for one in (name, peer)]
    return [*cells, "–" if figure is None else f"{figure:.2f}"]


def _bars(found: Found) -> str:
    goals: list[tuple[str, str | None, float | None, float]] = []
    for bar in BARS:
        timed = times(found, "float32", bar.shape)
        name = bar.variant or best(timed)
        goals.append((str(bar.shape), name, ratio(timed, name), bar.least))
    timed = one_sample(found)
    name = best(timed)
    goals.append(("one sample", name, ratio(timed, name), _LEAST_ONE_SAMPLE))
    rows = [
        [
            what, name or "any", "–" if figure is None else f"{figure:.2f} ×", f"≥ {least:g} ×",
            _verdict(None if figure is None else figure >= least),
        ]
        for what, name, figure, least in goals
    ]  # fmt: skip
    seconds = timed.get(name or "")
    rows.append([
        "one sample", name or "any", "–" if seconds is None else duration(seconds),
        f"≤ {_LONGEST * 1e6:.0f} µs", _verdict(None if seconds is None else seconds <= _LONGEST),
    ])  # fmt: skip
    return markdown_table(["float32", "variant", "measured", "goal", "verdict"], rows)


def _verdict(met: bool | None) -> str:
    return "not measured" if met is None else "met" if met else "missed"


def _races(found: Found) -> Iterator[str]:
    """A table a dtype and shape, the fastest variant first."""
    skipped: dict[tuple[str, str], list[str]] = {}
    for dtype in DTYPES:
        for shape in SHAPES:
            everyone = records(found, dtype, shape)
            for one in everyone:
                if one["skipped"]:
                    reason = one["skipped"].partition(", got")[0]
                    skipped.setdefault((one["variant"], reason), []).append(f"{dtype} {shape}")
            timed = times(found, dtype, shape)
            if timed:
                by_name = {one["variant"]: one for one in everyone}
                rows = [_row(found, by_name[name], timed) for name in timed]
                heads = [
                    f"{dtype}, {shape}", "an epoch", "fastest peer / it", "host's clock",
                    "of the ceiling", "plan", "memory", "error",
                ]  # fmt: skip
                yield markdown_table(heads, rows)
    if skipped:
        yield "\n".join(
            f"- not timed: {name}, {'; '.join(where)}: {reason}"
            for (name, reason), where in skipped.items()
        )


def _row(found: Found, record: dict[str, Any], timed: dict[str, float]) -> list[str]:
    name = record["variant"]
    roof = found.get("ceilings", {}).get(record["dtype"])
    figure = ratio(timed, name)
    return [
        f"**{name}**" if ours(name) else name,
        duration(record["seconds"]),
        f"{figure:.2f}" if ours(name) and figure is not None else "",
        duration(record["wall"]) if "wall" in record else "–",
        f"{share(record, Roofline(**roof)):.0%}" if roof else "–",
        duration(record["plan"]) if "plan" in record else "–",
        f"{record['memory'] / 2**20:.0f} MiB" if record.get("memory", 0) > 0 else "–",
        f"{record['error']:.2f}" if "error" in record else "–",
    ]


def _held_out(found: Found) -> str:
    rows = []
    for dtype in DTYPES:
        for shape in HELD_OUT:
            errors = [one["error"] for one in records(found, dtype, shape, "agreement")]
            timed = times(found, dtype, shape, "odd")
            if errors or timed:
                error = f"{max(errors):.2f}" if errors else "–"
                rows.append([f"{dtype}, {shape}", *_pair(timed, best(timed)), error])
    heads = [
        "shapes nothing was tuned on", "fastest here", "fastest peer", "times as fast",
        "largest error of ours",
    ]  # fmt: skip
    return markdown_table(heads, rows) if rows else ""


def _one_sample(found: Found) -> str:
    timed = one_sample(found)
    rows = []
    for name, seconds in timed.items():
        figure = ratio(timed, name) if ours(name) else None
        label = f"**{name}**" if ours(name) else name
        rows.append([label, duration(seconds), "" if figure is None else f"{figure:.2f}"])
    heads = ["one sample, d = 4, M = 4, K = 1", "an epoch, host's clock", "fastest peer / it"]
    return markdown_table(heads, rows) if rows else ""


def _counters(found: Found) -> str:
    rows = []
    for part, values in found.items():
        if part.startswith("counters "):
            for shape, kernels in values.items():
                if isinstance(kernels, list):
                    label = f"{part.partition(' ')[2]}, {shape}"
                    rows += [[label, *map(str, kernel.values())] for kernel in kernels]
    heads = ["counters of ncu", "kernel", "grid", "block", "µs", "registers", "issue %", "DRAM MB"]
    return markdown_table(heads, rows) if rows else ""


def tuning(found: Found) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The variant, dtype and shape, and the times of candidates, for each choice of parameters."""
    for part, values in found.items():
        if part.startswith("race "):
            for key, value in values.items():
                if key.startswith("tuning "):
                    yield part.removeprefix("race "), key.removeprefix("tuning "), value


def tuned(found: Found) -> dict[str, dict[str, Any]]:
    """The fastest candidates by the device's model and what the choice is kept under."""
    device = str(found.get("versions", {}).get("device", ""))
    model = re.search(r"\b[A-Z]+\d+\w*", device)
    if model is None:
        return {}
    choices = {}
    for _, _, value in tuning(found):
        seconds = {name: one for name, one in value["seconds"].items() if _number(one)}
        if seconds:
            choices[value["kept as"]] = json.loads(min(seconds, key=seconds.__getitem__))
    return {model[0]: choices}


def _tuning(found: Found) -> str:
    rows = []
    for variant, where, value in tuning(found):
        seconds = value["seconds"]
        fastest = min((one for one in seconds.values() if _number(one)), default=None)
        for candidate, one in seconds.items():
            text = ", ".join(f"{name} {value}" for name, value in json.loads(candidate).items())
            figure = duration(one) if _number(one) else "left out"
            rows.append([variant, where, text, f"**{figure}**" if one == fastest else figure])
    heads = ["what may be chosen of", "problem", "parameters", "an epoch"]
    return markdown_table(heads, rows) if rows else ""


def _ceilings(found: Found) -> str:
    ceilings = {d: v for d, v in found.get("ceilings", {}).items() if d in DTYPES}
    rows = [
        [f"{dtype} in registers", f"{values['flops'] / 1e12:.1f} TFLOP/s"]
        for dtype, values in ceilings.items()
    ]
    rows += [
        [f"cuBLAS, {key}", f"{value / 1e12:.1f} TFLOP/s"]
        for key, value in found.get("cublas", {}).items()
        if _number(value)
    ]
    if "float32" in ceilings:
        bandwidth = ceilings["float32"]["bandwidth"]
        rows.append(["copies of memory", f"{bandwidth / 1e12:.2f} TB/s"])
    return markdown_table(["ceiling", "measured"], rows) if rows else ""


def _elementary(found: Found) -> str:
    rows = [
        [name, f"{error['ulp']:.2f}", f"{error['bound']:g}", error["at"]]
        for name, error in found.get("elementary", {}).items()
        if isinstance(error, dict)
    ]
    heads = ["function, all float32", "largest error, ULP", "bound", "at"]
    return markdown_table(heads, rows) if rows else ""
