"""The report of an evaluation: what stands in it, what a browser makes of that, and that its command can be called."""

import base64
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from testing.clips import LABELS, write_model, write_video
from testing.command import Run as Command
from testing.pages import HOSTILE, TEXTS, Elements, Page, Show
from timesformer_cli.checkpoints.labels import read as read_labels
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.cli.repeat import commands
from timesformer_cli.datasets import Problem
from timesformer_cli.evaluation import metrics, report
from timesformer_cli.evaluation.folder import read_run
from timesformer_cli.evaluation.report import curves, pieces
from timesformer_cli.evaluation.report.pictures import read_pictures
from timesformer_cli.evaluation.run import Run, summarise
from timesformer_cli.flow import WHOLE, Item
from timesformer_cli.pipeline.prepare import prepare_spans
from timesformer_cli.results.settings import Combination, Provenance

NAMES = ("archery", "baking cookies", "canoeing", "dancing ballet", "eating cake")
CONDITIONS: dict[str, Any] = {
    "throughput": {"videos": 20, "seconds": 8.0, "videos_per_second": 2.5},
    "run": {
        "finished": "2026-03-01T12:30:00+00:00",
        "decoder": "auto",
        "timeout": 60.0,
        "workers": 0,
        "device": "cuda:0",
        "batch_size": "auto",
        "versions": {"torch": "2.13.0", "python": "3.11.7"},
    },
}


def make(
    confusion: Sequence[Sequence[int]] = ((8, 0, 2), (1, 3, 0), (0, 0, 0)),
    names: Sequence[str] = NAMES,
    *,
    model: str = "tiny",
    failed: int = 0,
    **data_set: Any,
) -> Run:
    """A run with so many videos of each label (rows) and answer; the first of a kind have the highest scores."""
    pairs = [(target, answer) for target, row in enumerate(confusion) for answer, n in enumerate(row) for _ in range(n)]
    scores = np.zeros((len(pairs), len(names)), np.float32)
    for number, (target, answer) in enumerate(pairs):
        scores[number, target] = 1
        scores[number, answer] = 6 - 2 * number / len(pairs)
    error = {"kind": "decode", "message": "no frame can be decoded"}
    record = {"status": "error", "model": model, "error": error, "target": [0]}
    stated = {"rows": len(pairs) + failed, "samples": len(pairs) + failed, "multi_label": False, "classes": None}
    return Run(
        provenance=Provenance(
            model=model,
            source=model,
            labels=tuple(names),
            recipe=Combination("scores of a file", "logits"),
            data_set=stated | {"problems": {}} | data_set,
        ),
        paths=tuple(f"val/{names[target]}/{number}.mp4" for number, (target, _) in enumerate(pairs)),
        targets=tuple((target,) for target, _ in pairs),
        scores={"logits": scores},
        failed=tuple(record | {"path": f"val/bad{number}.mp4"} for number in range(failed)),
    )


def make_multi_label() -> Run:
    run = make(((2, 1), (0, 1)), multi_label=True)
    return Run(run.provenance, run.paths, ((0, 1), (1,), (0,), ()), run.scores, ())


def text_of(run: Run, problems: Sequence[Problem] = (), /, *, folder: Path = Path(), **summary: Any) -> str:
    content = summarise(run, run.measure((1, 5))) | CONDITIONS | summary
    return report.render(run, content, problems, folder, commands(run.provenance, len(run.labels)))


def facts_of(run: Run, *args: Any, **options: Any) -> dict[str, Any]:
    facts, _ = Elements(text_of(run, *args, **options)).json
    content: dict[str, Any] = facts
    return content


class TestClasses:
    def test_rows_are_those_of_the_metrics(self) -> None:
        run = make()
        assert facts_of(run)["classes"] == [
            {
                "videos": found.videos,
                "correct": found.correct,
                "value": found.accuracy,
                "low": metrics.wilson(found.correct, found.videos)[0] if found.videos else None,
                "high": metrics.wilson(found.correct, found.videos)[1] if found.videos else None,
                "precision": found.precision,
                "taken": [list(pair) for pair in found.confusions],
            }
            for found in metrics.per_class(run.confusion)
        ]

    def test_several_labels_to_a_video(self) -> None:
        run = make_multi_label()
        expected = metrics.average_precision(run.ranked, run.memberships)
        found = facts_of(run)
        assert [row["videos"] for row in found["classes"]] == [2, 2, 0, 0, 0]
        assert [row["value"] for row in found["classes"]][:2] == expected[:2].tolist()
        assert found["classes"][2]["value"] is None
        assert "cells" not in found


class TestNeighbours:
    def disagreeing(self, run: Run) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = facts_of(run)["disagreeing"]
        return found

    def with_vectors(self, run: Run) -> Run:
        """Videos of a class lie close to each other, except the last two of the first, which lie at the second."""
        places = run.classes.copy()
        places[8:10] = 1
        noise = np.random.default_rng(0).normal(0, 0.01, (len(places), 5))
        return replace(run, embeddings=(np.eye(5)[places] + noise).astype(np.float32))

    def test_videos_among_those_of_another_class(self) -> None:
        found = self.disagreeing(self.with_vectors(make(((10, 0), (0, 8)))))
        assert {each["path"] for each in found} == {"val/archery/8.mp4", "val/archery/9.mp4"}
        assert {(each["label"], each["theirs"]) for each in found} == {(0, 1)}
        assert all(each["nearest"].startswith("val/baking cookies/") for each in found)

    def test_nothing_without_vectors_or_with_several_labels(self) -> None:
        assert self.disagreeing(make(((10, 0), (0, 8)))) == []
        run = make_multi_label()
        assert self.disagreeing(replace(run, embeddings=np.ones((len(run.paths), 5), np.float32))) == []


def test_scores_without_an_activation_are_no_shares() -> None:
    run = make()
    amounts = replace(run, provenance=replace(run.provenance, recipe=Combination("x", "logits", "none")))
    assert facts_of(amounts)["raw"]
    wrong = run.ranked[run.ranked.argmax(axis=1) != run.classes]
    assert facts_of(amounts)["mistakes"][0]["score"] == wrong.max()
    assert "Reliability diagram" in text_of(run)
    assert "Reliability diagram" not in text_of(amounts)
    assert "Accuracy against coverage; " not in text_of(amounts)


class TestConfusion:
    def test_cells_are_those_of_the_matrix(self) -> None:
        assert facts_of(make())["cells"] == [[0, 0, 8], [0, 2, 2], [1, 0, 1], [1, 1, 3]]

    @given(seed=st.integers(0, 1000), groups=st.integers(1, 6))
    def test_what_is_confused_stands_together(self, seed: int, groups: int) -> None:
        rng = np.random.default_rng(seed)
        group = rng.permutation(np.repeat(np.arange(groups), 4))
        confusion = np.where(group[:, None] == group, rng.integers(1, 9, (len(group), len(group))), 0)
        order = pieces.alike(confusion)
        assert sorted(order) == list(range(len(group)))
        changes = np.count_nonzero(np.diff(group[order]))
        assert changes == groups - 1

    def test_a_chain_is_laid_out_as_one(self) -> None:
        """Each class is confused with the next of a hidden order alone."""
        hidden = np.random.default_rng(0).permutation(30)
        confusion = np.diag(np.full(30, 10))
        confusion[hidden[:-1], hidden[1:]] = 5
        order = pieces.alike(confusion)
        places = np.argsort(order)
        assert (np.abs(places[hidden[:-1]] - places[hidden[1:]]) == 1).mean() > 0.9

    def test_many_classes_keep_their_order(self) -> None:
        assert pieces.alike(np.ones((2001, 2001), np.int64)) == list(range(2001))


class TestCurves:
    def rows(self, svg: str) -> list[list[str]]:
        lines = re.findall("<tr>(.*?)</tr>", svg)
        return [re.findall("<t[hd]>(.*?)</t[hd]>", line) for line in lines]

    def test_reliability(self) -> None:
        run = make(((80, 10, 10), (0, 40, 20), (5, 0, 5)))
        found = metrics.reliability(run.outcomes.confidences, run.outcomes.ranks == 0)
        head, *rows = self.rows(curves.reliability(run.outcomes))
        assert head == ["Score", "Videos", "Mean score", "Right"]
        assert [int(row[1]) for row in rows] == [videos for videos in found.videos.tolist() if videos]
        assert rows[-1][3] == f"{found.accuracy[-1]:.1%}"
        assert f"the expected calibration error is {found.error:.1%}" in curves.reliability(run.outcomes)

    def test_coverage(self) -> None:
        run = make(((80, 10, 10), (0, 40, 20), (5, 0, 5)))
        confidences, right = run.outcomes.confidences, run.outcomes.ranks == 0
        head, *rows = self.rows(curves.coverage(run.outcomes))
        assert head == ["Videos", "Score of at least", "Right"]
        for tenth, row in enumerate(rows, 1):
            surest = sorted(zip(-confidences, right, strict=True), key=lambda pair: pair[0])[: 17 * tenth]
            expected = [f"{10 * tenth}%", f"{-surest[-1][0]:.1%}", f"{np.mean([hit for _, hit in surest]):.1%}"]
            assert row == expected
        assert rows[-1][2] == f"{right.mean():.1%}"

    @pytest.mark.parametrize("confusion", [((1,),), ((0, 1), (0, 0)), ((3, 0), (0, 3))])
    def test_of_few_videos(self, confusion: tuple[tuple[int, ...], ...]) -> None:
        outcomes = make(confusion).outcomes
        for svg in (curves.reliability(outcomes), curves.coverage(outcomes)):
            assert "nan" not in svg
            assert len(self.rows(svg)) >= 2


class TestMistakes:
    def test_the_surest_come_first(self) -> None:
        run = make(((0, 20), (9, 0)))
        scores = run.outcomes.confidences
        mistakes = facts_of(run)["mistakes"]
        assert len(mistakes) == 24
        assert [mistake["score"] for mistake in mistakes] == sorted(scores.tolist(), reverse=True)[:24]
        first = mistakes[0]
        assert (first["path"], first["targets"], first["answer"]) == ("val/archery/0.mp4", [0], 1)
        assert first["own"] == {"score": pytest.approx(np.exp(-run.outcomes.losses[0])), "rank": 2}

    def test_of_several_labels_none_is_the_answer(self) -> None:
        run = make_multi_label()
        assert report.worst(run) == [1, 2, 3]
        assert [mistake["targets"] for mistake in facts_of(run)["mistakes"]] == [[1], [0], []]

    def test_where_all_is_right_there_is_none(self) -> None:
        assert facts_of(make(((3, 0), (0, 3))))["mistakes"] == []


class TestWhatWasLeftOut:
    def test_is_listed_by_kind(self) -> None:
        problems = [Problem("unlisted", "val/x.mp4", "no row has this video")]
        problems += [Problem("missing", f"val.csv: line {n}", "'a' does not exist") for n in range(1002)]
        failed, missing, unlisted = facts_of(make(failed=2), problems)["left_out"]
        assert (failed["kind"], failed["failed"], failed["count"]) == ("decode", True, 2)
        assert failed["videos"][0] == ["val/bad0.mp4", "no frame can be decoded"]
        assert (missing["kind"], missing["count"], len(missing["videos"])) == ("missing", 1002, 1000)
        assert unlisted["videos"] == [["val/x.mp4", "no row has this video"]]


class TestSafety:
    @settings(max_examples=30)
    @given(
        text=st.text(st.characters(exclude_categories=()), max_size=20), before=st.sampled_from(["", HOSTILE, "<!--"])
    )
    def test_no_text_becomes_markup(self, text: str, before: str) -> None:
        def elements(text: str) -> Elements:
            run = make(names=(text, *NAMES[1:]), model=text, failed=1, root=text, annotations=text)
            page = text_of(run, [Problem("missing", text, text)], warning=text)
            assert page.encode("utf-8")
            return Elements(page)

        text = before + text
        hostile, plain = elements(text), elements("a")
        assert hostile.tags == plain.tags
        assert hostile.ended == plain.ended
        facts, _ = hostile.json
        assert facts["labels"][0] == facts["summary"]["model"] == facts["summary"]["warning"] == text
        assert facts["left_out"][-1]["videos"] == [[text, text]]

    def test_the_browser_may_run_and_fetch_nothing_else(self) -> None:
        Elements(text_of(make())).check_policy()

    def test_time_and_machine_stand_by_themselves(self) -> None:
        conditions = json.loads(Elements(text_of(make())).within("script", id="conditions")[0])
        assert ["Device", "cuda:0"] in conditions
        assert ["Speed", "20 videos in 8.0 s, 2.5 per second"] in conditions
        other = text_of(make(), throughput=None, run={})
        strip = re.compile('<script [^>]*id="conditions">.*')
        assert strip.sub("", other) == strip.sub("", text_of(make()))

    def test_without_any_video(self) -> None:
        run = make(((0,),), failed=1)
        run = Run(run.provenance, (), (), {"logits": np.empty((0, 5), np.float32)}, run.failed)
        facts = facts_of(run)
        assert (facts["classes"], facts["mistakes"], facts["left_out"][0]["count"]) == ([], [], 1)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and videos in class folders."""
    folder = tmp_path_factory.mktemp("report")
    write_model(folder / "tiny")
    for number in range(10):
        path = folder / "val" / LABELS[number % 5] / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, level=number)
    return folder


@pytest.fixture
def here(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("tiny", "val"):
        (tmp_path / name).symlink_to(material / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page_facts(folder: str | Path) -> dict[str, Any]:
    facts: dict[str, Any] = Elements(Path(folder, "report.html").read_text(encoding="utf-8")).json[0]
    return facts


class TestPictures:
    def test_are_what_the_model_saw(self, run: Command, here: Path) -> None:
        assert run("evaluate", "val", "-m", "tiny", "--crops", "3", "-o", "r", "--workers", "0").code == 0
        checkpoint = with_overrides(resolve("tiny"), fields={"clips": 1, "crops": 3})
        mistakes = page_facts("r")["mistakes"]
        assert mistakes
        for mistake in mistakes:
            (views,) = prepare_spans(Item(mistake["path"]), checkpoint.recipe, thumbnails="input")
            assert base64.b64decode(mistake["picture"]) == views.thumbnail
            assert unquote(mistake["url"]) == f"../{mistake['path']}"

    def test_of_videos_that_are_gone_there_are_none(self, run: Command, here: Path) -> None:
        assert run("evaluate", "val", "-m", "tiny", "-o", "r", "--workers", "0").code == 0
        path = page_facts("r")["mistakes"][0]["path"]
        provenance = read_run(Path("r")).provenance
        Path("text.mp4").write_text("This is no video.\n" * 20)
        asked = [(name, WHOLE) for name in (path, "gone.mp4", "text.mp4", "https://example.org/a.mp4", "a\0b")]
        for workers in (0, 1):
            assert list(read_pictures(provenance, asked, {"workers": workers})) == [path]

    def test_of_parts_show_only_these(self, run: Command, here: Path) -> None:
        names = (LABELS[0], LABELS[3], LABELS[4])  # the model says one of them at most
        rows = [f"{LABELS[0]}/0.mp4,{name},,0.{4 + place}" for place, name in enumerate(names)]
        rows += [f"{LABELS[0]}/0.mp4,{name},0.{4 + place}," for place, name in enumerate(names)]
        Path("parts.csv").write_text("\n".join(["path,label,start,end", *rows]))
        code = run("evaluate", "val", "-a", "parts.csv", "-m", "tiny", "-o", "r", "--workers", "0").code
        assert code == 0
        mistakes = page_facts("r")["mistakes"]
        assert mistakes
        recipe = with_overrides(resolve("tiny"), fields={"clips": 1}).recipe
        for mistake in mistakes:
            address, _, times = mistake["url"].rpartition("#t=")
            assert unquote(address) == f"../{mistake['path']}"
            start, end = (float(time) if time else None for time in (times + ",").split(",")[:2])
            assert mistake["part"] == f"to {end:g} s" if start is None else f"from {start:g} s"
            (views,) = prepare_spans(Item(mistake["path"], start=start, end=end), recipe, thumbnails="input")
            assert base64.b64decode(mistake["picture"]) == views.thumbnail

    def test_without_a_recipe_there_are_none(self, here: Path) -> None:
        assert read_pictures(make().provenance, [("val/waving/0.mp4", WHOLE)], {}) == {}


class TestCommands:
    """Whoever calls what the report says gets the same scores."""

    def again(self, run: Command, folder: str) -> None:
        Path(folder).rename("before")
        before = read_run(Path("before"))
        for line in page_facts("before")["commands"]:
            program, *words = shlex.split(line)
            assert program == "timesformer"
            reads = words[0] == "evaluate"
            assert run(*words, *(["--workers", "0"] if reads else [])).code == 0, line
        after = read_run(Path("run"))
        assert (after.paths, after.targets) == (before.paths, before.targets)
        np.testing.assert_array_equal(after.ranked[:], before.ranked[:])

    @pytest.mark.parametrize(
        "options",
        [
            (),
            ("--recipe", "mmaction2", "--clips", "2", "--set", "mean=0.2,0.3,0.4"),
            ("--limit", "4", "--seed", "7", "--num-frames", "2", "--placement", "middle", "--fps", "5"),
            ("--classes", "classes.txt", "--set", "combine=probabilities"),
            ("-a", "my list.txt", "--annotations-format", "list", "--precision", "bf16", "--clips", "auto"),
        ],
        ids=" ".join,
    )
    def test_of_a_run(self, run: Command, here: Path, options: tuple[str, ...]) -> None:
        (here / "classes.txt").write_text("sitting\nwaving\n")
        (here / "my list.txt").write_text("waving/0.mp4 0\nsitting/3.mp4 3\nsitting/8.mp4 3\n")
        assert run("evaluate", "val", "-m", "tiny", "-o", "r", "--workers", "0", *options).code == 0
        self.again(run, "r")

    def test_of_what_was_made_of_runs(self, run: Command, here: Path) -> None:
        (here / "classes.txt").write_text("sitting\nwaving\n")
        for name, crops in (("a", "1"), ("b", "3")):
            assert run("evaluate", "val", "-m", "tiny", "-o", name, "--crops", crops, "--workers", "0").code == 0
            assert run("runs", "rescore", name, "--classes", "classes.txt", "-o", f"{name}2").code == 0
        assert run("runs", "fuse", "a2", "b2", "--weights", "1,0.5", "-o", "f").code == 0
        assert page_facts("f")["mistakes"][0]["picture"]
        self.again(run, "f")

    def test_of_frames_in_folders(self, run: Command, here: Path) -> None:
        for number in range(1, 13):
            picture = here / f"frames/waving/1/{number:06}.jpg"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 48), (20 * number, 0, 0)).save(picture)
        options = ("--frames", "--frame-rate", "12.5", "--workers", "0")
        assert run("evaluate", "frames", "-m", "tiny", "-o", "r", *options).code == 0
        self.again(run, "r")

    def test_of_scores_in_a_file(self, run: Command, here: Path) -> None:
        assert run("predict", "val", "-m", "tiny", "--save-logits", "l.npz", "-o", "l.jsonl").code == 0
        assert run("evaluate", "val", "--from-predictions", "l.npz", "-o", "r").code == 0
        self.again(run, "r")

    @pytest.mark.parametrize(
        ("model", "source", "option"),
        [
            ("base-k400", "facebook/timesformer-base-finetuned-k400@0123abcd", "--revision 0123abcd"),
            ("joint-k400", "weights of mine.pth", "--weights 'weights of mine.pth'"),
            ("camera-motion", "bundled with timesformer-cli", None),
            ("my-model", "my-model", None),
        ],
    )
    def test_which_weights(self, model: str, source: str, option: str | None) -> None:
        recipe = resolve("camera-motion").recipe
        changes = {"source": source, "recipe": replace(recipe, base="original"), "precision": "fp32"}
        (line,) = commands(replace(make(model=model).provenance, **changes), 5)
        expected = (
            f"timesformer evaluate --model {model} {option or ''} --recipe original --precision fp32 --output run"
        )
        assert line == " ".join(expected.split())


# What a browser makes of it


@pytest.fixture
def show_report(show: Show, tmp_path: Path) -> Callable[..., Page]:
    return lambda run, *args, **options: show(text_of(run, *args, folder=tmp_path, **options))


Open = Callable[..., Page]
PUBLISHED = {"checkpoint": "base-k400", "data": "Kinetics-400", "clips": 1, "crops": 3}


def test_numbers(show_report: Open) -> None:
    run = make(((80, 20), (10, 40)), NAMES)
    top = {"value": 0.779, "difference": 0.021, "within_interval": True}
    other = {"value": 0.932, "difference": -0.0321, "within_interval": False}
    page = show_report(run, published=PUBLISHED | {"top_1": top, "top_5": other})
    first, five, mean, error, loss = page.texts("#numbers tbody tr, #numbers table > tr:not(:first-child)")
    accuracy = run.measure((1,)).top[0].accuracy
    assert accuracy is not None
    low, high = f"{100 * accuracy.low:.2f} %", f"{100 * accuracy.high:.2f} %"
    assert first == f"Top-1 accuracy80.00 %{low} to {high}80.00 %77.90 %+2.10 within"
    assert five.endswith("93.20 %\N{MINUS SIGN}3.21 outside")
    assert mean.startswith("Mean class accuracy80.00 %")
    assert error.startswith("Calibration error")
    assert re.fullmatch(r"Negative log likelihood\d\.\d{4}", loss)
    assert "base-k400 on Kinetics-400, with 1 clip of 3 crops" in page.texts("#numbers .note")[0]
    assert page.texts("#about") == ["150 videos · 2026-03-01 12:30"]
    assert page.browser.title == "Evaluation of tiny"
    assert not page.run("return document.querySelector('.warning').checkVisibility()")


@pytest.mark.parametrize(
    ("clips", "crops", "told"),
    [(1, 3, ""), (10, 3, "10 clips of 3 crops."), (None, 1, "as many clips as cover a video of 1 crop.")],
)
def test_another_protocol_than_the_published_one_is_told(
    show_report: Open, clips: int | None, crops: int, told: str
) -> None:
    run = make()
    recipe = with_overrides(resolve("camera-motion"), fields={"clips": clips, "crops": crops}).recipe
    run = replace(run, provenance=replace(run.provenance, recipe=recipe, precision="fp32"))
    page = show_report(run, published=PUBLISHED)
    expected = [f" This run is another: {told}"] if told else []
    assert page.texts("#numbers .note .over") == expected


def test_without_published_numbers_nothing_is_said_of_them(show_report: Open) -> None:
    page = show_report(make(), warning="this looks like guessing")
    assert page.texts("#numbers th") == ["", "", "95 % interval", "Failures as wrong"]
    assert not page.run("return document.querySelector('#numbers .note').checkVisibility()")
    assert page.texts(".warning") == ["this looks like guessing"]


@pytest.mark.parametrize("right", [True, False])
def test_an_interval_without_width_is_explained(show_report: Open, right: bool) -> None:
    page = show_report(make(((4, 0), (0, 5)) if right else ((4, 0), (1, 4))))
    assert page.run("return document.querySelector('#no-width').checkVisibility()") is right
    if right:
        first, _, mean, *_ = page.texts("#numbers table > tr:not(:first-child)")
        assert first.startswith("Top-1 accuracy100.00 %70.09 % to 100.00 %")
        assert mean.startswith("Mean class accuracy100.00 %100.00 % to 100.00 %")
        assert page.texts("#no-width")[0].startswith("The 95 % interval of the mean class accuracy has no width")


def test_failures_as_wrong_have_an_interval_of_their_own(show_report: Open) -> None:
    run = make(((4, 0), (0, 5)))
    failure = {"path": "x.mp4", "status": "error", "target": [0], "error": {"kind": "decode", "message": "bad"}}
    first = show_report(replace(run, failed=(failure,))).texts("#numbers table > tr:not(:first-child)")[0]
    low, high = (f"{100 * end:.2f} %" for end in metrics.wilson(9, 10))
    assert first.endswith(f"90.00 % ({low} to {high})")


def test_classes_are_sorted_and_found(show_report: Open) -> None:
    page = show_report(make(((8, 0, 2), (1, 3, 0), (0, 0, 5), (0, 0, 0), (9, 0, 1))))
    labels = "#classes tbody .label"
    assert page.texts(labels) == ["eating cake", "baking cookies", "archery", "canoeing", "dancing ballet"]
    assert page.texts("#classes tbody tr:nth-child(2) td") == [
        "baking cookies",
        "4",
        "75.0 % 30 to 95",
        "100.0 %",
        "archery 1",
    ]
    sort = "document.querySelectorAll('#classes th button')[arguments[0]].click()"
    for column, first in (
        (1, "archery"),
        (1, "dancing ballet"),
        (0, "archery"),
        (0, "eating cake"),
        (2, "eating cake"),
    ):
        page.run(sort, column)
        assert page.texts(labels)[0] == first
    assert page.texts("#classes th[aria-sort=ascending]") == ["Accuracy"]
    page.run(
        "const input = document.querySelector('#classes input'); input.value = ' CAnoe';"
        "input.dispatchEvent(new Event('input'))"
    )
    assert page.texts(labels) == ["canoeing"]
    assert page.texts("#classes output") == ["1 of 5 classes"]
    widths = page.run(
        "return Array.from(document.querySelectorAll('#classes .bar span'), (e) => parseFloat(e.style.width))"
    )
    low, high = metrics.wilson(5, 5)
    assert widths == pytest.approx([100, 100 * (high - low)], abs=0.01)


def test_the_map_says_what_is_pointed_at(show_report: Open) -> None:
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    page = show_report(make())
    order = page_order(page)
    svg = page.browser.find_element(By.CSS_SELECTOR, ".map svg")
    left, cell = page.run("const { x, width } = document.querySelector('.ground').getBBox(); return [x, width / 3]")
    half = svg.rect["width"] / 2

    def point(target: int, answer: int) -> str:
        x, y = (left + (order.index(label) + 0.5) * cell - half for label in (answer, target))
        ActionChains(page.browser).move_to_element_with_offset(svg, round(x), round(y)).perform()
        return page.texts("#confusion output")[0]

    assert point(0, 2) == "archery taken for canoeing: 2 of 10, 20.0 %"
    assert point(1, 1) == "baking cookies is right: 3 of 4, 75.0 %"
    assert point(1, 2) == "baking cookies taken for canoeing: 0 of 4, 0.0 %"
    assert point(2, 1) == "canoeing taken for baking cookies: no videos"
    assert page.texts(".figure") == ["8", "2", "1", "3"]
    page.run("document.querySelector('.map svg').focus()")
    page.press(Keys.HOME)
    said = {page.texts("#confusion output")[0]}
    for key in (
        Keys.ARROW_LEFT,
        Keys.ARROW_RIGHT,
        Keys.ARROW_RIGHT,
        Keys.ARROW_DOWN,
        Keys.ARROW_LEFT,
        Keys.ARROW_RIGHT,
    ):
        page.press(key)
        said.add(page.texts("#confusion output")[0])
    assert said == {
        "archery is right: 8 of 10, 80.0 %",
        "archery taken for canoeing: 2 of 10, 20.0 %",
        "baking cookies is right: 3 of 4, 75.0 %",
        "baking cookies taken for archery: 1 of 4, 25.0 %",
    }
    assert page.texts("#confusion td") == ["archery", "canoeing", "2 of 10", "baking cookies", "archery", "1 of 4"]


def page_order(page: Page) -> list[int]:
    """The classes of the map, from top to bottom."""
    return [NAMES.index(label) for label in page.texts(".map .side")]


def test_the_map_has_several_orders(show_report: Open) -> None:
    page = show_report(make(((8, 0, 2), (1, 3, 0), (0, 0, 5))))
    change = (
        "const select = document.querySelector('select'); select.value = arguments[0];"
        "select.dispatchEvent(new Event('change'))"
    )
    for order, expected in (("number", [0, 1, 2]), ("accuracy", [1, 0, 2]), ("alike", [1, 0, 2])):
        page.run(change, order)
        assert page_order(page) in (expected, expected[::-1] if order == "alike" else expected)


def test_of_400_classes_the_nearest_mistake_is_pointed_at(show_report: Open) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    names = read_labels("kinetics-400")
    confusion = np.diag(np.full(400, 5))
    confusion[7, 300] = 3
    page = show_report(make(confusion.tolist(), names))
    assert page.texts(".map .side") == []
    assert len(page.texts("#classes tbody tr")) == 400
    page.run("const s = document.querySelector('select'); s.value = 'number'; s.dispatchEvent(new Event('change'))")
    svg = page.browser.find_element(By.CSS_SELECTOR, ".map svg")
    box = page.run(
        "const { x, y, width, height } = document.querySelector('path.wrong').getBBox(); return [x, y, width, height]"
    )
    assert min(box[2:]) >= 2
    half = svg.rect["width"] / 2
    ActionChains(page.browser).move_to_element_with_offset(
        svg, round(box[0] - half + 5), round(box[1] - half - 4)
    ).perform()
    assert page.texts("#confusion output") == [f"{names[7]} taken for {names[300]}: 3 of 8, 37.5 %"]


def test_where_all_is_right_no_mistakes_are_shown(show_report: Open) -> None:
    page = show_report(make(((3, 0), (0, 3))))
    seen = "return arguments[0].map((part) => document.querySelector(part).checkVisibility())"
    assert page.run(seen, [".map svg", "#confusion table", "#mistakes"]) == [True, False, False]
    rows = page.texts("#numbers tr:has(.scale) td:first-child")
    assert rows == ["Top-1 accuracy", "Top-5 accuracy"]  # the mean class accuracy has an interval without width


def test_mistakes_with_pictures(show: Show, run: Command, here: Path) -> None:
    assert run("evaluate", "val", "-m", "tiny", "-o", "r", "--workers", "0").code == 0
    folder = here / "r"
    page = show(Path("r/report.html").read_text(encoding="utf-8"))
    count = len(page_facts(folder)["mistakes"])
    page.wait("[...document.images].every((image) => image.complete)")
    sizes = page.run("return Array.from(document.images, (image) => [image.naturalWidth, image.naturalHeight])")
    assert sizes == [[4 * 72, 72]] * count
    assert len(page.texts("#mistakes li")) == count
    first = page_facts(folder)["mistakes"][0]
    label, answer = LABELS[first["targets"][0]], LABELS[first["answer"]].replace("\t", "\\u0009")
    assert page.texts("#mistakes li:first-child .answer") == [f"{answer} {100 * first['score']:.1f} %"]
    assert label.replace("\t", "\\u0009") in page.texts("#mistakes li:first-child .dim")[0]


def test_what_was_left_out_is_listed(show_report: Open) -> None:
    problems = [Problem("missing", f"val.csv: line {number}", "'a' is no video") for number in range(1002)]
    page = show_report(make(failed=1, rows=1017, samples=17), problems)
    assert page.texts("#left-out .note") == ["14 of 1,017 videos were evaluated. 2 more were not asked for."]
    assert page.texts("#about") == ["14 of 1,017 videos · 1 failed · 2026-03-01 12:30"]
    assert page.texts("#left-out summary") == ["1 failed: decode", "1,002 missing"]
    assert page.texts("#left-out tr")[0] == "val/bad0.mp4no frame can be decoded"
    assert page.texts("#left-out tr")[-1] == "2 more, in problems.csv"


def test_the_protocol(show_report: Open) -> None:
    page = show_report(make(root="val", annotations="my val.csv", annotations_sha256="0f" * 32, format="list"))
    terms = dict(zip(page.texts("#protocol dt"), page.texts("#protocol dd"), strict=True))
    assert terms["Model"] == "tiny"
    assert terms["Annotations, sha256"] == "0f" * 32
    assert terms["Versions"] == "torch 2.13.0, python 3.11.7"
    assert page.texts("pre") == [
        "timesformer evaluate val --annotations 'my val.csv' --annotations-format list --from-predictions tiny "
        "--output run --set activation=softmax"
    ]


def test_without_commands_there_is_no_place_for_them(show: Show) -> None:
    run = make()
    page = show(report.render(run, summarise(run, run.measure((1,))), [], Path(), []))
    assert "Model" in page.texts("#protocol dt")
    assert page.texts("#protocol h3, pre") == []


@pytest.mark.parametrize(("text", "shown"), TEXTS, ids=ascii)
def test_texts_stay_texts(text: str, shown: str, show_report: Open) -> None:
    run = make(names=(text, *NAMES[1:]), model=text, failed=1, root=text)
    run = Run(
        run.provenance, (text, *run.paths[1:8], f"{text}.mp4", *run.paths[9:]), run.targets, run.scores, run.failed
    )
    page = show_report(run, [Problem("missing", text, text)], warning=text)
    assert page.texts("h1 bdi") == [shown]
    assert page.texts(".warning") == [shown]
    assert shown in page.texts("#classes tbody .label")
    assert page.texts("#left-out details:last-child bdi") == [shown, shown]
    assert f"{shown}.mp4" in page.texts("#mistakes .video")
    assert dict(zip(page.texts("#protocol dt"), page.texts("#protocol dd"), strict=True))["Videos"] == shown
    assert shown.strip() in page.browser.title
    assert page.run("return document.querySelectorAll('img, b b').length") == 0


def test_several_labels_to_a_video(show_report: Open) -> None:
    page = show_report(make_multi_label())
    assert [page.run(f"return document.querySelector('{part}').hidden") for part in ("#curves", "#confusion")] == [
        True
    ] * 2
    assert page.texts("#numbers td")[0] == "Mean average precision"
    assert page.texts("#classes th") == ["Label", "Videos", "Average precision"]
    assert len(page.texts("#mistakes li")) == 3


def test_without_any_video(show_report: Open) -> None:
    run = make(((0,),), failed=1)
    page = show_report(Run(run.provenance, (), (), {"logits": np.empty((0, 5), np.float32)}, run.failed))
    hidden = "return [...document.querySelectorAll('section')].filter((s) => s.hidden).map((s) => s.id)"
    assert page.run(hidden) == ["curves", "confusion", "classes", "mistakes", "neighbours"]
    assert page.texts("#left-out .note") == ["0 of 1 video were evaluated."]


def test_it_is_dark_where_people_want_it_dark(show_report: Open) -> None:
    page = show_report(make())
    assert page.brightness("dark") < 128 < page.brightness("light")


def test_it_fits_a_phone(show_report: Open) -> None:
    names = ("x" * 300, "y " * 150, *NAMES[2:])
    run = make(names=names, failed=1, root="r" * 300)
    run = Run(run.provenance, ("a/" * 100 + "b" * 200, *run.paths[1:]), run.targets, run.scores, run.failed)
    page = show_report(run, [Problem("missing", "m" * 300, "n" * 300)], published=PUBLISHED)
    page.run("document.querySelectorAll('summary').forEach((summary) => summary.click())")
    page.check_width(390)


def test_keys_alone_reach_everything(show_report: Open) -> None:
    from selenium.webdriver import Keys

    page = show_report(make(failed=1))
    reached = []
    for _ in range(13):
        page.press(Keys.TAB)
        reached.append(page.focused())
    assert reached[:4] == ["What these numbers are", "In numbers", "In numbers", "order"]
    assert reached[4].startswith("Map of confusion: up and down")
    assert reached[5:8] == ["list", "text", "list"]
    assert reached[8:12] == ["Label", "Videos", "Accuracy", "Precision"]


def test_on_paper_all_of_a_list_is_there(show_report: Open) -> None:
    names = read_labels("kinetics-400")
    page = show_report(make(np.diag(np.full(400, 1)).tolist(), names))
    hidden = "const list = document.querySelector('#classes .list'); return list.scrollHeight - list.clientHeight"
    assert page.run(hidden) > 5000
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert page.run(hidden) == 0
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_javascript_it_says_so(show_report: Open) -> None:
    assert "JavaScript" in show_report(make()).without_javascript()
