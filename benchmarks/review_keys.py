"""Keys that it takes to correct a label on the page of labels, in headless Chromium.

    python -m benchmarks.review_keys [--labels kinetics-400] [--videos 400]

For each video, one class is wanted that is not among the five shown: `/` opens the list, letters narrow it until the
wanted class is first, Enter takes it. Letters are those of the name from its start, or of the word of it that needs the
fewest, or the beginnings of two of its words with a space between them if these are fewer. With arrows, a class that is
in the list already may also be reached by the arrow. The list is the page's own. Scores are

- random: the fifty classes that the page has in the order of their scores, and the wanted one, are drawn evenly;
- plausible: the wanted class has rank 6 or more, and rank r with a chance that goes with 1/r.

Needs Chromium, its chromedriver and selenium.
"""

import argparse
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from timesformer_cli.checkpoints import labels
from timesformer_cli.results.formats import page
from timesformer_cli.results.record import RANKED, Record

SHOWN = 5

# The labels that the list shows after each of the texts, for the next video.
LISTS = """
    const press = (element, key) => element.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    press(document.activeElement, "n");
    press(document.activeElement, "/");
    const input = document.querySelector(".chooser input");
    const found = arguments[0].map((text) => {
        input.value = text;
        input.dispatchEvent(new Event("input"));
        return [...document.querySelectorAll(".chooser li")].map((item) => item.label);
    });
    press(input, "Escape");
    return found;
"""


def drawn(
    names: Sequence[str], count: int, chance: random.Random, *, plausible: bool
) -> Iterator[tuple[list[int], int]]:
    """The order of the classes for each video, the likeliest first, and the rank of the wanted one."""
    ranks = range(SHOWN, len(names))
    weights = [1 / (rank + 1) if plausible else 1.0 for rank in ranks]
    for rank in chance.choices(ranks, weights, k=count):
        yield chance.sample(range(len(names)), len(names)), rank


def record(path: str, names: Sequence[str], order: Sequence[int]) -> Record:
    predictions = [
        {"rank": rank, "index": index, "label": names[index], "score": 0.1}
        for rank, index in enumerate(order[:SHOWN], 1)
    ]
    facts = {"duration": 10.0, "fps": 30.0, "frames": 300, "width": 340, "height": 256, "codec": "h264"}
    ends = {"path": path, "status": "ok", "video": facts, "predictions": predictions}
    return ends | {"_films": [""], "_runners_up": [list(order[SHOWN:RANKED])]}


def keys(browser: Any, wanted: str) -> dict[str, int]:
    """Keys for the next video, with `/` and Enter."""
    starts = [place for place in range(len(wanted)) if place == 0 or not wanted[place - 1].isalnum()]
    texts = {start: [wanted[start:end] for end in range(start, len(wanted) + 1)] for start in starts}
    words = wanted.split()
    pairs = [
        f"{first[:one]} {second[:two]}"
        for first, second in combinations(words, 2)
        for one in range(1, 4)
        for two in range(1, 4)
    ]
    found = iter(browser.execute_script(LISTS, [text for each in texts.values() for text in each] + pairs))
    letters, arrows = {}, []
    for start, each in texts.items():
        shown = [next(found) for _ in each]
        places = [names.index(wanted) if wanted in names else None for names in shown]
        letters[start] = next((count for count, place in enumerate(places) if place == 0), len(wanted))
        arrows += [count + place for count, place in enumerate(places) if place is not None]
    first = [len(pair) for pair, names in zip(pairs, found, strict=True) if names[:1] == [wanted]]
    word = min(letters.values())
    counts = {"from the start": letters[0], "best word": word, "two words": min([word, *first])}
    return {way: count + 2 for way, count in {**counts, "with arrows": min([*arrows, *first])}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", default="kinetics-400")
    parser.add_argument("--videos", type=int, default=400)
    arguments = parser.parse_args()
    from testing.browser import open_browser

    names = labels.read(arguments.labels)
    with tempfile.TemporaryDirectory() as folder, open_browser(Path(folder, "profile")) as browser:
        for plausible in (False, True):
            cases = list(drawn(names, arguments.videos, random.Random(0), plausible=plausible))
            style = page.style("model", names, raw=False, recipe="original", folder=Path(folder))
            path = Path(folder, "page.html")
            records = (record(f"s3://videos/{number:05}.mp4", names, order) for number, (order, _) in enumerate(cases))
            path.write_text("".join(style.texts(records)), encoding="utf-8")
            browser.get(path.as_uri())
            taken = [keys(browser, names[order[rank]]) for order, rank in cases]
            print(f"{len(names)} classes, {len(cases)} videos, scores {'plausible' if plausible else 'random'}")
            for way in taken[0]:
                counts = sorted(each[way] for each in taken)
                most = counts[round(0.9 * (len(counts) - 1))]
                few = sum(count <= 5 for count in counts) / len(counts)
                print(f"  {way:15} median {statistics.median(counts):g}, 90 % at most {most}, at most five {few:.0%}")


if __name__ == "__main__":
    main()
