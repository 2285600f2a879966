"""`timesformer inspect`: what a video is, and which frames and pixels a model would see of it."""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_cli.cli import console, options
from timesformer_cli.cli.wording import spoken_failure
from timesformer_cli.errors import SOME_FAILED, InputError, OutputError, UsageError
from timesformer_cli.text import printable

if TYPE_CHECKING:
    from timesformer_cli.flow import Item, Views
    from timesformer_cli.jobs.inspect import Inspection
    from timesformer_cli.specs import Checkpoint

HELP = """Show what a video is, and exactly which frames and pixels a model would see of it.

Up to three videos get a page each. More of them, folders and lists get one line for each file, `ok` or what is \
wrong with it: ok means that predict can label it, for the frames that it needs were read. Where a file is not what \
it says of itself, that is said as well. Models are not loaded or downloaded: only how they are fed is looked up.

Exit codes: 0 all are ok; 1 none is, or the run could not be done; 2 wrong usage; 3 some are not; 130 stopped by Ctrl-C.
"""

# Videos that get a page each; more get a line.
_FEW = 3
_COLUMNS = 8  # of frame numbers in a page


def inspect(
    inputs: options.Inputs = None,
    from_file: options.FromFile = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            metavar="OUT.png",
            help="Draw the frames of one video as the model sees them: cropped, with their numbers and times.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    tensors: Annotated[
        Path | None,
        typer.Option(
            "--tensors",
            metavar="OUT.npz",
            help=(
                "Write the array that enters the model for one video: pixels, float32 (views, frames, channels, "
                "height, width), with frames, times, clip, crop, mean, std, channel_order and labels."
            ),
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="One JSON object a line for each video, with all details.", rich_help_panel=options.OUTPUT
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace OUT.png and OUT.npz if they exist.", rich_help_panel=options.OUTPUT),
    ] = False,
    model: options.Model = options.DEFAULT_MODEL,
    revision: options.Revision = None,
    weights: options.Weights = None,
    config: options.Config = None,
    labels: options.Labels = None,
    recipe: options.Recipe = None,
    clips: options.Clips = None,
    crops: options.Crops = None,
    num_frames: options.NumFrames = None,
    stride: options.Stride = None,
    fps: options.Fps = None,
    placement: options.Placement = None,
    settings: options.Set = None,
    frames: options.Frames = False,
    frame_rate: options.FrameRate = 30.0,
    decoder: options.Decoder = "auto",
    timeout: options.Timeout = 60.0,
    max_pixels: options.MaxPixels = 2**26,
    max_frames: options.MaxFrames = 2_000_000,
    workers: options.Workers = None,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
) -> None:
    console.choose_level(verbose=verbose, quiet=quiet)
    if not inputs and from_file is None:
        raise UsageError("nothing to inspect: name videos, folders or --from-file; see timesformer inspect --help")
    _check_target("--sheet", sheet, ".png", overwrite=overwrite)
    _check_target("--tensors", tensors, ".npz", overwrite=overwrite)

    from timesformer_cli.checkpoints.recipes import with_overrides
    from timesformer_cli.checkpoints.resolve import preview
    from timesformer_cli.jobs.inspect import examine_all
    from timesformer_cli.pipeline.workers import Limits
    from timesformer_cli.specs import Reading

    items, total, paged = _find(inputs or [], from_file, frames=frames)
    for name, target in (("--sheet", sheet), ("--tensors", tensors)):
        if target is not None and total != 1:
            raise UsageError(f"{name} takes one video, and there are {'perhaps more' if total is None else total}")
    changes = options.recipe_changes(
        settings, clips=clips, crops=crops, num_frames=num_frames, stride=stride, fps=fps, placement=placement
    )
    checkpoint = preview(model, revision=revision, weights=weights, config=config, labels_file=labels)
    checkpoint = with_overrides(checkpoint, recipe=recipe, fields=changes)
    reading = Reading(decoder=decoder, max_pixels=max_pixels, max_frames=max_frames, frame_rate=frame_rate)
    count = options.worker_count(workers)
    if total is not None:
        count = min(count, total)
    with examine_all(
        items,
        checkpoint,
        reading,
        keep=bool(sheet or tensors),
        workers=count,
        limits=Limits(timeout=timeout),
    ) as inspections:
        _report(_exported(inspections, checkpoint, sheet, tensors), checkpoint, total, paged=paged, as_json=as_json)


def _check_target(name: str, target: Path | None, ending: str, *, overwrite: bool) -> None:
    from timesformer_cli.files import check_target

    if target is None:
        return
    if target.suffix.lower() != ending:
        raise UsageError(f"{name} {target}: the name must end in {ending}")
    check_target(target, overwrite=overwrite)


def _find(sources: list[str], from_file: Path | None, *, frames: bool) -> "tuple[Iterable[Item], int | None, bool]":
    """The videos, their number if it is known, and whether each gets a page."""
    from timesformer_cli.video.inputs import STDIN, find

    items = find(sources, [] if from_file is None else [from_file], frames=frames)
    if STDIN in sources:
        return items, None, False
    found = list(items)
    named = {item.path for item in found}
    searched = from_file is not None or any(os.path.isdir(source) and source not in named for source in sources)
    return found, len(found), len(found) <= _FEW and not searched


def _exported(
    inspections: "Iterator[Inspection]", checkpoint: "Checkpoint", sheet: Path | None, tensors: Path | None
) -> "Iterator[Inspection]":
    """The same, with the files of those that could be read written."""
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
    console.note(f"{target}: {' x '.join(map(str, views.pixels.shape))} numbers")


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
    """Print what comes, and end with the exit code that it calls for.

    Raises:
        InputError: no video could be read.
    """
    from timesformer_cli.jobs.inspect import to_record

    count = 0
    reason = ""
    kinds: Counter[str] = Counter()
    with console.progress(total) as bar:
        for inspection in map(_spoken, inspections):
            record = to_record(inspection, checkpoint)
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


def _spoken(inspection: "Inspection") -> "Inspection":
    failure = inspection.failure
    return inspection if failure is None else replace(inspection, failure=spoken_failure(failure))


def _counts(good: int, kinds: Counter[str]) -> str:
    """How many are ok, and how many are not, by what is wrong."""
    if not kinds:
        return f"{good} ok"
    each = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    return f"{good} ok, {kinds.total()} bad ({each})"


def _print(text: str) -> None:
    """Print a piece of the results as UTF-8, whatever the locale says.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        # In JSON, the backslash escape of a byte that is no UTF-8 reads back as that very byte.
        sys.stdout.buffer.write(f"{text}\n".encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error.strerror})") from error


def _line(record: dict[str, Any]) -> str:
    path = printable(record["path"])
    if record["status"] == "error":
        return f"bad  {path}: {_error(record)}"
    return f"ok   {path}" + "".join(f"; {warning}" for warning in record["warnings"])


def _error(record: dict[str, Any]) -> str:
    return printable(f"{record['error']['kind']}: {record['error']['message']}")


def _page(record: dict[str, Any]) -> str:
    """Everything for people: the file, the video in it, and what the model sees."""
    rows: list[tuple[str, str]] = []
    if record["file"] is not None:
        rows += _file_rows(record["file"], record.get("video"))
    elif "video" in record:
        rows += _pictures_rows(record["video"])
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
            yield "cover" if stream["cover"] else "not read", f"stream {stream['index']}, {_described(stream)}"
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
        how = " and ".join(filter(None, [turned, mirrored])) or "as stored"
        yield "shown", f"{_size(video or stream)}, {how}, {'interlaced' if picture['interlaced'] else 'progressive'}"
    if stream["pixel_aspect"] is not None:
        yield "pixels", "square" if stream["pixel_aspect"] == "1:1" else f"{stream['pixel_aspect']}, width to height"


def _time_rows(stream: dict[str, Any], file: dict[str, Any], video: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    seconds = stream["duration"] if stream["duration"] is not None else file["duration"]
    if video is None:
        if stream["frames"] is not None:
            yield "claims", _plural(stream["frames"], "frame")
        if seconds is not None:
            yield "claims", f"{seconds:.2f} s"
        return
    yield "frames", f"{video['frames']:,}" + _claim(f"{video['frames']:,}", stream["frames"], ",")
    start = f", from {file['start']:.2f} s on" if file["start"] else ""
    duration = f"{video['duration']:.2f} s"
    yield "duration", duration + start + _claim(duration, seconds, ".2f", " s")
    yield "rate", _rate(video)


def _claim(true: str, claimed: float | None, form: str, unit: str = "") -> str:
    if claimed is None:
        return "; the file does not say"
    text = f"{claimed:{form}}{unit}"
    return ", as the file says" if text == true else f"; the file says {text}"


def _rate(video: dict[str, Any]) -> str:
    if not video["variable_rate"]:
        return f"{video['fps']:.4g} frames a second, constant"
    apart = video["frame_spacing"]
    return (
        f"{video['fps']:.4g} frames a second on average, variable: "
        f"{apart['smallest']:.3f} to {apart['largest']:.3f} s apart"
    )


def _key_frames(keys: dict[str, Any]) -> str:
    if keys["smallest"] is None:
        return f"{keys['count']}"
    if keys["smallest"] == keys["largest"]:
        return f"{keys['count']}, {_plural(keys['smallest'], 'frame')} apart"
    return f"{keys['count']}, {keys['smallest']} to {keys['largest']} frames apart, median {keys['median']:g}"


def _audio(stream: dict[str, Any]) -> str:
    rate = f"{stream['sample_rate']} Hz" if stream["sample_rate"] else ""
    channels = _plural(stream["channels"], "channel") if stream["channels"] else ""
    return ", ".join(filter(None, [stream["codec"], rate, channels, stream["language"]]))


def _pictures_rows(video: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Of a folder of pictures, which has no container."""
    yield "video", f"{video['codec']}, {_size(video)}"
    yield "frames", f"{video['frames']:,}"
    yield "duration", f"{video['duration']:.2f} s"
    yield "rate", _rate(video)


def _model_rows(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    sampling, preprocess = record["sampling"], record["preprocess"]
    yield "model", record["model"]
    yield "recipe", record["recipe"]
    yield "clips", f"{len(record['clips'])} of {_plural(sampling['num_frames'], 'frame')}, {_method(sampling)}"
    names = list(dict.fromkeys(view["crop"] for view in record["views"]))
    size = preprocess["stretch"]
    scaled = f"{size[1]} x {size[0]}" if size else f"a short side of {preprocess['short_side']}"
    yield "crops", f"{', '.join(names)}, of frames scaled to {scaled}; {preprocess['channel_order']}"
    views, frames, channels, height, width = record["input"]
    yield (
        "input",
        f"{_plural(views, 'view')} of {_plural(frames, 'frame')}, {_plural(channels, 'channel')}, {height} x {width}",
    )


def _method(sampling: dict[str, Any]) -> str:
    rate = "" if sampling["fps"] is None else f" at {sampling['fps']:g} a second"
    match sampling["method"]:
        case "segments":
            return f"one from each of as many parts{rate and f' of the video{rate}'}"
        case "uniform":
            return "spread over the video"
        case "strided":
            return f"{sampling['stride']:g} apart{rate}"
        case _:
            return f"spread over {sampling['num_frames'] * sampling['stride']:g} frames{rate}"


def _clip_rows(clip: dict[str, Any], record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    text = f"{clip['start']:.2f} to {clip['end']:.2f} s"
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
        return f"frame {count - 1}, the last, fills {repeated[count - 1]} places of {len(frames)}"
    shown = [f"frame {number} {times} times" for number, times in repeated.items()]
    return ", ".join([*shown[:_COLUMNS], *(["..."] if len(shown) > _COLUMNS else [])])


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
