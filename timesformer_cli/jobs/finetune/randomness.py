"""Random numbers that belong to samples: they depend on the seed, the epoch and the sample, and on nothing else.

So no state of a generator has to be kept for `resume`, and the same sample gets the same numbers in whatever process,
micro-batch or order it is worked on.
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def generator_of(seed: int, epoch: int, key: str, what: str) -> np.random.Generator:
    """The generator for one use, `what`, of the sample `key` in an epoch; each combination has numbers of its own."""
    parts = json.dumps([seed, epoch, key, what]).encode("ascii")
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(parts).digest())))


def order_of(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The numbers from 0 to `count` - 1 in the order in which an epoch takes the samples."""
    return generator_of(seed, epoch, "", "order").permutation(count)


def drop_path_draws(seed: int, epoch: int, keys: Sequence[str], shape: tuple[int, int]) -> NDArray[np.float32]:
    """What decides which branches of the network the samples skip: float32 (len(keys), *shape), from 0 to below 1.

    `shape` is that of `TimesformerModel.drop_path_shape`.
    """
    draws = np.empty((len(keys), *shape), np.float32)
    for row, key in zip(draws, keys, strict=True):
        generator_of(seed, epoch, key, "drop path").random(dtype=np.float32, out=row)
    return draws
