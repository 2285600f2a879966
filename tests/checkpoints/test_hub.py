"""Models from the Hub: what is downloaded, what counts as cached, and what a user reads when it fails."""

import errno
import hashlib
import json
import logging
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from testing import hub_server
from testing.hub_server import Hub
from timesformer_cli.checkpoints import blobs
from timesformer_cli.checkpoints import hub as subject
from timesformer_cli.errors import CheckpointError

REPO = "owner/model"
SMALL = {
    "config.json": b'{"num_frames": 8}',
    "preprocessor_config.json": b"{}",
    ".gitattributes": b"",
    "README.md": b"#",
}
SAFE, PICKLE = b"safetensors" * 300, b"pickle" * 700
ALSO = "; `model=camera-motion` works without a download"


def sharded(name: str, content: bytes) -> dict[str, bytes]:
    """Two shards and their index, as transformers splits `name`."""
    stem, suffix = name.split(".")
    shards = {f"{stem}-0000{i}-of-00002.{suffix}": content + str(i).encode() for i in (1, 2)}
    weight_map = dict(zip("ab", shards, strict=True))
    return {f"{name}.index.json": json.dumps({"weight_map": weight_map}).encode(), **shards}


SAFE_SHARDS = sharded("model.safetensors", SAFE)
PICKLE_SHARDS = sharded("pytorch_model.bin", PICKLE)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_server.serve() as server:
        yield server


@pytest.fixture
def cache(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this process, empty, and the server as its Hub."""
    folder = tmp_path / "cache"
    hub.connect(monkeypatch, folder)
    return folder


def content(snapshot: subject.Snapshot) -> dict[str, bytes]:
    """The files that a snapshot leads to, without its folders."""
    paths = {*snapshot.folder.iterdir(), *snapshot.weights.parent.iterdir()}
    return {path.name: path.read_bytes() for path in paths}


def refusal(repo: str = REPO, revision: str | None = None, *, offline: bool = False, seconds: float = 4) -> str:
    """The line for the user when a model cannot be had, without its constant end; it must come in time."""
    started = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        subject.fetch(repo, revision, offline=offline)
    assert time.monotonic() - started < seconds
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(ALSO)
    return message.removesuffix(ALSO)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("facebook/timesformer-base-finetuned-k400", True),
        ("a/b", True),
        ("A_1/b.c-d_e", True),
        ("base-k400", False),
        ("a/b/c", False),
        ("./b", False),
        ("../b", False),
        ("/b", False),
        ("a/", False),
        ("a/b..c", False),
        ("a/b--c", False),
        ("-a/b", False),
        ("a/b.", False),
        ("a/b.git", False),
        ("a/b c", False),
        ("ä/b", False),
        ("a\\b", False),
        ("a/b\n", False),
        ("a/" + "b" * 95, False),
        ("", False),
    ],
)
def test_the_form_of_a_repository_id(name: str, expected: bool) -> None:
    assert subject.is_repo_id(name) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("https://huggingface.co/owner/name", ("owner/name", None)),
        ("https://huggingface.co/owner/name/", ("owner/name", None)),
        ("http://www.huggingface.co/owner/name?library=transformers#use", ("owner/name", None)),
        ("HTTPS://HuggingFace.co/owner/name", ("owner/name", None)),
        ("huggingface.co/owner/name", ("owner/name", None)),
        ("https://hf.co/owner/name/tree/v2", ("owner/name", "v2")),
        ("https://huggingface.co/models/owner/name", ("owner/name", None)),
        ("https://huggingface.co/owner/name/tree/main/", ("owner/name", "main")),
        ("https://huggingface.co/owner/name/blob/main/config.json", ("owner/name", "main")),
        ("https://huggingface.co/owner/name/resolve/v2/model.safetensors?download=true", ("owner/name", "v2")),
        ("https://huggingface.co/owner/name/commit/0123abcd", ("owner/name", "0123abcd")),
        ("https://huggingface.co/owner/name/tree/refs%2Fpr%2F1", ("owner/name", "refs/pr/1")),
        ("https://huggingface.co/owner/name/blob/refs/pr/1/config.json", ("owner/name", "refs/pr/1")),
        ("hf://owner/name", ("owner/name", None)),
        ("hf://owner/name@v2/config.json", ("owner/name", "v2")),
        ("owner/name", None),
        ("base-k400", None),
        ("https://example.org/owner/name", None),
        ("https://[owner/name", None),
        ("ftp://huggingface.co/owner/name", None),
        ("", None),
    ],
)
def test_addresses_on_the_hub(name: str, expected: tuple[str, str | None] | None) -> None:
    assert subject.parse_address(name) == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("https://huggingface.co/owner", "not the address of a model on the Hub, which is "),
        ("https://huggingface.co/datasets/owner/name", "not the address of a model"),
        ("https://huggingface.co/spaces/owner", "not the address of a model"),
        ("https://huggingface.co/owner/name/discussions/3", "not the address of a model"),
        ("https://huggingface.co/owner/name/tree", "not the address of a model"),
        ("https://huggingface.co/owner/name/tree/main/checkpoint-500", "a folder inside the repository"),
        ("https://huggingface.co/owner/name/blob/main/sub/config.json", "a folder inside the repository"),
    ],
)
def test_addresses_of_other_things(name: str, says: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        subject.parse_address(name)
    assert str(caught.value).startswith(f"{name}: {says}")
    assert "\n" not in str(caught.value)


class TestDownload:
    @pytest.mark.parametrize(
        ("weights", "expected"),
        [
            ({"model.safetensors": SAFE}, {"model.safetensors": SAFE}),
            ({"model.safetensors": SAFE, "pytorch_model.bin": PICKLE}, {"model.safetensors": SAFE}),
            (SAFE_SHARDS, SAFE_SHARDS),
            ({**SAFE_SHARDS, "pytorch_model.bin": PICKLE}, SAFE_SHARDS),
            ({"pytorch_model.bin": PICKLE, "onnx/model.onnx": b"x"}, {"pytorch_model.bin": PICKLE}),
            (PICKLE_SHARDS, PICKLE_SHARDS),
        ],
        ids=["safetensors", "both", "safetensors in shards", "shards and .bin", ".bin", ".bin in shards"],
    )
    def test_safetensors_first_and_no_file_that_is_not_needed(
        self, hub: Hub, cache: Path, weights: Mapping[str, bytes], expected: Mapping[str, bytes]
    ) -> None:
        commit = hub.add_repo(REPO, {**SMALL, **weights})
        snapshot = subject.fetch(REPO)
        needed = {name: SMALL[name] for name in ("config.json", "preprocessor_config.json")} | expected
        assert content(snapshot) == needed
        assert snapshot.commit == commit == snapshot.folder.name
        assert snapshot.weights == snapshot.folder / next(iter(expected))
        assert hub.files("cdn") == [name for name in expected if not name.endswith(".json")]

    @pytest.mark.parametrize("folder", ["onnx/", ""])
    @pytest.mark.parametrize("outside", [[], ["model.onnx_data"], ["model.onnx_data", "model.onnx_data_1"]])
    def test_onnx_where_there_is_nothing_else(self, hub: Hub, cache: Path, folder: str, outside: list[str]) -> None:
        """The graph names the files that hold its weights; other graphs, and programs, stay where they are."""
        graph = b"graph " + b" ".join(name.encode() for name in outside)
        wanted = {f"{folder}model.onnx": graph, **{f"{folder}{name}": SAFE for name in outside}}
        others = {"onnx/model_fp16.onnx": SAFE, "onnx/model_fp16.onnx_data": SAFE, "model.pt2": SAFE}
        hub.add_repo(REPO, {**SMALL, **others, **wanted})
        snapshot = subject.fetch(REPO)
        assert snapshot.weights == snapshot.folder / f"{folder}model.onnx"
        files = {path for path in snapshot.folder.rglob("*") if path.is_file()}
        assert {path.relative_to(snapshot.folder).as_posix(): path.read_bytes() for path in files} == {
            **{name: SMALL[name] for name in ("config.json", "preprocessor_config.json")},
            **wanted,
        }
        hub.log.clear()
        assert subject.fetch(REPO, offline=True) == snapshot
        assert hub.log == []
        for name in outside:
            (snapshot.folder / folder / name).unlink()
            assert f"{name} of owner/model is not in the cache" in refusal(offline=True)
            assert subject.fetch(REPO) == snapshot

    def test_the_next_run_asks_nothing(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        snapshot = subject.fetch(REPO)
        hub.log.clear()
        assert subject.fetch(REPO) == subject.fetch(REPO, offline=True) == subject.find_cached(REPO) == snapshot
        assert hub.log == []

    def test_every_kind_of_revision(self, hub: Hub, cache: Path) -> None:
        commits = {
            revision: hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE + revision.encode()}, revision)
            for revision in ("main", "v1.0", "feature/x", "refs/pr/7")
        }
        commits[commits["main"]] = commits["main"]
        for revision, commit in commits.items():
            snapshot = subject.fetch(REPO, revision)
            assert snapshot.commit == commit
            assert subject.find_cached(REPO, revision) == snapshot
        assert subject.find_cached(REPO) == subject.find_cached(REPO, "main")
        assert subject.find_cached(REPO, "v2.0") is None

    def test_a_download_brings_what_the_branch_is_now(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        old = subject.fetch(REPO)
        hub.add_repo(REPO, {**SMALL, "config.json": b"{}", "model.safetensors": SAFE})
        assert subject.fetch(REPO) == old
        hub.log.clear()
        new = subject.download(REPO)
        assert (new.folder / "config.json").read_bytes() == b"{}"
        assert subject.fetch(REPO) == new
        assert hub.files("cdn") == []  # the weights are the same

    def test_a_failed_download_leaves_the_older_model_in_use(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        old = subject.fetch(REPO)
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE[1:]})
        hub.add_fault("model.safetensors", status=503)
        with pytest.raises(CheckpointError, match=r"^model\.safetensors of owner/model"):
            subject.download(REPO)
        assert subject.find_cached(REPO) == old

    def test_an_interrupted_download_is_not_cached_and_goes_on(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, **SAFE_SHARDS})
        hub.add_fault("model-00002-of-00002.safetensors", status=503, times=1)
        assert refusal().startswith("model-00002-of-00002.safetensors of owner/model")
        assert subject.find_cached(REPO) is None
        hub.log.clear()
        assert content(subject.fetch(REPO)) == {
            name: data for name, data in {**SMALL, **SAFE_SHARDS}.items() if name.startswith(("config", "pre", "model"))
        }
        asked = [request for request in hub.log if not request.path.startswith("/api/")]
        assert {request.path.split("?")[0].rsplit("/", 1)[1] for request in asked} == {
            "model-00002-of-00002.safetensors"
        }

    def test_bytes_on_disk(self, hub: Hub, cache: Path) -> None:
        small = len(SMALL["config.json"]) + len(SMALL["preprocessor_config.json"])
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        assert subject.cached_bytes(subject.fetch(REPO)) == small + len(SAFE)
        hub.add_repo("o/converted", {**SMALL, **PICKLE_SHARDS})
        hub.add_pull_request("o/converted", SAFE_SHARDS)
        expected = small + sum(map(len, SAFE_SHARDS.values()))
        assert subject.cached_bytes(subject.fetch("o/converted")) == expected


class TestConversion:
    """A pull request of the Hub's bot has the same weights as safetensors."""

    @pytest.mark.parametrize(
        ("pickle", "safe"),
        [({"pytorch_model.bin": PICKLE}, {"model.safetensors": SAFE}), (PICKLE_SHARDS, SAFE_SHARDS)],
        ids=["one file", "shards"],
    )
    @pytest.mark.parametrize("status", ["open", "merged"])
    def test_its_weights_are_taken_and_found_again(
        self, hub: Hub, cache: Path, pickle: dict[str, bytes], safe: dict[str, bytes], status: str
    ) -> None:
        commit = hub.add_repo(REPO, {**SMALL, **pickle})
        converted = hub.add_pull_request(REPO, {**safe, "config.json": b"not this one"}, status=status)
        snapshot = subject.fetch(REPO)
        assert snapshot.commit == commit
        assert (snapshot.folder / "config.json").read_bytes() == SMALL["config.json"]
        assert snapshot.weights == snapshot.folder.with_name(converted) / next(iter(safe))
        assert {path.name: path.read_bytes() for path in snapshot.weights.parent.iterdir()} == safe
        hub.close()
        assert subject.find_cached(REPO) == subject.find_cached(REPO, commit) == snapshot

    def test_other_programs_read_the_cache_without_complaint(self, hub: Hub, cache: Path) -> None:
        commit = hub.add_repo(REPO, {**SMALL, "pytorch_model.bin": PICKLE})
        converted = hub.add_pull_request(REPO, {"model.safetensors": SAFE})
        subject.fetch(REPO)
        scan = huggingface_hub.scan_cache_dir(cache)
        assert scan.warnings == []
        (repo,) = scan.repos
        assert {revision.commit_hash: revision.refs for revision in repo.revisions} == {
            commit: {"main"},
            converted: {f"conversion-of/{commit}"},
        }

    @pytest.mark.parametrize(
        ("files", "fields"),
        [
            ({"model.safetensors": SAFE}, {"author": "somebody"}),
            ({"model.safetensors": SAFE}, {"author": "sfconvertbot"}),
            ({"model.safetensors": SAFE}, {"title": "Better weights"}),
            ({"model.safetensors": SAFE}, {"status": "closed"}),
            ({"model.safetensors": SAFE, "pytorch_model.bin": PICKLE[::-1]}, {}),
            ({"model.safetensors": SAFE, "pytorch_model-00001-of-00001.bin": PICKLE}, {}),
            ({"tf_model.h5": SAFE}, {}),
        ],
        ids=["author", "case of author", "title", "turned down", "other weights", "more weights", "no safetensors"],
    )
    def test_any_other_pull_request_is_not(
        self, hub: Hub, cache: Path, files: dict[str, bytes], fields: dict[str, str]
    ) -> None:
        hub.add_repo(REPO, {**SMALL, "pytorch_model.bin": PICKLE})
        hub.add_pull_request(REPO, files, **fields)  # type: ignore[arg-type]
        assert subject.fetch(REPO).weights.read_bytes() == PICKLE
        # The same server with the right one: what was refused above was refused for its one flaw.
        hub.add_pull_request(REPO, {"model.safetensors": SAFE})
        assert subject.download(REPO).weights.read_bytes() == SAFE

    def test_an_older_revision_has_none_of_newer_weights(self, hub: Hub, cache: Path) -> None:
        old = hub.add_repo(REPO, {**SMALL, "pytorch_model.bin": PICKLE[::-1]})
        hub.add_repo(REPO, {**SMALL, "pytorch_model.bin": PICKLE})
        hub.add_pull_request(REPO, {"model.safetensors": SAFE})
        assert subject.fetch(REPO, old).weights.read_bytes() == PICKLE[::-1]
        assert subject.fetch(REPO).weights.read_bytes() == SAFE

    def test_weights_that_cannot_be_compared_are_not_the_same(self, hub: Hub, cache: Path) -> None:
        commit = hub.add_repo(REPO, {**SMALL, "pytorch_model.bin": PICKLE})
        converted = hub.add_pull_request(REPO, {"model.safetensors": SAFE})
        for revision, sha, names in (
            ("main", commit, ["config.json", "pytorch_model.bin"]),
            ("refs/pr/1", converted, ["pytorch_model.bin", "model.safetensors"]),
        ):  # lists without hashes
            answer = {"id": REPO, "sha": sha, "siblings": [{"rfilename": name} for name in names]}
            hub.add_fault(f"/revision/{revision}", body=json.dumps(answer).encode())
        assert subject.fetch(REPO).weights.read_bytes() == PICKLE

    @pytest.mark.parametrize("path", ["/discussions", "/revision/refs/pr/1"])
    @pytest.mark.parametrize("fault", [{"status": 404}, {"status": 500}, {"body": b"<html>"}, {"hang": True}], ids=str)
    def test_a_search_that_fails_is_no_failure(
        self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, path: str, fault: dict[str, object]
    ) -> None:
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
        hub.add_repo(REPO, {**SMALL, "pytorch_model.bin": PICKLE})
        hub.add_pull_request(REPO, {"model.safetensors": SAFE})
        hub.add_fault(path, **fault)  # type: ignore[arg-type]
        assert subject.fetch(REPO).weights.read_bytes() == PICKLE

    def test_discussions_may_be_switched_off(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, "pytorch_model.bin": PICKLE})
        hub.add_pull_request(REPO, {"model.safetensors": SAFE})
        hub.discussions = False
        assert subject.fetch(REPO).weights.read_bytes() == PICKLE

    def test_a_failed_download_of_what_was_chosen_is_a_failure(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, "pytorch_model.bin": PICKLE})
        hub.add_pull_request(REPO, {"model.safetensors": SAFE})
        hub.add_fault("/model.safetensors", status=500)
        assert refusal().startswith("model.safetensors of owner/model cannot be had")
        assert hub.files("cdn") == []


class TestNoHome:
    """A user without an entry in the list of users, as many containers run: nobody knows the home directory."""

    @pytest.fixture(autouse=True)
    def homeless(self, hub: Hub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
        monkeypatch.delenv("HOME")
        if os.name == "posix":
            monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
        monkeypatch.chdir(tmp_path)

    def test_the_cache_is_empty(self, tmp_path: Path) -> None:
        """Also if a program took ~ for the name of a folder here."""
        folder = tmp_path / "~/.cache/huggingface/hub/models--owner--model/snapshots" / ("a" * 40)
        folder.mkdir(parents=True)
        for name, data in {**SMALL, "model.safetensors": SAFE}.items():
            (folder / name).write_bytes(data)
        assert subject.find_cached(REPO, "a" * 40) is None
        assert "is not in the cache" in refusal(offline=True)

    def test_a_download_asks_for_a_place(self, tmp_path: Path) -> None:
        assert "there is no home directory for the cache; set HF_HOME to a folder for it" in refusal()
        assert list(tmp_path.iterdir()) == []


class TestCache:
    def test_what_huggingface_hub_stored_is_found_without_a_network(self, hub: Hub, cache: Path) -> None:
        commit = hub.add_repo(REPO, {**SMALL, **SAFE_SHARDS})
        huggingface_hub.snapshot_download(REPO)
        hub.close()
        snapshot = subject.find_cached(REPO)
        assert snapshot == subject.fetch(REPO, commit)
        assert snapshot is not None
        assert content(snapshot) == {**SMALL, **SAFE_SHARDS}

    @pytest.mark.parametrize("missing", ["config.json", *SAFE_SHARDS])
    def test_half_a_model_is_none(self, hub: Hub, cache: Path, missing: str) -> None:
        hub.add_repo(REPO, {**SMALL, **SAFE_SHARDS})
        for name in {**SMALL, **SAFE_SHARDS}.keys() - {missing}:
            huggingface_hub.hf_hub_download(REPO, name)
        assert subject.find_cached(REPO) is None
        named = "model.safetensors or pytorch_model.bin" if missing.endswith("index.json") else missing
        assert refusal(offline=True).startswith(f"{named} of owner/model is not in the cache")
        subject.fetch(REPO)
        assert hub.files().count(missing) == 1

    def test_a_damaged_index_is_none(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, **SAFE_SHARDS, "model.safetensors.index.json": b"{"})
        huggingface_hub.snapshot_download(REPO)
        assert subject.find_cached(REPO) is None
        assert "it is not an index of weight shards" in refusal()

    def test_weights_without_a_word_on_how_to_feed_them_are_none(self, hub: Hub, cache: Path) -> None:
        """Programs that bring their own preprocessing download the network alone."""
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        for name in ("config.json", "model.safetensors"):
            huggingface_hub.hf_hub_download(REPO, name)
        assert subject.find_cached(REPO) is None
        assert refusal(offline=True).startswith("preprocessor_config.json of owner/model is not in the cache")
        hub.log.clear()
        assert (subject.fetch(REPO).folder / "preprocessor_config.json").read_bytes() == b"{}"
        assert hub.files() == ["preprocessor_config.json"]

    def test_unless_the_repository_has_none(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {"config.json": b"{}", "model.safetensors": SAFE})
        for name in ("config.json", "model.safetensors"):
            huggingface_hub.hf_hub_download(REPO, name)
        assert subject.find_cached(REPO) is None
        snapshot = subject.fetch(REPO)
        hub.close()
        assert subject.find_cached(REPO) == snapshot

    @pytest.mark.parametrize("name", subject.SIDE_FILES)
    def test_each_file_that_says_how_comes_along(self, hub: Hub, cache: Path, name: str) -> None:
        hub.add_repo(REPO, {"config.json": b"{}", name: b"{1}", "model.safetensors": SAFE})
        assert content(subject.fetch(REPO)) == {"config.json": b"{}", name: b"{1}", "model.safetensors": SAFE}
        assert subject.find_cached(REPO) is not None

    @pytest.mark.parametrize("how", ["`offline`", "HF_HUB_OFFLINE=1"])
    def test_offline(self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        snapshot = subject.fetch(REPO)
        hub.log.clear()
        offline = how == "`offline`"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not offline)
        assert subject.fetch(REPO, offline=offline) == snapshot
        assert refusal("owner/other", offline=offline) == (
            f"config.json of owner/other is not in the cache ({cache}), and {how} forbids a download; "
            "run `timesformer models download owner/other` once without it"
        )
        assert "models download owner/model revision=v2`" in refusal(REPO, "v2", offline=offline)
        assert hub.log == []
        if not offline:
            assert subject.download(REPO) == snapshot

    def test_a_look_into_the_cache_stays_light(self, hub: Hub, cache: Path, tmp_path: Path) -> None:
        code = (
            "import sys\nfrom timesformer_cli.checkpoints import hub\nprint('huggingface_hub' in sys.modules)\n"
            "print(hub.find_cached('owner/model'), 'huggingface_hub.file_download' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=hub.environment(tmp_path), check=True, capture_output=True, text=True
        )
        assert done.stdout.split() == ["False", "None", "False"]


class TestRefusals:
    """The Hub, or what passes for it, answers, but not with the model."""

    @pytest.mark.parametrize("token", [None, "hf_stranger"])
    @pytest.mark.parametrize("repo", ["owner/nothing", "owner/private"])
    def test_no_repository_or_a_private_one(
        self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, repo: str, token: str | None
    ) -> None:
        hub.connect(monkeypatch, cache, token=token)
        hub.add_repo("owner/private", {**SMALL, "model.safetensors": SAFE}, private=True)
        assert refusal(repo) == (
            f"config.json of {repo} cannot be had from {hub.url} (HF_ENDPOINT): no such repository, or a private one; "
            "check the name; for a private one, run `hf auth login` or set HF_TOKEN"
        )

    def test_only_an_adapter(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {"adapter_config.json": b"{}", "adapter_model.safetensors": SAFE})
        assert "the repository has no such file; it holds only an adapter, made with PEFT" in refusal()

    def test_only_checkpoints_of_a_training_run(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {f"checkpoint-500/{name}": text for name, text in SMALL.items()})
        said = (
            "holds checkpoints of a training run, such as checkpoint-500: download one and give the path of its folder"
        )
        assert refusal().endswith(said)

    @pytest.mark.parametrize("revision", ["v9", "../../../main", "/main"])
    def test_no_revision(self, hub: Hub, cache: Path, revision: str) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        message = refusal(REPO, revision)
        assert bool(hub.log) is (revision == "v9")  # the others are paths, not names that git allows
        assert message == (
            f"config.json of owner/model (revision {revision}) cannot be had from {hub.url} (HF_ENDPOINT): "
            "no such revision; give a branch, a tag or a commit of the repository with `revision`"
        )

    @pytest.mark.parametrize("token", [None, "hf_stranger"])
    def test_gated(self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
        hub.connect(monkeypatch, cache, token=token)
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE}, gated=True)
        assert f"it is gated; accept its terms on {hub.url}/owner/model, then run `hf auth login`" in refusal()

    def test_a_wrong_token(self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.connect(monkeypatch, cache, token="hf_expired")
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        assert "the access token was refused; log in again with `hf auth login`, or correct or" in refusal()

    def test_not_a_name(self, hub: Hub, cache: Path) -> None:
        assert "that is not the name of a repository" in refusal("owner")
        assert hub.log == []

    @pytest.mark.parametrize(
        ("files", "missing", "advice"),
        [
            ({"model.safetensors": SAFE}, "config.json", "it has model.safetensors; choose"),
            ({".gitattributes": b""}, "config.json", "it has no files; choose"),
            (
                {"a/k400.pyth": b"x"},
                "config.json",
                "download its a/k400.pyth with `hf download owner/model a/k400.pyth`",
            ),
            (
                {"config.json": b"{}", "model.pt2": b"x"},
                "model.safetensors or pytorch_model.bin",
                "it has config.json, model.pt2; choose a repository with a TimeSformer",
            ),
            (dict.fromkeys("abcdef", b""), "config.json", "it has a, b, c, d and 2 more"),
        ],
        ids=["no config", "nothing", "original", "a program", "other"],
    )
    def test_not_such_a_model(self, hub: Hub, cache: Path, files: dict[str, bytes], missing: str, advice: str) -> None:
        hub.add_repo(REPO, files)
        message = refusal()
        assert message.startswith(f"{missing} of owner/model cannot be had from")
        assert "the repository has no such file" in message
        assert advice in message

    @pytest.mark.parametrize(
        ("index", "expected"),
        [
            (b"{", "model.safetensors.index.json of owner/model cannot be had"),
            (b"[]", "it is not an index of weight shards"),
            (b'{"weight_map": {"a": "../x.safetensors"}}', "lists '../x.safetensors', which is not a file beside it"),
            (b'{"weight_map": {"a": 1}}', "lists 1, which is not a file beside it"),
            (b'{"weight_map": {"a": "x.safetensors"}}', "x.safetensors of owner/model cannot be had"),
        ],
    )
    def test_an_index_that_leads_nowhere(self, hub: Hub, cache: Path, index: bytes, expected: str) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors.index.json": index})
        assert expected in refusal()
        assert subject.find_cached(REPO) is None

    @pytest.mark.parametrize("path", ["/api/models/", "/config.json", "/model.safetensors", "/lfs/"])
    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (500, "the server answered 500 Internal Server Error; try again in a few minutes"),
            (503, "the server answered 503 Service Unavailable; try again in a few minutes"),
            (403, "the server answered 403 Forbidden; the access token may not read it"),
            (404, "the server answered 404 Not Found; check HF_ENDPOINT"),
        ],
    )
    def test_an_error_of_the_server(self, hub: Hub, cache: Path, path: str, status: int, expected: str) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        hub.add_fault(path, status=status)
        message = refusal()
        assert expected in message
        assert message.startswith("config.json" if path in ("/api/models/", "/config.json") else "model.safetensors")
        assert subject.find_cached(REPO) is None

    def test_a_401_that_does_not_say_why(self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.add_fault("/api/models/", status=401)
        assert "no such repository, or a private one" in refusal()
        hub.connect(monkeypatch, cache, token="hf_member")
        assert "the access token was refused" in refusal()

    def test_too_many_requests(self, hub: Hub, cache: Path) -> None:
        hub.add_fault("/api/models/", status=429)
        assert "429 Too Many Requests; wait a few minutes; for a higher limit, run `hf auth login`" in refusal()

    @pytest.mark.parametrize(
        "body",
        [
            b"<!doctype html><html>Please log in to this network</html>",
            b"[]",
            b"{}",
            b'{"id": "owner/model", "siblings": []}',
            b'{"id": "owner/model", "siblings": [], "sha": "../../x"}',
            b'{"id": "owner/model", "sha": "0123456789012345678901234567890123456789"}',
            b'{"id": "owner/model", "sha": "0123456789012345678901234567890123456789", "siblings": [{}]}',
        ],
    )
    def test_what_answers_is_not_a_hub(self, hub: Hub, cache: Path, body: bytes) -> None:
        hub.add_fault("/", body=body, status=200)
        message = refusal()
        assert message.startswith(
            f"config.json of owner/model cannot be had from {hub.url} (HF_ENDPOINT): the server is not a"
        )
        assert message.endswith("; check HF_ENDPOINT and the network")

    def test_a_file_of_another_commit(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        hub.add_fault("/config.json", body=SMALL["config.json"], headers={"X-Repo-Commit": "0" * 40})
        assert "the server is not a Hub (it sent a file of another commit)" in refusal()

    def test_the_real_hub_is_named_so(self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
        monkeypatch.setattr(socket, "getaddrinfo", no_name)
        assert refusal() == (
            "config.json of owner/model cannot be had from the Hugging Face Hub: "
            "the connection failed (Name or service not known); check the network, or a proxy, and try again"
        )


def no_name(*arguments: object, **options: object) -> object:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class TestNetwork:
    """Nothing answers, or it stops in the middle."""

    def test_connection_refused(self, hub: Hub, cache: Path) -> None:
        hub.close()
        assert (
            "the connection failed (Connection refused); check HF_ENDPOINT and the network, and try again" in refusal()
        )

    def test_no_such_host(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub_server.connect("http://hub.invalid", monkeypatch, cache)
        assert "(HF_ENDPOINT): the connection failed (" in refusal()

    def test_no_address(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub_server.connect("hub.example", monkeypatch, cache)
        assert "from hub.example (HF_ENDPOINT)" in refusal()

    @pytest.mark.parametrize("path", ["/api/models/", "/config.json", "/model.safetensors"])
    def test_no_answer(self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.4)
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        hub.add_fault(path, hang=True)
        message = refusal(seconds=1.5)
        assert "check HF_ENDPOINT and the network, and try again" in message
        assert "no answer within 0.4 s" in message or "the server stopped answering" in message

    def test_the_search_for_the_address_counts(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A resolver without a network takes its time, and a server may have many addresses."""
        over = threading.Event()
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.4)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(10) and no_name())
        try:
            assert "no answer within 0.4 s" in refusal(seconds=1.5)
        finally:
            over.set()

    def test_a_broken_transfer_goes_on_where_it_stopped(
        self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
        for name in ("huggingface_hub.file_download.time", "timesformer_cli.checkpoints.blobs.time"):
            monkeypatch.setattr(name, SimpleNamespace(sleep=lambda seconds: None))
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        hub.add_fault("model.safetensors", server="cdn", cut=1500, times=1)
        assert subject.fetch(REPO).weights.read_bytes() == SAFE
        ranges = [request.headers.get("range") for request in hub.log if request.server == "cdn"]
        assert ranges == [None, "bytes=1000-"]

    def test_a_connection_that_is_reset_is_opened_again(
        self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(blobs, "time", SimpleNamespace(sleep=lambda seconds: None))
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        hub.add_fault("model.safetensors", server="cdn", reset=1500, times=1)
        assert subject.fetch(REPO).weights.read_bytes() == SAFE
        assert hub.files("cdn") == ["model.safetensors"] * 2

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [({"cut": 0}, "the transfer failed ("), ({"reset": 0}, "the connection failed (Connection reset by peer)")],
        ids=["cut", "reset"],
    )
    def test_one_that_stays_broken(
        self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, int], expected: str
    ) -> None:
        for name in ("huggingface_hub.file_download.time", "timesformer_cli.checkpoints.blobs.time"):
            monkeypatch.setattr(name, SimpleNamespace(sleep=lambda seconds: None))
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        hub.add_fault("model.safetensors", server="cdn", **fault)  # type: ignore[arg-type]
        message = refusal()
        assert message.startswith("model.safetensors of owner/model cannot be had")
        assert expected in message
        assert subject.find_cached(REPO) is None
        hub.clear_faults()
        assert subject.fetch(REPO).weights.read_bytes() == SAFE

    def test_a_file_that_is_shorter(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        hub.add_fault("model.safetensors", server="cdn", body=SAFE[:-1])
        assert f"file should be of size {len(SAFE)} but has size {len(SAFE) - 1}" in refusal()
        assert subject.find_cached(REPO) is None


def left(cache: Path) -> set[str]:
    """Names of the files in the cache, without locks."""
    return {path.name for path in cache.rglob("*") if path.is_file() and ".locks" not in path.parts}


class TestHostile:
    """A server that speaks the Hub's protocol, and lies."""

    @pytest.mark.parametrize("etag", ["../../../../planted", "{outside}", "", "planted", "0" * 39, "0" * 64 + "/x"])
    @pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag"])
    def test_an_etag_that_is_no_digest(self, hub: Hub, cache: Path, tmp_path: Path, etag: str, header: str) -> None:
        commit = hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        value = etag.format(outside=tmp_path / "planted")
        headers = {"X-Repo-Commit": commit, header: f'"{value}"', "Content-Length": "3300"}
        hub.add_fault("/model.safetensors", method="HEAD", status=200, headers=headers)
        assert f"the server is not a Hub (it sent the ETag {value!r}, which is not a digest); check" in refusal()
        assert {path.name for path in tmp_path.rglob("*") if "planted" in path.name} == set()
        assert subject.find_cached(REPO) is None

    def test_a_digest_in_any_of_its_forms(self, hub: Hub, cache: Path) -> None:
        """Quoted or weak, and not that of the listing: files get their names by the listing."""
        commit = hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        for name, etag in (("config.json", f'W/"{"a" * 32}"'), ("preprocessor_config.json", "b" * 40)):
            headers = {"X-Repo-Commit": commit, "ETag": etag}
            hub.add_fault(f"/{name}", body=SMALL[name], headers=headers)
        snapshot = subject.fetch(REPO)
        assert (snapshot.folder / "config.json").resolve().name == hub_server.git_hash(SMALL["config.json"])
        assert snapshot.weights.resolve().name == hashlib.sha256(SAFE).hexdigest()

    @pytest.mark.parametrize(
        "entry",
        [
            {"rfilename": "../../planted"},
            {"rfilename": "/planted"},
            {"rfilename": "a\\..\\..\\planted"},
            {"rfilename": "C:\\planted"},
            {"rfilename": "model.safetensors", "size": -1},
            {"rfilename": "model.safetensors", "size": 8, "blobId": "../../planted"},
            {"rfilename": "model.safetensors", "size": 8, "lfs": {"sha256": "/planted", "size": 8, "pointerSize": 1}},
        ],
        ids=str,
    )
    def test_a_listing_that_leads_elsewhere(self, hub: Hub, cache: Path, entry: dict[str, object]) -> None:
        hub.add_repo(REPO, SMALL)
        answer = {"id": REPO, "sha": "0" * 40, "siblings": [{"rfilename": "config.json", "size": 1}, entry]}
        hub.add_fault("/api/models/", body=json.dumps(answer).encode())
        assert f"the server is not a Hub (it lists {entry['rfilename']!r}" in refusal()
        assert not cache.exists()

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_content_of_the_right_size_that_is_another(self, hub: Hub, cache: Path, name: str) -> None:
        files = {**SMALL, "model.safetensors": SAFE}
        hub.add_repo(REPO, files)
        hub.add_fault(
            f"/{name}", method="GET", server="cdn" if name == "model.safetensors" else None, body=files[name][::-1]
        )
        message = refusal()
        assert message.startswith(f"{name} of owner/model cannot be had")
        assert "its content differs from the listed file (hash " in message
        assert message.endswith("try again; if this repeats, check HF_ENDPOINT and the network")
        assert left(cache).isdisjoint({name, hub_server.git_hash(files[name]), hashlib.sha256(SAFE).hexdigest()})
        assert not [other for other in left(cache) if other.endswith(".incomplete")]
        hub.clear_faults()
        assert subject.fetch(REPO).weights.read_bytes() == SAFE

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_a_body_that_does_not_end(self, hub: Hub, cache: Path, name: str) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        fault = hub.add_fault(f"/{name}", method="GET", server=None if name == "config.json" else "cdn", endless=True)
        size = len({**SMALL, "model.safetensors": SAFE}[name])
        assert f"more than the {size:,} bytes that the repository lists; try again" in refusal()
        assert fault.sent < 2**26  # what buffers hold
        assert subject.find_cached(REPO) is None
        assert not [other for other in left(cache) if other.endswith(".incomplete")]

    def test_each_file_is_checked_once(self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        checked: list[Path] = []
        check = blobs._check_content
        monkeypatch.setattr(blobs, "_check_content", lambda path, *rest: (checked.append(path), check(path, *rest)))
        hub.add_repo(REPO, {**SMALL, **SAFE_SHARDS})
        subject.fetch(REPO)
        assert len(checked) == 2 + len(SAFE_SHARDS)
        subject.fetch(REPO)
        subject.download(REPO)
        assert len(checked) == 2 + len(SAFE_SHARDS)

    def test_a_cached_file_of_another_size_is_not_used_for_another_commit(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        subject.fetch(REPO).weights.resolve().write_bytes(SAFE[:100])
        hub.add_repo(REPO, {**SMALL, "config.json": b"{}", "model.safetensors": SAFE})
        assert subject.download(REPO).weights.read_bytes() == SAFE


class TestDisk:
    @pytest.mark.parametrize(
        ("weights", "room", "missing"),
        [
            ({"model.safetensors": SAFE}, 0.5, "model.safetensors"),
            (SAFE_SHARDS, 1.5, "model-00001-of-00002.safetensors"),
        ],
        ids=["one file", "shards"],
    )
    def test_too_little_room_is_told_before_the_download(
        self,
        hub: Hub,
        cache: Path,
        monkeypatch: pytest.MonkeyPatch,
        weights: dict[str, bytes],
        room: float,
        missing: str,
    ) -> None:
        hub.add_repo(REPO, {**SMALL, **weights})
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=room * len(SAFE)))
        message = refusal()
        assert message.startswith(f"{missing} of owner/model")
        assert f"0.0 MB are needed, and {cache} has 0.0 MB free; free space there, or name another" in message
        assert hub.files("cdn") == []

    def test_what_is_there_takes_no_more_room(self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        subject.fetch(REPO)
        commit = hub.add_repo(REPO, {**SMALL, "config.json": b"{}", "model.safetensors": SAFE})
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2))
        assert subject.download(REPO).commit == commit

    def test_a_disk_without_symbolic_links(self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The library then warns, and puts the files themselves where links would be."""

        def refuse(*arguments: object, **options: object) -> None:
            raise OSError(errno.EPERM, "no links")

        monkeypatch.setattr(os, "symlink", refuse)
        hub.add_repo(REPO, {**SMALL, "pytorch_model.bin": PICKLE})
        hub.add_pull_request(REPO, {"model.safetensors": SAFE})
        snapshot = subject.fetch(REPO)
        assert snapshot == subject.find_cached(REPO)
        assert snapshot.weights.read_bytes() == SAFE
        assert not snapshot.weights.is_symlink()
        assert subject.cached_bytes(snapshot) == len(SMALL["config.json"]) + 2 + len(SAFE)

    def test_a_cache_that_cannot_be_written(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        hub.connect(monkeypatch, tmp_path / "file" / "cache")
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        message = refusal()
        assert f"{tmp_path}/file/cache" in message
        assert os.strerror(errno.ENOTDIR) in message
        assert "name another folder in HF_HOME" in message

    def test_a_disk_that_fills_up(self, hub: Hub, tmp_path: Path) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE * 1000})
        done = run(hub, tmp_path, before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))")
        assert done.stdout.startswith("model.safetensors of owner/model cannot be had")
        assert f"{tmp_path}/hub: {os.strerror(errno.EFBIG)}; free space there" in done.stdout
        assert done.stderr == ""


class TestTokens:
    def requests(self, hub: Hub) -> set[tuple[str, str | None]]:
        return {(request.server, request.token) for request in hub.log}

    @pytest.mark.parametrize("way", ["HF_TOKEN", "login"])
    def test_a_token_goes_to_the_hub_alone(
        self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        hub.add_repo(REPO, {**SMALL, "pytorch_model.bin": PICKLE}, private=True)
        hub.add_pull_request(REPO, {"model.safetensors": SAFE})
        if way == "HF_TOKEN":
            monkeypatch.setenv("HF_TOKEN", "hf_member")
        else:
            cache.mkdir()
            (cache / "token").write_text("hf_member")
        assert subject.fetch(REPO).weights.read_bytes() == SAFE
        assert self.requests(hub) == {("hub", "Bearer hf_member"), ("cdn", None)}

    def test_without_one_none_is_sent(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        subject.fetch(REPO)
        assert self.requests(hub) == {("hub", None), ("cdn", None)}

    def test_gated_models(self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.connect(monkeypatch, cache, token="hf_member")
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE}, gated=True)
        assert subject.fetch(REPO).weights.read_bytes() == SAFE


def script(before: str = "pass", quiet: bool = False) -> list[str]:
    """A command that fetches the model and prints the error, if there is one."""
    code = (
        f"{before}\nfrom timesformer_cli import errors\nfrom timesformer_cli.checkpoints import hub\n"
        f"try:\n    hub.fetch('owner/model', quiet={quiet})\nexcept errors.CheckpointError as error:\n    print(error)"
    )
    return [sys.executable, "-c", code]


def run(hub: Hub, home: Path, before: str = "pass") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(script(before), env=hub.environment(home), capture_output=True, text=True, check=True)


class TestOutput:
    def test_nothing_where_there_is_no_terminal(self, hub: Hub, tmp_path: Path) -> None:
        """Neither bars, nor what the library and the server have to say of retries and logins."""
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        said = {"X-HF-Warning": "auth; You are sending unauthenticated requests"}
        hub.add_fault("preprocessor_config.json", body=SMALL["preprocessor_config.json"], headers=said)
        hub.add_fault("model.safetensors", server="cdn", cut=100, times=1)
        done = run(hub, tmp_path)
        assert (done.stdout, done.stderr) == ("", "")
        assert (tmp_path / "hub/models--owner--model/refs/main").is_file()

    @pytest.mark.parametrize("quiet", [False, True])
    def test_a_terminal_shows_the_progress_of_the_weights(self, hub: Hub, tmp_path: Path, quiet: bool) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        outer, inner = pty.openpty()
        termios.tcsetwinsize(inner, (24, 80))
        try:
            subprocess.run(script(quiet=quiet), env=hub.environment(tmp_path), stderr=inner, check=True)
            os.set_blocking(outer, False)
            try:
                shown = os.read(outer, 100_000).decode()
            except BlockingIOError:
                shown = ""
        finally:
            os.close(inner)
            os.close(outer)
        assert ("model.safetensors: 100%" in shown) is not quiet
        assert "config.json" not in shown

    def test_others_have_their_progress_bars_and_warnings_back(self, hub: Hub, cache: Path) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        huggingface_hub.logging.set_verbosity_warning()
        subject.fetch(REPO, quiet=True)
        assert huggingface_hub.logging.get_verbosity() == logging.WARNING
        assert not huggingface_hub.utils.are_progress_bars_disabled()

    @pytest.mark.parametrize("path", ["/api/models/", "/lfs/"])
    def test_ctrl_c(self, hub: Hub, tmp_path: Path, path: str) -> None:
        hub.add_repo(REPO, {**SMALL, "model.safetensors": SAFE})
        hub.add_fault(path, hang=True)
        environment = {**hub.environment(tmp_path), "HF_HUB_ETAG_TIMEOUT": "20", "HF_HUB_DOWNLOAD_TIMEOUT": "20"}
        process = subprocess.Popen(script(), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not any(path in request.path for request in hub.log):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        out, error = process.communicate(timeout=10)
        assert time.monotonic() - started < 2
        assert out == ""
        assert error.rstrip().endswith("KeyboardInterrupt")
