"""Damage files as strangers might, and run the commands that read them: no traceback, no "bug", no other exit code.

    python -m benchmarks.strangers [--seed 0] [--timeout 60] [--only annotations]

Annotations, scores and records (450), recipes and processors (306), configs (144) and weight files (91) are changed
with a fixed seed: values of a different type or size, fields removed or added, texts cut and flipped, JSON nested
100,000 deep, tensors renamed or of a different shape or type, shards with odd names. The command that reads the file
runs in a process of its own, with a time limit and 8 GiB of address space. Prints the exit codes of each kind, and
every command that ended in a way that it must not.
"""

import argparse
import collections
import copy
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Commands run in forks of this process, and threads of torch would not live on there.
os.environ["OMP_NUM_THREADS"] = "1"

EXIT_CODES = {0, 1, 2, 3, 130, 143}
_MEMORY = 8 * 2**30

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 2**31, 2**63, 10**400, -(10**400), 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", " ", "0", "a", "../x", "/etc/passwd", "a\0b", "\ud800", "<b>", "x" * 100_000, "NaN", "bgr", "👻", "\x1b[2J"),
    *([], [0], [[]], [1, 2, 3], ["a"], [None], {}, {"a": 1}, {"": {}}, [10**400] * 3, list(range(1000))),
)
_DEEP = "[" * 100_000


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value in JSON."""
    yield path
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*path, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from places(part, (*path, number))


def changed_json(text: str, rng: random.Random) -> str:
    """The JSON with one or two values replaced, left out, doubled or added."""
    value = json.loads(text)
    for _ in range(rng.choice([1, 1, 2])):
        path = rng.choice(list(places(value)))
        odd = copy.deepcopy(rng.choice(ODD))
        if not path:
            if rng.random() < 0.3:
                return json.dumps(odd)
            continue
        holder = value
        for step in path[:-1]:
            holder = holder[step]
        way = rng.randrange(4)
        if way == 0 and isinstance(holder, dict):
            del holder[path[-1]]
        elif way == 1 and isinstance(holder, dict):
            holder[str(rng.choice(["extra", "", "__class__", "a" * 1000]))] = odd
        else:
            holder[path[-1]] = odd
    return json.dumps(value)


def changed_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, doubled or nested, for any format."""
    data = bytearray(content)
    way = rng.randrange(5)
    if way == 0:
        for _ in range(rng.choice([1, 5, 50])):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif way == 1:
        del data[rng.randrange(len(data)) :]
    elif way == 2:
        start = rng.randrange(len(data))
        data[start:start] = data[start : start + 200] * rng.choice([1, 100])
    elif way == 3:
        start = rng.randrange(len(data))
        data[start:start] = _DEEP.encode()
    else:
        lines = data.splitlines(keepends=True)
        rng.shuffle(lines)
        data = bytearray(b"".join(lines))
    return bytes(data)


def changed(content: bytes, rng: random.Random) -> bytes:
    """For JSON mostly with changed values; for any other format with changed bytes."""
    text = content.decode("latin-1")
    if text.startswith(("{", "[")) and "\n{" not in text and rng.random() < 0.75:
        return changed_json(text, rng).encode("utf-8", "surrogatepass")
    if text.startswith("{") and "\n{" in text and rng.random() < 0.75:  # JSON lines
        lines = text.splitlines()
        number = rng.randrange(len(lines))
        lines[number] = changed_json(lines[number], rng)
        return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
    return changed_bytes(content, rng)


def changed_weights(file: Path, rng: random.Random) -> None:
    """A safetensors file with tensors removed, added, of a different shape or type, or with changed bytes."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    name = rng.choice(sorted(tensors))
    way = rng.randrange(9)
    if way == 0:
        del tensors[name]
    elif way == 1:
        tensors["../" + name] = tensors[name].clone()
    elif way == 2:
        tensors[name] = tensors[name].flatten()[:1].clone()
    elif way == 3:
        kinds = (torch.complex64, torch.int8, torch.int64, torch.bool, torch.float64, torch.uint8, torch.bfloat16)
        tensors[name] = tensors[name].to(rng.choice(kinds))
    elif way == 4:
        tensors[name] = torch.full_like(tensors[name], rng.choice([float("nan"), float("inf"), 1e38]))
    elif way == 5:
        tensors[name] = torch.zeros(rng.choice([(0,), (1, 0, 3), (2**20,), (1,) * 12]))
    save_file(tensors, file)
    data = bytearray(file.read_bytes())
    if way == 6:
        for _ in range(rng.choice([1, 10, 100])):
            data[rng.randrange(min(len(data), rng.choice([9, 500, len(data)])))] = rng.randrange(256)
    elif way == 7:
        del data[rng.randrange(len(data)) :]
    elif way == 8:
        data[:8] = rng.choice([0, 1, 2**40, 2**63, 2**64 - 1]).to_bytes(8, "little")
    file.write_bytes(data)


class Material:
    """The files that are damaged: a model, a dataset and its lists, a run of `evaluate`, outputs of `predict`."""

    def __init__(self, folder: Path) -> None:
        from testing.clips import LABELS, write_model, write_video
        from timesformer_cli.checkpoints.folder import save_recipe
        from timesformer_cli.checkpoints.resolve import resolve

        self.folder = folder
        os.chdir(folder)
        write_model(folder / "model")
        save_recipe(folder / "model", resolve("model").recipe)
        labels = list(LABELS)
        for number in range(4):
            video = folder / f"videos/{labels[number]}/clip{number}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            write_video(video, level=20 * number)
        paths = sorted(path.relative_to(folder / "videos").as_posix() for path in (folder / "videos").rglob("*.mp4"))
        pairs = [(path, path.partition("/")[0]) for path in paths]
        rows = [{"path": path, "label": label} for path, label in pairs]
        ssv2 = [{"id": path.removesuffix(".mp4"), "template": label} for path, label in pairs]
        texts = {
            "list.csv": "".join(f"{path} {labels.index(label)}\n" for path, label in pairs),
            "table.csv": "path,label\n" + "".join(f"{path},{label}\n" for path, label in pairs),
            "kinetics.csv": "label,youtube_id,time_start,time_end,split\n"
            + "".join(f'"{label}",{path.removesuffix(".mp4")},0,10,val\n' for path, label in pairs),
            "rows.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
            "ssv2.json": json.dumps(ssv2),
        }
        self.annotations = {name: text.encode() for name, text in texts.items()}
        assert run(["evaluate", "videos", "-m", "model", "-o", "run", "--workers", "0", "-q"])[0] == 0
        for output in (["shard.jsonl", "--shard", "1/2"], ["shard.jsonl", "--shard", "2/2"], ["whole.jsonl"]):
            made = run(["predict", "videos", "-m", "model", "--workers", "0", "-o", *output])
            assert made[0] == 0, made


def run(args: list[str], timeout: float = 60) -> tuple[int, str]:
    """Exit code, negative for a signal, and standard error of the command in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(write, 2)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(timeout))
        code: Any = 1
        try:
            from timesformer_cli.cli import main

            main(args)
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)  # what the parent has open, and its temporary folder, is the parent's
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


Case = Callable[[random.Random], list[str]]


def cases(material: Material) -> dict[str, list[Case]]:
    """By kind: what writes a damaged file into the current folder, and gives the command that reads it."""
    model = material.folder / "model"

    def annotations(name: str, text: bytes) -> Case:
        def case(rng: random.Random) -> list[str]:
            Path(name).write_bytes(changed(text, rng))
            videos = str(material.folder / "videos")
            return ["evaluate", videos, "-a", name, "-m", str(model), "-o", "run", "--workers", "0", "--limit", "1"]

        return case

    def of_a_run(name: str, *args: str) -> Case:
        def case(rng: random.Random) -> list[str]:
            copy_tree(material.folder / "run", Path("run"))
            file = Path("run") / name
            file.write_bytes(changed(file.read_bytes(), rng))
            return [*args, f"run/{name}" if name.endswith(".npz") else "run"]

        return case

    def of_an_output(name: str, *args: str) -> Case:
        def case(rng: random.Random) -> list[str]:
            for file in material.folder.glob("*.jsonl*"):
                Path(file.name).write_bytes(file.read_bytes())
            Path(name).write_bytes(changed(Path(name).read_bytes(), rng))
            return list(args)

        return case

    def of_the_model(name: str, start: bytes = b"") -> Case:
        def case(rng: random.Random) -> list[str]:
            copy_tree(model, Path("model"))
            file = Path("model") / name
            file.write_bytes(changed(start or file.read_bytes(), rng))
            if rng.random() < 0.5:
                return ["models", "show", "model"]
            return ["predict", clip(material), "-m", "model", "--workers", "0"]

        return case

    def weights(ending: str) -> Case:
        def case(rng: random.Random) -> list[str]:
            copy_tree(model, Path("model"))
            file = Path("model/model.safetensors")
            if ending == "bin":
                as_pickle(file, rng)
            else:
                changed_weights(file, rng)
            return ["predict", clip(material), "-m", "model", "--workers", "0"]

        return case

    def index(rng: random.Random) -> list[str]:
        copy_tree(model, Path("model"))
        Path("model/model.safetensors").unlink()
        names = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
        Path("model/model.safetensors.index.json").write_bytes(changed(names.encode(), rng))
        command = rng.choice([["predict", clip(material)], ["evaluate", str(material.folder / "videos"), "-o", "run"]])
        return [*command, "-m", "model", "--workers", "0"]

    lists = [annotations(name, text) for name, text in material.annotations.items()]
    found = sorted(
        path.name for path in (material.folder / "run").iterdir() if path.suffix in (".json", ".jsonl", ".csv")
    )
    own = str(material.folder / "run")
    runs = [of_a_run(name, *args) for name in found for args in (["runs", "rescore"], ["runs", "compare", own])]
    runs.append(of_a_run("scores.npz", "evaluate", "--from-predictions"))
    shard = [path.name for path in material.folder.glob("shard.1-of-2.jsonl*") if "lock" not in path.name]
    merges = [
        of_an_output(name, "merge", "shard.1-of-2.jsonl", "shard.2-of-2.jsonl", "-o", "all.csv")
        for name in sorted(shard)
    ]
    resume = [
        "predict",
        str(material.folder / "videos"),
        "-m",
        str(model),
        "-o",
        "whole.jsonl",
        "--workers",
        "0",
        "--resume",
    ]
    whole = sorted(path.name for path in material.folder.glob("whole.jsonl*") if "lock" not in path.name)
    resumes = [of_an_output(name, *resume) for name in whole]
    processor = json.dumps(
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "image_mean": [0.45] * 3}
    ).encode()
    return {
        "annotations, scores, records": (lists + runs + merges + resumes),
        "recipes and processors": [of_the_model("recipe.json"), of_the_model("preprocessor_config.json", processor)],
        "configs": [of_the_model("config.json")],
        "weights": [weights("safetensors"), weights("bin"), index],
    }


COUNTS = {"annotations, scores, records": 450, "recipes and processors": 306, "configs": 144, "weights": 91}


def clip(material: Material) -> str:
    return str(next((material.folder / "videos").rglob("*.mp4")))


def as_pickle(file: Path, rng: random.Random) -> None:
    """The same tensors as a file of PyTorch, with its bytes changed."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(file)
    file.unlink()
    target = file.with_name("pytorch_model.bin")
    torch.save(tensors, target)
    data = bytearray(target.read_bytes())
    for _ in range(rng.choice([1, 5, 50, 500])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    target.write_bytes(data)


def copy_tree(source: Path, target: Path) -> None:
    target.mkdir()
    for file in source.iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())


def wrong(code: int, told: str) -> bool:
    return code not in EXIT_CODES or "Traceback" in told or "bug" in told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("--only", choices=[name.split(",")[0].split()[0] for name in COUNTS])
    arguments = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        material = Material(Path(name))
        for kind, of_kind in cases(material).items():
            if arguments.only and not kind.startswith(arguments.only):
                continue
            codes: collections.Counter[int] = collections.Counter()
            started = time.monotonic()
            for number in range(COUNTS[kind]):
                place = material.folder / "case"
                place.mkdir()
                os.chdir(place)
                args = of_kind[number % len(of_kind)](random.Random(f"{arguments.seed} {kind} {number}"))
                code, told = run(args, arguments.timeout)
                codes[code] += 1
                if wrong(code, told):
                    bad += 1
                    print(f"{kind} {number}: {code}, {' '.join(args)}\n    {told.strip()[-400:]}", flush=True)
                os.chdir(material.folder)
                remove(place)
            print(
                f"{kind}: {COUNTS[kind]}, exit codes {dict(sorted(codes.items()))}, {time.monotonic() - started:.0f} s"
            )
    sys.exit(f"{bad} ended as none may" if bad else 0)


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()


if __name__ == "__main__":
    main()
