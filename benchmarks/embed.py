"""Vectors of `timesformer embed`: whether the head fits them, whether they are those of transformers, what they cost.

    python -m benchmarks.embed identity [--layers 12 --width 768] [--no-ray]
    python -m benchmarks.embed transformers [--layers 12 --width 768]
    python -m benchmarks.embed equal [--kills 6]
    python -m benchmarks.embed cost [--pairs 15] [--layers 12 --width 768]

All videos are made here: three seconds of noise, 320 x 240. Networks have random weights of large scale, except that
`cost` without `--layers` takes camera-motion. A difference is max|a - b| / max|b| over all numbers of a file.

`identity`: the vectors, multiplied by the weights of the classifier, plus its biases, against the logits that `predict
--save-logits` writes. For each attention type: a folder, a .pyth file, and exports to ONNX, OpenVINO and torch.export,
of which one gives class tokens and the other logits; whole videos of several clips and crops, and timelines; for each
form or attention type on a Ray cluster too. Over 1e-5, the exit code is 1.

`transformers`: the vectors against `last_hidden_state[:, 0]` of its TimesformerModel for the same pixels, averaged over
the views. Over 2e-5, the exit code is 1. Its network without attention in time does not average frames, so that type is
left out.

`equal`: for each format, a run that is stopped with SIGINT at random moments and resumed, and one in three shards that
are merged, against a single run, byte for byte with the files beside them. The exit code is 1 if any differ.

`cost`: seconds of processor time of `predict --save-embeddings` against `predict`, in alternation, and of `predict`
against itself. Ratios are taken within a pair. Linux only.
"""

import argparse
import contextlib
import io
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.unchanged import adopt_orphans, make_clips, open_checkout, processor_seconds
from testing.reference import relative_difference
from timesformer_cli.results.vectors.reading import open_vectors
from timesformer_cli.results.vectors.rows import VECTOR_FORMATS

COMMAND = [sys.executable, "-c", "from timesformer_cli.cli import main; main()"]
EXPORTS = ("onnx", "openvino", "pt2")
HEAD, TRANSFORMERS = 1e-5, 2e-5

Numbers = NDArray[np.float64]


def run(*args: str | Path, codes: tuple[int, ...] = (0,)) -> None:
    """Run a command in this process, which has imported torch already."""
    from timesformer_cli.cli import main

    try:
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
            main([*map(str, args), "--quiet"])
    except SystemExit as done:
        if done.code not in codes:
            raise SystemExit(f"{' '.join(map(str, args))}: exit code {done.code}") from None


def write_model(folder: Path, attention: str, layers: int, width: int) -> Path:
    """A network for 400 classes, with 8 frames of 112 pixels, or 224 from the base width on."""
    from benchmarks.parity import FLOAT32, build
    from timesformer_cli import TimesformerConfig

    config = TimesformerConfig(
        attention_type=attention,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        image_size=224 if width >= 768 else 112,
        num_labels=400,
    )
    build(config, FLOAT32).save_pretrained(folder)
    return folder


def forms(model: Path, folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """The name of each form of a model, that which gives class tokens, and that which gives logits."""
    yield "folder", model, model
    run("models", "convert", model, folder / "model.pyth")
    yield ".pyth", folder / "model.pyth", folder / "model.pyth"
    for format in EXPORTS:
        made = {output: folder / f"{format}-{output}" for output in ("embedding", "logits")}
        for output, path in made.items():
            run("export", model, "-f", format, "--output", output, "-o", path)
        yield format, made["embedding"], made["logits"]


def vectors(path: Path) -> Numbers:
    file = open_vectors(path)
    return file.take(range(file.count)).astype(np.float64)


def head(model: Path) -> tuple[Numbers, Numbers]:
    from timesformer_cli import TimesformerForVideoClassification

    classifier = TimesformerForVideoClassification.from_pretrained(model).classifier
    weight, bias = (each.detach().double().numpy() for each in (classifier.weight, classifier.bias))
    return weight, bias


def difference_of_logits(tokens: Path, labels: Path, options: list[str], model: Path, folder: Path) -> float:
    """How far the head of `model`, applied to vectors, is from the saved logits."""
    saved, logits = folder / "v.npz", folder / "l.npz"
    run("embed", folder.parent / "clips", "-m", tokens, *options, "-o", saved, "--overwrite")
    files = ("-o", folder / "l.jsonl", "--save-logits", logits)
    run("predict", folder.parent / "clips", "-m", labels, *options, *files, "--overwrite")
    weight, bias = head(model)
    with np.load(logits) as file:
        return relative_difference(vectors(saved) @ weight.T + bias, file["logits"])


def identity(arguments: argparse.Namespace, scratch: Path) -> int:
    make_clips(scratch / "clips", 2)
    ways = {"views": ["--clips", "2", "--crops", "3"], "timeline": ["--timeline", "--window", "1.5", "--hop", "0.7"]}
    worst = 0.0
    print("| attention | model | views | timeline | --engine ray |\n| --- | --- | --- | --- | --- |")
    for attention in ("divided_space_time", "joint_space_time", "space_only"):
        folder = scratch / attention
        folder.mkdir()
        model = write_model(folder / "model", attention, arguments.layers, arguments.width)
        for name, tokens, labels in forms(model, folder):
            found = [difference_of_logits(tokens, labels, options, model, folder) for options in ways.values()]
            # A cluster takes a minute to start and to end.
            if arguments.ray and (name == "folder" or attention == "divided_space_time"):
                ray = [*ways["views"], "--engine", "ray"]
                found.append(difference_of_logits(tokens, labels, ray, model, folder))
            worst = max(worst, *found)
            print(f"| {attention} | {name} | {' | '.join(f'{value:.1e}' for value in found)} |", flush=True)
    print(f"worst: {worst:.1e}, limit {HEAD:.0e}")
    return int(worst > HEAD)


def against_transformers(arguments: argparse.Namespace, scratch: Path) -> int:
    import torch
    from transformers import TimesformerModel

    make_clips(scratch / "clips", 2)
    worst = 0.0
    print("| attention | class tokens | mean of patches |\n| --- | --- | --- |")
    for attention in ("divided_space_time", "joint_space_time"):
        model = write_model(scratch / attention, attention, arguments.layers, arguments.width)
        theirs = TimesformerModel.from_pretrained(model, attn_implementation="eager").eval()
        expected: dict[str, list[Any]] = {"cls": [], "mean": []}
        for path in sorted((scratch / "clips").iterdir()):
            tensors = scratch / "views.npz"
            run("inspect", path, "-m", model, "--clips", "2", "--tensors", tensors, "--overwrite")
            with np.load(tensors) as file, torch.inference_mode():
                views = torch.from_numpy(file["pixels"])
                hidden = torch.cat([theirs(view[None]).last_hidden_state for view in views]).double()
            expected["cls"].append(hidden[:, 0].mean(0).numpy())
            expected["mean"].append(hidden[:, 1:].mean((0, 1)).numpy())
        found = []
        for feature, wanted in expected.items():
            saved = scratch / f"{attention}.npz"
            options = ("--clips", "2", "--feature", feature, "-o", saved, "--overwrite")
            run("embed", scratch / "clips", "-m", model, *options)
            found.append(relative_difference(vectors(saved), np.stack(wanted)))
        worst = max(worst, *found)
        print(f"| {attention} | {' | '.join(f'{value:.1e}' for value in found)} |", flush=True)
    print(f"worst: {worst:.1e}, limit {TRANSFORMERS:.0e}")
    return int(worst > TRANSFORMERS)


def stopped(args: list[str | Path], journal: Path, chance: random.Random) -> bool:
    """Start a run, and stop it a moment after its first record; whether it was stopped and not done."""
    process = subprocess.Popen([*COMMAND, *map(str, args), "--quiet"], stderr=subprocess.DEVNULL)
    before = journal.stat().st_size if journal.exists() else 0
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > before):
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 0.3))
    process.send_signal(signal.SIGINT)
    code = process.wait()
    if code not in (0, 3, 130):
        raise SystemExit(f"a stopped run ended with {code}")
    return code == 130


def files(path: Path) -> list[bytes | None]:
    """What a file of vectors and those beside it hold."""
    beside = (path, path.with_name(f"{path.name}.meta.json"), path.with_suffix(".jsonl"))
    return [each.read_bytes() if each.exists() else None for each in beside]


def equal(arguments: argparse.Namespace, scratch: Path) -> int:
    clips = scratch / "clips"
    make_clips(clips, 60)
    (clips / "30.mp4").write_bytes(b"")
    chance = random.Random(0)
    base = ["embed", clips, "-m", "camera-motion", "--timeline", "--window", "1", "--hop", "0.5"]
    differing = 0
    for format in VECTOR_FORMATS:
        single, resumed, merged = (scratch / format / name / f"v.{format}" for name in ("single", "resumed", "merged"))
        for path in (single, resumed, merged):
            path.parent.mkdir(parents=True)
        run(*base, "-o", single, codes=(3,))
        journal = resumed.with_name(f"{resumed.name}.part.jsonl")
        stops = 0
        for _ in range(arguments.kills):
            stops += stopped([*base, "-o", resumed, "--resume"], journal, chance)
            if resumed.exists():
                break
        run(*base, "-o", resumed, "--resume", codes=(3,))
        for number in (1, 2, 3):
            run(*base, "-o", merged, "--shard", f"{number}/3", codes=(0, 3))
        run("merge", *merged.parent.glob(f"v.*-of-3.{format}"), "-o", merged)
        same = [files(path) == files(single) for path in (resumed, merged)]
        differing += same.count(False)
        print(f"{format}: after {stops} stops {'equal' if same[0] else 'DIFFERS'}; three shards, merged: "
              f"{'equal' if same[1] else 'DIFFERS'}", flush=True)  # fmt: skip
    return int(differing > 0)


def cost(arguments: argparse.Namespace, scratch: Path) -> int:
    adopt_orphans()
    make_clips(scratch / "clips", 40 if arguments.layers is None else 6)
    model: str | Path = "camera-motion"
    if arguments.layers is not None:
        model = write_model(scratch / "model", "divided_space_time", arguments.layers, arguments.width)
    here = open_checkout(Path(__file__).parent.parent, scratch)
    plain = ["predict", "clips", "-m", str(model), "-o", "l.jsonl", "--overwrite", "--quiet"]
    saving = [*plain, "--save-embeddings", "v.parquet"]
    ratios: dict[str, list[float]] = {"--save-embeddings": [], "itself": []}
    processor_seconds(here, plain, scratch)  # fills the file cache
    for number in range(arguments.pairs):
        for what, other in (("--save-embeddings", saving), ("itself", plain)):
            order = [plain, other] if number % 2 == 0 else [other, plain]
            seconds = [processor_seconds(here, args, scratch) for args in order]
            first, second = seconds if number % 2 == 0 else seconds[::-1]
            ratios[what].append(second / first)
    for what, values in ratios.items():
        low, _, high = statistics.quantiles(values)
        whole = f"all {min(values):.3f} to {max(values):.3f}"
        print(f"{what}: {statistics.median(values):.3f} (middle half {low:.3f} to {high:.3f}; {whole})")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name in ("identity", "transformers", "cost", "equal"):
        kind = kinds.add_parser(name)
        kind.add_argument("--layers", type=int, default=None if name == "cost" else 4)
        kind.add_argument("--width", type=int, default=192)
        kind.add_argument("--pairs", type=int, default=15)
        kind.add_argument("--kills", type=int, default=6)
        kind.add_argument("--no-ray", action="store_false", dest="ray")
    arguments = parser.parse_args()
    work = {"identity": identity, "transformers": against_transformers, "equal": equal, "cost": cost}
    # Jobs in the background of a shell are deaf to Ctrl-C, and so would be the runs that it is to stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with tempfile.TemporaryDirectory() as scratch:
        raise SystemExit(work[arguments.kind](arguments, Path(scratch)))


if __name__ == "__main__":
    main()
