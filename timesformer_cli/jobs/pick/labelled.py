"""What is labelled already: rows of vectors that annotations name."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.datasets.layout import read_stored
from timesformer_cli.errors import InputError
from timesformer_cli.flow import Part, overlap
from timesformer_cli.jobs.pick.candidates import rows_of
from timesformer_cli.jobs.reporter import Reporter
from timesformer_cli.results.vectors.reading import VectorFile
from timesformer_cli.text import named


def labelled_rows(annotations: Path, file: VectorFile, report: Reporter) -> NDArray[np.int64]:
    """The rows, int64, sorted, that overlap what has a label: if it is a whole video, these are all of its segments.

    `annotations` have any format. Rows without a label do not count.

    Raises:
        UsageError, InputError: the annotations are not understood, have no label, or are about different videos.
    """
    rows: dict[str, list[tuple[int, Part]]] = {}
    for number, row in enumerate(rows_of(file)):
        rows.setdefault(row.path, []).append((number, (row.start, row.end)))
    source = read_stored(str(file.path), list(rows), annotations, "auto", frames=False, group_column=None)
    labelled = [row for row in source.rows if row.labels]
    if not labelled:
        raise InputError(f"{annotations}: has no row with a label; leave out `labelled` if nothing is labelled yet")
    known: set[int] = set()
    others: list[str] = []
    for one in labelled:
        found = {number for path in source.find(one.name) for number, part in rows[path] if overlap(part, one.part)}
        known |= found
        if not found:
            others.append(named(one.name, *one.part))
    if not known:
        raise InputError(
            f"{annotations}: none of its {len(labelled):,} labelled videos is in {file.path}, such as {others[0]!r}; "
            f"one that is there is {next(iter(rows), 'none')!r}"
        )
    if others:
        report.note(f"{len(others):,} of {len(labelled):,} labelled videos have no vector, the first: {others[0]}")
    return np.array(sorted(known), np.int64)
