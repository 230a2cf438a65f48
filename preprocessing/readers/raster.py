"""2D pictures: PNG, JPEG, BMP, GIF, PNM, WebP, JPEG 2000 through Pillow, TIFF through tifffile; gz of all of these.

The content says what a file is, its name does not count. A header is judged before pixels are allocated.
What a picture shows is what a person sees: EXIF rotation is applied to images and to labels alike (a
label drawn on the unrotated pixels has another size, or was drawn on the wrong picture), alpha is left out.
Grey PNG of 2 and 4 bits comes scaled to 8 bits, as every decoder gives it; 1 bit comes as bool.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, Jpeg2KImagePlugin, WebPImagePlugin

from infra.errors import CaseError
from preprocessing.readers import MAX_PIXELS, decoding, judge, tiff, too_large
from preprocessing.readers.sniff import format_of, head_of, opened
from preprocessing.schema.pixels import array_of

# The limit is judged here, from the header, with our own message; Pillow's own is twice this.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# No PostScript, PSD or FITS: what a picture of a dataset is not, is not opened. Pillow loads the last two on import.
_PILLOW = ["PNG", "JPEG", "BMP", "GIF", "PPM", WebPImagePlugin.WebPImageFile.format,
           Jpeg2KImagePlugin.Jpeg2KImageFile.format]  # fmt: skip
_EXIF_ORIENTATION = 0x0112

Palette = Literal["index", "colour", "binary"]


@dataclass(frozen=True)
class Raster:
    """A decoded picture: (height, width) or (height, width, 3); `is_plain_jpeg` when its bytes may pass through."""

    pixels: NDArray[Any]
    is_plain_jpeg: bool


def read_image(path: Path) -> Raster:
    """Read a picture as it is meant to be seen: EXIF rotation applied, alpha and palette resolved.

    Returns bool, integer or float pixels, with as many bits as were stored. Raises CaseError
    (`unreadable`, `too_large`, `channels`, `pages`).
    """
    if format_of(head_of(path)) == "tiff":
        return Raster(channels(tiff.read_page(path, palette="colour")), is_plain_jpeg=False)
    with decoding(path, "a picture"), opened(path) as handle:
        deep = _deep_png(handle, path)
        if deep is not None:
            return Raster(channels(deep), is_plain_jpeg=False)
        with Image.open(handle, formats=_PILLOW) as image:
            _check(image, path)
            rotated = image.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1)
            plain = image.format == "JPEG" and image.mode in ("L", "RGB") and not rotated and _starts(path, b"\xff\xd8")
            image.load()
            upright = ImageOps.exif_transpose(image) if rotated else image
            if upright.mode in ("P", "PA"):
                upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
            elif upright.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
                upright = upright.convert("RGB")
            pixels = array_of(upright)
    return Raster(channels(pixels), plain)


def read_label(path: Path, palette: Palette = "index") -> NDArray[Any]:
    """Read a label picture as stored: (height, width) of bool, integers or floats, or (height, width, 3) uint8.

    A palette picture gives its indices (`index`), which are its classes; its colours (`colour`); or, for a
    mask (`binary`), its greys where the palette is grey, and whether the index is not 0 where it is not.
    Raises CaseError as `read_image`.
    """
    if format_of(head_of(path)) == "tiff":
        return channels(tiff.read_page(path, palette=palette))
    with decoding(path, "a label picture"), opened(path) as handle:
        deep = _deep_png(handle, path)
        if deep is not None:
            return channels(deep)
        with Image.open(handle, formats=_PILLOW) as image:
            _check(image, path)
            rotated = image.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1)
            image.load()
            upright = ImageOps.exif_transpose(image) if rotated else image
            pixels = array_of(upright)
            if upright.mode == "P" and palette != "index":
                colours: NDArray[Any] = np.asarray(upright.convert("RGB"))
                pixels = colours if palette == "colour" else mask_of_palette(pixels, colours)
    return channels(pixels)


def mask_of_palette(indices: NDArray[Any], colours: NDArray[Any]) -> NDArray[Any]:
    """A palette picture read as a mask: grey where all its colours are, else "index is not 0" of two indices."""
    grey = grey_if_equal(colours)
    if grey.ndim == 2:
        return grey
    used = np.unique(indices)
    return np.asarray(indices != 0) if used.size <= 2 and used[0] == 0 else colours


def channels(pixels: NDArray[Any]) -> NDArray[Any]:
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


def _check(image: Image.Image, path: Path) -> None:
    """Judge what the header claims; CaseError `too_large`, `pages`, or `channels` for what Pillow would truncate."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise too_large(width * height, MAX_PIXELS, "pixels")
    if image.format != "JPEG":  # a progressive JPEG of one colour is smaller than any other format makes it
        judge(width * height * len(image.getbands()), path.stat().st_size)
    frames = int(getattr(image, "n_frames", 1))
    if frames > 1 and image.format in ("GIF", "PNG", "WEBP"):
        raise tiff.pages_refused(frames)
    if image.format == "PPM" and image.mode == "RGB" and _maximum_of_pnm(head_of(path)) > 255:
        raise CaseError(
            "channels", expected="a colour PPM of 8 bits", found="16 bits a channel", fix="Store it as PNG or TIFF"
        )


def _deep_png(handle: BinaryIO, path: Path) -> NDArray[Any] | None:
    """Pixels of a 16-bit PNG with colour or alpha, of which Pillow would drop the lower 8 bits; None for others."""
    head = handle.read(33)
    handle.seek(0)
    if format_of(head) != "png" or len(head) < 33:
        return None
    width, height, bits, colour = struct.unpack_from(">IIBB", head, 16)
    if bits != 16 or colour == 0:
        return None
    if width * height > MAX_PIXELS:
        raise too_large(width * height, MAX_PIXELS, "pixels")
    judge(width * height * 8, path.stat().st_size)
    pixels: NDArray[Any] = imagecodecs.png_decode(handle.read())
    return pixels


def _maximum_of_pnm(head: bytes) -> int:
    """The largest value that a PNM header allows (third number after the magic), 0 where it cannot be told."""
    lines = [line.split(b"#")[0] for line in head[2:512].split(b"\n")]
    words = b" ".join(lines).split()
    return int(words[2]) if len(words) > 2 and words[2].isdigit() else 0


def _starts(path: Path, magic: bytes) -> bool:
    with path.open("rb") as handle:
        return handle.read(len(magic)) == magic
