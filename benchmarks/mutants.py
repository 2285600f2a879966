"""Thousands of damaged videos, through the command: each must end in a record, and the run must go on.

    python -m benchmarks.mutants [--count 1000] [--timeout 20] [--seed 0]

Ten clips, the nine sample videos and one made here, are damaged in six ways (flipped bytes anywhere, changed bytes in
the head, truncated, a piece cut out, a piece blanked, parts shuffled), with a fixed seed, and labelled by one
`timesformer predict` with two workers. Prints their outcomes, and whether a process or memory was left behind.
"""

import argparse
import collections
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.workers import memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--timeout", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from testing.clips import write_video
    from testing.mutants import write_mutants

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = sorted(path for path in Path("sample_videos").iterdir() if path.suffix not in (".md", ".csv"))
        clips.append(write_video(folder / "made.mp4", frames=60, width=128, height=96))
        (folder / "mutants").mkdir()
        mutants = write_mutants(clips, folder / "mutants", arguments.count, arguments.seed)
        print(f"{len(mutants)} mutants of {len(clips)} clips, seed {arguments.seed}")
        run(mutants, folder / "out.jsonl", arguments.timeout)


def run(mutants: list[Path], output: Path, timeout: float) -> None:
    command = [sys.executable, "-m", "timesformer_cli", "predict", str(mutants[0].parent), "-m", "camera-motion"]
    command += ["-o", str(output), "--workers", "2", "--timeout", str(timeout)]
    start = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    samples: list[float] = []
    done = threading.Event()
    watch = threading.Thread(target=sample_memory, args=(process.pid, samples, done))
    watch.start()
    code = process.wait()
    done.set()
    watch.join()
    seconds = time.monotonic() - start
    records = [json.loads(line) for line in output.read_text().splitlines()]
    kinds = collections.Counter(r["error"]["kind"] if r["status"] == "error" else "ok" for r in records)
    print(f"exit code {code}, {seconds:.0f} s, {len(records)} records: {dict(kinds.most_common())}")
    assert [record["path"] for record in records] == [str(path) for path in mutants], "records are missing"
    quarter = len(samples) // 4
    print(
        f"MiB of all processes: {max(samples[:quarter]):.0f} at most in the first quarter of the run, "
        f"{max(samples[-quarter:]):.0f} in the last"
    )
    time.sleep(1)  # the server that forks workers ends when it notices that the command is gone
    left = [p for p in Path("/proc").iterdir() if p.name.isdigit() and session(p) == process.pid]
    print(f"processes left behind: {len(left)}")


def sample_memory(process: int, samples: list[float], done: threading.Event) -> None:
    while not done.wait(1.0):
        try:
            samples.append(memory(process))
        except OSError:  # it, or a worker, ended meanwhile
            continue


def session(process: Path) -> int | None:
    """The session of a running process: the sixth field, after a name that may contain anything."""
    try:
        state, _, _, number, *_ = (process / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if state == "Z" else int(number)


if __name__ == "__main__":
    main()
