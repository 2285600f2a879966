"""Explanations as files for people and programs: the contact sheet, the video with heat, and arrays."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timesformer_cli.errors import UsageError
from timesformer_cli.flow import Frames, Item, Span, VideoInfo, Views
from timesformer_cli.jobs.explain import Explained
from timesformer_cli.jobs.explain.records import Explanation, Map
from timesformer_cli.jobs.explain.words import CAVEAT, TITLES, frames_sentence, map_sentence, meaning, percent, summary
from timesformer_cli.results.contact_sheet import draw
from timesformer_cli.results.overlay import Film, Look, tinted, write_film
from timesformer_cli.specs import Checkpoint, Reading
from timesformer_cli.video.reader import open_video


def sheet(explained: Explained, checkpoint: Checkpoint, look: Look) -> Image.Image:
    """The contact sheet of the explained view, with heat. Raises UsageError without a map, OutputError if too large."""
    explanation = explained.explanations[0]
    found = map_in(explanation, "png")
    weights = look.weights(found.values)
    patch = checkpoint.config.patch_hw
    box = (0.0, 0.0, float(patch[1] * weights.shape[2]), float(patch[0] * weights.shape[1]))

    def paint(_: int, place: int, shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return tinted(shown, weights[place], box, look.alpha)

    picture, _ = draw(_only(explained.views, explanation), checkpoint, _notes(explanation), paint=paint)
    return picture


def _only(views: Views, explanation: Explanation) -> Views:
    """The explained view."""
    number = explanation.number
    span = Span(views.span.start, views.span.end, np.array([explanation.view.frames], np.int64))
    return replace(views, span=span, labels=(explanation.view,), pixels=views.pixels[number : number + 1])


def _notes(explanation: Explanation) -> list[str]:
    found = map_in(explanation, "png")
    altered = "; ".join(
        f"{TITLES[each.name]} {percent(each.score)}: {meaning(each, explanation)}"
        for each in explanation.counterfactuals
    )
    against = "" if explanation.against is None else f" versus {explanation.against}"
    return [
        f"Why {explanation.label}{against}, {percent(explanation.score)}. {summary(explanation)}",
        f"Altered clips: {altered}.",
        f"Frames: {frames_sentence(explanation)}.",
        f"Map ({found.method}): {map_sentence(explanation)}. Orange speaks for the label, blue against it.",
        CAVEAT,
    ]


def film(path: Path, explained: Explained, look: Look, reading: Reading) -> None:
    """Write the video from the first to the last frame of the explained clip, with heat; frames are read again.

    Raises:
        UsageError: there is no map.
        VideoError: the video cannot be read any more.
        OSError: the file cannot be written.
    """
    explanation = explained.explanations[0]
    found = map_in(explanation, "mp4")
    against = "" if explanation.against is None else f" versus {explanation.against}"
    shown = Film(
        info=explanation.info,
        frames=explanation.view.frames,
        weights=look.weights(found.values),
        importance=explanation.frames.values,
        box=explanation.box,
        alpha=look.alpha,
        caption=f"{explanation.label}{against} {percent(explanation.score)}, map ({found.method}): {found.verdict}",
    )
    write_film(path, shown, _blocks(explanation.item, explanation.info, range(shown.first, shown.last + 1), reading))


def _blocks(item: Item, info: VideoInfo, numbers: range, reading: Reading) -> Iterator[Frames]:
    """Frames, as many at a time as memory allows."""
    most = max(reading.max_frame_bytes // (4 * info.width * info.height * 3), 1)
    with open_video(item, reading) as reader:
        for first in range(0, len(numbers), most):
            yield reader.read(list(numbers[first : first + most]))


def save_arrays(file: IO[bytes], explained: Explained) -> None:
    """Write the explanations as .npz, a row for each label that is explained.

    map     float32 (V, T, R, C): how much each patch speaks for the label; NaN without a map
    frames  int64 (V, T): frame numbers; times, float64 (V, T): seconds from the first frame
    importance  float64 (V, T): of the frames, in score
    box     float64 (V, 4): what the model saw of an upright frame: left, top, right, bottom in pixels
    label   text (V,); score float64 (V,)
    curves  float64 (V, F, 2, P): by fill, deletion and reverse; fills, text (F,)
    record  text: the explanations as JSON
    """
    rows = explained.explanations
    checks = [None if row.map is None else row.map.check for row in rows]
    fills = [] if checks[0] is None else list(checks[0].gap)
    curves = [[[check.deletion[fill], check.reverse[fill]] for fill in fills] for check in checks if check is not None]
    np.savez_compressed(
        file,
        map=np.stack(
            [
                np.full((len(row.view.frames), 1, 1), np.nan, np.float32) if row.map is None else row.map.values
                for row in rows
            ]
        ),
        frames=np.array([row.view.frames for row in rows], np.int64),
        times=np.stack([row.times for row in rows]),
        importance=np.stack([row.frames.values for row in rows]),
        box=np.array([row.box for row in rows], np.float64),
        label=np.array([row.label for row in rows]),
        score=np.array([row.score for row in rows], np.float64),
        curves=np.array(curves, np.float64),
        fills=np.array(fills, np.str_),
        record=np.array(json.dumps([row.to_dict() for row in rows])),
    )


def map_in(explanation: Explanation, ending: str) -> Map:
    """The map. Raises UsageError if there is none to draw in a file with this ending."""
    if explanation.map is None:
        raise no_map(ending)
    return explanation.map


def no_map(ending: str) -> UsageError:
    return UsageError(
        f"a .{ending} file shows a map, and an exported model gives no gradients; use `method=occlusion`, "
        "`method=ridge` or `method=shapley`"
    )
