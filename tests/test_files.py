"""Files and folders as a whole: what a stop, a full disk or a planted link leaves; and who may read what is written."""

import errno
import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testing import hub_server, kills
from testing.weights import CONFIG
from timesformer_cli import TimesformerForVideoClassification, files
from timesformer_cli.cli import console
from timesformer_cli.errors import OutputError
from timesformer_cli.files import locked, put_folder, replacing, whole, whole_folder
from timesformer_cli.results.copies import Sorter

NO_SYNC = "this disk cannot sync files, so a power cut may cost what was written last"

OLD = {"config.json": b"old", "model.safetensors": b"old weights"}
CASES = ("save", "one_by_one", "export", "merge", "download")  # of testing/kills.py
NEW = {"config.json": b"new", "model.safetensors": b"new weights"}


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_new(folder: Path) -> None:
    with whole_folder(folder, "config.json") as staging:
        fill(staging, NEW)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes; what is written beyond fails as on a disk without room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """What was left by each command that was killed at each of its steps, and how often."""
    folder = tmp_path_factory.mktemp("kills")
    for case in CASES:
        (folder / case).mkdir()
    with hub_server.serve() as hub:
        for name, branch in (("old", "v1"), ("new", "main")):
            config = f'{{"{name}": 1}}'.encode()
            hub.add_repo("owner/model", {"config.json": config, "model.safetensors": name.encode() * 9}, branch)
        done = subprocess.run(
            [sys.executable, kills.__file__, ",".join(CASES), folder, hub.url],
            env=hub.environment(folder / "home"),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a folder is away for the moment between two renames")
@pytest.mark.parametrize("case", CASES)
def test_a_kill_leaves_the_old_or_the_new(outcomes: dict[str, dict[str, int]], case: str) -> None:
    assert outcomes[case].keys() == {"old", "new"} | ({"none"} if case == "one_by_one" else set())
    assert outcomes[case]["old"] >= 1, "the control: it was killed before its end"


class TestFolders:
    def test_others_stay(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "m", OLD | {"notes.txt": b"mine"})
        (folder / "link").symlink_to("notes.txt")
        folder.chmod(0o750)
        write_new(folder)
        assert kills.contents(folder) == NEW | {"notes.txt": b"mine", "link": b"mine"}
        assert (folder / "link").is_symlink()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750
        assert os.listdir(tmp_path) == ["m"]

    @pytest.mark.parametrize("why", ["a folder in it", "the current one", "cannot swap"])
    def test_that_cannot_be_replaced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
        folder = fill(tmp_path / "m", OLD)
        before = folder.stat().st_ino
        if why == "a folder in it":
            fill(folder / "runs", {"log": b"mine"})
        elif why == "the current one":
            monkeypatch.chdir(folder)
        else:
            monkeypatch.setattr("timesformer_cli.files._exchange", lambda one, other: False)
        write_new(folder)
        assert {name: (folder / name).read_bytes() for name in NEW} == NEW
        assert (folder.stat().st_ino == before) is (why != "cannot swap")
        assert not (folder / "runs").exists() or (folder / "runs/log").read_bytes() == b"mine"
        assert [name for name in (*os.listdir(tmp_path), *os.listdir(folder)) if name.startswith(".")] == []

    def test_through_a_link(self, tmp_path: Path) -> None:
        fill(tmp_path / "m", OLD)
        (tmp_path / "link").symlink_to("m")
        write_new(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert kills.contents(tmp_path / "m") == NEW

    def test_a_file_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "m").write_text("mine")
        with pytest.raises(NotADirectoryError):
            write_new(tmp_path / "m")
        assert kills.contents(tmp_path) == {"m": b"mine"}

    def test_what_comes_while_it_is_replaced_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = fill(tmp_path / "m", OLD)

        def put_later(staging: Path, target: Path) -> None:
            (folder / "late.txt").write_bytes(b"late")
            put_folder(staging, target)

        monkeypatch.setattr("timesformer_cli.files.put_folder", put_later)
        write_new(folder)
        assert kills.contents(folder) == NEW | {"late.txt": b"late"}

    def test_what_killed_programs_left_is_removed(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "m", OLD)
        names = {".m.0123abcd.partial": False, ".m.00000000.partial": True}  # whether it stays
        names |= {".m.0123abcd.partial.old": True, ".n.0123abcd.partial": True, ".m.notours!.partial": True}
        for name in names:
            fill(tmp_path / name, NEW)
            os.utime(tmp_path / name, (0, 0))
        (tmp_path / ".m.ffffffff.partial").symlink_to(".n.0123abcd.partial")
        os.utime(tmp_path / ".m.00000000.partial")  # a moment ago
        with whole_folder(folder, "config.json") as staging:
            fill(staging, NEW)
            os.utime(staging, (0, 0))
            write_new(folder)
            assert kills.contents(staging) == NEW
        assert {name: (tmp_path / name).exists() for name in names} == names
        assert kills.contents(tmp_path / ".n.0123abcd.partial") == NEW

    def test_the_old_folder_is_held_until_it_is_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Files that appeared in it meanwhile are still to be moved."""
        folder = fill(tmp_path / "m", OLD)
        seen: list[bool] = []
        monkeypatch.setattr(files, "_rescue", lambda old, *_: seen.append(files._is_held(old)))
        write_new(folder)
        assert seen == [True]

    @pytest.mark.parametrize("size", [0, 300, 5000])
    def test_a_full_disk_leaves_the_old_model(self, tmp_path: Path, size: int) -> None:
        folder = fill(tmp_path / "m", OLD | {"notes.txt": b"mine"})
        with full_disk(size), pytest.raises(OSError, match="File too large"):
            TimesformerForVideoClassification(CONFIG).save_pretrained(folder)
        assert kills.contents(folder) == OLD | {"notes.txt": b"mine"}
        assert os.listdir(tmp_path) == ["m"]

    def test_everybody_may_read_what_the_umask_allows(self, tmp_path: Path) -> None:
        with umask(0o027):
            TimesformerForVideoClassification(CONFIG).save_pretrained(tmp_path / "m")
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "m").iterdir()}
        assert modes == {0o640}
        assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o750


class TestPlantedLinks:
    """Somebody else put a link where a file of ours is made for a while."""

    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        (tmp_path / "outside").write_text("theirs")
        return tmp_path / "outside"

    def test_parts(self, tmp_path: Path, outside: Path) -> None:
        target = tmp_path / "o.jsonl.meta.json"
        target.with_name(target.name + ".part").symlink_to(outside)
        with whole(target) as part:
            part.write_text("ours")
        assert (target.read_text(), outside.read_text()) == ("ours", "theirs")
        assert not target.is_symlink()

    def test_that_come_later(self, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target = tmp_path / "o.json"
        part = tmp_path / "o.json.part"
        part.symlink_to(outside)
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # as if it were there again at once
        with pytest.raises(OutputError, match=r"o\.json: cannot be written"), replacing(target):
            pytest.fail("it was followed")
        assert outside.read_text() == "theirs"

    def test_copies(self, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "video").write_text("a video")
        monkeypatch.setattr("timesformer_cli.results.copies._digest", lambda _: "1")
        (tmp_path / "sorted/cat").mkdir(parents=True)
        (tmp_path / "sorted/cat/.1.part").symlink_to(outside)
        record = {"path": str(tmp_path / "video"), "status": "ok", "predictions": [{"label": "cat"}]}
        copy = Sorter(str(tmp_path / "sorted"), ["cat"], link=False).place(record | {"video": {"duration": 1.0}})
        assert copy is not None
        assert (copy.read_text(), outside.read_text()) == ("a video", "theirs")

    def test_locks(self, tmp_path: Path, outside: Path) -> None:
        (tmp_path / "o.jsonl.lock").symlink_to(tmp_path / "made")
        with pytest.raises(OutputError, match=os.strerror(errno.ELOOP)), locked(tmp_path / "o.jsonl"):
            pytest.fail("it was followed")
        assert not (tmp_path / "made").exists()


class TestSync:
    @pytest.fixture(autouse=True)
    def fresh(self) -> Iterator[None]:
        files._warn_of_no_sync.cache_clear()
        yield
        files._warn_of_no_sync.cache_clear()

    @pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
    def test_a_mount_that_cannot_is_told_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
    ) -> None:
        monkeypatch.setattr(os, "fsync", refusing(code))
        for name in ("a", "b"):
            with replacing(tmp_path / name) as part:
                part.write_text(name)
        assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["a", "b"]
        assert caplog.messages == [f"{tmp_path}: {NO_SYNC}"]

    def test_a_sync_that_fails_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
        with pytest.raises(OutputError, match="cannot be written"), replacing(tmp_path / "a") as part:
            part.write_text("a")
        assert list(tmp_path.iterdir()) == []

    def test_the_command_prints_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
        console.take_warnings()
        with replacing(tmp_path / "a") as part:
            part.write_text("a")
        assert capsys.readouterr().err == f"warning: {tmp_path}: {NO_SYNC}\n"


def refusing(code: int) -> Callable[[int], None]:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    return fsync
