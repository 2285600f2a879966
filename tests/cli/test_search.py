"""`timesformer search` as its users meet it: examples, parts, rows of the file, the page, and what goes wrong."""

import csv
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testing.clips import write_model
from testing.command import Run, only_line
from testing.films import film, write_film
from testing.pages import Elements, Page, Show
from testing.vectors import embedded, numbers
from timesformer_cli.cli import console
from timesformer_cli.jobs.reporter import Meter
from timesformer_cli.pipeline.score import score
from timesformer_cli.specs import Timeline

NAMES = ("a.mp4", "b.mp4", "c#1-2.mp4", "d.mp4")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, four films, the vectors of the films and those of their segments."""
    folder = tmp_path_factory.mktemp("archive")
    write_model(folder / "tiny")
    write_model(folder / "other", labels=("a", "b"))
    for seed, name in enumerate(NAMES):
        write_film(folder / "films" / name, film(seed, 64, 48, 64))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        embedded(Path("films.parquet"), ["films"], "tiny")
        for extension in ("npy", "jsonl"):
            embedded(Path(f"parts.{extension}"), ["films"], "tiny", Timeline(length=2.0, hop=1.0))
        embedded(Path("two.npz"), ["films/a.mp4", "films/b.mp4"], "tiny")
        embedded(Path("other.npz"), ["films/a.mp4"], "other")
    return folder


@pytest.fixture(autouse=True)
def here(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive)


def answers(run: Run, *args: str | Path) -> list[dict[str, Any]]:
    code, out, _ = run("search", *args)
    assert code == 0
    return [json.loads(line) for line in out.splitlines()]


def matches(run: Run, *args: str | Path) -> list[tuple[str, float | None, float | None]]:
    (answer,) = answers(run, *args)
    return [(match["path"], match["start"], match["end"]) for match in answer["matches"]]


class TestQueries:
    def test_a_video(self, run: Run, tmp_path: Path) -> None:
        copy = tmp_path / "copy.mp4"
        copy.write_bytes(Path("films/b.mp4").read_bytes())
        (answer,) = answers(run, "films.parquet", copy, "-k", "2", "--workers", "0")
        assert list(answer) == ["query", "matches"]
        assert answer["query"] == str(copy)
        first, second = answer["matches"]
        assert list(first) == ["rank", "path", "start", "end", "cosine", "percentile"]
        assert (first["rank"], first["path"], first["start"], first["end"]) == (1, "films/b.mp4", None, None)
        assert first["cosine"] == pytest.approx(1, abs=1e-5)
        assert first["percentile"] == 100
        assert second["cosine"] < first["cosine"]

    def test_the_query_itself_is_left_out(self, run: Run) -> None:
        found = matches(run, "films.parquet", "films/b.mp4", "--workers", "0")
        assert {path for path, _, _ in found} == {f"films/{name}" for name in NAMES} - {"films/b.mp4"}
        found = matches(run, "films.parquet", Path("films/b.mp4").resolve(), "--workers", "0", "--overlaps")
        assert found[0] == ("films/b.mp4", None, None)

    @pytest.mark.parametrize("file", ["parts.npy", "parts.jsonl"])
    def test_a_part_finds_its_own_place_in_a_copy(self, run: Run, tmp_path: Path, file: str) -> None:
        copy = tmp_path / "copy.mp4"
        copy.write_bytes(Path("films/d.mp4").read_bytes())
        assert matches(run, file, f"{copy}#3-5", "-k", "1", "--workers", "0") == [("films/d.mp4", 3.0, 5.0)]

    def test_what_overlaps_is_left_out(self, run: Run) -> None:
        found = matches(run, "parts.npy", "films/d.mp4#3-5", "-k", "99", "--workers", "0")
        own = [(start, end) for path, start, end in found if path == "films/d.mp4"]
        assert own
        assert all(end <= 3 or start >= 5 for start, end in own)
        for name in NAMES:
            parts = sorted((start, end) for path, start, end in found if path == f"films/{name}")
            assert all(before[1] <= after[0] for before, after in itertools.pairwise(parts))
        every = matches(run, "parts.npy", "films/d.mp4#3-5", "-k", "99", "--workers", "0", "--overlaps")
        assert every[0] == ("films/d.mp4", 3.0, 5.0)
        assert len(every) == 4 * 7

    def test_a_whole_video_is_cut_as_the_file_is(self, run: Run) -> None:
        long = answers(run, "parts.npy", "films/a.mp4", "--workers", "0")
        stored = answers(run, "parts.npy", "--like", "films/a.mp4")
        for one, other in zip(long[0]["matches"], stored[0]["matches"], strict=True):
            assert one["cosine"] == pytest.approx(other["cosine"], abs=1e-5)

    def test_a_name_like_a_part_is_a_file_if_there_is_one(self, run: Run) -> None:
        (answer,) = answers(run, "films.parquet", "films/c#1-2.mp4", "--overlaps", "-k", "1", "--workers", "0")
        assert answer["matches"][0]["path"] == "films/c#1-2.mp4"
        assert answers(run, "films.parquet", "--like", "films/c#1-2.mp4")[0]["query"] == "films/c#1-2.mp4"

    def test_several_their_mean_and_what_is_subtracted(self, run: Run) -> None:
        like = ["--like", "films/a.mp4", "--like", "films/b.mp4"]
        assert [answer["query"] for answer in answers(run, "films.parquet", *like)] == ["films/a.mp4", "films/b.mp4"]
        (mean,) = answers(run, "films.parquet", *like, "--mean")
        assert mean["query"] == "films/a.mp4, films/b.mp4"
        assert {match["path"] for match in mean["matches"]} == {"films/c#1-2.mp4", "films/d.mp4"}
        plain = answers(run, "films.parquet", "--like", "films/a.mp4")[0]["matches"]
        less = answers(run, "films.parquet", "--like", "films/a.mp4", "--not", "films/b.mp4")[0]["matches"]
        cosines = [{match["path"]: match["cosine"] for match in each} for each in (plain, less)]
        assert cosines[1]["films/b.mp4"] < cosines[0]["films/b.mp4"]

    def test_rows_of_another_file(self, run: Run) -> None:
        found = answers(run, "films.parquet", "two.npz", "--overlaps", "-k", "1")
        assert [(each["query"], each["matches"][0]["path"]) for each in found] == [
            ("films/a.mp4", "films/a.mp4"),
            ("films/b.mp4", "films/b.mp4"),
        ]

    def test_more_matches_than_a_first_pass_looks_at(self, run: Run, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        near = np.ones((500, 8)) + rng.normal(size=(500, 8)) * 0.01
        far = rng.normal(size=(3, 8))
        rows = [("near.mp4", n / 100, n / 100 + 9) for n in range(500)]
        rows += [(f"{n}.mp4", 0.0, 9.0) for n in range(3)]
        numbers(tmp_path / "v.npy", rows, np.concatenate([near, far]).astype(np.float32))
        found = matches(run, tmp_path / "v.npy", "--like", "near.mp4#0-1", "-k", "4")
        assert {path for path, _, _ in found} == {"near.mp4", "0.mp4", "1.mp4", "2.mp4"}


class TestFormats:
    def test_csv(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "found.csv"
        assert run("search", "parts.npy", "--like", "films/a.mp4#0-2", "-k", "2", "-o", target).code == 0
        with target.open(newline="") as file:
            head, first, _ = csv.reader(file)
        assert head == ["query", "rank", "path", "start", "end", "cosine", "percentile"]
        assert first[:2] == ["films/a.mp4#0-2", "1"]

    def test_table(self, run: Run) -> None:
        out = run("search", "parts.npy", "--like", "films/a.mp4#0-2", "-k", "1", "-f", "table").out
        title, head, row = out.splitlines()
        assert title == "like films/a.mp4#0-2"
        assert head.split() == ["rank", "cosine", "percentile", "video"]
        assert " to 0:0" in row

    def test_page(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "found.html"
        assert run("search", "parts.npy", "films/a.mp4#0-2", "--workers", "0", "-k", "2", "-o", target).code == 0
        document = Elements(target.read_text(encoding="utf-8"))
        document.check_policy(" media-src file: http: https:;")
        settings, answer = document.json
        assert settings == {"file": "parts.npy"}
        assert answer["url"].endswith("films/a.mp4#t=0.0,2.0")
        assert [match["rank"] for match in answer["matches"]] == [1, 2]

    def test_page_plays_each_match_at_its_second(self, run: Run, tmp_path: Path, show: Show) -> None:
        target = tmp_path / "found.html"
        like = f"{Path('films').resolve()}/b.mp4#1-3"
        assert run("search", "parts.npy", like, "--workers", "0", "-k", "3", "--overlaps", "-o", target).code == 0
        page = show(target.read_text(encoding="utf-8"))
        page.wait("Array.from(document.querySelectorAll('video')).every((video) => video.readyState >= 2)")
        starts = page.run("return Array.from(document.querySelectorAll('video'), (video) => video.currentTime)")
        (answer,) = Elements(target.read_text(encoding="utf-8")).json[1:]
        assert starts == pytest.approx([1, *(match["start"] for match in answer["matches"])], abs=0.2)
        page.run("const video = document.querySelector('.matches video'); video.muted = true; video.play()")
        page.wait(f"document.querySelector('.matches video').currentTime > {starts[1] + 0.1}")
        assert page.texts(".matches .video")[0].startswith("1. films/b.mp4")
        assert "JavaScript" in page.without_javascript()

    def test_page_says_what_it_cannot_play(self, run: Run, tmp_path: Path, browser: Any) -> None:
        numbers(tmp_path / "v.npz", [("s3://x/a.mp4", None, None), ("gone.mp4", None, None)], np.eye(2, 8).astype("f4"))
        target = tmp_path / "found.html"
        assert run("search", tmp_path / "v.npz", "--like", "gone.mp4", "--overlaps", "-o", target).code == 0
        browser.get(target.as_uri())
        page = Page(browser, target)
        page.wait("document.querySelectorAll('.unplayed').length === 3")
        assert "This browser cannot play it, or the file has moved." in page.texts(".unplayed")
        assert "A browser cannot open this address." in page.texts(".unplayed")
        assert any("gone.mp4" in entry["message"] for entry in browser.get_log("browser"))  # emptied for other tests


class TestWrongCalls:
    @pytest.mark.parametrize(
        ("args", "code", "message"),
        [
            (["films.parquet"], 2, "nothing to search for: name a video, or with --like a path of the file"),
            (["none.npy", "films/a.mp4"], 1, "none.npy: no such file"),
            (["films/a.mp4", "films/b.mp4"], 2, "films/a.mp4: is no file of vectors, whose names end in .par"),
            (["films.parquet", "none.mp4"], 1, "none.mp4: no such file; to search for a path that films.parquet has"),
            (["films.parquet", "tiny/config.json"], 1, "tiny/config.json: "),
            (["films.parquet", "films/a.mp4#5-2"], 2, "films/a.mp4#5-2: the part ends before it starts"),
            (["films.parquet", "--like", "gone.mp4"], 1, "gone.mp4: films.parquet has no vector of a video with this"),
            (["films.parquet", "--like", "films/a.mp4#1-2"], 1, "has one vector for the whole video"),
            (["parts.npy", "--like", "films/a.mp4#70-80"], 1, "has no vector of that part; the video ends at 8 s"),
            (["films.parquet", "films/a.mp4", "-m", "other"], 1, "other: its weights are not those that made films"),
            (["films.parquet", "other.npz"], 1, "other.npz: was made with different weights"),
            (["films.parquet", "--like", "films/a.mp4", "--not", "films/a.mp4"], 1, "its vector is zero"),
            (
                ["films.parquet", "--like", "films/a.mp4", "--not", "no.mp4"],
                1,
                "no.mp4: no such file, and films.parquet",
            ),
            (["films.parquet", "--like", "films/a.mp4", "-o", "films.txt"], 2, "no format has this extension"),
            (["films.parquet", "--like", "films/a.mp4", "-o", "none/a.csv"], 1, "the folder none does not exist"),
        ],
    )
    def test_one_line(self, run: Run, args: list[str], code: int, message: str) -> None:
        done = run("search", *args, "--workers", "0")
        assert (done.code, done.out) == (code, "")
        assert message in only_line(done.err)

    def test_files_that_do_not_go_together(self, run: Run, tmp_path: Path) -> None:
        rows = [("a.mp4", None, None)]
        one = numbers(tmp_path / "one.npz", rows, np.ones((1, 4), np.float32))
        two = numbers(tmp_path / "two.npz", rows, np.ones((1, 5), np.float32))
        frames = numbers(tmp_path / "frames.npz", rows, np.ones((1, 4), np.float32), feature="frames")
        assert "has 5 numbers in a vector, and" in only_line(run("search", one, two).err)
        assert "has vectors of the feature frames, and" in only_line(run("search", one, frames).err)
        assert "queries cannot be computed for; search with --like" in only_line(
            run("search", frames, "films/a.mp4", "--workers", "0").err
        )
        assert "none: no model of that name" in only_line(run("search", one, "films/a.mp4", "--workers", "0").err)

    def test_a_file_without_vectors(self, run: Run, tmp_path: Path) -> None:
        empty = numbers(tmp_path / "v.npz", [], np.empty((0, 4), np.float32))
        assert "has no vectors; all of its videos failed" in only_line(run("search", empty, "--like", "a").err)

    def test_nothing_is_replaced_unasked(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "found.csv"
        target.write_text("mine")
        code, _, err = run("search", "films.parquet", "--like", "films/a.mp4", "-o", target)
        assert (code, target.read_text()) == (1, "mine")
        assert "already exists; choose another name, or --overwrite" in only_line(err)
        assert run("search", "films.parquet", "--like", "films/a.mp4", "-o", target, "--overwrite").code == 0


class TestLongRuns:
    def test_progress_counts_videos_not_segments(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        meters = []

        def progress(total: int | None) -> Any:
            meters.append(Meter(total))
            return nullcontext(meters[-1])

        monkeypatch.setattr(console, "progress", progress)
        names = ("films/a.mp4", "films/b.mp4#1-6", "films/d.mp4")
        assert len(answers(run, "parts.npy", *names, "--workers", "0")) == 3
        assert [(meter.total, meter.done) for meter in meters] == [(3, 2)]  # when the last one is done, so is the bar

    def test_ctrl_c_leaves_no_output(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from timesformer_cli.pipeline import engine

        def stopped(*args: Any) -> Iterator[Any]:
            yield next(score(*args))
            raise KeyboardInterrupt

        monkeypatch.setattr(engine, "score", stopped)
        target = tmp_path / "found.html"
        code, out, err = run("search", "films.parquet", "films/a.mp4", "films/b.mp4", "-o", target, "--workers", "0")
        assert (code, out) == (130, "")
        assert "stopped by Ctrl-C" in only_line(err)
        assert not list(tmp_path.iterdir())


def test_a_stored_row_needs_no_torch(archive: Path) -> None:
    code = (
        "import sys, timesformer_cli.cli as cli\n"
        "try: cli.main(['search', 'parts.npy', '--like', 'films/a.mp4', '-f', 'csv'])\n"
        "finally: print([name for name in ('torch', 'av', 'pyarrow', 'huggingface_hub') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
