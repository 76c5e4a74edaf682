"""docs/reference/json.md has the keys of every JSON that a command writes, and no others."""

import dataclasses
import fnmatch
import io
import json
import re
from pathlib import Path

import pytest
from command_runs import RUNS, call

import twolayer as tl
from twolayer.checking.verify import Agreement
from twolayer.cli import COMMANDS
from twolayer.machine.calm import Calm
from twolayer.measuring import roofline
from twolayer.measuring.race import Entry, Result, Workload
from twolayer.measuring.roofline import Roofline
from twolayer.measuring.startup import Start
from twolayer.regress.costs import Cost, Note
from twolayer.regress.decide import Decision
from twolayer.regress.revisions import Revision
from twolayer.regress.run import Outcome
from twolayer.report import study
from twolayer.showing import output, revisions

PAGE = (Path(tl.__file__).parents[2] / "docs/reference/json.md").read_text(encoding="utf-8")
REIGNS = study.Study.reigns  # before a fixture takes its place
WHOLE = {"machine", "calm"}  # which have the same keys everywhere
# More of a command than what `RUNS` writes, so that all keys come up.
MORE = {
    "machine": ["machine --probe --json {}"],
    "bench": ["bench --variants numpy,absent --shape 9,2,4,1 --json {}"],
    "peers": ["peers --variants numpy,numba-fused,absent --shape 9,2,4,1 --json {}"],
    "updates": ["updates --variants numba-fused,absent --peers --shape 9,2,4,1 --json {}"],
    "train": [
        "train data.csv --epochs 2 --validation 0.4 --json {}",
        "train data.csv --epochs 2 --classes --loss softmax --json {}",
    ],
}


def documented():
    """The keys by command."""
    found = {command: [] for command in COMMANDS}
    for section in PAGE.split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        keys = [
            key
            for line in text.splitlines()
            if line.startswith("| `")
            for key in re.findall(r"`([^`]+)`", line.split(" | ")[0])
        ]
        names = COMMANDS if heading == "every command" else re.findall(r"`(\w+)`", heading)
        for name in names:
            found.setdefault(name, []).extend(keys)
    return found


def keys(value, at=""):
    """The keys of a JSON value, with those inside of others."""
    if isinstance(value, dict):
        for key, inner in value.items():
            here = f"{at}.{key}" if at else key
            yield from [here] if key in WHOLE else keys(inner, here)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for inner in value:
            yield from keys(inner, f"{at}[]") if inner is not None else ()
    elif value != [None]:  # an entry that there is not
        yield at


def written(line):
    """What a command writes."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    assert call(line.format("out.json"), *streams) == 0
    return json.loads(Path("out.json").read_text(encoding="utf-8"))


def check(command, values):
    """Whether the page has the keys that were written, each, and no others."""
    known = documented()[command]
    found = {key for value in values for key in keys(value)}
    used = set()
    for key in found:
        # "[]" means itself.
        fitting = [k for k in known if fnmatch.fnmatchcase(key, k.replace("[]", "[[]]"))]
        assert fitting, f"docs/reference/json.md lacks {key} of {command}"
        used.update(fitting)
    assert set(known) - used == set()
    for value in values:
        assert value["schema"] == output.SCHEMA


@pytest.mark.parametrize(
    "command", sorted({run.split()[0] for run, (_, ending) in RUNS.items() if ending == ".json"}
                      - {"report"})
)  # fmt: skip
def test_the_page_has_the_keys_that_a_command_writes(brief, monkeypatch, command):
    monkeypatch.setattr(roofline, "probe", lambda *_, **__: Roofline(1e11, 1e10))
    lines = [line for line, _ in RUNS.values() if line.startswith(f"{command} ")]
    lines = [line for line in lines if "--json" in line] + MORE.get(command, [])
    if any("absent" in line for line in lines):
        tl.variants.add(tl.Variant("absent", "cpu", "", None, requires=("no_such_package",)))
    check(command, [written(line) for line in lines])


def test_the_page_has_the_keys_of_a_report(brief):
    """Of a study of made-up figures, as a run takes minutes."""
    net, variant = tl.Network(), tl.variants.get("numpy")
    results = [
        Result(Workload(net, study.BASE._replace(n=n)), 1, Roofline(1e11, 1e10),
               [Entry(variant, blocks=[n * 1e-6] * 6), Entry(variant, skipped="why")])
        for n in (1_000, 10_000, 100_000)
    ]  # fmt: skip
    made = study.Study(net, "float32", 1, [variant], Roofline(1e11, 1e10))
    made.sweeps, made.maps = {"n": results}, {("n", "M"): results}
    made.starts, made.started = {"numpy": Start(2.0, 1.0)}, {"numpy": Calm()}
    made.agreements = {"numpy": [Agreement("numpy", net, "a", study.BASE, "float32", 0.5, "L")]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twolayer.report.gather.Gathering.run", lambda gathering: made)
        patch.setattr(study.Study, "reigns", REIGNS)
        found = written("report --variants numpy r.html --json {}")
    check("report", [found])


def test_the_page_has_the_keys_of_a_comparison(tmp_path):
    numbers = dict.fromkeys(
        ("base", "head", "ratio", "low", "high", "p", "agreement", "visible"), 1.0
    )
    decision = Decision("a", "a", "time", 4, **numbers, verdict="same", decided=True)
    note = Note("failed", "a", "why")
    outcome = Outcome([decision], [Cost("compile", "a", 1.0, 2.0, "worse")], [note])
    sides = tuple(Revision(label, tmp_path, label) for label in ("base", "head"))
    output.write_json(tmp_path / "out.json", revisions.report(outcome, sides))
    check("regress", [json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))])


def test_the_page_has_the_keys_of_calm_and_the_number():
    assert set(documented()["calm"]) == Calm().report().keys()
    assert f"at present **{output.SCHEMA}**" in PAGE
    assert {field.name for field in dataclasses.fields(Calm)} < Calm().report().keys()
