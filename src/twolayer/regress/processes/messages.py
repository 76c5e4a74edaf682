"""How workers are started, heard and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

WORKER = Path(__file__).with_name("worker.py")
_SLICES = 60  # of the patience: of a time in which all was stopped, one counts


def begun(errors: IO[str] | int, python: str = sys.executable) -> subprocess.Popen[str]:
    """A new worker, in a group of its own with all that it starts itself."""
    return subprocess.Popen(
        [python, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        text=True, process_group=0,
    )  # fmt: skip


def reply(worker: subprocess.Popen[str], patience: float) -> tuple[str, bool]:
    """The next line of a worker, none where it ended; and whether its silence was why it ended."""
    assert worker.stdout is not None
    heard, hung = threading.Event(), threading.Event()

    def watch() -> None:
        if not any(heard.wait(patience / _SLICES) for _ in range(_SLICES)):
            hung.set()
            _kill(worker)

    threading.Thread(target=watch, daemon=True).start()
    try:
        line = worker.stdout.readline()
    finally:
        heard.set()
    return line, hung.is_set()


def end(worker: subprocess.Popen[str]) -> None:
    """End a worker, whatever it is at, and what it started."""
    assert worker.stdin is not None and worker.stdout is not None
    _kill(worker)
    worker.wait()
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.close()
    worker.stdout.close()


def _kill(worker: subprocess.Popen[str]) -> None:
    # What it started may hold its end of the pipe, and outlive it.
    with contextlib.suppress(OSError):
        os.killpg(worker.pid, signal.SIGKILL)
