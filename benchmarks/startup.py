"""Time of `timesformer --help`, against `python -c "import torch"`.

    python -m benchmarks.startup [--rounds 15]

The two run in alternation, in fresh processes of the same interpreter, and the ratio is taken within a round. A first
round, which fills the file cache, is not counted.
"""

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "timesformer --help": "from timesformer_cli.cli import main; main(['--help'])",
    "timesformer predict --help": "from timesformer_cli.cli import main; main(['predict', '--help'])",
    "import torch": "import torch",
}


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    taken = [{name: seconds(code) for name, code in COMMANDS.items()} for _ in range(rounds + 1)][1:]
    for name in COMMANDS:
        own = statistics.median(times[name] for times in taken)
        ratios = [times[name] / times["import torch"] for times in taken]
        print(f"{name:28} {own:6.3f} s   {statistics.median(ratios):5.3f} of import torch")
        print(f"{'':28}          (rounds: {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
