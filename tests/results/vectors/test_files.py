"""Files of vectors: what other tools read in them, what our reader gives back, and what it refuses."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from timesformer_cli.errors import InputError, OutputError, UsageError
from timesformer_cli.files import locked
from timesformer_cli.results.journal import Holdings, finishing, meta_of, write_final
from timesformer_cli.results.logits import pack
from timesformer_cli.results.settings import Combination, Provenance, Shard, VectorKind
from timesformer_cli.results.vectors.reading import VectorFile, open_vectors
from timesformer_cli.results.vectors.rows import VECTOR_FORMATS, VectorRow, rows_in
from timesformer_cli.results.vectors.writing import save_vectors

D = 5
KIND = VectorKind(dimension=D)
PROVENANCE = Provenance(
    model="tiny",
    source="tiny",
    labels=("w", "x"),
    recipe=Combination("original", "logits"),
    version="1",
    weights={"model.safetensors": "ab" * 32},
    vectors=KIND,
)
PATHS = ("a\nb/ä 太極 🎬.mp4", "caf\udce9.mp4", "broken, \"no\" 'video'.mp4", "x" * 50 + ".mp4")
FAILED = PATHS[2]
TEXTS = ("jsonl", "csv")
ARRAYS = ("npz", "npy")


def vectors(count: int = 4) -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(size=(count, D)).astype(np.float32)


def records() -> list[dict[str, Any]]:
    """Three videos: two as segments, one as a whole, and a failed one between them."""
    values = vectors()
    head = {"status": "ok", "model": "tiny"}
    spans = [{"start": 0.0, "end": 8.5}, {"start": 4.25, "end": 12.75}]
    error = {"kind": "decode", "message": 'line\n"quoted" 太'}
    return [
        {"path": PATHS[0], **head, "segments": spans, "_embeddings": [pack(values[0]), pack(values[1])]},
        {"path": PATHS[1], **head, "_embeddings": [pack(values[2])]},
        {"path": FAILED, "status": "error", "model": "tiny", "error": error},
        {"path": PATHS[3], "start": 1.5, "end": 3.0, **head, "_embeddings": [pack(values[3])]},
    ]


def made(folder: Path, format: str, kind: VectorKind = KIND, rows: list[dict[str, Any]] | None = None) -> Path:
    path = folder / f"v.{format}"
    found = records() if rows is None else rows
    holds = Holdings()
    for record in found:
        holds = holds.and_record(record)
    provenance = replace(PROVENANCE, vectors=kind)
    with finishing(path, provenance, holds):
        write_final(path, format, provenance, found)  # type: ignore[arg-type]
    return path


SPANS = [(0.0, 8.5), (4.25, 12.75), (None, None), (1.5, 3.0)]
OWNERS = [PATHS[0], PATHS[0], PATHS[1], PATHS[3]]


@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_all_that_was_written_is_read_back(tmp_path: Path, format: str) -> None:
    file = open_vectors(made(tmp_path, format))
    assert file.count == 4
    assert file.kind == KIND
    assert (file.provenance.model, file.provenance.weights) == ("tiny", {"model.safetensors": "ab" * 32})
    np.testing.assert_array_equal(np.concatenate([block for _, block in file.blocks(3)]), vectors())
    starts = [0, 3] if format != "parquet" else [0]
    assert [first for first, _ in file.blocks(3)] == starts
    rows = file.rows(range(4))
    assert [row.path for row in rows] == OWNERS
    assert [(row.start, row.end) for row in rows] == SPANS
    assert [row.path for row in file.rows([3, 0])] == [PATHS[3], PATHS[0]]
    np.testing.assert_array_equal(file.take([3, 0, 3]), vectors()[[3, 0, 3]])
    assert [file.find(path).tolist() for path in (*PATHS, "absent.mp4")] == [[0, 1], [2], [], [3], []]


@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_entries_keep_the_failed_where_the_format_has_a_place_for_them(tmp_path: Path, format: str) -> None:
    entries = list(open_vectors(made(tmp_path, format)).entries())
    good = [row for row in entries if row.vector is not None]
    np.testing.assert_array_equal([row.vector for row in good], vectors())
    assert [row.video for row in good] == [0, 0, 1, 3]
    failed = [(row.video, row.path, row.error_kind, row.error_message) for row in entries if row.vector is None]
    assert failed == ([] if format in ARRAYS else [(2, FAILED, "decode", 'line\n"quoted" 太')])


@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_frames_have_times_and_numbers(tmp_path: Path, format: str) -> None:
    values = vectors(6)
    shown = [{"times": [0.0, 0.5], "numbers": [0, 15]}, {"times": [4.25], "numbers": [127]}]
    record = records()[0] | {"_embeddings": [pack(values[:2]), pack(values[2:3])], "_frames": shown}
    file = open_vectors(made(tmp_path, format, replace(KIND, feature="frames"), [record]))
    np.testing.assert_array_equal(next(file.blocks())[1], values[:3])
    assert [(row.start, row.time, row.frame) for row in file.rows(range(3))] == [
        (0.0, 0.0, 0),
        (0.0, 0.5, 15),
        (4.25, 4.25, 127),
    ]
    assert [(row.time, row.frame) for row in file.entries()] == [(0.0, 0), (0.5, 15), (4.25, 127)]


@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_half_precision_and_unit_length(tmp_path: Path, format: str) -> None:
    half = open_vectors(made(tmp_path, format, replace(KIND, dtype="float16")))
    block = next(half.blocks())[1]
    assert block.dtype == np.float32
    np.testing.assert_array_equal(block, vectors().astype(np.float16))
    unit = next(open_vectors(made(tmp_path, format, replace(KIND, normalized=True))).blocks())[1]
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(unit * np.linalg.norm(vectors(), axis=1)[:, None], vectors(), rtol=1e-6)


@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_a_run_in_which_every_video_failed(tmp_path: Path, format: str) -> None:
    file = open_vectors(made(tmp_path, format, rows=[records()[2]]))
    assert file.count == 0
    assert sum(len(block) for _, block in file.blocks()) == 0
    assert file.find(FAILED).tolist() == []
    assert [row.path for row in file.entries()] == ([] if format in ARRAYS else [FAILED])


@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_a_vector_of_zeros_stays_so(tmp_path: Path, format: str) -> None:
    zeros = records()[1] | {"_embeddings": [pack(np.zeros(D, np.float32))]}
    file = open_vectors(made(tmp_path, format, replace(KIND, normalized=True), [zeros]))
    np.testing.assert_array_equal(next(file.blocks())[1], np.zeros((1, D)))


def test_parquet_as_other_tools_see_it(tmp_path: Path) -> None:
    path = made(tmp_path, "parquet")
    table = parquet.read_table(path)
    assert table.schema.names == ["path", "start", "end", "embedding", "error_kind", "error_message"]
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), D)
    assert table["embedding"].null_count == 1
    assert table["start"].to_pylist() == [0.0, 4.25, None, None, 1.5]
    assert table["error_kind"].to_pylist() == [None, None, None, "decode", None]
    stated = json.loads(table.schema.metadata[b"timesformer"])
    assert stated["model"] == "tiny"
    assert stated["weights_sha256"] == {"model.safetensors": "ab" * 32}
    assert stated["vectors"] == {"feature": "cls", "dimension": D, "dtype": "float32", "normalized": False}
    assert (stated["recipe"]["name"], stated["views"], stated["version"]) == ("original", "mean", "1")
    half = parquet.read_schema(made(tmp_path, "parquet", replace(KIND, dtype="float16")))
    assert half.field("embedding").type == pyarrow.list_(pyarrow.float16(), D)


def test_npz_as_numpy_sees_it(tmp_path: Path) -> None:
    with np.load(made(tmp_path, "npz"), allow_pickle=False) as file:
        found = dict(file)
    shapes = {name: (array.dtype.str, array.shape) for name, array in found.items() if name != "timesformer"}
    assert shapes == {
        "embedding": ("<f4", (4, D)),
        "path": ("<U54", (4,)),
        "start": ("<f8", (4,)),
        "end": ("<f8", (4,)),
        "video": ("<i8", (4,)),
    }
    assert np.isnan(found["start"]).tolist() == [False, False, True, False]
    assert json.loads(str(found["timesformer"]))["model"] == "tiny"


def test_npy_is_mapped_and_its_rows_lie_beside_it(tmp_path: Path) -> None:
    path = made(tmp_path, "npy")
    array = np.load(path, mmap_mode="r")
    np.testing.assert_array_equal(array, vectors())
    lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert lines[2] == {"path": PATHS[1], "start": None, "end": None, "video": 1}
    assert [line["path"] for line in lines] == OWNERS


def test_json_lines_have_the_digits_that_matter(tmp_path: Path) -> None:
    value = records()[1] | {"_embeddings": [pack(np.array([0.1, -1e-30, 1e8, 2, 0], np.float32))]}
    (line,) = made(tmp_path, "jsonl", rows=[value]).read_text().splitlines()
    assert '"embedding": [0.1, -1e-30, 1e+08, 2.0, 0.0]' in line
    failed = json.loads(made(tmp_path, "jsonl").read_text().splitlines()[3])
    assert failed["embedding"] is None
    assert failed["error_kind"] == "decode"


def test_csv_is_read_by_csv(tmp_path: Path) -> None:
    with made(tmp_path, "csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["path", "start", "end", "embedding", "error_kind", "error_message"]
    np.testing.assert_array_equal(np.array(json.loads(lines[0]["embedding"]), np.float32), vectors()[0])
    assert lines[3]["embedding"] == ""


def test_more_rows_than_a_row_group(tmp_path: Path) -> None:
    count = 20_005
    values = np.arange(count * D, dtype=np.float32).reshape(count, D)
    rows = (VectorRow(n, f"{n // 2}.mp4", None if n % 1000 == 7 else values[n], 0.0, 1.0,
                      error_kind="decode" if n % 1000 == 7 else None) for n in range(count))  # fmt: skip
    save_vectors(tmp_path / "v.parquet", rows, PROVENANCE, format="parquet")
    assert parquet.read_metadata(tmp_path / "v.parquet").num_row_groups == 3
    file = open_vectors(tmp_path / "v.parquet")
    good = np.array([n for n in range(count) if n % 1000 != 7])
    assert file.count == len(good)
    assert [first for first, _ in file.blocks()] == [0, 9990, 19980]
    np.testing.assert_array_equal(np.concatenate([block for _, block in file.blocks()]), values[good])
    wanted = [19984, 3, 9990, 9989, 7]
    np.testing.assert_array_equal(file.take(wanted), values[good[wanted]])
    assert [row.path for row in file.rows(wanted)] == [f"{n // 2}.mp4" for n in good[wanted]]
    assert file.find("3.mp4").tolist() == [6]  # row 7 failed
    assert [row.path for row in file.rows([6, 7])] == ["3.mp4", "4.mp4"]


@pytest.mark.parametrize("format", ["parquet", "npz"])
def test_the_settings_travel_inside(tmp_path: Path, format: str) -> None:
    path = made(tmp_path, format)
    meta_of(path).unlink()
    assert open_vectors(path).provenance == replace(PROVENANCE, labels=())


def test_shards_state_the_same_settings(tmp_path: Path) -> None:
    for number in (1, 2):
        of_shard = replace(PROVENANCE, shard=Shard(number, 2))
        save_vectors(tmp_path / f"{number}.parquet", rows_in(records()), of_shard, format="parquet")
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path, format: str, dtype: Any) -> None:
    bad = np.array([1, 2, 3, 4, 1e6 if dtype == "float16" else np.nan], np.float32)
    record = records()[1] | {"_embeddings": [pack(bad)]}
    with pytest.raises(OutputError, match=rf"caf\udce9.mp4: its vector has numbers that are not finite in {dtype}"):
        made(tmp_path, format, replace(KIND, dtype=dtype), [record])
    assert [*tmp_path.iterdir()] == []


class TestRefused:
    """One line each: what is wrong, with which file, and what to do."""

    def refused(self, path: Path, reason: str) -> None:
        with pytest.raises(InputError, match=reason) as error:
            self.used(open_vectors(path))
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)

    def used(self, file: VectorFile) -> None:
        list(file.blocks())
        file.rows(range(file.count))
        list(file.entries())

    def test_another_extension(self) -> None:
        with pytest.raises(
            UsageError,
            match=r"v\.txt: is no file of vectors, whose names end in \.parquet, \.npz, \.npy, \.jsonl, \.csv",
        ):
            open_vectors(Path("v.txt"))

    def test_nothing_there(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "v.npz", "no such file")
        (tmp_path / "w.npz").mkdir()
        self.refused(tmp_path / "w.npz", "is a folder")

    @pytest.mark.parametrize("format", VECTOR_FORMATS)
    def test_empty(self, tmp_path: Path, format: str) -> None:
        path = made(tmp_path, format)
        path.write_bytes(b"")
        self.refused(path, "is empty")

    @pytest.mark.parametrize("format", VECTOR_FORMATS)
    def test_damaged(self, tmp_path: Path, format: str) -> None:
        path = made(tmp_path, format)
        path.write_bytes(path.read_bytes()[:150])
        self.refused(path, "cannot be read as a file of vectors")

    @pytest.mark.parametrize("format", TEXTS)
    def test_cut_off_behind_a_row(self, tmp_path: Path, format: str) -> None:
        path = made(tmp_path, format)
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        self.refused(path, "it has 3 of 4 videos")

    @pytest.mark.parametrize("format", VECTOR_FORMATS)
    def test_being_written(self, tmp_path: Path, format: str) -> None:
        path = made(tmp_path, format)
        with locked(path):
            self.refused(path, "another run is writing to it")
        open_vectors(path)

    def test_interrupted(self, tmp_path: Path) -> None:
        (tmp_path / "v.npz.part.jsonl").touch()
        self.refused(tmp_path / "v.npz", "complete it with `resume`")

    @pytest.mark.parametrize("format", ["npy", *TEXTS])
    def test_settings_missing_beside(self, tmp_path: Path, format: str) -> None:
        path = made(tmp_path, format)
        meta_of(path).unlink()
        self.refused(path, rf"v\.{format}\.meta\.json, which holds its settings, is missing")

    def test_settings_missing_inside(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "v.npz", embedding=vectors())
        self.refused(tmp_path / "v.npz", "has no settings")
        parquet.write_table(pyarrow.table({"embedding": [[1.0]]}), tmp_path / "v.parquet")
        self.refused(tmp_path / "v.parquet", "has no settings")

    @pytest.mark.parametrize("format", ["npy", *TEXTS])
    def test_settings_of_labels(self, tmp_path: Path, format: str) -> None:
        path = made(tmp_path, format)
        meta = json.loads(meta_of(path).read_bytes())
        del meta["settings"]["vectors"]
        meta_of(path).write_text(json.dumps(meta))
        self.refused(path, "not those of vectors")

    def test_another_dimension(self, tmp_path: Path) -> None:
        path = made(tmp_path, "npy")
        np.save(path, vectors()[:, :3])
        self.refused(path, r"float32 \[4, 3\].*float32 \[any, 5\]")

    def test_rows_of_another_array(self, tmp_path: Path) -> None:
        path = made(tmp_path, "npy")
        path.with_suffix(".jsonl").write_text('{"path": "a"}\n')
        self.refused(path, "v.jsonl has 1 rows for 4 vectors")
        path.with_suffix(".jsonl").unlink()
        self.refused(path, "v.jsonl, which holds the paths and times of its rows, is missing")

    def test_not_finite(self, tmp_path: Path) -> None:
        path = made(tmp_path, "npy")
        values = vectors()
        values[2, 1] = np.inf
        np.save(path, values)
        self.refused(path, "the vector of caf\udce9.mp4 has numbers that are not finite")


def test_reading_a_stored_row_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from timesformer_cli.results.vectors.reading import open_vectors;"
        "print(open_vectors(Path(sys.argv[1])).count, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(made(tmp_path, "npy"))]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "4 False\n"


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from timesformer_cli.results.settings import Combination, Provenance, VectorKind
from timesformer_cli.results.vectors.rows import VectorRow
from timesformer_cli.results.vectors.writing import save_vectors
count, path = int(sys.argv[1]), Path(sys.argv[2])
kind = VectorKind(dimension=2048)
provenance = Provenance(model="m", source="m", labels=(), recipe=Combination("o", "logits"), vectors=kind)
vector = np.random.default_rng(0).normal(size=2048).astype(np.float32)
rows = (VectorRow(n, f"clips/{n}.mp4", vector + np.float32(n)) for n in range(count))
save_vectors(path, rows, provenance, format=path.suffix[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("format", ["npz", "npy"])
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path, format: str) -> None:
    def peak(count: int) -> int:
        command = [sys.executable, "-c", MEMORY, str(count), str(tmp_path / f"v.{format}")]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # 4,000 rows are 32 MB; Parquet holds 10,000.
    assert peak(5000) - peak(1000) < 12_000


def test_rows_raise_what_they_raise(tmp_path: Path) -> None:
    """An error of whoever makes the rows comes out as it is, and the old file stays."""

    def broken() -> Iterator[VectorRow]:
        yield VectorRow(0, "a.mp4", vectors()[0])
        raise OutputError("the journal cannot be read")

    for format in VECTOR_FORMATS:
        path = tmp_path / f"v.{format}"
        path.write_bytes(b"old")
        with pytest.raises(OutputError, match="journal"):
            save_vectors(path, broken(), PROVENANCE, format=format)
        assert path.read_bytes() == b"old"
