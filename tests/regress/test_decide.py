"""The decisions of `twolayer regress` on made figures: alarms, intervals, what is visible."""

import numpy as np
import pytest

from twolayer.regress import costs, decide, run
from twolayer.showing import revisions


def timing(name, number, log, noise=0.0, seconds=1e-3):
    """A record whose head takes exp(log) of the base's time."""
    random = np.random.default_rng(number)
    base = seconds * np.exp(noise * random.standard_normal(40))
    head = seconds * np.exp(log + noise * random.standard_normal(40))
    return {
        "benchmark": name, "process": number, "kind": "timing", "base": list(base),
        "head": list(head), "first": {"base": 1.0, "head": 1.0}, "memory": {}, "error": {},
    }  # fmt: skip


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
    assert {f"b{i}" for i in range(5, 10)} <= decide.decided([*found.values()])
    assert found["v1 on all shapes"].visible < min(found[f"b{i}"].visible for i in range(5, 10))


def test_only_the_shape_that_is_unclear_is_measured_further():
    timings = many({}, 13, spread=0.0005)
    timings["b0"] = [timing("b0", p, 0.05 * (-1) ** p, noise=0.3) for p in range(13)]
    found = judged(timings, {name: f"v{int(name[1:]) // 5}" for name in timings})
    assert found["b0"].verdict == "unclear"
    assert decide.decided([*found.values()]) == {f"b{i}" for i in range(1, 20)}


def test_a_variant_that_is_unclear_on_all_shapes_is_measured_on_all_of_them():
    timings = many({}, 13, spread=0.0005)
    for i in range(5):
        timings[f"b{i}"] = [timing(f"b{i}", p, 0.015 * (-1) ** p) for p in range(13)]
    found = judged(timings, {name: f"v{int(name[1:]) // 5}" for name in timings})
    assert not found["v0 on all shapes"].decided
    assert decide.decided([*found.values()]) == {f"b{i}" for i in range(5, 20)}


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


def test_two_processes_that_differ_wildly_are_unclear():
    """As few as they are, the quantile of Student's t is in the hundreds."""
    found = [*judged({"b": [timing("b", 0, 3.0), timing("b", 1, -3.0)]}).values()]
    assert found[0].verdict == "unclear"
    assert revisions._cells(found[0])[-1] == "> 100%"
    assert np.isfinite([found[0].visible, found[0].low, found[0].high]).all()


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


def test_real_changes_make_no_false_alarms_beside_them(figures):
    """400 runs in which three variants of four became slower on all of their shapes."""
    random = np.random.default_rng(4)
    missed = alarms = 0
    for _ in range(400):
        rows = 0.01 * random.standard_normal((20, decide.LOOKS[-1]))
        rows[:15] += 0.05
        named = {
            decision.variant
            for look in decide.LOOKS
            for decision in figures(rows[:, :look], shapes=5)
            if decision.verdict in ("slower", "faster")
        }
        missed += not {"v0", "v1", "v2"} <= named
        alarms += "v3" in named
    assert missed == 0
    assert alarms <= 9  # more have a probability of 0.01 where the rate is 0.01


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


def test_compiled_code_that_the_base_found_on_disk_is_no_regression_of_the_head():
    found = costs.compiled({"v": 0.2}, {"v": 20.0}, lambda names: ({"v": 19.0}, {"v": 20.0}))
    assert [(cost.base, cost.head, cost.verdict) for cost in found] == [(19.0, 20.0, "same")]


def test_slow_compiling_that_is_measured_again_stays_a_regression():
    figures = iter([({"v": 12.0}, {"v": 20.0}), ({"v": 10.0}, {"v": 21.0})])
    found = costs.compiled({"v": 10.0}, {"v": 20.0}, lambda names: next(figures))
    assert [(cost.base, cost.head, cost.verdict) for cost in found] == [(10.0, 20.0, "worse")]
