"""What the answer for a video rests on: altered clips, frames, a map over space and time, and how far to trust it."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import UsageError, VideoError
from timesformer_cli.flow import Failure, Item, Pixels, Views, likeliest
from timesformer_cli.jobs.explain.alterations import altered
from timesformer_cli.jobs.explain.asking import Model
from timesformer_cli.jobs.explain.check import check_map
from timesformer_cli.jobs.explain.frames import leave_out, shapley
from timesformer_cli.jobs.explain.maps import Network, inside, map_of
from timesformer_cli.jobs.explain.records import (
    INSIDE,
    OUTSIDE,
    Alteration,
    Counterfactual,
    Explanation,
    Map,
    Options,
    Question,
)
from timesformer_cli.pipeline.aggregate import combine
from timesformer_cli.pipeline.run import RunOptions, Tell, silent
from timesformer_cli.runtimes import has_network, runtime_of
from timesformer_cli.specs import Checkpoint, PreprocessSpec
from timesformer_cli.video.preprocess import crop_names, framings

_ALTERATIONS: tuple[Alteration, ...] = ("single_frame", "shuffled", "reversed", "still")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model, videos, and what to explain of each.

    With `contrast`, each explanation also has the map of the label that comes next, and of the difference of the two.
    `own` has the classes to explain of single videos, by their keys, instead of those of the options.
    """

    checkpoint: Checkpoint
    items: Iterable[Item]
    options: Options = Options()
    run: RunOptions = RunOptions()
    contrast: bool = False
    own: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse, before anything is loaded, what the model cannot do. Raises UsageError."""
        checkpoint, method = self.checkpoint, self.options.method
        self.run.check(checkpoint)
        if method in INSIDE and not has_network(checkpoint):
            raise UsageError(
                f"`method={method}` needs the gradients of a network, and {checkpoint.name} is an exported model; give "
                f"the model that it was made from, or one of the methods {', '.join(OUTSIDE)}"
            )
        if checkpoint.activation == "none":
            raise UsageError(
                f"{checkpoint.name} gives values, not scores between 0 and 1, and only scores can be explained"
            )
        if self.options.versus in self.options.labels:
            raise UsageError("`versus` is one of the labels to explain; name a different class")


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """The explanations of a video, one for each label, with what the model saw.

    `views` has all views. `contrasts` are the maps, with their titles, that were asked for beside that of the first.
    """

    views: Views
    explanations: tuple[Explanation, ...]
    contrasts: tuple[tuple[str, Map], ...] = ()

    @property
    def item(self) -> Item:
        return self.views.item


@contextmanager
def explain(job: Job, tell: Tell = silent) -> Iterator[Iterator[Explained | Failure]]:
    """An explanation of each video, in order, for as long as the context lasts; worker processes read videos ahead.

    Raises:
        UsageError: as `Job.check`.
        TimesformerError: as `RunOptions.open`; or what is asked for does not fit into memory.
    """
    job.check()
    checkpoint = job.checkpoint
    levels = runtime_of(checkpoint).takes_levels(checkpoint)
    with job.run.prepare(job.items, checkpoint.recipe, levels=levels) as prepared:
        scorer = job.run.open(checkpoint, tell)
        batch = job.run.batch(scorer, tell)
        network = Network(checkpoint, job.run.device) if has_network(checkpoint) else None
        yield _each(prepared, lambda: Model(scorer, batch, checkpoint.config.patch_hw), network, job)


def _each(
    prepared: Iterable[Views | Failure | None], model: Callable[[], Model], network: Network | None, job: Job
) -> Generator[Explained | Failure]:
    for views in prepared:
        if views is None:
            continue
        try:
            yield views if isinstance(views, Failure) else _explained(views, model(), network, job)
        except VideoError as error:
            yield Failure(views.item, error.kind, str(error))


def _explained(views: Views, model: Model, network: Network | None, job: Job) -> Explained:
    """Raises VideoError if the video has not the clip that is asked for."""
    checkpoint, options = job.checkpoint, job.options
    logits = model.logits(views.pixels)
    order = combine(logits, checkpoint.combine, checkpoint.activation).argsort(kind="stable")[::-1]
    allowed = _allowed(views, options)
    explanations: list[Explanation] = []
    contrasts: list[tuple[str, Map]] = []
    for label in job.own.get(views.item.key, options.labels) or (int(order[0]),):
        others = [int(index) for index in order if index != label]
        versus = options.versus
        if versus == label:
            raise VideoError("unsupported", f"its first label is {checkpoint.labels[label]} itself; name a `label`")
        question = Question(label, versus, checkpoint.activation)
        margins = question.margins(logits)
        number = max(allowed, key=lambda view: margins[view])
        explanations.append(
            _explanation(views, number, logits[number], question, others, model, network, checkpoint, options)
        )
        model.forwards = 0
        if job.contrast and not contrasts and others:
            contrasts = list(_contrasts(views.pixels[number], question, others[0], network, checkpoint, options))
    return Explained(views, tuple(explanations), tuple(contrasts))


def _explanation(
    views: Views,
    number: int,
    logits: NDArray[np.float32],
    question: Question,
    others: Sequence[int],
    model: Model,
    network: Network | None,
    checkpoint: Checkpoint,
    options: Options,
) -> Explanation:
    """The explanation of view number `number`, whose logits are float32 (K,)."""
    clip, names = views.pixels[number], checkpoint.labels
    score = float(question.scores(logits[None])[0])
    found = None
    if network is not None or options.method is not None:
        found = _checked(model, network, question, clip, score, options)
    frames = shapley(model, question, clip) if options.method == "shapley" else leave_out(model, question, clip, score)
    counterfactuals = tuple(_counterfactuals(model, question, clip, checkpoint))
    return Explanation(
        item=views.item,
        model=checkpoint.name,
        info=views.info,
        view=views.labels[number],
        number=number,
        views=len(views.labels),
        label=names[question.label],
        score=score,
        against=None if question.versus is None else names[question.versus],
        runner_up=names[others[0]] if others else "",
        counterfactuals=counterfactuals,
        frames=frames,
        map=found,
        box=_box(views, number, checkpoint.preprocess, model.patch),
        constant=bool((clip == clip[:1]).all()),
        forwards=model.forwards,
    )


def _checked(
    model: Model, network: Network | None, question: Question, clip: Pixels, score: float, options: Options
) -> Map:
    found = map_of(model, network, question, clip, options)
    if options.checks == "none":
        return found
    untrained = None
    more = options.checks == "all"
    if more and network is not None and found.method in INSIDE:
        untrained = inside(network.untrained, found.method, question, clip, options.fills).values
    fills = options.check_fills
    check = check_map(model, question, clip, score, found.values, fills, untrained=untrained, more=more)
    return replace(found, check=check)


def _counterfactuals(
    model: Model, question: Question, clip: Pixels, checkpoint: Checkpoint
) -> Iterator[Counterfactual]:
    logits = model.logits(altered(clip, name) for name in _ALTERATIONS)
    own = question.scores(logits)
    for name, values, score in zip(_ALTERATIONS, logits, own, strict=True):
        (first,) = likeliest(combine(values[None], "logits", checkpoint.activation), checkpoint.labels, 1)
        yield Counterfactual(name, first.label, first.score, float(score))


def _contrasts(
    clip: Pixels, question: Question, other: int, network: Network | None, checkpoint: Checkpoint, options: Options
) -> Iterator[tuple[str, Map]]:
    """The maps of the label that comes next, and of the difference to it, where one backward pass makes each."""
    method = options.method or "lrp"
    if network is None or method not in ("lrp", "gradcam") or question.versus is not None:
        return
    names = checkpoint.labels
    for label, versus in ((other, None), (question.label, other)):
        asked = Question(label, versus, checkpoint.activation)
        title = names[label] if versus is None else f"{names[label]} versus {names[versus]}"
        yield title, inside(network.trained, method, asked, clip, options.fills)


def _allowed(views: Views, options: Options) -> list[int]:
    """The numbers of the views among which the explained one is. Raises VideoError if there is none."""
    clips = sorted({label.clip for label in views.labels})
    wanted = clips
    if options.clip is not None:
        wanted = [clip for clip in clips if clip == options.clip]
        if not wanted:
            raise VideoError("unsupported", f"`clip={options.clip}`: it has clips 0 to {clips[-1]}")
    elif options.at is not None:
        times = {label.clip: views.info.times[list(label.frames)] for label in views.labels}
        if not 0 <= options.at <= views.info.duration:
            raise VideoError("unsupported", f"`at={options.at:g}`: it lasts {views.info.duration:.2f} s")
        # The clip that shows that moment, in its middle if several do.
        wanted = [min(clips, key=lambda clip: _distance(times[clip], options.at or 0.0))]
    return [number for number, label in enumerate(views.labels) if label.clip in wanted]


def _distance(times: NDArray[np.float64], at: float) -> tuple[float, float]:
    """How far a clip is from a moment: seconds outside it, and from its middle."""
    outside = max(float(times.min()) - at, at - float(times.max()), 0.0)
    return outside, abs(float(times.min() + times.max()) / 2 - at)


def _box(views: Views, number: int, spec: PreprocessSpec, patch: tuple[int, int]) -> tuple[float, float, float, float]:
    """What the patches of a view show of an upright frame: left, top, right, bottom in pixels."""
    info = views.info
    place = crop_names(info.width, info.height, spec).index(views.labels[number].crop)
    framing = framings(info.width, info.height, spec)[place]
    down, right = info.height / framing.resized[0], info.width / framing.resized[1]
    high, wide = (side // each * each for side, each in zip(spec.size, patch, strict=True))
    left, top = framing.left * right, framing.top * down
    return left, top, left + wide * right, top + high * down
