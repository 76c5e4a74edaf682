"""The decisions of `twolayer regress` on made figures: alarms, intervals, what is visible."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from twolayer.regress import costs, decide, run, turns
from twolayer.regress import revisions as revisions_of
from twolayer.showing import output, revisions


def timing(name, number, log, noise=0.0, seconds=1e-3):
    """A record whose head takes exp(log) of the base's time."""
    random = np.random.default_rng(number)
    base = seconds * np.exp(noise * random.standard_normal((8, 6)))
    head = seconds * np.exp(log + noise * random.standard_normal((8, 6)))
    return {
        "benchmark": name, "process": number, "kind": "timing", "base": base.tolist(),
        "head": head.tolist(),
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


def test_a_process_whose_plans_contradict_each_other_counts_little():
    steady = [timing("b", p, 0.001 * (-1) ** p) for p in range(9)]
    shaken = timing("b", 9, 0.0)
    shaken["head"] = [[2.0 * x for x in h] if i % 2 else h for i, h in enumerate(shaken["head"])]
    assert decide.effect(shaken).variance > 100 * decide.effect(steady[0]).variance
    found = judged({"b": [*steady, shaken]})["b"]
    assert abs(found.ratio - 1) < 0.001
    assert found.visible < 2 * judged({"b": steady})["b"].visible
    assert found.head / found.base == pytest.approx(found.ratio)  # of the row that is shown


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


def test_what_disturbs_both_sides_in_turn_or_a_fifth_of_the_turns_changes_nothing():
    """The machine gets twice as slow and back within a process, and some turns are torn apart."""
    random = np.random.default_rng(0)
    slower = np.exp(np.cumsum(random.standard_normal((8, 10)) / 5, axis=1))
    torn = np.where(random.random((8, 10)) < 0.2, 3.0, 1.0)
    record = {"base": (slower * torn).tolist(), "head": (1.01 * slower).tolist()}
    assert decide.effect(record).log == pytest.approx(np.log(1.01), abs=1e-9)


@pytest.fixture
def figures(monkeypatch):
    """Decisions on one made figure a process, without blocks."""
    monkeypatch.setattr(decide, "effect", lambda record: decide.Figure(record, 1e-6))
    monkeypatch.setattr(decide, "usually", lambda record: -7.0)
    timed = decide._timed
    monkeypatch.setattr(
        decide, "_timed", lambda kind, *about: timed(kind, *about) if kind == "time" else []
    )

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


@pytest.mark.parametrize("count", [1, 2, 3, pytest.param(20, marks=pytest.mark.slow)])
def test_false_alarms_are_as_rare_as_stated(figures, count):
    """300 runs without any change, whose scatter differs between benchmarks, at every look."""
    random = np.random.default_rng(3)
    alarms = 0
    for _ in range(300):
        scatter = 0.01 * np.exp(random.standard_normal((count, 1)))
        rows = scatter * random.standard_normal((count, decide.LOOKS[-1]))
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
    assert run.Outcome(slow, notes=[costs.Note("failed", "b1", "broke")]).exit_code == 2
    assert run.Outcome().exit_code == 3
    assert run.Outcome(calm).exit_code == 0
    worse = costs.judge("compile", "numpy", 5.0, 20.0)
    assert run.Outcome(calm, [worse]).exit_code == 1
    wanted = dataclasses.replace(worse, excuse="accepted")
    assert run.Outcome(calm, [wanted]).exit_code == 0


@pytest.mark.parametrize("seed", range(5))
def test_half_of_all_false_alarms_is_for_the_variants(seed):
    """With equal shares it is Holm's; the least p-value is set against its own share."""
    random = np.random.default_rng(seed)
    p, equal = random.random(6) ** 4, decide._shares([False] * 6)
    order = np.argsort(p)
    steps = [p[i] * (6 - rank) for rank, i in enumerate(order)]
    steps = np.minimum(np.maximum.accumulate(steps), 1)
    assert decide._holm(p, equal)[order] == pytest.approx(steps)
    shares = decide._shares([True, False, False, False, True])
    assert shares == pytest.approx([1 / 4, 1 / 6, 1 / 6, 1 / 6, 1 / 4])
    p = np.array([1.0, 1e-3, 1.0, 1.0, 1.0])
    assert decide._holm(p, shares) == pytest.approx([1.0, 6e-3, 1.0, 1.0, 1.0])


def stepped(number, *, tenth=1.0, noise=0.01):
    """A timing whose turns are the same, and whose head pays `tenth` times in a step of ten."""
    random = np.random.default_rng(number)
    base, head = 1e-3 * np.exp(noise * random.standard_normal((2, 80)))
    head[::10] *= tenth
    slow = {"base": turns.slowest(list(base)), "head": turns.slowest(list(head))}
    return timing("b", number, 0.001 * (-1) ** number) | {"slow": slow}


def test_what_one_step_of_ten_pays_is_found_and_only_that():
    time, tail = judged({"b": [stepped(p, tenth=2.0) for p in range(4)]}).values()
    assert (time.changed, tail.verdict) == (False, "slower")
    calm = judged({"b": [stepped(p) for p in range(4)]}).values()
    assert not any(decision.changed for decision in calm)


@pytest.mark.parametrize(
    ("usual", "slowest", "verdict"),
    [
        (1.3, 1.3, None),  # as all others
        (1.3, 1.0, None),  # what disturbs them takes no longer than before
        (0.7, 1.0, None),
        (1.3, 2.6, "slower"),
        (0.7, 1.5, "slower"),
        (0.7, 0.4, "faster"),
    ],
)
def test_slowest_steps_that_follow_the_usual_ones_are_no_news(usual, slowest, verdict):
    records = [timing("b", p, np.log(usual) + 0.001 * (-1) ** p) for p in range(7)]
    for p, record in enumerate(records):
        record["slow"] = {"base": 1.0, "head": slowest * (1 + 0.002 * (-1) ** p)}
    time, tail = judged({"b": records}).values()
    assert time.verdict == ("slower" if usual > 1 else "faster")
    assert tail.verdict == verdict if verdict else not tail.changed


def starts(kind, base, head, pairs=4):
    random = np.random.default_rng(5)
    return [
        {"variant": "v", "pair": pair, "side": side, "load": 0.3, "memory": 1 << 22}
        | {kind: value * float(np.exp(0.02 * random.standard_normal()))}
        for pair in range(pairs)
        for side, value in (("base", base), ("head", head))
    ]


@pytest.mark.parametrize(
    ("kind", "base", "head", "verdict"),
    [
        ("load", 0.3, 0.6, "slower"),
        ("load", 0.6, 0.3, "faster"),
        ("load", 0.3, 0.33, "same"),  # below the floor
        ("load", 0.01, 0.02, "unclear"),  # 10 ms are nobody's concern
        ("memory", 4 << 20, 8 << 20, "more"),
        ("memory", 8 << 20, 4 << 20, "less"),
        ("memory", 0, 400 << 10, "unclear"),
        ("memory", 0, 0, "unclear"),
    ],
)
def test_first_steps_and_memory_are_decided_like_times(kind, base, head, verdict):
    found = {d.kind: d for d in decide.decide({}, {}, starts(kind, base, head))}
    assert found[kind].verdict == verdict
    assert found[kind].regression == (verdict in ("slower", "more"))
    other = "memory" if kind == "load" else "load"
    assert not found[other].changed
    slack = decide._slack(kind)
    ends = (found[kind].head + slack) / (found[kind].base + slack)
    assert ends == pytest.approx(found[kind].ratio)


@pytest.mark.parametrize(
    ("tolerance", "excuse"), [(0.0, ""), (0.01, ""), (0.03, "within tolerance")]
)
def test_a_tolerance_excuses_what_is_not_shown_to_exceed_it(tolerance, excuse):
    timings = many({3: 0.02}, 12, spread=0.0005)
    found = {d.name: d for d in decide.decide(timings, {n: n for n in timings}, (), tolerance)}
    assert (found["b3"].verdict, found["b3"].excuse) == ("slower", excuse)
    assert found["b3"].regression == (not excuse)


def test_a_tolerance_excuses_no_failure_to_run_and_nothing_that_got_faster():
    timings = many({3: -0.02}, 12, spread=0.0005)
    found = {d.name: d for d in decide.decide(timings, {n: n for n in timings}, (), 0.05)}
    assert (found["b3"].verdict, found["b3"].excuse) == ("faster", "")


@pytest.mark.parametrize("kind", ["lost", "far"])
def test_what_is_lost_or_too_slow_to_be_timed_is_a_regression_unless_accepted(kind):
    note = costs.Note(kind, "b", "gone")
    assert run.Outcome(notes=[note]).exit_code == 1
    assert run.Outcome(notes=[note._replace(accepted=True)]).exit_code == 0


def every_kind():
    """An outcome with each verdict, excuse, cost and note."""
    decisions = decide.decide(
        many({3: 0.1, 4: -0.1, 5: 0.003}, 12), {f"b{i}": f"v{i}" for i in range(20)},
        starts("memory", 4 << 20, 8 << 20), 0.01,
    )  # fmt: skip
    decisions[0] = dataclasses.replace(decisions[0], excuse="accepted")
    kinds = ("failed", "lost", "far", "repaired", "new", "absent")
    notes = [costs.Note(kind, f"n{kind}", "a <b> | `c` @d\nnext", 1e-3) for kind in kinds]
    worse = [costs.judge(kind, "v", 5.0, 20.0) for kind in costs.RULES]
    return run.Outcome(decisions, [*worse, costs.judge("accuracy", "w", 20, 5)], notes, 1.0)


def test_every_kind_of_outcome_is_written_and_read_back(tmp_path):
    outcome = every_kind()
    sides = [revisions_of.Revision(side, side, tmp_path) for side in ("base", "head")]
    output.write_json(tmp_path / "json", revisions.report(outcome, sides))
    report = json.loads((tmp_path / "json").read_text())
    assert report["exit_code"] == 2
    assert [decide.Decision(**d) for d in report["benchmarks"]] == outcome.decisions
    assert [costs.Note(**n) for n in report["notes"]] == outcome.notes
    assert [costs.Cost(**c) for c in report["costs"]] == outcome.costs
    text = revisions.markdown(outcome, sides)
    for note in outcome.notes:
        assert note.benchmark in text
    assert "<b>" not in text
    assert "\n- nfailed failed: a \\<b\\> \\| \\`c\\` \\@d next\n" in text
    console = Console(width=200, file=io.StringIO())
    revisions.show(console, outcome, sides)
    for word in ("slower", "faster", "more", "same", "worse", "better", "accepted", "is lost"):
        assert word in console.file.getvalue()


def test_what_is_ruled_out_is_told_where_each_shape_changed():
    """One got as much slower as the other got faster, and the variant is as it was."""
    logs = {"b0": 0.1, "b1": -0.1}
    timings = {
        name: [timing(name, p, log + 0.001 * (-1) ** p) for p in range(13)]
        for name, log in logs.items()
    }
    found = judged(timings, dict.fromkeys(timings, "v"))
    assert [d.verdict for d in found.values()] == ["same", "slower", "faster"]
    assert "the least is known of v on all shapes" in revisions.summary(
        run.Outcome([*found.values()])
    )


def test_a_tolerance_is_one_of_times():
    """What needs more memory is no less of an alarm beside steps within the tolerance."""
    records = starts("memory", 4 << 20, 8 << 20)
    found = decide.decide(many({3: 0.03}, 12), {f"b{i}": f"b{i}" for i in range(20)}, records, 0.1)
    excuses = {d.kind: d.excuse for d in found if d.changed}
    assert excuses == {"time": "within tolerance", "memory": ""}
