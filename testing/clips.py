"""Small videos and models for the tests, made on demand."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification
from timesformer_cli.flow import Frames

# (width, height) of frames: landscape, portrait, square, smaller than crops, odd, extreme.
SIZES = [(320, 240), (240, 320), (256, 256), (341, 256), (64, 48), (639, 361), (1280, 16), (16, 1280), (1, 1)]

LABELS = ("waving", "größer, schneller", "a\tb", "sitting", "running")


def write_video(
    path: Path, *, frames: int = 12, width: int = 64, height: int = 48, rate: int = 10, level: int = 0
) -> Path:
    """An H.264 video of noise that grows brighter frame by frame; different `level`s give different videos."""
    rng = np.random.default_rng(level)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate), options={"preset": "ultrafast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        noise = rng.integers(0, 100, (height, width, 3))
        for number in range(frames):
            pixels = (noise + number * 140 // frames).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def touch(*paths: str) -> None:
    """Empty files of these names, in folders that are made for them."""
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def noise(width: int, height: int, frames: int = 2, seed: int = 0) -> Frames:
    """Frames of random bytes, one per second."""
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Frames(pixels, np.arange(frames, dtype=np.float64))


def write_audio(path: Path) -> Path:
    """An MP4 of half a second of sound, without video."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 8192, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def tiny_config(labels: Sequence[str], **changes: Any) -> TimesformerConfig:
    return TimesformerConfig(
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate(labels)),
        **changes,
    )


def write_model(folder: Path, labels: Sequence[str] = LABELS, **changes: Any) -> Path:
    """A checkpoint folder with a tiny network of random weights, the same at each call; `changes` are of its config."""
    torch.manual_seed(0)
    config = tiny_config(labels, num_hidden_layers=1, initializer_range=0.3, **changes)
    TimesformerForVideoClassification(config).save_pretrained(folder)
    return folder


def write_random_model(folder: Path, labels: Sequence[str]) -> Path:
    """A different one, with random biases and time embeddings too."""
    torch.manual_seed(2)
    model = TimesformerForVideoClassification(tiny_config(labels, num_hidden_layers=1))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=float("norm" in name and name.endswith("weight")), std=0.4)
    model.save_pretrained(folder)
    return folder
