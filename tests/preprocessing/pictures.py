"""Made-up pictures that look as different, and as alike, as medical ones do; and what happens to pictures."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Picture = NDArray[np.uint8]
Random = np.random.Generator


def _noise(rng: Random, shape: tuple[int, ...], blur: float) -> NDArray[np.float64]:
    found = ndimage.gaussian_filter(rng.normal(size=shape), blur)
    return np.asarray((found - found.mean()) / found.std())


def _bytes(values: NDArray[np.float64]) -> Picture:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def scan(rng: Random) -> Picture:
    """A body in the dark with organs: what all scans of one kind share is most of the picture."""
    side = int(rng.integers(120, 260))
    y, x = np.mgrid[:side, :side] / side - 0.5
    values = np.where((x / 0.42) ** 2 + (y / 0.36) ** 2 < 1, 110.0, 4.0)
    for _ in range(rng.integers(6, 14)):
        cx, cy, rx, ry = rng.uniform(-0.28, 0.28), rng.uniform(-0.24, 0.24), *rng.uniform(0.03, 0.13, 2)
        values += np.where(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1, rng.uniform(-50, 70), 0)
    values = ndimage.gaussian_filter(values, 1.0) + (values > 20) * 9 * _noise(rng, (side, side), 1.2)
    return _bytes(values + rng.normal(0, 2, (side, side)))


def speckle(rng: Random) -> Picture:
    """Ultrasound-like: layers and speckle, darker with depth."""
    height, width = int(rng.integers(150, 300)), int(rng.integers(180, 320))
    depth = np.linspace(1.2, 0.4, height)[:, None]
    layers = ndimage.gaussian_filter(rng.normal(size=(height, width)), (2.5, 18))
    return _bytes(depth * (90 + 160 * layers / layers.std() * 0.25) * rng.rayleigh(0.8, (height, width)))


def fundus(rng: Random) -> Picture:
    """A bright disc with vessels, in colour: the disc is in all of them."""
    side = int(rng.integers(200, 320))
    y, x = np.mgrid[:side, :side] / side - 0.5
    inside = np.hypot(x, y) < 0.46
    values = 150 - 120 * np.hypot(x, y)
    vessels = np.zeros((side, side))
    for _ in range(rng.integers(10, 18)):
        angle, at = rng.uniform(0, 2 * np.pi), np.array([rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)])
        for _ in range(int(0.5 * side)):
            angle += rng.normal(0, 0.12)
            at = at + np.array([np.sin(angle), np.cos(angle)]) / side
            row, column = ((at + 0.5) * side).astype(int)
            if not (0 <= row < side and 0 <= column < side):
                break
            vessels[row, column] = 1
    values -= 70 * ndimage.gaussian_filter(ndimage.grey_dilation(vessels, 3), 0.8)
    values = np.where(inside, values + 4 * _noise(rng, (side, side), 2), 2)
    return _bytes(np.stack([1.3 * values, 0.7 * values, 0.4 * values], axis=-1))


def cells(rng: Random) -> Picture:
    """Dark nuclei on a pale ground, in colour."""
    side = int(rng.integers(140, 280))
    values = 205 + 8 * _noise(rng, (side, side), 6)
    y, x = np.mgrid[:side, :side]
    for _ in range(rng.integers(15, 40)):
        cy, cx, ry, rx = *rng.uniform(0, side, 2), *rng.uniform(4, 14, 2)
        values[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] = rng.uniform(70, 140)
    values = ndimage.gaussian_filter(values, 0.9) + rng.normal(0, 3, (side, side))
    return _bytes(np.stack([values, 0.75 * values, 0.95 * values], axis=-1))


KINDS: tuple[Callable[[Random], Picture], ...] = (scan, speckle, fundus, cells)


def volume(rng: Random, shape: tuple[int, int, int] = (20, 40, 48)) -> Picture:
    """(slices, height, width): blobs in noise, each volume its own."""
    return _bytes(110 + 45 * _noise(rng, shape, 3.0) + 12 * _noise(rng, shape, 1.0))


def jpeg(pixels: Picture, quality: int = 50) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def resized(pixels: Picture, factor: float) -> Picture:
    image = Image.fromarray(pixels)
    size = (max(8, round(image.width * factor)), max(8, round(image.height * factor)))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def flipped(pixels: Picture, turn: int) -> Picture:
    """One of the eight orientations."""
    turned = np.rot90(pixels, turn % 4)
    return np.ascontiguousarray(turned[:, ::-1] if turn >= 4 else turned)


def windowed(pixels: Picture, rng: Random) -> Picture:
    """Another window: up to a tenth of the pixels is cut off at either end."""
    low, high = np.percentile(pixels, [rng.uniform(0, 10), rng.uniform(90, 100)])
    return _bytes((pixels.astype(np.float64) - low) * 255 / max(high - low, 10))


NEAR: dict[str, Callable[[Picture, Random], Picture]] = {
    "jpeg": lambda pixels, rng: jpeg(pixels),
    "resize": lambda pixels, rng: resized(pixels, float(rng.choice([0.5, 0.7, 1.4, 2.0]))),
    "flip": lambda pixels, rng: flipped(pixels, int(rng.integers(1, 8))),
    "window": windowed,
}
