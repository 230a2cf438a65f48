"""Is a NIfTI file all there? ITK fills what is missing at its end with zeros and says nothing.

A copy that broke off would otherwise become a volume with an empty top, and its label would teach
that the organ is made of nothing. NRRD and MetaImage need no such check: ITK refuses them.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path

from preprocessing.readers.nifti_header import HEADER_BYTES, not_whole, parse

_BLOCK = 1 << 20
_SPARE = 64 << 20  # extensions and padding after the voxels; what is longer is no longer read


def check_nifti_whole(path: Path) -> None:
    """CaseError `unreadable` unless `path` (.nii or .nii.gz) holds as many bytes as its header promises.

    A compressed file is unpacked to its end, so that its own checksum counts too.
    """
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as handle:
            header = handle.read(HEADER_BYTES)
            promised = parse(header).promised_bytes
            found = len(header) + _count(handle, promised + _SPARE - len(header))
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise not_whole(f"{type(error).__name__}: {error}") from error
    if found < promised:
        raise not_whole(f"{found} bytes where the header promises {promised}")


def _count(handle: io.BufferedIOBase, most: int) -> int:
    """Bytes left in `handle`, at most about `most`."""
    count = 0
    while count < most and (block := handle.read(_BLOCK)):
        count += len(block)
    return count
