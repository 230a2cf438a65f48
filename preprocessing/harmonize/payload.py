"""Encoded pixels: JPEG that came as JPEG passes through without its metadata, all else is in the build's codec.

What the codecs are, and how they are read again, says `preprocessing.schema.pixels`.

The PNG is written for speed: one fixed filter and libdeflate's fastest level take a quarter of the time of
Pillow's level 1 or less, at about its size, and decode faster. Any PNG reader opens it.
"""

from __future__ import annotations

import struct
import zlib

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from preprocessing.schema.pixels import CODECS, decode, zstd_payload

__all__ = ["decode", "encode", "png", "strip_jpeg"]

_APP0, _APP14, _APP15, _COMMENT = 0xE0, 0xEE, 0xEF, 0xFE
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE = {1: 0, 3: 2}  # channels -> grey, truecolour
_FILTER_SUB = 1  # each byte less the same channel's byte to its left
_DEFLATE_LEVEL = 1
_STANDALONE = {0x01, *range(0xD0, 0xD8)}


def encode(pixels: NDArray[np.uint8], codec: str) -> bytes:
    """Payload of (height, width) or (height, width, 3) bytes in one of `CODECS`, all of which lose nothing."""
    if codec == "png":
        return png(pixels)
    _check(pixels, codec)
    if codec == "zstd":
        return zstd_payload(pixels)
    if codec == "htj2k":
        written: bytes = imagecodecs.htj2k_encode(np.ascontiguousarray(pixels), reversible=True)
        return written
    msg = f"image_codec: expected one of {', '.join(CODECS)}, found {codec!r}"
    raise ValueError(msg)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """PNG (ISO/IEC 15948) of (height, width) or (height, width, 3) bytes, without any metadata."""
    channels = _check(pixels, "png")
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, width * channels)
    filtered = np.empty((height, 1 + width * channels), dtype=np.uint8)
    filtered[:, 0] = _FILTER_SUB
    filtered[:, 1 : 1 + channels] = rows[:, :channels]
    np.subtract(rows[:, channels:], rows[:, :-channels], out=filtered[:, 1 + channels :])  # modulo 256, as it must be
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPE[channels], 0, 0, 0)
    data = imagecodecs.deflate_encode(filtered, level=_DEFLATE_LEVEL)
    return b"".join((_PNG_SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", data), *_chunk(b"IEND", b"")))


def _check(pixels: NDArray[np.uint8], codec: str) -> int:
    """The number of channels; ValueError for an array that is no picture of the contract."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in _COLOUR_TYPE or 0 in pixels.shape:
        msg = (
            f"a payload ({codec}) is made of uint8 pixels (height, width) or (height, width, 3), "
            f"found {pixels.dtype} {pixels.shape}"
        )
        raise ValueError(msg)
    return channels


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def strip_jpeg(data: bytes) -> bytes | None:
    """The same JPEG without EXIF, comments, profiles and trailing bytes; None where it does not parse.

    Keeps APP0 where it is JFIF and APP14 where it is Adobe, since both say how to decode colours
    (ITU-T T.81 annex B for the markers).
    """
    if data[:2] != bytes((0xFF, _SOI)):
        return None
    out = bytearray(data[:2])
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _EOI:
            return bytes(out) + bytes((0xFF, _EOI))
        if marker in _STANDALONE:
            out += data[at : at + 2]
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at:end]
        if not _is_metadata(marker, segment):
            out += segment
        at = end
        if marker == _SOS:
            stop = _scan_end(data, at)
            out += data[at:stop]
            at = stop
    if data[at : at + 2] == bytes((0xFF, _EOI)):
        return bytes(out) + bytes((0xFF, _EOI))
    return None


def _is_metadata(marker: int, segment: bytes) -> bool:
    if marker == _APP0:
        return segment[4:9] != b"JFIF\0"
    if marker == _APP14:
        return segment[4:9] != b"Adobe"
    return _APP0 < marker <= _APP15 or marker == _COMMENT


def _scan_end(data: bytes, at: int) -> int:
    """Where entropy-coded data ends: the next marker that is neither stuffing nor a restart."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return len(data)
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7:
            return at
        at += 2
