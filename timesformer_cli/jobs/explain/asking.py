"""Ask the model about altered clips, a few at a time, and count them."""

from collections.abc import Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.errors import CheckpointError
from timesformer_cli.flow import Pixels
from timesformer_cli.jobs.explain.alterations import without
from timesformer_cli.runtimes.batching import BatchSize
from timesformer_cli.runtimes.ports import Scorer


class Model:
    """A model's scores of clips (T, C, H, W). `forwards` counts the clips; `patch` is (height, width) in pixels."""

    def __init__(self, scorer: Scorer, batch: BatchSize, patch: tuple[int, int]) -> None:
        self.patch = patch
        self.forwards = 0
        self._scorer = scorer
        self._batch = batch

    def logits(self, clips: Iterable[Pixels]) -> NDArray[np.float32]:
        """Logits (N, K). Clips are made as they are needed, so that only a batch of them is in memory.

        Raises:
            CheckpointError: the network's scores are not numbers.
            DeviceError: not even one clip fits into memory.
        """
        left = iter(clips)
        found: list[NDArray[np.float32]] = []
        while batch := list(islice(left, self._batch.size)):
            self.forwards += len(batch)
            found.append(self._batch.score(self._scorer, np.stack(batch)))
        logits = np.concatenate(found)
        if not np.isfinite(logits).all():
            raise CheckpointError("the network's scores are not numbers; are its weights damaged?")
        return logits

    def logits_without(self, clip: Pixels, fill: Pixels, masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.float32]:
        """Logits (N, K) of the clip with `fill` at the patches of each mask, bool (T, R, C)."""
        return self.logits(without(clip, fill, gone, self.patch) for gone in masks)

    def grid(self, clip: Pixels) -> tuple[int, int, int]:
        """Frames, and rows and columns of patches."""
        return len(clip), clip.shape[-2] // self.patch[0], clip.shape[-1] // self.patch[1]
