"""Files of vectors, made of videos or of numbers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.flow import Failure, Item
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.results.journal import Holdings, finishing, write_final
from timesformer_cli.results.logits import pack
from timesformer_cli.results.settings import Combination, Provenance, VectorKind, provenance_of
from timesformer_cli.specs import Timeline
from timesformer_cli.video.inputs import find

Row = tuple[str, float | None, float | None]


def save(path: Path, rows: Sequence[Row], vectors: NDArray[np.float32], provenance: Provenance) -> Path:
    """Write vectors (N, D) of these paths and times; the rows of a video follow each other."""
    records: dict[str, dict[str, Any]] = {}
    for (name, start, end), vector in zip(rows, vectors, strict=True):
        record = records.setdefault(name, {"path": name, "status": "ok", "model": provenance.model, "_embeddings": []})
        record["_embeddings"].append(pack(vector))
        if provenance.vectors is not None and provenance.vectors.feature == "frames":
            record.setdefault("_frames", []).append({"times": [0.0], "numbers": [0]})
        if start is not None:
            record.setdefault("segments", []).append({"start": start, "end": end})
    holds = Holdings()
    for record in records.values():
        holds = holds.and_record(record)
    with finishing(path, provenance, holds):
        write_final(path, path.suffix[1:], provenance, list(records.values()))  # type: ignore[arg-type]
    return path


def numbers(path: Path, rows: Sequence[Row], vectors: NDArray[np.float32], **kind: Any) -> Path:
    """A file of these vectors, of a model that does not exist."""
    provenance = Provenance(
        model="none",
        source="none",
        labels=(),
        recipe=Combination("original", "logits"),
        weights={"model.safetensors": "ab" * 32},
        vectors=VectorKind(dimension=vectors.shape[1], **kind),
    )
    return save(path, rows, vectors, provenance)


def embedded(path: Path, inputs: Sequence[str], model: str, timeline: Timeline | None = None) -> Path:
    """The class tokens of videos, of each as a whole or of its segments."""
    checkpoint = resolve(model)
    rows: list[Row] = []
    vectors = []
    items: list[Item] = list(find(inputs))
    with score_all(items, checkpoint, RunOptions(workers=0), timeline=timeline, output="embedding") as scored:
        for each in scored:
            assert not isinstance(each, Failure)
            rows.append((each.item.path, *((each.span.start, each.span.end) if timeline else (None, None))))
            vectors.append(each.logits.mean(0))
    made = provenance_of(checkpoint, None, precision="fp32", frame_rate=30.0, timeline=timeline)
    dimension = checkpoint.config.hidden_size
    return save(path, rows, np.stack(vectors), replace(made, labels=(), vectors=VectorKind(dimension=dimension)))
