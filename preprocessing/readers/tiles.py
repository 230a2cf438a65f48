"""Regions of large pictures: whole-slide and other tiled or stripped TIFF, read tile by tile.

Only the segments of the file that a region touches are decoded, by tifffile; nothing is held between two
regions. Other formats have no regions: they are decoded whole, up to the limit of a picture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.cards import Tiles
from preprocessing.readers import MAX_PIXELS, decoding, raster, tiff
from preprocessing.readers.sniff import format_of, head_of

_MAX_SLIDE_PIXELS = 1 << 40
# Coarser than this is a default of 72 dots an inch, and no microscope.
_COARSEST_MPP = 20.0
_MPP = re.compile(r"\bMPP\s*=\s*([0-9.]+)")
_OME_MPP = re.compile(r'PhysicalSizeX="([0-9.eE+-]+)"(?![^>]*PhysicalSizeXUnit="(?!µm|um|&#181;m|\xb5m))')


@dataclass(frozen=True)
class Slide:
    """An open picture with its levels, finest first: (height, width) each; `mpp` of level 0, None where unknown."""

    path: Path
    sizes: tuple[tuple[int, int], ...]
    mpp: float | None
    pages: tuple[Any, ...] = ()
    whole: NDArray[Any] | None = field(default=None, repr=False)

    def scale(self, level: int) -> float:
        """How many pixels of level 0 are one pixel of `level`."""
        return self.sizes[0][1] / self.sizes[level][1]

    def read(self, level: int, y: int, x: int, height: int, width: int, palette: raster.Palette) -> NDArray[Any]:
        """Pixels of a region within a level, (height, width) or (height, width, 3). Raises CaseError `unreadable`."""
        if self.whole is not None:
            return self.whole[y : y + height, x : x + width]
        page = self.pages[level]
        with decoding(self.path, "a region of a TIFF"):
            region = _region(page, y, x, height, width)
            return raster.channels(_coloured(page, region, palette))


@contextmanager
def open_slide(path: Path, palette: raster.Palette = "colour") -> Iterator[Slide]:
    """Open a large picture. Raises CaseError `unreadable`, `too_large`, `channels`, `pages`."""
    if format_of(head_of(path)) != "tiff":
        whole = raster.read_image(path).pixels if palette == "colour" else raster.read_label(path, palette)
        yield Slide(path, ((whole.shape[0], whole.shape[1]),), None, whole=whole)
        return
    with decoding(path, "a TIFF"):
        opened = tifffile.TiffFile(path)
    with opened:
        with decoding(path, "a TIFF"):
            series = tiff.main_series(opened)
            pages = tuple(level.pages[0] for level in series.levels)
            for page in pages:
                tiff.check_page(page, _MAX_SLIDE_PIXELS)
                _check_segments(page)
            sizes = tuple((int(page.imagelength), int(page.imagewidth)) for page in pages)
            mpp = _mpp(pages[0], opened)
        yield Slide(path, sizes, mpp, pages)


def level_for(slide: Slide, tiles: Tiles) -> int:
    """The level that the card asks for. CaseError `resolution` where there is none."""
    wanted = tiles.mpp
    if wanted is None:
        if tiles.level >= len(slide.sizes):
            raise CaseError("resolution", expected=f"a level {tiles.level}", found=f"{len(slide.sizes)} level(s)")
        return tiles.level
    if slide.mpp is None:
        raise CaseError(
            "resolution",
            expected=f"a picture of {wanted} micrometres a pixel",
            found="a file that does not say its resolution",
            fix="Give the card a level instead: Tiles(level=0)",
        )
    found = [slide.mpp * slide.scale(level) for level in range(len(slide.sizes))]
    best = min(range(len(found)), key=lambda level: abs(math.log(found[level] / wanted)))
    if abs(found[best] / wanted - 1) > 0.2:
        listed = ", ".join(f"{value:.3f}" for value in found)
        raise CaseError("resolution", expected=f"{wanted} micrometres a pixel within a fifth", found=listed)
    return best


def origins(height: int, width: int, size: int) -> Iterator[tuple[int, int]]:
    """Upper left corners (y, x) of the tiles that cover a level, row by row."""
    for y in range(0, height, size):
        for x in range(0, width, size):
            yield y, x


def _check_segments(page: Any) -> None:
    """CaseError `too_large` where one compressed segment alone is as large as no picture may be."""
    tall, wide = _segment_size(page)
    if tall * wide > MAX_PIXELS and not _is_plain(page):
        raise CaseError(
            "too_large",
            expected=f"tiles or strips of at most {MAX_PIXELS} pixels",
            found=f"one of {wide} x {tall}",
            fix="Store it as a tiled TIFF",
        )


def _segment_size(page: Any) -> tuple[int, int]:
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return int(min(page.rowsperstrip, page.imagelength)), int(page.imagewidth)


def _is_plain(page: Any) -> bool:
    """Whether the pixels lie in the file as in an array."""
    return bool(page.is_memmappable)


def _region(page: Any, y: int, x: int, height: int, width: int) -> NDArray[Any]:
    """Pixels of a region, samples last: from a view of the file, or pasted from the segments that it touches."""
    if _is_plain(page):
        file = page.parent.filehandle
        kind = np.dtype(f"{page.parent.byteorder}{page.dtype.char}")
        view = np.memmap(file.path, kind, "r", int(page.dataoffsets[0]), page.shape)
        contiguous = np.moveaxis(view, 0, -1) if str(page.axes).startswith("S") else view
        return np.array(contiguous[y : y + height, x : x + width])
    tall, wide = _segment_size(page)
    down, across = -(-int(page.imagelength) // tall), -(-int(page.imagewidth) // wide)
    separate = int(page.planarconfig) == 2 and int(page.samplesperpixel) > 1
    samples = int(page.samplesperpixel)
    region = np.full((height, width, samples), page.nodata, dtype=page.dtype)
    file = page.parent.filehandle
    for plane in range(samples if separate else 1):
        for row in range(y // tall, min(-(-(y + height) // tall), down)):
            for column in range(x // wide, min(-(-(x + width) // wide), across)):
                number = (plane * down + row) * across + column
                count = int(page.databytecounts[number])
                if count == 0:  # a tile that was never written: the picture has nothing there
                    continue
                file.seek(int(page.dataoffsets[number]))
                segment, _, _ = page.decode(
                    file.read(count), number, jpegtables=page.jpegtables, jpegheader=page.jpegheader
                )
                if segment is None:
                    continue
                piece = segment[0]
                top, left = row * tall, column * wide
                y0, x0 = max(y, top), max(x, left)
                y1 = min(y + height, top + piece.shape[0])
                x1 = min(x + width, left + piece.shape[1])
                target = region[y0 - y : y1 - y, x0 - x : x1 - x]
                cut = piece[y0 - top : y1 - top, x0 - left : x1 - left]
                if separate:
                    target[..., plane] = cut[..., 0]
                else:
                    target[...] = cut
    return region


def _coloured(page: Any, region: NDArray[Any], palette: raster.Palette) -> NDArray[Any]:
    """A region as `tiff.shown` would show it, but not turned: a slide has no orientation tag worth following."""
    flat = region[..., 0] if region.ndim == 3 and region.shape[2] == 1 else region
    return tiff.coloured(page, flat, palette)


def _mpp(page: Any, opened: tifffile.TiffFile) -> float | None:
    """Micrometres a pixel, as Aperio, OME or the resolution tags say it; None where none says a plausible one."""
    text = str(page.description or "")
    match = _MPP.search(text) or (_OME_MPP.search(text) if opened.is_ome else None)
    if match:
        value = float(match.group(1))
        return value if 0 < value < _COARSEST_MPP else None
    resolution, unit = page.tags.get("XResolution"), page.tags.get("ResolutionUnit")
    if resolution is None or unit is None or int(unit.value) not in (2, 3):
        return None
    above, below = resolution.value
    if not above or not below:
        return None
    value = (25_400.0 if int(unit.value) == 2 else 10_000.0) * below / above
    return value if value < _COARSEST_MPP else None
