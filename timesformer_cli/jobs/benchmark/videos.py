"""Stages that need videos: reading them, and labelling them from end to end."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from timesformer_cli.errors import InputError
from timesformer_cli.flow import Failure, Item, Result, Views
from timesformer_cli.jobs.benchmark.figures import Measurement, Timing
from timesformer_cli.jobs.benchmark.rounds import rounds
from timesformer_cli.jobs.benchmark.settings import Settings
from timesformer_cli.pipeline.prepare import read_clips
from timesformer_cli.pipeline.run import Tell
from timesformer_cli.pipeline.score import label, score
from timesformer_cli.runtimes.batching import choose_batch_size
from timesformer_cli.specs import Checkpoint, Reading
from timesformer_cli.text import plural
from timesformer_cli.video.preprocess import make_views
from timesformer_cli.video.reader import open_video
from timesformer_cli.video.sampling import plan


def measure_reading(items: Sequence[Item], checkpoint: Checkpoint, settings: Settings) -> Iterator[Measurement]:
    """Decoding and preprocessing in this process, and both in the worker processes.

    Raises:
        InputError: a video cannot be read.
    """
    # The workers go first: they survive files that would crash this process.
    _read_ahead(items, len(items), 0, checkpoint, settings)
    decode: list[float] = []
    preprocess: list[float] = []
    for _ in rounds(settings.seconds):
        decoded, prepared, frames, views = _read_once(items, checkpoint, settings.run.reading)
        decode.append(decoded)
        preprocess.append(prepared)
    read = {"videos": len(items), "frames": frames}
    made = read | {"views": views}
    for name, times, counts in (("decode", decode, read), ("preprocess", preprocess, made)):
        yield Measurement(stage="reading", name=f"{name}, one process", timing=Timing(tuple(times)), counts=counts)
    if settings.run.processes:
        each = float(np.median(decode) + np.median(preprocess)) / len(items)
        lead = settings.run.processes
        count = how_many(settings.run.processes / each, settings.seconds, 2 * lead)
        timing = Timing(tuple(_read_ahead(items, count, lead, checkpoint, settings) for _ in rounds(settings.seconds)))
        share = count / len(items)
        yield Measurement(
            stage="reading",
            name=f"both, {plural(settings.run.processes, 'worker')}",
            timing=timing,
            counts={what: number * share for what, number in made.items()},
        )


def _read_once(items: Sequence[Item], checkpoint: Checkpoint, reading: Reading) -> tuple[float, float, int, int]:
    """Seconds of decoding, seconds of preprocessing, number of frames, number of views."""
    decode = preprocess = 0.0
    frames = views = 0
    for item in items:
        begin = time.perf_counter()
        with open_video(item, reading) as reader:
            (span,) = plan(reader.info, checkpoint.sampling)
            for clip in read_clips(reader, span.clips, reading):
                decoded = time.perf_counter()
                decode += decoded - begin
                frames += len(clip.pixels)
                views += len(make_views([clip], checkpoint.preprocess))
                begin = time.perf_counter()
                preprocess += begin - decoded
        decode += time.perf_counter() - begin
    return decode, preprocess, frames, views


def _read_ahead(items: Sequence[Item], count: int, lead: int, checkpoint: Checkpoint, settings: Settings) -> float:
    """Seconds in which the workers prepare `count` videos, after the first `lead`."""
    with settings.prepare(items, lead + count, checkpoint) as prepared:
        return _flow((each for each in prepared if each is not None), lead)


class Flow(NamedTuple):
    """Videos per second, and after how many videos they come at that rate."""

    rate: float
    lead: int


def measure_whole(
    items: Sequence[Item], checkpoint: Checkpoint, settings: Settings, flow: Flow, tell: Tell
) -> Measurement:
    """Videos labelled as by `predict`, without its start; `flow` is the expected speed."""
    scorer = settings.open(checkpoint, tell=tell)
    size = choose_batch_size(None, settings.run.device, tell, scorer)
    count = how_many(flow.rate, settings.seconds, flow.lead)

    def run() -> float:
        with settings.prepare(items, flow.lead + count, checkpoint) as prepared:
            return _flow(label(score(prepared, scorer, size), checkpoint), flow.lead)

    if settings.device_of(scorer) != "cpu":
        run()  # finds the batch size
    timing = Timing(tuple(run() for _ in rounds(settings.seconds)))
    name = "in this process" if settings.run.processes == 0 else plural(settings.run.processes, "worker")
    return Measurement(stage="end to end", name=f"predict, {name}", timing=timing, counts={"videos": count})


def expected_flow(measurements: Iterable[Measurement], settings: Settings) -> Flow:
    """The flow of a run that is as fast as the slower of reading and the network, as measured."""
    found = list(measurements)
    reading = [each for each in found if each.stage == "reading"]
    # In the workers, if there are any; else decoding and preprocessing in turn.
    seconds = sum(1 / each.rates["videos"] for each in reading[2:] or reading)
    views = max(each.rates["views"] for each in found if each.stage == "network")
    videos = views * reading[-1].counts["videos"] / reading[-1].counts["views"]
    # The first results of all workers come together; behind a slower network they wait in line.
    return Flow(1 / seconds, max(settings.run.processes, 1)) if 1 / seconds < videos else Flow(videos, 1)


def _flow(results: Iterable[Result | Views], lead: int) -> float:
    """Seconds from result number `lead` to the last. Raises InputError for failures."""
    begin = last = time.perf_counter()
    for number, result in enumerate(results, 1):
        if isinstance(result, Failure):
            raise InputError(f"{result.item.path}: {result.message}")
        last = time.perf_counter()
        if number == lead:
            begin = last
    return last - begin


def how_many(rate: float, seconds: float, least: int) -> int:
    """How many videos fill `seconds` at that rate; at least `least`, at most a thousand."""
    return int(np.clip(seconds * rate, least, 1000))
