"""Plain asv beside the detector: its tables are read and counted rightly."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = """
| Change   | Before [1f3ba8a4] <base>   | After [0a86c4d4] <slowed-5>   |   Ratio | Benchmark (Parameter)                          |
|----------|----------------------------|-------------------------------|---------|------------------------------------------------|
| +        | 48.6±0.3μs                 | 55.1±0.4μs                    |    1.13 | epoch.Samples.time_epoch('numba-fused', 256)   |
| -        | 648±3μs                    | 521±3μs                       |    0.8  | epoch.Samples.time_epoch('numba-blas', 4096)   |
"""  # noqa: E501


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools/detector_asv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_what_asv_calls_slower_counts(tool):
    assert tool.slower(TABLE) == ["epoch.Samples.time_epoch('numba-fused', 256)"]
    assert tool.slower("") == []


@pytest.mark.parametrize("number", [0, 1])
def test_alarms_and_misses_are_counted_for_each_setting(tool, number):
    fused, blas = "a('numba-fused', 1)", "a('numba-blas', 1)"
    setting = list(tool.SETTINGS)[number]
    runs = [
        {"setting": setting, "percent": percent, "slower": slower, "slower_finer": finer,
         "slowed": "numba-fused", "seconds": 60.0}
        for percent, slower, finer in [
            (0, [], [blas]), (5, [], [fused]), (5, [fused, blas], [fused, blas]),
        ]
    ]  # fmt: skip
    text = tool.table(runs)
    assert f"| {setting} | 0% | 1 | 0 | – | 60 s |" in text
    assert f"| {setting} | 5% | 2 | 1 | 0% | 60 s |" in text
    assert f"| {setting}{tool.FINER} | 0% | 1 | 1 | – | 60 s |" in text
    assert f"| {setting}{tool.FINER} | 5% | 2 | 2 | 50% | 60 s |" in text


def test_every_slowdown_is_a_commit_of_its_own(tool, tmp_path):
    tree = tmp_path / "tree"
    (tree / "variants").mkdir(parents=True)
    (tree / "variants" / "numpy.py").write_text("VARIANT = 1\n")
    (tree / "asv.conf.json").write_text('{"version": 1, "project": "p", "repo": "."}')
    folder = tmp_path / "folder"
    tool.make_repository(tree, folder, "numpy")

    def source(tag):
        command = ["git", "-C", str(folder / "repository"), "show", f"{tag}:variants/numpy.py"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert source("base") == source("slowed-0") == "VARIANT = 1\n"
    for percent in tool.PERCENT[1:]:
        assert source(f"slowed-{percent}").endswith(f"_slowed(VARIANT.make, '{percent}'))\n")


def test_the_page_has_the_markers():
    text = (ROOT / "docs" / "measuring.md").read_text()
    assert text.index("<!-- detector-asv:start -->") < text.index("<!-- detector-asv:end -->")
