"""Train a model on labelled videos, starting from a checkpoint; write the folder of the run.

First, every video goes through the network of the checkpoint (`features`), unless a file has its vectors (`stored`).
Then the videos are grouped by source and divided (`groups`, `split`), and a new head is fitted to the features
(`probe`). Unless that is all, the network behind it is trained (`train`), and the better one kept. What is left is an
ordinary model, and the measurements of it (`results`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from timesformer_cli.__about__ import __version__
from timesformer_cli.datasets import by_kind
from timesformer_cli.datasets.matching import quoted
from timesformer_cli.errors import InputError, UsageError
from timesformer_cli.flow import Failure
from timesformer_cli.jobs.finetune import folder
from timesformer_cli.jobs.finetune.data import Asked, Data, Videos, open_data, targets_of
from timesformer_cli.jobs.finetune.division import Division, divide
from timesformer_cli.jobs.finetune.features import Features, encode, seconds_for
from timesformer_cli.jobs.finetune.launch import launch_of_this_process
from timesformer_cli.jobs.finetune.model_folder import described, resizing
from timesformer_cli.jobs.finetune.stored import Stored
from timesformer_cli.jobs.finetune.tuning import Tuning
from timesformer_cli.jobs.reporter import SILENT, Reporter
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.results.settings import Provenance, provenance_of
from timesformer_cli.runtimes import require_network
from timesformer_cli.runtimes.devices import available_cores
from timesformer_cli.specs import Checkpoint
from timesformer_cli.text import named, plural

if TYPE_CHECKING:
    from timesformer_cli.jobs.finetune.flips import Answers
    from timesformer_cli.jobs.finetune.parallel import World
    from timesformer_cli.jobs.finetune.probe import Probe
    from timesformer_cli.jobs.finetune.start import Start
    from timesformer_cli.jobs.finetune.training import NetworkTraining, Training

Balance = Literal["none", "loss"]

# A larger share of videos that cannot be read is worth a warning, or ends the run.
_MANY = 0.1

# Problems of videos that were meant to be used.
_UNUSABLE = ("missing", "ambiguous", "conflict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model to start from, the data, and how to train; `output` is the folder that keeps everything.

    `balance`: with `loss`, every class weighs the same, however many videos it has. `stored` has the features of all
    videos if the data is a file of vectors; `checkpoint` is then the model that made it.
    """

    checkpoint: Checkpoint
    asked: Asked
    run: RunOptions = RunOptions()
    output: Path | None = None
    overwrite: bool = False
    resume: bool = False
    tuning: Tuning = field(default_factory=Tuning)
    balance: Balance = "none"
    stored: Stored | None = None

    def check(self) -> None:
        """Raises UsageError for an exported model, or options that do not apply to the model or the method."""
        require_network(self.checkpoint)
        self.run.check(self.checkpoint)
        described(self.checkpoint, self.checkpoint.labels, multi_label=False)
        self.tuning.check(self.checkpoint.config.num_hidden_layers)
        if self.tuning.method != "probe" and self.run.precision == "fp16":
            raise UsageError("`precision=fp16`: networks are trained in bf16 or fp32")

    def provenance(self) -> Provenance:
        """What the features depend on. Reads the weights. Raises DeviceError and InputError."""
        made = None if self.stored is None else self.stored.provenance
        return provenance_of(
            self.checkpoint,
            None,
            precision=(None if made is None else made.precision) or self.run.precision_of(self.checkpoint),
            frame_rate=self.run.reading.frame_rate,
            timeline=None if made is None else made.timeline,
        )

    def settings(self, data: Data, provenance: Provenance) -> dict[str, Any]:
        """What makes two runs the same run."""
        return {
            "version": __version__,
            **self.tuning.settings(),
            "balance": self.balance,
            "data": self.asked.to_dict() | data.to_dict(),
            "base_model": provenance.to_dict(),
            **({} if self.stored is None else {"vectors": self.stored.settings()}),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run: the content of `metrics.json`, videos that could not be read, and lines on what to do next."""

    metrics: dict[str, Any]
    failures: Sequence[Failure]
    next_steps: Sequence[str]


def follows() -> bool:
    """Whether this process is one of several of a run, and not the first, which writes and talks for all.

    Raises UsageError for variables of a launcher that contradict each other.
    """
    launch = launch_of_this_process()
    return launch is not None and launch.rank > 0


def finetune(job: Job, report: Reporter = SILENT) -> Outcome | None:
    """Train, measure, and write the folder of the run; None in a process that `follows`.

    Raises:
        TimesformerError: no model, no device, data that cannot be used, a folder that cannot be written, or the failure
            of another process of the run.
    """
    launch = launch_of_this_process()
    if launch is None:
        return _finetune(job, None, report)
    from timesformer_cli.jobs.finetune.parallel import joined

    with joined(launch, job.run.device, report.note) as world:
        workers = max(available_cores() // world.local_size, 1) if job.run.workers is None else job.run.workers
        job = replace(job, run=replace(job.run, device=world.device, workers=workers))
        if world.is_first:
            return _finetune(job, world, report)
        _follow(job, world)
    return None


def _follow(job: Job, world: "World") -> None:
    """What a process does that is not the first."""
    if job.tuning.method != "probe":
        from timesformer_cli.jobs.finetune.train import train

        assert job.output is not None
        train(world.of_first(None), job.tuning, job.run, job.output, SILENT, resume=job.resume, world=world)  # type: ignore[arg-type]


def _finetune(job: Job, world: "World | None", report: Reporter) -> Outcome:
    """What the first process does, of several if there is a `world`."""
    assert job.output is not None
    data, planned = _looked_at(job, report)
    told = planned.lines()
    provenance = job.provenance()
    with folder.opened(job.output, job.settings(data, provenance), resume=job.resume, overwrite=job.overwrite):
        if job.stored is not None:
            found = job.stored.features(data.samples)
        else:
            found = encode(data.items, job.checkpoint, job.run, job.output / folder.FEATURES, provenance, report)
        videos = _readable(data, found, job.asked, report)
        division = _divided(job, videos, hold_out=job.tuning.method != "probe")
        for line in division.lines():
            if line not in told:
                report.note(line)
        # Not earlier: they import torch, which takes seconds, and what is wrong with the data is to be told at once.
        from timesformer_cli.jobs.finetune import results

        training = _trained(job, data, videos, division, provenance, world, report)
        metrics = results.write(job.output, training, report)
    return Outcome(metrics, training.failures, list(_next_steps(job, data)))


def _divided(job: Job, videos: Videos, *, hold_out: bool = False) -> Division:
    """The parts of the videos that could be read. Raises InputError and UsageError."""
    hashes = [each.hashes for each in videos.features] if job.stored is None else []
    copies = None if job.stored is None else job.stored.copies(videos.samples, videos.features)
    return divide(videos.samples, videos.given, videos.names, job.asked, hashes, copies=copies, hold_out=hold_out)


def _trained(
    job: Job,
    data: Data,
    videos: Videos,
    division: Division,
    provenance: Provenance,
    world: "World | None",
    report: Reporter,
) -> "Training":
    """The probe and, if the method says so, the network; the better one is the new model."""
    from timesformer_cli.jobs.finetune.findings import find
    from timesformer_cli.jobs.finetune.probe import fit_probe
    from timesformer_cli.jobs.finetune.training import Training

    balance = job.balance == "loss"
    _, recipe = described(job.checkpoint, data.names, multi_label=data.multi_label)
    fitted = partial(fit_probe, videos, base=job.checkpoint, recipe=recipe, balance=balance, report=report)
    probe = fitted(division)
    network = None
    if job.tuning.method != "probe":
        network = _train_network(job, videos, division, probe, provenance, world, report)
        if not network.won:
            # A probe that is measured by cross-validation also learns from the videos that were held out.
            alone = _divided(job, videos)
            if alone.how != division.how:
                division, probe = alone, fitted(alone)
    return Training(
        base=job.checkpoint,
        provenance=provenance,
        run=job.run,
        asked=job.asked,
        data=data,
        videos=videos,
        division=division,
        probe=probe,
        balance=balance,
        findings=find(videos, division, probe, seed=job.asked.seed),
        network=network,
        stored=job.stored,
    )


def _train_network(
    job: Job,
    videos: Videos,
    division: Division,
    probe: "Probe",
    provenance: Provenance,
    world: "World | None",
    report: Reporter,
) -> "NetworkTraining":
    """Train the network behind the probe, and say which of them is better."""
    from timesformer_cli.jobs.finetune.answers import worth
    from timesformer_cli.jobs.finetune.parallel import ALONE
    from timesformer_cli.jobs.finetune.train import train
    from timesformer_cli.jobs.finetune.training import NetworkTraining

    assert job.output is not None
    if job.balance == "loss" and videos.multi_label:
        raise UsageError("`balance=loss`: with several labels for each video, it is only for `method=probe`")
    before = worth(probe.answers, videos.targets[division.measured])
    report.note(f"probe: {before.told(multi_label=videos.multi_label)}")
    world = world or ALONE
    start = world.of_first(_start_of(job, videos, division, probe, provenance, report))
    tuned = train(start, job.tuning, job.run, job.output, report, resume=job.resume, world=world)
    found = NetworkTraining(tuning=job.tuning, flips=start.flips, tuned=tuned, probe=before)
    after = tuned.worth.told(multi_label=videos.multi_label)
    kept = "the network is kept" if found.won else "the probe is better, and kept"
    report.note(f"{job.tuning.method}: {after}; {kept}")
    return found


def _start_of(
    job: Job, videos: Videos, division: Division, probe: "Probe", provenance: Provenance, report: Reporter
) -> "Start":
    """What the training of the network begins with: whether it mirrors videos, and tokens on disk if they serve it."""
    from timesformer_cli.jobs.finetune.flips import answers_of, decide
    from timesformer_cli.jobs.finetune.start import Start
    from timesformer_cli.jobs.finetune.tokens import keep_tokens

    assert job.output is not None
    features = job.output / folder.FEATURES
    items = [sample.item(frames=job.asked.frames) for sample in videos.samples]
    training, measured = ([items[place] for place in part.tolist()] for part in (division.train, division.measured))

    def answers() -> "Answers":
        found = encode(measured, job.checkpoint, job.run, features / "mirrored", provenance, report, mirrored=True)
        return answers_of(videos, division, probe, found)

    flips = decide(job.tuning.asked_flip, videos.names, answers)
    if job.tuning.asked_flip != job.tuning.flip:
        reason = "flips: off, since views are not augmented (`augment=none`)"
        flips = replace(flips, asked=job.tuning.flip, reason=reason)
    report.note(flips.reason)
    start = Start(
        base=job.checkpoint,
        names=videos.names,
        head=probe.head,
        training=training,
        targets=videos.targets[division.train],
        measured=measured,
        measured_targets=videos.targets[division.measured],
        flips=flips,
        balance=job.balance == "loss",
        seed=job.asked.seed,
    )
    if job.tuning.method != "last":
        return start
    if flips.flip or job.tuning.kind != "none":
        report.note("views differ from epoch to epoch, so each step reads its videos and computes all layers")
        return start
    tokens = keep_tokens(
        [*training, *measured],
        [len(videos.features[place].rows) for part in (division.train, division.measured) for place in part.tolist()],
        start.checkpoint,
        job.run,
        features / "tokens",
        provenance,
        report,
        layers=job.tuning.last_layers,
        open_model=partial(start.network, report.detail),
    )
    return replace(start, tokens=tokens)


def _looked_at(job: Job, report: Reporter) -> tuple[Data, Division]:
    """The data, and its parts as far as they are known before the videos are read and can be seen to look alike.

    The faults of the data are told here, before time is spent. Raises UsageError and InputError.
    """
    if line := resizing(job.checkpoint):
        report.note(line)
    stored = job.stored
    data = open_data(job.asked, None if stored is None else stored.paths)
    if stored is not None:
        made, count = stored.provenance, stored.file.count
        report.note(f"vectors: {count:,} in {stored.file.path}, made with {made.model}, recipe {made.recipe.name}")
    _tell(data, job.asked, report)
    hold_out = job.tuning.method != "probe"
    copies = None if stored is None else ()  # which are known once the vectors are read
    division = divide(data.samples, data.given, data.names, job.asked, copies=copies, hold_out=hold_out)
    for line in division.lines():
        report.note(line)
    return data, division


def _next_steps(job: Job, data: Data) -> Iterator[str]:
    run_folder, asked = job.output, job.asked
    assert run_folder is not None
    yield f"model: {run_folder / folder.MODEL}; use it: `timesformer predict VIDEO model={run_folder}`"
    yield f"report: {run_folder / folder.REPORT}"
    if data.test is not None:
        videos = asked.root if job.stored is None else None  # from a file of vectors, nothing can be evaluated
        root, annotations = (f" {path}" if path else "" for path in (videos, asked.annotations))
        where = f"{root}{' annotations=' + annotations.strip() if annotations else ''}"
        yield (
            f"the split {data.test} was not read; measure on it once: "
            f"`timesformer evaluate{where} split={data.test} model={run_folder}`"
        )


def _tell(data: Data, asked: Asked, report: Reporter) -> None:
    """Say what the data is, in a line each: the classes, and every kind of problem.

    Raises:
        InputError: with `strict`, a problem.
    """
    train, val = data.train, data.val
    given = f", {len(val.samples):,} given for validation" if val else ""
    kinds = "with any number of labels each" if data.multi_label else "with a label each"
    report.note(f"data: {plural(len(train.samples), 'video')} {kinds}{given}; {len(data.names)} classes")
    if data.numbered:
        report.note(
            f"the classes are numbers, so their names are {data.names[0]!r}, {data.names[1]!r}, ...; name them with "
            "`label_map=FILE`"
        )
    found = by_kind(data.problems)
    for kind, problems in found.items():
        report.note(f"{len(problems):,} {kind}, the first: {problems[0]}")
    unusable = [problem for kind in found if kind in _UNUSABLE for problem in found[kind]]
    if asked.strict and unusable:
        raise InputError(f"`strict`: {len(unusable):,} of the videos cannot be used; the first: {unusable[0]}")


def _readable(data: Data, found: Sequence[Features | Failure], asked: Asked, report: Reporter) -> Videos:
    """The videos that could be read.

    Raises:
        InputError: none could be read, or fewer than two classes are left; or with `strict`, many could not.
    """
    videos = data.readable(found)
    failures = videos.failures
    if failures:
        first = f"the first: {named(failures[0].item.path, *failures[0].item.part)}: {failures[0].message}"
        if not videos.samples:
            raise InputError(f"none of the {len(failures):,} videos could be read; {first}")
        if len(failures) > _MANY * len(found):
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in videos.failures_by_kind.items())
            text = f"{len(failures):,} of {len(found):,} videos could not be read ({kinds}); {first}"
            if asked.strict:
                raise InputError(f"`strict`: {text}")
            report.note(f"warning: {text}")
    empty = videos.empty_classes
    if len(empty) > len(data.names) - 2:
        raise InputError(f"only one class has videos that can be read; of {', '.join(map(repr, empty[:3]))} none can")
    if empty:
        raise InputError(
            f"no video for training could be read of {len(empty):,} of {len(data.names):,} classes: {quoted(empty)}; "
            "add some, or name the others with `classes`"
        )
    return videos


def plan(job: Job, report: Reporter = SILENT) -> dict[str, Any]:
    """What `finetune` would do: classes, groups, parts, problems, the seconds that reading would take, and what the
    training of the network would.

    Nothing is written. A few videos are read to measure it; both are None if the model is not on this machine. From a
    file of vectors, no video is read, and reading takes no seconds.

    Raises:
        TimesformerError: as `finetune`.
    """
    data, division = _looked_at(job, report)
    counts = Counter(label for sample in data.train.samples for label in sample.labels)
    seconds: float | None = None
    if job.stored is not None:
        seconds = 0.0
    elif job.checkpoint.weights is not None:
        seconds = seconds_for(data.items, job.checkpoint, job.run, report)
    return {
        "classes": {name: counts[number] for number, name in enumerate(data.names)},
        "multi_label": data.multi_label,
        "videos": len(data.samples),
        "training": len(division.train),
        "measured": len(division.measured),
        "measured_by": division.how,
        "groups": {"rule": division.grouping.rule, "count": len(set(division.grouping.groups))},
        "problems": {kind: len(problems) for kind, problems in by_kind(data.problems).items()},
        "seconds": seconds,
        "network": None
        if job.tuning.method == "probe" or job.checkpoint.weights is None
        else _sized(job, data, division, report),
    }


def _sized(job: Job, data: Data, division: Division, report: Reporter) -> dict[str, Any]:
    """What the training of the network would take."""
    from timesformer_cli.jobs.finetune.flips import Decision
    from timesformer_cli.jobs.finetune.head import Head
    from timesformer_cli.jobs.finetune.start import Start
    from timesformer_cli.jobs.finetune.train import sized

    classes = len(data.names)
    targets = targets_of(data.samples, classes, multi_label=data.multi_label)
    start = Start(
        base=job.checkpoint,
        names=data.names,
        head=Head(np.zeros((classes, job.checkpoint.config.hidden_size), np.float32), np.zeros(classes, np.float32)),
        training=[data.items[place] for place in division.train.tolist()],
        targets=targets[division.train],
        measured=[],
        measured_targets=targets[:0],
        flips=Decision(asked="off", flip=False, exchange=tuple(range(classes)), reason=""),
        balance=False,
        seed=job.asked.seed,
    )
    return asdict(sized(start, job.tuning, job.run, report))
