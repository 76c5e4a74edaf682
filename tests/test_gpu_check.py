"""tools/gpu_check.py without a GPU: parts are cut and kept, and figures become tables and bars."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest

from twolayer.cli import tables
from twolayer.cli.gpu import SHAPES

ROOT = Path(__file__).parents[1]


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "tools" / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PART = """
import json, pathlib, subprocess, sys, time
name, file = sys.argv[1:]
pathlib.Path(file).write_text(json.dumps({"kept": name}))
if name == "hangs":
    subprocess.run(["sleep", "60"])
if name == "fails":
    raise SystemExit("no such device")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="ends groups of processes")
def test_a_part_that_hangs_is_cut_and_what_it_found_is_kept(check):
    command = [sys.executable, "-c", PART]
    begun = time.monotonic()
    parts = [check.Part(name, 3) for name in ("hangs", "fails", "ends")]
    found = check.run(parts, begun + 600, command)
    assert time.monotonic() - begun < 30
    assert found == {
        "hangs": {"kept": "hangs", "cut": "after 3 s"},
        "fails": {"kept": "fails", "failed": "no such device\n"},
        "ends": {"kept": "ends"},
    }
    assert check.run(parts[:1], begun, command) == {"hangs": {"cut": "before it began"}}
    assert check.complaints(found) == ["hangs: cut: after 3 s", "fails: failed: no such device"]


def test_all_parts_fit_into_ten_minutes_by_being_cut(check, monkeypatch):
    """Without a GPU only what is common to all variants is left."""
    names = [part.name for group in check.groups() for part in group]
    assert names[:3] == ["versions", "ceilings", "cublas"]
    assert "launches" in names
    for part in (part for group in check.groups() for part in group):
        assert callable(getattr(check, part.name.split()[0]))


def record(variant, shape, seconds, dtype="float32", skipped=""):
    found = {"variant": variant, "shape": str(shape), "dtype": dtype, "skipped": skipped}
    figures = dict.fromkeys(("wall", "transfer", "plan"), 2 * seconds)
    figures |= {"seconds": seconds, "memory": 3 << 20, "error": 0.25}
    return found | (
        {} if skipped else figures | {"flops": shape.flops(), "bytes": shape.bytes(dtype)}
    )


@pytest.fixture
def found():
    races = {
        "cuda-fused": (1e-4, None, None),
        "cuda-tiled": (4e-4, 2e-3, 1e-2),
        "cuda-tensor": (4e-4, 1e-3, None),
        "torch": (1e-3, 3e-3, 9.5e-3),
        "cupy": (6e-4, 1.7e-3, 2e-2),
    }
    found = {
        "date": "2026-01-02",
        "ceilings": {"float32": {"flops": 6e13, "bandwidth": 3e12}},
        "cublas": {"float32, 8 × 9 × 7": 5e13, "TF32, 8 × 9 × 7": 3e14},
        "versions": {"machine": {"gpus": ["A GPU, 1.2, 80 GiB"], "libraries": ["torch 9"]}},
        "jax": None,
    }
    for name, times in races.items():
        found[f"race {name}"] = {
            f"float32 {shape}": record(
                name, shape, seconds or 1.0, skipped="" if seconds else "is made for others"
            )
            for shape, seconds in zip(SHAPES, times, strict=True)
        }
    return found


def test_bars_are_judged_against_the_fastest_peer(check, found):
    bars = check.gpu_tables._bars(found).splitlines()[2:]
    first, second, third = map(str, SHAPES)
    assert bars == [
        f"| cuda-fused | {first} | 5 | 6.00 | pass |",
        f"| cuda-tiled | {second} | 0.9 | 0.85 | fail |",
        f"| cuda-tiled | {third} | 0.9 | 0.95 | pass |",
        f"| cuda-tensor | {second} | 1.5 | 1.70 | pass |",
        f"| cuda-tensor | {third} | 1.5 | – | not measured |",
    ]
    del found["race torch"], found["race cupy"]
    assert check.gpu_tables._bars(found).count("not measured") == 5


def test_the_tables_are_written_between_the_markers(check, found, tmp_path):
    text = check.gpu_tables.markdown(found)
    assert "| cuBLAS, TF32, 8 × 9 × 7 | 300.0 TFLOP/s |" in text
    row = "| cuda-tiled | float32 | 100000 | 784 | 128 | 10 | 2.00 ms | 4.00 ms |"
    share = max(SHAPES[1].flops() / 6e13, SHAPES[1].bytes("float32") / 3e12) / 2e-3
    assert f"{row} 4.00 ms | 4.00 ms | 3 MiB | 0.25 | {share:.0%} |" in text
    assert f"Not timed: cuda-tensor, float32, {SHAPES[2]}: is made for others." in text
    assert text.endswith(
        "A GPU, 1.2, 80 GiB; torch 9. Written on 2026-01-02 by `tools/gpu_check.py`."
    )
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    page = tables.between_markers(tmp_path / "gpu.md", page, text, "gpu")
    assert text in page


def test_what_was_measured_in_part_makes_tables_too(check):
    found = {"date": "2026-01-02", "cublas": {"skipped": "no NVIDIA GPU"}, "versions": {}}
    assert "not measured" in check.gpu_tables.markdown(found)


def test_disagreements_and_checkers_findings_are_told(check, found):
    found["agreement cuda-tiled"] = {"tanh": {"checked": 3, "wrong": ["dL/dW is off"]}}
    found["sanitizer cuda-tiled"] = {"racecheck": {"status": 9, "wrong": ["a hazard"]}}
    found["race cupy"][f"float32 {SHAPES[0]}"]["skipped"] = "disagrees with the oracle: L"
    assert check.complaints(found) == [
        f"race cupy, float32 {SHAPES[0]}: disagrees with the oracle: L",
        "agreement cuda-tiled, tanh: dL/dW is off",
        "sanitizer cuda-tiled, racecheck: a hazard",
    ]


def test_without_a_gpu_it_says_why_and_writes_nothing(check, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("twolayer.device.gpu_count", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--json", str(tmp_path / "gpu.json")])
    assert check.main() == 1
    assert "cuda-tiled: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
