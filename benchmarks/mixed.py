"""Odd and broken videos among good ones, in one run of camera-motion: the outcome of each.

    python -m benchmarks.mixed FOLDER [--good 200]

FOLDER has a MANIFEST.json that states for each of its videos whether it must be labelled ("expected": "ok") or refused,
or that both are allowed. They are spread among newly made ones. Every video must get one record, in the order of the
list. Every new one must be labelled, and the others must have the outcome that the manifest states.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from testing.test_video_collection import KINDS

from testing.clips import write_video

COMMAND = [sys.executable, "-c", "from timesformer_cli.cli import main; main()", "predict"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--good", type=int, default=200)
    arguments = parser.parse_args()
    manifest = json.loads((arguments.folder / "MANIFEST.json").read_text(encoding="utf-8"))["files"]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        good = [
            write_video(work / f"{number:03}.mp4", level=number, frames=30 + number % 40, width=160, height=120)
            for number in range(arguments.good)
        ]
        entries = {str(arguments.folder / entry["file"]): entry for entry in manifest}
        paths = [*map(str, good), *entries]
        random.Random(0).shuffle(paths)
        (work / "list.txt").write_bytes(b"".join(os.fsencode(path) + b"\n" for path in paths))
        args = ["--from-file", str(work / "list.txt"), "-m", "camera-motion", "-o", str(work / "out.jsonl")]
        start = time.monotonic()
        done = subprocess.run([*COMMAND, *args], capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
        records = [json.loads(line) for line in (work / "out.jsonl").read_bytes().splitlines()]
    print(f"Python {platform.python_version()}; {os.cpu_count()} cores; exit code {done.returncode}; {seconds:.0f} s")
    print(done.stderr.splitlines()[-1])
    assert done.returncode == 3, done.stderr
    assert [record["path"] for record in records] == paths
    kinds: Counter[str] = Counter()
    wrong = []
    for record in records:
        entry = entries.get(record["path"], {"expected": "ok", "either_is_acceptable": False, "file": record["path"]})
        status, kind = record["status"], record.get("error", {}).get("kind")
        kinds[kind or "labelled"] += 1
        if entry["either_is_acceptable"]:
            print(f"either would do: {entry['file']}: {record.get('error', {}).get('message', 'labelled')}")
        elif status != entry["expected"] or kind != KINDS.get(entry["file"]):
            wrong.append((entry["file"], record.get("error")))
    print(f"{len(records)} records: " + ", ".join(f"{number} {kind}" for kind, number in kinds.most_common()))
    assert not wrong, wrong


if __name__ == "__main__":
    main()
