"""The pictures in shards: every payload says by its first bytes what it is, and `decode` reads them all.

    jpeg    a file that came as JPEG, without its metadata: the only one that has lost anything, before it came
    png     opens everywhere
    htj2k   High-Throughput JPEG 2000 (ITU-T T.814), reversible; needs imagecodecs
    zstd    the pixels themselves behind a short header, compressed by pyarrow's own Zstandard (RFC 8878)

`CODECS` are those that a build may choose for what is no JPEG (`harmonize.image_codec` in `params.yaml`).
Only Pillow, numpy and pyarrow are imported at module level: the training core decodes through this module.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

CODECS = ("png", "htj2k", "zstd")
_HTJ2K = b"\xff\x4f\xff\x51"  # start of a codestream (SOC, SIZ); the number of components lies 40 bytes in
_COMPONENTS = struct.Struct(">40xH")
_ZSTD = b"SFZ1"
_HEADER = struct.Struct("<4sIIB")  # magic, height, width, channels; the Zstandard frame follows
_ZSTD_LEVEL = 1
_CHANNELS = {"L": 1, "RGB": 3}


class MissingCodecError(ImportError):
    """A payload needs a decoder that this machine does not have; the message names the fix."""


def zstd_payload(pixels: Pixels) -> bytes:
    """Payload `zstd` of (height, width) or (height, width, 3) bytes."""
    height, width, channels = pixels.shape if pixels.ndim == 3 else (*pixels.shape, 1)
    packed: bytes = pa.Codec("zstd", _ZSTD_LEVEL).compress(np.ascontiguousarray(pixels).data, asbytes=True)
    return _HEADER.pack(_ZSTD, height, width, channels) + packed


def decode(payload: bytes, enough_px: int | None = None) -> Pixels:
    """Pixels of a payload: (height, width), or (height, width, 3) where it has colours.

    With `enough_px` a JPEG may come at a half, a quarter or an eighth of its size, as long as no side is shorter
    than that: several times faster, for figures and thumbnails. Raises ValueError or OSError for bytes that are no
    payload, MissingCodecError where a decoder is not installed.
    """
    found = _own(payload)
    if found is not None:
        return found
    with Image.open(io.BytesIO(payload)) as image:
        if enough_px is not None:
            image.draft(image.mode, (enough_px, enough_px))
        image.load()
        return array_of(image)


def array_of(picture: Image.Image) -> NDArray[Any]:
    """A decoded picture of Pillow's as an array, which is `numpy.asarray` but of grey pixels makes no copy."""
    if picture.mode == "L":
        try:
            (flat,) = (each for each in pa.array(picture).buffers() if each is not None)
            return np.frombuffer(flat, np.uint8, picture.width * picture.height).reshape(picture.height, picture.width)
        except ValueError:  # a large picture lies in several blocks of memory
            pass
    copied: NDArray[Any] = np.asarray(picture)
    return copied


def open_picture(payload: bytes) -> Image.Image:
    """A payload as a picture of Pillow's, of PNG and JPEG not decoded yet. Raises as `decode`."""
    found = _own(payload)
    return Image.open(io.BytesIO(payload)) if found is None else Image.fromarray(found)


def channels_of(payload: bytes) -> int:
    """1 or 3, from the header alone."""
    if payload.startswith(_ZSTD):
        return int(_HEADER.unpack_from(payload)[3])
    if payload.startswith(_HTJ2K):
        return int(_COMPONENTS.unpack_from(payload)[0])
    with Image.open(io.BytesIO(payload)) as image:
        return _CHANNELS.get(image.mode, 3)


def _own(payload: bytes) -> Pixels | None:
    """Pixels of what is neither PNG nor JPEG; None for those two, and for what is no payload at all."""
    if payload.startswith(_ZSTD):
        return _unpacked(payload)
    if payload.startswith(_HTJ2K):
        try:
            import imagecodecs
        except ImportError as error:
            msg = (
                "a picture is stored as HTJ2K, which imagecodecs decodes, and it is not installed here. "
                "Either `pip install imagecodecs`, or ingest with `image_codec: zstd` (section harmonize of "
                "params.yaml), which pyarrow decodes by itself"
            )
            raise MissingCodecError(msg) from error
        decoded: Pixels = imagecodecs.htj2k_decode(payload)
        return decoded
    return None


def _unpacked(payload: bytes) -> Pixels:
    _, height, width, channels = _HEADER.unpack_from(payload)
    size = height * width * channels
    try:
        raw = pa.Codec("zstd").decompress(memoryview(payload)[_HEADER.size :], size)
    except (OSError, pa.ArrowInvalid) as error:
        msg = f"a zstd payload of {height} x {width} x {channels} pixels does not unpack: {error}"
        raise ValueError(msg) from error
    flat = np.frombuffer(raw, dtype=np.uint8)
    if flat.size != size:
        msg = f"a zstd payload: expected {height} x {width} x {channels} bytes of pixels, found {flat.size}"
        raise ValueError(msg)
    return flat.reshape((height, width) if channels == 1 else (height, width, channels))
