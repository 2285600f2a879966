"""Sorting into folders: nothing is overwritten, nothing is done twice, and every label has its own folder."""

import errno
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timesformer_cli.errors import OutputError, UsageError
from timesformer_cli.results import copies as sorting
from timesformer_cli.results.copies import Sorter, check_folders, folder_names
from timesformer_cli.results.record import Record

LABELS = ("archery", "bowling", "a/b: c?", "..")


def labelled(path: Path | str, label: str = "archery") -> Record:
    predictions = [{"rank": 1, "index": 0, "label": label, "score": 0.9}]
    return {"path": str(path), "status": "ok", "predictions": predictions, "video": {"duration": 10.0}}


def timeline(path: Path, *spans: tuple[float, float, str | None]) -> Record:
    segments = [{"start": a, "end": b, "predictions": [{"label": c}] if c else []} for a, b, c in spans]
    return {"path": str(path), "status": "ok", "segments": segments, "video": {"duration": 10.0}}


def made(path: Path, content: str = "a video") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def frames(folder: Path, *contents: str) -> Path:
    for number, content in enumerate(contents):
        made(folder / f"{number:05d}.jpg", content)
    return folder


def files(folder: Path) -> list[str]:
    """What lies below a folder, hidden files among it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def copier(out: Path) -> Sorter:
    return Sorter(str(out), LABELS, link=False)


@pytest.fixture
def linker(out: Path) -> Sorter:
    return Sorter(str(out), LABELS, link=True)


@pytest.fixture(params=["copy", "link"])
def sorter(request: pytest.FixtureRequest, out: Path) -> Sorter:
    return Sorter(str(out), LABELS, link=request.param == "link")


class TestPlace:
    def test_a_copy_keeps_content_and_times(self, tmp_path: Path, out: Path, copier: Sorter) -> None:
        source = made(tmp_path / "a.mp4")
        assert copier.place(labelled(source)) == out / "archery" / "a.mp4"
        target = out / "archery" / "a.mp4"
        assert (target.read_text(), target.stat().st_mtime, target.is_symlink()) == ("a video", 1_000_000_000, False)
        assert files(out) == ["archery/a.mp4"]

    def test_a_link_has_the_absolute_path(
        self, tmp_path: Path, out: Path, linker: Sorter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made(tmp_path / "clips" / "a.mp4")
        monkeypatch.chdir(tmp_path)
        target = linker.place(labelled("clips/a.mp4"))
        assert target == out / "archery" / "a.mp4"
        assert os.readlink(target) == str(tmp_path / "clips" / "a.mp4")

    def test_a_copy_of_a_link_is_a_file(self, tmp_path: Path, copier: Sorter) -> None:
        made(tmp_path / "a.mp4")
        (tmp_path / "b.mp4").symlink_to("a.mp4")
        target = copier.place(labelled(tmp_path / "b.mp4"))
        assert target is not None
        assert target.name == "b.mp4"
        assert not target.is_symlink()

    @pytest.mark.parametrize(
        ("template", "place"),
        [
            ("sorted", "sorted/archery/a.mp4"),
            ("sorted/", "sorted/archery/a.mp4"),
            ("sorted/{label}", "sorted/archery/a.mp4"),
            ("sorted/{label}/videos/", "sorted/archery/videos/a.mp4"),
            ("sorted/is-{label}-{label}", "sorted/is-archery-archery/a.mp4"),
            ("{label}", "archery/a.mp4"),
        ],
    )
    def test_templates(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, place: str) -> None:
        monkeypatch.chdir(tmp_path)
        check_folders(template)
        assert Sorter(template, LABELS, link=False).place(labelled(made(tmp_path / "in" / "a.mp4"))) == Path(place)
        assert (tmp_path / place).is_file()

    def test_odd_labels_stay_below_the_folder(self, tmp_path: Path, out: Path, sorter: Sorter) -> None:
        for label in LABELS[2:]:
            sorter.place(labelled(made(tmp_path / "a.mp4"), label))
        assert files(out) == ["%2E%2E/a.mp4", "a%2Fb%3A c%3F/a.mp4"]

    def test_what_cannot_be_sorted(self, tmp_path: Path, out: Path, sorter: Sorter) -> None:
        video = made(tmp_path / "a.mp4")
        assert sorter.place({"path": str(video), "status": "error", "error": {}}) is None
        assert sorter.place(labelled(video) | {"predictions": []}) is None
        assert sorter.place(timeline(video, (0, 1, None))) is None
        assert sorter.place(labelled("https://example.org/a.mp4")) is None
        assert not out.exists()

    def test_a_file_address_is_a_file(self, tmp_path: Path, out: Path, copier: Sorter) -> None:
        made(tmp_path / "a b.mp4")
        assert copier.place(labelled(f"file://{tmp_path}/a%20b.mp4")) == out / "archery" / "a b.mp4"

    def test_names_that_are_no_utf_8(self, tmp_path: Path, out: Path, sorter: Sorter) -> None:
        source = made(tmp_path / "caf\udce9.mp4")
        assert sorter.place(labelled(source)) == out / "archery" / "caf\udce9.mp4"

    def test_the_label_of_a_timeline_is_the_one_that_lasts_longest(self, tmp_path: Path, out: Path) -> None:
        video = made(tmp_path / "a.mp4")
        sorter = Sorter(str(out), ("a", "b", "c"), link=False)
        target = sorter.place(timeline(video, (0, 4, "a"), (4, 7, "b"), (7, 20, None), (20, 22, "b"), (22, 24, "c")))
        assert target == out / "b" / "a.mp4"


class TestWhatIsThereAlready:
    def test_a_second_run_does_nothing(self, tmp_path: Path, out: Path, sorter: Sorter) -> None:
        video = labelled(made(tmp_path / "a.mp4"))
        first = sorter.place(video)
        assert first is not None
        before = first.lstat()
        assert sorter.place(video) == first
        assert first.lstat() == before
        assert files(out) == ["archery/a.mp4"]

    def test_others_of_the_same_name_get_numbers(self, tmp_path: Path, out: Path, sorter: Sorter) -> None:
        videos = [labelled(made(tmp_path / str(n) / "a.b.mp4", f"video {n}")) for n in range(3)]
        expected = [out / "archery" / name for name in ("a.b.mp4", "a.b (2).mp4", "a.b (3).mp4")]
        for _ in range(2):
            assert [sorter.place(video) for video in videos] == expected
        assert [path.read_text() for path in expected] == ["video 0", "video 1", "video 2"]

    @pytest.mark.parametrize("there", ["another", "a videoX", "b video", ""])
    def test_a_file_that_differs_is_left(self, tmp_path: Path, out: Path, sorter: Sorter, there: str) -> None:
        made(out / "archery" / "a.mp4", there)
        assert sorter.place(labelled(made(tmp_path / "a.mp4"))) == out / "archery" / "a (2).mp4"
        assert (out / "archery" / "a.mp4").read_text() == there

    def test_a_copy_where_a_link_is_wanted_and_the_other_way_round(
        self, tmp_path: Path, copier: Sorter, linker: Sorter
    ) -> None:
        videos = [labelled(made(tmp_path / name)) for name in ("a.mp4", "b.mp4")]
        assert copier.place(videos[0]) == linker.place(videos[0])
        assert linker.place(videos[1]) == copier.place(videos[1])

    def test_a_dangling_link_or_a_folder_is_left(self, tmp_path: Path, out: Path, sorter: Sorter) -> None:
        (out / "archery").mkdir(parents=True)
        (out / "archery" / "a.mp4").symlink_to("nowhere")
        (out / "archery" / "a (2).mp4").mkdir()
        assert sorter.place(labelled(made(tmp_path / "a.mp4"))) == out / "archery" / "a (3).mp4"
        assert os.readlink(out / "archery" / "a.mp4") == "nowhere"

    def test_a_video_that_is_in_its_place(self, out: Path, sorter: Sorter) -> None:
        video = made(out / "archery" / "a.mp4")
        assert sorter.place(labelled(video)) == video
        assert files(out) == ["archery/a.mp4"]

    @pytest.mark.parametrize("same", [False, True])
    def test_another_run_that_is_quicker(
        self, tmp_path: Path, out: Path, sorter: Sorter, monkeypatch: pytest.MonkeyPatch, same: bool
    ) -> None:
        """It takes the name between the look and the making of the file."""
        target = out / "archery" / "a.mp4"
        real = os.path.lexists

        def lexists(path: Any) -> bool:
            there = real(path)
            if not there and path == target:
                made(target, "a video" if same else "another")
            return there

        source = made(tmp_path / "a.mp4")
        monkeypatch.setattr(os.path, "lexists", lexists)
        assert sorter.place(labelled(source)) == (target if same else out / "archery" / "a (2).mp4")
        assert target.read_text() == ("a video" if same else "another")
        assert len(files(out)) == 1 + (not same)


class TestManyOfOneName:
    """Each file is looked at a few times, and not once for each other file."""

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Iterator[list[str]]:
        """The paths that are opened below `tmp_path`; a hook cannot be removed, so it is switched off."""
        paths: list[str] = []
        listening = True

        def listen(event: str, args: tuple[Any, ...]) -> None:
            if listening and event == "open" and str(args[0]).startswith(str(tmp_path)):
                paths.append(str(args[0]))

        sys.addaudithook(listen)
        yield paths
        listening = False

    def test_of_one_size(self, tmp_path: Path, out: Path, sorter: Sorter, opened: list[str]) -> None:
        videos = [labelled(made(tmp_path / str(n) / "a.mp4", f"video {n:03}")) for n in range(60)]
        expected = [out / "archery" / ("a.mp4" if n == 0 else f"a ({n + 1}).mp4") for n in range(60)]
        opened.clear()
        assert [sorter.place(video) for video in videos] == expected
        again = Sorter(str(out), LABELS, link=sorter._link)
        assert [again.place(video) for video in reversed(videos)] == expected[::-1]
        assert len(opened) < 10 * len(videos)
        assert [path.read_text() for path in expected] == [f"video {n:03}" for n in range(60)]

    def test_of_different_sizes_are_not_read(
        self, tmp_path: Path, out: Path, linker: Sorter, opened: list[str]
    ) -> None:
        videos = [labelled(made(tmp_path / str(n) / "a.mp4", n * "a")) for n in range(20)]
        opened.clear()
        assert len({linker.place(video) for video in videos}) == 20
        assert opened == []

    def test_folders_of_one_outline(self, tmp_path: Path, out: Path, sorter: Sorter) -> None:
        videos = [labelled(frames(tmp_path / str(n % 5) / "clip", str(n % 5), "x")) for n in range(10)]
        placed = [sorter.place(video) for video in videos]
        assert placed[:5] == placed[5:]
        assert len(set(placed)) == 5

    def test_a_copy_that_was_removed_meanwhile(self, tmp_path: Path, out: Path, copier: Sorter) -> None:
        videos = [labelled(made(tmp_path / name / "a.mp4", name)) for name in ("x", "y", "z")]
        for video in videos:
            copier.place(video)
        (out / "archery" / "a (2).mp4").unlink()
        assert copier.place(videos[1]) == out / "archery" / "a (4).mp4"
        assert copier.place(videos[2]) == out / "archery" / "a (3).mp4"


class TestFoldersOfPictures:
    def test_a_copy(self, tmp_path: Path, out: Path, copier: Sorter) -> None:
        source = frames(tmp_path / "clip", "a", "b")
        for path in (source, f"{source}/"):
            assert copier.place(labelled(path)) == out / "archery" / "clip"
        assert files(out) == ["archery/clip/00000.jpg", "archery/clip/00001.jpg"]

    def test_only_images_and_regular_files_are_copied(self, tmp_path: Path, out: Path) -> None:
        source = frames(tmp_path / "clip", "a", "b")
        made(source / "notes.txt", "mine")
        made(tmp_path / "frame.jpg", "c")
        made(tmp_path / "secret", "a secret")
        (source / "00002.jpg").symlink_to(tmp_path / "frame.jpg")
        (source / "license").symlink_to(tmp_path / "secret")
        (source / "zero").symlink_to("/dev/zero")
        (source / "nowhere").symlink_to("missing")
        os.mkfifo(source / "pipe")
        made(source / "sub/00000.jpg")
        told: list[str] = []
        copier = Sorter(str(out), LABELS, link=False, tell=told.append)
        for _ in range(2):
            copier.place(labelled(source))
        copy = out / "archery/clip"
        assert files(out) == [f"archery/clip/{name}" for name in ("00000.jpg", "00001.jpg", "00002.jpg", "notes.txt")]
        assert ((copy / "00002.jpg").read_text(), (copy / "00002.jpg").is_symlink()) == ("c", False)
        assert told == [
            f"{source}: not copied, as they are not regular files: license, nowhere, pipe, sub, zero",
        ]

    def test_a_link(self, tmp_path: Path, out: Path, linker: Sorter) -> None:
        source = frames(tmp_path / "clip", "a", "b")
        for _ in range(2):
            target = linker.place(labelled(source))
            assert target == out / "archery" / "clip"
            assert os.readlink(target) == str(source)

    @pytest.mark.parametrize("other", [("a",), ("a", "c"), ("a", "b", "c"), ()])
    def test_another_of_the_same_name(self, tmp_path: Path, out: Path, sorter: Sorter, other: tuple[str, ...]) -> None:
        there = frames(out / "archery" / "clip", *other)
        there.mkdir(parents=True, exist_ok=True)
        source = frames(tmp_path / "clip", "a", "b")
        assert sorter.place(labelled(source)) == out / "archery" / "clip (2)"
        assert len(files(there)) == len(other)

    def test_not_into_itself(self, tmp_path: Path, sorter: Sorter) -> None:
        with pytest.raises(OutputError, match="is inside it"):
            sorter.place(labelled(frames(tmp_path, "a")))


class TestStops:
    def test_half_a_copy_never_has_the_name(
        self, tmp_path: Path, out: Path, copier: Sorter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(source: Path, part: Path) -> None:
            part.write_text("a vi")
            raise KeyboardInterrupt

        monkeypatch.setattr("shutil.copy2", interrupted)
        with pytest.raises(KeyboardInterrupt):
            copier.place(labelled(made(tmp_path / "a.mp4")))
        assert files(out) == []

    @pytest.mark.parametrize("moment", ["shutil.copystat", "os.link", "os.rename"])
    def test_a_killed_run_leaves_nothing_for_good(self, tmp_path: Path, out: Path, copier: Sorter, moment: str) -> None:
        source = frames(tmp_path / "clip", "a", "b") if moment == "os.rename" else made(tmp_path / "clip", "a video")
        module, name = moment.split(".")
        code = (
            f"import os, shutil; from timesformer_cli.results.copies import Sorter;"
            f"{module}.{name} = lambda *_, **__: os._exit(9);"
            f"Sorter({str(out)!r}, {LABELS!r}, link=False).place({labelled(source)!r})"
        )
        assert subprocess.run([sys.executable, "-c", code]).returncode == 9
        [part] = {path.split("/")[1] for path in files(out)}
        assert part.endswith(".part")
        if moment == "os.rename":
            made(out / "archery" / part / "stale.jpg")
        assert copier.place(labelled(source)) == out / "archery" / "clip"
        expected = ["archery/clip/00000.jpg", "archery/clip/00001.jpg"] if moment == "os.rename" else ["archery/clip"]
        assert files(out) == expected

    @pytest.mark.parametrize("quicker", [False, True])
    def test_a_file_system_without_hard_links(
        self, tmp_path: Path, out: Path, copier: Sorter, monkeypatch: pytest.MonkeyPatch, quicker: bool
    ) -> None:
        def link(part: Path, target: Path) -> None:
            if quicker and target.name == "a.mp4":
                made(target, "another")
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr("os.link", link)
        target = copier.place(labelled(made(tmp_path / "a.mp4")))
        assert target == out / "archery" / ("a (2).mp4" if quicker else "a.mp4")
        assert target.read_text() == "a video"
        assert len(files(out)) == 1 + quicker

    def test_a_file_where_the_folder_should_be(self, tmp_path: Path, out: Path, sorter: Sorter) -> None:
        made(out / "archery")
        with pytest.raises(OutputError) as caught:
            sorter.place(labelled(made(tmp_path / "a.mp4")))
        verb = "linked" if sorter._link else "copied"
        assert str(caught.value) == f"{tmp_path}/a.mp4: cannot be {verb} to {out}/archery (File exists)"

    def test_a_video_that_is_gone(self, tmp_path: Path, out: Path, copier: Sorter) -> None:
        with pytest.raises(OutputError, match=r"cannot be copied to .*archery \(No such file"):
            copier.place(labelled(tmp_path / "gone.mp4"))
        assert files(out) == []


class TestCheck:
    @pytest.mark.parametrize(
        "template", ["out/{class}", "out/{}", "out/{label", "out/label}", "{{label}}", "{label!r}"]
    )
    def test_unknown_placeholders(self, template: str) -> None:
        for what in (check_folders, lambda template: Sorter(template, LABELS, link=False)):
            with pytest.raises(UsageError, match=r"the only placeholder is \{label\}"):
                what(template)

    @pytest.mark.parametrize("template", ["file", "file/{label}", "file/deeper/x-{label}", "file/{label}/x"])
    def test_a_file_in_the_way(self, tmp_path: Path, template: str) -> None:
        made(tmp_path / "file")
        with pytest.raises(OutputError, match="file: is not a folder"):
            check_folders(f"{tmp_path}/{template}")

    def test_a_dangling_link_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("nowhere")
        with pytest.raises(OutputError, match="link: is not a folder"):
            check_folders(str(tmp_path / "link"))

    @pytest.mark.parametrize("template", ["new", "new/deep/{label}", "{label}/x", "x{label}"])
    def test_nothing_is_made(self, tmp_path: Path, template: str) -> None:
        check_folders(f"{tmp_path}/{template}")
        assert [*tmp_path.iterdir()] == []

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        monkeypatch.setattr("os.access", lambda path, mode: asked.append((path, mode)))
        with pytest.raises(OutputError, match="permission denied"):
            check_folders(f"{tmp_path}/new/{{label}}")
        assert asked == [(tmp_path, os.W_OK | os.X_OK)]


class TestNames:
    @pytest.mark.parametrize(
        ("label", "name"),
        [
            ("playing ukulele", "playing ukulele"),
            ("Putting [something] on, 'x'", "Putting [something] on, 'x'"),
            ("太極拳 größer", "太極拳 größer"),
            ("stretch/arm", "stretch%2Farm"),
            ("100%", "100%25"),
            ('a\\b:c*?"<>|', "a%5Cb%3Ac%2A%3F%22%3C%3E%7C"),
            ("a\nb\x7f", "a%0Ab%7F"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            (".hidden", "%2Ehidden"),
            ("etc. ", "etc.%20"),
            ("etc.", "etc%2E"),
            ("con", "%63on"),
            ("COM1.mp4", "%43OM1.mp4"),
            ("console", "console"),
            ("\udce9", "%ED%B3%A9"),
        ],
    )
    def test_names(self, label: str, name: str) -> None:
        assert folder_names([label]) == {label: name}

    def test_labels_that_some_systems_take_for_the_same(self) -> None:
        alike = ["Archery", "archery", "é", unicodedata.normalize("NFD", "é"), "É"]
        names = folder_names([*alike, "bowling"])
        assert names["bowling"] == "bowling"
        assert len({sorting._folded(name) for name in names.values()}) == 6
        assert names["archery"].startswith("archery%-")
        assert names == folder_names([*reversed(alike), "bowling"])

    def test_long_and_empty_labels(self) -> None:
        names = folder_names(["", "ä" * 300, "ä" * 301, "x" * 120, "x" * 121])
        assert max(len(name.encode()) for name in names.values()) == 120
        assert min(len(name) for name in names.values()) > 0
        assert names["x" * 120] == "x" * 120
        assert len(set(names.values())) == 5

    @given(st.sets(st.text(st.sampled_from("aAéE\u0301ß/\\:%.- \n\0{}~COMcomnN1²"), max_size=8), max_size=20))
    def test_any_labels(self, labels: set[str]) -> None:
        names = folder_names(sorted(labels))
        assert len({unicodedata.normalize("NFC", name).casefold() for name in names.values()}) == len(labels)
        for label, name in names.items():
            assert not set('/\\:*?"<>|\0\n') & set(name)
            assert name
            assert name[-1] not in ". "
            assert name[0] != "."
            assert name.split(".")[0].upper() not in {"CON", "COM1", "COM²"}
            # An escaped name says what the label was.
            assert "%-" in name or unquote(name) == label
