"""How faithful the maps of `timesformer explain` are, and what they cost.

    python -m benchmarks.explain maps --more clips/*.mp4 -o explain.json
    python -m benchmarks.explain cost --size base [-- --checks all]

`maps`: on windows of real clips, with the bundled model of motion. Takes the two windows with the highest score of each
sample video, and the one of each further video. Prints a table with, for each method: mean scores as patches are taken
away in its order and in the reverse; the gap between the two areas, and in how many windows it is above 0.05; the same
gap for windows that show no motion; how often it puts a moving patch above a still one in composites of which half is
frozen; the rank correlation with the network with random weights; processor seconds. Then: altered clips, how far maps
add up, and the verdict on random weights.

`cost`: one `timesformer explain` of a sample video by a network of this size with random weights, against one forward
pass: seconds and peak memory. Linux only.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed import SIZES, write_model
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import VideoError
from timesformer_cli.flow import Item
from timesformer_cli.jobs.explain.alterations import altered
from timesformer_cli.jobs.explain.asking import Model
from timesformer_cli.jobs.explain.check import check_map, rank_correlation, ranked
from timesformer_cli.jobs.explain.maps import Network, inside, map_of
from timesformer_cli.jobs.explain.records import INSIDE, NO_BETTER, Alteration, Map, Method, Options, Question
from timesformer_cli.network.model import TimesformerForVideoClassification
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.runtimes.batching import BatchSize
from timesformer_cli.runtimes.pytorch import open_scorer, scorer_of

SAMPLES = Path(__file__).parent.parent / "sample_videos"
STILL = "static"
OPPOSITE = {"left": "right", "up": "down", "in": "out", "clockwise": "counter-clockwise"}
FEWEST = 0.5  # score of a window's label
CLEAR = 0.05  # gap
NETWORKS = 12
BASELINES = ("random order", "nearness to the centre", "frame difference")
SLOW = ("lrp+ig", "ig", "occlusion", "ridge", "shapley")  # not measured with composites

# The command line in a process of its own, which tells its peak memory in KiB at the end.
COMMAND = """
import sys
from timesformer_cli.cli import main
try:
    main(sys.argv[1:])
finally:
    print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0], file=sys.stderr)
"""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    name: str
    clip: Array
    label: int
    score: float

    @property
    def question(self) -> Question:
        return Question(self.label)


class Bench:
    def __init__(self) -> None:
        self.checkpoint = resolve("camera-motion")
        self.labels = self.checkpoint.labels
        self.scorer = open_scorer(self.checkpoint, device="cpu", precision="fp32")
        self.network = Network(self.checkpoint, "cpu")

    def model(self) -> Model:
        return Model(self.scorer, BatchSize(4), self.checkpoint.config.patch_hw)

    def windows(self, paths: Sequence[Path], most: int) -> Iterator[Window]:
        for path in paths:
            try:
                views = prepare(Item(str(path)), self.checkpoint.recipe)
            except VideoError as error:
                print(f"{path}: left out: {error}")
                continue
            scores = torch.from_numpy(self.model().logits(views.pixels)).softmax(-1).numpy()
            for number in np.argsort(-scores.max(1))[:most].tolist():
                label = int(scores[number].argmax())
                if scores[number, label] >= FEWEST:
                    yield Window(path.name, views.pixels[number], label, float(scores[number, label]))

    def composites(self, window: Window) -> Iterator[tuple[str, Array, NDArray[np.bool_]]]:
        """Clips of which half is frozen and that still get the label: the kind, the clip, and the patches that move."""
        clip, (frames, rows, columns) = window.clip, self.model().grid(window.clip)
        high, wide = clip.shape[-2] // 2, clip.shape[-1] // 2
        moving = np.zeros((6, frames, rows, columns), np.bool_)
        made = np.stack([clip] * 6)
        half = frames // 2
        made[0, half:], moving[0, :half] = clip[half - 1], True
        made[1, :half], moving[1, half:] = clip[half], True
        for number, (down, right) in enumerate(
            [
                (slice(high), slice(None)),
                (slice(high, None), slice(None)),
                (slice(None), slice(wide)),
                (slice(None), slice(wide, None)),
            ],
            2,
        ):
            made[number, ..., down, right] = clip[half, ..., down, right]
            rest = np.zeros((rows, columns), np.bool_)
            rest[
                down
                if down == slice(None)
                else slice(*(None if each is None else rows // 2 for each in (down.start, down.stop))),
                right
                if right == slice(None)
                else slice(*(None if each is None else columns // 2 for each in (right.start, right.stop))),
            ] = True
            moving[number] = ~rest
        first = self.model().logits(made).argmax(1)
        for number in range(6):
            if first[number] == window.label:
                yield "time" if number < 2 else "space", made[number], moving[number]


def pairs(values: Array, moving: NDArray[np.bool_]) -> float:
    """The share of pairs of a moving and a still patch in the right order; 0.5 is chance."""
    ranks = ranked(values)
    above = ranks[moving].sum() - moving.sum() * (moving.sum() - 1) / 2
    return float(above / (moving.sum() * (~moving).sum()))


def baselines(clip: Array, shape: tuple[int, int, int]) -> dict[str, Array]:
    """Orders that know nothing of the model."""
    frames, rows, columns = shape
    down, right = (np.abs(np.arange(side) - (side - 1) / 2) / side for side in (rows, columns))
    near = np.broadcast_to(-np.hypot(down[:, None], right), shape)
    changes = np.abs(np.diff(clip, axis=0, prepend=clip[1:2])).mean(1)
    changes = changes.reshape(frames, rows, -1, columns, clip.shape[-1] // columns).mean((2, 4))
    order = np.random.default_rng(0).random(shape)
    return {
        "random order": order.astype(np.float32),
        "nearness to the centre": near.astype(np.float32),
        "frame difference": changes,
    }


def measured(bench: Bench, name: str, make: Callable[[Window], Map], windows: Sequence[Window]) -> dict[str, Any]:
    rows = []
    for window in windows:
        begin = time.process_time()
        found = make(window)
        seconds = time.process_time() - begin
        check = check_map(bench.model(), window.question, window.clip, window.score, found.values, ["gray", "still"])
        row: dict[str, Any] = {"name": window.name, "label": bench.labels[window.label], "seconds": seconds}
        for fill in ("gray", "still"):
            row[fill] = [np.mean(check.deletion[fill]), np.mean(check.reverse[fill]), check.gap[fill]]
        if found.total is not None:
            row["adds_up"] = found.total.sum, found.total.of
            row["points"] = found.total.points
        if name in INSIDE:
            other = inside(bench.network.untrained, found.method, window.question, window.clip).values
            row["untrained"] = abs(rank_correlation(found.values, other))
        rows.append(row)
    return {"method": name, "rows": rows}


def summary(result: dict[str, Any], motion: Sequence[bool]) -> str:
    rows = [row for row, moves in zip(result["rows"], motion, strict=True) if moves]
    rest = [row for row, moves in zip(result["rows"], motion, strict=True) if not moves]
    cells = [result["method"]]
    for fill in ("gray", "still"):
        values = np.array([row[fill] for row in rows])
        cells += [f"{values[:, 0].mean():.2f} / {values[:, 1].mean():.2f}"]
        cells += [f"{values[:, 2].mean():+.2f} ({(values[:, 2] > CLEAR).sum()} of {len(rows)})"]
    cells += [f"{np.mean([row[fill][2] for row in rest]):+.2f}" for fill in ("gray", "still")] if rest else ["", ""]
    truth = result.get("truth", {})
    cells += [
        f"{np.mean(truth[kind]):.2f} ({len(truth[kind])})" if truth.get(kind) else "" for kind in ("time", "space")
    ]
    same = [row["untrained"] for row in rows if "untrained" in row]
    cells += [f"{np.mean(same):.2f}" if same else "", f"{np.mean([row['seconds'] for row in rows]):.2f}"]
    return f"| {' | '.join(cells)} |"


def all_methods(bench: Bench, windows: Sequence[Window], methods: Sequence[str]) -> list[dict[str, Any]]:
    motion = [bench.labels[window.label] != STILL for window in windows]
    composites = [
        (window, *made)
        for window, moves in zip(windows, motion, strict=True)
        if moves
        for made in bench.composites(window)
    ]
    makers: dict[str, Callable[[Window], Map]] = {
        name: lambda window, name=name: Map("lrp", baselines(window.clip, bench.model().grid(window.clip))[name])  # type: ignore[misc]
        for name in BASELINES
        if name in methods
    }
    for method in get_args(Method):
        if method not in methods:
            continue
        options = Options(method=method)
        makers[method] = lambda window, options=options: map_of(  # type: ignore[misc]
            bench.model(), bench.network, window.question, window.clip, options
        )
    results = []
    print(
        "| map | gray: score | gap | still: score | gap | static, gray | static, still | time | space "
        "| untrained | CPU s |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, make in makers.items():
        result = measured(bench, name, make, windows)
        if name not in SLOW:
            result["truth"] = {
                kind: [
                    pairs(make(Window("", clip, window.label, 0.0)).values, moving)
                    for window, made, clip, moving in composites
                    if made == kind
                ]
                for kind in ("time", "space")
            }
        print(summary(result, motion), flush=True)
        results.append(result)
    return results


def alterations(bench: Bench, windows: Sequence[Window]) -> dict[str, Any]:
    """Mean scores of altered clips, and how many reversed ones get the opposite label."""
    found: dict[str, Any] = {}
    for kind, moves in (("moving", True), ("static", False)):
        chosen = [window for window in windows if (bench.labels[window.label] != STILL) == moves]
        names = get_args(Alteration)
        scores: dict[str, list[float]] = {name: [] for name in names}
        opposite = 0
        for window in chosen:
            logits = bench.model().logits(altered(window.clip, name) for name in names)
            for name, score in zip(names, window.question.scores(logits), strict=True):
                scores[name].append(score)
            answer = bench.labels[int(logits[names.index("reversed")].argmax())]
            opposite += answer == turned(bench.labels[window.label])
        found[kind] = {name: round(float(np.mean(each)), 3) for name, each in scores.items()}
        found[kind] |= {
            "as it is": round(float(np.mean([window.score for window in chosen])), 3),
            "windows": len(chosen),
        }
        if moves:
            found[kind]["opposite when reversed"] = opposite
    return found


def turned(label: str) -> str:
    word = label.rpartition(" ")[2]
    other = OPPOSITE.get(word) or next((one for one, back in OPPOSITE.items() if back == word), word)
    return label.removesuffix(word) + other


def untrained(bench: Bench, windows: Sequence[Window]) -> int:
    """Of networks with random weights, how many get the verdict that their map is no better than chance."""
    chance = 0
    for number in range(NETWORKS):
        window = windows[number % len(windows)]
        torch.manual_seed(number)
        network = TimesformerForVideoClassification(bench.checkpoint.config).eval().requires_grad_(False)
        scorer = scorer_of(lambda network=network: network, device="cpu", precision="fp32")  # type: ignore[misc]
        model = Model(scorer, BatchSize(4), bench.checkpoint.config.patch_hw)
        logits = model.logits([window.clip])
        question = Question(int(logits[0].argmax()))
        found = inside(network, "lrp", question, window.clip)
        score = float(question.scores(logits)[0])
        check = check_map(model, question, window.clip, score, found.values, ["gray", "still"])
        chance += Map("lrp", found.values, check=check).verdict == NO_BETTER
    return chance


def adding_up(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for result in results:
        pairs_ = np.array([row["adds_up"] for row in result["rows"] if "adds_up" in row])
        if len(pairs_):
            off = np.abs(pairs_[:, 0] - pairs_[:, 1]) / np.abs(pairs_[:, 1])
            found[result["method"]] = {
                "median error": round(float(np.median(off)), 4),
                "worst": round(float(off.max()), 4),
                "mean sum": round(float(pairs_[:, 0].mean()), 3),
                "mean of": round(float(pairs_[:, 1].mean()), 3),
                "most points": max(row["points"] or 0 for row in result["rows"]),
            }
    return found


def spread(bench: Bench, windows: Sequence[Window], most: int, *, moves: bool) -> list[Window]:
    chosen = [window for window in windows if (bench.labels[window.label] != STILL) == moves]
    return chosen if len(chosen) <= most else [chosen[len(chosen) * place // most] for place in range(most)]


def cost(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_model(folder, args.size, args.layers)
        video = str(SAMPLES / "pan_left.mp4")
        call = ["explain", video, "-m", folder, "--device", "cpu", "--workers", "0", "--clips", "1", "--crops", "1"]
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", COMMAND, *call, *args.options], capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        if done.returncode:
            sys.exit(done.stderr)
        record = json.loads(done.stdout)
        checkpoint = resolve(folder)
        views = prepare(Item(video), checkpoint.recipe).pixels[:1]
        scorer = open_scorer(checkpoint, device="cpu", precision="fp32")
        scorer(views)
        forward = statistics.median(timed(lambda: scorer(views)) for _ in range(3))
    peak = int(done.stderr.split()[-1]) / 2**20
    print(f"{args.size}, {args.layers} layers, {torch.get_num_threads()} threads: {' '.join(args.options)}")
    print(f"{seconds:.1f} s, of which {record['forwards']} forwards; peak memory {peak:.2f} GiB")
    print(f"one forward {forward:.2f} s: all of it takes the time of {seconds / forward:.0f}")


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    of_maps = commands.add_parser("maps")
    of_maps.add_argument("--more", type=Path, nargs="*", default=[])
    of_maps.add_argument("--methods", nargs="*", default=[*BASELINES, *get_args(Method)])
    of_maps.add_argument("--most", type=int, help="windows with motion, and without, spread over all that there are")
    of_maps.add_argument("-o", "--output", type=Path)
    of_maps.set_defaults(do=faithful)
    of_cost = commands.add_parser("cost")
    of_cost.add_argument("--size", choices=SIZES, default="base", help="of a network with random weights")
    of_cost.add_argument("--layers", type=int, default=12, help="of that network")
    of_cost.add_argument("options", nargs="*", help="options of explain, after --")
    of_cost.set_defaults(do=cost)
    args = parser.parse_args()
    args.do(args)


def faithful(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    bench = Bench()
    samples = sorted(path for path in SAMPLES.iterdir() if path.suffix in (".mp4", ".mkv", ".webm"))
    windows = [*bench.windows(samples, 2), *bench.windows(args.more, 1)]
    if args.most:
        windows = [*spread(bench, windows, args.most, moves=True), *spread(bench, windows, args.most, moves=False)]
    moving = sum(bench.labels[window.label] != STILL for window in windows)
    print(f"{moving} windows with motion, {len(windows) - moving} without")
    results = all_methods(bench, windows, args.methods)
    others = {
        "altered": alterations(bench, windows),
        "adds_up": adding_up(results),
        "random weights, no better than chance": f"{untrained(bench, windows)} of {NETWORKS}",
    }
    print(json.dumps(others, indent=2))
    if args.output:
        args.output.write_text(json.dumps({"methods": results, **others}, indent=2) + "\n")


if __name__ == "__main__":
    main()
