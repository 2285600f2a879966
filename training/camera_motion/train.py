"""Train the bundled camera-motion model, or a network with a different attention, on rendered clips.

    python training/camera_motion/train.py --out training/camera_motion/runs/divided
    python training/camera_motion/train.py --out training/camera_motion/runs/space_only --attention space_only

A stopped run continues from its last checkpoint. Every clip is a function of (seed, step, place in the
batch), so a stopped run sees the same clips as an uninterrupted one, and so does a different network.
"""

import argparse
import io
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import av
import numpy as np
import torch
import torch.nn.functional as F
from encoding import REPEATABLE, encode
from numpy.typing import NDArray
from scenes import LABELS, LEVER, Motion, make_scene, motion_of
from start import start_weights
from textures import TRAIN_PHOTOS, Gray, library
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification
from timesformer_cli.flow import Frames, VideoInfo
from timesformer_cli.specs import AttentionType, PreprocessSpec, SamplingSpec
from timesformer_cli.video.preprocess import make_views
from timesformer_cli.video.sampling import plan

SIDE = 96  # pixels

# Eight frames that span a second: long enough for slow moves, short enough that fast ones still overlap.
SAMPLING = SamplingSpec(num_frames=8, stride=4, fps=30.0)
PREPROCESS = PreprocessSpec(
    size=(SIDE, SIDE), short_side=SIDE, mean=(0.45,), std=(0.225,), channel_order="gray", resize="antialias"
)
PROCEDURAL_PICTURES = 400
SAVE_EVERY = 50  # steps
CLEAR_PART = 0.75  # of the steps; in the rest, every other clip leaves a viewer in doubt
FRAME_RATES = (10, 12, 15, 24, 25, 25, 30, 30, 30, 50, 60)


def make_config(attention: AttentionType) -> TimesformerConfig:
    return TimesformerConfig(
        image_size=SIDE,
        patch_size=16,
        num_channels=1,
        num_frames=SAMPLING.num_frames,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        attention_type=attention,
        id2label=dict(enumerate(LABELS)),
    )


def draw_motion(rng: np.random.Generator) -> Motion:
    """Four in five clear, with up to a sixth of a different motion mixed in; the rest mixed or tiny."""
    label = LABELS[rng.integers(len(LABELS))]
    fastest = 1.2 if label.startswith(("pan", "tilt")) else 0.5
    speed = math.exp(rng.uniform(math.log(0.07), math.log(fastest)))
    if label == "static":
        speed = 0.1
    speeds = motion_of(label, speed).speeds()
    others = rng.normal(0, 0.06, 4) * speed
    kind = rng.random()
    if kind < 0.12 and label != "static":
        others[rng.integers(4)] = speed * rng.uniform(0.3, 1) * rng.choice((-1, 1))
    elif kind < 0.2:
        speeds *= rng.uniform(0.1, 0.7)
    pan, tilt, zoom, roll = np.where(speeds == 0, others, speeds)
    return Motion(pan, tilt, zoom / LEVER, roll / LEVER)


def draw_doubtful(rng: np.random.Generator) -> Motion:
    """Two kinds of motion at nearly the same speed, or one that hardly differs from standing still."""
    kinds = rng.permutation(4)
    if rng.random() < 0.5:
        speed = math.exp(rng.uniform(math.log(0.07), math.log(0.5)))
        sizes = (speed, speed * rng.uniform(0.6, 1))
    else:
        speed = math.exp(rng.uniform(math.log(0.015), math.log(0.07)))
        sizes = (speed, 0.1 * speed)
    speeds = np.zeros(4)
    speeds[kinds[:2]] = rng.choice((-1, 1), 2) * sizes
    return Motion(speeds[0], speeds[1], speeds[2] / LEVER, speeds[3] / LEVER)


def draw_times(rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """Times of the frames that the sampler takes from one window of a video, and the window's length, seconds."""
    fps = float(rng.choice(FRAME_RATES))
    length = SAMPLING.stride * SAMPLING.num_frames / SAMPLING.fps
    frames = 4 * math.ceil(length * fps)
    info = VideoInfo(times=np.arange(frames) / fps, fps=fps, width=SIDE, height=SIDE, codec="")
    (window,) = plan(info, SAMPLING)
    times = info.times[window.clips[rng.integers(len(window.clips))]]
    return times - times[0], length


def degrade(rng: np.random.Generator, pixels: Gray) -> Gray:
    """The effects of cameras and files on frames (T, H, W): noise, black bars, compression."""
    if rng.random() < 0.7:
        noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.exponential(4))
        pixels = (pixels + noise).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.08:
        bar = int(pixels.shape[1] * rng.uniform(0.05, 0.16))
        pixels = pixels.copy()
        pixels[:, :bar] = pixels[:, -bar:] = 0
        if rng.random() < 0.3:
            pixels = np.ascontiguousarray(pixels.transpose(0, 2, 1))
    return compress(pixels, crf=int(rng.integers(20, 38))) if rng.random() < 0.25 else pixels


def compress(pixels: Gray, crf: int) -> Gray:
    """The frames after a round trip through H.264."""
    file = io.BytesIO()
    encode(file, pixels, 8, {"crf": str(crf), "preset": "veryfast", **REPEATABLE})
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])


Batch = tuple[Tensor, Tensor, Tensor]


class Clips(IterableDataset[Batch]):
    """Batches from `step` on: pixels (B, T, 1, H, W), targets (B, K), camera flow (B, T - 1, h, w, 2) in patches."""

    def __init__(self, seed: int, step: int, steps: int, batch: int, grid: int) -> None:
        self.seed, self.step, self.steps, self.batch, self.grid = seed, step, steps, batch, grid

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        pictures = library(TRAIN_PHOTOS, PROCEDURAL_PICTURES, self.seed, unseen=False)
        step = self.step
        while True:
            made = [self._clip(np.random.default_rng((self.seed, step, i)), pictures, step) for i in range(self.batch)]
            pixels, targets, flows = zip(*made, strict=True)
            yield tuple(torch.from_numpy(np.stack(part)) for part in (pixels, targets, flows))
            step += 1

    def _clip(
        self, rng: np.random.Generator, pictures: list[Gray], step: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        doubtful = step >= CLEAR_PART * self.steps and rng.random() < 0.5
        motion = draw_doubtful(rng) if doubtful else draw_motion(rng)
        times, length = draw_times(rng)
        difficulty = float(rng.uniform(0, min(1.0, 0.2 + step / 600)))
        scene = make_scene(rng, pictures, motion, length, difficulty)
        side = int(rng.choice((SIDE, 128, 160)))
        pixels = degrade(rng, scene.render(times, side, side)[..., 0])
        frames = Frames(np.repeat(pixels[..., None], 3, -1), times)
        return make_views([frames], PREPROCESS)[0], motion.shares(), scene.flow(times, self.grid) * self.grid


class FlowHead(nn.Linear):
    """Reads the camera's flow from every patch token. A guide for training only: it is not kept.

    One label per clip says little; the next place of each patch says the same thing hundreds of times.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 2)

    def loss(self, tokens: Tensor, flow: Tensor) -> Tensor:
        """`tokens` (B, 1 + N*T, D) of the last layer, normalised; `flow` (B, T - 1, h, w, 2)."""
        batch, steps = flow.shape[:2]
        found = self(tokens[:, 1:].unflatten(1, (-1, steps + 1))[:, :, :-1])  # (B, N, T - 1, 2)
        # asinh: slow motion counts by its size, fast motion by its order of magnitude.
        wanted = torch.asinh(flow * 10).view(batch, steps, -1, 2).transpose(1, 2)
        return F.smooth_l1_loss(found, wanted)


def tokens_of(model: TimesformerForVideoClassification, hidden: Tensor, frames: int) -> Tensor:
    """The last layer's tokens, normalised, in the order of divided attention for any attention."""
    if model.config.attention_type == "space_only":  # (B*T, 1 + N, D)
        patches = hidden[:, 1:].unflatten(0, (-1, frames)).transpose(1, 2).flatten(1, 2)
        hidden = torch.cat([hidden[::frames, :1], patches], 1)
    return model.timesformer.layernorm(hidden)


def learning_rate(step: int, steps: int, rate: float) -> float:
    """Half a cosine for each part, after a linear warm-up: from `rate` to a fiftieth, then from a fifth to nothing."""
    clear = CLEAR_PART * steps
    if step < clear:
        return rate * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / clear)) / 2)
    return rate * 0.2 * (1 + math.cos(math.pi * (step - clear) / (steps - clear))) / 2


def train(out: Path, attention: AttentionType, steps: int, batch: int, rate: float, seed: int) -> None:
    """Train, or continue, until `out/checkpoint.pt` has seen `steps` batches; `out/log.jsonl` records the progress.

    SystemExit if `out` holds a run with different settings.
    """
    settings = {"attention": attention, "steps": steps, "batch": batch, "rate": rate, "seed": seed}
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = TimesformerForVideoClassification(make_config(attention))
    start_weights(model)
    guide = FlowHead(model.config.hidden_size)
    model.to(device).train()
    guide.to(device)
    parameters = [*model.parameters(), *guide.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.02)
    checkpoint, step = out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if (others := state.get("settings", "unknown settings")) != settings:
            raise SystemExit(f"{checkpoint}: was trained with {others}, not {settings}; use a different folder")
        model.load_state_dict(state["model"])
        guide.load_state_dict(state["guide"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    if step == steps:
        return

    loader = iter(
        DataLoader(
            Clips(seed, step, steps, batch, model.config.grid[0]), batch_size=None, num_workers=1, prefetch_factor=4
        )
    )
    sums, began = np.zeros(3), time.monotonic()
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        while step < steps:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, rate)
            pixels, targets, flow = (part.to(device) for part in next(loader))
            output = model(pixels, output_hidden_states=True)
            class_loss = F.cross_entropy(output.logits, targets)
            guide_loss = guide.loss(tokens_of(model, output.hidden_states[-1], pixels.shape[1]), flow)
            optimizer.zero_grad()
            (class_loss + guide_loss).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            clear = targets.amax(1) > 0.8
            right = (output.logits.argmax(1) == targets.argmax(1))[clear].float().mean()
            sums += (class_loss.item(), guide_loss.item(), right.item())
            if step % SAVE_EVERY == 0 or step == steps:
                means = sums / (step % SAVE_EVERY or SAVE_EVERY)
                sums[:] = 0
                row = dict(zip(("class_loss", "flow_loss", "clear_right"), means.round(4).tolist(), strict=True))
                log.write(json.dumps({"step": step, **row, "seconds": round(time.monotonic() - began)}) + "\n")
                log.flush()
                state = {"model": model.state_dict(), "guide": guide.state_dict()}
                fresh = checkpoint.with_suffix(".new")
                torch.save({**state, "optimizer": optimizer.state_dict(), "step": step, "settings": settings}, fresh)
                fresh.replace(checkpoint)  # a run stopped here keeps the old or the new one, whole


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the log")
    parser.add_argument("--attention", default="divided_space_time", choices=get_args(AttentionType))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32, help="clips per step")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate after warm-up")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    train(options.out, options.attention, options.steps, options.batch, options.rate, options.seed)
