"""Write docs/cli.md: what `timesformer --help` and `timesformer COMMAND --help` say, as one page.

python docs/generate_cli.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from timesformer_cli.cli import app

PAGE = Path(__file__).with_name("cli.md")

HEAD = """# The command line

This page is made from the help texts by `python docs/generate_cli.py`; change those, not this.
"""


def reference() -> str:
    group: Any = get_command(app)  # Typer's classes are its own copy of click's, or click's: by version
    return "\n".join(
        [HEAD, *(line for name, command in commands(group.name, group) for line in section(name, command))]
    )


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command and those below it, with their whole names."""
    yield name, command
    for inner, below in getattr(command, "commands", {}).items():
        yield from commands(f"{name} {inner}", below)


def section(name: str, command: Any) -> Iterator[str]:
    inputs = [usage(param) for param in command.params if param.param_type_name == "argument"]
    rest = [*inputs, command.subcommand_metavar] if hasattr(command, "commands") else inputs
    yield f"## `{name}`\n"
    yield f"    {' '.join([name, '[OPTIONS]', *rest])}\n"
    yield f"{command.help.strip()}\n"
    panels: dict[str, list[Any]] = {}
    for param in command.params:
        argument = param.param_type_name == "argument"
        panels.setdefault(param.rich_help_panel or ("Inputs" if argument else "Options"), []).append(param)
    for panel, params in panels.items():
        yield f"### {panel}\n\n| name | meaning |\n| --- | --- |"
        yield from (row(param) for param in params)
        yield ""


def usage(argument: Any) -> str:
    if argument.required:
        return str(argument.metavar)
    return f"[{argument.metavar}]{'...' if argument.nargs == -1 else ''}"


def row(param: Any) -> str:
    takes_value = param.param_type_name == "option" and not param.is_flag
    names = [param.metavar] if param.param_type_name == "argument" else sorted(param.opts, key=len, reverse=True)
    name = ", ".join(f"`{name}`" for name in names)
    if takes_value:  # a bar would end the table's cell
        name = f"{name[:-1]} {param.metavar}`".replace("|", "\\|")
    notes = [f"variable `{param.envvar}`"] if param.envvar else []
    if takes_value and param.default is not None:
        notes.append(f"default `{param.default}`")
    text = param.help.replace("*", "\\*")
    return f"| {name} | {text}{' (' + '; '.join(notes) + ')' if notes else ''} |"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
