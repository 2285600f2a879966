"""Which videos the arguments name, in which order, and as what path."""

import io
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest

from timesformer_cli.errors import InputError
from timesformer_cli.files import PathSet
from timesformer_cli.flow import Item
from timesformer_cli.video.folders import RealPaths
from timesformer_cli.video.inputs import Listing, find


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `clips`, in the current folder, with videos, other files, and hidden ones."""
    for name in (
        "clips/b.mp4",
        "clips/a.MKV",
        "clips/notes.txt",
        "clips/.hidden.mp4",
        "clips/._b.mp4",
        "clips/sub/c.webm",
        "clips/sub/deep/d.avi",
        "clips/.git/e.mp4",
        "other.mp4",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(*sources: str, lists: tuple[Path, ...] = (), frames: bool = False) -> list[str]:
    items = list(find(sources, lists, frames=frames))
    assert all(item.frames == frames for item in items)
    return [item.path for item in items]


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.usefixtures("tree")
class TestArguments:
    def test_a_file_is_taken_whatever_its_name(self) -> None:
        assert paths("other.mp4", "clips/notes.txt") == ["other.mp4", "clips/notes.txt"]

    def test_a_folder_is_searched_by_extension_sorted_and_without_hidden_entries(self) -> None:
        assert paths("clips") == ["clips/a.MKV", "clips/b.mp4", "clips/sub/c.webm", "clips/sub/deep/d.avi"]

    def test_paths_stay_as_they_were_named(self, tree: Path) -> None:
        assert paths("./clips/sub/") == ["./clips/sub/c.webm", "./clips/sub/deep/d.avi"]
        assert paths(str(tree / "clips" / "sub" / "deep")) == [str(tree / "clips/sub/deep/d.avi")]

    def test_the_order_is_that_of_the_arguments(self) -> None:
        assert paths("other.mp4", "clips/sub", "clips/b.mp4") == [
            "other.mp4",
            "clips/sub/c.webm",
            "clips/sub/deep/d.avi",
            "clips/b.mp4",
        ]

    def test_a_file_that_does_not_exist_is_an_item(self) -> None:
        assert paths("missing.mp4", "other.mp4") == ["missing.mp4", "other.mp4"]

    def test_the_same_file_by_two_paths_is_one_item(self, tree: Path) -> None:
        os.symlink(tree / "other.mp4", tree / "link.mp4")
        assert paths("other.mp4", "./other.mp4", str(tree / "other.mp4"), "clips/../other.mp4", "link.mp4") == [
            "other.mp4"
        ]

    def test_a_folder_without_videos(self, tree: Path) -> None:
        (tree / "empty").mkdir()
        with pytest.raises(InputError, match=r"^empty: no video files in this folder; .*\bmp4\b"):
            paths("other.mp4", "empty")

    @pytest.mark.parametrize(
        "extension", ["mp4", "MOV", "mkv", "webm", "avi", "flv", "wmv", "mpg", "ts", "ogv", "3gp", "gif"]
    )
    def test_the_common_extensions_are_known(self, tree: Path, extension: str) -> None:
        (tree / "new").mkdir()
        (tree / "new" / f"a.{extension}").touch()
        assert paths("new") == [f"new/a.{extension}"]

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
    def test_every_name_is_a_path_even_if_it_is_no_utf_8(self, tree: Path) -> None:
        name = os.fsdecode(b"caf\xe9.mp4")
        (tree / "clips" / "sub" / name).touch()
        assert paths("clips/sub") == ["clips/sub/c.webm", f"clips/sub/{name}", "clips/sub/deep/d.avi"]


@pytest.mark.usefixtures("tree")
class TestLinks:
    def test_a_loop_of_links_ends(self, tree: Path) -> None:
        os.symlink(tree / "clips", tree / "clips" / "sub" / "back")
        assert paths("clips") == ["clips/a.MKV", "clips/b.mp4", "clips/sub/c.webm", "clips/sub/deep/d.avi"]

    def test_linked_folders_are_searched(self, tree: Path) -> None:
        (tree / "linked").mkdir()
        os.symlink(tree / "clips" / "sub", tree / "linked" / "here")
        assert paths("linked") == ["linked/here/c.webm", "linked/here/deep/d.avi"]

    def test_a_dangling_link_is_an_item_that_will_fail(self, tree: Path) -> None:
        os.symlink("nowhere.mp4", tree / "clips" / "sub" / "a.mp4")
        assert paths("clips/sub")[0] == "clips/sub/a.mp4"

    def test_a_folder_that_cannot_be_listed_is_an_item_that_will_fail(
        self, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.scandir

        def scandir(folder: str) -> object:
            if folder.endswith("deep"):
                raise PermissionError(13, "Permission denied")
            return real(folder)

        monkeypatch.setattr(os, "scandir", scandir)
        assert paths("clips/sub") == ["clips/sub/c.webm", "clips/sub/deep"]

    def test_named_pipes_in_a_folder_are_passed_over(self, tree: Path) -> None:
        os.mkfifo(tree / "clips" / "sub" / "a.mp4")
        assert paths("clips/sub") == ["clips/sub/c.webm", "clips/sub/deep/d.avi"]


class TestRealPaths:
    def test_they_are_those_of_the_system(self, tree: Path) -> None:
        (tree / "link").symlink_to("clips")
        (tree / "clips/sub/up").symlink_to("..")
        (tree / "loop").symlink_to("loop")
        (tree / "far.mp4").symlink_to("link/sub/c.webm")
        real = RealPaths()
        for path in (
            *(
                "clips/b.mp4",
                "link/b.mp4",
                "link/sub/up/b.mp4",
                "far.mp4",
                "loop",
                "loop/a",
                "none/a.mp4",
                "",
                "/",
                "//",
            ),
            *(".", "..", "clips/..", "clips/sub/up/..", "clips/", "link", "./clips/../far.mp4", f"{tree}/link/b.mp4"),
        ):
            assert real.of(path) == real.of(path) == os.path.realpath(path)

    def test_a_folder_is_resolved_once(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(50):
            (tree / f"clips/{number}.mp4").touch()
        asked: list[str] = []
        resolve = os.path.realpath
        monkeypatch.setattr(os.path, "realpath", lambda path: asked.append(path) or resolve(path))
        assert len(paths("clips")) == 54
        assert len(asked) == 3


@pytest.mark.usefixtures("tree")
class TestGlobs:
    def test_matches_are_sorted(self) -> None:
        assert paths("clips/*.*") == ["clips/a.MKV", "clips/b.mp4", "clips/notes.txt"]

    def test_two_stars_go_down(self) -> None:
        assert paths("**/*.mp4") == ["clips/b.mp4", "other.mp4"]

    def test_a_matching_folder_is_searched(self) -> None:
        assert paths("cl*") == ["clips/a.MKV", "clips/b.mp4", "clips/sub/c.webm", "clips/sub/deep/d.avi"]

    def test_a_loop_of_links_ends(self, tree: Path) -> None:
        (tree / "clips/loop").symlink_to(tree / "clips")
        (tree / "clips/sub/up").symlink_to(tree / "clips/sub")
        assert paths("clips/**/*.mp4") == ["clips/b.mp4"]

    def test_a_folder_is_found_under_the_name_of_a_link(self, tree: Path) -> None:
        (tree / "clips/a_link").symlink_to(tree / "clips/sub")
        assert paths("clips/**/a_link/*")

    @pytest.mark.parametrize("pattern", ["deep", "deep/**/*.mp4"])
    def test_folders_deep_in_one_another(self, tree: Path, pattern: str) -> None:
        folder = tree / "deep"
        os.mkdir(folder)
        place = os.open(folder, os.O_RDONLY)
        for _ in range(1100):
            os.mkdir("d", dir_fd=place)
            inner = os.open("d", os.O_RDONLY, dir_fd=place)
            os.close(place)
            place = inner
        os.close(os.open("a.mp4", os.O_CREAT, dir_fd=place))
        os.close(place)
        try:
            assert paths(pattern) == ["deep/" + "d/" * 1100 + "a.mp4"]
        finally:
            subprocess.run(["rm", "-r", folder], check=True)  # shutil and pytest would call themselves too often

    def test_no_match(self) -> None:
        with pytest.raises(InputError, match=r"^nothing\*\.mp4: no file matches"):
            paths("other.mp4", "nothing*.mp4")

    def test_a_name_with_brackets_that_exists_is_that_file(self, tree: Path) -> None:
        (tree / "a[1].mp4").touch()
        (tree / "a1.mp4").touch()
        assert paths("a[1].mp4") == ["a[1].mp4"]

    def test_a_name_with_brackets_that_is_missing_is_no_pattern(self) -> None:
        assert paths("talk [x7Gk2].mp4", "other.mp4") == ["talk [x7Gk2].mp4", "other.mp4"]


@pytest.mark.usefixtures("tree")
class TestLists:
    def test_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        feed(monkeypatch, b"other.mp4\r\n\n  \nclips/sub\nmissing.mp4\n#1.mp4\nclips/*.mp4")
        assert paths("clips/b.mp4", "-") == [
            "clips/b.mp4",
            "other.mp4",
            "clips/sub/c.webm",
            "clips/sub/deep/d.avi",
            "missing.mp4",
            "#1.mp4",
            "clips/*.mp4",  # lines are names, not patterns
        ]

    def test_standard_input_is_read_as_it_comes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read, write = os.pipe()
        with open(read) as stdin, open(write, "wb", buffering=0) as feeder:
            monkeypatch.setattr(sys, "stdin", stdin)
            items = find(["-"])
            feeder.write(b"first.mp4\n")
            assert next(items).path == "first.mp4"
            feeder.write(b"second.mp4\n")
            assert next(items).path == "second.mp4"

    def test_bytes_that_are_no_utf_8(self, monkeypatch: pytest.MonkeyPatch) -> None:
        feed(monkeypatch, b"caf\xe9.mp4\n")
        assert os.fsencode(paths("-")[0]) == b"caf\xe9.mp4"

    def test_zero_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        feed(monkeypatch, b"a.mp4\0b.mp4\0")
        with pytest.raises(InputError, match="standard input: line 1 holds a zero byte"):
            paths("-")

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    def test_utf_16_by_its_mark(self, monkeypatch: pytest.MonkeyPatch, tree: Path, encoding: str) -> None:
        """As Windows writes it. The second character holds the byte of a line end."""
        (tree / "\u0a0a ü.mp4").touch()
        data = "\ufeff\u0a0a ü.mp4\r\n\r\nother.mp4\r\nmissing.mp4".encode(encoding)
        feed(monkeypatch, data)
        assert paths("-") == ["\u0a0a ü.mp4", "other.mp4", "missing.mp4"]
        (tree / "list.txt").write_bytes(data)
        assert paths(lists=(tree / "list.txt",)) == ["\u0a0a ü.mp4", "other.mp4", "missing.mp4"]

    def test_what_only_begins_as_utf_16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        feed(monkeypatch, b"\xff\xfea\0\x00\xdc")
        with pytest.raises(InputError, match="standard input: begins as UTF-16 and is not"):
            paths("-")

    def test_quotes_spaces_and_the_home_directory(self, monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
        monkeypatch.setenv("HOME", str(tree / "clips"))
        monkeypatch.setenv("USERPROFILE", str(tree / "clips"))
        feed(monkeypatch, b"\"other.mp4\"\n  clips/a.MKV\t\n'~/b.mp4'\n~/sub\n")
        home = f"{tree / 'clips'}"
        assert paths("-") == [
            "other.mp4",
            "clips/a.MKV",
            f"{home}/b.mp4",
            f"{home}/sub/c.webm",
            f"{home}/sub/deep/d.avi",
        ]

    @pytest.mark.skipif(sys.platform == "win32", reason="names that Windows does not have")
    def test_a_line_that_exists_is_taken_as_it_is(self, monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
        names = ["'other.mp4'", " other.mp4", "~"]
        for name in names:
            (tree / name).touch()
        feed(monkeypatch, "\n".join(names).encode())
        assert paths("-") == names

    def test_a_file_with_comments_and_a_byte_order_mark(self, tree: Path) -> None:
        (tree / "list.txt").write_bytes(
            b"\xef\xbb\xbfother.mp4\n# a comment\n  # another\nclips/b.mp4\nspaced name .mp4\n"
        )
        assert paths(lists=(tree / "list.txt",)) == ["other.mp4", "clips/b.mp4", "spaced name .mp4"]

    def test_a_folder_without_videos_in_a_list_does_not_end_the_run(self, tree: Path) -> None:
        (tree / "empty").mkdir()
        (tree / "list.txt").write_text("empty\nother.mp4\n")
        assert paths(lists=(tree / "list.txt",)) == ["empty", "other.mp4"]

    def test_a_list_that_is_not_there(self, tree: Path) -> None:
        with pytest.raises(InputError, match=r"no\.txt: the list cannot be read \(No such file"):
            paths(lists=(tree / "no.txt",))


@pytest.mark.usefixtures("tree")
class TestAddresses:
    @pytest.fixture(autouse=True)
    def _memory(self) -> Iterator[None]:
        files = fsspec.filesystem("memory")
        files.store.clear()
        for name in ("b.mp4", "a.MKV", "notes.txt", ".hidden.mp4", "sub/c.webm", "a[1].mp4"):
            files.pipe_file(f"/clips/{name}", b"x")
        files.pipe_file("/other/readme.txt", b"x")
        yield
        files.store.clear()

    @pytest.mark.parametrize(
        "address",
        [
            "http://host/a.mp4?id=[1]&b=*",
            "https://host/clips/",
            "https://host/*.mp4",
            "s3://bucket/a?[1].mp4",
            "memory://clips/none.mp4",
            "memory://clips",
            "rtsp://host/a",
        ],
    )
    def test_one_is_one_item_as_it_was_typed(self, address: str) -> None:
        assert paths(address, "other.mp4", address) == [address, "other.mp4"]

    def test_signatures_are_not_shown(self) -> None:
        addresses = [f"https://me:s3cret@host/{name}?X-Amz-Signature=s3cret{name}" for name in "aba"]
        items = list(find([*addresses, "https://host/b?X-Amz-Signature=other"]))
        assert [item.path for item in items] == ["https://host/a", "https://host/b"]
        assert [item.location for item in items] == addresses[:2]

    def test_passwords_are_not_shown_in_errors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "s3fs", None)
        for address in ("s3://id:s3cret@bucket/", "memory://me:s3cret@other/"):
            with pytest.raises(InputError) as caught:
                paths(address)
            assert "s3cret" not in str(caught.value)

    def test_folders_and_stars_where_they_can_be_listed(self) -> None:
        found = [f"memory://clips/{name}" for name in ("a.MKV", "a[1].mp4", "b.mp4", "sub/c.webm")]
        assert paths("memory://clips/") == found
        assert paths("memory://clips/b.mp4", "memory://clips/*.mp4", "other.mp4") == [found[2], found[1], "other.mp4"]

    @pytest.mark.parametrize("address", ["memory://other/", "memory://none/", "memory://clips/*.txt"])
    def test_folders_without_videos(self, address: str) -> None:
        with pytest.raises(InputError, match=r"^memory://\S+: no video files there; .*\bmp4\b"):
            paths("other.mp4", address)

    def test_folders_that_cannot_be_listed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(InputError, match=r"^s3://bucket/: s3:// addresses need s3fs: pip install s3fs$"):
            paths("other.mp4", "s3://bucket/")

    def test_in_lists(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lines are names, not patterns, and what is wrong with one does not stop the rest."""
        monkeypatch.setitem(sys.modules, "s3fs", None)
        lines = ["memory://clips/sub/", "memory://clips/*.mp4", "memory://none/", "s3://bucket/", "http://host/a.mp4"]
        (tree / "list.txt").write_text("\n".join(lines))
        assert paths(lists=(tree / "list.txt",)) == ["memory://clips/sub/c.webm", *lines[1:]]

    def test_file_addresses_are_local(self, tree: Path) -> None:
        clips = (tree / "clips" / "sub").as_uri()
        assert paths(f"{clips}/c.webm", "clips/sub/c.webm") == [f"{clips}/c.webm"]
        assert paths(clips) == [str(tree / "clips/sub/c.webm"), str(tree / "clips/sub/deep/d.avi")]
        assert paths(f"{clips}/*.webm") == [str(tree / "clips/sub/c.webm")]
        (tree / "list.txt").write_text(clips)
        assert len(paths(lists=(tree / "list.txt",))) == 2

    def test_a_local_file_of_that_name_wins(self, tree: Path) -> None:
        Path("http://host").mkdir(parents=True)
        Path("http://host/a.mp4").touch()
        assert paths("http://host/a.mp4", "http:/host/a.mp4") == ["http://host/a.mp4"]
        assert paths("http://host") == ["http://host/a.mp4"]


class Store(fsspec.AbstractFileSystem):
    """A bucket of 20,000 videos, which counts the pages that are asked for; as s3fs, it lists all if asked to list."""

    protocol = "s3"
    cachable = False
    pages = 0
    breaks_at = 99
    keys = tuple(f"clips/{number // 100:03}/{number:05}.mp4" for number in range(20_000))

    def split_path(self, path: str) -> tuple[str, str, None]:
        bucket, _, key = path.partition("/")
        return bucket, key, None

    def call_s3(
        self, method: str, *, Bucket: str, Prefix: str, Delimiter: str, ContinuationToken: str = "0"
    ) -> dict[str, Any]:
        assert (method, Bucket) == ("list_objects_v2", "bucket")
        Store.pages += 1
        if Store.pages >= Store.breaks_at:
            raise PermissionError("no")
        keys = [key for key in ("clips/", "clips/.hidden/a.mp4", *self.keys, "clips/z.txt") if key.startswith(Prefix)]
        keys = [key for key in keys if not Delimiter or Delimiter not in key.removeprefix(Prefix)]
        start = int(ContinuationToken)
        page = {"Contents": [{"Key": key} for key in keys[start : start + 1000]]}
        more = start + 1000 < len(keys)
        return page | {"IsTruncated": more} | ({"NextContinuationToken": str(start + 1000)} if more else {})

    def ls(self, path: str, detail: bool = True, **_: object) -> list[Any]:
        raise AssertionError("all pages at once")


class Tree(fsspec.AbstractFileSystem):
    """Folders of 10 videos, which counts those that are listed."""

    protocol = "gs"
    cachable = False
    listed: ClassVar[list[str]] = []

    def ls(self, path: str, detail: bool = True, **_: object) -> list[dict[str, Any]]:
        path = self._strip_protocol(path).rstrip("/")
        Tree.listed.append(path)
        if path == "clips":
            return [{"name": f"clips/{number}", "type": "directory", "size": 0} for number in range(9, -1, -1)]
        return [{"name": f"{path}/{number}.mp4", "type": "file", "size": 1} for number in range(9, -1, -1)]


class TestListingsOfStores:
    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for store in (Store, Tree):
            monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, store.protocol, store)
        monkeypatch.setattr(Store, "pages", 0)
        Tree.listed.clear()

    def test_a_limit_fetches_one_page(self) -> None:
        expected = [f"s3://bucket/{key}" for key in Store.keys]
        assert [item.path for item in islice(find(["s3://bucket/clips/"]), 20)] == expected[:20]
        assert Store.pages == 1
        assert paths("s3://bucket/clips/") == expected
        assert Store.pages == 1 + 21

    def test_stars(self) -> None:
        expected = [f"s3://bucket/{key}" for key in Store.keys if key[:9] == "clips/000"]
        assert paths("s3://bucket/clips/000/*.mp4") == expected
        assert Store.pages == 1
        assert paths("s3://bucket/**/00001.mp4") == expected[1:2]
        with pytest.raises(InputError, match="no video files there"):
            paths("s3://bucket/clips/*.mp4")
        assert Store.pages == 1 + 21 + 1  # without the keys below

    def test_a_page_that_cannot_be_fetched(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Store, "breaks_at", 2)
        found = find(["s3://bucket/clips/"])
        assert len(list(islice(found, 900))) == 900
        with pytest.raises(InputError, match=r"^s3://bucket/clips/: access denied"):
            list(found)
        monkeypatch.setattr(Store, "breaks_at", 0)
        (tree / "list.txt").write_text("s3://bucket/clips/\nother.mp4\n")
        assert paths(lists=(tree / "list.txt",)) == ["s3://bucket/clips/", "other.mp4"]

    def test_folders_are_listed_in_their_turn(self) -> None:
        expected = [f"gs://clips/{folder}/{number}.mp4" for folder in range(10) for number in range(10)]
        assert [item.path for item in islice(find(["gs://clips/"]), 20)] == expected[:20]
        assert Tree.listed == ["clips", "clips/0", "clips/1"]
        assert paths("gs://clips/") == expected
        Tree.listed.clear()
        assert paths("gs://clips/*/3.mp4") == expected[3::10]
        with pytest.raises(InputError, match="no video files there"):
            paths("gs://clips/*.mp4")
        assert len(Tree.listed) == 11 + 1  # one level has no need of the folders below


class TestFolders:
    """Of numbered pictures."""

    @pytest.fixture(autouse=True)
    def _tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (
            "frames/10/000001.jpg",
            "frames/10/flow/000001.jpg",
            "frames/9/img_1.PNG",
            "frames/9/img_2.PNG",
            "frames/sub/a/1.webp",
            "frames/sub/list.txt",
            "frames/empty/notes.txt",
            "frames/cover/cover.jpg",
            "frames/.hidden/1.jpg",
            "frames/labels.csv",
            "frames/logo.png",
            "videos/a.mp4",
        ):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        monkeypatch.chdir(tmp_path)

    def test_one_that_holds_them_is_an_item(self) -> None:
        assert paths("frames/9", "frames/sub/a/", frames=True) == ["frames/9", "frames/sub/a/"]

    def test_all_are_searched(self, tmp_path: Path) -> None:
        assert paths("frames", frames=True) == ["frames/10", "frames/10/flow", "frames/9", "frames/sub/a"]
        (tmp_path / "frames" / "sub" / "thumbnail_1.jpg").touch()  # which is no reason to leave out what is below
        assert paths("frames/sub", frames=True) == ["frames/sub", "frames/sub/a"]

    def test_without_them(self) -> None:
        with pytest.raises(InputError, match=r"^videos: no folder with numbered images"):
            paths("frames/9", "videos", frames=True)

    def test_globs(self) -> None:
        assert paths("frames/*", frames=True) == ["frames/10", "frames/10/flow", "frames/9", "frames/sub/a"]
        assert paths("frames/1*", frames=True) == ["frames/10", "frames/10/flow"]
        with pytest.raises(InputError, match=r"^frames/\*\.csv: no folder of numbered images matches"):
            paths("frames/*.csv", frames=True)

    def test_what_is_none_is_an_item_that_will_fail(self) -> None:
        assert paths("frames/11", "videos/a.mp4", "s3://bucket/frames/", frames=True) == [
            "frames/11",
            "videos/a.mp4",
            "s3://bucket/frames/",
        ]

    def test_lists(self, tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("frames/sub\nvideos\nframes/9\nframes/12\nmemory://a/\n")
        lists = (tmp_path / "list.txt",)
        assert paths(lists=lists, frames=True) == ["frames/sub/a", "videos", "frames/9", "frames/12", "memory://a/"]

    def test_the_same_one_by_two_paths(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "frames" / "9")
        (tmp_path / "frames" / "sub" / "back").symlink_to(tmp_path / "frames")
        assert paths("link", "frames/9", "./frames", frames=True) == [
            "link",
            "./frames/10",
            "./frames/10/flow",
            "./frames/sub/a",
        ]

    def test_pictures_are_no_videos(self) -> None:
        with pytest.raises(InputError, match=r"^frames: no video files"):
            paths("frames")

    def test_a_folder_that_cannot_be_listed_is_an_item_that_will_fail(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.scandir

        def scandir(folder: str) -> object:
            if folder.endswith("10"):
                raise PermissionError(13, "Permission denied")
            return real(folder)

        monkeypatch.setattr(os, "scandir", scandir)
        assert paths("frames", frames=True) == ["frames/10", "frames/9", "frames/sub/a"]


class TestMany:
    @pytest.fixture
    def listed(self, tmp_path: Path) -> Path:
        file = tmp_path / "list.txt"
        file.write_text("".join(f"/footage/camera {i % 7}/{i:06}.mp4\n" for i in range(20_000)))
        return file

    def test_the_first_comes_at_once(self, listed: Path) -> None:
        start = time.perf_counter()
        listing = Listing(find([], [listed]))
        assert next(iter(listing)) == Item("/footage/camera 0/000000.mp4")
        assert time.perf_counter() - start < 0.5
        listing.wait(120)  # or its thread would go on during the next test

    def test_memory_stays_small(self) -> None:
        """Listed to the end before any is taken, an item takes 60 bytes, not hundreds."""
        count = 20_000
        items = (Item(f"/footage/camera {i % 7}/{i:06}.mp4") for i in range(count))
        tracemalloc.start()
        try:
            seen = PathSet()
            listing = Listing(item for item in items if seen.add(item.path))
            listing.wait(120)
            assert listing.total == count
            assert tracemalloc.get_traced_memory()[0] < 100 * count
        finally:
            tracemalloc.stop()
        for number, item in enumerate(listing):
            assert item.path == f"/footage/camera {number % 7}/{number:06}.mp4"
        assert number == count - 1

    def test_a_folder_of_many_files(self, tmp_path: Path) -> None:
        for number in range(2500):
            (tmp_path / f"{number:04}.mp4").touch()
        listing = Listing(find([str(tmp_path), str(tmp_path)]))
        assert [Path(item.path).name for item in listing] == [f"{number:04}.mp4" for number in range(2500)]
        assert listing.total == 2500


class TestListing:
    def test_the_number_is_known_at_the_end(self) -> None:
        go_on = threading.Event()

        def items() -> Iterator[Item]:
            yield Item("a.mp4")
            assert go_on.wait(60)
            yield Item("b.mp4")

        listing = Listing(items())
        found = iter(listing)
        assert next(found) == Item("a.mp4")
        listing.wait(0.05)
        assert listing.total is None
        go_on.set()
        listing.wait(60)
        assert listing.total == 2
        assert list(found) == [Item("b.mp4")]

    def test_what_is_wrong_is_raised_by_who_waits_and_after_the_items(self) -> None:
        def items() -> Iterator[Item]:
            yield Item("a.mp4")
            raise InputError("the list is gone")

        listing = Listing(items())
        with pytest.raises(InputError, match="gone"):
            listing.wait(60)
        assert listing.total is None
        found = iter(listing)
        assert next(found) == Item("a.mp4")
        with pytest.raises(InputError, match="gone"):
            next(found)

    def test_nothing_of_an_item_is_lost(self) -> None:
        items = [Item("a.mp4", True, "s3://key@a.mp4", number, None if number % 2 else 2e6) for number in range(2500)]
        assert list(Listing(items)) == items

    def test_nothing(self) -> None:
        listing = Listing([])
        assert list(listing) == []
        assert listing.total == 0


def test_a_set_of_digests_is_a_set() -> None:
    seen = PathSet()
    texts = [f"{number}" for number in range(5000)]
    assert all(seen.add(text) for text in texts)
    assert not any(seen.add(text) for text in texts)
    assert seen.add("\udcff")  # what a byte becomes that is no UTF-8
