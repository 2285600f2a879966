"""Write docs/checkpoints.md: the published checkpoints, how each is fed, and what is known of it.

python docs/generate_checkpoints.py
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from timesformer_cli.checkpoints.recipes import RECIPES, preset
from timesformer_cli.checkpoints.zoo import ZOO, Published
from timesformer_cli.specs import PreprocessSpec, Recipe, SamplingSpec

PAGE = Path(__file__).with_name("checkpoints.md")

TEXT = """# Published checkpoints

This page is made by `python docs/generate_checkpoints.py`; its tables come from `zoo.py` and `recipes.py` in
`timesformer_cli/checkpoints/`, its words from the script.

A name of the first column goes wherever a command takes `--model`. What is on the Hugging Face Hub is downloaded when
it is first used, and found in the cache from then on.

```sh
timesformer models list             # the same, and which of them are on this machine
timesformer models show large-ssv2  # one of them: shape, recipe, cost, labels, files
```

{checkpoints}

- Frames: their number x the stride, counted at 30 frames a second; without a stride, one frame from each of as many
  equal parts of the video.
- Top-1 and top-5, in percent, are those of the model zoo in the README of
  [facebookresearch/TimeSformer](https://github.com/facebookresearch/TimeSformer), whose models were trained anew after
  the paper; those of `joint-k400` and `space-k400` are the paper's. They are on the validation sets (HowTo100M: the
  test set), in the views of the next column, clips x crops. **None of them has been measured with this tool.**
- TFLOPs are 10^12 multiply-adds for one view, as the paper counts them (for `joint-k400` and `space-k400`: mmaction2).
  Parameters are counted in the network that this tool builds, classifier included.
- The file is what the model zoo of the README calls the same weights. Facebook's account on the Hub has no large
  models: these are copies by the one who converted all of them, who has copies of the others too.
- `howto100m-*` are not on the Hub, and the names of their 1059 classes were never published. The README says 448 pixels
  for 64 frames; the name of its file says 224, as do the others.
- `joint-k400` and `space-k400` are the networks of the paper's comparison of attentions. Their authors published no
  weights; those of mmaction2's model zoo have these shapes, with 76.95 % (joint) and 76.93 % (space) of its own, where
  its divided attention has 77.69 %. They bring a recipe of their own: `--model FILE.pth` is enough.
- `camera-motion` was measured on clips of its own making: see its model card,
  `timesformer_cli/bundled/camera-motion/README.md`.

## How each is fed, and its number run again

{recipes}

`VIDEOS` stands for the validation set, and a number is the share of videos whose first label is the right one.
`--recipe original` is the test of the released code. Without it a model is fed the same, but in as many clips as cover
the video, since a long video seldom shows in its first seconds what it is about.

Copies of Kinetics differ, because videos vanish from YouTube: with another copy than Facebook's, half a percent up or
down says nothing. State how many videos there were.

## Presets

`--recipe NAME` feeds any model in one of these ways; options after it change single parts. Here they are for
`base-k400`:

{presets}

`transformers` and `transformers-4` take size, colours and statistics from the model's `preprocessor_config.json`; the
lines above are what that file says for `base-k400`. Which of them a user of transformers has seen depends on the
version: the video-classification pipeline of 4.x takes the first frames of a video, by default one after the other
(`frame_sampling_rate` 1, here `--stride`), and so does that of 5.x if it has an image processor and no video
processor. The pipeline of 5.x makes a video processor of the same file, and then takes frames from the whole video and
ignores `frame_sampling_rate`.

If a video has too few frames, the pipeline of 5.x refuses it, and that of 4.x gives the network fewer frames than it
was built for, which fails or comes to wrong scores. Here `transformers` repeats frames evenly, and `transformers-4`
repeats the last one. Frames of a video that is stored rotated are upright here, and rotated there.

```sh
timesformer predict clips --recipe paper                        # a preset
timesformer predict clips --recipe mmaction2 --crops 1          # with one part changed
timesformer predict clips --recipe transformers-4 --stride 4    # the pipeline of 4.x with frame_sampling_rate=4
timesformer predict clips --recipe original --set resize=opencv # any field of `timesformer models show`
```

## Something-Something: BGR and 30 frames a second

The released code reads the pictures of Something-Something with OpenCV, which gives blue, green and red in this order.
Its settings ask to turn them round (`REVERSE_INPUT_CHANNEL`), but only one function acts on that, and it is skipped for
vision transformers. So by the code, these models were trained and tested on BGR, and that is how they are fed here.
**This is read from the code, and no published number settles it**: transformers feeds the same weights RGB, and no
comparison of the two on the validation set is known. To make one: `--model base-ssv2 --set channel_order=rgb`.

The pictures were extracted at 30 frames a second from videos of 12, so most frames are there more than once before one
is taken from each part. The tool takes the frames that such an extraction would give; `--set fps=none` takes them from
the video as it is. The two differ by a frame here and there.

```sh
timesformer predict clips --model my-model --set channel_order=bgr  # as a model of your own, trained on BGR, wants it
timesformer predict clips --model my-model --set method=segments --set fps=none
```

## Where the code differs from the paper

The `original` preset follows the code; `paper` the paper where the two contradict each other. It is not known which of
them the published numbers were obtained with.

- **Which clip.** The paper tests a clip in the middle of the video. The code, asked for one clip, takes the first
  frames.
- **Scores.** The paper averages the probabilities of the crops; the code adds up logits, which can order close classes
  differently.
- **Stride.** "8x32" is not a frame in every 32: the first and the last of 256 frames are both taken, so that 8 of them
  lie 36.43 apart. 16x16 has 17 between frames, 96x4 has 4.03. In videos of another rate than 30 a second, the span is
  as long in seconds.
- **Short videos** repeat their last frame until the clip is full.
- **Pixels** are normalised first and then resized by bilinear interpolation without antialiasing. Image processors
  smooth when they shrink, so the larger a video, the further their pixels are from those that the models were trained
  on: in synthetic pictures of 640 x 360 by 5 of 255 levels on average, of 1920 x 1080 by 15.
- **Numbers.** The README's are up to half a percent below the paper's.

## Which files are read

- A folder, or a repository on the Hub: `config.json` with `model.safetensors` or `pytorch_model.bin`, in one file or in
  shards with an index.
- Checkpoints of the original code, `.pyth`: the model alone, or with optimiser state and settings. Shape, stride and
  statistics come from the weights and the settings.
- Checkpoints of mmaction2, `.pth`, with divided, joint or space-only attention. They are fed by the `mmaction2` preset.

Weights are read from safetensors, or from files of PyTorch that hold tensors and plain data; a file that would run code
is refused. `timesformer models convert` writes a folder or a `.pyth` of either.

A folder says how to feed its model in `recipe.json`, which this tool writes; else in `preprocessor_config.json` or
`video_preprocessor_config.json` of transformers, in all their generations: short side or height and width, crop,
statistics, scale and filter are done as VideoMAE's image processors and TimeSformer's video processor do them. Means of
0.45 with deviations of 0.225 are the original code's alone, so a file that states them stands for the `original`
pixels.

## Labels

The classes of Kinetics-400, Kinetics-600 and Something-Something v2 are built in, and used for their checkpoints
whatever their files say: the labels of Kinetics-600 on the Hub were once in a wrong order. A `.pyth` or `.pth` file
without names that has 400, 600 or 174 classes is taken for one of these. `--labels FILE` gives other names:

- text in UTF-8, one name a line, in the order of the classes; or a number and a name with a tab between them, either
  one first;
- JSON: a list of names, `{{"0": "name"}}`, `{{"name": 0}}` (`kinetics_classnames.json`, the `labels.json` of
  Something-Something), or a `config.json` with `id2label`.

Numbers go from 0 without gaps. Nothing is sorted: names of folders sort differently from the labels they stand for.

## Licences

The original code and Facebook's weights, converted or not, are under
[CC-BY-NC-4.0](https://creativecommons.org/licenses/by-nc/4.0/), which excludes commercial use. What others trained has
the licence that they give it. This tool, which has nothing of the original code in it, and `camera-motion` are under
the Apache License 2.0.
"""


def page() -> str:
    return TEXT.format(
        checkpoints=table(
            (
                "name",
                "weights",
                "file",
                "data",
                "frames",
                "size",
                "top-1",
                "top-5",
                "views",
                "TFLOPs",
                "parameters",
                "licence",
            ),
            map(checkpoint_row, ZOO.values()),
        ),
        recipes=table(("name", "frames", "pixels", "scores", "command"), map(recipe_row, ZOO.values())),
        presets=table(("name", "what it is", "frames", "pixels", "scores"), map(preset_row, RECIPES)),
    )


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def checkpoint_row(entry: Published) -> tuple[str, ...]:
    weights = f"[{entry.repo}](https://huggingface.co/{entry.repo})" if entry.repo else "`--weights FILE`"
    return (
        f"`{entry.name}`",
        "bundled" if entry.folder else weights,
        f"`{entry.file}`" if entry.file else "",
        entry.data,
        f"{entry.num_frames}x{entry.stride}" if entry.stride else str(entry.num_frames),
        str(entry.size),
        number(entry.top1),
        number(entry.top5),
        f"{entry.clips} x 3" if entry.clips else "",
        number(entry.tflops),
        f"{entry.parameters:,}",
        entry.licence,
    )


def number(value: float | None) -> str:
    return "" if value is None else str(value)


def recipe_row(entry: Published) -> tuple[str, ...]:
    command = f"timesformer predict VIDEOS --model {entry.name}"
    if entry.repo is None and entry.folder is None:
        command += f" --weights {entry.file or 'FILE'}"
    if entry.folder is None:
        command += " --recipe original"
    if entry.clips is not None and entry.clips > 1:
        command += f" --clips {entry.clips}"
    return f"`{entry.name}`", *in_words(recipe_of(entry)), f"`{command}`"


def recipe_of(entry: Published) -> Recipe:
    if entry.folder is None:
        recipe = preset("original", entry.config(), dataset=entry.dataset, stride=entry.stride)
        return replace(recipe, sampling=replace(recipe.sampling, clips=entry.clips))
    stated = json.loads((entry.folder / "recipe.json").read_text(encoding="utf-8"))
    sampling, preprocess = SamplingSpec(**stated["sampling"]), PreprocessSpec(**stated["preprocess"])
    return Recipe(base=entry.name, sampling=sampling, preprocess=preprocess, combine=stated["combine"])


def preset_row(name: str) -> tuple[str, ...]:
    entry = ZOO["base-k400"]
    recipe = preset(name, entry.config(), dataset=entry.dataset, stride=entry.stride)
    return f"`{name}`", RECIPES[name], *in_words(recipe)


def in_words(recipe: Recipe) -> tuple[str, str, str]:
    """Frames, pixels and scores."""
    scores = {"logits": "logits averaged", "probabilities": "probabilities averaged"}[recipe.combine]
    return frames(recipe.sampling), pixels(recipe.preprocess), scores


def frames(spec: SamplingSpec) -> str:
    rate = "at the video's own rate" if spec.fps is None else f"at {spec.fps:g} a second"
    if spec.method == "uniform":
        return f"{spec.num_frames}, spread over the whole video"
    if spec.method == "segments":
        return f"the middle one of each of {spec.num_frames} equal parts, {rate}"
    span = f"{spec.num_frames} spread over {spec.num_frames * spec.stride:g}"
    if spec.stride == 1:
        span = f"{spec.num_frames} in a row"
    if spec.method == "strided":
        span = f"{spec.num_frames}, each {spec.stride:g} after the last"
    short = {"repeat": "", "loop": "; a short video starts again"}[spec.overrun]
    return f"{span}, {rate}, {windows(spec)}{short}"


def windows(spec: SamplingSpec) -> str:
    if spec.clips is None:
        return "in as many windows as cover the video, at most 10"
    if spec.clips > 1:
        return f"in {spec.clips} windows"
    return {"first": "from the start of the video", "middle": "in the middle of the video"}[spec.placement]


def pixels(spec: PreprocessSpec) -> str:
    assert len(set(spec.mean)) == len(set(spec.std)) == 1, "statistics that differ by channel have no words yet"
    assert spec.stretch is None, "nor have stretched frames"
    colours = {"rgb": "RGB", "bgr": "BGR", "gray": "gray"}[spec.channel_order]
    normalised = f"(x - {spec.mean[0]:g}) / {spec.std[0]:g}"
    resized = f"short side to {spec.short_side}"
    steps = {
        "float": f"{normalised}, then {resized} without antialiasing",
        "antialias": f"{resized} with antialiasing, then {normalised}",
        "opencv": f"{resized} without antialiasing, then {normalised}",
    }[spec.resize]
    size = f"{spec.size[0]} x {spec.size[1]}"
    crops = f"3 crops of {size}" if spec.crops == 3 else f"centre crop of {size}"
    return f"{colours}; {steps}; {crops}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
