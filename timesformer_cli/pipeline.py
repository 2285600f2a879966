"""The order of the stages: an item is read, prepared, scored, and becomes a result."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.aggregate import combine
from timesformer_cli.errors import CheckpointError, VideoError
from timesformer_cli.preprocess import crop_names, make_views
from timesformer_cli.records import (
    Failure,
    Frames,
    Item,
    Prediction,
    Result,
    ViewLabel,
    Views,
)
from timesformer_cli.runtime import Scorer
from timesformer_cli.sampling import plan
from timesformer_cli.specs import Checkpoint
from timesformer_cli.video import VideoReader, open_video

# Decoded frames of one video that are held at a time; a single clip may need more.
MAX_FRAME_BYTES = 2**30


def read_clips(reader: VideoReader, clips: NDArray[np.int64]) -> list[Frames]:
    """Decode the frames of `clips` (C, T): one `Frames` for each clip.

    Raises:
        VideoError: a frame cannot be had.
    """
    # Clips share frames when the video is short: each is decoded once, in order.
    wanted, positions = np.unique(clips, return_inverse=True)
    frames = reader.read(wanted.tolist())
    return [_pick(frames, clip) for clip in positions.reshape(clips.shape)]


def _pick(frames: Frames, positions: NDArray[np.intp]) -> Frames:
    # Consecutive positions, as in any clip that shares no frame, are taken without a copy.
    run = slice(int(positions[0]), int(positions[-1]) + 1)
    chosen = run if np.array_equal(positions, np.arange(run.start, run.stop)) else positions
    return Frames(frames.pixels[chosen], frames.times[chosen])


def prepare(item: Item, checkpoint: Checkpoint, decoder: str = "auto") -> Views:
    """Everything that happens to a video before the network sees it.

    Raises:
        VideoError: the video cannot be read.
    """
    with open_video(item.path, decoder) as reader:
        info = reader.info
        (window,) = plan(info, checkpoint.sampling)
        # Ten clips of a film in 4K would not fit into memory, so as many are read at a time as surely do.
        at_a_time = max(MAX_FRAME_BYTES // (window.clips.shape[1] * info.width * info.height * 3), 1)
        parts = [
            make_views(read_clips(reader, window.clips[start : start + at_a_time]), checkpoint.preprocess)
            for start in range(0, len(window.clips), at_a_time)
        ]
    crops = crop_names(info.width, info.height, checkpoint.preprocess)
    labels = tuple(
        ViewLabel(number, crop, tuple(frames)) for number, frames in enumerate(window.clips.tolist()) for crop in crops
    )
    return Views(item, info, window, labels, parts[0] if len(parts) == 1 else np.concatenate(parts))


def classify(
    items: Iterable[Item], scorer: Scorer, checkpoint: Checkpoint, *, decoder: str = "auto", batch: int = 1
) -> Iterator[Result]:
    """One result for each item, in order; the scorer sees at most `batch` views at a time.

    A video that cannot be read becomes a `Failure`; every other error ends the run.

    Raises:
        CheckpointError: the network's scores are not numbers.
    """
    for item in items:
        try:
            views = prepare(item, checkpoint, decoder)
        except VideoError as error:
            yield Failure(item, error.kind, str(error))
        except MemoryError:
            yield Failure(item, "too_large", "its frames do not fit into memory; try fewer --clips")
        else:
            yield score(views, scorer, checkpoint, batch=batch)


def score(views: Views, scorer: Scorer, checkpoint: Checkpoint, *, batch: int) -> Prediction:
    """The scores of one window from all its views.

    Raises:
        CheckpointError: the network's scores are not numbers.
    """
    parts = [scorer(views.pixels[start : start + batch]) for start in range(0, len(views.pixels), batch)]
    logits = np.concatenate(parts)
    if not np.isfinite(logits).all():
        raise CheckpointError(f"{checkpoint.name}: the network's scores are not numbers; are its weights damaged?")
    return Prediction(views.item, views.info, views.window, views.labels, combine(logits, checkpoint.combine))
