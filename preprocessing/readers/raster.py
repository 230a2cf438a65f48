"""2D pictures: PNG, JPEG, BMP, TIFF, GIF, through Pillow and tifffile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from infra.errors import CaseError
from preprocessing.readers import MAX_PIXELS, decoding, too_large

# The limit is judged here, from the header, with our own message; Pillow's own is twice this.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
_TIFF = (".tif", ".tiff")
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Raster:
    """A decoded picture: (height, width) or (height, width, 3); `is_plain_jpeg` when its bytes may pass through."""

    pixels: NDArray[Any]
    is_plain_jpeg: bool


def read_image(path: Path) -> Raster:
    """Read a picture as it is meant to be seen: EXIF rotation applied, alpha and palette resolved.

    Returns bool, uint8 or uint16 pixels. Raises CaseError (`unreadable`, `too_large`, `channels`).
    """
    if path.suffix.lower() in _TIFF:
        return Raster(_channels(_read_tiff(path)), is_plain_jpeg=False)
    with decoding(path, "a picture"), Image.open(path) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise too_large(width * height, MAX_PIXELS, "pixels")
        rotated = image.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1)
        plain = image.format == "JPEG" and image.mode in ("L", "RGB") and not rotated
        image.load()
        upright = ImageOps.exif_transpose(image) if rotated else image
        if upright.mode == "P":
            upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
        elif upright.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            upright = upright.convert("RGB")
        pixels: NDArray[Any] = np.asarray(upright)
    return Raster(_channels(pixels), plain)


def read_label(path: Path) -> NDArray[Any]:
    """Read a label picture as stored: (height, width) of bool or integers, or (height, width, 3) uint8.

    A palette picture gives its indices, which are its classes.
    """
    if path.suffix.lower() in _TIFF:
        return _channels(_read_tiff(path))
    with decoding(path, "a label picture"), Image.open(path) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise too_large(width * height, MAX_PIXELS, "pixels")
        image.load()
        pixels: NDArray[Any] = np.asarray(image)
    return _channels(pixels)


def _read_tiff(path: Path) -> NDArray[Any]:
    with decoding(path, "a TIFF"), tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        count = int(np.prod(page.shape[:2]))
        if count > MAX_PIXELS:
            raise too_large(count, MAX_PIXELS, "pixels")
        if len(tiff.pages) > 1:
            raise CaseError("pages", expected="one page", found=f"{len(tiff.pages)} pages")
        pixels: NDArray[Any] = np.asarray(page.asarray())
    return pixels


def _channels(pixels: NDArray[Any]) -> NDArray[Any]:
    """Drop alpha, and store grey as one channel; CaseError for any other channel count."""
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = pixels[..., : pixels.shape[2] - 1]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3) or 0 in pixels.shape:
        raise CaseError("channels", expected="1 or 3 channels", found=f"an array of shape {pixels.shape}")
    return pixels


def grey_if_equal(pixels: NDArray[Any]) -> NDArray[Any]:
    """One channel where the three are equal everywhere: grey pictures stored as RGB."""
    if pixels.ndim == 3:
        first = pixels[..., 0]
        if np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2]):
            return np.ascontiguousarray(first)
    return pixels
