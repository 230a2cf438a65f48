"""JPEG lossless, 12-bit JPEG and HTJ2K for pydicom, through imagecodecs; and a look at a codestream's own size.

pydicom brings JPEG baseline and JPEG 2000 (Pillow), JPEG-LS (pyjpegls) and RLE itself. Its other plug-ins
for these syntaxes are under the GPL or need a library of their own.
"""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from infra.errors import CaseError
from preprocessing.readers import MAX_PIXELS, too_large

_LABEL = "imagecodecs"
_JPEG = (uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_HTJ2K = (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
DECODER_DEPENDENCIES = dict.fromkeys((*_JPEG, *_HTJ2K), ("imagecodecs",))  # pydicom asks a plug-in for it

# Start of frame of a JPEG: SOF0 to SOF15 without DHT, JPG and DAC; SOF55 is JPEG-LS (T.81 B.2.2, T.87 C.2.2).
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}


def register() -> None:
    """Make the decoders known to pydicom, once."""
    for syntax in (*_JPEG, *_HTJ2K):
        decoder = get_decoder(syntax)
        if _LABEL not in decoder.available_plugins:
            decoder.add_plugin(_LABEL, (__name__, "decode_frame"))


def is_available(syntax: str) -> bool:
    """Whether this module decodes a transfer syntax; pydicom asks."""
    return syntax in DECODER_DEPENDENCIES


def decode_frame(source: bytes, runner: Any) -> bytearray:
    """One encoded frame to little-endian samples; pydicom calls it and checks the length of what comes back."""
    if runner.transfer_syntax in _HTJ2K:
        pixels = imagecodecs.htj2k_decode(source)
    elif runner.transfer_syntax == uid.JPEGExtended12Bit:
        pixels = imagecodecs.jpeg8_decode(source)
    else:
        pixels = imagecodecs.jpegsof3_decode(source)
    # a 16-bit frame of which fewer bits are stored comes back in bytes where the codestream says 8 bits
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    return bytearray(np.ascontiguousarray(pixels).tobytes())


def check_codestreams(dataset: Any) -> None:
    """CaseError unless each compressed frame is as large as the header says: a decoder trusts the codestream.

    A small header over a frame that claims 60,000 × 60,000 pixels would be allocated before anyone compares.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated or "PixelData" not in dataset:
        return
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frames = int(dataset.get("NumberOfFrames") or 1)
    for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
        found = codestream_size(frame)
        if found is None or found == (rows, columns):
            continue
        if found[0] * found[1] > MAX_PIXELS:
            raise too_large(found[0] * found[1], MAX_PIXELS, "pixels")
        raise CaseError(
            "unreadable",
            expected=f"frames of {rows} x {columns} pixels (rows x columns), as the header says",
            found=f"a compressed frame of {found[0]} x {found[1]}",
        )


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 codestream claims; None for another kind (RLE)."""
    at = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # SOC, SIZ: T.800 A.5.1
    if at >= 0 and len(frame) >= at + 24:
        width, height, left, top = (int.from_bytes(frame[at + k : at + k + 4], "big") for k in (8, 12, 16, 20))
        return height - top, width - left
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _SOF:
            return int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big")
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
