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

Use a name of the first column as `--model`. A checkpoint on the Hugging Face Hub is downloaded on first use; after that
the cached files are used. `python docs/generate_checkpoints.py` writes this page.

```sh
timesformer models list             # this table, and which of them are on this machine
timesformer models show large-ssv2  # one of them: shape, recipe, cost, labels, files
```

{checkpoints}

- **Frames:** the number of frames x the stride, counted at 30 frames per second. Without a stride, one frame from each
  of as many equal parts of the video.
- **Top-1 and top-5** are in percent, on the validation sets (HowTo100M: the test set), for clips x crops views. They
  are those of the model zoo in the README of
  [facebookresearch/TimeSformer](https://github.com/facebookresearch/TimeSformer), whose models were trained again after
  the paper; those of `joint-k400` and `space-k400` are the paper's. **None of them has been measured with this tool.**
- **TFLOPs** are 10^12 multiply-adds for one view, as the paper counts them (for `joint-k400` and `space-k400`:
  mmaction2).
- **Parameters** are counted in the network that this tool builds, classifier included.
- `joint-k400` and `space-k400` are the networks that the paper compares divided attention with. Their authors published
  no weights. Those of mmaction2's model zoo have these shapes, and top-1 accuracies of 76.95 % (joint) and 76.93 %
  (space) there, where divided attention has 77.69 %. They bring their own recipe: `--model FILE.pth` is enough.
- `camera-motion` was measured on clips made for it: see its model card,
  `timesformer_cli/bundled/camera-motion/README.md`.

## Where the weights are

{files}

- **File** is the name of the same weights in the model zoo.
- Facebook's account on the Hub has no large models. These are copies by the person who converted all of them.
- `howto100m-*` are not on the Hub, and the names of their 1,059 classes were never published. The README says 448
  pixels for 64 frames; its file name says 224, as the others do.

## How each is fed, and its number run again

{recipes}

`VIDEOS` stands for the validation set. `--recipe original` is the test of the released code. Without it, a model sees
the same pixels in as many clips as cover the video, because the first seconds of a long video seldom show what it is
about.

Copies of Kinetics differ, because videos disappear from YouTube. With a copy that is not Facebook's, half a percent up
or down means nothing. State how many videos you had; [kinetics](kinetics.md) goes through it step by step.

## Presets

`--recipe NAME` feeds any model in one of these ways. Options after it change single parts. [Recipes](recipes.md)
explains what a recipe is. For `base-k400` they are:

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

## Something-Something: BGR and 30 frames per second

These models were trained on BGR: [recipes](recipes.md#why-bgr) says how that is known, and how to check it.

Their frames were extracted at 30 per second from videos of 12 per second, so most frames exist more than once before
one is taken from each part. The tool takes the frames that such an extraction would give. `--set fps=none` takes them
from the video as it is. The two differ by a frame here and there.

```sh
timesformer predict clips --model my-model --set channel_order=bgr  # your own model, trained on BGR
timesformer predict clips --model my-model --set method=segments --set fps=none
```

## Where the code differs from the paper

The `original` preset follows the code. `paper` follows the paper where the two contradict each other. It is not known
which of them gave the published numbers.

- **Clip.** The paper tests a clip in the middle of the video. The code, asked for one clip, takes the first frames.
- **Scores.** The paper averages the probabilities of the crops. The code adds up logits, which can rank close classes
  differently.
- **Stride.** "8x32" is not one frame in every 32: the first and the last of 256 frames are both taken, so the 8 frames
  are 36.43 apart. In 16x16 they are 17 apart, in 96x4 4.03. If the video does not have 30 frames per second, the span
  is equally long in seconds.
- **Short videos** repeat their last frame until the clip is full.
- **Pixels** are normalised first, then resized by bilinear interpolation without antialiasing. Image processors smooth
  when they shrink, so the larger a video, the more their pixels differ from those of the training: on synthetic images
  of 640 x 360 by 5 of 255 levels on average, of 1920 x 1080 by 15.
- **Numbers.** Those of the README are up to half a percent below those of the paper.

## Which files are read

- A folder, or a repository on the Hub: `config.json` with `model.safetensors` or `pytorch_model.bin`, in one file or in
  shards with an index.
- Checkpoints of the original code, `.pyth`: only the model, or with optimiser state and settings. Shape, stride and
  statistics come from the weights and the settings.
- Checkpoints of mmaction2, `.pth`, with divided, joint or space-only attention. They are fed by the `mmaction2` preset.
- Any of these as training code stores them: under `state_dict`, `model_state_dict`, `model`, `net`, `ema` or the like,
  and with a prefix before the names of the network, as DataParallel, Lightning, torch.compile, averaged models and PEFT
  add it. A loss or a metric beside the network, `n_averaged` and the counters `total_ops` and `total_params` are left
  out, and a note names them. If a file holds weights and their moving average, the weights are read, and the note says
  so. Of two networks under unusual names, none is chosen: the error shows both names.

Weights are read from safetensors, or from files of PyTorch that hold tensors and plain data. A file that would run code
is refused. `timesformer models convert` turns any of them into a folder or a `.pyth` file.

A folder says how to feed its model in `recipe.json`, which this tool writes, or in `preprocessor_config.json` or
`video_preprocessor_config.json` of transformers, of any version: short side or height and width, crop, statistics,
scale and filter are applied as VideoMAE's image processors and TimeSformer's video processor apply them. Only the
original code uses means of 0.45 with deviations of 0.225, so a file that states them gets the pixels of the `original`
preset.

## Labels

The classes of Kinetics-400, Kinetics-600 and Something-Something v2 are built in. Their checkpoints use them whatever
their files say: the labels of Kinetics-600 on the Hub were once in a wrong order. A `.pyth` or `.pth` file without
names that has 400, 600 or 174 classes is taken for one of these. `--labels FILE` gives other names:

- text in UTF-8, one name per line, in the order of the classes; or a number and a name with a tab between them, in
  either order;
- JSON: a list of names, `{{"0": "name"}}`, `{{"name": 0}}` (`kinetics_classnames.json`, the `labels.json` of
  Something-Something), or a `config.json` with `id2label`.

Numbers go from 0 without gaps. Nothing is sorted: names of folders sort differently from the labels that they stand
for.

## Licences

The original code and Facebook's weights, converted or not, are under
[CC-BY-NC-4.0](https://creativecommons.org/licenses/by-nc/4.0/), which excludes commercial use. Checkpoints by other
people have the licence that they chose. This tool contains nothing of the original code. It and `camera-motion` are
under the Apache License 2.0."""


def page() -> str:
    return TEXT.format(
        checkpoints=table(
            (
                "name",
                "data",
                "frames",
                "size",
                "top-1",
                "top-5",
                "views",
                "TFLOPs",
                "parameters",
            ),
            map(checkpoint_row, ZOO.values()),
        ),
        files=table(("name", "weights", "file", "licence"), map(file_row, ZOO.values())),
        recipes=table(("name", "frames", "pixels", "scores", "command"), map(recipe_row, ZOO.values())),
        presets=table(("name", "what it is", "frames", "pixels", "scores"), map(preset_row, RECIPES)),
    )


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def checkpoint_row(entry: Published) -> tuple[str, ...]:
    return (
        f"`{entry.name}`",
        entry.data,
        f"{entry.num_frames}x{entry.stride}" if entry.stride else str(entry.num_frames),
        str(entry.size),
        number(entry.top1),
        number(entry.top5),
        f"{entry.clips} x 3" if entry.clips else "",
        number(entry.tflops),
        f"{entry.parameters:,}",
    )


def file_row(entry: Published) -> tuple[str, ...]:
    weights = f"[{entry.repo}](https://huggingface.co/{entry.repo})" if entry.repo else "`--weights FILE`"
    return (
        f"`{entry.name}`",
        "bundled" if entry.folder else weights,
        f"`{entry.file}`" if entry.file else "",
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
    rate = "at the video's own rate" if spec.fps is None else f"at {spec.fps:g} per second"
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
