"""What the values or colours of unknown label files say: guessed from a few of them, and said as guesses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from infra.errors import CaseError
from preprocessing.readers import DECODER_ERRORS, kind_of, nifti_family, raster

MOST_VALUES = 40  # a label has few; a photograph has many
MANY_IDS = 5  # values that differ from file to file, each one piece, are instance numbers
_NEAR_END = 40  # JPEG noise of a mask lies this near to black or white


@dataclass
class Seen:
    """What the label files hold: values with their count of pixels, or colours; `files` were read."""

    values: dict[int, int] = field(default_factory=dict)
    colours: dict[tuple[int, int, int], int] = field(default_factory=dict)
    files: int = 0
    noisy: bool = False  # grey noise around black and white, as JPEG leaves it
    numbered: int = 0  # files whose values are 1, 2, … and each one piece
    sets: list[frozenset[int]] = field(default_factory=list)


def pixels_of(path: Path) -> NDArray[Any] | None:
    """A picture or volume as stored; None where it cannot be read."""
    try:
        if kind_of(path.name) == "volume":
            return nifti_family.array_of(nifti_family.read_volume(path))
        return raster.read_label(path)
    except (CaseError, *DECODER_ERRORS):
        return None


def looks_like(pixels: NDArray[Any] | None) -> str:
    """ "mask", "image" or "unknown", by how many values there are and how they lie."""
    if pixels is None:
        return "unknown"
    fractions = np.issubdtype(pixels.dtype, np.floating)
    if fractions and (not np.isfinite(pixels).all() or not np.array_equal(pixels, np.rint(pixels))):
        return "image"
    if pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.dtype == np.uint8:
        few = len(np.unique(_packed(pixels))) <= MOST_VALUES
        return "mask" if few or _is_noisy_binary(pixels[..., 0]) else "image"
    values, counts = np.unique(pixels, return_counts=True)
    if len(values) <= 2 or _is_noisy_binary(pixels):
        return "mask"
    numbers = len(values) <= 5000 and int(values.min()) >= 0 and int(values.max()) <= 4 * len(values)
    flat = counts.max() / pixels.size > 0.05 and _flatness(pixels) > 0.8
    return "mask" if flat and (len(values) <= MOST_VALUES or numbers) else "image"


def look(paths: Iterable[Path]) -> Seen:
    """Read label files and put together what they hold."""
    seen = Seen()
    for path in paths:
        pixels = pixels_of(path)
        if pixels is None:
            continue
        seen.files += 1
        if pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.dtype == np.uint8:
            if not (pixels[..., 0] == pixels[..., 1]).all() or not (pixels[..., 0] == pixels[..., 2]).all():
                _count_colours(seen, pixels)
                continue
            pixels = pixels[..., 0]
        if _is_noisy_binary(pixels):
            seen.noisy = seen.noisy or len(np.unique(pixels)) > 2
            white = pixels if pixels.dtype == bool else pixels > 127
            pixels = white.astype(np.uint8) * np.uint8(255)
        values, counts = np.unique(pixels.astype(np.int64), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            seen.values[value] = seen.values.get(value, 0) + count
        ids = [value for value in values.tolist() if value]
        seen.sets.append(frozenset(ids))
        seen.numbered += len(ids) >= MANY_IDS and _each_one_piece(pixels, ids)
    return seen


def is_numbered(seen: Seen) -> bool:
    """Whether the values number objects rather than name structures."""
    return seen.numbered > seen.files / 2 and (len(set(seen.sets)) > 1 or len(seen.values) > MOST_VALUES)


def _count_colours(seen: Seen, pixels: NDArray[np.uint8]) -> None:
    packed, counts = np.unique(_packed(pixels), return_counts=True)
    order = np.argsort(-counts)[: 4 * MOST_VALUES]
    for colour, count in zip(packed[order].tolist(), counts[order].tolist(), strict=True):
        key = (colour >> 16, (colour >> 8) & 255, colour & 255)
        if any(key):
            seen.colours[key] = seen.colours.get(key, 0) + count


def clustered(colours: dict[tuple[int, int, int], int], tolerance: int) -> list[tuple[int, int, int]]:
    """The commonest colours that lie further than twice the tolerance apart, commonest first; black is no colour."""
    kept: list[tuple[int, int, int]] = []
    for colour in sorted(colours, key=lambda each: -colours[each]):
        if all(
            max(abs(a - b) for a, b in zip(colour, other, strict=True)) > 2 * tolerance for other in [*kept, (0, 0, 0)]
        ):
            kept.append(colour)
    return kept


def _packed(pixels: NDArray[np.uint8]) -> NDArray[Any]:
    wide = pixels.astype(np.uint32)
    packed: NDArray[Any] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return packed


def _is_noisy_binary(pixels: NDArray[Any]) -> bool:
    if pixels.dtype == bool:
        return True
    if pixels.dtype != np.uint8 or int(pixels.max(initial=0)) < 255 - _NEAR_END:
        return False
    between = (pixels > _NEAR_END) & (pixels < 255 - _NEAR_END)
    return float(between.mean()) < 0.02 and bool((pixels <= _NEAR_END).any())


def _flatness(pixels: NDArray[Any]) -> float:
    """Share of neighbours along the last axis that are equal: labels are made of plain areas."""
    return float((pixels[..., 1:] == pixels[..., :-1]).mean()) if pixels.shape[-1] > 1 else 1.0


def _each_one_piece(pixels: NDArray[Any], ids: list[int]) -> bool:
    """Whether nearly every value is one connected piece."""
    if pixels.ndim != 2 or len(ids) > 2000:
        return len(ids) > 2000
    boxes = ndimage.find_objects(pixels.astype(np.int32), max_label=max(ids)) if max(ids) < 100_000 else []
    pieces = [
        ndimage.label(pixels[boxes[value - 1]] == value, np.ones((3, 3)))[1] for value in ids if value <= len(boxes)
    ]
    return bool(pieces) and sum(count == 1 for count in pieces) >= 0.9 * len(ids)
