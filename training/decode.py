"""Payloads of shard rows to arrays: the one place where training decodes."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infra.errors import DataError
from preprocessing.schema import pixels, rle

Pixels = NDArray[np.uint8]
_PNG = b"\x89PNG\r\n\x1a\n"
_PILLOW = (b"\x89PNG", b"\xff\xd8")  # PNG and JPEG, which Pillow decodes without a detour over an array
_IHDR = struct.Struct(">12x4sIIBBBBB")  # after its length: width, height, depth, colour, and three that must be 0
_MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 0  # of what claims to be larger Pillow says what it thinks
_CHANNELS = {0: 1, 2: 3}  # of PNG's colour types: grey and RGB


def decode_image(payload: bytes, size: int | None = None, preprocessing: str = "pillow") -> Pixels:
    """Encoded pixels to (height, width, channels) uint8; resized to (size, size) with antialiasing.

    `preprocessing` (of a recipe, or of a model's config.json): `pillow`, or `official` for the resize of SAM3's own
    processor, of the picture at its full size.
    DataError where the decoder of the payload's codec is not installed.
    """
    if preprocessing == "official" and size is not None:
        return _officially(decode_image(payload), size)
    if (plain := _plain_png(payload)) is not None:
        array = plain
    elif payload.startswith(_PILLOW):
        array = pixels.array_of(_with_pillow(payload, size))
    else:
        try:
            array = pixels.decode(payload)
        except pixels.MissingCodecError as error:
            raise DataError(str(error)) from error
    if size is not None and array.shape[:2] != (size, size):
        array = np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BILINEAR))
    return array[..., None] if array.ndim == 2 else array


def _officially(picture: Pixels, size: int) -> Pixels:
    from training.sam3.preprocess import official_resized

    channels = picture.shape[-1]
    # three channels always, as in serving: which of torch's kernels runs depends on their number
    resized = official_resized(np.repeat(picture, 3, axis=-1) if channels == 1 else picture, size)
    return resized[..., :channels]


def _plain_png(payload: bytes) -> Pixels | None:
    """Pixels of a grey or RGB PNG of 8 bits, as ingest writes them, by imagecodecs' libpng: Pillow's, in half the time.

    None where imagecodecs is not installed, for any other picture and for a damaged one: those are left to Pillow, and
    so is what to say of them.
    """
    decode = _libpng()
    if decode is None or not payload.startswith(_PNG) or len(payload) < _IHDR.size:
        return None
    kind, width, height, depth, colour, *rest = _IHDR.unpack_from(payload)
    channels = _CHANNELS.get(colour)
    if kind != b"IHDR" or depth != 8 or channels is None or any(rest) or width * height > _MOST_PIXELS:
        return None
    try:
        found = decode(payload)
    except (ValueError, RuntimeError, MemoryError):
        return None
    # a picture with a colour that counts as transparent comes with one channel more
    return found if found.shape == ((height, width) if channels == 1 else (height, width, channels)) else None


@functools.cache
def _libpng() -> Callable[[bytes], Pixels] | None:
    try:
        import imagecodecs
    except ImportError:
        return None
    if not imagecodecs.PNG.available:
        return None
    decode: Callable[[bytes], Pixels] = imagecodecs.png_decode
    return decode


def _with_pillow(payload: bytes, size: int | None) -> Image.Image:
    with Image.open(io.BytesIO(payload)) as image:
        if size is not None:
            image.draft(image.mode, (size, size))  # JPEG: decode at a reduced size that is still large enough
        picture = image if image.mode in ("L", "RGB") else image.convert("RGB")
        if size is not None and picture.size != (size, size):
            return picture.resize((size, size), Image.Resampling.BILINEAR)
        picture.load()
        return picture


def coverage(mask: NDArray[np.bool_], size: int) -> Pixels:
    """Share of each cell that a mask covers, 0..255, on a (size, size) grid."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255, mode="L")
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX))


def instance_coverage(mask: NDArray[np.bool_], size: int) -> Pixels:
    """`coverage` of one object, scaled up where it would not be seen."""
    # a structure thinner than a cell never covers half of one
    cover = coverage(mask, size)
    peak = int(cover.max())
    return (cover * (255.0 / peak)).astype(np.uint8) if 0 < peak < 128 else cover


def union_of(counts: list[str], height: int, width: int) -> NDArray[np.bool_]:
    """Union (height, width) of run-length encoded masks, at the cost of one mask however many they are.

    Foreground runs are marked by +1 at their start and -1 after their end; where the running sum is above 0,
    at least one mask is. Raises ValueError as `rle.decode` does.
    """
    change = np.zeros(height * width + 1, dtype=np.int32)
    for text in counts:
        ends = np.cumsum(rle.string_to_counts(text))
        covered = int(ends[-1]) if ends.size else 0
        if covered != height * width:
            msg = f"RLE covers {covered} pixels, the image has {height} x {width} = {height * width}"
            raise ValueError(msg)
        # runs alternate, background first
        np.add.at(change, ends[0:-1:2], 1)
        np.add.at(change, ends[1::2], -1)
    return (np.cumsum(change[:-1]) > 0).reshape((width, height)).T
