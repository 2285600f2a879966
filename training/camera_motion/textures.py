"""Still images for the clip generator: procedural textures, and photographs that come with PyPI packages.

An image is uint8 (H, W), gray. Training and test never share one: procedural images differ by seed
and by family (`UNSEEN_FAMILIES` are never used in training), photographs by name.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 640  # pixels, both sides of a procedural image

TRAIN_PHOTOS = {
    "skimage": (
        "astronaut.png",
        "camera.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "retina.jpg",
        "grass.png",
        "gravel.png",
        "rocket.jpg",
        "moon.png",
        "page.png",
    ),
}
TEST_PHOTOS = {
    "skimage": ("chelsea.png", "coffee.png", "brick.png", "coins.png"),
    "sklearn": ("china.jpg", "flower.jpg"),
}

Gray = NDArray[np.uint8]


def photograph(package: str, name: str) -> Gray:
    """An image that a package ships, in gray. Raises FileNotFoundError without the package."""
    return np.asarray(Image.open(photograph_path(package, name)).convert("L"))


def photograph_path(package: str, name: str) -> Path:
    """The place where a package keeps an image, without importing the package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"{package} is not installed; pip install -e '.[training]'")
    folder = Path(spec.submodule_search_locations[0])
    matches = [path for path in (folder / "data" / name, folder / "datasets" / "images" / name) if path.is_file()]
    if not matches:
        raise FileNotFoundError(f"{package} has no image {name}; the training extra pins a version that has it")
    return matches[0]


def _stretch(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """To 0..1 between the 1st and the 99th percentile."""
    low, high = np.percentile(values, (1, 99))
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1)


def _noise(rng: np.random.Generator, exponent: float, size: int = SIZE) -> NDArray[np.float64]:
    """Noise whose amplitude falls with frequency to the power `exponent`, 0..1; natural scenes have about 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**exponent
    return _stretch(np.fft.irfft2(spectrum, (size, size)))


def clouds(rng: np.random.Generator) -> NDArray[np.float64]:
    return _noise(rng, rng.uniform(0.8, 1.6))


def leaves(rng: np.random.Generator) -> NDArray[np.float64]:
    """Opaque shapes of all sizes over each other: the dead-leaves model, whose edges are like those of scenes."""
    picture = Image.new("L", (SIZE, SIZE), int(rng.integers(256)))
    draw = ImageDraw.Draw(picture)
    count = int(rng.integers(150, 900))
    # Radii follow a power law; the large ones are drawn first so that the small ones stay visible.
    radii = np.sort((rng.uniform(1 / 160, 1 / 5, count)) ** -1.0)[::-1]
    for radius in radii:
        x, y, value = rng.uniform(0, SIZE), rng.uniform(0, SIZE), int(rng.integers(256))
        box = (x - radius, y - radius * rng.uniform(0.3, 1), x + radius, y + radius * rng.uniform(0.3, 1))
        match rng.integers(3):
            case 0:
                draw.ellipse(box, fill=value)
            case 1:
                draw.rectangle(box, fill=value)
            case _:
                angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
                draw.polygon([(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angles], fill=value)
    return np.asarray(picture) / 255


def cells(rng: np.random.Generator) -> NDArray[np.float64]:
    """Distance to the nearest of scattered points: pebbles, tiles, cracked ground."""
    points = rng.uniform(0, SIZE, (int(rng.integers(20, 160)), 2))
    y, x = np.mgrid[0:SIZE:2, 0:SIZE:2]
    distance = np.full(x.shape, np.inf)
    owner = np.zeros(x.shape, dtype=int)
    for index, (py, px) in enumerate(points):
        d = np.hypot(y - py, x - px)
        owner, distance = np.where(d < distance, index, owner), np.minimum(d, distance)
    shade = rng.uniform(0, 1, len(points))[owner]
    mixed = shade + rng.uniform(-1, 1) * distance / distance.max()
    return np.kron(_stretch(mixed), np.ones((2, 2)))


def stripes(rng: np.random.Generator) -> NDArray[np.float64]:
    """Bent gratings: fences, fields, fabric. Two directions, so that motion is never ambiguous."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    bend = _noise(rng, 2.0) * rng.uniform(0, 0.5)
    total = np.zeros((SIZE, SIZE))
    first = rng.uniform(0, np.pi)
    for angle in (first, first + rng.uniform(0.8, 2.2)):
        phase = (np.cos(angle) * x + np.sin(angle) * y + bend) * rng.uniform(8, 50)
        wave = np.sin(2 * np.pi * phase)
        total += np.sign(wave) * rng.uniform(0.3, 1) if rng.random() < 0.5 else wave
    return _stretch(total + (_noise(rng, 1.0) - 0.5) * rng.uniform(0.5, 3))


def blobs(rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise cut into a few levels: patches of flat gray with smooth outlines, like cartoons and maps."""
    levels = int(rng.integers(2, 7))
    return np.floor(_noise(rng, rng.uniform(1.2, 2.0)) * levels * 0.999) / max(levels - 1, 1)


def town(rng: np.random.Generator) -> NDArray[np.float64]:
    """Houses with windows before a sky: straight edges, repetition, large flat parts."""
    sky = np.linspace(rng.uniform(0.5, 1), rng.uniform(0.3, 0.9), SIZE)[:, None] + 0.15 * _noise(rng, 1.8)
    picture = Image.fromarray((np.clip(sky, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(10, 40))):
        left, top = int(rng.uniform(-60, SIZE)), int(rng.uniform(SIZE * 0.1, SIZE * 0.9))
        width, wall = int(rng.uniform(30, 160)), int(rng.integers(30, 230))
        draw.rectangle((left, top, left + width, SIZE), fill=wall)
        step = int(rng.integers(8, 26))
        for wy in range(top + step // 2, SIZE, step):
            for wx in range(left + step // 3, left + width - step // 2, step):
                lit = int(np.clip(wall + rng.integers(-120, 120), 0, 255))
                draw.rectangle((wx, wy, wx + step // 2, wy + step * 2 // 3), fill=lit)
    return np.asarray(picture) / 255


def writing(rng: np.random.Generator) -> NDArray[np.float64]:
    """Lines of random letters in many sizes: signs, pages, subtitles."""
    picture = Image.new("L", (SIZE, SIZE), int(rng.integers(256)))
    draw = ImageDraw.Draw(picture)
    letters = [chr(code) for code in range(33, 127)]
    for _ in range(int(rng.integers(20, 90))):
        text = "".join(rng.choice(letters, int(rng.integers(3, 24))))
        where = (rng.uniform(-80, SIZE), rng.uniform(-20, SIZE))
        draw.text(where, text, fill=int(rng.integers(256)), font_size=float(rng.uniform(10, 90)))
    return np.asarray(picture) / 255


TRAIN_FAMILIES: tuple[Callable[[np.random.Generator], NDArray[np.float64]], ...] = (
    clouds,
    leaves,
    cells,
    stripes,
    blobs,
    writing,
)
UNSEEN_FAMILIES = (town,)


def procedural(family: Callable[[np.random.Generator], NDArray[np.float64]], rng: np.random.Generator) -> Gray:
    """One image of a family; half of them get a second texture as grain or shade."""
    values = family(rng)
    if rng.random() < 0.5:
        values = values + rng.uniform(0.1, 0.5) * (_noise(rng, rng.uniform(0.5, 1.5)) - 0.5)
    return (_stretch(values) * 255).astype(np.uint8)


def library(photos: dict[str, tuple[str, ...]], count: int, seed: int | Sequence[int], *, unseen: bool) -> list[Gray]:
    """`count` procedural images, the families in turn, and photographs, repeated to be a third of the list."""
    rng = np.random.default_rng(seed)
    families = UNSEEN_FAMILIES + TRAIN_FAMILIES if unseen else TRAIN_FAMILIES
    taken = [photograph(package, name) for package, names in photos.items() for name in names]
    return taken * max(count // (2 * len(taken)), 1) + [
        procedural(families[i % len(families)], rng) for i in range(count)
    ]
