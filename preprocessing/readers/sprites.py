"""Masks cut out to their boxes, and the table that says where each belongs."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.cards import LabelRule, Sprites
from preprocessing.readers import decoding, raster

_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Sprite:
    """One row as the table has it: class in lower case, the mask's file, where its upper left corner goes in pixels.

    What a row says is judged when its picture is read, so that an odd row refuses one picture and no others.
    """

    name: str
    mask: str
    left: str
    top: str


def read_sprites(path: Path, rule: LabelRule) -> dict[str, list[Sprite]]:
    """File name of a picture -> its rows. Raises CaseError `unreadable` (a column is not there), `too_large`."""
    assert isinstance(rule, Sprites)
    with decoding(path, "a table"):
        stat = path.stat()
    if stat.st_size > _MAX_BYTES:
        raise CaseError("too_large", expected=f"at most {_MAX_BYTES} bytes", found=f"{stat.st_size}")
    columns = (rule.image, rule.mask, rule.label, rule.left, rule.top)
    return _read(path, stat.st_size, stat.st_mtime_ns, stat.st_ino, columns)


def there(root: Path, table: str, mask: str) -> str | None:
    """The mask's file below `root`, or None where it is not there, or not below it."""
    name = PurePosixPath(mask.replace("\\", "/"))
    if not mask or name.is_absolute() or ".." in name.parts:
        return None
    file = (PurePosixPath(table).parent / name).as_posix()
    return file if (root / file).is_file() else None


def placed(path: Path, sprite: Sprite, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """A sprite's mask (height, width) where it belongs. CaseError `mask_size` where it does not lie in the picture."""
    pixels = raster.read_label(path, "colour")
    marked = pixels.any(axis=2) if pixels.ndim == 3 else pixels > 0
    with decoding(path, "a row of the table"):
        top, left = int(sprite.top), int(sprite.left)
    bottom, right = top + marked.shape[0], left + marked.shape[1]
    if top < 0 or left < 0 or bottom > shape[0] or right > shape[1]:
        raise CaseError(
            "mask_size",
            expected=f"a mask within {shape[1]} x {shape[0]} pixels (width x height), as the image",
            found=f"one from ({left}, {top}) to ({right}, {bottom})",
            fix="Find the mask that was drawn on this image",
        )
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = marked
    return mask


@lru_cache(maxsize=2)
def _read(path: Path, size: int, mtime_ns: int, inode: int, columns: tuple[str, ...]) -> dict[str, list[Sprite]]:
    found: dict[str, list[Sprite]] = defaultdict(list)
    with decoding(path, "a table"), path.open(encoding="utf-8-sig", newline="") as handle:
        for row in csv.DictReader(handle):
            image, mask, name, left, top = (row[column] for column in columns)
            found[image].append(Sprite(name.strip().lower(), mask.strip(), left, top))
    return dict(found)
