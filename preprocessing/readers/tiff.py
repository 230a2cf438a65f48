"""TIFF through tifffile: 1 to 64 bits, compressed, planar, palette; one page, or all pages as a stack.

BigTIFF, OME, ImageJ and slide scanners' files open too. Where a file has reduced copies of its picture
(a pyramid, a thumbnail), the picture is the full one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from infra.errors import CaseError
from preprocessing.readers import MAX_PIXELS, MAX_VOXELS, decoding, judge, too_large
from preprocessing.readers.sniff import opened

# What it has to say about a broken file arrives as a refusal; on the error stream it would be noise.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
_MIN_IS_WHITE, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
_MIN_IS_BLACK = 1
# TIFF 6.0, tag 274: where row 0 and column 0 are.
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda page: page[:, ::-1],
    3: lambda page: page[::-1, ::-1],
    4: lambda page: page[::-1],
    5: lambda page: page.swapaxes(0, 1),
    6: lambda page: np.rot90(page, -1),
    7: lambda page: page[::-1, ::-1].swapaxes(0, 1),
    8: lambda page: np.rot90(page),
}


def read_page(path: Path, palette: str = "colour") -> NDArray[Any]:
    """The one picture of a TIFF, (height, width) or (height, width, samples), as it is meant to be seen.

    `palette`: see `raster.read_label`. Raises CaseError `unreadable`, `too_large`, `channels`, `pages`.
    """
    with decoding(path, "a TIFF"), opened(path) as handle, tifffile.TiffFile(handle) as tiff:
        series = main_series(tiff)
        count = _planes(series)
        if count > 1:
            raise pages_refused(count)
        page = series.pages[0]
        check_page(page)
        return shown(page, np.asarray(page.asarray()), palette)


def read_stack(path: Path, index: int | None = None) -> NDArray[Any]:
    """All pages (page, height, width) or (page, height, width, samples), or the page `index` without that axis.

    Raises CaseError `unreadable`, `too_large`, `channels`, `image_missing`, `pages` where pages differ in size.
    """
    with decoding(path, "a TIFF stack"), opened(path) as handle, tifffile.TiffFile(handle) as tiff:
        series = main_series(tiff)
        count = _planes(series)
        if index is not None and index >= count:
            raise CaseError("image_missing", expected=f"a page {index}", found=f"{count} pages")
        page = series.pages[0]
        check_page(page)
        voxels = math.prod(int(size) for size in series.shape)
        if index is None and voxels > MAX_VOXELS:
            raise too_large(voxels, MAX_VOXELS, "voxels")
        judge(voxels * series.dtype.itemsize, path.stat().st_size)
        if index is not None and len(series.pages) == count:
            page = series.pages[index]
            page = page.aspage() if hasattr(page, "aspage") else page
            return shown(page, np.asarray(page.asarray()), "index")
        stack: NDArray[Any] = np.asarray(series.asarray())
        shape = _plane_shape(page)
        return stack.reshape((count, *shape))[slice(None) if index is None else index]


def stack_length(path: Path) -> int:
    """How many pages a stack has."""
    with decoding(path, "a TIFF stack"), opened(path) as handle, tifffile.TiffFile(handle) as tiff:
        return _planes(main_series(tiff))


def main_series(tiff: tifffile.TiffFile) -> Any:
    """The series of the full picture. CaseError `pages` where pages differ in size and none is a reduced copy."""
    series = list(tiff.series)
    if not series:
        raise CaseError("unreadable", expected="a TIFF with a page", found="no page")
    first = series[0]
    size = math.prod(first.shape)
    others = [each for each in series[1:] if not _is_side_picture(tiff, each, size)]
    if others:
        raise pages_refused(len(tiff.pages))
    return first


def check_page(page: Any, limit: int = MAX_PIXELS) -> None:
    """Judge a page's header before anything is allocated. CaseError `too_large`, `unreadable`, `channels`."""
    pixels = int(page.imagelength) * int(page.imagewidth)
    if pixels > limit:
        raise CaseError(
            "too_large",
            expected=f"at most {limit} pixels",
            found=f"a header that claims {page.imagewidth} x {page.imagelength}",
            fix="Read it by tiles: Layout(tiles=Tiles(…))",
        )
    size = page.parent.filehandle.size  # of a gzip file what it unpacked to
    stored = sum(int(count) for count in page.databytecounts)
    if stored > size or any(int(at) > size for at in page.dataoffsets):
        raise CaseError("unreadable", expected=f"{stored} bytes of pixels, as its header says", found=f"{size} in all")
    claimed = pixels * int(page.samplesperpixel) * int(page.bitspersample) // 8
    if int(page.compression) == 1 and stored < claimed:
        raise CaseError("unreadable", expected=f"{claimed} bytes of pixels", found=f"{stored}")
    judge(claimed, stored)
    if int(page.photometric) not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _YCBCR):
        raise CaseError("channels", expected="a grey, colour or palette TIFF", found=f"{page.photometric!s}")


def shown(page: Any, pixels: NDArray[Any], palette: str) -> NDArray[Any]:
    """Pixels of a page (height, width[, samples]): samples last, white as white, palette resolved, turned upright."""
    pixels = pixels.reshape(page.shape)
    if str(page.axes).startswith("S") and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = coloured(page, pixels, palette)
    tag = page.tags.get(274)
    turn = _TURNS.get(int(tag.value) if tag is not None and tag.value else 1)
    return np.ascontiguousarray(turn(pixels)) if turn else pixels


def coloured(page: Any, pixels: NDArray[Any], palette: str) -> NDArray[Any]:
    """Pixels (height, width[, samples]) of a page with white as white and its palette resolved, as `palette` says."""
    if int(page.photometric) == _MIN_IS_WHITE and (pixels.dtype == bool or palette == "colour"):
        if pixels.dtype == bool:
            pixels = ~pixels
        elif pixels.dtype.kind == "u":
            pixels = np.iinfo(pixels.dtype).max - pixels
    if int(page.photometric) == _PALETTE and palette != "index" and page.colormap is not None:
        from preprocessing.readers.raster import mask_of_palette

        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8).T[pixels]
        pixels = colours if palette == "colour" else mask_of_palette(pixels, colours)
    return pixels


def pages_refused(count: int) -> CaseError:
    """The refusal of several pages where one was expected."""
    return CaseError(
        "pages",
        expected="one page",
        found=f"{count} pages",
        fix='If they are a volume: Layout(axes="zyx"); if each is a picture: Layout(stacked=True)',
    )


def _planes(series: Any) -> int:
    """How many pictures a series has, however its pages are stored."""
    page = series.pages[0]
    plane = math.prod(_plane_shape(page))
    return max(1, math.prod(int(size) for size in series.shape) // max(plane, 1))


def _plane_shape(page: Any) -> tuple[int, ...]:
    shape = tuple(int(size) for size in page.shape)
    return (shape[1], shape[2], shape[0]) if str(page.axes).startswith("S") and len(shape) == 3 else shape


def _is_side_picture(tiff: tifffile.TiffFile, series: Any, size: int) -> bool:
    """A thumbnail, a label photograph, a mask of transparency: not a further picture of its own."""
    page = series.pages[0]
    scanner = any(getattr(tiff, f"is_{name}", False) for name in ("svs", "ndpi", "scn", "bif", "philips", "qpi"))
    return bool(page.is_reduced or page.is_mask or (scanner and math.prod(series.shape) < size))
