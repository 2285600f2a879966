"""`timesformer explain`: words, JSON, files, folders that resume, and what is refused."""

import json
from contextlib import nullcontext
from pathlib import Path
from shutil import copyfile
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from testing.artefacts import folder_of
from testing.clips import write_audio, write_model, write_video
from testing.command import Run, only_line
from testing.pages import HOSTILE, Elements, Show
from timesformer_cli.bundled import CLIP
from timesformer_cli.cli import console
from timesformer_cli.cli.explain import _share


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4")
    write_model(tmp_path / "model")
    return tmp_path


HERE = ("-m", "model", "--workers", "0", "--device", "cpu")


def test_the_record_keeps_the_contract(run: Run) -> None:
    code, out, err = run("explain", "a.mp4", *HERE)
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert record["path"] == "a.mp4"
    assert set(record["counterfactuals"]) == {"single_frame", "shuffled", "reversed", "still"}
    assert all({"label", "score"} <= set(each) for each in record["counterfactuals"].values())
    assert set(record["frames"][0]) >= {"frame", "time", "importance"}
    assert set(record["map"]) >= {"method", "shape", "fill", "deletion", "gap", "verdict"}
    assert set(record["map"]["deletion"]) == set(record["map"]["gap"]) == {"gray", "still"}
    assert record["map"]["shape"] == [4, 4, 4]


def test_words_for_people(run: Run) -> None:
    code, out, _ = run("explain", str(CLIP), "-m", "camera-motion", "-f", "text", "--workers", "0")
    assert code == 0
    for words in (
        "only one frame",
        "frames in another order",
        "time reversed",
        "map (lrp)",
        "gap",
        "not what the model sees",
    ):
        assert words in out


def test_json_is_an_object_for_one_and_an_array_for_several(run: Run) -> None:
    copyfile("a.mp4", "b.mp4")
    options = (*HERE, "--no-check", "-f", "json")
    assert json.loads(run("explain", "a.mp4", *options).out)["map"]["verdict"] == "not checked"
    several = json.loads(run("explain", "a.mp4", "b.mp4", *options).out)
    assert [each["path"] for each in several] == ["a.mp4", "b.mp4"]


def test_labels_are_named_or_numbered(run: Run) -> None:
    options = (*HERE, "--no-check", "--label", "WAVING", "--label", "4", "--versus", "größer, schneller")
    records = run("explain", "a.mp4", *options).records
    assert [record["label"] for record in records] == ["waving", "running"]
    assert {record["versus"] for record in records} == {"größer, schneller"}


@pytest.mark.parametrize("name", ["why.html", "why.mp4", "why.png", "why.npz"])
def test_files_of_one_video(run: Run, name: str) -> None:
    code, _, err = run("explain", "a.mp4", *HERE, "-o", name)
    assert (code, err) == (0, f"{name}: written\n")
    again = run("explain", "a.mp4", *HERE, "-o", name)
    assert again.code == 1
    assert only_line(again.err).endswith("already exists; choose another name, or --overwrite")
    if name == "why.png":
        with Image.open(name) as sheet:
            assert sheet.width > 500
    elif name == "why.mp4":
        with av.open(name) as container:
            assert sum(1 for _ in container.decode(video=0)) == 12
    elif name == "why.npz":
        arrays = np.load(name)
        assert arrays["map"].shape == (1, 4, 4, 4)
        assert arrays["map"].dtype == np.float32
        assert arrays["frames"].shape == arrays["times"].shape == (1, 4)
        assert arrays["box"].shape == (1, 4)
        assert arrays["curves"].shape == (1, 2, 2, 8)
        assert json.loads(str(arrays["record"]))[0]["path"] == "a.mp4"
    else:
        page = Elements(Path(name).read_text(encoding="utf-8"))
        page.check_policy(" media-src file: http: https:;")
        (facts,) = page.json
        assert len(facts["views"][0]["frames"]) == 4
        assert len(facts["contrasts"]) == 2


def test_a_folder_resumes(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "clips").mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        copyfile("a.mp4", place / "clips" / name)
    (place / "clips" / "bad.mp4").write_bytes(b"none")
    options = ("explain", "clips", *HERE, "--no-check", "-o", "why")
    from timesformer_cli.jobs.explain import files

    write, count = files.write_picture, 0

    def stopped(*args: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        write(*args)

    monkeypatch.setattr(files, "write_picture", stopped)
    assert run(*options).code == 130
    monkeypatch.undo()
    monkeypatch.chdir(place)
    held = (place / "why" / files.RECORDS).read_text().splitlines()
    assert [json.loads(line)["path"] for line in held] == ["clips/a.mp4", "clips/b.mp4", "clips/bad.mp4"]
    refused = run(*options)
    assert refused.code == 1
    assert "add --resume or --overwrite" in only_line(refused.err)
    assert run(*options, "--resume", "--label", "waving").code == 1
    code, out, err = run(*options, "--resume")
    assert (code, out) == (3, "")
    assert "1 explained; 3 done before" in err
    records = [json.loads(line) for line in (place / "why" / files.RECORDS).read_text().splitlines()]
    assert [record["path"] for record in records] == [*(f"clips/{name}.mp4" for name in ("a", "b", "bad", "c"))]
    pages = {record["page"] for record in records if "page" in record}
    assert len(pages) == 3
    assert all((place / "why" / page).is_file() for page in pages)
    (facts,) = Elements((place / "why" / "index.html").read_text(encoding="utf-8")).json
    assert [row["page"] is None for row in facts["rows"]] == [False, False, True, False]


def test_damaged_videos_are_told(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(place / "sound.mp4")
    meters = [console._LineMeter(None), console._LineMeter(None)]
    left = iter(meters)
    monkeypatch.setattr(console, "progress", lambda *_, **__: nullcontext(next(left)))
    alone = run("explain", "sound.mp4", *HERE)
    assert alone.code == 1
    assert "sound.mp4: " in only_line(alone.err)
    both = run("explain", "sound.mp4", "a.mp4", *HERE, "--no-check")
    assert both.code == 3
    assert [record["status"] for record in both.records] == ["error", "ok"]
    assert [(meter.done, meter.failed) for meter in meters] == [(1, 1), (2, 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--label", "wavin"), "--label wavin: model has no such class; did you mean waving?"),
        (("--label", "5"), "--label 5: model has no such class; it has 5, such as"),
        (("--versus", "-1"), "--versus -1: model has no such class; it has 5, such as"),
        (("--label", "0", "--versus", "waving"), "--versus is one of the labels to explain; name a different class"),
        (("--no-check", "--checks", "all"), "--no-check and --checks all cannot be combined"),
        (("--resume",), "--resume and --retry-errors need --output with a folder"),
        (("--overwrite",), "--overwrite needs --output"),
        (("-o", "why.jsonl"), "JSON goes to standard output"),
        (("a.mp4", "model", "-o", "why.html"), "why.html: is a file for one video"),
        (("--top", "0"), "'0' is not a share such as 20% or 0.2"),
        (("--alpha", "x"), "'x' is not a share such as 20% or 0.2"),
        (("--fill", "black"), "'black' is not one of still, gray, blur"),
        (("--at", "-1"), "'-1' is not a number above 0"),
        (("--method", "lime"), "'lime' is not one of"),
    ],
)
def test_wrong_usage(run: Run, place: Path, options: tuple[str, ...], message: str) -> None:
    copyfile("a.mp4", place / "model" / "b.mp4")
    code, out, err = run("explain", "a.mp4", *HERE, *options)
    assert (code, out) == (2, "")
    assert message in only_line(err)


def test_nothing_to_explain(run: Run, place: Path) -> None:
    assert run("explain", *HERE).code == 2
    (place / "empty").write_text("")
    done = run("explain", "--from-file", "empty", *HERE)
    assert done.code == 1
    only_line(done.err)


def test_a_clip_that_does_not_exist_is_told_with_its_option(run: Run) -> None:
    code, _, err = run("explain", "a.mp4", *HERE, "--clip", "7", "-f", "text")
    assert code == 1
    assert only_line(err) == "error: a.mp4: --clip 7: it has clips 0 to 0"


def test_folders_that_hold_something_else_are_left_alone(run: Run, place: Path) -> None:
    done = run("explain", "a.mp4", *HERE, "-o", "model", "--overwrite")
    assert done.code == 1
    assert "holds other files" in only_line(done.err)


class TestExported:
    @pytest.fixture
    def exported(self, tmp_path: Path) -> str:
        return str(folder_of("onnx", tmp_path / "exported"))

    def test_words_without_a_map(self, run: Run, exported: str) -> None:
        code, out, _ = run("explain", "a.mp4", "-m", exported, "--workers", "0", "-f", "text")
        assert code == 0
        assert "these methods run: occlusion, ridge, shapley" in out
        (record,) = run("explain", "a.mp4", "-m", exported, "--workers", "0").records
        assert record["map"] is None
        (found,) = run("explain", "a.mp4", "-m", exported, "--workers", "0", "--method", "occlusion").records
        assert found["map"]["method"] == "occlusion"
        assert found["counterfactuals"] == record["counterfactuals"]
        wrong = run("explain", "a.mp4", "-m", exported, "--method", "lrp")
        assert wrong.code == 2
        assert "--method lrp needs the gradients of a network" in only_line(wrong.err)
        assert "A map tells" not in out
        Path("b.mp4").touch()  # the option is refused before the video is read
        sheet = run("explain", "b.mp4", "-m", exported, "-o", "why.png")
        assert sheet.code == 2
        assert "a .png file shows a map" in only_line(sheet.err)
        assert "--method occlusion" in sheet.err


def test_the_page_in_a_browser(run: Run, show: Show, place: Path) -> None:
    write_model(place / "hostile", (HOSTILE, "b", "c", "d", "e"))
    options = ("-m", "hostile", "--workers", "0", "-o", "why.html", "--checks", "all")
    assert run("explain", Path("a.mp4").resolve(), *options, "--label", "0", "--label", "2").code == 0
    page = show(Path("why.html").read_text(encoding="utf-8"))
    page.wait("document.querySelectorAll('#bars button').length === 4")
    page.wait("document.querySelector('#video video')?.readyState >= 2")
    (explained,) = Elements(Path("why.html").read_text(encoding="utf-8")).json
    start = explained["views"][0]["frames"][0]["time"]
    assert page.run("return document.querySelector('#video video').currentTime") == pytest.approx(start, abs=0.05)
    assert page.texts("#tabs button")[:2] == [HOSTILE, "c"]
    assert len(page.texts("#altered tr")) == 5
    assert len(page.texts("#curves svg .band")) == 2
    assert page.texts("#total")[0].startswith("The shares of the patches add up to")
    page.run("document.querySelectorAll('#tabs button')[1].click()")
    assert page.texts("#label") == ["c"]
    page.run("document.querySelectorAll('#bars button')[2].click()")
    assert "(3 of 4)" in page.texts("#place")[0]
    before = page.run("return document.querySelector('canvas').toDataURL()")
    page.run("const a = document.querySelector('[name=alpha]'); a.value = 0; a.dispatchEvent(new Event('input'))")
    assert page.run("return document.querySelector('canvas').toDataURL()") != before


def test_the_index_in_a_browser(run: Run, show: Show) -> None:
    assert run("explain", "a.mp4", *HERE, "--no-check", "-o", "why").code == 0
    page = show((Path("why") / "index.html").read_text(encoding="utf-8"))
    assert page.texts("td")[0] == "a.mp4"
    assert page.texts("td")[3] == "not checked"


@pytest.mark.parametrize(("text", "share"), [("20%", 0.2), ("0.5", 0.5), ("1", 1.0), ("100%", 1.0)])
def test_shares(text: str, share: float) -> None:
    assert _share(text) == pytest.approx(share)


def test_the_worst_mistakes_of_a_run_are_explained(run: Run, show: Show, place: Path) -> None:
    for label in ("waving", "running", "sitting"):
        (place / "data" / label).mkdir(parents=True)
        write_video(place / "data" / label / f"{label}.mp4", level=len(label))
    code, _, err = run("evaluate", "data", *HERE, "-o", "RUN", "--explain", "1")
    assert code == 0
    assert "explaining 1 mistake" in err
    (page,) = (place / "RUN" / "explained").glob("*-*.html")
    (facts,) = Elements(page.read_text(encoding="utf-8")).json
    answer, right = facts["explanations"]
    assert right["label"] == Path(facts["path"]).parent.name != answer["label"]
    text = (place / "RUN" / "report.html").read_text(encoding="utf-8")
    report = show(text)
    assert (
        report.run("return [...document.querySelectorAll('#mistakes a')].map((a) => a.getAttribute('href'))").count(
            f"explained/{page.name}"
        )
        == 1
    )


def test_mistakes_are_explained_in_a_folder_only(run: Run, place: Path) -> None:
    (place / "data" / "waving").mkdir(parents=True)
    copyfile("a.mp4", place / "data" / "waving" / "a.mp4")
    done = run("evaluate", "data", *HERE, "--explain", "1")
    assert done.code == 2
    assert "--explain needs --output" in only_line(done.err)
