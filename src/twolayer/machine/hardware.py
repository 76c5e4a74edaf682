"""The machine: the CPUs, memory and caches this process may use, and a fingerprint of it all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module, metadata
from pathlib import Path

from . import given

Fingerprint = dict[str, str | int | list[str]]

_PACKAGE = __package__.removesuffix(".machine")
_CGROUP_MOUNT = Path("/sys/fs/cgroup")
_CGROUP_SELF = Path("/proc/self/cgroup")
_CPU_FOLDER = Path("/sys/devices/system/cpu")
_NODE_FOLDER = Path("/sys/devices/system/node")
_NVIDIA_FOLDER = Path("/proc/driver/nvidia")

_DEFAULT_CACHES = {1: 32 << 10, 2: 512 << 10, 3: 8 << 20}  # bytes; small rather than large

# Whatever does the arithmetic of some variant; those that are not installed are left out.
_DISTRIBUTIONS = (
    "numpy", "numba", "llvmlite", "scipy", "torch", "jax", "jaxlib",
    "cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "numba-cuda",
)  # fmt: skip


def cpu_count() -> int:
    """The number of CPUs this process may use, at least 1.

    That is the size of its affinity mask, or the whole CPUs in its control group's quota if that
    is smaller: one thread more would be throttled, and the others would wait for it.
    """
    count = len(_allowed_cpus())
    for folder in _cgroup_folders("cpu"):
        with contextlib.suppress(OSError, ValueError):
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            if int(quota) > 0:  # "max" (a ValueError) and -1 mean no limit
                count = min(count, int(quota) // int(period))
    return max(count, 1)


def thread_limit() -> tuple[int, str]:
    """The most threads that a plan may have, and what says so."""
    limits = [(cpu_count(), "the CPUs available here")]
    for name in ("NUMBA_NUM_THREADS", "OMP_THREAD_LIMIT"):
        text = os.environ.get(name, "").strip()
        if text.isdecimal() and int(text):
            limits.append((int(text), f"as {name} has it"))
    numba = sys.modules.get("numba.core.config")  # who has not imported it has changed nothing
    limits.append((getattr(numba, "NUMBA_NUM_THREADS", limits[0][0]), "the threads of Numba"))
    return min(limits, key=lambda limit: limit[0])


def available_memory() -> int:
    """Bytes that can be allocated without swapping, within the control group's limit if any."""
    import psutil

    room = int(psutil.virtual_memory().available)
    for folder in _cgroup_folders("memory"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            new = (folder / "memory.max").exists()
            limit, used, pages = (
                ("memory.max", "memory.current", "inactive_file")
                if new
                else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            )
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            # File pages that nobody uses count as used, but are given up on demand.
            held = int((folder / used).read_text()) - int(stat[pages])
            room = min(room, int((folder / limit).read_text()) - held)
    return max(room, 0)


@cache
def cache_sizes(threads: int = 1) -> dict[int, int]:
    """Bytes of data cache of levels 1, 2 and 3 for each of so many threads.

    They share a cache where it has more CPUs than one and they are more than there are such caches,
    as two on one core do. A missing level equals the one below it.
    """
    levels = {
        level: max(sizes.values()) // -(-threads // len(sizes))
        for level, sizes in _caches().items()
    }
    if not levels:
        return dict(_DEFAULT_CACHES)
    found: dict[int, int] = {}
    for level, default in _DEFAULT_CACHES.items():
        found[level] = levels.get(level, found.get(level - 1, default))
    return found


def last_level_cache(threads: int) -> int:
    """Bytes of last-level cache that so many threads can reach, each on a cache of its own."""
    found = _caches()
    instances = sorted(found[max(found)].values(), reverse=True) if found else [_DEFAULT_CACHES[3]]
    return sum(instances[:threads])


def gpu_count() -> int:
    """The number of NVIDIA GPUs that the driver shows to this process; 0 without a driver."""
    count = ctypes.c_int(0)
    with contextlib.suppress(OSError):
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


@cache
def source_digest() -> str:
    """A hash of the names and contents of the package's Python files, but those that only show."""
    from ..kernels.compiler.digest import digest, folder_of

    # In a checkout the last two do not lie inside of the first.
    names = (_PACKAGE, f"{_PACKAGE}.kernels", f"{_PACKAGE}.variants")
    return digest(map(folder_of, names), without=("cli", "history", "showing"))[:16]


def environment() -> dict[str, str]:
    """The variables for a process like this one: none that a library has set since it began."""
    from ..kernels.compiler import settings

    since = settings.variables(os.environ)
    others = {name: text for name, text in os.environ.items() if name not in since}
    return others | _given()


def _given() -> dict[str, str]:
    """Of the variables that this process began with, and Numba's file, those that matter."""
    from ..kernels.compiler import settings

    return settings.variables(settings.of_file() | given.ENVIRONMENT)


@cache
def signature() -> Fingerprint:
    """What times of one machine depend on and a process tells at once, without any compiler.

    Hardware, libraries by their versions, the sources, and the variables that change the kernels.
    Two processes on one machine get the same. Shared by all callers: do not change it.
    """
    driver = _NVIDIA_FOLDER / "version"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_flags": _cpu_flags(),
        "cpus": cpu_count(),
        "caches": [f"L{level} {size}" for level, size in cache_sizes().items()],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": _versions(),
        "variables": [*map("=".join, _given().items())],
        "gpu_driver": driver.read_text() if driver.exists() else "",
        "gpus": _gpu_models(),
        "sources": source_digest(),
    }


@cache
def fingerprint() -> Fingerprint:
    """The signature and, for whoever reads figures, what takes longer to find out.

    Shared by all callers: do not change it.
    """
    import psutil
    from llvmlite import binding

    return signature() | {
        "os": platform.platform(),
        "cpu_target": binding.get_host_cpu_name(),
        "cores": psutil.cpu_count(logical=False) or 0,
        "logical_cores": psutil.cpu_count() or 0,
        "numa_nodes": len(list(_NODE_FOLDER.glob("node[0-9]*"))) or 1,
        "blas": _blas(),
        "gpus": _gpus() or _gpu_models(),
    }


def _allowed_cpus() -> list[int]:
    return sorted(given.allowed_cpus())


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those around it, whose limits hold too."""
    try:
        lines = _CGROUP_SELF.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = _CGROUP_MOUNT
        elif controller in controllers.split(","):
            mount = _CGROUP_MOUNT / controller
        else:
            continue
        # Inside a container the path may be the host's; the mount itself is then the group.
        inner = Path(path.lstrip("/"))
        yield from (mount / folder for folder in (inner, *inner.parents))


@cache
def _caches() -> dict[int, dict[str, int]]:
    """Data caches of the CPUs this process may use: level → {CPUs that share it: bytes}."""
    if sys.platform == "darwin":
        names = {1: "hw.l1dcachesize", 2: "hw.l2cachesize", 3: "hw.l3cachesize"}
        texts = {level: _output("sysctl", "-n", name) for level, name in names.items()}
        sharers = _output("sysctl", "-n", "hw.cacheconfig").split()  # of memory, then of each level
        return {
            level: {str(first): int(text) for first in range(0, len(_allowed_cpus()), int(shared))}
            for (level, text), shared in zip(texts.items(), sharers[1:], strict=False)
            if text.isdigit() and int(shared) > 0
        }
    found: dict[int, dict[str, int]] = {}
    units = {"K": 10, "M": 20, "G": 30}
    for cpu in _allowed_cpus():
        for folder in (_CPU_FOLDER / f"cpu{cpu}" / "cache").glob("index[0-9]*"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                if (folder / "type").read_text().strip() == "Instruction":
                    continue
                text = (folder / "size").read_text().strip()
                size = int(text[:-1]) << units[text[-1]]
                sharers = (folder / "shared_cpu_list").read_text().strip()
                if size > 0:
                    level = int((folder / "level").read_text())
                    found.setdefault(level, {})[sharers] = size
    return found


def _cpu_model() -> str:
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> str:
    return _cpuinfo("flags") or _cpuinfo("Features")  # as x86 and ARM call them


def _cpuinfo(name: str) -> str:
    """A line of what Linux says of the first CPU; empty where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.partition(":")[0].strip() == name:
                return line.partition(":")[2].strip()
    return ""


def _versions() -> list[str]:
    found = []
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return found


def _blas() -> list[str]:
    """The BLAS of NumPy and that of SciPy, which are often two."""
    from threadpoolctl import threadpool_info

    for module in ("numpy", "scipy.linalg"):  # a library shows only once it is loaded
        with contextlib.suppress(ImportError):
            import_module(module)
    keys = ("internal_api", "version", "architecture", "threading_layer")
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return sorted({" ".join(str(pool[key]) for key in keys if pool.get(key)) for pool in pools})


def _gpus() -> list[str]:
    """One line a GPU: name, driver, memory."""
    query = "--query-gpu=name,driver_version,memory.total"
    return _output("nvidia-smi", query, "--format=csv,noheader").splitlines()


def _gpu_models() -> list[str]:
    """The names of the GPUs, as the driver's files have them."""
    found = []
    for path in sorted(_NVIDIA_FOLDER.glob("gpus/*/information")):
        with contextlib.suppress(OSError):
            lines = path.read_text().splitlines()
            found += [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:")]
    return found


def _output(*command: str) -> str:
    """What a command prints, or nothing where it is missing, fails or hangs."""
    if shutil.which(command[0]) is None:
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()
    return ""
