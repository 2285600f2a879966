"""How many moving pictures a page holds."""

import base64

from timesformer_cli.results.record import Record
from timesformer_cli.video.render import stills_of

# A film has some 40 kB in the page: 500 are 20 MB.
MOST_FILMS = 500
_STILLS = 4


class Films:
    """Lets the first `MOST_FILMS` films of all records pass, and makes thumbnails of the rest."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def too_many(self) -> bool:
        return self.count > MOST_FILMS

    def limited(self, record: Record) -> Record:
        """The record, with thumbnails instead of further films."""
        films = record.get("_films")
        if films is None:
            return record
        kept = list(films)
        thumbnails = list(record.get("_thumbnails") or [""] * len(films))
        for number, film in enumerate(films):
            self.count += bool(film)
            if film and self.too_many:
                stills = stills_of(base64.b64decode(film), _STILLS if len(films) == 1 else 1)
                kept[number], thumbnails[number] = "", base64.b64encode(stills).decode()
        return record | {"_films": kept, "_thumbnails": thumbnails}
