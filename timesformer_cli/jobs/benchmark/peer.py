"""The network and the pipeline of transformers, in alternation with ours."""

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.checkpoints import processors
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.errors import DeviceError, UsageError
from timesformer_cli.flow import Item, Prediction
from timesformer_cli.jobs.benchmark.figures import Duel
from timesformer_cli.jobs.benchmark.rounds import take_turns, time_once
from timesformer_cli.jobs.benchmark.settings import Settings
from timesformer_cli.jobs.benchmark.videos import how_many
from timesformer_cli.pipeline.run import Tell
from timesformer_cli.pipeline.score import label, score
from timesformer_cli.runtimes.batching import choose_batch_size
from timesformer_cli.runtimes.devices import find_device
from timesformer_cli.runtimes.ports import Scorer
from timesformer_cli.runtimes.pytorch import Dtype, choose_precision, torch_dtype
from timesformer_cli.specs import Checkpoint, Reading
from timesformer_cli.text import plural
from timesformer_cli.video.reader import open_video


def check_transformers() -> None:
    """Raises UsageError if it is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise UsageError("`against=transformers` needs transformers; install it with: pip install transformers")


def face_transformers(
    items: Sequence[Item], checkpoint: Checkpoint, view: NDArray[np.float32], settings: Settings, tell: Tell
) -> Iterator[Duel]:
    """The network of transformers with the same weights, views and threads; and its pipeline, if it can run.

    Raises:
        UsageError: transformers cannot run this model.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    asked = choose_precision(settings.run.precision, settings.run.device)
    wanted: tuple[Dtype, ...] = (asked,) if settings.run.precision != "auto" or asked == "fp32" else ("fp32", asked)
    for precision in wanted:
        scorer = settings.open(checkpoint, precision, tell)
        peer, network = open_peer(checkpoint, precision, settings.run.device)
        yield from _face_network(precision, scorer, peer, view, settings)
    try:
        yield _face_pipeline(items, checkpoint, scorer, network, settings)
    except _NoPipelineError as error:
        tell(f"transformers' pipeline is left out: {error}")


def open_peer(checkpoint: Checkpoint, precision: Dtype, device: str) -> tuple[Scorer, Any]:
    """The network of transformers, as a scorer and as it is.

    Raises:
        UsageError: transformers does not accept this config.
    """
    import torch
    from transformers import TimesformerConfig, TimesformerForVideoClassification

    from timesformer_cli.network import model as own

    target = find_device(device)
    dtype = torch_dtype(precision)
    weights = own.TimesformerForVideoClassification.from_checkpoint(checkpoint).state_dict()
    try:
        with torch.device("meta"):
            network: Any = TimesformerForVideoClassification(TimesformerConfig.from_dict(checkpoint.config.to_dict()))
        network.load_state_dict(weights, strict=True, assign=True)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"`against=transformers`: transformers does not accept {checkpoint.name} ({reason})"
        ) from error
    network.to(target, dtype).eval()

    def score(views: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            pixels = torch.from_numpy(views).to(target).to(dtype)
            logits: NDArray[np.float32] = network(pixel_values=pixels).logits.float().cpu().numpy()
        return logits

    return score, network


def _face_network(
    precision: Dtype, ours: Scorer, theirs: Scorer, view: NDArray[np.float32], settings: Settings
) -> Iterator[Duel]:
    for count in settings.turns:
        views = np.repeat(view, count, axis=0)
        try:
            own, other = ours(views), theirs(views)
            timings = take_turns(lambda: ours(views), lambda: theirs(views), settings.seconds)  # noqa: B023
        except (MemoryError, RuntimeError) as error:  # torch raises the latter for memory
            if count == 1:
                raise DeviceError(f"transformers cannot score even one view ({error})") from error
            return
        yield Duel(
            name=f"network, {precision}, {plural(count, 'view')}",
            ours=timings[0],
            theirs=timings[1],
            counts={"views": count},
            difference=float(abs(own - other).max() / abs(other).max()),
        )
        if 4 * sum(timing.median for timing in timings) > settings.longest:
            return


class _NoPipelineError(Exception):
    """The reason why the pipeline of transformers cannot be compared."""


def _face_pipeline(
    items: Sequence[Item], checkpoint: Checkpoint, scorer: Scorer, network: Any, settings: Settings
) -> Duel:
    """One centre view of each video, as in the pipeline; ours with workers, which are started in each turn."""
    spec = checkpoint.preprocess
    if spec.channel_order == "gray":
        raise _NoPipelineError("its image processors do not make gray views")
    checkpoint = with_overrides(checkpoint, fields={"clips": 1, "crops": 1})
    frames = checkpoint.sampling.num_frames
    fewest = min(_num_frames(item, settings.run.reading) for item in items)
    if fewest < frames:
        raise _NoPipelineError(f"it takes {frames} frames of a video, and one here has {fewest}")
    pipeline = _open_pipeline(checkpoint, network, settings.run.device)
    # The pipeline reads on from the first frame; no video may end before its last.
    stride = min(round(checkpoint.sampling.stride), fewest // frames)
    paths = [item.location for item in items]
    size = choose_batch_size(None, settings.run.device, lambda _: None, scorer)
    try:
        each = min(time_once(lambda: pipeline(paths[:1], frame_sampling_rate=stride)) for _ in range(2))
    except Exception as error:  # from whatever decoders and processors it uses
        raise _NoPipelineError(f"it fails ({' '.join(str(error).split())[:200]})") from error
    count = how_many(1 / each, settings.seconds, 2)

    def ours() -> None:
        with settings.prepare(items, count, checkpoint) as prepared:
            for result in label(score(prepared, scorer, size), checkpoint):
                assert isinstance(result, Prediction), result

    def theirs() -> None:
        pipeline(list(islice(cycle(paths), count)), frame_sampling_rate=stride)

    timings = take_turns(ours, theirs, settings.seconds)
    return Duel(name="pipeline on videos", ours=timings[0], theirs=timings[1], counts={"videos": count})


def _num_frames(item: Item, reading: Reading) -> int:
    with open_video(item, reading) as reader:
        return reader.info.num_frames


def _open_pipeline(checkpoint: Checkpoint, network: Any, device: str) -> Callable[..., Any]:
    try:
        from transformers import AutoImageProcessor, pipeline

        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(processors.write(checkpoint.preprocess))
            Path(folder, "preprocessor_config.json").write_text(text, encoding="utf-8")
            processor = AutoImageProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
        return pipeline("video-classification", model=network, image_processor=processor, device=find_device(device))
    except ImportError as error:
        raise _NoPipelineError(" ".join(str(error).split())[:200]) from error
