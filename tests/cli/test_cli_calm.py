"""Commands that measure: what disturbed meanwhile is said, marked and written; calm is not."""

import io
import json
import typing
from importlib import import_module

import pytest
from command_runs import call

from twolayer.cli import COMMANDS, calm
from twolayer.machine import calm as machine
from twolayer.machine.calm import Calm, Watch
from twolayer.machine.store import Store
from twolayer.regress.decide import LOOKS
from twolayer.regress.revisions import Revision
from twolayer.regress.run import Outcome, Run
from twolayer.showing import revisions

BUSY = Calm(9.0, others=0.5)
MET = "measured while other programs kept 0.5 CPUs busy"
RUNS = {"bench": "workloads", "peers": "workloads", "updates": "updates"}


def run(line):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    assert call(line, *streams) == 0
    for stream in streams:
        stream.seek(0)
    return [stream.read() for stream in streams]


@pytest.mark.parametrize("met", [BUSY, Calm(9.0)], ids=["busy", "calm"])
@pytest.mark.parametrize("name", RUNS)
def test_what_was_met_is_said_marked_and_written(brief, monkeypatch, name, met):
    monkeypatch.setattr(Watch, "calm", lambda watch: met)
    (brief / "README.md").write_text(f"<!-- {name}:start -->\n<!-- {name}:end -->\n")
    line, key = f"{name} --variants numpy --shape 9,2,4,1", RUNS[name]
    shown, _ = run(f"{line} --json out.json --readme README.md")
    readme = (brief / "README.md").read_text()
    for text in (shown, readme):
        assert text.count(f"† {MET}.") == (met is BUSY)
        assert ("†" in text.replace(f"† {MET}", "")) == (met is BUSY)  # at the rows
    for row in json.loads((brief / "out.json").read_text())[key]:
        assert row["calm"] == {
            "seconds": 9.0, "others": met.others, "stolen": 0.0, "throttled": 0, "battery": False,
            "governor": "", "reasons": met.reasons,
        }  # fmt: skip
    if key == "workloads":
        with Store() as store:
            assert Calm(**store.select(kind="epoch")[-1].metrics["calm"]) == met


def test_every_command_that_times_waits_for_calm_where_asked():
    waiting = set()
    for command, (module, function, _) in COMMANDS.items():
        made = getattr(import_module(f"twolayer.cli.commands.{module}"), function)
        if "wait_calm" in typing.get_type_hints(made):
            waiting.add(command)
    assert waiting >= {*RUNS, "gpu", "report", "regress"}


class Looks:
    """A machine that disturbs at the first so many looks, a second each."""

    def __init__(self, busy, monkeypatch):
        self.busy, self.now = busy, 0.0
        monkeypatch.setattr(machine, "look", self.look)
        for module in (machine, calm):
            monkeypatch.setattr(module, "time", self)

    def look(self):
        self.now += 1.0
        return BUSY if self.now <= self.busy else Calm()

    def monotonic(self):
        return self.now


def test_without_waiting_it_is_looked_at_once(capsys, monkeypatch):
    looks = Looks(9, monkeypatch)
    waiting = calm.Waiting(0.0)
    for _ in range(3):
        waiting()
    assert looks.now == 1
    said = capsys.readouterr().err
    assert said == (
        "other programs kept 0.5 CPUs busy: the results will say so; --wait-calm 60 waits for "
        "calm\n"
    )


def test_it_waits_until_calm_and_no_longer_in_all_than_asked(capsys, monkeypatch):
    looks = Looks(3, monkeypatch)
    waiting = calm.Waiting(10.0)
    waiting()
    assert looks.now == 4
    assert "waiting up to 10 s for calm" in capsys.readouterr().err
    looks.busy = 99
    waiting()
    assert looks.now == 10
    assert capsys.readouterr().err.endswith("busy: the results will say so\n")
    waiting()
    assert looks.now == 10
    assert capsys.readouterr().err == ""


def test_a_comparison_of_revisions_says_what_was_met(tmp_path, monkeypatch):
    sides = tuple(Revision(label, tmp_path, label) for label in ("base", "head"))
    run = Run(*sides, (), tmp_path / "results.jsonl")
    monkeypatch.setattr(Watch, "calm", lambda watch: BUSY)
    monkeypatch.setattr(run, "_missing", lambda number, todo: None)
    monkeypatch.setattr(run, "_undecided", lambda number: number < LOOKS[0])
    outcome = run.measure(costly=False)
    seconds = (1 + LOOKS[0]) * 9.0  # the trial's too
    assert (outcome.exit_code, outcome.calm) == (3, Calm(seconds, others=0.5))
    assert run.outcome().calm == outcome.calm  # of a run that is gone on with, too
    for text in (revisions.summary(outcome), revisions.markdown(outcome, sides)):
        assert f" M{MET[1:]}." in text
    assert revisions.report(outcome, sides)["calm"]["others"] == 0.5
    assert "easured while" not in revisions.summary(Outcome())
