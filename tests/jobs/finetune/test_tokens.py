"""Tokens on disk: what is made, what is made again and what is not, and training and validation from them."""

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from testing.clips import write_video
from testing.networks import build, tiny
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import OutputError
from timesformer_cli.flow import Item, Scored
from timesformer_cli.jobs.finetune import tokens as tokens_module
from timesformer_cli.jobs.finetune.augment import Augmentation
from timesformer_cli.jobs.finetune.batches import ALL, Schedule, Share, read_batches
from timesformer_cli.jobs.finetune.cached import score_tokens, token_batches
from timesformer_cli.jobs.finetune.frozen import TokenTrainee, freeze
from timesformer_cli.jobs.finetune.optimisers import optimiser_of
from timesformer_cli.jobs.finetune.tokens import Tokens, keep_tokens
from timesformer_cli.jobs.finetune.trainer import Batch, Trainee, Trainer
from timesformer_cli.jobs.reporter import SILENT
from timesformer_cli.pipeline.aggregate import combine
from timesformer_cli.pipeline.engine import score_all
from timesformer_cli.pipeline.prepare import prepare
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.results.settings import provenance_of
from timesformer_cli.specs import Checkpoint, Combine

RUN = RunOptions(device="cpu", workers=0)
LAYERS = 2
TARGETS = np.array([0, 4, 2, 1])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Its recipe takes several clips of a video."""
    folder = tmp_path_factory.mktemp("model")
    build(tiny()).save_pretrained(folder)
    return with_overrides(resolve(str(folder)), fields={"stride": 4})


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Whose numbers of views differ."""
    folder = tmp_path_factory.mktemp("videos")
    return [
        Item(str(write_video(folder / f"{number}.mp4", level=number, frames=frames)))
        for number, frames in enumerate((20, 30, 40, 50))
    ]


@pytest.fixture
def items(tmp_path: Path, videos: list[Item]) -> list[Item]:
    """Copies that a test may change."""
    return [Item(shutil.copy(video.path, str(tmp_path))) for video in videos]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, videos: list[Item]) -> Tokens:
    """Those of `videos`."""
    return kept(videos, checkpoint, tmp_path_factory.mktemp("run") / "tokens")


def network(checkpoint: Checkpoint) -> Any:
    model = TimesformerForVideoClassification.from_checkpoint(checkpoint)
    freeze(model, LAYERS)
    return model


@dataclass
class Notes:
    """A reporter that remembers its notes."""

    notes: list[str] = field(default_factory=list)
    detail = SILENT.detail
    spoken = SILENT.spoken
    progress = SILENT.progress

    def note(self, message: str) -> None:
        self.notes.append(message)


def kept(
    items: Sequence[Item], checkpoint: Checkpoint, folder: Path, report: Any = SILENT, layers: int = LAYERS
) -> Tokens:
    tokens = tried(items, checkpoint, folder, report, layers=layers)
    assert tokens is not None
    return tokens


def tried(
    items: Sequence[Item],
    checkpoint: Checkpoint,
    folder: Path,
    report: Any = SILENT,
    *,
    layers: int = LAYERS,
    views: int = 3,
    open_model: Callable[[], Any] | None = None,
) -> Tokens | None:
    provenance = provenance_of(checkpoint, None, precision="fp32", frame_rate=30.0)
    return keep_tokens(
        items,
        [views] * len(items),
        checkpoint,
        RUN,
        folder,
        provenance,
        report,
        layers=layers,
        open_model=open_model or (lambda: network(checkpoint)),
    )


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos that go through the network, as they do."""
    found: list[str] = []

    def counted(items: Sequence[Item], *args: Any, **options: Any) -> Any:
        found.extend(item.path for item in items)
        return score_all(items, *args, **options)

    monkeypatch.setattr(tokens_module, "score_all", counted)
    return found


def everything(tokens: Tokens, items: Sequence[Item]) -> list[NDArray[np.float16]]:
    return [tokens.read(item, view) for item in items for view in range(tokens.views_of(item))]


def test_tokens_are_what_enters_the_first_trained_layer(
    tokens: Tokens, checkpoint: Checkpoint, videos: list[Item]
) -> None:
    model = network(checkpoint)
    counts = []
    for item in videos:
        views = torch.from_numpy(prepare(item, checkpoint.recipe).pixels)
        with torch.no_grad():
            expected = model.timesformer(views, output_hidden_states=True).hidden_states[1]
        counts.append(len(views))
        assert tokens.views_of(item) == len(views)
        for view, rows in enumerate(expected):
            np.testing.assert_allclose(tokens.read(item, view), rows, rtol=2**-10, atol=1e-4)
    assert len(set(counts)) > 1
    assert tokens.shape == tuple(rows.shape)
    assert tokens.path.stat().st_size == 2 * sum(counts) * np.prod(tokens.shape)


def test_nothing_is_made_twice(tmp_path: Path, checkpoint: Checkpoint, items: list[Item], read: list[str]) -> None:
    report = Notes()
    before = everything(kept(items[:2], checkpoint, tmp_path / "tokens", report), items[:2])
    after = kept(items, checkpoint, tmp_path / "tokens", report)
    kept(items, checkpoint, tmp_path / "tokens", report)
    assert read == [item.path for item in items]
    np.testing.assert_array_equal(everything(after, items[:2]), before)
    other = kept(items, checkpoint, tmp_path / "tokens")
    np.testing.assert_array_equal(everything(other, items), everything(after, items))
    assert len(report.notes) == 2
    assert report.notes[1].startswith("kept what enters the trained layers, of 2 videos in ")
    assert report.notes[1].endswith("; 2 kept before")


def touch(items: list[Item], folder: Path) -> list[Item]:
    os.utime(items[1].path, ns=(1, 1))
    return [items[1]]


def tear_the_index(items: list[Item], folder: Path) -> list[Item]:
    path = folder / "videos.jsonl"
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 1000)
    return [items[3]]


def tear_the_tokens(items: list[Item], folder: Path) -> list[Item]:
    with (folder / "tokens.bin").open("rb+") as file:
        file.truncate(os.fstat(file.fileno()).st_size - 2)
    return [items[3]]


def add_what_no_record_tells_of(items: list[Item], folder: Path) -> list[Item]:
    with (folder / "tokens.bin").open("ab") as file:
        file.write(b"torn")
    (folder / "videos.jsonl").write_bytes(
        b"".join((folder / "videos.jsonl").read_bytes().splitlines(keepends=True)[:2])
    )
    return items[2:]


def remove_the_tokens(items: list[Item], folder: Path) -> list[Item]:
    (folder / "tokens.bin").unlink()
    return items


@pytest.mark.parametrize(
    "change", [touch, tear_the_index, tear_the_tokens, add_what_no_record_tells_of, remove_the_tokens]
)
def test_what_changed_or_was_lost_is_made_again(
    tmp_path: Path,
    checkpoint: Checkpoint,
    items: list[Item],
    read: list[str],
    change: Callable[[list[Item], Path], list[Item]],
) -> None:
    folder = tmp_path / "tokens"
    expected = everything(kept(items, checkpoint, folder), items)
    again = change(items, folder)
    read.clear()
    found = kept(items, checkpoint, folder)
    assert read == [item.path for item in again]
    np.testing.assert_array_equal(everything(found, items), expected)
    read.clear()
    np.testing.assert_array_equal(everything(kept(items, checkpoint, folder), items), expected)
    assert read == []
    records = [json.loads(line) for line in (folder / "videos.jsonl").read_bytes().splitlines()]
    assert (folder / "tokens.bin").stat().st_size == 2 * 37 * 24 * (records[-1]["first"] + records[-1]["views"])


def test_other_settings_make_them_anew(
    tmp_path: Path, checkpoint: Checkpoint, items: list[Item], read: list[str]
) -> None:
    other = with_overrides(checkpoint, fields={"stride": 1})
    made = []
    for model, layers in ((checkpoint, 2), (other, 2), (other, 1)):
        read.clear()
        made.append(everything(kept(items[:2], model, tmp_path / "tokens", layers=layers), items[:2]))
        assert len(read) == 2
    assert len({rows[0].tobytes() for rows in made}) == 3


def test_a_stop_leaves_what_was_made(
    tmp_path: Path, checkpoint: Checkpoint, items: list[Item], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = tokens_module._Cache.add

    def stopped(self: Any, scored: Any) -> bool:
        if scored.item == items[2]:
            raise KeyboardInterrupt
        return add(self, scored)

    with monkeypatch.context() as patch:
        patch.setattr(tokens_module._Cache, "add", stopped)
        with pytest.raises(KeyboardInterrupt):
            kept(items, checkpoint, tmp_path / "tokens")
    read.clear()
    kept(items, checkpoint, tmp_path / "tokens")
    assert read == [item.path for item in items[2:]]


def test_failures_are_told_and_tried_again(
    tmp_path: Path, checkpoint: Checkpoint, items: list[Item], read: list[str]
) -> None:
    kept(items[:2], checkpoint, tmp_path / "tokens")
    Path(items[1].path).write_bytes(b"no video")
    read.clear()
    for _ in range(2):
        report = Notes()
        tokens = kept(items, checkpoint, tmp_path / "tokens", report)
        assert [failure.item for failure in tokens.failures] == [items[1]]
        assert tokens.views_of(items[1]) == 0
        assert report.notes[0].startswith(f"failed: {items[1].path}: ")
    assert read == [item.path for item in [*items[1:], items[1]]]
    assert kept(items, checkpoint, tmp_path / "tokens").views_of(items[1]) == 0


def test_too_little_room(
    tmp_path: Path, checkpoint: Checkpoint, items: list[Item], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    each = 2 * 37 * 24
    beside = 4 * sum(tensor.nbytes for tensor in network(checkpoint).state_dict().values())
    usage = namedtuple("usage", "free")

    def room(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free))

    report = Notes()
    room(beside + 4 * 10**6 * each - 1_300_000_000)
    assert tried(items, checkpoint, tmp_path / "tokens", report, views=10**6) is None
    assert report.notes == [
        f"{tmp_path / 'tokens'}: the disk lacks 1.3 GB for the output of the layers that are not trained; each step "
        "computes it again, which takes longer"
    ]
    room(beside + 12 * each - 1)
    assert tried(items, checkpoint, tmp_path / "tokens") is None
    assert read == []
    room(beside + 12 * each)
    assert tried(items, checkpoint, tmp_path / "tokens") is not None
    room(0)
    assert tried(items, checkpoint, tmp_path / "tokens") is not None  # nothing is left to make
    assert read == [item.path for item in items]


def test_numbers_too_large_for_sixteen_bits(tmp_path: Path, checkpoint: Checkpoint, items: list[Item]) -> None:
    def large() -> Any:
        model = network(checkpoint)
        model.timesformer.embeddings.cls_token.fill_(1e5)
        return model

    report = Notes()
    assert tried(items, checkpoint, tmp_path / "tokens", report, open_model=large) is None
    assert report.notes == [
        f"{items[0].path}: the output of the layers that are not trained is too large for the 16 bits in which it is "
        "kept; each step computes it again, which takes longer"
    ]


def test_a_disk_that_cannot_be_written(tmp_path: Path, checkpoint: Checkpoint, items: list[Item]) -> None:
    (tmp_path / "tokens").write_bytes(b"")
    with pytest.raises(OutputError, match=r"tokens: cannot be written \(File exists\)"):
        kept(items, checkpoint, tmp_path / "tokens")


@pytest.mark.parametrize("change", [{"first": -1}, {"views": "1"}, {"stamp": [1.5]}])
def test_damaged_records_are_one_line(
    tmp_path: Path, checkpoint: Checkpoint, items: list[Item], change: dict[str, Any]
) -> None:
    kept(items, checkpoint, tmp_path / "tokens")
    path = tmp_path / "tokens/videos.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(json.dumps(json.loads(first) | change).encode() + b"\n" + rest)
    with pytest.raises(OutputError, match="line 1 is not a record"):
        kept(items, checkpoint, tmp_path / "tokens")


SCHEDULE = Schedule(videos=4, batch_size=3, seed=11)


def batches(tokens: Tokens, items: list[Item], epochs: int = 3, share: Share = ALL) -> list[Batch]:
    return [
        batch
        for epoch in range(1, epochs + 1)
        for batch in token_batches(tokens, items, TARGETS, SCHEDULE, epoch, share=share)
    ]


def read_plain(items: list[Item], checkpoint: Checkpoint, epochs: int = 3) -> list[Batch]:
    """The batches of pixels."""
    with read_batches(
        items, checkpoint.recipe, Augmentation(kind="none"), SCHEDULE, RUN, steps=range(epochs * 2)
    ) as found:
        return [
            Batch(
                torch.from_numpy(batch.pixels),
                torch.from_numpy(TARGETS[batch.places]),
                [items[place].key for place in batch.places.tolist()],
                total=batch.asked,
            )
            for batch in found
        ]


def test_training_from_tokens_is_training_from_videos(
    tmp_path: Path, checkpoint: Checkpoint, items: list[Item]
) -> None:
    Path(items[2].path).write_bytes(b"no video")
    tokens = kept(items, checkpoint, tmp_path / "tokens")
    shown, done = [], []
    for kind, found in ((Trainee, read_plain(items, checkpoint)), (TokenTrainee, batches(tokens, items))):
        model = network(checkpoint)
        optimiser = optimiser_of(model, 3, 1e-3)
        trainer = Trainer(kind(model, drop_path=0.5).train(), optimiser, steps=6, seed=11, micro_batch=2)
        steps = [trainer.step(batch, 1 + number // 2, 1 + number) for number, batch in enumerate(found)]
        shown.append([(batch.keys, batch.targets.tolist(), batch.total) for batch in found])
        done.append([(step.loss, step.gradient) for step in steps])
    assert shown[1] == shown[0]
    assert [total for _, _, total in shown[0]] == [2, 2] * 3
    np.testing.assert_allclose(done[1], done[0], rtol=5e-3)
    assert len({loss for loss, _ in done[0]}) == 6  # each epoch has different views


def test_batches_go_on_and_are_shared(tokens: Tokens, videos: list[Item]) -> None:
    def content(batch: Batch) -> dict[str, tuple[int, bytes]]:
        rows = zip(batch.targets.tolist(), batch.pixels, strict=True)
        return {key: (target, row.numpy().tobytes()) for key, (target, row) in zip(batch.keys, rows, strict=True)}

    whole = [content(batch) for batch in batches(tokens, videos)]
    (later,) = token_batches(tokens, videos, TARGETS, SCHEDULE, 2, 1)
    assert content(later) == whole[3]
    one, two = (batches(tokens, videos, share=Share(rank, 2)) for rank in range(2))
    assert [content(first) | content(second) for first, second in zip(one, two, strict=True)] == whole
    assert [first.total for first in one] == [2.0] * 6
    assert list(token_batches(tokens, videos, TARGETS, SCHEDULE, 1, 2)) == []


def test_weights_and_several_labels(tokens: Tokens, videos: list[Item]) -> None:
    labels = np.eye(5, dtype=np.float32)[TARGETS]
    weights = np.array([1, 2, 3, 4], np.float32)
    places = {item.key: place for place, item in enumerate(videos)}
    for batch in token_batches(tokens, videos, labels, SCHEDULE, 1, weights=weights):
        own = [places[key] for key in batch.keys]
        assert batch.weights is not None
        np.testing.assert_array_equal(batch.targets, labels[own])
        np.testing.assert_array_equal(batch.weights, weights[own])


def test_a_step_of_failures_is_empty(tokens: Tokens, videos: list[Item]) -> None:
    (batch,) = token_batches(
        replace(tokens, places={}), videos[:1], TARGETS, Schedule(videos=1, batch_size=1, seed=0), 1
    )
    assert batch.pixels.shape == (0, *tokens.shape)
    assert (len(batch.targets), batch.keys, batch.total) == (0, [], 1)


def test_validation_from_tokens(tokens: Tokens, checkpoint: Checkpoint, videos: list[Item]) -> None:
    tokens = replace(tokens, places={key: place for key, place in tokens.places.items() if key != videos[1].key})
    trainee = TokenTrainee(network(checkpoint), drop_path=0.5).eval()
    with score_all(videos, checkpoint, RUN) as scored:
        logits = [each.logits for each in scored if isinstance(each, Scored) and each.item != videos[1]]
    kinds: tuple[Combine, ...] = ("logits", "probabilities", "raw_logits")
    for how in kinds:
        recipe = replace(checkpoint.recipe, combine=how)
        found = score_tokens(trainee, tokens, videos, recipe)
        assert found.places.tolist() == [0, 2, 3]
        assert found.logits.dtype == found.combined.dtype == np.float32
        for rows, mean, scores in zip(logits, found.logits, found.combined, strict=True):
            np.testing.assert_allclose(mean, combine(rows, "raw_logits"), atol=2e-3)
            np.testing.assert_allclose(scores, combine(rows, how, recipe.activation), atol=2e-3)
    nothing = score_tokens(trainee, tokens, videos[1:2], checkpoint.recipe)
    assert nothing.logits.shape == nothing.combined.shape == (0, 5)
