"""Videos at addresses: an HTTP server on this machine with its faults, and file systems in memory."""

import base64
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import av
import fsspec
import numpy as np
import pytest
from huggingface_hub import HfFileSystem

from testing.hub_server import connect
from testing.stamped import WIDTH, read_stamps, stamp, write_video
from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Item
from timesformer_cli.specs import Decoder, Reading
from timesformer_cli.video.addresses import is_address, is_folder, item_at, local_path, shown
from timesformer_cli.video.reader import open_video
from timesformer_cli.video.remote import RemoteFile, search

FRAMES = 400
PLAN = [0, 57, 114, 171, 228, 285, 342, 399]


@dataclass
class Page:
    """What is at a path. `ranges`: whether parts are sent; `length`: whether the size is told.

    `cut`: the connection is closed after that many bytes; `fail_after`: requests that succeed before
    500 is answered; `redirect`: where to; `password`: what is asked for; `hang`: nothing is ever sent.
    """

    content: bytes = b""
    status: int = 200
    type: str = "video/mp4"
    ranges: bool = True
    length: bool = True
    head: bool = True
    cut: int | None = None
    fail_after: int | None = None
    redirect: str | None = None
    password: str | None = None
    hang: bool = False


@dataclass
class Web:
    """The server: pages by path, and which requests came: method, path, and bytes sent."""

    url: str = ""
    pages: dict[str, Page] = field(default_factory=dict)
    log: list[tuple[str, str, int]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    closing: threading.Event = field(default_factory=threading.Event)

    def add(self, path: str, content: bytes = b"", **kinds: Any) -> str:
        self.pages[path] = Page(content, **kinds)
        return self.url + path

    @property
    def sent(self) -> int:
        return sum(size for _, _, size in self.log)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        web = self.web
        web.agents.add(self.headers.get("User-Agent", ""))
        page = web.pages.get(self.path) or web.pages.get(self.path.partition("?")[0], Page(status=404))
        earlier = sum(path == self.path and method == "GET" for method, path, _ in web.log)
        if page.hang:
            web.log.append((self.command, self.path, 0))
            web.closing.wait(20)
            return
        status, body, headers = page.status, page.content, {"Content-Type": page.type}
        expected = "Basic " + base64.b64encode((page.password or "").encode()).decode()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if page.redirect is not None:
            status, headers["Location"] = 302, page.redirect
        elif page.password is not None and self.headers.get("Authorization") != expected:
            status, body = 401, b""
        elif self.command == "HEAD" and not page.head:
            status, body = 405, b""
        elif page.fail_after is not None and self.command == "GET" and earlier >= page.fail_after:
            status, body = 500, b"oops"
        elif asked and page.ranges and status == 200 and not body:
            status, headers["Content-Range"] = 416, "bytes */0"
        elif asked and page.ranges and status == 200:
            first, last = int(asked[1]), min(int(asked[2]), len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            status, body = 206, body[first : last + 1]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if page.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        body = b"" if self.command == "HEAD" else body[: page.cut]
        web.log.append((self.command, self.path, len(body)))
        with contextlib.suppress(OSError):  # who has enough hangs up
            self.wfile.write(body)
        self.close_connection = not page.length or page.cut is not None


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    pytest.importorskip("aiohttp")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    web = Web()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), type("WebHandler", (Handler,), {"web": web}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    yield web
    web.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """15 MB, uncompressed, with the index at the end, in front, in pieces, or none; and small ones."""
    folder = tmp_path_factory.mktemp("clips")
    raw: dict[str, Any] = {"codec": "rawvideo", "options": {}, "pixel_format": "rgb24"}
    stamps = [stamp(number) for number in range(FRAMES)]
    return {
        "end": write_video(folder / "end.mov", stamps, **raw),
        "front": write_video(folder / "front.mov", stamps, **raw, muxer_options={"movflags": "faststart"}),
        "pieces": write_video(
            folder / "pieces.mov",
            stamps,
            **raw,
            muxer_options={"movflags": "empty_moov", "frag_size": "3000000"},
        ),
        "none": write_video(folder / "none.mkv", stamps, **{**raw, "pixel_format": "yuv420p"}),
        "mp4": write_video(folder / "small.mp4", 60),
        "mkv": write_video(folder / "small.mkv", 60),
        "ts": write_video(folder / "small.ts", 60),
        "avi": write_video(folder / "small.avi", 60),
    }


def read(path: str | Path, plan: list[int]) -> tuple[list[int], np.ndarray[Any, Any], Any]:
    with open_video(Item(str(path))) as reader:
        pixels = reader.read(plan).pixels
        return read_stamps(pixels), pixels, reader.info


def error_of(address: str, reading: Reading = Reading(), frames: bool = False) -> tuple[str, str]:
    with pytest.raises(VideoError) as caught, open_video(Item(address, frames), reading) as reader:
        reader.read(list(range(reader.info.num_frames)))
    return caught.value.kind, str(caught.value)


class TestAddresses:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("http://host/a.mp4", True),
            ("HTTPS://host/a.mp4", True),
            ("s3://bucket/a.mp4", True),
            ("hf://datasets/o/n/a.mp4", True),
            ("gs+x.y-z://a", True),
            ("C://a.mp4", False),
            ("C:\\a.mp4", False),
            ("a:b.mp4", False),
            ("http:x.mp4", False),
            ("http:/x.mp4", False),
            ("3s://a.mp4", False),
            ("./http://a.mp4", False),
            ("clips/http://a.mp4", False),
            ("://a", False),
            ("file:///a.mp4", False),
            ("-", False),
            ("", False),
        ],
    )
    def test_what_is_one(self, path: str, expected: bool) -> None:
        assert is_address(path) == expected

    def test_a_file_of_that_name_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        path = "http://127.0.0.1:1/a.mp4"
        assert is_address(path)
        Path(path).parent.mkdir(parents=True)
        write_video(tmp_path / "a.mp4", 12).rename(path)
        assert not is_address(path)
        assert read(path, [7])[0] == [7]

    @pytest.mark.parametrize("name", ["http:x.mp4", "a:b.mp4", "s3:", "memory:a.mp4"])
    def test_names_with_colons_are_local(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        assert error_of(name) == ("not_found", "no such file")
        write_video(tmp_path / "a.mp4", 12).rename(name)
        assert read(name, [7])[0] == [7]

    def test_file_addresses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        video = write_video(tmp_path / "größe 100%41.mp4", 12)
        for address in (video.as_uri(), f"file://{video}", f"FILE://localhost{video}", f"local://{video}"):
            assert read(address, [7])[0] == [7]
        monkeypatch.chdir(tmp_path)
        assert local_path("file://größe 100%41.mp4") == "größe 100%41.mp4"
        assert local_path("clips/a.mp4") == "clips/a.mp4"
        assert error_of(f"file://{tmp_path}/none.mp4") == ("not_found", "no such file")
        assert error_of(f"file://{tmp_path}") == ("unreadable", "a folder, not a video file")

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("memory://a/", True),
            ("s3://bucket/clips/*.mp4", True),
            ("s3://bucket/a[1]?.mp4", False),
            ("https://host/clips/", False),
            ("http://host/*.mp4", False),
        ],
    )
    def test_folders(self, address: str, expected: bool) -> None:
        assert is_folder(address) == expected


class TestShown:
    """What of an address is for everyone to see."""

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("http://me:s3cret@host:81/a.mp4", "http://host:81/a.mp4"),
            ("https://s3cret@host/a@b.mp4", "https://host/a@b.mp4"),
            ("HTTPS://me:s3@cret@host", "HTTPS://host"),
            ("ftp://me:s3cret@host/a.mp4", "ftp://me@host/a.mp4"),
            ("ftp://me:s3/cret@host/a.mp4", "ftp://me@host/a.mp4"),
            ("sftp://me@host/a.mp4", "sftp://me@host/a.mp4"),
            ("s3://id:s3cret@bucket/a.mp4", "s3://id@bucket/a.mp4"),
            ("https://h/a?X-Amz-Date=1&X-Amz-Signature=s3cret&x-amz-credential=s3cret", "https://h/a"),
            ("https://h/a?id=7&X-Goog-Signature=s3cret#t=3", "https://h/a?id=7#t=3"),
            ("https://h/a?Expires=1&Signature=s3cret&Key-Pair-Id=s3cret&Policy=s3cret&v=2", "https://h/a?v=2"),
            ("https://h/a?AWSAccessKeyId=s3cret&Expires=1&Signature=s3cret", "https://h/a"),
            ("https://h/a?sv=2020&se=1&sr=b&sp=r&sig=s3cret", "https://h/a"),
            ("https://h/a?%53ignature=s3cret", "https://h/a"),
            ("https://h/a?token=s3cret&expires=1&id=[1]", "https://h/a?id=[1]"),
            ("https://h/a?user=me&password=s3cret", "https://h/a?user=me"),
            ("https://h/a#a=1&signature=s3cret", "https://h/a#a=1"),
        ],
    )
    def test_without_credentials_and_signatures(self, address: str, expected: str) -> None:
        assert shown(address) == expected
        item = item_at(address, frames=True)
        assert (item.path, item.location, item.frames) == (expected, address, True)
        assert "s3cret" not in repr(item)
        assert shown(expected) == expected

    @pytest.mark.parametrize("name", ["token", "access_token", "key", "api_key", "X-Secret", "code", "auth"])
    def test_secrets_that_tell_one_video_from_another(self, name: str) -> None:
        one, other = (shown(f"https://h/get?{name}={value}&v=1") for value in ("s3cret", "0ther"))
        assert re.fullmatch(rf"https://h/get\?{name}=hidden-[0-9a-f]{{16}}&v=1", one)
        assert one != other

    @pytest.mark.parametrize(
        "address",
        [
            "http://host/a%20b.mp4?id=[1]&b=*&expires=1&sv=1#t=3",
            "https://[::1]:80/a@b.mp4?",
            "https://host:80/@me/a.mp4",
            "hf://datasets/o/n@main/a.mp4",
            "github://org:repo@main/a.mp4",
            "abfs://container@account/a.mp4",
            "s3://arn:aws:s3:eu:1:accesspoint/a/b.mp4",
            "memory://a?b#c",
            "clips/me:s3cret@host?signature=1.mp4",
            "file:///a?signature=1.mp4",
            "-",
        ],
    )
    def test_others_stay_as_they_are(self, address: str) -> None:
        assert shown(address) == address
        assert item_at(address) == Item(address)


class TestFile:
    """Bytes, whatever they are."""

    CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()

    @pytest.fixture(params=["ranges", "whole", "chunked", "no head", "memory"])
    def file(self, request: pytest.FixtureRequest) -> Iterator[RemoteFile]:
        if request.param == "memory":
            files = request.getfixturevalue("memory")
            files.pipe_file("/a", self.CONTENT)
            address = "memory://a"
        else:
            kinds: dict[str, dict[str, Any]] = {
                "ranges": {},
                "whole": {"ranges": False},
                "chunked": {"ranges": False, "length": False},
                "no head": {"head": False},
            }
            address = request.getfixturevalue("web").add("/a", self.CONTENT, **kinds[request.param])
        with RemoteFile(address) as file:
            yield file

    def test_reads_are_those_of_a_file(self, file: RemoteFile) -> None:
        rng = np.random.default_rng(1)
        for _ in range(200):
            start, count = rng.integers(0, len(self.CONTENT) + 1000), rng.integers(0, 100_000)
            assert file.seek(start) == start
            data = file.read(count)
            assert data == self.CONTENT[start : start + count]
            assert file.tell() == start + len(data)
        file.seek(-5, 2)
        assert file.read() == self.CONTENT[-5:]
        file.seek(-10, 1)
        assert file.read(3) == self.CONTENT[-10:-7]
        file.check()

    def test_nothing_is_fetched_twice(self, web: Web) -> None:
        with RemoteFile(web.add("/a", self.CONTENT)) as file:
            for _ in range(2):
                file.seek(1_000_000)
                while file.read(30_000):
                    pass
                file.seek(0)
                assert file.read() == self.CONTENT
            assert file.fetched == web.sent == len(self.CONTENT)
        # Longer and longer requests, as long as one follows another.
        assert len(web.log) < 12
        assert max(size for _, _, size in web.log) >= 2**20

    def test_little_is_fetched_for_little(self, web: Web) -> None:
        with RemoteFile(web.add("/a", self.CONTENT)) as file:
            file.seek(2_500_000)
            assert file.read(10) == self.CONTENT[2_500_000:2_500_010]
            assert file.fetched == web.sent == 2 * 2**18

    def test_who_asks(self, web: Web) -> None:
        with RemoteFile(web.add("/a", b"x")):
            assert all(agent.startswith("timesformer-cli/") for agent in web.agents)

    def test_the_most_that_is_fetched(self, web: Web) -> None:
        reading = Reading(max_fetched_bytes=2_000_000)
        with RemoteFile(web.add("/a", self.CONTENT), reading) as file:
            assert len(file.read(1_000_000)) == 1_000_000
            file.check()
            assert file.read(2_000_000) == b""
            with pytest.raises(
                VideoError, match="more than 2,000,000 bytes of it would have to be fetched; download it"
            ):
                file.check()
        with pytest.raises(VideoError, match="3,000,000 bytes, which the server sends only as a whole; down") as caught:
            RemoteFile(web.add("/b", self.CONTENT, ranges=False), reading)
        assert caught.value.kind == "too_large"
        with pytest.raises(VideoError, match="more than 2,000,000 bytes"):
            RemoteFile(web.add("/c", self.CONTENT, ranges=False, length=False), reading)

    def test_after_a_failure_files_end(self, web: Web) -> None:
        with RemoteFile(web.add("/a", self.CONTENT, fail_after=1)) as file:
            assert file.read(1000) == self.CONTENT[:1000]
            file.check()
            file.seek(2_000_000)
            assert file.read(1000) == b""
            requests = len(web.log)
            file.seek(0)
            assert file.read(1000) == b""
            assert len(web.log) == requests
            with pytest.raises(VideoError, match="500 Internal Server Error"):
                file.check()


class TestVideos:
    @pytest.mark.parametrize("name", ["mp4", "mkv", "ts", "avi"])
    @pytest.mark.parametrize("kind", ["memory", "ranges", "whole"])
    def test_same_as_the_local_file(
        self, request: pytest.FixtureRequest, clips: dict[str, Path], name: str, kind: str
    ) -> None:
        plan = [40, 3, 3, 59, 0, 25, 26, 11, 12]
        content = clips[name].read_bytes()
        if kind == "memory":
            request.getfixturevalue("memory").pipe_file("/a", content)
            address = "memory://a"
        else:
            address = request.getfixturevalue("web").add("/clip?id=[1]", content, ranges=kind == "ranges")
        numbers, pixels, info = read(address, plan)
        _, expected, local = read(clips[name], plan)
        assert numbers == plan
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(info.times, local.times)
        assert (info.fps, info.codec, info.has_stream_duration) == (local.fps, local.codec, local.has_stream_duration)

    @pytest.mark.parametrize(("name", "part"), [("end", 0.2), ("front", 0.2), ("pieces", 0.4), ("none", 1)])
    def test_how_much_is_fetched(self, web: Web, clips: dict[str, Path], name: str, part: float) -> None:
        """Eight frames of 400, each in another part of the file: an index is what it takes."""
        content = clips[name].read_bytes()
        numbers, pixels, info = read(web.add("/a", content), PLAN)
        _, expected, local = read(clips[name], PLAN)
        assert numbers == PLAN
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(info.times, local.times)
        assert web.sent <= part * len(content)
        assert len(web.log) < 40

    def test_on_the_hub(
        self, web: Web, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = clips["mp4"].read_bytes()
        connect(web.url, monkeypatch, tmp_path / "cache")
        HfFileSystem.clear_instance_cache()
        listing = {
            "": {"id": "o/n", "sha": "0" * 40, "siblings": [], "private": False, "tags": [], "gated": False},
            "/tree/main": [{"type": "directory", "path": "clips", "size": 0, "oid": "1"}],
            "/tree/main/clips": [
                {"type": "file", "path": f"clips/{name}", "size": len(content), "oid": "2"}
                for name in ("a.mp4", "b.txt")
            ],
        }
        for path, page in listing.items():
            web.add(f"/api/datasets/o/n{path}", json.dumps(page).encode(), type="application/json")
        web.add("/datasets/o/n/resolve/main/clips/a.mp4", content)
        found = list(search("hf://datasets/o/n/clips/"))
        assert found == ["hf://datasets/o/n/clips/a.mp4", "hf://datasets/o/n/clips/b.txt"]
        assert list(search("hf://datasets/o/n/clips/*.mp4")) == found[:1]
        assert read(found[0], [7, 59])[0] == [7, 59]
        assert error_of("hf://datasets/o/n/clips/c.mp4")[0] == "not_found"
        assert error_of("hf://datasets/o/m/a.mp4")[0] == "not_found"
        HfFileSystem.clear_instance_cache()

    @pytest.mark.parametrize("name", ["end", "front", "pieces"])
    def test_packets_without_their_content(self, web: Web, clips: dict[str, Path], name: str) -> None:
        def times(source: Any, file: RemoteFile | None) -> list[tuple[int | None, int]]:
            with av.open(source) as container, file.skimming() if file else contextlib.nullcontext():
                return [(packet.pts, packet.size) for packet in container.demux(video=0)]

        content = clips[name].read_bytes()
        with RemoteFile(web.add("/a", content)) as file:
            assert times(cast(Any, file), file) == times(str(clips[name]), None)
            assert file.fetched < len(content) / 8 * (3 if name == "pieces" else 1)
            file.seek(0)
            assert file.read() == content
            file.check()

    @pytest.mark.parametrize("content", [b"", b"abc", b"\0" * 5000, b"\0\0\0\1mdat" * 3, b"\xff" * 1000], ids=repr)
    def test_skimming_what_is_no_mp4(self, memory: Any, content: bytes) -> None:
        memory.pipe_file("/a", content)
        with RemoteFile("memory://a") as file, file.skimming():
            parts = []
            while data := file.read(100):
                parts.append(data)
            assert b"".join(parts) == content

    @pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
    def test_other_decoders(self, memory: Any, clips: dict[str, Path], decoder: Decoder) -> None:
        memory.pipe_file("/a.mp4", clips["mp4"].read_bytes())
        message = f"{decoder} reads only local files; try `decoder=pyav`"
        assert error_of("memory://a.mp4", Reading(decoder=decoder)) == ("unsupported", message)

    def test_no_folder_of_pictures(self) -> None:
        kind, message = error_of("memory://pictures", frames=True)
        assert (kind, "download it" in message) == ("unsupported", True)

    @pytest.mark.parametrize(
        ("path", "asked"),
        [
            ("/a%20b%2Fc.mp4?sig=a%2Fb%2B%3D%7E&x=[1]#t=3", "/a%20b%2Fc.mp4?sig=a%2Fb%2B%3D%7E&x=[1]"),
            ("/a b/100%.mp4", "/a%20b/100%25.mp4"),
            ("/größe.mp4", "/gr%C3%B6%C3%9Fe.mp4"),
        ],
    )
    def test_addresses_are_asked_for_as_they_are(self, web: Web, clips: dict[str, Path], path: str, asked: str) -> None:
        """Signatures hold for these very characters; what no address can hold is encoded."""
        web.add(asked, clips["mp4"].read_bytes())
        assert read(web.url + path, [7])[0] == [7]

    def test_redirects_are_followed(self, web: Web, clips: dict[str, Path]) -> None:
        web.add("/a", clips["mp4"].read_bytes())
        web.add("/b", redirect="/a")
        assert read(web.add("/c", redirect=web.url + "/b"), [7])[0] == [7]

    def test_password(self, web: Web, clips: dict[str, Path]) -> None:
        web.add("/a", clips["mp4"].read_bytes(), password="me:s3cret")
        address = web.url.replace("http://", "http://me:s3cret@") + "/a"
        assert read(address, [7])[0] == [7]
        kind, message = error_of(address.replace("s3cret", "wr0ng"))
        assert (kind, message) == ("unreadable", "access denied (401 Unauthorized); are the credentials set?")

    @pytest.mark.parametrize("ranges", [True, False])
    def test_a_connection_that_breaks(self, web: Web, clips: dict[str, Path], ranges: bool) -> None:
        """Whatever the decoder makes of the part that came, it is no shorter video."""
        content = clips["none"].read_bytes()
        cut = 200_000 if ranges else 3_000_000
        kind, message = error_of(web.add("/a", content, ranges=ranges, cut=cut), Reading(fetch_wait=0.01))
        assert (kind, message) == ("unreadable", "it cannot be fetched (the server ended the connection too early)")

    @pytest.mark.parametrize("name", ["end", "front", "none"])
    @pytest.mark.parametrize("after", [1, 2, 3])
    def test_a_server_that_gives_up(self, web: Web, clips: dict[str, Path], name: str, after: int) -> None:
        kind, message = error_of(web.add("/a", clips[name].read_bytes(), fail_after=after))
        assert (kind, "500" in message) == ("unreadable", True)

    def test_damage_is_told_from_a_bad_connection(self, web: Web, clips: dict[str, Path]) -> None:
        content = clips["mp4"].read_bytes()
        assert error_of(web.add("/a", content[:-500]))[0] == "decode"
        assert error_of(web.add("/b", b"")) == ("decode", "the file is empty")
        assert error_of(web.add("/c", b"hello " * 1000))[0] == "decode"


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "missing": ({"status": 404}, "not_found", "no such file (404 Not Found)"),
    "gone": ({"status": 410}, "not_found", "no such file (410 Gone)"),
    "forbidden": ({"status": 403}, "unreadable", "access denied (403 Forbidden); are the credentials set?"),
    "broken": ({"status": 500}, "unreadable", "the server answers 500 Internal Server Error"),
    "busy": ({"status": 503}, "unreadable", "the server answers 503 Service Unavailable"),
    "nothing": ({"status": 204}, "unreadable", "the server answers 204 No Content"),
    "strange": ({"status": 520}, "unreadable", "the server answers 520"),
    "loop": (
        {"redirect": "/loop"},
        "unreadable",
        "endless redirects, or a redirect to something other than a web address",
    ),
    "elsewhere": (
        {"redirect": "ftp://127.0.0.1/a.mp4"},
        "unreadable",
        "endless redirects, or a redirect to something other than a web address",
    ),
    "page": (
        {"content": b"\n <!DOCTYPE html><html>...", "type": "text/html"},
        "unreadable",
        "a web page, not a video; give the address of the video file itself",
    ),
    "hang": ({"hang": True}, "unreadable", "the server does not answer in time"),
}


class TestFaults:
    @pytest.mark.parametrize("name", FAULTS)
    def test_answers(self, web: Web, name: str) -> None:
        page, kind, message = FAULTS[name]
        started = time.monotonic()
        assert error_of(web.add(f"/{name}", **page), Reading(fetch_timeout=0.2, fetch_wait=0.01)) == (kind, message)
        assert time.monotonic() - started < 5

    @pytest.mark.parametrize(
        ("address", "kind", "message"),
        [
            ("http://127.0.0.1:1/a.mp4", "unreadable", "it cannot be fetched (Connection refused)"),
            (
                "http://me:s3cret@127.0.0.1:1/a.mp4?key=s3cret",
                "unreadable",
                "it cannot be fetched (Connection refused)",
            ),
            ("http://", "unreadable", "not a valid address"),
            ("http:///a.mp4", "unreadable", "not a valid address"),
            ("http://[::1/a.mp4", "unreadable", "not a valid address"),
        ],
    )
    @pytest.mark.usefixtures("web")
    def test_addresses(self, address: str, kind: str, message: str) -> None:
        assert error_of(address) == (kind, message)

    @pytest.mark.usefixtures("web")
    def test_unknown_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*args: Any, **kwargs: Any) -> Any:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        kind, message = error_of("http://nowhere.invalid/a.mp4")
        assert (kind, message.startswith("the server's name is unknown")) == ("unreadable", True)

    def test_no_secure_connection(self, web: Web) -> None:
        kind, message = error_of(web.add("/a").replace("http://", "https://"))
        assert (kind, message) == ("unreadable", "no secure connection; is the server's certificate valid?")

    def test_not_in_memory(self, memory: Any) -> None:
        assert error_of("memory://none.mp4") == (
            "not_found",
            "no such file; the address of a folder ends in a slash",
        )

    @pytest.mark.parametrize("address", ["rtsp://127.0.0.1/a.mp4", "concat://a.mp4", "pipe://0"])
    def test_unknown_kinds(self, address: str) -> None:
        scheme = address.partition("://")[0]
        kind, message = error_of(address)
        assert kind == "unsupported"
        assert message == f"{scheme}:// addresses are not read; http, https, s3, gs, hf and others are"

    @pytest.mark.parametrize(
        ("address", "module", "package"),
        [
            ("http://h/a.mp4", "aiohttp", "'timesformer-cli[remote]'"),
            ("https://h/a.mp4", "aiohttp", "'timesformer-cli[remote]'"),
            ("s3://b/a.mp4", "s3fs", "s3fs"),
        ],
    )
    def test_missing_packages(self, monkeypatch: pytest.MonkeyPatch, address: str, module: str, package: str) -> None:
        scheme = address.partition("://")[0]
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, "timesformer_cli.video.http_file", raising=False)
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
        assert error_of(address) == ("unsupported", f"{scheme}:// addresses need {module}: pip install {package}")

    def test_no_room_for_what_is_fetched(self, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        memory.pipe_file("/a.mp4", b"x" * 100)

        class Full:
            def __enter__(self) -> "Full":
                return self

            def __exit__(self, *args: object) -> None:
                pass

            def seek(self, *args: int) -> int:
                return 0

            def write(self, data: bytes) -> int:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr("tempfile.TemporaryFile", Full)
        assert error_of("memory://a.mp4") == ("unreadable", "it cannot be fetched (No space left on device)")

    def test_want_of_memory_stays_what_it_is(self, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        memory.pipe_file("/a.mp4", b"x" * 100)

        def fail(file: RemoteFile, piece: int) -> None:
            raise MemoryError

        monkeypatch.setattr(RemoteFile, "_fetch", fail)
        with pytest.raises(MemoryError), open_video(Item("memory://a.mp4")):
            pass


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5.0,\n{url}\n#EXT-X-ENDLIST\n",
    "late hls": "\n#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5.0,\n{url}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{url}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="0" bandwidth="1"><BaseURL>{url}</BaseURL>'
    "<SegmentBase/></Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("ending", ["m3u8", "mpd", "mp4"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists(web: Web, clips: dict[str, Path], tmp_path: Path, kind: str, ending: str) -> None:
    """They are refused, and nothing that they name is asked for."""
    web.add("/a.mp4", clips["mp4"].read_bytes())
    for url in (f"{web.url}/a.mp4", "a.mp4", f"file:{clips['mp4']}", str(clips["mp4"])):
        address = web.add(f"/list.{ending}", PLAYLISTS[kind].format(url=url).encode(), type="video/mp4")
        assert error_of(address)[0] in ("unsupported", "decode")
    assert {path for _, path, _ in web.log} == {f"/list.{ending}"}


def test_programs_end_at_once(web: Web, clips: dict[str, Path]) -> None:
    """The connections and the thread that serves them keep nobody waiting, and complain of nothing."""
    address = web.add("/a.mp4", clips["front"].read_bytes())
    code = (
        "import sys; from timesformer_cli.flow import Item; from timesformer_cli.video.reader import open_video\n"
        "with open_video(Item(sys.argv[1])) as reader: print(reader.info.num_frames, reader.read([7]).pixels.shape)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, address], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{FRAMES} (1, 64, {WIDTH}, 3)\n"
    assert time.monotonic() - started < 10


class TestSearch:
    @pytest.fixture(autouse=True)
    def _files(self, memory: Any) -> None:
        for name in (
            "b.mp4",
            "a.MKV",
            "notes.txt",
            ".hidden.mp4",
            "sub/c.webm",
            "sub/deep/d.avi",
            ".git/e.mp4",
            "a[1].mp4",
        ):
            memory.pipe_file(f"/clips/{name}", b"x")
        memory.pipe_file("/clips-2/f.mp4", b"x")

    @pytest.mark.parametrize(
        ("address", "found"),
        [
            ("memory://clips/", ["a.MKV", "a[1].mp4", "b.mp4", "notes.txt", "sub/c.webm", "sub/deep/d.avi"]),
            ("memory://clips/sub/", ["c.webm", "deep/d.avi"]),
            ("memory://clips/*.mp4", ["a[1].mp4", "b.mp4"]),
            ("memory://clips/a[1].*", ["a[1].mp4"]),
            ("memory://clips/?.*", []),
            ("memory://clips/**/*.avi", ["sub/deep/d.avi"]),
            ("memory://clips/s*/*", ["sub/c.webm"]),
            ("memory://nothing/", []),
            ("memory://nothing/*.mp4", []),
        ],
    )
    def test_found(self, address: str, found: list[str]) -> None:
        base = address[: address.index("*")] if "*" in address else address
        base = base[: base.rindex("/") + 1]
        assert list(search(address)) == [base + name for name in found]

    def test_what_is_found_can_be_read(self, memory: Any, clips: dict[str, Path]) -> None:
        memory.pipe_file("/clips-2/f.mp4", clips["mp4"].read_bytes())
        assert read(next(search("memory://clips-2/")), [7])[0] == [7]

    def test_missing_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(VideoError, match="pip install s3fs"):
            next(search("s3://bucket/"))
