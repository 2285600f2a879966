"""Servers that lie, stumble or lead astray: what is read of their answers, what is tried again, and what is refused."""

import gzip
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from socketserver import StreamRequestHandler, ThreadingTCPServer
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Failure, Item
from timesformer_cli.pipeline.prepare import prepare_all
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.specs import PreprocessSpec, Reading, Recipe, SamplingSpec
from timesformer_cli.video.remote import RemoteFile

http_file = pytest.importorskip("timesformer_cli.video.http_file")

CONTENT = np.random.default_rng(0).integers(0, 256, 1_000_000, np.uint8).tobytes()
PIECE = 2**18
QUICK = Reading(fetch_timeout=5, fetch_wait=0.01)


@dataclass
class Request:
    """A request, and how to answer it: `send` tells whether the other side still listens."""

    path: str
    headers: dict[str, str]
    number: int  # of those for the path, from 1 on
    send: Callable[[bytes], bool]

    @property
    def range(self) -> tuple[int, int]:
        first, _, last = self.headers["range"].removeprefix("bytes=").partition("-")
        return int(first), int(last) + 1

    def answer(self, status: str, body: bytes = b"", **headers: Any) -> bool:
        lines = {"Content-Length": len(body)} | {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        return self.send(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)

    def part(self, content: bytes = CONTENT, **headers: Any) -> bool:
        start, stop = self.range
        body = content[start:stop]
        said = {"Content_Range": f"bytes {start}-{start + len(body) - 1}/{len(content)}"}
        return self.answer("206 Partial Content", body, **(said | headers))


@dataclass
class Server:
    """Answers by path; `sent` counts bytes, `asked` requests, `seen` keeps their headers."""

    port: int = 0
    answers: dict[str, Callable[[Request], object]] = field(default_factory=dict)
    sent: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    seen: list[Request] = field(default_factory=list)

    def add(self, answer: Callable[[Request], object], path: str = "/a", host: str = "127.0.0.1") -> str:
        self.answers[path] = answer
        return f"http://{host}:{self.port}{path}"


class Handler(StreamRequestHandler):
    at: Server

    def handle(self) -> None:
        while line := self.rfile.readline().decode():
            path = line.split()[1]
            lines = iter(lambda: self.rfile.readline().decode().strip(), "")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self.at.asked[path] += 1
            request = Request(path, headers, self.at.asked[path], self.send)
            self.at.seen.append(request)
            if self.at.answers[path](request) is False:
                return

    def send(self, data: bytes) -> bool:
        try:
            self.wfile.write(data)
        except OSError:
            return False
        self.at.sent += len(data)
        return True


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Server]]:
    """Makes servers, each at all addresses of this machine."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running: list[ThreadingTCPServer] = []

    class Quiet(ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    def make() -> Server:
        at = Server()
        server = Quiet(("0.0.0.0", 0), type("Answers", (Handler,), {"at": at}))
        at.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        running.append(server)
        return at

    yield make
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(servers: Callable[[], Server]) -> Server:
    return servers()


def fetch(address: str, reading: Reading = QUICK) -> bytes:
    with RemoteFile(address, reading) as file:
        data = file.read()
        file.check()
        return data


def refused(address: str, reading: Reading = QUICK) -> str:
    with pytest.raises(VideoError) as caught:
        fetch(address, reading)
    assert caught.value.kind == "unreadable"
    return str(caught.value)


class TestLies:
    @pytest.mark.parametrize("length", [None, 300_000_000])
    @pytest.mark.parametrize("start", [0, PIECE])
    def test_no_more_is_read_than_was_asked_for(self, server: Server, length: int | None, start: int) -> None:
        def endless(request: Request) -> bool:
            if request.range[0] != start:
                return request.part()
            begun = request.part(Content_Length=length)
            return begun and all(request.send(bytes(2**20)) for _ in range(60)) and False

        assert refused(server.add(endless)).startswith("the server sends more than the 2")
        # The system of either side holds some megabytes.
        assert server.sent < 20e6

    def test_a_whole_file_is_read_up_to_the_limit(self, server: Server) -> None:
        def endless(request: Request) -> bool:
            request.answer("200 OK", Content_Length=None)
            return all(request.send(bytes(2**20)) for _ in range(60)) and False

        with pytest.raises(VideoError, match="more than 1,000,000 bytes of it would have to be fetched") as caught:
            fetch(server.add(endless), Reading(max_fetched_bytes=1_000_000))
        assert caught.value.kind == "too_large"
        assert server.sent < 20e6

    def test_what_is_sent_in_vain_counts(self, server: Server) -> None:
        """A server that breaks off again and again is not read for longer than one that does not."""

        def broken(request: Request) -> bool:
            return request.answer("200 OK", CONTENT[:300_000], Content_Length=500_000) and False

        with pytest.raises(VideoError, match="more than 500,000 bytes"):
            fetch(server.add(broken), Reading(max_fetched_bytes=500_000, fetch_wait=0.01))
        assert server.asked["/a"] < 4  # what a broken connection loses on its way is not counted

    @pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate, gzip"])
    def test_compressed_answers(self, server: Server, encoding: str) -> None:
        bomb = gzip.compress(bytes(10_000_000))
        address = server.add(lambda request: request.part(bomb, Content_Encoding=encoding))
        assert refused(address) == "the server sends it compressed, though uncompressed data was requested"
        whole = server.add(lambda request: request.answer("200 OK", bomb, Content_Encoding=encoding), "/b")
        assert refused(whole) == "the server sends it compressed, though uncompressed data was requested"

    @pytest.mark.parametrize(
        "said",
        [
            "bytes 5-262148/1000000",
            "bytes 0-999999/1000000",
            "bytes 9-5/1000000",
            "bytes */1000000",
            "items 0-1/2",
            None,
        ],
    )
    def test_another_part(self, server: Server, said: str | None) -> None:
        address = server.add(lambda request: request.part(Content_Range=said))
        assert refused(address) == "the server sends a different part of the file than requested"

    def test_another_length_later(self, server: Server) -> None:
        def grow(request: Request) -> bool:
            start, stop = request.range
            return request.part(Content_Range=f"bytes {start}-{stop - 1}/2000000") if start else request.part()

        assert refused(server.add(grow)) == "the file had 1,000,000 bytes, and now has 2,000,000"

    def test_less_than_a_part(self, server: Server) -> None:
        def short(request: Request) -> bool:
            start, _ = request.range
            return request.answer("206 OK", CONTENT[:100], Content_Range=f"bytes {start}-{start + 99}/1000000")

        assert refused(server.add(short)) == "the server sent 100 bytes of 262,144"

    @pytest.mark.parametrize("size", [900_000, 1_100_000])
    def test_a_whole_of_another_length(self, server: Server, size: int) -> None:
        """Parts at first, and then the whole: it is the same file, or none."""

        def change(request: Request) -> bool:
            return request.answer("200 OK", (CONTENT * 2)[:size]) if request.range[0] else request.part()

        assert refused(server.add(change)) == f"the server sent {size:,} bytes of 1,000,000"

    def test_a_part_of_unknown_whole(self, server: Server) -> None:
        def unknown(request: Request) -> bool:
            if "range" not in request.headers:
                return request.answer("200 OK", CONTENT)
            return request.part(Content_Range="bytes 0-262143/*")

        assert fetch(server.add(unknown)) == CONTENT

    def test_a_part_when_all_is_asked_for(self, server: Server) -> None:
        def part(request: Request) -> bool:
            return request.answer("206 OK", CONTENT[:PIECE], Content_Range="bytes 0-262143/*")

        assert refused(server.add(part)) == "the server sends only a part of the file instead of the whole"

    @pytest.mark.parametrize("size", [0, 5, PIECE, PIECE + 1])
    def test_honest_sizes(self, server: Server, size: int) -> None:
        def honest(request: Request) -> bool:
            empty = size <= request.range[0]
            return request.answer("416 No", Content_Range=f"bytes */{size}") if empty else request.part(CONTENT[:size])

        assert fetch(server.add(honest)) == CONTENT[:size]
        assert server.asked["/a"] == max(-(-size // PIECE), 1)

    def test_a_server_that_trickles_is_bounded_by_the_time_for_a_video(self, server: Server) -> None:
        def trickle(request: Request) -> bool:
            request.part(b"", Content_Range="bytes 0-262143/262144", Content_Length=PIECE)
            while request.send(b"x"):
                time.sleep(0.05)
            return False

        recipe = Recipe(
            base="test", sampling=SamplingSpec(num_frames=2), preprocess=PreprocessSpec(size=(32, 32), short_side=32)
        )
        items = [Item(server.add(trickle))]
        with prepare_all(items, recipe, workers=1, limits=Limits(timeout=0.3)) as prepared:
            (failure,) = (each for each in prepared if each is not None)
        assert isinstance(failure, Failure)
        assert failure.kind == "timeout"


class TestPassingErrors:
    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    @pytest.mark.parametrize("at", [0, PIECE])
    def test_are_tried_again(self, server: Server, status: int, at: int) -> None:
        failures = iter(range(3))

        def stumble(request: Request) -> bool:
            fails = request.range[0] == at and next(failures, None) is not None
            return request.answer(f"{status} Later", b"later") if fails else request.part()

        assert fetch(server.add(stumble)) == CONTENT

    def test_become_an_error_in_the_end(self, server: Server) -> None:
        started = time.monotonic()
        address = server.add(lambda request: request.answer("503 Later"))
        assert refused(address, Reading(fetch_wait=0.04)) == "the server answers 503 Service Unavailable"
        assert server.asked["/a"] == 4
        assert 0.28 <= time.monotonic() - started < 1.5  # 0.04 + 0.08 + 0.16

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416, 500, 501])
    def test_others_are_final(self, server: Server, status: int) -> None:
        with pytest.raises(VideoError, match=str(status)):
            fetch(server.add(lambda request: request.answer(f"{status} No")))
        assert server.asked["/a"] == 1

    def test_the_server_may_say_when(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        waits: list[float] = []
        monkeypatch.setattr(http_file, "time", SimpleNamespace(sleep=waits.append))
        address = server.add(
            lambda request: request.part() if request.number > 2 else request.answer("429 Later", Retry_After=9)
        )
        assert fetch(address, Reading(fetch_wait=5)) == CONTENT
        assert waits == [9, 10]

    @pytest.mark.parametrize("as_date", [False, True])
    def test_nobody_waits_for_an_hour(self, server: Server, as_date: bool) -> None:
        when = formatdate(time.time() + 3700, usegmt=True) if as_date else "3600"
        message = refused(server.add(lambda request: request.answer("429 Later", Retry_After=when)))
        assert message.startswith("the server answers 429 Too Many Requests, and asks to wait for 3,")
        assert server.asked["/a"] == 1

    @pytest.mark.parametrize("when", ["soon", "-1", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 -0000"])
    def test_strange_moments(self, server: Server, when: str) -> None:
        address = server.add(
            lambda request: request.part() if request.number > 1 else request.answer("503 Later", Retry_After=when)
        )
        assert fetch(address) == CONTENT

    @pytest.mark.parametrize("begun", [False, True])
    def test_connections_that_break(self, server: Server, begun: bool) -> None:
        def breaking(request: Request) -> bool:
            if request.number > 3:
                return request.part()
            return begun and request.part(Content_Range="bytes 0-262143/1000000", Content_Length=10**6) and False

        # aiohttp itself asks once more if nothing came.
        assert fetch(server.add(breaking)) == CONTENT

    def test_a_whole_file_that_breaks_off_is_fetched_again(self, server: Server) -> None:
        def once(request: Request) -> bool:
            if request.number == 1:
                return request.answer("200 OK", CONTENT[:500_000], Content_Length=len(CONTENT)) and False
            return request.answer("200 OK", CONTENT)

        assert fetch(server.add(once)) == CONTENT

    @pytest.mark.parametrize(("number", "tries"), [(socket.EAI_AGAIN, 2), (socket.EAI_NONAME, 1)])
    def test_names_that_are_not_known_for_now(
        self, server: Server, monkeypatch: pytest.MonkeyPatch, number: int, tries: int
    ) -> None:
        asked = []

        def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
            asked.append(host)
            if len(asked) == 1:
                raise socket.gaierror(number, "no")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        address = server.add(lambda request: request.part(), host="video.test")
        if tries == 1:
            assert refused(address).startswith("the server's name is unknown")
            assert asked == ["video.test"]
        else:
            assert fetch(address) == CONTENT


REFUSED = "leads from a public address to a local one, which is refused"


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is there on Linux")
class TestRedirects:
    """As if 127.0.0.2 were a public address, and with names of our own."""

    @pytest.fixture(autouse=True)
    def names(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
        names = {"public.test": ["127.0.0.2"], "inside.test": ["127.0.0.1"], "both.test": ["127.0.0.1", "127.0.0.2"]}
        local = http_file.is_local
        real = socket.getaddrinfo

        def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
            if host not in names:
                return real(host, port, *args, **kwargs)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in names[host]]

        monkeypatch.setattr(http_file, "is_local", lambda host: host != "127.0.0.2" and local(host))
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return names

    @staticmethod
    def lead(server: Server, target: str, host: str) -> str:
        server.add(lambda request: request.part(), "/a")
        target = target.format(port=server.port)
        return server.add(lambda request: request.answer("302 There", Location=target), "/lead", host)

    @pytest.mark.parametrize("host", ["127.0.0.2", "public.test"])
    @pytest.mark.parametrize(
        "target",
        [
            "http://127.0.0.1:{port}/a",
            "http://localhost:{port}/a",
            "http://x.localhost:{port}/a",
            "http://inside.test:{port}/a",
            "http://0.0.0.0:{port}/a",
            "http://[::1]:{port}/a",
            "http://[::ffff:127.0.0.1]:{port}/a",
            "http://[64:ff9b::127.0.0.1]:{port}/a",
            "http://[fe80::1]:{port}/a",
            "http://169.254.169.254/latest/meta-data/",
            "http://[fd00:ec2::254]/latest/meta-data/",
            "//127.0.0.1:{port}/a",
        ],
    )
    def test_from_public_to_local(self, server: Server, host: str, target: str) -> None:
        assert refused(self.lead(server, target, host)) == REFUSED
        assert set(server.asked) == {"/lead"}

    @pytest.mark.parametrize(
        "target", ["http://2130706433:{port}/a", "http://127.1:{port}/a", "http://0x7f.1:{port}/a"]
    )
    def test_numbers_in_disguise(self, server: Server, target: str) -> None:
        refused(self.lead(server, target, "public.test"))
        assert set(server.asked) == {"/lead"}

    @pytest.mark.parametrize("target", ["http://public.test:{port}/a", "http://both.test:{port}/a", "/a"])
    def test_from_public_to_public(self, server: Server, target: str) -> None:
        assert fetch(self.lead(server, target, "public.test")) == CONTENT

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "inside.test"])
    @pytest.mark.parametrize("target", ["http://localhost:{port}/a", "http://inside.test:{port}/a", "/a"])
    def test_from_local_to_local(self, server: Server, host: str, target: str) -> None:
        assert fetch(self.lead(server, target, host)) == CONTENT

    def test_from_local_over_public_to_local(self, server: Server) -> None:
        there = self.lead(server, "http://127.0.0.1:{port}/a", "public.test")
        address = server.add(lambda request: request.answer("307 There", Location=there), "/b")
        assert refused(address) == REFUSED

    def test_a_name_that_becomes_local(self, servers: Callable[[], Server], names: dict[str, list[str]]) -> None:
        server, inside = servers(), servers()
        secret = inside.add(lambda request: request.part(), host="public.test")

        def lead(request: Request) -> bool:
            names["public.test"] = ["127.0.0.1"]
            return request.answer("302 There", Location=secret)

        assert refused(server.add(lead, host="public.test")) == REFUSED
        assert not inside.asked

    def test_a_name_that_becomes_local_between_two_parts(self, server: Server, names: dict[str, list[str]]) -> None:
        def once(request: Request) -> bool:
            names["once.test"] = ["127.0.0.1"]
            request.part()
            return False  # so that the next request needs another connection

        names["once.test"] = ["127.0.0.2"]
        with RemoteFile(server.add(once, host="once.test"), QUICK) as file:
            forget_names(server.port)
            assert file.read() == b""
            with pytest.raises(VideoError, match=REFUSED):
                file.check()
        assert server.asked["/a"] == 1

    @pytest.mark.parametrize(
        "target", ["file:///etc/passwd", "ftp://public.test/a", "data:video/mp4;base64,AAAA", "http:"]
    )
    def test_to_what_is_no_web_address(self, server: Server, target: str) -> None:
        message = "endless redirects, or a redirect to something other than a web address"
        assert refused(self.lead(server, target, "public.test")) == message

    def test_through_a_proxy_that_is_local(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """It finds hosts that are unknown here, and may itself be anywhere."""
        monkeypatch.setenv("http_proxy", f"http://localhost:{server.port}")
        server.add(lambda request: request.part(), "http://nowhere.test/a")
        assert fetch("http://nowhere.test/a") == CONTENT
        there = "http://127.0.0.1/secret"
        server.add(lambda request: request.answer("302 There", Location=there), "http://nowhere.test/b")
        assert refused("http://nowhere.test/b") == REFUSED

    @pytest.mark.parametrize(("target", "shown"), [("/a", True), ("http://127.0.0.2:{port}/a", False)])
    def test_passwords_stay_where_they_belong(self, server: Server, target: str, shown: bool) -> None:
        address = self.lead(server, target, "public.test").replace("http://", "http://me:s3cret@")
        assert fetch(address) == CONTENT
        assert {("authorization" in request.headers) for request in server.seen if request.path == "/a"} == {shown}


def forget_names(port: int) -> None:
    for sessions in http_file._sessions.values():
        sessions.public.connector.clear_dns_cache("once.test", port)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.9.9.9", True),
        ("169.254.0.1", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("::", True),
        ("fe80::1%eth0", True),
        ("::ffff:169.254.169.254", True),
        ("::127.0.0.1", True),
        ("2002:7f00:1::", True),
        ("64:ff9b::7f00:1", True),
        ("100.100.100.200", True),
        ("LOCALHOST.", True),
        ("10.0.0.1", False),
        ("8.8.8.8", False),
        ("::ffff:8.8.8.8", False),
        ("2606:4700::1", False),
        ("fd00::1", False),
        ("localhost.example.org", False),
        ("notlocalhost", False),
        ("", False),
    ],
)
def test_what_is_local(host: str, expected: bool) -> None:
    assert http_file.is_local(host) is expected
