"""README.md of an exported folder: what it is, and how to use it without this package."""

from collections.abc import Mapping
from pathlib import Path
from string import Template

from timesformer_cli.__about__ import __version__
from timesformer_cli.checkpoints.exported import INPUT_NAMES, Format
from timesformer_cli.jobs.export.spec import MODEL_FILES, WEIGHTS_OF_ONNX, WEIGHTS_OF_OPENVINO, ExportSpec
from timesformer_cli.specs import Checkpoint

_TEMPLATE = Path(__file__).with_name("readme_template.md")

_RUNTIMES: Mapping[Format, str] = {
    "onnx": "ONNX",
    "openvino": "OpenVINO",
    "pt2": "`torch.export`",
    "aoti": "AOTInductor",
    "hub": "transformers",
}

# Frames per second that the example assumes, the default of predict for folders of images.
_RATE = 30


def render(checkpoint: Checkpoint, spec: ExportSpec, stated: Mapping[str, str]) -> str:
    """The text of README.md; `stated` is the metadata of the model file."""
    name = stated["name"].replace("`", "'")
    height, width = checkpoint.preprocess.size
    frames, channels = checkpoint.sampling.num_frames, len(checkpoint.preprocess.mean)
    if spec.input == "pixels":
        taken = f"uint8 `(batch, {frames}, {height}, {width}, 3)`: RGB frames; the model normalises them"
    else:
        order = {"rgb": "RGB", "bgr": "BGR", "gray": "gray"}[checkpoint.preprocess.channel_order]
        taken = (
            f"float32 `(batch, {frames}, {channels}, {height}, {width})`: {order} frames, scaled to 0..1, "
            f"less {list(checkpoint.preprocess.mean)}, divided by {list(checkpoint.preprocess.std)}"
        )
    width_out = checkpoint.config.hidden_size if spec.output == "embedding" else checkpoint.config.num_labels
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=name,
        runtime=_RUNTIMES[spec.format],
        version=__version__,
        kind=spec.kind,
        source=stated["source"].replace("`", "'"),
        sha256=stated["source_sha256"],
        licence=stated["licence"],
        input=INPUT_NAMES[spec.input],
        taken=taken,
        output=spec.output,
        given=_given(checkpoint, spec),
        width=width_out,
        remarks=_remarks(spec),
        file=MODEL_FILES[spec.format],
        beside=_beside(spec),
        example="\n".join(example(checkpoint, spec)),
    )


def _given(checkpoint: Checkpoint, spec: ExportSpec) -> str:
    """What the output is, and what makes scores of logits."""
    if spec.output == "probabilities":
        return f": the {checkpoint.activation} of the logits"
    if spec.output == "embedding":
        return ""
    return ", which are the scores" if checkpoint.recipe.raw else f"; their {checkpoint.activation} are the scores"


def _beside(spec: ExportSpec) -> str:
    if spec.format == "openvino":
        return f", with its weights in `{WEIGHTS_OF_OPENVINO}`"
    return f", with its weights in `{WEIGHTS_OF_ONNX}`" if spec.external_data else ""


def _remarks(spec: ExportSpec) -> str:
    """More rows of the table."""
    if spec.format != "aoti":
        return ""
    where = "machines like the one it was compiled on; it is a program, so use it only from sources you trust"
    return f"| runs on | {where} |\n"


def example(checkpoint: Checkpoint, spec: ExportSpec) -> list[str]:
    """Lines of Python that label a video by the recipe; its frames are images in a folder."""
    opening, run = _RUN[spec.format]
    gray = checkpoint.preprocess.channel_order == "gray" and spec.input == "frames"
    three = checkpoint.preprocess.crops == 3
    return [
        "from pathlib import Path",
        f"import numpy as np, {_IMPORTS[spec.format]}",
        "from PIL import Image",
        "",
        f"paths = sorted(Path('frames').iterdir())  # images of a video, {_RATE} per second",
        *_sampling(checkpoint),
        "",
        f"def crop(path{', place' if three else ''}):",
        f"    image = Image.open(path).convert({'L' if gray else 'RGB'!r})",
        *_cropping(checkpoint),
        "",
        "views = np.array([[crop(paths[n], place) for n in clip] for clip in clips for place in (0, 0.5, 1)])"
        if three
        else "views = np.array([[crop(paths[n]) for n in clip] for clip in clips])",
        *_normalising(checkpoint, spec, gray=gray),
        opening,
        f"outputs = np.concatenate([{run.format(input=INPUT_NAMES[spec.input])} for view in views])",
        *_result(checkpoint, spec),
    ]


_IMPORTS: Mapping[Format, str] = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "pt2": "torch",
    "aoti": "torch",
    "hub": "torch, transformers",
}
# Code that opens the model, and code that runs it on one view.
_RUN: Mapping[Format, tuple[str, str]] = {
    "onnx": (
        "session = onnxruntime.InferenceSession('model.onnx')",
        "session.run(None, {{'{input}': view[None]}})[0]",
    ),
    "openvino": (
        "model = openvino.compile_model('model.xml', 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})",
        "model(view[None])[0]",
    ),
    "pt2": ("model = torch.export.load('model.pt2').module()", "model(torch.from_numpy(view[None])).numpy()"),
    "aoti": (
        "model = torch._inductor.aoti_load_package('model.pt2')",
        "model(torch.from_numpy(view[None])).numpy()",
    ),
    "hub": (
        "model = transformers.TimesformerForVideoClassification.from_pretrained('.', dtype='float32')",
        "model(torch.from_numpy(view[None])).logits.detach().numpy()",
    ),
}


def _sampling(checkpoint: Checkpoint) -> list[str]:
    """Frame numbers of the clips, the same as from `sampling.plan` for frames at that rate."""
    spec = checkpoint.sampling
    frames = spec.num_frames
    if spec.method == "uniform":
        return [f"clips = [np.arange({frames}) * len(paths) // {frames}]"]
    if spec.method == "segments":
        return [
            f"edges = np.round((len(paths) - 1) / {frames} * np.arange({frames + 1})).astype(int)",
            "clips = [(edges[:-1] + edges[1:]) // 2]",
        ]
    step = spec.stride * (1 if spec.fps is None else _RATE / spec.fps)
    window = spec.method == "window"
    span = max(step * frames, 1) if window else int((frames - 1) * step + 0.5) + 1
    spare = f"max(len(paths) - {span:g}, 0)"
    single = f"[{spare} {'/' if window else '//'} 2]" if spec.placement == "middle" else "[0]"
    lines = []
    if spec.clips is None:
        lines = [f"count = min(max(round(len(paths) / {span:g}), 1), 10)  # of clips, side by side"]
        starts = f"np.linspace(0, {spare}, count){'' if window else '.round()'}"
        if single != "[0]":
            starts += f" if count > 1 else {single}"
    elif spec.clips == 1:
        starts = single
    elif window:
        starts = f"{spare} * np.arange({spec.clips}) / {spec.clips}"
    else:
        starts = f"np.linspace(0, {spare}, {spec.clips}).round()"
    if window:
        clip = f"np.linspace(start, start + {span - 1:g}, {frames}).astype(int)"
    else:
        clip = f"np.floor(start + np.arange({frames}) * {step:g} + 0.5).astype(int)"
    inside = " % len(paths)" if spec.overrun == "loop" else ".clip(max=len(paths) - 1)"
    return [*lines, f"starts = {starts}", f"clips = [{clip}{inside} for start in starts]"]


def _cropping(checkpoint: Checkpoint) -> list[str]:
    """The rest of a function that resizes and crops `image`; `place` is the position of the crop, from 0 to 1."""
    spec = checkpoint.preprocess
    height, width = spec.size
    square = height == width
    rounding = "0.5" if spec.resize == "opencv" else "1e-6"
    lines = []
    if spec.stretch is not None:
        sides = f"{spec.stretch[::-1]}"
    elif square:
        sides = f"[int(side * {spec.short_side} / min(image.size) + {rounding}) for side in image.size]"
    else:
        needed = f"max({spec.short_side} / min(image.size), {width} / image.width, {height} / image.height)"
        lines += [f"    scale = {needed}"]
        sides = f"[int(side * scale + {rounding}) for side in image.size]"
    if spec.resize == "antialias":
        lines += [f"    image = image.resize({sides}, Image.Resampling.{spec.interpolation.upper()})"]
    else:  # `transform`, unlike `resize`, does not antialias
        extent = "Image.Transform.EXTENT, (0, 0, *image.size), Image.Resampling.BILINEAR"
        lines += [f"    size = {sides}", f"    image = image.transform(size, {extent})"]
    # The original rounds up; in mmaction2, the first and the last crop have the same distance to the centre.
    if spec.crops == 3:
        share = {
            "float": "int((side - {0}) * {1} + 0.5)",
            "antialias": "int((side - {0}) * {1})",
            "opencv": "int((side - {0}) // 2 * 2 * {1})",
        }[spec.resize]
    else:
        share = "(side - {0} + 1) // 2" if spec.resize == "float" else "(side - {0}) // 2"
    if spec.crops == 3 and (not square or spec.short_side > height):  # there is a margin on either axis
        lines += ["    x, y = (place, 0.5) if image.width >= image.height else (0.5, place)"]
        left, top = share.format(width, "x"), share.format(height, "y")
        lines += [f"    left, top = {left.replace('side', 'image.width')}, {top.replace('side', 'image.height')}"]
    elif square:
        lines += [f"    left, top = [{share.format(height, 'place')} for side in image.size]"]
    else:
        left, top = share.format(width), share.format(height)
        lines += [f"    left, top = {left.replace('side', 'image.width')}, {top.replace('side', 'image.height')}"]
    return [*lines, f"    return np.asarray(image)[top : top + {height}, left : left + {width}]"]


def _normalising(checkpoint: Checkpoint, spec: ExportSpec, *, gray: bool) -> list[str]:
    if spec.input == "pixels":
        return []
    preprocess = checkpoint.preprocess
    pixels = "views[..., None]" if gray else "views[..., ::-1]" if preprocess.channel_order == "bgr" else "views"
    mean, std = (values[0] if len(set(values)) == 1 else list(values) for values in (preprocess.mean, preprocess.std))
    normal = f"({pixels} / 255 - {mean}) / {std}"
    return [f"views = np.ascontiguousarray(({normal}).transpose(0, 1, 4, 2, 3), np.float32)"]


def _result(checkpoint: Checkpoint, spec: ExportSpec) -> list[str]:
    if spec.output == "embedding":
        return ["print(outputs.mean(axis=0))"]
    means = checkpoint.combine == "probabilities" and not checkpoint.recipe.raw
    lines = []
    if spec.output == "probabilities" and means:
        scores = "outputs.mean(axis=0)"
    elif means:
        scores = {
            "softmax": "np.exp(outputs - np.logaddexp.reduce(outputs, axis=1, keepdims=True)).mean(axis=0)",
            "sigmoid": "np.exp(-np.logaddexp(0, -outputs)).mean(axis=0)",
        }[checkpoint.activation]
    else:
        logits = "outputs"
        if spec.output == "probabilities":
            logits = "np.log(outputs + 1e-37)"
            if checkpoint.activation == "sigmoid":
                lines = ["outputs = outputs.clip(1e-37, 1 - 6e-8)"]
                logits = "np.log(outputs / (1 - outputs))"
        lines += [f"logits = {logits}.mean(axis=0)"]
        scores = {
            "softmax": "np.exp(logits - np.logaddexp.reduce(logits))  # softmax",
            "sigmoid": "np.exp(-np.logaddexp(0, -logits))  # sigmoid",
            "none": "logits",
        }["none" if checkpoint.recipe.raw else checkpoint.activation]
    return [
        *lines,
        f"scores = {scores}",
        "labels = Path('labels.txt').read_text('utf-8').split('\\n')",
        "for index in np.argsort(-scores)[:5]:",
        "    print(f'{scores[index]:.4f} {labels[index]}')",
    ]
