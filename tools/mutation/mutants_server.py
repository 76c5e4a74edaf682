"""Checks of mutants, each in a child of one process that has loaded what they all share.

`mutants.py` starts it for a copy of the package: mutants_server.py CHECK REFERENCES. A line of JSON
on its input is a check to be run: environment, stage, seconds that it may take, and the file that
its output goes to; the answer is a line with its exit code, null where it took too long. NumPy,
Numba, pytest and the references are loaded before the fork, the package after it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import pickle
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import llvmlite.ir
import mpmath
import numba
import numba.extending
import pytest
import scipy.linalg.cython_blas
import scipy.special
import threadpoolctl

PRELOADED = llvmlite, mpmath, scipy, threadpoolctl


def main(check: str, references: Path) -> None:
    """Answer one request after the other until the input ends."""
    numba.njit(lambda x: x + 1)(1.0)  # loads what compiling takes; parallel code must not run here
    stored = pickle.loads(references.read_bytes())
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(_answer(check, stored, **json.loads(line))), flush=True)


def _answer(
    check: str, stored: Any, stage: list[str], environment: dict[str, str], limit: float, log: str
) -> dict[str, Any]:
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(check, stored, stage, environment, log)
    ended = os.pidfd_open(child)
    try:
        in_time = bool(select.select([ended], [], [], limit)[0])
        for whom in (os.killpg, os.kill):  # its own children too; itself where it has no group yet
            with contextlib.suppress(ProcessLookupError):
                whom(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(ended)
    return {"code": code if in_time else None, "seconds": time.monotonic() - started}


def _child(
    check: str, stored: Any, stage: list[str], environment: dict[str, str], log: str
) -> None:
    """Run one check in this process, and end it."""
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
            os.dup2(descriptor, target)
        os.environ.update(environment)
        os.chdir(os.environ["HOME"])
        if stage[0] == "pytest":
            code = int(pytest.main(["-qx", "-p", "no:cacheprovider", "-m", "not slow", *stage[1:]]))
        else:
            spec = importlib.util.spec_from_file_location("check", check)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            module.run(stored, *stage)
            code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
