"""The report of a training run: one HTML file that says how good the model is, and what would make it better."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from timesformer_cli.evaluation.report import pieces, protocol
from timesformer_cli.evaluation.run import Run
from timesformer_cli.jobs.finetune.log import Log
from timesformer_cli.jobs.finetune.report.learning import learning
from timesformer_cli.jobs.finetune.report.training_curves import Drawn, training_curves
from timesformer_cli.jobs.finetune.training import Training
from timesformer_cli.text import named

_MOST_SUSPECTS = 24

Json = dict[str, Any]


def render(training: Training, run: Run, metrics: Json, folder: Path, *, log: Log | None = None) -> str:
    """The whole report; the videos with labels to look at are read again for their pictures.

    `run` is the measurement of the model, `metrics` the content of `metrics.json`, and `log` that of the training of
    the network, if it was trained. Links to videos lead from
    `folder`. Only the element "conditions" tells of time and machine: all else is the same for the same run.
    """
    division, findings = training.division, training.findings
    facts: Json = {
        "summary": {
            name: metrics[name]
            for name in ("top_1", "mean_average_precision", "warning", "most_confused")
            if name in metrics
        },
        "base": training.base.name,
        "data": training.asked.paths["root"] or training.asked.paths["annotations"],
        "how": division.how,
        "counts": {
            "training": len(division.train),
            "measured": len(training.measured),
            "folds": int(division.folds.max()) + 1,
            "unreadable": len(training.failures),
        },
        **pieces.of_run(run),
        "curve": len(findings.curve),
        "advice": findings.advice,
        "suspects": list(_suspects(training, run, metrics["run"], folder)),
        **_disagreeing(training, run, metrics["run"], folder),
        "lines": division.lines(),
        "asked": _asked(training),
        "left_out": [
            *pieces.left_out(training.failure_rows, "problems.csv", failed=True),
            *pieces.left_out(training.problem_rows, "problems.csv", failed=False),
        ],
        "protocol": _protocol(training, run),
        "c": training.probe.choice.c,
        "candidates": [asdict(candidate) for candidate in findings.candidates],
    }
    counts = Counter(label for place in division.train.tolist() for label in training.videos.samples[place].labels)
    for label, found in enumerate(facts["classes"]):
        found["training"] = counts[label]
    network = metrics.get("network")
    drawn = Drawn()
    if log is not None and network is not None:
        drawn = training_curves(log, network["probe"], network["best_step"] if network["kept"] else 0)
    facts["trained"] = bool(drawn.loss)
    curve, table = learning(findings.curve, "mean average precision" if run.multi_label else "accuracy")
    return pieces.document(
        Path(__file__).with_name("report.html"),
        "Fine-tuning",
        run,
        facts,
        protocol.conditions(metrics),
        metrics.get("calibration"),
        **{f"training_{name}": text for name, text in asdict(drawn).items()},
        learning=curve,
        learning_table=table,
    )


def _suspects(training: Training, run: Run, conditions: Json, folder: Path) -> Iterator[Json]:
    suspects = training.findings.suspects[:_MOST_SUSPECTS]
    samples = [training.videos.samples[suspect.place] for suspect in suspects]
    cards = pieces.cards(run, [(sample.path, sample.part) for sample in samples], conditions, folder)
    for suspect, card in zip(suspects, cards, strict=True):
        yield card | {name: value for name, value in asdict(suspect).items() if name != "place"}


def _disagreeing(training: Training, run: Run, conditions: Json, folder: Path) -> Json:
    found, samples = training.findings.contradictions, training.videos.samples
    videos = [(samples[each.video].path, samples[each.video].part) for each in found]
    names = {each.nearest: named(samples[each.nearest].path, *samples[each.nearest].part) for each in found}
    return pieces.disagreeing(found, names, pieces.cards(run, videos, conditions, folder))


def _asked(training: Training) -> protocol.Rows:
    """Which data, and how it was to be divided."""
    asked, data = training.asked, training.data
    rows = [
        ("Videos", asked.paths["root"]),
        ("Annotations", asked.paths["annotations"]),
        ("Annotations, sha256", data.train.checksum),
        ("Split", data.train.split),
        ("Format", data.train.format),
        ("Label map", asked.paths["label_map"]),
        ("Validation", asked.val),
        ("Groups", asked.group_by),
        ("Videos for each class, at most", asked.shots),
        ("Seed", asked.seed),
    ]
    return [(term, str(value)) for term, value in rows if value is not None]


def _protocol(training: Training, run: Run) -> protocol.Rows:
    """From what the model was made, and how."""
    return [
        *protocol.model_of("Base model", training.provenance),
        ("Method", training.method),
        ("Weight of the classes", "the same for each class" if training.balance else "by their videos"),
        ("Regularisation", f"C = {training.probe.choice.c:g}"),
        *protocol.recipe_of(run.provenance),
        *((f"New {name}", f"sha256 {digest}") for name, digest in (run.provenance.weights or {}).items()),
        ("Version", f"timesformer-cli {run.provenance.version}"),
    ]
