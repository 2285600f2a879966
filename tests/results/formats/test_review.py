"""The review on the page of labels: videos that play, keys that label them, and the file of corrections."""

# ruff: noqa: RUF001 (it shows times with a dash that is not that of the keyboard)

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Keys

from testing.clips import write_video
from testing.labels_page import LABELS, PageOfLabels, column, failure, text_of, timeline, whole
from testing.pages import Elements, Show
from timesformer_cli.datasets import open_dataset
from timesformer_cli.results.formats.page import films
from timesformer_cli.results.record import Record
from timesformer_cli.video.render import FILM_FRAMES

Open = Callable[..., PageOfLabels]

# At an address that browsers do not open, so that nothing is fetched.
AT = "s3://films/"

THREE = [
    whole(f"{AT}a.mp4", (2, 0.62), (0, 0.21), (5, 0.1), _runners_up=[[3, 6]]),
    whole(f"{AT}b.mp4", (0, 0.91), (3, 0.05)),
    failure(f"{AT}broken.mp4"),
    whole(f"{AT}c.mp4", (1, 0.33), (4, 0.3)),
]


@pytest.fixture
def open_page(show: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens a page in a folder of its own. What the browser keeps is forgotten afterwards, as pages share it."""
    monkeypatch.chdir(tmp_path)
    opened: list[PageOfLabels] = []

    def open_one(records: Sequence[Record] = THREE, labels: Sequence[str] = LABELS, **options: Any) -> PageOfLabels:
        page = show(text_of(records, labels, folder=tmp_path, **options))
        opened.append(PageOfLabels(page.browser, page.path))
        return opened[-1]

    yield open_one
    for page in opened[-1:]:
        page.run("localStorage.clear()")
        assert page.browser.get_log("browser") == []
        page.browser.get("about:blank")
        page.browser.get_log("browser")  # Chromium says that it did not ask whether to leave


def verdicts(page: PageOfLabels) -> list[str]:
    return page.texts(".video .verdict")


def in_hand(page: PageOfLabels) -> list[str]:
    return page.texts(".here .video bdi")


def progress(page: PageOfLabels) -> str:
    (text,) = page.texts("#progress")
    return text


def load(page: PageOfLabels, path: Path) -> None:
    page.browser.find_element("name", "corrections").send_keys(str(path))
    page.wait("document.querySelector('#notice').textContent !== ''")


def downloaded(page: PageOfLabels, folder: Path) -> Path:
    """The file that the button saves."""
    folder.mkdir()
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    page.run("document.querySelector('[name=download]').click()")
    for _ in range(500):
        if (folder / "corrections.csv").exists():
            break
        page.run("return new Promise((done) => setTimeout(done, 10))")
    return folder / "corrections.csv"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_one_key_for_a_label_shown(open_page: Open) -> None:
    page = open_page()
    assert progress(page) == "0 of 3 reviewed, 3 left"
    page.press("n")
    assert (in_hand(page), progress(page)) == ([f"{AT}a.mp4"], "1 of 3, 3 left")
    page.press("a")
    assert (in_hand(page), progress(page)) == ([f"{AT}b.mp4"], "2 of 3, 2 left")
    page.press("2")
    page.press("u")
    assert verdicts(page) == ["✓ accepted", "→ dancing ballet", "", "? unsure"]
    assert progress(page) == "3 of 3, 0 left"
    assert page.texts("#notice") == ["Everything in the list is reviewed."]
    page.press("5")  # there are two labels
    page.press(Keys.ENTER)
    assert verdicts(page)[3] == "✓ accepted"


def test_the_space_skips_what_is_reviewed_and_z_goes_back(open_page: Open) -> None:
    page = open_page()
    page.press(Keys.SPACE, "a", Keys.SPACE)
    assert in_hand(page) == [f"{AT}c.mp4"]
    page.press(Keys.SPACE)
    assert in_hand(page) == [f"{AT}b.mp4"]  # round to the beginning, past the first
    page.press("u", "z")
    assert (in_hand(page), verdicts(page)) == ([f"{AT}b.mp4"], ["✓ accepted", "", "", ""])
    page.press("z")
    assert (in_hand(page), verdicts(page)) == ([f"{AT}a.mp4"], [""] * 4)
    page.press("z")
    assert page.texts("#notice") == ["There is nothing to undo."]


def test_undo_shows_what_filters_hide(open_page: Open) -> None:
    page = open_page()
    page.press("n", "a")
    page.ask(text="c.mp4")
    page.press("z")
    assert in_hand(page) == [f"{AT}a.mp4"]
    assert len(page.paths()) == 4


def test_typing_narrows_the_labels_by_their_scores(open_page: Open) -> None:
    page = open_page([THREE[0]])
    page.press("n", "/")
    # Those with scores, the best first, then the others by alphabet.
    assert page.texts(".chooser li") == [LABELS[place] for place in (2, 0, 5, 3, 6, 1, 4)]
    page.press("ba")
    assert page.texts(".chooser li") == ["dancing ballet", "baking cookies", "New label: ba"]
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    assert verdicts(page) == ["→ baking cookies"]
    page.press("l", "da b")
    assert page.texts(".chooser li") == ["dancing ballet", "New label: da b"]
    page.press(Keys.ESCAPE)
    page.press("l", "golf", Keys.ESCAPE)
    assert page.texts(".chooser") == []
    page.press("l", "putting", Keys.ENTER)
    assert verdicts(page) == ["→ golf putting"]


def test_a_new_name_is_offered_again(open_page: Open) -> None:
    page = open_page()
    page.press("n", "/", "Pole  vault ", Keys.ENTER)
    assert verdicts(page)[0] == "→ Pole vault"
    page.press("/", "pole")
    assert page.texts(".chooser li") == ["Pole vault", "New label: pole"]
    page.press(Keys.ENTER)
    assert verdicts(page)[1] == "→ Pole vault"
    page.press("/", "archery")  # in a name that exists there is nothing new
    assert page.texts(".chooser li") == ["archery"]


def test_fields_keep_their_keys(open_page: Open) -> None:
    page = open_page()
    page.run("document.querySelector('[name=text]').focus()")
    page.press("an1")
    assert page.run("return document.querySelector('[name=text]').value") == "an1"
    assert (in_hand(page), verdicts(page)) == ([], [])
    page.ask(text="")
    page.run("document.querySelector('[name=help]').focus()")
    page.press(Keys.SPACE)  # presses the button, as everywhere
    assert page.run("return document.querySelector('dialog').open")
    page.press("a")
    page.press("?")
    assert not page.run("return document.querySelector('dialog').open")
    assert verdicts(page) == [""] * 4
    page.run("document.activeElement.blur()")
    page.press("?")
    assert "Accept the label, and go on" in page.texts("dialog dd")
    assert page.run("return document.querySelector('dialog').open")


def test_a_reload_keeps_everything_for_this_run(open_page: Open) -> None:
    page = open_page()
    page.press("n", "a", "2")
    page.browser.refresh()
    assert verdicts(page) == ["✓ accepted", "→ dancing ballet", "", ""]
    assert progress(page) == "2 of 3 reviewed, 1 left"
    page.press("n")
    assert in_hand(page) == [f"{AT}c.mp4"]
    assert verdicts(open_page(recipe="another")) == [""] * 4
    assert verdicts(open_page()) == ["✓ accepted", "→ dancing ballet", "", ""]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("QuotaExceededError", "The storage of this browser is full."),
        ("SecurityError", "This browser does not let pages keep anything."),
    ],
)
def test_what_cannot_be_kept_is_told(name: str, message: str, open_page: Open) -> None:
    page = open_page()
    page.run("Storage.prototype.setItem = () => { throw new DOMException('no', arguments[0]); }", name)
    page.press("n", "a")
    assert verdicts(page)[0] == "✓ accepted"
    (notice,) = page.texts("#notice")
    assert notice == f"{message} Corrections are kept only until this page is closed: download them before."


def test_leaving_asks_while_something_is_not_downloaded(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    leaves = "const event = new Event('beforeunload', {cancelable: true}); return dispatchEvent(event)"
    assert page.run(leaves)
    page.press("n", "a")
    assert not page.run(leaves)
    downloaded(page, tmp_path / "downloads")
    assert page.run(leaves)
    page.browser.refresh()
    assert page.run(leaves)
    page.press("n", "a")
    page.browser.refresh()
    assert not page.run(leaves)
    downloaded(page, tmp_path / "again")  # or leaving would ask a person


def test_corrections_are_annotations(open_page: Open, tmp_path: Path) -> None:
    for name in ("a, b.mp4", "c.mp4", "d.mp4", "film.mp4"):
        write_video(Path(name), frames=40)
    odd = 'say "x",\ny'
    page = open_page(
        [
            whole("a, b.mp4", (2, 0.62), (0, 0.21)),
            whole("c.mp4", (0, 0.5)),
            whole("d.mp4", (1, 0.5)),
            timeline("film.mp4", (0.0, 2.0, [(0, 0.9), (6, 0.1)]), (2.0, 4.0, [(1, 0.8)])),
        ],
        [odd, *LABELS[1:]],
    )
    page.press("n", "2", "u", "/", "=1+1", Keys.ENTER, "2", "a")
    page.wait("document.querySelector('video').videoWidth > 0")
    path = downloaded(page, tmp_path / "downloads")
    rows = rows_of(path)
    assert path.read_bytes().startswith(b"path,start,end,label,was,score,reviewed_at\r\n")
    assert all(row.pop("reviewed_at").endswith("Z") for row in rows)
    assert [list(row.values()) for row in rows] == [
        ["a, b.mp4", "", "", odd, "canoeing", "0.62"],
        ["c.mp4", "", "", "", odd, "0.5"],
        ["d.mp4", "", "", "=1+1", "baking cookies", "0.5"],  # exact, as all tables here
        ["film.mp4", "0", "2", "golf putting", odd, "0.9"],
        ["film.mp4", "2", "4", "baking cookies", "baking cookies", "0.8"],
    ]
    dataset = open_dataset(tmp_path, path, labels=None)
    assert [(sample.path, sample.part) for sample in dataset.samples] == [
        (f"{tmp_path}/a, b.mp4", (None, None)),
        (f"{tmp_path}/d.mp4", (None, None)),
        (f"{tmp_path}/film.mp4", (0.0, 2.0)),
        (f"{tmp_path}/film.mp4", (2.0, 4.0)),
    ]
    assert set(dataset.names) == {odd, "=1+1", "golf putting", "baking cookies"}
    assert [problem.kind for problem in dataset.problems] == ["unlabelled"]

    page.run("localStorage.clear()")
    page.browser.refresh()
    assert verdicts(page) == [""] * 4
    load(page, path)
    assert page.texts("#notice") == ["corrections.csv: 5 corrections loaded"]
    assert verdicts(page) == ['→ say "x",\\u000ay', "? unsure", "→ =1+1", "✓ 2 of 2 segments reviewed"]
    assert rows_of(downloaded(page, tmp_path / "again")) == rows_of(path)


def test_a_file_name_that_is_not_utf_8_goes_both_ways(open_page: Open, tmp_path: Path) -> None:
    page = open_page([whole(f"{AT}caf\udce9.mp4", (2, 0.62))])
    page.press("n", "a")
    path = downloaded(page, tmp_path / "downloads")
    assert f"{AT}caf".encode() + b"\xe9.mp4,,,canoeing" in path.read_bytes()
    page.run("localStorage.clear()")
    page.browser.refresh()
    load(page, path)
    assert verdicts(page) == ["✓ accepted"]


def test_files_of_other_videos(open_page: Open, tmp_path: Path) -> None:
    header, path = "path,start,end,label,was,score,reviewed_at", tmp_path / "other.csv"
    columns = "is no file of corrections; expected the columns path, start, end, label, was, score, reviewed_at"
    page = open_page()
    for text, message in [
        (f"{header}\r\nz.mp4,,,x,y,1,2\r\ny.mp4,,,x,y,1,2\r\n", "none of its 2 rows is of a video on this page"),
        (f"{header}\n{AT}a.mp4,,,x,y,1,2\ny.mp4,1,,x,y,1,2\n", "1 correction loaded, 1 row left out: not on this page"),
        ("path,label\na.mp4,x\n", columns),
        ("", columns),
    ]:
        path.write_text(text)
        page.run("document.querySelector('#notice').textContent = ''")
        load(page, path)
        assert page.texts("#notice") == [f"other.csv: {message}"]


def test_a_later_correction_stays(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    page.press("n", "a")
    path = tmp_path / "old.csv"
    path.write_text(f"path,start,end,label,was,score,reviewed_at\n{AT}a.mp4,,,x,y,1,2020-01-01T00:00:00Z\n")
    load(page, path)
    assert verdicts(page)[0] == "✓ accepted"


def test_rows_by_their_review(open_page: Open) -> None:
    page = open_page()
    page.press("n", "a", "2")
    for asked, names in [("unsure", ""), ("open", "c"), ("done", "ab"), ("changed", "b")]:
        page.ask(review=asked)
        assert page.paths() == [f"{AT}{name}.mp4" for name in names]
    page.browser.refresh()
    assert page.paths() == [f"{AT}b.mp4"]


FILM = timeline(
    f"{AT}film.mp4", (0.0, 2.0, [(0, 0.9), (1, 0.1)]), (2.0, 4.0, [(2, 0.7)]), (4.0, 6.0, [(3, 0.7), (0, 0.2)])
)


def test_each_segment_is_reviewed(open_page: Open) -> None:
    page = open_page([FILM])
    page.press("n")
    assert page.texts(".panel .facts") == ["0:00 – 0:02 · segment 1 of 3"]
    page.press("2")
    assert page.texts(".choices bdi") == ["canoeing"]
    page.run("document.querySelector('summary').click()")
    page.press("a")
    assert page.texts(".segments .verdict") == ["→ baking cookies", "✓ accepted", ""]
    assert page.texts(".panel .facts") == ["0:04 – 0:06 · segment 3 of 3"]
    assert verdicts(page) == ["✓ 2 of 3 segments reviewed"]
    page.run("document.querySelectorAll('.choices li')[1].click()")
    assert page.texts(".segments .verdict")[2] == "→ archery"
    assert progress(page) == "3 of 3, 0 left"
    page.run("document.querySelectorAll('.segments li')[1].click()")
    assert page.texts(".segments [aria-current] .tag") == ["canoeing"]
    page.run("document.querySelectorAll('.tools button')[2].click()")  # unsure
    assert page.texts(".segments .verdict")[1] == "? unsure"


def test_a_video_plays_where_it_stands(open_page: Open) -> None:
    Path("100%d #").mkdir()
    name = "100%d #/太極 -x.mp4"
    write_video(Path(name), frames=40)
    page = open_page(
        [whole(name, (0, 0.9), duration=4.0), timeline(name, (0.0, 2.0, [(0, 0.9)]), (2.0, 2.5, [(1, 0.8)]))]
    )
    playing = "document.querySelector('.here video')"
    page.press("n")
    page.wait(f"{playing}.currentTime > 0.2 && !{playing}.paused")
    page.press("p")
    assert page.run(f"return {playing}.paused && {playing}.muted && {playing}.loop === false")
    page.press("a", "a")
    page.wait(f"{playing}.currentTime >= 2")
    page.run(f"window.times = []; {playing}.addEventListener('seeked', () => times.push({playing}.currentTime))")
    page.wait("times.length > 0")  # back to the start of the segment
    assert page.run("return times[0]") == pytest.approx(2, abs=0.1)
    assert page.run("return document.querySelectorAll('video').length") == 1


def test_a_video_that_is_gone_says_so(open_page: Open, browser: Any) -> None:
    page = open_page([whole("gone.mp4", (0, 0.9))])
    page.press("n")
    page.wait("document.querySelector('.unplayed') !== null")
    assert page.texts(".unplayed") == ["This browser cannot play it, or the file has moved."]
    page.press("a")
    assert verdicts(page) == ["✓ accepted"]
    assert any("gone.mp4" in entry["message"] for entry in browser.get_log("browser"))  # emptied for other tests


def test_frames_move_instead_of_a_video_that_browsers_do_not_play(open_page: Open) -> None:
    page = open_page([whole("a.avi", (0, 0.9), _films=[column()]), whole("b.mkv", (0, 0.9), _films=[column()])])
    page.press("n")
    page.wait("[...document.images].every((image) => image.complete)")
    moving = "return document.querySelector('.player img').getAnimations().length"
    assert page.run(moving) == 1
    height, whole_height = page.run(
        "const film = document.querySelector('.player .film');"
        "return [film.getBoundingClientRect().height, film.firstChild.getBoundingClientRect().height]"
    )
    assert whole_height == pytest.approx(FILM_FRAMES * height, abs=1)
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert page.run(moving) == 0
    assert page.run("return document.querySelector('.player .film').ariaLabel") == "Frame 2 of 8 of a.avi"
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert page.run("return document.querySelector('.player .film').ariaLabel") == "Frame 8 of 8 of a.avi"
    page.press("p")
    assert page.run(moving) == 1
    assert page.texts("video") == []
    assert page.run("return document.querySelector('.pictures .film').getAnimations({subtree: true}).length") == 0


def test_frames_stand_still_for_people_who_want_that(open_page: Open, browser: Any) -> None:
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        page = open_page([whole("a.avi", (0, 0.9), _films=[column()])])
        page.press("n")
        assert page.run("return document.querySelector('.player img').getAnimations().length") == 0
        page.press(Keys.ARROW_RIGHT)
        assert page.run("return document.querySelector('.player .film').ariaLabel") == "Frame 2 of 8 of a.avi"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_further_films_are_thumbnails(monkeypatch: pytest.MonkeyPatch, open_page: Open) -> None:
    monkeypatch.setattr(films, "MOST_FILMS", 2)
    monkeypatch.setattr("timesformer_cli.results.formats.page.MOST_FILMS", 2)
    records = [whole(f"{number}.avi", (0, 0.9), _films=[column()]) for number in range(2)]
    records.append(FILM | {"path": "2.avi", "_films": [column()] * 3})
    _, *rows = Elements(text_of(records)).json
    assert [sum(map(bool, row["films"])) for row in rows] == [1, 1, 0]
    assert [sum(map(bool, row["pictures"])) for row in rows] == [0, 0, 3]
    page = open_page(records)
    assert page.texts("#amounts")[0].endswith("the frames of the first 2 move, others stand still")
    page.wait("[...document.images].every((image) => image.complete)")
    sizes = page.run("return Array.from(document.querySelectorAll('.pictures img'), (e) => e.naturalHeight)")
    assert sizes == [320, 320, 72, 72, 72]


def test_the_row_in_hand_fits_a_phone(open_page: Open) -> None:
    page = open_page([FILM | {"_films": [column()] * 3}, whole("x" * 300 + ".avi", (0, 0.9), _films=[column()])])
    page.press("n", "/")
    page.check_width(390)
    page.press(Keys.ESCAPE, "a", "a", "a")
    page.check_width(390)
