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

This page has the help of every command. `timesformer COMMAND --help` shows the same, and
`python docs/generate_cli.py` writes this page from it. Exit codes are under [errors](errors.md#exit-codes).

"""


FEW = 4  # so many options are said again rather than referred to


def reference() -> str:
    group: Any = get_command(app)  # Typer's classes are its own copy of click's, or click's: by version
    homes: dict[tuple[str, ...], str] = {}
    text = "\n".join(line for name, command in commands(group.name, group) for line in section(name, command, homes))
    return HEAD + text.rstrip() + "\n"


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command and those below it, with their whole names."""
    yield name, command
    for inner, below in getattr(command, "commands", {}).items():
        yield from commands(f"{name} {inner}", below)


def section(name: str, command: Any, homes: dict[tuple[str, ...], str]) -> Iterator[str]:
    """What is said of a command. `homes` has the command that shows a panel; a later one with the same
    refers to it, if it is long."""
    inputs = [usage(param) for param in command.params if param.param_type_name == "argument"]
    below = getattr(command, "commands", {})
    rest = [*inputs, command.subcommand_metavar] if below else inputs
    yield f"## `{name}`\n"
    yield f"    {' '.join([name, '[OPTIONS]', *rest])}\n"
    yield f"{command.help.strip()}\n"
    if below:
        yield from (f"- [`{name} {inner}`](#{anchor(f'{name} {inner}')}): {line}" for inner, line in in_short(below))
        yield ""
    panels: dict[str, list[Any]] = {}
    for param in command.params:
        argument = param.param_type_name == "argument"
        panels.setdefault(param.rich_help_panel or ("Inputs" if argument else "Options"), []).append(param)
    for panel, params in panels.items():
        entries = (panel, *(entry(param) for param in params))
        short = panel.partition(" (")[0]
        home = homes.setdefault(entries, name)
        if home == name or len(params) < FEW:
            yield f'<a id="{anchor(name)}-{anchor(short)}"></a>**{panel}**\n'
            yield from entries[1:]
        else:
            yield f"**{short}**: the same as for [`{home}`](#{anchor(home)}-{anchor(short)})"
        yield ""


def anchor(name: str) -> str:
    """The anchor of a heading, as the site makes it."""
    return name.lower().replace(" ", "-")


def in_short(below: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Commands, and the first sentence of their help."""
    for name, command in below.items():
        first = " ".join(command.help.split("\n\n")[0].split())
        yield name, first.partition(". ")[0].rstrip(".")


def usage(argument: Any) -> str:
    if argument.required:
        return str(argument.metavar)
    return f"[{argument.metavar}]{'...' if argument.nargs == -1 else ''}"


def entry(param: Any) -> str:
    """A list's entry, which a narrow screen can wrap where it would have to scroll a table."""
    takes_value = param.param_type_name == "option" and not param.is_flag
    names = [param.metavar] if param.param_type_name == "argument" else sorted(param.opts, key=len, reverse=True)
    name = ", ".join(f"`{name}`" for name in names)
    if takes_value:
        name = f"{name[:-1]} {param.metavar}`"
    notes = [f"variable `{param.envvar}`"] if param.envvar else []
    if takes_value and param.default is not None:
        notes.append(f"default `{param.default}`")
    text = " ".join(param.help.split()).replace("*", "\\*")
    return f"- {name}<br>{text}{' (' + '; '.join(notes) + ')' if notes else ''}"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
