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
    """One mask: its concept (None where the card ignores it), its file as the table says, where it goes in pixels."""

    concept: str | None
    mask: str
    left: int
    top: int


def read_sprites(path: Path, rule: LabelRule) -> dict[str, list[Sprite]]:
    """File name of a picture -> its sprites. Raises CaseError `unreadable`, `too_large`, `unknown_label`."""
    assert isinstance(rule, Sprites)
    with decoding(path, "a table"):
        stat = path.stat()
    if stat.st_size > _MAX_BYTES:
        raise CaseError("too_large", expected=f"at most {_MAX_BYTES} bytes", found=f"{stat.st_size}")
    said = (tuple(sorted(rule.names.items())), rule.ignore, (rule.image, rule.mask, rule.label, rule.left, rule.top))
    return _read(path, stat.st_size, stat.st_mtime_ns, stat.st_ino, said)


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
    bottom, right = sprite.top + marked.shape[0], sprite.left + marked.shape[1]
    if sprite.top < 0 or sprite.left < 0 or bottom > shape[0] or right > shape[1]:
        raise CaseError(
            "mask_size",
            expected=f"a mask within {shape[1]} x {shape[0]} pixels (width x height), as the image",
            found=f"one from ({sprite.left}, {sprite.top}) to ({right}, {bottom})",
            fix="Find the mask that was drawn on this image",
        )
    mask = np.zeros(shape, dtype=bool)
    mask[sprite.top : bottom, sprite.left : right] = marked
    return mask


@lru_cache(maxsize=2)
def _read(
    path: Path,
    size: int,
    mtime_ns: int,
    inode: int,
    said: tuple[tuple[tuple[str, str], ...], tuple[str, ...], tuple[str, ...]],
) -> dict[str, list[Sprite]]:
    names, ignore, (image, mask, label, left, top) = dict(said[0]), said[1], said[2]
    found: dict[str, list[Sprite]] = defaultdict(list)
    with decoding(path, "a table"), path.open(encoding="utf-8-sig", newline="") as handle:
        for row in csv.DictReader(handle):
            name = row[label].strip().lower()
            if name in ignore:
                found[row[image]].append(Sprite(None, "", 0, 0))
                continue
            if name not in names:
                known = ", ".join(repr(each) for each in names)
                raise CaseError("unknown_label", expected=f"rows of the classes {known}", found=f"one of {name!r}")
            found[row[image]].append(Sprite(names[name], row[mask], int(row[left]), int(row[top])))
    return dict(found)
