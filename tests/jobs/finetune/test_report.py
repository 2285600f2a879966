"""The report of a training run: what stands in it, and what a browser makes of that."""

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testing.clips import write_video
from testing.logs import log_of
from testing.pages import HOSTILE, TEXTS, Elements, Page, Show
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.datasets import Dataset, Problem, Sample
from timesformer_cli.evaluation.neighbours import Contradiction
from timesformer_cli.evaluation.run import Run, summarise
from timesformer_cli.flow import Failure, Item
from timesformer_cli.jobs.finetune.data import Asked, Data
from timesformer_cli.jobs.finetune.division import Division, How
from timesformer_cli.jobs.finetune.features import Features
from timesformer_cli.jobs.finetune.findings import Candidate, CurvePoint, Findings, Suspect
from timesformer_cli.jobs.finetune.groups import Grouping
from timesformer_cli.jobs.finetune.head import Head
from timesformer_cli.jobs.finetune.log import Log
from timesformer_cli.jobs.finetune.probe import Probe
from timesformer_cli.jobs.finetune.report import render
from timesformer_cli.jobs.finetune.report.learning import learning
from timesformer_cli.jobs.finetune.results import about_findings
from timesformer_cli.jobs.finetune.training import Training
from timesformer_cli.pipeline.prepare import prepare_spans
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.results.settings import Provenance

NAMES = ("archery", "baking", "canoeing")
RECIPE = resolve("camera-motion").recipe
EACH = 6  # videos of each class, of which the last two are given for validation
CONDITIONS = {
    "finished": "2026-03-01T12:30:00+00:00",
    "decoder": "auto",
    "timeout": 60.0,
    "workers": 0,
    "device": "cuda:0",
    "batch_size": "auto",
    "versions": {"torch": "2.13.0", "python": "3.11.7"},
}
CURVE = tuple(CurvePoint(videos=v, value=a, low=a - 0.1, high=a + 0.08) for v, a in ((2.5, 0.4), (5, 0.55), (40, 0.9)))
SUSPECTS = tuple(
    Suspect(place=place, label=0, probability=0.03 * place, likelier=2, likelier_probability=0.7) for place in range(3)
)
CANDIDATES = (Candidate(c=0.01, loss=0.7), Candidate(c=0.1, loss=0.61234))
CONTRADICTIONS = (Contradiction(video=1, label=0, theirs=2, votes=4, nearest=0),)
FOUND = Findings(
    curve=CURVE,
    advice="More videos would help.",
    suspects=SUSPECTS,
    contradictions=CONTRADICTIONS,
    candidates=CANDIDATES,
)


def make(
    samples: Sequence[Sample] = (),
    *,
    names: Sequence[str] = NAMES,
    base: str = "camera-motion",
    how: How = "given",
    findings: Findings = FOUND,
    problems: Sequence[Problem] = (),
    failures: Sequence[Failure] = (),
    multi_label: bool = False,
    root: str = "clips",
    example: str = "a_1 of a_1.mp4",
) -> tuple[Training, Run]:
    """A run on `EACH` videos of each class, or on `samples`; every third measured one is taken for the next class."""
    if not samples:
        labels = [(number,) for number in range(len(names)) for _ in range(EACH)]
        if multi_label:
            labels[0] = (0, 1)
        samples = [Sample(f"{root}/{names[label[0]]}/{n}.mp4", label, 0) for n, label in enumerate(labels)]
    places = np.arange(len(samples))
    val = places % EACH >= EACH - 2
    train = places if how == "crossed" else places[~val]
    measured = places if how == "crossed" else places[val]
    dataset = Dataset(
        format="folders",
        annotations=None,
        checksum=None,
        split=None,
        rows=len(samples),
        samples=tuple(samples),
        problems=tuple(problems),
        names=tuple(names),
        classes={},
        matched_by="name",
        multi_label=multi_label,
    )
    checkpoint = replace(resolve("camera-motion"), name=base)
    provenance = Provenance(
        model=base,
        source=base,
        labels=tuple(names),
        recipe=RECIPE,
        weights={"model.safetensors": "0f" * 32},
        data_set={"rows": len(measured), "samples": len(measured), "multi_label": multi_label, "classes": None}
        | {"problems": {}, "frames": False},
    )
    scores = np.zeros((len(measured), len(names)), np.float32)
    for row, place in enumerate(measured.tolist()):
        taken = (samples[place].labels[0] + (row % 3 == 0)) % len(names)
        scores[row, taken] = 2 + row / len(measured)
    data = Data(dataset, None, frames=False)
    features = [Features(np.zeros((1, 4), np.float32), np.zeros(0, np.uint64)) for _ in samples]
    training = Training(
        base=checkpoint,
        provenance=provenance,
        run=RunOptions(),
        asked=Asked(root=Path(root), seed=7),
        data=data,
        videos=replace(data.readable(features), failures=tuple(failures)),
        division=Division(
            how=how,
            grouping=Grouping(tuple(str(place) for place in places), "name", example),
            train=train,
            measured=measured,
            folds=np.arange(len(train)) % 5,
            notes=(),
        ),
        probe=Probe(
            head=Head(np.zeros((len(names), 4), np.float32), np.zeros(len(names), np.float32)),
            examples=cast("Any", None),
            choice=cast("Any", SimpleNamespace(c=0.1)),
            logits=scores,
            probabilities=None,
        ),
        balance=False,
        findings=findings,
    )
    run = Run(
        provenance=provenance,
        paths=tuple(samples[place].path for place in measured),
        targets=tuple(samples[place].labels for place in measured),
        scores={"logits": scores},
        failed=(),
    )
    return training, run


def text_of(made: tuple[Training, Run], folder: Path = Path(), *, log: Log | None = None, **changes: Any) -> str:
    training, run = made
    return render(training, run, summarise(run, run.measure((1,))) | {"run": CONDITIONS} | changes, folder, log=log)


def facts_of(made: tuple[Training, Run], folder: Path = Path(), **changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = Elements(text_of(made, folder, **changes)).json[0]
    return facts


class TestFacts:
    def test_classes_have_the_videos_that_trained_and_those_measured(self) -> None:
        classes = facts_of(make())["classes"]
        assert [(each["training"], each["videos"]) for each in classes] == [(EACH - 2, 2)] * 3
        assert [each["correct"] for each in classes] == [1, 1, 2]

    def test_of_several_labels(self) -> None:
        facts = facts_of(make(multi_label=True))
        assert [(each["training"], each["videos"]) for each in facts["classes"]] == [(4, 2), (5, 2), (4, 2)]
        assert facts["summary"]["mean_average_precision"] > 0
        assert "cells" not in facts

    def test_the_first_suspects_come_with_their_videos(self) -> None:
        many = tuple(replace(SUSPECTS[0], place=place % 18, probability=place / 100) for place in range(30))
        suspects = facts_of(make(findings=replace(FOUND, suspects=many)))["suspects"]
        assert len(suspects) == 24
        assert suspects[1] == {
            "path": "clips/archery/1.mp4",
            "url": "clips/archery/1.mp4",
            "label": 0,
            "probability": 0.01,
            "likelier": 2,
            "likelier_probability": 0.7,
        }

    def test_what_is_wrong_is_listed_by_kind(self) -> None:
        problems = [Problem("missing", f"a.csv: line {number}", "'a' does not exist") for number in range(1001)]
        failures = [Failure(Item("bad.mp4", start=1.0, end=2.0), "decode", "no frame")]
        failed, missing = facts_of(make(problems=problems, failures=failures))["left_out"]
        assert (failed["failed"], failed["videos"]) == (True, [["bad.mp4 (1 to 2 s)", "no frame"]])
        assert (missing["count"], len(missing["videos"]), missing["file"]) == (1001, 1000, "problems.csv")

    def test_metrics_have_the_findings(self) -> None:
        training, _ = make(
            [Sample("a.mp4", (0,), 0, start=1.0, end=2.5), *(Sample(f"{n}.mp4", (1,), 0) for n in range(5))]
        )
        found = about_findings(training)
        assert found["labels_to_look_at"][0] == {
            "path": "a.mp4",
            "start": 1.0,
            "end": 2.5,
            "label": "archery",
            "probability": 0.0,
            "likelier": "canoeing",
            "likelier_probability": 0.7,
        }
        assert found["neighbours_that_disagree"] == [
            {
                "path": "0.mp4",
                "label": "archery",
                "theirs": "canoeing",
                "votes": 4,
                "neighbours": 5,
                "nearest": "a.mp4 (1 to 2.5 s)",
            }
        ]
        assert found["learning_curve"]["advice"] == "More videos would help."
        assert found["learning_curve"]["points"][0] == {
            "videos": 2.5,
            "value": 0.4,
            "low": 0.4 - 0.1,
            "high": 0.4 + 0.08,
        }
        assert found["regularisation"][0] == {"c": 0.01, "loss": 0.7}

    def test_pictures_are_of_the_part(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_video(Path("a b.mp4"), frames=24)
        samples = [Sample("a b.mp4", (0,), 0, start=0.5, end=1.5), Sample("gone.mp4", (1,), 0)]
        samples += [Sample(f"{number}.mp4", (number % 2,), 0) for number in range(4)]
        first, second = facts_of(make(samples), tmp_path / "run")["suspects"][:2]
        (views,) = prepare_spans(Item("a b.mp4", start=0.5, end=1.5), RECIPE, thumbnails="input")
        assert base64.b64decode(first["picture"]) == views.thumbnail
        assert unquote(first["url"]) == "../a b.mp4#t=0.5,1.5"
        assert first["part"] == "0.5 to 1.5 s"
        assert "picture" not in second


class TestLearning:
    def rows(self, table: str) -> list[list[str]]:
        return [re.findall("<t[hd]>(.*?)</t[hd]>", line) for line in re.findall("<tr>(.*?)</tr>", table)]

    def test_table(self) -> None:
        head, *rows = self.rows(learning(CURVE, "accuracy")[1])
        assert head == ["Videos per class", "Accuracy", "Worst to best draw"]
        assert rows[0] == ["2.5", "40.0%", "30.0% to 48.0%"]
        assert [row[0] for row in rows] == ["2.5", "5", "40"]

    def test_the_scale_is_logarithmic(self) -> None:
        points = [CurvePoint(videos=number, value=0.5, low=0.4, high=0.6) for number in (3, 30, 300)]
        places = [float(place) for place in re.findall('<circle cx="(.*?)"', learning(points, "accuracy")[0])]
        assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.02)
        assert places[0] < places[1]

    def test_ticks_do_not_overlap(self) -> None:
        points = [CurvePoint(videos=number, value=0.5, low=0.4, high=0.6) for number in (1, 100, 101)]
        svg, table = learning(points, "accuracy")
        assert re.findall('class="x">(.*?)<', svg) == ["1", "101", "videos for training per class"]
        assert len(self.rows(table)) == 4

    @pytest.mark.parametrize("count", [1, 2])
    def test_of_few_points(self, count: int) -> None:
        points = [CurvePoint(videos=5, value=1, low=0.8, high=1)] * count
        svg, _ = learning(points, "accuracy")
        assert "nan" not in svg
        assert svg.count("<circle") == count

    def test_without_points(self) -> None:
        assert learning((), "accuracy") == ("", "")


class TestSafety:
    @settings(max_examples=20)
    @given(
        text=st.text(st.characters(exclude_categories=()), max_size=20), before=st.sampled_from(["", HOSTILE, "<!--"])
    )
    def test_no_text_becomes_markup(self, text: str, before: str) -> None:
        def elements(text: str) -> Elements:
            made = make(
                names=(text, *NAMES[1:]),
                base=text,
                root=text or ".",
                example=text,
                findings=replace(FOUND, advice=text),
                problems=[Problem("missing", text, text)],
                failures=[Failure(Item(text), "decode", text)],
            )
            page = text_of(made, warning=text)
            assert page.encode("utf-8")
            return Elements(page)

        text = before + text
        hostile, plain = elements(text), elements("a")
        assert hostile.tags == plain.tags
        assert hostile.ended == plain.ended
        facts = hostile.json[0]
        assert facts["labels"][0] == facts["base"] == facts["advice"] == facts["summary"]["warning"] == text
        assert facts["left_out"][1]["videos"] == [[text, text]]

    def test_the_browser_may_run_and_fetch_nothing_else(self) -> None:
        Elements(text_of(make())).check_policy()

    def test_the_same_run_gives_the_same_page_but_for_time_and_machine(self) -> None:
        strip = re.compile('<script [^>]*id="conditions">.*')
        other = text_of(make(), run=CONDITIONS | {"finished": "2027-01-01T00:00:00+00:00", "device": "cpu"})
        assert other != text_of(make())
        assert strip.sub("", other) == strip.sub("", text_of(make()))
        conditions = json.loads(Elements(other).within("script", id="conditions")[0])
        assert ["Device", "cpu"] in conditions


# What a browser makes of it

Open = Callable[..., Page]


@pytest.fixture
def show_report(show: Show, tmp_path: Path) -> Open:
    return lambda made, **changes: show(text_of(made, tmp_path, **changes))


def hidden(page: Page) -> list[str]:
    found: list[str] = page.run(
        "return [...document.querySelectorAll('section, #candidates')].filter((s) => s.hidden).map((s) => s.id)"
    )
    return found


def terms(page: Page, section: str) -> dict[str, str]:
    return dict(zip(page.texts(f"{section} dt"), page.texts(f"{section} dd"), strict=True))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("given", "66.7 % of 6 videos correctly (95 % interval 30.0 % to 90.3 %). They were given for validation"),
        ("held out", "66.7 % of 6 videos correctly (95 % interval 30.0 % to 90.3 %). They were held out"),
        ("crossed", "66.7 % of 18 videos correctly (95 % interval 43.7 % to 83.7 %). This was measured by cross-"),
    ],
)
def test_the_accuracy_is_one_sentence(show_report: Open, how: How, said: str) -> None:
    page = show_report(make(how=how))
    assert page.texts("#accuracy .lead")[0].startswith(f"The new model labels {said}")
    assert page.texts("h1") == ["Fine-tuning of camera-motion"]
    trained = 18 if how == "crossed" else 12
    assert page.texts("#about") == [f"{trained} videos for training · 3 classes · clips · 2026-03-01 12:30"]
    assert page.run("return document.querySelector('#accuracy a').getAttribute('href')") == "val/report.html"
    assert not page.run("return document.querySelector('.warning').checkVisibility()")


def test_sections_come_in_order(show_report: Open) -> None:
    page = show_report(make())
    assert page.run("return [...document.querySelectorAll('section')].map((s) => s.id)") == [
        "accuracy", "steps", "learning", "suspects", "neighbours", "classes", "confusion", "curves", "data", "training",
    ]  # fmt: skip
    assert hidden(page) == ["steps"]
    assert page.texts("#learning .lead") == ["More videos would help."]
    assert page.texts("#learning tr:last-child td") == ["40", "90.0%", "80.0% to 98.0%"]
    assert page.texts("#classes th") == [
        "Label", "For training", "Measured", "Accuracy", "Precision", "Most often taken for",
    ]  # fmt: skip
    assert page.texts("#classes tbody tr:last-child td")[:3] == ["canoeing", "4", "2"]


def test_sections_without_content_are_hidden(show_report: Open) -> None:
    page = show_report(make(findings=Findings()))
    assert hidden(page) == ["steps", "learning", "suspects", "neighbours", "candidates"]


def test_of_several_labels(show_report: Open) -> None:
    page = show_report(make(multi_label=True))
    assert page.texts("#accuracy .lead")[0].startswith("The mean average precision of the new model is")
    assert page.texts("#learning th")[1] == "Mean average precision"
    assert page.texts("#classes th") == ["Label", "For training", "Measured", "Average precision"]
    assert hidden(page) == ["steps", "confusion", "curves"]


@pytest.mark.parametrize("kept", [True, False])
def test_the_training_of_a_network(show_report: Open, *, kept: bool) -> None:
    network = {"probe": {"accuracy": 0.5, "loss": 0.9}, "best_step": 6, "kept": kept}
    page = show_report(make(), log=log_of(9, every=3), network=network)
    assert hidden(page) == []
    said = "The network was best after step 6, in epoch 2: accuracy 60.0%" if kept else "No validation was better"
    assert page.texts("#steps .lead")[0].startswith(said)
    assert len(page.texts("#steps svg .best")) == 2 * kept
    assert page.texts("#steps tr b") == (["6", "2", "6e-05", "0.4", "0.5", "60.0%"] if kept else [])
    page.run("document.querySelector('#steps details').open = true")
    for width in (390, 1400):
        page.check_width(width)


def test_labels_to_look_at(show_report: Open) -> None:
    many = tuple(replace(SUSPECTS[0], place=place, probability=place / 100) for place in range(12))
    page = show_report(make(findings=replace(FOUND, suspects=many)))
    assert page.texts("#suspects section > ol li, #suspects > ol li p")[:3] == [
        "labelled archery 0.0 %",
        "likelier canoeing 70.0 %",
        "clips/archery/0.mp4",
    ]
    assert len(page.texts("#suspects li")) == 12
    seen = "return [...document.querySelectorAll('#suspects li')].filter((e) => e.checkVisibility()).length"
    assert page.run(seen) == 8
    page.run("document.querySelector('#suspects summary').click()")
    assert page.texts("#suspects summary") == ["4 more"]
    assert page.run(seen) == 12
    few = show_report(make())
    assert len(few.texts("#suspects li")) == 3
    assert not few.run("return document.querySelector('#suspects summary').checkVisibility()")


def test_neighbours_that_disagree(show_report: Open) -> None:
    page = show_report(make())
    assert page.texts("#neighbours li p") == [
        "labelled archery",
        "4 of 5 are canoeing, such as clips/archery/0.mp4",
        "clips/archery/1.mp4",
    ]


def test_data_and_training(show_report: Open) -> None:
    problems = [Problem("missing", "a.csv: line 3", "'a' does not exist")]
    failures = [Failure(Item("bad.mp4"), "decode", "no frame")]
    page = show_report(make(problems=problems, failures=failures))
    assert page.texts("#data li") == [
        "18 groups by name; a_1 of a_1.mp4",
        "split: training on 12 videos, measured on 6 videos given for it",
    ]
    assert page.texts("#data summary") == ["1 failed: decode", "1 missing"]
    assert "1 not readable" in page.texts("#about")[0]
    data = terms(page, "#data")
    assert (data["Not readable"], data["Seed"], data["Videos"]) == ("1 video", "7", "clips")
    trained = terms(page, "#training")
    assert trained["Base model"] == "camera-motion"
    assert trained["Weights"] == f"model.safetensors, sha256 {'0f' * 32}"
    assert trained["Regularisation"] == "C = 0.1"
    assert trained["Versions"] == "torch 2.13.0, python 3.11.7"
    assert page.texts("#candidates td") == ["0.01", "0.7000", "0.1", "0.6123"]
    assert page.texts("#candidates b") == ["0.1", "0.6123"]


@pytest.mark.parametrize(("text", "shown"), TEXTS, ids=ascii)
def test_texts_stay_texts(text: str, shown: str, show_report: Open) -> None:
    training, run = make(
        names=(text, *NAMES[1:]),
        base=text,
        root=text,
        example=text,
        findings=replace(FOUND, advice=text),
        problems=[Problem("missing", text, text)],
    )
    page = show_report((training, run), warning=text)
    assert page.texts("h1 bdi") == [shown]
    assert page.texts(".warning") == [shown]
    assert page.texts("#learning .lead") == [shown]
    assert shown in page.texts("#classes tbody .label")
    assert page.texts("#data li")[0] == f"18 groups by name; {shown}"
    assert page.texts("#data details bdi") == [shown, shown]
    assert page.texts("#suspects li:first-child .video") == [f"{shown}/{shown}/0.mp4"]
    assert page.run("return document.querySelectorAll('img, b b').length") == 0


def test_it_fits_a_phone(show_report: Open) -> None:
    long = "x" * 300
    made = make(
        names=(long, "y " * 150, *NAMES[2:]),
        root="r" * 300,
        example=long,
        findings=replace(FOUND, advice=long),
        problems=[Problem("missing", "m" * 300, "n" * 300)],
    )
    page = show_report(made, warning=long)
    page.run("document.querySelectorAll('summary').forEach((summary) => summary.click())")
    page.check_width(390)


def test_it_is_dark_where_people_want_it_dark(show_report: Open) -> None:
    page = show_report(make())
    assert page.brightness("dark") < 128 < page.brightness("light")


def test_without_javascript_it_says_so(show_report: Open) -> None:
    assert "JavaScript" in show_report(make()).without_javascript()
