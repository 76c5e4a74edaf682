"""The nightly history leaves no commit out, and ends in time."""

import subprocess
from pathlib import Path

import pytest

from twolayer.machine.calm import Calm

ROOT = Path(__file__).parents[2]


def git(folder, *arguments):
    """What git prints."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def history(tmp_path, monkeypatch):
    """A repository where the newest of four commits on main merges a branch; oldest first."""
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for number in range(3):
        git(tmp_path, "commit", "--quiet", "--allow-empty", f"--message={number}")
    git(tmp_path, "switch", "--quiet", "--create", "branch")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message=branch")
    git(tmp_path, "switch", "--quiet", "main")
    git(tmp_path, "merge", "--quiet", "--no-ff", "--message=merge", "branch")
    monkeypatch.chdir(tmp_path)
    return git(tmp_path, "rev-list", "--first-parent", "--reverse", "HEAD").split()


@pytest.fixture
def tool(load_tool):
    return load_tool("asv_night")


@pytest.mark.parametrize(
    ("measured", "wait"),
    [([], [3]), ([1], [3, 2]), ([0, 3], [2, 1]), ([0, 1, 2, 3], []), ([2], [3])],
)
def test_a_night_takes_what_earlier_ones_left(history, tool, measured, wait):
    tool.RESULTS.mkdir(parents=True)
    (tool.RESULTS / "machine.json").touch()
    for number in measured:
        (tool.RESULTS / f"{history[number][:8]}-virtualenv-py3.13.json").touch()
    assert tool.waiting() == [history[number] for number in wait]


@pytest.mark.parametrize(
    ("took", "begun", "left"),
    [([1, 1, 1], 3, ""), ([2, 5, 1], 2, "1 of 3"), ([9, 1, 1], 1, "2 of 3")],
)
def test_a_night_begins_what_it_can_end(tool, monkeypatch, capsys, took, begun, left):
    now, calls = [0.0], []
    monkeypatch.setattr(tool.time, "monotonic", lambda: now[0])

    def measure(commit, seconds):
        calls.append((commit, seconds))
        now[0] += took[len(calls) - 1]
        return 2 * (commit == "a")

    assert tool.night(["a", "b", "c"], 10.0, measure) == 2  # a failure is not forgotten
    assert len(calls) == begun
    assert calls[0] == ("a", 10.0)
    assert capsys.readouterr().out.startswith(left)


@pytest.mark.parametrize("others", [0.0, 1.0])
def test_asv_is_told_of_the_machine_and_the_user_of_other_programs(
    load_tool, monkeypatch, capsys, others
):
    tool, kept = load_tool("asv_machine"), []
    monkeypatch.setattr(tool, "look", lambda: Calm(seconds=1.0, others=others))
    monkeypatch.setattr(tool.MachineCollection, "save", lambda *about: kept.append(about))
    tool.main()
    assert kept == [("local", tool.fields())]
    told = capsys.readouterr().err
    assert told.startswith(
        "Before asv began, other programs kept 1.0 CPUs busy. " if others else ""
    )
    assert bool(told) == bool(others)
