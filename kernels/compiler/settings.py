"""What users set that changes compiled code, or how fast it runs: named once, for every key.

Imports no compiler.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

VECTOR_BYTES = "TWOLAYER_VECTOR_BYTES"

# Variables of the libraries that compute, of their thread pools, and of memory; and which of them
# only say where files lie, what is printed, or what another library sets without being asked.
_STEERS = re.compile(
    r"(NUMBA|OMP|GOMP|KMP|OPENBLAS|GOTO|BLIS|MKL|VECLIB|NPY|TORCH|TORCHINDUCTOR|PYTORCH|TRITON|XLA"
    rf"|JAX|PJRT|CUDA|CUPY|NVIDIA|MALLOC)_|(LD_PRELOAD|GLIBC_TUNABLES|{VECTOR_BYTES})$"
)
_TELLS = re.compile(
    r"_(DIR|PATH|HOME|ROOT|FILE|VERSION|LOG_LEVEL)$|KMP_(DUPLICATE_LIB_OK|INIT_AT_FORK)$"
    r"|NVIDIA_(REQUIRE|PRODUCT)_|NUMBA_(DUMP|CACHE|COLOR|HIGHLIGHT|SHOW_HELP|DEVELOPER_MODE"
    r"|FULL_TRACEBACKS|DISABLE_PERFORMANCE_WARNINGS)"
)
# Numba's settings that machine code for a CPU depends on, but the processor, which magic_tuple has.
_COMPILES = re.compile(
    r"(BOUNDSCHECK|DEBUG|DISABLE_INTEL_SVML|ENABLE_AVX|ENABLE_PROFILING|EXTEND_VARIABLE_LIFETIMES"
    r"|LLVM_REFPRUNE|LOOP_VECTORIZE|NRT_STATS|OPT$|PARFOR_|SLP_VECTORIZE|USING_SVML)"
)


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Of the variables those that a time may depend on."""
    return {
        name: environment[name] for name in sorted(environment)
        if _STEERS.match(name) and not _TELLS.search(name)
    }  # fmt: skip


def of_file(path: Path = Path(".numba_config.yaml")) -> dict[str, str]:
    """The variables that Numba takes from a file of the current folder; those that are set win."""
    if not path.is_file():
        return {}
    try:
        from yaml import YAMLError, safe_load
    except ImportError:  # Numba cannot read it either
        return {}
    try:
        found = safe_load(path.read_text())
    except (OSError, ValueError, YAMLError):  # Numba says what is wrong with it
        return {}
    return {
        f"NUMBA_{str(name).upper()}": str(int(value) if isinstance(value, bool) else value)
        for name, value in (found.items() if isinstance(found, dict) else ())
    }


def of_compiler(config: object) -> list[str]:
    """NAME=value of the settings in Numba's module `config` that code for a CPU depends on."""
    return [
        f"{name}={getattr(value, 'is_opt_max', '')}{value!r}"  # OPT=max is 3, and more
        for name, value in sorted(vars(config).items())
        if _COMPILES.match(name)
    ]


def check_environment(environment: Mapping[str, str] | None = None) -> None:
    """Raise ValueError for a variable with which Numba ends a process, or every parallel kernel."""
    given = of_file() | os.environ if environment is None else environment
    for name, (right, expected) in _NEEDED.items():
        text = given.get(name, "").strip()
        if name in given and not right(text):
            raise ValueError(f"{name}: expected {expected}, got {text!r}")


def _is_layer(text: str) -> bool:
    """Whether it is a threading layer of Numba's, or a wish for one, that can be loaded here."""
    module = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}.get(text)
    if module is None:
        return text in ("default", "safe", "threadsafe", "forksafe")
    try:
        import_module(f"numba.np.ufunc.{module}")
    except ImportError:
        return False
    return True


_NEEDED: dict[str, tuple[Callable[[str], object], str]] = {
    "NUMBA_NUM_THREADS": (
        lambda text: text.isdecimal() and int(text),
        "a positive integer",
    ),
    "NUMBA_THREADING_LAYER": (
        _is_layer,
        "default, safe, threadsafe, forksafe, or tbb, omp or workqueue where it is installed",
    ),
    "NUMBA_CPU_FEATURES": (
        re.compile(r"([+-][^,]+(,[+-][^,]+)*)?").fullmatch,
        "features with commas between, + or - before each",
    ),
}
