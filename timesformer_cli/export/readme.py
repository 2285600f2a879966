"""README.md of an exported folder: what it is, and how to use it without this package."""

from collections.abc import Mapping

from timesformer_cli.__about__ import __version__
from timesformer_cli.export.spec import MODEL_FILES, WEIGHTS_OF_ONNX, WEIGHTS_OF_OPENVINO, ExportSpec
from timesformer_cli.exported import INPUT_NAMES, Format
from timesformer_cli.specs import Checkpoint

_RUNTIMES: Mapping[Format, str] = {
    "onnx": "ONNX",
    "openvino": "OpenVINO",
    "pt2": "`torch.export`",
    "aoti": "AOTInductor",
    "hub": "transformers",
}

# Pictures a second that the example takes for granted, as `predict --frames` does.
_RATE = 30


def render(checkpoint: Checkpoint, spec: ExportSpec, stated: Mapping[str, str]) -> str:
    """`stated` is what the model's file says of itself."""
    name = stated["name"].replace("`", "'")
    height, width = checkpoint.preprocess.size
    frames, channels = checkpoint.sampling.num_frames, len(checkpoint.preprocess.mean)
    if spec.input == "pixels":
        taken = f"uint8 `(batch, {frames}, {height}, {width}, 3)`: RGB frames, as they are; the model normalises them"
    else:
        order = {"rgb": "RGB", "bgr": "BGR", "gray": "gray"}[checkpoint.preprocess.channel_order]
        taken = (
            f"float32 `(batch, {frames}, {channels}, {height}, {width})`: {order} frames, scaled to 0..1, "
            f"less {list(checkpoint.preprocess.mean)}, divided by {list(checkpoint.preprocess.std)}"
        )
    width_out = checkpoint.config.hidden_size if spec.output == "embedding" else checkpoint.config.num_labels
    file = MODEL_FILES[spec.format]
    return "\n".join(
        [
            f"# {name}, for {_RUNTIMES[spec.format]}",
            "",
            f"A TimeSformer that labels videos, written by `timesformer export` {__version__} in {spec.kind}.",
            "",
            "| | |",
            "| --- | --- |",
            f"| made from | `{stated['source'].replace('`', chr(39))}`, sha256 `{stated['source_sha256']}` |",
            f"| licence | {stated['licence']} |",
            f"| input `{INPUT_NAMES[spec.input]}` | {taken} |",
            f"| output `{spec.output}` | float32 `(batch, {width_out})` |",
            *_remarks(spec),
            "",
            f"`{file}` is the model{_beside(spec)}. `config.json`, `preprocessor_config.json` and `recipe.json` say",
            "what it is and how it is fed, `labels.txt` has the names of its classes, one a line, `verification.json`",
            "how close it is to the network in PyTorch, and `SHA256SUMS` checksums: `sha256sum --check SHA256SUMS`.",
            "",
            "With [timesformer](https://pypi.org/project/timesformer-cli/): `timesformer predict clip.mp4 --model .`",
            "and `timesformer export --check .`, which compares it with PyTorch's results once more. Without it:",
            "",
            "```python",
            *example(checkpoint, spec),
            "```",
            "",
        ]
    )


def _beside(spec: ExportSpec) -> str:
    if spec.format == "openvino":
        return f", with its weights in `{WEIGHTS_OF_OPENVINO}`"
    return f", with its weights in `{WEIGHTS_OF_ONNX}`" if spec.external_data else ""


def _remarks(spec: ExportSpec) -> list[str]:
    if spec.format != "aoti":
        return []
    return [
        "| runs on | machines like the one it was compiled on; it is a program, so take it only from where you trust |"
    ]


def example(checkpoint: Checkpoint, spec: ExportSpec) -> list[str]:
    """Lines of Python that label a video whose frames lie as pictures in a folder, as the recipe has it."""
    opening, run = _RUN[spec.format]
    gray = checkpoint.preprocess.channel_order == "gray" and spec.input == "frames"
    return [
        "import math, pathlib",
        f"import numpy as np, {_IMPORTS[spec.format]}",
        "from PIL import Image",
        "",
        f"paths = sorted(pathlib.Path('frames').iterdir())  # of a video, {_RATE} a second",
        f"images = [Image.open(path).convert({'L' if gray else 'RGB'!r}) for path in paths]",
        *_sampling(checkpoint),
        *_cropping(checkpoint),
        f"crops = {(0, 0.5, 1) if checkpoint.preprocess.crops == 3 else (0.5,)}  # along the longer side",
        "views = np.array([[cut(images[n], place) for n in clip] for clip in clips for place in crops])",
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
# How the model is opened, and run on one view.
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
        "model(torch.from_numpy(view[None].copy())).numpy()",
    ),
    "hub": (
        "model = transformers.TimesformerForVideoClassification.from_pretrained('.', dtype='float32')",
        "model(torch.from_numpy(view[None])).logits.detach().numpy()",
    ),
}


def _sampling(checkpoint: Checkpoint) -> list[str]:
    """Frame numbers of the clips, as `sampling.plan` has them for pictures at that rate."""
    spec = checkpoint.sampling
    frames = spec.num_frames
    inside = "% len(images)" if spec.overrun == "loop" else ".clip(0, len(images) - 1)"
    if spec.method == "uniform":
        return [f"clips = [np.arange({frames}) * len(images) // {frames}]"]
    if spec.method == "segments":
        return [
            f"edges = np.round((len(images) - 1) / {frames} * np.arange({frames} + 1)).astype(int)",
            "clips = [(edges[:-1] + edges[1:]) // 2]",
        ]
    step = spec.stride * (1 if spec.fps is None else _RATE / spec.fps)
    span = max(step * frames, 1) if spec.method == "window" else int((frames - 1) * step + 0.5) + 1
    lines = [f"spare = max(len(images) - {span:g}, 0)"]
    single = "spare / 2" if spec.placement == "middle" else "0"
    if spec.clips is None:
        lines += [
            f"count = min(max(round(len(images) / {span:g}), 1), 10)  # clips, side by side",
            f"starts = np.linspace(0, spare, count) if count > 1 else [{single}]",
        ]
    elif spec.clips == 1:
        lines += [f"starts = [{single}]"]
    elif spec.method == "window":
        lines += [f"starts = spare * np.arange({spec.clips}) / {spec.clips}"]
    else:
        lines += [f"starts = np.round(np.linspace(0, spare, {spec.clips}))"]
    if spec.method == "window":
        clip = f"np.linspace(start, start + {span - 1:g}, {frames}).astype(int)"
    else:
        clip = f"(int(start) + np.floor(np.arange({frames}) * {step:g} + 0.5).astype(int))"
    return [*lines, f"clips = [{clip}{' ' if inside.startswith('%') else ''}{inside} for start in starts]"]


def _cropping(checkpoint: Checkpoint) -> list[str]:
    """A function that resizes and crops at once; `place` is the share of the margin that is cut from the beginning."""
    spec = checkpoint.preprocess
    height, width = spec.size
    rounding = 0.5 if spec.resize == "opencv" else 1e-6
    if spec.stretch is not None:
        resized = [f"    wide, high = {spec.stretch[1]}, {spec.stretch[0]}"]
    else:
        resized = [
            f"    scale = max({spec.short_side} / min(w, h), {width} / w, {height} / h)",
            f"    wide, high = int(w * scale + {rounding}), int(h * scale + {rounding})",
        ]
    # The original rounds up; mmaction2's last crop lies as far from the centre as its first.
    left, top = {
        "float": ("math.ceil((wide - {0}) * x)", "math.ceil((high - {0}) * y)"),
        "antialias": ("int((wide - {0}) * x)", "int((high - {0}) * y)"),
        "opencv": ("int((wide - {0}) // 2 * 2 * x)", "int((high - {0}) // 2 * 2 * y)"),
    }[spec.resize]
    if spec.resize == "antialias":
        cut = f"image.resize(({width}, {height}), Image.Resampling.{spec.interpolation.upper()}, box)"
    else:
        cut = f"image.transform(({width}, {height}), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)"
    return [
        "",
        "def cut(image, place):",
        "    w, h = image.size",
        *resized,
        "    x, y = (place, 0.5) if w >= h else (0.5, place)",
        f"    left, top = {left.format(width)}, {top.format(height)}",
        f"    box = (left * w / wide, top * h / high, (left + {width}) * w / wide, (top + {height}) * h / high)",
        f"    return np.asarray({cut})",
        "",
    ]


def _normalising(checkpoint: Checkpoint, spec: ExportSpec, *, gray: bool) -> list[str]:
    if spec.input == "pixels":
        return []
    preprocess = checkpoint.preprocess
    pixels = "views[..., None]" if gray else "views[..., ::-1]" if preprocess.channel_order == "bgr" else "views"
    return [
        f"views = ({pixels} / 255 - {list(preprocess.mean)}) / {list(preprocess.std)}",
        "views = views.astype(np.float32).transpose(0, 1, 4, 2, 3)",
    ]


def _result(checkpoint: Checkpoint, spec: ExportSpec) -> list[str]:
    if spec.output == "embedding":
        return ["print(outputs.mean(axis=0))"]
    means = checkpoint.combine == "probabilities"
    lines = []
    if spec.output == "probabilities" and not means:
        lines = ["outputs = np.log(outputs + 1e-37)"]
    if spec.output == "logits" or not means:
        values = "outputs" if means else "outputs.mean(axis=0, keepdims=True)"
        lines += [f"outputs = np.exp({values} - outputs.max())"]
        lines += ["outputs /= outputs.sum(axis=1, keepdims=True)"]
    return [
        *lines,
        "scores = outputs.mean(axis=0)",
        "labels = pathlib.Path('labels.txt').read_text('utf-8').split('\\n')",
        "for index in np.argsort(-scores)[:5]:",
        "    print(f'{scores[index]:.4f} {labels[index]}')",
    ]
