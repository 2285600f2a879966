"""The thread that writes records: order, gathering, syncs, errors, and what a stop leaves."""

import errno
import os
import subprocess
import sys
import threading
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from timesformer_cli.results import appender
from timesformer_cli.results.appender import Appender

LINES = [b"%d " % number * (number % 7) + b"\n" for number in range(1000)]


class Slow(FileIO):
    """A disk that is busy with its first write until `free` is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+")
        self.free = threading.Event()
        self.busy = threading.Event()
        self.writes = 0

    def write(self, data: Any) -> int:
        self.writes += 1
        self.busy.set()
        assert self.free.wait(60)
        return super().write(data)


class Full(FileIO):
    """A disk with room for 100 bytes, which takes 30 at a time."""

    def write(self, data: Any) -> int:
        if self.tell() >= 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:30])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch, path: Path) -> list[bytes]:
    """What the file holds at each sync."""
    found: list[bytes] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            found.append(path.read_bytes())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_a_slow_disk_holds_nobody_up_and_gets_few_large_writes(path: Path) -> None:
    file = Slow(path)
    appended = Appender(file)
    appended.write(LINES[0])
    assert file.busy.wait(60)
    for line in LINES[1:]:
        appended.write(line)
    file.free.set()
    appended.close()
    assert path.read_bytes() == b"".join(LINES)
    assert file.writes <= 3
    assert file.closed


def test_quick_lines_are_gathered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender, "_GATHER", 60)
    file = Slow(path)
    file.free.set()
    appended = Appender(file)
    appended.write(LINES[0])
    assert not file.busy.wait(0.05)
    for line in LINES[1:]:
        appended.write(line)
    appended.close()
    assert file.writes == 1
    assert path.read_bytes() == b"".join(LINES)


def test_what_waits_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender, "_MOST", 1000)
    file = Slow(path)
    appended = Appender(file)
    appended.write(b"x" * 500 + b"\n")
    assert file.busy.wait(60)
    for _ in range(2):
        appended.write(b"y" * 500 + b"\n")
    waits = threading.Thread(target=appended.write, args=(b"z\n",))
    waits.start()
    waits.join(0.05)
    assert waits.is_alive()
    file.free.set()
    waits.join(60)
    appended.close()
    assert [line[:1] for line in path.read_bytes().splitlines()] == [b"x", b"y", b"y", b"z"]


def test_it_is_synced_now_and_then_and_at_the_end(
    path: Path, synced: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = threading.Event()
    real = appender.sync
    monkeypatch.setattr(appender, "sync", lambda *file: (real(*file), again.set()))
    monkeypatch.setattr(appender, "_SYNC", 0.01)
    monkeypatch.setattr(appender, "_GATHER", 0)
    appended = Appender(FileIO(path, "x+"))
    appended.write(b"first\n")
    assert again.wait(60)  # without another line, and before the end
    assert synced == [b"first\n"]
    monkeypatch.setattr(appender, "_SYNC", 60)
    appended.write(b"second\n")
    appended.close()
    assert synced == [b"first\n", b"first\nsecond\n"]


@pytest.mark.parametrize("cause", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync(path: Path, monkeypatch: pytest.MonkeyPatch, cause: int) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(cause, os.strerror(cause))

    monkeypatch.setattr(os, "fsync", fsync)
    appended = Appender(FileIO(path, "x+"))
    appended.write(b"a\n")
    appended.close()
    assert path.read_bytes() == b"a\n"


class TestErrors:
    def test_whole_lines_stay_and_the_next_write_says_why(self, path: Path) -> None:
        appended = Appender(Full(path, "x+"))
        with pytest.raises(OSError, match="No space left"):
            write_on(appended, b"a line of 20 letters\n")
        appended.close()  # which was told
        assert path.read_bytes() == b"a line of 20 letters\n" * 5

    def test_or_the_end_does(self, path: Path) -> None:
        appended = Appender(Full(path, "x+"))
        appended.write(b"x" * 200 + b"\n")
        with pytest.raises(OSError, match="No space left"):
            appended.close()
        assert path.read_bytes() == b""

    def test_who_waits_for_room_is_told(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(appender, "_MOST", 10)
        appended = Appender(Full(path, "x+"))
        with pytest.raises(OSError, match="No space left"):
            write_on(appended, b"x" * 50 + b"\n")
        appended.close()

    def test_a_disk_that_breaks_when_it_is_synced(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fsync(descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", fsync)
        appended = Appender(FileIO(path, "x+"))
        appended.write(b"a\n")
        with pytest.raises(OSError, match="Input/output error"):
            appended.close()


def write_on(appended: Appender, line: bytes) -> None:
    while True:
        appended.write(line)


def test_what_was_synced_survives_a_kill(path: Path) -> None:
    code = (
        "import os, sys; from io import FileIO; from timesformer_cli.results import appender;"
        "appender._GATHER = 0; appender._SYNC = 0.0; real = appender.sync;"
        "appender.sync = lambda *file: (real(*file), os._exit(9));"
        f"appended = appender.Appender(FileIO({str(path)!r}, 'x+'));"
        "appended.write(b'first\\n'); appended._thread.join()"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 9
    assert path.read_bytes() == b"first\n"
