"""The calibration of a new model, from the scores of the videos that measure it."""

from pathlib import Path
from typing import Any

from timesformer_cli.evaluation import calibration_file
from timesformer_cli.evaluation.calibration import Calibration
from timesformer_cli.files import told
from timesformer_cli.flow import WHOLE
from timesformer_cli.jobs.calibrate import of_scores
from timesformer_cli.jobs.finetune.model_folder import described
from timesformer_cli.jobs.finetune.training import Training
from timesformer_cli.jobs.reporter import Reporter
from timesformer_cli.specs import Checkpoint


def calibrated(training: Training, report: Reporter) -> Calibration | None:
    """The temperatures of the new model, from the videos that measure it; None if these cannot tell."""
    videos, measured = training.videos, training.measured
    found = of_scores(
        training.answers.logits,
        videos.targets[measured],
        training.division.groups[measured],
        described(training.base, videos.names, multi_label=videos.multi_label)[1],
    )
    if isinstance(found, Calibration):
        return found
    report.note(f"scores were not calibrated: {found}")
    return None


def write_calibration(
    model: Path, checkpoint: Checkpoint, training: Training, found: Calibration | None
) -> dict[str, Any] | None:
    """Write the calibration beside the new model, or remove that of an earlier one; returns what `metrics.json` has.

    Raises OutputError.
    """
    if found is None:
        with told(model):
            (model / calibration_file.FILE).unlink(missing_ok=True)
        return None
    figures = calibration_file.figures(found, grouped_by=training.division.grouping.rule)
    about = {"model": checkpoint.name, **figures, "measured_by": training.division.how}
    parts = [training.videos.samples[place].part for place in training.measured.tolist()]
    calibration_file.write(model, found, about, checkpoint.recipe, whole_videos=WHOLE in parts)
    return figures
