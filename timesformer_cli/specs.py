"""Frozen settings, chosen before a video is opened. They validate themselves and round-trip to JSON."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

from timesformer_cli import strict_json
from timesformer_cli.files import whole

AttentionType = Literal["divided_space_time", "joint_space_time", "space_only"]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]

# What makes scores of logits. softmax: of all classes, whose scores add up to one; sigmoid: of each class by itself;
# none: the logits are the scores.
Activation = Literal["softmax", "sigmoid", "none"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1  # isinstance would accept True as 1


def _is_size(value: object) -> bool:
    return _is_count(value) or (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_count, value)))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and abs(value) <= sys.float_info.max  # an int can be larger


def _is_positive(value: Any) -> bool:
    return _is_finite(value) and bool(value > 0)


def _require_one_of(name: str, value: object, choices: Any) -> None:
    known = get_args(choices)
    _require(value in known, f"{name} is {value!r}; known are {', '.join(known)}")


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"


# The largest accepted value of a field, and why: far above every known network, and low enough that a small file cannot
# ask for all memory, or for minutes of work before the first weight is read.
_LIMITS: Mapping[str, tuple[int, str]] = {
    "image_size": (8192, "published networks take up to 448 pixels"),
    "patch_size": (8192, "published networks have patches of 16 pixels"),
    "num_channels": (1024, "frames have 1 or 3"),
    "num_frames": (4096, "published networks take up to 96"),
    "hidden_size": (16384, "published networks have 768, and memory grows with the square"),
    "num_hidden_layers": (256, "published networks have 12, and each takes time to build"),
    "num_attention_heads": (16384, "published networks have 12"),
    "intermediate_size": (131072, "published networks have 3072"),
    "num_labels": (100_000, "published networks have up to 1059 classes, and each gets a name"),
    "initializer_range": (1000, "weights that large overflow"),
    "layer_norm_eps": (1, "it keeps a division from zero, and is some millionths"),
    "tokens": (2**20, "patches of all frames; published networks have up to 18,816, and memory grows with them"),
    "clips": (100_000, "a video is shown once for each"),
}


def _require_within(name: str, value: Any, limit: str = "") -> None:
    most, reason = _LIMITS[limit or name]
    largest = max(value) if isinstance(value, (list, tuple)) else value
    if largest > most:  # the message is built only on failure
        raise ValueError(f"{name} is {_shown(value)}; the most is {most} ({reason})")


# What the fields of a TimesformerConfig may hold: a name for messages, a test, and the fields.
_FIELD_RULES: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    ("a number of pixels or a pair (height, width)", _is_size, ("image_size", "patch_size")),
    (
        "a whole number, at least 1",
        _is_count,
        (
            "num_channels",
            "num_frames",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "num_labels",
        ),
    ),
    ("a number above 0", lambda x: _is_number(x) and x > 0, ("initializer_range", "layer_norm_eps")),
    (
        "a number from 0 to less than 1",
        lambda x: _is_number(x) and 0 <= x < 1,
        ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"),
    ),
    ("true or false", lambda x: isinstance(x, bool), ("qkv_bias",)),
    ("a name", lambda x: isinstance(x, str), ("hidden_act",)),
    (f"one of {', '.join(get_args(AttentionType))}", lambda x: x in get_args(AttentionType), ("attention_type",)),
    (
        f"null or one of {', '.join(get_args(ProblemType))}",
        lambda x: x is None or x in get_args(ProblemType),
        ("problem_type",),
    ),
    ("a mapping of numbers to labels", lambda x: isinstance(x, Mapping), ("id2label",)),
)


@dataclass(frozen=True, kw_only=True)
class TimesformerConfig:
    """Shape of the network, with the fields, defaults and `config.json` of transformers.

    `image_size` and `patch_size` are one number or (height, width), in pixels. If `id2label` is
    given, `num_labels` follows it. Keys of a `config.json` that the network does not use are kept
    in `extra` and written back.

    Raises:
        ValueError: a field has an invalid value, or fields contradict each other; the message names them.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    num_channels: int = 3
    num_frames: int = 8
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    attention_type: AttentionType = "divided_space_time"
    drop_path_rate: float = 0.0
    num_labels: int = 2
    id2label: Mapping[int, str] = field(default_factory=dict)
    problem_type: ProblemType | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, holds, names in _FIELD_RULES:
            for name in names:
                value = getattr(self, name)
                _require(holds(value), f"{name} is {_shown(value)}; it must be {what}")
                if name in _LIMITS:
                    _require_within(name, value)
        for name in ("image_size", "patch_size"):
            value = getattr(self, name)
            self._settle(name, value if isinstance(value, int) else tuple(value))
        _require(
            self.hidden_size % self.num_attention_heads == 0,
            f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}",
        )
        _require(min(self.grid) >= 1, f"patch_size {self.patch_size} is larger than image_size {self.image_size}")
        _require_within("tokens", self.grid[0] * self.grid[1] * self.num_frames)
        _require_within("num_labels", len(self.id2label))
        self._settle_labels()

    def _settle(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _settle_labels(self) -> None:
        if not self.id2label:
            self._settle("id2label", {index: f"LABEL_{index}" for index in range(self.num_labels)})
            return
        count = len(self.id2label)
        try:
            names = {int(index): str(label) for index, label in self.id2label.items()}
            labels = {index: names[index] for index in range(count)}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"id2label must map the numbers from 0 to {count - 1} to its {count} labels") from error
        self._settle("id2label", labels)
        self._settle("num_labels", count)

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of a frame, pixels."""
        return _pair(self.image_size)

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Height and width of a patch, pixels."""
        return _pair(self.patch_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in a frame."""
        (height, width), (rows, columns) = self.image_hw, self.patch_hw
        return height // rows, width // columns

    @property
    def activation(self) -> Activation:
        """What makes scores of its logits, unless its recipe says otherwise: `problem_type` decides.

        A softmax of a single output would be 1 whatever the video shows, so that gets a sigmoid.
        """
        if self.problem_type == "regression":
            return "none"
        single = self.num_labels == 1
        return "sigmoid" if single or self.problem_type == "multi_label_classification" else "softmax"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from the content of a `config.json`; a null means the default."""
        _require(isinstance(values, Mapping), "the content is not a JSON object")
        model_type = values.get("model_type", "timesformer")
        _require(model_type == "timesformer", f"model_type is {model_type!r}; only timesformer is known")
        known = {f.name for f in fields(cls)} - {"extra"}
        given = {key: value for key, value in values.items() if key in known and value is not None}
        derived = {"label2id", "model_type"}  # written by `to_dict`
        extra = {key: value for key, value in values.items() if key not in known | derived}
        config = cls(**given, extra=extra)
        _require(
            given.get("num_labels", config.num_labels) == config.num_labels,
            f"num_labels is {given.get('num_labels')}, but id2label has {config.num_labels} labels",
        )
        return config

    def to_dict(self) -> dict[str, Any]:
        """The content of a `config.json` that transformers and `from_dict` both read."""
        values = asdict(self)
        extra = values.pop("extra")
        del values["num_labels"]  # transformers derives it from id2label
        values["id2label"] = {str(index): label for index, label in self.id2label.items()}
        values["label2id"] = {label: index for index, label in self.id2label.items()}
        if self.problem_type is None:
            del values["problem_type"]
        if self.drop_path_rate == 0:
            values["drop_path_rate"] = 0  # transformers 5 declares it an integer, and refuses 0.0
        return {**extra, "model_type": "timesformer", **values}

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read `folder/config.json`. Raises OSError without the file, ValueError for bad content."""
        return cls.from_dict(strict_json.read(Path(folder) / "config.json"))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `folder/config.json`, creating the folder."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, sort_keys=True)
        # Half a surrogate pair, which labels may hold, becomes an escape of JSON.
        with whole(path / "config.json") as part:
            part.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


SamplingMethod = Literal["window", "segments", "strided", "uniform"]
Placement = Literal["first", "middle"]
Overrun = Literal["repeat", "loop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """Which frames a clip holds.

    `method`: `window` spreads `num_frames` frames over a span of `num_frames * stride` frames, both
    of its ends included (the "8x32" of Kinetics, as the original code reads it); `strided` takes
    frames exactly `stride` apart (mmaction2); `segments` one frame from each of `num_frames` equal
    parts of the video (Something-Something); `uniform` frames spread over the whole video.
    `fps`: the rate, in frames per second, in which `stride` counts, and to which `segments` first
    resamples the video; None is the video's own. `clips`: clips per video; None means enough to cover
    it side by side, at most `sampling.MAX_AUTO_CLIPS`. `placement`: the position of a single clip in a
    longer video, at its `first` frame (the released code) or in its `middle` (the paper). `overrun`:
    the frames of a clip beyond the end of a short video: its last frame repeated (`repeat`), or the
    video from its beginning (`loop`).
    """

    num_frames: int
    method: SamplingMethod = "window"
    stride: float = 32
    fps: float | None = 30.0
    clips: int | None = None
    placement: Placement = "first"
    overrun: Overrun = "repeat"

    def __post_init__(self) -> None:
        _require_one_of("method", self.method, SamplingMethod)
        _require_one_of("placement", self.placement, Placement)
        _require_one_of("overrun", self.overrun, Overrun)
        _require(_is_count(self.num_frames), f"num_frames is {self.num_frames!r}; it must be a whole number above 0")
        _require_within("num_frames", self.num_frames)
        _require(_is_positive(self.stride), f"stride is {_shown(self.stride)}; it must be a number above 0")
        _require(
            self.fps is None or _is_positive(self.fps),
            f"fps is {self.fps!r}; it must be a number above 0, or null for the video's own rate",
        )
        _require(
            self.clips is None or _is_count(self.clips),
            f"clips is {self.clips!r}; it must be a whole number above 0, or auto",
        )
        _require_within("clips", self.clips or 1)
        _require(
            self.method in ("window", "strided") or self.clips in (None, 1),
            f"clips is {self.clips}, but the frames of one clip already cover the whole video; it must be 1, or auto",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A prediction for each segment of a video, sampled like a whole video, instead of one for the video.

    `length`: seconds of a segment. `hop`: seconds between the starts of segments; None means `length`, so that they do
    not overlap.
    """

    length: float
    hop: float | None = None

    def __post_init__(self) -> None:
        _require(_is_positive(self.length), f"window is {self.length!r}; it must be a number of seconds above 0")
        _require(
            self.hop is None or (_is_positive(self.hop) and self.hop <= self.length),
            f"hop is {self.hop!r}; it must be a number of seconds above 0, and no more than window ({self.length!r})",
        )


Decoder = Literal["auto", "pyav", "decord", "torchcodec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How videos are read, and which are refused. Except `frame_rate`, nothing here changes what a model sees.

    `max_pixels`: pixels per frame. `max_frames`: frames of a video, by its packets. `max_fetched_bytes`:
    bytes fetched of a video at an address; formats with an index stay far below, others are fetched in
    full. `fetch_timeout`: seconds without a byte from its server. `fetch_wait`: seconds before a failed
    request is repeated, if its failure may pass; doubled each time. `frame_rate`: frames per second of a
    folder of images, which stores none; 30 is the rate at which Something-Something is extracted.
    `threads`: at most so many decode one video with PyAV, if they have at least `min_shared_pixels` to
    decode: about a seventh of a second of work, which makes up for their start. `max_decoder_bytes`: the
    memory of the decoders of all threads. `max_kept_bytes`: the memory for decoded frames that are kept
    if all must be decoded to count them; if they take more, none is kept. `max_frame_bytes`: the memory
    for decoded frames held at a time; a single clip may need more.
    """

    decoder: Decoder = "auto"
    max_pixels: int = 2**26
    max_frames: int = 2_000_000
    max_fetched_bytes: int = 2**30
    fetch_timeout: float = 15.0
    fetch_wait: float = 0.5
    frame_rate: float = 30.0
    threads: int = 1
    min_shared_pixels: int = 2**27
    max_decoder_bytes: int = 2**30
    max_kept_bytes: int = 2**27
    max_frame_bytes: int = 2**28

    def __post_init__(self) -> None:
        _require_one_of("decoder", self.decoder, Decoder)
        for name in (
            "max_pixels",
            "max_frames",
            "max_fetched_bytes",
            "threads",
            "min_shared_pixels",
            "max_decoder_bytes",
            "max_kept_bytes",
            "max_frame_bytes",
        ):
            value = getattr(self, name)
            if not _is_count(value):  # the message is built only on failure, as each video has its own instance
                raise ValueError(f"{name} is {value!r}; it must be a whole number above 0")
        for name in ("fetch_timeout", "fetch_wait", "frame_rate"):
            value = getattr(self, name)
            if not _is_positive(value):
                raise ValueError(f"{name} is {value!r}; it must be a number above 0")


ChannelOrder = Literal["rgb", "bgr", "gray"]
Resize = Literal["float", "antialias", "opencv"]
Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessSpec:
    """How RGB frames become network input.

    `size` is (height, width) of a crop, `short_side` the length of the shorter side before cropping,
    both in pixels; with `stretch` (height, width), frames are resized to that size instead, whatever
    their shape. `crops` is 1 (centre) or 3 along the longer side. `mean` and `std`, one number for each
    channel of the network, are on the 0..1 scale. `channel_order` is that of the training; `gray` is
    one channel of ITU-R 601 luma.
    `resize`: `float` normalises, then interpolates bilinearly without antialiasing (the original
    code); `antialias` resizes bytes with antialiasing, by `interpolation`, then normalises (image
    processors of transformers); `opencv` resizes bytes bilinearly without antialiasing, then
    normalises (mmaction2).
    """

    size: tuple[int, int]
    short_side: int
    stretch: tuple[int, int] | None = None
    crops: Literal[1, 3] = 1
    mean: tuple[float, ...] = (0.45, 0.45, 0.45)
    std: tuple[float, ...] = (0.225, 0.225, 0.225)
    channel_order: ChannelOrder = "rgb"
    resize: Resize = "float"
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std", "stretch"):  # lists, when they come from JSON
            value = getattr(self, name)
            if name == "stretch" and value is None:
                continue
            _require(isinstance(value, (list, tuple)), f"{name} is {value!r}; it must be a list")
            object.__setattr__(self, name, tuple(value))
        _require_one_of("channel_order", self.channel_order, ChannelOrder)
        _require_one_of("resize", self.resize, Resize)
        _require_one_of("interpolation", self.interpolation, Interpolation)
        _require(
            len(self.size) == 2 and all(map(_is_count, self.size)),
            f"size is {self.size}; it must be a height and a width, whole numbers above 0",
        )
        _require(
            _is_count(self.short_side) and self.short_side >= min(self.size),
            f"short_side is {self.short_side!r}; it must be a whole number, at least the {min(self.size)} of the crop",
        )
        for name in ("size", "short_side"):
            _require_within(name, getattr(self, name), "image_size")
        _require(_is_count(self.crops) and self.crops in (1, 3), f"crops is {self.crops!r}; it must be 1 or 3")
        self._check_stretch()
        _require(
            self.interpolation == "bilinear" or self.resize == "antialias",
            f"interpolation is {self.interpolation}; resizing by {self.resize} is always bilinear",
        )
        channels = 1 if self.channel_order == "gray" else 3
        _require(
            len(self.mean) == channels and all(map(_is_finite, self.mean)),
            f"mean is {self.mean}; it must be one number for each channel, {channels} for {self.channel_order}",
        )
        _require(
            len(self.std) == channels and all(map(_is_positive, self.std)),
            f"std is {self.std}; it must be one number above 0 for each channel, {channels} for {self.channel_order}",
        )

    def _check_stretch(self) -> None:
        if self.stretch is None:
            return
        _require(
            len(self.stretch) == 2 and all(map(_is_count, self.stretch)),
            f"stretch is {self.stretch}; it must be a height and a width, whole numbers above 0",
        )
        _require(
            self.stretch[0] >= self.size[0] and self.stretch[1] >= self.size[1],
            f"stretch is {self.stretch}, smaller than the crops of {self.size}",
        )
        _require_within("stretch", self.stretch, "image_size")
        _require(self.crops == 1, "crops is 3, but the frames of this model are stretched to its size; it must be 1")


# logits: activation of the mean logits; probabilities: mean of the activations; raw_logits: the mean logits.
Combine = Literal["logits", "probabilities", "raw_logits"]

_Spec = TypeVar("_Spec", SamplingSpec, PreprocessSpec)

# Fields of recipes that earlier versions wrote, always as null.
_FORMER = ("window", "hop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the input of a model is made, and how the logits of its views become scores.

    `base` is a preset of `recipes`, or the file that the recipe was read from; `changes` are the fields that the user
    changed, with their values as in JSON.
    """

    base: str
    sampling: SamplingSpec
    preprocess: PreprocessSpec
    combine: Combine = "logits"
    activation: Activation = "softmax"
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(isinstance(self.base, str), f"name is {_shown(self.base)}; it must be a text")
        _require_one_of("combine", self.combine, Combine)
        _require_one_of("activation", self.activation, Activation)

    @property
    def raw(self) -> bool:
        """Whether its scores are logits."""
        return self.combine == "raw_logits" or self.activation == "none"

    @property
    def name(self) -> str:
        """`base`, with the changes; it is written to results."""
        return f"{self.base} with {', '.join(self.changed)}" if self.changes else self.base

    @property
    def changed(self) -> list[str]:
        """The changes as FIELD=VALUE, as for `recipes.with_overrides`."""
        return [f"{name}={_as_text(name, value)}" for name, value in self.changes.items()]

    def to_dict(self) -> dict[str, Any]:
        """The content of a `recipe.json`, which `from_dict` reads."""
        values = asdict(self)
        changed = {name: values.pop(name) for name in ("base", "changes")}
        return {"name": self.name, **(changed if self.changes else {}), **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], default: Self | None = None) -> Self:
        """A recipe from the content of a `recipe.json`; missing parts are taken from `default`.

        Raises:
            ValueError: fields are unknown, missing or invalid.
        """
        require_known(values, ("name", "base", "changes", "sampling", "preprocess", "combine", "activation"))
        changes = values.get("changes", {})
        _require(isinstance(changes, Mapping), f"changes is {changes!r}; it must be a JSON object")
        try:
            return cls(
                base=values.get("base", values.get("name", default.base if default else None)),
                sampling=_overlaid(SamplingSpec, values, "sampling", default.sampling if default else None),
                preprocess=_overlaid(PreprocessSpec, values, "preprocess", default.preprocess if default else None),
                combine=values.get("combine", default.combine if default else "logits"),
                # Without a default, it is of a version that knew no other.
                activation=values.get("activation", default.activation if default else "softmax"),
                changes=dict(changes),
            )
        except TypeError as error:
            raise ValueError(f"a field is missing ({error})") from error


def _overlaid(kind: type[_Spec], values: Mapping[str, Any], part: str, default: _Spec | None) -> _Spec:
    stated = values.get(part, {})
    _require(isinstance(stated, Mapping), f"{part}: a JSON object was expected, not {type(stated).__name__}")
    stated = {name: value for name, value in stated.items() if not (name in _FORMER and value is None)}
    try:
        require_known(stated, tuple(each.name for each in fields(kind)))
        return kind(**stated) if default is None else replace(default, **stated)
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from error


def _as_text(name: str, value: Any) -> str:
    if value is None:
        return "auto" if name == "clips" else "none"
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def require_known(values: Iterable[str], known: tuple[str, ...]) -> None:
    """Raise ValueError for names that are not among `known`."""
    unknown = [name for name in values if name not in known]
    _require(not unknown, f"unknown {', '.join(unknown)}; known are {', '.join(known)}")


# Names of weight files in a model folder, in order of preference. An index lists the shards of a
# model that was split over several files.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

# File extensions of models exported for other runtimes: ONNX, OpenVINO, torch.export and AOTInductor.
EXPORTED_SUFFIXES = (".onnx", ".xml", ".pt2")

# Datasets of published checkpoints, by the names of their class lists in `labels`.
Dataset = Literal["kinetics-400", "kinetics-600", "something-something-v2"]


# The class of all labels that are in no group.
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Groups:
    """A user's own classes `names`, each made of labels of a model: `members` has the class number of each label."""

    names: tuple[str, ...]
    members: tuple[int, ...]

    def of(self, labels: Sequence[str]) -> dict[str, str]:
        """The class of each label of the model."""
        return {label: self.names[member] for label, member in zip(labels, self.members, strict=True)}

    def chosen(self, labels: Sequence[str]) -> dict[str, list[str]]:
        """The labels of each class, without those of `OTHER`; `labels` are the model's."""
        found: dict[str, list[str]] = {name: [] for name in self.names}
        for label, member in zip(labels, self.members, strict=True):
            found[self.names[member]].append(label)
        return {name: members for name, members in found.items() if name != OTHER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete model: config, recipe, labels, and the file of its weights.

    `name` is the user's name for it. `weights` is the file to read: safetensors, an index of shards, or
    a file of torch; None for a published model that is not on this machine. `source` says where it came
    from; `dataset` is the published dataset whose classes it knows, if any; `processor` has the exact
    values of its image processor's file. With `groups`, answers are in these classes instead of `labels`.

    Raises:
        ValueError: parts contradict each other (labels and classes, crop size and patches).
    """

    name: str
    config: TimesformerConfig
    recipe: Recipe
    labels: tuple[str, ...]
    weights: Path | None
    source: str
    dataset: Dataset | None = None
    processor: PreprocessSpec | None = None
    groups: Groups | None = None

    def __post_init__(self) -> None:
        preprocess = self.recipe.preprocess
        _require(
            len(self.labels) == self.config.num_labels,
            f"{len(self.labels)} labels for a model of {self.config.num_labels} classes",
        )
        _require(
            len(preprocess.mean) == self.config.num_channels,
            f"{len(preprocess.mean)} channel means for a model of {self.config.num_channels} channels",
        )
        patch, size = self.config.patch_hw, preprocess.size
        _require(
            size[0] >= patch[0] and size[1] >= patch[1],
            f"crops of {size} are smaller than a patch of {patch}",
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes of its answers."""
        return self.labels if self.groups is None else self.groups.names

    @property
    def is_exported(self) -> bool:
        """Whether its weights are a model for a runtime other than PyTorch."""
        return self.weights is not None and self.weights.suffix in EXPORTED_SUFFIXES

    @property
    def sampling(self) -> SamplingSpec:
        return self.recipe.sampling

    @property
    def preprocess(self) -> PreprocessSpec:
        return self.recipe.preprocess

    @property
    def combine(self) -> Combine:
        return self.recipe.combine

    @property
    def activation(self) -> Activation:
        return self.recipe.activation
