import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from twolayer.machine import hardware


@pytest.fixture
def control_group(tmp_path, monkeypatch):
    """Makes this process look like a member of the control groups that it writes."""
    monkeypatch.setattr(hardware, "_CGROUP_MOUNT", tmp_path)
    monkeypatch.setattr(hardware, "_CGROUP_SELF", tmp_path / "self")

    def write(membership, files):
        (tmp_path / "self").write_text(membership)
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return write


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b\n", {}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "250000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"cpu.max": "1600000 100000\n"}, 8),
        ("0::/a/b\n", {"cpu.max": "nonsense\n"}, 8),
        ("0::/the/hosts/path\n", {"cpu.max": "200000 100000\n"}, 2),  # inside a container
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "1"}, 8),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "9", "cpu/a/cpu.cfs_period_us": "3"}, 3),
        ("4:memory:/a\n", {"cpu/a/cpu.cfs_quota_us": "9", "cpu/a/cpu.cfs_period_us": "3"}, 8),
    ],
)
def test_cpu_count_under_a_quota(control_group, monkeypatch, membership, files, expected):
    monkeypatch.setattr(hardware, "_allowed_cpus", lambda: list(range(8)))
    control_group(membership, files)
    assert hardware.cpu_count() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks")
def test_cpu_count_follows_the_affinity_mask():
    before = os.sched_getaffinity(0)
    assert 1 <= hardware.cpu_count() <= len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert hardware.cpu_count() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a\n", {}, 1000),
        ("0::/a\n", {"a/memory.max": "max"}, 1000),
        ("0::/a\n", {"a/memory.max": "700"}, 700 - 300 + 20),
        ("0::/a\n", {"a/memory.max": "100000"}, 1000),
        ("0::/a\n", {"a/memory.max": "200"}, 0),
        ("5:memory:/a\n", {"memory/a/memory.limit_in_bytes": "800"}, 800 - 500 + 30),
    ],
)
def test_available_memory_under_a_limit(control_group, monkeypatch, membership, files, expected):
    available = type("Memory", (), {"available": 1000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    usage = {
        "a/memory.current": "300",
        "a/memory.stat": "anon 1\ninactive_file 20\n",
        "memory/a/memory.usage_in_bytes": "500",
        "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 30\n",
    }
    control_group(membership, usage | files)
    assert hardware.available_memory() == expected


def test_available_memory_here():
    assert 1 << 20 < hardware.available_memory() <= psutil.virtual_memory().total


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    """Makes the machine look like one whose caches are those that it writes."""
    monkeypatch.setattr(hardware, "_CPU_FOLDER", tmp_path)
    monkeypatch.setattr(hardware, "_allowed_cpus", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(sys, "platform", "linux")

    def write(*caches):
        for cpu in range(4):
            for index, (level, kind, size, sharers) in enumerate(caches):
                folder = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
                folder.mkdir(parents=True)
                values = {"level": level, "type": kind, "size": size}
                values["shared_cpu_list"] = sharers[cpu]
                for name, value in values.items():
                    (folder / name).write_text(f"{value}\n")

    hardware._caches.cache_clear()
    hardware.cache_sizes.cache_clear()
    yield write
    hardware._caches.cache_clear()
    hardware.cache_sizes.cache_clear()


OWN = ["0", "1", "2", "3"]
PAIRS = ["0-1", "0-1", "2-3", "2-3"]


def test_cache_sizes(cache_folder):
    cache_folder(
        (1, "Data", "48K", OWN), (1, "Instruction", "64K", OWN),
        (2, "Unified", "2048K", OWN), (3, "Unified", "32M", PAIRS),
    )  # fmt: skip
    assert hardware.cache_sizes() == {1: 48 << 10, 2: 2 << 20, 3: 32 << 20}
    # One thread reaches one of the two last-level caches, two or more both.
    assert [hardware.last_level_cache(threads) >> 20 for threads in (1, 2, 4)] == [32, 64, 64]


def test_machine_without_a_third_level(cache_folder):
    cache_folder((1, "Data", "64K", OWN), (2, "Unified", "4M", PAIRS))
    assert hardware.cache_sizes() == {1: 64 << 10, 2: 4 << 20, 3: 4 << 20}
    assert hardware.last_level_cache(2) == 8 << 20


@pytest.mark.parametrize(
    ("threads", "first", "second"), [(1, 48, 2048), (2, 48, 2048), (3, 24, 1024), (4, 24, 1024)]
)
def test_two_threads_of_a_core_have_half_of_its_caches_each(cache_folder, threads, first, second):
    cache_folder((1, "Data", "48K", PAIRS), (2, "Unified", "2048K", PAIRS))
    found = hardware.cache_sizes(threads)
    assert (found[1] >> 10, found[2] >> 10) == (first, second)


@pytest.mark.parametrize(
    ("sharers", "of_one", "of_eight", "last"),
    [("8 1 4 0 0", 64, 64, 8), ("8 2 2 0 0", 64, 32, 16), ("", 32, 32, None)],
    ids=["Apple", "two threads a core", "unknown"],
)
def test_caches_of_macos(cache_folder, monkeypatch, sharers, of_one, of_eight, last):
    said = {"hw.l1dcachesize": "65536", "hw.l2cachesize": str(4 << 20), "hw.cacheconfig": sharers}
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(hardware, "_allowed_cpus", lambda: list(range(8)))
    monkeypatch.setattr(hardware, "_output", lambda *command: said.get(command[-1], ""))
    assert [hardware.cache_sizes(count)[1] >> 10 for count in (1, 8)] == [of_one, of_eight]
    if last:
        assert hardware.cache_sizes()[3] == 4 << 20
        assert hardware.last_level_cache(8) >> 20 == last


def test_machine_that_hides_its_caches(cache_folder):
    assert sorted(hardware.cache_sizes()) == [1, 2, 3]
    assert hardware.last_level_cache(4) == hardware.cache_sizes()[3] > 0


def digest_of(folder):
    """The digest that the package gives of itself when it lies in another folder."""
    script = "from twolayer.machine.hardware import source_digest; print(source_digest())"
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.check_output(
        [sys.executable, "-P", "-c", script], env=environment, text=True, cwd=folder
    )


def test_source_digest_covers_all_that_figures_depend_on(tmp_path):
    package = Path(hardware.__file__).parents[1]
    copy = tmp_path / "twolayer"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    known = {digest_of(tmp_path)}
    (copy / "notes.txt").write_text("no source")
    for file in ("cli/options.py", "showing/tables.py"):
        with (copy / file).open("a") as source:
            source.write("# changed\n")
    assert {digest_of(tmp_path)} == known
    for file in ("machine/hardware.py", "kernels/compiler/jit.py", "variants/another.py"):
        with (copy / file).open("a") as source:
            source.write("# changed\n")
        known.add(digest_of(tmp_path))
    assert len(known) == 4


def test_fingerprint_is_the_same_in_another_process():
    script = (
        "import json, numba, numpy, twolayer.machine.hardware as machine\n"
        "numba.njit(parallel=True)(lambda x: x + 1)(numpy.ones(9))\n"  # its threads are running
        "print(json.dumps(machine.fingerprint()))"
    )
    here = hardware.fingerprint()
    command = [sys.executable, "-c", script]
    there = subprocess.check_output(command, text=True, env=hardware.environment())
    assert json.loads(there) == here
    assert here is hardware.fingerprint()
    assert here["cpu"]
    assert here["cpus"] >= 1
    assert [name for name in here["libraries"] if name.startswith("numba ")]
    assert here["sources"] == hardware.source_digest()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "echo 'A GPU, 580.1, 100 MiB'; echo 'A GPU, 580.1, 100 MiB'",
            ["A GPU, 580.1, 100 MiB"] * 2,
        ),
        ("echo 'no devices were found'; exit 6", []),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_gpus_are_what_nvidia_smi_lists(tmp_path, monkeypatch, script, expected):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert hardware._gpus() == expected


def test_no_gpu_without_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware._gpus() == []
