"""Runs that are killed at random moments and resumed, against an uninterrupted run.

    python -m benchmarks.kills [--videos 300] [--kills 30] [--seed 0]

Small videos, one of twenty broken, are labelled into JSON lines, and with a third of the kills into CSV with the logits
of all classes. The ways to kill alternate: SIGKILL to the whole process group, as by a scheduler; SIGKILL to a single
worker, as by a kernel short of memory; SIGTERM to the command, or to its group. The moment is random: in the first
seconds, or some records later. A stopped run is continued with --resume until it is complete; then the next output is
begun, until all kills are spent. Each output must be identical, byte for byte, to that of an uninterrupted run.

The video of a killed worker is read again, once; if the worker is killed twice, it gets a record of the kind `crash`,
by design. So JSON lines are compared twice: as they are, with that record as the only allowed difference, and after
--retry-errors.

Linux only: it reads /proc and /dev/shm.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

COMMAND = [sys.executable, "-c", "from timesformer_cli.cli import main; main()", "predict"]

# Seconds: until when a run is killed whatever its records; how long processes may take to end without their parent; and
# after which a run removes what other runs have left in shared memory.
EARLY = 4.0
PATIENCE = 10.0
ABANDONED = 61.0

WAYS = ("SIGKILL to the group", "SIGKILL to a worker", "SIGTERM", "SIGTERM to the group")


@dataclass
class Tally:
    """The events in all runs into one format."""

    kills: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    outputs: int = 0
    crashes: int = 0
    pids: list[int] = field(default_factory=list)
    processes_left: int = 0
    arrays_left: int = 0


class Outputs(NamedTuple):
    """The files that a run writes, in a folder without other files."""

    folder: Path
    names: tuple[str, ...]

    @property
    def growing(self) -> Path:
        """The file that records are appended to."""
        first = self.folder / self.names[0]
        return first if len(self.names) == 1 else first.with_name(f"{first.name}.part.jsonl")

    @property
    def options(self) -> list[str]:
        paths = [str(self.folder / name) for name in self.names]
        return ["-o", paths[0], *(["--save-logits", paths[1]] if paths[1:] else [])]

    def read(self) -> list[bytes]:
        there, wanted = sorted(os.listdir(self.folder)), sorted([*self.names, f"{self.names[0]}.meta.json"])
        assert there == wanted, f"{there} instead of {wanted}"
        return [(self.folder / name).read_bytes() for name in self.names]


def make_videos(folder: Path, count: int) -> None:
    from testing.clips import write_audio, write_video

    originals = [write_video(folder / f"../{level}.mp4", level=level) for level in range(10)]
    sound = write_audio(folder / "../sound.mp4").read_bytes()
    bad = [b"", b"no video", originals[0].read_bytes()[:1500], sound]
    for number in range(count):
        path = folder / f"{number:04}.mp4"
        if number % 20 == 7:
            path.write_bytes(bad[number // 20 % len(bad)])
        else:
            shutil.copyfile(originals[number % len(originals)], path)


def records(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def processes_of(session: int) -> list[int]:
    """The live processes that were started in a session; zombies do not count."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has ended meanwhile
            continue
        if int(its) == session and state not in "ZX":
            found.append(int(folder.name))
    return found


def children_of(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    try:
        return [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []


def workers_of(process: int) -> list[int]:
    """The children of the server that forks them, which is a child of the command."""
    return [worker for server in children_of(process) for worker in children_of(server)]


def arrays_of(pids: list[int]) -> list[Path]:
    return [path for pid in pids for path in Path("/dev/shm").glob(f"timesformer-{pid}-*")]


def kill(process: "subprocess.Popen[bytes]", way: str, chance: random.Random) -> bool:
    """Kill something; whether there was anything to kill."""
    try:
        match way:
            case "SIGKILL to the group":
                os.killpg(process.pid, signal.SIGKILL)
            case "SIGKILL to a worker":
                workers = workers_of(process.pid)
                if not workers:
                    return False
                os.kill(chance.choice(workers), signal.SIGKILL)
            case "SIGTERM":
                process.send_signal(signal.SIGTERM)
            case "SIGTERM to the group":
                os.killpg(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True


def wait_for_the_moment(
    process: "subprocess.Popen[bytes]", growing: Path, chance: random.Random, *, early: bool
) -> None:
    if early and chance.random() < 0.3:
        deadline, more = time.monotonic() + chance.uniform(0, EARLY), sys.maxsize
    else:
        deadline, more = sys.maxsize, records(growing) + chance.randint(1, 40)
    while process.poll() is None and time.monotonic() < deadline and records(growing) < more:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.02))


def run_with_kills(args: list[str], growing: Path, ways: list[str], chance: random.Random, tally: Tally) -> bool:
    """One run, killed in the first of `ways`, which are used up; whether it finished all the same."""
    with subprocess.Popen([*COMMAND, *args], start_new_session=True, stderr=subprocess.PIPE) as process:
        tally.pids.append(process.pid)
        early = True
        while ways:
            wait_for_the_moment(process, growing, chance, early=early)
            early = False
            if process.poll() is not None:
                break
            if kill(process, ways[-1], chance):
                way = ways.pop()
                tally.kills[way] += 1
                if way != "SIGKILL to a worker":
                    break
        _, err = process.communicate()
    tally.codes[process.returncode] += 1
    assert process.returncode in (3, -signal.SIGKILL, -signal.SIGTERM, 143), (process.returncode, err.decode())
    deadline = time.monotonic() + PATIENCE
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    tally.processes_left += len(processes_of(process.pid))
    tally.arrays_left += len(arrays_of([process.pid]))
    return process.returncode == 3


def crashed(lines: bytes, others: bytes) -> int:
    """The number of lines that are a crash instead of the other record; no other difference is allowed."""
    pairs = list(zip(lines.splitlines(), others.splitlines(), strict=True))
    differing = [(json.loads(line), json.loads(other)) for line, other in pairs if line != other]
    for line, other in differing:
        assert line["path"] == other["path"], (line, other)
        assert line["status"] == "error", (line, other)
        assert line["error"]["kind"] == "crash", (line, other)
    return len(differing)


def complete(args: list[str]) -> None:
    done = subprocess.run([*COMMAND, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr  # some are bad


def torment(folder: Path, names: tuple[str, ...], ways: list[str], chance: random.Random) -> Tally:
    """Label the videos repeatedly until all kills are spent; each output must equal that of an uninterrupted run."""
    tally = Tally()
    videos = str(folder / "videos")
    quiet = Outputs(folder / f"peace-{names[0]}", names)
    quiet.folder.mkdir()
    complete([videos, *quiet.options])
    expected = quiet.read()
    while ways:
        outputs = Outputs(folder / f"kills-{names[0]}-{tally.outputs}", names)
        outputs.folder.mkdir()
        tally.outputs += 1
        args = [videos, *outputs.options, "--resume"]
        while not run_with_kills(args, outputs.growing, ways, chance, tally):
            pass
        found = outputs.read()
        if len(names) == 1:
            tally.crashes += crashed(found[0], expected[0])
            complete([*args, "--retry-errors"])
            found = outputs.read()
        assert found == expected, f"{outputs.folder} differs from {quiet.folder}"
    assert tally.crashes <= tally.kills["SIGKILL to a worker"]
    return tally


def report(what: str, tally: Tally, seconds: float) -> None:
    ways = ", ".join(f"{number} {way}" for way, number in tally.kills.items())
    codes = ", ".join(f"{number} x {code}" for code, number in sorted(tally.codes.items()))
    print(f"{what}: {tally.kills.total()} kills ({ways}) in {len(tally.pids)} runs, {seconds:.0f} s")
    print(f"  {tally.outputs} outputs, each byte for byte that of a run without kills")
    print(f"  {tally.kills['SIGKILL to a worker']} workers killed, {tally.crashes} crash records, labelled again")
    print(f"  exit codes: {codes}")
    print(f"  left behind: {tally.processes_left} processes, {tally.arrays_left} arrays in shared memory", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from testing.clips import write_model

    chance = random.Random(arguments.seed)
    print(
        f"Python {platform.python_version()}; {os.cpu_count()} cores; {arguments.videos} videos; seed {arguments.seed}",
        flush=True,
    )
    pids: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TIMESFORMER_MODEL"] = str(write_model(folder / "tiny"))
        (folder / "videos").mkdir()
        make_videos(folder / "videos", arguments.videos)
        for what, names, kills in (
            ("JSON lines", ("out.jsonl",), arguments.kills),
            ("CSV and logits", ("out.csv", "out.npz"), arguments.kills // 3),
        ):
            ways = [WAYS[number % len(WAYS)] for number in range(kills)]
            chance.shuffle(ways)
            start = time.monotonic()
            tally = torment(folder, names, ways, chance)
            report(what, tally, time.monotonic() - start)
            assert tally.processes_left == 0
            pids += tally.pids
        if arrays_of(pids):
            time.sleep(ABANDONED)
            complete([str(folder / "videos"), "--limit", "8"])
        print(f"arrays left in shared memory a minute and one run later: {len(arrays_of(pids))}")
        assert not arrays_of(pids)


if __name__ == "__main__":
    main()
