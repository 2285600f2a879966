"""The videos of a run: listed ahead of their use, and their number as soon as it is known."""

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

# Seconds to wait for the list of videos before the first is read. Most lists are complete by then, and their errors
# are reported before anything is loaded; longer lists are completed while the first videos are labelled.
LISTING = 1.0


@dataclass(frozen=True, slots=True)
class Videos:
    """`items` can be iterated once; `total` gives their number."""

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
        """The videos that `inputs.find` finds, at most `limit`, and of these only those of the shard.

        Standard input is read line by line, so the number of its videos is never known.

        Raises:
            InputError: as `inputs.find`, for errors found within `LISTING` seconds.
        """
        items: Iterable[Item] = islice(find(sources, lists, frames=frames), limit)
        if shard is not None:
            items = shard.part_of(items)
        return cls(items, _unknown) if STDIN in sources else cls.listed(items)

    @classmethod
    def listed(cls, items: Iterable[Item]) -> Self:
        """These items, listed ahead."""
        listing = Listing(items)
        listing.wait(LISTING)
        return cls(listing, lambda: listing.total)

    def left(self, ledger: Ledger) -> "Videos":
        """The videos that the output does not hold. Raises OutputError for a finished output with different videos."""
        if ledger.finished:
            ledger.check_finished(item.key for item in self.items)
            return Videos((), lambda: 0)
        left = (item for item in self.items if item.key not in ledger)
        return Videos.listed(left) if isinstance(self.items, Listing) else Videos(left, _unknown)


def _unknown() -> None:
    return None
