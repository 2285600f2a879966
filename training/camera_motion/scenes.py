"""Clips with a known camera motion, rendered from still images.

Lengths are in picture heights, x to the right, y down, origin in the middle of the picture; angles in
radians, clockwise positive; times in seconds. A camera that only turns, rolls and zooms sees its
surroundings through a homography (Hartley and Zisserman, Multiple View Geometry, section 8.4), so
every frame is one perspective warp of a flat image, with moving objects laid over it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from textures import Gray
from torch import Tensor

LABELS = (
    "static",
    "pan left",
    "pan right",
    "tilt up",
    "tilt down",
    "zoom in",
    "zoom out",
    "roll clockwise",
    "roll counter-clockwise",
)

# Speed at which a motion and "static" are equally good answers: a few picture heights in 100 seconds.
STILL = 0.035
# Mean distance of a pixel from the middle: turns zoom and roll rates into picture heights per second.
LEVER = 0.38


@dataclass(frozen=True)
class Motion:
    """Rates: `pan` (right positive) and `tilt` (up positive) in picture heights per second, `zoom` (in
    positive) in natural logarithm of scale per second, `roll` (clockwise positive) in radians per second.
    """

    pan: float = 0.0
    tilt: float = 0.0
    zoom: float = 0.0
    roll: float = 0.0

    def speeds(self) -> NDArray[np.float64]:
        """The speed of the image for each rate, in picture heights per second, signed (4,)."""
        return np.array([self.pan, self.tilt, self.zoom * LEVER, self.roll * LEVER])

    def shares(self) -> NDArray[np.float32]:
        """Training target (9,), in the order of LABELS: each motion's share of the fourth powers of speed.

        One rule for clear clips (nearly one-hot), mixed ones (divided) and tiny motions (shared with
        static), so that the network learns to doubt where a viewer would.
        """
        speed = self.speeds()
        signed = np.stack([[-s, s] for s in speed])  # rows: pan, tilt, zoom, roll; columns: left, right ...
        signed[1:] = signed[1:, ::-1]  # the labels name up, in and clockwise, the positive sides, first
        weights = np.concatenate([[STILL], np.maximum(signed, 0).ravel()]) ** 4
        return (weights / weights.sum()).astype(np.float32)

    @property
    def label(self) -> str:
        return LABELS[int(self.shares().argmax())]


def motion_of(label: str, speed: float) -> Motion:
    """The motion that `label` names, at `speed` picture heights per second."""
    match label:
        case "pan left" | "pan right":
            return Motion(pan=speed if label == "pan right" else -speed)
        case "tilt up" | "tilt down":
            return Motion(tilt=speed if label == "tilt up" else -speed)
        case "zoom in" | "zoom out":
            return Motion(zoom=(speed if label == "zoom in" else -speed) / LEVER)
        case "roll clockwise" | "roll counter-clockwise":
            return Motion(roll=(speed if label == "roll clockwise" else -speed) / LEVER)
    return Motion()


@dataclass(frozen=True)
class Wobble:
    """Hand shake: a sum of sines along x, y and roll. Each row: amplitude, frequency (Hz), phase."""

    waves: NDArray[np.float64]  # (3, W, 3)

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Offsets (3, T): x and y in picture heights, roll in radians."""
        amplitude, frequency, phase = np.moveaxis(self.waves, -1, 0)[..., None]
        return (amplitude * np.sin(2 * np.pi * frequency * times + phase)).sum(1)


@dataclass(frozen=True)
class Sprite:
    """An object in front: its picture, where it starts, how it moves and turns, how large it is."""

    picture: Tensor  # float32 (C + 1, h, w): channels 0..255, and opacity 0..1
    start: tuple[float, float]
    velocity: tuple[float, float]
    spin: float
    size: float
    follows: float  # share of the background's path that it follows; more than 1 for near objects


@dataclass(frozen=True)
class Scene:
    """Everything that determines a clip; `render` makes frames of it at any times and size."""

    picture: Tensor  # float32 (C, h, w), 0..255: one channel of gray, or red, green and blue
    motion: Motion
    duration: float
    easing: float = 0.0  # -1 slows down to rest, 1 starts from rest, 0 keeps its speed
    scale: float = 0.5  # picture heights of the still that fill the frame at the start
    turned: float = 0.0  # radians by which the still itself is turned
    centre: tuple[float, float] = (0.0, 0.0)
    focal: float = 2.0  # focal length: small is a wide angle, with strong perspective
    wobble: Wobble | None = None
    sprites: tuple[Sprite, ...] = field(default=())
    gain: tuple[float, float] = (1.0, 1.0)  # exposure at the start and at the end

    def progress(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Path travelled by `times`, in seconds of mean speed; `duration` at the end."""
        u = times / self.duration
        return self.duration * (u + self.easing * (u * u - u))

    def homographies(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T, 3, 3): from a point of the frame to the point of the still seen there."""
        path = self.progress(times)
        shake = self.wobble.at(times) if self.wobble else np.zeros((3, len(times)))
        # Symmetric around the middle of the clip, so that long moves stay inside the still.
        path = path - self.duration / 2
        zoom = np.exp(self.motion.zoom * path)
        roll = self.motion.roll * path + shake[2] + self.turned
        yaw = (self.motion.pan * path + shake[0]) / self.focal
        pitch = (-self.motion.tilt * path + shake[1]) / self.focal
        matrices = []
        for z, r, a, b in zip(zoom, roll, yaw, pitch, strict=True):
            lens = np.diag([1 / (self.focal * z), 1 / (self.focal * z), 1.0])
            rolled = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1.0]])
            # Turning happens in the frame of the viewer, however the still is turned.
            turn = np.array([[np.cos(self.turned), -np.sin(self.turned)], [np.sin(self.turned), np.cos(self.turned)]])
            a, b = turn @ (a, b)
            pan = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
            tilt = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
            wall = np.diag([self.focal, self.focal, 1.0])
            matrices.append(wall @ pan @ tilt @ rolled @ lens)
        return np.stack(matrices)

    def render(self, times: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
        """Frames uint8 (T, height, width, C)."""
        grid = frame_points(height, width)  # (3, height * width)
        still = torch.from_numpy(self.homographies(times).astype(np.float32)) @ grid
        still = still[:, :2] / still[:, 2:].clamp(min=0.05)
        still = still.view(len(times), 2, height, width).permute(0, 2, 3, 1)
        pictures = self._background(still, height)
        path = self.progress(times)
        shake = self.wobble.at(times)[:2].T if self.wobble else np.zeros((len(times), 2))
        points = grid[:2].T.view(1, height, width, 2)
        for sprite in self.sprites:
            pictures = self._add(sprite, pictures, points, times, path, shake)
        gain = np.interp(times, (0, self.duration), self.gain).astype(np.float32)
        pictures = pictures * torch.from_numpy(gain)[:, None, None, None]
        return pictures.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    def _background(self, points: Tensor, height: int) -> Tensor:
        source = self.picture
        rows, columns = source.shape[1:]
        texels = min(rows, columns) * self.scale / height
        if texels > 1.6:  # a finer still than the frame: average first, or it would flicker
            source = F.avg_pool2d(source, round(texels))
        # grid_sample wants -1..1 over each side of the still; `scale` is measured along its shorter side.
        unit = 2 * self.scale * min(rows, columns)
        span = torch.tensor([unit / columns, unit / rows])
        grid = points * span + torch.tensor(self.centre)
        source = source.expand(len(points), -1, -1, -1)
        return F.grid_sample(source, grid, "bilinear", padding_mode="reflection", align_corners=False)

    def _add(
        self,
        sprite: Sprite,
        pictures: Tensor,
        points: Tensor,
        times: NDArray[np.float64],
        path: NDArray[np.float64],
        shake: NDArray[np.float64],
    ) -> Tensor:
        where = np.asarray(sprite.start) + times[:, None] * np.asarray(sprite.velocity)
        where = where - sprite.follows * (path[:, None] * (self.motion.pan, -self.motion.tilt) + shake)
        angle = torch.from_numpy((sprite.spin * times).astype(np.float32))
        cos, sin = torch.cos(angle), torch.sin(angle)
        turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], 1)  # (T, 2, 2)
        offset = points - torch.from_numpy(where.astype(np.float32))[:, None, None]
        grid = torch.einsum("tij,thwj->thwi", turn, offset) / (sprite.size / 2)
        source = sprite.picture.expand(len(times), -1, -1, -1)
        sampled = F.grid_sample(source, grid, "bilinear", padding_mode="zeros", align_corners=False)
        return pictures + (sampled[:, :-1] - pictures) * sampled[:, -1:]

    def flow(self, times: NDArray[np.float64], cells: int) -> NDArray[np.float32]:
        """The camera's motion of the cell centres of a `cells` x `cells` grid over the central square, from each
        frame to the next: float32 (T - 1, cells, cells, 2), picture heights. Moving objects are ignored.
        """
        points = frame_points(cells, cells).numpy().astype(np.float64)
        matrices = self.homographies(times)
        forward = np.linalg.inv(matrices[1:]) @ matrices[:-1] @ points
        moved = forward[:, :2] / forward[:, 2:] - points[:2]
        return moved.transpose(0, 2, 1).reshape(-1, cells, cells, 2).astype(np.float32)


def frame_points(height: int, width: int) -> Tensor:
    """Centres of the pixels of a frame, homogeneous, float32 (3, height * width)."""
    down = (torch.arange(height) + 0.5 - height / 2) / height
    across = (torch.arange(width) + 0.5 - width / 2) / height
    y, x = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones(height * width)])


def make_wobble(rng: np.random.Generator, amplitude: float) -> Wobble:
    """Shake of about `amplitude` picture heights; slow sway is kept small, or it would be a pan."""
    frequency = rng.uniform(1.0, 7.0, (3, 4))
    size = amplitude * rng.exponential(0.5, (3, 4)) / frequency
    size[2] *= 0.5
    return Wobble(np.stack([size, frequency, rng.uniform(0, 2 * np.pi, (3, 4))], -1))


def make_sprite(rng: np.random.Generator, pictures: Sequence[Gray], size: float, speed: float) -> Sprite:
    """An object of a random shape, cut from a random image."""
    picture = pictures[rng.integers(len(pictures))]
    side = min(96, min(picture.shape))
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape)
    gray = picture[top : top + side, left : left + side].astype(np.float32)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    angle = np.arctan2(y, x)
    outline = 0.75 + sum(rng.normal(0, 0.25 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(1, 5))
    opacity = np.clip((np.clip(outline, 0.3, 0.95) - np.hypot(y, x * rng.uniform(0.8, 1.6))) * 12, 0, 1)
    direction = rng.uniform(0, 2 * np.pi)
    return Sprite(
        picture=torch.from_numpy(np.stack([gray, opacity.astype(np.float32)])),
        start=(float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.5, 0.5))),
        velocity=(float(speed * np.cos(direction)), float(speed * np.sin(direction))),
        spin=float(rng.normal(0, 0.7)),
        size=size,
        follows=float(rng.choice((0.0, 1.0, rng.uniform(0.7, 1.8)), p=(0.5, 0.25, 0.25))),
    )


def make_scene(
    rng: np.random.Generator, pictures: Sequence[Gray], motion: Motion, duration: float, difficulty: float
) -> Scene:
    """A random scene for `motion`. `difficulty` 0..1 scales shake, objects, perspective and exposure change."""
    picture = pictures[rng.integers(len(pictures))]
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    low, high = sorted(rng.uniform(0, 255, 2)) if rng.random() < 0.3 else (0.0, 255.0)
    high = max(high, low + 80)
    gray = low + (picture.astype(np.float32) / 255) ** rng.uniform(0.6, 1.6) * (high - low)
    if rng.random() < 0.15:
        gray = 255 - gray
    sprites = []
    while len(sprites) < 4 and rng.random() < 0.55 * difficulty:
        sprites.append(make_sprite(rng, pictures, float(rng.uniform(0.12, 0.55)), float(rng.exponential(0.35))))
    travel = np.hypot(motion.pan, motion.tilt) * duration
    gains = np.exp(rng.normal(0, 0.2 * difficulty, 2)) if rng.random() < 0.4 else np.ones(2)
    return Scene(
        picture=torch.from_numpy(np.ascontiguousarray(gray, dtype=np.float32))[None],
        motion=motion,
        duration=duration,
        easing=float(rng.uniform(-0.8, 0.8) * difficulty) if rng.random() < 0.6 else 0.0,
        scale=float(np.exp(rng.uniform(np.log(0.25), np.log(0.7)))),
        turned=float(rng.uniform(-np.pi, np.pi)) if rng.random() < 0.5 else 0.0,
        centre=(float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.5, 0.5))),
        # A wide angle only if the move stays well below a right angle.
        focal=float(max(rng.uniform(1.0, 4.0), 1.2 * travel)),
        wobble=make_wobble(rng, float(rng.exponential(0.006) * difficulty)),
        sprites=tuple(sprites),
        gain=(float(gains[0]), float(gains[1])),
    )
