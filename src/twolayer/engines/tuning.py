"""Parameters of the CUDA kernels that are data: which candidate is the fastest on a device.

A plan on a GPU has candidates, each a dictionary of parameters (an engine, stages, parts); they are
equally right. The one that runs was measured on this machine (`twolayer gpu --tune`),
else it is the one that `tuned.json` has for the device's name and the class of the shape,
else the first.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from ..machine.store import Store, find, keep
from ..network import Shape

Candidate = Mapping[str, Any]

KIND = "tuning"
_forced: ContextVar[Candidate | None] = ContextVar("forced", default=None)


def shape_class(shape: Shape) -> str:
    """The name of the shapes that share a choice: n up to a factor 4, the others up to a factor 2.

    Each size stands for those down to the next one below.
    """
    n = 4 ** ((shape.n - 1).bit_length() + 1 >> 1)
    sizes = n, *(1 << (size - 1).bit_length() for size in shape[1:])
    return " ".join(f"{letter}<={size}" for letter, size in zip("ndMK", sizes, strict=True))


def name_of(kind: str, shape: Shape, dtype: str) -> str:
    """What a choice is kept under: the plan's class, the dtype and the shape's class."""
    return f"{kind} {dtype} {shape_class(shape)}"


def chosen(
    kind: str, shape: Shape, dtype: str, device: str, candidates: Sequence[Candidate]
) -> Candidate:
    """The candidate that a plan of that kind takes.

    One that the store or the table names counts only if it is among the candidates still.
    """
    forced = _forced.get()
    if forced is not None:
        return forced
    if len(candidates) > 1:
        name = name_of(kind, shape, dtype)
        for known in (_measured(device).get(name), _shipped(device).get(name)):
            if known in candidates:
                return dict(known or {})
    return candidates[0]


@contextlib.contextmanager
def forced(candidate: Candidate) -> Iterator[None]:
    """Let plans that are made inside take this candidate."""
    token = _forced.set(candidate)
    try:
        yield
    finally:
        _forced.reset(token)


def learn(
    store: Store, kind: str, shape: Shape, dtype: str, device: str, seconds: Mapping[str, float]
) -> None:
    """Keep what was measured: seconds of an epoch by each candidate's JSON, the fastest first."""
    name = name_of(kind, shape, dtype)
    best = json.loads(min(seconds, key=seconds.__getitem__))
    about = dict(zip("ndMK", shape, strict=True))
    keep(store, KIND, {"name": name, "best": best, "seconds": dict(seconds)}, device=device,
         dtype=dtype, **about)  # fmt: skip
    _measured.cache_clear()


@cache
def _measured(device: str) -> dict[str, Candidate]:
    """The choices that were measured here, by name; the last of a name counts."""
    return {entry["name"]: entry["best"] for entry in find(Store(), KIND, device=device)}


@cache
def _shipped(device: str) -> dict[str, Candidate]:
    """The choices that come with the package, for the model whose name is in the device's."""
    path = Path(__file__).with_name("tuned.json")
    table = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: best
        for model, choices in table.items()
        if model in device
        for name, best in choices.items()
    }
