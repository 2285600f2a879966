"""Contents of image processor files, and their meaning."""

from typing import Any

from timesformer_cli.specs import PreprocessSpec

# The files of the published checkpoints, in the two generations of the format.
PUBLISHED = {
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.45, 0.45, 0.45],
    "image_std": [0.225, 0.225, 0.225],
    "resample": 2,
}
NEWER = {
    "image_processor_type": "VideoMAEImageProcessor",
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
}
OLDER = {"feature_extractor_type": "VideoMAEFeatureExtractor", "size": 224}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def spec(size: int | tuple[int, int] = 224, short_side: int | None = None, **fields: Any) -> PreprocessSpec:
    size = (size, size) if isinstance(size, int) else size
    fields = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize": "antialias"} | fields
    return PreprocessSpec(size=size, short_side=short_side or min(size), **fields)


WRITTEN = [
    spec(64, 72),
    spec((64, 48), 72, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bicubic"),
    spec((64, 48), stretch=(64, 48)),
    spec((64, 48), stretch=(96, 80), interpolation="lanczos"),
]
