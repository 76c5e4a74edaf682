"""Results on disk, a line each: what is damaged is named and left out, the rest is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .worker import append

__all__ = ["append", "newest", "read"]


def read(path: Path, complain: Callable[[str], None]) -> list[dict[str, Any]]:
    """The records of a file; complain(sentence) tells how many of its lines are damaged."""
    found = []
    damaged = []
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        digest, _, text = line.partition(b" ")
        try:
            whole = hashlib.sha256(text).hexdigest()[: len(digest)].encode() == digest != b""
            record = json.loads(text) if whole else None
        except ValueError:
            record = None
        if isinstance(record, dict):
            found.append(record)
        else:
            damaged.append(number)
    if damaged:
        which = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
        complain(f"{path}: {len(damaged)} of its lines are damaged ({which}) and left out")
    return found


def newest(folder: Path, key: str) -> Path:
    """The file of a run that was interrupted and goes on, or of a new one."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{key}-*.jsonl")]
    last = max(numbers, default=0)
    path = folder / f"{key}-{last}.jsonl"
    ended = not last or any(r.get("kind") == "end" for r in read(path, lambda sentence: None))
    return folder / f"{key}-{last + 1}.jsonl" if ended else path
