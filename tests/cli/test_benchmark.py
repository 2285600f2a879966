"""`timesformer benchmark` as it is called: what it prints, writes and refuses."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from testing.artefacts import write_linear
from testing.clips import write_audio, write_model, write_video
from testing.command import Run, exit_code, only_line
from timesformer_cli.jobs import benchmark
from timesformer_cli.jobs.benchmark import startup
from timesformer_cli.jobs.benchmark.settings import Settings, Start

QUICK = ("--device", "cpu", "--workers", "1", "--seconds", "0.001", "--precision", "fp32")


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Stages without the processes that take seconds to import torch."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        small = partial(
            Settings,
            starts=(Start("python", ("-c", "pass")),),
            matrix_sizes=(8,),
            max_views=2,
            max_call=math.inf,
            turns=(1,),
        )
        monkeypatch.setattr(benchmark, "Settings", small)  # of which the command gives the rest
        monkeypatch.setattr(startup, "_load_afresh", startup._load)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, videos and a result of `benchmark` with all that it can have."""
    folder = tmp_path_factory.mktemp("place")
    write_model(folder / "tiny")
    write_video(folder / "a.mp4")
    (folder / "many").mkdir()
    for number in range(17):
        shutil.copy(folder / "a.mp4", folder / f"many/{number:02}.mp4")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        options = ("-m", "tiny", "--against", "transformers", "-o", "full.json", "--quiet")
        assert exit_code("benchmark", "a.mp4", *options, *QUICK) == 0
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture
def result(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "full.json").read_text())
    return found


STAGES = [
    ("start", "python"),
    ("reading", "decode, one process"),
    ("reading", "preprocess, one process"),
    ("reading", "both, 1 worker"),
    ("load", "network, from the checkpoint"),
    ("load", "first answer of the network"),
    ("load", "both, in a fresh process"),
    ("matrix product", "fp32, square matrices"),
    ("network", "fp32, 1 view"),
    ("network", "fp32, 2 views"),
    ("end to end", "predict, 1 worker"),
]


def test_the_result(result: dict[str, Any]) -> None:
    assert [(entry["stage"], entry["name"]) for entry in result["measurements"]] == STAGES
    for entry in result["measurements"]:
        seconds = entry["seconds"]
        assert 0 < seconds["median"] < 60
        assert seconds["rounds"] >= 2
        assert entry["per_second"] == {
            what: pytest.approx(count / seconds["median"]) for what, count in entry["counts"].items()
        }
    two_views = result["measurements"][9]
    flops = 2 * result["network"]["flops_per_view"] / two_views["seconds"]["median"]
    assert two_views["flops_per_second"] == pytest.approx(flops)
    product = result["measurements"][7]["flops_per_second"]
    assert two_views["share_of_matrix_product"] == pytest.approx(flops / product)
    assert [duel["name"] for duel in result["against"]] == ["network, fp32, 1 view", "pipeline on videos"]
    assert set(result["versions"]) == {"timesformer-cli", "torch", "numpy", "av", "python", "transformers"}
    assert result["settings"]["videos"] == ["a.mp4"]
    assert result["settings"]["model"] == "tiny"
    assert set(result["machine"]) == {"processor", "cores", "threads", "memory", "gpus", "system"}


def test_the_table(run: Run) -> None:
    code, out, err = run("benchmark", "-m", "tiny", "--compare", "full.json", *QUICK)
    assert code == 0
    head, machine, versions, _, columns, *rows = out.splitlines()
    assert head.startswith("tiny, ")
    assert head.endswith("GFLOP per view")
    assert " core" in machine
    assert "torch" in versions
    assert columns.split()[:2] == ["Stage", "Median"]
    assert columns.endswith("Speed-up")
    table = rows[: len(STAGES)]
    assert [row[: len("matrix product")].strip() for row in table] == [
        stage if number == 0 or stage != STAGES[number - 1][0] else "" for number, (stage, _) in enumerate(STAGES)
    ]
    assert all(name in row for row, (_, name) in zip(table, STAGES, strict=True))
    assert all(row[-4] != " " for row in table)  # the end of a number of two decimals
    *_, compared, otherwise = rows
    assert compared == "Speed-up: over full.json"
    assert otherwise.startswith("It differs in: ")
    assert "settings.videos (['a.mp4'], now ['the clip of the package'])" in otherwise
    told = [line for line in err.splitlines() if not line.startswith("other programs")]
    assert [line.rpartition(": ")[0] for line in told] == [": ".join(stage) for stage in STAGES]


def test_the_same_again_as_json(run: Run, place: Path, result: dict[str, Any]) -> None:
    code, out, err = run("benchmark", "a.mp4", "-m", "tiny", "--compare", "full.json", "--json", "--quiet", *QUICK)
    assert (code, err) == (0, "")
    again = json.loads(out)
    assert again["against"] == []
    compared = again["compared"]
    # All is as before but that transformers was not asked for.
    version = result["versions"]["transformers"]
    assert (compared["with"], compared["differences"]) == (
        "full.json",
        [f"versions.transformers ({version}, now None)"],
    )
    for now, before, ratio in zip(
        again["measurements"], result["measurements"], compared["times_as_fast"], strict=True
    ):
        assert ratio == pytest.approx(before["seconds"]["median"] / now["seconds"]["median"])


def test_no_more_than_sixteen_videos(run: Run) -> None:
    code, out, err = run("benchmark", "many", "-m", "tiny", "--json", *QUICK)
    assert code == 0
    assert [Path(path).name for path in json.loads(out)["settings"]["videos"]] == [f"{n:02}.mp4" for n in range(16)]
    assert "the first 16 videos are used; name fewer to choose them" in err.splitlines()


def test_exported_models(run: Run, place: Path) -> None:
    path = write_linear(place / "exported.onnx")
    code, out, _ = run("benchmark", "-m", path, "--config", "tiny/config.json", "--json", *QUICK[:6])
    assert code == 0
    found = json.loads(out)
    assert "as exported, 1 view" in [entry["name"] for entry in found["measurements"]]
    assert "onnxruntime" in found["versions"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.mp4"], 1, "missing.mp4"),
        (["audio.mp4"], 1, "audio.mp4: no video stream; is it an audio file?"),
        (["-m", "nowhere/model"], 1, "nowhere/model"),
        (["--compare", "missing.json"], 1, "missing.json: cannot be read (No such file or directory)"),
        (["--compare", "a.mp4"], 1, "a.mp4: not a result of timesformer benchmark; make one with --output FILE"),
        (["--compare", "list.json"], 1, "list.json: not a result of timesformer benchmark"),
        (["-o", "full.json"], 1, "full.json: already exists"),
        (["-o", "nowhere/new.json"], 1, "nowhere"),
        (["--seconds", "0"], 2, "'0' is not a number above 0"),
        (["--against", "mmaction2"], 2, "'mmaction2'"),
        (["--device", "tpu"], 2, "--device tpu: unknown"),
        (["--precision", "fp16"], 1, "--precision fp16"),
        (["--provider", "cuda"], 2, "--provider cuda is only for ONNX models"),
    ],
)
def test_errors(run: Run, place: Path, arguments: list[str], code: int, message: str) -> None:
    write_audio(place / "audio.mp4")
    (place / "list.json").write_text("[]")
    options = [] if "-m" in arguments else ["-m", "tiny"]
    outcome = run("benchmark", *options, "--offline", "--quiet", *QUICK, *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert message in only_line(outcome.err)


def test_transformers_is_not_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    code, out, err = run("benchmark", "-m", "tiny", "--against", "transformers", *QUICK)
    assert (code, out) == (2, "")
    assert only_line(err) == (
        "error: --against transformers needs transformers; install it with: pip install transformers"
    )


def test_a_result_that_is_damaged(run: Run, place: Path, result: dict[str, Any]) -> None:
    del result["measurements"][3]["seconds"], result["measurements"][3]["per_second"]
    (place / "damaged.json").write_text(json.dumps(result))
    code, out, err = run("benchmark", "-m", "tiny", "--compare", "damaged.json", "--quiet", *QUICK)
    assert (code, out) == (1, "")
    assert "damaged.json: not a result of timesformer benchmark" in only_line(err)


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom timesformer_cli.cli import main\n"
        "try:\n    main(['benchmark', '-h'])\nfinally:\n    print(sorted({'torch', 'numpy', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--against" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
