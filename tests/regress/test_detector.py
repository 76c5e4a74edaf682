"""The detector's figures and those of plain asv beside it: counted rightly, between markers."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import twolayer as tl
from twolayer.regress import costs, decide, run
from twolayer.regress.revisions import Revision
from twolayer.showing.tables import between_markers

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("detector", ROOT / "tools/detector.py")
detector = importlib.util.module_from_spec(spec)
spec.loader.exec_module(detector)


def made(number, plant, found=(), false=(), together=()):
    return {
        "number": number, "plant": plant, "busy": False, "slowed": "numpy", "found": [*found],
        "false": [*false], "together": [*together] or [plant], "possible": 2, "seconds": 60.0,
        "slower": 0.02, "machine": "a", "cpu": "a CPU",
    }  # fmt: skip


def test_only_runs_that_name_the_slowed_variant_and_no_other_are_right():
    runs = [
        made(0, "2", ["numpy a", "numpy a, slowest steps", "numpy b, slowest steps"]),
        made(1, "2", ["numpy a"], ["numba-fused a"]),
        made(2, "2"),
        made(3, "2", ["numpy a"], ["numba-fused memory"]),
        made(0, "0"),
    ]
    text = detector.table(runs)
    # 1 - 0.95^(1/4) is the bound from below; 0.902 solves (1-p)⁴ + 4p(1-p)³ + 6p²(1-p)² = 0.05.
    assert "| 2% | no | 4 | 2 (≤ 90.2%) | 25% (≥ 1%) | 2.0% | 50% | 60 s |" in text
    assert "| nothing | no | 1 | 0 (≤ 95.0%) | – | – | – | 60 s |" in text
    # Here 0.811 solves (1-p)⁵ + 5p(1-p)⁴ + 10p²(1-p)³ = 0.05.
    assert "All 5 runs together: 2 (≤ 81.1%) with a false alarm" in text
    assert "1 of 4 slowdowns found, and nothing else (≥ 1%); the longest run took 60 s" in text
    assert "; machines, or sets of libraries: 1." in text


def test_a_run_with_several_plants_is_one_run():
    runs = [made(0, plant, ["numpy a"], ["numpy b"], ["1", "2"]) for plant in ("1", "2")]
    text = detector.table(runs)
    assert "| 1% | no | 1 | 1 (≤ 100.0%) | 0% (≥ 0%) |" in text
    assert "All 1 runs together: 1 (≤ 100.0%) with a false alarm; 0 of 2 slowdowns" in text


def test_what_is_planted_moves_from_variant_to_variant():
    names, wanted = ["a", "b", "c", "d"], ["0", "1", "2", "5", "lock"]

    def runs(number, known=()):
        about = {"number": number, "busy": False}
        return list(detector.missing(about, wanted, names, [about | run for run in known]))

    assert runs(0) == [{}, {"a": "1", "b": "2", "c": "5"}, {"a": "lock"}]
    assert runs(3) == [{}, {"d": "1", "a": "2", "b": "5"}, {"d": "lock"}]
    known = [{"plant": plant} for plant in ("0", "2", "5")]
    assert runs(1, known) == [{"b": "1", "c": "lock"}]
    assert runs(1, [{"plant": "1", "busy": True}]) == runs(1)


def test_only_what_a_file_names_is_slowed(tmp_path):
    copies = [Revision(side, side, tmp_path / side) for side in ("base", "head")]
    for copy in copies:
        (copy.folder / "variants").mkdir(parents=True)
    names = ["numpy", "numba-fused"]
    detector._plant(copies, names, {"numpy": "2"})
    detector._plant(copies, names, {"numba-fused": "tenth"})
    plants = {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*.plant")}
    at = "variants/numba_fused.plant"
    assert plants == {f"base/{at}": "tenth idle", f"head/{at}": "tenth "}
    source = tmp_path / "head/variants/numpy.py"
    scope = {"VARIANT": tl.variants.get("numpy"), "__file__": str(source)}
    exec(detector.SLOWED, scope)
    assert scope["VARIANT"] == tl.variants.get("numpy")


def test_without_runs_there_is_only_the_head():
    assert "together" not in detector.table([])


def decision(variant, kind="time", verdict="slower"):
    return decide.Decision(
        f"{variant} {kind}", variant, kind, 4, 1e-3, 1e-3, 1.02, 1.0, 1.1, 0.0, 1.0, 0.01, verdict,
        True,
    )  # fmt: skip


COMPILES = costs.Cost("compile", "numpy", 1.0, 9.0, "worse")


@pytest.mark.parametrize(
    ("slowed", "outcome", "found", "false"),
    [
        ("", run.Outcome([decision("numpy")]), 0, 1),
        ("", run.Outcome([decision("numpy", "memory", "less")]), 0, 1),
        ("", run.Outcome([], [costs.Cost("compile", "numpy", 9.0, 1.0, "better")]), 0, 1),
        ("", run.Outcome([], [], [costs.Note("failed", "numpy", "why")]), 0, 1),
        ("", run.Outcome([decision("numpy", verdict="unclear")]), 0, 0),
        ("numpy", run.Outcome([decision("numpy"), decision("numpy", "tail")]), 2, 0),
        ("numpy", run.Outcome([decision("numpy", "load")], [COMPILES]), 0, 0),
        ("numpy", run.Outcome([decision("numpy", verdict="faster")]), 0, 1),
        ("numpy", run.Outcome([decision("numba-fused", "tail")], [COMPILES]), 0, 1),
    ],
)
def test_whatever_is_named_without_a_reason_is_a_false_alarm(slowed, outcome, found, false):
    (line,) = detector.told(outcome, {slowed: "1"} if slowed else {})
    assert (len(line["found"]), len(line["false"])) == (found, false)


def test_another_planted_variant_is_no_false_alarm():
    outcome = run.Outcome([decision("numpy"), decision("numba-blas")], [COMPILES])
    numpy, fused = detector.told(outcome, {"numpy": "1", "numba-fused": "2"})
    assert (numpy["found"], numpy["false"]) == (["numpy time"], ["numba-blas time"])
    assert (numpy["slower"], fused["slower"]) == (pytest.approx(0.02), 0.0)
    assert (fused["found"], fused["false"]) == ([], ["numba-blas time"])
    assert numpy["together"] == fused["together"] == ["1", "2"]


def test_a_machine_is_another_one_when_its_cpu_or_a_library_changes(monkeypatch):
    def seen(**changed):
        monkeypatch.setattr(detector, "fingerprint", lambda: about | changed)
        return detector.machine()["machine"]

    about = detector.fingerprint()
    assert seen(os="another build", sources="changed") == seen()
    assert len({seen(), seen(cpu="another"), seen(libraries=["numba 0.1"])}) == 3


@pytest.mark.parametrize("marker", [detector.MARKER, "detector-asv"])
def test_the_page_has_the_markers(marker):
    assert "a table" in between_markers(ROOT / "docs" / "lab" / "detector.md", "a table", marker)


@pytest.mark.compiled
@pytest.mark.parametrize("idle", ["", " idle"])
@pytest.mark.parametrize("plant", ["50", *(name for name in detector.PLANTS if name.isalpha())])
def test_what_is_planted_changes_no_result(tmp_path, plant, idle):
    variant = tl.variants.get("numpy")
    source = tmp_path / "numpy.py"
    source.write_text(detector.SLOWED)
    source.with_suffix(".plant").write_text(plant + idle)
    scope = {"VARIANT": variant, "__file__": str(source)}
    exec(compile(detector.SLOWED, str(source), "exec"), scope)
    slowed = scope["VARIANT"]
    net = tl.Network()
    theta = net.init(3, 4, 2)
    X, Y = np.ones((20, 3), np.float32), np.ones((20, 2), np.float32)
    plans = [v.plan(net, X, Y, theta) for v in (variant, slowed)]
    assert plans[0].step(0.1) == plans[1].step(0.1)
    # Of some ten nanoseconds each, in an epoch below a millisecond.
    assert (0 < plans[1].engine.length < 1e5) == (plant in ("50", "tenth") and not idle)
    assert (plans[0].theta.V == plans[1].theta.V).all()


STARTS = """
import subprocess, sys
with subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=1) as neighbour:
    sys.stdin.readline()
    sys.exit(neighbour.poll() or 0)
"""


def test_what_keeps_a_core_busy_ends_with_the_run():
    """Whoever kills a run leaves nothing that would disturb the next one."""
    command = [sys.executable, "-c", STARTS, detector.HALF_BUSY]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as run:
        time.sleep(0.5)
        run.kill()
        assert run.communicate(timeout=10) == (b"", None)  # when the neighbour ended as well


# Plain asv

TABLE = """
| Change   | Before [1f3ba8a4] <base>   | After [0a86c4d4] <slowed-5>   |   Ratio | Benchmark (Parameter)                          |
|----------|----------------------------|-------------------------------|---------|------------------------------------------------|
| +        | 48.6±0.3μs                 | 55.1±0.4μs                    |    1.13 | epoch.Samples.time_epoch('numba-fused', 256)   |
| -        | 648±3μs                    | 521±3μs                       |    0.8  | epoch.Samples.time_epoch('numba-blas', 4096)   |
"""  # noqa: E501


@pytest.fixture
def plain(load_tool):
    return load_tool("detector_asv")


def test_only_what_asv_calls_slower_counts(plain):
    assert plain.slower(TABLE) == ["epoch.Samples.time_epoch('numba-fused', 256)"]
    assert plain.slower("") == []


@pytest.mark.parametrize("number", [0, 1])
def test_alarms_and_misses_are_counted_for_each_setting(plain, number):
    fused, blas = "a('numba-fused', 1)", "a('numba-blas', 1)"
    setting = list(plain.SETTINGS)[number]
    runs = [
        {"setting": setting, "percent": percent, "slower": slower, "slower_finer": finer,
         "slowed": "numba-fused", "seconds": 60.0}
        for percent, slower, finer in [
            (0, [], [blas]), (5, [], [fused]), (5, [fused, blas], [fused, blas]),
        ]
    ]  # fmt: skip
    text = plain.table(runs)
    assert f"| {setting} | 0% | 1 | 0 | – | 60 s |" in text
    assert f"| {setting} | 5% | 2 | 1 | 0% | 60 s |" in text
    assert f"| {setting}{plain.FINER} | 0% | 1 | 1 | – | 60 s |" in text
    assert f"| {setting}{plain.FINER} | 5% | 2 | 2 | 50% | 60 s |" in text


def test_every_slowdown_is_a_commit_of_its_own(plain, tmp_path):
    tree = tmp_path / "tree"
    (tree / "variants").mkdir(parents=True)
    (tree / "variants" / "numpy.py").write_text("VARIANT = 1\n")
    (tree / "asv.conf.json").write_text('{"version": 1, "project": "p", "repo": "."}')
    folder = tmp_path / "folder"
    plain.make_repository(tree, folder, "numpy")

    def source(tag):
        command = ["git", "-C", str(folder / "repository"), "show", f"{tag}:variants/numpy.py"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert source("base") == source("slowed-0")
    assert source("base").endswith("_slowed(VARIANT.make, '0 idle'))\n")
    for percent in plain.PERCENT[1:]:
        assert source(f"slowed-{percent}").endswith(f"_slowed(VARIANT.make, '{percent}'))\n")


def test_runs_of_plain_asv_are_kept_apart_by_machine_and_version(plain):
    assert plain.here()["machine"] == detector.machine()["machine"]
    assert plain.here()["asv"]
