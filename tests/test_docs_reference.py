"""The pages of the reference say what the code does: each key, column, kind, code, variable and name is there."""

import ast
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import timesformer_cli
from testing.clips import write_model, write_video
from timesformer_cli import errors
from timesformer_cli.checkpoints import labels
from timesformer_cli.checkpoints.recipes import RECIPE_FIELDS, RECIPES
from timesformer_cli.cli import INTERRUPTED, TERMINATED, main
from timesformer_cli.datasets import ProblemKind
from timesformer_cli.jobs.finetune import probe, validation
from timesformer_cli.results.formats import parquet
from timesformer_cli.results.record import CSV_COLUMNS
from timesformer_cli.results.writers import FORMATS

DOCS = Path(__file__).parent.parent / "docs"
CODE = Path(timesformer_cli.__file__).parent


def section(page: str, title: str) -> str:
    """What is below a heading, up to the next of its level or a higher one."""
    level, _, _ = title.partition(" ")
    _, found, rest = f"\n{(DOCS / page).read_text(encoding='utf-8')}".partition(f"\n{title}\n")
    assert found, f"{page} has no {title}"
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables of a page, without their heads."""
    lines = re.findall(r"^\| (.*) \|$", re.sub(r"^\|.*\n\| ---.*", "", text, flags=re.MULTILINE), re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def named(text: str, column: int = 0) -> list[str]:
    """What is in backticks in a column of the tables of a page."""
    return [name for row in rows(text) for name in re.findall(r"`([^`]+)`", row[column])]


def keys(value: Any) -> Any:
    """The names in a record, in their order, at every level."""
    if isinstance(value, dict):
        return [(key, keys(content)) for key, content in value.items()]
    return keys(value[0]) if isinstance(value, list) else None


def paths(value: Any, before: str = "") -> Iterator[str]:
    """The keys of a record as a table names them, such as `views[].clip`."""
    if isinstance(value, list):
        for each in value:
            yield from paths(each, f"{before}[]")
    if isinstance(value, dict):
        for key, content in value.items():
            name = f"{before}.{key}" if before else key
            yield name
            yield from paths(content, name)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """What `predict` writes of a video, of one that is shorter than a clip, of a timeline, and of what fails."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "my-model", labels.read("kinetics-400"))
    for name, frames in (("long.mp4", 300), ("short.mp4", 90)):
        write_video(Path(name), frames=frames, rate=30)
    lines: list[str] = []
    for args in (["long.mp4", "short.mp4"], ["long.mp4", "--timeline"], ["missing.mp4"]):
        with pytest.raises(SystemExit):
            main(["predict", *args, "--model", "my-model", "--workers", "0", "--quiet"])
        lines += capsys.readouterr().out.splitlines()
    return [json.loads(line) for line in lines]


def test_records(records: list[Any]) -> None:
    text = section("records.md", "## JSON lines")
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    assert [keys(record) for record in shown] == [keys(record) for record in records]
    written = {name for record in records for name in paths(record)}
    as_of_a_video = {name for name in written if re.match(r"segments\[\]\.\w+\[\]", name)}
    assert set(named(text)) == written - as_of_a_video


def test_columns() -> None:
    table = rows(section("records.md", "## CSV and Parquet"))
    types = {column: parquet._TYPES.get(column, "string") for column in CSV_COLUMNS}
    assert [(row[0].strip("`"), row[1]) for row in table] == list(types.items())


def test_formats() -> None:
    others = named(section("records.md", "## Other formats"))
    assert {*others, "json", "jsonl", "csv", "parquet"} == set(FORMATS)


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "my-model", labels.read("kinetics-400"))
    for name in ("abseiling", "zumba"):
        (tmp_path / "val" / name).mkdir(parents=True)
        for level, letter in enumerate("abc"):  # six videos have vectors too
            write_video(tmp_path / "val" / name / f"{letter}.mp4", level=len(name) + 10 * level)
    Path("val/zumba/bad.mp4").touch()
    good = [f"{name}/{letter}" for name in ("abseiling", "zumba") for letter in "abc"]
    rows = [f"{name}.mp4,{name.partition('/')[0]},0,1" for name in (*good, "zumba/bad")]
    Path("parts.csv").write_text("\n".join(["path,label,start,end", *rows]))
    args = ["--set", "combine=probabilities", "--top-k", "1,5", "--workers", "0", "--quiet", "--json"]
    with pytest.raises(SystemExit):
        main(["evaluate", "val", "-a", "parts.csv", "--model", "my-model", "-o", "run", *args])
    return tmp_path / "run"


def test_files_of_a_run(run_folder: Path) -> None:
    head = section("run-folder.md", "# The run folder").partition("\n## ")[0]
    assert set(named(head)) == {path.name for path in run_folder.iterdir()}


def test_keys_of_metrics(run_folder: Path) -> None:
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    text = section("run-folder.md", "## `metrics.json`")
    top, counts = text.split("`counts` has these keys:")
    assert {name for name in named(top) if "." not in name} == set(metrics)
    assert {name for name in named(top) if "." in name} == {f"top_1.{name}" for name in metrics["top_1"]}
    kinds = {"missing", *get_args(ProblemKind)}
    assert set(named(counts)) - kinds == set(metrics["counts"]) - kinds


@pytest.mark.parametrize("name", ["predictions.csv", "per_class.csv", "problems.csv"])
def test_columns_of_a_run(run_folder: Path, name: str) -> None:
    with (run_folder / name).open(encoding="utf-8", newline="") as file:
        columns = next(csv.reader(file))
    assert [each for each in named(section("run-folder.md", f"## `{name}`")) if each not in get_args(ProblemKind)] == (
        columns
    )


def test_kinds_of_problems() -> None:
    _, _, kinds = section("run-folder.md", "## `problems.csv`").partition("| kind |")
    assert named(f"| kind |{kinds}") == list(get_args(ProblemKind))


def test_arrays_of_a_run(run_folder: Path) -> None:
    table = rows(section("run-folder.md", "## `scores.npz` and `confusion.npz`"))
    for name in ("scores.npz", "confusion.npz"):
        shown = {array for row in table if name in row[0] for array in re.findall(r"`(\w+)`", row[1])}
        with np.load(run_folder / name) as arrays:
            assert shown == set(arrays)


def test_keys_of_the_records_of_a_run(run_folder: Path) -> None:
    (record, *_) = map(json.loads, (run_folder / "videos.jsonl").read_text(encoding="utf-8").splitlines())
    beyond = set(named(section("run-folder.md", "## `videos.jsonl`")))
    assert beyond == set(record) - {"path", "status", "model", "predictions", "video", "views", "recipe"}


@pytest.fixture(scope="module")
def training_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained the network from videos, replaced by one that trained it from tokens."""
    place = tmp_path_factory.mktemp("training")
    write_model(place / "my-model")
    for number in range(8):
        folder = place / "clips" / ("bright", "dark")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{number}.mp4", level=number, frames=16)
    options = ["--model", str(place / "my-model"), "-o", str(place / "trained"), "--workers", "0", "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        for module in (probe, validation):
            patch.setattr(module, "CANDIDATES", (0.01,))
        for method in (["full"], ["last", "--layers", "1"]):
            with pytest.raises(SystemExit) as stop:
                main(["finetune", str(place / "clips"), *options, "--epochs", "1", "--overwrite", "--method", *method])
            assert stop.value.code == 0
    return place / "trained"


def test_the_folder_of_a_training_run(training_folder: Path, run_folder: Path) -> None:
    def read(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((training_folder / name).read_text(encoding="utf-8"))
        return content

    files = rows(section("training-folder.md", "# The folder of a training run").partition("\n## ")[0])
    shown = {name.strip("/") for row in files for name in re.findall("`([^`]+)`", row[0])}
    assert {path.name for path in training_folder.iterdir()} == shown
    (model,) = [row[1] for row in files if row[0] == "`model/`"]
    assert {path.name for path in (training_folder / "model").iterdir()} == set(re.findall("`([^`]+)`", model))
    for name in ("checkpoints", "features"):
        there = {path.name for path in (training_folder / name).iterdir() if path.is_dir()}
        assert set(named(section("training-folder.md", f"## `{name}/`"))) == there
    with (training_folder / "data.csv").open(encoding="utf-8", newline="") as file:
        assert named(section("training-folder.md", "## `data.csv`")) == next(csv.reader(file))
    assert named(section("training-folder.md", "## `settings.json`")) == list(read("settings.json"))
    metrics = read("metrics.json")
    top, _, network = section("training-folder.md", "## `metrics.json`").partition("\n### `network`\n")
    network, _, flips = network.partition("`flips` has these keys:")
    assert set(named(network)) == set(metrics["network"])
    assert set(named(flips)) == set(metrics["network"]["flips"])
    measured = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) - set(measured) == {name for name in named(top) if name not in measured}
    assert set(measured) - set(metrics) == {"top_5", "throughput"}  # of two classes, all are in 5


def test_the_log_of_a_training_run(training_folder: Path) -> None:
    table = section("training-folder.md", "## `log.jsonl` and `log.csv`")
    lines = map(json.loads, (training_folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    written = {name for line in lines for name in paths(line)} - {"validation"}
    assert set(named(table)) == written
    with (training_folder / "log.csv").open(encoding="utf-8", newline="") as file:
        assert sorted(named(table, 1)) == sorted(next(csv.reader(file)))


def test_kinds_of_failures() -> None:
    assert named(section("errors.md", "## Kinds of failures")) == list(get_args(errors.ErrorKind))


def test_classes_of_errors() -> None:
    known = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.TimesformerError)
    }
    table = rows(section("errors.md", "## Errors that end a run"))
    assert {row[0].strip("`"): int(row[1]) for row in table} == known


def test_exit_codes() -> None:
    codes = {
        errors.TimesformerError.exit_code,
        errors.UsageError.exit_code,
        errors.SOME_FAILED,
        INTERRUPTED,
        TERMINATED,
    }
    assert {int(row[0]) for row in rows(section("errors.md", "## Exit codes"))} == {0, *codes}


def variables(source: str) -> Iterator[str]:
    """The variables of the environment that a module reads, or hands on."""
    yield from re.findall(r"\b(?:TIMESFORMER|HF|SLURM)_[A-Z_]+\b", source)
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=where, attr="get" | "setdefault"), args=[name, *_]):
                yield from constant(where, name)
            case ast.Subscript(value=where, slice=name, ctx=ast.Load()):
                yield from constant(where, name)
            case ast.Call(func=ast.Name(id="_ranks" | "_place" | "_number"), args=[where, *names]):
                for name in names:
                    yield from constant(where, name)
            case ast.Compare(left=name, ops=[ast.In()], comparators=[where]):
                yield from constant(where, name)


def constant(where: ast.expr, name: ast.expr) -> Iterator[str]:
    if ast.unparse(where) not in ("os.environ", "environ", "environment"):
        return
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        yield name.value
    if isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
        yield str(name.values[0].value)  # the beginning of several names


def test_variables() -> None:
    read = {name for path in CODE.rglob("*.py") for name in variables(path.read_text(encoding="utf-8"))}
    shown = set(named((DOCS / "environment.md").read_text(encoding="utf-8")))
    begins = tuple(name for name in read if name.endswith("_"))
    assert {name for name in shown if not name.startswith(begins)} == {
        name for name in read if not name.startswith(begins)
    }
    assert all(any(name.startswith(begin) for name in shown) for begin in begins)


def test_recipes() -> None:
    assert named(section("recipes.md", "## Presets")) == list(RECIPES)
    assert set(named(section("recipes.md", "## What a recipe holds"), 1)) == set(RECIPE_FIELDS)


def test_names_for_scripts() -> None:
    shown = re.findall(r"^::: timesformer_cli\.(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(set(timesformer_cli.__all__) - {"__version__"})
