"""`timesformer predict -f html`: what the page gets of the videos."""

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from testing.clips import write_video
from testing.command import Run
from testing.pages import Elements
from timesformer_cli.results.formats.page import films
from timesformer_cli.video.render import FILM_FRAMES

CAT = Path(__file__).parents[2] / "sample_videos/roll_clockwise.mkv"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A video that browsers play, and the same in a name that they do not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMESFORMER_MODEL", "camera-motion")
    write_video(Path("a.mp4"), frames=24, width=320, height=240)
    os.link("a.mp4", "b.3gp")
    return tmp_path


def rows(path: str) -> list[dict[str, Any]]:
    _, *found = Elements(Path(path).read_text(encoding="utf-8")).json
    return found


def image(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_frames_are_in_colour_and_whole(run: Run) -> None:
    assert run("predict", "a.mp4", "b.3gp", CAT, "-o", "page.html", "--workers", "0").code == 0
    played, moved, cat = rows("page.html")
    assert (played["video"]["container"], played["video"]["pixel_format"]) == ("mov,mp4,m4a,3gp,3g2,mj2", "yuv420p")
    assert (len(played["pictures"]), played["films"]) == (1, [])
    assert (moved["pictures"], len(moved["films"])) == ([""], 1)
    strip, film = image(played["pictures"][0]), image(moved["films"][0])
    assert strip.size == (4 * 96, 72)
    assert film.size == (240, FILM_FRAMES * 180)
    levels = np.asarray(film, np.float64).reshape(FILM_FRAMES, -1).mean(axis=1)
    assert (np.diff(levels) > 0).all()  # the video grows brighter
    pixels = np.asarray(image(cat["films"][0]), np.float64)
    assert np.ptp(pixels, axis=2).mean() > 30  # the model sees gray squares
    order = [index for index, _ in played["parts"][0]["ranks"]] + played["parts"][0]["next"]
    assert sorted(order) == list(range(len(order)))


def test_segments_have_a_film_each(run: Run) -> None:
    done = run("predict", "b.3gp", "-o", "page.html", "--workers", "0", "--timeline", "--window", "1.2", "--hop", "1.2")
    assert done.code == 0
    (row,) = rows("page.html")
    assert [image(film).size for film in row["films"]] == [(240, FILM_FRAMES * 180)] * 2


def test_too_many_films_are_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (films, "timesformer_cli.jobs.predict"):
        target = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{target}.MOST_FILMS", 1)
    Path("more").mkdir()
    for name in ("c.3gp", "d.3gp"):
        os.link("a.mp4", f"more/{name}")
    done = run("predict", "b.3gp", "more", "-o", "page.html", "--workers", "0")
    told = "browsers do not play 3 of the videos or segments; the page moves the frames of the first 1 and shows stills"
    assert told in done.err
    assert [bool(row["films"][0]) for row in rows("page.html")] == [True, False, False]
    assert image(rows("page.html")[1]["pictures"][0]).size == (4 * 96, 72)
    assert told not in run("predict", "a.mp4", "b.3gp", "-o", "two.html", "--workers", "0").err


def test_a_page_of_json_lines_plays_too(run: Run) -> None:
    assert run("predict", "a.mp4", "-o", "labels.jsonl", "--workers", "0").code == 0
    record = json.loads(Path("labels.jsonl").read_text())
    assert run("merge", "labels.jsonl", "-o", "merged.html").code == 0
    (row,) = rows("merged.html")
    assert (row["url"], row["video"], row["pictures"], row["films"]) == ("a.mp4", record["video"], [], [])
