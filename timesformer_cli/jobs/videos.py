"""The videos of a run: listed ahead of whoever takes them, and their number as soon as it is known."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

from timesformer_cli.flow import Item
from timesformer_cli.jobs.reporter import Total
from timesformer_cli.results.journal import Ledger
from timesformer_cli.results.settings import Shard
from timesformer_cli.video.inputs import STDIN, Listing, find

# Seconds that listing the videos may take before the first is read. Most lists are complete by then, and what is
# wrong with them is told before anything is loaded; the others are listed while the first videos are labelled.
LISTING = 1.0


@dataclass(frozen=True, slots=True)
class Videos:
    """`items` can be gone through once; `total` says how many they are."""

    items: Iterable[Item]
    total: Total

    @classmethod
    def find(
        cls,
        sources: list[str],
        lists: list[Path],
        *,
        frames: bool = False,
        limit: int | None = None,
        shard: Shard | None = None,
    ) -> Self:
        """What `inputs.find` finds, `limit` of it at most, and of that the shard's.

        Standard input is read as it comes, so the number of videos is never known there.

        Raises:
            InputError: as `inputs.find`, if it is soon known.
        """
        items: Iterable[Item] = islice(find(sources, lists, frames=frames), limit)
        if shard is not None:
            items = shard.part_of(items)
        return cls(items, _unknown) if STDIN in sources else cls.listed(items)

    @classmethod
    def listed(cls, items: Iterable[Item]) -> Self:
        """The same, listed ahead."""
        listing = Listing(items)
        listing.wait(LISTING)
        return cls(listing, lambda: listing.total)

    def left(self, ledger: Ledger) -> "Videos":
        """Those that the output does not hold. Raises OutputError for a finished one that holds others."""
        if ledger.finished:
            ledger.check_finished(item.path for item in self.items)
            return Videos((), lambda: 0)
        left = (item for item in self.items if item.path not in ledger)
        return Videos.listed(left) if isinstance(self.items, Listing) else Videos(left, _unknown)


def _unknown() -> None:
    return None
