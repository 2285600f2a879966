"""One view of a video for training: the recipe's own, or a random one."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.flow import Item
from timesformer_cli.pipeline.prepare import read_clips
from timesformer_cli.specs import Reading, Recipe
from timesformer_cli.video.preprocess import draw_framing, framings, make_view
from timesformer_cli.video.reader import open_video
from timesformer_cli.video.sampling import draw, plan

Augment = Literal["none", "light"]

# auto: if both names and measurement allow it; swap: likewise, with the labels of pairs such as "left" and "right"
# exchanged in mirrored videos.
Flip = Literal["auto", "on", "off", "swap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What is random in a view.

    `kind`: `light` takes a random clip of the recipe's stride, in a random crop of a random size; `none` takes the
    recipe's own views, those that validation averages over, in turn. With `flip`, half of the views are mirrored.
    """

    kind: Augment = "light"
    flip: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Network input, float32 (T, C, H, W); `frames` are the numbers of its frames, and it may be `mirrored`."""

    pixels: NDArray[np.float32]
    frames: tuple[int, ...]
    mirrored: bool


def draw_view(
    item: Item,
    recipe: Recipe,
    augmentation: Augmentation,
    generator: np.random.Generator,
    *,
    turn: int = 0,
    reading: Reading = Reading(),
) -> View:
    """A view of a video, or of a part of it, that depends only on the `generator` and, without augmentation, on `turn`.

    Only the frames of the view are decoded. Of V views of the recipe, each turn of V consecutive ones takes another.

    Raises:
        VideoError: the video cannot be read.
    """
    spec = recipe.preprocess
    with open_video(item, reading) as reader:
        size = reader.info.width, reader.info.height
        if augmentation.kind == "light":
            clip = draw(reader.info, recipe.sampling, generator, part=item.part).clips
            framing = draw_framing(*size, spec, generator)
        else:
            (span,) = plan(reader.info, recipe.sampling, part=item.part)
            crops = framings(*size, spec)
            number, crop = divmod(turn % (len(span.clips) * len(crops)), len(crops))
            clip, framing = span.clips[number : number + 1], crops[crop]
        # Drawn last: whether flips are allowed changes nothing else.
        mirrored = augmentation.flip and bool(generator.integers(2))
        (frames,) = read_clips(reader, clip, reading)
        pixels = make_view(frames, spec, framing._replace(mirrored=mirrored))
    return View(pixels, tuple(clip[0].tolist()), mirrored)
