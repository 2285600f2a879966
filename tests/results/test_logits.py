"""Saved logits: what other tools read back, and what stays in memory meanwhile."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from timesformer_cli.errors import OutputError, UsageError
from timesformer_cli.results.logits import (
    ROWS_IN_A_GROUP,
    LogitsRow,
    check_logits_target,
    pack,
    save_logits,
    unpack,
)

LABELS = ("archery", "größer, 太極", "")
PATHS = ("clips/a.mp4", "a\nb/ä 太極 🎬.mp4", "caf\udce9.mp4", "x" * 300)
FORMATS = (".npz", ".parquet")


def rows(count: int = len(PATHS)) -> list[LogitsRow]:
    values = np.random.default_rng(0).normal(size=(count, len(LABELS))).astype(np.float32)
    return [LogitsRow(PATHS[i % len(PATHS)], i + 0.1, 2 * i + 0.7, values[i]) for i in range(count)]


def read(path: Path, format: str) -> dict[str, Any]:
    """The arrays of either format."""
    if format == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    table = parquet.read_table(path)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return columns | {"labels": json.loads(table.schema.metadata[b"labels"])}


@pytest.mark.parametrize("format", FORMATS)
def test_all_that_was_saved_is_read_back(tmp_path: Path, format: str) -> None:
    saved = rows()
    save_logits(tmp_path / "out.part", iter(saved), LABELS, format=format, activation="softmax")
    found = read(tmp_path / "out.part", format)
    np.testing.assert_array_equal(np.asarray(found["logits"], np.float32), [row.logits for row in saved])
    assert list(found["start"]) == [row.start for row in saved]
    assert list(found["end"]) == [row.end for row in saved]
    assert list(found["labels"]) == list(LABELS)
    assert [*tmp_path.iterdir()] == [tmp_path / "out.part"]


def test_types_of_npz(tmp_path: Path) -> None:
    save_logits(tmp_path / "out.npz", rows(), LABELS, format=".npz", activation="softmax")
    found = read(tmp_path / "out.npz", ".npz")
    shapes = {name: (array.dtype.str, array.shape) for name, array in found.items()}
    assert shapes == {
        "logits": ("<f4", (4, 3)),
        "start": ("<f8", (4,)),
        "end": ("<f8", (4,)),
        "path": ("<U300", (4,)),
        "labels": ("<U10", (3,)),
        "activation": ("<U7", ()),
    }


def test_types_of_parquet(tmp_path: Path) -> None:
    save_logits(tmp_path / "out.parquet", rows(), LABELS, format=".parquet", activation="softmax")
    schema = parquet.read_schema(tmp_path / "out.parquet")
    assert [str(kind) for kind in schema.types] == [
        "string",
        "double",
        "double",
        "fixed_size_list<element: float>[3]",
    ]


def test_paths_are_kept_to_the_byte_in_npz_and_as_in_csv_in_parquet(tmp_path: Path) -> None:
    for format in FORMATS:
        save_logits(tmp_path / f"out{format}", rows(), LABELS, format=format, activation="softmax")
    assert list(read(tmp_path / "out.npz", ".npz")["path"]) == list(PATHS)
    assert read(tmp_path / "out.parquet", ".parquet")["path"] == [*PATHS[:2], "caf\\udce9.mp4", PATHS[3]]


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_in_which_every_video_failed(tmp_path: Path, format: str) -> None:
    save_logits(tmp_path / "out", [], LABELS, format=format, activation="softmax")
    found = read(tmp_path / "out", format)
    assert np.asarray(found["logits"]).size == len(found["path"]) == 0
    assert list(found["labels"]) == list(LABELS)


def test_more_rows_than_a_row_group(tmp_path: Path) -> None:
    saved = rows(2 * ROWS_IN_A_GROUP + 5)
    save_logits(tmp_path / "out", saved, LABELS, format=".parquet", activation="softmax")
    assert parquet.read_metadata(tmp_path / "out").num_row_groups == 3
    assert read(tmp_path / "out", ".parquet")["logits"] == [row.logits.tolist() for row in saved]


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from timesformer_cli.results.logits import LogitsRow, save_logits
count, format, path = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
logits = np.random.default_rng(0).normal(size=400).astype(np.float32)
rows = (LogitsRow(f"clips/{n}.mp4", 0.0, 10.0, logits + np.float32(n)) for n in range(count))
save_logits(path, rows, [f"label {n}" for n in range(400)], format=format, activation="softmax")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("format", FORMATS)
def test_memory_does_not_grow_with_the_number_of_videos(tmp_path: Path, format: str) -> None:
    def peak(count: int) -> int:
        command = [sys.executable, "-c", MEMORY, str(count), format, str(tmp_path / "out")]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # 60,000 rows are 96 MB; the allocator takes its time to settle.
    assert peak(80_000) - peak(20_000) < 40_000


@pytest.mark.parametrize("format", FORMATS)
def test_a_failed_write_is_an_os_error_and_leaves_nothing_aside(tmp_path: Path, format: str) -> None:
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "exec(sys.stdin.read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "5000", format, str(tmp_path / "out")],
        input=MEMORY,
        capture_output=True,
        text=True,
    )
    assert "OSError: [Errno 27]" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == []


def test_the_rows_raise(tmp_path: Path) -> None:
    """An error of whoever makes the rows comes out as it is."""

    def broken() -> Iterator[LogitsRow]:
        yield from rows()
        raise OutputError("the journal cannot be read")

    for format in FORMATS:
        with pytest.raises(OutputError, match="journal"):
            save_logits(tmp_path / "out", broken(), LABELS, format=format, activation="softmax")


def test_packed_logits_are_the_same_to_the_bit() -> None:
    values = np.array([0.1, -1e38, 1e-45, np.inf, -0.0], np.float32)
    text = pack(values)
    assert json.loads(json.dumps(text)) == text
    assert unpack(text).tobytes() == values.tobytes()
    assert unpack(text).dtype == np.float32
    assert pack(values[::2]) == pack(values[::2].copy())


@pytest.mark.parametrize("name", ["out.npz", "OUT.NPZ", "out.parquet", "a.b/out.Parquet"])
def test_a_good_target(name: str) -> None:
    check_logits_target(Path(name))


@pytest.mark.parametrize("name", ["out", "out.npy", "out.npz.gz", "folder.npz/out"])
def test_a_target_of_no_known_format(name: str) -> None:
    with pytest.raises(UsageError, match=r"saved as \.npz or \.parquet"):
        check_logits_target(Path(name))


def test_parquet_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OutputError, match="pip install"):
        check_logits_target(Path("out.parquet"))
    check_logits_target(Path("out.npz"))
