"""A Hugging Face Hub on this machine: repositories from dictionaries, its protocol, and its faults.

    with serve() as hub:
        commit = hub.add_repo("owner/name", {"config.json": b"{}", "model.safetensors": b"..."})
        hub.add_repo("datasets/owner/name", folder)
        hub.connect(monkeypatch, tmp_path / "cache")       # this process
        subprocess.run(..., env=hub.environment(tmp_path))  # a different process
        hub.add_fault("model.safetensors", status=503)
        assert hub.files() == ["config.json"]

It serves the requests of huggingface_hub: the API of models and datasets with and without a revision, trees,
discussions, and `resolve` with HEAD, GET, Range and the Hub's headers. Weights (*.bin, *.safetensors) and videos are
LFS files: `resolve` redirects to a second port, as the real Hub does to its CDN, where no token may arrive.

`hf upload` works too, for a token that may write and without Xet: new repositories, LFS files, which go to the second
port, and commits.
"""

import base64
import hashlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

LFS_SUFFIXES = (".bin", ".safetensors", ".onnx", ".pyth", ".mp4")


@dataclass
class Request:
    """A request that arrived. `server` is hub or cdn; names of `headers` are in lower case."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization")


@dataclass
class Fault:
    """A fault for requests whose path contains `match`, for the next `times` times."""

    match: str
    method: str | None
    server: str | None
    times: int
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    reset: int | None = None
    hang: bool = False
    endless: bool = False
    sent: int = 0


@dataclass
class _Repo:
    gated: bool = False
    private: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)


class Hub:
    """The server. Its methods may be called at any time; `log` has every request that arrived."""

    def __init__(self) -> None:
        self.log: list[Request] = []
        # Access tokens, and whether they may read private and gated repositories, and write.
        self.tokens = {"hf_member": True, "hf_stranger": False}
        # A repository's owner may disable its discussions, and with them its pull requests.
        self.discussions = True
        # LFS files that were uploaded, by their SHA-256.
        self.uploads: dict[str, bytes] = {}
        self._repos: dict[str, _Repo] = {}
        self._faults: list[Fault] = []
        self._closing = threading.Event()
        self._servers = {name: _Server(self, name) for name in ("hub", "cdn")}
        self.url = self._servers["hub"].url
        self.cdn_url = self._servers["cdn"].url

    def add_repo(
        self,
        repo: str,
        files: Mapping[str, bytes] | Path,
        branch: str = "main",
        *,
        gated: bool = False,
        private: bool = False,
    ) -> str:
        """Commit `files`, a mapping or a folder, to a branch of a repository, new or not; returns the commit.

        The names of dataset repositories begin with `datasets/`.
        A gated repository shows its list of files to all. Its files, and a private repository altogether, are
        visible only to a token that may read them.
        """
        if isinstance(files, Path):
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in _files_below(files)}
        entry = self._repos.setdefault(repo, _Repo())
        entry.gated, entry.private = gated, private
        commit = hashlib.sha1(f"{repo} {len(entry.commits)} {sorted(files)}".encode()).hexdigest()
        entry.commits[commit] = dict(files)
        entry.refs[branch] = commit
        return commit

    def add_pull_request(
        self,
        repo: str,
        files: Mapping[str, bytes],
        *,
        author: str = "SFconvertbot",
        title: str = "Adding `safetensors` variant of this model",
        status: str = "open",
        base: str = "main",
    ) -> str:
        """Open a pull request that adds or replaces `files`; returns its commit."""
        entry = self._repos[repo]
        number = len(entry.requests) + 1
        old = entry.commits[entry.refs[base]]
        commit = self.add_repo(repo, {**old, **files}, f"refs/pr/{number}", gated=entry.gated, private=entry.private)
        entry.requests.append(
            {
                "num": number,
                "title": title,
                "status": status,
                "isPullRequest": True,
                "author": {"name": author},
                "createdAt": "2022-12-08T00:00:00.000Z",
                "repo": {"name": repo, "type": "model"},
            }
        )
        return commit

    def add_fault(
        self,
        match: str,
        *,
        method: str | None = None,
        server: str | None = None,
        times: int = 10**9,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        cut: int | None = None,
        reset: int | None = None,
        hang: bool = False,
        endless: bool = False,
    ) -> Fault:
        """Answer requests whose path contains `match` wrongly, for the next `times` times.

        `status` with `headers` and `body` (JSON unless the headers say otherwise) replaces the answer.
        Only `body` replaces the content, complete. `cut` and `reset` close, or break, the connection after
        that many bytes of the content; `hang`: never answer; `endless`: send zeros after the content, without
        its length, until the client hangs up. The result counts the zeros `sent`.
        """
        fault = Fault(match, method, server, times, status, headers or {}, body, cut, reset, hang, endless)
        self._faults.append(fault)
        return fault

    def clear_faults(self) -> None:
        self._faults.clear()

    def files(self, server: str | None = None) -> list[str]:
        """Names of the files that were sent or begun (GET), in order and each time; redirects do not count."""
        sent = [request for request in self.log if request.method == "GET" and server in (None, request.server)]
        paths = [unquote(urlsplit(request.path).path) for request in sent]
        return [path.rsplit("/", 1)[1] for path in paths if "/resolve/" in path or path.startswith("/lfs/")]

    def connect(self, monkeypatch: pytest.MonkeyPatch, cache: Path, *, token: str | None = None) -> None:
        """Point huggingface_hub in this process at the server, with `cache` as its cache folder."""
        connect(self.url, monkeypatch, cache, token=token)

    def environment(self, home: Path, *, token: str | None = None) -> dict[str, str]:
        """Environment variables for another process; its cache folder is `home/hub`."""
        return environment(self.url, home, token=token)

    def close(self) -> None:
        """Stop answering: from now on connections are refused."""
        self._closing.set()
        for server in self._servers.values():
            server.stop()

    # Called by the handlers.

    def fault_for(self, request: Request) -> Fault | None:
        for fault in self._faults:
            if (
                fault.times > 0
                and fault.match in unquote(request.path)
                and fault.method in (None, request.method)
                and fault.server in (None, request.server)
            ):
                fault.times -= 1
                return fault
        return None

    def wait(self) -> None:
        self._closing.wait(60)

    def repo(self, name: str) -> _Repo | None:
        return self._repos.get(name)


@contextmanager
def serve() -> Iterator[Hub]:
    """A running server, empty; stopped at the end."""
    hub = Hub()
    try:
        yield hub
    finally:
        hub.close()


def connect(url: str, monkeypatch: pytest.MonkeyPatch, cache: Path, *, token: str | None = None) -> None:
    """Point huggingface_hub in this process at any address, as a fresh start with HF_ENDPOINT would."""
    from huggingface_hub import constants, file_download, utils

    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING")) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    values = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_ETAG_TIMEOUT": 2,
        "HF_HUB_DOWNLOAD_TIMEOUT": 2,
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
        if hasattr(file_download, name):  # a copy, in versions before 1.0
            monkeypatch.setattr(file_download, name, value)
    # The HTTP client has already read the proxies from the environment, once.
    for name in {"close_session", "reset_sessions"} & set(dir(utils)):  # the latter before 1.0
        getattr(utils, name)()


def environment(url: str, home: Path, *, token: str | None = None) -> dict[str, str]:
    """The variables of this process with huggingface_hub pointed at any address; its cache folder is `home/hub`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
    }
    own = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "2",
        "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        "HF_HUB_DISABLE_XET": "1",  # uploads would go to its servers
    }
    return {**kept, **own, **({} if token is None else {"HF_TOKEN": token})}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub, self.name = hub, name
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._request = Request(self.server.name, self.command, self.path, headers)
        self.server.hub.log.append(self._request)
        self._fault = self.server.hub.fault_for(self._request)
        if self._fault and self._fault.hang:
            self.server.hub.wait()
        elif self._fault and self._fault.status:
            self._send(self._fault.status, self._fault.body or b"{}", self._fault.headers)
        elif self.command == "PUT":
            self._store()
        elif self.command == "POST":
            self._write()
        elif self.server.name == "cdn":
            self._cdn()
        elif self.path.startswith(("/api/models/", "/api/datasets/")):
            self._api()
        elif "/resolve/" in self.path:
            self._resolve()
        else:
            self._refuse(404, "", "Sorry, we can't find the page you are looking for.")

    def _api(self) -> None:
        address = urlsplit(self.path)
        id, rest = _api_repo(address.path)
        repo = self._repo(id, files=False)
        if repo is None:
            return
        if rest == ["discussions"]:
            self._discussions(repo)
            return
        kind, revision = (rest[0], unquote(rest[1])) if rest else ("revision", "main")
        commit = self._commit(repo, revision)
        if commit is None:
            return
        files = repo.commits[commit]
        if kind == "tree":  # requested by snapshot_download
            self._json([_tree_entry(file, content) for file, content in files.items()])
            return
        if "blobs" in parse_qs(address.query):
            siblings = [_sibling(file, content) for file, content in files.items()]
        else:
            siblings = [{"rfilename": file} for file in files]
        self._json(
            {
                "id": id.removeprefix("datasets/"),
                "sha": commit,
                "siblings": siblings,
                "private": repo.private,
                "tags": [],
            }
        )

    def _discussions(self, repo: _Repo) -> None:
        """All of them, whatever the filter of the request, as a mirror might."""
        if not self.server.hub.discussions:
            self._refuse(403, "", "Discussions are disabled for this repo")
        else:
            self._json({"discussions": repo.requests, "count": len(repo.requests), "start": 0})

    def _resolve(self) -> None:
        before, after = self.path.split("/resolve/", 1)
        revision, file = (unquote(part) for part in after.split("/", 1))
        repo = self._repo(unquote(before.strip("/")), files=True)
        commit = None if repo is None else self._commit(repo, revision)
        if repo is None or commit is None:
            return
        content = repo.commits[commit].get(file)
        if content is None:
            self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        elif file.endswith(LFS_SUFFIXES):
            headers = {
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{_sha256(content)}"',
                "Location": f"{self.server.hub.cdn_url}/lfs/{before.strip('/')}/{commit}/{file}?signature=x",
            }
            self._send(302, b"", headers)
        else:
            self._content(content, {"X-Repo-Commit": commit, "ETag": f'"{git_hash(content)}"'})

    def _cdn(self) -> None:
        id, (commit, file) = _split_repo(unquote(urlsplit(self.path).path).removeprefix("/lfs/"), 1)
        repo = self.server.hub.repo(id)
        assert repo is not None
        content = repo.commits[commit][file]
        name = f"inline; filename*=UTF-8''{file}; filename=\"{file}\";"
        self._content(content, {"ETag": f'"{_sha256(content)}"', "Content-Disposition": name})

    def _write(self) -> None:
        """What `hf upload` asks for: a repository, how to send each file, where to, and a commit."""
        hub, path, body = self.server.hub, urlsplit(self.path).path, self._body()
        token = (self._request.token or "").removeprefix("Bearer ")
        if not hub.tokens.get(token, False):
            known = token in hub.tokens
            self._refuse(403 if known else 401, "", "no right to write" if known else "Invalid username or password.")
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            kind = "datasets/" if asked.get("type") == "dataset" else ""
            name = f"{kind}{asked['organization']}/{asked['name']}"
            address = {"url": f"{hub.url}/{name}"}
            if hub.repo(name):
                self._send(409, json.dumps({"error": "You already created this repo", **address}).encode(), {})
            else:
                hub.add_repo(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
                self._json(address)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._json({"transfer": "basic", "objects": [self._action(each) for each in json.loads(body)["objects"]]})
        elif (repo := self._repo((target := _api_repo(path))[0], files=True)) is not None:
            if target[1][0] == "preupload":
                self._json({"files": [_upload_mode(each["path"], repo) for each in json.loads(body)["files"]]})
            else:
                self._commit_upload(target[0], repo, [json.loads(line) for line in body.splitlines()])

    def _action(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Where an LFS file goes; nowhere if it is there."""
        action = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] in self.server.hub.uploads:
            return action
        return {**action, "actions": {"upload": {"href": f"{self.server.hub.cdn_url}/upload/{asked['oid']}"}}}

    def _store(self) -> None:
        """Keep an LFS file. The address holds the signature, so that no token may arrive."""
        oid, body = self.path.removeprefix("/upload/"), self._body()
        if self._request.token or self.server.name != "cdn" or oid != _sha256(body):
            self._refuse(400, "", "a token, the wrong server or the wrong content")
        else:
            self.server.hub.uploads[oid] = body
            self._send(200, b"", {})

    def _commit_upload(self, name: str, repo: _Repo, lines: list[dict[str, Any]]) -> None:
        files = dict(repo.commits[repo.refs["main"]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.hub.uploads[value["oid"]]
        commit = self.server.hub.add_repo(name, files, gated=repo.gated, private=repo.private)
        url = f"{self.server.hub.url}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _body(self) -> bytes:
        return self.rfile.read(int(self._request.headers.get("content-length", "0")))

    def _repo(self, name: str, *, files: bool) -> _Repo | None:
        """The repository, if whoever asks may see it; otherwise the answer is given."""
        token = (self._request.token or "").removeprefix("Bearer ")
        member = self.server.hub.tokens.get(token, False)
        repo = self.server.hub.repo(name)
        if token and token not in self.server.hub.tokens:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and not member):
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repo.gated and files and not member:
            self._refuse(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
        else:
            return repo
        return None

    def _commit(self, repo: _Repo, revision: str) -> str | None:
        commit = revision if revision in repo.commits else repo.refs.get(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        codes = {"X-Error-Code": code} if code else {}
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {**codes, "X-Error-Message": message, **(headers or {})})

    def _json(self, value: object) -> None:
        self._content(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _content(self, content: bytes, headers: Mapping[str, str]) -> None:
        if self._fault and self._fault.body is not None:
            content, headers = self._fault.body, {**headers, **self._fault.headers}
        status, start = 200, 0
        if asked := self._request.headers.get("range"):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            status = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self._send(status, content[start:], headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        endless = self._fault is not None and self._fault.endless and self.command != "HEAD"
        length = {} if endless else {"Content-Length": str(len(body))}
        for name, value in {"Content-Type": "application/json", **headers, **length}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self._fault and self._fault.cut is not None:
            body = body[: self._fault.cut]
        if self._fault and self._fault.reset is not None:
            self.wfile.write(body[: self._fault.reset])
            time.sleep(0.1)  # unread data is lost with the connection
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.wfile.write(body)
            while self._fault and endless:
                self._fault.sent += self.connection.send(bytes(2**20))


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _split_repo(path: str, most: int = -1) -> tuple[str, list[str]]:
    """The name of a repository at the start of a path, and the parts of the rest, split at most so often."""
    kind = "datasets/" if path.startswith("datasets/") else ""
    owner, name, *rest = path.removeprefix(kind).split("/", 2)
    return f"{kind}{owner}/{name}", rest[0].split("/", most) if rest else []


def _api_repo(path: str) -> tuple[str, list[str]]:
    """The same for the path of a request of the API."""
    return _split_repo(path.removeprefix("/api/").removeprefix("models/"))


def _upload_mode(file: str, repo: _Repo) -> dict[str, Any]:
    content = repo.commits[repo.refs["main"]].get(file)
    oid = None if content is None else _tree_entry(file, content).get("lfs", {}).get("oid", git_hash(content))
    mode = "lfs" if file.endswith(LFS_SUFFIXES) else "regular"
    return {"path": file, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def _sibling(file: str, content: bytes) -> dict[str, Any]:
    """A file in the list of a model's files, with `blobs=true`."""
    sibling = {"rfilename": file, "size": len(content), "blobId": git_hash(content)}
    if file.endswith(LFS_SUFFIXES):
        lfs = {"sha256": _sha256(content), "size": len(content), "pointerSize": 134}
        sibling |= {"lfs": lfs, "blobId": git_hash(json.dumps(lfs).encode())}
    return sibling


def _tree_entry(file: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": file, "size": len(content), "oid": git_hash(content)}
    if file.endswith(LFS_SUFFIXES):
        entry |= {"lfs": {"oid": _sha256(content), "size": len(content), "pointerSize": 134}}
    return entry


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    """The hash by which git, and the Hub, call a file that is no LFS file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
