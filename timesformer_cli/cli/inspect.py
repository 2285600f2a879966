"""`timesformer inspect`: what a video contains, and which frames and pixels a model would see."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_cli.__about__ import DEFAULT_MODEL
from timesformer_cli.cli import console, streams
from timesformer_cli.cli.options import OUTPUT, Talk
from timesformer_cli.cli.options.bundle import bundled
from timesformer_cli.cli.options.inputs import Inputs
from timesformer_cli.cli.options.model import ModelName, Previewed
from timesformer_cli.cli.options.reading import ReadingOptions
from timesformer_cli.cli.options.run import Workers
from timesformer_cli.cli.options.views import ViewOptions
from timesformer_cli.errors import SOME_FAILED, InputError, UsageError
from timesformer_cli.text import plural, printable

if TYPE_CHECKING:
    from timesformer_cli.flow import Item, Views
    from timesformer_cli.jobs.inspect import Inspection
    from timesformer_cli.specs import Checkpoint

HELP = """Show what a video contains, and exactly which frames and pixels a model would see.

Up to three videos get a page each. More videos, folders and lists get one line per file: `ok`, or what is wrong. \
`ok` means that predict can label the file, because all frames that it needs were read. If the header of a file \
contradicts its content, this is shown as well. Models are not loaded or downloaded; only their recipes are looked up.

Exit codes: 0 all videos are ok; 1 none is ok, or the run failed; 2 wrong usage; 3 some are not ok; 130 stopped by \
Ctrl-C.
"""

# So many videos get a page each; if there are more, each gets a line.
_FEW = 3
_COLUMNS = 8  # of frame numbers on a page


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What is shown and written for each video."""

    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            metavar="OUT.png",
            help="Draw the frames of one video as the model sees them: cropped, with frame numbers and times.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    tensors: Annotated[
        Path | None,
        typer.Option(
            "--tensors",
            metavar="OUT.npz",
            help=(
                "Save the model input for one video: pixels, float32 (views, frames, channels, "
                "height, width), with frames, times, clip, crop, mean, std, channel_order and labels."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = None
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object per line for each video, with all details.", rich_help_panel=OUTPUT
        ),
    ] = False
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace OUT.png and OUT.npz if they exist.", rich_help_panel=OUTPUT),
    ] = False

    @property
    def targets(self) -> tuple[tuple[str, Path | None, str], ...]:
        """Option, file and required extension of each."""
        return ("--sheet", self.sheet, ".png"), ("--tensors", self.tensors, ".npz")

    def check(self) -> None:
        """Check, before any work is done, that the files can be written. Raises UsageError and OutputError."""
        from timesformer_cli.files import check_target

        for name, target, ending in self.targets:
            if target is None:
                continue
            if target.suffix.lower() != ending:
                raise UsageError(f"{name} {target}: the name must end in {ending}")
            check_target(target, overwrite=self.overwrite)

    def check_count(self, videos: int | None) -> None:
        """Raises UsageError if a file for one video is asked for, and there are more videos."""
        for name, target, _ in self.targets:
            if target is not None and videos != 1:
                raise UsageError(
                    f"{name} takes one video, and there are {'perhaps more' if videos is None else videos}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that is only described."""

    model: ModelName = DEFAULT_MODEL
    previewed: Previewed


@bundled
def inspect(
    *,
    inputs: Inputs,
    output: Output,
    model: Model,
    views: ViewOptions,
    reading: ReadingOptions,
    workers: Workers = None,
    talk: Talk,
) -> None:
    talk.choose()
    inputs.require("inspect")
    output.check()

    from timesformer_cli.jobs.inspect import examine_all
    from timesformer_cli.pipeline.run import RunOptions

    items, total, paged = _find(inputs, frames=reading.frames)
    output.check_count(total)
    checkpoint = model.previewed.preview(model.model, views)
    run = RunOptions(workers=workers, reading=reading.spec, limits=reading.limits)
    keep = bool(output.sheet or output.tensors)
    with examine_all(items, checkpoint.recipe, run, keep=keep, most=total) as inspections:
        written = _exported(inspections, checkpoint, output.sheet, output.tensors)
        _report(written, checkpoint, total, paged=paged, as_json=output.as_json)


def _find(inputs: Inputs, *, frames: bool) -> "tuple[Iterable[Item], int | None, bool]":
    """The videos, their number if it is known, and whether each gets a page."""
    from timesformer_cli.video.inputs import STDIN, find

    items = find(inputs.sources, inputs.lists, frames=frames)
    if STDIN in inputs.sources:
        return items, None, False
    found = list(items)
    named = {item.path for item in found}
    searched = bool(inputs.lists) or any(os.path.isdir(source) and source not in named for source in inputs.sources)
    return found, len(found), len(found) <= _FEW and not searched


def _exported(
    inspections: "Iterator[Inspection]", checkpoint: "Checkpoint", sheet: Path | None, tensors: Path | None
) -> "Iterator[Inspection]":
    """Yields each inspection, after writing the files of a video that could be read."""
    for inspection in inspections:
        views = inspection.views
        if views is not None and tensors is not None:
            _save_tensors(tensors, views, checkpoint)
        if views is not None and sheet is not None:
            _save_sheet(sheet, views, inspection, checkpoint)
        yield inspection


def _save_tensors(target: Path, views: "Views", checkpoint: "Checkpoint") -> None:
    from timesformer_cli.files import replacing
    from timesformer_cli.jobs.inspect import save_tensors

    with replacing(target) as part, part.open("wb") as file:
        save_tensors(file, views, checkpoint)
    console.note(f"{target}: {' x '.join(map(str, views.pixels.shape))} values")


def _save_sheet(target: Path, views: "Views", inspected: "Inspection", checkpoint: "Checkpoint") -> None:
    from timesformer_cli.files import replacing
    from timesformer_cli.jobs.inspect import notes
    from timesformer_cli.results.contact_sheet import draw

    picture, _ = draw(views, checkpoint, [_sentence(note) for note in notes(inspected)])
    with replacing(target) as part:
        picture.save(part, "png")
    console.note(f"{target}: {picture.width} x {picture.height} pixels")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _report(
    inspections: "Iterator[Inspection]", checkpoint: "Checkpoint", total: int | None, *, paged: bool, as_json: bool
) -> None:
    """Print each inspection, and end with the exit code for all.

    Raises:
        InputError: no video could be read.
    """
    from timesformer_cli.jobs.inspect import to_record

    count = 0
    reason = ""
    kinds: Counter[str] = Counter()
    with console.progress(total) as bar:
        for inspection in inspections:
            record = to_record(_in_words(inspection), checkpoint)
            count += 1
            if inspection.failure is not None:
                kinds[inspection.failure.kind] += 1
                reason = f"{inspection.item.path}: {inspection.failure.message}"
            with bar.step(failed=inspection.failure is not None):
                if as_json:
                    _print(json.dumps(record, ensure_ascii=False, allow_nan=False))
                elif paged:
                    _print(("\n" if count > 1 else "") + _page(record))
                else:
                    _print(_line(record))
    if count == 0:
        raise InputError("no video to inspect: the list of paths is empty")
    failed = kinds.total()
    if count > 1:
        console.note(f"{count} videos: {_counts(count - failed, kinds)}")
    if failed == count:
        raise InputError(reason if count == 1 else f"none of the {count} videos could be read")
    if failed:
        raise typer.Exit(SOME_FAILED)


def _in_words(inspection: "Inspection") -> "Inspection":
    """The inspection, with its failure in the words of the command line."""
    failure = inspection.failure
    if failure is None:
        return inspection
    return replace(inspection, failure=replace(failure, message=console.spoken(failure.message)))


def _counts(good: int, kinds: Counter[str]) -> str:
    """How many videos are ok, and how many are bad, by kind of error."""
    if not kinds:
        return f"{good} ok"
    each = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    return f"{good} ok, {kinds.total()} bad ({each})"


def _print(text: str) -> None:
    """Print a piece of the results. Raises OutputError if that is impossible."""
    from timesformer_cli.files import encoded

    streams.write([encoded(f"{text}\n")])


def _line(record: dict[str, Any]) -> str:
    path = printable(record["path"])
    if record["status"] == "error":
        return f"bad  {path}: {_error(record)}"
    return f"ok   {path}" + "".join(f"; {warning}" for warning in record["warnings"])


def _error(record: dict[str, Any]) -> str:
    return printable(f"{record['error']['kind']}: {record['error']['message']}")


def _page(record: dict[str, Any]) -> str:
    """A page for people: the file, the video in it, and what the model sees."""
    rows: list[tuple[str, str]] = []
    if record["file"] is not None:
        rows += _file_rows(record["file"], record.get("video"))
    elif "video" in record:
        rows += _image_folder_rows(record["video"])
    rows += [("warning", _sentence(warning)) for warning in record["warnings"]]
    if record["status"] == "error":
        rows.append(("error", _error(record)))
    else:
        rows += [("note", _sentence(note)) for note in record["notes"]]
        rows += [("", ""), *_model_rows(record)]
        for clip in record["clips"]:
            rows += _clip_rows(clip, record)
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:{width}}  {text}".rstrip() for name, text in rows]
    return "\n".join([printable(record["path"]), *lines])


def _file_rows(file: dict[str, Any], video: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    yield "file", f"{file['format_name']} ({file['format']}), {file['bytes']:,} bytes"
    for stream in file["video"]:
        if stream["read"]:
            yield "video", _described(stream)
            yield from _picture_rows(stream, file["picture"], video)
            yield from _time_rows(stream, file, video)
    for stream in file["video"]:
        if not stream["read"]:
            yield "image" if stream["cover"] else "not read", f"stream {stream['index']}, {_described(stream)}"
    if file["packets"] is not None:
        yield "key frames", _key_frames(file["packets"]["key_frames"])
        yield "B-frames", {True: "yes", False: "no", None: "perhaps"}[file["packets"]["b_frames"]]
    for stream in file["audio"]:
        yield "audio", _audio(stream)
    if not file["audio"]:
        yield "audio", "none"


def _described(stream: dict[str, Any]) -> str:
    parts = [stream["codec"], *filter(None, [stream["profile"] and f"({stream['profile']})"])]
    return ", ".join([" ".join(parts), *filter(None, [stream["pixel_format"]]), _size(stream)])


def _size(stream: dict[str, Any]) -> str:
    return f"{stream['width']} x {stream['height']}"


def _picture_rows(
    stream: dict[str, Any], picture: dict[str, Any] | None, video: dict[str, Any] | None
) -> Iterator[tuple[str, str]]:
    if picture is not None:
        turned = f"turned by {picture['rotation']} degrees clockwise" if picture["rotation"] else ""
        mirrored = "mirrored left to right" if picture["mirrored"] else ""
        turns = " and ".join(filter(None, [turned, mirrored]))
        how = ", ".join(filter(None, [_cropped(stream["cropping"]), turns])) or "as stored"
        size = _size(video) if video else _cropped_size(stream)
        yield "shown", f"{size}, {how}, {'interlaced' if picture['interlaced'] else 'progressive'}"
    if stream["pixel_aspect"] is not None:
        yield "pixels", "square" if stream["pixel_aspect"] == "1:1" else f"{stream['pixel_aspect']}, width to height"


def _cropped_size(stream: dict[str, Any]) -> str:
    edges = stream["cropping"] or dict.fromkeys(("left", "right", "top", "bottom"), 0)
    width, height = edges["left"] + edges["right"], edges["top"] + edges["bottom"]
    return f"{stream['width'] - width} x {stream['height'] - height}"


def _cropped(cropping: dict[str, int] | None) -> str:
    """The edges that the container leaves out of the stored frames."""
    if cropping is None:
        return ""
    edges = [f"{cropping[edge]} at the {edge}" for edge in ("top", "bottom", "left", "right") if cropping[edge]]
    return f"cropped by the container ({', '.join(edges)})"


def _time_rows(stream: dict[str, Any], file: dict[str, Any], video: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    seconds = stream["duration"]
    if seconds is None and file["duration"] is not None:  # counted from the earliest stream
        seconds = file["duration"] - (0 if video is None else video["start"] or 0)
    if video is None:
        if stream["frames"] is not None:
            yield "claims", plural(stream["frames"], "frame")
        if seconds is not None:
            yield "claims", f"{seconds:.2f} s"
        return
    yield "frames", f"{video['frames']:,}" + _claim(f"{video['frames']:,}", stream["frames"], ",")
    duration = f"{video['duration']:.2f} s"
    yield "duration", duration + _claim(duration, seconds, ".2f", " s")
    if file["start"] or video["start"]:
        clock = f", which starts at {file['start']:.2f} s" if file["start"] else ""
        yield "start", f"{video['start'] or 0:.2f} s after the earliest stream of the file{clock}"
    yield "rate", _rate(video)


def _claim(true: str, claimed: float | None, form: str, unit: str = "") -> str:
    if claimed is None:
        return "; the file states none"
    text = f"{claimed:{form}}{unit}"
    return ", as the file states" if text == true else f"; the file states {text}"


def _rate(video: dict[str, Any]) -> str:
    if not video["variable_rate"]:
        return f"{video['fps']:.4g} frames per second, constant"
    apart = video["frame_spacing"]
    return (
        f"{video['fps']:.4g} frames per second on average, variable: "
        f"{apart['smallest']:.3f} to {apart['largest']:.3f} s apart"
    )


def _key_frames(keys: dict[str, Any]) -> str:
    if keys["smallest"] is None:
        return f"{keys['count']}"
    if keys["smallest"] == keys["largest"]:
        return f"{keys['count']}, {plural(keys['smallest'], 'frame')} apart"
    return f"{keys['count']}, {keys['smallest']} to {keys['largest']} frames apart, median {keys['median']:g}"


def _audio(stream: dict[str, Any]) -> str:
    rate = f"{stream['sample_rate']} Hz" if stream["sample_rate"] else ""
    channels = plural(stream["channels"], "channel") if stream["channels"] else ""
    return ", ".join(filter(None, [stream["codec"], rate, channels, stream["language"]]))


def _image_folder_rows(video: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of a folder of images, which has no container."""
    yield "video", f"{video['codec']}, {_size(video)}"
    yield "frames", f"{video['frames']:,}"
    yield "duration", f"{video['duration']:.2f} s"
    yield "rate", _rate(video)


def _model_rows(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    sampling, preprocess = record["sampling"], record["preprocess"]
    yield "model", record["model"]
    yield "recipe", record["recipe"]
    yield "clips", f"{len(record['clips'])} of {plural(sampling['num_frames'], 'frame')}, {_method(sampling)}"
    names = list(dict.fromkeys(view["crop"] for view in record["views"]))
    size = preprocess["stretch"]
    scaled = f"{size[1]} x {size[0]}" if size else f"a short side of {preprocess['short_side']}"
    yield "crops", f"{', '.join(names)}, of frames scaled to {scaled}; {preprocess['channel_order']}"
    views, frames, channels, height, width = record["input"]
    yield (
        "input",
        f"{plural(views, 'view')} of {plural(frames, 'frame')}, {plural(channels, 'channel')}, {height} x {width}",
    )


def _method(sampling: dict[str, Any]) -> str:
    rate = "" if sampling["fps"] is None else f" at {sampling['fps']:g} per second"
    match sampling["method"]:
        case "segments":
            return f"one from each of as many equal parts{rate and f' of the video{rate}'}"
        case "uniform":
            return "spread over the video"
        case "strided":
            return f"{sampling['stride']:g} apart{rate}"
        case _:
            return f"spread over {sampling['num_frames'] * sampling['stride']:g} frames{rate}"


def _clip_rows(clip: dict[str, Any], record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    text = f"{clip['start']:.2f} to {clip['end']:.2f} s"
    late = record["video"]["start"] or 0
    if late:
        text += f" ({late + clip['start']:.2f} to {late + clip['end']:.2f} s of the file)"
    if clip["stride"] is not None:
        text += f", {clip['stride']:g} frames or {clip['stride_seconds']:g} s apart"
    yield f"clip {clip['clip']}", text
    numbers = [str(number) for number in clip["frames"]]
    times = [f"{time:.2f}" for time in clip["times"]]
    width = max(map(len, [*numbers, *times]))
    for start in range(0, len(numbers), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        yield "  frame", "  ".join(f"{number:>{width}}" for number in numbers[part])
        yield "  second", "  ".join(f"{time:>{width}}" for time in times[part])
    if clip["repeated"]:
        yield "  repeated", _repeated(clip["frames"], record["video"]["frames"], record["sampling"])


def _repeated(frames: list[int], count: int, sampling: dict[str, Any]) -> str:
    repeated = {number: times for number, times in Counter(frames).items() if times > 1}
    if list(repeated) == [count - 1] and sampling["overrun"] == "repeat":
        return f"frame {count - 1}, the last, fills {repeated[count - 1]} of {len(frames)} places"
    shown = [f"frame {number} {times} times" for number, times in repeated.items()]
    return ", ".join([*shown[:_COLUMNS], *(["..."] if len(shown) > _COLUMNS else [])])
