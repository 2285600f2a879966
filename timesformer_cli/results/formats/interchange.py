"""Labels for other tools, as one JSON file: ActivityNet's evaluation, Label Studio, FiftyOne."""

import json
import os
import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from timesformer_cli.results.record import Record, Style, answers, spans
from timesformer_cli.video.addresses import is_address, local_path

# Files of ActivityNet are named v_ID.mp4, with the 11 characters of YouTube; its annotations have the bare ID.
_ACTIVITYNET_NAME = re.compile(r"v_([\w-]{11})", re.ASCII)

# Label Studio's default, for a video without a rate.
_LABEL_STUDIO_FPS = 24


def activitynet_style() -> Style:
    """The results file for the evaluation of ActivityNet and THUMOS, with an entry for each rank of each span.

    Ids are file names without extension and without ActivityNet's "v_". If several videos have the same name, the
    later ones have their path as id, so that none is lost. A failed video has no results.
    """
    seen: set[str] = set()

    def render(record: Record) -> str:
        if record["status"] == "error":
            return ""
        video = _activitynet_id(record["path"], seen)
        seen.add(video)
        entries = [
            {"label": guess["label"], "score": guess["score"], "segment": [part["start"], part["end"]]}
            for part in spans(record)
            for guess in answers(part)
        ]
        return f"{_json(video)}: {_json(entries)}"

    # The evaluation requires a version, but ignores its value.
    start = '{"version": "VERSION 1.3", "results": {\n'
    return Style(render, start, between=",\n", end='\n}, "external_data": {}}\n')


def _activitynet_id(path: str, seen: set[str]) -> str:
    stem = os.path.splitext(os.path.basename(path.rstrip("/")))[0]
    named = _ACTIVITYNET_NAME.fullmatch(stem)
    candidates = chain([named[1] if named else stem, path], (f"{path} ({number})" for number in count(2)))
    return next(name for name in candidates if name not in seen)


def labelstudio_style(*, raw: bool) -> Style:
    """Tasks for Label Studio, each with the top label of its spans as a prediction to review.

    They need one of these configurations, with a `<Choice>` or `<Label>` for each label:

        <View><Video name="video" value="$video"/><Choices name="label" toName="video">...</Choices></View>

        <View><Video name="video" value="$video" framerate="$fps"/>                      (for a timeline)
              <TimelineLabels name="label" toName="video">...</TimelineLabels></View>

    Label Studio serves local files from below a folder that it takes from LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT (of
    the whole disk if that is not set); tasks name them relative to the same variable here. Addresses stay as they are.
    A failed video has no task. With `raw` there are no scores, as Label Studio expects probabilities.
    """
    root = os.path.abspath(os.environ.get("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT") or os.path.sep)

    def render(record: Record) -> str:
        if record["status"] == "error":
            return ""
        fps = record["video"]["fps"] or _LABEL_STUDIO_FPS
        # Databases refuse file names that are not UTF-8; they are written as in CSV.
        path = record["path"].encode("utf-8", "backslashreplace").decode("utf-8")
        task: dict[str, Any] = {"data": {"video": _served(record["path"], root), "fps": fps, "path": path}}
        parts = [part for part in spans(record) if answers(part)]
        if not parts:
            return _json(task | {"predictions": []})
        timeline_fps = fps if "segments" in record else None
        regions = [_region(f"span-{number}", part, timeline_fps, raw=raw) for number, part in enumerate(parts, 1)]
        prediction = {"model_version": record["model"], "result": regions}
        if not raw:
            prediction["score"] = sum(region["score"] for region in regions) / len(regions)
        return _json(task | {"predictions": [prediction]})

    return Style(render, start="[\n", between=",\n", end="\n]\n")


def _region(name: str, part: Record, timeline_fps: float | None, *, raw: bool) -> dict[str, Any]:
    """The top label of a span: a choice for the video as a whole, or a label for frames of its timeline."""
    label, score = part["predictions"][0]["label"], part["predictions"][0]["score"]
    if timeline_fps is None:
        kind, value = "choices", {"choices": [label]}
    else:
        # Frames are counted from 1, at this rate, as in the player. The range includes its last frame.
        first = 1 + round(part["start"] * timeline_fps)
        ranges = [{"start": first, "end": max(first, round(part["end"] * timeline_fps))}]
        kind, value = "timelinelabels", {"ranges": ranges, "timelinelabels": [label]}
    region = {"id": name, "from_name": "label", "to_name": "video", "type": kind, "value": value}
    return region if raw else region | {"score": score}


def _served(path: str, root: str) -> str:
    """The address at which Label Studio serves a video."""
    if is_address(path):
        return path
    file = Path(os.path.abspath(local_path(path)))
    if file.is_relative_to(root):
        file = file.relative_to(root)
    return f"/data/local-files/?d={quote(os.fsencode(file.as_posix()))}"


def fiftyone_style(labels: Sequence[str]) -> Style:
    """The labels of a FiftyOneTemporalDetectionDataset: the top label of each span; `labels` are all classes.

    Videos are keyed by their absolute path, so that it opens with

        fo.Dataset.from_dir(dataset_type=fo.types.FiftyOneTemporalDetectionDataset, labels_path="labels.json")

    FiftyOne opens only files. The key of an address is HOST/PATH without extension: download it to that place below
    some folder, as `wget -x` does, and give the folder as `data_path`. A failed video has no labels.
    """

    def render(record: Record) -> str:
        if record["status"] == "error":
            return ""
        whole = "segments" not in record and record["video"]["duration"] is None
        detections = [
            {"label": part["predictions"][0]["label"], "confidence": part["predictions"][0]["score"]}
            | ({"support": [1, record["video"]["frames"]]} if whole else {"timestamps": [part["start"], part["end"]]})
            for part in spans(record)
            if answers(part)
        ]
        return f"{_json(_fiftyone_key(record['path']))}: {_json(detections)}"

    return Style(render, f'{{"classes": {_json(list(labels))}, "labels": {{\n', between=",\n", end="\n}}\n")


def _fiftyone_key(path: str) -> str:
    if is_address(path):
        return os.path.normpath(os.path.splitext(path.partition("://")[2])[0])
    return os.path.abspath(local_path(path))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
