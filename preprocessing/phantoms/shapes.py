"""Shapes and textures that the phantoms are drawn with. Axis order is (z, y, x) or (y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

Mask = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.float32]


def generator(seed: int, name: str, case: int) -> np.random.Generator:
    """The random numbers of one case: independent of how many cases there are and of their order."""
    return np.random.default_rng([seed, *name.encode(), case])


def ellipsoid(shape: Sequence[int], centre: npt.ArrayLike, radii: npt.ArrayLike) -> Mask:
    """Voxels whose centre lies in an axis-aligned ellipsoid; centre and radii in voxels, one per axis."""
    grids = np.ogrid[tuple(slice(0, size) for size in shape)]
    terms = (
        ((grid - middle) / radius) ** 2
        for grid, middle, radius in zip(grids, np.asarray(centre), np.asarray(radii), strict=True)
    )
    return np.asarray(sum(terms) <= 1.0)


def blob(
    shape: tuple[int, int],
    centre_yx: tuple[float, float],
    radii_yx: tuple[float, float],
    angle: float,
    waves: Sequence[tuple[int, float, float]] = (),
) -> Mask:
    """A turned ellipse (angle in radians) whose edge swings by `waves` of (number, height, phase)."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    dy, dx = y - centre_yx[0], x - centre_yx[1]
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / radii_yx[1]
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / radii_yx[0]
    turn = np.arctan2(across, along)
    edge = 1.0 + sum(height * np.cos(number * turn + phase) for number, height, phase in waves)
    return np.asarray(np.hypot(along, across) <= edge)


def texture(rng: np.random.Generator, shape: Sequence[int], sigma: float) -> Grey:
    """Smooth random texture with mean 0 and standard deviation 1; `sigma` in voxels."""
    rough = gaussian_filter(rng.standard_normal(tuple(shape), dtype=np.float32), sigma, mode="wrap")
    return np.asarray((rough - rough.mean()) / rough.std(), dtype=np.float32)


def bias_field(rng: np.random.Generator, shape: Sequence[int], strength: float) -> Grey:
    """A slow multiplicative drift around 1, as a receive coil leaves it."""
    field = np.ones(tuple(shape), dtype=np.float32)
    for axis, size in enumerate(shape):
        line = 1.0 + strength * rng.uniform(-1, 1) * np.linspace(-1, 1, size, dtype=np.float32)
        field *= line.reshape([-1 if axis == each else 1 for each in range(len(shape))])
    return field


def to_bytes(image: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Clip to 0…255 and round."""
    return np.asarray(np.clip(np.rint(image), 0, 255), dtype=np.uint8)


def save_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write (height, width) grey or (height, width, 3) RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG", compress_level=6)


def cut_short(path: Path, share: float) -> None:
    """Keep the first `share` of a file's bytes, as an interrupted copy would."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
