"""The published checkpoints: where they are, what they are, and their published numbers.

Accuracies are those of the README of github.com/facebookresearch/TimeSformer, whose models were trained
again; the paper's own differ by up to 0.5. TFLOPs are a third of the paper's totals, which are for three crops. None
of these numbers was measured with this package.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from timesformer_cli.bundled import CAMERA_MOTION
from timesformer_cli.checkpoints import labels
from timesformer_cli.specs import AttentionType, Dataset, TimesformerConfig

_NON_COMMERCIAL = "CC-BY-NC-4.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One checkpoint.

    `name` is the short name for users. `repo` and `revision` are its place on the Hub; None if it is not
    there. `file` is its name in the original's model zoo, and `where` says in words where it is. `folder` is
    that of a model inside this package. `data` names the training data, and `dataset` its class list, if
    that was published. `stride` counts in frames at 30 per second; None means one frame from each of
    `num_frames` segments. `clips` is the number of windows per video, with three crops each, in the test
    that gave its accuracy. `top1` and `top5` are percent, `tflops` 10^12 multiply-adds of one view; None if
    unknown. `licence` is that of the weights.
    """

    name: str
    repo: str | None = None
    revision: str = "main"
    file: str | None = None
    where: str
    folder: Path | None = None
    data: str
    dataset: Dataset | None = None
    num_labels: int
    num_frames: int
    stride: int | None
    size: int
    clips: int | None = 1
    attention_type: AttentionType = "divided_space_time"
    top1: float | None
    top5: float | None = None
    tflops: float | None = None
    parameters: int
    licence: str = _NON_COMMERCIAL

    def config(self) -> TimesformerConfig:
        """The shape of the network, with the names of its classes if they are known."""
        if self.folder is not None:
            return TimesformerConfig.from_pretrained(self.folder)
        names = labels.read(self.dataset) if self.dataset else ()
        return TimesformerConfig(
            image_size=self.size,
            num_frames=self.num_frames,
            attention_type=self.attention_type,
            num_labels=self.num_labels,
            id2label=dict(enumerate(names)),
        )


# By the last part of a short name: the data's name here, its class list, its name in file names, and its classes.
_DATA: dict[str, tuple[str, Dataset, str, int]] = {
    "k400": ("Kinetics-400", "kinetics-400", "K400", 400),
    "k600": ("Kinetics-600", "kinetics-600", "K600", 600),
    "ssv2": ("Something-Something v2", "something-something-v2", "SSv2", 174),
}


def _on_the_hub(
    name: str,
    frames: int,
    stride: int | None,
    size: int,
    *,
    top1: float,
    top5: float,
    parameters: int,
    tflops: float | None = None,
) -> Published:
    kind, tag = name.split("-")
    data, dataset, short, num_labels = _DATA[tag]
    window = f"{frames}x{stride}" if stride else str(frames)
    # Facebook's account has no large models; these are the copies of the user who converted all of them.
    owner = "fcakyon" if kind == "large" else "facebook"
    return Published(
        name=name,
        repo=f"{owner}/timesformer-{kind}-finetuned-{tag}",
        file=f"TimeSformer_divST_{window}_{size}_{short}.pyth",
        where="on the Hugging Face Hub",
        data=data,
        dataset=dataset,
        num_labels=num_labels,
        num_frames=frames,
        stride=stride,
        size=size,
        top1=top1,
        top5=top5,
        tflops=tflops,
        parameters=parameters,
    )


def _howto100m(frames: int, *, clips: int, top1: float, parameters: int) -> Published:
    # The README says 448 pixels for 64 frames; the name of that file says 224, as those of the others do.
    file = f"TimeSformer_divST_{frames}x32_224_HowTo100M.pyth"
    return Published(
        name=f"howto100m-{frames}",
        file=file,
        where=f"{file} is in the model zoo of github.com/facebookresearch/TimeSformer",
        data="HowTo100M",
        num_labels=1059,  # the class names were never published
        num_frames=frames,
        stride=32,
        size=224,
        clips=clips,
        top1=top1,
        parameters=parameters,
    )


def _ablation(name: str, attention_type: AttentionType, *, top1: float, tflops: float, parameters: int) -> Published:
    """A network of the paper's comparison of attention types. Its top-1 is the paper's, its cost mmaction2's."""
    return Published(
        name=name,
        where="its authors published no weights, and mmaction2's model zoo has some of its own training",
        data="Kinetics-400",
        dataset="kinetics-400",
        num_labels=400,
        num_frames=8,
        stride=32,
        size=224,
        attention_type=attention_type,
        top1=top1,
        tflops=tflops,
        parameters=parameters,
        licence="unknown",
    )


_ENTRIES = (
    _on_the_hub("base-k400", 8, 32, 224, top1=77.9, top5=93.2, tflops=0.196, parameters=121_566_352),
    _on_the_hub("hr-k400", 16, 16, 448, top1=79.6, top5=94.0, tflops=1.70, parameters=122_024_080),
    _on_the_hub("large-k400", 96, 4, 224, top1=80.6, top5=94.7, tflops=2.38, parameters=121_633_936),
    _on_the_hub("base-k600", 8, 32, 224, top1=79.1, top5=94.4, tflops=0.196, parameters=121_720_152),
    _on_the_hub("hr-k600", 16, 16, 448, top1=81.8, top5=95.8, tflops=1.70, parameters=122_177_880),
    _on_the_hub("large-k600", 96, 4, 224, top1=82.2, top5=95.6, tflops=2.38, parameters=121_787_736),
    _on_the_hub("base-ssv2", 8, None, 224, top1=59.1, top5=85.6, tflops=0.196, parameters=121_392_558),
    _on_the_hub("hr-ssv2", 16, None, 448, top1=61.8, top5=86.9, tflops=1.70, parameters=121_850_286),
    _on_the_hub("large-ssv2", 64, None, 224, top1=62.0, top5=87.5, parameters=121_435_566),
    _howto100m(8, clips=48, top1=56.8, parameters=122_073_123),
    _howto100m(32, clips=12, top1=61.2, parameters=122_091_555),
    _howto100m(64, clips=6, top1=62.2, parameters=122_116_131),
    _howto100m(96, clips=4, top1=62.6, parameters=122_140_707),
    _ablation("joint-k400", "joint_space_time", top1=77.4, tflops=0.180, parameters=86_112_400),
    _ablation("space-k400", "space_only", top1=76.9, tflops=0.141, parameters=86_106_256),
    Published(
        name="camera-motion",
        where="bundled with timesformer-cli",
        folder=CAMERA_MOTION,
        data="camera motion",
        num_labels=9,
        num_frames=8,
        stride=4,
        size=96,
        clips=None,  # enough to cover the video
        top1=None,  # its card has the measured accuracy, on its own clips
        parameters=901_385,
        licence="Apache-2.0",
    ),
)

ZOO: Mapping[str, Published] = {entry.name: entry for entry in _ENTRIES}

# The user who converted them has copies of Facebook's.
_BY_REPO = {
    repo: entry
    for entry in _ENTRIES
    if entry.repo is not None
    for repo in (entry.repo, entry.repo.replace("facebook/", "fcakyon/"))
}


def find(name_or_repo: str) -> Published | None:
    """The checkpoint with that short name, or with that repository on the Hub or a copy of it."""
    return ZOO.get(name_or_repo) or _BY_REPO.get(name_or_repo)


def suggest(name: str) -> str | None:
    """The short name that the unknown `name` perhaps meant; None if nothing is similar."""
    asked = name.lower().split("/")[-1]  # the owner of the repository says little
    known = {entry.name: entry.name for entry in _ENTRIES}
    known |= {repo.split("/")[1]: entry.name for repo, entry in _BY_REPO.items()}
    likeness = {other: SequenceMatcher(None, asked, other).ratio() for other in known}
    best = max(likeness, key=likeness.__getitem__)
    return known[best] if likeness[best] >= 0.6 else None
