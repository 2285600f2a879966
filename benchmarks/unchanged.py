"""Two checkouts of the project: whether they print and write the same, and whether one is slower than the other.

    python -m benchmarks.unchanged outputs OLD NEW [--only 'evaluate*'] [--keep FOLDER]
    python -m benchmarks.unchanged speed OLD NEW [--pairs 15] [--only help]

`outputs` runs the same commands with both, each case in a folder of the same path, with the bundled model and with the
sample videos of OLD, broken videos, and images. Exit codes, printed text, and all written files are compared byte for
byte, except for the patterns in `VARYING`: times, versions, the place of a checkout, and what PyTorch records of the
source code of a network that it traces. If bytes differ, arrays, tables, images and the members of archives are
compared one by one. In the cases `old-then-new*`, NEW continues the outputs of OLD; in the run that they are
compared with, OLD continues them itself. To save time, most commands begin in a process that has imported PyTorch, but
nothing of the package; with `--fresh`, each begins in its own process. A case is one of

    same        nothing differs
    bytes       a file has the same arrays, table or image, in different bytes
    settings    only the settings that a run records differ: *.meta.json, and "settings" of an evaluation's metrics
    differs     anything else; the first difference in each of the first files is shown
    wrong       OLD itself ended with a different exit code than the case expects, so the case says nothing

and the exit code is 1 if one differs, or is wrong, or has different settings.

`speed` takes the seconds of processor time, of user and system together, of a command and all processes that it has
started. Processes that outlive it, like the server of its workers, are waited for and counted too. NEW runs in
alternation with OLD, and a copy of OLD with OLD, which shows how far a ratio of 1 varies here: "old new, old copy" in
one round, "new old, copy old" in the next, and each round has all cases. A ratio is taken within a pair. The first
run of each, which fills the file cache, is not counted. Linux only, because of those processes.

The package itself is not imported here: its modules may lie elsewhere in the other checkout.
"""

import argparse
import ctypes
import hashlib
import io
import json
import os
import platform
import queue
import re
import resource
import select
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE = 900  # seconds for one command
SHOWN = 4  # differences of one case

# What may differ: where (case/file), the pattern, and its replacement.
VARYING: tuple[tuple[str, bytes, bytes], ...] = (
    # Times, and what depends on them.
    ("*", rb'"(finished|date)": ?"20[^"]*"', rb'"\1":"TIME"'),
    ("*", rb'\["Finished","20[^"]*"\]', b'["Finished","TIME"]'),
    ("*", rb'\["Speed","(\d+) videos[^"]*"\]', rb'["Speed","\1 videos"]'),
    ("*", rb'"(seconds|videos_per_second|(?:torch_)?seconds_per_view)": ?[-+.e\d]+', rb'"\1":"TIME"'),
    ("*", rb" in (?:[\d.]+ s|[\d:]+), [\d.,]+ (?:videos )?(?:an?|per) (?:second|minute|hour)", b" in TIME"),
    ("*", rb"(?m)^time: .*", b"time: TIME"),
    # Versions.
    (
        "*",
        rb'(timesformer[-_]cli"?:? "?|`timesformer export` |^timesformer |"version": ?")\d+\.[\w.+-]*',
        rb"\1VERSION",
    ),
    # The place of the bundled model.
    ("*", rb"CHECKOUT/[\w/]*/camera-motion/", b"BUNDLED/"),
    # PyTorch records in a .pt2 which lines of which files, and which classes, an operation comes from.
    ("*", rb'"stack_trace": "(?:[^"\\]|\\.)*"', b'"stack_trace": "TRACE"'),
    ("*", rb"timesformer_cli(?:\.[a-z_\d]+)+\.(?=[A-Z])", b"timesformer_cli."),
    ("export-pt2/*", rb'"(bytes|share_of_fp32)": ?[.\d]+', rb'"\1":"SIZE"'),
    ("export-pt2/*", rb"(?m)^size: .*", b"size: SIZE"),
)

# ---- The cases


class Step(NamedTuple):
    """A command line of timesformer, and the exit code that it must end with."""

    command: str
    code: int
    stdin: str = ""  # a file
    by_old: bool = False  # run by OLD in both runs
    terminal: bool = False  # on a terminal instead of pipes


# Each line of a case is an exit code and a command. `old` before it: run by OLD in both runs; `tty`: on a terminal.
CASES_TEXT = """
help:
    0 --help
    0 predict --help
    0 predict -h
    0 inspect --help
    0 merge --help
    0 export --help
    0 benchmark --help
    0 evaluate --help
    0 evaluate rescore --help
    0 evaluate compare --help
    0 evaluate fuse --help
    0 evaluate merge --help
    0 models --help
    0 models list --help
    0 models show --help
    0 models download --help
    0 models convert --help
    0 --version
usage:
    2
    2 label a.mp4
    2 --no-such-option
    2 predict
    2 predict few --top-k 0
    2 predict few --top-k many
    2 predict few --format xml
    2 predict few --clips 0
    2 predict few --stride -1
    2 predict few --crops 2
    2 predict few --batch-size many
    2 predict few --device toaster
    2 predict few -o out.xyz
    2 predict few -q -v
    2 predict few --no-such-option
    2 predict few --resume
    2 predict few -o out.jsonl --resume --overwrite
    2 predict few --save-logits out.npz
    2 predict few --shard 3/2 -o out.jsonl
    2 predict few --copy-to few/sorted
    2 predict few --window 1
    2 predict few --set mean
    2 predict few --set nothing=1
    2 predict few --provider cpu
    2 evaluate
    2 evaluate sample_videos --resume
    2 evaluate sample_videos -k 0
    2 evaluate sample_videos --min-top1 77
    2 evaluate sample_videos --seed 1
    2 evaluate sample_videos --annotations-format odd
    2 evaluate compare few
    2 evaluate fuse few few --weights 1,x
    2 inspect
    2 inspect few --sheet out.png
    2 merge
    2 export
    2 export camera-motion -f torchscript -o y
    2 export camera-motion -f onnx -o y --precision bf16
    2 export --check x -o y
    2 models show
    2 models convert camera-motion
    2 benchmark --seconds 0
refused:
    1 predict few -m no-such-model
    1 predict few -m few
    1 predict few --offline -m base-k400
    1 predict few --labels no-such-file.txt
    1 predict few --labels two.txt
    1 predict few -o nowhere/out.jsonl
    2 predict few -f srt --timeline
    1 predict none
    1 predict nothing*.mp4
    1 predict frames
    1 predict --from-file no-such-file.txt
    1 evaluate none
    1 evaluate sample_videos -a no-such-file.csv
    1 evaluate few
    1 evaluate rescore few
    1 evaluate merge few -o run
    1 evaluate --from-predictions labels.txt
    1 inspect nothing*.mp4
    1 merge out.1-of-2.jsonl
    1 export --check none
    1 models show no-such-model
    1 models download base-k400
terminal:
    tty 0 --help
    tty 0 predict --help
    tty 0 evaluate --help
    tty 0 models list
    tty 0 models show camera-motion
    tty 0 predict few/zoom_out.mp4 -k 2 -q
    tty 0 inspect few/zoom_out.mp4
    tty 0 evaluate sample_videos -a sample_videos/labels.csv -o run -q
    tty 0 evaluate rescore run
python:
    0 python
    0 predict few/zoom_out.mp4 odd -m divided_space_time
    0 models show copy
predict:
    0 predict sample_videos --model camera-motion
    0 predict few odd -o out.jsonl
    0 predict few/zoom_out.mp4 -o out.jsonl --overwrite --workers 0 --batch-size 1 -q
    0 -v predict few/zoom_out.mp4 --workers 2 --batch-size 3
predict-inputs:
    0 predict - --from-file list.txt < videos.txt
    0 predict 'few/*.mp4' few/zoom_in.webm --limit 2
    0 predict ./few/zoom_out.mp4 few/zoom_out.mp4 -k 1
predict-broken:
    1 predict bad/empty.mp4
    1 predict bad/text.mp4
    1 predict bad/truncated.mp4
    1 predict bad/list.mp4
    1 predict bad/sound.mp4
    1 predict missing.mp4
    1 predict bad
    1 predict few missing.mp4 -o out.jsonl --fail-fast
    3 predict few/zoom_out.mp4 bad missing.mp4 damaged
    3 predict damaged few -o out.csv
    3 predict damaged -k 1 --decoder decord
    3 predict damaged --workers 0
    1 predict few/zoom_out.mp4 --max-frames 20
    1 predict few/zoom_out.mp4 --max-pixels 2000
    1 predict few/zoom_out.mp4 --timeout 0.000001
formats:
    3 predict few missing.mp4 -f json --workers 0
    3 predict few missing.mp4 -f csv --workers 0
    3 predict few missing.mp4 -f table --workers 0
    3 predict few missing.mp4 -f activitynet --workers 0
    3 predict few missing.mp4 -f labelstudio --workers 0
    3 predict few missing.mp4 -f fiftyone --workers 0
    3 predict few missing.mp4 -o out.parquet --workers 0
    3 predict few missing.mp4 -o out.html --workers 0
formats-files:
    0 predict few/zoom_out.mp4 -k 2 -o out.json --workers 0
    0 predict few/zoom_out.mp4 -k 2 -o out.csv --workers 0
    0 predict few/zoom_out.mp4 -k 2 -o out.txt -f table --workers 0
    0 predict few/zoom_out.mp4 -k 2 -o activitynet.json -f activitynet --workers 0
    0 predict few/zoom_out.mp4 -k 2 -o labelstudio.json -f labelstudio --workers 0
    0 predict few/zoom_out.mp4 -k 2 -o fiftyone.json -f fiftyone --workers 0
    0 predict few/zoom_out.mp4 -k 1 -o out.parquet --workers 0
    0 predict sample_videos/pan_right_then_tilt_up.mp4 --timeline -o out.html
timeline:
    0 predict sample_videos/pan_right_then_tilt_up.mp4 --timeline -o a.srt
    0 predict sample_videos/pan_right_then_tilt_up.mp4 --timeline -o a.vtt
    0 predict sample_videos/pan_right_then_tilt_up.mp4 --timeline --window 1 --hop 0.5 --merge -o b.srt
    0 predict sample_videos/pan_right_then_tilt_up.mp4 --timeline --window 1 --hop 0.5 --merge -o b.vtt
    0 predict few/zoom_out.mp4 --timeline --window 1 --hop 0.5 -o b.jsonl --save-logits b.npz
    0 predict few odd --timeline --merge -o c.csv
    0 predict few/zoom_out.mp4 --timeline --window 1 -o d.parquet --save-logits e.parquet
    0 predict few/zoom_out.mp4 --timeline --window 2 --hop 1 -f activitynet
    0 predict few/zoom_out.mp4 --timeline --window 0.7 --merge --clips 1 --crops 3 --threshold 0.2
    3 predict few/zoom_out.mp4 damaged bad/text.mp4 --timeline --window 1
logits:
    3 predict few bad/text.mp4 -o a.jsonl --save-logits a.npz
    0 predict few -o b.csv --save-logits b.parquet
scores:
    0 predict few/zoom_out.mp4 --raw-logits --workers 0
    0 predict few/zoom_out.mp4 -k 100 --workers 0
    0 predict few --threshold 0.05 --workers 0
    0 predict few/zoom_out.mp4 --threshold 1.1 -f csv --workers 0
    0 predict few --labels labels.txt -k 2 --workers 0
views:
    0 predict few/zoom_out.mp4 --clips 1 --workers 0
    0 predict few/zoom_out.mp4 --clips 1 --placement middle --workers 0
    0 predict sample_videos/pan_right_then_tilt_up.mp4 --clips 3 --crops 3 -o a.jsonl --workers 0
    0 predict few/zoom_out.mp4 --clips auto --crops 3 --stride 2 --workers 0
    0 predict few/zoom_out.mp4 --num-frames 8 --stride 16 --fps 60 --workers 0
    0 predict few/zoom_out.mp4 --recipe original -o b.jsonl --workers 0
    0 predict few/zoom_out.mp4 --recipe paper --clips 2 --workers 0
    0 predict few/zoom_out.mp4 --recipe transformers --workers 0
    0 predict few/zoom_out.mp4 --recipe mmaction2 --crops 1 --workers 0
    0 predict few/zoom_out.mp4 --recipe uniform --workers 0
    0 predict odd --recipe mmaction2 --set overrun=repeat --workers 0
views-set:
    0 predict few/zoom_out.mp4 --set mean=0.5 --set std=0.25 --workers 0
    0 predict few/zoom_out.mp4 --set combine=probabilities -o a.jsonl --workers 0
    0 predict few/zoom_out.mp4 --set resize=float --set short_side=110 --workers 0
    0 predict few/zoom_out.mp4 --set resize=opencv --set method=strided --set clips=1 --workers 0
    0 predict few/zoom_out.mp4 --set interpolation=bicubic --set method=segments --workers 0
    0 predict few/zoom_out.mp4 --set stretch=96,96 --set fps=none --workers 0
    0 predict odd --set overrun=loop --clips 2 --workers 0
decoders:
    0 predict few --decoder decord
    0 predict odd --decoder pyav
    0 inspect few/zoom_out.mp4 --decoder decord
frames:
    0 predict --frames frames --frame-rate 25
    0 predict --frames frames/a -o a.csv
    0 predict --frames frames --timeline --window 0.5
    0 inspect --frames frames
    0 inspect --frames frames/b --json
    0 evaluate frames -a frames.csv --frames -o run
dry-run:
    0 predict few missing.mp4 bad --dry-run -o out.csv --save-logits l.npz --copy-to 'sorted/{label}'
    0 predict few --dry-run -m base-k400 --crops 3
    0 predict --frames frames --dry-run
    0 evaluate mixed -a mixed.csv --dry-run
    0 evaluate classes --dry-run --clips 2
shards:
    0 predict sample_videos -o out.jsonl --shard 1/2
    0 predict sample_videos -o out.jsonl --shard 2/2
    0 merge out.1-of-2.jsonl out.2-of-2.jsonl -o all.csv
    0 merge out.2-of-2.jsonl out.1-of-2.jsonl
    0 merge out.1-of-2.jsonl out.2-of-2.jsonl -o all.html
    0 merge out.1-of-2.jsonl out.2-of-2.jsonl -f json
    1 merge out.1-of-2.jsonl -o part.jsonl
    1 merge out.1-of-2.jsonl out.2-of-2.jsonl -o all.csv
resume:
    0 predict few -o a.jsonl --limit 1
    0 predict few -o a.jsonl --resume
    0 predict few -o a.jsonl --resume
    1 predict few -o a.jsonl --resume --clips 2
    1 predict few -o a.jsonl
    1 predict few/zoom_out.mp4 missing.mp4 few/tilt_down.mkv -o b.csv --save-logits b.npz --fail-fast
    3 predict few/zoom_out.mp4 missing.mp4 few/tilt_down.mkv -o b.csv --save-logits b.npz --resume
    3 predict few/zoom_out.mp4 missing.mp4 -o c.jsonl
    3 predict few/zoom_out.mp4 missing.mp4 -o c.jsonl --resume --retry-errors
    1 predict few/tilt_down.mkv missing.mp4 few/zoom_out.mp4 --timeline -o d.parquet --fail-fast
sorting:
    0 predict few --copy-to 'sorted/{label}' -o out.jsonl
    0 predict few --copy-to 'links/{label}' --link
    3 predict few/zoom_out.mp4 missing.mp4 --copy-to sorted
evaluate:
    0 evaluate sample_videos -a sample_videos/labels.csv -o run --model camera-motion
    0 evaluate sample_videos -a sample_videos/labels.csv -o run --resume
    0 evaluate sample_videos -a wrong.csv -o other --clips 1 --crops 3 -k 1,3
    1 evaluate sample_videos -a sample_videos/labels.csv -o run
    1 evaluate sample_videos -a wrong.csv -o few
    0 evaluate rescore run
    0 evaluate rescore other -k 2 -o again
    0 evaluate rescore other --classes two.txt
    1 evaluate rescore other --min-top1 0.99
    0 evaluate sample_videos -a wrong.csv -o third --set mean=0.9
    0 evaluate compare other third -o flips.csv
    0 evaluate compare third again other
    0 evaluate fuse other third --weights 3,1 -o fused
    0 evaluate fuse other third --json
    2 evaluate compare run other
    0 evaluate --from-predictions run/scores.npz
evaluate-folders:
    0 evaluate classes -o run
    0 evaluate classes --limit 2 --seed 1 --set combine=probabilities -o some
    0 evaluate classes --classes two.txt --recipe original
    1 evaluate classes --min-top1 1 --set mean=5 -q
evaluate-problems:
    3 evaluate mixed -a mixed.csv -o run
    1 evaluate mixed -a mixed.csv -o stopped --fail-fast
    1 evaluate mixed -a mixed.csv --strict
    3 evaluate mixed -a mixed.csv -o stopped --resume
    3 evaluate mixed -a mixed.csv -o run --resume --retry-errors
    0 evaluate sample_videos -a multi.txt -o multi
evaluate-annotations:
    0 evaluate sample_videos -a list.csv --dry-run
    0 evaluate sample_videos -a list.jsonl --dry-run
    1 evaluate kinetics -a kinetics.csv --dry-run
    0 evaluate kinetics -a kinetics.csv --split val --dry-run
    0 evaluate sample_videos -a ssv2.json --dry-run
    0 evaluate sample_videos -a numbers.txt --dry-run
    0 evaluate sample_videos -a numbers.txt --label-map names.txt --dry-run
evaluate-shards:
    0 evaluate sample_videos -a wrong.csv -o run --shard 1/2
    0 evaluate sample_videos -a wrong.csv -o run --shard 2/2
    0 evaluate merge run.2-of-2 run.1-of-2 -o whole
    1 evaluate merge run.2-of-2 -o part
evaluate-predictions:
    0 predict sample_videos -o l.jsonl --save-logits l.npz -q
    0 evaluate sample_videos -a wrong.csv --from-predictions l.npz -o run
    0 predict sample_videos --limit 4 -o p.jsonl --save-logits p.parquet -q
    3 evaluate sample_videos -a wrong.csv --from-predictions p.parquet -o part
inspect:
    0 inspect few/zoom_out.mp4 few/zoom_in.webm
    0 inspect few --json
    0 inspect sample_videos/pan_right_then_tilt_up.mp4 --clips 2 --crops 3
    0 inspect few/zoom_out.mp4 -m base-k400 --recipe mmaction2
    0 inspect odd/short.mp4 odd/one.mp4 odd/turned.mp4
    1 inspect missing.mp4
    1 inspect bad
    1 inspect bad/list.mp4 bad/sound.mp4 --json
    3 inspect few/zoom_out.mp4 bad/text.mp4
    3 inspect few bad damaged odd
    3 inspect damaged bad --json
inspect-files:
    0 inspect few/zoom_out.mp4 --sheet a.png --tensors a.npz
    0 inspect sample_videos/tilt_up_portrait.mp4 --crops 3 --clips 2 --sheet b.png --tensors b.npz --set resize=float
    1 inspect few/zoom_out.mp4 --sheet a.png
models:
    0 models list
    0 models list --json
    0 models show camera-motion
    0 models show camera-motion --json
    0 models show base-k400
    0 models show large-ssv2 --json --recipe paper
    0 models show camera-motion --labels labels.txt --set combine=probabilities
convert:
    0 models convert camera-motion folder
    0 models convert camera-motion model.pyth
    0 models convert model.pyth back --labels labels.txt
    0 models convert folder again.pyth --set mean=0.4
    0 models show model.pyth
    0 models show folder --json
    0 predict few/zoom_out.mp4 -m model.pyth -o out.jsonl
    0 predict few/zoom_out.mp4 -m folder
    0 predict few/zoom_out.mp4 -m back
    1 models convert camera-motion folder
export-onnx:
    0 export camera-motion --format onnx -o made
    0 export --check made --json
    0 models show made
    0 predict few/zoom_out.mp4 -m made -o out.jsonl
export-pt2:
    0 export camera-motion --format pt2 -o made
    0 export --check made --json
    0 models show made
    0 predict few/zoom_out.mp4 -m made -o out.jsonl
export-hub:
    0 export camera-motion --format hub -o made
    0 export --check made --json
    0 predict few/zoom_out.mp4 -m made -o out.jsonl
    0 export camera-motion -f hub --precision fp16 -o half --json
    0 predict few/zoom_out.mp4 -m half
    1 export camera-motion -f hub -o half
    1 export camera-motion -f hub -o nowhere/x
export-openvino:
    0 export camera-motion --format openvino -o made
    0 export --check made --json
    0 models show made
    0 predict few/zoom_out.mp4 -m made -o out.jsonl
export-options:
    0 export camera-motion -f onnx --input pixels --output probabilities --external-data -o made
benchmark:
    0 benchmark few/zoom_out.mp4 --seconds 0.05 -q --json
old-then-new:
    old 0 predict few -o a.jsonl --limit 1
    0 predict few -o a.jsonl --resume
    old 1 predict few/zoom_out.mp4 missing.mp4 few/tilt_down.mkv -o b.csv --save-logits b.npz --fail-fast
    3 predict few/zoom_out.mp4 missing.mp4 few/tilt_down.mkv -o b.csv --save-logits b.npz --resume
    old 1 predict few/tilt_down.mkv missing.mp4 few/zoom_out.mp4 --timeline --merge -o c.parquet --fail-fast
    3 predict few/tilt_down.mkv missing.mp4 few/zoom_out.mp4 --timeline --merge -o c.parquet --resume
    old 0 predict few -o d.jsonl --shard 1/2
    0 predict few -o d.jsonl --shard 2/2
    0 merge d.1-of-2.jsonl d.2-of-2.jsonl -o d.csv
    old 0 predict few/zoom_out.mp4 -o e.html
    0 predict few/zoom_out.mp4 -o e.html --resume
old-then-new-evaluate:
    old 1 evaluate mixed -a mixed.csv -o run --fail-fast
    3 evaluate mixed -a mixed.csv -o run --resume
    old 0 evaluate sample_videos -a wrong.csv -o part --shard 1/2
    0 evaluate sample_videos -a wrong.csv -o part --shard 2/2
    0 evaluate merge part.1-of-2 part.2-of-2 -o whole
    old 0 evaluate sample_videos -a wrong.csv -o other --set mean=0.9
    0 evaluate rescore other -o again
    0 evaluate compare other whole
    0 evaluate fuse other whole -o fused
    0 evaluate sample_videos -a wrong.csv -o other --set mean=0.9 --resume
old-then-new-models:
    old 0 export camera-motion -f hub -o hub
    0 export --check hub
    0 predict few/zoom_out.mp4 -m hub
    old 0 export camera-motion -f pt2 -o pt2
    0 export --check pt2
    0 predict few/zoom_out.mp4 -m pt2
    old 0 models convert camera-motion a.pyth
    0 predict few/zoom_out.mp4 -m a.pyth
"""

# The meaning of `python` above.
PYTHON = """
import numpy, torch, timesformer_cli
from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification, TimesformerModel
print(timesformer_cli.__all__)
clips = torch.from_numpy(numpy.random.default_rng(0).normal(size=(2, 8, 1, 96, 96)).astype('float32'))
model = TimesformerForVideoClassification.from_pretrained('camera-motion').eval()
with torch.inference_mode():
    print(model(clips).logits.tolist(), model.timesformer(clips).last_hidden_state.double().sum().item())
print(model, model.config, model.recipe)
model.save_pretrained('copy')
torch.manual_seed(0)
for attention in ('divided_space_time', 'joint_space_time', 'space_only'):
    config = TimesformerConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, attention_type=attention, id2label={0: 'a', 1: 'b', 2: 'c'},
    )
    TimesformerForVideoClassification(config).save_pretrained(attention)
    encoder = TimesformerModel.from_pretrained(attention).eval()
    print(encoder(clips[:, :4, :, :32, :32].expand(-1, -1, 3, -1, -1)).last_hidden_state.tolist())
"""


def read_cases(text: str) -> dict[str, list[Step]]:
    cases: dict[str, list[Step]] = {}
    for line in text.strip().splitlines():
        if not line.startswith(" "):
            steps = cases.setdefault(line.removesuffix(":"), [])
            continue
        found = re.fullmatch(r" +(?:(old|tty) )?(\d)(?: (.*?))?(?: < (\S+))?", line)
        assert found, line
        how, code, command, stdin = found.groups(default="")
        steps.append(Step(command, int(code), stdin, by_old=how == "old", terminal=how == "tty"))
    return cases


CASES = read_cases(CASES_TEXT)


# ---- Their inputs


def write_video(path: Path, frames: int, *, width: int = 64, height: int = 48, rate: int = 10, seed: int = 0) -> None:
    """An H.264 video that moves over a rough landscape."""
    import av
    import numpy as np

    noise = np.random.default_rng(seed).integers(0, 255, (height // 4 + frames, width // 4 + frames, 3), np.uint8)
    picture = noise.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if path.stem == "turned":
            stream.set_display_matrix([0, 65536, 0, -65536, 0, 0, 0, 0, 1073741824])
        for number in range(frames):
            down, right = number * (seed % 3), number * (2 - seed % 2)
            seen = np.ascontiguousarray(picture[down : down + height, right : right + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(seen, format="rgb24")))
        container.mux(stream.encode())


def write_sound(path: Path) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode()])


def write_pictures(folder: Path, video: Path, count: int, suffix: str) -> None:
    import av
    from PIL import Image

    folder.mkdir(parents=True)
    with av.open(str(video)) as container:
        for number, frame in zip(range(count), container.decode(video=0), strict=False):
            pixels = frame.to_ndarray(format="rgb24", width=160, height=90)
            Image.fromarray(pixels).save(folder / f"{number + 1:05}{suffix}")


def make_material(folder: Path, old: Path) -> None:
    """All inputs of the cases: each entry of the folder is linked into the folder of each case."""
    samples = folder / "sample_videos"
    shutil.copytree(old / "sample_videos", samples)
    names = {path.name: path for path in samples.iterdir() if path.suffix in (".mp4", ".mkv", ".webm")}
    rows = [line.split(",") for line in (samples / "labels.csv").read_text("utf-8").splitlines()[1:]]
    labels = list(dict.fromkeys(label for _, label in rows))
    for name in ("few", "odd", "bad", "damaged", "mixed", "none", "classes", "kinetics"):
        (folder / name).mkdir()
    for name in ("zoom_out.mp4", "tilt_down.mkv", "zoom_in.webm"):
        shutil.copy(names[name], folder / "few" / name)
    for name, count in (("short", 12), ("one", 1), ("turned", 40)):
        write_video(folder / "odd" / f"{name}.mp4", count, seed=count)

    whole = names["pan_left.mp4"].read_bytes()
    (folder / "bad" / "empty.mp4").touch()
    (folder / "bad" / "text.mp4").write_text("This is no video.\n" * 20)
    (folder / "bad" / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\n../few/zoom_out.mp4\n#EXT-X-ENDLIST\n")
    (folder / "bad" / "truncated.mp4").write_bytes(whole[:1500])
    write_sound(folder / "bad" / "sound.mp4")
    middle = len(whole) // 2
    (folder / "damaged" / "hole.mp4").write_bytes(whole[:middle] + bytes(4000) + whole[middle + 4000 :])
    matroska = names["tilt_down.mkv"].read_bytes()
    (folder / "damaged" / "cut.mkv").write_bytes(matroska[: len(matroska) * 2 // 3])
    write_pictures(folder / "frames" / "a", names["pan_left.mp4"], 40, ".jpg")
    write_pictures(folder / "frames" / "b", names["tilt_up_portrait.mp4"], 9, ".png")

    for name, label in rows:
        if label in ("zoom out", "tilt down", "static", "zoom in"):
            (folder / "classes" / label).mkdir()
            shutil.copy(names[name], folder / "classes" / label / name)
            shutil.copy(names[name], folder / "kinetics" / f"{Path(name).stem}_000000_000010{Path(name).suffix}")
    for name in ("zoom_out.mp4", "tilt_down.mkv", "zoom_in.webm"):
        shutil.copy(names[name], folder / "mixed" / name)
    shutil.copy(folder / "bad" / "text.mp4", folder / "mixed" / "text.mp4")
    mixed = "zoom_out.mp4,zoom out\ntext.mp4,static\ngone.mp4,static\ntilt_down.mkv,pan left\n"
    write = {
        "names.txt": "\n".join(labels),
        "videos.txt": "few/zoom_out.mp4\nfew/tilt_down.mkv\n",
        "labels.txt": "\n".join(f"label {number}, ü" for number in range(len(labels))),
        "two.txt": "zoom in\nroll clockwise\n",
        "list.txt": "# a comment\nfew/zoom_in.webm\n",
        "mixed.csv": f"path,label\n{mixed}",
        "frames.csv": "path,label\na,pan left\nb,tilt down\n",
        "multi.txt": "".join(
            f"{name} {labels.index(label)} {number % 3}\n" for number, (name, label) in enumerate(rows)
        ),
        # Each has the label of the next but one, so that not all metrics are 1.
        "wrong.csv": "path,label\n"
        + "".join(
            f"{name},{rows[(number + 2) % len(rows)][1] if number % 3 else label}\n"
            for number, (name, label) in enumerate(rows)
        ),
        "list.csv": "".join(f"{name},{label}\n" for name, label in rows),
        "list.jsonl": "".join(json.dumps({"file_name": name, "label": label}) + "\n" for name, label in rows),
        "kinetics.csv": "label,youtube_id,time_start,time_end,split\n"
        + "".join(f"{label},{Path(name).stem},0,10,{'val' if label != 'static' else 'test'}\n" for name, label in rows),
        "ssv2.json": json.dumps([{"id": Path(name).stem, "template": label} for name, label in rows]),
        "numbers.txt": "".join(f"{name} {labels.index(label)}\n" for name, label in rows),
    }
    for name, text in write.items():
        (folder / name).write_text(text, encoding="utf-8")


# ---- Running


@dataclass(frozen=True)
class Checkout:
    root: Path
    code: str  # the code of the command `timesformer`

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root)}


def open_checkout(root: Path, scratch: Path) -> Checkout:
    """Raises SystemExit if it is not a checkout, or if Python takes the package from elsewhere."""
    root = root.resolve()
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    except OSError as error:
        raise SystemExit(f"{root}: not a checkout ({error})") from error
    module, _, function = project["scripts"]["timesformer"].partition(":")
    checkout = Checkout(root, f"from {module} import {function}; {function}()")
    ask = [sys.executable, "-c", "import timesformer_cli; print(timesformer_cli.__file__)"]
    found = subprocess.run(ask, cwd=scratch, env=checkout.environment(), capture_output=True, text=True, check=True)
    if root not in Path(found.stdout.strip()).parents:
        raise SystemExit(f"{root}: Python takes the package from {found.stdout.strip()}")
    return checkout


def calm_environment(scratch: Path) -> None:
    """Clean the environment of this process and its children: no settings of the user, and no network."""
    for name in list(os.environ):
        if name.startswith(("TIMESFORMER_", "HF_", "SLURM_", "RAY_")):
            del os.environ[name]
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NO_COLOR", "FORCE_COLOR", "LINES"):
        os.environ.pop(name, None)
    empty = scratch / "hub"
    empty.mkdir()
    os.environ |= {"HF_HOME": str(empty), "HF_HUB_OFFLINE": "1", "TIMESFORMER_MODEL": "camera-motion"}
    os.environ |= {"COLUMNS": "100", "TERM": "xterm-256color"}


# A process that has imported slow libraries, none of ours, and forks for each command that it is sent.
SERVER = """
import atexit, gc, importlib, json, os, sys, threading
for name in sys.argv[3:]:
    importlib.import_module(name)
gc.freeze()
tasks, replies = map(int, sys.argv[1:3])
for handle in (tasks, replies):
    os.set_inheritable(handle, False)
requests = open(tasks)
for line in requests:
    task = json.loads(line)
    child = os.fork()
    if not child:
        break
    os.write(replies, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    os._exit(0)
requests.close()
os.close(replies)
for number, name in enumerate(task["files"]):
    os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY), number)
os.chdir(task["folder"])
os.environ["PYTHONPATH"] = task["root"]
sys.path.insert(1, task["root"])
sys.argv = ["-c", *task["arguments"]]
code = 0
try:
    exec(task["code"])
except SystemExit as stop:
    code = stop.code
except BaseException:
    code = 1
    sys.excepthook(*sys.exc_info())
# What Python does at its end, without tearing down all imports.
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code or 0)
"""
IMPORTED = (
    "torch.export",
    "torch._dynamo",
    "torch.onnx",
    "safetensors.torch",
    "av",
    "PIL.Image",
    "typer",
    "rich.table",
)
FRESH = ("help", "usage", "terminal", "benchmark")  # these cases do not use the server


class Server:
    """Runs commands, one after the other."""

    def __init__(self) -> None:
        (tasks, self._tasks), (self._replies, replies) = os.pipe(), os.pipe()
        command = [sys.executable, "-c", SERVER, str(tasks), str(replies), *IMPORTED]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=(tasks, replies), start_new_session=True
        )
        os.close(tasks)
        os.close(replies)

    def run(self, task: dict[str, Any]) -> int:
        os.write(self._tasks, json.dumps(task).encode() + b"\n")
        ready, _, _ = select.select([self._replies], [], [], PATIENCE)
        answer = os.read(self._replies, 100) if ready else b""
        if not answer:
            raise RuntimeError(f"{task['arguments']}: {'the server has ended' if ready else f'no end in {PATIENCE} s'}")
        return int(answer)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._tasks)
        os.close(self._replies)


def call(checkout: Checkout, step: Step, folder: Path, server: Server | None) -> tuple[int, bytes, bytes]:
    """The exit code, standard output and standard error."""
    code, arguments = checkout.code, shlex.split(step.command)
    if step.command == "python":
        code, arguments = PYTHON, []
    if step.terminal:
        return call_on_terminal([sys.executable, "-c", code, *arguments], folder, checkout.environment())
    given = str(folder / step.stdin) if step.stdin else os.devnull
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        files = [given, f"{name}/out", f"{name}/err"]
        if server:
            task = {"root": str(checkout.root), "folder": str(folder), "files": files}
            ended = server.run(task | {"code": code, "arguments": arguments})
        else:
            command = [sys.executable, "-c", code, *arguments]
            with open(files[0], "rb") as stdin, open(files[1], "wb") as stdout, open(files[2], "wb") as stderr:
                streams: dict[str, Any] = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
                environment = checkout.environment()
                ended = subprocess.run(command, cwd=folder, env=environment, timeout=PATIENCE, **streams).returncode
        return ended, Path(files[1]).read_bytes(), Path(files[2]).read_bytes()


def call_on_terminal(command: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, bytes, bytes]:
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        received = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux raises this if the other side has closed
                break
            if not chunk:
                break
            received += chunk
    os.close(ours)
    return process.returncode, received, b""


@dataclass
class Results:
    """The output of a case's commands, by number, its files, by name, and any failures."""

    printed: dict[str, bytes] = field(default_factory=dict)
    left: dict[str, bytes] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)


def run_case(name: str, old: Checkout, new: Checkout, folder: Path, material: Path, server: Server | None) -> Results:
    """Run all commands of a case in `folder`, which is made for it and removed."""
    folder.mkdir()
    for entry in material.iterdir():
        (folder / entry.name).symlink_to(entry)
    results = Results()
    for number, step in enumerate(CASES[name], 1):
        checkout = old if step.by_old else new
        code, out, err = call(checkout, step, folder, server)
        what = f"{number}. {step.command}"
        if code != step.code:
            last = (err or out).decode(errors="replace").strip().splitlines()[-1:] or ["nothing printed"]
            results.unexpected.append(f"{what}: exit code {code} instead of {step.code}: {last[0]}")
        elif name == "benchmark":
            out = shape(out)
        root = os.fsencode(checkout.root)
        texts = {"exit code": b"%d" % code, "output": out, "errors": err}
        results.printed |= {f"{what}: {kind}": text.replace(root, b"CHECKOUT") for kind, text in texts.items()}
    results.left = collect(folder, material)
    shutil.rmtree(folder)
    return results


def collect(folder: Path, material: Path) -> dict[str, bytes]:
    given = {folder / entry.name for entry in material.iterdir()}
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path in given:
            continue
        if path.is_symlink():
            found[name] = b"link to " + os.fsencode(os.readlink(path))
        elif path.is_dir():
            found[f"{name}/"] = b""
        elif path.name == "SHA256SUMS":
            found[name] = checked(path)
        else:
            found[name] = path.read_bytes()
    return found


def checked(sums: Path) -> bytes:
    """The file with `right` or `wrong` instead of the checksums: the files themselves are compared anyway."""

    def verdict(line: str) -> str:
        digest, _, name = line.partition("  ")
        right = hashlib.sha256((sums.parent / name).read_bytes()).hexdigest() == digest
        return f"{'right' if right else 'wrong'}  {name}"

    return "\n".join(map(verdict, sums.read_text("utf-8").splitlines())).encode()


def shape(out: bytes) -> bytes:
    """The fields of JSON objects, without their values, which are measurements."""

    def names(value: Any, above: str) -> Iterator[str]:
        yield above
        for name, entry in value.items() if isinstance(value, dict) else ():
            yield from names(entry, f"{above}.{name}")
        for entry in value if isinstance(value, list) else ():
            yield from names(entry, f"{above}[]")

    return "\n".join(dict.fromkeys(names(json.loads(out), ""))).encode()


# ---- Comparing


class Difference(NamedTuple):
    kind: str  # bytes, settings, differs or wrong, from the mildest to the worst
    where: str
    text: str


KINDS = ("bytes", "settings", "differs", "wrong")


def compare(case: str, old: Results, new: Results) -> Iterator[Difference]:
    yield from (Difference("wrong", "OLD", text) for text in old.unexpected)
    for one, other in ((old.printed, new.printed), (old.left, new.left)):
        for name in [*one, *(name for name in other if name not in one)]:
            if name not in one or name not in other:
                yield Difference("differs", name, "only of NEW" if name in other else "only of OLD")
            elif found := difference(f"{case}/{name}", one[name], other[name]):
                yield Difference(found[0], name, found[1])


def scrub(where: str, content: bytes) -> bytes:
    for pattern, expression, replacement in VARYING:
        if fnmatch(where, pattern):
            content = re.sub(expression, replacement, content)
    return content


def difference(where: str, old: bytes, new: bytes) -> tuple[str, str] | None:
    """The kind of the difference, and a word about it."""
    if old == new:
        return None
    suffix = Path(where).suffix
    if suffix in SPECIAL:
        try:
            return SPECIAL[suffix](where, old, new)
        except Exception as error:  # of any library: one of the files is not of that format
            return "differs", f"cannot be read: {error}"
    old, new = scrub(where, old), scrub(where, new)
    if old == new:
        return None
    shown = first_difference(old, new)
    if where.endswith(".meta.json") or same_without_settings(old, new):
        return "settings", shown
    return "differs", shown


def same_without_settings(old: bytes, new: bytes) -> bool:
    try:
        one, other = json.loads(old), json.loads(new)
    except ValueError:
        return False
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return False
    return one.pop("settings", None) != other.pop("settings", None) and list(one.items()) == list(other.items())


def first_difference(old: bytes, new: bytes) -> str:
    if b"\0" in old + new:
        place = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        return f"{len(old)} and {len(new)} bytes, the first that differs is number {place}"
    lines = [text.decode(errors="replace").splitlines() for text in (old, new)]
    for number in range(max(map(len, lines))):
        one, other = (text[number] if number < len(text) else "(no more lines)" for text in lines)
        if one != other:
            same = (a == b for a, b in zip(one, other, strict=False))
            column = next((place for place, equal in enumerate(same) if not equal), min(len(one), len(other)))
            begin = max(0, column - 60)
            cut = [
                f"{'...' * (begin > 0)}{line[begin : column + 80]}{'...' * (len(line) > column + 80)}"
                for line in (one, other)
            ]
            return f"line {number + 1}\n        - {cut[0]}\n        + {cut[1]}"
    return "in the ends of lines"


def compare_arrays(where: str, old: bytes, new: bytes) -> tuple[str, str]:
    import numpy as np

    with np.load(io.BytesIO(old)) as one, np.load(io.BytesIO(new)) as other:
        if one.files != other.files:
            return "differs", f"arrays {one.files} and {other.files}"
        for name in one.files:
            a, b = one[name], other[name]
            if (a.dtype, a.shape) != (b.dtype, b.shape):
                return "differs", f"{name}: {a.dtype} {a.shape} and {b.dtype} {b.shape}"
            if a.tobytes() != b.tobytes():
                return "differs", f"{name}: {np.count_nonzero(a != b)} of {a.size} numbers"
    return "bytes", "the same arrays"


def compare_tables(where: str, old: bytes, new: bytes) -> tuple[str, str]:
    from pyarrow import parquet

    one, other = (parquet.read_table(io.BytesIO(content)) for content in (old, new))
    if not one.schema.equals(other.schema, check_metadata=True):
        shown = first_difference(
            *(table.schema.to_string(show_schema_metadata=True).encode() for table in (one, other))
        )
        return "differs", f"schema, {shown}"
    if not one.equals(other):
        names = [name for name in one.column_names if not one[name].equals(other[name])]
        return "differs", f"{one.num_rows} and {other.num_rows} rows, in the columns {names}"
    return "bytes", "the same table"


def compare_pictures(where: str, old: bytes, new: bytes) -> tuple[str, str]:
    from PIL import Image, ImageChops

    one, other = (Image.open(io.BytesIO(content)) for content in (old, new))
    if (one.mode, one.size) != (other.mode, other.size):
        return "differs", f"{one.mode} {one.size} and {other.mode} {other.size}"
    if box := ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getbbox():
        return "differs", f"pixels within {box}"
    return "bytes", "the same image"


def compare_archives(where: str, old: bytes, new: bytes) -> tuple[str, str] | None:
    """Member by member. What PyTorch calls a serialization_id is a checksum of the others."""
    if not (zipfile.is_zipfile(io.BytesIO(old)) and zipfile.is_zipfile(io.BytesIO(new))):
        return "differs", first_difference(old, new)
    with zipfile.ZipFile(io.BytesIO(old)) as one, zipfile.ZipFile(io.BytesIO(new)) as other:
        names, others = one.namelist(), other.namelist()
        if names != others:
            return "differs", f"{len(names)} and {len(others)} members, not the same"
        for name in names:
            found = difference(f"{where}/{name}", one.read(name), other.read(name))
            if found and not name.endswith("/serialization_id"):
                return found[0], f"{name}: {found[1]}"
    return None


SPECIAL: dict[str, Callable[[str, bytes, bytes], tuple[str, str] | None]] = {
    ".npz": compare_arrays,
    ".parquet": compare_tables,
    ".png": compare_pictures,
    ".pt2": compare_archives,
    ".pyth": compare_archives,
}


def show_case(case: str, differences: list[Difference], results: Results) -> str:
    worst = max((found.kind for found in differences), key=KINDS.index, default="same")
    print(f"{worst:9} {case} ({len(results.printed) // 3} commands, {len(results.left)} files)")
    ordered = sorted(differences, key=lambda found: -KINDS.index(found.kind))
    for found in ordered[:SHOWN]:
        print(f"    {found.kind}: {found.where}: {found.text}")
    if more := ordered[SHOWN:]:
        print(
            f"    and {len(more)} more: {', '.join(f'{n} {kind}' for kind, n in Counter(m.kind for m in more).items())}"
        )
    sys.stdout.flush()
    return worst


def keep(folder: Path, case: str, differences: list[Difference], old: Results, new: Results) -> None:
    for found in differences:
        for which, results in (("old", old), ("new", new)):
            content = (results.printed | results.left).get(found.where)
            if content is not None:
                path = folder / case / f"{found.where.replace('/', '_')[:150]}.{which}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def run_outputs(arguments: argparse.Namespace, scratch: Path) -> int:
    old, new = (open_checkout(root, scratch) for root in (arguments.old, arguments.new))
    names = chosen(CASES, arguments.only)
    material = scratch / "material"
    material.mkdir()
    make_material(material, old.root)
    slots: queue.SimpleQueue[tuple[Path, Server]] = queue.SimpleQueue()
    verdicts: Counter[str] = Counter()
    os.environ["OMP_NUM_THREADS"] = "1"

    def both(name: str) -> tuple[str, Results, Results]:
        folder, server = slots.get()  # the same for both, since its path is in some outputs
        try:
            there = (folder, material, None if arguments.fresh or name in FRESH else server)
            return name, run_case(name, old, old, *there), run_case(name, old, new, *there)
        finally:
            slots.put((folder, server))

    with ExitStack() as stack:
        for number in range(arguments.jobs):
            server = Server()
            stack.callback(server.close)
            slots.put((scratch / f"case{number}", server))
        pool = stack.enter_context(ThreadPoolExecutor(arguments.jobs))
        for name, of_old, of_new in pool.map(both, names):
            differences = list(compare(name, of_old, of_new))
            verdicts[show_case(name, differences, of_old)] += 1
            if arguments.keep:
                keep(arguments.keep, name, differences, of_old, of_new)
    print(f"{len(names)} cases: {', '.join(f'{number} {verdict}' for verdict, number in verdicts.items())}")
    return int(any(verdicts[kind] for kind in KINDS[1:]))


# ---- Speed

BASE = """
import sys, torch
from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification
torch.manual_seed(0)
config = TimesformerConfig(id2label={number: f"class {number}" for number in range(400)}, initializer_range=0.05)
TimesformerForVideoClassification(config).save_pretrained(sys.argv[1])
"""

# Paths are those of `make_clips` and the folder of one run.
TIMED = {
    "predict": "predict {clips} -o {out}/labels.jsonl",
    "evaluate": "evaluate {clips} -a {clips}.csv -o {out}/run",
    "help": "--help",
    "base": "predict {clips}/0[0-5].mp4 -m {base} -o {out}/labels.jsonl",
}


def make_clips(folder: Path, count: int = 40) -> None:
    """Make three-second clips of 320 x 240; eight of them are encoded, the rest are copies of these."""
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:02}.mp4"
        if number < 8:
            write_video(path, 90, width=320, height=240, rate=30, seed=number)
        else:
            shutil.copyfile(folder / f"{number % 8:02}.mp4", path)
    labels = ("static", "pan left", "zoom in")
    rows = "".join(f"{number:02}.mp4,{labels[number % 3]}\n" for number in range(count))
    folder.with_suffix(".csv").write_text(f"path,label\n{rows}")


def adopt_orphans() -> None:
    """Processes whose parent has ended become children of this one, which then learns their usage."""
    become_subreaper = 36
    if sys.platform != "linux" or ctypes.CDLL(None, use_errno=True).prctl(become_subreaper, 1, 0, 0, 0):
        raise SystemExit("speed: needs a process that takes on orphans, as Linux has it")


def processor_seconds(checkout: Checkout, command: list[str], scratch: Path) -> float:
    """User and system time of a command and of all processes below it; this process must have no other children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(
            [sys.executable, "-c", checkout.code, *command],
            cwd=scratch,
            env=checkout.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=messages,
        )
        code = process.wait()
        with suppress(ChildProcessError):  # none are left
            while True:
                os.wait()
        messages.seek(0)
        assert code == 0, f"{command} by {checkout.root}: exit code {code}: {messages.read().decode(errors='replace')}"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_speed(arguments: argparse.Namespace, scratch: Path) -> int:
    adopt_orphans()
    old, new = (open_checkout(root, scratch) for root in (arguments.old, arguments.new))
    names = chosen(TIMED, arguments.only)
    again = scratch / "again"
    shutil.copytree(old.root / "timesformer_cli", again / "timesformer_cli")  # keeps file times, so .pyc stay valid
    shutil.copy(old.root / "pyproject.toml", again)
    copy = open_checkout(again, scratch)
    make_clips(scratch / "clips")
    if "base" in names:
        command = [sys.executable, "-c", BASE, str(scratch / "base")]
        subprocess.run(command, cwd=scratch, env=old.environment(), check=True)

    def measure(checkout: Checkout, name: str) -> float:
        out = scratch / "out"
        out.mkdir()
        places = {"clips": scratch / "clips", "base": scratch / "base", "out": out}
        try:
            return processor_seconds(checkout, shlex.split(TIMED[name].format(**places)), scratch)
        finally:
            shutil.rmtree(out)

    for checkout in (old, new, copy):
        for name in set(TIMED) - {"base"}:
            measure(checkout, name)
    pairs: dict[str, dict[str, list[tuple[float, float]]]] = {name: {"new": [], "old": []} for name in names}
    for number in range(arguments.pairs):
        for name in names:
            for which, other in (("new", new), ("old", copy)):
                if which == "old" and number >= arguments.copies:
                    continue
                first, second = (measure(each, name) for each in ((other, old) if number % 2 else (old, other)))
                pairs[name][which].append((second, first) if number % 2 else (first, second))
        last = (
            f"{name} {', '.join(f'{b[-1][1] / b[-1][0]:.3f}' for b in pairs[name].values() if b)}" for name in names
        )
        print(f"{number + 1} of {arguments.pairs} pairs: {'; '.join(last)}", file=sys.stderr, flush=True)
    for name in names:
        for which, times in pairs[name].items():
            print(f"{name}, {len(times)} pairs")
            show_ratios(which, times)
    return 0


def show_ratios(which: str, pairs: list[tuple[float, float]]) -> None:
    ratios = [other / old for old, other in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    seconds = [statistics.median(times) for times in zip(*pairs, strict=True)]
    spread = f"middle half {low:.3f} to {high:.3f}, all {min(ratios):.3f} to {max(ratios):.3f}"
    print(f"    {which} / old  {middle:.3f}   {spread}   ({seconds[1]:.3f} s / {seconds[0]:.3f} s)")


# ---- The command


def chosen(all_names: Mapping[str, Any], patterns: list[str] | None) -> list[str]:
    names = [name for name in all_names if patterns is None or any(fnmatch(name, pattern) for pattern in patterns)]
    if not names:
        raise SystemExit(f"--only: no such case; there are {', '.join(all_names)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    for mode, cases in (("outputs", CASES), ("speed", TIMED)):
        options = modes.add_parser(mode)
        options.add_argument("old", type=Path)
        options.add_argument("new", type=Path)
        options.add_argument("--only", action="append", metavar="NAME", help=f"patterns of cases: {', '.join(cases)}")
        if mode == "outputs":
            options.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="cases at a time")
            options.add_argument("--fresh", action="store_true", help="a process from scratch for each command")
            options.add_argument("--keep", type=Path, metavar="FOLDER", help="leave there what differs")
        else:
            options.add_argument("--pairs", type=int, default=15)
            options.add_argument("--copies", type=int, default=15, help="of the pairs, how many OLD has with its copy")
    arguments = parser.parse_args()
    print(
        f"Python {platform.python_version()}; {os.cpu_count()} cores; {arguments.old} and {arguments.new}", flush=True
    )
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        calm_environment(scratch)
        code = (run_outputs if arguments.mode == "outputs" else run_speed)(arguments, scratch)
    sys.exit(code)


if __name__ == "__main__":
    main()
