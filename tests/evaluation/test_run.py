"""Runs on labelled data sets as values and as folders; score files of other tools; pictures of confusion."""

import csv
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit

from timesformer_cli.checkpoints import labels, zoo
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import preview
from timesformer_cli.datasets import Dataset, Problem, Sample
from timesformer_cli.errors import InputError, OutputError, UsageError
from timesformer_cli.evaluation import confusion_matrix as heatmap
from timesformer_cli.evaluation.folder import (
    open_folder,
    read_run,
    remove_results,
    write_problems,
    write_records,
    write_results,
)
from timesformer_cli.evaluation.run import (
    Run,
    compare,
    dataset_settings,
    fuse,
    gather,
    restrict,
    summarise,
    with_protocol,
)
from timesformer_cli.evaluation.score_files import match_scores, own_dataset_settings, read_scores
from timesformer_cli.results.settings import Combination, Provenance
from timesformer_cli.specs import Activation, Combine

NAMES = ("waving", '</script>"; & größer', "a\tb\nc", "=sitting", os.fsdecode(b"caf\xe9"))
DATA_SET: dict[str, Any] = {"rows": 6, "samples": 6, "multi_label": False, "classes": None, "problems": {}}
TARGETS = (0, 1, 2, 3, 4)


def make(
    *,
    seed: int = 0,
    videos: int = 5,
    targets: tuple[Any, ...] | None = None,
    names: tuple[str, ...] = NAMES,
    model: str = "tiny",
    kind: Combine = "logits",
    activation: Activation = "softmax",
    failed: bool = True,
) -> Run:
    """A run of random scores, of which one video has failed."""
    scores = np.random.default_rng(seed).normal(size=(videos, len(names))).astype(np.float32)
    if kind == "probabilities":
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    given = targets or tuple(number % len(names) for number in range(videos))
    lists = tuple(target if isinstance(target, tuple) else (target,) for target in given)
    error = {"kind": "decode", "message": "damaged, <b>so</b>\n"}
    record = {"path": "clips/bad.mp4", "status": "error", "model": model, "error": error, "target": [0]}
    data_set = DATA_SET | {"multi_label": any(len(target) != 1 for target in lists), "samples": videos + failed}
    return Run(
        provenance=Provenance(
            model=model,
            source=model,
            labels=names,
            recipe=Combination("original", kind, activation),
            data_set=data_set,
        ),
        paths=tuple(f"clips/{os.fsdecode(bytes([200]))} \n,{number}.mp4" for number in range(videos)),
        targets=lists,
        scores={kind: scores},
        failed=(record,) if failed else (),
    )


def loaded(path: str | Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file."""
    with np.load(path) as arrays:
        return dict(arrays)


def on_disk(folder: Path, run: Run) -> Run:
    open_folder(folder, overwrite=False, resume=False)
    write_records(folder, run.provenance, run.records())
    write_results(folder, run, summarise(run, run.measure((1, 5))), ())
    return read_run(folder)


class TestFolders:
    @pytest.mark.parametrize("kind", ["logits", "probabilities"])
    def test_a_run_is_read_as_it_was_written(self, tmp_path: Path, kind: str) -> None:
        run = make(kind=kind)
        again = on_disk(tmp_path / "a" / "b", run)
        assert (again.provenance, again.paths, again.targets, again.failed) == (
            run.provenance,
            run.paths,
            run.targets,
            run.failed,
        )
        np.testing.assert_array_equal(again.ranked[:], run.ranked[:])
        assert again.combine == kind

    def test_without_any_video(self, tmp_path: Path) -> None:
        run = gather((), tmp_path, make().provenance)
        again = on_disk(tmp_path / "run", run)
        assert again.ranked.shape == (0, len(NAMES))
        assert summarise(again, again.measure((1,)))["top_1"]["accuracy"] is None

    def test_any_text_is_kept(self, tmp_path: Path) -> None:
        run = on_disk(tmp_path, make())
        saved = loaded(tmp_path / "scores.npz")
        assert tuple(saved["labels"].tolist()) == NAMES
        assert tuple(saved["path"].tolist()) == run.paths
        text = (tmp_path / "predictions.csv").read_bytes().decode()
        assert '"clips/\\udcc8 \n,0.mp4"' in text
        json.loads((tmp_path / "metrics.json").read_bytes())

    def test_problems_are_listed(self, tmp_path: Path) -> None:
        write_problems(tmp_path, [Problem("missing", "val.csv: line 2", "'a,b' does not exist")])
        lines = (tmp_path / "problems.csv").read_text().splitlines()
        assert lines == ["kind,place,message", """missing,val.csv: line 2,"'a,b' does not exist\""""]

    def test_results_go_and_records_stay(self, tmp_path: Path) -> None:
        on_disk(tmp_path, make())
        remove_results(tmp_path)
        assert sorted(os.listdir(tmp_path)) == ["videos.jsonl", "videos.jsonl.meta.json"]
        assert read_run(tmp_path).paths == make().paths

    def test_folders_of_others_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"holds no run, but other files such as 'thesis\.tex'"):
                open_folder(tmp_path, overwrite=overwrite, resume=not overwrite)

    @pytest.mark.parametrize(
        "change",
        [
            lambda record: record.pop("_logits"),
            lambda record: record.update(_logits=["AAAA"]),
            lambda record: record.update(_logits=[]),
            lambda record: record.update(target="no"),
            lambda record: record.update(target=[5]),
            lambda record: record.update(target=[-1]),
            lambda record: record.pop("target"),
        ],
    )
    def test_records_that_were_changed_are_noticed(self, tmp_path: Path, change: Any) -> None:
        run = make()
        records = list(run.records())
        change(records[1])
        write_records(tmp_path, run.provenance, records)
        with pytest.raises(InputError, match="not the records of timesformer evaluate"):
            read_run(tmp_path)

    def test_a_full_disk_ends_in_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "savez", full)
        with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
            on_disk(tmp_path, make())
        assert "metrics.json" not in os.listdir(tmp_path)


class TestProtocol:
    @pytest.mark.parametrize(
        ("name", "clips"),
        [("base-k400", 1), ("large-k600", 1), ("howto100m-32", 12), ("camera-motion", None), ("hr-ssv2", 1)],
    )
    def test_is_the_published_one(self, name: str, clips: int | None) -> None:
        checkpoint = with_protocol(preview(name))
        assert checkpoint.sampling.clips == clips
        assert checkpoint.preprocess.crops == (1 if name == "camera-motion" else 3)

    def test_a_copy_has_that_of_its_model(self, tmp_path: Path) -> None:
        folder = preview("camera-motion").weights.parent  # type: ignore[union-attr]
        shutil.copytree(folder, tmp_path / "copy")
        assert with_protocol(preview(str(tmp_path / "copy"))).sampling.clips is None

    def test_what_a_recipe_states_stays(self) -> None:
        asked = with_overrides(preview("base-k400"), fields={"clips": 7})
        assert with_protocol(asked) is asked


class TestPublishedNumbers:
    def published(self, right: int, **settings: Any) -> Any:
        videos = 1000
        names = labels.read("kinetics-400")
        scores = np.zeros((videos, 400), np.float32)
        targets = np.arange(videos) % 400
        scores[np.arange(videos), np.where(np.arange(videos) < right, targets, (targets + 1) % 400)] = 5
        run = make(videos=videos, names=names, model=settings.pop("model", "base-k400"))
        run = Run(replace(run.provenance, **settings), run.paths, run.targets, {"logits": scores}, ())
        return summarise(run, run.measure((1, 5)))["published"]

    @pytest.mark.parametrize(("right", "within"), [(779, True), (790, True), (700, False), (850, False)])
    def test_stand_beside_what_was_found(self, right: int, within: bool) -> None:
        found = self.published(right)
        assert found["top_1"]["value"] == zoo.ZOO["base-k400"].top1 / 100  # type: ignore[operator]
        assert found["top_1"]["difference"] == pytest.approx(right / 1000 - 0.779)
        assert found["top_1"]["within_interval"] is within
        assert (found["data"], found["clips"], found["crops"]) == ("Kinetics-400", 1, 3)
        assert self.published(right, model="facebook/timesformer-base-finetuned-k400") == found

    def test_only_of_these_classes(self) -> None:
        assert self.published(700, data_set=DATA_SET | {"classes": ["abseiling"]}) is None
        assert self.published(700, model="base-k600") is None
        assert self.published(700, model="my-model") is None
        assert self.published(700, groups={"sport": ["abseiling"]}) is None


class TestRestriction:
    def test_other_classes_leave(self) -> None:
        run = restrict(make(videos=20), ["=sitting", "waving"])
        assert run.labels == ("waving", "=sitting")
        assert {target for (target,) in run.targets} == {0, 1}
        assert len(run.paths) == 8
        np.testing.assert_array_equal(
            run.ranked[:], make(videos=20).ranked[np.ix_([0, 3, 5, 8, 10, 13, 15, 18], [0, 3])]
        )
        assert run.failed[0]["target"] == (0,)
        assert restrict(run, ["=sitting"]).failed == ()

    def test_of_several_labels_those_that_are_left(self) -> None:
        run = restrict(make(videos=3, targets=((0, 1), (1, 2), (2,))), ["a b c", "waving"])
        assert run.targets == ((0,), (1,), (1,))
        assert run.multi_label

    def test_unknown_names(self) -> None:
        with pytest.raises(UsageError, match="'waiving' is not a class of the run; did you mean 'waving'"):
            restrict(make(), ["waiving"])
        with pytest.raises(InputError, match="no video of these classes"):
            restrict(make(videos=1), ["=sitting"])


class TestSeveralRuns:
    def test_flips(self) -> None:
        first, second = make(videos=40), make(videos=40, seed=1)
        found, flips = compare(first, second)
        right = [run.ranked.argmax(axis=1) == run.classes for run in (first, second)]
        assert (found.first, found.second) == (right[0].mean(), right[1].mean())
        assert {flip.path: flip.gained for flip in flips} == {
            path: bool(now) for path, before, now in zip(first.paths, *right, strict=True) if before != now
        }
        for flip in flips:
            row = first.paths.index(flip.path)
            assert (flip.first, flip.second) == (first.ranked[row].argmax(), second.ranked[row].argmax())

    def test_videos_that_failed_in_one_have_failed(self) -> None:
        first, second = make(), make(seed=1, failed=False)
        lost = Run(second.provenance, second.paths[1:], second.targets[1:], {"logits": second.scores["logits"][1:]}, ())
        fused = fuse([first, lost], [1, 1])
        assert fused.paths == first.paths[1:]
        assert [record["path"] for record in fused.failed] == ["clips/bad.mp4"]
        assert fused.combine == "probabilities"

    @pytest.mark.parametrize("activation", ["sigmoid", "none"])
    def test_fusing_by_another_activation(self, tmp_path: Path, activation: Activation) -> None:
        runs = [make(seed=seed, activation=activation, failed=False) for seed in (0, 1)]
        fused = on_disk(tmp_path / "fused", fuse(runs, [1, 3]))
        ranked = fused.ranked[:]
        values = [run.ranked[:].astype(np.float64) for run in runs]
        first, second = values if activation == "none" else (expit(each) for each in values)
        np.testing.assert_allclose(ranked, (first + 3 * second) / 4, rtol=1e-6)
        assert (fused.activation, fused.combine) == (activation, "logits" if activation == "none" else "probabilities")
        with (tmp_path / "fused" / "predictions.csv").open(encoding="utf-8", errors="replace", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["score"]) for row in rows] == pytest.approx(ranked.max(axis=1).tolist(), rel=1e-5)
        own = ranked[np.arange(5), fused.classes]
        assert [float(row["label_score"]) for row in rows] == pytest.approx(own.tolist(), rel=1e-5)

    def test_activations_do_not_mix(self) -> None:
        with pytest.raises(
            UsageError, match=r"scores of different kinds \(softmax and sigmoid\).*`settings=activation"
        ):
            fuse([make(), make(activation="sigmoid")], [1, 1])
        several = ((0, 1), 1, 2, 3, 4)  # whose logits are ranked as sigmoids rank, whatever the model's activation
        fused = fuse([make(targets=several), make(targets=several, activation="sigmoid")], [1, 1])
        assert fused.activation == "sigmoid"

    def test_runs_that_do_not_go_together(self) -> None:
        run = make()
        with pytest.raises(UsageError, match="different classes: 5 and 2"):
            fuse([run, make(names=("a", "b"))], [1, 1])
        with pytest.raises(UsageError, match="has different labels in these runs"):
            compare(run, make(targets=(1, 1, 2, 3, 4)))
        with pytest.raises(UsageError, match="several labels, the other does not"):
            fuse([run, make(targets=((0, 1), 1, 2, 3, 4))], [1, 1])
        with pytest.raises(UsageError, match="one label each"):
            compare(make(targets=((0, 1), 1, 2, 3, 4)), run)
        elsewhere = Run(run.provenance, tuple(f"/data/{n}.mp4" for n in range(5)), run.targets, run.scores, ())
        with pytest.raises(InputError, match=r"no video is in all 2 runs.*'/data/0\.mp4'"):
            compare(run, elsewhere)


def data_set(*targets: tuple[int, ...], missing: int = 0) -> Dataset:
    samples = tuple(Sample(f"val/{number}.mp4", target, number + 1) for number, target in enumerate(targets))
    return Dataset(
        format="list",
        annotations=Path("val.csv"),
        checksum="0" * 64,
        split=None,
        rows=len(samples) + missing,
        samples=samples,
        problems=tuple(Problem("missing", f"val.csv: line {n}", "x") for n in range(missing)),
        names=("a", "b"),
        classes={},
        matched_by="index",
        multi_label=any(len(target) != 1 for target in targets),
    )


def test_a_data_set_is_known_by_its_videos_and_labels() -> None:
    digests = [
        dataset_settings(data_set(*targets))["samples_sha256"]
        for targets in (((0,), (1,)), ((1,), (0,)), ((0,), (1,), (1,)), ((0, 1), ()))
    ]
    assert len(set(digests)) == 4
    settings = dataset_settings(data_set((0,), missing=3), limit=7)
    assert settings == json.loads(json.dumps(settings))
    assert (settings["problems"], settings["rows"], settings["limit"]) == ({"missing": 3}, 4, 7)


LOGITS: NDArray[np.float32] = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
SOFTMAX: NDArray[np.float32] = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def dumped(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


class TestPickles:
    @pytest.mark.parametrize("protocol", range(6))
    @pytest.mark.parametrize(
        "content",
        [
            LOGITS,
            list(LOGITS),
            tuple(LOGITS.tolist()),
            np.asfortranarray(LOGITS),
            LOGITS.astype(">f4"),
            [list(row) for row in LOGITS],
        ],
        ids=["array", "arrays", "lists", "by columns", "big-endian", "scalars"],
    )
    def test_scores_alone(self, tmp_path: Path, content: object, protocol: int) -> None:
        found = read_scores(dumped(tmp_path / "s.pkl", content, protocol))
        np.testing.assert_array_equal(found.scores[:], LOGITS)
        assert (found.combine, found.paths, found.labels, found.targets) == ("logits", None, None, None)

    @pytest.mark.parametrize("protocol", range(6))
    def test_of_slowfast(self, tmp_path: Path, protocol: int) -> None:
        content = [SOFTMAX * 30, np.array([2, 0, 1, 1])]
        found = read_scores(dumped(tmp_path / "s.pkl", content, protocol))
        assert (found.combine, found.targets) == ("probabilities", ((2,), (0,), (1,), (1,)))
        np.testing.assert_array_equal(found.scores[:], SOFTMAX * 30)

    @pytest.mark.parametrize("protocol", range(6))
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_of_mmaction2(self, tmp_path: Path, protocol: int, wrapped: bool) -> None:
        def row(score: NDArray[np.float32], label: int) -> dict[str, Any]:
            if wrapped:
                return {"pred_scores": {"item": score}, "gt_labels": {"item": np.array([label])}}
            return {"pred_score": score, "gt_label": np.array([label])}

        content = [row(score, label) for score, label in zip(SOFTMAX, (2, 0, 1, 1), strict=True)]
        found = read_scores(dumped(tmp_path / "s.pkl", content, protocol))
        assert (found.combine, found.targets) == ("probabilities", ((2,), (0,), (1,), (1,)))
        np.testing.assert_array_equal(found.scores[:], SOFTMAX)

    def test_tensors_are_refused(self, tmp_path: Path) -> None:
        for content in ([torch.from_numpy(SOFTMAX), torch.tensor([2, 0, 1, 1])], [{"pred_score": torch.zeros(3)}]):
            with pytest.raises(InputError, match=r"holds PyTorch tensors.*save them as arrays.*nothing in it was run"):
                read_scores(dumped(tmp_path / "s.pkl", content))

    def test_nothing_is_run(self, tmp_path: Path) -> None:
        class Hostile:
            def __init__(self, *call: Any) -> None:
                self.call = call

            def __reduce__(self) -> Any:
                return self.call[0], self.call[1:]

        mark = tmp_path / "mark"
        calls = [
            (os.system, f"touch {mark}"),
            (eval, f"open({str(mark)!r}, 'w')"),
            (subprocess.check_call, ["touch", str(mark)]),
            (np.load, str(mark)),
            (getattr, (), "append"),
            (np.save, str(mark), LOGITS),
        ]
        for call in calls:
            with pytest.raises(
                InputError, match=r"refused, as it holds .*more than arrays and plain data; nothing in it was run"
            ):
                read_scores(dumped(tmp_path / "s.pkl", [LOGITS, Hostile(*call)]))
        assert not mark.exists()

    def test_arrays_of_objects_are_refused(self, tmp_path: Path) -> None:
        for content in (np.array([[1, "x"]], object), np.array(["text"]), np.zeros(2, "f4,i4"), np.zeros(2, "M8[s]")):
            with pytest.raises(InputError, match="not of numbers"):
                read_scores(dumped(tmp_path / "s.pkl", content))

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x80",
            b"\x80\x04.",
            b"nonsense",
            pickle.dumps(LOGITS)[:-9],
            pickle.dumps({"a": 1}),
            pickle.dumps([]),
            pickle.dumps([LOGITS[0], LOGITS[0, :2]]),
            pickle.dumps("text"),
            pickle.dumps([{"gt_label": 1}]),
            b"(" * 10_000 + b"t" * 10_000 + b".",
            pickle.dumps(np.zeros((0, 3))),
            pickle.dumps(LOGITS).replace(b"\x87", b"\x86", 1),
        ],
    )
    def test_what_is_none(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "s.pkl").write_bytes(content)
        with pytest.raises(InputError) as error:
            read_scores(tmp_path / "s.pkl")
        assert "\n" not in str(error.value)

    def test_a_shape_that_is_not_that_of_the_bytes(self, tmp_path: Path) -> None:
        whole = pickle.dumps(LOGITS, 4)
        changed = whole.replace(b"K\x04K\x03\x86", b"J\xff\xff\xff\x7fK\x03\x86")
        assert changed != whole
        (tmp_path / "s.pkl").write_bytes(changed)
        with pytest.raises(InputError, match="cannot reshape"):
            read_scores(tmp_path / "s.pkl")


class TestOtherFiles:
    def test_parquet_and_npz_hold_the_same(self, tmp_path: Path) -> None:
        from timesformer_cli.results.logits import LogitsRow, save_logits

        rows = [LogitsRow(f"val/{n}.mp4", 0.0, 1.0, row) for n, row in enumerate(LOGITS)]
        for ending in (".npz", ".parquet"):
            path = tmp_path / f"l{ending}"
            save_logits(path, rows, NAMES[:3], format=ending, activation="softmax")
            found = read_scores(path)
            np.testing.assert_array_equal(found.scores[:], LOGITS)
            assert (found.paths, found.labels) == (tuple(f"val/{n}.mp4" for n in range(4)), NAMES[:3])
            save_logits(path, rows * 2, NAMES[:3], format=ending, activation="softmax")
            with pytest.raises(InputError, match="has videos more than once"):
                read_scores(path)

    def test_files_say_what_makes_scores_of_logits(self, tmp_path: Path) -> None:
        on_disk(tmp_path / "run", make(activation="sigmoid"))
        found = read_scores(tmp_path / "run" / "scores.npz")
        assert found.activation == "sigmoid"
        arrays = loaded(tmp_path / "run" / "scores.npz")
        del arrays["activation"]  # as earlier versions left it
        np.savez(tmp_path / "old.npz", **arrays)
        assert read_scores(tmp_path / "old.npz").activation is None
        np.savez(tmp_path / "odd.npz", **arrays, activation=np.array("tanh"))
        with pytest.raises(InputError, match="the activation is 'tanh'; known are softmax, sigmoid, none"):
            read_scores(tmp_path / "odd.npz")

    @pytest.mark.parametrize("targets", [None, ((0, 1), (2,), (), (1,), (3,))])
    def test_what_a_run_leaves(self, tmp_path: Path, targets: Any) -> None:
        run = on_disk(tmp_path, make(kind="probabilities", targets=targets))
        found = read_scores(tmp_path / "scores.npz")
        assert (found.combine, found.targets, found.paths) == ("probabilities", run.targets, run.paths)

    def test_damaged_files(self, tmp_path: Path) -> None:
        on_disk(tmp_path, make())
        path = tmp_path / "scores.npz"
        content = path.read_bytes()
        for end in range(0, len(content), 97):
            path.write_bytes(content[:end])
            with pytest.raises(InputError):
                read_scores(path)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"logits": LOGITS, "path": ["a"], "labels": NAMES[:3]}, "scores of 4 videos, but 1 paths"),
            ({"logits": LOGITS, "path": list("abcd"), "labels": NAMES[:2]}, "for 3 classes, but names of 2"),
            ({"logits": LOGITS * np.nan, "path": list("abcd"), "labels": NAMES[:3]}, "not finite"),
            (
                {"logits": LOGITS, "path": list("abcd"), "labels": NAMES[:3], "target": [0, 1, 2, 3]},
                "labels from 0 to 3",
            ),
            ({"path": list("abcd")}, "not an .npz file with logits"),
        ],
    )
    def test_parts_that_contradict_each_other(self, tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
        np.savez(tmp_path / "s.npz", **arrays)
        with pytest.raises(InputError, match=message):
            read_scores(tmp_path / "s.npz")

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"logits": np.zeros((2, 2**18), np.float32)}, "its logits would unpack to 2 MB"),
            ({"target": np.zeros((2, 2**16), np.int64)}, "its target would unpack to 1 MB"),
            ({"path": np.full(2**16, "x")}, "its path holds 65,536, for 2 rows or columns of scores"),
            ({"labels": np.full(2**16, "x")}, "its labels holds 65,536, for 3 rows or columns of scores"),
            ({"path": np.array(["a" * 2**19, "b"])}, "its path holds texts of 524,288 characters"),
        ],
    )
    def test_an_archive_that_unpacks_to_more_than_scores_take(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], says: str
    ) -> None:
        monkeypatch.setattr("timesformer_cli.evaluation.score_files._LARGEST_UNPACKED", 2**20)
        arrays = {"logits": np.zeros((2, 3), np.float32), "path": list("ab"), "labels": list("xyz"), "target": [0, 1]}
        np.savez_compressed(tmp_path / "s.npz", **arrays)
        assert read_scores(tmp_path / "s.npz").paths == ("a", "b")
        np.savez_compressed(tmp_path / "s.npz", **arrays | changes)
        with pytest.raises(InputError, match=f"refused, {re.escape(says)}"):
            read_scores(tmp_path / "s.npz")

    def test_long_paths_take_no_more_memory_than_their_characters(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All texts of an array are as wide as the longest."""
        paths = ["a" * 4000, *map(str, range(500))]
        arrays = {"logits": np.zeros((501, 2), np.float32), "path": paths, "labels": list("xy")}
        np.savez_compressed(tmp_path / "s.npz", **arrays)
        tracemalloc.start()
        try:
            found = read_scores(tmp_path / "s.npz")
            assert tracemalloc.get_traced_memory()[1] < 5e6  # and 8 MB as an array
        finally:
            tracemalloc.stop()
        assert found.paths == tuple(paths)
        monkeypatch.setattr("timesformer_cli.evaluation.score_files._LARGEST_TEXT", 3000)
        with pytest.raises(InputError, match=r"its path holds more than 3,000 characters, which no run leaves"):
            read_scores(tmp_path / "s.npz")

    def test_an_order_is_only_taken_where_it_is_certain(self, tmp_path: Path) -> None:
        found = read_scores(dumped(tmp_path / "s.pkl", [LOGITS, np.array([2, 0, 1, 1])]))
        whole = data_set((2,), (0,), (1,), (1,))
        run = match_scores(found, whole, NAMES[:3], DATA_SET)
        assert run.targets == ((2,), (0,), (1,), (1,))
        assert run.paths == tuple(f"val/{n}.mp4" for n in range(4))
        for other in (data_set((2,), (0,), (1,)), data_set((2,), (0,), (1,), (1,), missing=1)):
            with pytest.raises(InputError, match="scores of 4 videos without paths"):
                match_scores(found, other, NAMES[:3], DATA_SET)
        with pytest.raises(InputError, match=r"video 3 has the label \(1,\) there, but \(0,\) in the dataset"):
            match_scores(found, data_set((2,), (0,), (1,), (0,)), NAMES[:3], DATA_SET)
        with pytest.raises(InputError, match="scores for 3 classes, but there are names of 5"):
            match_scores(found, whole, NAMES, DATA_SET)

    def test_without_labels_a_data_set_is_needed(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="has no labels of the videos"):
            own_dataset_settings(read_scores(dumped(tmp_path / "s.pkl", LOGITS)))


class TestPicture:
    @pytest.mark.parametrize("classes", [1, 2, 60, 61, 400, 1059])
    def test_cells_are_where_they_belong(self, classes: int) -> None:
        matrix = np.zeros((classes, classes), np.int64)
        matrix[0, classes - 1] = 9
        picture = heatmap.draw(matrix, [f"class {n}" for n in range(classes)])
        pixels = np.asarray(picture)
        rows, columns = np.nonzero((pixels == heatmap._MOST).all(axis=2))
        cell = max(800 // classes, 16 if classes <= 60 else 1)
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (cell, cell)
        assert max(picture.size) < 1500
        if classes > 1:
            assert columns.min() - rows.min() == cell * (classes - 1)

    def test_names_may_hold_anything(self, tmp_path: Path) -> None:
        heatmap.draw(np.eye(5, dtype=np.int64), NAMES).save(tmp_path / "c.png")
        with Image.open(tmp_path / "c.png") as picture:
            assert picture.size == heatmap.draw(np.zeros((5, 5), np.int64), NAMES).size


def test_evaluating_needs_no_torch() -> None:
    """Rescoring, comparing and fusing answer at once."""
    modules = "timesformer_cli.evaluation.folder, timesformer_cli.evaluation.score_files"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
