"""`timesformer pick` as its users meet it: a run and its vectors in, the videos to label next out."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testing.command import Run, only_line
from testing.vectors import Row, save
from timesformer_cli.results.journal import Holdings, finishing, meta_of, write_final
from timesformer_cli.results.logits import LogitsRow, save_logits
from timesformer_cli.results.record import Excerpt
from timesformer_cli.results.settings import Combination, Provenance, VectorKind
from timesformer_cli.specs import Activation, Timeline

LABELS = ("walk", "run", "jump")
MADE = Provenance(
    model="tiny",
    source="tiny",
    labels=LABELS,
    recipe=Combination("original", "logits"),
    weights={"model.safetensors": "ab" * 32},
    shown=Excerpt(top_k=3),
)
FACTS = {"duration": 8.0, "fps": 25.0, "frames": 200, "width": 64, "height": 48, "codec": "h264"}

# By video: the scores of the three labels, and the direction of the vector in degrees.
VIDEOS = {
    "a.mp4": ((0.90, 0.08, 0.02), 0.0),
    "b.mp4": ((0.50, 0.48, 0.02), 90.0),
    "c.mp4": ((0.49, 0.48, 0.03), 91.0),
    "d.mp4": ((0.45, 0.40, 0.15), 250.0),
    "e.mp4": ((0.337, 0.333, 0.33), 92.0),
}


def ranked(scores: Sequence[float]) -> list[dict[str, Any]]:
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return [
        {"rank": rank, "index": index, "label": LABELS[index], "score": scores[index]}
        for rank, index in enumerate(order, 1)
    ]


def write_results(path: Path, records: Sequence[dict[str, Any]], made: Provenance = MADE) -> Path:
    holds = Holdings()
    for record in records:
        holds = holds.and_record(record)
    with finishing(path, made, holds):
        write_final(path, "jsonl", made, records)
    return path


def write_vectors(path: Path, rows: Sequence[Row], degrees: Sequence[float], made: Provenance = MADE) -> Path:
    angles = np.radians(degrees)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return save(path, rows, vectors, replace(made, labels=(), shown=None, vectors=VectorKind(dimension=2)))


def of_videos(top_k: int = 3) -> list[dict[str, Any]]:
    failed = {"path": "bad.mp4", "status": "error", "model": "tiny", "error": {"kind": "decode", "message": "broken"}}
    labelled = [
        {"path": path, "status": "ok", "model": "tiny", "predictions": ranked(scores)[:top_k], "video": FACTS}
        for path, (scores, _) in VIDEOS.items()
    ]
    return [failed, *labelled]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results(Path("l.jsonl"), of_videos())
    write_vectors(Path("v.npz"), [(path, None, None) for path in VIDEOS], [angle for _, angle in VIDEOS.values()])


def write_timeline() -> None:
    """A film of three segments with a run and vectors, and a second film."""
    made = replace(MADE, timeline=Timeline(length=4.0), shown=Excerpt(top_k=3, segments=True))
    scores = ((0.5, 0.49, 0.01), (0.9, 0.08, 0.02), (0.4, 0.35, 0.25))
    segments = [
        {"start": 4.0 * number, "end": 4.0 * number + 4, "predictions": ranked(each)}
        for number, each in enumerate(scores)
    ]
    facts = FACTS | {"duration": 12.0}
    films = [
        {"path": path, "status": "ok", "model": "tiny", "segments": segments, "video": facts}
        for path in ("x.mp4", "y.mp4")
    ]
    write_results(Path("films.jsonl"), films, made)
    rows = [(path, 4.0 * number, 4.0 * number + 4) for path in ("x.mp4", "y.mp4") for number in range(3)]
    write_vectors(Path("films.npz"), rows, [0, 10, 90, 180, 200, 300], made)


def picked(run: Run, *args: str | Path) -> list[dict[str, Any]]:
    code, out, err = run("pick", *args)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def refused(run: Run, code: int, *args: str | Path) -> str:
    outcome = run("pick", *args)
    assert (outcome.code, outcome.out) == (code, "")
    return only_line(outcome.err)


class TestChoice:
    def test_the_doubtful_and_different_come_first(self, run: Run) -> None:
        first, second = picked(run, "l.jsonl", "v.npz", "-n", "2")
        assert first == {
            "rank": 1,
            "path": "e.mp4",
            "start": None,
            "end": None,
            "predicted": "walk",
            "score": 0.337,
            "margin": 0.004,
            "entropy": None,
            "distance": None,
            "nearest": None,
        }
        # b and c are less sure than d, but show what e shows.
        assert (second["path"], second["nearest"], second["margin"]) == ("d.mp4", "e.mp4", 0.05)
        assert second["distance"] == pytest.approx(1 - np.cos(np.radians(158)), abs=1e-6)

    def test_sure_ones_are_no_candidates(self, run: Run) -> None:
        paths = [f"{number}.mp4" for number in range(9)]
        records = [
            {"path": path, "status": "ok", "model": "tiny", "predictions": ranked((0.5, 0.5 - 0.01 * n, 0.0))}
            for n, path in enumerate(paths)
        ]
        write_results(Path("nine.jsonl"), [record | {"video": FACTS} for record in records])
        write_vectors(Path("nine.npz"), [(path, None, None) for path in paths], [0] * 4 + [5, 170] + [180] * 3)
        (found,) = picked(run, "nine.jsonl", "nine.npz", "-n", "1", "--labelled", labelled("0.mp4,walk"))
        # The furthest of the five most doubtful ones, 1 to 5.mp4; the model is surer of 6 to 8.mp4.
        assert found["path"] == "5.mp4"

    def test_what_is_labelled_is_left_out_and_kept_away_from(self, run: Run) -> None:
        found = picked(run, "l.jsonl", "v.npz", "-n", "2", "--labelled", labelled("e.mp4,walk"))
        assert [each["path"] for each in found] == ["d.mp4", "a.mp4"]
        assert [each["nearest"] for each in found] == ["e.mp4", "e.mp4"]

    def test_corrections_of_a_page_are_labels(self, run: Run) -> None:
        rows = (
            "path,start,end,label,was,score,reviewed_at\ne.mp4,,,jump,walk,0.34,2026-01-01T10:00:00Z\nd.mp4,,,,run,,\n"
        )
        Path("corrections.csv").write_text(rows)
        found = picked(run, "l.jsonl", "v.npz", "--labelled", "corrections.csv")
        assert sorted(each["path"] for each in found) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]

    def test_entropy_takes_the_scores_of_all_classes(self, run: Run) -> None:
        write_scores(Path("s.npz"))
        write_results(Path("l.jsonl"), of_videos()[2:5])
        (found,) = picked(run, "l.jsonl", "v.npz", "-n", "1")
        assert (found["path"], found["margin"], found["entropy"]) == ("c.mp4", 0.01, None)
        (found,) = picked(run, "l.jsonl", "v.npz", "-n", "1", "--by", "entropy", "--logits", "s.npz")
        expected = -sum(p * np.log(p) for p in VIDEOS["d.mp4"][0])
        assert (found["path"], found["margin"]) == ("d.mp4", 0.05)
        assert found["entropy"] == pytest.approx(expected, abs=1e-5)

    def test_random_depends_on_the_seed(self, run: Run) -> None:
        def order(seed: str) -> list[str]:
            found = picked(run, "l.jsonl", "v.npz", "-n", "4", "--by", "random", "--seed", seed)
            return [each["path"] for each in found]

        assert order("1") == order("1")
        assert len({tuple(order(str(seed))) for seed in range(6)}) > 1
        (one,) = picked(run, "l.jsonl", "v.npz", "-n", "1", "--by", "random")
        assert one["distance"] is None

    @pytest.mark.parametrize(("scores", "path"), [((0.9, 0.8, 0.1), "0.mp4"), ((0.9, 0.52, 0.1), "1.mp4")])
    def test_of_sigmoids_the_score_nearest_to_the_middle_counts(
        self, run: Run, scores: tuple[float, ...], path: str
    ) -> None:
        made = replace(MADE, recipe=Combination("original", "logits", "sigmoid"))
        records = [
            {"path": f"{n}.mp4", "status": "ok", "model": "tiny", "predictions": ranked(each), "video": FACTS}
            for n, each in enumerate([(0.9, 0.41, 0.0), scores])
        ]
        write_results(Path("s.jsonl"), records, made)
        write_vectors(Path("s.npz"), [("0.mp4", None, None), ("1.mp4", None, None)], [0, 90], made)
        (found,) = picked(run, "s.jsonl", "s.npz", "-n", "1")
        assert found["path"] == path

    def test_segments_of_a_timeline(self, run: Run) -> None:
        write_timeline()
        found = picked(run, "films.jsonl", "films.npz", "-n", "6")
        assert {(each["path"], each["start"]) for each in found} == {
            (p, 4.0 * n) for p in ("x.mp4", "y.mp4") for n in range(3)
        }
        assert found[0]["path"] == "x.mp4"
        assert (found[0]["start"], found[0]["end"]) == (0.0, 4.0)
        Path("parts.csv").write_text("path,start,end,label\nx.mp4,5,8,walk\ny.mp4,,,run\n")
        found = picked(run, "films.jsonl", "films.npz", "--labelled", "parts.csv")
        assert sorted(each["start"] for each in found) == [0.0, 8.0]
        assert {each["path"] for each in found} == {"x.mp4"}
        assert found[0]["nearest"] in ("x.mp4#4-8", "y.mp4#0-4", "y.mp4#4-8", "y.mp4#8-12")


def labelled(*rows: str) -> Path:
    Path("labelled.csv").write_text("".join(f"{row}\n" for row in ("path,label", *rows)))
    return Path("labelled.csv")


def write_scores(path: Path, labels: Sequence[str] = LABELS, activation: Activation = "softmax", last: int = 5) -> None:
    rows = [
        LogitsRow(video, 0.0, 8.0, np.log(np.array(scores, np.float32)))
        for video, (scores, _) in list(VIDEOS.items())[:last]
    ]
    save_logits(path, rows, labels, format=".npz", activation=activation)


class TestFormats:
    def test_csv(self, run: Run) -> None:
        assert run("pick", "l.jsonl", "v.npz", "-n", "2", "-o", "next.csv").code == 0
        with Path("next.csv").open(newline="") as file:
            first, second = csv.DictReader(file)
        assert list(first) == [
            *("rank", "path", "start", "end", "predicted", "score", "margin", "entropy", "distance", "nearest")
        ]
        assert (first["path"], first["distance"], second["path"]) == ("e.mp4", "", "d.mp4")
        assert "already exists" in refused(run, 1, "l.jsonl", "v.npz", "-o", "next.csv")
        assert run("pick", "l.jsonl", "v.npz", "-n", "1", "-o", "next.csv", "--overwrite").code == 0

    def test_the_page_of_predict(self, run: Run) -> None:
        assert run("pick", "l.jsonl", "v.npz", "-n", "2", "-o", "next.html").code == 0
        lines = Path("next.html").read_text().splitlines()
        start = '<script type="application/json">'
        rows = [
            json.loads(line.removeprefix(start).removesuffix("</script>")) for line in lines if line.startswith(start)
        ]
        assert [row["path"] for row in rows] == ["e.mp4", "d.mp4"]
        assert [len(row["parts"][0]["ranks"]) for row in rows] == [3, 3]

    def test_tasks_for_label_studio(self, run: Run) -> None:
        write_timeline()
        assert run("pick", "films.jsonl", "films.npz", "-n", "2", "-o", "next.json").code == 0
        tasks = json.loads(Path("next.json").read_text())
        found = picked(run, "films.jsonl", "films.npz", "-n", "2")
        assert [task["data"]["path"] for task in tasks] == list(dict.fromkeys(each["path"] for each in found))
        ranges = [region["value"]["ranges"][0] for task in tasks for region in task["predictions"][0]["result"]]
        assert ranges[0] == {"start": 1, "end": 100}
        assert len(ranges) == 2

    def test_a_table(self, run: Run) -> None:
        code, out, _ = run("pick", "l.jsonl", "v.npz", "-n", "2", "-f", "table")
        assert code == 0
        assert out.splitlines()[1].split() == ["1", "0.004", "-", "-", "e.mp4", "walk"]

    def test_torch_is_not_loaded(self) -> None:
        command = (
            "import sys; from timesformer_cli.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
        )
        args = [sys.executable, "-c", command, "pick", "l.jsonl", "v.npz", "-o", "next.html"]
        done = subprocess.run(args, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")
        assert "there are only 5 videos to pick from" in done.stderr


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"weights": {"model.safetensors": "cd" * 32}}, "the weights (model.safetensors)"),
            ({"timeline": Timeline(length=2.0)}, "timeline (None, now"),
        ],
    )
    def test_results_and_vectors_of_different_runs(self, run: Run, change: dict[str, Any], message: str) -> None:
        write_results(Path("l.jsonl"), of_videos(), replace(MADE, **change))
        line = refused(run, 1, "l.jsonl", "v.npz")
        assert "v.npz: is not of the same run as l.jsonl: " in line
        assert message in line
        assert "--save-embeddings" in line

    def test_nothing_in_common(self, run: Run) -> None:
        write_vectors(Path("v.npz"), [("z.mp4", None, None)], [0])
        assert "such as 'z.mp4' and 'a.mp4'" in refused(run, 1, "l.jsonl", "v.npz")

    def test_some_without_a_vector_are_told(self, run: Run) -> None:
        write_vectors(Path("v.npz"), [("a.mp4", None, None), ("b.mp4", None, None)], [0, 90])
        code, out, err = run("pick", "l.jsonl", "v.npz")
        assert (code, len(out.splitlines())) == (0, 2)
        assert "3 labels without a vector left out, the first: c.mp4" in err

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (
                "z.mp4,walk\n",
                "none of its 1 labelled videos is in v.npz, such as 'z.mp4'; one that is there is 'a.mp4'",
            ),
            ("a.mp4,\n", "labelled.csv: has no row with a label"),
            ("".join(f"{path},walk\n" for path in VIDEOS), "all videos that l.jsonl and v.npz share are labelled"),
        ],
    )
    def test_labels_of_other_videos(self, run: Run, rows: str, message: str) -> None:
        assert message in refused(run, 1, "l.jsonl", "v.npz", "--labelled", labelled(rows))

    def test_some_labels_of_other_videos_are_told(self, run: Run) -> None:
        code, _, err = run("pick", "l.jsonl", "v.npz", "--labelled", labelled("a.mp4,walk", "z.mp4,run"))
        assert code == 0
        assert "1 of 2 labelled videos have no vector, the first: z.mp4" in err

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (
                ("--by", "entropy"),
                "entropy needs the scores of all classes; name the file of --save-logits with --logits",
            ),
            (("--logits", "s.npz"), "--logits is only used for --by entropy"),
            (("--seed", "1"), "--seed is only used for --by random"),
            (("-o", "next.xml"), "next.xml"),
        ],
    )
    def test_options_that_do_not_go_together(self, run: Run, args: tuple[str, ...], message: str) -> None:
        assert message in refused(run, 2, "l.jsonl", "v.npz", *args)

    def test_one_label_has_no_margin(self, run: Run) -> None:
        write_results(Path("l.jsonl"), of_videos(top_k=1), replace(MADE, shown=Excerpt(top_k=1)))
        line = refused(run, 2, "l.jsonl", "v.npz")
        assert "l.jsonl: a.mp4 has 1 labels, too few for a margin" in line
        assert "--top-k 2" in line
        assert picked(run, "l.jsonl", "v.npz", "-n", "1", "--by", "random")[0]["margin"] is None

    def test_raw_values_have_no_margin(self, run: Run) -> None:
        write_results(Path("l.jsonl"), of_videos(), replace(MADE, recipe=Combination("original", "logits", "none")))
        assert "raw values, which have no margin; pick with --by random" in refused(run, 2, "l.jsonl", "v.npz")

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"labels": ("a", "b", "c")}, "s.npz: has different classes than l.jsonl"),
            ({"last": 3}, "s.npz: has no scores of d.mp4"),
        ],
    )
    def test_logits_of_a_different_run(self, run: Run, wrong: dict[str, Any], message: str) -> None:
        write_scores(Path("s.npz"), **wrong)
        assert message in refused(run, 1, "l.jsonl", "v.npz", "--by", "entropy", "--logits", "s.npz")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("gone.jsonl", "gone.jsonl: no such file"),
            ("alone.jsonl", "alone.jsonl.meta.json, which tells the model, is missing"),
            ("labels.csv", "labels.csv: is not JSON lines"),
            ("broken.jsonl", "broken.jsonl.meta.json is damaged"),
            ("torn.jsonl", "its run was interrupted; complete it with --resume"),
            ("vectors.jsonl", "holds vectors and no labels"),
        ],
    )
    def test_what_is_no_run(self, run: Run, name: str, message: str) -> None:
        path = Path(name)
        if name != "gone.jsonl":
            path.write_text(Path("l.jsonl").read_text())
        settings = json.loads(meta_of(Path("l.jsonl")).read_text())
        if name == "broken.jsonl":
            settings = {"finished": 1}
        elif name == "torn.jsonl":
            settings["finished"] = None
        elif name == "vectors.jsonl":
            settings = json.loads(meta_of(Path("v.npz")).read_text())
        if name not in ("gone.jsonl", "alone.jsonl"):
            meta_of(path).write_text(json.dumps(settings))
        assert message in refused(run, 1, name, "v.npz")

    def test_vectors_of_frames(self, run: Run) -> None:
        made = replace(MADE, labels=(), shown=None, vectors=VectorKind(dimension=2, feature="frames"))
        save(Path("f.npz"), [("a.mp4", None, None)], np.ones((1, 2), np.float32), made)
        assert "f.npz: has a vector for each frame" in refused(run, 2, "l.jsonl", "f.npz")
