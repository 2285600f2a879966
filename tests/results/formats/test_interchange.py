"""Files for other tools: valid JSON whatever was labelled, with what their documented formats ask for."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from timesformer_cli.results.formats.interchange import activitynet_style, fiftyone_style, labelstudio_style
from timesformer_cli.results.record import Record, Style

LABELS = ("archery", "bowling", 'größer & "schneller"')


def guesses(label: str, score: float) -> list[Record]:
    return [
        {"rank": 1, "index": 5, "label": label, "score": score},
        {"rank": 2, "index": 7, "label": "second", "score": 0.01},
    ]


def video(**changes: Any) -> Record:
    facts = {"duration": 10.0, "fps": 25.0, "frames": 250, "width": 340, "height": 256, "codec": "h264"}
    return facts | changes


def whole(path: str = "clips/a.mp4", label: str = "archery", score: float = 0.75, **changes: Any) -> Record:
    head = {"path": path, "status": "ok", "model": "base-k400"}
    return head | {"predictions": guesses(label, score), "video": video(**changes), "recipe": "original"}


def timeline(*spans: tuple[float, float, str | None, float], path: str = "long.mp4", **changes: Any) -> Record:
    segments = [{"start": a, "end": b, "predictions": guesses(c, d) if c else []} for a, b, c, d in spans]
    head = {"path": path, "status": "ok", "model": "base-k400"}
    return head | {"segments": segments, "video": video(**changes), "recipe": "original"}


FAILED: Record = {
    "path": "clips/bad.mp4",
    "status": "error",
    "model": "base-k400",
    "error": {"kind": "decode", "message": "no frame of it decodes"},
}
TIMELINE = timeline((0.0, 4.0, "archery", 0.9), (4.0, 8.0, None, 0.0), (8.0, 10.0, "bowling", 0.5))


def written(style: Style, *records: Record) -> Any:
    """The file, through bytes as the writer makes them."""
    return json.loads("".join(style.texts(records)).encode("utf-8", "backslashreplace"))


STYLES: list[Callable[[], Style]] = [
    activitynet_style,
    lambda: labelstudio_style(raw=False),
    lambda: fiftyone_style(LABELS),
]


@pytest.mark.parametrize("style", STYLES, ids=["activitynet", "labelstudio", "fiftyone"])
class TestAll:
    def test_files_without_a_labelled_video(self, style: Callable[[], Style]) -> None:
        assert written(style()) == written(style(), FAILED) == written(style(), FAILED, FAILED)

    def test_failed_videos_leave_no_trace(self, style: Callable[[], Style]) -> None:
        records = [whole(), TIMELINE, whole("c.mp4")]
        mixed = [FAILED, records[0], FAILED, FAILED, *records[1:], FAILED]
        assert written(style(), *mixed) == written(style(), *records)

    @pytest.mark.parametrize(
        "odd", ['a"b\\.mp4', "a\nb.mp4", "a\u2028</script>.mp4", "太極 🎬.mp4", "caf\udce9.mp4"], ids=ascii
    )
    def test_odd_names_and_labels(self, style: Callable[[], Style], odd: str) -> None:
        found = written(style(), whole(odd, label=odd[:-4]), whole("b.mp4"))
        assert written(style(), whole("b.mp4")) != found
        # JSON's escape of a byte that is no UTF-8 reads back as that very byte.
        assert json.dumps(odd[:-4])[1:-1] in json.dumps(found)


class TestActivityNet:
    def test_every_rank_of_every_span(self) -> None:
        assert written(activitynet_style(), whole("clips/a.mp4"), TIMELINE) == {
            "version": "VERSION 1.3",
            "results": {
                "a": [
                    {"label": "archery", "score": 0.75, "segment": [0.0, 10.0]},
                    {"label": "second", "score": 0.01, "segment": [0.0, 10.0]},
                ],
                "long": [
                    {"label": "archery", "score": 0.9, "segment": [0.0, 4.0]},
                    {"label": "second", "score": 0.01, "segment": [0.0, 4.0]},
                    {"label": "bowling", "score": 0.5, "segment": [8.0, 10.0]},
                    {"label": "second", "score": 0.01, "segment": [8.0, 10.0]},
                ],
            },
            "external_data": {},
        }

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("v_QOlSCBRmfWY.mp4", "QOlSCBRmfWY"),
            ("Anet_videos/v_--1DO2V4K74.mkv", "--1DO2V4K74"),
            ("v_abcdefghi.mp4", "v_abcdefghi"),  # an id that begins so: it has 11 characters
            ("v_ApplyEyeMakeup_g01_c01.avi", "v_ApplyEyeMakeup_g01_c01"),
            ("video_test_0000004.mp4", "video_test_0000004"),
            ("https://example.org/v_QOlSCBRmfWY.mp4", "QOlSCBRmfWY"),
            ("rawframes/QOlSCBRmfWY/", "QOlSCBRmfWY"),
        ],
    )
    def test_ids(self, path: str, name: str) -> None:
        assert list(written(activitynet_style(), whole(path))["results"]) == [name]

    def test_no_video_is_lost_to_another_of_the_same_name(self) -> None:
        paths = ["x/a.mp4", "y/a.mp4", "a.mp4", "y/a.mkv", "z/a.mp4.mov", "z/y/a.mkv (2).mp4"]
        text = "".join(activitynet_style().texts(whole(path, score=0.1 * n) for n, path in enumerate(paths)))
        pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)[1][1]
        names = [name for name, _ in pairs]
        assert names == ["a", "y/a.mp4", "a.mp4", "y/a.mkv", "z/a.mp4.mov", "a.mkv (2)"]

    def test_a_path_that_is_another_one_s_name(self) -> None:
        paths = ["x/a.mp4.mov", "x/a.mp4", "a.mp4"]
        assert list(written(activitynet_style(), *map(whole, paths))["results"]) == ["a.mp4", "a", "a.mp4 (2)"]

    def test_each_file_has_ids_of_its_own(self) -> None:
        assert [list(written(activitynet_style(), whole("x/a.mp4"))["results"]) for _ in range(2)] == [["a"]] * 2


def tasks(*records: Record, raw: bool = False) -> Any:
    return written(labelstudio_style(raw=raw), *records)


@pytest.fixture
def _no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", raising=False)


@pytest.mark.usefixtures("_no_root")
class TestLabelStudio:
    def test_a_video_as_a_whole_is_a_choice(self) -> None:
        assert tasks(whole("/videos/a.mp4")) == [
            {
                "data": {"video": "/data/local-files/?d=videos/a.mp4", "fps": 25.0, "path": "/videos/a.mp4"},
                "predictions": [
                    {
                        "model_version": "base-k400",
                        "score": 0.75,
                        "result": [
                            {
                                "id": "span-1",
                                "from_name": "label",
                                "to_name": "video",
                                "type": "choices",
                                "value": {"choices": ["archery"]},
                                "score": 0.75,
                            }
                        ],
                    }
                ],
            }
        ]

    def test_a_timeline_is_ranges_of_frames(self) -> None:
        [task] = tasks(TIMELINE)
        [prediction] = task["predictions"]
        assert prediction["score"] == 0.7
        assert [(region["id"], region["type"], region["score"]) for region in prediction["result"]] == [
            ("span-1", "timelinelabels", 0.9),
            ("span-2", "timelinelabels", 0.5),
        ]
        assert [region["value"] for region in prediction["result"]] == [
            {"ranges": [{"start": 1, "end": 100}], "timelinelabels": ["archery"]},
            {"ranges": [{"start": 201, "end": 250}], "timelinelabels": ["bowling"]},
        ]

    def test_neighbours_share_no_frame_unless_they_are_shorter_than_one(self) -> None:
        edges = [0.0, 0.01, 0.02, 1.0, 2.53, 2.54, 10.01]
        record = timeline(*((a, b, "x", 0.5) for a, b in pairwise(edges)), fps=29.97)
        regions = tasks(record)[0]["predictions"][0]["result"]
        ranges = [region["value"]["ranges"][0] for region in regions]
        assert [(r["start"], r["end"]) for r in ranges] == [(1, 1), (1, 1), (2, 30), (31, 76), (77, 77), (77, 300)]

    def test_logits_are_no_scores(self) -> None:
        for task in tasks(whole(score=7.5), TIMELINE, raw=True):
            assert '"score"' not in json.dumps(task)

    def test_a_video_without_predictions_is_a_task_too(self) -> None:
        record = whole() | {"predictions": []}
        assert tasks(record)[0]["predictions"] == tasks(timeline((0, 1, None, 0)))[0]["predictions"] == []

    def test_an_unknown_rate_is_the_player_s(self) -> None:
        [task] = tasks(timeline((1.0, 2.0, "archery", 0.5), fps=None))
        assert task["data"]["fps"] == 24
        assert task["predictions"][0]["result"][0]["value"]["ranges"] == [{"start": 25, "end": 48}]

    def served(self, path: str) -> str:
        [task] = tasks(whole(path))
        return str(task["data"]["video"])

    @pytest.mark.parametrize("address", ["https://example.org/a%20b.mp4?x=1", "s3://bucket/a.mp4"])
    def test_addresses_stay(self, address: str) -> None:
        assert self.served(address) == address

    @pytest.mark.parametrize("name", ["a b#c?&d=e+f%20.mp4", "太極\n'\".mp4", "caf\udce9.mp4"], ids=ascii)
    def test_the_address_leads_back_to_the_file(self, tmp_path: Path, name: str) -> None:
        parts = urlsplit(self.served(str(tmp_path / name)))
        assert parts.path == "/data/local-files/"
        [file] = parse_qs(parts.query, strict_parsing=True, errors="surrogateescape")["d"]
        assert "/" + file == str(tmp_path / name)

    def test_relative_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.served("b/../a.mp4") == self.served(f"file://{tmp_path}/a.mp4")
        assert self.served("a.mp4") == f"/data/local-files/?d={str(tmp_path)[1:]}/a.mp4"

    @pytest.mark.parametrize(
        ("path", "address"),
        [
            ("/videos/set/a.mp4", "set/a.mp4"),
            ("/videos2/a.mp4", "/videos2/a.mp4"),  # which Label Studio does not serve
        ],
    )
    def test_a_document_root(self, monkeypatch: pytest.MonkeyPatch, path: str, address: str) -> None:
        monkeypatch.setenv("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", "/videos/")
        assert self.served(path) == f"/data/local-files/?d={address}"


class TestFiftyOne:
    def test_the_first_label_of_every_span(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        file = written(fiftyone_style(LABELS), whole("clips/a.mp4"), TIMELINE, whole("c.mp4") | {"predictions": []})
        assert file == {
            "classes": list(LABELS),
            "labels": {
                f"{tmp_path}/clips/a.mp4": [{"label": "archery", "confidence": 0.75, "timestamps": [0.0, 10.0]}],
                f"{tmp_path}/long.mp4": [
                    {"label": "archery", "confidence": 0.9, "timestamps": [0.0, 4.0]},
                    {"label": "bowling", "confidence": 0.5, "timestamps": [8.0, 10.0]},
                ],
                f"{tmp_path}/c.mp4": [],
            },
        }

    def test_a_video_of_unknown_duration(self) -> None:
        file = written(fiftyone_style(LABELS), whole("/a.mp4", duration=None))
        assert file["labels"] == {"/a.mp4": [{"label": "archery", "confidence": 0.75, "support": [1, 250]}]}

    @pytest.mark.parametrize(
        ("path", "key"),
        [
            ("/x/../y/a.b.mp4", "/y/a.b.mp4"),
            ("file:///y/a.mp4", "/y/a.mp4"),
            ("https://example.org/v//a.mp4", "example.org/v/a"),
            ("s3://bucket/v/a.mp4", "bucket/v/a"),
        ],
    )
    def test_keys(self, path: str, key: str) -> None:
        assert list(written(fiftyone_style(LABELS), whole(path))["labels"]) == [key]
