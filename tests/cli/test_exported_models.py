"""`predict`, `evaluate` and the others with exported models: the same command, the same output."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from testing.artefacts import FORMATS, exported, folder_of, metadata_of, torch_folder, write_linear
from testing.clips import LABELS, write_model
from testing.command import Run, exit_code, only_line
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.flow import Item, Views
from timesformer_cli.pipeline.prepare import prepare_all
from timesformer_cli.pipeline.ray_remote import Network
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.workers import Limits
from timesformer_cli.runtimes.pytorch import open_scorer

VIDEOS = Path(__file__).parents[2] / "sample_videos"
ONE = VIDEOS / "pan_left.mp4"
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "pt2": "torch"}


PREDICT = ("--workers", "1", "--clips", "2", "-q")
EVALUATE = ("--workers", "1", "--crops", "1", "-q")


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("annotations") / "labels.csv"
    names = sorted(video.name for video in VIDEOS.iterdir() if video.suffix in (".mp4", ".mkv", ".webm"))
    path.write_text("".join(f"{name},{LABELS[3 * (number % 2)]}\n" for number, name in enumerate(names)))
    return path


@pytest.fixture(scope="module")
def of_torch(tmp_path_factory: pytest.TempPathFactory, annotations: Path) -> Path:
    """What the network itself gives: `predicted.jsonl` and, in `evaluated`, a run of evaluate."""
    folder = tmp_path_factory.mktemp("torch")
    assert exit_code("predict", VIDEOS, "-m", torch_folder(), *PREDICT, "-o", folder / "predicted.jsonl") == 0
    options = ("-a", annotations, *EVALUATE, "-o", folder / "evaluated")
    assert exit_code("evaluate", VIDEOS, "-m", torch_folder(), *options) == 0
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_predict(run: Run, tmp_path: Path, of_torch: Path, format: str) -> None:
    """All fields but the model's name are the same, and scores within 1e-5."""
    outcome = run("predict", VIDEOS, "-m", folder_of(format, tmp_path / "x"), *PREDICT, "-f", "jsonl")
    expected = [json.loads(line) for line in (of_torch / "predicted.jsonl").read_text().splitlines()]
    assert outcome.code == 0
    assert len(outcome.records) == len(expected) == 9
    for record, other in zip(outcome.records, expected, strict=True):
        scores = [[entry.pop("score") for entry in each["predictions"]] for each in (record, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)
        assert {**record, "model": ""} == {**other, "model": ""}


def test_only_the_model_it_came_from_is_calibrated(run: Run, tmp_path: Path, annotations: Path) -> None:
    options = ("-m", folder_of("onnx", tmp_path / "x"), "--calibrate", "-o", tmp_path / "out")
    code, _, err = run("evaluate", VIDEOS, "-a", annotations, *EVALUATE, *options)
    assert code == 2
    assert "an exported model; calibrate the model it came from, and export it again" in only_line(err)


@pytest.mark.parametrize("format", FORMATS)
def test_evaluate(tmp_path: Path, of_torch: Path, annotations: Path, format: str) -> None:
    options = ("-a", annotations, *EVALUATE, "-o", tmp_path / "out")
    assert exit_code("evaluate", VIDEOS, "-m", folder_of(format, tmp_path / "x"), *options) == 0
    ours, theirs = (
        json.loads((run / "metrics.json").read_text()) for run in (tmp_path / "out", of_torch / "evaluated")
    )
    versions = ours["run"]["versions"]
    assert (RUNTIMES[format] in versions, "torch" in versions) == (True, format == "pt2")
    assert ours["settings"]["precision"] == "as exported"
    files = {"onnx": {"model.onnx"}, "openvino": {"model.xml", "model.bin"}}
    assert ours["settings"]["weights_sha256"].keys() == files.get(format, {"model.pt2"})
    assert ours["videos"] == 9
    for name in ("negative_log_likelihood", "expected_calibration_error"):
        assert ours.pop(name) == pytest.approx(theirs.pop(name), abs=1e-5)
    for name in ("model", "settings", "throughput", "run"):
        del ours[name], theirs[name]
    assert ours == theirs


@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_torch_is_not_imported(tmp_path: Path, format: str, command: str) -> None:
    folder = folder_of(format, tmp_path / "x")
    videos = tmp_path / "videos" / LABELS[3]
    videos.mkdir(parents=True)
    (videos / "a.mp4").symlink_to(ONE)
    code = (
        "import sys\nfrom timesformer_cli.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as stop: code = stop.code\n"
        "print(code, *sorted({'torch', 'transformers', 'safetensors'} & set(sys.modules)))"
    )
    options = ["--workers", "1", "-q", "-o", tmp_path / "out.jsonl"]
    done = subprocess.run(
        [sys.executable, "-c", code, command, videos.parent, "-m", folder, *options], capture_output=True, text=True
    )
    assert (done.stdout.splitlines()[-1:], done.stderr) == (["0"], "")


def test_a_file_alone(run: Run, tmp_path: Path) -> None:
    path = write_linear(tmp_path / "model.onnx", metadata=metadata_of(torch_folder()))
    outcome = run("predict", ONE, "-m", path, "-k", "1", "-f", "jsonl")
    assert outcome.code == 0
    assert outcome.records[0]["model"] == str(path)
    assert outcome.records[0]["predictions"][0]["label"] in LABELS


def test_labels_config_and_settings_are_those_of_the_user(run: Run, tmp_path: Path) -> None:
    path = write_linear(tmp_path / "model.onnx")
    (tmp_path / "labels.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    options = ("--config", torch_folder() / "config.json", "--labels", tmp_path / "labels.txt", "--set", "mean=0.5")
    outcome = run("predict", ONE, "-m", path, *options, "-f", "jsonl")
    assert outcome.code == 0
    assert {entry["label"] for entry in outcome.records[0]["predictions"]} == {"one", "two", "three", "four", "five"}
    assert "mean=0.5" in outcome.records[0]["recipe"]


@pytest.mark.parametrize(
    ("format", "options", "code", "found"),
    [
        ("onnx", ("--precision", "fp16"), 2, "--precision fp16: .* computes in the precision of its export"),
        ("pt2", ("--compile",), 2, "--compile: .* is an exported model, which its runtime compiles"),
        ("openvino", ("--provider", "cuda"), 2, "--provider cuda is only for ONNX models"),
        (None, ("--provider", "cpu"), 2, "--provider cpu is only for ONNX models"),
        ("onnx", ("--provider", "cuda", "--device", "cpu"), 2, "exclude each other"),
        ("onnx", ("--provider", "directml"), 1, r"DmlExecutionProvider: this onnxruntime \(.*\) is built without it"),
        ("onnx", ("--device", "nowhere"), 2, "--device nowhere: unknown"),
        ("openvino", ("--device", "cuda"), 1, "--device cuda: OpenVINO models run on the CPU"),
        ("onnx", ("--num-frames", "7"), 1, r"takes clips of \[4, 3, 32, 32\].*num_frames=7 gives \[7, 3, 32, 32\]"),
        ("pt2", ("--set", "size=24"), 1, r"takes clips of \[4, 3, 32, 32\].*gives \[4, 3, 24, 24\]"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_one_line_says_why_not(
    run: Run, tmp_path: Path, command: str, format: str | None, options: tuple[str, ...], code: int, found: str
) -> None:
    model = torch_folder() if format is None else folder_of(format, tmp_path / "x")
    videos = tmp_path / "videos" / LABELS[3]
    videos.mkdir(parents=True)
    (videos / "a.mp4").symlink_to(ONE)
    outcome = run(command, videos.parent, "-m", model, "--workers", "1", *options)
    assert outcome.code == code
    assert re.search(found, only_line(outcome.err))


def test_a_run_goes_on(run: Run, tmp_path: Path) -> None:
    output, folder = tmp_path / "out.jsonl", folder_of("onnx", tmp_path / "x")
    options = ("-m", folder, "--workers", "1", "-q", "-o", output, "--resume")
    assert run("predict", ONE, VIDEOS / "zoom_out.mp4", "--limit", "1", *options).code == 0
    assert run("predict", ONE, VIDEOS / "zoom_out.mp4", *options).code == 0
    assert [Path(json.loads(line)["path"]).name for line in output.read_text().splitlines()] == [
        "pan_left.mp4",
        "zoom_out.mp4",
    ]
    assert '"as exported"' in (tmp_path / "out.jsonl.meta.json").read_text()


class TestOtherCommands:
    @pytest.mark.parametrize("format", FORMATS)
    def test_show(self, run: Run, tmp_path: Path, format: str) -> None:
        folder = folder_of(format, tmp_path / "x")
        outcome = run("models", "show", folder, "--json")
        assert outcome.code == 0
        card, expected = json.loads(outcome.out), json.loads(run("models", "show", torch_folder(), "--json").out)
        assert card["weights"] == str(folder / exported(format).name)
        for field in ("config", "recipe", "parameters", "multiply_adds_per_view", "labels"):
            assert card[field] == expected[field]

    @pytest.mark.parametrize("target", ["converted", "model.pyth"])
    def test_convert(self, run: Run, tmp_path: Path, target: str) -> None:
        outcome = run("models", "convert", folder_of("onnx", tmp_path / "x"), tmp_path / target)
        assert outcome.code == 1
        assert "an exported model; give the model that it was made from" in only_line(outcome.err)
        assert not (tmp_path / target).exists()

    def test_inspect(self, run: Run, tmp_path: Path) -> None:
        folder = folder_of("openvino", tmp_path / "x")
        ours, theirs = (
            json.loads(run("inspect", ONE, "-m", model, "--json").out) for model in (folder, torch_folder())
        )
        assert ours.pop("model", None) != theirs.pop("model", "other")
        assert ours == theirs

    def test_a_dry_run(self, run: Run, tmp_path: Path) -> None:
        outcome = run("predict", ONE, "-m", folder_of("onnx", tmp_path / "x"), "--dry-run")
        assert (outcome.code, outcome.out) == (0, f"{ONE}\n")


def test_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray would run: with all cores, although Ray sets another number, and with the logits of the runtime."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    checkpoint = resolve(str(folder_of("onnx", tmp_path / "x")))
    with prepare_all([Item(str(ONE))], checkpoint.recipe, workers=0, limits=Limits()) as prepared:
        (views,) = [each for each in prepared if isinstance(each, Views)]
    network = Network(checkpoint, RunOptions(device="cpu"))
    assert network.load() is None
    _, (answer,) = network.score(views)
    assert os.environ["OMP_NUM_THREADS"] != "1" or os.cpu_count() == 1
    expected = open_scorer(resolve(str(torch_folder())), device="cpu")(views.pixels)
    assert answer.logits == pytest.approx(expected, abs=1e-5)


def test_another_number_of_classes(run: Run, tmp_path: Path) -> None:
    folder = folder_of("onnx", tmp_path / "x")
    other = write_model(tmp_path / "other", ("a", "b", "c"))
    outcome = run("predict", ONE, "-m", folder, "--config", other / "config.json", "-f", "jsonl")
    assert outcome.code == 1
    assert "gives [any, 5] (views, classes), but its config and labels name 3 classes" in only_line(outcome.err)


def test_embed(run: Run, tmp_path: Path) -> None:
    """The vectors of an export are those of the network, and a labelling model gives none."""
    args = (torch_folder(), "-f", "pt2", "--output", "embedding", "-o", tmp_path / "tokens")
    assert run("export", *args).code == 0
    options = ("embed", VIDEOS, *PREDICT)
    for name, model in (("torch", torch_folder()), ("pt2", tmp_path / "tokens")):
        assert run(*options, "-m", model, "-o", tmp_path / f"{name}.npz").code == 0
    ours, theirs = (np.load(tmp_path / f"{name}.npz")["embedding"] for name in ("pt2", "torch"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    refused = run("predict", ONE, "-m", tmp_path / "tokens", "-o", tmp_path / "l.jsonl")
    assert refused.code == 1
    assert "gives embeddings, not classes" in only_line(refused.err)
    labels = ("-m", folder_of("pt2", tmp_path / "labels"))
    vectors = run("predict", ONE, *labels, "-o", tmp_path / "l.jsonl", "--save-embeddings", tmp_path / "v.npz")
    assert vectors.code == 2
    assert "--save-embeddings: " in only_line(vectors.err)
    frames = run("embed", ONE, *labels, "--feature", "frames", "-o", tmp_path / "v.npz")
    assert frames.code == 2
    assert "which gives --feature cls at most" in only_line(frames.err)
