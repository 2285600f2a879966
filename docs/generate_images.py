"""Make the images of the documentation, in docs/images, of the sample videos and of nothing else.

python docs/generate_images.py

The page of labels is photographed with Chromium and its chromedriver. The licences of the videos, and so of the images,
are in sample_videos/README.md.
"""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs/images"

SHEET = "inspect sample_videos/zoom_out.mp4 --model base-k400 --num-frames 4 --stride 8 --clips 2 --crops 3"
EXPLAINED = "explain sample_videos/pan_left.mp4 --model camera-motion"
LABELS = "predict sample_videos --model camera-motion --top-k 3"

INK, FAINT, PAPER, ASKS, ANSWERS = "#1b2733", "#c3ccd6", "#f4f6f8", "#1f5fbf", "#f2a33a"
FRAMES, ROWS, COLUMNS, PATCH, GAP = 3, 3, 4, 22, 14
WIDTH = 380


def attention() -> str:
    """The drawing of the attentions, as SVG. It has paper of its own, for light and for dark pages."""
    middle = (1, 1, 1)  # frame, row, column of the patch that asks
    panels: list[tuple[str, str, Callable[[int, int, int], bool], bool]] = [
        (
            "1  Attention over time",
            "A patch asks the same place in every frame.",
            lambda _, row, column: (row, column) == middle[1:],
            False,
        ),
        (
            "2  Attention over space",
            "A patch asks its frame and a copy of the class token.",
            lambda frame, *_: frame == middle[0],
            True,
        ),
        (
            "Joint attention, for comparison",
            "A patch asks every patch of every frame.",
            lambda *_: True,
            True,
        ),
    ]
    height = 152
    body = "".join(
        line
        for number, (title, text, answers, asks_class) in enumerate(panels)
        for line in _panel(12 + number * height, title, text, answers, middle, asks_class, joint=number == 2)
    )
    foot = 12 + len(panels) * height
    legend = (
        f'<rect x="16" y="{foot}" width="14" height="14" rx="2" fill="{ASKS}"/>'
        f'<text x="36" y="{foot + 12}">asks</text>'
        f'<rect x="86" y="{foot}" width="14" height="14" rx="2" fill="{ANSWERS}"/>'
        f'<text x="106" y="{foot + 12}">answers</text>'
        f'<circle cx="185" cy="{foot + 7}" r="7" fill="none" stroke="{INK}" stroke-width="1.5"/>'
        f'<text x="198" y="{foot + 12}">class token</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {foot + 28}" font-family="sans-serif" '
        f'font-size="12.5" fill="{INK}" role="img">'
        "<title>Which patches a patch attends to</title>"
        f'<rect width="{WIDTH}" height="{foot + 28}" rx="8" fill="{PAPER}"/>{body}{legend}</svg>\n'
    )


def _panel(
    top: int,
    title: str,
    text: str,
    answers: Callable[[int, int, int], bool],
    middle: tuple[int, int, int],
    asks_class: bool,
    *,
    joint: bool,
) -> Iterator[str]:
    yield f'<text x="16" y="{top + 14}" font-weight="bold" font-size="14">{title}</text>'
    yield f'<text x="16" y="{top + 32}">{text}</text>'
    y, width = top + 44, COLUMNS * PATCH
    for frame in range(FRAMES):
        x = 46 + frame * (width + GAP)
        for row in range(ROWS):
            for column in range(COLUMNS):
                place = (frame, row, column)
                colour = ASKS if place == middle else ANSWERS if answers(*place) else "#ffffff"
                yield (
                    f'<rect x="{x + column * PATCH}" y="{y + row * PATCH}" width="{PATCH - 2}" height="{PATCH - 2}" '
                    f'rx="2" fill="{colour}" stroke="{FAINT}"/>'
                )
        yield (
            f'<text x="{x + width / 2 - 1:g}" y="{y + ROWS * PATCH + 13}" text-anchor="middle" font-size="11">'
            f"frame {frame + 1}</text>"
        )
    # Divided attention copies the class token to every frame; the drawing has the copy of the frame that is asked.
    x = 24 if joint or not asks_class else 46 + middle[0] * (width + GAP) - GAP / 2 - 1
    radius = 9 if x == 24 else 6
    colour = ANSWERS if asks_class else "#ffffff"
    yield (
        f'<circle cx="{x:g}" cy="{y + ROWS * PATCH / 2 - 1:g}" r="{radius}" fill="{colour}" stroke="{INK}" '
        'stroke-width="1.5"/>'
    )


def sheet(folder: Path) -> Image.Image:
    """The contact sheet of docs/clips-and-views.md."""
    timesformer([*SHEET.split(), "--sheet", str(folder / "sheet.png")])
    return Image.open(folder / "sheet.png").convert("RGB")


def explained(folder: Path) -> Image.Image:
    """The contact sheet with heat of docs/explain.md."""
    timesformer([*EXPLAINED.split(), "-o", str(folder / "explained.png")])
    return Image.open(folder / "explained.png").convert("RGB")


def labels(folder: Path) -> Image.Image:
    """The page of labels of docs/index.md, as a browser shows it."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    timesformer([*LABELS.split(), "-o", str(folder / "labels.html")])
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1100,880"):
        options.add_argument(argument)
    browser = Chrome(options, ChromeService(shutil.which("chromedriver")))
    try:
        browser.get((folder / "labels.html").as_uri())
        return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    finally:
        browser.quit()


def timesformer(args: list[str]) -> None:
    """Run a command in the repository, without its output and without the network."""
    program = [sys.executable, "-m", "timesformer_cli", *args]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run(program, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "attention.svg").write_text(attention(), encoding="utf-8")
    with TemporaryDirectory() as scratch:
        for name, make in (("views", sheet), ("explain", explained), ("labels", labels)):
            make(Path(scratch)).save(IMAGES / f"{name}.jpg", quality=72, optimize=True)
