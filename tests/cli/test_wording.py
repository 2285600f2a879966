"""Options are named by the command line alone: everywhere else settings are, as Python calls them."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from typer.main import get_command

import timesformer_cli
from testing.command import Run
from timesformer_cli.bundled import CLIP
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.cli import app, console
from timesformer_cli.cli.wording import NAMES, spoken
from timesformer_cli.flow import Failure, Item
from timesformer_cli.jobs.reporter import in_words

PACKAGE = Path(timesformer_cli.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "cli")

OPTION = re.compile(r"(?<![\w-])--[a-z]")
QUOTED = re.compile(r"`(\w+)(?:=[^`]+)?`")

# What `timesformer benchmark` calls the start of the command: a name in its results, no advice.
NAMED = {"timesformer --help"}

# Between backticks, but no settings.
OTHERS = {"safetensors"}


def strings(source: str) -> Iterator[str]:
    """The strings of a module, docstrings too; those that are filled in have `x` in each place."""
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def without_docstrings(source: str) -> str:
    """The module without strings that are statements."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [s for s in body if not _is_docstring(s)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def options(command: Any) -> Iterator[str]:
    """Those of a command and of all below it."""
    for parameter in command.params:
        yield from parameter.opts
    for below in getattr(command, "commands", {}).values():
        yield from options(below)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_other_module_names_an_option(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [found for found in strings(text) if OPTION.search(found) and found not in NAMED] == []


@pytest.mark.parametrize(
    "source", ["'try --device cpu'", "f'--{name} does not apply'", "def f():\n    'As --set takes it.'", "f'{a} --b'"]
)
def test_an_option_is_found(source: str) -> None:
    assert [found for found in strings(source) if OPTION.search(found)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_command_line_knows_what_messages_name(path: Path) -> None:
    text = without_docstrings(path.read_text(encoding="utf-8"))
    named = {name for found in strings(text) for name in QUOTED.findall(found)}
    # `x` is what is filled in.
    assert named - {*NAMES, *OTHERS, "x"} == set()


def test_every_option_in_the_table_exists() -> None:
    assert set(NAMES.values()) - set(options(get_command(app))) == set()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("try `device=cpu`", "try --device cpu"),
        ("`seed` goes with `limit`; give `limit=N` too", "--seed goes with --limit; give --limit N too"),
        ("leave `annotations_format` away", "leave --annotations-format away"),
        ("names with `labels_file=FILE`", "names with --labels FILE"),
        ("any of `settings`", "any of --set"),
        ("`calibrate=my videos/a=b`: none", "--calibrate my videos/a=b: none"),
        ("with `shard=1/2` `resume`", "with --shard 1/2 --resume"),
        ("`min_top1=0.5`", "--min-top1 0.5"),
        ("run `timesformer models list`, or `model`", "run `timesformer models list`, or --model"),
        ("run `timesformer models download a/b revision=v2`", "run `timesformer models download a/b --revision v2`"),
        (
            "`timesformer models download model=a` x revision=v2",
            "`timesformer models download --model a` x revision=v2",
        ),
        ("`timesformer predict colour=red`", "`timesformer predict colour=red`"),
        ("`git lfs pull`", "`git lfs pull`"),
        ("`pip install device=cpu`", "`pip install device=cpu`"),
        ("`colour=red`, `colour`", "`colour=red`, `colour`"),
        ("`device=`", "`device=`"),
        ("a`b.mp4: try `device=cpu`", "a`b.mp4: try --device cpu"),
        ("device=cpu", "device=cpu"),
        ("--device cpu", "--device cpu"),
        ("", ""),
    ],
)
def test_spoken(message: str, expected: str) -> None:
    assert spoken(message) == expected
    assert spoken(expected) == expected


def test_reasons_of_failures_are_spoken() -> None:
    failure = Failure(Item("`device`.mp4"), "timeout", "try `timeout=9`")
    assert in_words(failure, console) == Failure(Item("`device`.mp4"), "timeout", "try --timeout 9")


def test_records_are_in_the_words_of_the_command_line(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "videos" / resolve("camera-motion").labels[0]
    folder.mkdir(parents=True)
    for name in ("a.mp4", "b.mp4"):
        copyfile(CLIP, folder / name)
    made = tmp_path / "made"
    for command in (["predict", folder], ["inspect", "--json", folder], ["evaluate", folder.parent, "-o", made]):
        done = run(*command, "-m", "camera-motion", "--workers", "0", "--max-pixels", "9")
        text = (made / "videos.jsonl").read_text() if "evaluate" in command else done.out
        assert [json.loads(line)["error"]["message"].partition("; ")[2] for line in text.splitlines()] == [
            "--max-pixels is 9"
        ] * 2
        assert "`" not in done.err
