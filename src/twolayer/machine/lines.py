"""Records on disk, a line of JSON each: whoever is killed loses none that was written before.

What is damaged is named and left out, the rest is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def append(path: str | Path, record: Mapping[str, Any]) -> None:
    """Add a line, whole, with the digest of its text at its head, and wait until it is on disk."""
    text = json.dumps(record)
    line = f"{_digest(text.encode())} {text}\n"
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # whoever wrote it was killed
            line = "\n" + line
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: str | Path, complain: Callable[[str], None]) -> list[dict[str, Any]]:
    """The records of a file; complain(sentence) tells how many of its lines are damaged."""
    found, damaged = [], []
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        digest, _, text = line.partition(b" ")
        try:
            record = json.loads(text) if digest == _digest(text).encode() else None
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


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:12]
