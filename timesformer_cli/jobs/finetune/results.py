"""What a training run leaves: the model, the measurements of it, and the tables of its videos."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import CheckpointError
from timesformer_cli.evaluation import folder as folders
from timesformer_cli.evaluation.metrics import Metrics
from timesformer_cli.evaluation.neighbours import NEIGHBOURS
from timesformer_cli.evaluation.run import EXCERPT, Run, dataset_settings, known_parts, summarise
from timesformer_cli.flow import Failure
from timesformer_cli.jobs.calibrate import divide
from timesformer_cli.jobs.evaluate import conditions_of
from timesformer_cli.jobs.finetune import folder
from timesformer_cli.jobs.finetune.calibrating import calibrated, write_calibration
from timesformer_cli.jobs.finetune.checks import chance, chance_multi_label
from timesformer_cli.jobs.finetune.log import read_log, write_table
from timesformer_cli.jobs.finetune.model_folder import Card, write_card, write_model
from timesformer_cli.jobs.finetune.report import render
from timesformer_cli.jobs.finetune.training import NetworkTraining, Training
from timesformer_cli.jobs.reporter import Reporter
from timesformer_cli.pipeline.score import score
from timesformer_cli.results.record import Record, head_of
from timesformer_cli.results.settings import provenance_of
from timesformer_cli.specs import Checkpoint
from timesformer_cli.text import named, plural

# Videos whose scores by the new model folder are compared with those that were measured; fewer if none was read before,
# since their scores would take longer than all the rest.
_COMPARED, _COMPARED_STORED = 8, 2

# The largest difference of logits, relative to the largest logit: rounding in float32, and with less precise weights.
_TOLERANCE = {"fp32": 1e-5, "bf16": 3e-2, "fp16": 5e-3}

# With fewer classes, most answers are among the best five.
_TOP = 5


def write(target: Path, training: Training, report: Reporter) -> dict[str, Any]:
    """Write all files of the run to the folder `target`; returns the content of `metrics.json`, the last of them.

    Raises:
        CheckpointError: the new model does not give the scores that were measured.
        OutputError: a file cannot be written.
    """
    base, names = training.base, training.videos.names
    model = target / folder.MODEL
    network = training.tuned.network if training.tuned else training.probed(report.note)
    calibration = calibrated(training, report)
    temperatures = np.ones(1) if calibration is None else calibration.temperatures
    divide(network, temperatures)
    write_model(model, network)
    checkpoint = resolve(str(model))
    check_model(checkpoint, training, temperatures, report)
    measured, summary = write_measurements(target / folder.VAL, checkpoint, training, temperatures)
    metrics = summary | _about(training) | {"calibration": write_calibration(model, checkpoint, training, calibration)}
    write_card(model, base, names, _card(training, summary))
    columns = ("path", "start", "end", "label", "group", "split", "used")
    folder.write_csv(target / folder.DATA, columns, _rows(training))
    problems = [*training.problem_rows, *training.failure_rows]
    folder.write_csv(target / folder.PROBLEMS, ("kind", "place", "message"), problems)
    log = read_log(target) if training.network else None
    if log is not None:
        write_table(target, log)
    folders.write_text(target / folder.REPORT, render(training, measured, metrics, target, log=log))
    folder.write_json(target / folder.METRICS, metrics)
    return metrics


def check_model(
    checkpoint: Checkpoint, training: Training, temperatures: NDArray[np.float64], report: Reporter
) -> None:
    """Run the new model as `predict` does, and compare its mean logits of a few videos with those of the training.

    `temperatures`, (1,) or (K,), are what the head was divided by since.

    With stored vectors, it compares those that can still be read, and says so if there are none.

    Raises:
        CheckpointError: they differ by more than rounding.
    """
    run, samples = training.run, training.videos.samples
    chosen = training.known_logits(_COMPARED if training.stored is None else _COMPARED_STORED)
    if not chosen:
        report.note(
            "the new model was not compared with the vectors, since that needs vectors of whole videos that still exist"
        )
        return
    items = [samples[place].item(frames=training.data.frames) for place in chosen]
    scorer = run.open(checkpoint)
    with run.prepare(items, checkpoint.recipe) as prepared:
        scored = list(score(prepared, scorer, run.batch(scorer)))
    tolerance = max(_TOLERANCE[name] for name in (run.precision_of(checkpoint), training.precision))
    for before, found in zip(chosen.values(), scored, strict=True):
        expected = before / temperatures
        if isinstance(found, Failure):  # it could be read before
            report.note(f"{found.item.path}: could not be read again ({found.message}), so it was not compared")
            continue
        difference = float(np.abs(found.logits.mean(axis=0) - expected).max() / np.abs(expected).max())
        if not difference <= tolerance:
            raise CheckpointError(
                f"{checkpoint.name}: its logits of {found.item.path} differ by {difference:.1e} from those of "
                f"{'the run' if training.stored is None else training.stored.file.path}; is the video still the same? "
                f"{'If so' if training.stored is None else 'If not, make its vectors again; if so'}, please report it"
            )


def write_measurements(
    target: Path, checkpoint: Checkpoint, training: Training, temperatures: NDArray[np.float64]
) -> tuple[Run, dict[str, Any]]:
    """Write the measured scores as a run of `evaluate`; returns that run, and the content of its `metrics.json`.

    `temperatures`, (1,) or (K,), are what the head was divided by since.

    Raises:
        OutputError: the folder cannot be written.
    """
    data, videos, run = training.data, training.videos, training.run
    samples = tuple(videos.samples[place] for place in training.measured.tolist())
    failed = tuple(_failed(training, checkpoint.name))
    count = len(samples) + len(failed)
    measured = replace(training.measured_set, samples=samples, rows=count, problems=(), multi_label=data.multi_label)
    settings = dataset_settings(
        measured, **_paths(training), classes=None, limit=None, seed=None, frames=training.asked.frames
    )
    provenance = provenance_of(
        checkpoint,
        EXCERPT,
        precision=training.precision,
        frame_rate=run.reading.frame_rate,
        data_set=settings | {"samples": count},
    )
    measurement = Run(
        provenance=provenance,
        paths=tuple(sample.path for sample in samples),
        targets=tuple(sample.labels for sample in samples),
        scores={**training.answers.scores, "logits": (training.answers.logits / temperatures).astype(np.float32)},
        failed=failed,
        parts=known_parts([sample.part for sample in samples]),
    )
    folders.open_folder(target, overwrite=True, resume=False)
    folders.remove_results(target)
    folders.write_records(target, provenance, measurement.records())
    folders.write_problems(target, ())
    written = folders.read_run(target)
    found = written.measure((1, 5) if len(videos.names) > _TOP else (1,))
    summary = summarise(written, found) | {
        "warning": _warning(training, found),
        "run": conditions_of(run, checkpoint),
    }
    folders.write_results(target, written, summary, ())
    return written, summary


def _paths(training: Training) -> dict[str, str | None]:
    """The folder and the files of the measured videos, as settings record them."""
    paths = training.asked.paths
    there = {name: training.data.measured_at.get(name) for name in ("root", "annotations")}
    return paths | {name: None if path is None else str(path) for name, path in there.items()}


def _warning(training: Training, found: Metrics) -> str | None:
    """A sentence if the model may be no better than guessing."""
    targets = training.videos.targets[training.measured]
    if training.videos.multi_label:
        return chance_multi_label(training.answers.logits, targets.astype(np.bool_), seed=training.asked.seed)
    return chance(found, targets.astype(np.int64), balance=training.balance)


def _failed(training: Training, model: str) -> Iterator[Record]:
    """The records of the videos that would have been measured, but could not be read."""
    failures = training.answers.failures
    if training.division.how != "held out":  # of those that could never be read, nobody knows the part
        failures = (*failures, *training.videos.failures)
    known = {sample.key: sample.labels for sample in training.measured_set.samples}
    for failure in failures:
        if (target := known.get(failure.item.key)) is not None:
            error = {"kind": failure.kind, "message": failure.message}
            head = head_of(failure.item.path, failure.item.part)
            yield head | {"status": "error", "model": model, "target": list(target), "error": error}


def _about(training: Training) -> dict[str, Any]:
    """What `metrics.json` says of the training, besides the measurements."""
    division, probe = training.division, training.probe
    return {
        "method": "probe" if training.network is None else training.network.tuning.method,
        "measured_by": division.how,
        "groups": {
            "rule": division.grouping.rule,
            "example": division.grouping.example,
            "count": len(set(division.grouping.groups)),
        },
        "training": {
            "videos": len(division.train),
            "views": int(sum(len(training.videos.features[place].rows) for place in division.train.tolist())),
            "c": probe.choice.c,
        },
        "network": None if training.network is None else _about_network(training.network, training.videos.multi_label),
        "unreadable": len(training.failures),
        **about_findings(training),
    }


def _about_network(trained: NetworkTraining, multi_label: bool) -> dict[str, Any]:
    """What `metrics.json` says of the training of the network."""
    tuned, tuning = trained.tuned, trained.tuning
    progress = tuned.progress
    return {
        "kept": trained.won,
        "ended_by": tuned.reason,
        "epochs": -(-progress.step // tuned.steps),
        "steps": progress.step,
        "best_step": progress.best_step,
        "best_epoch": -(-progress.best_step // tuned.steps),
        "batch_size": tuning.batch_size,
        "micro_batch": progress.micro_batch,
        "checkpointing": progress.checkpointing,
        "learning_rate": tuned.rate,
        "seconds": round(progress.seconds, 1),
        "augment": tuning.kind,
        "flips": trained.flips.to_dict(),
        "measured": tuned.worth.figures(multi_label=multi_label),
        "probe": trained.probe.figures(multi_label=multi_label),
    }


def about_findings(training: Training) -> dict[str, Any]:
    """What `metrics.json` says of the findings: those of the report, with names and paths."""
    findings, videos = training.findings, training.videos
    return {
        "learning_curve": {"advice": findings.advice, "points": [asdict(point) for point in findings.curve]},
        "regularisation": [asdict(candidate) for candidate in findings.candidates],
        "labels_to_look_at": [
            head_of(sample.path, sample.part)
            | {
                "label": videos.names[suspect.label],
                "probability": suspect.probability,
                "likelier": videos.names[suspect.likelier],
                "likelier_probability": suspect.likelier_probability,
            }
            for suspect in findings.suspects
            for sample in [videos.samples[suspect.place]]
        ],
        "neighbours_that_disagree": [
            head_of(sample.path, sample.part)
            | {
                "label": videos.names[each.label],
                "theirs": videos.names[each.theirs],
                "votes": each.votes,
                "neighbours": NEIGHBOURS,
                "nearest": named(nearest.path, *nearest.part),
            }
            for each in findings.contradictions
            for sample, nearest in [(videos.samples[each.video], videos.samples[each.nearest])]
        ],
    }


def _card(training: Training, summary: dict[str, Any]) -> Card:
    division = training.division
    by = {
        "given": "videos that were given for it",
        "held out": "videos that were held out",
        "crossed": "all of them by cross-validation, each by a head that was not fitted to its group",
    }[division.how]
    if summary["mean_average_precision"] is not None:
        number = f"Mean average precision {summary['mean_average_precision']:.1%}"
    else:
        found = summary["top_1"]["accuracy"]
        number = f"Top-1 accuracy {found['value']:.1%} (95 % interval {found['low']:.1%} to {found['high']:.1%})"
    return Card(
        method=training.method,
        data=(
            f"{plural(len(division.train), 'video')} for training. Videos were grouped by {division.grouping.rule}: "
            f"{plural(len(set(division.grouping.groups)), 'group')} in all, and none on both sides of a measurement."
        ),
        accuracy=f"{number}, measured on {plural(len(training.measured), 'video')}: {by}.",
    )


def _rows(training: Training) -> Iterator[tuple[object, ...]]:
    """A row of `data.csv` for each video, in the order of the data; `split` is empty for one that was left out."""
    videos, division = training.videos, training.division
    places = {sample.key: place for place, sample in enumerate(videos.samples)}
    parts = division.parts
    for sample, given in zip(training.data.samples, training.data.given.tolist(), strict=True):
        label = "|".join(videos.names[number] for number in sample.labels)
        about = (sample.path, sample.start, sample.end, label)
        place = places.get(sample.key)
        if place is None:
            yield *about, None, "val" if given else "train", 0
        else:
            part = parts[place]
            yield *about, division.grouping.groups[place], part or "train", int(bool(part))
