"""What the documentation says, holds: its commands run, its Python runs, and every option is explained."""

import csv
import glob
import importlib.util
import io
import itertools
import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.main import get_command

from testing import gestures, hub_server
from testing.clips import write_model, write_video
from testing.exports import each_graph_once
from testing.hub_server import Hub
from testing.vectors import embedded
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.checkpoints import labels, zoo
from timesformer_cli.checkpoints.pyth import write_pyth
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.cli import app, main
from timesformer_cli.jobs.benchmark import startup
from timesformer_cli.results.journal import Holdings, finishing, write_final
from timesformer_cli.results.record import Excerpt
from timesformer_cli.results.settings import Shard, provenance_of
from timesformer_cli.specs import Timeline

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


# What starts a command somewhere else than here, or runs what no test machine has.
ELSEWHERE = {"torchrun", "sbatch", "srun", "docker", "podman"}
DEVICES = {"--device": ("cuda", "mps"), "--provider": ("cuda", "tensorrt", "coreml", "directml", "openvino")}

# What ends the arguments of a command.
ENDS = {"|", "||", "&&", ">", "2>", "<", ";", "&"}


def commands(*, runnable: bool) -> list[tuple[str, ...]]:
    """The arguments of each `timesformer` on the pages, without what else is in its pipe, each once.

    Those in blocks of `sh` run here, unless they need a scheduler, a container or a GPU. Those of `bash` do not.
    """
    found = {
        args: runs and language == "sh"
        for language in ("bash", "sh")
        for line in lines(language)
        for runs, args in called(shlex.split(line, comments=True))
    }
    return sorted(args for args, runs in found.items() if runs == runnable)


def lines(language: str) -> list[str]:
    text = "".join(block for page in PAGES for block in blocks(page, language))
    return text.replace("\\\n", " ").splitlines()


def called(words: list[str]) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """Whether a command can run here, and its arguments, of all in a line of the shell; those in quotes too."""
    elsewhere = bool(ELSEWHERE & set(words))
    words = [part for word in words for part in (re.split("(;)", word) if " " not in word else [word]) if part]
    for number, word in enumerate(words):
        if re.match(r"timesformer\s", word):
            yield from ((False, args) for _, args in called(shlex.split(word)))
        if word != "timesformer":
            continue
        args = words[number + 1 :]
        args = args[: min((args.index(end) for end in ENDS & set(args)), default=None)]
        args = [arg.replace("${film%.mp4}", "films/d").replace("$film", "films/d.mp4") for arg in args]
        needs = any(value.startswith(DEVICES.get(option, ())) for option, value in itertools.pairwise(args))
        yield not (elsewhere or needs), tuple(args)


def check_options(args: Sequence[str]) -> None:
    """Read a command line as the program does, and run nothing. Raises Exception for what it does not know."""
    name, command, rest = "timesformer", get_command(app), list(args)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        command = command.commands[name]
    command.make_context(name, rest)


@pytest.fixture(scope="module", autouse=True)
def once() -> Iterator[None]:
    with each_graph_once():
        yield


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub that has each of the published models, and one that a user published, but tiny."""
    with hub_server.serve() as server:
        for entry in zoo.ZOO.values():
            if entry.repo is not None and entry.dataset is not None:
                folder = tmp_path_factory.mktemp(entry.name)
                server.add_repo(entry.repo, write_model(folder, labels.read(entry.dataset)))
        server.add_repo("you/mine", write_model(tmp_path_factory.mktemp("mine"), tuple(gestures.GESTURES)))
        yield server


@pytest.fixture
def place(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    """The current folder, with everything that the documentation names."""
    hub.connect(monkeypatch, tmp_path / "hub")
    shutil.copytree(material, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMESFORMER_MODEL", "my-model")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"clips/a.mp4\n")))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    for name in (
        "clips/a.mp4",
        "clips/sub/b.mp4",
        "footage/c.mp4",
        "-odd-name.mp4",
        "film.mp4",
        "films/d.mp4",
        "clip.mp4",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / name, level=len(name))
    write_data_sets(folder)
    for number in range(1, 13):
        picture = folder / f"rawframes/74225/{number:06}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (20 * number, 0, 0)).save(picture)
    (folder / "videos.txt").write_text("clips/a.mp4\n")
    (folder / "labels.csv").write_text("path,label\nclips/a.mp4,first\nclips/sub/b.mp4,second\n")
    (folder / "groups.csv").write_text("label,group\nabseiling,sport\nmaking tea,kitchen\n")
    (folder / "clips.csv").write_text("path,label\na.mp4,sport\nsub/b.mp4,kitchen\n")
    write_corrections(folder)
    (folder / "sample_videos").symlink_to(ROOT / "sample_videos")
    write_class_folders(folder / "motions")
    gestures.write(folder / "gestures", gestures.TRAIN[:5], takes=1)
    shutil.copytree(folder / "gestures/train", folder / "videos")
    (folder / "videos/metadata.csv").rename(folder / "videos.csv")
    write_model(folder / "my-model", labels.read("kinetics-400"))
    network = TimesformerForVideoClassification.from_pretrained(folder / "my-model")
    assert network.recipe is not None
    with torch.no_grad():
        network.classifier.bias[0] += 100  # it says abseiling to all videos, and so is right half of the time
    network.save_pretrained(folder / "my-model")
    (folder / "my-labels.txt").write_text("".join(f"{name}\n" for name in network.config.id2label.values()))
    write_vector_files(folder)
    write_pyth(folder / "my-model.pyth", network.state_dict(), network.config, recipe=network.recipe)
    return folder


@pytest.fixture(scope="module")
def exported(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "exported"
    assert finish(["export", str(material / "my-model"), "--format", "onnx", "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune") / "mine"
    data, model = str(material / "gestures"), str(material / "my-model")
    assert finish(["finetune", data, "--model", model, "-o", str(folder), "--workers", "0"]) == 0
    return folder


def write_corrections(folder: Path) -> None:
    """What a person said of clips and of gestures, and of videos to measure on."""
    header, ends = "path,start,end,label,was,score,reviewed_at\n", "abseiling,0.5,2026-01-02T03:04:05Z\n"
    clips = "".join(f"clips/{path},,,{label},{ends}" for path, label in (("a.mp4", "first"), ("sub/b.mp4", "second")))
    hands = "".join(
        f"gestures/train/{person}_{number:02}.mp4,,,{gesture},{ends}"
        for person in gestures.TRAIN[:5]
        for number, gesture in enumerate(gestures.GESTURES, 1)
    )
    (folder / "corrections.csv").write_text(header + clips + hands)
    (folder / "held-out.csv").write_text(header + hands)


def write_vector_files(folder: Path) -> None:
    """Vectors of the clips and of the segments of a talk."""
    write_video(folder / "films/talk.mp4", frames=240, level=3)
    (folder / "k400/train").mkdir()
    write_video(folder / "k400/train/a.mp4", level=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("clips.parquet", "more.npz"):
            embedded(Path(name), ["clips"], "my-model")
        embedded(Path("films.npy"), ["films/talk.mp4"], "my-model", Timeline(length=8.5, hop=4.0))


def write_data_sets(folder: Path) -> None:
    """Two videos of each, in the folders and with the lists that their publishers have."""
    ids = ("-3B32lodo2M", "0wR5jVB-WPk")
    for name, annotations in (("k400", "val.csv"), ("k600", "val.txt")):
        rows = ["label,youtube_id,time_start,time_end,split,is_cc"]
        for youtube_id, label in zip(ids, ("abseiling", "zumba"), strict=True):
            rows.append(f'"{label}",{youtube_id},59,69,val,0')
            video = folder / name / "val" / label / f"{youtube_id}_000059_000069.mp4"
            video.parent.mkdir(parents=True)
            write_video(video, level=len(label))
        (folder / name / "annotations").mkdir()
        (folder / name / "annotations" / annotations).write_text("\n".join(rows) + "\n")
    (folder / "k400/val.csv").write_text(
        "".join(f"{path} {label}\n" for path, label in zip(ids, (0, 399), strict=True))
    )
    templates = {"74225": "Spinning [something] that quickly stops spinning", "12": "Opening [something]"}
    rows = [{"id": name, "template": template} for name, template in templates.items()]
    (folder / "ssv2/videos").mkdir(parents=True)
    (folder / "ssv2/something-something-v2-validation.json").write_text(json.dumps(rows))
    for name in templates:
        write_video(folder / f"ssv2/videos/{name}.mp4").rename(folder / f"ssv2/videos/{name}.webm")


def write_class_folders(folder: Path) -> None:
    """The sample videos in folders that are named as their labels."""
    with (ROOT / "sample_videos/labels.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            video = folder / row["label"] / row["path"]
            video.parent.mkdir(parents=True)
            shutil.copy(ROOT / "sample_videos" / row["path"], video)


def write_runs(args: tuple[str, ...]) -> None:
    """The runs that a command after an evaluation names."""
    options = ["evaluate", "k400/val", "--workers", "0", "--quiet", "--json"]
    for arg in args[2:]:
        folder, _, shards = arg.partition(".*-of-")
        if shards:
            for number in range(1, int(shards) + 1):
                finish([*options, "--output", folder, "--shard", f"{number}/{shards}"])
        elif arg.startswith("runs/") and args[args.index(arg) - 1] not in ("-o", "--output"):
            finish([*options, "--output", arg])


def finish(args: Sequence[str]) -> int | str | None:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        main(args)
    return stop.value.code


def write_shards(count: int) -> None:
    """What so many finished shards of a run leave, with one video each."""
    whole = provenance_of(resolve("my-model"), Excerpt(), frame_rate=30.0, precision="fp32")
    for number in range(1, count + 1):
        shard = Shard(number, count)
        error = {"kind": "decode", "message": "damaged"}
        record = {"path": f"{number}.mp4", "status": "error", "model": "my-model", "error": error}
        path, provenance = shard.output(Path("labels.jsonl")), replace(whole, shard=shard)
        with finishing(path, provenance, Holdings().and_key(record["path"], failed=True)):
            write_final(path, "jsonl", provenance, [record])


def write_vectors(pattern: str) -> None:
    """The files of vectors that a merge names: films.*-of-2.npy."""
    name, _, (count, _, ending) = *pattern.partition(".*-of-")[:2], pattern.partition("-of-")[2].partition(".")
    for number in range(1, int(count) + 1):
        args = ["embed", "films", "film.mp4", "-o", f"{name}.{ending}", "--shard", f"{number}/{count}"]
        assert finish([*args, "--workers", "0", "--quiet"]) == 0


def without_vectors(args: tuple[str, ...]) -> None:
    """The files that a command writes do not exist yet, though others read them."""
    for before, arg in itertools.pairwise(args):
        if before in ("-o", "--output", "--save-embeddings") and Path(arg).is_file():
            Path(arg).unlink()
            Path(f"{arg}.meta.json").unlink(missing_ok=True)
            if arg.endswith(".npy"):
                Path(arg).with_suffix(".jsonl").unlink()


def write_picked_from(args: tuple[str, ...]) -> None:
    """The run that a choice is made from."""
    Path("clips.parquet").unlink()
    Path("clips.parquet.meta.json").unlink(missing_ok=True)
    options = ["predict", "clips", "-o", args[1], "--save-embeddings", args[2], "--workers", "0", "--quiet"]
    assert finish(options) == 0
    Path("corrections.csv").write_text("path,start,end,label\nclips/a.mp4,,,abseiling\n")


def write_merged(args: tuple[str, ...]) -> None:
    """The outputs of the shards that a merge names."""
    without_vectors(args)
    if args[1].endswith(".jsonl"):
        write_shards(8)
    else:
        write_vectors(args[1])


# What is made for a command before it runs, by its name.
BEFORE: dict[str, Callable[[tuple[str, ...]], None]] = {
    "embed": without_vectors,
    "merge": write_merged,
    "pick": write_picked_from,
    "predict": without_vectors,
    "runs": write_runs,
}


def test_the_commands_are_found() -> None:
    assert len(commands(runnable=True)) >= 15
    assert "predict footage -o labels.jsonl --shard auto --resume" in map(" ".join, commands(runnable=False))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("find . | timesformer predict - | jq .", [(True, ("predict", "-"))]),
        ("timesformer models list; timesformer predict a > b", [(True, ("models", "list")), (True, ("predict", "a"))]),
        ("sbatch --wrap 'timesformer predict a'", [(False, ("predict", "a"))]),
        ("docker run --rm image timesformer models list", [(False, ("models", "list"))]),
        ("timesformer predict a --device cuda:1", [(False, ("predict", "a", "--device", "cuda:1"))]),
        ("timesformer predict a --device cpu", [(True, ("predict", "a", "--device", "cpu"))]),
        ("pip install timesformer-cli", []),
    ],
)
def test_which_commands_a_line_calls(line: str, found: list[tuple[bool, tuple[str, ...]]]) -> None:
    assert list(called(shlex.split(line))) == found


@pytest.mark.parametrize("args", commands(runnable=False), ids=" ".join)
@pytest.mark.usefixtures("place")
def test_commands_that_cannot_run_here_have_options_that_exist(
    args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")  # for `--shard auto`
    monkeypatch.setenv("WORLD_SIZE", "8")
    check_options(args)


@pytest.mark.parametrize("args", [["predict", "a.mp4", "--no-such"], ["predict", "a.mp4", "--batch-size", "many"]])
def test_options_that_do_not_exist_are_found(args: list[str]) -> None:
    with pytest.raises(Exception, match=r"no-such|many"):
        check_options(args)


def test_commands_that_do_not_exist_are_found() -> None:
    with pytest.raises(KeyError, match="forecast"):
        check_options(["forecast", "a.mp4"])


@pytest.mark.parametrize("args", commands(runnable=True), ids=" ".join)
@pytest.mark.usefixtures("place")
def test_commands_run(
    args: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if "decord" in args and importlib.util.find_spec("decord") is None:
        pytest.skip("decord has no wheel for this platform")
    if ("exported" in args and args[0] != "export") or "--check" in args:
        shutil.copytree(request.getfixturevalue("exported"), "exported")
    for before, arg in itertools.pairwise(args):
        if arg.startswith("runs/") and args[0] != "runs" and before not in ("-o", "--output"):
            shutil.copytree(request.getfixturevalue("trained"), arg)
    if args[0] == "finetune":
        args += ("--workers", "0")  # without processes that take seconds
        if "--method" in args:
            args += ("--epochs", "1")  # instead of 200 steps
    if args[0] == "benchmark":
        monkeypatch.setattr(startup, "_load_afresh", startup._load)  # without processes that take seconds
        args += ("--seconds", "0.01")  # here it is only to run
    if args[0] in BEFORE:
        BEFORE[args[0]](args)
    args = tuple(name for arg in args for name in sorted(glob.glob(arg) if "-of-" in arg else []) or [arg])
    assert (finish(args), "error:" in capsys.readouterr().err) == (0, False)


@pytest.mark.parametrize("code", [code for page in PAGES for code in blocks(page, "python")])
@pytest.mark.usefixtures("place")
def test_python_runs(code: str) -> None:
    if "clips.npy" in code:  # as the command before it leaves
        finish(["embed", "clips", "-o", "clips.npy", "--workers", "0", "--quiet"])
    exec(compile(code, "documentation", "exec"), {})


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target
        for page in PAGES
        for block in blocks(page, "sh")
        for target in re.findall(r"^make (\w+)", block, re.MULTILINE)
    }
    assert {"demo", "docs", "test"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_that_are_named_exist(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_the_reference_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "docs/generate_cli.py"))["reference"]()
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == made, "run python docs/generate_cli.py"


def test_every_option_has_a_help_text() -> None:
    every = runpy.run_path(str(ROOT / "docs/generate_cli.py"))["commands"]
    for _, command in every("timesformer", get_command(app)):
        assert command.help
        assert [param.name for param in command.params if not param.help] == []
