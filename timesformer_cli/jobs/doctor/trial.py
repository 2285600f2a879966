"""A run from end to end: the bundled model labels a small clip, read by a worker process."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

from timesformer_cli.jobs.doctor.findings import REPORT, Check, Finding

# What the bundled model says of the clip that is made here, and of the bundled one.
_MADE, _BUNDLED = "pan right", "tilt up"

_REMEDY = f"the lines above may say why; otherwise {REPORT}"

# Of the clip that is made: width and height of a frame, number of frames, and pixels of a square of its pattern.
_WIDTH, _HEIGHT, _FRAMES, _SQUARE = 128, 96, 32, 8


def checks() -> Iterator[Check]:
    yield Check(group="trial", name="label_a_clip", find=label_a_clip, remedy=_REMEDY, apart=True)


def label_a_clip() -> list[Finding]:
    """Label the clip on the best device. Raises as `score_all`."""
    from timesformer_cli.bundled import CAMERA_MOTION
    from timesformer_cli.checkpoints.resolve import resolve
    from timesformer_cli.flow import Failure, Item
    from timesformer_cli.pipeline.engine import score_all
    from timesformer_cli.pipeline.run import RunOptions
    from timesformer_cli.pipeline.score import label
    from timesformer_cli.runtimes.devices import find_device

    begin = time.perf_counter()
    checkpoint = resolve(str(CAMERA_MOTION), offline=True)
    device = find_device("auto").type
    with _clip() as (path, expected), score_all([Item(str(path))], checkpoint, RunOptions(workers=1)) as scored:
        (result,) = label(scored, checkpoint)
    seconds = time.perf_counter() - begin
    facts: dict[str, object] = {"device": device, "seconds": round(seconds, 3)}
    if isinstance(result, Failure):
        message, _, remedy = result.message.partition("; ")
        return [_problem(f"the clip cannot be read: {message}", remedy, facts)]
    (best,) = result.top(1)
    facts |= {"label": best.label, "score": round(best.score, 4)}
    if best.label != expected:
        remedy = "compare with `device=cpu`; if only the device is wrong, update its driver and PyTorch"
        return [_problem(f"labelled {best.label!r} on {device}, but it shows {expected!r}", remedy, facts)]
    message = (
        f"labelled {best.label!r} ({100 * best.score:.1f} %) on {device} in {seconds:.1f} s, read by a worker process"
    )
    return [Finding(group="trial", name="label_a_clip", message=message, facts=facts)]


def _problem(message: str, remedy: str, facts: dict[str, object]) -> Finding:
    return Finding(
        group="trial", name="label_a_clip", status="problem", message=message, remedy=remedy or _REMEDY, facts=facts
    )


@contextmanager
def _clip() -> Iterator[tuple[Path, str]]:
    """A clip, and what it shows: made for this, or the bundled one if no folder for temporary files takes it."""
    from timesformer_cli.bundled import CLIP

    try:
        folder = tempfile.TemporaryDirectory()
    except OSError:
        yield CLIP, _BUNDLED
        return
    with folder as name:
        path = Path(name) / "clip.mp4"
        try:
            write_clip(path)
            made = (path, _MADE)
        except OSError:
            made = (CLIP, _BUNDLED)
        yield made


def write_clip(path: Path) -> None:
    """A second of squares that move to the left, 4 kB of MPEG-4. Raises OSError."""
    import av
    import numpy as np

    shape = (_HEIGHT // _SQUARE, (_WIDTH + _FRAMES) // _SQUARE)
    squares = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pattern = np.kron(squares, np.ones((_SQUARE, _SQUARE), np.uint8))
    with av.open(os.fspath(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for number in range(_FRAMES):
            view = np.ascontiguousarray(pattern[:, number : number + _WIDTH])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="gray")))
        container.mux(stream.encode())
