"""The Hugging Face Hub: models in its cache, downloads, and a one-line error if a model cannot be had.

All programs of Hugging Face share this cache. huggingface_hub documents its layout; each repository has `blobs`,
`snapshots/<commit>/<file>`, `refs/<revision>` (a file that holds the commit), and `.no_exist/<commit>/<file>` for
files that a commit does not have.
"""

import logging
import os
import re
import shutil
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from timesformer_cli.checkpoints import blobs, exported
from timesformer_cli.checkpoints.folder import ADAPTER_FILE, describe_adapter, shards_in
from timesformer_cli.errors import CheckpointError

CONFIG_FILE = "config.json"
# Files besides config.json that tell how to feed a model. A repository may have any of them, or none.
SIDE_FILES = ("recipe.json", "preprocessor_config.json", "video_preprocessor_config.json")

_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# Used if there is neither; onnx-community has the first. A .pt2 may hold machine code, and is never fetched.
_ONNX = ("onnx/model.onnx", "model.onnx")

# The Hub's account that converts weights, and how the titles of its pull requests begin; transformers uses the same.
_CONVERTER, _CONVERSION_TITLE = "SFconvertbot", "Adding `safetensors` variant"

_MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Digests of file contents: SHA-256 for LFS files, git's SHA-1 for others, MD5 from some mirrors. Files in the cache are
# named by them, so anything else, such as a path, is refused.
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}", re.IGNORECASE)
_REPO_PART = re.compile(r"\w|\w[\w.-]*\w", re.ASCII)
# Weights that the Hub's libraries do not read. This package reads them if it is given the file.
_ORIGINAL_SUFFIXES = (".pyth", ".pth")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Snapshot:
    """A model in the cache.

    `folder` holds `config.json` and those of `SIDE_FILES` that the repository has, all at `commit`. `weights`
    is the file to read; an index stands for its shards, which lie beside it. It may lie in the folder of
    another commit: that of the Hub's own conversion to safetensors.
    """

    folder: Path
    commit: str
    weights: Path


class UnknownError(CheckpointError):
    """The Hub has no such repository, or the cache none and the network is forbidden: perhaps the name is of a file."""


# Paths below a repository's address that name a revision, and perhaps a file.
_VIEWS = ("tree", "blob", "resolve", "raw", "commit", "commits")


def parse_address(name: str) -> tuple[str, str | None] | None:
    """The repository, and the revision if it is stated, of the address of a model on the Hub; None for other names.

    That is the address of a page, of a folder's or a file's page, or of a file; with or without https://.

    Raises:
        CheckpointError: the address of something else on the Hub, or of a folder inside a repository.
    """
    if "/" not in name:
        return None
    from huggingface_hub import constants

    try:
        address = urlsplit(name if "://" in name else f"https://{name}")
    except ValueError:  # brackets that no address has
        return None
    hosts = ("huggingface.co", "www.huggingface.co", "hf.co", urlsplit(constants.ENDPOINT).netloc)
    of_files = address.scheme == "hf"  # as fsspec writes them: hf://owner/name@revision/file
    if not of_files and (address.netloc.lower() not in hosts or address.scheme not in ("http", "https")):
        return None
    path = f"{address.netloc}/{address.path}" if of_files else address.path
    parts = [unquote(part) for part in path.split("/") if part]
    if parts[:1] == ["models"]:
        parts = parts[1:]
    repo = "/".join(parts[:2])
    view, below = parts[2:3], parts[3:]
    if of_files and ("@" in repo or view):
        repo, _, revision = repo.partition("@")
        view, below = ["resolve"], [revision or _MAIN, *parts[2:]]
    if not is_repo_id(repo) or parts[0] in ("datasets", "spaces") or (view and (view[0] not in _VIEWS or not below)):
        raise CheckpointError(
            f"{name}: not the address of a model on the Hub, which is {constants.ENDPOINT}/owner/name, perhaps with "
            "/tree/REVISION"
        )
    # A pull request's revision has slashes of its own.
    count = 3 if below[:2] == ["refs", "pr"] else 1
    stated, inside = "/".join(below[:count]), below[count:]
    if len(inside) > 1 or (inside and view == ["tree"]):
        raise CheckpointError(
            f"{name}: a folder inside the repository; only models at its top are read: download it with "
            f"`hf download {repo}`, and name that folder"
        )
    return repo, stated or None


def is_repo_id(name: str) -> bool:
    """Whether `name` has the form owner/repository. The repository need not exist."""
    parts = name.split("/")
    return (
        len(parts) == 2
        and len(name) <= 96
        and all(_REPO_PART.fullmatch(part) for part in parts)
        and not any(text in name for text in ("--", ".."))
        and not name.endswith(".git")
    )


def find_cached(repo: str, revision: str | None = None) -> Snapshot | None:
    """The model in the cache, if it is complete; never uses the network.

    `revision` is a branch, a tag, `refs/pr/N` or a commit; None is `main`. A complete model has a
    `config.json`, weights with all their shards, and at least one of `SIDE_FILES`, unless the cache
    knows that the repository has none of these: a program that needs only the weights does not
    download them. Safetensors are preferred to `.bin`, and both to ONNX.
    """
    found = _look_up(_Source.of(repo, revision))
    return found if isinstance(found, Snapshot) else None


def fetch(repo: str, revision: str | None = None, *, offline: bool = False, quiet: bool = False) -> Snapshot:
    """The model from the cache, or else from the Hub; a complete one in the cache needs no request.

    `offline`, like the variable HF_HUB_OFFLINE, forbids the network. `quiet` hides progress bars.

    Raises:
        CheckpointError: as `download`; or offline, and a file is not in the cache.
    """
    source = _Source.of(repo, revision)
    found = _look_up(source)
    if isinstance(found, Snapshot):
        return found
    if offline:
        raise _not_cached(source, found, "`offline`")
    return download(repo, revision, quiet=quiet)


def download(repo: str, revision: str | None = None, *, quiet: bool = False) -> Snapshot:
    """Download the model's missing files into the cache, as `revision` is on the Hub now.

    Weights are the first that exists of: the repository's safetensors; the Hub's own conversion of its
    weights to safetensors, in a pull request; its `.bin`; its ONNX model, with the files that hold its
    weights. The cache records the commit of `revision` after the last file, so after an interrupted
    download an older, complete one stays in use. Tokens are huggingface_hub's: HF_TOKEN or a saved
    login. Progress bars go to standard error if it is a terminal.

    Raises:
        CheckpointError: a file could not be had; says which file of which repository, why, and what to do.
    """
    from huggingface_hub import constants

    source = _Source.of(repo, revision)
    if constants.HF_HUB_OFFLINE:
        found = _look_up(source)
        if isinstance(found, Snapshot):
            return found
        raise _not_cached(source, found, "HF_HUB_OFFLINE=1")
    with _tamed():
        return _download(source, bars=not quiet)


def cache_folder() -> Path | None:
    """The folder of the cache, which need not exist.

    None if it should be in the home directory of a user who has none, as some containers have.
    """
    from huggingface_hub import constants

    try:
        return Path(constants.HF_HUB_CACHE).expanduser().resolve()
    except RuntimeError:
        return None


def obstacle(repo: str) -> tuple[str, str] | None:
    """Why a download could not begin now, and what to do; None if the Hub answers.

    It is asked what a download asks first, once, for as long as any request may take (HF_HUB_ETAG_TIMEOUT).
    """
    source = _Source.of(repo, None)
    try:
        with _tamed():
            _list_files(source, source.revision)
    except Exception as error:
        return _explain(error, source)
    return None


def cached_bytes(snapshot: Snapshot) -> int:
    """Bytes that the model takes on disk: every file of its folder, and its weights if they lie elsewhere."""
    files = {*snapshot.folder.rglob("*"), snapshot.weights}
    with suppress(ValueError):
        files |= {snapshot.weights.with_name(name) for name in _shards(snapshot.weights)}
    return sum(path.stat().st_size for path in files if path.is_file())


@dataclass(frozen=True)
class _Source:
    """A repository at a revision, as the user named them, and its places on the network and in the cache.

    `seconds` limits each request that downloads nothing (HF_HUB_ETAG_TIMEOUT). `placed`: whether the cache has a place;
    see `cache_folder`.
    """

    repo: str
    revision: str
    cache: Path
    placed: bool
    endpoint: str
    seconds: float

    @classmethod
    def of(cls, repo: str, revision: str | None) -> "_Source":
        from huggingface_hub import constants

        cache = cache_folder()
        return cls(
            repo=repo,
            revision=revision or _MAIN,
            cache=(cache or Path(constants.HF_HUB_CACHE)) / f"models--{repo.replace('/', '--')}",
            placed=cache is not None,
            endpoint=constants.ENDPOINT,
            seconds=constants.HF_HUB_ETAG_TIMEOUT,
        )

    def __str__(self) -> str:
        return self.repo if self.revision == _MAIN else f"{self.repo} (revision {self.revision})"

    @property
    def on_the_hub(self) -> bool:
        """False if HF_ENDPOINT names another server."""
        return self.endpoint == "https://huggingface.co"

    def snapshot(self, commit: str) -> Path:
        return self.cache / "snapshots" / commit

    def commit_of(self, revision: str) -> str | None:
        """The commit that the cache records for a revision."""
        if _COMMIT.fullmatch(revision):
            return revision
        try:
            commit = (self.cache / "refs" / revision).read_text(encoding="ascii")
        except (OSError, ValueError):
            return None
        return commit if _COMMIT.fullmatch(commit) else None

    def remember(self, revision: str, commit: str) -> None:
        """Store the commit of a revision. If the cache cannot be written, the next run asks the Hub again."""
        if self.commit_of(revision) == commit:
            return
        path = self.cache / "refs" / revision
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(commit, encoding="ascii")
            partial.replace(path)

    def absent(self, commit: str, name: str) -> Path:
        """The empty file that marks a file as absent from a commit."""
        return self.cache / ".no_exist" / commit / name


@dataclass(frozen=True)
class _Listing:
    """A commit on the Hub with its files.

    For each file: its size in bytes, and the hash of its content: SHA-256 (64 digits) for LFS files, the SHA-1 of
    git's blob (40 digits) for others. None if the server does not say.
    """

    commit: str
    sizes: Mapping[str, int | None]
    hashes: Mapping[str, str | None]

    def first(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if name in self.sizes), None)

    def pickles(self) -> dict[str, str | None]:
        """Hashes of the weights in PyTorch's format, with those of their shards and index."""
        return {name: hash_ for name, hash_ in self.hashes.items() if re.fullmatch(r"pytorch_model[^/]*", name)}


def _look_up(source: _Source) -> Snapshot | str:
    """The model in the cache, or the name of the file that is missing there."""
    commit = source.commit_of(source.revision) if source.placed else None
    if commit is None or not os.path.isfile(source.snapshot(commit) / CONFIG_FILE):
        return CONFIG_FILE
    folder = source.snapshot(commit)
    known = any(os.path.isfile(folder / name) for name in SIDE_FILES)
    if not known and not all(os.path.isfile(source.absent(commit, name)) for name in SIDE_FILES):
        return SIDE_FILES[1]
    folders = [folder]
    if converted := source.commit_of(_conversion_ref(commit)):
        folders.append(source.snapshot(converted))
    weights = [folder / name for name in _SAFETENSORS for folder in folders]
    weights += [folder / name for name in _PICKLES + _ONNX]
    for path in weights:
        if os.path.isfile(path) and _missing_shard(path) is None:
            return Snapshot(folder, commit, path)
    begun = next((path for path in weights if os.path.isfile(path)), None)
    return f"{_SAFETENSORS[0]} or {_PICKLES[0]}" if begun is None else str(_missing_shard(begun))


def _missing_shard(weights: Path) -> str | None:
    """The first shard that is not beside its index or graph; the index itself if it cannot be read."""
    try:
        return next((name for name in _shards(weights) if not os.path.isfile(weights.with_name(name))), None)
    except ValueError:
        return weights.name


def _shards(weights: Path) -> list[str]:
    """The files beside `weights` that an index of shards lists, or that hold the weights of an ONNX model.

    Raises ValueError for an index that cannot be read.
    """
    if weights.suffix == ".onnx":
        return exported.companions(weights)
    if not weights.name.endswith(".index.json"):
        return []
    return shards_in(weights)


def _conversion_ref(commit: str) -> str:
    """The ref that holds the commit of the conversion of a commit's weights."""
    return f"conversion-of/{commit}"


def _download(source: _Source, *, bars: bool) -> Snapshot:
    if not is_repo_id(source.repo):
        raise _cannot(source, CONFIG_FILE, "that is not the name of a repository", "names have the form owner/name")
    if not source.placed:
        raise _cannot(source, CONFIG_FILE, "there is no home directory for the cache", "set HF_HOME to a folder for it")
    if ".." in source.revision or source.revision.startswith("/"):  # git has no such names, and they are paths here
        raise _cannot(source, CONFIG_FILE, *_NO_REVISION)
    with _wanted(source, CONFIG_FILE):
        listing = _list_files(source, source.revision)
    if CONFIG_FILE not in listing.sizes:
        raise _cannot(source, CONFIG_FILE, "the repository has no such file", _other_choice(source, listing))
    weights, origin = _choose_weights(source, listing)
    for name in (CONFIG_FILE, *SIDE_FILES):
        if name in listing.sizes:
            _get(source, listing, name, bars=False)
        else:
            _note_absence(source.absent(listing.commit, name))
    path = _get(source, origin, weights, bars=bars)
    try:
        shards = _shards(path)
    except ValueError as error:
        raise _cannot(source, weights, str(error), "choose another revision or repository") from error
    folder = weights.removesuffix(path.name)
    shards = [f"{folder}{name}" for name in shards]
    _require_space(source, origin, shards)
    for name in shards:
        _get(source, origin, name, bars=bars)
    if origin is not listing:
        source.remember(_conversion_ref(listing.commit), origin.commit)
    source.remember(source.revision, listing.commit)
    return Snapshot(source.snapshot(listing.commit), listing.commit, path)


def _note_absence(path: Path) -> None:
    with suppress(OSError):  # a read-only cache works too
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _list_files(source: _Source, revision: str) -> _Listing:
    from huggingface_hub import HfApi

    api, seconds = HfApi(endpoint=source.endpoint), source.seconds
    info = _within(
        seconds, lambda: api.model_info(source.repo, revision=revision, timeout=seconds, files_metadata=True)
    )
    files = info.siblings
    if files is None or _COMMIT.fullmatch(str(info.sha)) is None:
        raise ValueError("no commit or no list of files")
    listing = _Listing(
        commit=str(info.sha),
        sizes={file.rfilename: file.size for file in files},
        hashes={file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in files},
    )
    for name in listing.sizes:
        path = PureWindowsPath(name)  # which knows the separators of every system
        if not name or "\0" in name or path.anchor or ".." in path.parts:
            raise ValueError(f"it lists {name[:100]!r}, which is not a file of a repository")
        size, digest = listing.sizes[name], listing.hashes[name]
        if not (size is None or (isinstance(size, int) and size >= 0)):
            raise ValueError(f"it lists {name[:100]!r} with the size {size!r}")
        if digest is not None and not (len(digest) in (40, 64) and _DIGEST.fullmatch(digest)):
            raise ValueError(f"it lists {name[:100]!r} with the hash {digest[:100]!r}")
    return listing


def _choose_weights(source: _Source, listing: _Listing) -> tuple[str, _Listing]:
    """The weight file to download, and the commit that has it."""
    if name := listing.first(_SAFETENSORS):
        return name, listing
    pickle = listing.first(_PICKLES)
    if pickle is None and (name := listing.first(_ONNX)):
        return name, listing
    if pickle is None:
        wanted = f"{_SAFETENSORS[0]} or {_PICKLES[0]}"
        raise _cannot(source, wanted, "the repository has no such file", _other_choice(source, listing))
    converted = _find_conversion(source, listing)
    if converted and (name := converted.first(_SAFETENSORS)):
        return name, converted
    return pickle, listing


def _find_conversion(source: _Source, listing: _Listing) -> _Listing | None:
    """The Hub bot's conversion of exactly these weights to safetensors, from its pull request.

    Anyone can open a pull request with different weights. So its author must be the bot, and it must
    be made from the weights of `listing`, hash for hash. Without it, the listed weights are read: any
    failure here gives None.
    """
    pickles = listing.pickles()
    if None in pickles.values():
        return None
    try:
        for number in _conversion_requests(source):
            converted = _list_files(source, f"refs/pr/{number}")
            if converted.pickles() == pickles and converted.first(_SAFETENSORS):
                return converted
    except Exception:
        return None
    return None


def _conversion_requests(source: _Source) -> list[int]:
    """Numbers of the bot's pull requests that were not rejected."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=source.endpoint)
    found = _within(
        source.seconds,
        lambda: list(api.get_repo_discussions(source.repo, author=_CONVERTER, discussion_type="pull_request")),
    )
    return [
        request.num
        for request in found
        if request.author == _CONVERTER
        and request.title.startswith(_CONVERSION_TITLE)
        and request.status in ("open", "merged")
    ]


def _get(source: _Source, origin: _Listing, name: str, *, bars: bool) -> Path:
    """One file in the cache, downloaded if need be, and then checked against the listing.

    huggingface_hub names what it downloads by the ETag that the server sends with it, reads to the end whatever comes,
    and checks nothing but its length. So only its transfer is used, and names come from the listing.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    path = source.snapshot(origin.commit) / name
    if os.path.isfile(path):
        return path
    if name not in origin.sizes:
        raise _cannot(source, name, "the repository has no such file, but its index lists it", "choose another one")
    _require_space(source, origin, [name])
    seconds = source.seconds
    with _wanted(source, name), _progress(bars):
        url = hf_hub_url(source.repo, name, revision=origin.commit, endpoint=source.endpoint)
        found = _within(seconds, lambda: get_hf_file_metadata(url, timeout=seconds))
        if found.commit_hash != origin.commit:
            raise ValueError("it sent a file of another commit")
        if found.etag is not None and not _DIGEST.fullmatch(found.etag):
            raise ValueError(f"it sent the ETag {found.etag[:100]!r}, which is not a digest")
        size = found.size if origin.sizes[name] is None else origin.sizes[name]
        digest = origin.hashes[name] or found.etag
        if size is None or digest is None:
            raise ValueError("it does not state the size or the digest of the file")
        blob = source.cache / "blobs" / digest
        lock = source.cache.parent / ".locks" / source.cache.name / f"{digest}.lock"  # as huggingface_hub names it
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            fresh = not os.path.isfile(blob) or blob.stat().st_size != size
            if fresh:
                blob.parent.mkdir(parents=True, exist_ok=True)
                blobs.fetch(blob, name, url, found.location, size, origin.hashes[name])
            blobs.link(blob, path, fresh=fresh)
    return path


def _require_space(source: _Source, origin: _Listing, names: Sequence[str]) -> None:
    """Raise CheckpointError unless the files fit on the disk; the library notices only when the disk is full."""
    folder = next(folder for folder in (source.cache, *source.cache.parents) if os.path.exists(folder))
    blobs = source.cache / "blobs"  # a file unchanged since another commit is already here
    missing = [name for name in names if not os.path.isfile(blobs / str(origin.hashes.get(name)))]
    needed, free = sum(origin.sizes.get(name) or 0 for name in missing), shutil.disk_usage(folder).free
    if needed > free:
        reason = f"{needed / 1e6:.1f} MB are needed, and {source.cache.parent} has {free / 1e6:.1f} MB free"
        raise _cannot(source, missing[0], reason, _OTHER_CACHE)


def _within(seconds: float, call: Callable[[], _T]) -> _T:
    """The result of `call`, or TimeoutError if it takes longer in total.

    The library's own timeouts start again for each address of the server, and do not cover the lookup
    of these addresses: without a network that can take minutes.
    """
    answer: Future[_T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="hub request").start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        if answer.done():
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from None


@contextmanager
def _tamed() -> Iterator[None]:
    """Keep the library's warnings (of retries, logins, symbolic links) off standard error.

    The result or the error tells what they mean. HF_HUB_VERBOSITY and HF_DEBUG still work.
    """
    from huggingface_hub.utils import logging as hub_logging

    level = hub_logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if level == logging.WARNING:
            hub_logging.set_verbosity(logging.ERROR)
        try:
            yield
        finally:
            hub_logging.set_verbosity(level)


@contextmanager
def _progress(shown: bool) -> Iterator[None]:
    """Progress bars of the library, which are hidden without a terminal."""
    from huggingface_hub import utils

    if shown or utils.are_progress_bars_disabled():  # type: ignore[attr-defined]
        yield
        return
    utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        utils.enable_progress_bars()  # type: ignore[attr-defined]


_NO_DOWNLOAD = "`model=camera-motion` works without a download"
_OTHER_CACHE = "free space there, or name another folder in HF_HOME"
_LOGIN = "run `hf auth login` or set HF_TOKEN"
_NO_REPOSITORY = "no such repository, or a private one"
_NO_REVISION = ("no such revision", "give a branch, a tag or a commit of the repository with `revision`")


def _cannot(
    source: _Source, name: str, reason: str, advice: str, kind: type[CheckpointError] = CheckpointError
) -> CheckpointError:
    place = "the Hugging Face Hub" if source.on_the_hub else f"{source.endpoint} (HF_ENDPOINT)"
    return kind(f"{name} of {source} cannot be had from {place}: {reason}; {advice}; {_NO_DOWNLOAD}")


def _not_cached(source: _Source, missing: str, switch: str) -> CheckpointError:
    revision = "" if source.revision == _MAIN else f" revision={source.revision}"
    kind = UnknownError if missing == CONFIG_FILE else CheckpointError
    return kind(
        f"{missing} of {source} is not in the cache ({source.cache.parent}), and {switch} forbids a download; "
        f"run `timesformer models download {source.repo}{revision}` once without it; {_NO_DOWNLOAD}"
    )


def _other_choice(source: _Source, listing: _Listing) -> str:
    """What to do about a repository that lacks a needed file, depending on its other files."""
    if ADAPTER_FILE in listing.sizes:
        return f"it holds {describe_adapter()}"
    for name in listing.sizes:
        step = name.partition("/")[0]
        if name == f"{step}/{CONFIG_FILE}" and step.startswith("checkpoint-"):
            return (
                f"it holds checkpoints of a training run, such as {step}: download one and give the path of its folder"
            )
        if name.endswith(_ORIGINAL_SUFFIXES):
            return f"download its {name} with `hf download {source.repo} {name}` and give the path of that file"
    names = [name for name in listing.sizes if name not in (".gitattributes", "README.md")]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"it has {shown or 'no files'}; choose a repository with a TimeSformer in the format of transformers"


@contextmanager
def _wanted(source: _Source, name: str) -> Iterator[None]:
    """Turn the library's errors into one line: file `name` could not be had, and why."""
    try:
        yield
    except Exception as error:
        reason, advice = _explain(error, source)
        kind = UnknownError if reason == _NO_REPOSITORY else CheckpointError
        raise _cannot(source, name, reason, advice, kind) from error


def _explain(error: BaseException, source: _Source) -> tuple[str, str]:
    """Why a request or a download failed, and what to do.

    The errors of the network belong to the HTTP client of the library's version, so they are
    recognised by their causes.
    """
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return _explain_answer(error, source)
    if isinstance(error, OSError) and error.errno is not None:
        # Clients wrap the errors of their sockets; this one is from the file system.
        return f"{error.filename or source.cache.parent}: {os.strerror(error.errno)}", _OTHER_CACHE
    check = _check(source)
    if isinstance(error, blobs.WrongContentError):
        return str(error), f"try again; if this repeats, {check}"
    message = str(error).strip().split("\n")[0] or type(error).__name__
    if message.startswith("Consistency check failed: "):
        return message.removeprefix("Consistency check failed: ").rstrip("."), "try again"
    if type(error) is TimeoutError:
        return message, f"{check}, and try again"
    if isinstance(error, (ValueError, KeyError, TypeError, AttributeError)):
        return f"the server is not a Hub ({message})", check
    causes = list(_causes(error))
    if any("timeout" in type(cause).__name__.lower() for cause in causes):
        return f"the server stopped answering ({message})", f"{check}, and try again"
    below = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
    return (
        f"the connection failed ({below})" if below else f"the transfer failed ({message})",
        f"{check}, and try again",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explain_answer(error: Any, source: _Source) -> tuple[str, str]:
    """The same for an error status of the server."""
    from http.client import responses

    from huggingface_hub import errors

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return "it is gated", f"accept its terms on {source.endpoint}/{source.repo}, then {_LOGIN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return _NO_REVISION
    if isinstance(error, errors.EntryNotFoundError):
        return "the repository has no such file", "choose another revision or repository"
    with_token = "authorization" in error.response.request.headers
    if isinstance(error, errors.RepositoryNotFoundError) or (status == 401 and not with_token):
        return _NO_REPOSITORY, f"check the name; for a private one, {_LOGIN}"
    if status == 401:
        return "the access token was refused", "log in again with `hf auth login`, or correct or unset HF_TOKEN"
    answer = f"the server answered {status} {responses.get(status, '')}".rstrip()
    if status == 403:
        return answer, f"the access token may not read it: {_LOGIN} for one that may"
    if status == 429:
        return answer, f"wait a few minutes; for a higher limit, {_LOGIN}"
    if status >= 500:
        return answer, "try again in a few minutes"
    return answer, _check(source)


def _check(source: _Source) -> str:
    return "check the network, or a proxy" if source.on_the_hub else "check HF_ENDPOINT and the network"
