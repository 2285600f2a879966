"""Speed of the page of labels with many videos, in headless Chromium.

    python -m benchmarks.page [--videos 10000] [--rounds 5]

Every video has five of the 400 labels of Kinetics and a strip of four frames, 112 pixels high. The page is opened from
disk, in a new tab for each round, after a first round that is not counted. Times are medians (lowest to highest): from
the start of the navigation until the first rows are painted; from a key in the filter, or a different order, until the
new list is painted; and from a key of the review until the next row is painted. The videos do not exist, so nothing is
decoded. Needs Chromium, its chromedriver and selenium.
"""

import argparse
import base64
import io
import platform
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from timesformer_cli.checkpoints import labels
from timesformer_cli.results.formats import page
from timesformer_cli.results.record import RANKED, Record

WATCH_FOR_ROWS = """
    new MutationObserver((_, observer) => {
        if (!document.querySelector("main li")) return;
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => { window.painted = performance.now(); }));
    }).observe(document, {childList: true, subtree: true});
"""
ASK = """
    const [field, value, done] = arguments;
    const form = document.querySelector("form");
    form.elements[field].value = value;
    const start = performance.now();
    form.dispatchEvent(new Event("input", {bubbles: true}));
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
"""
PRESS = """
    const [key, done] = arguments;
    const start = performance.now();
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
"""
PRESSED = ["n", *"a2un" * 10, *"zzz", "/"]
ASKED = {
    "text": ["p", "pl", "pla", "play", "playi", "playing", "v_0999", ""],
    "sort": ["path", "-score", "label", "-duration", "order"],
}


def records(count: int) -> Iterator[Record]:
    chance = random.Random(0)
    names = labels.read("kinetics-400")
    strips = [strip(seed) for seed in range(20)]
    for number in range(count):
        path = f"clips/{chance.choice(names)}/v_{number:05}.mp4"
        if number % 50 == 49:
            error = {"kind": "decode", "message": "no frame can be decoded"}
            yield {"path": path, "status": "error", "model": "base-k400", "error": error}
            continue
        scores = sorted((chance.random() for _ in range(5)), reverse=True)
        predictions = [
            {"rank": rank, "index": index, "label": names[index], "score": score / 5}
            for rank, (index, score) in enumerate(zip(chance.sample(range(len(names)), 5), scores, strict=True), 1)
        ]
        facts = {"duration": 10 * chance.random(), "fps": 29.97, "width": 340, "height": 256, "codec": "h264"}
        yield {
            "path": path,
            "status": "ok",
            "video": facts,
            "predictions": predictions,
            "_thumbnails": [strips[number % len(strips)]],
            "_runners_up": [chance.sample(range(len(names)), RANKED - 5)],
        }


def strip(seed: int) -> str:
    """Four frames of soft noise, some 5 kB like those of real videos."""
    noise = np.random.default_rng(seed).integers(0, 256, (10, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((448, 112), Image.Resampling.BICUBIC).save(file, "WEBP", quality=60)
    return base64.b64encode(file.getvalue()).decode("ascii")


def write_page(path: Path, count: int) -> None:
    style = page.style("base-k400", labels.read("kinetics-400"), raw=False, recipe="original", folder=path.parent)
    with path.open("w", encoding="utf-8") as file:
        file.write(style.start)
        for record in records(count):
            file.write(style.render(record))
        file.write(style.end)


def measure(browser: Any, path: Path) -> dict[str, float]:
    """Times of one round in milliseconds, and memory."""
    browser.switch_to.new_window("tab")
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH_FOR_ROWS})
    browser.get(path.as_uri())
    while not (first := browser.execute_script("return window.painted")):
        time.sleep(0.01)
    taken = {"first rows": first}
    for field, values in ASKED.items():
        for value in values:
            taken[f"{field} {value!r}"] = browser.execute_async_script(ASK, field, value)
    times = [(key, browser.execute_async_script(PRESS, key)) for key in PRESSED]
    for key in dict.fromkeys(PRESSED):
        taken[f"key {key}"] = statistics.median(time for each, time in times if each == key)
    browser.execute_script("scrollTo(0, document.body.scrollHeight)")
    time.sleep(1)
    assert browser.execute_script("return document.querySelectorAll('.video').length") <= 150
    taken["memory of the script, MiB"] = browser.execute_script("return performance.memory.usedJSHeapSize / 2 ** 20")
    browser.close()
    browser.switch_to.window(browser.window_handles[0])
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    from testing.browser import open_browser

    rounds = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, open_browser(Path(folder, "profile")) as browser:
        path = Path(folder, "page.html")
        start = time.perf_counter()
        write_page(path, arguments.videos)
        seconds = time.perf_counter() - start
        version = f"{browser.capabilities['browserName']} {browser.capabilities['browserVersion']}"
        print(f"{version}, Python {platform.python_version()}")
        print(f"{arguments.videos:,} videos: {path.stat().st_size / 2**20:.1f} MiB, written in {seconds:.2f} s")
        for number in range(arguments.rounds + 1):
            for name, value in measure(browser, path).items():
                if number:
                    rounds[name].append(value)
    for name, values in rounds.items():
        unit = "" if name.endswith("MiB") else " ms"
        print(f"{name:26} {statistics.median(values):6.0f}{unit}  ({min(values):.0f} to {max(values):.0f})")


if __name__ == "__main__":
    main()
