"""Results survive any stop: torn lines, failing disks, kills, other settings, and videos that are tried again."""

import errno
import json
import os
import random
import re
import signal
import time
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testing.clips import write_model, write_video
from testing.command import COMMAND, Run, only_line, started
from timesformer_cli.errors import OutputError
from timesformer_cli.files import PathSet
from timesformer_cli.results.journal import Ledger, journal_of, meta_of, read_meta
from timesformer_cli.results.record import CSV_COLUMNS, identity
from timesformer_cli.results.settings import Combination, Provenance
from timesformer_cli.results.writers import FORMATS, Format

PROVENANCE = Provenance(
    model="tiny",
    source="tiny",
    labels=("w", "x"),
    recipe=Combination("original", "logits"),
    weights={"model.safetensors": "0123"},
)
DURABLE = tuple(format for format in FORMATS if format != "table")
PATHS = [f"clips/größer {number}.mp4" for number in range(4)]


def record(path: str, *, error: bool = False) -> dict[str, Any]:
    if error:
        return {"path": path, "status": "error", "model": "tiny", "error": {"kind": "decode", "message": "é"}}
    scores = [{"rank": rank, "index": 1, "label": "x", "score": 0.1} for rank in (1, 2)]
    video = {"duration": 1.0, "fps": None, "frames": 3, "width": 4, "height": 5, "codec": "h264"}
    return {"path": path, "status": "ok", "model": "tiny", "predictions": scores, "video": video, "recipe": "original"}


def go_on(
    target: Path,
    format: Format = "jsonl",
    *,
    errors: tuple[str, ...] = (),
    stop: int | None = None,
    retry: bool = False,
    paths: list[str] = PATHS,
) -> list[str]:
    """A run that resumes, and is stopped before its `stop`-th video; the paths that it labelled."""
    ledger = Ledger(target, format, PROVENANCE)
    ledger.resume(retry_errors=retry)
    labelled: list[str] = []
    try:
        if ledger.finished:
            ledger.check_finished(paths)
            paths = []
        for path in paths:
            if len(labelled) == stop:
                return labelled
            if path not in ledger:
                ledger.write(record(path, error=path in errors))
                labelled.append(path)
        ledger.finish()
    finally:
        ledger.close()
    return labelled


def stopped(target: Path) -> None:
    """A run that is stopped by Ctrl-C after its last record."""
    with Ledger(target, "jsonl", PROVENANCE) as ledger:
        for path in PATHS:
            ledger.write(record(path))
        raise KeyboardInterrupt


def contents(target: Path) -> bytes:
    """Without the time when a page was made."""
    assert sorted(os.listdir(target.parent)) == [target.name, f"{target.name}.meta.json"]
    return re.sub(rb'"date":"[^"]*"', b"", target.read_bytes())


@pytest.fixture
def new(tmp_path: Path) -> Any:
    """Makes the path of an output in a folder of its own."""

    def make(format: Format) -> Path:
        folder = tmp_path / str(len(os.listdir(tmp_path)))
        folder.mkdir()
        return folder / f"out.{format}"

    return make


class TestResume:
    @pytest.mark.parametrize("format", DURABLE)
    @pytest.mark.parametrize("stop", range(5))
    def test_a_stop_after_any_record(self, new: Any, format: Format, stop: int) -> None:
        whole, target = new(format), new(format)
        go_on(whole, format, errors=(PATHS[1],))
        first = go_on(target, format, errors=(PATHS[1],), stop=stop)
        assert first + go_on(target, format, errors=(PATHS[1],)) == PATHS
        assert contents(target) == contents(whole)

    @pytest.mark.parametrize(("format", "step"), [("jsonl", 1), ("csv", 16)])
    def test_a_torn_line_at_every_byte(
        self, new: Any, format: Format, step: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a thousand times
        whole = new(format)
        go_on(whole, format)
        target = new(format)
        go_on(target, format, stop=2)
        journal = journal_of(target, grows=format == "jsonl")
        lines = journal.read_bytes()
        start = lines.index(b"\n") + 1
        for end in range(start, len(lines), step):
            target.unlink(missing_ok=True)
            journal.write_bytes(lines[:end])
            assert go_on(target, format) == PATHS[1:]
            assert contents(target) == contents(whole)
        assert read_meta(target) == read_meta(whole)

    @pytest.mark.parametrize(
        "tail",
        [
            b"\0" * 5000,
            b"\0\n\0\n",
            b'{"path": "clips',
            b"\0" * 100 + b'"}\n{"path": "clips/later.mp4", "status": "ok"}\n',  # blocks are not written in order
        ],
    )
    def test_what_a_power_cut_leaves(self, new: Any, tail: bytes) -> None:
        target, whole = new("jsonl"), new("jsonl")
        go_on(whole)
        go_on(target, stop=3)
        with target.open("ab") as file:
            file.write(tail)
        assert go_on(target) == PATHS[3:]
        assert contents(target) == contents(whole)

    def test_nothing_is_cut_off_before_something_is_written(self, new: Any) -> None:
        target = new("jsonl")
        go_on(target, errors=(PATHS[0],))
        go_on(target, stop=1, retry=True)
        files = [target, target.with_name("out.jsonl.retry.jsonl")]
        for path in files:
            with path.open("ab") as file:
                file.write(b'{"path": "torn')
        before = [path.read_bytes() for path in files]
        ledger = Ledger(target, "jsonl", PROVENANCE)
        ledger.resume(retry_errors=True)
        assert [path.read_bytes() for path in files] == before
        ledger.finish()  # with nothing left to write
        whole = new("jsonl")
        go_on(whole)
        assert contents(target) == contents(whole)

    @pytest.mark.parametrize("format", DURABLE)
    def test_a_finished_output_stays_as_it_is(self, new: Any, format: Format) -> None:
        target = new(format)
        go_on(target, format)
        before = contents(target)
        assert go_on(target, format) == []
        assert contents(target) == before

    @pytest.mark.parametrize("format", ["csv", "parquet", "json", "html"])
    def test_a_finished_table_takes_no_more(self, new: Any, format: Format) -> None:
        target = new(format)
        go_on(target, format)
        for others in ([*PATHS, "new.mp4"], PATHS[:-1], [*PATHS[:-1], "new.mp4"]):
            with pytest.raises(OutputError, match="cannot be extended, so name another"):
                go_on(target, format, paths=others)

    def test_finished_lines_take_more(self, new: Any) -> None:
        target, whole = new("jsonl"), new("jsonl")
        go_on(target, paths=PATHS[:2])
        assert go_on(target, stop=1) == PATHS[2:3]
        assert read_meta(target)[1] is None  # no longer finished
        go_on(target)
        go_on(whole)
        assert contents(target) == contents(whole)
        assert read_meta(target) == read_meta(whole)

    def test_what_a_finished_output_holds(self, new: Any) -> None:
        target = new("jsonl")
        go_on(target, errors=(PATHS[1],))
        holds = read_meta(target)[1]
        assert holds is not None
        assert (holds.videos, holds.failed) == (4, 1)
        go_on(target, retry=True)
        again = read_meta(target)[1]
        assert again is not None
        assert (again.videos, again.failed, again.paths) == (4, 0, holds.paths)

    def test_a_damaged_line_is_not_thrown_away_with_what_follows(self, new: Any) -> None:
        target = new("jsonl")
        go_on(target)
        text = target.read_bytes().replace(b"{", b"<", 1)
        target.write_bytes(text)
        with pytest.raises(OutputError, match="line 1 is not a record"):
            go_on(target)
        assert target.read_bytes() == text

    def test_settings_that_differ_are_named(self, new: Any) -> None:
        target = new("jsonl")
        go_on(target, stop=1)
        other = replace(PROVENANCE, recipe=Combination("paper", "logits"))
        with pytest.raises(OutputError, match=r"different settings: recipe\.name \(original, now paper\); "):
            Ledger(target, "jsonl", other).resume(retry_errors=False)

    def test_another_activation_is_refused(self, new: Any) -> None:
        target = new("jsonl")
        go_on(target, stop=1)
        other = replace(PROVENANCE, recipe=Combination("original", "logits", "sigmoid"))
        with pytest.raises(OutputError, match=r"settings: recipe\.activation \(softmax, now sigmoid\); "):
            Ledger(target, "jsonl", other).resume(retry_errors=False)

    def test_settings_of_a_version_without_activations_are_of_a_softmax(self, new: Any) -> None:
        whole, target = new("jsonl"), new("jsonl")
        go_on(whole)
        go_on(target, stop=1)
        meta = json.loads(meta_of(target).read_bytes())
        del meta["settings"]["recipe"]["activation"]
        meta_of(target).write_text(json.dumps(meta), encoding="utf-8")
        other = replace(PROVENANCE, recipe=Combination("original", "logits", "sigmoid"))
        with pytest.raises(OutputError, match=r"recipe\.activation \(softmax, now sigmoid\)"):
            Ledger(target, "jsonl", other).resume(retry_errors=False)
        assert go_on(target) == PATHS[1:]
        assert contents(target) == contents(whole)

    def test_other_weights_are_named_by_their_file(self, new: Any) -> None:
        target = new("jsonl")
        go_on(target, stop=1)
        before = contents(target)
        other = replace(PROVENANCE, weights={"model.safetensors": "4567"})
        with pytest.raises(OutputError, match=r"different settings: the weights \(model\.safetensors\); "):
            Ledger(target, "jsonl", other).resume(retry_errors=False)
        assert contents(target) == before

    def test_settings_that_are_not_known(self, new: Any) -> None:
        target = new("jsonl")
        target.write_text("of someone else\n")
        with pytest.raises(OutputError, match="is missing or damaged"):
            go_on(target)
        assert target.read_text() == "of someone else\n"

    def test_a_full_disk_leaves_whole_lines(self, new: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        target, whole = new("jsonl"), new("jsonl")
        go_on(whole)

        class Full(FileIO):
            def write(self, data: Any) -> int:
                if self.tell() > 700:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return super().write(data[:100])

        with monkeypatch.context() as patch:
            patch.setattr("timesformer_cli.results.journal.FileIO", Full)
            with pytest.raises(OutputError, match="No space left"):
                go_on(target)
        assert [json.loads(line)["path"] for line in target.read_bytes().splitlines()] == PATHS[:2]
        assert go_on(target) == PATHS[2:]
        assert contents(target) == contents(whole)

    def test_what_a_full_disk_does_to_a_run_that_is_stopped(self, new: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full(FileIO):
            def write(self, data: Any) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("timesformer_cli.results.journal.FileIO", Full)
        target = new("jsonl")
        with pytest.raises(OutputError, match=r"out\.jsonl: cannot be written \(No space left on device\)$"):
            stopped(target)

    def test_a_stop_writes_what_waits(self, new: Any) -> None:
        target = new("jsonl")
        with pytest.raises(KeyboardInterrupt):
            stopped(target)
        assert [json.loads(line)["path"] for line in target.read_bytes().splitlines()] == PATHS

    def test_records_are_not_parsed_again(self, new: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A million of them would take a minute."""
        target, odd = new("jsonl"), os.fsdecode(b'caf\xe9 "\\ \t.mp4')
        go_on(target, paths=[odd, *PATHS], errors=(PATHS[0],))

        def parse(line: bytes) -> None:
            raise AssertionError(line)

        monkeypatch.setattr("timesformer_cli.results.journal._parse", parse)
        ledger = Ledger(target, "jsonl", PROVENANCE)
        ledger.resume(retry_errors=True)
        assert [path in ledger for path in (odd, *PATHS)] == [True, False, True, True, True]
        assert (ledger.failed, ledger.past.count) == (1, 4)

    def test_records_that_another_program_wrote_anew(self, new: Any) -> None:
        target = new("jsonl")
        go_on(target, stop=3, errors=(PATHS[0],))
        lines = target.read_text(encoding="utf-8").splitlines()
        target.write_text("".join(json.dumps(json.loads(line), sort_keys=True) + "\n" for line in lines))
        assert go_on(target, retry=True) == [PATHS[0], PATHS[3]]

    def test_a_hundred_thousand_paths(self) -> None:
        paths = [f"clips/{number}.mp4" for number in range(100_000)]
        known = PathSet()
        assert all(known.add(path) for path in paths)
        assert not known.add(paths[7])
        assert len(known) == len(paths)
        assert all(path in known for path in paths)  # those whose digest ends in a zero among them
        assert not any(f"{path}x" in known for path in paths[::100])


PARTS = [{"path": "a.mp4"}, *({"path": "a.mp4"} | times for times in ({"start": 0.1}, {"end": 2.5}))]
PARTS += [{"path": "a.mp4", "start": 1e-7, "end": 2.5}, {"path": "b.mp4", "start": 1e-7, "end": 2.5}]


def rest_of(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "path"}


@pytest.mark.parametrize("spaces", [True, False])  # as runs write them, and as another program may have left them
def test_parts_of_a_video_are_different_videos(tmp_path: Path, spaces: bool) -> None:
    path = tmp_path / "out.jsonl"
    with Ledger(path, "jsonl", PROVENANCE) as ledger:
        for number, part in enumerate(PARTS[:-1]):
            ledger.write(
                part | {name: value for name, value in record("", error=number == 1).items() if name != "path"}
            )
    meta = meta_of(path).read_bytes()
    if not spaces:
        lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines), encoding="utf-8")
    again = Ledger(path, "jsonl", PROVENANCE)
    again.resume(retry_errors=True)
    assert [identity(part) in again for part in PARTS] == [True, False, True, True, False]
    assert again.past.count == len(PARTS) - 2
    with again:
        again.write(PARTS[1] | rest_of(record("a.mp4")))
    assert [json.loads(line)["status"] for line in path.read_text(encoding="utf-8").splitlines()] == ["ok"] * 4
    assert meta_of(path).read_bytes() == meta.replace(b'"failed": 1', b'"failed": 0')


@pytest.mark.parametrize("times", ['"start": "x"', '"end": null', '"end": true'])
def test_a_record_of_a_part_at_no_time_is_none(tmp_path: Path, times: str) -> None:
    path = tmp_path / "out.jsonl"
    with Ledger(path, "jsonl", PROVENANCE) as ledger:
        ledger.write(record("a.mp4"))
    line = path.read_text(encoding="utf-8")
    path.write_text(line.replace('"a.mp4"', '"a.mp4", ' + times) + line, encoding="utf-8")
    with pytest.raises(OutputError, match="line 1 is not a record"):
        Ledger(path, "jsonl", PROVENANCE).resume(retry_errors=False)


class TestRetries:
    @pytest.mark.parametrize("stop", range(4))
    def test_as_if_they_had_never_failed(self, new: Any, stop: int) -> None:
        whole, target = new("jsonl"), new("jsonl")
        go_on(whole)
        go_on(target, errors=(PATHS[0], PATHS[2]), stop=3)
        done = go_on(target, stop=stop, retry=True)
        assert sorted(done + go_on(target, retry=True)) == [PATHS[0], PATHS[2], PATHS[3]]
        assert contents(target) == contents(whole)

    def test_a_stopped_retry_and_a_plain_resume(self, new: Any) -> None:
        whole, target = new("jsonl"), new("jsonl")
        go_on(whole, errors=(PATHS[2],))
        go_on(target, errors=(PATHS[0], PATHS[2]))
        assert go_on(target, stop=1, retry=True) == [PATHS[0]]
        assert go_on(target) == []
        assert contents(target) == contents(whole)

    def test_they_may_fail_again(self, new: Any) -> None:
        target = new("jsonl")
        go_on(target, errors=(PATHS[1],))
        before = contents(target)
        assert go_on(target, errors=(PATHS[1],), retry=True) == [PATHS[1]]
        assert contents(target) == before


def test_parquet_has_the_rows_of_csv_with_types(new: Any) -> None:
    from pyarrow import parquet

    target, odd = new("parquet"), os.fsdecode(b"caf\xe9.mp4")
    go_on(target, "parquet", paths=[odd, "b.mp4"], errors=("b.mp4",))
    table = parquet.read_table(target)
    assert tuple(table.column_names) == CSV_COLUMNS
    assert [str(table.schema.field(name).type) for name in ("rank", "score", "fps", "path")] == [
        *("int32", "float", "double", "string")
    ]
    rows = table.to_pylist()
    assert [(row["path"], row["rank"], row["error_kind"]) for row in rows] == [
        *(("caf\\udce9.mp4", 1, None), ("caf\\udce9.mp4", 2, None), ("b.mp4", None, "decode"))
    ]
    assert np.float32(rows[0]["score"]) == np.float32(0.1)
    assert go_on(target, "parquet", paths=[odd, "b.mp4"]) == []


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("durable")
    write_model(folder / "tiny")
    (folder / "clips").mkdir()
    for number in range(30):
        write_video(folder / f"clips/{number:02}.mp4", level=number)
    return folder


class TestCommand:
    @pytest.fixture(autouse=True)
    def here(self, material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(material)
        monkeypatch.setenv("TIMESFORMER_MODEL", "tiny")

    def test_a_run_that_is_killed_and_then_stopped(self, run: Run, tmp_path: Path) -> None:
        whole, target = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
        assert run("predict", "clips", "-o", whole).code == 0
        chance = random.Random(0)
        for stop, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
            before = target.read_bytes().count(b"\n") if target.exists() else 0
            args = ["predict", "clips", "-o", str(target), "--resume", "--workers", "1"]
            with started(*COMMAND, *args, start_new_session=True) as process:
                deadline = time.monotonic() + 60
                while process.poll() is None and (not target.exists() or target.read_bytes().count(b"\n") <= before):
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
                time.sleep(chance.random() / 50)
                if process.poll() is None:
                    os.killpg(process.pid, stop)
            assert process.returncode in (code, 0, -stop)  # the last, if all was done and Python was about to end
        assert run("predict", "clips", "-o", target, "--resume").code == 0
        assert target.read_bytes() == whole.read_bytes()
        outcome = run("predict", "clips", "-o", target, "--resume")
        assert outcome.code == 0
        assert only_line(outcome.err) == f"{target}: nothing to do: it holds all 30 videos already"

    def test_what_is_left_is_labelled_and_the_exit_code_is_of_all(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "out.csv"
        late = str(tmp_path / "late.mp4")
        jsonl = tmp_path / "out.jsonl"
        assert run("predict", "clips/00.mp4", late, "-o", jsonl).code == 3
        again = run("predict", "clips/00.mp4", late, "clips/01.mp4", "-o", jsonl, "--resume")
        assert again.code == 3
        assert only_line(again.err).startswith("1 videos: 1 labelled; 2 done before; ")
        write_video(tmp_path / "late.mp4")
        retried = run("predict", "clips/00.mp4", late, "clips/01.mp4", "-o", jsonl, "--resume", "--retry-errors")
        assert retried.code == 0
        assert run("predict", "clips/00.mp4", late, "-o", target).code == 0
        assert target.read_text(encoding="utf-8") == run("predict", "clips/00.mp4", late, "-f", "csv").out

    def test_a_limit_counts_the_inputs(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        assert run("predict", "clips", "-o", target, "--limit", "2").code == 0
        assert run("predict", "clips", "-o", target, "--limit", "3", "--resume").code == 0
        paths = [json.loads(line)["path"] for line in target.read_bytes().splitlines()]
        assert paths == [f"clips/{number:02}.mp4" for number in range(3)]

    def test_other_settings_are_refused(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        assert run("predict", "clips/00.mp4", "-o", target).code == 0
        code, _, err = run("predict", "clips/01.mp4", "-o", target, "--resume", "-k", "2", "--clips", "3")
        assert code == 1
        assert "was made with different settings: " in only_line(err)
        assert "top_k (5, now 2)" in err

    def test_an_output_of_an_earlier_version_is_refused(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        assert run("predict", "clips/00.mp4", "-o", target).code == 0
        meta = meta_of(target)
        content = json.loads(meta.read_bytes())
        content["settings"] |= content["settings"].pop("shown")  # as earlier versions left it
        meta.write_text(json.dumps(content), encoding="utf-8")
        code, _, err = run("predict", "clips/01.mp4", "-o", target, "--resume")
        assert code == 1
        assert "out.jsonl: was made by an earlier version" in only_line(err)
        assert [json.loads(line)["path"] for line in target.read_bytes().splitlines()] == ["clips/00.mp4"]

    @pytest.mark.parametrize(
        "args",
        [
            ("--resume",),
            ("--resume", "-o", "out.txt", "-f", "table"),
            ("--retry-errors", "-o", "out.jsonl"),
            ("--resume", "--overwrite", "-o", "out.jsonl"),
            ("-f", "parquet"),
        ],
    )
    def test_wrong_usage(self, run: Run, args: tuple[str, ...]) -> None:
        code, _, err = run("predict", "clips", *args)
        assert code == 2
        assert only_line(err).startswith("error: ")

    def test_what_a_stopped_run_left_is_not_lost(self, run: Run, tmp_path: Path) -> None:
        left = tmp_path / "out.csv.part.jsonl"
        left.write_text("results")
        code, _, err = run("predict", "clips/00.mp4", "-o", tmp_path / "out.csv")
        assert code == 1
        assert "--resume continues it" in only_line(err)
        assert left.read_text() == "results"

    @pytest.mark.parametrize("format", ["jsonl", "csv"])
    def test_a_list_without_videos_overwrites_nothing(self, run: Run, tmp_path: Path, format: Format) -> None:
        target = tmp_path / f"out.{format}"
        (tmp_path / "list.txt").touch()
        assert run("predict", "clips/00.mp4", "-o", target).code == 0
        if format == "csv":
            (tmp_path / "out.csv.part.jsonl").write_text('{"path": "of a run that was stopped", "status": "ok"}\n')
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        code, _, err = run("predict", "--from-file", tmp_path / "list.txt", "-o", target, "--overwrite")
        assert code == 1
        assert only_line(err).startswith("error: no video to label")
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_a_page_that_browsers_do_not_open(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page, lines = tmp_path / "out.html", tmp_path / "out.jsonl"
        monkeypatch.setattr("timesformer_cli.results.writers.LARGEST_PAGE", 20_000)
        outcome = run("predict", "clips", "-o", page, "--limit", "2")
        assert "browsers do not open" not in outcome.err
        outcome = run("predict", "clips", "-o", page, "--overwrite")
        assert outcome.code == 0
        assert outcome.err.count(f"{page}: a page of more than 0 MB, which browsers do not open; name a .jsonl") == 1
        assert run("predict", "clips", "-o", lines).err.count("browsers") == 0
        merged = run("merge", lines, "-o", tmp_path / "merged.html")
        assert merged.err.count("merged.html: a page of more than 0 MB") == 1

    def test_pyarrow_is_named_when_it_is_missing(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        code, _, err = run("predict", "clips/00.mp4", "-o", tmp_path / "out.parquet")
        assert code == 1
        assert "pip install 'timesformer-cli[parquet]'" in only_line(err)
