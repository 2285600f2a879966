"""Reading frames: speed against other readers, exactness against ffmpeg, and which decoder reads what.

    python -m benchmarks.decode [--rounds 7] [--footage CLIP ...]
    python -m benchmarks.decode --exactness FOLDER --ffmpeg PATH

The first makes its own H.264 clips: ten minutes of 1280 x 720 with a key frame every 250 frames (a thousand frames
of footage, encoded once and repeated), and ten seconds of 340 x 256 with one every 250 and every 12. The readers run
in alternation, each in a separate process that opens the file anew, and ratios are taken within a round. CPU time is
that of all threads. The second compares eight frames, spread over each video of a folder, with those of an ffmpeg, and
reads them with the other decoders too.
"""

import argparse
import functools
import itertools
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Item
from timesformer_cli.runtimes.devices import available_cores
from timesformer_cli.specs import Reading
from timesformer_cli.video.decoders.packets import choose_stream, open_container
from timesformer_cli.video.decoders.pyav import PyavReader
from timesformer_cli.video.decoders.rgb import Converter
from timesformer_cli.video.reader import open_video

Pixels = NDArray[np.uint8]
Read = Callable[[str, list[int]], Pixels]

SAMPLES = Path(__file__).parents[1] / "sample_videos"
RATE = 30


# ---- Clips


def footage(clips: list[Path], width: int, height: int, count: int) -> Iterator[av.VideoFrame]:
    """`count` frames of the clips one after another, again from the first when they end."""

    def endless() -> Iterator[av.VideoFrame]:
        for clip in itertools.cycle(clips):
            with av.open(str(clip)) as container:
                for frame in container.decode(video=0):
                    yield frame.reformat(width, height, "yuv420p")

    for number, frame in enumerate(itertools.islice(endless(), count)):
        frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, RATE), 0
        yield frame


def encode(path: Path, frames: Iterator[av.VideoFrame], *, keys: int, preset: str, repeat: int = 1) -> Path:
    """Write H.264 with a key frame every `keys` frames; `repeat` writes the same packets again and again."""
    options = {"preset": preset, "g": str(keys), "keyint_min": str(keys), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options)
        first = next(frames)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        packets = [packet for frame in itertools.chain([first], frames) for packet in stream.encode(frame)]
        packets += stream.encode()
        for turn in range(repeat):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                shift = turn * len(packets)
                copy.pts, copy.dts, copy.time_base = packet.pts + shift, packet.dts + shift, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                container.mux(copy)
    return path


# ---- Readers


def ours(path: str, plan: list[int], threads: int = 1) -> Pixels:
    reader = PyavReader(path, Reading(threads=threads))
    pixels = reader.read(plan).pixels
    reader.close()
    return pixels


def ours_alone(path: str, plan: list[int]) -> Pixels:
    """Our reader for the only video of a run."""
    return ours(path, plan, available_cores())


def opening(path: str, plan: list[int]) -> Pixels:
    PyavReader(path).close()
    return np.empty(0, np.uint8)


def pipeline(path: str, plan: list[int]) -> Pixels:
    from transformers.pipelines.video_classification import read_video_pyav

    with av.open(path) as container:
        return read_video_pyav(container, plan)  # type: ignore[no-any-return]


def pipeline_one_thread(path: str, plan: list[int]) -> Pixels:
    from transformers.pipelines.video_classification import read_video_pyav

    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return read_video_pyav(container, plan)  # type: ignore[no-any-return]


def decord(path: str, plan: list[int]) -> Pixels:
    import decord

    return decord.VideoReader(path, num_threads=1).get_batch(plan).asnumpy()  # type: ignore[no-any-return]


def torchcodec(path: str, plan: list[int]) -> Pixels:
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(path, dimension_order="NHWC").get_frames_at(plan).data.numpy()  # type: ignore[no-any-return]


def least(path: str, plan: list[int]) -> Pixels:
    """The least work: time stamps tell where to jump and which frames to take, so nothing is searched for."""
    pictures, converter = [], Converter()
    with av.open(path) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        context.thread_count = 1
        for start, wanted in groups_of(path, tuple(plan)):
            container.seek(start, stream=stream)
            left = set(wanted)
            for packet in container.demux(stream):
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                found = context.decode(packet)
                left.discard(packet.pts or 0)
                if not left:
                    found += context.decode(None)
                for frame in found:
                    if frame.pts in wanted:
                        pictures.append(converter.rgb(frame, frame.width, frame.height).copy())
                if not left:
                    break
    return np.stack(pictures)


@functools.cache
def groups_of(path: str, plan: tuple[int, ...]) -> list[tuple[int, set[int]]]:
    with av.open(path) as container:
        packets = [(packet.pts or 0, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    shown, keys = sorted(pts for pts, _ in packets), sorted(pts for pts, key in packets if key)
    key_of = {number: max(key for key in keys if key <= shown[number]) for number in plan}
    grouped = itertools.groupby(plan, key=lambda number: key_of[number])
    return [(start, {shown[number] for number in numbers}) for start, numbers in grouped]


# ---- Speed

READERS: dict[str, Read] = {
    "timesformer": ours,
    "the same, the run's only video": ours_alone,
    "the same, only opening": opening,
    "transformers' pipeline": pipeline,
    "the same, one thread": pipeline_one_thread,
    "least possible": least,
    "decord": decord,
    "torchcodec": torchcodec,
}


class Turn(NamedTuple):
    """The seconds that one reading took, and a sum of its pixels."""

    wall: float
    cpu: float
    sum: int


def serve(connection: Any, who: str) -> None:
    """Read on request, in a separate process: threads of other readers are not counted."""
    while request := connection.recv():
        path, plan = request
        try:
            wall, cpu = time.perf_counter(), time.process_time()
            pixels = READERS[who](path, plan)
            wall = time.perf_counter() - wall
        except (ImportError, OSError, RuntimeError) as error:
            connection.send(str(error).splitlines()[0])
            continue
        time.sleep(0.05)  # until its threads are idle
        connection.send(Turn(wall, time.process_time() - cpu, zlib.crc32(pixels)))


def compare(title: str, path: Path, plan: list[int], rounds: int) -> None:
    """Print one table; the first two rounds warm up and are not counted."""
    context = multiprocessing.get_context("spawn")
    lines = {}
    for who in READERS:
        lines[who], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, who), daemon=True).start()
    turns: dict[str, list[Turn]] = {who: [] for who in READERS}
    for _ in range(rounds + 2):
        for who in list(turns):
            lines[who].send((str(path), plan))
            answer = lines[who].recv()
            if isinstance(answer, str):
                print(f"{who} left out: {answer}", file=sys.stderr)
                del turns[who]
            else:
                turns[who].append(answer)
    for line in lines.values():
        line.send(None)
    print(f"\n{title}\n\n| reader | seconds | CPU seconds | of ours | CPU, of ours |\n|{' --- |' * 5}")
    own = turns["timesformer"]
    for who, measured in turns.items():
        if who != "the same, only opening" and measured[0].sum != own[0].sum:
            sys.exit(f"{who} reads other frames")
        cells = [f"{statistics.median(turn[kind] for turn in measured[2:]):.4f}" for kind in range(2)]
        if measured is not own:
            cells += [
                spread([a[kind] / b[kind] for a, b in zip(measured[2:], own[2:], strict=True)]) for kind in range(2)
            ]
        print(f"| {who} | {' | '.join([*cells, '1', '1'][:4])} |", flush=True)


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"


def speed(clips: list[Path], rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for keys in (250, 12):
            frames = footage(clips, 340, 256, 10 * RATE)
            path = encode(Path(folder) / f"{keys}.mp4", frames, keys=keys, preset="medium")
            title = f"10 seconds, 340 x 256, {path.stat().st_size:,} bytes, a key frame every {keys} frames"
            for what, last in (("over the clip", 10 * RATE - 1), ("over the first 256 frames (8x32)", 255)):
                compare(f"{title}: 8 frames {what}", path, spread_over(last, 8), 3 * rounds)
        frames = footage(clips, 1280, 720, 1000)
        path = encode(Path(folder) / "long.mp4", frames, keys=250, preset="veryfast", repeat=18)
        title = f"10 minutes, 1280 x 720, {path.stat().st_size:,} bytes, a key frame every 250 frames"
        compare(f"{title}: 8 frames over the clip", path, spread_over(17_999, 8), rounds)


def spread_over(last: int, count: int) -> list[int]:
    return sorted(set(np.linspace(0, last, count).astype(int).tolist()))


# ---- Exactness


def exactness(folder: Path, ffmpegs: list[str]) -> None:
    print(
        "| file | container, codec, pixels | frames | PSNR against ffmpeg, dB | decord | torchcodec |\n|" + " --- |" * 6
    )
    kinds: Counter[tuple[str, ...]] = Counter()
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".json"):
        line = row(path, ffmpegs)
        print(line, flush=True)
        _, _, kind, _, *found, _ = (cell.strip() for cell in line.split("|"))
        if kind:
            kinds[kind, *found] += 1
    print("\n| container, codec, pixels | files | PyAV against ffmpeg | decord | torchcodec |\n|" + " --- |" * 5)
    for (kind, *found), count in sorted(kinds.items()):
        print(f"| {kind} | {count} | {' | '.join(found)} |")


def row(path: Path, ffmpegs: list[str]) -> str:
    try:
        with open_video(Item(str(path))) as reader:
            plan = spread_over(reader.info.num_frames - 1, 8)
            info, pixels = reader.info, reader.read(plan).pixels
    except VideoError as error:
        return f"| {path.name} | | | `{error.kind}`: {error} | | |"
    with open_container(str(path), Reading()) as container:
        stream = choose_stream(container, str(path))
        number, layout = stream.index, stream.codec_context.format
        deep = layout is not None and layout.components[0].bits > 8
        kind = f"{container.format.name.split(',')[0]}, {info.codec}, {layout.name if layout else '?'}"
    asked = (ffmpeg_frames(ffmpeg, path, number, plan, (info.height, info.width), deep=deep) for ffmpeg in ffmpegs)
    expected = next((frames for frames in asked if len(frames)), pixels[:0])
    others = [other(path, decoder, plan, pixels) for decoder in ("decord", "torchcodec")]
    return f"| {path.name} | {kind} | {info.num_frames} | {psnr(pixels, expected)} | {' | '.join(others)} |"


def ffmpeg_frames(
    ffmpeg: str, path: Path, stream: int, plan: list[int], size: tuple[int, int], *, deep: bool
) -> Pixels:
    """The frames of these numbers from ffmpeg, as many as it has."""
    chosen = "+".join(f"eq(n,{number})" for number in plan)
    # Above 8 bits its defaults are several levels off the formula.
    flags = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp" if deep else "bicubic"
    filters = f"select='{chosen}',scale={size[1]}:{size[0]}:flags={flags},format=rgb24"
    command = [
        ffmpeg,
        "-nostdin",
        "-strict",
        "experimental",
        "-reinit_filter",
        "0",
        "-i",
        f"file:{path.resolve()}",
        "-map",
        f"0:{stream}",
        "-vf",
        filters,
    ]
    command += ["-fps_mode", "passthrough", "-frames:v", str(len(plan)), "-f", "rawvideo", "-"]
    data = subprocess.run(command, capture_output=True, check=False).stdout
    whole = len(data) // (size[0] * size[1] * 3)
    return np.frombuffer(data, np.uint8, whole * size[0] * size[1] * 3).reshape(whole, *size, 3)


def psnr(shown: Pixels, expected: Pixels) -> str:
    errors = [float(np.mean((a.astype(np.float64) - b) ** 2)) for a, b in zip(shown, expected, strict=False)]
    worst = max(errors, default=0)
    result = "equal" if worst == 0 else f"{10 * np.log10(255**2 / worst):.0f} dB"
    return result if len(shown) == len(expected) else f"{result}; there are {len(expected)} of {len(shown)}"


def other(path: Path, decoder: Any, plan: list[int], pixels: Pixels) -> str:
    try:
        with open_video(Item(str(path)), Reading(decoder=decoder)) as reader:
            shown = reader.read(plan).pixels
    except VideoError as error:
        return re.sub(f"^{decoder} |; try `decoder=pyav`$", "", str(error))
    return "equal" if np.array_equal(shown, pixels) else psnr(shown, pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--footage", nargs="+", type=Path, help="clips to make the measured ones from")
    parser.add_argument("--exactness", type=Path, metavar="FOLDER")
    parser.add_argument("--ffmpeg", nargs="+", default=["ffmpeg"], help="the first that can read a file is used")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, av {av.__version__}; {os.cpu_count()} cores")
    if arguments.exactness:
        exactness(arguments.exactness, arguments.ffmpeg)
        return
    landscape = [path for path in SAMPLES.iterdir() if path.suffix in (".mp4", ".mkv", ".webm")]
    speed(arguments.footage or sorted(path for path in landscape if "portrait" not in path.name), arguments.rounds)


if __name__ == "__main__":
    main()
