"""Films of smooth patches that drift, each different by its seed, for finding copies."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def film(seed: int, frames: int = 40, height: int = 90, width: int = 160) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3): a window that moves over random patches of colour, at a speed that changes."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (24, 40, 3), np.uint8))
    wide = np.asarray(patches.resize((4 * width, 4 * height), Image.Resampling.BICUBIC))
    ways = np.cumsum(rng.uniform(1, 5, (frames, 2)), axis=0) + rng.uniform(0, height, 2)
    tops, lefts = (ways % (3 * height - 1, 3 * width - 1)).astype(int).T
    return np.stack([wide[top : top + height, left : left + width] for top, left in zip(tops, lefts, strict=True)])


def write_film(path: Path, frames: NDArray[np.uint8], *, rate: int = 8, crf: int = 20) -> Path:
    """H.264; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    options = {"preset": "ultrafast", "crf": str(crf)}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            pixels = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path
