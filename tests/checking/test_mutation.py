"""The program that changes sources: what it changes, and that it tells caught from surviving."""

import inspect
import sys
from pathlib import Path

import pytest

import twolayer as tl

ROOT = Path(__file__).parents[2]
SOURCE = """\
def total(numbers):
    found = 0
    for i in range(len(numbers)):
        found += numbers[i]
    if found > 100:
        found = 100
    return found
"""
CHECK = """\
import pickle, sys, time
def run(right, stage, *names):
    from twolayer.kernels.planted import total
    while total([]):
        time.sleep(1)
    assert total([5, 7, 9]) == right
if __name__ == "__main__":
    with open(sys.argv[1], "wb") as file:
        pickle.dump(21, file)
"""


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools/mutation")
    import mutants

    yield mutants
    for name in ("mutants", "mutations"):
        sys.modules.pop(name, None)


def test_what_the_check_sets_is_there(mutants):
    import mutants_check

    own, *others = mutants_check.ways()
    for way in others:
        for (_, name, value), (*_, old) in zip(way, own, strict=True):
            assert callable(value) is callable(old)
            if inspect.isfunction(old):  # else each check would fail, and catch each mutant
                taken, asked = (list(inspect.signature(f).parameters) for f in (value, old))
                assert taken[: len(asked)] == asked, name
    del sys.modules["mutants_check"]


@pytest.fixture
def planted(mutants, monkeypatch, tmp_path):
    """All mutants of `SOURCE`, by their change, in a package whose check sees 21 only."""
    package = tmp_path / "src" / "twolayer"
    (package / "kernels").mkdir(parents=True)
    (package / "kernels" / "planted.py").write_text(SOURCE)
    (package / "__init__.py").touch()
    check = tmp_path / "check.py"
    check.write_text(CHECK)
    monkeypatch.setattr(mutants, "PACKAGE", package)
    monkeypatch.setattr(mutants, "CHECK", check)
    monkeypatch.setattr(mutants, "_LEAST", 300.0)
    monkeypatch.setattr(mutants, "_TIMES", 0)
    monkeypatch.setattr(mutants, "sources", lambda: ["kernels/planted.py"])
    monkeypatch.setattr(
        mutants, "stages", lambda mutant: [mutants.Stage(("interpreted", "planted"))]
    )
    return {one.change: one for one in mutants.mutants_of("kernels/planted.py", SOURCE.encode())}


def test_every_kind_of_change_is_made(mutants, planted):
    assert {
        "0 → 1",
        "range(len(numbers)) → (range(1, len(numbers)))",
        "len(numbers) → (len(numbers) - 1)",
        "found += numbers[i] → found -= numbers[i]",
        "found += numbers[i] → pass",
        "found > 100 → (found >= 100)",
        "found > 100 → (not found > 100)",
    } <= {change.replace("(not (found > 100))", "(not found > 100)") for change in planted}
    assert "found = 0 → pass" in planted  # bound again below
    text = b"f(a, b, 3)\nf(a + 1, b)\n"
    assert [one.change for one in mutants.mutants_of("x", text) if one.kind == "exchange"] == [
        "f(a, b, 3) → (f(b, a, 3))"
    ]


def test_a_caught_one_and_a_survivor_are_told_apart(mutants, planted, tmp_path):
    caught, survivor = (
        planted["found += numbers[i] → pass"],
        planted["found > 100 → (found >= 100)"],
    )
    results = tmp_path / "results.jsonl"
    found = mutants.run([caught, survivor], results, 2)
    assert "AssertionError" in found[caught.key]
    assert found[survivor.key] == ""
    text = mutants.summary([caught, survivor], found, [])
    assert "1 of     2  50.0%" in text
    assert "kernels/planted.py:5: comparison in total: found > 100 → (found >= 100)" in text
    known = results.read_text()
    assert mutants.run([caught, survivor], results, 2) == found
    assert results.read_text() == known  # nothing ran again


def test_an_endless_one_is_ended(mutants, planted, tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "_LEAST", 1.0)
    endless = planted["0 → 1"]
    found = mutants.run([endless], tmp_path / "results.jsonl", 1)
    assert "took more than 1 s" in found[endless.key]


def test_equivalent_ones_leave_the_count_and_are_told_where_they_do_not_survive(mutants, planted):
    caught, survivor = (
        planted["found += numbers[i] → pass"],
        planted["found > 100 → (found >= 100)"],
    )
    found = {caught.key: "a check", survivor.key: ""}
    entries = [
        {"file": one.file, "line": one.text, "changes": [one.new]} for one in (caught, survivor)
    ]
    text = mutants.summary([caught, survivor], found, entries)
    assert "1 of     1 100.0%, 1 equivalent" in text
    assert text.count("no survivor any more") == 1
    assert f"{caught.text}: {caught.change}" in text


def test_the_real_sources_give_mutants_that_compile(mutants):
    package = Path(tl.__file__).parent
    for file in mutants.sources():
        text = (package / file).read_bytes()
        for one in mutants.mutants_of(file, text):
            changed = text[: one.start] + one.new.encode() + text[one.end :]
            assert changed != text
            if one.start % 16 == 0:  # all of them take seconds
                compile(changed, file, "exec")


def test_every_entry_of_the_list_means_a_mutant(mutants):
    package = Path(tl.__file__).parent
    every = [
        one for f in mutants.sources() for one in mutants.mutants_of(f, (package / f).read_bytes())
    ]
    for entry in mutants.tomllib.loads(mutants.EQUIVALENT.read_text())["mutant"]:
        assert entry["reason"]
        meant = {one.new for one in every if mutants.matches(entry, one)}
        assert meant == set(entry["changes"]), entry
