"""`make docs` ends with an error for what a reader of the site would stumble over."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PAGES = {
    "index.md": "# Front\n\n[A command](cli.md#one)\n\n![Views](images/views.svg)\n",
    "cli.md": "# Commands\n\n## One\n",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The project's own settings and recipe of `make docs`, with two pages in its navigation."""
    settings = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    nav = re.compile(r"^nav = \[\n.*?^\]\n", re.DOTALL | re.MULTILINE)
    assert nav.search(settings)
    (tmp_path / "zensical.toml").write_text(nav.sub('nav = ["index.md", "cli.md"]\n', settings))
    (tmp_path / "docs/images").mkdir(parents=True)
    for name in ("check_site.py", "style.css"):
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")
    (tmp_path / "docs/images/views.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    for name, text in PAGES.items():
        (tmp_path / "docs" / name).write_text(text)
    return tmp_path


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` does, in another folder."""
    recipe = re.search(r"^docs: setup\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe
    commands = recipe[1].replace("\t", "").strip().replace("\n", " && ").replace("$(BIN)/python", sys.executable)
    commands = commands.replace("$(BIN)/", f"{sys.executable} -m ")
    return subprocess.run(["sh", "-c", commands], cwd=folder, capture_output=True, text=True, check=False)


def test_a_site_without_faults_is_built(place: Path) -> None:
    built = build(place)
    assert built.returncode == 0, built.stdout + built.stderr
    assert (place / "site/index.html").is_file()
    assert not list((place / "site").rglob("*.py"))


# The text of a page, and what ends the build for it.
SEEN_AS_IT_IS_BUILT = {
    "[gone](gone.md)": "page does not exist",
    "[gone](../README.md)": "page does not exist",
    "[gone](cli.md#two)": "anchor does not exist",
}
SEEN_IN_THE_SITE = {
    '<a href="gone.html">gone</a>': "gone.html, which does not exist",
    '<a href="cli.html#two">two</a>': "cli.html#two, which has no such anchor",
    "![gone](images/gone.svg)": "images/gone.svg, which does not exist",
    "![far](https://example.com/a.png)": "fetches https://example.com/a.png",
    '<script src="//example.com/a.js"></script>': "fetches //example.com/a.js",
    '<link rel="stylesheet" href="https://example.com/a.css">': "fetches https://example.com/a.css",
}


@pytest.mark.parametrize("faults", [SEEN_AS_IT_IS_BUILT, SEEN_IN_THE_SITE], ids=["built", "site"])
def test_faults_of_a_page_end_it(place: Path, faults: dict[str, str]) -> None:
    with (place / "docs/index.md").open("a", encoding="utf-8") as page:
        page.write("\n" + "\n\n".join(faults) + "\n")
    built = build(place)
    assert built.returncode != 0
    said = re.sub(r"\x1b\[[0-9;]*m", "", built.stdout + built.stderr)
    assert [fault for fault in faults.values() if said.count(fault) < list(faults.values()).count(fault)] == []


def test_what_the_navigation_lacks_or_invents_ends_it(place: Path) -> None:
    (place / "docs/index.md").write_text("# Front\n")
    (place / "docs/cli.md").rename(place / "docs/other.md")
    with (place / "docs/style.css").open("a", encoding="utf-8") as file:
        file.write('\n@import "https://example.com/a.css";\n')
    built = build(place)
    assert built.returncode != 0
    for fault in ("docs/other.md is not in the navigation", "names cli.md, which is not in docs/", "style.css fetches"):
        assert fault in built.stderr


def test_a_name_that_the_package_lacks_ends_it(place: Path) -> None:
    with (place / "docs/cli.md").open("a", encoding="utf-8") as page:
        page.write("\n::: timesformer_cli.no_such\n")
    built = build(place)
    assert built.returncode != 0
    assert "timesformer_cli.no_such" in built.stdout + built.stderr
