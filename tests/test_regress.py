"""Two revisions against each other: kept apart, decided rightly, and interrupted without loss."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from twolayer.cli import app
from twolayer.network import Shape
from twolayer.regress import costs, decide, dependency, records, revisions, run, worker

ROOT = Path(__file__).parents[1]
SHAPE = Shape(40, 5, 6, 2)
WRITING = "# a comment"


def git(folder, *arguments):
    names = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | dict.fromkeys(names, "nobody"),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The present sources as a repository of one commit, tagged `sound`."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("src", "kernels", "variants"):
        shutil.copytree(
            ROOT / name,
            folder / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=sound")
    git(folder, "tag", "sound")
    return folder


@pytest.fixture
def here(repository, monkeypatch, tmp_path_factory):
    """That repository, clean, as the current folder; revisions are kept for all tests."""
    git(repository, "reset", "--quiet", "--hard", "sound")
    git(repository, "clean", "--quiet", "--force", "-d")
    monkeypatch.chdir(repository)
    monkeypatch.setenv("TWOLAYER_REGRESS", str(tmp_path_factory.getbasetemp() / "regress"))
    return repository


def edit(folder, path, old, new):
    text = (folder / path).read_text()
    assert old in text
    (folder / path).write_text(text.replace(old, new, 1))


def regress(*arguments, code, limit=1):
    quick = (
        "--no-compile",
        "--seconds=0.01",
        f"--limit={limit}",
        f"--shape={','.join(map(str, SHAPE))}",
    )
    result = CliRunner().invoke(app, ["regress", *arguments, *quick])
    assert result.exit_code in (code if isinstance(code, tuple) else (code,)), result.output
    return " ".join(result.output.split())


def timing(name, number, log, noise=0.0, seconds=1e-3):
    """A record whose head takes exp(log) of the base's time."""
    random = np.random.default_rng(number)
    base = seconds * np.exp(noise * random.standard_normal(40))
    head = seconds * np.exp(log + noise * random.standard_normal(40))
    return {
        "benchmark": name, "process": number, "kind": "timing", "base": list(base),
        "head": list(head), "first": {"base": 1.0, "head": 1.0}, "memory": {}, "error": {},
    }  # fmt: skip


def made_run(here, path, base=None, head=None, names=("numpy",), **settings):
    sides = revisions.export(base, "base"), revisions.export(head, "head")
    suite = [run.Benchmark(name, SHAPE) for name in names]
    return run.Run(*sides, suite, path, seconds=0.001, limit=1, looks=(2,), **settings)


# Revisions


def test_a_revision_and_the_working_tree_are_exported_apart(here):
    edit(here, "variants/numpy.py", '"""', f'{WRITING}\n"""')
    (here / "variants" / "new.py").write_text(WRITING)
    status = git(here, "status", "--porcelain")
    old, new = revisions.export("sound", "base"), revisions.export(None, "head")
    assert git(here, "status", "--porcelain") == status  # the index too
    assert WRITING not in (old.folder / "variants" / "numpy.py").read_text()
    assert WRITING in (new.folder / "src/twolayer/variants/numpy.py").read_text()
    assert (new.folder / "variants" / "new.py").is_file()
    assert old.tree != new.tree


def test_the_sides_never_share_a_folder(here):
    assert revisions.export("sound", "base").folder != revisions.export("sound", "head").folder


@pytest.mark.parametrize("name", ["no-such-branch", "-x", "sound~7"])
def test_an_unknown_revision_is_one_sentence(here, name):
    with pytest.raises(ValueError, match="base: expected a revision that git knows, got"):
        revisions.export(name, "base")


def test_a_revision_without_the_package_is_refused(here):
    git(here, "rm", "-r", "--quiet", "src")
    with pytest.raises(ValueError, match="head: the working tree has no package src/twolayer"):
        revisions.export(None, "head")


LOSSES = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("worker", sys.argv[1])
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
sys.modules["twolayer"] = None
benchmark = json.loads(sys.argv[2])
sides = [worker.Side(side, folder, 1) for side, folder in zip(worker.SIDES, sys.argv[3:])]
print([side.plan(benchmark).gradient()[0] for side in sides])
"""


@pytest.mark.compiled
def test_compiled_code_of_one_revision_is_never_used_for_the_other(here, run_python, monkeypatch):
    """A kernel's constant changes; each revision computes its own loss, from disk as well."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    edit(here, "kernels/losses.py", "return (u - y) * (u - y)", "return (u - y) * (u - y) * 3")
    about = json.dumps(run.Benchmark("numba-loops", SHAPE).request())
    for names, factor in (("sound", None), 3), ((None, "sound"), 1 / 3):
        sides = [revisions.export(*pair) for pair in zip(names, worker.SIDES, strict=True)]
        for _ in range(2):  # compiled, then loaded
            printed = run_python(LOSSES, worker.__file__, about, *(s.folder for s in sides))
            base, head = json.loads(printed)
            assert head == pytest.approx(factor * base, rel=1e-5)


# Whole runs


def test_the_report_has_every_benchmark(here, tmp_path):
    files = [f"--{kind}={tmp_path / kind}" for kind in ("json", "markdown")]
    said = regress("sound", "--variants=numpy", *files, code=(0, 3))
    report = json.loads((tmp_path / "json").read_text())
    assert [b["name"] for b in report["benchmarks"]] == [f"numpy {SHAPE}"]
    assert report["benchmarks"][0]["processes"] == decide.LOOKS[0]
    assert said.endswith(report["summary"])
    assert {cost["kind"] for cost in report["costs"]} <= {"load", "memory", "accuracy"}
    assert f"| numpy {SHAPE} |" in (tmp_path / "markdown").read_text()


def test_what_got_slower_and_what_got_faster_is_named(here):
    edit(here, "variants/numpy_samples.py", DEFINITION, SLOW)
    git(here, "commit", "--all", "--quiet", "--message=slow samples")
    git(here, "revert", "--no-commit", "HEAD")
    edit(here, "variants/numpy.py", DEFINITION, SLOW)
    said = regress("HEAD", "--variants=numpy,numpy-samples", code=1, limit=60)
    assert "Regression: 1 slower, 1 faster" in said
    assert said.index(f"numpy {SHAPE}") < said.index(f"numpy-samples {SHAPE}")


DEFINITION = "    def _backpropagate(self, X"
SLOW = """    def _backpropagate(self, X, Y, gradient):
        for _ in range(29):
            self._once(X, Y, gradient)
        return self._once(X, Y, gradient)

    def _once(self, X"""


def test_a_wrong_revision_is_a_failure(here):
    edit(here, "kernels/losses.py", "return (u - y) * (u - y)", "return (u - y) * (u - y) * 3")
    said = regress("sound", "--variants=numpy", code=2)
    assert f"numpy {SHAPE} failed: RuntimeError: head is off by" in said


def test_what_raises_or_dies_is_a_failure_and_the_others_are_measured(here):
    edit(here, "variants/numpy.py", DEFINITION, RAISES)
    edit(here, "variants/numpy_samples.py", DEFINITION, RAISES.replace("1 / 0", "os.abort()"))
    said = regress("sound", "--variants=numpy,numpy-samples,python-loops", code=2)
    assert f"numpy {SHAPE} failed: ZeroDivisionError: " in said
    assert f"numpy-samples {SHAPE} failed: process 0 died of signal 6" in said
    assert "2 failed" in said
    assert f"python-loops {SHAPE} " in said


RAISES = """    def _backpropagate(self, X, Y, gradient):
        import os

        return 1 / 0

    def _once(self, X"""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("def broken(:", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import twolayer", "import of twolayer halted"),  # that would be another revision
    ],
)
def test_a_revision_that_cannot_be_imported_is_one_sentence(here, line, reason):
    (here / "variants/numpy.py").write_text(line)
    said = regress("sound", "--variants=numpy", code=2)
    assert said.startswith("head: the working tree cannot be imported: ")
    assert reason in said


def test_a_variant_that_one_revision_lacks_is_left_out(here):
    edit(here, "variants/numpy.py", '"numpy",', '"numpy-new",')
    said = regress("sound", "--variants=numpy-new", code=3)
    assert f"left out: numpy-new {SHAPE}: base has no such variant" in said


def test_a_slow_benchmark_is_left_out(here):
    shape = "--shape=100000,64,64,8"
    said = regress("sound", "--variants=python-loops", shape, code=3)
    assert "the limit is 0.08 s" in said


def test_outside_of_a_repository_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "git rev-parse: fatal: not a git repository" in regress("main", code=2)


# Results on disk


def test_an_interrupted_run_goes_on_and_loses_nothing(here, tmp_path):
    path = tmp_path / "results"

    def interrupt(name, done, total):
        if done:
            raise KeyboardInterrupt

    two = {"names": ("numpy", "numpy-samples"), "base": "sound"}
    with pytest.raises(KeyboardInterrupt):
        made_run(here, path, progress=interrupt, **two).measure(compile_times=False)
    before = path.read_bytes()
    assert before.count(b"\n") >= 1
    again = made_run(here, path, **two).measure(compile_times=False)
    assert path.read_bytes().startswith(before)
    assert [decision.processes for decision in again.decisions] == [2, 2]
    found = records.read(path, pytest.fail)
    assert len({(r["benchmark"], r["process"]) for r in found}) == len(found) == 4


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"{}", b"0 {}", b" ", b"a b"])
def test_a_damaged_line_is_named_and_left_out(tmp_path, damage):
    path = tmp_path / "results"
    records.append(str(path), {"benchmark": "a"})
    with path.open("ab") as file:
        file.write(damage + b"\n")
    records.append(str(path), {"benchmark": "b"})
    told = []
    assert [r["benchmark"] for r in records.read(path, told.append)] == ["a", "b"]
    assert told == [f"{path}: 1 of its lines are damaged (2) and left out"]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_cut_off_damages_no_other(tmp_path, cut):
    path = tmp_path / "results"
    for name in "ab":
        records.append(str(path), {"benchmark": name})
    os.truncate(path, path.stat().st_size - cut)
    records.append(str(path), {"benchmark": "c"})
    found = [r["benchmark"] for r in records.read(path, lambda sentence: None)]
    assert found == (["a", "b", "c"] if cut == 1 else ["a", "c"])


def test_a_flipped_bit_is_damage(tmp_path):
    path = tmp_path / "results"
    records.append(str(path), {"seconds": 125})
    path.write_bytes(path.read_bytes().replace(b"125", b"165"))
    told = []
    assert records.read(path, told.append) == []
    assert told


def test_a_run_that_ended_is_not_continued(tmp_path):
    first = records.newest(tmp_path, "key")
    records.append(str(first), {"benchmark": "a"})
    assert records.newest(tmp_path, "key") == first
    records.append(str(first), {"kind": "end"})
    assert records.newest(tmp_path, "key") != first


# Decisions, on made figures


def many(changes, processes, noise=0.01, spread=0.002):
    """Timings of 20 benchmarks, of which some change by so much."""
    random = np.random.default_rng(1)
    return {
        f"b{i}": [
            timing(f"b{i}", p, changes.get(i, 0.0) + spread * random.standard_normal(), noise)
            for p in range(processes)
        ]
        for i in range(20)
    }


def judged(timings, variant_of=None):
    """The decisions by name; each benchmark is its own variant unless said otherwise."""
    found = decide.decide(timings, variant_of or {name: name for name in timings})
    return {decision.name: decision for decision in found}


@pytest.mark.parametrize(("change", "verdict"), [(0.02, "slower"), (-0.02, "faster")])
def test_a_change_is_found_and_nothing_else_is(change, verdict):
    found = judged(many({3: change}, 12))
    assert found["b3"].verdict == verdict
    assert found["b3"].low < np.exp(change) < found["b3"].high
    assert not any(d.verdict in ("slower", "faster") for d in found.values() if d.name != "b3")


def test_too_few_processes_never_raise_an_alarm():
    found = judged(many({3: 1.0}, decide.LOOKS[0] - 1, noise=0, spread=0.0001))
    assert not any(decision.verdict == "slower" for decision in found.values())


def test_a_change_too_small_to_see_on_each_shape_is_found_on_all_of_them():
    """Four variants with five shapes each, of which one variant changes."""
    timings = many(dict.fromkeys(range(5, 10), 0.006), 13)
    variant_of = {name: f"v{int(name[1:]) // 5}" for name in timings}
    found = judged(timings, variant_of)
    alarms = [name for name, decision in found.items() if decision.verdict == "slower"]
    assert "v1 on all shapes" in alarms
    assert {found[name].variant for name in alarms} == {"v1"}
    assert found["v1 on all shapes"].base is None
    assert "v1" in decide.decided([*found.values()])
    assert found["v1 on all shapes"].visible < min(found[f"b{i}"].visible for i in range(5, 10))


def test_a_variant_is_undecided_while_one_of_its_shapes_is():
    timings = many({}, 13, spread=0.0005)
    timings["b0"] = [timing("b0", p, 0.05 * (-1) ** p) for p in range(13)]
    found = judged(timings, {name: f"v{int(name[1:]) // 5}" for name in timings})
    assert found["b0"].verdict == "unclear"
    assert decide.decided([*found.values()]) == {"v1", "v2", "v3"}


def test_a_process_whose_blocks_contradict_each_other_counts_little():
    steady = [timing("b", p, 0.001 * (-1) ** p) for p in range(9)]
    shaken = timing("b", 9, 0.0)
    shaken["head"] = [x * (2.0 if i // 2 % 2 else 1.0) for i, x in enumerate(shaken["head"])]
    assert decide.effect(shaken).variance > 100 * decide.effect(steady[0]).variance
    found = judged({"b": [*steady, shaken]})["b"]
    assert abs(found.ratio - 1) < 0.001
    assert found.visible < 2 * judged({"b": steady})["b"].visible


def test_a_change_below_the_floors_is_none():
    assert {d.verdict for d in judged(many({3: 0.003}, 14, 0, 0.0001)).values()} == {"same"}
    tiny = {"b": [timing("b", p, 0.1, seconds=1e-7) for p in range(14)]}
    assert judged(tiny)["b"].verdict == "unclear"  # 10 ns of 100 ns
    assert judged(tiny)["b"].visible == pytest.approx(0.2, rel=0.01)


def test_a_sign_that_changes_between_processes_raises_no_alarm():
    logs = [0.05] * 9 + [-0.01] * 5
    found = judged({"b": [timing("b", p, log) for p, log in enumerate(logs)]})["b"]
    assert found.agreement == pytest.approx(9 / 14)
    assert found.verdict == "unclear"


def test_a_low_quantile_does_not_see_what_disturbs_half_of_the_blocks():
    blocks = [1.0, 1.0, 2.0, 2.0] * 10
    assert decide.level(blocks) == 0.0


@pytest.fixture
def figures(monkeypatch):
    """Decisions on one made figure a process, without blocks."""
    monkeypatch.setattr(decide, "effect", lambda record: decide.Figure(record, 1e-6))
    monkeypatch.setattr(decide, "level", lambda blocks: -7.0)

    class Log(float):
        process = 0

        def __getitem__(self, key):
            return self.process

    def numbered(row):
        logs = [Log(x) for x in row]
        for number, log in enumerate(logs):
            log.process = number
        return logs

    def verdicts(rows, shapes=1):
        timings = {f"b{i}": numbered(row) for i, row in enumerate(rows)}
        return decide.decide(timings, {f"b{i}": f"v{i // shapes}" for i in range(len(rows))})

    return verdicts


def test_what_is_visible_is_seen(figures):
    """A change as large as the smallest visible one raises an alarm in about POWER of the runs."""
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        rows = 0.01 * random.standard_normal((20, 12))
        rows[0] += np.log1p(np.median([d.visible for d in figures(rows)]))
        hits += figures(rows)[0].verdict == "slower"
    assert hits >= 0.9 * 200


def test_false_alarms_are_as_rare_as_stated(figures):
    """300 runs without any change, whose scatter differs between benchmarks, at every look."""
    random = np.random.default_rng(3)
    alarms = 0
    for _ in range(300):
        scatter = 0.01 * np.exp(random.standard_normal((20, 1)))
        rows = scatter * random.standard_normal((20, decide.LOOKS[-1]))
        alarms += any(
            decision.verdict in ("slower", "faster")
            for look in decide.LOOKS
            for decision in figures(rows[:, :look], shapes=5)
        )
    assert alarms <= 7  # more have a probability of 0.01 where the rate is 0.01


def test_the_exit_code_tells_a_failure_before_a_regression():
    slow = [*judged(many({3: 0.1}, 12)).values()]
    calm = [*judged(many({}, 12)).values()]
    assert run.Outcome(slow).exit_code == 1
    assert run.Outcome(slow, failed=[("b1", "broke")]).exit_code == 2
    assert run.Outcome().exit_code == 3
    assert run.Outcome(calm).exit_code == 0
    worse = costs.judge("memory", "numpy", 1 << 20, 1 << 22)
    assert run.Outcome(calm, [worse]).exit_code == 1


@pytest.mark.parametrize("kind", costs.RULES)
def test_costs_have_a_factor_and_a_least_difference(kind):
    rule = costs.RULES[kind]
    far = 100 * rule.least
    assert costs.judge(kind, "v", far, far * rule.factor * 0.99).verdict == "same"
    assert costs.judge(kind, "v", far, far * rule.factor * 1.01).verdict == "worse"
    assert costs.judge(kind, "v", far * rule.factor * 1.01, far).verdict == "better"
    assert costs.judge(kind, "v", rule.least / 100, rule.least).verdict == "same"


def test_a_suspicion_of_slow_compiling_is_measured_again():
    asked = []

    def again(names):
        asked.append(list(names))
        return {"v": 10.0}, {"v": 10.0}

    found = costs.compiled({"v": 10.0, "w": 1.0}, {"v": 20.0, "w": 1.1}, again)
    assert asked == [["v"]]
    assert [cost.verdict for cost in found] == ["same", "same"]


# Versions of a dependency


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("1.0", "2.0", "--dep=flask"), "--dep: expected one of numpy, numba,"),
        (("1.0", "--dep=numba"), "--dep: expected two versions, BASE and HEAD"),
    ],
)
def test_a_bad_dependency_is_one_sentence(here, arguments, sentence):
    assert sentence in regress(*arguments, code=2)


def test_processes_that_take_turns_give_a_decision(here, tmp_path):
    run_of = made_run(here, tmp_path / "results", "sound", names=("numpy", "no-such"))
    pythons = dict.fromkeys(worker.SIDES, Path(sys.executable))
    turns = dependency.Turns(**vars(run_of), pythons=pythons)
    found = turns.measure(compile_times=False)
    assert [decision.processes for decision in found.decisions] == [2]
    assert found.absent == [(f"no-such {SHAPE}", "base has no such variant")]
