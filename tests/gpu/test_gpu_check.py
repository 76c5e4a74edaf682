"""gpu_check.py without a GPU: parts are cut and kept, and figures become tables and bars."""

import importlib
import json
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import twolayer as tl
from twolayer.checking import cases
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.measuring.device_clock import SHAPES
from twolayer.measuring.device_clock import record as measured
from twolayer.network import DTYPES
from twolayer.variants import jax

ROOT = Path(__file__).parents[2]


MEASURED = ROOT / "docs" / "measured" / "gpu-2026-11-27-h200.json"
TOOLS = ("gpu_check", "gpu_parts", "gpu_tables", "gpu_counters")


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools/gpu")
    for name in TOOLS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("gpu_check")
    for name in TOOLS:
        sys.modules.pop(name, None)


def run(check, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *map(str, arguments)])
    return check.main()


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
        "fails": {"kept": "fails", "failed": "no such device"},
        "ends": {"kept": "ends"},
    }
    assert check.run(parts[:1], begun, command) == {"hangs": {"cut": "before it began"}}
    silent = [sys.executable, "-c", "raise SystemExit(7)"]
    assert check.run(parts[:1], begun + 600, silent) == {"hangs": {"failed": "exit code 7"}}
    assert check.complaints(found) == ["hangs: cut: after 3 s", "fails: failed: no such device"]


NAMES = ["torch", "jax", "cuda-samples", "cuda-tiled", "cuda-tensor", "jax-tf32x3"]


def names(groups):
    return [[part.name for part in group] for group in groups]


def test_what_matters_most_comes_first(check):
    order = [group[0] for group in names(check.groups(NAMES))]
    assert order[:4] == ["versions", "race cuda-tiled", "race cuda-tensor", "race cuda-samples"]
    first = [text.split()[0] for text in order]
    assert list(dict.fromkeys(first)) == [
        "versions", "race", "agreement", "odd", "launches", "ceilings", "cublas", "sanitizer",
        "counters", "registers", "elementary",
    ]  # fmt: skip
    assert [text for text in order if text.startswith("odd")][-1] == "odd torch"
    for name in first:
        assert callable(getattr(check.gpu_parts, name))


def test_parts_are_selected_by_how_they_begin(check):
    assert names(check.groups(["cuda-tiled", "torch"], ["race cuda", "launches"])) == [
        ["race cuda-tiled"], ["launches cuda-tiled"], ["launches torch"],
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"^--only: expected parts, as in versions,race,.* 'rase'"):
        check.groups(NAMES, ["rase"])


def test_the_rival_in_three_passes_is_measured_though_it_is_in_no_list(check, monkeypatch):
    assert "jax-tf32x3" not in tl.variants.names()
    rival = check.gpu_parts.field()["jax-tf32x3"]
    assert rival is jax.THREE_PASSES
    assert rival.refuses(SHAPES[0], DTYPES[1]) == "is made for float32, got float64: take jax"
    monkeypatch.setattr(jax, "_lacks_cuda", lambda: None)
    old = ModuleType("jax")
    old.lax = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "jax", old)
    assert rival.lacks() == "this JAX knows no TF32_TF32_F32_X3"
    old.lax.DotAlgorithmPreset = SimpleNamespace(TF32_TF32_F32_X3=1)
    assert rival.lacks() is None


def test_a_device_that_refuses_a_variant_is_the_reason(check, monkeypatch):
    """The CPU stands in for a GPU: JAX has no such product there, nor has it here at all."""

    def refuses(problem):
        raise ValueError("The precision 'TF32_TF32_F32_X3' is not supported by dot_general on CPU")

    rival = tl.Variant("jax-tf32x3", "cuda", "", refuses)
    found = measured(rival, tl.Network(), tl.Shape(40, 7, 9, 3), "float32")
    assert found["skipped"].startswith("does not run: ValueError: The precision 'TF32_TF32_F32_X3'")
    assert check.complaints({"race jax-tf32x3": {"float32": found}}) == []
    own = {"race cuda-tiled": {"float32": found | {"variant": "cuda-tiled"}}}
    assert check.complaints(own) == [f"race cuda-tiled, float32: {found['skipped']}"]


def test_one_shape_that_fails_does_not_hide_the_others(monkeypatch):
    def fails(*arguments):
        raise OSError("an illegal address")

    monkeypatch.setattr("twolayer.measuring.device_clock.epochs", fails)
    found = measured(tl.variants.get("numpy"), tl.Network(), tl.Shape(40, 7, 9, 3), "float32")
    assert found["skipped"] == "does not run: OSError: an illegal address"


def test_jax_lowers_every_product_to_three_passes_of_tf32():
    pytest.importorskip("jax")
    _, net, X, Y, theta = cases.problem(tl.Network(), tl.Shape(40, 7, 9, 3), "float32")
    functions = jax.functions(net, jax._X3)
    arguments = (theta, X, Y, 1e-3), (theta, X, Y), (theta, X)
    for function, given, products in zip(functions, arguments, (5, 5, 2), strict=True):
        with jax.float64():
            text = function.trace(*given).lower(lowering_platforms=("cuda",)).as_text()
        assert text.count("stablehlo.dot_general") == products
        assert text.count("num_primitive_operations = 3") == products


def record(variant, shape, seconds, dtype="float32", skipped=""):
    found = {"variant": variant, "shape": str(shape), "dtype": dtype, "skipped": skipped}
    figures = dict.fromkeys(("wall", "transfer", "plan"), 2 * seconds)
    figures |= {"seconds": seconds, "memory": 3 << 20, "error": 0.25}
    return found | (
        {} if skipped else figures | {"flops": shape.flops(), "bytes": shape.bytes(dtype)}
    )


@pytest.fixture
def found(check):
    races = {
        "cuda-fused": (1e-4, None, None),
        "cuda-tiled": (4e-4, 2e-3, 1e-2),
        "cuda-tensor": (4e-4, 6e-4, None),
        "torch": (1.1e-3, 3e-3, 1.05e-2),
        "cupy": (1e-3, 1.7e-3, 2e-2),
        "jax-tf32x3": (2e-3, 1.6e-3, 1e-3),
    }
    found = {
        "date": "2026-01-02",
        "revision": "abc1234",
        "ceilings": {"float32": {"flops": 6e13, "bandwidth": 3e12}},
        "cublas": {"float32, 8 × 9 × 7": 5e13, "TF32, 8 × 9 × 7": 3e14},
        "machine": {"gpus": ["A GPU, 1.2, 80 GiB"], "libraries": ["torch 9"], "sources": "0f"},
        "versions": {},
        "jax": None,
        "launches torch": {"seconds": 4e-4},
        "launches cuda-fused": {"seconds": 2e-5},
    }
    for name, times in races.items():
        found[f"race {name}"] = {
            f"float32 {shape}": record(
                name, shape, seconds or 1.0, skipped="" if seconds else "is made for others"
            )
            for shape, seconds in zip(SHAPES, times, strict=True)
        }
    tiny = check.gpu_tables.HELD_OUT[-1]
    for name, seconds in (("torch", 3e-4), ("cuda-tiled", 1e-4)):
        found[f"odd {name}"] = {f"float32 {tiny}": record(name, tiny, seconds)}
    checked = {"checked": 1, "wrong": [], "error": 0.125}
    found["agreement cuda-tiled"] = {f"float32 {tiny}": checked}
    return found


def test_goals_are_judged_against_the_fastest_peer(check, found):
    bars = check.gpu_tables._bars(found).splitlines()[2:]
    first, second, third = map(str, SHAPES)
    assert bars == [
        f"| {first} | cuda-fused | 10.00 × | ≥ 10 × | met |",
        f"| {second} | cuda-tensor | 2.67 × | ≥ 2.5 × | met |",
        f"| {third} | cuda-tensor | – | ≥ 2.5 × | not measured |",
        f"| {second} | cuda-tiled | 0.85 × | ≥ 1.2 × | missed |",
        f"| {third} | cuda-tiled | 1.05 × | ≥ 1 × | met |",
        "| one sample | cuda-fused | 20.00 × | ≥ 10 × | met |",
        "| one sample | cuda-fused | 20.0 µs | ≤ 30 µs | met |",
    ]
    nothing = {"date": "2026-01-02"}
    assert check.gpu_tables._bars(nothing).count("not measured") == len(bars)


def test_the_tables_are_written_between_the_markers(check, found, tmp_path, monkeypatch, capsys):
    file, docs, readme = (tmp_path / name for name in ("gpu.json", "gpu.md", "README.md"))
    file.write_text(json.dumps(found), encoding="utf-8")
    for page in (docs, readme):
        page.write_text("before\n<!-- gpu:start -->\n<!-- gpu:end -->\nafter", encoding="utf-8")
    assert run(check, monkeypatch, "--from", file, "--docs", docs, "--readme", readme) == 0
    capsys.readouterr()
    text = docs.read_text(encoding="utf-8")
    assert "| cuBLAS, TF32, 8 × 9 × 7 | 300.0 TFLOP/s |" in text
    share = max(SHAPES[1].flops() / 6e13, SHAPES[1].bytes("float32") / 3e12) / 2e-3
    row = f"| **cuda-tiled** | 2.00 ms | 0.85 | 4.00 ms | {share:.0%} | 4.00 ms | 3 MiB | 0.25 |"
    assert row in text
    assert f"not timed: cuda-tensor, float32 {SHAPES[2]}: is made for others" in text
    tiny = check.gpu_tables.HELD_OUT[-1]
    assert f"| float32, {tiny} | cuda-tiled 100 µs | torch 300 µs | 3.00 | 0.12 |" in text
    assert "| **cuda-fused** | 20.0 µs | 20.00 |" in text
    line = (
        "A GPU, 1.2, 80 GiB; torch 9. Measured on 2026-01-02 by `tools/gpu/gpu_check.py`, revision "
        f"abc1234, sources 0f; all figures: `{file.as_posix()}`."
    )
    short = readme.read_text(encoding="utf-8")
    assert line in text
    assert line in short
    assert "| float32 | 1 | 4 | 4 | 1 | cuda-fused 20.0 µs | torch 400 µs | 20.00 |" in short
    assert short.startswith("before\n")
    assert short.endswith("\nafter")


def test_figures_of_another_card_or_other_sources_are_not_mixed(check, found, tmp_path):
    machine = found["machine"]
    later = {"date": "2026-01-03", "machine": machine, "cublas": {"a": 1}, "race torch": {"cut": 1}}
    earlier = {"date": "2026-01-01", "machine": machine | {"sources": "0e"}}
    earlier |= {part: {"other": 1} for part in ("race jax", "race cuda-tiled", "elementary")}
    other = {"date": "2026-01-03", "machine": machine | {"gpus": ["Another"]}}
    files = [tmp_path / f"{number}.json" for number in range(4)]
    for file, values in zip(files, (found, later, earlier, other), strict=True):
        file.write_text(json.dumps(values), encoding="utf-8")
    kept = {key: later[key] for key in ("date", "machine", "cublas")}
    assert check.merged(files[:2]) == found | kept  # what found nothing hides nothing
    peers = {"date": "2026-01-01", "sources": "0e"}
    both = found | kept | {"peers": peers, "race jax": {"other": 1}}
    assert check.merged(files[:3]) == both
    assert "the peers on 2026-01-01 by sources 0e" in check.gpu_tables.origin(both, "")
    with pytest.raises(ValueError, match=r"^--from: expected the same gpus as before, \['A GPU"):
        check.merged(files)


def test_what_was_measured_in_part_makes_tables_too(check):
    found = {"date": "2026-01-02", "cublas": {"skipped": "no NVIDIA GPU"}, "versions": {}}
    assert "not measured" in check.gpu_tables.markdown(found, "gpu.json")
    assert "gpu.json" in check.gpu_tables.summary(found, "gpu.json")


def test_disagreements_and_checkers_findings_are_told(check, found):
    wrong = ["dL/dW is off", "L is off"]
    found["agreement cuda-tiled"] = {"tanh": {"checked": 3, "wrong": wrong}}
    found["sanitizer cuda-tiled"] = {"racecheck": {"status": 9, "wrong": ["a hazard"]}}
    found["race cupy"][f"float32 {SHAPES[0]}"]["skipped"] = "disagrees with the oracle: L"
    assert check.complaints(found) == [
        f"race cupy, float32 {SHAPES[0]}: disagrees with the oracle: L",
        "agreement cuda-tiled, tanh: dL/dW is off",
        "agreement cuda-tiled, tanh: L is off",
        "sanitizer cuda-tiled, racecheck: a hazard",
    ]


COUNTED = """==PROF== Connected to process 7
"ID","Process ID","Kernel Name","Block Size","Grid Size","dram__bytes.sum",\
"gpu__time_duration.sum","launch__registers_per_thread",\
"smsp__issue_active.avg.pct_of_peak_sustained_active"
"","","","","","byte","ns","register/thread","%"
"0","7","cudapy::twolayer::kernels::cuda::fused::epoch::_3clocals_3e::kernel[abi:v1][abi:c8](Array\
<float, (int)2>)","(32, 1, 1)","(2048, 1, 1)","37,300,000","140,128","55","78.5"
"""


def test_counters_are_read_from_what_ncu_prints(check):
    kernel = {"kernel": "epoch.kernel", "grid": "(2048, 1, 1)", "block": "(32, 1, 1)"}
    figures = {"µs": 140.13, "registers": 55.0, "issue %": 78.5, "DRAM MB": 37.3}
    rows = check.gpu_parts.gpu_counters.rows(COUNTED)
    assert rows == [kernel | figures]
    text = check.gpu_tables._counters({"counters cuda-fused": {"n=1": rows}})
    assert "| cuda-fused, n=1 | epoch.kernel | (2048, 1, 1) | (32, 1, 1) | 140.13 |" in text


def test_errors_of_functions_are_held_to_their_bounds(check, monkeypatch):
    package = "twolayer.checking.cuda"
    accuracy = ModuleType(f"{package}.accuracy")
    elementary = ModuleType("twolayer.kernels.cuda.elementary")
    accuracy.elementary_errors = lambda: {"ex2": (1.5, 3.0), "tanh": (3.25, -20.0)}
    elementary.ULP = {"tanh": 3.0}
    for module in (accuracy, elementary):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(f"{package}.accuracy", accuracy, raising=False)
    found = {"elementary": dict(check.gpu_parts.elementary(""))}
    assert check.complaints(found) == ["elementary, tanh: 3.25 ULP at -20.0 instead of 3.0"]
    assert "| ex2 | 1.50 | 2.1 | 3.0 |" in check.gpu_tables._elementary(found)


def test_an_agreement_has_every_activation_and_loss(check, monkeypatch):
    """A variant of the CPU stands in for one of a GPU."""
    monkeypatch.setattr(check.gpu_tables, "HELD_OUT", (tl.Shape(50, 3, 10, 2),))
    there = tl.variants.get("numpy")
    monkeypatch.setattr(check.gpu_parts, "field", lambda: {"numpy": there})
    steps = check.gpu_parts.agreement("numpy")
    key, value = next(steps)
    assert key == "identity, squared, float32"
    assert value["wrong"] == []
    assert value["checked"] > 1
    later = dict(steps)
    assert later.pop("float32 n=50 d=3 M=10 K=2")["error"] <= 1
    assert later.pop("float64 n=50 d=3 M=10 K=2")["wrong"] == []
    assert {key.split(",")[0] for key in later} == set(ACTIVATIONS)


def test_without_a_gpu_it_says_why_and_writes_nothing(check, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("twolayer.engines.cuda_facts.gpu_count", lambda: 0)
    assert run(check, monkeypatch, "--json", tmp_path / "gpu.json") == 2
    assert "cuda-tiled: " in capsys.readouterr().err
    assert run(check, monkeypatch, "--variants", "cuda-tiler") == 2
    assert "--variants: expected some of torch, " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_pages_show_what_was_measured(check):
    """docs/lab/gpu.md and the README are what the command makes of the file that they name."""
    found, file = json.loads(MEASURED.read_text("utf-8")), MEASURED.relative_to(ROOT).as_posix()
    for page, write in (("docs/lab/gpu.md", "markdown"), ("README.md", "summary")):
        text = getattr(check.gpu_tables, write)(found, file)
        assert text in (ROOT / page).read_text(encoding="utf-8")


def test_the_fastest_parameters_go_into_a_file(check, monkeypatch, tmp_path):
    """For the device's model, beside what is there; what was left out is not chosen."""
    measured = json.loads(MEASURED.read_text("utf-8"))
    found = {name: measured[name] for name in ("date", "versions", "race cuda-tensor")}
    (key,) = (k for k in found["race cuda-tensor"] if k.startswith("tuning float32 n=60000"))
    seconds = found["race cuda-tensor"][key]["seconds"]
    seconds[min(seconds, key=seconds.get)] = "disagrees with the oracle"
    file, kept = tmp_path / "gpu.json", tmp_path / "tuned.json"
    file.write_text(json.dumps(found))
    kept.write_text(json.dumps({"H200": {"other": {"a": 1}}, "A100": {}}))
    assert run(check, monkeypatch, "--from", file, "--tuned", kept) == 0
    table = json.loads(kept.read_text())
    assert table.keys() == {"H200", "A100"}
    assert table["H200"]["other"] == {"a": 1}
    name = "PlanesEngine float32 n<=65536 d<=1024 M<=1024 K<=16"
    assert table["H200"][name] == {"engine": "wgmma"}
