"""Work that is killed before each of its steps on the disk: `killed_everywhere`, and a program that does it.

The program is a process of its own, since a process with threads is no good to fork: `kills.py CASES FOLDER URL`
prints how often the result of each case was the old one and the new one, as JSON. The folder has one for each case, and
at the URL is a Hub with two commits of a model.
"""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from timesformer_cli.files import whole_folder

# What Python tells of before it changes something on the disk. Of a call into the C library it tells the name.
_CHANGES = {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "ctypes.dlsym"}


def killed_everywhere(
    work: Callable[[], object], prepare: Callable[[], None], seen: Callable[[], str], last: int = 1000
) -> Counter[str]:
    """What `seen` says after `work` was killed before its first change on the disk, its second, and so on to its end.

    `prepare` comes before each. Of the changes before the `last` only every sixth has its turn.
    """
    found: Counter[str] = Counter()
    total = _steps(work, prepare)
    for step in range(1, total + 2):
        if step % 6 == 0 or step > total - last:
            prepare()
            if (child := os.fork()) == 0:
                _work_until(work, step)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status) is (step <= total), f"step {step} of {total} ended with {status}"
            found[seen()] += 1
    return found


def _steps(work: Callable[[], object], prepare: Callable[[], None]) -> int:
    """How many changes there are."""
    prepare()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        _work_until(work, None, writer)
    os.close(writer)
    with os.fdopen(reader) as said:
        total = said.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "the work fails by itself"
    return int(total)


def _work_until(work: Callable[[], object], step: int | None, report: int | None = None) -> None:
    changes = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in _CHANGES or writes:
            changes += 1
            if changes == step:
                os.kill(os.getpid(), signal.SIGKILL)

    code: Any = 1
    try:
        sys.addaudithook(count)
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        if report is not None:
            os.write(report, str(changes).encode())
        os._exit(code)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder but the hidden ones, whatever a killed process left among these."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name[0] != "."}


def _replaced(folder: Path, work: Callable[[Path], object], old: dict[str, bytes], last: int) -> Counter[str]:
    """Over a folder with the files `old`; what is there must be these, or what `work` makes of them."""
    target = folder / "target"

    def prepare() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for name, content in old.items():
            (target / name).write_bytes(content)

    prepare()
    work(target)
    new = contents(target)
    assert new != old

    def seen() -> str:
        there = contents(target) if target.is_dir() else None
        return "old" if there == old else "new" if there == new else f"neither: {sorted(there or ())}"

    return killed_everywhere(lambda: work(target), prepare, seen, last)


def save(folder: Path, url: str) -> Counter[str]:
    """What `models convert` writes: over another model, with a file of the user's beside it."""
    from timesformer_cli.network.model import TimesformerForVideoClassification
    from timesformer_cli.specs import TimesformerConfig

    shape = {"image_size": 16, "hidden_size": 16, "num_attention_heads": 1, "num_hidden_layers": 1}
    names = [{0: f"{model} 0", 1: f"{model} 1"} for model in "ab"]
    old, new = (TimesformerForVideoClassification(TimesformerConfig(**shape, id2label=name)) for name in names)
    old.save_pretrained(folder / "a")
    return _replaced(folder, new.save_pretrained, contents(folder / "a") | {"notes.txt": b"mine"}, 8)


def one_by_one(folder: Path, url: str) -> Counter[str]:
    """In a folder that cannot be replaced as a whole; without a config.json it is no model, old or new."""
    old, new = ({"config.json": name, "model.safetensors": name} for name in (b"old", b"new"))
    (folder / "m" / "runs").mkdir(parents=True)

    def put(files: dict[str, bytes], where: Path) -> None:
        for name, content in files.items():
            (where / name).write_bytes(content)

    def work() -> None:
        with whole_folder(folder / "m", "config.json") as staging:
            put(new, staging)

    def seen() -> str:
        there = {path.name: path.read_bytes() for path in (folder / "m").iterdir() if path.is_file()}
        mixed = "none" if "config.json" not in there else f"neither: {there}"
        return "old" if there == old else "new" if there == new else mixed

    return killed_everywhere(work, lambda: put(old, folder / "m"), seen)


def export(folder: Path, url: str) -> Counter[str]:
    """Its last part: what is made gets its name."""
    from timesformer_cli.jobs.export import bundle

    def work(target: Path) -> None:
        with bundle.staged(target) as staging:
            (staging / "model.onnx").write_bytes(b"new")
            bundle.write_sums(staging)
            bundle.publish(staging, target)

    return _replaced(folder, work, {"model.pt2": b"old", bundle.SUMS: b""}, 8)


def merge(folder: Path, url: str) -> Counter[str]:
    """Over an output of other shards: the records are of one run, and settings beside them are never of the other."""
    from timesformer_cli.cli import main
    from timesformer_cli.results.journal import Ledger, meta_of
    from timesformer_cli.results.settings import Combination, Provenance, Shard

    def shard(name: str) -> str:
        provenance = Provenance(
            model=name, source=name, labels=("x",), recipe=Combination("original", "logits"), shard=Shard(1, 1)
        )
        with Ledger(folder / f"{name}.jsonl", "jsonl", provenance) as ledger:
            error = {"kind": "decode", "message": name}
            ledger.write({"path": "v.mp4", "status": "error", "model": name, "error": error})
        return str(folder / f"{name}.jsonl")

    shards = {name: shard(name) for name in ("old", "new")}
    target = folder / "out.jsonl"

    def work(name: str = "new") -> None:
        main(["merge", shards[name], "-o", str(target), "--overwrite", "-q"])

    with suppress(SystemExit):
        work("old")
    old = {path: path.read_bytes() for path in (target, meta_of(target))}

    def prepare() -> None:
        for path, content in old.items():
            path.write_bytes(content)

    def seen() -> str:
        records = target.read_text()
        name = json.loads(records)["model"]
        meta = meta_of(target)
        fits = not meta.exists() or json.loads(meta.read_text())["settings"]["model"] == name
        return str(name) if fits else f"neither: {name} with other settings"

    return killed_everywhere(work, prepare, seen, 8)


def download(folder: Path, url: str) -> Counter[str]:
    """A newer commit than the one in the cache; each step takes some requests."""
    from timesformer_cli.checkpoints import hub

    cache = Path(os.environ["HF_HOME"]) / "hub"
    hub.download("owner/model", "v1")
    for ref in cache.glob("models--*/refs/v1"):
        ref.rename(ref.with_name("main"))
    shutil.copytree(cache, folder / "old", symlinks=True)

    def prepare() -> None:
        shutil.rmtree(cache)
        shutil.copytree(folder / "old", cache, symlinks=True)

    def seen() -> str:
        snapshot = hub.find_cached("owner/model")
        if snapshot is None:
            return "neither"
        config, weights = (snapshot.folder / "config.json").read_bytes(), snapshot.weights.read_bytes()
        return {b"old": "old", b"new": "new"}[weights[:3]] if config[2:5] == weights[:3] else "neither: mixed"

    return killed_everywhere(lambda: hub.download("owner/model"), prepare, seen, 8)


if __name__ == "__main__":
    print(json.dumps({case: globals()[case](Path(sys.argv[2]) / case, sys.argv[3]) for case in sys.argv[1].split(",")}))
