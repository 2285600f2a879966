"""`timesformer doctor` as people and scripts see it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.command import Run, only_line
from timesformer_cli.jobs import doctor
from timesformer_cli.jobs.doctor import apart, decoders, versions
from timesformer_cli.jobs.doctor.findings import Check, Finding, Group, Status

PAGE = Path(__file__).parents[2] / "docs/doctor.md"


def check(group: Group, name: str, status: Status = "ok", message: str = "fine", remedy: str = "") -> Check:
    facts = {"number": 1}
    finding = Finding(group=group, name=name, status=status, message=message, remedy=remedy, facts=facts)
    return Check(group=group, name=name, find=lambda: [finding])


def broken() -> list[Finding]:
    raise ValueError("of mine\nand more")


GOOD = [check("versions", "python"), check("limits", "open_files", "warning", "at most 64", "try `workers=0`")]
BAD = [*GOOD, check("limits", "cores", "problem", "none\x1b", "buy"), Check(group="trial", name="a", find=broken)]


@pytest.fixture
def having(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda checks: monkeypatch.setattr(doctor, "checks", lambda **_: iter(checks))


def test_warnings_leave_the_exit_code(run: Run, having: Any) -> None:
    having(GOOD)
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "versions",
        "  ok       python                fine",
        "",
        "limits",
        "  warning  open files            at most 64",
        "                                 -> try --workers 0",
    ]


def test_problems_are_exit_code_1_and_one_line_that_names_them(run: Run, having: Any) -> None:
    having(BAD)
    code, out, err = run("doctor")
    assert code == 1
    assert only_line(err) == "error: 2 problems: limits.cores, trial.a; the remedies are in the report"
    assert "Traceback" not in out
    assert "  problem  a                     ValueError: of mine" in out.splitlines()
    assert "  problem  cores                 none\\x1b" in out.splitlines()


def test_details_have_the_traceback_of_a_check_that_failed(run: Run, having: Any) -> None:
    having(BAD)
    done = run("doctor", "--verbose")
    assert done.code == 1
    assert "ValueError: of mine" in done.err.splitlines()
    assert "Traceback" not in done.out


def test_the_object(run: Run, having: Any) -> None:
    having(GOOD)
    code, out, err = run("doctor", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["status"] == "warning"
    assert report["checks"]["limits"]["open_files"] == {
        "status": "warning",
        "message": "at most 64",
        "remedy": "try --workers 0",
        "facts": {"number": 1},
    }
    assert report["checks"]["versions"]["python"]["remedy"] is None
    having(BAD)
    code, out, _ = run("doctor", "--json")
    assert (code, json.loads(out)["status"]) == (1, "problem")


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """All in this process, and as if the optional packages, which take seconds to import, were not installed."""
    monkeypatch.setattr(apart, "carry_out", Check.carry_out)
    for module in (versions, decoders):
        monkeypatch.setattr(module, "is_installed", lambda name: False)


@pytest.mark.usefixtures("light")
def test_all_checks_of_this_machine(run: Run) -> None:
    """Each is carried out, none fails itself, and the page explains all."""
    code, out, err = run("doctor", "--offline", "--json", "--verbose")
    checks = json.loads(out)["checks"]
    page = PAGE.read_text(encoding="utf-8")
    names = [name for group in checks.values() for name in group]
    assert [name for name in (*checks, *names) if f"`{name}`" not in page] == []
    assert checks["trial"]["label_a_clip"]["status"] == "ok", err
    assert checks["hub"]["connection"]["facts"]["asked"] is False
    assert code == ("problem" in [entry["status"] for group in checks.values() for entry in group.values()])
    assert "Traceback" not in err


def documented() -> Iterator[str]:
    for line in PAGE.read_text(encoding="utf-8").partition("## The JSON")[0].splitlines():
        if line.startswith("| "):
            yield from (part.strip("`") for part in line.split(" | ")[1].split(", ") if part.startswith("`"))


def test_the_page_names_only_checks_that_exist() -> None:
    asked = {check.name for check in doctor.checks()}
    along = {"cuda", "cuda:0", "cuda:1", "mps", "ffmpeg_of_pyav", "ffmpeg_of_torchcodec"}  # of other checks
    assert set(documented()) == asked | along


@pytest.mark.skipif(sys.platform == "win32", reason="redirections of a shell")
def test_streams_that_were_closed_are_remembered() -> None:
    code = "from timesformer_cli.cli import streams; streams.prepare(); print(streams.closed)"
    command = ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", sys.executable, "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "['standard input', 'standard error']"
