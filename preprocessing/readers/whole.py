"""Is a NIfTI file all there? ITK fills what is missing at its end with zeros and says nothing.

A copy that broke off would otherwise become a volume with an empty top, and its label would teach
that the organ is made of nothing. NRRD and MetaImage need no such check: ITK refuses them.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

from infra.errors import CaseError

_BLOCK = 1 << 20
_SPARE = 64 << 20  # extensions and padding after the voxels; what is longer is no longer read
_HEADER = 540  # bytes of the longer of the two headers, NIfTI-2


def check_nifti_whole(path: Path) -> None:
    """CaseError `unreadable` unless `path` (.nii or .nii.gz) holds as many bytes as its header promises.

    A compressed file is unpacked to its end, so that its own checksum counts too.
    """
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as handle:
            header = handle.read(_HEADER)
            promised = _promised(header)
            found = len(header) + _count(handle, promised + _SPARE - len(header))
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise _refusal(f"{type(error).__name__}: {error}") from error
    if found < promised:
        raise _refusal(f"{found} bytes where the header promises {promised}")


def _promised(header: bytes) -> int:
    """Bytes up to the last voxel, by a NIfTI-1 or NIfTI-2 header (nifti1.h, nifti2.h) of either byte order."""
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", header, 0)
        if size == 348:
            dim = struct.unpack_from(f"{order}8h", header, 40)
            (bits,) = struct.unpack_from(f"{order}h", header, 72)
            (offset,) = struct.unpack_from(f"{order}f", header, 108)
        elif size == 540:
            (bits,) = struct.unpack_from(f"{order}h", header, 14)
            dim = struct.unpack_from(f"{order}8q", header, 16)
            (offset,) = struct.unpack_from(f"{order}q", header, 168)
        else:
            continue
        if not 1 <= dim[0] <= 7 or bits <= 0 or not math.isfinite(offset):
            raise _refusal(f"a header with {dim[0]} dimensions of {bits} bits at byte {offset}")
        voxels: int = math.prod(max(1, int(each)) for each in dim[1 : int(dim[0]) + 1])
        return int(offset) + voxels * int(bits) // 8
    raise _refusal("no NIfTI header")


def _count(handle: io.BufferedIOBase, most: int) -> int:
    """Bytes left in `handle`, at most about `most`."""
    count = 0
    while count < most and (block := handle.read(_BLOCK)):
        count += len(block)
    return count


def _refusal(found: str) -> CaseError:
    return CaseError(
        "unreadable",
        expected="a NIfTI file that is whole",
        found=found,
        fix="Fetch the file again, or leave the case out",
    )
