"""What a file is, by its first bytes: names lie, and archives come without endings."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Literal

from infra.errors import CaseError
from preprocessing.readers import kind_of

Kind = Literal["volume", "dicom", "raster", "array"]
Format = Literal[
    "png", "jpeg", "bmp", "gif", "pnm", "webp", "jpeg2000", "tiff",
    "npy", "zip", "hdf5", "mat5", "dicom", "nifti", "nrrd", "metaimage", "unknown",
]  # fmt: skip

_HEAD = 2048  # HDF5 may begin at 512, 1024, 2048 … after a block of another program, MATLAB's at 512
_GZIP_LIMIT_BYTES = 100 << 20  # it is unpacked into memory
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes of the header after the file's own 14
_PICTURES = {"png", "jpeg", "bmp", "gif", "pnm", "webp", "jpeg2000", "tiff"}
_KINDS: dict[Format, Kind] = {
    "npy": "array", "zip": "array", "hdf5": "array", "mat5": "array",
    "dicom": "dicom", "nifti": "volume", "nrrd": "volume", "metaimage": "volume",
}  # fmt: skip
_ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".hdf", ".mat")


def format_of(head: bytes) -> Format:
    """The format that the first bytes of a file (not compressed) announce, `unknown` where they announce none."""
    starts: tuple[tuple[bytes, Format], ...] = (
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff", "jpeg"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"II*\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"II+\0", "tiff"),
        (b"MM\0+", "tiff"),
        (b"\0\0\0\x0cjP  ", "jpeg2000"),
        (b"\xff\x4f\xff\x51", "jpeg2000"),
        (b"\x93NUMPY", "npy"),
        (b"PK\x03\x04", "zip"),
        (b"MATLAB 5.0 MAT-file", "mat5"),
        (b"NRRD000", "nrrd"),
    )
    if head[128:132] == b"DICM":  # first: the 128 bytes before it may be the start of a TIFF
        return "dicom"
    for start, name in starts:
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if any(head[at : at + 8] == b"\x89HDF\r\n\x1a\n" for at in (0, 512, 1024)) or head.startswith(b"MATLAB 7.3"):
        return "hdf5"
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "nifti"
    if head[:1] == b"P" and head[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6", b"f") and head[2:3].isspace():
        return "pnm"
    if head[:2] == b"BM" and len(head) >= 18 and struct.unpack_from("<I", head, 14)[0] in _BMP_HEADERS:
        return "bmp"
    if head.lstrip()[:10] == b"ObjectType" or head.lstrip()[:5] == b"NDims":
        return "metaimage"
    return "unknown"


def head_of(path: Path, count: int = _HEAD) -> bytes:
    """The first bytes of a file, unpacked where it is gzip; empty where it cannot be read."""
    try:
        with path.open("rb") as handle:
            head = handle.read(count)
            if head[:2] == b"\x1f\x8b":
                handle.seek(0)
                with gzip.open(handle) as inner:
                    return inner.read(count)
            return head
    except (OSError, EOFError, zlib.error):
        return b""


def kind_at(path: Path) -> Kind:
    """Which reader a file needs: by its content, and by its name where the content says nothing."""
    found = format_of(head_of(path))
    if found in _PICTURES:
        return "raster"
    if found != "unknown":
        return _KINDS[found]
    if path.name.lower().endswith(_ARRAY_SUFFIXES):
        return "array"
    named: Kind = kind_of(path.name)  # type: ignore[assignment]
    return named


def opened(path: Path) -> BinaryIO:
    """The file, or the content of a gzip file in memory. Raises CaseError `too_large`."""
    handle = path.open("rb")
    start = handle.read(2)
    handle.seek(0)
    if start != b"\x1f\x8b":
        return handle
    with handle, gzip.open(handle) as inner:
        content = inner.read(_GZIP_LIMIT_BYTES + 1)
    if len(content) > _GZIP_LIMIT_BYTES:
        raise CaseError(
            "too_large",
            expected=f"a gzip file of at most {_GZIP_LIMIT_BYTES >> 20} MiB of content",
            found="one that unpacks to more",
            fix="Unpack it",
        )
    return io.BytesIO(content)
