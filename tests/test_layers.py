"""Imports point one way, and the command line starts without the libraries that take seconds to load."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import timesformer_cli

PACKAGE = Path(timesformer_cli.__file__).parent

# A module imports only from its own package and from those above it.
ORDER = [
    "__about__",
    # words: settings, records that flow, small tools
    "errors",
    "strict_json",
    "shapes",
    "limits",
    "files",
    "specs",
    "flow",
    "text",
    "bundled",
    # what a model is, what a video is, what the network computes and on what
    "checkpoints",
    "video",
    "network",
    "runtimes",
    # videos through the network
    "pipeline",
    # what is right, what came of it, and what that is worth
    "datasets",
    "results",
    "evaluation",
    # the work of each command, and the commands
    "jobs",
    "api",
    "cli",
    "__main__",
]
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each of our modules that a file imports, also inside functions and for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            assert node.level == 0, f"line {node.lineno}: a relative import"
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if package == "timesformer_cli" and rest:
                # Names of the package itself, such as __version__, come from the module that defines them.
                home = getattr(timesformer_cli, rest[0], None)
                defined_in = getattr(home, "__module__", "timesformer_cli.__about__").split(".")[1]
                yield node.lineno, rest[0] if rest[0] in ORDER else defined_in


def wrong_imports(module: str, source: str) -> list[str]:
    own = ORDER.index(module)
    return [
        f"line {line}: {module} imports {other}, which comes after it"
        for line, other in imported(ast.parse(source))
        if ORDER.index(other) > own
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert module in ORDER, f"{module} has no place in the order of modules yet"
    assert wrong_imports(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import timesformer_cli.pipeline.score",
        "from timesformer_cli import pipeline",
        "from timesformer_cli import TimesformerModel",
        "from timesformer_cli.video.reader import open_video",
        "def f():\n    from timesformer_cli.cli.predict import predict",
    ],
)
def test_a_wrong_import_is_found(source: str) -> None:
    assert len(wrong_imports("files", source)) == 1


def test_every_name_in_the_order_exists() -> None:
    there = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert set(ORDER) - there == set()


# What may lie beside the packages: words, and how the whole is started.
ROOT = {"__about__", "api", "__main__", "errors", "limits", "specs", "flow", "text", "files", "strict_json", "shapes"}


def test_only_words_lie_in_the_root() -> None:
    there = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert there == ROOT


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in FILES:
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield f"{name}:{node.name}", node


def test_functions_can_be_read_at_a_glance() -> None:
    long = {name: length for name, node in functions() if (length := node.end_lineno - node.lineno + 1) > 60}
    assert long == {}


def test_commands_take_bundles() -> None:
    commands = [node for name, node in functions() if any("bundled" in ast.dump(each) for each in node.decorator_list)]
    assert len(commands) > 12
    assert [node.name for node in commands if len(node.args.args) + len(node.args.kwonlyargs) > 12] == []


def test_the_runtime_of_a_model_is_asked_in_one_place() -> None:
    """Everyone else asks `runtimes.runtime_of` for what runs it."""
    asking = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "is_exported"
    }
    assert asking == {"runtimes/__init__.py"}


def test_the_command_line_starts_light() -> None:
    heavy = ["torch", "transformers", "av", "decord", "huggingface_hub", "safetensors", "PIL", "pyarrow"]
    code = "import json, sys, timesformer_cli, timesformer_cli.cli; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert set(heavy) & set(json.loads(done.stdout)) == set()


def test_torch_stays_where_it_is_needed() -> None:
    """The stages before the network run in processes that never load it."""
    code = "import sys, timesformer_cli.video.reader, timesformer_cli.pipeline.score; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
