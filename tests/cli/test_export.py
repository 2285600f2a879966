"""`timesformer export` as it is called."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from testing.clips import write_model, write_video
from testing.command import Run, only_line
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.jobs.export import graph

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Of the networks the one whose graph is the smallest.
    return write_model(tmp_path_factory.mktemp("network"), attention_type="space_only")


def test_an_export_labels_as_the_model_does(run: Run, tmp_path: Path, model: Path) -> None:
    out = tmp_path / "made"
    done = run("export", model, "--format", "pt2", "-o", out, "--set", "crops=3")
    assert done.code == 0
    assert "tracing the network" in done.err
    assert "warn" not in done.err.lower()
    lines = done.out.splitlines()
    assert lines[:2] == [str(out), "pt2, fp32, from frames to logits"]
    assert [line.split()[0] for line in lines[4:7]] == ["1", "2", "5"]
    assert lines[8].startswith("verified: ")
    video = write_video(tmp_path / "a.mp4")
    ours = run("predict", video, "--model", model, "--set", "crops=3").records
    theirs = run("predict", video, "--model", out).records
    assert [record.pop("model") for record in (*ours, *theirs)] == [str(model), str(out)]
    scores = [[p.pop("score") for p in record["predictions"]] for record in (*ours, *theirs)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert ours == theirs
    again = run("export", "--check", out)
    assert (again.code, again.out.splitlines()[8]) == (0, lines[8])
    assert "PyTorch's results at the export" in again.err


def test_nothing_but_json_is_printed(run: Run, tmp_path: Path, model: Path) -> None:
    done = run("--quiet", "export", model, "--format", "onnx", "--input", "pixels", "-o", tmp_path / "made", "--json")
    assert done.err == ""
    found = json.loads(done.out)
    assert (done.code, found["passed"], found["format"], found["input"]) == (0, True, "onnx", "pixels")
    assert found["tolerance"] == 1e-4
    assert all(batch["relative"] < 1e-5 and batch["agreement"] == batch["of"] for batch in found["batches"])
    checked = run("--quiet", "export", "--check", tmp_path / "made" / "model.onnx", model, "--json")
    assert (checked.code, checked.err) == (0, "")
    assert json.loads(checked.out)["torch_seconds_per_view"] > 0


def test_a_difference_ends_with_an_error(
    run: Run, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = graph.trace

    def wrong(module: graph.Exportable, shape: tuple[int, ...]) -> Any:
        with torch.no_grad():
            module.classifier.bias[0] += 0.1
        return trace(module, shape)

    monkeypatch.setattr(graph, "trace", wrong)
    done = run("--quiet", "export", model, "--format", "pt2", "--output", "probabilities", "-o", tmp_path / "made")
    assert done.code == 1
    assert only_line(done.err) == f"error: {tmp_path}/made.unverified: not verified: it differs by more than rounding"
    assert "not verified: differences" in done.out
    assert os.listdir(tmp_path) == ["made.unverified"]


@pytest.mark.parametrize(
    ("factor", "args", "reason"),
    [
        (np.nan, ["--format", "pt2"], "the network itself gives numbers that are not finite; its weights are damaged"),
        (1e6, ["--format", "onnx", "--precision", "fp16"], "it gives numbers that are not finite; export it in fp32"),
        (1e6, ["--format", "hub", "--precision", "fp16"], "it gives numbers that are not finite; export it in fp32"),
    ],
)
def test_numbers_that_are_not_finite(
    run: Run, tmp_path: Path, model: Path, factor: float, args: list[str], reason: str
) -> None:
    network = TimesformerForVideoClassification.from_pretrained(str(model))
    with torch.no_grad():
        network.timesformer.encoder.layer[0].output.dense.weight *= factor
    network.save_pretrained(tmp_path / "network")
    done = run("--quiet", "export", tmp_path / "network", *args, "-o", tmp_path / "made", "--json")
    unverified = tmp_path / "made.unverified"
    assert done.code == 1
    assert only_line(done.err).startswith(f"error: {unverified}: not verified: {reason}")
    assert sorted(os.listdir(tmp_path)) == ["made.unverified", "network"]
    found = json.loads(done.out, parse_constant=pytest.fail)
    assert [(batch["relative"], batch["agreement"]) for batch in found["batches"]] == [(None, 0)] * 3
    again = run("--quiet", "export", "--check", unverified)
    assert (again.code, again.out.count("not finite")) == (1, 9)
    assert only_line(again.err) == only_line(done.err)


def test_damaged_weights_cannot_be_quantized(run: Run, tmp_path: Path, model: Path) -> None:
    network = TimesformerForVideoClassification.from_pretrained(str(model))
    with torch.no_grad():
        network.classifier.bias[0] = np.inf
    network.save_pretrained(tmp_path / "network")
    done = run("--quiet", "export", tmp_path / "network", "-f", "onnx", "--quantize", "int8", "-o", tmp_path / "made")
    assert done.code == 1
    assert "its weights hold numbers that are not finite, which int8 cannot represent" in only_line(done.err)
    assert os.listdir(tmp_path) == ["network"]


def test_what_the_runtime_cannot_run_is_told_by_its_name(
    run: Run, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "save_pt2", lambda program, path, metadata: path.write_bytes(b"PK"))
    done = run("--quiet", "export", model, "--format", "pt2", "-o", tmp_path / "made")
    assert done.code == 1
    assert only_line(done.err).startswith(f"error: {tmp_path}/made/model.pt2: cannot be read as a .pt2")
    assert os.listdir(tmp_path) == []


def test_a_changed_folder_ends_with_an_error(run: Run, tmp_path: Path, model: Path) -> None:
    assert run("export", model, "--format", "hub", "-o", tmp_path / "made").code == 0
    weights = tmp_path / "made" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = run("--quiet", "export", "--check", tmp_path / "made")
    assert done.code == 1
    assert only_line(done.err).endswith("not verified: model.safetensors changed since the export")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "name a MODEL, its --format and the folder to create with --out"),
        (["camera-motion", "-f", "onnx"], "name a MODEL, its --format and the folder"),
        (["--check", "x", "-o", "y"], "--check verifies an existing export"),
        (["no-such-model", "-f", "onnx", "-o", "y", "--precision", "bf16"], "--precision bf16: --format onnx has"),
        (["camera-motion", "-f", "torchscript", "-o", "y"], "'torchscript' is not one of"),
    ],
)
def test_wrong_usage(run: Run, args: list[str], message: str) -> None:
    done = run("export", *args)
    assert done.code == 2
    assert message in only_line(done.err)


def test_what_is_there_is_kept(run: Run, tmp_path: Path, model: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine").touch()
    done = run("export", model, "-f", "pt2", "-o", tmp_path / "made")
    assert (done.code, done.out) == (1, "")
    assert only_line(done.err) == f"error: {tmp_path}/made: already exists; choose another name, or --overwrite"
    done = run("export", model, "-f", "pt2", "-o", tmp_path / "made", "--overwrite")
    assert "holds 'mine', which is not from an export" in only_line(done.err)
    assert os.listdir(tmp_path / "made") == ["mine"]


def test_torch_is_not_needed_to_check(run: Run, tmp_path: Path, model: Path) -> None:
    assert run("export", model, "-f", "onnx", "-o", tmp_path / "made").code == 0
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"from timesformer_cli.cli import main; main(['export', '--check', {str(tmp_path / 'made')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "verified: " in done.stdout
