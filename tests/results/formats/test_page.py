"""The page of labels: what stands in it, and what a real browser makes of that."""

# ruff: noqa: RUF001 (it shows times and sizes with a dash and a cross that are not those of the keyboard)

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testing.labels_page import (
    LABELS,
    PageOfLabels,
    column,
    failure,
    ranked,
    strip,
    text_of,
    timeline,
    video,
    whole,
)
from testing.pages import HOSTILE, TEXTS, Elements, Show
from timesformer_cli.results.record import Record

# What stands in the page


def test_records_read_back() -> None:
    picture = strip(200)
    records = [
        whole("a.mp4", (2, 0.75), (0, 0.25), _thumbnails=[picture]),
        failure("b.mp4"),
        timeline("c.mp4", (0.0, 4.0, [(1, 0.5)]), (2.0, 6.0, [])),
    ]
    run, first, second, third = Elements(text_of(records)).json
    assert (run["model"], run["recipe"], run["raw"], run["labels"]) == ("base-k400", "original", False, list(LABELS))
    assert (first["path"], first["timeline"], first["pictures"]) == ("a.mp4", False, [picture])
    assert first["parts"] == [{"start": 0.0, "end": 10.0, "ranks": [[2, 0.75], [0, 0.25]], "next": []}]
    assert first["video"] == records[0]["video"]
    assert second == {"path": "b.mp4", "url": "b.mp4", "error": records[1]["error"]}
    assert (third["timeline"], third["pictures"]) == (True, [])
    assert [(part["start"], part["end"], part["ranks"]) for part in third["parts"]] == [
        (0.0, 4.0, [[1, 0.5]]),
        (2.0, 6.0, []),
    ]


@given(text=st.text(st.characters(exclude_categories=()), max_size=20), before=st.sampled_from(["", HOSTILE, "<!--"]))
def test_no_text_becomes_markup(text: str, before: str) -> None:
    text = before + text
    labels = [text, *LABELS[1:]]
    hostile = text_of([whole(text, (0, 1.0)), failure(text, message=text)], labels, recipe=text)
    plain = Elements(text_of([whole("a", (0, 1.0)), failure("b")]))
    found = Elements(hostile)
    assert found.tags == plain.tags
    assert found.ended == plain.ended
    run, first, second = found.json
    # The writer would put an escape for what UTF-8 cannot hold; here JSON has one already.
    assert hostile.encode("utf-8")
    assert (run["recipe"], run["labels"][0]) == (text, text)
    assert (first["path"], second["error"]["message"]) == (text, text)


def test_the_browser_may_run_one_script_and_fetch_videos() -> None:
    Elements(text_of([])).check_policy(" media-src file: http: https:;")


@pytest.mark.skipif(os.name == "nt", reason="paths of POSIX")
@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("clips/a.mp4", "../clips/a.mp4"),
        ("../a b#1?%.mp4", "../../a%20b%231%3F%25.mp4"),
        ("javascript:alert(1)", "../javascript%3Aalert%281%29"),
        ("caf\udce9.mp4", "../caf%E9.mp4"),
        ("/data/a b.mp4", "file:///data/a%20b.mp4"),
        ("file:///data/a%20b.mp4", "file:///data/a%20b.mp4"),
        ("https://example.org/a.mp4?x=1", "https://example.org/a.mp4?x=1"),
        ("HTTP://example.org/a.mp4", "HTTP://example.org/a.mp4"),
        ("s3://bucket/a.mp4", None),
        ("javascript://%0aalert(1)", None),
        ("\ud800.mp4", None),
    ],
)
def test_links(path: str, url: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    assert Elements(text_of([failure(path)], folder=Path("out"))).json[1]["url"] == url


# What a browser makes of it

Open = Callable[..., "PageOfLabels"]


@pytest.fixture
def open_page(show: Show, tmp_path: Path) -> Open:
    def open_one(
        records: Sequence[Record], labels: Sequence[str] = LABELS, *, hash: str = "", **options: Any
    ) -> PageOfLabels:
        page = show(text_of(records, labels, folder=tmp_path, **options), hash)
        return PageOfLabels(page.browser, page.path)

    return open_one


SOME = [
    whole("clips/b10.mp4", (2, 0.62), (0, 0.21), duration=8.04),
    whole("clips/b9.mp4", (0, 0.91), (3, 0.05), duration=75.0),
    failure("clips/broken.mp4", "no_video_stream", "no video stream; is it an audio file?"),
    whole("other/a.mp4", (2, 0.33), (4, 0.3), duration=None),
    failure("other/hangs.mp4", "timeout", "took longer than 60 s"),
]


def test_a_page_of_videos(open_page: Open) -> None:
    page = open_page([SOME[0] | {"_thumbnails": [""]}, *SOME[1:]], recipe="original with clips=1")
    assert page.paths() == [record["path"] for record in SOME]
    assert page.texts("main li.whole:first-child .bars li") == ["canoeing62.0 %", "archery21.0 %"]
    assert page.texts(".facts") == [
        "8.0 s · 340 × 256 · 29.97 fps · h264",
        "1:15 · 340 × 256 · 29.97 fps · h264",
        "",
        "340 × 256 · 29.97 fps · h264",
        "",
    ]
    assert page.texts(".failed .answer") == [
        "no video streamno video stream; is it an audio file?",
        "timeouttook longer than 60 s",
    ]
    (about, amounts) = page.texts("header p")
    assert re.fullmatch(r"base-k400 · recipe original with clips=1 · \d{4}-\d\d-\d\d \d\d:\d\d", about)
    assert amounts == "3 videos labelled · 1.4 min of video · 2 failed (1 no video stream, 1 timeout)"
    assert page.browser.title == "Video labels: base-k400"
    assert page.texts(".pictures") == []
    widths = page.run("return Array.from(document.querySelectorAll('.bar span'), (e) => e.style.width)")
    assert widths == ["62%", "21%", "91%", "5%", "33%", "30%"]


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"text": "OTHER/"}, ["other/a.mp4", "other/hangs.mp4"]),
        ({"text": " dancing bal"}, ["clips/b9.mp4"]),
        ({"text": "audio file"}, ["clips/broken.mp4"]),
        ({"text": "nothing like that"}, []),
        ({"label": "2"}, ["clips/b10.mp4", "other/a.mp4"]),
        ({"label": "2", "text": "clips"}, ["clips/b10.mp4"]),
        ({"status": "error"}, ["clips/broken.mp4", "other/hangs.mp4"]),
        ({"status": "ok", "sort": "-duration"}, ["clips/b9.mp4", "clips/b10.mp4", "other/a.mp4"]),
        ({"status": "ok", "sort": "duration"}, ["clips/b10.mp4", "clips/b9.mp4", "other/a.mp4"]),
        ({"sort": "path"}, ["clips/b9.mp4", "clips/b10.mp4", "clips/broken.mp4", "other/a.mp4", "other/hangs.mp4"]),
        ({"sort": "-score", "status": "ok"}, ["clips/b9.mp4", "clips/b10.mp4", "other/a.mp4"]),
        ({"sort": "score"}, ["other/a.mp4", "clips/b10.mp4", "clips/b9.mp4", "clips/broken.mp4", "other/hangs.mp4"]),
        ({"sort": "label", "text": "mp4", "status": "ok"}, ["clips/b9.mp4", "clips/b10.mp4", "other/a.mp4"]),
    ],
    ids=str,
)
def test_what_is_asked_for(fields: dict[str, str], paths: list[str], open_page: Open) -> None:
    page = open_page(SOME)
    page.ask(**fields)
    assert page.paths() == paths
    assert page.texts("output") == ["5 videos" if len(paths) == 5 else f"{len(paths)} of 5 videos"]
    address = page.run("return location.hash")
    again = open_page(SOME, hash=address)
    assert again.paths() == paths
    again.run("document.querySelector('form button').click()")
    again.wait("document.querySelectorAll('.video').length === 5")
    assert again.paths() == [record["path"] for record in SOME]


@pytest.mark.parametrize(
    ("sort", "order"),
    [("score", "dbace"), ("-score", "bdace"), ("duration", "bdeac"), ("-duration", "edbac"), ("label", "bdace")],
)
def test_videos_without_what_they_are_sorted_by_come_last(sort: str, order: str, open_page: Open) -> None:
    page = open_page(
        [
            failure("a"),
            whole("b", (0, 0.9), duration=1.0),
            failure("c"),
            whole("d", (1, 0.3), duration=2.0),
            whole("e", duration=3.0),
        ]
    )
    page.ask(sort=sort)
    assert "".join(page.paths()) == order


def test_labels_to_pick_from_have_their_numbers(open_page: Open) -> None:
    unlabelled = whole("none.mp4")
    page = open_page([*SOME, unlabelled])
    assert page.texts("select[name=label] option") == ["All labels", "canoeing (2)", "archery (1)", "no label (1)"]
    assert page.texts(".whole .answer")[-1] == "no label"
    page.ask(label="-1")
    assert page.paths() == ["none.mp4"]


def test_an_address_that_asks_for_what_is_not_there_shows_all(open_page: Open) -> None:
    page = open_page(SOME, hash="#label=99&sort=colour&status=odd&other=1")
    assert len(page.paths()) == 5
    assert page.run("return [...document.querySelectorAll('select')].map((e) => e.value)") == ["", "", "order"]


def test_many_labels_of_a_video_fold_out(open_page: Open) -> None:
    page = open_page([whole("a.mp4", *((index, 0.7 / 2**index) for index in range(7)))])
    assert len(page.texts(".bars li")) == 5
    page.run("document.querySelector('summary').click()")
    assert page.texts("summary") == ["2 more labels"]
    assert page.texts("details li") == ["flying kite2.2 %", "golf putting1.1 %"]
    page.run("document.querySelector('summary').click()")
    assert page.texts("details li") == []


def test_groups_say_what_they_are_made_of(open_page: Open) -> None:
    groups = {"boats": ["canoeing", "<b>"], "rest": ["archery"]}
    page = open_page([whole("a.mp4", (0, 0.9))], ("boats", "rest", "other"), groups=groups)
    assert page.texts("header p")[1].endswith("boats: canoeing, <b> · rest: archery")


def test_logits_are_shown_from_the_least_to_the_greatest(open_page: Open) -> None:
    page = open_page([whole("a.mp4", (0, 6.0), (1, 1.0)), whole("b.mp4", (2, -1.0), (3, -2.0))], raw=True)
    assert page.texts(".score") == ["6.00", "1.00", "-1.00", "-2.00"]
    widths = page.run("return Array.from(document.querySelectorAll('.bar span'), (e) => e.style.width)")
    assert widths == ["100%", "37.5%", "12.5%", "0%"]


@pytest.mark.parametrize(("text", "shown"), TEXTS, ids=ascii)
def test_texts_stay_texts(text: str, shown: str, open_page: Open) -> None:
    labels = [text, *LABELS[1:]]
    records = [
        video(text, predictions=ranked((0, 0.9), labels=labels), views=[]),
        video("t", segments=[{"start": 0.0, "end": 9.0, "predictions": ranked((0, 0.9), labels=labels)}]),
        failure("f", message=text),
    ]
    page = open_page(records, labels, recipe=text)
    page.run("document.querySelector('summary').click()")
    assert page.texts(".whole .video bdi") == [shown]
    assert page.texts(".bars bdi") == [shown]
    assert page.texts(".key bdi, .segments .tag bdi") == [shown, shown]
    assert page.texts(".failed .answer bdi") == [shown]
    assert page.texts("#recipe") == [shown]
    assert page.texts("option[value='0']") == [f"{shown} (2)"]
    assert page.run("return document.querySelectorAll('img, b b, #records').length") == 0
    page.ask(text=shown)
    assert len(page.paths()) == 3


def test_links_lead_to_the_videos(open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = open_page(
        [whole("sub/a b#.mp4", (0, 0.9)), whole("https://example.org/a.mp4", (0, 0.9)), whole("s3://b/c.mp4")]
    )
    links = page.run("return Array.from(document.querySelectorAll('main a'), (e) => e.href)")
    assert links == [(tmp_path / "sub/a b#.mp4").as_uri(), "https://example.org/a.mp4"]


def test_pictures(open_page: Open) -> None:
    frames = [strip(20 * number, frames=1) for number in range(12)]
    parts = [(float(number), number + 1.0, [(0, 0.5)]) for number in range(12)]
    page = open_page(
        [
            whole("a.mp4", (0, 0.9), _thumbnails=[strip(200)]),
            timeline("b.mp4", *parts, _thumbnails=frames),
            failure("c.mp4"),
        ]
    )
    assert page.run("return Array.from(document.querySelectorAll('.pictures'), (e) => e.children.length)") == [1, 4, 0]
    page.wait("[...document.images].every((image) => image.complete)")
    images = "return Array.from(document.querySelectorAll('.pictures img'), (image) => image."
    assert page.run(f"{images}naturalWidth)") == [256, 64, 64, 64, 64]
    # Of twelve frames, those in the middle of each quarter.
    assert page.run(f"{images}src.split(',')[1])")[1:] == [frames[place] for place in (1, 4, 7, 10)]


LONG = timeline(
    "footage/long.mp4",
    (0.0, 20.0, [(0, 0.9), (1, 0.05)]),
    (10.0, 30.0, [(0, 0.8)]),
    (20.0, 40.0, [(2, 0.7), (0, 0.2)]),
    (30.0, 50.0, []),
    (50.0, 60.0, [(0, 0.6)]),
    (70.0, 80.0, [(0, 0.5)]),
)


def test_a_timeline_is_drawn_in_colours(open_page: Open) -> None:
    page = open_page([LONG, timeline("footage/other.mp4", (0.0, 5.0, [(2, 0.7)]))])
    assert page.texts(".timeline:first-child .key li") == ["archery 40.0 s", "no label 20.0 s", "canoeing 10.0 s"]
    blocks = page.run(
        "return Array.from(document.querySelectorAll('.timeline:first-child .strip span'), "
        "(e) => [e.style.left, e.style.width, e.style.background])"
    )
    # Windows that overlap end where the next begins; neighbours of one label are one; a gap stays a gap.
    assert [(left, width) for left, width, _ in blocks] == [
        ("0%", "25%"),
        ("25%", "12.5%"),
        ("37.5%", "25%"),
        ("62.5%", "12.5%"),
        ("87.5%", "12.5%"),
    ]
    colours = [colour for *_, colour in blocks]
    assert len(set(colours)) == 3
    assert colours[0] == colours[3] == colours[4]
    (other,) = page.run(
        "return Array.from(document.querySelectorAll('.timeline:last-child .strip span'), (e) => e.style.background)"
    )
    assert other == colours[1]
    page.ask(label="2")
    assert page.run(
        "return Array.from(document.querySelectorAll('.timeline:first-child .strip span'), (e) => e.className)"
    ) == [
        "other",
        "",
        "other",
        "other",
        "other",
    ]


def test_a_timeline_follows_the_pointer(open_page: Open) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    page = open_page([LONG | {"_films": [column()] * 6}])
    slider = page.browser.find_element(By.CLASS_NAME, "slider")
    assert not page.browser.find_element(By.CLASS_NAME, "tip").is_displayed()
    width = slider.rect["width"]
    ActionChains(page.browser).move_to_element_with_offset(slider, round(-0.2 * width), 0).perform()  # at 30 % of 80 s
    assert page.browser.find_element(By.CLASS_NAME, "tip").is_displayed()
    assert page.texts(".tip") == ["0:20 – 0:40canoeing70.0 %"]
    ActionChains(page.browser).click().perform()
    assert page.texts(".segments [aria-current] .tag") == ["canoeing"]
    assert page.texts(".segments li") == [
        "0:00 – 0:20archery90.0 %baking cookies 5.0 %",
        "0:10 – 0:30archery80.0 %",
        "0:20 – 0:40canoeing70.0 %archery 20.0 %",
        "0:30 – 0:50no label",
        "0:50 – 1:00archery60.0 %",
        "1:10 – 1:20archery50.0 %",
    ]
    links = page.run("return Array.from(document.querySelectorAll('.segments a'), (e) => e.hash)")
    assert links[:2] == ["#t=0,20", "#t=10,30"]


def test_a_timeline_follows_keys(open_page: Open) -> None:
    from selenium.webdriver import Keys

    page = open_page([LONG | {"_films": [column()] * 6}])
    page.run("document.querySelector('.slider').focus()")
    label = "return document.activeElement.getAttribute('aria-valuetext').replace('\u00a0', ' ')"
    assert page.run(label) == "0:00 – 0:20, archery 90.0 %"
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.run(label) == "0:20 – 0:40, canoeing 70.0 %"
    page.press(Keys.END, Keys.ARROW_RIGHT)
    assert page.run(label) == "1:10 – 1:20, archery 50.0 %"
    page.press(Keys.ENTER)
    assert page.texts(".segments [aria-current] a") == ["1:10 – 1:20"]


def test_tenths_are_shown_where_windows_begin_between_seconds(open_page: Open) -> None:
    page = open_page([timeline("a.mp4", (0.5, 3.0, [(0, 0.5)]), (3599.96, 3603.25, [(0, 0.5)]))])
    page.run("document.querySelector('summary').click()")
    assert page.texts(".segments a") == ["0:00.5 – 0:03.0", "1:00:00.0 – 1:00:03.3"]


def test_of_many_rows_few_are_there(open_page: Open) -> None:
    from selenium.webdriver import Keys

    picture = strip(120)
    page = open_page([whole(f"{number:05}.mp4", (number % 7, 0.9), _thumbnails=[picture]) for number in range(2000)])
    assert page.texts("output") == ["2,000 videos"]
    page.wait("document.querySelectorAll('li[aria-setsize]').length <= 100")
    assert page.paths()[0] == "00000.mp4"
    page.press(Keys.END)
    page.wait("[...document.querySelectorAll('main .video > bdi')].at(-1).textContent === '01999.mp4'")
    page.wait("document.querySelectorAll('li[aria-setsize]').length <= 100")
    assert page.run("return document.images.length") <= 100
    last = page.run("return [...document.querySelectorAll('li[aria-setsize]')].at(-1).ariaPosInSet")
    assert last == "2000"
    page.ask(text="00777")
    assert page.paths() == ["00777.mp4"]
    page.wait("scrollY <= document.querySelector('main').offsetTop")


def test_what_was_folded_out_is_there_again(open_page: Open) -> None:
    records = [whole(f"{number}.mp4", *((index, 0.1) for index in range(7))) for number in range(500)]
    page = open_page(records)
    page.run("document.querySelector('summary').click(); scrollTo(0, document.body.scrollHeight)")
    page.wait("document.querySelector('li[aria-posinset=\"1\"]') === null")
    page.run("scrollTo(0, 0)")
    page.wait("document.querySelector('li[aria-posinset=\"1\"] details ol') !== null")


def test_all_rows_are_printed(open_page: Open) -> None:
    page = open_page([whole(f"{number}.mp4", (0, 0.9)) for number in range(300)])
    page.run("addEventListener('beforeprint', () => { window.printed = document.querySelectorAll('.video').length })")
    page.browser.execute_cdp_cmd("Page.printToPDF", {})
    assert page.run("return window.printed") == 300


def test_it_is_dark_where_people_want_it_dark(open_page: Open) -> None:
    page = open_page(SOME)
    assert page.brightness("dark") < 128 < page.brightness("light")


def test_it_fits_a_phone(open_page: Open) -> None:
    records = [
        whole("a/" * 100 + "b" * 200, (0, 0.9), _thumbnails=[strip(9)]),
        LONG,
        failure("x" * 300, message="y" * 300),
    ]
    page = open_page(records)
    page.run("document.querySelector('summary').click()")
    page.check_width(390)


def test_keys_alone_reach_everything(open_page: Open) -> None:
    from selenium.webdriver import Keys

    page = open_page([whole("a.mp4", (0, 0.9)), LONG])
    reached = []
    for _ in range(10):
        page.press(Keys.TAB)
        reached.append(page.focused())
    before = ["corrections", "help", "text", "label", "review", "sort"]
    assert reached == [*before, "a.mp4", "footage/long.mp4", "slider", "6 segments"]


def test_without_javascript_it_says_so(open_page: Open) -> None:
    assert "JavaScript" in open_page([]).without_javascript()


def test_a_page_of_nothing(open_page: Open) -> None:
    page = open_page([])
    assert page.texts("main") == ["No videos."]
    assert page.texts("#amounts") == ["0 videos labelled · 0.0 s of video"]


def test_answers_that_were_left_open(open_page: Open) -> None:
    """They have no label; what the model said folds out."""
    open_parts = timeline("film.mp4", (0, 6, [(1, 0.9)]), (6, 10, [(0, 0.4)]))
    open_parts["segments"][1]["abstained"] = True
    page = open_page([whole("a.mp4", (2, 0.4), (0, 0.3), abstained=True), whole("b.mp4", (2, 0.9)), open_parts])
    assert page.texts(".whole .answer")[0] == "–2 labels"
    assert page.texts(".timeline .key li") == ["baking cookies 6.0 s", "– 4.0 s"]
    assert page.texts("select[name=label] option") == ["All labels", "– (2)", "canoeing (1)", "baking cookies (1)"]
    page.run("document.querySelector('.whole summary').click()")
    page.wait("document.querySelector('.whole .bars')")
    assert page.texts(".whole:first-child .bars bdi") == ["canoeing", "archery"]
    page.ask(label="-2")
    assert page.paths() == ["a.mp4", "film.mp4"]
