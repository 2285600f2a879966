"""Where the time of one `timesformer predict VIDEO` goes: imports, load, decode, preprocess, model, write.

    python -m benchmarks.predict_once VIDEO [--model camera-motion] [--rounds 7] [--threads N]

Each round is a fresh process that takes the steps of the command, through the functions that the command calls. Medians
are printed. "after imports" is the sum of all steps after them.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def one_round(path: str, model: str) -> dict[str, float]:
    """Seconds of each step in this process, which must not have imported any of the package before."""
    steps: dict[str, float] = {}
    start = time.perf_counter()

    def done(step: str) -> None:
        nonlocal start
        now = time.perf_counter()
        steps[step], start = now - start, now

    for module in (
        "torch",
        "timesformer_cli.cli",
        "timesformer_cli.network.model",
        "timesformer_cli.video.decoders.pyav",
    ):
        importlib.import_module(module)
    from timesformer_cli import flow as records
    from timesformer_cli.checkpoints import resolve as checkpoint
    from timesformer_cli.pipeline.prepare import read_clips
    from timesformer_cli.pipeline.score import label, score
    from timesformer_cli.results.record import origin_of, to_record
    from timesformer_cli.results.writers import open_writer
    from timesformer_cli.runtimes import pytorch as runtime
    from timesformer_cli.video import preprocess, sampling
    from timesformer_cli.video import reader as video

    done("imports")
    recipe = checkpoint.resolve(model)
    scorer = runtime.open_scorer(recipe)
    done("load")
    item = records.Item(path)
    with video.open_video(item) as reader:
        (span,) = sampling.plan(reader.info, recipe.sampling)
        clips = list(read_clips(reader, span.clips))
    done("decode")
    views = records.Views(item, reader.info, span, (), preprocess.make_views(clips, recipe.preprocess))
    done("preprocess")
    (result,) = label(score([views], scorer, 4), recipe)
    done("model")
    with open_writer(Path(os.devnull), "jsonl", origin_of(recipe)) as writer:
        writer.write(to_record(result, recipe))
    done("write")
    steps["after imports"] = sum(steps.values()) - steps["imports"]
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--model", default="camera-motion")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="torch's threads; by default torch's own choice")
    parser.add_argument("--one-round", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one_round:
        print(json.dumps(one_round(args.video, args.model)))
        return
    environment = os.environ | ({"OMP_NUM_THREADS": str(args.threads)} if args.threads else {})
    command = [sys.executable, "-m", "benchmarks.predict_once", args.video, "--model", args.model, "--one-round"]
    rounds = []
    for _ in range(args.rounds + 1):
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        rounds.append(json.loads(done.stdout))
    for step in rounds[0]:  # the first round fills the file cache and is not counted
        times = [times[step] for times in rounds[1:]]
        print(f"{step:14} {statistics.median(times):6.3f} s   ({min(times):.3f} to {max(times):.3f})")


if __name__ == "__main__":
    main()
