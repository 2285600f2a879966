"""Runs that share the work: whose video is whose, and outputs of all that make the very file of a single run."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testing.clips import write_model, write_video
from testing.command import COMMAND, Run, only_line
from timesformer_cli.errors import OutputError
from timesformer_cli.results.journal import Ledger, meta_of, read_meta
from timesformer_cli.results.settings import Combination, Provenance, Shard
from timesformer_cli.results.shards import open_shards, parse_shard

ARRAY = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "4"}
ARRAY |= {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_STEP": "1"}
STEP = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "3"}
TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2"}
PROVENANCE = Provenance(model="tiny", source="tiny", labels=("w", "x"), recipe=Combination("original", "logits"))


def array(number: int, first: int, last: int, count: int, step: int | None = None) -> dict[str, str]:
    names = {"ID": number, "MIN": first, "MAX": last, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in names.items() if value is not None}


class TestParse:
    @pytest.mark.parametrize(
        ("text", "index", "count"), [("1/1", 1, 1), ("2/4", 2, 4), ("4/4", 4, 4), ("007/100000", 7, 100_000)]
    )
    def test_a_number_of_how_many(self, text: str, index: int, count: int) -> None:
        assert parse_shard(text, ARRAY) == Shard(index, count)

    @pytest.mark.parametrize(
        "text",
        ["0/4", "5/4", "1/0", "-1/4", "1/-4", "1", "1/", "/4", "1/2/3", "a/b", " 1/2", "1/2\n", "٢/٤", "", "1.0/2"],
    )
    def test_what_is_no_shard(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"is neither I/N, with I from 1 to N, nor auto$"):
            parse_shard(text, ARRAY)

    @pytest.mark.parametrize(
        ("environment", "index", "count"),
        [
            (ARRAY, 3, 4),
            (array(0, 0, 9, 10), 1, 10),  # before SLURM told the step
            (array(9, 1, 13, 4, step=4), 3, 4),  # --array=1-16:4
            (STEP, 2, 3),
            (TORCHRUN, 1, 2),
            (TORCHRUN | STEP, 1, 2),  # torchrun started by srun: it numbers its processes over all nodes
            (ARRAY | TORCHRUN, 5, 8),
            (ARRAY | STEP, 8, 12),
            ({"SLURM_PROCID": "0"} | ARRAY, 3, 4),  # in the batch script, without a step
        ],
    )
    def test_auto(self, environment: dict[str, str], index: int, count: int) -> None:
        assert parse_shard("auto", environment | {"PATH": "/bin"}) == Shard(index, count)

    def test_the_processes_of_an_array_share_all_of_the_work(self) -> None:
        """Each of 3 tasks x 2 processes is another shard."""
        tasks = [array(number, 2, 6, 3, step=2) for number in (2, 4, 6)]
        ranks = [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in (0, 1)]
        shards = [parse_shard("auto", task | rank) for task in tasks for rank in ranks]
        assert shards == [Shard(index, 6) for index in range(1, 7)]

    @pytest.mark.parametrize(
        ("environment", "why"),
        [
            ({}, "there are no variables"),
            ({"RANK": "1"}, "there are no variables"),
            ({"SLURM_ARRAY_TASK_ID": "1"}, "are inconsistent"),
            (ARRAY | {"SLURM_ARRAY_TASK_COUNT": "many"}, "are inconsistent"),
            (array(3, 1, 7, 3, step=1), "not evenly spaced"),  # --array=1,3,7
            (array(3, 3, 3, 1, step=1), "submitted again in part"),  # --array=3
            (array(4, 1, 9, 3, step=4), "not evenly spaced"),
            (array(0, 1, 4, 4, step=1), "not from 1 to 4"),
            (array(5, 1, 4, 4, step=1), "not from 1 to 4"),
            ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, and WORLD_SIZE 2"),
            ({"RANK": "-1", "WORLD_SIZE": "2"}, "are inconsistent"),
            ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "0"}, "are inconsistent"),
        ],
    )
    def test_variables_that_say_no_shard(self, environment: dict[str, str], why: str) -> None:
        with pytest.raises(ValueError, match=why) as error:
            parse_shard("auto", environment)
        assert str(error.value).startswith("auto: ")
        assert str(error.value).endswith("; write I/N")


class TestParts:
    @pytest.mark.parametrize("count", range(1, 6))
    @pytest.mark.parametrize("videos", range(8))
    def test_every_video_is_in_one_of_them(self, videos: int, count: int) -> None:
        parts = [list(Shard(index, count).part_of(iter(range(videos)))) for index in range(1, count + 1)]
        assert sorted(number for part in parts for number in part) == list(range(videos))
        assert all(part == sorted(part) for part in parts)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1  # as even as can be

    def test_a_list_that_never_ends(self) -> None:
        part = Shard(2, 3).part_of(iter(int, 1))
        assert next(part) == 0

    @pytest.mark.parametrize(
        ("target", "output"),
        [
            ("labels.jsonl", "labels.2-of-4.jsonl"),
            ("runs/a.b.jsonl", "runs/a.b.2-of-4.jsonl"),
            ("größe", "größe.2-of-4"),
            ("logits.npz", "logits.2-of-4.npz"),
        ],
    )
    def test_names(self, target: str, output: str) -> None:
        assert Shard(2, 4).output(Path(target)) == Path(output)
        assert str(Shard(2, 4)) == "2/4"


def record(path: str) -> dict[str, Any]:
    if "bad" in path:
        return {"path": path, "status": "error", "model": "tiny", "error": {"kind": "decode", "message": "m"}}
    video = {"duration": 1.0, "fps": None, "frames": 3, "width": 4, "height": 5, "codec": "h264"}
    return {"path": path, "status": "ok", "model": "tiny", "predictions": [], "video": video, "recipe": "original"}


def write_shard(
    folder: Path, shard: Shard, paths: list[str], *, finish: bool = True, provenance: Provenance = PROVENANCE
) -> Path:
    """The output of one shard of a run on `paths`."""
    target = shard.output(folder / "out.jsonl")
    own = replace(provenance, shard=shard)
    ledger = Ledger(target, "jsonl", own, may_be_empty=shard.index > 1)
    for path in shard.part_of(paths):
        ledger.write(record(path))
    if finish:
        ledger.finish()
    ledger.close()
    return target


PATHS = [f"{number}.mp4" for number in range(5)] + ["bad.mp4", os.fsdecode(b"caf\xe9.mp4")]


class TestOpen:
    @pytest.fixture
    def outputs(self, tmp_path: Path) -> list[Path]:
        return [write_shard(tmp_path, Shard(index, 3), PATHS) for index in (1, 2, 3)]

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
    def test_in_any_order(self, outputs: list[Path], order: tuple[int, ...]) -> None:
        shards = open_shards([outputs[number] for number in order])
        assert [found["path"] for found in shards.records()] == PATHS
        assert shards.paths == tuple(outputs)
        assert (shards.holds.videos, shards.holds.failed) == (7, 1)
        assert shards.provenance == PROVENANCE

    def test_they_hold_what_a_single_run_does(self, tmp_path: Path, outputs: list[Path]) -> None:
        target = tmp_path / "whole.jsonl"
        with Ledger(target, "jsonl", PROVENANCE) as ledger:
            for path in PATHS:
                ledger.write(record(path))
        assert (open_shards(outputs).provenance.to_dict(), open_shards(outputs).holds) == read_meta(target)
        assert list(open_shards([target]).records()) == list(open_shards(outputs).records())

    @pytest.mark.parametrize("count", [5, 9])
    def test_more_shards_than_videos(self, tmp_path: Path, count: int) -> None:
        outputs = [write_shard(tmp_path, Shard(index, count), PATHS[:2]) for index in range(1, count + 1)]
        assert [found["path"] for found in open_shards(outputs).records()] == PATHS[:2]

    @pytest.mark.parametrize("size", [1, 100, 2**20])
    def test_more_shards_than_files_may_be_open(
        self, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resource = pytest.importorskip("resource")
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        monkeypatch.setattr("timesformer_cli.results.shards._AT_ONCE", 40 * size)
        paths = [f"{number}.mp4" for number in range(130)]
        outputs = [write_shard(tmp_path, Shard(index, 40), paths) for index in range(1, 41)]
        with (tmp_path / "next").open("w") as file:
            limit = file.fileno() + 10
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
        try:
            assert [found["path"] for found in open_shards(outputs).records()] == paths
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    def test_a_damaged_line_is_named_by_its_number(self, outputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("timesformer_cli.results.shards._AT_ONCE", 1)
        lines = outputs[0].read_bytes().splitlines(keepends=True)
        outputs[0].write_bytes(b"".join([lines[0], b"<" + lines[1], *lines[2:]]))
        with pytest.raises(OutputError, match=r"out\.1-of-3\.jsonl: line 2 is not a record"):
            list(open_shards(outputs).records())

    def test_one_is_missing(self, outputs: list[Path]) -> None:
        with pytest.raises(OutputError, match=r"of 3 shards, number 1, 3 is missing; name the outputs of all$"):
            open_shards(outputs[1:2])

    def test_no_such_file(self, tmp_path: Path, outputs: list[Path]) -> None:
        with pytest.raises(OutputError, match=r"none\.jsonl: no such file$"):
            open_shards([*outputs, tmp_path / "none.jsonl"])

    def test_one_is_there_twice(self, tmp_path: Path, outputs: list[Path]) -> None:
        copy = tmp_path / "copy.jsonl"
        shutil.copy(outputs[1], copy)
        shutil.copy(meta_of(outputs[1]), meta_of(copy))
        for again in (outputs[1], copy):
            with pytest.raises(OutputError, match=rf"{again.name}: is shard 2 of 3, and so is .*{outputs[1].name}$"):
                open_shards([*outputs, again])

    def test_one_is_not_finished(self, tmp_path: Path, outputs: list[Path]) -> None:
        write_shard(tmp_path, Shard(2, 3), PATHS, finish=False)
        with pytest.raises(OutputError, match=r"is not finished; complete it .* with `shard=2/3` `resume`$"):
            open_shards(outputs)

    def test_one_without_its_settings(self, outputs: list[Path]) -> None:
        meta_of(outputs[2]).unlink()
        with pytest.raises(OutputError, match=r"out\.3-of-3\.jsonl: .*meta\.json, .*, is missing or damaged"):
            open_shards(outputs)

    def test_other_settings(self, tmp_path: Path, outputs: list[Path]) -> None:
        write_shard(tmp_path, Shard(3, 3), PATHS, provenance=replace(PROVENANCE, model="huge"))
        with pytest.raises(
            OutputError, match=r"3-of-3\.jsonl: does not match .*different settings: model \(tiny, now huge\)"
        ):
            open_shards(outputs)

    def test_of_another_number(self, tmp_path: Path, outputs: list[Path]) -> None:
        other = write_shard(tmp_path, Shard(2, 4), PATHS)
        with pytest.raises(OutputError, match=r"2-of-4\.jsonl: does not match .*: is one of 4 shards, not 3$"):
            open_shards([*outputs, other])

    @pytest.mark.parametrize("index", [1, 2, 3])
    def test_of_other_videos(self, tmp_path: Path, outputs: list[Path], index: int) -> None:
        write_shard(tmp_path, Shard(index, 3), [*PATHS, *"abcdef"])
        with pytest.raises(OutputError, match="they are shards of different lists of videos"):
            open_shards(outputs)

    def test_a_shard_and_a_whole(self, tmp_path: Path, outputs: list[Path]) -> None:
        whole = write_shard(tmp_path, Shard(1, 1), PATHS)
        with pytest.raises(OutputError, match=r"is one of 3 shards, not 1$"):
            open_shards([whole, *outputs])

    @pytest.mark.parametrize("index", [1, 2, 3])
    @pytest.mark.parametrize("change", ["cut off", "torn", "longer", "another path", "another status"])
    def test_one_that_was_changed_since(self, outputs: list[Path], index: int, change: str) -> None:
        target = outputs[index - 1]
        lines = target.read_bytes().splitlines(keepends=True)
        match change:
            case "cut off":
                lines.pop()
            case "torn":
                lines[-1] = lines[-1][:-1]
            case "longer":
                lines.append(lines[0])
            case "another path":
                lines[-1] = lines[-1].replace(b".mp4", b".mkv")
            case "another status":
                failed = record(json.loads(lines[0])["path"]) | {"status": "error"}
                failed["error"] = {"kind": "decode", "message": "no"}
                del failed["predictions"], failed["video"]
                lines[0] = json.dumps(failed).encode() + b"\n"
        target.write_bytes(b"".join(lines))
        shards = open_shards(outputs)
        with pytest.raises(OutputError, match=rf"{target.name}: .* its run wrote") as error:
            list(shards.records())
        assert f"`shard={index}/3` `resume`" in str(error.value)

    @pytest.mark.parametrize(
        ("field", "value", "said"),
        [
            ("predictions", 3, "3 instead of a list"),
            ("predictions", [{"rank": 1}], "no index and no label and no score in {'rank': 1}"),
            ("predictions", [{"rank": 1, "index": 0, "label": None, "score": 0.5}], "None instead of a text"),
            ("predictions", [{"rank": 1, "index": 0, "label": "w", "score": "0.5"}], "'0.5' instead of a finite num"),
            ("video", [], "[] instead of an object"),
            ("model", {}, "{} instead of a text"),
            ("segments", {"a": 1}, "field 'predictions'"),
            ("__class__", 1, "field '__class__'"),
        ],
    )
    def test_records_that_no_run_wrote(self, outputs: list[Path], field: str, value: Any, said: str) -> None:
        lines = outputs[1].read_text(encoding="utf-8").splitlines(keepends=True)
        lines[0] = json.dumps(json.loads(lines[0]) | {field: value}) + "\n"
        outputs[1].write_text("".join(lines), encoding="utf-8")
        shards = open_shards(outputs)
        with pytest.raises(OutputError) as error:
            list(shards.records())
        assert f"{outputs[1]}: line 1 is not a record that a run wrote ({said}" in str(error.value)

    @pytest.mark.parametrize("path", [None, 1, ["a"]])
    def test_records_of_no_video(self, outputs: list[Path], path: Any) -> None:
        lines = outputs[1].read_text(encoding="utf-8").splitlines(keepends=True)
        lines[0] = json.dumps(json.loads(lines[0]) | {"path": path}) + "\n"
        outputs[1].write_text("".join(lines), encoding="utf-8")
        with pytest.raises(OutputError, match=r"line 1 is not a record; the file was changed"):
            list(open_shards(outputs).records())

    @pytest.mark.parametrize(
        "change",
        [
            {"shard": 3},
            {"shard": [1, 2, 3]},
            {"shard": ["1", "3"]},
            {"labels": [1, 2]},
            {"recipe": "original"},
            {"recipe": {"combine": "logits"}},
            {"weights_sha256": []},
            {"timeline": 3},
            {"data_set": {"rows": 3}},
            {"fused": [{"model": "a"}]},
            {"model": None},
        ],
    )
    def test_settings_that_no_run_wrote(self, outputs: list[Path], change: dict[str, Any]) -> None:
        meta = outputs[1].with_name(outputs[1].name + ".meta.json")
        content = json.loads(meta.read_text(encoding="utf-8"))
        content["settings"] |= change
        meta.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(OutputError, match=r"meta\.json, which holds its settings, is missing or damaged"):
            open_shards(outputs)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_model(folder / "tiny")
    (folder / "clips").mkdir()
    for number in range(6):
        write_video(folder / f"clips/{number}.mp4", level=number, frames=8 + number)
    (folder / "clips/6-bad.mp4").write_text("no video")
    return folder


PICTURES = re.compile(r'"pictures":\[[^]]*\]')
DATE = re.compile(r'"date":"[^"]*"')


class TestCommand:
    @pytest.fixture(autouse=True)
    def here(self, material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(material)
        monkeypatch.setenv("TIMESFORMER_MODEL", "tiny")

    @pytest.fixture
    def shards(self, run: Run, material: Path, tmp_path: Path) -> list[Path]:
        made = material / "made"
        if not made.exists():
            made.mkdir()
            codes = [run("predict", "clips", "-o", made / "s.jsonl", "--shard", f"{i}/3").code for i in (1, 2, 3)]
            assert codes == [3, 0, 0]
        shutil.copytree(made, tmp_path, dirs_exist_ok=True)
        return [tmp_path / f"s.{index}-of-3.jsonl" for index in (1, 2, 3)]

    def test_merged_is_what_a_single_run_writes(self, run: Run, tmp_path: Path, shards: list[Path]) -> None:
        for format in ("jsonl", "csv", "parquet", "json", "html", "activitynet", "table"):
            whole, merged = tmp_path / f"whole.{format}", tmp_path / f"merged.{format}"
            assert run("predict", "clips", "-o", whole, "-f", format).code == 3
            outcome = run("merge", *reversed(shards), "-o", merged, "-f", format)
            assert (outcome.code, only_line(outcome.err)) == (0, "7 videos, 1 of them failed")
            one, other = whole.read_bytes(), merged.read_bytes()
            if format == "html":  # JSON lines have no pictures, and each page has the time when it was made
                text = PICTURES.sub('"pictures":[]', whole.read_text(encoding="utf-8"))
                one, other = (DATE.sub("", page).encode() for page in (text, merged.read_text(encoding="utf-8")))
            assert one == other, format
            if format != "table":
                assert read_meta(whole) == read_meta(merged)

    def test_merged_lines_go_on_as_a_single_run(self, run: Run, tmp_path: Path, shards: list[Path]) -> None:
        target = tmp_path / "merged.jsonl"
        assert run("merge", *shards, "-o", target).code == 0
        outcome = run("predict", "clips", "-o", target, "--resume")
        assert outcome.code == 3
        assert only_line(outcome.err) == f"{target}: nothing to do: it holds all 7 videos already"

    def test_merged_to_standard_output(self, run: Run, shards: list[Path]) -> None:
        for format in ("jsonl", "json", "csv"):
            merged = run("merge", *shards, "-f", format)
            assert merged.code == 0
            assert merged.out == run("predict", "clips", "-f", format).out

    @pytest.mark.parametrize("format", ["jsonl", "srt", "vtt"])
    def test_one_video_in_three_shards(self, run: Run, tmp_path: Path, format: str) -> None:
        options = ["--timeline", "--window", "0.5"]
        for index in (1, 2, 3):
            outcome = run("predict", "clips/5.mp4", "-o", tmp_path / "s.jsonl", "--shard", f"{index}/3", *options)
            assert outcome.code == 0
            assert outcome.err == ("" if index == 1 else "there are fewer videos than shards, so this shard has none\n")
        shards = sorted(tmp_path.glob("s.*.jsonl"))
        assert [shard.name for shard in shards] == [f"s.{index}-of-3.jsonl" for index in (1, 2, 3)]
        assert [shard.stat().st_size > 0 for shard in shards] == [True, False, False]
        whole, merged = tmp_path / f"whole.{format}", tmp_path / f"merged.{format}"
        assert run("predict", "clips/5.mp4", "-o", whole, *options).code == 0
        assert run("merge", *shards, "-o", merged).code == 0
        assert merged.read_bytes() == whole.read_bytes()
        assert len(whole.read_bytes().splitlines()) > 1 or format == "jsonl"

    def test_subtitles_of_several_videos_are_refused(self, run: Run, tmp_path: Path, shards: list[Path]) -> None:
        code, _, err = run("merge", *shards, "-o", tmp_path / "all.srt")
        assert code == 2
        assert only_line(err) == "error: srt: subtitles are for one video, and there are 7"
        assert not (tmp_path / "all.srt").exists()

    def test_an_empty_shard_goes_on_as_one(self, run: Run, tmp_path: Path) -> None:
        args = ["predict", "clips/0.mp4", "-o", tmp_path / "s.jsonl", "--save-logits", tmp_path / "l.npz"]
        args += ["--shard", "2/2"]
        for resume in ((), ("--resume",), ("--overwrite",), ("--dry-run", "--overwrite")):
            assert run(*args, *resume).code == 0
            names = [f"{name}.2-of-2.{kind}" for name, kind in (("l", "npz"), ("s", "jsonl"), ("s", "jsonl.meta.json"))]
            assert sorted(os.listdir(tmp_path)) == names
        with np.load(tmp_path / "l.2-of-2.npz") as logits:
            assert logits["logits"].shape == (0, 5)
        assert run(*args).code == 1  # it is there

    def test_no_video_at_all_is_an_error_still(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "list.txt").touch()
        args = ["predict", "--from-file", tmp_path / "list.txt", "-o", tmp_path / "s.jsonl"]
        for shard in ((), ("--shard", "1/2")):
            code, _, err = run(*args, *shard)
            assert code == 1
            assert only_line(err).startswith("error: no video to label")
        assert os.listdir(tmp_path) == ["list.txt"]

    def test_a_limit_is_of_all(self, run: Run, tmp_path: Path) -> None:
        for index in (1, 2):
            args = ["predict", "clips", "-o", tmp_path / "s.jsonl", "--shard", f"{index}/2", "--limit", "3"]
            assert run(*args).code == 0
        merged = run("merge", *sorted(tmp_path.glob("s.*.jsonl"))).records
        assert merged == run("predict", "clips", "--limit", "3").records
        assert [found["path"] for found in merged] == [f"clips/{number}.mp4" for number in range(3)]

    def test_a_stopped_shard_goes_on(self, run: Run, tmp_path: Path, shards: list[Path]) -> None:
        before = shards[0].read_bytes()
        shards[0].write_bytes(before[: before.index(b"\n") + 20])
        code, _, err = run("merge", *shards)
        assert code == 1
        assert err.splitlines()[-1].endswith("complete it with --shard 1/3 --resume")
        outcome = run("predict", "clips", "-o", tmp_path / "s.jsonl", "--shard", "1/3", "--resume")
        assert outcome.code == 3
        assert "; 1 done before; " in outcome.err.splitlines()[-1]
        assert shards[0].read_bytes() == before

    def test_as_another_shard_or_as_none(self, run: Run, tmp_path: Path, shards: list[Path]) -> None:
        for name in ("s.2-of-4.jsonl", "whole.jsonl"):
            shutil.copy(shards[1], tmp_path / name)
            shutil.copy(meta_of(shards[1]), meta_of(tmp_path / name))
        code, _, err = run("predict", "clips", "-o", tmp_path / "s.jsonl", "--shard", "2/4", "--resume")
        assert code == 1
        assert "was made with different settings: shard ([2, 3], now [2, 4]); " in only_line(err)
        code, _, err = run("predict", "clips", "-o", tmp_path / "whole.jsonl", "--resume")
        assert code == 1
        assert "was made with different settings: shard ([2, 3], now None); " in only_line(err)

    def test_shards_by_the_variables(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        plan = run("predict", "clips", "-o", tmp_path / "s.jsonl", "--shard", "auto", "--dry-run")
        assert plan.out.splitlines() == ["clips/1.mp4", "clips/3.mp4", "clips/5.mp4"]
        assert f"results as jsonl to {tmp_path / 's.2-of-2.jsonl'}" in plan.err
        assert plan.err.count("--shard auto: this is shard 2/2 of the videos\n") == 1
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        ("args", "part"),
        [
            (("--shard", "3/2", "-o", "s.jsonl"), "'3/2' is neither I/N"),
            (("--shard", "auto", "-o", "s.jsonl"), "there are no variables of a SLURM array"),
            (("--shard", "1/2"), "--shard needs --output with a .jsonl file"),
            (("--shard", "1/2", "-o", "s.csv"), "`timesformer merge` converts all shards to other formats"),
            (("--shard", "1/2", "-o", "s.html"), "`timesformer merge` converts all shards to other formats"),
        ],
    )
    def test_wrong_usage(self, run: Run, args: tuple[str, ...], part: str) -> None:
        code, out, err = run("predict", "clips", *args)
        assert (code, out) == (2, "")
        assert part in only_line(err)

    def test_merge_overwrites_nothing(self, run: Run, tmp_path: Path, shards: list[Path]) -> None:
        target = tmp_path / "merged.jsonl"
        target.write_text("mine")
        code, _, err = run("merge", *shards, "-o", target)
        assert (code, target.read_text()) == (1, "mine")
        assert "already exists" in only_line(err)
        assert run("merge", *shards, "-o", target, "--overwrite").code == 0
        before = shards[1].read_bytes()
        code, _, err = run("merge", *shards, "-o", shards[1], "--overwrite")
        assert (code, shards[1].read_bytes()) == (2, before)
        assert "is one of the shards" in only_line(err)

    def test_a_failed_merge_leaves_no_file(self, run: Run, tmp_path: Path, shards: list[Path]) -> None:
        shards[2].write_bytes(b"")
        for format in ("jsonl", "csv", "parquet", "html"):
            code, _, err = run("merge", *shards, "-o", tmp_path / f"merged.{format}")
            assert code == 1
            assert "3-of-3.jsonl: " in only_line(err)
        assert not list(tmp_path.glob("merged*"))

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
    def test_merged_to_a_full_disk(self, shards: list[Path]) -> None:
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [*COMMAND, "merge", *shards], stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 1
        assert only_line(done.stderr).startswith("error: standard output: cannot be written (No space left")
