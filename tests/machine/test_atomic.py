"""Files that are replaced whole where they can be, and written in place where they cannot."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from twolayer.machine import atomic


def write(path, content=b"new"):
    with atomic.replacing(path) as file:
        file.write(content)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"what was there before")
    return path


def test_a_file_is_replaced_whole(path):
    path.chmod(0o640)
    with path.open("rb") as reader:
        with atomic.replacing(path) as file:
            file.write(b"ne")
            assert path.read_bytes() == b"what was there before"
            file.write(b"w")
        assert reader.read() == b"what was there before"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert left(path.parent) == ["file"]


def test_a_failure_leaves_what_was_there(path):
    with pytest.raises(TypeError), atomic.replacing(path) as file:
        file.writelines([b"half", "no bytes"])
    assert path.read_bytes() == b"what was there before"
    assert left(path.parent) == ["file"]


def test_a_link_stays_a_link_and_one_to_nothing_makes_its_file(path):
    link, dangling = path.with_name("link"), path.with_name("dangling")
    link.symlink_to(path)
    dangling.symlink_to(path.with_name("made"))
    for name in (link, dangling):
        atomic.check_writable(name)
        write(name)
        assert name.is_symlink()
        assert name.read_bytes() == b"new"
    assert left(path.parent) == ["dangling", "file", "link", "made"]


@pytest.mark.parametrize("length", [254, 255])
def test_a_name_as_long_as_a_name_can_be(tmp_path, length):
    path = tmp_path / ("x" * length)
    atomic.check_writable(path)
    write(path)
    assert path.read_bytes() == b"new"


def test_no_name_is_foreseen_and_no_link_followed(path, monkeypatch):
    names = set()
    for _ in range(2):
        with atomic.replacing(path) as file:
            names.add(Path(file.name).name)
            assert stat.S_ISREG(os.lstat(file.name).st_mode)
    assert len(names) == 2
    monkeypatch.setattr(os, "urandom", lambda count: b"\0" * count)
    victim, other = path.with_name("victim"), path.with_name("other")
    with atomic.replacing(other) as file:
        planted = Path(file.name)
    other.unlink()
    planted.symlink_to(victim)
    with pytest.raises(FileExistsError):
        write(other)
    assert not victim.exists()


@pytest.mark.parametrize("error", [errno.EBUSY, errno.EPERM, errno.EXDEV])
def test_what_holds_its_place_is_written_in_place(path, monkeypatch, error):
    def replace(*arguments):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "replace", replace)
    before = path.stat().st_ino
    write(path)
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino == before
    assert left(path.parent) == ["file"]
    with pytest.raises(OSError, match=os.strerror(error)):
        write(path.with_name("other"))


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_a_folder_that_takes_no_new_file(path, monkeypatch, error):
    def opened(self, mode="r", **options):
        if "x" in mode:
            raise OSError(error, os.strerror(error))
        return open(self, mode, **options)

    monkeypatch.setattr(Path, "open", opened)
    atomic.check_writable(path)
    write(path)
    assert path.read_bytes() == b"new"
    with pytest.raises(OSError, match=os.strerror(error)):
        atomic.check_writable(path.with_name("other"))


def test_a_fifo_and_a_device_stay_what_they_are(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    atomic.check_writable(fifo)
    found = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    reader.start()
    write(fifo, b"x" * 200_000)
    reader.join()
    assert found == [b"x" * 200_000]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write("/dev/full")


def test_a_reader_that_has_left_is_no_failure():
    reader, writer = os.pipe()
    path = f"/dev/fd/{writer}"
    holder = os.open(path, os.O_WRONLY)
    with atomic.replacing(path) as file:
        file.write(b"x")
        os.close(reader)
    os.close(writer)
    os.close(holder)


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(path):
    with atomic.replacing(path) as mine:
        name = Path(mine.name)
        dead = name.with_name(name.name[:-8] + "0" * 8)
        dead.write_bytes(b"half")
        atomic.check_writable(path)
        write(path, b"of another")
        assert not dead.exists()
        assert name.exists()
        mine.write(b"mine")
    assert path.read_bytes() == b"mine"
    assert left(path.parent) == ["file"]
