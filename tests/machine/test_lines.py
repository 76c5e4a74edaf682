"""Records that a killed process leaves behind: all that were written whole, and nothing else."""

import os
import subprocess
import sys

import pytest

from twolayer.machine import lines

KILLED = """
import os, sys
from twolayer.machine import lines
for number in range(3):
    lines.append(sys.argv[1], {"number": number})
os.kill(os.getpid(), 9)
"""


def test_a_killed_writer_loses_nothing_that_it_wrote(tmp_path):
    path = tmp_path / "results"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -9
    assert [record["number"] for record in lines.read(path, pytest.fail)] == [0, 1, 2]


def test_a_file_that_is_not_there_has_no_records(tmp_path):
    assert lines.read(tmp_path / "results", pytest.fail) == []


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"{}", b"0 {}", b" ", b"a b"])
def test_a_damaged_line_is_named_and_left_out(tmp_path, damage):
    path = tmp_path / "results"
    lines.append(path, {"benchmark": "a"})
    with path.open("ab") as file:
        file.write(damage + b"\n")
    lines.append(path, {"benchmark": "b"})
    told = []
    assert [r["benchmark"] for r in lines.read(path, told.append)] == ["a", "b"]
    assert told == [f"{path}: 1 of its lines are damaged (2) and left out"]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_cut_off_damages_no_other(tmp_path, cut):
    path = tmp_path / "results"
    for name in "ab":
        lines.append(path, {"benchmark": name})
    os.truncate(path, path.stat().st_size - cut)
    lines.append(path, {"benchmark": "c"})
    found = [r["benchmark"] for r in lines.read(path, lambda sentence: None)]
    assert found == (["a", "b", "c"] if cut == 1 else ["a", "c"])


def test_a_flipped_bit_is_damage(tmp_path):
    path = tmp_path / "results"
    lines.append(path, {"seconds": 125})
    path.write_bytes(path.read_bytes().replace(b"125", b"165"))
    told = []
    assert lines.read(path, told.append) == []
    assert told
